//! Moving what was counted in one segment to another: from private memory of this process, while the segment had no room.
//!
//! A [`Parcel`] is what one series has, in parts of which each is added in one step. The parts that were added are taken
//! out of it, so whatever comes in between (the series expired or was removed, there is no room any more), the rest is
//! still there to be added to the series made anew, or to be kept: nothing is lost and nothing counted twice. A process
//! killed in between has added the parts before.

use crate::cells::Cells;
use crate::handle::{Outcome, Series};
use crate::read::Reader;
use crate::recent::RecentReader;
use crate::value::Value;
use crate::view::{FamilyView, SeriesView};
use crate::writer::Writer;
use agent_metric::Reduction;

/// What was counted in one series, on its way to another.
#[derive(Debug, Default)]
pub struct Parcel {
    /// The next one last.
    parts: Vec<Part>,
    /// When the counting began.
    created_unix_ms: u64,
}

#[derive(Debug)]
enum Part {
    Whole(u64),
    Fraction(f64),
    /// Of a gauge that all processes share: beside what others count in it. One that is set is right again with its next
    /// value. Of one that each process has for itself: what this process said.
    Level(f64),
    /// Of a gauge that all processes share, which this one has set: it replaces what is there.
    Set(f64),
    /// What this process holds, and nobody after its death.
    Held(f64),
    Bucket {
        upper: f64,
        count: u64,
        sum: f64,
    },
    /// With the newest values and their times.
    Summary {
        count: u64,
        sum: f64,
        recent: Vec<(u64, f64)>,
    },
}

/// What a value does not tell of itself.
#[derive(Debug, Default)]
pub struct Beside {
    /// How much of a gauge this process holds.
    pub held: f64,
    /// Whether a gauge that all processes share was set.
    pub was_set: bool,
    /// The newest values of a summary with their times in unix ms, the newest last.
    pub recent: Vec<(u64, f64)>,
    /// Of a histogram the bound, count and sum of each bucket that has any.
    pub buckets: Vec<(f64, u64, f64)>,
}

impl Parcel {
    /// Parts that are still in it.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// A value with what is known beside it.
    pub fn of(value: &Value<'_>, beside: Beside) -> Parcel {
        let Beside { held, was_set, recent, buckets: known } = beside;
        let mut parts = match value {
            Value::Counter { whole, fraction } => {
                vec![Part::Whole(*whole), Part::Fraction(*fraction)]
            }
            Value::Gauge(value) if was_set => vec![Part::Set(value - held), Part::Held(held)],
            Value::Gauge(value) => vec![Part::Level(value - held), Part::Held(held)],
            Value::GaugePerProcess(values) => {
                values.last().map(|last| Part::Level(last.value)).into_iter().collect()
            }
            Value::Summary { count, sum } => {
                vec![Part::Summary { count: *count, sum: *sum, recent }]
            }
            Value::Histogram { .. } if !known.is_empty() => {
                let part = |(upper, count, sum)| Part::Bucket { upper, count, sum };
                known.into_iter().map(part).collect()
            }
            Value::Histogram { buckets, sum, .. } => {
                // Which bucket has how much of the sum is not known: all of it goes with the first.
                let mut sum = *sum;
                let filled = buckets.iter().filter(|(_, count)| *count > 0);
                let part =
                    |&(upper, count)| Part::Bucket { upper, count, sum: std::mem::take(&mut sum) };
                filled.map(part).collect()
            }
        };
        parts.retain(|part| match part {
            Part::Whole(0) | Part::Summary { count: 0, .. } => false,
            Part::Fraction(amount) | Part::Held(amount) => *amount != 0.0,
            _ => true,
        });
        parts.reverse();
        Parcel { parts, created_unix_ms: u64::MAX }
    }
}

impl FamilyView<'_> {
    /// Visits what is to be moved of every series, with its label text.
    pub fn for_each_parcel(&self, each: &mut dyn FnMut(&str, Parcel)) {
        self.for_each_read(&mut |series: SeriesView<'_>, reader: &Reader<'_>| {
            let shape = &self.meta().shape;
            let mut recent = Vec::new();
            let keep = |unix_ms, value| recent.push((unix_ms, value));
            let _ = reader.recent(series.id, &mut RecentReader::from_oldest(), keep);
            // The newest last.
            recent.sort_by_key(|(unix_ms, _)| *unix_ms);
            let (held, was_set) = (reader.held(shape), reader.was_set(shape));
            let buckets = reader.filled_buckets(shape);
            let parcel = match reader.is_unset(shape) {
                true => Parcel::default(),
                false => Parcel {
                    created_unix_ms: series.created_unix_ms,
                    ..Parcel::of(&series.value, Beside { held, was_set, recent, buckets })
                },
            };
            each(&String::from_utf8_lossy(series.labels), parcel);
        });
    }
}

impl Writer {
    /// Adds what is in the parcel to a series of the same shape, counts to counts and buckets to buckets, and takes it
    /// out. When the outcome is not [`Outcome::Applied`], the rest is still in it; of a counter that is full
    /// ([`Outcome::Refused`]) what it refused is not.
    pub fn absorb(&self, s: &Series, parcel: &mut Parcel) -> Outcome {
        let mut refused = Outcome::Applied;
        if !parcel.is_empty() {
            // What is in it was counted since then.
            let _ = self.guarded(s, || {
                crate::entry::set_created_before(self.region(), s.entry, parcel.created_unix_ms);
                Outcome::Applied
            });
        }
        while let Some(part) = parcel.parts.last() {
            match self.absorb_part(s, part) {
                Outcome::Applied => {}
                Outcome::Refused => refused = Outcome::Refused,
                outcome => return outcome,
            }
            parcel.parts.pop();
        }
        refused
    }

    fn absorb_part(&self, s: &Series, part: &Part) -> Outcome {
        match (part, s.kind) {
            (Part::Whole(n), Cells::Counter) => self.add(s, *n),
            (Part::Fraction(amount), Cells::Counter) => self.add_f64(s, *amount),
            (Part::Level(value), Cells::SharedGauge) => self.shift(s, *value),
            (Part::Set(value), Cells::SharedGauge) => self.set(s, *value),
            (Part::Level(value), Cells::SlotGauge(mode)) => match mode.reduction() {
                Reduction::Sum => self.shift(s, *value),
                _ => self.set(s, *value),
            },
            (Part::Held(value), Cells::SharedGauge) => self.hold(s, *value),
            (Part::Bucket { upper, count, sum }, Cells::Explicit | Cells::Exponential { .. }) => {
                self.guarded(s, || {
                    let value = match s.kind {
                        Cells::Exponential { .. } => inside(*upper),
                        _ => *upper,
                    };
                    match self.pair_of(s, value) {
                        Ok(pair) => {
                            self.observe_pair(s, pair, *count, *sum);
                            Outcome::Applied
                        }
                        Err(outcome) => outcome,
                    }
                })
            }
            (Part::Summary { count, sum, recent }, Cells::Summary { keeps }) => {
                self.guarded(s, || {
                    self.absorb_summary(s, keeps, *count, *sum, recent);
                    Outcome::Applied
                })
            }
            // Of another shape: there is no place for it.
            _ => Outcome::Refused,
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
