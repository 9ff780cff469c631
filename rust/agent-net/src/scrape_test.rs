//! Pages out of several segments.

use std::sync::Arc;

use agent_metric::{FamilyHead, Piece, Sample, SampleValue};
use agent_shm::{GaugeMode, MetricSpec, Options, Shape, Writer};

use super::labels::{inspect, Labels};
use super::*;
use crate::http::conn_test::tick;
use crate::http::gateway_path::GroupKey;
use agent_metric::own::PRIVATE;

fn segment(name: &str) -> (Segment, Writer) {
    let segment = Segment::private(name, &Options::default());
    let writer = segment.writer().expect("a slot");
    (segment, writer)
}

fn spec<'a>(name: &'a str, help: &'a str, shape: Shape<'a>) -> MetricSpec<'a> {
    MetricSpec { name, help, unit: "", shape }
}

fn count(writer: &Writer, name: &str, labels: &str, n: u64) {
    let metric = writer.metric(&spec(name, "Help.", Shape::Counter)).expect("room");
    let series = writer.series(metric, labels).expect("room");
    assert_eq!(writer.add(&series, n), agent_shm::Outcome::Applied);
}

fn gauge(writer: &Writer, name: &str, labels: &str, value: f64) {
    let shape = Shape::Gauge(GaugeMode::MostRecent);
    let metric = writer.metric(&spec(name, "", shape)).expect("room");
    let series = writer.series(metric, labels).expect("room");
    assert_eq!(writer.set(&series, value), agent_shm::Outcome::Applied);
}

fn page(sources: &[Source<'_>], format: Format) -> (String, Skipped) {
    let mut out = Vec::new();
    let LeftOut { sources, pushed } = render(sources, format, &mut out);
    let total = sources.iter().fold(pushed, |sum, one| Skipped {
        type_conflicts: sum.type_conflicts + one.type_conflicts,
        bad_names: sum.bad_names + one.bad_names,
        bad_bounds: sum.bad_bounds + one.bad_bounds,
        bad_labels: sum.bad_labels + one.bad_labels,
        repeated: sum.repeated + one.repeated,
        damaged: sum.damaged + one.damaged,
        infinite_sums: sum.infinite_sums + one.infinite_sums,
    });
    (String::from_utf8(out).expect("UTF-8"), total)
}

#[test]
fn families_of_one_name_stand_under_one_header_with_the_app_in_front() {
    let (own, own_writer) = segment("agent");
    let (shop, shop_writer) = segment("shop");
    let (blog, blog_writer) = segment("blog");
    count(&own_writer, "hits", "", 1);
    tick();
    count(&blog_writer, "hits", "", 3);
    tick();
    count(&shop_writer, "hits", "a=\"1\"", 2);
    gauge(&shop_writer, "alone", "", 1.5);
    let sources =
        [Source::own(&own), Source::of_app(&blog, "blog"), Source::of_app(&shop, "sh\"op")];
    let (text, skipped) = page(&sources, Format::Text004);
    let expected = "# TYPE alone gauge\nalone{app=\"sh\\\"op\"} 1.5\n# HELP hits_total Help.\n\
        # TYPE hits_total counter\nhits_total 1\nhits_total{app=\"blog\"} 3\n\
        hits_total{app=\"sh\\\"op\",a=\"1\"} 2\n";
    assert_eq!(text, expected);
    assert_eq!(skipped, Skipped::default());
}

/// A sink that is no page: names, labels and sums of what it is told.
#[derive(Default)]
struct Told {
    family: String,
    samples: Vec<(String, String, f64)>,
    is_over: bool,
}

impl FamilyVisitor for Told {
    fn family(&mut self, head: &FamilyHead<'_>, piece: Piece, _out: &mut Vec<u8>) {
        assert_eq!(piece, Piece::All, "pieces are for those that want them");
        self.family = format!("{} {:?} {}", head.name, head.kind, head.is_native);
    }

    fn sample(&mut self, sample: &Sample<'_>, _out: &mut Vec<u8>) {
        let value = match sample.value {
            SampleValue::Counter { whole, fraction } => whole as f64 + fraction,
            SampleValue::Number(value) | SampleValue::OfProcess { value, .. } => value,
            SampleValue::Histogram { sum, .. }
            | SampleValue::Native { sum, .. }
            | SampleValue::Summary { sum, .. } => sum,
        };
        let labels = String::from_utf8_lossy(sample.labels).into_owned();
        self.samples.push((self.family.clone(), labels, value));
    }

    fn finish(&mut self, _out: &mut Vec<u8>) {
        self.is_over = true;
    }
}

#[test]
fn whoever_visits_families_is_told_the_same_as_a_page() {
    let (own, own_writer) = segment("agent");
    let (shop, shop_writer) = segment("shop");
    count(&own_writer, "hits", "", 1);
    count(&shop_writer, "hits", "a=\"1\"", 2);
    let shape = Shape::Exponential { schema: 3 };
    let fine = own_writer.metric(&spec("fine", "", shape)).expect("room");
    let series = own_writer.series(fine, "").expect("room");
    assert_eq!(own_writer.observe(&series, -2.5, 2), agent_shm::Outcome::Applied);
    let mut told = Told::default();
    let sources = [Source::own(&own), Source::of_app(&shop, "shop")];
    visit(&sources, &[], &mut told, &mut Vec::new(), &mut |_| true);
    let expected = [
        ("fine Histogram true", "", -5.0),
        ("hits Counter false", "", 1.0),
        ("hits Counter false", "app=\"shop\",a=\"1\"", 2.0),
    ];
    assert_eq!(told.samples, expected.map(|(f, l, v)| (f.to_owned(), l.to_owned(), v)));
    assert!(told.is_over);
}

#[test]
fn the_first_type_wins_and_the_others_are_counted() {
    let (own, own_writer) = segment("agent");
    let (shop, shop_writer) = segment("shop");
    count(&own_writer, "x", "", 1);
    gauge(&own_writer, "y_count", "", 1.0);
    tick();
    gauge(&shop_writer, "x", "", 2.0);
    gauge(&shop_writer, "x_total", "", 3.0);
    let metric = shop_writer.metric(&spec("y", "", Shape::Explicit(&[1.0]))).expect("room");
    shop_writer.series(metric, "").expect("room");
    for format in [Format::Text004, Format::OpenMetrics100] {
        let (text, skipped) = page(&[Source::own(&own), Source::of_app(&shop, "shop")], format);
        assert_eq!(skipped.type_conflicts, 3);
        assert!(!text.contains("shop"), "{text}");
        assert!(text.contains("x_total 1\n") && text.contains("y_count 1\n"), "{text}");
    }
}

fn claim<'a>(name: &str, kind: Type, owner: Owner<'a>) -> Claim<'a> {
    Claim { name: name.to_owned(), kind, owner }
}

#[test]
fn whoever_had_a_name_first_keeps_it_in_any_order_of_the_sources() {
    let (own, own_writer) = segment("agent");
    let (shop, shop_writer) = segment("shop");
    let (blog, blog_writer) = segment("blog");
    count(&shop_writer, "jobs", "", 1);
    gauge(&shop_writer, "agent_up", "", 1.0);
    tick();
    gauge(&blog_writer, "jobs", "", 2.0);
    count(&own_writer, "agent_up", "", 1);
    gauge(&own_writer, "jobs_total", "", 3.0);
    let shop_source = Source::of_app(&shop, "shop");
    let others = [Source::own(&own), Source::of_app(&blog, "blog")];
    for at in 0..=others.len() {
        let mut sources = others.to_vec();
        sources.insert(at, shop_source);
        let (text, skipped) = page(&sources, Format::Text004);
        assert_eq!(skipped.type_conflicts, 3);
        assert!(text.contains("# TYPE jobs_total counter\njobs_total{app=\"shop\"} 1\n"), "{text}");
        assert!(text.contains("agent_up_total 1\n"), "its own come before all others: {text}");
        let (conflicts, _) = disputes(&sources, &[], 10);
        let mut named: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
        named.sort();
        let expected = [
            "agent_up is a gauge here, but the collector has agent_up_total as a counter",
            "jobs is a gauge here, but app shop has jobs_total as a counter",
            "jobs_total is a gauge here, but app shop has it as a counter",
        ];
        assert_eq!(named, expected);
    }
}

#[test]
fn what_is_shared_takes_no_name_from_others_whatever_its_times_are() {
    let (own, own_writer) = segment("agent");
    let (shop, shop_writer) = segment("shop");
    let (eve, eve_writer) = segment("eve");
    gauge(&eve_writer, "jobs", "", 2.0);
    gauge(&eve_writer, "paid", "", 2.0);
    gauge(&eve_writer, "hers", "", 2.0);
    tick();
    count(&shop_writer, "jobs", "", 1);
    count(&own_writer, "paid", "", 1);
    let theirs = Source { is_shared: true, ..Source::of_app(&eve, "eve") };
    let sources = [theirs, Source::own(&own), Source::of_app(&shop, "shop")];
    let (text, skipped) = page(&sources, Format::Text004);
    assert_eq!(skipped.type_conflicts, 2);
    assert!(text.contains("jobs_total{app=\"shop\"} 1\n") && text.contains("\npaid_total 1\n"));
    assert!(text.contains("hers{app=\"eve\"} 2\n"), "{text}");
    let candidates = sources.iter().flat_map(Candidate::all_of_segment).collect();
    let refused: Vec<String> = refused(candidates).iter().map(ToString::to_string).collect();
    let expected = [
        "jobs is a gauge here, but app shop has jobs_total as a counter",
        "paid is a gauge here, but the collector has paid_total as a counter",
    ];
    assert_eq!(refused, expected);
}

/// Both are of shared folders; one says that its metrics are as old as the hills.
#[test]
fn nobody_is_older_than_his_file() {
    let (good, good_writer) = segment("good");
    let (eve, eve_writer) = segment("eve");
    gauge(&eve_writer, "jobs", "", 2.0);
    tick();
    count(&good_writer, "jobs", "", 1);
    let of = |segment, app, born_unix_ms| Source {
        is_shared: true,
        born_unix_ms,
        ..Source::of_app(segment, app)
    };
    let later = good.metrics()[0].first_unix_ms + 1;
    let (text, _) = page(&[of(&good, "good", 1), of(&eve, "eve", later)], Format::Text004);
    assert!(text.contains("jobs_total{app=\"good\"} 1\n") && !text.contains("eve"), "{text}");
    let (text, _) = page(&[of(&good, "good", 1), of(&eve, "eve", 0)], Format::Text004);
    assert!(!text.contains("good"), "{text}");
}

#[test]
fn what_the_page_says_of_itself_has_its_name_first() {
    let (shop, writer) = segment("shop");
    gauge(&writer, "agent_private_metrics_total", "", 7.0);
    count(&writer, "agent_private_metrics", "", 1);
    let (text, skipped) = page(&[Source::of_app(&shop, "shop")], Format::Text004);
    assert_eq!(skipped.type_conflicts, 1);
    assert_eq!(text.matches(&format!("# TYPE {PRIVATE}")).count(), 1, "{text}");
}

#[test]
fn a_conflict_names_the_metric_both_types_and_both_owners() {
    let mut names = Names::of_page();
    let key = GroupKey { labels: vec![("job".to_owned(), "a".to_owned())] };
    names.claim(claim("jobs", Type::Counter, Owner::Collector)).expect("the first");
    names.claim(claim("wait", Type::Histogram, Owner::App("shop"))).expect("the first");
    names.claim(claim("jobs", Type::Counter, Owner::App("shop"))).expect("the same type");
    let mut told =
        |name, kind, owner| names.claim(claim(name, kind, owner)).expect_err("taken").to_string();
    let text = told("jobs", Type::Gauge, Owner::App("blog"));
    assert_eq!(text, "jobs is a gauge here, but the collector has jobs_total as a counter");
    let text = told("jobs_total", Type::Gauge, Owner::App("blog"));
    assert_eq!(text, "jobs_total is a gauge here, but the collector has it as a counter");
    let text = told("wait_count", Type::Unknown, Owner::Group(&key));
    assert_eq!(text, "wait_count is untyped here, but app shop has wait as a histogram");
    names.claim(claim("wait_sum_of", Type::Gauge, Owner::Group(&key))).expect("not taken");
    let conflict = names.claim(claim("wait_sum_of", Type::Summary, Owner::Collector));
    let text = conflict.expect_err("taken").to_string();
    let expected = "wait_sum_of is a summary here, but group {job=\"a\"} has it as a gauge";
    assert_eq!(text, expected);
}

#[test]
fn what_is_left_out_is_told_apart_by_app() {
    let (own, own_writer) = segment("agent");
    let (shop, shop_writer) = segment("shop");
    let (blog, blog_writer) = segment("blog");
    count(&own_writer, "x", "", 1);
    count(&blog_writer, "x", "", 1);
    gauge(&shop_writer, "x", "", 2.0);
    let sources = [Source::own(&own), Source::of_app(&blog, "blog"), Source::of_app(&shop, "shop")];
    let left_out = render(&sources, Format::Text004, &mut Vec::new());
    let conflicts: Vec<u64> = left_out.sources.iter().map(|one| one.type_conflicts).collect();
    assert_eq!(conflicts, [0, 0, 1]);
}

#[test]
fn label_text_of_a_foreign_segment_is_checked() {
    let good = ["", "a=\"x\",b=\"y\\\\\"", "_a=\"\\\"\\n\"", "a=\"\u{fc}\""];
    for text in good {
        assert_eq!(inspect(text.as_bytes(), "le"), Labels::Sound, "{text}");
    }
    let bad: [&[u8]; 14] = [
        b"a",
        b"a=",
        b"a=\"",
        b"a=\"x\"b",
        b"a=\"x\",",
        b"=\"x\"",
        b"1a=\"x\"",
        b"a=\"x\ny\"",
        b"a=\"\\x\"",
        b"a=\"\\\"",
        b"a=\"\xff\"",
        b"a-b=\"x\"",
        b"a=\"x\"}\nb 1",
        b"__name__=\"x\"",
    ];
    for text in bad {
        let text_shown = String::from_utf8_lossy(text);
        assert_eq!(inspect(text, "le"), Labels::Broken, "{text_shown}");
    }
    for odd in [
        &b"a=\"1\",app=\"2\""[..],
        b"le=\"1\"",
        b"b=\"1\",a=\"2\"",
        b"a=\"\",b=\"1\"",
        b"a=\"1\",a=\"1\"",
    ] {
        assert_eq!(inspect(odd, "le"), Labels::Odd);
    }
    let (shop, writer) = segment("shop");
    count(&writer, "hits", "broken", 1);
    count(&writer, "hits", "a=\"1\"", 1);
    let (text, skipped) = page(&[Source::of_app(&shop, "shop")], Format::Text004);
    assert_eq!(skipped.bad_labels, 1);
    assert!(text.ends_with("counter\nhits_total{app=\"shop\",a=\"1\"} 1\n"), "{text}");
}

#[test]
fn a_label_app_of_its_own_is_kept_under_another_name() {
    let (shop, writer) = segment("shop");
    count(&writer, "hits", "a=\"1\",app=\"mine\"", 1);
    let (text, _) = page(&[Source::of_app(&shop, "shop")], Format::Text004);
    let line = "hits_total{app=\"shop\",a=\"1\",exported_app=\"mine\"} 1\n";
    assert!(text.ends_with(line), "{text}");
}

#[test]
fn labels_app_and_exported_app_are_both_kept() {
    let (shop, writer) = segment("shop");
    count(&writer, "hits", "app=\"1\",exported_app=\"2\"", 1);
    // A hostile segment may have a name twice.
    count(&writer, "hits", "b=\"1\",b=\"2\"", 1);
    let (text, skipped) = page(&[Source::of_app(&shop, "shop")], Format::Text004);
    let line = "hits_total{app=\"shop\",exported_app=\"2\",exported_exported_app=\"1\"} 1\n";
    assert!(text.ends_with(line), "{text}");
    assert_eq!(skipped.bad_labels, 1);
}

#[test]
fn a_label_set_that_a_foreign_segment_has_twice_is_shown_once() {
    let (shop, writer) = segment("shop");
    for labels in ["a=\"1\",b=\"2\"", "b=\"2\",a=\"1\"", "a=\"1\",b=\"2\",c=\"\"", "c=\"\"", ""] {
        count(&writer, "hits", labels, 1);
        let metric = writer.metric(&spec("p", "", Shape::Gauge(GaugeMode::All))).expect("room");
        let series = writer.series(metric, labels).expect("room");
        assert_eq!(writer.set(&series, 1.0), agent_shm::Outcome::Applied);
    }
    let (text, skipped) = page(&[Source::of_app(&shop, "shop")], Format::Text004);
    assert_eq!((skipped.repeated, text.matches("hits_total{").count()), (6, 2), "{text}");
    assert_eq!(text.matches("p{").count(), 2, "{text}");
}

#[test]
fn a_label_set_that_two_sources_have_is_shown_once() {
    let (own, own_writer) = segment("agent");
    let (shop, shop_writer) = segment("shop");
    count(&own_writer, "hits", "app=\"shop\",b=\"1\"", 1);
    count(&own_writer, "hits", "app=\"shop\",b=\"2\"", 2);
    tick();
    count(&shop_writer, "hits", "b=\"1\",c=\"\"", 3);
    count(&shop_writer, "hits", "b=\"3\"", 4);
    let sources = [Source::own(&own), Source::of_app(&shop, "shop")];
    let (text, skipped) = page(&sources, Format::Text004);
    assert_eq!((skipped.repeated, text.matches("b=\"1\"").count()), (1, 1), "{text}");
    assert!(text.contains("hits_total{app=\"shop\",b=\"1\"} 1\n"), "the first wins: {text}");
    assert!(text.contains("hits_total{app=\"shop\",b=\"3\"} 4\n"), "{text}");
    let (conflicts, named) = disputes(&sources, &[], 10);
    let series = "hits{app=\"shop\",b=\"1\"}".to_owned();
    let (kind, owner, holder) = (Type::Counter, Owner::App("shop"), Owner::Collector);
    assert_eq!((conflicts, named), (vec![], vec![Repeated { series, kind, owner, holder }]));
}

#[test]
fn bounds_that_do_not_ascend_cost_their_family_only() {
    let (shop, writer) = segment("shop");
    for (name, bounds) in [("good", [1.0, 2.0]), ("bad", [2.0, 1.0]), ("worse", [1.0, f64::NAN])] {
        let metric = writer.metric(&spec(name, "", Shape::Explicit(&bounds))).expect("room");
        writer.series(metric, "").expect("room");
    }
    let (text, skipped) = page(&[Source::of_app(&shop, "shop")], Format::Text004);
    assert_eq!(skipped.bad_bounds, 2);
    assert!(text.contains("good_count") && !text.contains("bad") && !text.contains("worse"));
}

#[test]
fn the_time_of_a_family_is_one_of_its_names() {
    let mut names = Names::of_page();
    names.claim(claim("v", Type::Counter, Owner::Collector)).expect("the first");
    names.claim(claim("w_created", Type::Gauge, Owner::Collector)).expect("the first");
    names.claim(claim("v_created", Type::Gauge, Owner::App("shop"))).expect_err("a name of v");
    names.claim(claim("w", Type::Summary, Owner::App("shop"))).expect_err("has a name of w");
}

#[test]
fn what_is_below_zero_shows_the_same_samples_in_every_format() {
    let (own, writer) = segment("agent");
    let made = |name, shape| {
        let metric = writer.metric(&spec(name, "Help.", shape)).expect("room");
        writer.series(metric, "").expect("room")
    };
    let classic = made("c", Shape::Explicit(&[1.0]));
    let below = made("b", Shape::Explicit(&[-1.0, 1.0]));
    let native = made("n", Shape::Exponential { schema: 0 });
    let summary = made("s", Shape::Summary(&[0.5]));
    let shown = |format| {
        let (text, _) = page(&[Source::own(&own)], format);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<String> =
            lines.map(|line| line.split(' ').next().expect("a name").to_owned()).collect();
        names.sort();
        (names, text)
    };
    let without_times = |names: &[String]| {
        names.iter().filter(|name| !name.contains("_created")).cloned().collect::<Vec<_>>()
    };
    let (born, _) = shown(Format::OpenMetrics100);
    assert_eq!(born.len() - without_times(&born).len(), 4);
    assert_eq!(without_times(&born), shown(Format::Text004).0);
    for series in [&classic, &below, &native, &summary] {
        assert_eq!(writer.observe(series, -7.0, 1), agent_shm::Outcome::Applied);
    }
    let (names, text) = shown(Format::OpenMetrics100);
    assert_eq!(names, born, "a value has changed what is shown");
    assert_eq!(without_times(&names), shown(Format::Text004).0);
    for family in ["c", "b", "n", "s"] {
        let lines =
            format!("# HELP {family}_sum Help.\n# TYPE {family}_sum unknown\n{family}_sum -7\n");
        assert!(text.contains(&lines), "{text}");
    }
}

#[test]
fn every_kind_of_metric_has_its_lines() {
    let (own, writer) = segment("agent");
    let made = |name, shape| {
        let metric = writer.metric(&spec(name, "", shape)).expect("room");
        writer.series(metric, "").expect("room")
    };
    let histogram = made("h", Shape::Explicit(&[1.0, 2.0]));
    let summary = made("s", Shape::Summary(&[0.5]));
    let exponential = made("e", Shape::Exponential { schema: 0 });
    let process = made("p", Shape::Gauge(GaugeMode::All));
    for series in [&histogram, &summary, &exponential] {
        assert_eq!(writer.observe(series, 1.5, 2), agent_shm::Outcome::Applied);
    }
    assert_eq!(writer.set(&process, 4.0), agent_shm::Outcome::Applied);
    let median = |_: SeriesId, out: &mut Vec<(f64, f64)>| out.push((0.5, 1.5));
    let source = Source { quantiles: Some(&median), ..Source::own(&own) };
    let (text, _) = page(&[source], Format::OpenMetrics100);
    for line in [
        "h_bucket{le=\"1.0\"} 0",
        "h_bucket{le=\"2.0\"} 2",
        "h_bucket{le=\"+Inf\"} 2",
        "h_sum 3",
        "h_count 2",
        "s{quantile=\"0.5\"} 1.5",
        "s_count 2",
        "e_bucket{le=\"1.0\"} 0",
        "e_bucket{le=\"2.0\"} 2",
        "e_sum 3",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    assert!(text.contains(&format!("p{{pid=\"{}\"}} 4\n", std::process::id())), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_long_page_is_handed_on_in_pieces_and_stops_when_asked() {
    let (own, writer) = segment("agent");
    for n in 0..9000 {
        count(&writer, "hits", &format!("n=\"{n}\""), n);
    }
    let (whole, _) = page(&[Source::own(&own)], Format::Text004);
    let (mut out, mut all, mut pieces) = (Vec::new(), Vec::new(), 0);
    render_pieces(&[Source::own(&own)], &[], Format::Text004, &mut out, &mut |piece| {
        assert!(piece.len() < PIECE_BYTES + 1024);
        pieces += 1;
        all.append(piece);
        true
    });
    all.append(&mut out);
    assert!(pieces >= 2 && all == whole.as_bytes());
    let mut calls = 0;
    render_pieces(&[Source::own(&own)], &[], Format::Text004, &mut out, &mut |_| {
        calls += 1;
        false
    });
    assert_eq!(calls, 1);
}

#[test]
fn pushed_groups_join_the_families_of_segments() {
    use crate::http::gateway::Gateway;
    let folder = crate::http::conn_test::temporary_folder("scrape");
    let gateway = Gateway::new(&folder);
    let limits = agent_wire::Limits::default();
    let key = GroupKey::from_path("job/j", &limits).expect("a key");
    let body = b"# TYPE hits_total counter\nhits_total 7\n# TYPE bare counter\nbare 2\n# TYPE g counter\ng 1\n";
    gateway.put(&key, true, body, &limits, Vec::new()).expect("taken");
    // The clock of segments is a little late.
    tick();
    tick();
    let (own, writer) = segment("agent");
    count(&writer, "hits", "", 1);
    gauge(&writer, "g", "", 5.0);
    let groups: Vec<Arc<Group>> = gateway.groups().0;
    let shown = |format| {
        let mut out = Vec::new();
        let left = render_pieces(&[Source::own(&own)], &groups, format, &mut out, &mut |_| true);
        assert_eq!(left.sources[0].type_conflicts, 1, "g is a counter already");
        String::from_utf8(out).expect("UTF-8")
    };
    let text = shown(Format::Text004);
    let hits = "# TYPE hits_total counter\nhits_total{instance=\"\",job=\"j\"} 7\nhits_total 1\n";
    assert!(text.contains(hits), "{text}");
    assert!(text.contains("# TYPE bare counter\nbare{instance=\"\",job=\"j\"} 2\n"), "{text}");
    assert!(text.contains("# TYPE push_time_seconds gauge\n"), "{text}");
    let open = shown(Format::OpenMetrics100);
    assert!(open.contains("# TYPE bare unknown\nbare{instance=\"\",job=\"j\"} 2\n"), "{open}");
    std::fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_pushed_bound_keeps_its_text_and_openmetrics_its_own() {
    use crate::http::gateway::Gateway;
    let folder = crate::http::conn_test::temporary_folder("scrape");
    let limits = agent_wire::Limits::default();
    let key = GroupKey::from_path("job/j", &limits).expect("a key");
    let body = b"# TYPE go histogram\ngo_bucket{le=\"1\"} 1\ngo_bucket{le=\"2.5\"} 1\n\
        go_bucket{le=\"+Inf\"} 2\ngo_sum 3\ngo_count 2\n\
        # TYPE py histogram\npy_bucket{le=\"1.0\"} 1\npy_bucket{le=\"+Inf\"} 1\npy_sum 1\npy_count 1\n\
        # TYPE s summary\ns{quantile=\"1\"} 2\ns_sum 3\ns_count 2\n";
    Gateway::new(&folder).put(&key, true, body, &limits, Vec::new()).expect("taken");
    // Through the file, as another worker sees it.
    let groups: Vec<Arc<Group>> = Gateway::new(&folder).groups().0;
    let shown = |format| {
        let mut out = Vec::new();
        render_pieces(&[], &groups, format, &mut out, &mut |_| true);
        String::from_utf8(out).expect("UTF-8")
    };
    let (text, open) = (shown(Format::Text004), shown(Format::OpenMetrics100));
    for (name, of_text) in
        [("go_bucket", "le=\"1\""), ("py_bucket", "le=\"1.0\""), ("s", "quantile=\"1\"")]
    {
        let of = |page: &str, bound: &str| {
            page.contains(&format!("{name}{{instance=\"\",job=\"j\",{bound}}} "))
        };
        assert!(of(&text, of_text), "{text}");
        assert!(of(&open, &of_text.replace("\"1\"", "\"1.0\"")), "{open}");
    }
    assert!(text.contains("le=\"2.5\"") && open.contains("le=\"2.5\""));
    std::fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_damaged_label_text_is_on_no_page_of_any_form() {
    use std::os::unix::fs::FileExt;
    let folder = crate::http::conn_test::temporary_folder("damage");
    let path = folder.join("shop.v3.seg");
    let segment = Segment::open_or_create(&path, "shop", &Options::default()).expect("a segment");
    let writer = segment.writer().expect("a slot");
    count(&writer, "hits", "path=\"/a\"", 1);
    count(&writer, "hits", "path=\"/b\"", 2);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("a file");
    let bytes = std::fs::read(&path).expect("a file");
    let text = b"path=\"/a\"";
    let at = bytes.windows(text.len()).position(|window| window == text).expect("its labels");
    // A second `/b`, a broken text, no UTF-8.
    for (place, byte) in [(7, b'b'), (5, b'x'), (8, b'\n'), (7, 0xff)] {
        file.write_all_at(&[byte], (at + place) as u64).expect("write");
        for source in [Source::own(&segment), Source::of_app(&segment, "shop")] {
            for format in [Format::Text004, Format::OpenMetrics100, Format::Protobuf] {
                let mut out = Vec::new();
                let left_out = render(&[source], format, &mut out);
                assert_eq!((left_out.sources[0].damaged, left_out.sources[0].bad_labels), (1, 0));
                let page = String::from_utf8_lossy(&out);
                // And its `_created`.
                let lines = if format == Format::OpenMetrics100 { 2 } else { 1 };
                assert_eq!(page.matches("/b").count(), lines, "{page}");
                assert!(page.contains("agent_damaged_series"), "{page}");
            }
        }
        file.write_all_at(&text[place..=place], (at + place) as u64).expect("write");
    }
    assert_eq!(page(&[Source::own(&segment)], Format::Text004).1, Skipped::default());
    std::fs::remove_dir_all(folder).expect("clean up");
}
