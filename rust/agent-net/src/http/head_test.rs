//! Heads: what is accepted, what is refused and how, and that no split of the bytes changes either.

use super::*;

const HEAD_BYTES_MAX: usize = 16 << 10;

/// Scans `bytes` cut at `cut`, then whole, and parses what was found.
fn read_cut(bytes: &[u8], cut: usize) -> Result<Option<(Head<'_>, usize)>, HeadError> {
    let mut scan = HeadScan::new(HEAD_BYTES_MAX);
    for end in [cut, bytes.len()] {
        if let Scanned::Complete { start, end } = scan.scan(&bytes[..end])? {
            return Ok(Some((Head::parse(&bytes[start..end])?, end)));
        }
    }
    Ok(None)
}

/// Reads the head at every split and insists on one verdict.
fn read(bytes: &[u8]) -> Result<Option<(Head<'_>, usize)>, HeadError> {
    let whole = read_cut(bytes, bytes.len());
    for cut in 0..bytes.len() {
        assert_eq!(read_cut(bytes, cut), whole, "cut at {cut}");
    }
    whole
}

fn accepted(text: &str) -> Head<'_> {
    let (head, end) = read(text.as_bytes()).expect("accepted").expect("complete");
    assert_eq!(end, text.len());
    head
}

fn refused(text: &[u8]) -> HeadError {
    read(text).expect_err("refused")
}

#[test]
fn a_plain_get_is_read_and_keeps_the_connection() {
    let head = accepted("GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\r\n");
    assert_eq!((head.method, head.path, head.query), (Method::Get, "/metrics", "a=b"));
    assert_eq!(head.framing, Framing::Empty);
    assert!(head.keep_alive && head.http11);
    assert_eq!(head.accept, Some(&b"text/plain"[..]));
}

#[test]
fn keep_alive_follows_version_and_connection_header() {
    let keep = |text: &str| accepted(text).keep_alive;
    assert!(keep("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, CLOSE\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
    assert!(keep("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn framing_and_expectation_are_read() {
    let post = |rest: &str| format!("POST /v1/push HTTP/1.1\r\nHost: x\r\n{rest}\r\n");
    assert_eq!(accepted(&post("Content-Length: 12\r\n")).framing, Framing::Length(12));
    assert_eq!(accepted(&post("Content-Length: 0\r\n")).framing, Framing::Empty);
    assert_eq!(accepted(&post("Transfer-Encoding: Chunked\r\n")).framing, Framing::Chunked);
    assert!(accepted(&post("Expect: 100-Continue\r\n")).expect_continue);
    assert!(!accepted("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
}

#[test]
fn the_absolute_form_and_one_leading_empty_line_are_accepted() {
    let head = accepted("\r\nGET http://h:1/livez?verbose HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((head.path, head.query), ("/livez", "verbose"));
    assert_eq!(accepted("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n").path, "/");
}

#[test]
fn an_unfinished_head_asks_for_more() {
    let text = b"GET / HTTP/1.1\r\nHost: x\r\n";
    for end in 0..=text.len() {
        assert_eq!(read_cut(&text[..end], end), Ok(None), "first {end} bytes");
    }
}

#[test]
fn what_smuggles_is_refused() {
    let with = |rest: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{rest}\r\n").into_bytes();
    let cases: &[(&str, HeadError)] = &[
        ("Content-Length: 1\r\nContent-Length: 1\r\n", HeadError::ManyLengths),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", HeadError::ManyLengths),
        ("Content-Length: 1, 1\r\n", HeadError::BadLength),
        ("Content-Length: +1\r\n", HeadError::BadLength),
        ("Content-Length: 0x1\r\n", HeadError::BadLength),
        ("Content-Length: -1\r\n", HeadError::BadLength),
        ("Content-Length:\r\n", HeadError::BadLength),
        ("Content-Length: 99999999999999999999999\r\n", HeadError::BadLength),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", HeadError::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", HeadError::LengthAndEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n", HeadError::UnknownTransferEncoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            HeadError::UnknownTransferEncoding,
        ),
        ("Transfer-Encoding: \x0bchunked\r\n", HeadError::Malformed),
        ("X: 1\r\n folded\r\n", HeadError::FoldedHeader),
        ("X: 1\nY: 2\r\n", HeadError::BareLf),
        ("X: 1\rY: 2\r\n", HeadError::Malformed),
        ("X : 1\r\n", HeadError::Malformed),
        ("X: a\0b\r\n", HeadError::Malformed),
        ("Host: y\r\n", HeadError::ManyHosts),
        ("Expect: magic\r\n", HeadError::UnknownExpectation),
        ("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", HeadError::ManyContentEncodings),
        ("Content-Type: a/b\r\nContent-Type: a/b\r\n", HeadError::ManyContentTypes),
    ];
    for (rest, error) in cases {
        assert_eq!(refused(&with(rest)), *error, "{rest:?}");
    }
    assert_eq!(
        refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        HeadError::EncodingInHttp10
    );
}

#[test]
fn what_is_not_http_is_refused_at_its_first_bytes() {
    assert_eq!(refused(b"\x16\x03\x01\x02\x00\x01"), HeadError::NotHttp);
    assert_eq!(refused(b"a.b:1|c\n"), HeadError::NotHttp);
    assert_eq!(refused(b"\n"), HeadError::BareLf);
    assert_eq!(refused(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), HeadError::NotHttp);
    assert_eq!(refused(b"GET / HTTP/1.1\nHost: x\n\n"), HeadError::BareLf);
    assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), HeadError::Version);
    assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n"), HeadError::NoHost);
    assert_eq!(refused(b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), HeadError::Malformed);
    assert_eq!(refused(b"GET livez HTTP/1.1\r\nHost: x\r\n\r\n"), HeadError::BadTarget);
}

#[test]
fn size_limits_have_their_own_answers() {
    let wide = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
    let whole = read_cut(wide.as_bytes(), wide.len());
    assert_eq!(whole, Err(HeadError::TooLarge));
    for cut in [0, 1, 100, HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX, HEAD_BYTES_MAX + 1] {
        assert_eq!(read_cut(wide.as_bytes(), cut), whole, "cut at {cut}");
    }
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX));
    assert_eq!(refused(many.as_bytes()), HeadError::TooManyHeaders);
    let just = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX - 1));
    assert_eq!(accepted(&just).path, "/");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(TARGET_BYTES_MAX));
    let cut = read_cut(long.as_bytes(), 7);
    assert_eq!(cut, Err(HeadError::TargetTooLong));
}

#[test]
fn every_error_has_a_status_of_its_class_and_a_text() {
    for error in [HeadError::NotHttp, HeadError::TooLarge, HeadError::Version] {
        assert!((400..600).contains(&error.status()));
        assert!(!error.text().is_empty() && !error.as_str().is_empty());
    }
}
