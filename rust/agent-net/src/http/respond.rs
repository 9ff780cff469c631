//! Writing answers: status line, headers, body, always complete and in one buffer.
//!
//! Every answer has `Date`, `Content-Type` and `X-Content-Type-Options`; its length is known or it
//! is chunked (HTTP/1.1) or ends with the connection (HTTP/1.0).

use std::time::{SystemTime, UNIX_EPOCH};

use super::body::BodyError;
use super::head::HeadError;

pub const TEXT: &str = "text/plain; charset=utf-8";
pub const JSON: &str = "application/json";

/// What the request decided about its connection and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub http11: bool,
    pub keep_alive: bool,
    /// A HEAD request: all headers, no body.
    pub head_only: bool,
}

impl Terms {
    /// An ordinary GET.
    pub const PLAIN: Terms = Terms { http11: true, keep_alive: true, head_only: false };
    /// For answers to what could not be read.
    pub const CLOSE: Terms = Terms { http11: true, keep_alive: false, head_only: false };
}

/// Why something is refused: status, reason for the metrics, sentence for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why<'a>(pub u16, pub &'static str, pub &'a str);

impl From<HeadError> for Why<'static> {
    fn from(error: HeadError) -> Self {
        Why(error.status(), error.as_str(), error.text())
    }
}

impl From<BodyError> for Why<'static> {
    fn from(error: BodyError) -> Self {
        Why(error.status(), error.as_str(), error.text())
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Bytes(usize),
    /// Chunked in HTTP/1.1; in HTTP/1.0 the end of the connection.
    Open,
    /// The status has no body.
    None,
}

/// An answer without its body.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub status: u16,
    pub content_type: &'a str,
    pub extra: &'a [(&'a str, &'a str)],
}

impl<'a> Answer<'a> {
    pub fn new(status: u16, content_type: &'a str) -> Answer<'a> {
        Answer { status, content_type, extra: &[] }
    }

    /// Writes status line and headers.
    pub fn head(&self, out: &mut Vec<u8>, date: &str, terms: Terms, extent: Extent) {
        let closes = !terms.keep_alive || (extent == Extent::Open && !terms.http11);
        put(out, &["HTTP/1.1 ", status_line(self.status), "\r\nDate: ", date]);
        if extent != Extent::None {
            put(out, &["\r\nContent-Type: ", self.content_type]);
        }
        match extent {
            Extent::Bytes(length) => {
                out.extend_from_slice(b"\r\nContent-Length: ");
                out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            }
            Extent::Open if terms.http11 => put(out, &["\r\nTransfer-Encoding: chunked"]),
            Extent::Open | Extent::None => {}
        }
        for (name, value) in self.extra {
            put(out, &["\r\n", name, ": ", value]);
        }
        if closes {
            put(out, &["\r\nConnection: close"]);
        } else if !terms.http11 {
            put(out, &["\r\nConnection: keep-alive"]);
        }
        put(out, &["\r\nX-Content-Type-Options: nosniff\r\n\r\n"]);
    }

    /// Writes the whole answer.
    pub fn write(&self, out: &mut Vec<u8>, date: &str, terms: Terms, body: &[u8]) {
        self.head(out, date, terms, Extent::Bytes(body.len()));
        if !terms.head_only {
            out.extend_from_slice(body);
        }
    }
}

/// A refusal: one line of text, or an object when the path is one that speaks JSON.
pub fn refusal_body(json: bool, reason: &str, text: &str) -> Vec<u8> {
    if json {
        let mut body = serde_json::json!({ "error": text, "reason": reason }).to_string();
        body.push('\n');
        body.into_bytes()
    } else {
        format!("{text} ({reason})\n").into_bytes()
    }
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn status_line(status: u16) -> &'static str {
    match status {
        200 => "200 OK",
        202 => "202 Accepted",
        207 => "207 Multi-Status",
        304 => "304 Not Modified",
        400 => "400 Bad Request",
        404 => "404 Not Found",
        405 => "405 Method Not Allowed",
        408 => "408 Request Timeout",
        409 => "409 Conflict",
        413 => "413 Content Too Large",
        414 => "414 URI Too Long",
        415 => "415 Unsupported Media Type",
        417 => "417 Expectation Failed",
        431 => "431 Request Header Fields Too Large",
        500 => "500 Internal Server Error",
        501 => "501 Not Implemented",
        503 => "503 Service Unavailable",
        505 => "505 HTTP Version Not Supported",
        507 => "507 Insufficient Storage",
        _ => "500 Internal Server Error",
    }
}

/// The `Date` header, made anew at most four times a second.
#[derive(Debug, Default)]
pub struct DateLine {
    text: String,
    made_ms: u64,
}

impl DateLine {
    /// `now_ms` is the loop's clock: it only says how old the text is.
    pub fn at(&mut self, now_ms: u64) -> &str {
        if self.text.is_empty() || now_ms.saturating_sub(self.made_ms) >= 250 {
            self.text = http_date(unix_s());
            self.made_ms = now_ms;
        }
        &self.text
    }
}

/// Now, for threads without a [`DateLine`].
pub fn http_date_now() -> String {
    http_date(unix_s())
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(unix_s: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month from 0 and day from 1 of a day counted from 1970-01-01.
fn civil(days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    // Whole 400-year cycles first, so that the loops below are short for any clock.
    let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while month < 11 && left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(1_735_689_599), "Tue, 31 Dec 2024 23:59:59 GMT");
        assert_eq!(http_date(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
    }

    #[test]
    fn the_connection_header_follows_version_and_terms() {
        let head = |terms: Terms, extent: Extent| {
            let mut out = Vec::new();
            Answer::new(200, TEXT).head(&mut out, "D", terms, extent);
            String::from_utf8(out).expect("ASCII")
        };
        let new = Terms { http11: true, keep_alive: true, head_only: false };
        let old = Terms { http11: false, ..new };
        assert!(!head(new, Extent::Bytes(1)).contains("Connection"));
        assert!(head(new, Extent::Open).contains("Transfer-Encoding: chunked\r\n"));
        assert!(head(Terms::CLOSE, Extent::Bytes(1)).contains("Connection: close\r\n"));
        assert!(head(old, Extent::Bytes(1)).contains("Connection: keep-alive\r\n"));
        let open = head(old, Extent::Open);
        assert!(open.contains("Connection: close\r\n") && !open.contains("Transfer-Encoding"));
    }

    #[test]
    fn a_head_request_gets_the_length_and_no_body() {
        let mut out = Vec::new();
        let terms = Terms { http11: true, keep_alive: true, head_only: true };
        Answer::new(200, TEXT).write(&mut out, "D", terms, b"abc");
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\n"));
    }
}
