//! Sliding windows of one distribution: the last 1, 10 and 60 seconds, in slices of one second.
//!
//! ```text
//! samples -> slice of the running second -> [slice 60 | 59 | ... | 1]   complete seconds
//!                                            sum of 60 kept, of 10 and 1 added up when asked
//! ```
//!
//! A slice is a sorted list of exponential buckets, 16 to the power of two, so only touched buckets
//! cost memory (8 bytes each). The estimate is the middle of a bucket by ratio; its relative error is
//! at most (g - 1) / (g + 1) with g = 2^(1/16), that is 2.17 %. Zero is exact, negative values have
//! buckets of their own. A quantile is the nearest rank: the smallest value with at least `q` of all
//! samples at or below it.
//!
//! Limits: 60 slices; a bucket counts to 2^32 in a slice and then stays. Pure: time is an argument.
//!
//! Not promised: a window ends with the last complete second, so it is up to one second old; samples
//! that come later than their second are counted in the running one.

use std::collections::VecDeque;

/// Complete seconds kept.
pub const SECONDS: usize = 60;
/// Buckets of one octave.
const PER_OCTAVE: f64 = 16.0;
/// Bits of a record that carry the weight of a sample: 2^20 - 1 is above `1 / rate_min`.
const WEIGHT_BITS: u32 = 20;
const WEIGHT_MASK: u64 = (1 << WEIGHT_BITS) - 1;
/// No finite f64 has a logarithm that leads beyond this, in either direction.
const ORIGIN: i32 = 20_000;

/// A value and its weight in one ring record: the weight takes the low bits of the fraction, which
/// leaves 32 of its bits, a relative error below 10^-9.
#[inline]
pub fn pack(value: f64, weight: u64) -> u64 {
    (value.to_bits() & !WEIGHT_MASK) | weight.clamp(1, WEIGHT_MASK)
}

/// Back from [`pack`].
#[inline]
pub fn unpack(bits: u64) -> (f64, u64) {
    (f64::from_bits(bits & !WEIGHT_MASK), bits & WEIGHT_MASK)
}

/// The bucket of a value; ordered as the values are.
fn bucket_of(value: f64) -> i32 {
    if value == 0.0 {
        return 0;
    }
    let place = (value.abs().log2() * PER_OCTAVE).ceil() as i32 + ORIGIN;
    if value < 0.0 {
        -place
    } else {
        place
    }
}

/// The value a bucket stands for.
fn value_of(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let growth = (1.0 / PER_OCTAVE).exp2();
    // In two steps, because the upper bound of the highest bucket is beyond f64.
    let upper = f64::from(bucket.abs() - ORIGIN - 1) / PER_OCTAVE;
    let middle = upper.exp2() * (2.0 * growth / (growth + 1.0));
    middle.min(f64::MAX).copysign(f64::from(bucket))
}

/// Counts by bucket, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch {
    buckets: Vec<(i32, u32)>,
    count: u64,
}

impl Sketch {
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn observe(&mut self, bucket: i32, times: u64) {
        match self.buckets.binary_search_by_key(&bucket, |&(at, _)| at) {
            Ok(at) => {
                let count = &mut self.buckets[at].1;
                *count = count.saturating_add(times.min(u64::from(u32::MAX)) as u32);
            }
            Err(at) => {
                self.buckets.insert(at, (bucket, times.min(u64::from(u32::MAX)) as u32));
            }
        }
        self.count += times;
    }

    fn merge(&mut self, other: &Sketch) {
        for &(bucket, times) in &other.buckets {
            match self.buckets.binary_search_by_key(&bucket, |&(at, _)| at) {
                Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(times),
                Err(at) => self.buckets.insert(at, (bucket, times)),
            }
        }
        self.count += other.count;
    }

    /// The value at a quantile in `0 ..= 1`; nothing when there are no samples.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().map(|&(_, times)| u64::from(times)).sum();
        let rank = ((q * total as f64).ceil() as u64).clamp(1, total.max(1));
        let mut below = 0;
        let found = self.buckets.iter().find(|&&(_, times)| {
            below += u64::from(times);
            below >= rank
        });
        found.map(|&(bucket, _)| value_of(bucket))
    }
}

/// The windows of one distribution.
#[derive(Debug, Default)]
pub struct Window {
    running: Sketch,
    /// Complete seconds, the newest first; trailing empty ones are not kept.
    slices: VecDeque<Sketch>,
}

impl Window {
    #[inline]
    pub fn observe(&mut self, value: f64, times: u64) {
        self.running.observe(bucket_of(value), times);
    }

    /// `seconds` have passed since the last call: the running second is complete.
    pub fn turn(&mut self, seconds: u64) {
        if seconds == 0 {
            return;
        }
        let complete = std::mem::take(&mut self.running);
        self.slices.push_front(complete);
        // A late call leaves empty seconds after the one that was running.
        for _ in 1..seconds.min(SECONDS as u64 + 1) {
            self.slices.push_front(Sketch::default());
        }
        self.slices.truncate(SECONDS);
        while self.slices.back().is_some_and(Sketch::is_empty) {
            self.slices.pop_back();
        }
    }

    /// The last complete `seconds`, added up.
    pub fn last(&self, seconds: usize) -> Sketch {
        let mut sum = Sketch::default();
        self.slices.iter().take(seconds).for_each(|slice| sum.merge(slice));
        sum
    }

    /// Samples of the last complete `seconds`.
    pub fn count(&self, seconds: usize) -> u64 {
        self.slices.iter().take(seconds).map(Sketch::count).sum()
    }

    /// Whether nothing is left in sight.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.running.is_empty()
    }
}

/// Error labels of one metric over the same seconds: how many samples, how many of them failed.
#[derive(Debug, Default)]
pub struct Shares {
    running: (u64, u64),
    slices: VecDeque<(u64, u64)>,
}

impl Shares {
    pub fn observe(&mut self, is_error: bool, times: u64) {
        self.running.0 += times;
        self.running.1 += if is_error { times } else { 0 };
    }

    pub fn turn(&mut self, seconds: u64) {
        if seconds == 0 {
            return;
        }
        self.slices.push_front(std::mem::take(&mut self.running));
        for _ in 1..seconds.min(SECONDS as u64 + 1) {
            self.slices.push_front((0, 0));
        }
        self.slices.truncate(SECONDS);
        while self.slices.back() == Some(&(0, 0)) {
            self.slices.pop_back();
        }
    }

    /// The share of errors over the last complete `seconds`; nothing without a sample.
    pub fn share(&self, seconds: usize) -> Option<f64> {
        let add = |sum: (u64, u64), slice: &(u64, u64)| (sum.0 + slice.0, sum.1 + slice.1);
        let (all, errors) = self.slices.iter().take(seconds).fold((0, 0), add);
        (all > 0).then(|| errors as f64 / all as f64)
    }

    pub fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.running == (0, 0)
    }
}

/// Whether the labels of a series say that its samples are failures: `status` or `code` of 500 or
/// more, `error` of `true` or `1`, `outcome` of `error` or `failure`.
pub fn is_error(labels: &str) -> bool {
    agent_wire::labels::parse(labels).any(|(name, value)| match name {
        "status" | "code" | "status_code" => value.parse::<u32>().is_ok_and(|code| code >= 500),
        "error" => matches!(&*value, "true" | "1"),
        "outcome" => matches!(&*value, "error" | "failure"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_weight_travels_in_the_low_bits() {
        for value in [0.001234, 1e300, -7.5, 0.0, f64::MIN_POSITIVE] {
            for weight in [1, 10, 1_000_000] {
                let (back, times) = unpack(pack(value, weight));
                assert_eq!(times, weight);
                assert!((back - value).abs() <= value.abs() * 1e-9, "{value} came as {back}");
            }
        }
        assert_eq!(unpack(pack(1.0, u64::MAX)).1, WEIGHT_MASK);
    }

    #[test]
    fn windows_slide_and_forget() {
        let mut window = Window::default();
        for second in 0..100u64 {
            window.observe(1.0, second);
            window.turn(1);
        }
        assert_eq!(window.count(1), 99);
        assert_eq!(window.count(10), (90..100).sum::<u64>());
        assert_eq!(window.count(60), (40..100).sum::<u64>());
        window.turn(30);
        assert_eq!(window.count(10), 0);
        assert_eq!(window.last(60).count(), (70..100).sum::<u64>());
        window.turn(1000);
        assert!(window.is_empty());
    }

    #[test]
    fn the_running_second_is_not_yet_in_a_window() {
        let mut window = Window::default();
        window.observe(5.0, 1);
        assert_eq!(window.last(60).quantile(0.5), None);
        window.turn(1);
        let median = window.last(1).quantile(0.5).expect("one sample");
        assert!((median - 5.0).abs() <= 5.0 * 0.022);
    }

    #[test]
    fn error_labels_are_those_of_the_list() {
        for labels in
            [r#"status="500""#, r#"a="b",code="503""#, r#"error="true""#, r#"outcome="error""#]
        {
            assert!(is_error(labels), "{labels}");
        }
        for labels in
            ["", r#"status="499""#, r#"code="ok""#, r#"error="false""#, r#"errors="true""#]
        {
            assert!(!is_error(labels), "{labels}");
        }
        let mut shares = Shares::default();
        assert_eq!(shares.share(1), None);
        shares.observe(true, 1);
        shares.observe(false, 3);
        shares.turn(1);
        assert_eq!(shares.share(1), Some(0.25));
        shares.turn(1);
        assert_eq!((shares.share(1), shares.share(10)), (None, Some(0.25)));
    }

    proptest! {
        /// Against the sorted samples: never more than 2.2 % off, for any size and sign.
        #[test]
        fn a_quantile_is_within_its_error(
            values in proptest::collection::vec(
                prop_oneof![-1e9f64..1e9, 1e-12f64..1.0, Just(0.0), any::<f64>()], 1..200),
            q in 0.0f64..=1.0,
        ) {
            let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
            prop_assume!(!sorted.is_empty());
            let mut window = Window::default();
            sorted.iter().for_each(|&value| window.observe(value, 1));
            window.turn(1);
            sorted.sort_by(f64::total_cmp);
            let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let exact = sorted[rank - 1];
            let estimate = window.last(1).quantile(q).expect("samples");
            // Below the normal numbers f64 itself is coarse.
            let error = (estimate - exact).abs();
            prop_assert!(error <= exact.abs() * 0.022 + f64::MIN_POSITIVE, "{} for {}", estimate, exact);
        }
    }
}
