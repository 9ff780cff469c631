//! The request head: where it ends, what it says, and every reason to refuse it.
//!
//! Two steps, so that the answer never depends on how the bytes were cut into segments:
//!
//! 1. [`HeadScan`] finds the empty line that ends the head. It looks at each byte once, however
//!    many reads bring it, and refuses bare LF, folded lines and a first byte that starts no method.
//! 2. [`Head::parse`] reads the complete head with `httparse` and applies the strict rules that
//!    keep two readers of one byte stream in agreement (request smuggling): one `Host`, at most one
//!    `Content-Length` of digits only, never beside `Transfer-Encoding`, which may only say
//!    `chunked`.
//!
//! Limits: a size for the head (empty line included), [`HEADERS_MAX`] lines, [`TARGET_BYTES_MAX`]
//! for the target. Not promised: HTTP/2 (its preface gets 505), `Upgrade` (ignored), trailers
//! (read, then forgotten).

use std::mem::MaybeUninit;

/// Header lines of one request.
pub const HEADERS_MAX: usize = 64;
/// Bytes of the request target.
pub const TARGET_BYTES_MAX: usize = 4096;

/// Why a head is refused. Each one closes the connection: what follows cannot be framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    NotHttp,
    BareLf,
    FoldedHeader,
    TooLarge,
    TooManyHeaders,
    TargetTooLong,
    BadTarget,
    Malformed,
    Version,
    NoHost,
    ManyHosts,
    ManyLengths,
    BadLength,
    LengthAndEncoding,
    EncodingInHttp10,
    UnknownTransferEncoding,
    ManyContentTypes,
    ManyContentEncodings,
    UnknownExpectation,
}

impl HeadError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            HeadError::TooLarge | HeadError::TooManyHeaders => 431,
            HeadError::TargetTooLong => 414,
            HeadError::Version => 505,
            HeadError::UnknownTransferEncoding => 501,
            HeadError::UnknownExpectation => 417,
            _ => 400,
        }
    }

    /// The reason as a label value.
    pub fn as_str(self) -> &'static str {
        match self {
            HeadError::NotHttp => "not_http",
            HeadError::BareLf => "bare_lf",
            HeadError::FoldedHeader => "folded_header",
            HeadError::TooLarge => "head_too_large",
            HeadError::TooManyHeaders => "too_many_headers",
            HeadError::TargetTooLong => "target_too_long",
            HeadError::BadTarget => "bad_target",
            HeadError::Malformed => "malformed_head",
            HeadError::Version => "http_version",
            HeadError::NoHost => "no_host",
            HeadError::ManyHosts => "many_hosts",
            HeadError::ManyLengths => "many_content_lengths",
            HeadError::BadLength => "bad_content_length",
            HeadError::LengthAndEncoding => "length_and_transfer_encoding",
            HeadError::EncodingInHttp10 => "transfer_encoding_in_http10",
            HeadError::UnknownTransferEncoding => "unknown_transfer_encoding",
            HeadError::ManyContentTypes => "many_content_types",
            HeadError::ManyContentEncodings => "many_content_encodings",
            HeadError::UnknownExpectation => "unknown_expectation",
        }
    }

    /// One sentence for the person at the other end.
    pub fn text(self) -> &'static str {
        match self {
            HeadError::NotHttp => "this port speaks HTTP/1.1; the bytes that came are not HTTP",
            HeadError::BareLf => "a line of the head ends in LF without CR",
            HeadError::FoldedHeader => "a header line starts with white space (folded header)",
            HeadError::TooLarge => "the request head is over the limit of bytes",
            HeadError::TooManyHeaders => "the request has more than 64 header lines",
            HeadError::TargetTooLong => "the request target is over 4096 bytes",
            HeadError::BadTarget => "the request target is not a path",
            HeadError::Malformed => "the request head is malformed",
            HeadError::Version => "only HTTP/1.1 and HTTP/1.0 are spoken here",
            HeadError::NoHost => "an HTTP/1.1 request needs a Host header",
            HeadError::ManyHosts => "the request has more than one Host header",
            HeadError::ManyLengths => "the request has more than one Content-Length",
            HeadError::BadLength => "Content-Length is not a decimal number",
            HeadError::LengthAndEncoding => {
                "the request has both Content-Length and Transfer-Encoding"
            }
            HeadError::EncodingInHttp10 => "Transfer-Encoding does not exist in HTTP/1.0",
            HeadError::UnknownTransferEncoding => "the only Transfer-Encoding known is chunked",
            HeadError::ManyContentTypes => "the request has more than one Content-Type",
            HeadError::ManyContentEncodings => "the request has more than one Content-Encoding",
            HeadError::UnknownExpectation => "the only Expect known is 100-continue",
        }
    }
}

/// What a look at more bytes of a head found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scanned {
    /// The head goes on.
    More,
    /// The head is `bytes[start..end]`; the body or the next request starts at `end`.
    Complete { start: usize, end: usize },
}

/// Finds the end of a head. Resumable: each call gets all bytes since the head began.
#[derive(Clone, Copy, Debug)]
pub struct HeadScan {
    bytes_max: usize,
    seen: usize,
    line: usize,
    start: usize,
}

impl HeadScan {
    pub fn new(bytes_max: usize) -> HeadScan {
        HeadScan { bytes_max, seen: 0, line: 0, start: 0 }
    }

    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scanned, HeadError> {
        // Only the first `bytes_max` bytes are ever judged: the verdict is the same for any split.
        let bounded = &bytes[..bytes.len().min(self.bytes_max)];
        while let Some(found) = memchr::memchr(b'\n', &bounded[self.seen..]) {
            let at = self.seen + found;
            self.check_first(bounded)?;
            if at == 0 || bounded[at - 1] != b'\r' {
                return Err(HeadError::BareLf);
            }
            let empty = at == self.line + 1;
            if empty && self.line == 0 {
                // One empty line before a request is left over from a sloppy client's last body.
                self.start = at + 1;
            } else if empty && self.line == self.start {
                return Err(HeadError::NotHttp);
            } else if empty {
                return Ok(Scanned::Complete { start: self.start, end: at + 1 });
            } else if self.line > self.start && matches!(bounded[self.line], b' ' | b'\t') {
                return Err(HeadError::FoldedHeader);
            }
            self.seen = at + 1;
            self.line = at + 1;
        }
        self.check_first(bounded)?;
        self.seen = bounded.len();
        if bytes.len() > self.bytes_max {
            return Err(HeadError::TooLarge);
        }
        Ok(Scanned::More)
    }

    /// Anything that cannot start a method is refused on its first byte, not at the time-out.
    fn check_first(&self, bytes: &[u8]) -> Result<(), HeadError> {
        match bytes.get(self.start) {
            Some(b'\r') if self.start == 0 => match bytes.get(1) {
                None | Some(b'\n') => Ok(()),
                Some(_) => Err(HeadError::NotHttp),
            },
            Some(b'\r') => Err(HeadError::NotHttp),
            Some(b'\n') => Err(HeadError::BareLf),
            Some(first) if !first.is_ascii_uppercase() => Err(HeadError::NotHttp),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Other,
}

/// How the body that follows the head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
}

/// A complete, accepted head, borrowed from the bytes that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub method: Method,
    /// Begins with `/` (or is `*`), still percent-encoded.
    pub path: &'a str,
    /// What follows `?`, without it; empty when there is none.
    pub query: &'a str,
    pub http11: bool,
    pub keep_alive: bool,
    pub framing: Framing,
    pub expect_continue: bool,
    pub content_type: Option<&'a [u8]>,
    pub content_encoding: Option<&'a [u8]>,
    pub accept: Option<&'a [u8]>,
    pub accept_encoding: Option<&'a [u8]>,
}

impl<'a> Head<'a> {
    /// Reads a head that [`HeadScan`] found complete.
    pub fn parse(bytes: &'a [u8]) -> Result<Head<'a>, HeadError> {
        let mut lines = [MaybeUninit::uninit(); HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut lines) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(HeadError::Malformed),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
            Err(httparse::Error::Version) => return Err(HeadError::Version),
            Err(_) => return Err(HeadError::Malformed),
        }
        let (Some(method), Some(target), Some(minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(HeadError::Malformed);
        };
        let (path, query) = split_target(target)?;
        let mut head = Head {
            method: method_of(method),
            path,
            query,
            http11: minor == 1,
            keep_alive: minor == 1,
            framing: Framing::Empty,
            expect_continue: false,
            content_type: None,
            content_encoding: None,
            accept: None,
            accept_encoding: None,
        };
        head.read_headers(request.headers)?;
        Ok(head)
    }

    fn read_headers(&mut self, headers: &[httparse::Header<'a>]) -> Result<(), HeadError> {
        let mut hosts = 0;
        let mut length = None;
        let mut coded = false;
        let mut close = false;
        let mut keep = false;
        for header in headers {
            let value = header.value;
            let name = header.name;
            // By length first: most headers of a browser are none of these.
            match name.len() {
                4 if is(name, "host") => hosts += 1,
                6 if is(name, "accept") => self.accept = self.accept.or(Some(value)),
                6 if is(name, "expect") => self.read_expect(value)?,
                10 if is(name, "connection") => {
                    close |= has_token(value, "close");
                    keep |= has_token(value, "keep-alive");
                }
                12 if is(name, "content-type") => {
                    put_once(&mut self.content_type, value, HeadError::ManyContentTypes)?
                }
                14 if is(name, "content-length") => {
                    if length.is_some() {
                        return Err(HeadError::ManyLengths);
                    }
                    length = Some(decimal(value).ok_or(HeadError::BadLength)?);
                }
                15 if is(name, "accept-encoding") => {
                    self.accept_encoding = self.accept_encoding.or(Some(value))
                }
                16 if is(name, "content-encoding") => {
                    put_once(&mut self.content_encoding, value, HeadError::ManyContentEncodings)?
                }
                17 if is(name, "transfer-encoding") => {
                    if coded || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(HeadError::UnknownTransferEncoding);
                    }
                    coded = true;
                }
                _ => {}
            }
        }
        self.framing = match (length, coded) {
            (Some(_), true) => return Err(HeadError::LengthAndEncoding),
            (None, true) if !self.http11 => return Err(HeadError::EncodingInHttp10),
            (None, true) => Framing::Chunked,
            (Some(0), false) | (None, false) => Framing::Empty,
            (Some(bytes), false) => Framing::Length(bytes),
        };
        match hosts {
            0 if self.http11 => return Err(HeadError::NoHost),
            0 | 1 => {}
            _ => return Err(HeadError::ManyHosts),
        }
        self.keep_alive = !close && (self.http11 || keep);
        Ok(())
    }

    fn read_expect(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(HeadError::UnknownExpectation);
        }
        // HTTP/1.0 has no interim answers: the expectation is ignored there.
        self.expect_continue = self.http11;
        Ok(())
    }
}

fn is(name: &str, wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted)
}

fn put_once<'a>(
    slot: &mut Option<&'a [u8]>,
    value: &'a [u8],
    twice: HeadError,
) -> Result<(), HeadError> {
    if slot.replace(value).is_some() {
        return Err(twice);
    }
    Ok(())
}

fn method_of(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        _ => Method::Other,
    }
}

/// Path and query of an origin-form or absolute-form target.
fn split_target(target: &str) -> Result<(&str, &str), HeadError> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(HeadError::TargetTooLong);
    }
    let local = if target.starts_with('/') || target == "*" {
        target
    } else {
        let after = target
            .strip_prefix("http://")
            .or_else(|| target.strip_prefix("https://"))
            .ok_or(HeadError::BadTarget)?;
        match after.find(['/', '?']) {
            Some(at) if after.as_bytes()[at] == b'/' => &after[at..],
            Some(_) => return Err(HeadError::BadTarget),
            None => "/",
        }
    };
    let local = local.split('#').next().unwrap_or(local);
    Ok(local.split_once('?').unwrap_or((local, "")))
}

/// Digits only, at least one, no sign, fitting a u64.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether a comma-separated header value holds `token`.
pub fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
#[path = "head_test.rs"]
mod tests;
