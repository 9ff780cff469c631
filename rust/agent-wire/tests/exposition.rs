//! Golden pages of both formats: byte for byte what a scraper is given.
//!
//! The files in `tests/golden` are the reviewed truth; a difference is a change of the interface.

use agent_metric::{FamilyHead, FamilyKind, FamilyVisitor, Piece, Sample, SampleValue};
use agent_wire::encoder;
use agent_wire::prometheus_text::{self, SeriesValue};
use agent_wire::Format;
use agent_wire::{labels, Limits};
use proptest::prelude::*;

const CREATED: Option<u64> = Some(1_700_000_000_250);

struct Page {
    encoder: Box<dyn FamilyVisitor>,
    out: Vec<u8>,
}

impl Page {
    fn new(format: Format) -> Page {
        Page { encoder: encoder::of(format), out: Vec::new() }
    }

    fn family(&mut self, name: &str, help: &str, unit: &str, kind: FamilyKind) {
        self.piece(name, help, unit, kind, Piece::All);
    }

    fn piece(&mut self, name: &str, help: &str, unit: &str, kind: FamilyKind, piece: Piece) {
        let head = FamilyHead { name, help, unit, kind, is_native: false };
        self.encoder.family(&head, piece, &mut self.out);
    }

    fn sample(&mut self, labels: &str, created_unix_ms: Option<u64>, value: SampleValue<'_>) {
        let sample = Sample { created_unix_ms, ..Sample::new(labels.as_bytes(), value) };
        self.encoder.sample(&sample, &mut self.out);
    }

    fn counter(&mut self, labels: &str, whole: u64, fraction: f64, created: Option<u64>) {
        self.sample(labels, created, SampleValue::Counter { whole, fraction });
    }

    fn number(&mut self, labels: &str, value: f64) {
        self.sample(labels, None, SampleValue::Number(value));
    }

    fn histogram(&mut self, labels: &str, created: Option<u64>, buckets: &[(f64, u64)], sum: f64) {
        self.sample(labels, created, SampleValue::Histogram { buckets, sum });
    }
}

/// A page with every kind of family and every odd value.
fn page(format: Format) -> String {
    let mut page = Page::new(format);
    page.family("shop_orders", "Orders \"placed\"\nper \\ shop.", "", FamilyKind::Counter);
    page.counter("", 0, 0.0, None);
    page.counter("shop=\"eu\"", u64::MAX, 0.0, CREATED);
    page.counter("shop=\"us\"", 3, 0.25, Some(1_700_000_000_000));
    page.family("sent_bytes", "Bytes sent.", "bytes", FamilyKind::Counter);
    page.counter("to=\"a\\\"b\\\\c\\nd\"", 1, 0.0, None);
    page.family("depth", "", "", FamilyKind::Gauge);
    for (value, label) in [
        (0.0, "v=\"zero\""),
        (-1.5, "v=\"negative\""),
        (1e300, "v=\"huge\""),
        (1e-9, "v=\"small\""),
        (1_000_000.0, "v=\"million\""),
        (f64::NAN, "v=\"nan\""),
        (f64::INFINITY, "v=\"inf\""),
        (f64::NEG_INFINITY, "v=\"minus inf\""),
    ] {
        page.number(label, value);
    }
    page.family("workers_busy", "Busy.", "seconds", FamilyKind::Gauge);
    page.sample("", None, SampleValue::OfProcess { pid: 4711, twin: None, value: 1.0 });
    page.sample("pool=\"a\"", None, SampleValue::OfProcess { pid: 4712, twin: None, value: 0.0 });
    page.family("api_seconds", "Time.", "seconds", FamilyKind::Histogram);
    let buckets = [(0.005, 1), (1.0, 0), (2.5, 4), (1e6, 1), (f64::INFINITY, 2)];
    page.histogram("path=\"/\"", CREATED, &buckets, 12.75);
    page.histogram("", None, &[], 0.0);
    let pieces: &[Piece] = match page.encoder.wants_pieces() {
        true => &[Piece::Points, Piece::Sum, Piece::Count],
        false => &[Piece::All],
    };
    for piece in pieces {
        page.piece("offset", "May be negative.", "", FamilyKind::Histogram, *piece);
        page.histogram("", None, &[(-1.0, 1), (1.0, 2)], -3.0);
    }
    page.family("size", "Sizes.", "", FamilyKind::Summary);
    let quantiles = &[(0.5, 1.0), (0.99, 2.5), (1.0, f64::NAN)];
    page.sample("", CREATED, SampleValue::Summary { quantiles, sum: 9.5, count: 7 });
    let none = SampleValue::Summary { quantiles: &[], sum: 0.0, count: 0 };
    page.sample("a=\"b\"", None, none);
    page.family("odd", "Of no type.", "", FamilyKind::Unknown);
    page.number("app=\"mine\"", 5.0);
    page.encoder.finish(&mut page.out);
    String::from_utf8(page.out).expect("text")
}

#[test]
fn the_text_page_is_the_golden_page() {
    assert_eq!(page(Format::Text004), include_str!("golden/page.txt"));
}

#[test]
fn the_openmetrics_page_is_the_golden_page() {
    assert_eq!(page(Format::OpenMetrics100), include_str!("golden/page.openmetrics"));
}

#[test]
fn an_encoder_can_be_used_again_after_its_end() {
    let mut page = Page::new(Format::OpenMetrics100);
    page.family("b", "", "", FamilyKind::Counter);
    page.encoder.finish(&mut Vec::new());
    page.out.clear();
    page.family("a", "", "", FamilyKind::Gauge);
    page.number("", 1.0);
    page.encoder.finish(&mut page.out);
    assert_eq!(page.out, b"# TYPE a gauge\na 1\n# EOF\n");
}

proptest! {
    /// What is written as text is read back as the same histogram, labels and numbers.
    #[test]
    fn a_written_family_is_read_back(
        pairs in proptest::collection::vec(
            ("[a-k][a-z]{0,2}", "\\PC{1,6}|[\\\\\"\n,={}]{1,4}"),
            0..5,
        ),
        bounds in proptest::collection::btree_set(-1_000_000i64..1_000_000, 0..8),
        counts in proptest::collection::vec(0u64..1_000_000, 9),
        sum in -1e12f64..1e12,
        help in "\\PC{0,20}|[\\\\\"\n]{1,4}",
    ) {
        let mut text = String::new();
        labels::from_pairs(&pairs, &Limits::default(), &mut text).expect("within the limits");
        let mut buckets: Vec<(f64, u64)> = bounds
            .into_iter()
            .zip(&counts)
            .map(|(bound, count)| (bound as f64 / 1000.0, *count))
            .collect();
        buckets.push((f64::INFINITY, counts[8]));
        let mut page = Page::new(Format::Text004);
        page.family("h", &help, "", FamilyKind::Histogram);
        page.histogram(&text, None, &buckets, sum);
        page.family("g", &help, "", FamilyKind::Gauge);
        page.number(&text, sum);
        let families = prometheus_text::parse(&page.out, &Limits::default()).expect("a good page");
        // Blanks at the front of a help text are not part of it.
        let help = help.trim_start_matches([' ', '\t']);
        for family in &families {
            prop_assert_eq!(&family.help, help);
            let read: Vec<_> =
                family.series[0].labels.iter().map(|(n, v)| (*n, v.clone())).collect();
            prop_assert_eq!(read, labels::parse(&text).collect::<Vec<_>>());
        }
        prop_assert_eq!(&families[0].series[0].value, &SeriesValue::Histogram { buckets, sum });
        prop_assert_eq!(&families[1].series[0].value, &SeriesValue::Number(sum));
    }
}

#[test]
fn buckets_that_are_too_many_together_never_go_down() {
    let mut page = Page::new(Format::Text004);
    page.family("sizes", "", "", FamilyKind::Histogram);
    let half = 1 << 63;
    page.histogram("", None, &[(1.0, half), (2.0, half), (f64::INFINITY, 1)], 1.0);
    let text = String::from_utf8(page.out).unwrap();
    let counts = text.lines().filter(|line| line.contains("_bucket"));
    let counts: Vec<u64> =
        counts.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(counts, [half, u64::MAX, u64::MAX]);
}
