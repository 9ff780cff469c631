//! Many observations in one call.
//!
//! Values are first added up in private memory, bucket by bucket, then each touched bucket changes once: one 16-byte step
//! for hundreds of values instead of one for each. Each value is still fully in or fully out when the process dies, since
//! it is in one bucket only; a batch as a whole may be half in. Without memory for a bucket nothing of it is counted.

use crate::cells::{explicit_index, Cells};
use crate::handle::{Outcome, Series};
use crate::writer::Writer;
use agent_metric::octave::{self, Place};

/// Shorter batches are observed one by one: a table would cost more than it saves.
const BATCH_MIN: usize = 64;

impl Writer {
    /// Counts every value once; none is NaN.
    pub fn observe_many(&self, s: &Series, values: &[f64]) -> Outcome {
        // A guard, not a closure: nothing may leave the section open.
        let _guard = self.enter();
        if !self.holds(s) {
            return Outcome::Stale;
        }
        let result = match s.kind {
            Cells::Summary { keeps } => {
                self.many_summary(s, keeps, values);
                Ok(())
            }
            Cells::Counter | Cells::SharedGauge | Cells::SlotGauge(_) => Ok(()),
            _ if values.len() < BATCH_MIN => self.one_by_one(s, values),
            Cells::Exponential { schema } => self.many_exponential(s, schema, values),
            Cells::Explicit => {
                self.many_explicit(s, values);
                Ok(())
            }
        };
        result.err().unwrap_or(Outcome::Applied)
    }

    /// All or none: the buckets are there before the first value is counted.
    fn one_by_one(&self, s: &Series, values: &[f64]) -> Result<(), Outcome> {
        let mut pairs = [0; BATCH_MIN];
        for (pair, &value) in pairs.iter_mut().zip(values) {
            *pair = self.pair_of(s, value)?;
        }
        for (&pair, &value) in pairs.iter().zip(values) {
            self.observe_pair(s, pair, 1, value);
        }
        Ok(())
    }

    fn many_explicit(&self, s: &Series, values: &[f64]) {
        let mut table = vec![(0_u64, 0.0_f64); s.bounds.len() + 1];
        for &value in values {
            let bucket = &mut table[explicit_index(&s.bounds, value)];
            bucket.0 += 1;
            bucket.1 += value;
        }
        for (index, (count, sum)) in table.into_iter().enumerate().filter(|(_, (n, _))| *n > 0) {
            self.observe_pair(s, s.own.get() + index as u64 * 16, count, sum);
        }
    }

    /// Positive values of the 128 octaves go through a table; the rest, which is rare, one by one.
    fn many_exponential(&self, s: &Series, schema: u8, values: &[f64]) -> Result<(), Outcome> {
        let mut table = vec![(0_u64, 0.0_f64); 128 << schema];
        let mut touched = Vec::with_capacity(256);
        let mut others = Vec::new();
        for &value in values {
            match octave::place(value, schema) {
                Place::Bucket { negative: false, octave, index } => {
                    let place = octave << schema | index;
                    let bucket = &mut table[place];
                    if bucket.0 == 0 {
                        touched.push(place);
                    }
                    bucket.0 += 1;
                    bucket.1 += value;
                }
                _ => others.push((self.pair_of(s, value)?, value)),
            }
        }
        let mut pairs = Vec::with_capacity(touched.len());
        for &place in &touched {
            let index = (place & ((1 << schema) - 1)) as u64;
            pairs.push(self.bucket(s, false, place >> schema, index, schema)?);
        }
        for (pair, value) in others {
            self.observe_pair(s, pair, 1, value);
        }
        for (pair, place) in pairs.into_iter().zip(touched) {
            let (count, sum) = table[place];
            self.observe_pair(s, pair, count, sum);
        }
        Ok(())
    }
}
