//! Several segments of one app as one view.
//!
//! A file that was damaged under living writers is not replaced: those that come later begin in one beside it
//! (beside.rs), and both have a part of every number. Here the parts are put together, series by series:
//!
//! - counters, histograms, summaries: added; a series is as old as its oldest part;
//! - gauges `sum`, `min`, `max`, with and without `live`: summed, the smallest, the largest; `all`: each process once;
//! - `mostrecent`: what the newer file says, and what processes hold in both.
//!
//! A family that both define otherwise is that of the newer file; the other counts as superseded.

use crate::handle::SeriesId;
use crate::value::Value;
use crate::view::{FamilyView, SeriesView, View};
use agent_metric::{OwnedShape, Storage};
use std::collections::HashMap;

impl<'s> View<'s> {
    /// Adds what was counted in an older segment of the same app.
    pub fn join(mut self, older: View<'s>) -> View<'s> {
        self.superseded += older.superseded;
        self.damaged += older.damaged;
        for mut family in older.families {
            match self.families.binary_search_by(|known| known.meta.name.cmp(&family.meta.name)) {
                Err(at) => {
                    family.is_main = false;
                    self.families.insert(at, family);
                }
                Ok(at) if self.families[at].is_defined_like(&family) => {
                    let known = &mut self.families[at];
                    known.meta.birth = known.meta.birth.min(family.meta.birth);
                    known.beside.push(family);
                }
                Ok(_) => self.superseded += 1,
            }
        }
        self
    }
}

impl FamilyView<'_> {
    fn is_defined_like(&self, other: &FamilyView<'_>) -> bool {
        let (ours, theirs) = (&self.meta, &other.meta);
        ours.shape == theirs.shape
            && ours.unit == theirs.unit
            && ours.label_names == theirs.label_names
    }

    /// As `for_each`, where another segment has a part of the family, or all of it.
    pub(crate) fn for_each_joined(&self, each: &mut dyn FnMut(SeriesView<'_>)) -> u64 {
        let mut damaged = 0;
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut found: Vec<(Vec<u8>, Total)> = Vec::new();
        for (part, is_main) in std::iter::once((self, self.is_main))
            .chain(self.beside.iter().map(|part| (part, false)))
        {
            damaged += part.for_each_read(&mut |series, reader| {
                let held = reader.held(&self.meta.shape);
                let is_unset = reader.is_unset(&self.meta.shape);
                match places.get(series.labels) {
                    Some(_) if is_unset => {}
                    Some(&at) if found[at].1.is_unset => {
                        let known = &mut found[at].1;
                        known.value = Total::new(&series, is_main).value;
                        known.is_unset = false;
                    }
                    Some(&at) => found[at].1.add(&series, held, &self.meta.shape),
                    None => {
                        places.insert(series.labels.to_vec(), found.len());
                        let total = Total { is_unset, ..Total::new(&series, is_main) };
                        found.push((series.labels.to_vec(), total));
                    }
                }
            });
        }
        for (labels, Total { id, created_unix_ms, value, .. }) in found {
            each(SeriesView { id, labels: &labels, created_unix_ms, value });
        }
        damaged
    }
}

/// The sum of the parts of one series.
struct Total {
    /// In the newer file; of a series that is not there, one that leads nowhere.
    id: SeriesId,
    created_unix_ms: u64,
    value: Value<'static>,
    /// A gauge that has no value yet, and is shown as 0.
    is_unset: bool,
}

impl Total {
    fn new(series: &SeriesView<'_>, is_main: bool) -> Total {
        let nowhere = SeriesId { offset: 0, generation: 0 };
        let id = if is_main { series.id } else { nowhere };
        Total {
            id,
            created_unix_ms: series.created_unix_ms,
            value: series.value.to_static(),
            is_unset: false,
        }
    }

    fn add(&mut self, more: &SeriesView<'_>, held: f64, shape: &OwnedShape) {
        self.created_unix_ms = self.created_unix_ms.min(more.created_unix_ms);
        match (&mut self.value, &more.value) {
            (Value::Counter { whole, fraction }, Value::Counter { whole: n, fraction: part }) => {
                let carry = u64::from(*fraction + part >= 1.0);
                *fraction += part - carry as f64;
                *whole = whole.saturating_add(*n).saturating_add(carry);
            }
            (Value::Gauge(value), Value::Gauge(other)) => {
                *value = joined_gauge(shape, *value, *other, held);
            }
            (Value::GaugePerProcess(values), Value::GaugePerProcess(others)) => {
                for other in others.iter() {
                    if !values.iter().any(|known| known.id() == other.id()) {
                        values.to_mut().push(*other);
                    }
                }
            }
            (Value::Summary { count, sum }, Value::Summary { count: n, sum: other }) => {
                *count = count.saturating_add(*n);
                *sum = added(*sum, *other);
            }
            (
                Value::Histogram { count, sum, buckets },
                Value::Histogram { count: n, sum: other, buckets: others },
            ) => {
                *count = count.saturating_add(*n);
                *sum = added(*sum, *other);
                let buckets = buckets.to_mut();
                for &(upper, n) in others.iter() {
                    match buckets.binary_search_by(|bucket| bucket.0.total_cmp(&upper)) {
                        Ok(at) => buckets[at].1 = buckets[at].1.saturating_add(n),
                        Err(at) => buckets.insert(at, (upper, n)),
                    }
                }
            }
            // Another shape: damaged since the families were compared.
            _ => {}
        }
    }
}

fn joined_gauge(shape: &OwnedShape, value: f64, other: f64, held: f64) -> f64 {
    let OwnedShape::Gauge(mode) = shape else { return value };
    match mode.storage() {
        Storage::Shared => value + held,
        _ => mode.reduction().of(value, other),
    }
}

/// Sums of both infinities are +Inf, as in read.rs.
fn added(sum: f64, more: f64) -> f64 {
    match sum + more {
        total if total.is_nan() => f64::INFINITY,
        total => total,
    }
}
