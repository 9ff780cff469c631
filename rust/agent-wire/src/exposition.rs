//! Metrics out: Prometheus text 0.0.4 and OpenMetrics 1.0, written into a `Vec<u8>`; [`crate::protobuf`] is the third form,
//! and [`crate::page`] writes any of them.
//!
//! The caller writes one family at a time: [`Encoder::family`], then its samples, and at the end
//! [`Encoder::finish`]. Label text is copied as it is (it is canonical, see [`crate::labels`]),
//! behind an optional prefix such as `app="shop"`.
//!
//! | | text 0.0.4 | OpenMetrics 1.0 |
//! |---|---|---|
//! | counter `x` | `TYPE x_total counter`, `x_total` | `TYPE x counter`, `x_total`, `x_created` |
//! | unknown | `untyped` | `unknown` |
//! | unit | - | `# UNIT`, when the name ends in it |
//! | help | `\\` `\n` escaped | `\\` `\n` `\"` escaped |
//! | histogram, summary | cumulative `le`, `_sum`, `_count` | the same and `_created` |
//! | native histogram | the ladder of [`agent_metric::bounds`] | the same |
//! | below zero | as everything | in parts, see below |
//! | end | - | `# EOF` |
//!
//! `le` and `quantile` have the same text in both (`1.0`, not `1`), so that a change of format does
//! not make new series; in text 0.0.4, [`Encoder::set_plain_bounds`] keeps `1` where it was pushed so.
//!
//! *Below zero.* In OpenMetrics a histogram with a negative bound has no `_sum` and no `_count`, a sum is not negative and
//! not NaN, a quantile is not negative; strict readers refuse the page. What a family shows must not depend on a value, so
//! such a family is written in [`Piece`]s, each a family of type unknown: `x_bucket` or `x`, `x_sum`, `x_count`, `x_created`.
//! All samples keep name, labels and value; only the type is lost. Nothing is buffered: flush `out` whenever it is large.
//!
//! Not promised: names and label text are not checked again; a family written twice, or a prefix
//! label that the caller put into the label text under another spelling, makes a bad page. Time
//! stamps and exemplars are not written.

use crate::format::Format;
use crate::number::{write_bound, write_f64, write_plain_bound, write_u64};

/// What a family is to a scraper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FamilyKind {
    Counter,
    /// A counter that is not called `_total`, under the name that it has; unknown to OpenMetrics.
    BareCounter,
    Gauge,
    Histogram,
    Summary,
    Unknown,
}

/// Which samples of a histogram or summary are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    All,
    /// Buckets or quantiles.
    Points,
    Sum,
    Count,
    Created,
}

impl Piece {
    /// What a family below zero is written in.
    pub const EACH: [Piece; 4] = [Piece::Points, Piece::Sum, Piece::Count, Piece::Created];
}

/// Whether OpenMetrics has no such histogram; see the head of this file.
pub fn is_below_zero(buckets: &[(f64, u64)], sum: f64) -> bool {
    sum < 0.0 || sum.is_nan() || buckets.first().is_some_and(|&(upper, _)| upper < 0.0)
}

/// Whether OpenMetrics has no such summary.
pub fn is_summary_below_zero(quantiles: &[(f64, f64)], sum: f64) -> bool {
    sum < 0.0 || sum.is_nan() || quantiles.iter().any(|&(_, value)| value < 0.0)
}

/// Writes one exposition in text. Reusable: [`Encoder::finish`] leaves it as new.
#[derive(Debug, Clone)]
pub struct Encoder {
    format: Format,
    /// `name` or `name_total`: the front of most lines.
    sample_name: Vec<u8>,
    /// The family's name.
    name: Vec<u8>,
    kind: FamilyKind,
    prefix: Vec<u8>,
    /// `app="`: what must not stand in the label text again.
    prefix_name: Vec<u8>,
    piece: Piece,
    has_plain_bounds: bool,
}

impl Encoder {
    pub fn new(format: Format) -> Encoder {
        Encoder {
            format,
            sample_name: Vec::new(),
            name: Vec::new(),
            kind: FamilyKind::Unknown,
            prefix: Vec::new(),
            prefix_name: Vec::new(),
            piece: Piece::All,
            has_plain_bounds: false,
        }
    }

    /// Whether whole bounds and quantiles are written without `.0` from now on, in text 0.0.4.
    pub fn set_plain_bounds(&mut self, plain: bool) {
        self.has_plain_bounds = plain && self.format == Format::Text004;
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Puts one label before the labels of every sample from now on; an empty name ends that. A
    /// sample that has a label of this name keeps it as `exported_<name>`.
    pub fn set_prefix(&mut self, label_name: &str, value: &str) {
        self.prefix.clear();
        self.prefix_name.clear();
        if label_name.is_empty() {
            return;
        }
        let mut text = String::new();
        crate::name::sanitize_label(label_name.as_bytes(), &mut text);
        text.push_str("=\"");
        self.prefix_name.extend_from_slice(text.as_bytes());
        crate::name::escape_label_value(value.as_bytes(), &mut text);
        text.push('"');
        self.prefix.extend_from_slice(text.as_bytes());
    }

    /// Begins a family. `name` is the family name, without `_total` for counters.
    pub fn family(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        help: &str,
        unit: &str,
        kind: FamilyKind,
    ) {
        self.begin(name, kind, Piece::All);
        let open = self.format == Format::OpenMetrics100;
        let shown = if open { &self.name } else { &self.sample_name };
        self.header(out, shown, help, self.type_word());
        let ends_in_unit = name.strip_suffix(unit).is_some_and(|head| head.ends_with('_'));
        if open && !unit.is_empty() && ends_in_unit {
            put(out, &[b"# UNIT ", shown, b" ", unit.as_bytes(), b"\n"]);
        }
    }

    /// Begins one piece of a histogram or summary as a family of its own, of type unknown.
    pub fn piece(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        help: &str,
        kind: FamilyKind,
        piece: Piece,
    ) {
        self.begin(name, kind, piece);
        let suffix: &[u8] = match (piece, kind) {
            (Piece::Points, FamilyKind::Histogram) => b"_bucket",
            (Piece::Sum, _) => b"_sum",
            (Piece::Count, _) => b"_count",
            (Piece::Created, _) => b"_created",
            _ => b"",
        };
        self.header(out, &[name.as_bytes(), suffix].concat(), help, b"unknown");
    }

    fn begin(&mut self, name: &str, kind: FamilyKind, piece: Piece) {
        (self.kind, self.piece) = (kind, piece);
        self.name.clear();
        self.name.extend_from_slice(name.as_bytes());
        self.sample_name.clone_from(&self.name);
        if kind == FamilyKind::Counter {
            self.sample_name.extend_from_slice(b"_total");
        }
    }

    fn header(&self, out: &mut Vec<u8>, shown: &[u8], help: &str, word: &[u8]) {
        if !help.is_empty() {
            let mut escaped = String::with_capacity(help.len());
            let open = self.format == Format::OpenMetrics100;
            crate::name::escape_text(help, open, &mut escaped);
            put(out, &[b"# HELP ", shown, b" ", escaped.as_bytes(), b"\n"]);
        }
        put(out, &[b"# TYPE ", shown, b" ", word, b"\n"]);
    }

    fn type_word(&self) -> &'static [u8] {
        match (self.kind, self.format) {
            (FamilyKind::Counter, _) | (FamilyKind::BareCounter, Format::Text004) => b"counter",
            (FamilyKind::Gauge, _) => b"gauge",
            (FamilyKind::Histogram, _) => b"histogram",
            (FamilyKind::Summary, _) => b"summary",
            (FamilyKind::Unknown, Format::Text004) => b"untyped",
            (FamilyKind::Unknown | FamilyKind::BareCounter, _) => b"unknown",
        }
    }

    /// A counter in two parts, whole and fraction.
    #[inline]
    pub fn counter(
        &self,
        out: &mut Vec<u8>,
        labels: &[u8],
        whole: u64,
        fraction: f64,
        created_unix_ms: Option<u64>,
    ) {
        self.head(out, b"", labels, None);
        if fraction == 0.0 {
            write_u64(whole, out);
        } else {
            write_f64(whole as f64 + fraction, out);
        }
        out.push(b'\n');
        self.created(out, labels, created_unix_ms);
    }

    /// A gauge, or a sample of unknown type.
    #[inline]
    pub fn gauge(&self, out: &mut Vec<u8>, labels: &[u8], value: f64) {
        self.head(out, b"", labels, None);
        write_f64(value, out);
        out.push(b'\n');
    }

    /// A gauge of one process, with the label `pid` behind the others. `twin` tells processes of one id apart, which
    /// several containers have: `pid="1@17"`.
    pub fn gauge_of_process(
        &self,
        out: &mut Vec<u8>,
        labels: &[u8],
        pid: u32,
        twin: Option<u16>,
        value: f64,
    ) {
        self.head(out, b"", labels, Some((b"pid", Bound::Process(pid, twin))));
        write_f64(value, out);
        out.push(b'\n');
    }

    /// A histogram: (upper bound, count in this bucket alone), ascending. A last bucket of +Inf is
    /// added when it is missing. One that OpenMetrics does not have is left out there unless it is
    /// written in pieces: it has become so since the family was begun.
    pub fn histogram(
        &self,
        out: &mut Vec<u8>,
        labels: &[u8],
        buckets: &[(f64, u64)],
        sum: f64,
        created_unix_ms: Option<u64>,
    ) {
        if self.refuses(is_below_zero(buckets, sum)) {
            return;
        }
        let mut count = 0u64;
        let shows_points = matches!(self.piece, Piece::All | Piece::Points);
        for &(upper, inside) in buckets {
            count = count.wrapping_add(inside);
            if shows_points {
                self.bucket(out, labels, upper, count);
            }
        }
        if shows_points && buckets.last().is_none_or(|&(upper, _)| upper != f64::INFINITY) {
            self.bucket(out, labels, f64::INFINITY, count);
        }
        self.sum_and_count(out, labels, sum, count, created_unix_ms);
    }

    fn bucket(&self, out: &mut Vec<u8>, labels: &[u8], upper: f64, count: u64) {
        self.head(out, b"_bucket", labels, Some((b"le", Bound::Float(upper))));
        write_u64(count, out);
        out.push(b'\n');
    }

    /// A summary: (quantile, value), ascending; may have none. See [`Encoder::histogram`] for what is
    /// below zero.
    pub fn summary(
        &self,
        out: &mut Vec<u8>,
        labels: &[u8],
        quantiles: &[(f64, f64)],
        sum: f64,
        count: u64,
        created_unix_ms: Option<u64>,
    ) {
        if self.refuses(is_summary_below_zero(quantiles, sum)) {
            return;
        }
        if matches!(self.piece, Piece::All | Piece::Points) {
            for &(quantile, value) in quantiles {
                self.head(out, b"", labels, Some((b"quantile", Bound::Float(quantile))));
                write_f64(value, out);
                out.push(b'\n');
            }
        }
        self.sum_and_count(out, labels, sum, count, created_unix_ms);
    }

    fn refuses(&self, is_below_zero: bool) -> bool {
        is_below_zero && self.piece == Piece::All && self.format == Format::OpenMetrics100
    }

    fn sum_and_count(
        &self,
        out: &mut Vec<u8>,
        labels: &[u8],
        sum: f64,
        count: u64,
        created_unix_ms: Option<u64>,
    ) {
        if matches!(self.piece, Piece::All | Piece::Sum) {
            self.head(out, b"_sum", labels, None);
            write_f64(sum, out);
            out.push(b'\n');
        }
        if matches!(self.piece, Piece::All | Piece::Count) {
            self.head(out, b"_count", labels, None);
            write_u64(count, out);
            out.push(b'\n');
        }
        if matches!(self.piece, Piece::All | Piece::Created) {
            self.created(out, labels, created_unix_ms);
        }
    }

    /// `_created`, in seconds with milliseconds; OpenMetrics only.
    #[inline]
    fn created(&self, out: &mut Vec<u8>, labels: &[u8], created_unix_ms: Option<u64>) {
        let Some(created) = created_unix_ms else { return };
        if self.format != Format::OpenMetrics100 {
            return;
        }
        out.extend_from_slice(&self.name);
        out.extend_from_slice(b"_created");
        self.labels(out, labels, None);
        out.push(b' ');
        write_u64(created / 1000, out);
        let millis = created % 1000;
        if millis != 0 {
            out.push(b'.');
            let digits = [millis / 100, millis / 10 % 10, millis % 10].map(|d| b'0' + d as u8);
            out.extend_from_slice(&digits);
        }
        out.push(b'\n');
    }

    /// Ends the exposition.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.format == Format::OpenMetrics100 {
            out.extend_from_slice(b"# EOF\n");
        }
        self.prefix.clear();
        self.prefix_name.clear();
    }

    /// Name, suffix and labels of a line, up to the blank before the value.
    #[inline]
    fn head(&self, out: &mut Vec<u8>, suffix: &[u8], labels: &[u8], extra: Option<(&[u8], Bound)>) {
        out.extend_from_slice(&self.sample_name);
        out.extend_from_slice(suffix);
        self.labels(out, labels, extra);
        out.push(b' ');
    }

    #[inline]
    fn labels(&self, out: &mut Vec<u8>, labels: &[u8], extra: Option<(&[u8], Bound)>) {
        if labels.is_empty() && self.prefix.is_empty() && extra.is_none() {
            return;
        }
        let mut separator = b'{';
        if !self.prefix.is_empty() {
            out.push(separator);
            out.extend_from_slice(&self.prefix);
            separator = b',';
        }
        if !labels.is_empty() {
            out.push(separator);
            match self.clash(labels) {
                Some(at) => put(out, &[&labels[..at], b"exported_", &labels[at..]]),
                None => out.extend_from_slice(labels),
            }
            separator = b',';
        }
        if let Some((name, bound)) = extra {
            out.push(separator);
            out.extend_from_slice(name);
            out.extend_from_slice(b"=\"");
            match bound {
                Bound::Float(value) if self.has_plain_bounds => write_plain_bound(value, out),
                Bound::Float(value) => write_bound(value, out),
                Bound::Process(pid, twin) => {
                    write_u64(u64::from(pid), out);
                    if let Some(twin) = twin {
                        out.push(b'@');
                        write_u64(u64::from(twin), out);
                    }
                }
            }
            out.push(b'"');
        }
        out.push(b'}');
    }

    /// Where in the label text the prefix label stands again.
    #[inline]
    fn clash(&self, labels: &[u8]) -> Option<usize> {
        let name = &self.prefix_name[..];
        if name.is_empty() {
            return None;
        }
        if labels.starts_with(name) {
            return Some(0);
        }
        // Inside a value every quote is escaped, so `",name="` stands only between labels.
        memchr::memmem::find_iter(labels, name)
            .find(|&at| at >= 2 && labels[at - 1] == b',' && labels[at - 2] == b'"')
    }
}

/// The value of an added label.
#[derive(Clone, Copy)]
enum Bound {
    Float(f64),
    Process(u32, Option<u16>),
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}
