//! Adding a value that was counted elsewhere: in memory of this process, while the segment had no room.

use crate::cells::{explicit_index, observe_sum, Cells};
use crate::handle::{Outcome, Series};
use crate::parts;
use crate::value::Value;
use crate::writer::Writer;
use agent_metric::octave::{self, Place};

impl Writer {
    /// Adds a value of the same shape to a series: counts to counts, buckets to buckets. To a gauge it is added, and one of
    /// one value per process takes what this process said last. A process killed in between has added part of it.
    pub fn absorb(&self, s: &Series, value: &Value<'_>) {
        match value {
            Value::Counter { whole, fraction } => {
                let _ = self.add(s, *whole);
                if *fraction > 0.0 {
                    let _ = self.add_f64(s, *fraction);
                }
            }
            // Beside what others count in it: a gauge that is set is right again with its next value.
            Value::Gauge(value) => {
                let _ = self.shift(s, *value);
            }
            Value::GaugePerProcess(values) => {
                if let Some(last) = values.last() {
                    let _ = self.set(s, last.value);
                }
            }
            Value::Summary { count, sum } => {
                self.absorb_buckets(s, &[(f64::INFINITY, *count)], *sum)
            }
            Value::Histogram { buckets, sum, .. } => self.absorb_buckets(s, buckets, *sum),
        }
    }

    /// Which bucket has how much of the sum is not known and not asked: all of it goes with the first.
    fn absorb_buckets(&self, s: &Series, buckets: &[(f64, u64)], sum: f64) {
        let _ = self.guarded(s, || {
            let mut sum = sum;
            for &(upper, count) in buckets.iter().filter(|(_, count)| *count > 0) {
                let pair = self.pair_of_bucket(s, upper);
                self.hot(s, observe_sum(self.region().pair(pair), count, std::mem::take(&mut sum)));
            }
            Outcome::Applied
        });
    }

    fn pair_of_bucket(&self, s: &Series, upper: f64) -> u64 {
        let own = s.own.get();
        match s.kind {
            Cells::Explicit => own + explicit_index(&s.bounds, upper) as u64 * 16,
            Cells::Exponential { schema } => match octave::place(inside(upper), schema) {
                Place::Bucket { negative, octave, index } => {
                    self.bucket(own, negative, octave, index as u64, schema)
                }
                Place::Zero => own + parts::EXPONENTIAL_ZERO,
                Place::Over { negative: false } => own + parts::EXPONENTIAL_OVER,
                Place::Over { negative: true } => own + parts::EXPONENTIAL_UNDER,
            },
            _ => own,
        }
    }
}

/// A value in the bucket whose upper bound this is: of negative buckets the bound itself is outside.
fn inside(upper: f64) -> f64 {
    if upper < 0.0 {
        // One step away from zero: the next larger magnitude.
        f64::from_bits(upper.to_bits() + 1)
    } else {
        upper
    }
}
