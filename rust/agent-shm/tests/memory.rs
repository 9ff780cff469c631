//! Memory that comes back: whatever its size was, wherever it is, without a collector.

mod child;

use agent_shm::*;
use child::*;

fn options(bytes_max: u64) -> Options {
    Options {
        series_max: 1 << 20,
        metric_series_max: 1 << 20,
        slots_max: 16,
        bytes_max,
        ..Options::default()
    }
}

fn metric(writer: &Writer, name: &str, shape: Shape<'_>) -> MetricId {
    writer.metric(&spec(name, shape)).unwrap()
}

/// What a program does that gives each session a label and takes it away again.
fn sessions(writer: &Writer, metric: MetricId, from: u64, count: u64, living: u64) {
    for n in from..from + count {
        let series = writer.series(metric, &format!("session=\"{n}\"")).unwrap();
        assert!(!series.is_overflow(), "session {n}: {:?}", writer.segment().usage());
        if let Some(old) = n.checked_sub(living) {
            assert!(writer.remove(metric, &format!("session=\"{old}\"")));
        }
    }
}

#[test]
fn label_sets_that_come_and_go_have_a_segment_of_constant_size() {
    const LIVING: u64 = 1000;
    let count = std::env::var("AGENT_SHM_SESSIONS").map_or(400_000, |n| n.parse().unwrap());
    let segment = Segment::private("t", &options(32 << 20));
    let writer = segment.writer().unwrap();
    for (name, shape) in
        [("gauges", Shape::Gauge(GaugeMode::MostRecent)), ("times", Shape::Explicit(&[1.0, 2.0]))]
    {
        let metric = metric(&writer, name, shape);
        sessions(&writer, metric, 0, 20 * LIVING, LIVING);
        let warm = segment.usage().bytes_committed;
        sessions(&writer, metric, 20 * LIVING, count, LIVING);
        assert_eq!(segment.usage().bytes_committed, warm, "{name}");
    }
    assert_eq!(segment.usage().overflows + segment.usage().refused, 0);
}

#[test]
fn memory_of_one_size_becomes_memory_of_any_other() {
    let segment = Segment::private("t", &options(1 << 20));
    let writer = segment.writer().unwrap();
    let metric = metric(&writer, "m", Shape::Counter);
    for bytes in (8..4000).step_by(61).chain((8..4000).rev().step_by(67)) {
        let label = |n: u64| format!("k=\"{n:0bytes$}\"");
        let mut made = 0;
        while !writer.series(metric, &label(made)).unwrap().is_overflow() {
            made += 1;
        }
        let fits = (1 << 20) / (bytes as u64 * 2 + 200);
        assert!(made >= fits, "labels of {bytes} bytes: {made} of {fits}");
        writer.clear(metric);
        for _ in 0..8 {
            writer.reclaim_now();
        }
    }
}

#[test]
fn a_free_block_is_found_wherever_it_is() {
    let segment = Segment::private("t", &options(64 << 20));
    let first = segment.writer().unwrap();
    let metric = metric(&first, "m", Shape::Counter);
    let label = |n: u64| format!("k=\"{n:064}\"");
    let mut made = 0;
    while !first.series(metric, &label(made)).unwrap().is_overflow() {
        made += 1;
    }
    // A hole far from both ends of more than 4,000 pages.
    let hole = made / 2..made / 2 + 2000;
    hole.clone().for_each(|n| assert!(first.remove(metric, &label(n))));
    for _ in 0..4 {
        first.reclaim_now();
    }
    drop(first);
    for n in hole {
        // A writer of its own for each: nobody remembers where there was room.
        let writer = segment.writer().unwrap();
        assert!(!writer.series(metric, &label(made + n)).unwrap().is_overflow(), "{n}");
    }
}

#[test]
fn a_thousand_lives_of_one_series_each_take_the_memory_of_a_thousand_series() {
    let _turn = alone();
    let folder = Folder::new("lives");
    let path = folder.file("a.seg");
    let segment = Segment::open_or_create(&path, "a", &options(32 << 20)).unwrap();
    for life in 0..1000 {
        let writer = segment.writer().unwrap();
        let metric = metric(&writer, "m", Shape::Counter);
        writer.series(metric, &format!("life=\"{life}\"")).unwrap();
    }
    assert!(segment.usage().bytes_committed <= 512 << 10, "{:?}", segment.usage());
}

#[test]
fn a_handle_of_a_page_that_changed_its_class_never_hits_another_series() {
    let segment = Segment::private("t", &options(256 << 10));
    let writer = segment.writer().unwrap();
    let metric = metric(&writer, "m", Shape::Counter);
    let mut old = Vec::new();
    for round in 0..60_usize {
        let bytes = 10 + round * 37 % 700;
        let mut total = 0;
        for n in 0..5000_u64 {
            let series = writer.series(metric, &format!("k=\"{n:0bytes$}\"")).unwrap();
            if series.is_overflow() {
                break;
            }
            total += 1;
            assert_eq!(writer.add(&series, 1), Outcome::Applied);
            if n % 50 == 0 {
                old.push(series);
            }
        }
        let stale = old.iter().filter(|series| writer.add(series, 1 << 40) == Outcome::Stale);
        let living = old.len() - stale.count();
        let mut found = 0;
        segment.view().families()[0].for_each(&mut |series| {
            if let (Value::Counter { whole, .. }, true) =
                (&series.value, series.labels != OVERFLOW_LABELS.as_bytes())
            {
                found += whole;
            }
        });
        assert_eq!(found, total + ((living as u64) << 40), "round {round}");
        writer.clear(metric);
        for _ in 0..8 {
            writer.reclaim_now();
        }
    }
}

#[test]
fn a_stopped_writer_delays_reuse_and_limits_bound_it() {
    let _turn = alone();
    let folder = Folder::new("delayed");
    let path = folder.file("a.seg");
    let segment = Segment::open_or_create(&path, "a", &options(1 << 20)).unwrap();
    let board = Board::new(1);
    let child = fork(|| {
        let writer = segment.writer().unwrap();
        let _inside = writer.enter();
        board.set(0, 1);
        board.wait(0, 2);
        0
    });
    board.wait(0, 1);
    let writer = segment.writer().unwrap();
    let metric = metric(&writer, "m", Shape::Counter);
    let mut n = 0;
    let mut overflows = || {
        let before = segment.usage().overflows;
        for _ in 0..40_000 {
            drop(writer.series(metric, &format!("n=\"{n}\"")).unwrap());
            writer.remove(metric, &format!("n=\"{n}\""));
            n += 1;
        }
        segment.usage().overflows - before
    };
    assert!(overflows() > 0, "memory is bounded");
    board.set(0, 2);
    child.join();
    // It asks again after a second.
    while overflows() > 0 {}
    assert_eq!(overflows(), 0, "and comes back when the writer goes on");
}

#[test]
fn who_dies_inside_an_operation_is_cleaned_up_after_by_the_next_owner_of_the_slot() {
    let _turn = alone();
    let folder = Folder::new("inside");
    let path = folder.file("a.seg");
    let segment = Segment::open_or_create(&path, "a", &options(1 << 20)).unwrap();
    let board = Board::new(1);
    let child = fork(|| {
        let writer = segment.writer().unwrap();
        let _inside = writer.enter();
        board.set(0, 1);
        board.wait(0, 2);
        0
    });
    board.wait(0, 1);
    child.kill();
    let writer = segment.writer().unwrap();
    let metric = metric(&writer, "m", Shape::Counter);
    sessions(&writer, metric, 0, 20_000, 10);
}
