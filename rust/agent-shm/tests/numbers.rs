//! What counters hold at the end of their range, and beside large numbers.

mod child;

use agent_shm::*;
use child::*;

fn counter(writer: &Writer) -> Series {
    writer.series(writer.metric(&spec("c", Shape::Counter)).unwrap(), "").unwrap()
}

#[test]
fn a_counter_refuses_what_would_pass_its_end_and_changes_nothing() {
    let segment = Segment::private("t", &Options::default());
    let writer = segment.writer().unwrap();
    let series = counter(&writer);
    assert_eq!(writer.add(&series, COUNTER_END - 10), Outcome::Applied);
    for n in [11, 4096, 1 << 31, 1 << 40, COUNTER_END - 1] {
        assert_eq!(writer.add(&series, n), Outcome::Refused);
    }
    assert_eq!(writer.add_f64(&series, 2f64.powi(63)), Outcome::Refused);
    assert_eq!(writer.add_f64(&series, 9.5), Outcome::Applied);
    assert_eq!(writer.add_f64(&series, 0.75), Outcome::Refused);
    assert_eq!(total(&segment, "c", ""), Some((COUNTER_END - 1) as f64 + 0.5));
}

#[test]
fn many_threads_at_the_end_add_no_more_than_there_is_room() {
    const ROOM: u64 = 2000;
    let segment = Segment::private("t", &Options::default());
    let first = segment.writer().unwrap();
    let series = counter(&first);
    assert_eq!(first.add(&series, COUNTER_END - ROOM), Outcome::Applied);
    let applied: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = [1, 5, (1 << 31) + 5, 1 << 33]
            .into_iter()
            .map(|n| {
                let (segment, series) = (&segment, series.clone());
                scope.spawn(move || {
                    let writer = segment.writer().unwrap();
                    let adds = (0..200_000).map(|_| writer.add(&series, n));
                    adds.filter(|outcome| *outcome == Outcome::Applied).count() as u64 * n
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(applied < ROOM, "{applied}");
    let mut found = 0;
    segment.view().families()[0].for_each(&mut |series| {
        if let Value::Counter { whole, .. } = series.value {
            found = whole.max(found);
        }
    });
    assert_eq!(found, COUNTER_END - ROOM + applied);
}

#[test]
fn fractions_count_beside_two_to_the_fifty_third() {
    let segment = Segment::private("t", &Options::default());
    let writer = segment.writer().unwrap();
    let series = counter(&writer);
    assert_eq!(writer.add_f64(&series, 2f64.powi(53)), Outcome::Applied);
    for _ in 0..1000 {
        assert_eq!(writer.add_f64(&series, 0.5), Outcome::Applied);
    }
    segment.view().families()[0].for_each(&mut |series| {
        if series.labels.is_empty() {
            let whole = (1 << 53) + 500;
            assert_eq!(series.value, Value::Counter { whole, fraction: 0.0 });
        }
    });
}
