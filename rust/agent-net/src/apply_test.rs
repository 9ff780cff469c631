//! Samples end in the right cells, and the ledger closes whatever comes.

use super::*;
use crate::config::Limits;
use crate::telemetry::tests::totals;
use agent_shm::{Entry, Options};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

const SOURCE: SourceId = SourceId::StatsdUdp;

fn config(json: &str) -> WorkerConfig {
    let json = format!(r#"{{"worker": 0, "segment": "", "control_fd": -1{json}}}"#);
    WorkerConfig::from_json(json.as_bytes()).expect("valid")
}

fn applier(segment: &Segment, json: &str) -> Applier {
    let admission = Admission::new(&Limits::default(), 1, 10, 0);
    Applier::new(segment, &config(json), admission).expect("a slot")
}

fn segment(metric_series_max: u32) -> Segment {
    Segment::private("agent", &Options { metric_series_max, ..Options::collector() })
}

/// Applies lines; gives every total of the segment.
fn applied(json: &str, lines: &[&str]) -> BTreeMap<String, f64> {
    let segment = segment(1000);
    let mut applier = applier(&segment, json);
    for line in lines {
        let _ = applier.batch().line(SOURCE, line.as_bytes());
    }
    totals(&segment)
}

fn ledger(totals: &BTreeMap<String, f64>) -> (f64, f64, f64) {
    let sum = |name: &str| {
        totals.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| value).sum()
    };
    let of = |name: &str| sum(&format!("agent_source_samples_{name}{{"));
    (of("received"), of("applied"), of("rejected"))
}

#[test]
fn each_kind_ends_in_its_cell() {
    let totals = applied(
        "",
        &[
            "shop.orders:2|c|#country:de,app:x",
            "shop.orders:3|c|@0.5|#app:x,country:de",
            "half:0.5|c",
            "depth:7|g",
            "depth:-2|g",
            "depth:+1|g",
            "api.time:250|ms",
            "size:10:20:30|h|@0.1",
            "price:1|d",
        ],
    );
    assert_eq!(totals["shop_orders{country=\"de\",exported_app=\"x\"}"], 8.0);
    assert_eq!(totals["half{}"], 0.5);
    assert_eq!(totals["depth{}"], 6.0);
    assert_eq!(totals["api_time_seconds{}"], 1.0);
    assert_eq!(totals["size{}"], 30.0);
    assert_eq!(totals["price{}"], 1.0);
    assert_eq!(ledger(&totals), (11.0, 11.0, 0.0));
}

#[test]
fn refusals_have_their_reason_and_are_remembered() {
    let totals = applied("", &["a:1|c", "a:1|ms", "a_seconds:1|c", "b:1|x", "b|c", "b:nan|g"]);
    let reason = |word: &str| {
        totals[&format!(
            "agent_source_samples_rejected{{reason=\"{word}\",source=\"statsd_udp\",worker=\"0\"}}"
        )]
    };
    assert_eq!(reason("type_conflict"), 1.0);
    assert_eq!(reason("type_unknown"), 1.0);
    assert_eq!(reason("value_not_finite"), 1.0);
    assert_eq!(ledger(&totals), (6.0, 2.0, 4.0));
}

#[test]
fn tags_inside_of_names_are_labels_and_rules_see_the_name_without_them() {
    let rules = r#", "mapping": [{"match": "shop.*", "name": "shop", "labels": {"part": "$1"}}]"#;
    let lines = [
        "api.hits,code=200:1|c",
        "api.hits#code=200:2|c|#zone:a",
        "api[code=200].hits:4|c|#code:500",
        "shop.cart,code=200:8|c",
        "disk#1:16|c",
    ];
    let totals = applied(rules, &lines);
    assert_eq!(totals["api_hits{code=\"200\"}"], 1.0);
    assert_eq!(totals["api_hits{code=\"200\",zone=\"a\"}"], 2.0);
    assert_eq!(totals["api_hits{code=\"500\"}"], 4.0);
    assert_eq!(totals["shop{code=\"200\",part=\"cart\"}"], 8.0);
    assert_eq!(totals["disk_1{}"], 16.0);
    let off = r#", "name_tags": {"influx": false, "librato": false, "signalfx": false}"#;
    assert_eq!(applied(off, &lines)["api_hits_code_200{}"], 1.0);
}

#[test]
fn samples_of_one_line_are_counted_one_by_one() {
    let totals = applied("", &["a:1|c:2|c|@0.5:x|c:9|c", "b:1|c:200|h", "a:x|c:5|c"]);
    assert_eq!(totals["a{}"], 19.0);
    assert_eq!(ledger(&totals), (8.0, 5.0, 3.0));
}

#[test]
fn sampled_values_weigh_what_their_rates_say() {
    for (rate, expected) in [("0.95", 1053.0), ("0.8", 1250.0), ("0.7", 1429.0), ("0.3", 3333.0)] {
        let line = format!("t:5|ms|@{rate}");
        assert_eq!(applied("", &[&*line; 1000])["t_seconds{}"], expected, "{rate}");
    }
}

#[test]
fn a_value_that_no_cell_can_take_is_refused_as_out_of_range() {
    let lines =
        ["h:1e308|h", "h:1e270|h", "g:1e308|g", "g:+1e308|g", "g:+1|g", "n:9e18|c", "n:9e18|c"];
    let totals = applied("", &lines);
    assert_eq!((totals["h{}"], totals["g{}"], totals["n{}"]), (1.0, 1e308, 9e18));
    let key = "{reason=\"value_out_of_range\",source=\"statsd_udp\",worker=\"0\"}";
    assert_eq!(totals[&format!("agent_source_samples_rejected{key}")], 3.0);
    assert_eq!(ledger(&totals), (7.0, 4.0, 3.0));
}

#[test]
fn rules_rename_label_retype_and_drop() {
    let rules = r#", "mapping": [
        {"match": "shop.*.orders", "name": "orders", "labels": {"country": "$1"}},
        {"match": "debug.*", "action": "drop"},
        {"match": "level.*", "name": "level_$1", "type": "counter"}]"#;
    let lines = ["shop.de.orders:1|c|#x:y", "debug.a:1|c", "level.up:3|g", "level.up:-3|g"];
    let totals = applied(rules, &lines);
    assert_eq!(totals["orders{country=\"de\",x=\"y\"}"], 1.0);
    assert_eq!(totals["level_up{}"], 3.0);
    assert_eq!(ledger(&totals), (4.0, 2.0, 2.0));
}

/// Between "nobody has the name" and "register it", another worker registers it.
#[test]
fn observed_values_become_the_histogram_that_settings_and_rules_say() {
    let shapes = |json: &str, reloaded: &str| {
        let segment = segment(100);
        let mut applier = applier(&segment, json);
        let lines = ["wait:1|ms", "size:1|h", "fine:1|d", "bare:1|h"];
        for line in lines {
            let _ = applier.batch().line(SOURCE, line.as_bytes());
        }
        applier.reload(&config(reloaded)).expect("fine");
        for line in lines.into_iter().chain(["late:1|h"]) {
            let _ = applier.batch().line(SOURCE, line.as_bytes());
        }
        let totals = totals(&segment);
        assert_eq!(ledger(&totals), (9.0, 9.0, 0.0));
        let of = |name: &str| {
            let metas = segment.metrics();
            metas.into_iter().find(|meta| meta.name == name).expect(name).shape
        };
        ["wait_seconds", "size", "fine", "bare", "late"].map(of)
    };
    let classic = || OwnedShape::Explicit(agent_metric::bounds::STATSD.to_vec());
    let native = || OwnedShape::Exponential { schema: 3 };
    let (given, other) = (vec![1.0, 2.0], vec![7.0]);
    assert_eq!(shapes("", "").map(|shape| shape == classic()), [true; 5]);
    let rules = concat!(
        r#", "histograms": {"buckets": [1, 2]}, "mapping": ["#,
        r#"{"match": "fine", "name": "fine", "native": true},"#,
        r#"{"match": "bare", "name": "bare", "buckets": [7]}]"#
    );
    // What is there keeps its bounds whatever a reload says; what is new gets the new ones.
    let given = || OwnedShape::Explicit(given.clone());
    let expected = [given(), given(), native(), OwnedShape::Explicit(other), native()];
    assert_eq!(shapes(rules, r#", "histograms": {"native": true}"#), expected);
}

#[test]
fn workers_that_meet_at_a_new_name_do_not_refuse_it() {
    const NAMES: usize = 2000;
    let segment = segment(1000);
    let arrived = AtomicUsize::new(0);
    // Spinning: who sleeps at a barrier wakes too late to meet anybody.
    let meet = |turn: usize| {
        arrived.fetch_add(1, Ordering::SeqCst);
        while arrived.load(Ordering::SeqCst) < 2 * (turn + 1) {
            std::thread::yield_now();
        }
    };
    let work = || {
        let mut applier = applier(&segment, "");
        for turn in 0..NAMES {
            let line = format!("meet_{turn}:1|c");
            meet(turn);
            let _ = applier.batch().line(SOURCE, line.as_bytes());
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let sent = 2.0 * NAMES as f64;
    assert_eq!(ledger(&totals(&segment)), (sent, sent, 0.0));
}

#[test]
fn a_removed_series_is_found_again() {
    let segment = segment(1000);
    let mut applier = applier(&segment, "");
    let _ = applier.batch().line(SOURCE, b"a:1|c");
    let writer = applier.writer();
    let spec = MetricSpec { name: "a", help: "", unit: "", shape: Shape::Counter };
    let metric = writer.metric(&spec).expect("registered");
    assert!(writer.remove(metric, ""));
    let _ = applier.batch().line(SOURCE, b"a:5|c");
    assert_eq!(totals(&segment)["a{}"], 5.0);
    assert_eq!(ledger(&totals(&segment)), (2.0, 2.0, 0.0));
}

#[test]
fn a_member_of_a_removed_set_goes_to_its_new_series() {
    let segment = segment(1000);
    let mut applier = applier(&segment, "");
    let _ = applier.batch().line(SOURCE, b"users:ann|s");
    let shape = Shape::Gauge(GaugeMode::MostRecent);
    let spec = MetricSpec { name: "users_unique", help: "", unit: "", shape };
    let metric = applier.writer().metric(&spec).expect("registered");
    assert!(applier.writer().remove(metric, ""));
    let _ = applier.batch().line(SOURCE, b"users:bob|s");
    let mut known = Vec::new();
    let mut reader = segment.ring_reader(applier.writer().slot()).expect("a ring");
    reader.drain(|entry| {
        if let Entry::Value { series, .. } = entry {
            known.push(segment.describe(series).is_some());
        }
    });
    assert_eq!(known, [false, true]);
    assert_eq!(ledger(&totals(&segment)), (2.0, 2.0, 0.0));
}

#[test]
fn a_label_bomb_ends_in_the_overflow_series_and_loses_nothing() {
    let segment = segment(100);
    let mut applier = applier(&segment, "");
    for n in 0..5000 {
        let _ = applier.batch().line(SOURCE, format!("bomb:1|c|#id:{n}").as_bytes());
    }
    let totals = totals(&segment);
    let bombs: Vec<f64> =
        totals.iter().filter(|(key, _)| key.starts_with("bomb{")).map(|(_, v)| *v).collect();
    assert_eq!(bombs.iter().sum::<f64>(), 5000.0);
    assert_eq!(bombs.len(), 101);
    assert_eq!(totals["bomb{agent_overflow=\"true\"}"], 4900.0);
}

#[test]
fn rings_carry_samples_with_their_weight_members_and_events() {
    let segment = segment(100);
    let mut applier = applier(&segment, "");
    let mut batch = applier.batch();
    for line in ["t:100|ms|@0.25", "users:ann|s", "users:bob|s", "users:ann|s"] {
        let _ = batch.line(SOURCE, line.as_bytes());
    }
    assert_eq!(batch.line(SOURCE, b"_e{5,4}:title|text|#a:b"), Line::Told);
    assert_eq!(batch.line(SOURCE, b"_sc|db|0"), Line::Told);
    assert_eq!(batch.line(SOURCE, b"_ack|7"), Line::Ack(b"7"));
    drop(batch);
    let (mut samples, mut uniques, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let mut reader = segment.ring_reader(applier.writer().slot()).expect("a ring");
    let drained = reader.drain(|entry| match entry {
        Entry::Value { kind: RecordKind::Sample, bits, .. } => samples.push(window::unpack(bits)),
        Entry::Value { kind: RecordKind::Unique, bits, .. } => uniques.push(bits),
        Entry::Event { bytes, .. } => events.push(bytes.to_vec()),
    });
    assert_eq!(drained.lost, 0);
    assert_eq!(samples.len(), 1);
    assert!((samples[0].0 - 0.1).abs() < 1e-9 && samples[0].1 == 4);
    assert!(uniques[0] == uniques[2] && uniques[0] != uniques[1]);
    assert_eq!(events, [&b"_e{5,4}:title|text|#a:b"[..], b"_sc|db|0"]);
    let totals = totals(&segment);
    assert_eq!(ledger(&totals), (4.0, 4.0, 0.0), "events and checks are no samples");
}

#[test]
fn pushed_samples_use_their_unit_and_canonical_labels() {
    let segment = segment(100);
    let mut applier = applier(&segment, "");
    let sample = NormalSample {
        name: b"latency",
        kind: Kind::Histogram,
        value: Value::Number(1500.0),
        rate: 1.0,
        labels: Labels::Text("a=\"b\""),
        unit: "ms",
        help: "How long it took.",
    };
    let mut batch = applier.batch();
    assert_eq!(batch.sample(SourceId::Push, &sample), Ok(()));
    let bad = NormalSample { unit: "parsecs", ..sample };
    assert_eq!(batch.sample(SourceId::Push, &bad), Err(Reject::UnitUnknown.into()));
    drop(batch);
    assert_eq!(totals(&segment)["latency_seconds{a=\"b\"}"], 1.0);
}

proptest! {
    /// Any bytes: received = applied + rejected.
    #[test]
    fn the_ledger_closes_on_any_input(
        lines in proptest::collection::vec(
            prop_oneof![
                "[a-c]{1,2}:[0-9.+-]{1,4}(:[0-9]{1,2}){0,2}\\|(c|g|ms|h|d|s|x)(\\|@[01]\\.[0-9])?(\\|#[a-c]:[d-f])?",
                "\\PC{0,30}",
            ], 1..60),
    ) {
        let segment = segment(20);
        let mut applier = applier(&segment, "");
        let mut samples = 0;
        for line in &lines {
            if let Line::Samples(count) = applier.batch().line(SOURCE, line.as_bytes()) {
                samples += count;
            }
        }
        let (received, applied, rejected) = ledger(&totals(&segment));
        prop_assert_eq!(received, samples as f64);
        prop_assert_eq!(received, applied + rejected);
    }
}

#[test]
fn nobody_writes_into_the_ledger() {
    let line = "agent_source_samples_received:1000|c|#worker:0,source:statsd_udp";
    let totals = applied("", &[line]);
    assert_eq!(ledger(&totals), (1.0, 1.0, 0.0));
    let exported = "exported_agent_source_samples_received{source=\"statsd_udp\",worker=\"0\"}";
    assert_eq!(totals[exported], 1000.0);
}
