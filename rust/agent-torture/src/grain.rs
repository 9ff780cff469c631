//! Fully in or fully out: what a death in the middle of an operation may leave, and what of it is in.
//!
//! | grain | what is in or out as one |
//! |---|---|
//! | `Whole` | everything that the operation changes |
//! | `Items` | each value, each bucket and each sum: an operation on several series, or one of several steps |
//! | `Buckets` | each value with its part of the sum: a batch of values that are all upper bounds of their buckets |
//! | `Rising` | each value by itself, or a number in between: a counter whose whole and fraction are added one by one |
//! | `Nothing` | the operation changes nothing that is shown |
//!
//! Of a ring, any of its records may be read, in their order; others are lost one by one while they are overwritten.

use crate::picture::{Item, Picture};
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    Whole,
    Items,
    Buckets,
    Rising,
    Nothing,
}

/// The items of a picture that show the operation as done.
pub type Done<'p> = BTreeSet<&'p (String, String)>;

/// What is shown before and after an operation.
pub struct Span<'p> {
    pub grain: Grain,
    pub before: &'p Picture,
    pub after: &'p Picture,
}

impl<'p> Span<'p> {
    /// Everything that the operation changes.
    pub fn changes(&self) -> Done<'p> {
        let keys = self.before.items.keys().chain(self.after.items.keys());
        keys.filter(|key| self.before.items.get(*key) != self.after.items.get(*key)).collect()
    }

    /// What of the operation is in; or what is neither in nor out.
    pub fn done(&self, found: &Picture) -> Result<Done<'p>, String> {
        if let Some(fault) = found.faults.first() {
            return Err(fault.clone());
        }
        let changes = self.changes();
        if self.grain == Grain::Nothing && !changes.is_empty() {
            return Err(format!("it changes {:?}", changes.first()));
        }
        let mut done = Done::new();
        let known: BTreeSet<_> = self.before.items.keys().chain(self.after.items.keys()).collect();
        if let Some(new) = found.items.keys().find(|key| !known.contains(key)) {
            return Err(format!("{} has {} that was never there", new.0, new.1));
        }
        for key in known {
            let [now, before, after] = [found, self.before, self.after].map(|p| p.items.get(key));
            if now == before {
                continue;
            }
            // Of a batch, sums are what the buckets say, and those are filled value by value.
            let is_sum = self.grain == Grain::Buckets && key.1 == "sum";
            if now == after && !is_sum {
                done.insert(key);
            } else if !is_sum && !self.is_on_its_way(now, before, after) {
                let [now, before, after] = [now, before, after].map(told);
                let (series, part) = key;
                return Err(format!(
                    "{series}: {part} is {now}; it was {before}, and is {after} afterwards"
                ));
            }
        }
        if self.grain == Grain::Whole && !done.is_empty() && done != changes {
            let missing = changes.difference(&done).next();
            return Err(format!("half done: {:?} is in, {missing:?} is out", done.first()));
        }
        if self.grain == Grain::Buckets {
            self.sums(found, &changes, &mut done)?;
        }
        self.ring(found)?;
        Ok(done)
    }

    /// Each sum is what was there before and what the buckets that are in have brought.
    fn sums(&self, found: &Picture, changes: &Done<'p>, done: &mut Done<'p>) -> Result<(), String> {
        for &key in changes.iter().filter(|key| key.1 == "sum") {
            let sum_in = |picture: &Picture| match picture.items.get(key) {
                Some(Item::Sum(sum)) => *sum,
                _ => 0.0,
            };
            let mut expected = sum_in(self.before);
            for &bucket in changes.iter().filter(|bucket| bucket.0 == key.0) {
                let count = |picture: &Picture| match picture.items.get(bucket) {
                    Some(Item::Bucket(_, count)) => *count as f64,
                    _ => 0.0,
                };
                if let Some(Item::Bucket(bound, _)) = found.items.get(bucket) {
                    expected += bound * (count(found) - count(self.before));
                }
            }
            if expected != sum_in(found) {
                let (series, sum) = (&key.0, sum_in(found));
                return Err(format!("{series}: the sum is {sum}, its buckets say {expected}"));
            }
            if sum_in(found) == sum_in(self.after) {
                done.insert(key);
            }
        }
        Ok(())
    }

    fn ring(&self, found: &Picture) -> Result<(), String> {
        let holds = |picture: &Picture| {
            let mut records = picture.ring.iter();
            found.ring.iter().all(|record| records.any(|other| other == record))
        };
        if holds(self.before) || holds(self.after) {
            return Ok(());
        }
        Err(format!("the ring gives {:?}; before it gave {:?}", found.ring, self.before.ring))
    }

    /// Whether a number is between two others, where the grain has such.
    fn is_on_its_way(&self, now: Option<&Item>, one: Option<&Item>, two: Option<&Item>) -> bool {
        let number = |item: Option<&Item>| match (self.grain, item) {
            (Grain::Rising, Some(Item::Text(text))) => counter(text),
            (Grain::Buckets, Some(Item::Bucket(_, count))) => Some(*count as f64),
            (Grain::Buckets, None) => Some(0.0),
            _ => None,
        };
        match (number(one), number(now), number(two)) {
            (Some(one), Some(now), Some(two)) => one <= now && now <= two,
            _ => false,
        }
    }
}

/// `Counter { whole: 3, fraction: 0.5 }` as a number.
fn counter(text: &str) -> Option<f64> {
    let numbers = text.split([' ', ',', '}']).filter_map(|word| word.parse::<f64>().ok());
    text.starts_with("Counter").then(|| numbers.sum())
}

fn told(item: Option<&Item>) -> String {
    item.map_or("not there".into(), Item::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(items: &[(&str, &str, Item)]) -> Picture {
        let items = items.iter().map(|(a, b, item)| ((a.to_string(), b.to_string()), item.clone()));
        Picture { items: items.collect(), ..Picture::default() }
    }

    fn histogram(ones: u64, twos: u64, sum: f64) -> Picture {
        picture(&[
            ("h", "le 1", Item::Bucket(1.0, ones)),
            ("h", "le 2", Item::Bucket(2.0, twos)),
            ("h", "sum", Item::Sum(sum)),
        ])
    }

    fn done(grain: Grain, found: &Picture) -> Result<usize, String> {
        let (before, after) = (histogram(1, 1, 3.0), histogram(2, 3, 8.0));
        Span { grain, before: &before, after: &after }.done(found).map(|done| done.len())
    }

    #[test]
    fn a_whole_operation_is_in_or_out() {
        assert_eq!(done(Grain::Whole, &histogram(1, 1, 3.0)), Ok(0));
        assert_eq!(done(Grain::Whole, &histogram(2, 3, 8.0)), Ok(3));
        for half in [histogram(2, 1, 3.0), histogram(2, 3, 3.0), histogram(1, 1, 8.0)] {
            assert!(done(Grain::Whole, &half).is_err(), "{half:?}");
        }
        assert!(done(Grain::Whole, &histogram(9, 1, 3.0)).is_err());
        assert!(done(Grain::Whole, &Picture::default()).is_err());
    }

    #[test]
    fn a_batch_is_in_or_out_bucket_by_bucket_with_its_part_of_the_sum() {
        assert_eq!(done(Grain::Buckets, &histogram(2, 1, 4.0)), Ok(1));
        assert_eq!(done(Grain::Buckets, &histogram(1, 3, 7.0)), Ok(1));
        assert_eq!(done(Grain::Buckets, &histogram(2, 3, 8.0)), Ok(3));
        assert_eq!(done(Grain::Buckets, &histogram(1, 2, 5.0)), Ok(0), "one of two values");
        for half in [histogram(2, 1, 3.0), histogram(2, 1, 8.0), histogram(1, 2, 6.0)] {
            assert!(done(Grain::Buckets, &half).is_err(), "{half:?}");
        }
    }

    #[test]
    fn a_ring_gives_its_last_records() {
        let ring = |records: &[&str]| Picture {
            ring: records.iter().map(|record| record.to_string()).collect(),
            ..Picture::default()
        };
        let (before, after) = (ring(&["a", "b", "c"]), ring(&["b", "c", "d"]));
        let span = Span { grain: Grain::Nothing, before: &before, after: &after };
        for good in [&["a", "b", "c"][..], &["a", "c"], &["b", "c", "d"], &[]] {
            assert!(span.done(&ring(good)).is_ok(), "{good:?}");
        }
        for bad in [&["c", "b"][..], &["b", "b"], &["x"], &["a", "b", "c", "d"]] {
            assert!(span.done(&ring(bad)).is_err(), "{bad:?}");
        }
    }
}
