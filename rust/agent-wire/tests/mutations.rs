//! Damaged input: the shared protocol cases with bytes changed, cut, doubled and joined, and plain
//! noise. Whatever comes, a codec gives an answer and does not panic.
//!
//! 10,000 inputs a codec in an ordinary run; `AGENT_FUZZ_CASES=10000000 cargo test --release -p
//! agent-wire --test mutations` looks for longer. A failure prints the smallest input that shows it.

use std::path::Path;

use agent_wire::framing::{Frame, Framer};
use agent_wire::push_json::{self, Body};
use agent_wire::{labels, name, prometheus_text, statsd, Limits};
use proptest::prelude::*;
use proptest::sample::{select, Index};
use proptest::test_runner::TestRunner;

/// The inputs of the shared cases of one codec.
fn seeds(files: &[&str], key: &str) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for file in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        let texts = cases.iter().filter_map(|case| case[key].as_str());
        seeds.extend(texts.map(|text| text.as_bytes().to_vec()));
    }
    assert!(seeds.len() > 10, "there are cases");
    seeds
}

#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index, Index),
    Double(Index, Index),
    Cut(Index),
    Join(Vec<u8>),
}

fn change(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    // Bytes that mean something somewhere come more often than others.
    let byte = || prop_oneof![select(b":|@#,\"\\{}[]= \n\r\t0-+.eNI\0\xff".to_vec()), any::<u8>()];
    prop_oneof![
        (any::<Index>(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Remove(a, b)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Double(a, b)),
        any::<Index>().prop_map(Change::Cut),
        select(seeds).prop_map(Change::Join),
    ]
}

fn apply(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let at = |index: &Index| index.index(bytes.len() + 1);
        let range = |a: &Index, b: &Index| at(a).min(at(b))..at(a).max(at(b));
        match change {
            Change::Set(index, byte) => match bytes.len() {
                0 => bytes.push(*byte),
                len => bytes[index.index(len)] = *byte,
            },
            Change::Insert(index, byte) => {
                let at = at(index);
                bytes.insert(at, *byte);
            }
            Change::Remove(a, b) => drop(bytes.drain(range(a, b))),
            Change::Double(a, b) => {
                let part = bytes[range(a, b)].to_vec();
                bytes.extend(part);
            }
            Change::Cut(index) => bytes.truncate(at(index)),
            Change::Join(more) => bytes.extend(more),
        }
    }
    bytes
}

/// Runs `check` on damaged seeds and on noise.
fn damage(seeds: Vec<Vec<u8>>, check: impl Fn(&[u8])) {
    let asked = std::env::var("AGENT_FUZZ_CASES").ok().and_then(|text| text.parse().ok());
    let changes = prop::collection::vec(change(seeds.clone()), 0..6);
    let damaged = (select(seeds), changes).prop_map(|(seed, changes)| apply(seed, &changes));
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let input = prop_oneof![9 => damaged, 1 => noise];
    let config = ProptestConfig {
        cases: asked.unwrap_or(10_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&input, |bytes| {
        check(&bytes);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Limits that short inputs reach.
fn tight() -> Limits {
    Limits {
        line_bytes_max: 40,
        name_bytes_max: 8,
        labels_max: 2,
        values_max: 2,
        body_samples_max: 2,
        json_depth_max: 2,
        help_bytes_max: 5,
        ..Limits::default()
    }
}

fn check_statsd(line: &[u8]) {
    let mut text = String::new();
    for limits in [Limits::default(), tight()] {
        if let Ok(statsd::Item::Metric(metric)) = statsd::parse_line(line, &limits) {
            let _ = metric.values.clone().count();
            let _ = labels::from_statsd_tags(metric.tags, &limits, &mut text);
            name::family_into(metric.kind, metric.name, &mut text);
        }
    }
}

#[test]
fn a_damaged_line_of_statsd_is_read_or_refused() {
    damage(seeds(&["statsd/good.json", "statsd/bad.json"], "line"), check_statsd);
}

#[test]
fn a_damaged_line_of_dogstatsd_is_read_or_refused() {
    damage(seeds(&["dogstatsd/good.json", "dogstatsd/bad.json"], "line"), check_statsd);
}

#[test]
fn a_damaged_prometheus_text_is_read_or_refused_with_a_line_it_has() {
    let files = ["prometheus_text/good.json", "prometheus_text/bad.json"];
    damage(seeds(&files, "body"), |body| {
        let lines = memchr::memchr_iter(b'\n', body).count() + 1;
        for limits in [Limits::default(), tight()] {
            if let Err(error) = prometheus_text::parse(body, &limits) {
                assert!(error.line <= lines, "line {} of {lines}", error.line);
            }
        }
    });
}

#[test]
fn every_sample_of_a_damaged_push_is_accepted_or_refused() {
    damage(seeds(&["push_json/good.json", "push_json/bad.json"], "body"), |body| {
        for form in [Body::Json, Body::Ndjson, Body::Auto] {
            for limits in [Limits::default(), tight()] {
                let mut seen = 0;
                let report = push_json::decode(body, form, &limits, |sample| {
                    seen += 1;
                    labels::from_pairs(sample.labels, &limits, &mut String::new())
                });
                assert!(report.accepted <= seen);
                let reasons: u64 = report.reasons.iter().map(|(_, count)| count).sum();
                assert_eq!(reasons, report.refused);
            }
        }
    });
}

#[test]
fn damaged_lines_are_framed_the_same_however_they_are_cut() {
    let files = ["statsd/good.json", "dogstatsd/good.json"];
    let joined = |seed: Vec<u8>| [&seed[..], b"\n"].concat();
    let seeds = seeds(&files, "line").into_iter().map(joined).collect();
    damage(seeds, |bytes| {
        let whole = framed(bytes, bytes.len().max(1));
        for piece in [1, 7] {
            assert_eq!(framed(bytes, piece), whole, "pieces of {piece}");
        }
    });
}

/// The lines of a stream that comes in pieces; nothing for one that is too long.
fn framed(bytes: &[u8], piece: usize) -> Vec<Option<Vec<u8>>> {
    let (mut framer, mut lines, mut held) = (Framer::default(), Vec::new(), Vec::new());
    for part in bytes.chunks(piece) {
        held.extend_from_slice(part);
        loop {
            let consumed = match framer.next(&held, 40) {
                Frame::Line { line, consumed } => {
                    lines.push(Some(line.to_vec()));
                    consumed
                }
                Frame::TooLong { consumed } => {
                    lines.push(None);
                    consumed
                }
                Frame::Skipped { consumed } => consumed,
                Frame::Partial => break,
            };
            assert!(consumed > 0 && consumed <= held.len());
            held.drain(..consumed);
        }
        assert!(held.len() <= 42, "no more than a line is kept");
    }
    lines
}
