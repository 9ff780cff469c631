//! Many observations in one call.
//!
//! Values are first added up in private memory, bucket by bucket, then each touched bucket changes once: one 16-byte step
//! for hundreds of values instead of one for each. Each value is still fully in or fully out when the process dies, since
//! it is in one bucket only; a batch as a whole may be half in.

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
        match s.kind {
            _ if values.len() < BATCH_MIN => self.one_by_one(s, values),
            Cells::Exponential { schema } => self.many_exponential(s, schema, values),
            Cells::Explicit => self.many_explicit(s, values),
            Cells::Summary { keeps } => self.many_summary(s, keeps, values),
            Cells::Counter | Cells::SharedGauge | Cells::SlotGauge(_) => {}
        }
        Outcome::Applied
    }

    fn one_by_one(&self, s: &Series, values: &[f64]) {
        values.iter().for_each(|&value| self.observe_inside(s, value, 1));
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
    fn many_exponential(&self, s: &Series, schema: u8, values: &[f64]) {
        let mut table = vec![(0_u64, 0.0_f64); 128 << schema];
        let mut touched = Vec::with_capacity(256);
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
                _ => self.observe_inside(s, value, 1),
            }
        }
        for place in touched {
            let (count, sum) = table[place];
            let index = (place & ((1 << schema) - 1)) as u64;
            let pair = self.bucket(s.own.get(), false, place >> schema, index, schema);
            self.observe_pair(s, pair, count, sum);
        }
    }
}
