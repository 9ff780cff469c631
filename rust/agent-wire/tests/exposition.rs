//! Golden pages of both formats: byte for byte what a scraper is given.
//!
//! The files in `tests/golden` are the reviewed truth; a difference is a change of the interface.

use agent_wire::exposition::{Encoder, FamilyKind, Piece};
use agent_wire::prometheus_text::{self, SeriesValue};
use agent_wire::Format;
use agent_wire::{labels, Limits};
use proptest::prelude::*;

const CREATED: Option<u64> = Some(1_700_000_000_250);

/// A page with every kind of family and every odd value.
fn page(format: Format) -> String {
    let mut out = Vec::new();
    let mut page = Encoder::new(format);
    page.family(
        &mut out,
        "shop_orders",
        "Orders \"placed\"\nper \\ shop.",
        "",
        FamilyKind::Counter,
    );
    page.counter(&mut out, b"", 0, 0.0, None);
    page.counter(&mut out, b"shop=\"eu\"", u64::MAX, 0.0, CREATED);
    page.counter(&mut out, b"shop=\"us\"", 3, 0.25, Some(1_700_000_000_000));
    page.family(&mut out, "sent_bytes", "Bytes sent.", "bytes", FamilyKind::Counter);
    page.counter(&mut out, b"to=\"a\\\"b\\\\c\\nd\"", 1, 0.0, None);
    page.family(&mut out, "depth", "", "", FamilyKind::Gauge);
    for (value, label) in [
        (0.0, &b"v=\"zero\""[..]),
        (-1.5, b"v=\"negative\""),
        (1e300, b"v=\"huge\""),
        (1e-9, b"v=\"small\""),
        (1_000_000.0, b"v=\"million\""),
        (f64::NAN, b"v=\"nan\""),
        (f64::INFINITY, b"v=\"inf\""),
        (f64::NEG_INFINITY, b"v=\"minus inf\""),
    ] {
        page.gauge(&mut out, label, value);
    }
    page.family(&mut out, "workers_busy", "Busy.", "seconds", FamilyKind::Gauge);
    page.gauge_of_process(&mut out, b"", 4711, None, 1.0);
    page.gauge_of_process(&mut out, b"pool=\"a\"", 4712, None, 0.0);
    page.family(&mut out, "api_seconds", "Time.", "seconds", FamilyKind::Histogram);
    let buckets = [(0.005, 1), (1.0, 0), (2.5, 4), (1e6, 1), (f64::INFINITY, 2)];
    page.histogram(&mut out, b"path=\"/\"", &buckets, 12.75, CREATED);
    page.histogram(&mut out, b"", &[], 0.0, None);
    let pieces: &[Piece] = match format {
        Format::OpenMetrics100 => &[Piece::Points, Piece::Sum, Piece::Count],
        _ => &[Piece::All],
    };
    for piece in pieces {
        let (name, help, kind) = ("offset", "May be negative.", FamilyKind::Histogram);
        match piece {
            Piece::All => page.family(&mut out, name, help, "", kind),
            piece => page.piece(&mut out, name, help, kind, *piece),
        }
        page.histogram(&mut out, b"", &[(-1.0, 1), (1.0, 2)], -3.0, None);
    }
    page.family(&mut out, "size", "Sizes.", "", FamilyKind::Summary);
    page.summary(&mut out, b"", &[(0.5, 1.0), (0.99, 2.5), (1.0, f64::NAN)], 9.5, 7, CREATED);
    page.summary(&mut out, b"a=\"b\"", &[], 0.0, 0, None);
    page.family(&mut out, "odd", "Of no type.", "", FamilyKind::Unknown);
    page.set_prefix("app", "shop \"x\"");
    page.gauge(&mut out, b"", 1.0);
    page.gauge(&mut out, b"a=\"1\",zapp=\"2\"", 2.0);
    page.gauge(&mut out, b"app=\"mine\",b=\"2\"", 3.0);
    page.gauge(&mut out, b"a=\"x,app=\\\"\",app=\"mine\"", 4.0);
    page.set_prefix("", "");
    page.gauge(&mut out, b"app=\"mine\"", 5.0);
    page.finish(&mut out);
    String::from_utf8(out).expect("text")
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
    let mut page = Encoder::new(Format::OpenMetrics100);
    page.set_prefix("app", "shop");
    page.finish(&mut Vec::new());
    let mut out = Vec::new();
    page.family(&mut out, "a", "", "", FamilyKind::Gauge);
    page.gauge(&mut out, b"", 1.0);
    page.finish(&mut out);
    assert_eq!(out, b"# TYPE a gauge\na 1\n# EOF\n");
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
        let mut out = Vec::new();
        let mut page = Encoder::new(Format::Text004);
        page.family(&mut out, "h", &help, "", FamilyKind::Histogram);
        page.histogram(&mut out, text.as_bytes(), &buckets, sum, None);
        page.family(&mut out, "g", &help, "", FamilyKind::Gauge);
        page.gauge(&mut out, text.as_bytes(), sum);
        let families = prometheus_text::parse(&out, &Limits::default()).expect("a good page");
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
