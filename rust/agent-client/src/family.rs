//! What is known of a metric besides its values: names, shape, label names. One per name and
//! registry.

use crate::name::{self, Class};
use crate::refusal::Refusal;
use agent_shm::{Error, GaugeMode, Joined, MetricId, MetricSpec, OwnedShape, Writer};
use std::cell::Cell;

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
    /// Label names in that order, joined by commas.
    defined_names: String,
    /// The metric's id, and the epoch of the store in which it is good.
    joined: Cell<Option<(u32, MetricId)>>,
    is_shown: Cell<bool>,
    /// The epoch of the store in which its samples' names were compared with those of others.
    compared: Cell<u32>,
}

// SAFETY: like the store, touched by one thread at a time.
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
    /// The family of a definition whose names can be used.
    pub fn new(definition: Definition) -> Result<Family, Refusal> {
        let Definition { class, name, help, unit, shape, label_names } = definition;
        let per_process = matches!(shape, OwnedShape::Gauge(GaugeMode::All | GaugeMode::LiveAll));
        name::labels(class, &label_names, per_process)?;
        let mut order: Vec<usize> = (0..label_names.len()).collect();
        order.sort_by(|&a, &b| label_names[a].cmp(&label_names[b]));
        let sorted: Vec<&str> = order.iter().map(|&index| label_names[index].as_str()).collect();
        let defined_names = sorted.join(",");
        let (joined, is_shown, compared) = (Cell::new(None), Cell::new(true), Cell::new(0));
        Ok(Family {
            class,
            name,
            help,
            unit,
            shape,
            label_names,
            order,
            defined_names,
            joined,
            is_shown,
            compared,
        })
    }

    /// Whether it says the same as another definition of the name.
    pub fn is_same(&self, other: &Family) -> bool {
        self.shape == other.shape
            && self.label_names == other.label_names
            && self.unit == other.unit
    }

    /// For messages: `histogram with bounds [1.0] with labels a, b`.
    pub fn told(&self) -> String {
        match &self.label_names[..] {
            [] => self.shape.borrowed().told(),
            names => format!("{} with labels {}", self.shape.borrowed().told(), names.join(", ")),
        }
    }

    /// The metric in the segment of a store that is at `epoch`, when it was joined there.
    pub fn known_id(&self, epoch: u32) -> Option<MetricId> {
        self.joined.get().filter(|(known, _)| *known == epoch).map(|(_, id)| id)
    }

    /// Joins the metric in the segment of `writer`, whose store is at `epoch`.
    pub fn join(&self, writer: &Writer, epoch: u32, lineage: u32) -> Result<Joined, Error> {
        let joined = writer.family(&self.spec(), &self.defined_names, lineage)?;
        self.joined.set(Some((epoch, joined.id)));
        self.is_shown.set(joined.is_shown);
        Ok(joined)
    }

    /// What was joined in one epoch of the store is good in the next one too: only handles are to be resolved again.
    pub fn move_to(&self, epoch: u32, next: u32) {
        if let Some((known, id)) = self.joined.get() {
            if known == epoch {
                self.joined.set(Some((next, id)));
            }
        }
    }

    /// Forgets the metric: it began anew.
    pub fn leave(&self) {
        self.joined.set(None);
    }

    pub fn is_joined(&self, epoch: u32) -> bool {
        self.known_id(epoch).is_some()
    }

    /// Whether pages show it, as far as this process knows.
    pub fn is_shown(&self) -> bool {
        self.is_shown.get()
    }

    /// Whether its samples' names are to be compared in this epoch: once, when it is joined and pages may show it.
    pub fn is_to_be_compared(&self, epoch: u32) -> bool {
        self.is_joined(epoch) && self.is_shown() && self.compared.replace(epoch) != epoch
    }

    /// Its label names, sorted and joined by commas: part of the definition.
    pub fn defined_names(&self) -> &str {
        &self.defined_names
    }

    pub fn spec(&self) -> MetricSpec<'_> {
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

/// At most `bytes_max` bytes of a text, whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
