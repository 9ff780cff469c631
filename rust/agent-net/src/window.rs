//! Sliding windows of one distribution: the last 1, 10 and 60 seconds, in slices of one second.
//!
//! ```text
//! samples -> next second -> running second -> [slice 1 | 2 | ... | 60]   complete seconds
//!                                              sums over 1, 10 and 60 slices, kept up to date
//! ```
//!
//! Buckets are those of [`agent_shm::octave`] with 16 to the power of two. The estimate is the
//! middle of a bucket by ratio; its relative error is at most (g - 1) / (g + 1) with g = 2^(1/16),
//! that is 2.17 %. Negative values have buckets of their own. A quantile is the nearest rank: the
//! smallest value with at least `q` of all samples at or below it. The second that is not over yet
//! takes two parts, because a reader of rings finds the first records of a new second before it can
//! know that the old one is complete.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | magnitude | 2^-64 to 2^64 | reads as 0, as 2^64 |
//! | buckets of a slice | 512 (32 powers of two) | the lowest ones become one |
//! | samples of a bucket in a slice | 2^32 - 1 | not counted |
//! | weight of a sample | 2^20 - 1 | not counted |
//! | memory | 8 bytes a touched bucket and slice, 450 KiB at most, typically 15 | |
//!
//! Pure: time is an argument. A bucket costs 2 ns to count in; a second costs what it touched.
//!
//! Not promised: a window ends with the last complete second, so it is up to one second old;
//! samples that come later than their second are counted in the running one.

use std::collections::VecDeque;

use agent_metric::quantiles;
use agent_shm::octave::{self, Place};

/// Lengths of the windows in seconds, ascending.
pub const WINDOWS_S: [usize; 3] = [1, 10, 60];
/// Complete seconds kept.
pub const SECONDS: usize = 60;
/// Buckets kept of one second.
pub const SLICE_BUCKETS_MAX: usize = 512;

const SCHEMA: u8 = 4;
const PER_OCTAVE: usize = 1 << SCHEMA;
const OCTAVES: usize = (octave::OCTAVE_MAX - octave::OCTAVE_MIN + 1) as usize;
/// The bucket of everything above the highest bound.
const OVER: i16 = (OCTAVES * PER_OCTAVE + 1) as i16;
/// Room for buckets that a quiet second may keep.
const IDLE_BUCKETS_MAX: usize = 512;

/// Bits of a record that carry the weight of a sample: 2^20 - 1 is above `1 / rate_min`.
const WEIGHT_BITS: u32 = 20;
const WEIGHT_MASK: u64 = (1 << WEIGHT_BITS) - 1;

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

/// The bucket of a value that is not NaN; ordered as the values are.
#[inline]
fn bucket_of(value: f64) -> i16 {
    let signed = |negative: bool, at: i16| if negative { -at } else { at };
    match octave::place(value, SCHEMA) {
        Place::Zero => 0,
        Place::Bucket { negative, octave, index } => {
            signed(negative, (octave * PER_OCTAVE + index + 1) as i16)
        }
        Place::Over { negative } => signed(negative, OVER),
    }
}

/// The value a bucket stands for.
fn value_of(bucket: i16) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let place = usize::from(bucket.unsigned_abs()) - 1;
    let (octave, index) = (place / PER_OCTAVE, place % PER_OCTAVE);
    let magnitude = if octave < OCTAVES {
        let (low, high) = octave::bounds(false, octave, index, SCHEMA);
        // As far from both bounds by ratio.
        2.0 * low / (low + high) * high
    } else {
        f64::from(octave::OCTAVE_MAX + 1).exp2()
    };
    magnitude.copysign(f64::from(bucket))
}

/// The buckets of a second that is not over: an array from the lowest to the highest one touched.
#[derive(Debug, Default)]
struct Open {
    /// Bucket of the first count.
    base: i32,
    counts: Vec<u64>,
    count: u64,
    /// Smallest and largest value, when there is one.
    range: (f64, f64),
}

impl Open {
    #[inline]
    fn observe(&mut self, value: f64, times: u64) {
        let (low, high) = if self.count == 0 { (value, value) } else { self.range };
        self.range = (low.min(value), high.max(value));
        self.add(bucket_of(value), times);
    }

    #[inline]
    fn add(&mut self, bucket: i16, times: u64) {
        self.count += times;
        // Below the base it wraps to a number beyond the end.
        match self.counts.get_mut((i32::from(bucket) - self.base) as usize) {
            Some(count) => *count += times,
            None => self.widen(bucket, times),
        }
    }

    #[cold]
    fn widen(&mut self, bucket: i16, times: u64) {
        let octave = PER_OCTAVE as i32;
        let start = i32::from(bucket).div_euclid(octave) * octave;
        if self.counts.is_empty() {
            self.base = start;
        }
        let end = self.base + self.counts.len() as i32;
        if start < self.base {
            let more = (self.base - start) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.base = start;
        } else if start + octave > end {
            self.counts.resize((start + octave - self.base) as usize, 0);
        }
        self.counts[(i32::from(bucket) - self.base) as usize] += times;
    }

    /// Ends the second; the next one begins empty.
    fn close(&mut self) -> Slice {
        if self.count == 0 {
            return Slice::default();
        }
        let touched = self.counts.iter().zip(self.base..).filter(|(&count, _)| count > 0);
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let mut buckets: Vec<(i16, u32)> =
            touched.map(|(&count, bucket)| (bucket as i16, narrow(count))).collect();
        let excess = buckets.len().saturating_sub(SLICE_BUCKETS_MAX);
        if excess > 0 {
            let lowest: u64 = buckets[..=excess].iter().map(|&(_, count)| u64::from(count)).sum();
            buckets.drain(..excess);
            buckets[0].1 = narrow(lowest);
        }
        self.count = 0;
        if self.counts.len() > IDLE_BUCKETS_MAX {
            self.counts = Vec::new();
        } else {
            self.counts.fill(0);
        }
        let count = buckets.iter().map(|&(_, count)| u64::from(count)).sum();
        Slice { buckets: buckets.into_boxed_slice(), count, range: self.range }
    }
}

/// A complete second: its touched buckets, ascending.
#[derive(Debug, Default)]
struct Slice {
    buckets: Box<[(i16, u32)]>,
    count: u64,
    range: (f64, f64),
}

/// Slices added up.
#[derive(Debug, Default)]
pub struct Sum {
    /// Ascending, none with a count of 0.
    buckets: Vec<(i16, u64)>,
    count: u64,
}

impl Sum {
    pub fn count(&self) -> u64 {
        self.count
    }

    fn add(&mut self, slice: &Slice) {
        self.count += slice.count;
        let mut from = 0;
        for &(bucket, times) in &slice.buckets {
            from += self.buckets[from..].partition_point(|&(other, _)| other < bucket);
            match self.buckets.get_mut(from) {
                Some(found) if found.0 == bucket => found.1 += u64::from(times),
                _ => self.buckets.insert(from, (bucket, u64::from(times))),
            }
        }
    }

    /// Takes a slice away that was added before.
    fn subtract(&mut self, slice: &Slice) {
        self.count -= slice.count;
        let (mut from, mut is_any_empty) = (0, false);
        for &(bucket, times) in &slice.buckets {
            from += self.buckets[from..].partition_point(|&(other, _)| other < bucket);
            if let Some(found) = self.buckets.get_mut(from) {
                found.1 -= u64::from(times);
                is_any_empty |= found.1 == 0;
            }
        }
        if is_any_empty {
            self.buckets.retain(|&(_, count)| count > 0);
        }
    }

    /// The value at a quantile in `0 ..= 1`; nothing when there are no samples.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = quantiles::rank(q, self.count);
        let mut below = 0;
        let found = self.buckets.iter().find(|&&(_, count)| {
            below += count;
            below >= rank
        });
        found.map(|&(bucket, _)| value_of(bucket))
    }
}

/// The windows of one distribution.
#[derive(Debug, Default)]
pub struct Window {
    running: Open,
    next: Open,
    /// Complete seconds, the newest first; trailing empty ones are not kept.
    slices: VecDeque<Slice>,
    /// One for each of [`WINDOWS_S`].
    sums: [Sum; WINDOWS_S.len()],
}

impl Window {
    /// A sample of the running second, or of the one after it. `value` is not NaN.
    #[inline]
    pub fn observe(&mut self, value: f64, times: u64, is_next: bool) {
        let second = if is_next { &mut self.next } else { &mut self.running };
        second.observe(value, times);
    }

    /// `seconds` have passed since the last call: the running second is complete, the next one
    /// runs.
    pub fn turn(&mut self, seconds: u64) {
        if seconds == 0 {
            return;
        }
        let complete = self.running.close();
        std::mem::swap(&mut self.running, &mut self.next);
        self.push(complete);
        // A late call leaves empty seconds behind the one that was running.
        for _ in 1..seconds.min(SECONDS as u64 + 1) {
            self.push(Slice::default());
        }
        while self.slices.back().is_some_and(|slice| slice.count == 0) {
            self.slices.pop_back();
        }
    }

    fn push(&mut self, slice: Slice) {
        for (sum, seconds) in self.sums.iter_mut().zip(WINDOWS_S) {
            sum.add(&slice);
            if let Some(leaving) = self.slices.get(seconds - 1) {
                sum.subtract(leaving);
            }
        }
        self.slices.push_front(slice);
        self.slices.truncate(SECONDS);
    }

    /// The last complete seconds, added up: one sum for each of [`WINDOWS_S`].
    pub fn sums(&self) -> &[Sum; WINDOWS_S.len()] {
        &self.sums
    }

    /// The value at a quantile of window number `number`: the middle of its bucket, kept within the smallest and the
    /// largest sample.
    pub fn quantile(&self, number: usize, q: f64) -> Option<f64> {
        let slices = self.slices.iter().take(WINDOWS_S[number]).filter(|slice| slice.count > 0);
        let ranges = slices.map(|slice| slice.range);
        let (low, high) = ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        Some(self.sums[number].quantile(q)?.clamp(low, high))
    }

    /// Whether nothing is left in sight.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty() && self.running.count == 0 && self.next.count == 0
    }
}

/// Whether the labels of a series say that its samples are errors: `status`, `code` or
/// `status_code` of 500 or more, `error` of `true` or `1`, `outcome` of `error` or `failure`.
pub fn is_error(labels: &str) -> bool {
    agent_wire::labels::parse(labels).any(|(name, value)| match name {
        "status" | "code" | "status_code" => value.parse::<u32>().is_ok_and(|code| code >= 500),
        "error" => matches!(&*value, "true" | "1"),
        "outcome" => matches!(&*value, "error" | "failure"),
        _ => false,
    })
}

#[cfg(test)]
#[path = "window_test.rs"]
mod tests;
