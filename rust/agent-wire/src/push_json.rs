//! The body of a JSON push: one object, an array of objects, or NDJSON.
//!
//! ```text
//! {"name": "orders", "type": "counter", "value": 3, "labels": {"shop": "eu"},
//!  "unit": "bytes", "help": "Orders placed.", "rate": 0.5}
//! ```
//!
//! `type` is counter, gauge, histogram, distribution, timer or set; `value` or `values` (an array);
//! members of a set are strings or whole numbers; label values are strings, numbers or booleans; a
//! timer is in milliseconds unless `unit` says otherwise. `labels`, `unit`, `help` and `rate` may
//! be left out or null. Any other key refuses the sample, so that a misspelt key is seen.
//!
//! Every sample is accepted or refused by itself, with its index and the reason: the body is cut
//! into samples by brackets and quotes first, and each is decoded alone. So a sample of the wrong
//! form, with a number beyond f64 or with broken text never spoils its neighbours.
//!
//! Limits: `body_samples_max` samples, `values_max` values, `labels_max` labels, nesting
//! `json_depth_max` (skipped without recursion). Memory is that of the largest sample.
//!
//! Not promised: after a bracket or quote without its partner the rest of an *array* is one refused
//! sample (NDJSON recovers at the next line); numbers are f64, `NaN` and `Infinity` are no JSON.

mod cut;
mod field;
mod report;

use std::borrow::Cow;

use serde::de::DeserializeSeed;

use crate::sample::{check_number, check_rate};
use crate::{name, Kind, Limits, Reject, Value};

pub use cut::Body;
pub use report::{Refusal, Report};

use field::{Scalar, Scratch};

/// One sample, checked; it lives until the callback returns.
#[derive(Debug, Clone, PartialEq)]
pub struct PushSample<'s, 'a> {
    /// Position in the body, from 0; in NDJSON lines of only blanks do not count.
    pub index: usize,
    /// The line of an NDJSON body, from 1, lines of only blanks included.
    pub line: Option<usize>,
    /// As sent, not sanitised: see [`crate::name::family_with_unit`].
    pub name: &'s str,
    pub kind: Kind,
    /// The values of every kind but sets; finite and of the range of the kind.
    pub numbers: &'s [f64],
    /// The members of a set.
    pub members: &'s [Cow<'a, str>],
    /// In the order they were sent: see [`crate::labels::from_pairs`].
    pub labels: &'s [(Cow<'a, str>, Cow<'a, str>)],
    /// Empty, or a unit that [`crate::name::family_with_unit`] takes for this kind.
    pub unit: &'s str,
    pub help: &'s str,
    /// In `rate_min ..= 1`; 1 for gauges and sets.
    pub rate: f64,
}

impl PushSample<'_, '_> {
    /// The values, whatever the kind.
    pub fn values(&self) -> impl Iterator<Item = Value<'_>> {
        let members = self.members.iter().map(|member| Value::Set(member.as_bytes()));
        self.numbers.iter().map(|&number| Value::Number(number)).chain(members)
    }
}

/// Why one sample is refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    reason: Reject,
    detail: String,
}

impl Fault {
    fn new(reason: Reject, detail: impl Into<String>) -> Fault {
        Fault { reason, detail: detail.into() }
    }
}

/// Decodes a body: `apply` sees each good sample once, in order, and may still refuse it.
///
/// The report counts every sample of the body exactly once.
pub fn decode<'a>(
    body: &'a [u8],
    form: Body,
    limits: &Limits,
    apply: impl FnMut(&PushSample<'_, 'a>) -> Result<(), Reject>,
) -> Report {
    let mut decoder = Decoder::new(body, form, limits);
    decoder.run(body, limits, usize::MAX, apply);
    decoder.finish()
}

/// A body being decoded in slices: the place in it and the account so far, without the body.
pub struct Decoder {
    cut: cut::Cut,
    /// Of the next sample.
    index: usize,
    report: Report,
}

impl Decoder {
    pub fn new(body: &[u8], form: Body, limits: &Limits) -> Decoder {
        Decoder { cut: cut::Cut::new(body, form), index: 0, report: Report::new(limits) }
    }

    /// Decodes on in the body that the decoder was made for, until about `values_most` values were
    /// seen; a sample counts as one at least and is never split. Whether the body is done.
    pub fn run<'a>(
        &mut self,
        body: &'a [u8],
        limits: &Limits,
        values_most: usize,
        mut apply: impl FnMut(&PushSample<'_, 'a>) -> Result<(), Reject>,
    ) -> bool {
        let mut scratch = Scratch::default();
        let mut values = 0;
        while values < values_most {
            let Some(piece) = self.cut.next(body) else { return true };
            let (index, line) = (self.index, self.cut.line());
            self.index += 1;
            let outcome = if index >= limits.body_samples_max {
                let most = limits.body_samples_max;
                let text = format!("a body has at most {most} samples");
                Err(Fault::new(Reject::SamplesTooMany, text))
            } else {
                piece.and_then(|text| {
                    decode_one(text, (index, line), limits, &mut scratch, &mut apply)
                })
            };
            match outcome {
                Ok(()) => self.report.accept(),
                Err(fault) => self.report.refuse(index, line, fault.reason, fault.detail),
            }
            values += (scratch.numbers.len() + scratch.members.len()).max(1);
        }
        false
    }

    /// The account of the samples so far.
    pub fn finish(self) -> Report {
        self.report
    }
}

fn decode_one<'a>(
    text: &'a [u8],
    place: (usize, Option<usize>),
    limits: &Limits,
    scratch: &mut Scratch<'a>,
    apply: &mut impl FnMut(&PushSample<'_, 'a>) -> Result<(), Reject>,
) -> Result<(), Fault> {
    let sample = read(text, limits, scratch)
        .and_then(|()| check(scratch, place, limits))
        .map_err(|fault| too_deep(text, limits).unwrap_or(fault))?;
    apply(&sample).map_err(|reason| Fault::new(reason, ""))
}

/// Reads the fields of one object.
fn read<'a>(text: &'a [u8], limits: &Limits, scratch: &mut Scratch<'a>) -> Result<(), Fault> {
    scratch.clear();
    let mut json = serde_json::Deserializer::from_slice(text);
    field::Sample { scratch, limits }
        .deserialize(&mut json)
        .and_then(|()| json.end())
        .map_err(|error| scratch.fault.take().unwrap_or_else(|| syntax_fault(&error)))
}

/// The better reason for a refused sample: no good one is nested deeper than 2.
#[cold]
fn too_deep(text: &[u8], limits: &Limits) -> Option<Fault> {
    let most = limits.json_depth_max;
    (cut::depth(text) > most)
        .then(|| Fault::new(Reject::JsonTooDeep, format!("nested deeper than {most}")))
}

/// A fault of the JSON itself.
fn syntax_fault(error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    let reason = if text.starts_with("number out of range") {
        Reject::ValueOutOfRange
    } else {
        Reject::JsonMalformed
    };
    Fault::new(reason, text)
}

/// Checks the fields against each other and makes the sample.
fn check<'s, 'a>(
    scratch: &'s mut Scratch<'a>,
    (index, line): (usize, Option<usize>),
    limits: &Limits,
) -> Result<PushSample<'s, 'a>, Fault> {
    let Some(name) = scratch.name.as_deref().filter(|name| !name.is_empty()) else {
        return Err(Fault::new(Reject::NameEmpty, "`name` is missing or empty"));
    };
    if name.len() > limits.name_bytes_max {
        let most = limits.name_bytes_max;
        return Err(Fault::new(Reject::NameTooLong, format!("`name` has at most {most} bytes")));
    }
    if name.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Fault::new(Reject::NameMalformed, "`name` holds a control character"));
    }
    let Some(kind) = scratch.kind else {
        return Err(Fault::new(Reject::TypeMissing, "`type` is missing"));
    };
    let unit = scratch.unit.as_deref().unwrap_or("");
    if !name::unit_fits(kind, unit) {
        let detail = format!("a {} has no unit {:?}", kind.as_str(), field::brief(unit));
        return Err(Fault::new(Reject::UnitUnknown, detail));
    }
    let rate = scratch.rate.unwrap_or(1.0);
    check_rate(rate, limits).map_err(|reason| Fault::new(reason, "`rate` is above 0, up to 1"))?;
    let rate = if kind.is_sampled() { rate } else { 1.0 };
    if scratch.values.is_empty() {
        return Err(Fault::new(Reject::ValueMissing, "`value` or `values` is missing or empty"));
    }
    for value in scratch.values.drain(..) {
        if kind == Kind::Set {
            scratch.members.push(member(value, limits)?);
        } else {
            scratch.numbers.push(number(value, kind, rate)?);
        }
    }
    Ok(PushSample {
        index,
        line,
        name,
        kind,
        numbers: &scratch.numbers,
        members: &scratch.members,
        labels: &scratch.labels,
        unit,
        help: agent_metric::name::cut(scratch.help.as_deref().unwrap_or(""), limits.help_bytes_max),
        rate,
    })
}

fn number(value: Scalar<'_>, kind: Kind, rate: f64) -> Result<f64, Fault> {
    let number = match value {
        Scalar::Unsigned(number) => number as f64,
        Scalar::Signed(number) => number as f64,
        Scalar::Float(number) => number,
        Scalar::Null => return Err(Fault::new(Reject::ValueMissing, "a value is null")),
        _ => {
            let detail = format!("a value of a {} is a number", kind.as_str());
            return Err(Fault::new(Reject::ValueMalformed, detail));
        }
    };
    check_number(kind, number, rate)
        .map(|()| number)
        .map_err(|reason| Fault::new(reason, format!("{number} for a {}", kind.as_str())))
}

fn member<'a>(value: Scalar<'a>, limits: &Limits) -> Result<Cow<'a, str>, Fault> {
    let text = match value {
        Scalar::Text(text) => text,
        Scalar::Unsigned(number) => Cow::Owned(number.to_string()),
        Scalar::Signed(number) => Cow::Owned(number.to_string()),
        Scalar::Null => return Err(Fault::new(Reject::ValueMissing, "a member is null")),
        _ => {
            let detail = "a member of a set is a string or a whole number";
            return Err(Fault::new(Reject::ValueMalformed, detail));
        }
    };
    if text.is_empty() {
        return Err(Fault::new(Reject::ValueMissing, "a member of a set is empty"));
    }
    if text.len() > limits.set_value_bytes_max {
        let detail = format!("a member has at most {} bytes", limits.set_value_bytes_max);
        return Err(Fault::new(Reject::ValueTooLong, detail));
    }
    Ok(text)
}
