//! `POST /v1/push`: JSON samples into cells, and the account of what became of them.
//!
//! The answer is `{"accepted":n,"rejected":m,"errors":[{"index":i,"reason":"..","detail":".."}]}`;
//! `index` counts the samples of the body from 0, beside it `line` the lines of NDJSON from 1; at most `refusals_listed_max` errors are listed.
//!
//! | status | meaning | retry |
//! |---|---|---|
//! | 200 | every sample was accepted | no |
//! | 207 | some were accepted, the others are listed | no: those accepted would count twice |
//! | 400 | none could be accepted | not unchanged |
//! | 503 | none was accepted, for limits or memory only | yes, after `Retry-After` |
//!
//! A body that breaks off, or whose framing or compression is broken, is applied not at all. One that
//! was received whole is applied in slices of about [`SLICE_VALUES`] values, so that the other
//! connections of the worker have their turn in between, and to its end, even when its sender has gone.
//! A sample with several values is rejected when one of them is; `detail` says how many were
//! applied.

use agent_wire::push_json::{Body, Decoder, PushSample};
use agent_wire::{labels, Limits};
use serde::Serialize;

use super::body::Charge;
use super::respond::Terms;
use super::Ingest;
use crate::apply::{Labels, NormalSample};
use crate::telemetry::{Reason, SourceId};

/// Values applied before other connections have their turn: about a millisecond.
pub const SLICE_VALUES: usize = 1024;
/// A plain body up to this size that came with its head is applied where it was read, in one go.
pub const INLINE_BYTES_MAX: usize = 32 << 10;

/// The form of a pushed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form(Body);

impl Form {
    /// What the `Content-Type` says; nothing when it is neither JSON nor NDJSON.
    pub fn from_header(value: Option<&[u8]>) -> Option<Form> {
        let Some(value) = value else { return Some(Form(Body::Auto)) };
        let is = |name: &str| media_type(value).eq_ignore_ascii_case(name.as_bytes());
        if is("application/json") || is("text/json") {
            Some(Form(Body::Json))
        } else if ["application/x-ndjson", "application/ndjson", "application/jsonl"]
            .into_iter()
            .any(is)
        {
            Some(Form(Body::Ndjson))
        } else {
            None
        }
    }
}

/// Whether a body for the gateway may be Prometheus text. `curl --data-binary` says that it is a
/// form; the Pushgateway takes that, and so do we.
pub fn is_prometheus_text(content_type: Option<&[u8]>) -> bool {
    let Some(value) = content_type else { return true };
    let media = media_type(value);
    let is = |name: &str| media.eq_ignore_ascii_case(name.as_bytes());
    is("text/plain") || is("application/x-www-form-urlencoded") || is("application/octet-stream")
}

fn media_type(value: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value[..end].trim_ascii()
}

/// The account of one body.
#[derive(Debug)]
pub struct Outcome {
    pub status: u16,
    pub json: Vec<u8>,
    /// Samples that the codec refused.
    pub refused: u64,
    /// Those and all values, for the limits of the peer.
    pub samples: u64,
}

#[derive(Serialize)]
struct Account<'a> {
    accepted: u64,
    rejected: u64,
    errors: Vec<ErrorLine<'a>>,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    reason: &'static str,
    detail: &'a str,
}

/// A sample that was decoded and then refused.
struct Refused {
    index: usize,
    line: Option<usize>,
    reason: Reason,
    detail: String,
}

/// A body that is being applied.
pub struct Push {
    body: Vec<u8>,
    limits: Limits,
    /// Holds the memory of the body until all of it is applied.
    _charge: Charge,
    work: Work,
    pub(super) terms: Terms,
}

impl Push {
    pub(super) fn new(
        body: Vec<u8>,
        form: Form,
        limits: &Limits,
        charge: Charge,
        terms: Terms,
    ) -> Push {
        let work = Work::new(&body, form, limits);
        Push { body, limits: limits.clone(), _charge: charge, work, terms }
    }

    /// Applies the next slice; gives how many values it had, and whether it was the last one.
    pub(super) fn go_on<I: Ingest>(&mut self, cx: &mut I) -> (u64, bool) {
        let before = self.work.values;
        let is_done = self.work.run(&self.body, &self.limits, SLICE_VALUES, cx);
        (self.work.values - before, is_done)
    }

    pub(super) fn finish<I: Ingest>(self, cx: &mut I) -> Outcome {
        self.work.finish(&self.limits, cx)
    }
}

/// Applies a body in one go.
pub fn apply<I: Ingest>(body: &[u8], form: Form, limits: &Limits, cx: &mut I) -> Outcome {
    let mut work = Work::new(body, form, limits);
    work.run(body, limits, usize::MAX, cx);
    work.finish(limits, cx)
}

/// The place in a body and its account so far.
struct Work {
    decoder: Decoder,
    refused: Vec<Refused>,
    refused_count: u64,
    transient: u64,
    values: u64,
    /// Canonical label text.
    text: String,
}

impl Work {
    fn new(body: &[u8], form: Form, limits: &Limits) -> Work {
        let decoder = Decoder::new(body, form.0, limits);
        let (refused, text) = (Vec::new(), String::new());
        Work { decoder, refused, refused_count: 0, transient: 0, values: 0, text }
    }

    fn run<I: Ingest>(&mut self, body: &[u8], limits: &Limits, most: usize, cx: &mut I) -> bool {
        let Work { decoder, refused, refused_count, transient, values, text } = self;
        decoder.run(body, limits, most, |sample| {
            text.clear();
            labels::from_pairs(sample.labels, limits, text)?;
            *values += sample.values().count() as u64;
            let is_listed = refused.len() < limits.refusals_listed_max;
            if let Some((reason, detail)) = apply_values(sample, text, is_listed, cx) {
                *refused_count += 1;
                *transient += u64::from(is_transient(reason));
                if is_listed {
                    let PushSample { index, line, .. } = *sample;
                    refused.push(Refused { index, line, reason, detail });
                }
            }
            Ok(())
        })
    }

    /// Books what the decoder refused and writes the account.
    fn finish<I: Ingest>(self, limits: &Limits, cx: &mut I) -> Outcome {
        let report = self.decoder.finish();
        for (reason, count) in report.reasons.iter() {
            cx.reject(SourceId::Push, Reason::Wire(reason), count);
        }
        let accepted = report.accepted - self.refused_count;
        let rejected = report.refused + self.refused_count;
        let listed = report.refusals.iter().map(|refusal| ErrorLine {
            index: refusal.index,
            line: refusal.line,
            reason: refusal.reason.as_str(),
            detail: &refusal.detail,
        });
        let applied = self.refused.iter().map(|refusal| ErrorLine {
            index: refusal.index,
            line: refusal.line,
            reason: refusal.reason.as_str(),
            detail: &refusal.detail,
        });
        let mut errors: Vec<ErrorLine<'_>> = listed.chain(applied).collect();
        errors.sort_by_key(|error| error.index);
        errors.truncate(limits.refusals_listed_max);
        let status = match (accepted, rejected) {
            (_, 0) => 200,
            (1.., _) => 207,
            _ if self.transient == rejected => 503,
            _ => 400,
        };
        // Plain data into memory: this cannot fail.
        let account = Account { accepted, rejected, errors };
        let mut json = serde_json::to_vec(&account).unwrap_or_default();
        json.push(b'\n');
        Outcome { status, json, refused: report.refused, samples: self.values + report.refused }
    }
}

/// Applies the values of one sample; says why when one was refused, in detail when that is listed.
fn apply_values<I: Ingest>(
    sample: &PushSample<'_, '_>,
    labels: &str,
    is_listed: bool,
    cx: &mut I,
) -> Option<(Reason, String)> {
    let (mut applied, mut all) = (0usize, 0usize);
    let mut first = None;
    for value in sample.values() {
        all += 1;
        let normal = NormalSample {
            name: sample.name.as_bytes(),
            kind: sample.kind,
            value,
            rate: sample.rate,
            labels: Labels::Text(labels),
            unit: sample.unit,
            help: sample.help,
        };
        match cx.sample(SourceId::Push, &normal) {
            Ok(()) => applied += 1,
            Err(reason) if first.is_none() && is_listed && reason == Reason::TypeConflict => {
                first = Some((reason, cx.explain_conflict(&normal).unwrap_or_default()));
            }
            Err(reason) => first = first.or(Some((reason, String::new()))),
        }
    }
    let (reason, mut detail) = first?;
    if applied > 0 {
        let separator = if detail.is_empty() { "" } else { "; " };
        detail.push_str(&format!("{separator}{applied} of {all} values applied"));
    }
    Some((reason, detail))
}

/// Whether the same sample may be accepted later.
fn is_transient(reason: Reason) -> bool {
    use Reason::*;
    matches!(reason, SegmentFull | SourceRate | SourceWindow | TotalRate | TotalWindow | Memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides_the_form() {
        let form = |text: &str| Form::from_header(Some(text.as_bytes()));
        assert_eq!(Form::from_header(None), Some(Form(Body::Auto)));
        assert_eq!(form("Application/JSON; charset=utf-8"), Some(Form(Body::Json)));
        assert_eq!(form("application/x-ndjson"), Some(Form(Body::Ndjson)));
        assert_eq!(form("application/x-www-form-urlencoded"), None);
        assert_eq!(form("text/html"), None);
        assert_eq!(form(""), None);
    }

    #[test]
    fn the_gateway_takes_text_and_what_curl_says() {
        assert!(is_prometheus_text(None));
        assert!(is_prometheus_text(Some(b"text/plain; version=0.0.4")));
        assert!(is_prometheus_text(Some(b"application/x-www-form-urlencoded")));
        assert!(!is_prometheus_text(Some(b"application/json")));
        assert!(!is_prometheus_text(Some(b"application/vnd.google.protobuf; proto=io")));
    }
}
