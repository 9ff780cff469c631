//! Definitions that change under one name: which one counts, who joins it, and what is left of the others.

mod child;

use agent_shm::*;
use child::*;

const BOUNDS: &[f64] = &[1.0, 2.0];
const OTHER: &[f64] = &[1.0, 5.0];

fn options() -> Options {
    Options { slots_max: 64, bytes_max: 8 << 20, metrics_max: 64, ..Options::default() }
}

/// What was joined; whether this call made it is not compared.
fn join(writer: &Writer, bounds: &[f64], lineage: u32) -> Joined {
    let joined = writer.family(&spec("took", Shape::Explicit(bounds)), "", lineage).unwrap();
    Joined { births: 0, ..joined }
}

fn observe(writer: &Writer, joined: Joined, n: u64) {
    let series = writer.series(joined.id, "").unwrap();
    assert_eq!(writer.observe(&series, 0.5, n), Outcome::Applied);
}

fn shown(segment: &Segment) -> f64 {
    total(segment, "took", "").unwrap_or(0.0)
}

#[test]
fn a_changed_definition_begins_anew_alone() {
    let segment = Segment::private("t", &options());
    let (old, new) = (segment.writer().unwrap(), segment.writer().unwrap());
    let other = old.family(&spec("other", Shape::Counter), "", 0).unwrap();
    let other = old.series(other.id, "").unwrap();
    assert_eq!(old.add(&other, 3), Outcome::Applied);
    let before = join(&old, BOUNDS, 0);
    observe(&old, before, 5);
    let after = join(&new, OTHER, 0);
    assert!(after.is_shown && before.id != after.id);
    observe(&new, after, 2);
    // The old process goes on, unseen and kept apart.
    observe(&old, before, 1);
    assert_eq!((shown(&segment), segment.view().superseded()), (2.0, 1));
    assert_eq!(segment.metrics().len(), 2);
    assert_eq!(total(&segment, "other", ""), Some(3.0), "everything else goes on");
    assert_eq!(old.add(&other, 1), Outcome::Applied);
}

#[test]
fn type_labels_mode_unit_and_quantiles_are_part_of_a_definition() {
    let segment = Segment::private("t", &options());
    let writer = segment.writer().unwrap();
    let define = |shape, unit, labels| {
        writer.family(&MetricSpec { name: "m", help: "", unit, shape }, labels, 0).unwrap()
    };
    let definitions = [
        define(Shape::Counter, "", ""),
        define(Shape::Counter, "", "path"),
        define(Shape::Counter, "", "code,path"),
        define(Shape::Counter, "bytes", ""),
        define(Shape::Gauge(GaugeMode::Max), "", ""),
        define(Shape::Gauge(GaugeMode::LiveMax), "", ""),
        define(Shape::Summary(&[0.5]), "", ""),
        define(Shape::Summary(&[0.9]), "", ""),
        define(Shape::Exponential { schema: 3 }, "", ""),
        define(Shape::Exponential { schema: 4 }, "", ""),
    ];
    assert!(definitions.iter().all(|joined| joined.is_shown));
    assert_eq!(segment.view().families().len(), 1);
    assert_eq!(segment.view().superseded(), definitions.len() - 1);
}

#[test]
fn a_recycled_old_worker_does_not_win_while_others_of_its_kind_live() {
    let _turn = alone();
    let folder = Folder::new("recycled");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let old = segment.writer().unwrap();
    let first = join(&old, BOUNDS, 7);
    let new = segment.writer().unwrap();
    assert!(join(&new, OTHER, 8).is_shown);
    let recycled = segment.writer().unwrap();
    let again = join(&recycled, BOUNDS, 9);
    assert_eq!(again, Joined { id: first.id, is_shown: false, births: 0 });
    // All of its kind die, and one with the same parent comes: it was recycled.
    drop(recycled);
    drop(old);
    let recycled = segment.writer().unwrap();
    assert_eq!(join(&recycled, BOUNDS, 7), again);
    assert!(join(&new, OTHER, 8).is_shown);
}

#[test]
fn a_rolled_back_definition_begins_at_zero_and_counts() {
    let _turn = alone();
    let folder = Folder::new("rollback");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let old = segment.writer().unwrap();
    let first = join(&old, BOUNDS, 7);
    observe(&old, first, 100);
    drop(old);
    // A rolling roll-back: the new ones still live, and nobody of the old ones does.
    let new = segment.writer().unwrap();
    observe(&new, join(&new, OTHER, 8), 10);
    let back = segment.writer().unwrap();
    let again = join(&back, BOUNDS, 9);
    assert!(again.is_shown && again.id != first.id);
    observe(&back, again, 1);
    assert_eq!(shown(&segment), 1.0);
    // Who held the first one is told.
    assert!(matches!(back.series(first.id, ""), Err(Error::Replaced)));
}

#[test]
fn when_the_new_ones_are_gone_the_old_ones_count_again_from_zero() {
    let _turn = alone();
    let folder = Folder::new("canary");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let old = [0; 2].map(|_| segment.writer().unwrap());
    let joined = old.each_ref().map(|writer| join(writer, BOUNDS, 7));
    old.iter().zip(joined).for_each(|(writer, joined)| observe(writer, joined, 50));
    let canary = segment.writer().unwrap();
    observe(&canary, join(&canary, OTHER, 8), 3);
    assert!(!join(&old[0], BOUNDS, 7).is_shown);
    drop(canary);
    let again = join(&old[0], BOUNDS, 7);
    assert!(again.is_shown && again.id != joined[0].id);
    assert_eq!(shown(&segment), 0.0);
    assert_eq!(join(&old[1], BOUNDS, 7), again);
    observe(&old[1], again, 4);
    assert_eq!(shown(&segment), 4.0);
}

#[test]
fn processes_that_start_together_agree() {
    const PROCESSES: u64 = 6;
    let _turn = alone();
    let folder = Folder::new("together");
    let path = folder.file("a.seg");
    let segment = Segment::open_or_create(&path, "a", &options()).unwrap();
    let board = Board::new(2);
    for round in 0..40_u64 {
        board.set(0, 0);
        board.set(1, 0);
        let children: Vec<Child> = (0..PROCESSES)
            .map(|_| {
                fork(|| {
                    let segment = Segment::open_or_create(&path, "a", &options()).unwrap();
                    let writer = segment.writer().unwrap();
                    board.add(0, 1);
                    board.wait(0, PROCESSES);
                    let bounds = if round % 2 == 0 { BOUNDS } else { OTHER };
                    let mut joined = join(&writer, bounds, 0);
                    // As a client does that is told that it began anew.
                    while let Err(Error::Replaced) = writer.series(joined.id, "") {
                        joined = join(&writer, bounds, 0);
                    }
                    assert!(joined.is_shown);
                    observe(&writer, joined, 1);
                    board.add(1, 1);
                    board.wait(1, PROCESSES);
                    0
                })
            })
            .collect();
        children.into_iter().for_each(Child::join);
        assert_eq!(shown(&segment), PROCESSES as f64, "round {round}");
    }
}

#[test]
fn what_is_superseded_and_began_anew_gives_its_memory_back() {
    let _turn = alone();
    let folder = Folder::new("anew");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let mut warm = 0;
    for round in 0..400 {
        let writer = segment.writer().unwrap();
        let joined = join(&writer, if round % 2 == 0 { BOUNDS } else { OTHER }, round + 1);
        assert!(joined.is_shown, "round {round}: nobody else lives");
        for n in 0..20 {
            let series = writer.series(joined.id, &format!("n=\"{n}\"")).unwrap();
            assert!(!series.is_overflow(), "round {round}");
            assert_eq!(writer.observe(&series, 0.5, 1), Outcome::Applied);
        }
        (0..4).for_each(|_| {
            writer.reclaim_now();
        });
        if round == 40 {
            warm = segment.usage().bytes_committed;
        }
    }
    assert_eq!(segment.usage().bytes_committed, warm);
    assert!(segment.usage().metrics <= 3, "{:?}", segment.usage());
    assert_eq!(segment.usage().overflows + segment.usage().refused + segment.usage().damage, 0);
}

/// A daemon's parent is the one that every orphan has: nobody knows its lineage.
#[test]
fn two_living_definitions_without_a_lineage_leave_each_other_alone() {
    let segment = Segment::private("t", &options());
    let (old, new) = (segment.writer().unwrap(), segment.writer().unwrap());
    let first = join(&old, BOUNDS, 0);
    let second = join(&new, OTHER, 0);
    let births = segment.births();
    for _ in 0..10 {
        assert_eq!(join(&old, BOUNDS, 0), Joined { is_shown: false, ..first });
        assert_eq!(join(&new, OTHER, 0), second);
    }
    assert_eq!(segment.births(), births);
}

/// The new program's definition is used from the moment on at which it can be found.
#[test]
fn an_old_process_at_work_never_takes_the_name_from_a_program_that_starts() {
    let _turn = alone();
    let folder = Folder::new("starts");
    for round in 0..150 {
        let path = folder.file(&format!("a{round}.seg"));
        let segment = Segment::open_or_create(&path, "a", &options()).unwrap();
        let board = Board::new(1);
        let old = fork(|| {
            let writer = segment.writer().unwrap();
            join(&writer, BOUNDS, 0);
            board.set(0, 1);
            let mut seen = segment.births();
            while board.get(0) < 2 {
                let births = segment.births();
                if births != seen {
                    join(&writer, BOUNDS, 0);
                    seen = births;
                }
            }
            i32::from(join(&writer, BOUNDS, 0).is_shown)
        });
        board.wait(0, 1);
        let writer = segment.writer().unwrap();
        let joined = join(&writer, OTHER, 0);
        assert!(joined.is_shown, "round {round}");
        assert_eq!(join(&writer, OTHER, 0), joined, "round {round}");
        board.set(0, 2);
        old.join();
    }
}

/// Waits until the clock that entries are dated by has moved.
fn tick() {
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel fills in a valid struct.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut time) };
        (time.tv_sec, time.tv_nsec / 1_000_000)
    };
    let before = now();
    while now() == before {
        std::hint::spin_loop();
    }
}

#[test]
fn a_name_keeps_the_time_of_its_first_appearance_while_its_type_stays() {
    let segment = Segment::private("t", &options());
    let writer = segment.writer().unwrap();
    let first = |shape, labels| {
        tick();
        writer.family(&spec("took", shape), labels, 0).unwrap();
        segment.metrics()[0].first_unix_ms
    };
    let began = first(Shape::Explicit(BOUNDS), "");
    assert!(began >= segment.header().created_unix_ms);
    assert_eq!(first(Shape::Explicit(OTHER), ""), began, "other bounds");
    assert_eq!(first(Shape::Exponential { schema: 3 }, "path"), began, "native, with a label");
    let gauge = first(Shape::Gauge(GaugeMode::Max), "");
    assert!(gauge > began, "another type is another family to a reader");
    assert_eq!(first(Shape::Gauge(GaugeMode::Min), ""), gauge);
    assert_eq!(first(Shape::Explicit(BOUNDS), ""), began, "the first type again");
}
