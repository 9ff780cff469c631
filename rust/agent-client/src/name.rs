//! Names: the family's full name, the names of its samples, label names. Pure.
//!
//! Family and label names are those of the classic Prometheus data model, ASCII only. A counter's
//! name loses `_total`, which the exposition adds; a unit is appended when the name does not end in
//! it.

use crate::refusal::{Kind, Refusal};
use agent_metric::name::{escape_label_value, is_label_clean, is_metric_clean, suffix};
use agent_metric::FamilyKind;
use agent_shm::OwnedShape;
use std::iter;

pub const NAME_BYTES_MAX: usize = 200;
pub const LABELS_MAX: usize = 32;

/// The four classes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

impl Class {
    pub const ALL: [Class; 4] = [Class::Counter, Class::Gauge, Class::Histogram, Class::Summary];

    pub const fn of_shape(shape: &OwnedShape) -> Class {
        match shape {
            OwnedShape::Counter => Class::Counter,
            OwnedShape::Gauge(_) => Class::Gauge,
            OwnedShape::Exponential { .. } | OwnedShape::Explicit(_) => Class::Histogram,
            OwnedShape::Summary(_) => Class::Summary,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Class::Counter => "Counter",
            Class::Gauge => "Gauge",
            Class::Histogram => "Histogram",
            Class::Summary => "Summary",
        }
    }

    pub const fn kind(self) -> FamilyKind {
        match self {
            Class::Counter => FamilyKind::Counter,
            Class::Gauge => FamilyKind::Gauge,
            Class::Histogram => FamilyKind::Histogram,
            Class::Summary => FamilyKind::Summary,
        }
    }

    /// What follows the family's name in the names of its samples; the name itself is always taken.
    pub fn suffixes(self) -> impl Iterator<Item = &'static str> {
        iter::once("").chain(self.kind().suffixes().iter().copied())
    }
}

/// `namespace_subsystem_name_unit`, checked.
pub fn family(
    class: Class,
    namespace: &str,
    subsystem: &str,
    name: &str,
    unit: &str,
) -> Result<String, Refusal> {
    if name.is_empty() {
        return Err(Refusal::new(Kind::Name, "a metric needs a name"));
    }
    let mut full = String::new();
    for part in [namespace, subsystem] {
        if !part.is_empty() {
            full.push_str(part);
            full.push('_');
        }
    }
    full.push_str(name);
    if class == Class::Counter {
        full.truncate(full.strip_suffix(suffix::TOTAL).map_or(full.len(), str::len));
    }
    let has_unit = full.strip_suffix(unit).is_some_and(|head| head.ends_with('_'));
    if !unit.is_empty() && !has_unit {
        full.push('_');
        full.push_str(unit);
    }
    check(&full)?;
    Ok(full)
}

fn check(full: &str) -> Result<(), Refusal> {
    if full.is_empty() || !is_metric_clean(full.as_bytes()) {
        let text = format!("metric name {full:?} does not match [a-zA-Z_:][a-zA-Z0-9_:]*");
        return Err(Refusal::new(Kind::Name, text));
    }
    if agent_metric::own::is_own(full) {
        let text = format!("metric name {full:?} is reserved: every page writes it about itself");
        return Err(Refusal::new(Kind::Name, text));
    }
    if full.len() > NAME_BYTES_MAX {
        let text = format!("metric name of {} bytes, at most {NAME_BYTES_MAX} fit", full.len());
        return Err(Refusal::new(Kind::Name, text));
    }
    Ok(())
}

/// Label names as given to a constructor.
pub fn labels(class: Class, names: &[String], per_process: bool) -> Result<(), Refusal> {
    if names.len() > LABELS_MAX {
        let text = format!("{} label names, at most {LABELS_MAX} are possible", names.len());
        return Err(Refusal::new(Kind::Name, text));
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() || !is_label_clean(name.as_bytes()) {
            let text = format!("label name {name:?} does not match [a-zA-Z_][a-zA-Z0-9_]*");
            return Err(Refusal::new(Kind::Name, text));
        }
        if let Some(why) = reserved(class, name, per_process) {
            return Err(Refusal::new(Kind::Name, format!("label name {name:?} is reserved {why}")));
        }
        if name.len() > NAME_BYTES_MAX {
            let text = format!("label name of {} bytes, at most {NAME_BYTES_MAX} fit", name.len());
            return Err(Refusal::new(Kind::Name, text));
        }
        if names[..index].contains(name) {
            return Err(Refusal::new(Kind::Name, format!("label name {name:?} is given twice")));
        }
    }
    Ok(())
}

fn reserved(class: Class, name: &str, per_process: bool) -> Option<&'static str> {
    match (name, class) {
        _ if name.starts_with("__") => Some("(it begins with __)"),
        ("le", Class::Histogram) => Some("for a histogram's buckets"),
        ("quantile", Class::Summary) => Some("for a summary's quantiles"),
        ("pid", Class::Gauge) if per_process => Some("for a gauge of one value per process"),
        ("agent_overflow", _) => Some("for the series that takes over at a limit"),
        _ => None,
    }
}

/// Appends `name="value"` to canonical label text.
pub fn push_label(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(name);
    text.push_str("=\"");
    escape_label_value(value.as_bytes(), text);
    text.push('"');
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
