//! StatsD and DogStatsD 1.0 to 1.6: one line in, one [`Item`] out, nothing allocated.
//!
//! ```text
//! name:value[:value...]|type[|@rate][|#tag:value,tag...][|Tseconds][|c:container][|e:external]
//!                           [|card:level]
//! name:value|type[|@rate]:value|type...               several samples of one name (etsy, Telegraf)
//! _e{title bytes,text bytes}:title|text[|fields]      _sc|name|status[|fields]      _ack|TOKEN
//! ```
//!
//! Fields after the type come in any order, the last of two equal ones wins, unknown ones are
//! skipped. A field right after the tags that is neither known nor of the form `word:...` belongs to
//! the tags: values of tags may hold `|`. Blanks and NUL bytes at the end of a line, and empty packed
//! values, are passed over. A sample is refused whole: if one packed value is bad, none is applied.
//! All values are checked before [`parse_line`] returns, so iterating [`Values`] cannot fail.
//!
//! Types are `c`, `g`, `ms`, `h`, `d`, `s`, and of other servers `C` and `m` (meter): counters both.
//!
//! Limits: name 256 bytes, 1,000 values, set member 1,024 bytes, event 8 KiB, rate from 1e-6 to 1.
//!
//! Not promised: tags are raw bytes here and are checked by [`crate::labels`]; a time stamp is
//! given for counters and gauges only and is not compared with a clock; tags inside of names are left
//! there, [`crate::name_tags`] finds them.

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
    /// Further samples of this name in the same line, raw; empty when there is none.
    more: &'a [u8],
}

impl<'a> Metric<'a> {
    /// The samples that follow in the same line.
    pub fn further(&self) -> Further<'a> {
        Further { name: self.name, rest: self.more }
    }
}

/// The samples of a line after its first, each with a type and a rate of its own; each is refused alone.
#[derive(Debug, Clone)]
pub struct Further<'a> {
    name: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Further<'a> {
    /// The next one; nothing after the last.
    #[inline]
    pub fn next(&mut self, limits: &Limits) -> Option<Result<Metric<'a>, Reject>> {
        if self.rest.is_empty() {
            return None;
        }
        let sample = parse_sample(self.name, self.rest, limits);
        self.rest = sample.as_ref().map_or_else(|_| after_sample(self.rest), |metric| metric.more);
        Some(sample)
    }
}

/// The samples that follow in a line whose first one was refused.
#[cold]
pub fn further<'a>(line: &'a [u8], limits: &Limits) -> Further<'a> {
    match split_name(without_blanks(line), limits) {
        Ok((name, after)) if line[0] != b'_' => Further { name, rest: after_sample(after) },
        _ => Further { name: b"", rest: b"" },
    }
}

/// What follows the colon that ends a sample: the one after its type, or after its rate.
fn after_sample(text: &[u8]) -> &[u8] {
    let (_, fields) = split_at_byte(text, b'|');
    let (kind, rest) = split_at_byte(fields, b'|');
    let ends = if memchr(b':', kind).is_some() { fields } else { rest };
    match ends.first() {
        Some(b'@') | Some(b'a'..=b'z' | b'A'..=b'Z') if ends.len() == fields.len() => {
            split_at_byte(ends, b':').1
        }
        Some(b'@') => {
            let rate = split_at_byte(ends, b'|').0;
            memchr(b':', rate).map_or(&[], |at| &ends[at + 1..])
        }
        _ => &[],
    }
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
        while !self.rest.is_empty() {
            let (text, rest) = split_at_byte(self.rest, b':');
            self.rest = rest;
            if !text.is_empty() {
                return read_value(self.kind, text).ok();
            }
        }
        None
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
    let (name, after) = split_name(without_blanks(line), limits)?;
    parse_sample(name, after, limits)
}

/// Decodes what follows `name:`.
#[inline]
fn parse_sample<'a>(name: &'a [u8], text: &'a [u8], limits: &Limits) -> Result<Metric<'a>, Reject> {
    let bar = memchr(b'|', text).ok_or(Reject::TypeMissing)?;
    let (text, mut fields) = (&text[..bar], &text[bar + 1..]);
    if text.is_empty() {
        return Err(Reject::ValueMissing);
    }
    let (kind, more) = read_kind(&mut fields)?;
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
        more,
    };
    read_fields(fields, &mut metric, limits)?;
    if !kind.is_sampled() {
        metric.rate = 1.0;
    }
    metric.values = read_values(kind, text, metric.rate, limits)?;
    Ok(metric)
}

/// The line without blanks, line ends and NUL bytes at its end: senders in C pad.
#[inline]
fn without_blanks(line: &[u8]) -> &[u8] {
    match line.last() {
        Some(b' ' | b'\t' | b'\r' | 0) => {
            let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | 0);
            let end = line.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
            &line[..end]
        }
        _ => line,
    }
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
    if name.len() > limits.name_bytes_max
        && crate::name_tags::bare_len(name, limits.name_tags) > limits.name_bytes_max
    {
        return Err(Reject::NameTooLong);
    }
    if name.iter().fold(false, |found, &byte| found | (byte < b' ') | (byte == 0x7f)) {
        return Err(Reject::NameMalformed);
    }
    Ok((name, &line[colon + 1..]))
}

/// Takes the type off the front of the fields; gives it and the samples that follow with the same name.
#[inline]
fn read_kind<'a>(fields: &mut &'a [u8]) -> Result<(StatsdKind, &'a [u8]), Reject> {
    let (kind, rest) = match *fields {
        [b'm', b's', rest @ ..] => (StatsdKind::Timer, rest),
        [b'c' | b'C' | b'm', rest @ ..] => (StatsdKind::Counter, rest),
        [b'g', rest @ ..] => (StatsdKind::Gauge, rest),
        [b'h', rest @ ..] => (StatsdKind::Histogram, rest),
        [b'd', rest @ ..] => (StatsdKind::Distribution, rest),
        [b's', rest @ ..] => (StatsdKind::Set, rest),
        [] | [b'|' | b':', ..] => return Err(Reject::TypeMissing),
        _ => return Err(Reject::TypeUnknown),
    };
    let none = &rest[rest.len()..];
    let more;
    (*fields, more) = match rest {
        [] => (none, none),
        [b'|', rest @ ..] => (rest, none),
        [b':', more @ ..] => (none, more),
        _ => return Err(Reject::TypeUnknown),
    };
    Ok((kind, more))
}

#[inline]
fn read_fields<'a>(
    fields: &'a [u8],
    metric: &mut Metric<'a>,
    limits: &Limits,
) -> Result<(), Reject> {
    let mut at = 0;
    // Where the tags begin, while what comes next may belong to them.
    let mut tags_at = None;
    while at < fields.len() {
        let end = memchr(b'|', &fields[at..]).map_or(fields.len(), |length| at + length);
        let field = &fields[at..end];
        let is_known = match field {
            [b'#', tags @ ..] => {
                metric.tags = tags;
                tags_at = Some(at + 1);
                at = end + 1;
                continue;
            }
            [b'@', rate @ ..] => {
                let length = memchr(b':', rate).unwrap_or(rate.len());
                metric.rate = read_rate(&rate[..length], limits)?;
                if length < rate.len() {
                    metric.more = &fields[at + length + 2..];
                    return Ok(());
                }
                true
            }
            _ => read_field(field, metric)?,
        };
        match tags_at {
            Some(from) if !is_known && !is_extension(field) => {
                if !field.is_empty() {
                    metric.tags = &fields[from..end];
                }
            }
            _ => tags_at = None,
        }
        at = end + 1;
    }
    Ok(())
}

/// Whether the field is one that we know.
#[inline]
fn read_field<'a>(field: &'a [u8], metric: &mut Metric<'a>) -> Result<bool, Reject> {
    match field {
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
        _ => return Ok(false),
    }
    Ok(true)
}

/// Whether the field has the form of those that later versions of the protocol may add: a short word and a colon.
fn is_extension(field: &[u8]) -> bool {
    let word = field.iter().take(9).take_while(|byte| byte.is_ascii_alphabetic()).count();
    (1..=8).contains(&word) && field.get(word) == Some(&b':')
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
    let (mut first, mut rest) = split_at_byte(text, b':');
    while first.is_empty() {
        if rest.is_empty() {
            return Err(Reject::ValueMissing);
        }
        (first, rest) = split_at_byte(rest, b':');
    }
    let value = read_checked(kind, first, rate)?;
    if !rest.is_empty() {
        check_rest(kind, rest, rate, limits)?;
    }
    Ok(Values { first: Some(value), rest, kind })
}

fn check_rest(kind: StatsdKind, rest: &[u8], rate: f64, limits: &Limits) -> Result<(), Reject> {
    let texts = rest.split(|&byte| byte == b':').filter(|text| !text.is_empty());
    for (index, text) in texts.enumerate() {
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
