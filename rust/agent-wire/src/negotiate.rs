//! What a client asked for in `Accept` and `Accept-Encoding`.
//!
//! The highest quality wins, the order of the header breaks ties, quality 0 forbids. A client that
//! accepts nothing we have gets text 0.0.4 all the same: a scraper that can read something is
//! better than a 406. At most 32 entries of a header are looked at.

use crate::format::Format;

const ENTRIES_MAX: usize = 32;

/// The format to answer with.
pub fn format(accept: &[u8]) -> Format {
    let mut best = (0u16, Format::Text004);
    for entry in entries(accept) {
        let quality = entry.quality();
        let offered = match entry.name {
            name if is(name, "application/openmetrics-text") => entry.openmetrics(),
            name if is(name, "application/vnd.google.protobuf") => entry.protobuf(),
            name if is(name, "text/plain") => entry.text(),
            name if is(name, "*/*") || is(name, "text/*") => Some(Format::Text004),
            _ => None,
        };
        if let Some(format) = offered {
            if quality > best.0 {
                best = (quality, format);
            }
        }
    }
    best.1
}

/// Whether the client takes gzip.
pub fn accepts_gzip(accept_encoding: &[u8]) -> bool {
    let mut any = false;
    for entry in entries(accept_encoding) {
        if is(entry.name, "gzip") || is(entry.name, "x-gzip") {
            return entry.quality() > 0;
        }
        any |= is(entry.name, "*") && entry.quality() > 0;
    }
    any
}

struct Entry<'a> {
    name: &'a [u8],
    parameters: &'a [u8],
}

fn entries(header: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    header.split(|&byte| byte == b',').take(ENTRIES_MAX).map(|entry| {
        let end = memchr::memchr(b';', entry).unwrap_or(entry.len());
        let parameters = entry.get(end + 1..).unwrap_or(b"");
        Entry { name: entry[..end].trim_ascii(), parameters }
    })
}

fn is(name: &[u8], known: &str) -> bool {
    name.eq_ignore_ascii_case(known.as_bytes())
}

impl Entry<'_> {
    fn parameter(&self, wanted: &str) -> Option<&[u8]> {
        self.parameters.split(|&byte| byte == b';').find_map(|parameter| {
            let at = memchr::memchr(b'=', parameter)?;
            let value = parameter[at + 1..].trim_ascii();
            let value = value.strip_prefix(b"\"").unwrap_or(value);
            let value = value.strip_suffix(b"\"").unwrap_or(value);
            is(parameter[..at].trim_ascii(), wanted).then_some(value)
        })
    }

    /// Thousandths; 1000 when it is not given, 0 when it is no quality.
    fn quality(&self) -> u16 {
        let Some(text) = self.parameter("q") else { return 1000 };
        match crate::number::parse_f64(text) {
            Ok(quality) if (0.0..=1.0).contains(&quality) => (quality * 1000.0).round() as u16,
            _ => 0,
        }
    }

    fn openmetrics(&self) -> Option<Format> {
        match self.parameter("version") {
            None | Some(b"1.0.0" | b"0.0.1") => Some(Format::OpenMetrics100),
            Some(_) => None,
        }
    }

    /// Only the one message that we have, each behind its length.
    fn protobuf(&self) -> Option<Format> {
        let is_ours = self.parameter("proto") == Some(b"io.prometheus.client.MetricFamily")
            && self.parameter("encoding") == Some(b"delimited");
        is_ours.then_some(Format::Protobuf)
    }

    fn text(&self) -> Option<Format> {
        match self.parameter("version") {
            None | Some(b"0.0.4") => Some(Format::Text004),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_best_quality_decides_the_format() {
        use Format::{OpenMetrics100, Protobuf, Text004};
        let golden: [(&str, Format); 22] = [
            ("", Text004),
            ("*/*", Text004),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Text004),
            ("text/plain", Text004),
            ("text/plain; version=0.0.4; charset=utf-8", Text004),
            ("application/openmetrics-text", OpenMetrics100),
            ("Application/OpenMetrics-Text; Version=1.0.0", OpenMetrics100),
            ("application/openmetrics-text;version=\"1.0.0\"", OpenMetrics100),
            ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Text004),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.4", Text004),
            ("application/openmetrics-text;q=0.4,text/plain;q=0.3", OpenMetrics100),
            ("application/openmetrics-text;q=0", Text004),
            ("application/openmetrics-text;q=x", Text004),
            ("text/plain,application/openmetrics-text", Text004),
            ("application/openmetrics-text,text/plain", OpenMetrics100),
            // Prometheus 2.5x.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                 version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics100,
            ),
            // Prometheus 2.42 with native histograms.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                 application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,\
                 */*;q=0.1",
                Protobuf,
            ),
            ("application/vnd.google.protobuf", Text004),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", Text004),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=text,application/openmetrics-text;q=0.1",
                OpenMetrics100,
            ),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=\"delimited\"; q=0.1, text/plain; q=0.2",
                Text004,
            ),
            // Prometheus 3 with native histograms.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;\
                 escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Protobuf,
            ),
        ];
        for (accept, format_expected) in golden {
            assert_eq!(format(accept.as_bytes()), format_expected, "{accept}");
        }
    }

    #[test]
    fn gzip_is_used_only_when_it_is_accepted() {
        for yes in ["gzip", "gzip, deflate", "deflate,GZIP;q=0.5", "*", "br, *;q=0.1"] {
            assert!(accepts_gzip(yes.as_bytes()), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "*, gzip;q=0", "*;q=0", "deflate"] {
            assert!(!accepts_gzip(no.as_bytes()), "{no}");
        }
    }

    proptest! {
        #[test]
        fn any_header_gives_a_format(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (format(&bytes), accepts_gzip(&bytes));
        }
    }
}
