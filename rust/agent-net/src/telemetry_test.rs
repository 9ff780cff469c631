//! The table is what Prometheus expects, and the account always closes.

use super::*;
use agent_shm::{Options, Segment, Value};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn totals(segment: &Segment) -> BTreeMap<String, f64> {
    let mut totals = BTreeMap::new();
    for family in segment.view().families() {
        family.for_each(&mut |series| {
            let labels = String::from_utf8_lossy(series.labels).into_owned();
            let value = match series.value {
                Value::Counter { whole, fraction } => whole as f64 + fraction,
                Value::Gauge(value) => value,
                Value::Histogram { count, .. } | Value::Summary { count, .. } => count as f64,
                Value::GaugePerProcess(_) => return,
            };
            totals.insert(format!("{}{{{labels}}}", family.meta().name), value);
        });
    }
    totals
}

#[test]
fn every_row_is_named_by_the_rules() {
    let mut names = BTreeSet::new();
    for row in TABLE {
        assert!(names.insert(row.name), "{} is there twice", row.name);
        assert!(row.name.starts_with("agent_"), "{}", row.name);
        assert!(!row.name.ends_with("_total"), "{}: the exposition adds _total", row.name);
        assert!(row.help.ends_with('.'), "{}: {}", row.name, row.help);
        assert!(row.unit.is_empty() || row.name.ends_with(row.unit), "{} ({})", row.name, row.unit);
        for ending in ["_count", "_sum", "_bucket", "_created", "_info"] {
            assert!(!row.name.ends_with(ending), "{}", row.name);
        }
    }
}

#[test]
fn every_reason_has_its_own_index_and_word() {
    let own = Reason::OWN.iter().copied();
    let all: Vec<Reason> = Reject::ALL.iter().map(|r| Reason::Wire(*r)).chain(own).collect();
    assert_eq!(all.len(), Reason::COUNT);
    let words: BTreeSet<&str> = all.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(words.len(), all.len());
    for (at, reason) in all.iter().enumerate() {
        assert_eq!(reason.index(), at, "{reason:?}");
    }
}

#[test]
fn an_account_closes_also_after_a_panic() {
    let segment = Segment::private("agent", &Options::default());
    let writer = segment.writer().expect("a slot");
    let mut account = Account::new(SourceId::Push, Place::Worker(3));
    account.received(&writer, 10);
    account.applied(&writer, 6);
    account.rejected(&writer, Reason::TypeConflict, 1);
    account.settle(&writer);
    account.settle(&writer);
    let totals = totals(&segment);
    let of = |name: &str, reason: &str| {
        totals[&format!("agent_source_samples_{name}{{{reason}source=\"push\",worker=\"3\"}}")]
    };
    assert_eq!(of("received", ""), 10.0);
    assert_eq!(of("applied", ""), 6.0);
    assert_eq!(of("rejected", "reason=\"type_conflict\","), 1.0);
    assert_eq!(of("rejected", "reason=\"panic\","), 3.0);
}

#[test]
fn a_removed_series_of_ours_comes_back() {
    let segment = Segment::private("agent", &Options::default());
    let writer = segment.writer().expect("a slot");
    let mut own = Own::new(SelfMetric::Panics, "worker=\"0\"".to_owned());
    own.add(&writer, 5);
    let id = writer.metric(&SelfMetric::Panics.spec()).expect("registered");
    assert!(writer.remove(id, "worker=\"0\""));
    own.add(&writer, 2);
    assert_eq!(totals(&segment)["agent_worker_panics{worker=\"0\"}"], 2.0);
}

#[test]
fn a_column_that_is_touched_never_expires_while_others_do() {
    let segment = Segment::private("agent", &Options::default());
    let writer = segment.writer().expect("a slot");
    let mut account = Account::new(SourceId::Push, Place::Worker(0));
    account.received(&writer, 7);
    account.rejected(&writer, Reason::TypeConflict, 7);
    Own::new(SelfMetric::Panics, String::new()).add(&writer, 1);
    let mut expirer = agent_shm::Expirer::default();
    for second in 0..20 {
        expirer.run(&writer, second * 1000, 3000, |_| true);
        writer.reclaim_now();
        account.touch(&writer);
    }
    let totals = totals(&segment);
    assert!(!totals.contains_key("agent_worker_panics{}"), "{totals:?}");
    let rejected = "reason=\"type_conflict\",source=\"push\",worker=\"0\"";
    assert_eq!(totals[&format!("agent_source_samples_rejected{{{rejected}}}")], 7.0);
    assert_eq!(totals["agent_source_samples_received{source=\"push\",worker=\"0\"}"], 7.0);
}
