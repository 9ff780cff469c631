//! Every limit and switch of the codecs, by name and unit. One struct for all, so that a setting means the
//! same for a UDP line and for a pushed sample.
//!
//! Defaults are generous for real clients and small against attackers: the largest accepted line
//! costs 64 KiB, the largest label set 40 x (128 + 1024) bytes.

use serde::Deserialize;

use crate::name_tags::Dialects;

/// The most labels one series may ever have; [`Limits::labels_max`] is clamped to it, because the
/// pairs are sorted in a fixed array.
pub const LABELS_CAP: usize = 64;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of one line without its line end. Longer lines are skipped up to the next line end.
    pub line_bytes_max: usize,
    /// Bytes of a metric name as it was sent.
    pub name_bytes_max: usize,
    /// Labels of one sample, duplicates included; at most [`LABELS_CAP`].
    pub labels_max: usize,
    /// Bytes of a label name as it was sent.
    pub label_name_bytes_max: usize,
    /// Bytes of a label value as it was sent.
    pub label_value_bytes_max: usize,
    /// Values packed into one line or one pushed sample.
    pub values_max: usize,
    /// Bytes of one member of a set.
    pub set_value_bytes_max: usize,
    /// The smallest sample rate; one sample stands for at most its reciprocal.
    pub rate_min: f64,
    /// Bytes of an event or a service check line.
    pub event_bytes_max: usize,
    /// Samples in one pushed body; those after it are refused.
    pub body_samples_max: usize,
    /// Bytes of a help text; longer ones are cut at a character.
    pub help_bytes_max: usize,
    /// Nesting of one JSON sample. A correct sample needs 2.
    pub json_depth_max: usize,
    /// Refused samples described one by one in the answer to a push; the rest are only counted.
    pub refusals_listed_max: usize,
    /// Which dialects of tags inside of StatsD names are read.
    pub name_tags: Dialects,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            line_bytes_max: 64 * 1024,
            name_bytes_max: 256,
            labels_max: 40,
            label_name_bytes_max: 128,
            label_value_bytes_max: 1024,
            values_max: 1000,
            set_value_bytes_max: 1024,
            rate_min: 1e-6,
            event_bytes_max: 8 * 1024,
            body_samples_max: 100_000,
            help_bytes_max: 1024,
            json_depth_max: 32,
            refusals_listed_max: 100,
            name_tags: Dialects::default(),
        }
    }
}

impl Limits {
    /// [`Limits::labels_max`] under its hard cap.
    pub fn labels_allowed(&self) -> usize {
        self.labels_max.min(LABELS_CAP)
    }
}
