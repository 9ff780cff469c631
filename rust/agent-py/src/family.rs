//! What is known of a metric besides its values: names, shape, label names. One per name and
//! registry.

use crate::error::{Kind, Refusal};
use crate::name::{self, Class};
use crate::store::Store;
use agent_shm::{Error, MetricId, MetricSpec, OwnedShape, Writer};
use std::cell::Cell;
use std::sync::Arc;

pub struct Family {
    pub class: Class,
    pub name: String,
    pub help: String,
    pub unit: String,
    pub shape: OwnedShape,
    /// As the constructor had them: the order of positional label values.
    pub label_names: Vec<String>,
    /// Indexes into `label_names`, sorted by name: the order of canonical label text.
    order: Vec<usize>,
    /// The metric's id, and the epoch of the store in which it is good.
    id: Cell<Option<(u32, MetricId)>>,
}

// SAFETY: like the store, touched only by attached threads.
unsafe impl Send for Family {}
// SAFETY: as above.
unsafe impl Sync for Family {}

/// Longest label value that is kept whole.
const VALUE_BYTES_MAX: usize = 1024;
/// Longest start of one when the label set as a whole does not fit.
const VALUE_BYTES_SAFE: usize = 10;

/// A definition as given to a constructor.
pub struct Definition {
    pub class: Class,
    pub name: String,
    pub help: String,
    pub unit: String,
    pub shape: OwnedShape,
    pub label_names: Vec<String>,
}

impl Family {
    /// The family of this definition: the one that is there when it says the same, else a new one.
    pub fn define(store: &Store, definition: Definition) -> Result<Arc<Family>, Refusal> {
        let Definition { class, name, help, unit, shape, label_names } = definition;
        let per_process = matches!(
            shape,
            OwnedShape::Gauge(agent_shm::GaugeMode::All | agent_shm::GaugeMode::LiveAll)
        );
        name::labels(class, &label_names, per_process)?;
        if let Some(known) = store.family(&name) {
            if known.shape == shape && known.label_names == label_names && known.unit == unit {
                return Ok(known);
            }
            let text = format!(
                "metric {name:?} exists as {}, not as {}",
                told(&known.shape, &known.label_names),
                told(&shape, &label_names)
            );
            return Err(Refusal::new(Kind::Conflict, text));
        }
        for suffix in class.suffixes() {
            let sample = format!("{name}{suffix}");
            if let Some(owner) = store.owner_of_sample(&sample) {
                let text = format!("{name:?} would have the sample {sample:?}, as {owner:?} has");
                return Err(Refusal::new(Kind::Conflict, text));
            }
        }
        let mut order: Vec<usize> = (0..label_names.len()).collect();
        order.sort_by(|&a, &b| label_names[a].cmp(&label_names[b]));
        let id = Cell::new(None);
        let family = Arc::new(Family { class, name, help, unit, shape, label_names, order, id });
        store.keep(&family);
        Ok(family)
    }

    /// The metric in the segment of `writer`, whose store is at `epoch`.
    pub fn id(&self, writer: &Writer, epoch: u32) -> Result<MetricId, Error> {
        match self.id.get() {
            Some((known, id)) if known == epoch => Ok(id),
            _ => {
                let id = writer.metric(&self.spec())?;
                self.id.set(Some((epoch, id)));
                Ok(id)
            }
        }
    }

    fn spec(&self) -> MetricSpec<'_> {
        let shape = self.shape.borrowed();
        let help = cut(&self.help, agent_shm::HELP_BYTES_MAX);
        MetricSpec { name: &self.name, help, unit: &self.unit, shape }
    }

    /// Canonical label text of values in the constructor's order. Values that are too long are cut,
    /// with a hash of the whole at the end, so that two stay two.
    pub fn text(&self, values: &[String]) -> String {
        let text = self.text_of(values, VALUE_BYTES_MAX);
        if text.len() <= agent_shm::KEY_BYTES_MAX {
            return text;
        }
        // A name is at most 200 bytes and an escaped byte takes two: 32 labels of these always fit.
        self.text_of(values, VALUE_BYTES_SAFE)
    }

    fn text_of(&self, values: &[String], value_bytes_max: usize) -> String {
        let mut text = String::new();
        for &index in &self.order {
            let value = &values[index];
            if value.len() <= value_bytes_max {
                name::push_label(&mut text, &self.label_names[index], value);
            } else {
                let head = cut(value, value_bytes_max);
                let value = format!("{head}~{:016x}", name::hash(value.as_bytes()));
                name::push_label(&mut text, &self.label_names[index], &value);
            }
        }
        text
    }
}

fn told(shape: &OwnedShape, label_names: &[String]) -> String {
    match label_names {
        [] => shape.borrowed().told(),
        names => format!("{} with labels {}", shape.borrowed().told(), names.join(", ")),
    }
}

/// At most `bytes_max` bytes of a text, whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
