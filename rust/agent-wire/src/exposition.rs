//! Metrics out: Prometheus text 0.0.4 and OpenMetrics 1.0, written into a `Vec<u8>`; [`crate::protobuf`] is the third form.
//!
//! Label text is copied as it is (it is canonical, see [`crate::labels`]).
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
//! not make new series; in text 0.0.4, `1` is kept where it was pushed so.
//!
//! *Below zero.* In OpenMetrics a histogram with a negative bound has no `_sum` and no `_count`, a sum is not negative and
//! not NaN, a quantile is not negative; strict readers refuse the page. What a family shows must not depend on a value, so
//! such a family is written in [`Piece`]s, each a family of type unknown: `x_bucket` or `x`, `x_sum`, `x_count`, `x_created`.
//! All samples keep name, labels and value; only the type is lost. Nothing is buffered: flush `out` whenever it is large.
//!
//! Not promised: names and label text are not checked again; a family written twice makes a bad page. Time stamps and
//! exemplars are not written.

use agent_metric::bounds;
use agent_metric::name::suffix;
use agent_metric::{FamilyHead, FamilyKind, FamilyVisitor, Piece, Sample, SampleValue};

use crate::format::Format;
use crate::number::{write_bound, write_f64, write_plain_bound, write_u64};

/// Whether OpenMetrics has no such histogram; see the head of this file.
pub fn is_below_zero(buckets: &[(f64, u64)], sum: f64) -> bool {
    sum < 0.0 || sum.is_nan() || buckets.first().is_some_and(|&(upper, _)| upper < 0.0)
}

/// Whether OpenMetrics has no such summary.
pub fn is_summary_below_zero(quantiles: &[(f64, f64)], sum: f64) -> bool {
    sum < 0.0 || sum.is_nan() || quantiles.iter().any(|&(_, value)| value < 0.0)
}

/// Writes one exposition in text.
#[derive(Debug, Clone)]
pub struct Encoder {
    format: Format,
    /// `name` or `name_total`: the front of most lines.
    sample_name: Vec<u8>,
    /// The family's name.
    name: Vec<u8>,
    kind: FamilyKind,
    piece: Piece,
    has_plain_bounds: bool,
    /// The ladder of a native histogram.
    coarse: Vec<(f64, u64)>,
}

impl FamilyVisitor for Encoder {
    fn wants_pieces(&self) -> bool {
        self.format == Format::OpenMetrics100
    }

    fn family(&mut self, head: &FamilyHead<'_>, piece: Piece, out: &mut Vec<u8>) {
        self.begin(head.name, head.kind, piece);
        if piece == Piece::All {
            return self.whole_family(head, out);
        }
        let name = [head.name, piece.suffix(head.kind)].concat();
        self.header(out, name.as_bytes(), head.help, "unknown");
    }

    #[inline]
    fn sample(&mut self, sample: &Sample<'_>, out: &mut Vec<u8>) {
        let Sample { labels, created_unix_ms: created, .. } = *sample;
        self.has_plain_bounds = sample.has_plain_bounds && self.format == Format::Text004;
        match sample.value {
            SampleValue::Counter { whole, fraction } => {
                self.counter(out, labels, whole, fraction, created);
            }
            SampleValue::Number(value) => self.number(out, labels, None, value),
            SampleValue::OfProcess { pid, twin, value } => {
                self.number(out, labels, Some((b"pid", Bound::Process(pid, twin))), value);
            }
            SampleValue::Histogram { buckets, sum } => {
                self.histogram(out, labels, buckets, sum, created);
            }
            SampleValue::Native { buckets, sum, .. } => {
                let mut coarse = std::mem::take(&mut self.coarse);
                bounds::onto_ladder(buckets, &mut coarse);
                self.histogram(out, labels, &coarse, sum, created);
                self.coarse = coarse;
            }
            SampleValue::Summary { quantiles, sum, count } => {
                self.summary(out, labels, quantiles, sum, count, created);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.format == Format::OpenMetrics100 {
            out.extend_from_slice(b"# EOF\n");
        }
    }
}

impl Encoder {
    pub fn new(format: Format) -> Encoder {
        Encoder {
            format,
            sample_name: Vec::new(),
            name: Vec::new(),
            kind: FamilyKind::Unknown,
            piece: Piece::All,
            has_plain_bounds: false,
            coarse: Vec::new(),
        }
    }

    fn whole_family(&self, head: &FamilyHead<'_>, out: &mut Vec<u8>) {
        let FamilyHead { name, unit, .. } = *head;
        let open = self.format == Format::OpenMetrics100;
        let shown = if open { &self.name } else { &self.sample_name };
        self.header(out, shown, head.help, self.type_word());
        let ends_in_unit = name.strip_suffix(unit).is_some_and(|head| head.ends_with('_'));
        if open && !unit.is_empty() && ends_in_unit {
            put(out, &[b"# UNIT ", shown, b" ", unit.as_bytes(), b"\n"]);
        }
    }

    fn begin(&mut self, name: &str, kind: FamilyKind, piece: Piece) {
        (self.kind, self.piece) = (kind, piece);
        self.name.clear();
        self.name.extend_from_slice(name.as_bytes());
        self.sample_name.clone_from(&self.name);
        if kind == FamilyKind::Counter {
            self.sample_name.extend_from_slice(suffix::TOTAL.as_bytes());
        }
    }

    fn header(&self, out: &mut Vec<u8>, shown: &[u8], help: &str, word: &str) {
        if !help.is_empty() {
            let mut escaped = String::with_capacity(help.len());
            let open = self.format == Format::OpenMetrics100;
            agent_metric::name::escape_text(help, open, &mut escaped);
            put(out, &[b"# HELP ", shown, b" ", escaped.as_bytes(), b"\n"]);
        }
        put(out, &[b"# TYPE ", shown, b" ", word.as_bytes(), b"\n"]);
    }

    fn type_word(&self) -> &'static str {
        match (self.kind, self.format) {
            (FamilyKind::Unknown | FamilyKind::BareCounter, Format::OpenMetrics100) => "unknown",
            (kind, _) => kind.word(),
        }
    }

    #[inline]
    fn counter(
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

    #[inline]
    fn number(&self, out: &mut Vec<u8>, labels: &[u8], extra: Option<(&[u8], Bound)>, value: f64) {
        self.head(out, b"", labels, extra);
        write_f64(value, out);
        out.push(b'\n');
    }

    /// A last bucket of +Inf is added when it is missing. One that OpenMetrics does not have is left out there unless it is
    /// written in pieces: it has become so since the family was begun.
    fn histogram(
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
            count = count.saturating_add(inside);
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
        self.head(out, suffix::BUCKET.as_bytes(), labels, Some((b"le", Bound::Float(upper))));
        write_u64(count, out);
        out.push(b'\n');
    }

    /// As [`Encoder::histogram`] does, it leaves out what has come below zero.
    fn summary(
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
            self.head(out, suffix::SUM.as_bytes(), labels, None);
            write_f64(sum, out);
            out.push(b'\n');
        }
        if matches!(self.piece, Piece::All | Piece::Count) {
            self.head(out, suffix::COUNT.as_bytes(), labels, None);
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
        out.extend_from_slice(suffix::CREATED.as_bytes());
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
        if labels.is_empty() && extra.is_none() {
            return;
        }
        let mut separator = b'{';
        if !labels.is_empty() {
            out.push(separator);
            out.extend_from_slice(labels);
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
