//! What a segment shows, as items that can be compared: one for each definition, value, bucket and sum.

use agent_shm::{Entry, Segment, Value, View};
use std::collections::BTreeMap;

/// By `(series, part)`: `("latency{code=\"200\"}", "le 0.5")`. Empty buckets are left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    pub items: BTreeMap<(String, String), Item>,
    /// What can be read from the ring that is looked at, oldest first.
    pub ring: Vec<String>,
    /// A histogram whose count is not the sum of its buckets.
    pub faults: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Text(String),
    /// The bound and count of a bucket.
    Bucket(f64, u64),
    Sum(f64),
}

impl Picture {
    /// Of what whoever opens the segment reads, and of the ring of one slot.
    pub fn of(segment: &Segment, ring: u16) -> Picture {
        let mut picture = Picture::of_view(&segment.view());
        if let Some(mut reader) = segment.ring_reader(ring) {
            reader.drain(|entry| {
                picture.ring.push(match entry {
                    Entry::Value { series, kind, bits, .. } => {
                        let value = f64::from_bits(bits);
                        format!("{kind:?} {value} of series {}", series.offset)
                    }
                    Entry::Event { bytes, .. } => format!("event {bytes:?}"),
                });
            });
        }
        picture
    }

    pub fn of_view(view: &View<'_>) -> Picture {
        let mut picture = Picture::default();
        for family in view.families() {
            let meta = family.meta();
            let definition = format!("{:?} {:?}", meta.shape, meta.label_names);
            picture.put(&meta.name, "definition", Item::Text(definition));
            family.for_each(&mut |series| {
                let labels = String::from_utf8_lossy(series.labels);
                picture.value(&format!("{}{{{labels}}}", meta.name), &series.value);
            });
        }
        picture
    }

    fn put(&mut self, series: &str, part: impl Into<String>, item: Item) {
        if self.items.insert((series.into(), part.into()), item).is_some() {
            self.faults.push(format!("{series} is shown twice"));
        }
    }

    fn value(&mut self, series: &str, value: &Value<'_>) {
        match value {
            Value::Histogram { count, sum, buckets } => {
                let mut total = 0;
                for (bound, count) in buckets.iter().filter(|(_, count)| *count > 0) {
                    total += count;
                    self.put(series, format!("le {bound}"), Item::Bucket(*bound, *count));
                }
                if total != *count {
                    let fault = format!("{series} counts {count}, its buckets {total}");
                    self.faults.push(fault);
                }
                self.put(series, "sum", Item::Sum(*sum));
            }
            value => self.put(series, "value", Item::Text(format!("{value:?}"))),
        }
    }

    /// The value of a counter, a count, or a gauge.
    pub fn number(&self, series: &str) -> Option<f64> {
        let item = self.items.get(&(series.into(), "value".into()))?;
        let Item::Text(text) = item else { return None };
        text.split(['(', ')', '{', '}', ',', ' ']).find_map(|word| word.parse().ok())
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Item::Text(text) => f.write_str(text),
            Item::Bucket(_, count) => write!(f, "{count}"),
            Item::Sum(sum) => write!(f, "sum {sum}"),
        }
    }
}
