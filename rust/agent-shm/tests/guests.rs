//! Writers beyond the last slot: what they count is there at once and to stay, and they hold nothing up for long.

mod child;

use agent_shm::*;
use child::*;

fn options() -> Options {
    Options { slots_max: 2, ring_records: 8, bytes_max: 8 << 20, ..Options::default() }
}

fn series(writer: &Writer, name: &str, shape: Shape<'_>) -> Series {
    writer.series(writer.metric(&spec(name, shape)).unwrap(), "").unwrap()
}

fn applied(outcome: Outcome) {
    assert_eq!(outcome, Outcome::Applied);
}

#[test]
fn totals_are_exact_with_more_processes_than_slots() {
    const PROCESSES: u64 = 8;
    const ROUNDS: u64 = 20_000;
    let _turn = alone();
    let folder = Folder::new("guests");
    let path = folder.file("shop.v1.seg");
    let board = Board::new(2);
    let children: Vec<Child> = (0..PROCESSES)
        .map(|_| {
            fork(|| {
                let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
                let writer = segment.writer_or_guest().unwrap();
                board.add(1, u64::from(writer.is_guest()));
                board.add(0, 1);
                board.wait(0, PROCESSES);
                let counter = series(&writer, "requests", Shape::Counter);
                let times = series(&writer, "times", Shape::Exponential { schema: 4 });
                let jobs = series(&writer, "jobs", Shape::Gauge(GaugeMode::MostRecent));
                for round in 0..ROUNDS {
                    applied(writer.add(&counter, 1));
                    applied(writer.add_f64(&counter, 0.5));
                    applied(writer.observe(&times, (round % 7) as f64, 1));
                    applied(writer.shift(&jobs, 1.0));
                }
                // Killed, not ended: what counts must not need a farewell.
                board.add(0, 1);
                board.wait(0, u64::MAX);
                0
            })
        })
        .collect();
    board.wait(0, 2 * PROCESSES);
    assert_eq!(board.get(1), PROCESSES - 2, "two have slots");
    let segment = Segment::attach(&path).unwrap();
    let guests = segment.guests();
    assert_eq!((u64::from(guests.alive), guests.ever), (PROCESSES - 2, PROCESSES - 2));
    children.into_iter().for_each(Child::kill);
    assert_eq!(segment.guests().alive, 0);
    let all = PROCESSES * ROUNDS;
    assert_eq!(total(&segment, "requests", ""), Some(all as f64 * 1.5));
    for family in segment.view().families() {
        family.for_each(&mut |series| match series.value {
            Value::Histogram { count, .. } => assert_eq!(count, all),
            Value::Gauge(value) => assert_eq!(value, all as f64),
            _ => {}
        });
    }
}

#[test]
fn a_guest_takes_the_first_slot_that_is_free_and_brings_its_gauges() {
    let _turn = alone();
    let folder = Folder::new("promotion");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let first = segment.writer_or_guest().unwrap();
    let second = segment.writer_or_guest().unwrap();
    let guest = segment.writer_or_guest().unwrap();
    assert!(!second.is_guest() && guest.is_guest());
    let shape = Shape::Gauge(GaugeMode::LiveSum);
    let shown = || {
        let mut found = None;
        for family in segment.view().families() {
            family.for_each(&mut |series| match series.value {
                Value::Gauge(value) => found = Some(value),
                other => panic!("{other:?}"),
            });
        }
        found.unwrap()
    };
    let busy = series(&guest, "busy", shape);
    applied(second.set(&series(&second, "busy", shape), 10.0));
    applied(guest.shift(&busy, 3.0));
    applied(guest.shift(&busy, -1.0));
    guest.record(&busy, RecordKind::Sample, 0);
    assert_eq!(shown(), 10.0, "there is no place for it yet");
    assert_eq!(segment.guests(), Guests { alive: 1, ever: 1, ring_refused: 1 });
    assert!(guest.take_slot().is_none());
    drop(first);
    let promoted = guest.take_slot().unwrap();
    drop(guest);
    assert_eq!((promoted.is_guest(), promoted.slot(), segment.guests().alive), (false, 0, 0));
    assert_eq!(shown(), 12.0);
    applied(promoted.shift(&busy, -2.0));
    assert_eq!(shown(), 10.0);
}

/// Removes a series and tends; whether its memory came back.
fn memory_comes_back(writer: &Writer, name: &str) -> bool {
    let metric = writer.metric(&spec(name, Shape::Counter)).unwrap();
    applied(writer.add(&writer.series(metric, "a=\"b\"").unwrap(), 1));
    assert!(writer.remove(metric, "a=\"b\""));
    (0..4).map(|_| writer.tend_now().freed).sum::<u64>() > 0
}

#[test]
fn guests_at_work_do_not_keep_memory_from_coming_back() {
    let _turn = alone();
    let segment = Segment::private("a", &options());
    let (one, _two) = (segment.writer().unwrap(), segment.writer().unwrap());
    let guest = segment.writer_or_guest().unwrap();
    assert!(guest.is_guest());
    let counter = series(&guest, "work", Shape::Counter);
    for _ in 0..10 {
        applied(guest.add(&counter, 1));
        assert!(memory_comes_back(&one, "gone"));
    }
    assert!(memory_comes_back(&guest, "gone"), "a guest can tend too");
}

#[test]
fn a_guest_inside_an_operation_keeps_what_it_stands_on() {
    let _turn = alone();
    let segment = Segment::private("a", &options());
    let (one, _two) = (segment.writer().unwrap(), segment.writer().unwrap());
    let guest = segment.writer_or_guest().unwrap();
    // In even and in odd epochs.
    for _ in 0..4 {
        let inside = guest.enter();
        let nested = guest.enter();
        drop(nested);
        assert!(!memory_comes_back(&one, "gone"));
        drop(inside);
        assert!((0..4).map(|_| one.tend_now().freed).sum::<u64>() > 0);
        one.tend_now();
    }
}

#[test]
fn a_guest_killed_inside_an_operation_delays_reuse_until_no_guest_is_left() {
    let _turn = alone();
    let folder = Folder::new("killed");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let (one, _two) = (segment.writer().unwrap(), segment.writer().unwrap());
    let board = Board::new(1);
    let start = |inside: bool| {
        board.set(0, 0);
        let child = fork(|| {
            let guest = segment.writer_or_guest().unwrap();
            let guard = inside.then(|| guest.enter());
            board.set(0, 1);
            board.wait(0, 2);
            drop(guard);
            0
        });
        board.wait(0, 1);
        child
    };
    let bystander = start(false);
    start(true).kill();
    assert!(!memory_comes_back(&one, "gone"), "the bystander could be the one inside");
    bystander.kill();
    assert!((0..4).map(|_| one.tend_now().freed).sum::<u64>() > 0);
    let later = start(false);
    assert!(memory_comes_back(&one, "gone"), "nothing is left of the mark");
    later.kill();
}
