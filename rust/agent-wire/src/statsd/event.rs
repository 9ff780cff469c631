//! Events and service checks of DogStatsD.
//!
//! ```text
//! _e{title bytes,text bytes}:title|text[|d:seconds|h:host|k:key|p:low|s:source|t:warning|#tags]
//! _sc|name|status[|d:seconds|h:host|#tags|m:message]
//! ```
//!
//! Lengths count bytes, so title and text may hold `|`. Line feeds arrive as the two characters
//! `\n` and are left as they are; `c:`, `e:` are read as on metrics. Unknown fields, priorities, alert
//! types and dates are skipped.

use memchr::memchr;

use super::split_at_byte;
use crate::number::parse_u64;
use crate::{Limits, Reject};

/// An event, as sent; texts are raw bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    pub title: &'a [u8],
    pub text: &'a [u8],
    /// Unix seconds.
    pub timestamp: Option<u64>,
    pub hostname: &'a [u8],
    pub aggregation_key: &'a [u8],
    pub priority: Priority,
    pub source_type: &'a [u8],
    pub alert_type: AlertType,
    pub tags: &'a [u8],
    pub container: Option<&'a [u8]>,
    pub external: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Normal,
    Low,
}

impl Priority {
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertType {
    Error,
    Warning,
    Info,
    Success,
}

impl AlertType {
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertType::Error => "error",
            AlertType::Warning => "warning",
            AlertType::Info => "info",
            AlertType::Success => "success",
        }
    }
}

/// A service check, as sent; texts are raw bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceCheck<'a> {
    pub name: &'a [u8],
    pub status: Status,
    /// Unix seconds.
    pub timestamp: Option<u64>,
    pub hostname: &'a [u8],
    pub tags: &'a [u8],
    pub message: &'a [u8],
    pub container: Option<&'a [u8]>,
    pub external: Option<&'a [u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Critical => "critical",
            Status::Unknown => "unknown",
        }
    }
}

/// Decodes what follows `_e{`.
pub(super) fn parse_event<'a>(rest: &'a [u8], limits: &Limits) -> Result<Event<'a>, Reject> {
    if rest.len() > limits.event_bytes_max {
        return Err(Reject::EventTooLong);
    }
    let (title, text, mut fields) = split_event(rest).ok_or(Reject::EventMalformed)?;
    let mut event = Event {
        title,
        text,
        timestamp: None,
        hostname: b"",
        aggregation_key: b"",
        priority: Priority::Normal,
        source_type: b"",
        alert_type: AlertType::Info,
        tags: b"",
        container: None,
        external: None,
    };
    while !fields.is_empty() {
        let (field, next) = split_at_byte(fields, b'|');
        fields = next;
        match field {
            [b'd', b':', date @ ..] => event.timestamp = parse_u64(date),
            [b'h', b':', host @ ..] => event.hostname = host,
            [b'k', b':', key @ ..] => event.aggregation_key = key,
            b"p:low" => event.priority = Priority::Low,
            b"p:normal" => event.priority = Priority::Normal,
            [b's', b':', source @ ..] => event.source_type = source,
            b"t:error" => event.alert_type = AlertType::Error,
            b"t:warning" => event.alert_type = AlertType::Warning,
            b"t:info" => event.alert_type = AlertType::Info,
            b"t:success" => event.alert_type = AlertType::Success,
            [b'#', tags @ ..] => event.tags = tags,
            [b'c', b':', container @ ..] => event.container = Some(container),
            [b'e', b':', external @ ..] => event.external = Some(external),
            _ => {}
        }
    }
    Ok(event)
}

/// `4,5}:titl|texts|fields` -> title, text, fields.
fn split_event(rest: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let brace = memchr(b'}', rest)?;
    let (lengths, body) = (&rest[..brace], rest[brace + 1..].strip_prefix(b":")?);
    let comma = memchr(b',', lengths)?;
    let title_bytes = usize::try_from(parse_u64(&lengths[..comma])?).ok()?;
    let text_bytes = usize::try_from(parse_u64(&lengths[comma + 1..])?).ok()?;
    let (title, body) = body.split_at_checked(title_bytes)?;
    let (text, fields) = body.strip_prefix(b"|")?.split_at_checked(text_bytes)?;
    if title.is_empty() {
        return None;
    }
    match fields {
        [] => Some((title, text, fields)),
        [b'|', fields @ ..] => Some((title, text, fields)),
        _ => None,
    }
}

/// Decodes what follows `_sc|`.
pub(super) fn parse_check<'a>(rest: &'a [u8], limits: &Limits) -> Result<ServiceCheck<'a>, Reject> {
    if rest.len() > limits.event_bytes_max {
        return Err(Reject::EventTooLong);
    }
    let (name, rest) = split_at_byte(rest, b'|');
    let (status, mut fields) = split_at_byte(rest, b'|');
    let status = match status {
        b"0" => Status::Ok,
        b"1" => Status::Warning,
        b"2" => Status::Critical,
        b"3" => Status::Unknown,
        _ => return Err(Reject::CheckMalformed),
    };
    if name.is_empty() {
        return Err(Reject::CheckMalformed);
    }
    let mut check = ServiceCheck {
        name,
        status,
        timestamp: None,
        hostname: b"",
        tags: b"",
        message: b"",
        container: None,
        external: None,
    };
    while !fields.is_empty() {
        let (field, next) = split_at_byte(fields, b'|');
        fields = next;
        match field {
            [b'd', b':', date @ ..] => check.timestamp = parse_u64(date),
            [b'h', b':', host @ ..] => check.hostname = host,
            [b'#', tags @ ..] => check.tags = tags,
            [b'm', b':', message @ ..] => check.message = message,
            [b'c', b':', container @ ..] => check.container = Some(container),
            [b'e', b':', external @ ..] => check.external = Some(external),
            _ => {}
        }
    }
    Ok(check)
}
