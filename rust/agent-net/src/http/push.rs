//! `POST /v1/push`: JSON samples into cells, and the account of what became of them.
//!
//! The answer is `{"accepted":n,"rejected":m,"errors":[{"index":i,"reason":"..","detail":".."}]}`;
//! `index` counts the samples of the body from 0, at most `refusals_listed_max` errors are listed.
//!
//! | status | meaning | retry |
//! |---|---|---|
//! | 200 | every sample was accepted | no |
//! | 207 | some were accepted, the others are listed | no: those accepted would count twice |
//! | 400 | none could be accepted | not unchanged |
//! | 503 | none was accepted, for limits or memory only | yes, after `Retry-After` |
//!
//! A body that breaks off, or whose framing or compression is broken, is applied not at all.
//! A sample with several values is rejected when one of them is; `detail` says how many were
//! applied.

use agent_wire::push_json::{self, Body, PushSample};
use agent_wire::{labels, Limits};
use serde::Serialize;

use super::Ingest;
use crate::apply::{Labels, NormalSample};
use crate::telemetry::{Reason, SourceId};

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
    /// Samples of the body, for the limits of the peer.
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
    reason: &'static str,
    detail: &'a str,
}

/// A sample that was decoded and then refused.
struct Refused {
    index: usize,
    reason: Reason,
    detail: String,
}

/// Applies a body and writes the account.
pub fn apply<I: Ingest>(body: &[u8], form: Form, limits: &Limits, cx: &mut I) -> Outcome {
    let mut text = String::new();
    let mut refused: Vec<Refused> = Vec::new();
    let mut refused_count = 0u64;
    let mut transient = 0u64;
    let mut values = 0u64;
    let report = push_json::decode(body, form.0, limits, |sample| {
        text.clear();
        labels::from_pairs(sample.labels, limits, &mut text)?;
        values += sample.values().count() as u64;
        if let Some((reason, detail)) = apply_values(sample, &text, cx) {
            refused_count += 1;
            transient += u64::from(is_transient(reason));
            if refused.len() < limits.refusals_listed_max {
                refused.push(Refused { index: sample.index, reason, detail });
            }
        }
        Ok(())
    });
    for (reason, count) in report.reasons.iter() {
        cx.reject(SourceId::Push, Reason::Wire(reason), count);
    }
    let accepted = report.accepted - refused_count;
    let rejected = report.refused + refused_count;
    let listed = report.refusals.iter().map(|refusal| ErrorLine {
        index: refusal.index,
        reason: refusal.reason.as_str(),
        detail: &refusal.detail,
    });
    let applied = refused.iter().map(|refusal| ErrorLine {
        index: refusal.index,
        reason: refusal.reason.as_str(),
        detail: &refusal.detail,
    });
    let mut errors: Vec<ErrorLine<'_>> = listed.chain(applied).collect();
    errors.sort_by_key(|error| error.index);
    errors.truncate(limits.refusals_listed_max);
    let status = match (accepted, rejected) {
        (_, 0) => 200,
        (1.., _) => 207,
        _ if transient == rejected => 503,
        _ => 400,
    };
    // Plain data into memory: this cannot fail.
    let mut json = serde_json::to_vec(&Account { accepted, rejected, errors }).unwrap_or_default();
    json.push(b'\n');
    Outcome { status, json, samples: values + report.refused }
}

/// Applies the values of one sample; says why when one was refused.
fn apply_values<I: Ingest>(
    sample: &PushSample<'_, '_>,
    labels: &str,
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
            Err(reason) => first = first.or(Some(reason)),
        }
    }
    let detail =
        if applied == 0 { String::new() } else { format!("{applied} of {all} values applied") };
    first.map(|reason| (reason, detail))
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
