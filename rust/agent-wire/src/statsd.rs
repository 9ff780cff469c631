//! StatsD and DogStatsD 1.0 to 1.6: one line in, one [`Item`] out, nothing allocated.
//!
//! ```text
//! name:value[:value...]|type[|@rate][|#tag:value,tag...][|Tseconds][|c:container][|e:external]
//!                           [|card:level]
//! _e{title bytes,text bytes}:title|text[|fields]      _sc|name|status[|fields]      _ack|TOKEN
//! ```
//!
//! Fields after the type come in any order, the last of two equal ones wins, unknown ones are
//! skipped. A line is refused whole: if one packed value is bad, none is applied. All values are
//! checked before [`parse_line`] returns, so iterating [`Values`] cannot fail.
//!
//! Limits: name 256 bytes, 1,000 values, set member 1,024 bytes, event 8 KiB, rate from 1e-6 to 1.
//!
//! Not promised: tags are raw bytes here and are checked by [`crate::labels`]; a time stamp is
//! given for counters and gauges only and is not compared with a clock; Telegraf multi-values and
//! the tag dialects of Influx, Librato and SignalFx are read as part of the name.

mod event;

use memchr::{memchr, memchr2};

pub use crate::sample::{Kind as StatsdKind, Value};
pub use crate::{Limits, Reject};
pub use event::{AlertType, Event, Priority, ServiceCheck, Status};

use crate::{number, sample};

/// Bytes of a token in `_ack|TOKEN`.
pub const ACK_BYTES_MAX: usize = 64;

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<'a> {
    Metric(Metric<'a>),
    Event(Event<'a>),
    Check(ServiceCheck<'a>),
    /// The token to answer with once everything before it is applied.
    Ack(&'a [u8]),
}

/// A metric line. `name` and `tags` are raw: see [`crate::name`] and [`crate::labels`].
#[derive(Debug, Clone, PartialEq)]
pub struct Metric<'a> {
    pub name: &'a [u8],
    pub kind: StatsdKind,
    pub values: Values<'a>,
    /// In `rate_min ..= 1`; 1 for gauges and sets, whatever was sent.
    pub rate: f64,
    /// The text after `|#`, empty when there is none.
    pub tags: &'a [u8],
    /// Unix seconds of `|T`, of counters and gauges.
    pub timestamp: Option<u64>,
    /// The text after `|c:`, such as `ci-...` or `in-...`.
    pub container: Option<&'a [u8]>,
    /// The text after `|e:`.
    pub external: Option<&'a [u8]>,
    pub cardinality: Option<Cardinality>,
}

/// The level after `|card:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    None,
    Low,
    Orchestrator,
    High,
}

/// The values of a line, checked: numbers are finite and of the range of their kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Values<'a> {
    first: Option<Value<'a>>,
    rest: &'a [u8],
    kind: StatsdKind,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.rest.is_empty() {
            return None;
        }
        let (text, rest) = split_at_byte(self.rest, b':');
        self.rest = rest;
        read_value(self.kind, text).ok()
    }
}

/// Decodes one line without its line end.
#[inline]
pub fn parse_line<'a>(line: &'a [u8], limits: &Limits) -> Result<Item<'a>, Reject> {
    if line.first() == Some(&b'_') {
        if let Some(special) = parse_special(line, limits) {
            return special;
        }
    }
    parse_metric(line, limits).map(Item::Metric)
}

#[cold]
fn parse_special<'a>(line: &'a [u8], limits: &Limits) -> Option<Result<Item<'a>, Reject>> {
    if let Some(rest) = line.strip_prefix(b"_e{") {
        Some(event::parse_event(rest, limits).map(Item::Event))
    } else if let Some(rest) = line.strip_prefix(b"_sc|") {
        Some(event::parse_check(rest, limits).map(Item::Check))
    } else {
        line.strip_prefix(b"_ack|").map(|token| parse_ack(token).map(Item::Ack))
    }
}

fn parse_ack(token: &[u8]) -> Result<&[u8], Reject> {
    let fits = (1..=ACK_BYTES_MAX).contains(&token.len());
    if fits && token.iter().all(u8::is_ascii_graphic) {
        Ok(token)
    } else {
        Err(Reject::AckMalformed)
    }
}

#[inline]
fn parse_metric<'a>(line: &'a [u8], limits: &Limits) -> Result<Metric<'a>, Reject> {
    let (name, after) = split_name(line, limits)?;
    let bar = memchr(b'|', after).ok_or(Reject::TypeMissing)?;
    let (text, mut fields) = (&after[..bar], &after[bar + 1..]);
    if text.is_empty() {
        return Err(Reject::ValueMissing);
    }
    let kind = read_kind(&mut fields)?;
    let mut metric = Metric {
        name,
        kind,
        values: Values { first: None, rest: b"", kind },
        rate: 1.0,
        tags: b"",
        timestamp: None,
        container: None,
        external: None,
        cardinality: None,
    };
    while !fields.is_empty() {
        let (field, rest) = split_at_byte(fields, b'|');
        fields = rest;
        read_field(field, &mut metric, limits)?;
    }
    if !kind.is_sampled() {
        metric.rate = 1.0;
    }
    metric.values = read_values(kind, text, metric.rate, limits)?;
    Ok(metric)
}

/// The name and what follows its colon.
#[inline]
fn split_name<'a>(line: &'a [u8], limits: &Limits) -> Result<(&'a [u8], &'a [u8]), Reject> {
    let colon = match memchr2(b':', b'|', line) {
        Some(at) if line[at] == b':' => at,
        Some(0) => return Err(Reject::NameEmpty),
        Some(_) => return Err(Reject::ValueMissing),
        None if line.is_empty() => return Err(Reject::LineEmpty),
        None => return Err(Reject::ValueMissing),
    };
    let name = &line[..colon];
    if name.is_empty() {
        return Err(Reject::NameEmpty);
    }
    if name.len() > limits.name_bytes_max {
        return Err(Reject::NameTooLong);
    }
    if name.iter().fold(false, |found, &byte| found | (byte < b' ') | (byte == 0x7f)) {
        return Err(Reject::NameMalformed);
    }
    Ok((name, &line[colon + 1..]))
}

/// Takes the type off the front of the fields.
#[inline]
fn read_kind(fields: &mut &[u8]) -> Result<StatsdKind, Reject> {
    let (kind, rest) = match *fields {
        [b'm', b's', rest @ ..] => (StatsdKind::Timer, rest),
        [b'c', rest @ ..] => (StatsdKind::Counter, rest),
        [b'g', rest @ ..] => (StatsdKind::Gauge, rest),
        [b'h', rest @ ..] => (StatsdKind::Histogram, rest),
        [b'd', rest @ ..] => (StatsdKind::Distribution, rest),
        [b's', rest @ ..] => (StatsdKind::Set, rest),
        [] | [b'|', ..] => return Err(Reject::TypeMissing),
        _ => return Err(Reject::TypeUnknown),
    };
    *fields = match rest {
        [] => rest,
        [b'|', rest @ ..] => rest,
        _ => return Err(Reject::TypeUnknown),
    };
    Ok(kind)
}

#[inline]
fn read_field<'a>(field: &'a [u8], metric: &mut Metric<'a>, limits: &Limits) -> Result<(), Reject> {
    match field {
        [b'#', tags @ ..] => metric.tags = tags,
        [b'@', rate @ ..] => metric.rate = read_rate(rate, limits)?,
        [b'T', seconds @ ..] => {
            let seconds = number::parse_u64(seconds).filter(|&seconds| seconds > 0);
            let seconds = seconds.ok_or(Reject::TimestampMalformed)?;
            if matches!(metric.kind, StatsdKind::Counter | StatsdKind::Gauge) {
                metric.timestamp = Some(seconds);
            }
        }
        [b'c', b':', container @ ..] => metric.container = Some(container),
        [b'e', b':', external @ ..] => metric.external = Some(external),
        [b'c', b'a', b'r', b'd', b':', level @ ..] => metric.cardinality = cardinality(level),
        _ => {}
    }
    Ok(())
}

fn read_rate(text: &[u8], limits: &Limits) -> Result<f64, Reject> {
    let rate = number::parse_f64(text).map_err(|reason| match reason {
        // `1e400` is a number, and above 1.
        Reject::ValueOutOfRange if text.first() != Some(&b'-') => Reject::RateAboveOne,
        _ => Reject::RateMalformed,
    })?;
    sample::check_rate(rate, limits)?;
    Ok(rate)
}

fn cardinality(level: &[u8]) -> Option<Cardinality> {
    match level {
        b"none" => Some(Cardinality::None),
        b"low" => Some(Cardinality::Low),
        b"orchestrator" => Some(Cardinality::Orchestrator),
        b"high" => Some(Cardinality::High),
        _ => None,
    }
}

/// Checks every value and keeps the first.
#[inline]
fn read_values<'a>(
    kind: StatsdKind,
    text: &'a [u8],
    rate: f64,
    limits: &Limits,
) -> Result<Values<'a>, Reject> {
    if kind == StatsdKind::Set {
        if text.len() > limits.set_value_bytes_max {
            return Err(Reject::ValueTooLong);
        }
        return Ok(Values { first: Some(Value::Set(text)), rest: b"", kind });
    }
    let (first, rest) = split_at_byte(text, b':');
    let value = read_checked(kind, first, rate)?;
    if first.len() < text.len() {
        check_rest(kind, rest, rate, limits)?;
    }
    Ok(Values { first: Some(value), rest, kind })
}

fn check_rest(kind: StatsdKind, rest: &[u8], rate: f64, limits: &Limits) -> Result<(), Reject> {
    for (index, text) in rest.split(|&byte| byte == b':').enumerate() {
        if index + 2 > limits.values_max {
            return Err(Reject::ValuesTooMany);
        }
        read_checked(kind, text, rate)?;
    }
    Ok(())
}

#[inline]
fn read_checked<'a>(kind: StatsdKind, text: &[u8], rate: f64) -> Result<Value<'a>, Reject> {
    let value = read_value(kind, text)?;
    if let Value::Number(number) | Value::Delta(number) = value {
        sample::check_number(kind, number, rate)?;
    }
    Ok(value)
}

/// One number; a sign makes a gauge value a shift.
#[inline]
fn read_value<'a>(kind: StatsdKind, text: &[u8]) -> Result<Value<'a>, Reject> {
    let number = number::parse_f64(text)?;
    let signed = kind == StatsdKind::Gauge && matches!(text.first(), Some(b'+' | b'-'));
    Ok(if signed { Value::Delta(number) } else { Value::Number(number) })
}

/// The text before the first such byte, and the text after it (empty when there is none).
#[inline]
fn split_at_byte(text: &[u8], byte: u8) -> (&[u8], &[u8]) {
    match memchr(byte, text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}
