//! Families on their way out: what a page or any other sink is given, one family after the other.
//!
//! Whoever has families (a scrape of many segments, the `render()` of one app) walks over them and tells a
//! [`FamilyVisitor`]; whoever has a form for them is one. Neither knows the other.
//!
//! A walk is `(family, sample*)*, finish`. Families come once and in the order of their names, samples of one family in no
//! order. Names, label text and bounds are good ones, and no label set comes twice: that is the walk's duty.

use crate::name::suffix;
use crate::shape::Shape;

/// What a family is to a reader.
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

impl FamilyKind {
    pub fn of_shape(shape: &Shape<'_>) -> FamilyKind {
        match shape {
            Shape::Counter => FamilyKind::Counter,
            Shape::Gauge(_) => FamilyKind::Gauge,
            Shape::Exponential { .. } | Shape::Explicit(_) => FamilyKind::Histogram,
            Shape::Summary(_) => FamilyKind::Summary,
        }
    }

    /// What its samples add to the name, whatever form of a page shows them.
    pub const fn suffixes(self) -> &'static [&'static str] {
        match self {
            FamilyKind::Counter => &[suffix::TOTAL, suffix::CREATED],
            FamilyKind::Histogram => &[suffix::BUCKET, suffix::SUM, suffix::COUNT, suffix::CREATED],
            FamilyKind::Summary => &[suffix::SUM, suffix::COUNT, suffix::CREATED],
            FamilyKind::BareCounter | FamilyKind::Gauge | FamilyKind::Unknown => &[],
        }
    }

    /// As a TYPE line of text 0.0.4 says it.
    pub const fn word(self) -> &'static str {
        match self {
            FamilyKind::Counter | FamilyKind::BareCounter => "counter",
            FamilyKind::Gauge => "gauge",
            FamilyKind::Histogram => "histogram",
            FamilyKind::Summary => "summary",
            FamilyKind::Unknown => "untyped",
        }
    }
}

/// Which samples of a histogram or summary are meant.
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
    /// What a family below zero is visited in, where that is asked for.
    pub const EACH: [Piece; 4] = [Piece::Points, Piece::Sum, Piece::Count, Piece::Created];

    /// What its samples add to the name of a family of this kind.
    pub const fn suffix(self, kind: FamilyKind) -> &'static str {
        match (self, kind) {
            (Piece::Points, FamilyKind::Histogram) => suffix::BUCKET,
            (Piece::All | Piece::Points, _) => "",
            (Piece::Sum, _) => suffix::SUM,
            (Piece::Count, _) => suffix::COUNT,
            (Piece::Created, _) => suffix::CREATED,
        }
    }
}

/// What the samples of a family have in common.
#[derive(Debug, Clone, Copy)]
pub struct FamilyHead<'a> {
    /// Without `_total` for counters.
    pub name: &'a str,
    pub help: &'a str,
    pub unit: &'a str,
    pub kind: FamilyKind,
    /// All its series are native histograms. A family of both kinds is a classic one: readers judge by the first series.
    pub is_native: bool,
}

/// One series and its value now.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Canonical text, `a="x",b="y"`.
    pub labels: &'a [u8],
    pub created_unix_ms: Option<u64>,
    pub value: SampleValue<'a>,
    /// Whole bounds and quantiles came without `.0`, and text that has a choice shows them so.
    pub has_plain_bounds: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum SampleValue<'a> {
    /// The total is the sum of both.
    Counter { whole: u64, fraction: f64 },
    /// Of a gauge, a bare counter, or of unknown type.
    Number(f64),
    /// Of one process. `twin` tells processes of one id apart, which several containers have.
    OfProcess { pid: u32, twin: Option<u16>, value: f64 },
    /// Upper bound and count in this bucket alone, ascending; +Inf may be missing.
    Histogram { buckets: &'a [(f64, u64)], sum: f64 },
    /// The buckets of a native histogram that were ever touched, as above.
    Native { schema: u8, buckets: &'a [(f64, u64)], sum: f64 },
    /// Quantile and value, ascending; may have none.
    Summary { quantiles: &'a [(f64, f64)], sum: f64, count: u64 },
}

impl<'a> Sample<'a> {
    pub fn new(labels: &'a [u8], value: SampleValue<'a>) -> Sample<'a> {
        Sample { labels, created_unix_ms: None, value, has_plain_bounds: false }
    }
}

/// A form for families. What it writes goes to the end of `out`, which the caller may empty between two calls.
pub trait FamilyVisitor {
    /// Whether a family of histograms or summaries that has a value below zero is to be visited once for each of
    /// [`Piece::EACH`].
    fn wants_pieces(&self) -> bool {
        false
    }

    /// Begins a family, or one piece of it.
    fn family(&mut self, head: &FamilyHead<'_>, piece: Piece, out: &mut Vec<u8>);

    /// A series of the family that was begun last.
    fn sample(&mut self, sample: &Sample<'_>, out: &mut Vec<u8>);

    /// Nothing more comes. Afterwards it is as new.
    fn finish(&mut self, out: &mut Vec<u8>);
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn the_suffixes_of_kinds_are_those_of_the_table() {
        use FamilyKind::*;
        let kinds = [Counter, BareCounter, Gauge, Histogram, Summary, Unknown];
        let used: Vec<&str> = kinds.iter().flat_map(|kind| kind.suffixes()).copied().collect();
        assert!(used.iter().all(|used| suffix::ALL.contains(used)));
        assert!(suffix::ALL.iter().all(|known| used.contains(known)));
        for kind in [Histogram, Summary] {
            let pieces = Piece::EACH.map(|piece| piece.suffix(kind));
            assert!(pieces.iter().all(|of| of.is_empty() || kind.suffixes().contains(of)));
        }
    }
}
