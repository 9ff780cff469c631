//! What a user of the crate may rely on, one sentence each.

mod child;

use agent_shm::*;
use child::Folder;

fn spec<'a>(name: &'a str, shape: Shape<'a>) -> MetricSpec<'a> {
    MetricSpec { name, help: "help", unit: "", shape }
}

fn values(segment: &Segment, name: &str) -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for family in segment.view().families().iter().filter(|family| family.meta().name == name) {
        family.for_each(&mut |series| {
            let value = match series.value {
                Value::Counter { whole, fraction } => whole as f64 + fraction,
                Value::Gauge(value) => value,
                Value::Histogram { count, .. } | Value::Summary { count, .. } => count as f64,
                Value::GaugePerProcess(values) => values.iter().map(|process| process.value).sum(),
            };
            found.push((String::from_utf8(series.labels.to_vec()).unwrap(), value));
        });
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn small() -> Options {
    Options {
        series_max: 16,
        metric_series_max: 4,
        slots_max: 4,
        ring_records: 8,
        recent_max: 8,
        bytes_max: 1 << 20,
        metrics_max: 8,
    }
}

#[test]
fn a_name_keeps_its_shape() {
    let segment = Segment::private("t", &small());
    let writer = segment.writer().unwrap();
    let first = writer.metric(&spec("a", Shape::Counter)).unwrap();
    assert_eq!(writer.metric(&spec("a", Shape::Counter)).unwrap(), first);
    let error = writer.metric(&spec("a", Shape::Gauge(GaugeMode::Max))).unwrap_err();
    assert_eq!(error.to_string(), "metric \"a\" exists as counter, not as gauge (max)");
}

#[test]
fn a_stale_handle_writes_nowhere() {
    let segment = Segment::private("t", &small());
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("a", Shape::Counter)).unwrap();
    let old = writer.series(metric, "k=\"1\"").unwrap();
    assert_eq!(writer.add(&old, 5), Outcome::Applied);
    assert!(writer.remove(metric, "k=\"1\""));
    assert_eq!(writer.add(&old, 5), Outcome::Stale);
    // Sooner or later its memory becomes another series; the old handle still hits nothing.
    let reused = (0..1000).any(|n| {
        let labels = format!("n=\"{n}\"");
        let new = writer.series(metric, &labels).unwrap();
        assert_eq!(writer.add(&old, 5), Outcome::Stale);
        assert_eq!(values(&segment, "a"), [(labels.clone(), 0.0)]);
        let reused = new.id().offset == old.id().offset;
        assert!(writer.remove(metric, &labels));
        writer.reclaim_now();
        reused
    });
    assert!(reused, "the memory of removed series is reused");
}

#[test]
fn memory_does_not_grow_with_series_that_come_and_go() {
    let segment = Segment::private("t", &Options { bytes_max: 1 << 20, ..Options::default() });
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("a", Shape::Exponential { schema: 4 })).unwrap();
    let mut after_warm_up = 0;
    for round in 0..400 {
        for n in 0..20 {
            let series = writer.series(metric, &format!("k=\"{round}-{n}\"")).unwrap();
            assert!(!series.is_overflow(), "round {round}");
            for exponent in -5..5 {
                assert_eq!(
                    writer.observe(&series, f64::exp2(exponent.into()), 1),
                    Outcome::Applied
                );
            }
        }
        assert_eq!(writer.clear(metric), 20);
        writer.reclaim_now();
        if round == 20 {
            after_warm_up = segment.usage().bytes_committed;
        }
    }
    assert_eq!(segment.usage().bytes_committed, after_warm_up);
    assert_eq!(segment.usage().refused, 0);
}

#[test]
fn a_limit_sends_new_label_sets_to_the_overflow_series_and_totals_stay_right() {
    let segment = Segment::private("t", &small());
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("a", Shape::Counter)).unwrap();
    for n in 0..10 {
        let series = writer.series(metric, &format!("k=\"{n}\"")).unwrap();
        assert_eq!(series.is_overflow(), n >= 4);
        assert_eq!(writer.add(&series, 1), Outcome::Applied);
    }
    let found = values(&segment, "a");
    assert_eq!(found.len(), 5);
    assert_eq!(found[0], (OVERFLOW_LABELS.into(), 6.0));
    assert_eq!(found.iter().map(|(_, value)| value).sum::<f64>(), 10.0);
    assert_eq!(segment.usage().overflows, 6);
}

#[test]
fn when_bytes_run_out_totals_stay_right() {
    let options =
        Options { bytes_max: 256 << 10, metric_series_max: 1 << 20, ..Options::default() };
    let segment = Segment::private("t", &options);
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("a", Shape::Counter)).unwrap();
    for n in 0..20_000 {
        let series = writer.series(metric, &format!("k=\"{n}\"")).unwrap();
        assert_eq!(writer.add(&series, 1), Outcome::Applied);
    }
    assert!(segment.usage().overflows > 10_000);
    assert_eq!(values(&segment, "a").iter().map(|(_, value)| value).sum::<f64>(), 20_000.0);
}

#[test]
fn an_idle_series_expires_and_one_in_use_does_not() {
    let segment = Segment::private("t", &small());
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("a", Shape::Counter)).unwrap();
    let idle = writer.series(metric, "k=\"idle\"").unwrap();
    let used = writer.series(metric, "k=\"used\"").unwrap();
    assert_eq!(writer.add(&idle, 1), Outcome::Applied);
    let mut expirer = Expirer::default();
    let mut used = used;
    for second in 0..10 {
        if writer.add(&used, 1) == Outcome::Stale {
            used = writer.series(metric, "k=\"used\"").unwrap();
            assert_eq!(writer.add(&used, 1), Outcome::Applied);
        }
        expirer.run(&writer, second * 1000, 3000, |_| true);
        writer.reclaim_now();
    }
    assert_eq!(values(&segment, "a"), [("k=\"used\"".into(), 10.0)]);
    assert_eq!(writer.add(&idle, 1), Outcome::Stale);
}

#[test]
fn gauges_merge_by_mode() {
    use GaugeMode::*;
    let segment = Segment::private("t", &Options { metrics_max: 100, ..Options::default() });
    let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
    let expected = [
        (MostRecent, 2.0),
        (All, 9.0),
        (LiveAll, 9.0),
        (Sum, 9.0),
        (LiveSum, 9.0),
        (Min, 2.0),
        (LiveMin, 2.0),
        (Max, 7.0),
        (LiveMax, 7.0),
        (LiveMostRecent, 2.0),
    ];
    for (mode, _) in expected {
        for (writer, value) in [(&one, 7.0), (&two, 2.0)] {
            let metric = writer.metric(&spec(mode.name(), Shape::Gauge(mode))).unwrap();
            let series = writer.series(metric, "").unwrap();
            assert_eq!(writer.set(&series, value), Outcome::Applied);
        }
    }
    for (mode, value) in expected {
        assert_eq!(values(&segment, mode.name()), [(String::new(), value)], "{mode:?}");
    }
    drop(one);
    let live = [(LiveSum, 2.0), (LiveMax, 2.0), (Sum, 9.0), (Max, 7.0), (Min, 2.0)];
    for (mode, value) in live {
        assert_eq!(
            values(&segment, mode.name()),
            [(String::new(), value)],
            "{mode:?} after a death"
        );
    }
    // The slot's next owner takes the place of the dead one without changing what it left behind.
    let three = segment.writer().unwrap();
    assert_eq!(three.slot(), 0);
    for (mode, value) in live {
        assert_eq!(
            values(&segment, mode.name()),
            [(String::new(), value)],
            "{mode:?} before the new owner says anything"
        );
    }
    for (mode, value) in [(Sum, 14.0), (Max, 7.0), (Min, 2.0), (LiveSum, 7.0)] {
        let metric = three.metric(&spec(mode.name(), Shape::Gauge(mode))).unwrap();
        let series = three.series(metric, "").unwrap();
        assert_eq!(three.set(&series, 5.0), Outcome::Applied);
        assert_eq!(
            values(&segment, mode.name()),
            [(String::new(), value)],
            "{mode:?} after a new owner"
        );
        // Another handle of the same process changes nothing of what it said before.
        let again = three.series(metric, "").unwrap();
        assert_eq!(three.set(&again, 5.0), Outcome::Applied);
        assert_eq!(values(&segment, mode.name()), [(String::new(), value)], "{mode:?} again");
    }
}

/// Of the number that all share; of what each says for itself, nothing where this process said nothing.
#[test]
fn no_more_is_given_back_than_is_held() {
    let segment = Segment::private("t", &small());
    let (writer, other) = (segment.writer().unwrap(), segment.writer().unwrap());
    for (name, mode) in [("shared", GaugeMode::MostRecent), ("own", GaugeMode::LiveSum)] {
        let metric = writer.metric(&spec(name, Shape::Gauge(mode))).unwrap();
        let (mine, others) =
            (writer.series(metric, "").unwrap(), other.series(metric, "").unwrap());
        let shown = || values(&segment, name).first().map(|(_, value)| *value);
        assert_eq!(other.release(&others, 1.0), Outcome::Applied);
        assert_eq!(shown(), Some(0.0));
        assert_eq!(writer.set(&mine, 5.0), Outcome::Applied);
        assert_eq!(writer.hold(&mine, 1.0), Outcome::Applied);
        assert_eq!(shown(), Some(6.0));
        assert_eq!(writer.release(&mine, 1.0), Outcome::Applied);
        assert_eq!(shown(), Some(5.0));
        if mode == GaugeMode::MostRecent {
            assert_eq!(writer.release(&mine, 1.0), Outcome::Applied);
            assert_eq!(shown(), Some(5.0));
        }
        assert!(writer.remove(metric, ""));
        assert_eq!(writer.release(&mine, 1.0), Outcome::Stale);
    }
}

#[test]
fn a_gauge_can_be_zero_in_one_process() {
    let segment = Segment::private("t", &small());
    let (one, two) = (segment.writer().unwrap(), segment.writer().unwrap());
    for (writer, value) in [(&one, 0.0), (&two, 3.0)] {
        let metric = writer.metric(&spec("g", Shape::Gauge(GaugeMode::Min))).unwrap();
        let series = writer.series(metric, "").unwrap();
        assert_eq!(writer.set(&series, value), Outcome::Applied);
    }
    assert_eq!(values(&segment, "g"), [(String::new(), 0.0)]);
}

#[test]
fn hot_series_of_several_writers_keep_exact_totals() {
    let segment = Segment::private("t", &Options { bytes_max: 8 << 20, ..Options::default() });
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let segment = segment.clone();
            std::thread::spawn(move || {
                let writer = segment.writer().unwrap();
                let counter = writer.metric(&spec("c", Shape::Counter)).unwrap();
                let counter = writer.series(counter, "").unwrap();
                let times = writer.metric(&spec("t", Shape::Exponential { schema: 4 })).unwrap();
                let times = writer.series(times, "").unwrap();
                let sizes = writer.metric(&spec("s", Shape::Explicit(&[1.0, 5.0]))).unwrap();
                let sizes = writer.series(sizes, "").unwrap();
                for n in 0..50_000 {
                    assert_eq!(writer.add(&counter, 1), Outcome::Applied);
                    assert_eq!(writer.observe(&times, f64::from(n % 7), 1), Outcome::Applied);
                    assert_eq!(writer.observe(&sizes, f64::from(n % 7), 1), Outcome::Applied);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for name in ["c", "t", "s"] {
        assert_eq!(values(&segment, name), [(String::new(), 200_000.0)], "{name}");
    }
}

#[test]
fn a_histograms_count_and_sum_belong_together_under_load() {
    let segment = Segment::private("t", &Options::default());
    count_and_sum_belong_together(&segment, &segment);
}

/// Without write permission there is no load of 16 bytes on every machine: two of 8 are put together.
#[test]
fn a_histograms_count_and_sum_belong_together_for_a_reader_that_may_not_write() {
    let folder = Folder::new("together");
    let path = folder.file("a.seg");
    let segment = Segment::open_or_create(&path, "a", &small()).unwrap();
    count_and_sum_belong_together(&segment, &Segment::attach(&path).unwrap());
}

fn count_and_sum_belong_together(segment: &Segment, reader: &Segment) {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy = {
        let (segment, stop) = (segment.clone(), stop.clone());
        std::thread::spawn(move || {
            let writer = segment.writer().unwrap();
            let metric = writer.metric(&spec("h", Shape::Explicit(&[0.5, 1.0, 2.0]))).unwrap();
            let series = writer.series(metric, "").unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(writer.observe(&series, 1.0, 1), Outcome::Applied);
            }
        })
    };
    let mut seen = 0;
    while seen < 20_000 {
        for family in reader.view().families() {
            family.for_each(&mut |series| {
                let Value::Histogram { count, sum, .. } = series.value else { panic!() };
                assert_eq!(count as f64, sum);
                seen += 1;
            });
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    busy.join().unwrap();
}

#[test]
fn a_ring_gives_everything_to_every_reader_and_counts_what_was_overwritten() {
    let segment = Segment::private("t", &Options { ring_records: 8, ..Options::default() });
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("h", Shape::Summary(&[0.5]))).unwrap();
    let series = writer.series(metric, "k=\"v\"").unwrap();
    assert!(segment.ring_reader(0).is_none());
    writer.record(&series, RecordKind::Sample, 1);
    let (mut first, mut second) =
        (segment.ring_reader(0).unwrap(), segment.ring_reader(0).unwrap());
    let drain = |reader: &mut RingReader| {
        let mut bits = Vec::new();
        let drained = reader.drain(|entry| match entry {
            Entry::Value { bits: value, series, .. } => {
                assert_eq!(segment.describe(series).unwrap().1, "k=\"v\"");
                bits.push(value);
            }
            Entry::Event { bytes, .. } => bits.push(bytes.len() as u64),
        });
        (bits, drained)
    };
    assert_eq!(drain(&mut first), (vec![1], Drained { read: 1, lost: 0 }));
    (2..=20).for_each(|n| writer.record(&series, RecordKind::Sample, n));
    assert_eq!(drain(&mut first), ((13..=20).collect(), Drained { read: 8, lost: 11 }));
    assert_eq!(drain(&mut second), ((13..=20).collect(), Drained { read: 8, lost: 12 }));
    writer.event(b"deployed version 2 of the shop");
    assert_eq!(drain(&mut first), (vec![30], Drained { read: 3, lost: 0 }));
}

#[test]
fn the_segment_of_an_app_has_no_rings_and_no_room_for_them() {
    let segment = Segment::private("t", &Options::default());
    let usage = segment.usage();
    assert!(usage.bytes_reserved < usage.bytes_max + (2 << 20), "{}", usage.bytes_reserved);
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("h", Shape::Summary(&[0.5]))).unwrap();
    let series = writer.series(metric, "k=\"v\"").unwrap();
    writer.record(&series, RecordKind::Sample, 1);
    writer.event(b"deployed");
    assert!(segment.ring_reader(0).is_none());
    assert_eq!((segment.slots()[0].ring, segment.slots()[0].ring_refused), (false, 2));
    assert_eq!(segment.header().options.recent_max, 2048);
}

#[test]
fn every_slot_taken_is_an_error_that_says_so() {
    let segment = Segment::private("t", &small());
    let writers: Vec<_> = (0..4).map(|_| segment.writer().unwrap()).collect();
    let error = segment.writer().err().unwrap();
    assert_eq!(error.to_string(), "all 4 writer slots belong to living processes");
    drop(writers);
    assert!(segment.writer().is_ok());
}

#[test]
fn a_reader_that_comes_in_the_middle_of_an_event_loses_that_event_only() {
    let segment = Segment::private("t", &Options { ring_records: 16, ..Options::default() });
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("h", Shape::Summary(&[0.5]))).unwrap();
    let series = writer.series(metric, "").unwrap();
    // Text that looks like the head of a record of every kind, and of events with many cells behind them.
    for text in [[1; 100], [2; 100], [3; 100], [0xff; 100]] {
        writer.event(&text);
        (0..14).for_each(|n| writer.record(&series, RecordKind::Sample, n));
        let mut seen = Vec::new();
        let drained = segment.ring_reader(0).unwrap().drain(|entry| match entry {
            Entry::Value { bits, .. } => seen.push(bits),
            Entry::Event { .. } => panic!("its beginning was overwritten"),
        });
        assert_eq!(seen, (0..14).collect::<Vec<_>>());
        assert_eq!((drained.read, drained.lost), (14, 2));
    }
}

#[test]
fn the_largest_limits_stay_within_the_reach_of_an_offset() {
    let options = Options {
        series_max: u32::MAX,
        metric_series_max: 10,
        metrics_max: u32::MAX,
        slots_max: u16::MAX,
        ring_records: u32::MAX,
        recent_max: u32::MAX,
        bytes_max: u64::MAX,
    };
    let segment = Segment::private("t", &options);
    assert!(segment.usage().bytes_reserved < 32 << 30);
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("a", Shape::Counter)).unwrap();
    let series = writer.series(metric, "").unwrap();
    assert_eq!(writer.add(&series, 1), Outcome::Applied);
    assert_eq!(values(&segment, "a"), [(String::new(), 1.0)]);
}

#[test]
fn series_are_found_by_name_or_all_of_one_metric_without_the_others() {
    let segment = Segment::private("t", &small());
    let writer = segment.writer().unwrap();
    for (name, labels, n) in [("a", "x=\"1\"", 1), ("a", "x=\"2\"", 2), ("b", "x=\"1\"", 4)] {
        let metric = writer.metric(&spec(name, Shape::Counter)).unwrap();
        assert_eq!(writer.add(&writer.series(metric, labels).unwrap(), n), Outcome::Applied);
    }
    let sum = |family: Option<FamilyView<'_>>| {
        let mut sum = 0;
        family.unwrap().for_each(&mut |series| {
            let Value::Counter { whole, .. } = series.value else { panic!("a counter") };
            sum += whole;
        });
        sum
    };
    assert_eq!(sum(writer.family_by_name("a")), 3);
    let labels = || ["x=\"2\"", "x=\"3\""].into_iter().map(str::to_owned);
    assert_eq!(sum(writer.family_of("a", labels())), 2);
    assert!(writer.family_by_name("c").is_none() && writer.family_of("c", labels()).is_none());
    let names: Vec<String> = segment.metrics().into_iter().map(|meta| meta.name).collect();
    assert_eq!(names, ["a", "b"]);
}
