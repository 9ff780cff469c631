//! A histogram of durations that can be merged: log-linear, of a fixed layout.
//!
//! Durations are whole nanoseconds. Below 128 ns each has a bucket of its own; above, each octave is
//! cut into 128 buckets. A quantile is told by the upper bound of its bucket: never below the true
//! one and at most 1/128 (0.8 %) above it. Adding two histograms adds the counts of their buckets,
//! exactly, in any order. 4,864 buckets reach 2^44 ns (4.9 hours); what is longer counts as that.
//!
//! Bucket `i` holds the durations `lower(i) ..= upper(i)`; the controller knows this layout.

const BITS: u32 = 7;
const SUB: u64 = 1 << BITS;
const NS_MAX: u64 = (1 << 44) - 1;
/// One past the last bucket.
pub const BUCKETS: usize = bucket_of(NS_MAX) + 1;

/// The bucket of a duration.
const fn bucket_of(ns: u64) -> usize {
    let ns = if ns > NS_MAX { NS_MAX } else { ns };
    if ns < SUB {
        return ns as usize;
    }
    let octave = ns.ilog2() - BITS;
    (((octave + 1) as u64) * SUB + ((ns >> octave) - SUB)) as usize
}

/// The longest duration of a bucket.
pub fn upper_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let octave = bucket / SUB - 1;
    ((SUB + bucket % SUB + 1) << octave) - 1
}

/// Counts of durations since they were last taken.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u32>,
    /// The buckets that may be other than zero.
    touched: std::ops::Range<usize>,
    count: u64,
    sum_ns: u64,
    max_ns: u64,
}

/// What was recorded: `(bucket, count)` in ascending order, and what buckets cannot tell exactly.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Delta {
    pub buckets: Vec<(u32, u32)>,
    pub sum_ns: u64,
    pub max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; BUCKETS], touched: 0..0, count: 0, sum_ns: 0, max_ns: 0 }
    }
}

impl Histogram {
    #[inline]
    pub fn record(&mut self, ns: u64) {
        let bucket = bucket_of(ns);
        self.buckets[bucket] += 1;
        self.count += 1;
        self.sum_ns = self.sum_ns.wrapping_add(ns);
        self.max_ns = self.max_ns.max(ns);
        if self.touched.is_empty() {
            self.touched = bucket..bucket + 1;
        } else {
            self.touched.start = self.touched.start.min(bucket);
            self.touched.end = self.touched.end.max(bucket + 1);
        }
    }

    /// Gives what was recorded since the last time, and starts anew.
    pub fn take(&mut self) -> Delta {
        let range = std::mem::take(&mut self.touched);
        let first = range.start;
        let mut buckets = Vec::new();
        for (at, count) in self.buckets[range].iter_mut().enumerate() {
            if *count > 0 {
                buckets.push(((first + at) as u32, std::mem::take(count)));
            }
        }
        self.count = 0;
        let (sum_ns, max_ns) = (std::mem::take(&mut self.sum_ns), std::mem::take(&mut self.max_ns));
        Delta { buckets, sum_ns, max_ns }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn add(into: &mut BTreeMap<u32, u32>, delta: &Delta) {
        for &(bucket, count) in &delta.buckets {
            *into.entry(bucket).or_default() += count;
        }
    }

    #[test]
    fn the_layout_is_as_documented() {
        assert_eq!(BUCKETS, 4864);
        assert_eq!((bucket_of(127), bucket_of(128), bucket_of(255)), (127, 128, 255));
        assert_eq!((bucket_of(256), bucket_of(257), bucket_of(258)), (256, 256, 257));
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_ns(BUCKETS - 1), NS_MAX);
    }

    proptest! {
        #[test]
        fn a_bucket_tells_its_durations_within_a_128th(ns in 0..NS_MAX) {
            let upper = upper_ns(bucket_of(ns));
            prop_assert!(upper >= ns);
            prop_assert!(upper - ns <= ns / 128);
            prop_assert!(bucket_of(upper) == bucket_of(ns));
            prop_assert!(bucket_of(upper + 1) == bucket_of(ns) + 1 || upper == NS_MAX);
        }

        #[test]
        fn parts_add_up_to_the_whole(parts in proptest::collection::vec(
            proptest::collection::vec(0u64..1 << 40, 0..50), 1..6,
        )) {
            let (mut whole, mut merged) = (Histogram::default(), BTreeMap::new());
            let mut reused = Histogram::default();
            for part in &parts {
                for &ns in part {
                    whole.record(ns);
                    reused.record(ns);
                }
                add(&mut merged, &reused.take());
                prop_assert!(reused.is_empty());
            }
            let mut wanted = BTreeMap::new();
            let told = whole.take();
            add(&mut wanted, &told);
            prop_assert_eq!(merged, wanted);
            let all: Vec<u64> = parts.concat();
            prop_assert_eq!(told.max_ns, all.iter().copied().max().unwrap_or(0));
            prop_assert_eq!(told.sum_ns, all.iter().sum::<u64>());
        }
    }
}
