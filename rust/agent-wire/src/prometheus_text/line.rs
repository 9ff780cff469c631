//! The grammar of one line of Prometheus text.
//!
//! ```text
//! # HELP name text        # TYPE name type        # anything else
//! name [{label="value",...}] value [timestamp]
//! ```

use std::borrow::Cow;

use crate::{labels, number, Limits, Reject};
use agent_metric::FamilyKind;

pub(super) type Fault = (Reject, String);

/// One line, decoded.
#[derive(Debug, PartialEq)]
pub(super) enum Line<'a> {
    Nothing,
    Help { name: &'a str, text: String },
    Type { name: &'a str, kind: FamilyKind },
    Sample(Sample<'a>),
}

#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub name: &'a str,
    /// In the order of the line, names unique.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    pub value: f64,
    pub timestamp_ms: Option<i64>,
}

fn fault<T>(detail: &str) -> Result<T, Fault> {
    Err((Reject::TextMalformed, detail.to_owned()))
}

fn trim_blank(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

pub(super) fn read<'a>(line: &'a str, limits: &Limits) -> Result<Line<'a>, Fault> {
    let line = trim_blank(line);
    if line.is_empty() {
        return Ok(Line::Nothing);
    }
    match line.strip_prefix('#') {
        Some(comment) => read_comment(trim_blank(comment), limits),
        None => read_sample(line, limits).map(Line::Sample),
    }
}

fn read_comment<'a>(comment: &'a str, limits: &Limits) -> Result<Line<'a>, Fault> {
    let (keyword, rest) = split_blank(comment);
    if keyword != "HELP" && keyword != "TYPE" {
        return Ok(Line::Nothing);
    }
    let (name, rest) = split_blank(rest);
    check_name(name, limits)?;
    if keyword == "HELP" {
        let mut text = unescape(rest, false)?.into_owned();
        if text.len() > limits.help_bytes_max {
            let mut end = limits.help_bytes_max;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        return Ok(Line::Help { name, text });
    }
    let kind = match rest.trim_end_matches([' ', '\t']) {
        "counter" => FamilyKind::Counter,
        "gauge" => FamilyKind::Gauge,
        "histogram" => FamilyKind::Histogram,
        "summary" => FamilyKind::Summary,
        "untyped" | "unknown" => FamilyKind::Unknown,
        _ => return fault("unknown type behind TYPE"),
    };
    Ok(Line::Type { name, kind })
}

/// The text up to the first blank, and what follows the blanks.
fn split_blank(text: &str) -> (&str, &str) {
    match text.find([' ', '\t']) {
        Some(at) => (&text[..at], trim_blank(&text[at..])),
        None => (text, ""),
    }
}

fn check_name(name: &str, limits: &Limits) -> Result<(), Fault> {
    if name.is_empty() {
        return Err((Reject::NameEmpty, "no metric name".to_owned()));
    }
    if name.len() > limits.name_bytes_max {
        let most = limits.name_bytes_max;
        return Err((Reject::NameTooLong, format!("a name has at most {most} bytes")));
    }
    if !agent_metric::name::is_metric_clean(name.as_bytes()) {
        return Err((Reject::NameMalformed, "a metric name has letters, digits, _ and :".into()));
    }
    Ok(())
}

fn read_sample<'a>(line: &'a str, limits: &Limits) -> Result<Sample<'a>, Fault> {
    let end = line.find([' ', '\t', '{']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    check_name(name, limits)?;
    let rest = trim_blank(rest);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => read_labels(inside, limits)?,
        None => (Vec::new(), rest),
    };
    let (value, rest) = split_blank(trim_blank(rest));
    if value.is_empty() {
        return Err((Reject::ValueMissing, "no value".to_owned()));
    }
    let value = number::parse_f64_any(value.as_bytes())
        .map_err(|reason| (reason, "the value is no number".to_owned()))?;
    let (timestamp, rest) = split_blank(rest);
    if !rest.is_empty() {
        return fault("something follows the time stamp");
    }
    let timestamp_ms = match timestamp {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            (Reject::TimestampMalformed, "a time stamp is whole milliseconds".to_owned())
        })?),
    };
    Ok(Sample { name, labels, value, timestamp_ms })
}

type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// The labels behind `{`, and what follows `}`.
fn read_labels<'a>(text: &'a str, limits: &Limits) -> Result<(Labels<'a>, &'a str), Fault> {
    let broken = |detail: &str| Err((Reject::LabelsMalformed, detail.to_owned()));
    let mut found: Labels<'a> = Vec::new();
    let mut rest = trim_blank(text);
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((found, after));
        }
        let Some((name, after)) = rest.split_once('=') else {
            return broken("a label has no =");
        };
        let name = name.trim_end_matches([' ', '\t']);
        let Some(after) = trim_blank(after).strip_prefix('"') else {
            return broken("a label value begins with a quote");
        };
        let Some(end) = quote_end(after) else {
            return broken("a label value has no end");
        };
        check_label(name, &after[..end], &found, limits)?;
        found.push((name, unescape(&after[..end], true)?));
        rest = trim_blank(&after[end + 1..]);
        match rest.strip_prefix(',') {
            Some(after) => rest = trim_blank(after),
            None if rest.starts_with('}') => {}
            None => return broken("between labels stands a comma"),
        }
    }
}

/// Where the closing quote stands.
fn quote_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

fn check_label(name: &str, value: &str, found: &Labels<'_>, limits: &Limits) -> Result<(), Fault> {
    if found.len() >= limits.labels_allowed() {
        let detail = format!("a sample has at most {} labels", limits.labels_allowed());
        return Err((Reject::LabelsTooMany, detail));
    }
    if name.len() > limits.label_name_bytes_max {
        let detail = format!("a label name has at most {} bytes", limits.label_name_bytes_max);
        return Err((Reject::LabelNameTooLong, detail));
    }
    if value.len() > limits.label_value_bytes_max {
        let detail = format!("a label value has at most {} bytes", limits.label_value_bytes_max);
        return Err((Reject::LabelValueTooLong, detail));
    }
    if name.is_empty() || !agent_metric::name::is_label_clean(name.as_bytes()) || name == "__name__"
    {
        let detail = "a label name has letters, digits and _, and is not __name__";
        return Err((Reject::LabelsMalformed, detail.to_owned()));
    }
    if found.iter().any(|(other, _)| *other == name) {
        return Err((Reject::LabelsMalformed, "a label is there twice".to_owned()));
    }
    Ok(())
}

/// Undoes `\\`, `\n` and, in label values, `\"`; any other backslash is a fault.
fn unescape(text: &str, quotes: bool) -> Result<Cow<'_, str>, Fault> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut escaped = false;
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        match bytes.get(at + found + 1) {
            Some(b'\\' | b'n') => {}
            Some(b'"') if quotes => {}
            _ => return fault("unknown escape behind a backslash"),
        }
        escaped = true;
        at += found + 2;
    }
    Ok(if escaped { Cow::Owned(labels::unescape(text)) } else { Cow::Borrowed(text) })
}
