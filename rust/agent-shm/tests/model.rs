//! The segment against a plain map: random operations, then both must tell the same totals.

use agent_shm::{Expirer, MetricSpec, Options, Outcome, Segment, Series, Shape, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Action {
    Add { metric: usize, labels: usize, amount: u64 },
    AddFraction { metric: usize, labels: usize, amount: f64 },
    Observe { labels: usize, value: f64, n: u64 },
    Remove { metric: usize, labels: usize },
    Clear { metric: usize },
    Reclaim,
    Expire,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (0..3_usize, 0..40_usize, 0..10_000_u64)
            .prop_map(|(metric, labels, amount)| Action::Add { metric, labels, amount }),
        4 => (0..3_usize, 0..40_usize, 0.0..100.0)
            .prop_map(|(metric, labels, amount)| Action::AddFraction { metric, labels, amount }),
        6 => (0..10_usize, -1e3..1e9, 1..5_u64)
            .prop_map(|(labels, value, n)| Action::Observe { labels, value, n }),
        3 => (0..3_usize, 0..40_usize).prop_map(|(metric, labels)| Action::Remove { metric, labels }),
        1 => (0..3_usize).prop_map(|metric| Action::Clear { metric }),
        2 => Just(Action::Reclaim),
        1 => Just(Action::Expire),
    ];
    prop::collection::vec(action, 1..400)
}

fn label_text(labels: usize) -> String {
    format!("worker=\"{labels}\",path=\"{}\"", "/x".repeat(labels % 7))
}

/// Applies a change through a handle that is kept for ever, getting it anew whenever it turns out to be stale.
fn apply(
    handles: &mut BTreeMap<(usize, usize), Series>,
    key: (usize, usize),
    get: impl Fn() -> Series,
    change: impl Fn(&Series) -> Outcome,
) {
    let series = handles.entry(key).or_insert_with(&get);
    if change(series) == Outcome::Stale {
        *series = get();
        assert_eq!(change(series), Outcome::Applied);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is added, observed, removed, cleared, reclaimed and re-used: the totals are those of a plain map.
    #[test]
    fn totals_are_those_of_a_plain_map(actions in actions()) {
        let segment = Segment::private("model", &Options { bytes_max: 4 << 20, ..Options::default() });
        let writer = segment.writer().unwrap();
        let names = ["first", "second", "third"];
        let metrics = names.map(|name| {
            writer.metric(&MetricSpec { name, help: "", unit: "", shape: Shape::Counter }).unwrap()
        });
        let shape = Shape::Exponential { schema: 4 };
        let sizes = writer.metric(&MetricSpec { name: "sizes", help: "", unit: "", shape }).unwrap();
        let mut counters: BTreeMap<(usize, usize), (u64, f64)> = BTreeMap::new();
        let mut histograms: BTreeMap<usize, (u64, f64)> = BTreeMap::new();
        let mut handles = BTreeMap::new();
        let mut expirer = Expirer::default();
        let mut now = 0;
        for action in actions {
            match action {
                Action::Add { metric, labels, amount } => {
                    let get = || writer.series(metrics[metric], &label_text(labels)).unwrap();
                    apply(&mut handles, (metric, labels), get, |s| writer.add(s, amount));
                    counters.entry((metric, labels)).or_default().0 += amount;
                }
                Action::AddFraction { metric, labels, amount } => {
                    let get = || writer.series(metrics[metric], &label_text(labels)).unwrap();
                    apply(&mut handles, (metric, labels), get, |s| writer.add_f64(s, amount));
                    counters.entry((metric, labels)).or_default().1 += amount;
                }
                Action::Observe { labels, value, n } => {
                    let get = || writer.series(sizes, &label_text(labels)).unwrap();
                    apply(&mut handles, (9, labels), get, |s| writer.observe(s, value, n));
                    let entry = histograms.entry(labels).or_default();
                    entry.0 += n;
                    entry.1 += value * n as f64;
                }
                Action::Remove { metric, labels } => {
                    let there = counters.remove(&(metric, labels)).is_some();
                    prop_assert_eq!(writer.remove(metrics[metric], &label_text(labels)), there);
                }
                Action::Clear { metric } => {
                    let before = counters.len();
                    counters.retain(|key, _| key.0 != metric);
                    prop_assert_eq!(writer.clear(metrics[metric]), before - counters.len());
                }
                Action::Reclaim => {
                    writer.reclaim_now();
                }
                // Everything was used since the last look, if only by adding nothing: nothing may be lost.
                Action::Expire => {
                    for (metric, labels) in counters.keys() {
                        let get = || writer.series(metrics[*metric], &label_text(*labels)).unwrap();
                        apply(&mut handles, (*metric, *labels), get, |s| writer.add(s, 0));
                    }
                    for labels in histograms.keys() {
                        let get = || writer.series(sizes, &label_text(*labels)).unwrap();
                        apply(&mut handles, (9, *labels), get, |s| writer.observe(s, 1.0, 0));
                    }
                    now += 10;
                    expirer.run(&writer, now, 5, |_| true);
                }
            }
        }
        let (found, found_histograms) = read(&segment, &names);
        prop_assert_eq!(found.len(), counters.len());
        for ((metric, labels), (whole, fraction)) in counters {
            let got = found[&(metric, label_text(labels))];
            prop_assert!((got - (whole as f64 + fraction)).abs() <= 1e-6 * got.max(1.0));
        }
        prop_assert_eq!(found_histograms.len(), histograms.len());
        for (labels, (count, sum)) in histograms {
            let (got_count, got_sum) = found_histograms[&label_text(labels)];
            prop_assert_eq!(got_count, count);
            prop_assert!((got_sum - sum).abs() <= 1e-6 * sum.abs().max(1.0));
        }
        prop_assert_eq!(segment.usage().damage, 0);
    }
}

type Counters = BTreeMap<(usize, String), f64>;
type Histograms = BTreeMap<String, (u64, f64)>;

fn read(segment: &Segment, names: &[&str]) -> (Counters, Histograms) {
    let (mut counters, mut histograms) = (BTreeMap::new(), BTreeMap::new());
    for family in segment.view().families() {
        let metric = names.iter().position(|name| *name == family.meta().name);
        family.for_each(&mut |series| {
            let labels = String::from_utf8(series.labels.to_vec()).unwrap();
            match series.value {
                Value::Counter { whole, fraction } => {
                    counters.insert((metric.unwrap(), labels), whole as f64 + fraction);
                }
                Value::Histogram { count, sum, buckets } => {
                    assert_eq!(buckets.iter().map(|(_, n)| n).sum::<u64>(), count);
                    assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0), "bounds ascend");
                    histograms.insert(labels, (count, sum));
                }
                other => panic!("{other:?}"),
            }
        });
    }
    (counters, histograms)
}
