//! Prometheus text 0.0.4 in: the bodies that go to the Pushgateway paths.
//!
//! A body is taken whole or refused whole, with the line and the reason, as the Pushgateway does.
//! The samples of a histogram or summary are put together to one series; buckets come out counted
//! each for itself, ready for [`agent_metric::SampleValue::Histogram`].
//!
//! Decisions where the format is silent: CR before LF is dropped; the last line needs no LF; blank
//! lines and other comments are skipped; families need not be contiguous, but a second HELP or TYPE
//! or a TYPE behind samples is refused, and so is a series that is there twice. A histogram without
//! `+Inf` takes it from `_count`; without either, or when both differ, or when buckets go down, it
//! is refused. NaN and Inf are allowed but in counters. Time stamps are handed on; a Pushgateway
//! refuses them (`timestamp_refused`).
//!
//! Limits: `body_samples_max` lines of samples, names, labels and values as everywhere, help cut at
//! `help_bytes_max`. Memory is proportional to the body.
//!
//! Not promised: OpenMetrics bodies (its `# UNIT`, `# EOF` are comments here, `x_total` of a
//! counter `x` is a family of its own), quoted UTF-8 names, protobuf. A counter keeps its name as
//! sent, with `_total`.

mod build;
mod line;

use std::borrow::Cow;

use crate::{Limits, Reject};
use agent_metric::FamilyKind;

/// A family and its series, in the order of the body.
#[derive(Debug, Clone, PartialEq)]
pub struct Family<'a> {
    pub name: Cow<'a, str>,
    /// Unescaped; empty when there is none.
    pub help: String,
    pub kind: FamilyKind,
    pub series: Vec<Series<'a>>,
}

/// One series; `le` and `quantile` are in the value.
#[derive(Debug, Clone, PartialEq)]
pub struct Series<'a> {
    /// Sorted by name, values unescaped.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    pub value: SeriesValue,
    /// A whole `le` or `quantile` stood there without a point, as Go writes it.
    pub has_plain_bounds: bool,
    pub timestamp_ms: Option<i64>,
    /// Line of its first sample, from 1.
    pub line: usize,
}

/// What a series holds.
#[derive(Debug, Clone, PartialEq)]
pub enum SeriesValue {
    /// Counter (finite, not negative), gauge or unknown.
    Number(f64),
    /// (upper bound, count in this bucket alone), ascending, the last bound is +Inf.
    Histogram { buckets: Vec<(f64, u64)>, sum: f64 },
    /// (quantile, value), ascending.
    Summary { quantiles: Vec<(f64, f64)>, sum: f64, count: u64 },
}

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct TextError {
    /// From 1; 0 when it is no single line.
    pub line: usize,
    pub reason: Reject,
    pub detail: String,
}

impl TextError {
    fn new(line: usize, reason: Reject, detail: impl Into<String>) -> TextError {
        TextError { line, reason, detail: detail.into() }
    }
}

impl std::fmt::Display for TextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.reason, self.detail)
    }
}

impl std::error::Error for TextError {}

/// Reads a whole body.
pub fn parse<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<Family<'a>>, TextError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let before = &body[..error.valid_up_to()];
        let number = memchr::memchr_iter(b'\n', before).count() + 1;
        TextError::new(number, Reject::TextMalformed, "not UTF-8")
    })?;
    let mut builder = build::Builder::new(limits);
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        line::read(line, limits)
            .and_then(|line| builder.add(number, line))
            .map_err(|(reason, detail)| TextError::new(number, reason, detail))?;
    }
    builder.finish()
}
