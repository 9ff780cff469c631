//! Death at random moments: SIGKILL of working processes, with an oracle that knows what they acknowledged. Death at each
//! instruction is the matter of the crate agent-torture.
//!
//! `AGENT_SHM_SEED` repeats the run; the seed is printed.

mod child;

use agent_shm::*;
use child::*;

fn options() -> Options {
    Options {
        series_max: 1000,
        metric_series_max: 1000,
        metrics_max: 16,
        slots_max: 16,
        ring_records: 8,
        recent_max: 8,
        bytes_max: 16 << 20,
    }
}

/// Words of the board: begun and acknowledged operations of every kind, summed over all processes that ever ran.
const KINDS: usize = 4;
const ADDED: usize = 0;
const HALVES: usize = 1;
const OBSERVED: usize = 2;
const SUMMED: usize = 3;
const CYCLES: usize = 4;

/// Works until it is killed; acknowledges each operation after it returned.
fn work(segment: &Segment, board: &Board, seed: u64) -> i32 {
    let mut random = Random(seed);
    let writer = segment.writer().unwrap();
    let metric = |name, shape| writer.metric(&spec(name, shape)).unwrap();
    let get = |name, shape| writer.series(metric(name, shape), "").unwrap();
    let added = get("added", Shape::Counter);
    let halves = get("halves", Shape::Counter);
    let observed = get("observed", Shape::Exponential { schema: 4 });
    let summed = get("summed", Shape::Gauge(GaugeMode::Sum));
    let churn = metric("churn", Shape::Exponential { schema: 2 });
    let applied = |outcome| assert_eq!(outcome, Outcome::Applied);
    loop {
        applied(writer.add(&added, 1));
        board.add(ADDED, 1);
        applied(writer.add_f64(&halves, 0.5));
        board.add(HALVES, 1);
        applied(writer.observe(&observed, 1.0, 1));
        board.add(OBSERVED, 1);
        applied(writer.shift(&summed, 1.0));
        board.add(SUMMED, 1);
        // Seldom enough that one process can give back what four remove.
        if random.below(64) == 0 {
            come_and_go(&writer, churn, &mut random);
        }
        writer.record(&added, RecordKind::Sample, 1);
        board.add(CYCLES, 1);
    }
}

/// Makes a series, fills it and removes it, in the way of others who do the same.
fn come_and_go(writer: &Writer, metric: MetricId, random: &mut Random) {
    let labels = format!("n=\"{}\"", random.below(24));
    let series = writer.series(metric, &labels).unwrap();
    let usage = || writer.segment().usage();
    assert!(!series.is_overflow(), "the dead take no room for ever: {:?}", usage());
    // Others remove the same series: stale is as good.
    let _ = writer.observe(&series, f64::exp2(random.below(20) as f64), 1);
    writer.remove(metric, &labels);
    if random.below(4) == 0 {
        writer.reclaim_now();
    }
}

#[test]
fn sigkill_at_random_moments_loses_and_doubles_nothing() {
    const WORKERS: usize = 4;
    const KILLS: u64 = 300;
    let _turn = alone();
    let seed = match std::env::var("AGENT_SHM_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from(std::process::id()) << 20 | 1,
    };
    println!("AGENT_SHM_SEED={seed}, {KILLS} kills");
    let mut random = Random(seed);
    let folder = Folder::new("random");
    let path = folder.file("a.seg");
    let segment = Segment::open_or_create(&path, "a", &options()).unwrap();
    let board = Board::new(8);
    let start = |random: &mut Random| {
        let seed = random.below(1 << 40) + 1;
        fork(|| work(&Segment::open_or_create(&path, "a", &options()).unwrap(), &board, seed))
    };
    let mut workers: Vec<Child> = (0..WORKERS).map(|_| start(&mut random)).collect();
    for kill in 0..KILLS {
        let cycles = board.get(CYCLES) + random.below(40);
        board.wait(CYCLES, cycles);
        (0..random.below(4000)).for_each(|_| std::hint::spin_loop());
        let victim = random.below(WORKERS as u64) as usize;
        let mut dead = std::mem::replace(&mut workers[victim], start(&mut random));
        dead.signal(libc::SIGKILL);
        let status = dead.wait(0);
        assert!(libc::WIFSIGNALED(status), "kill {kill}: ended by itself with {status:#x}");
    }
    workers.into_iter().for_each(Child::kill);
    let deaths = KILLS + WORKERS as u64;
    let exported = |name| total(&segment, name, "").unwrap();
    let exported = [
        exported("added") as u64,
        (exported("halves") * 2.0) as u64,
        exported("observed") as u64,
        exported("summed") as u64,
    ];
    let mut unacknowledged = 0;
    for (kind, exported) in exported.into_iter().enumerate() {
        let acknowledged = board.get(kind);
        assert!(exported >= acknowledged, "kind {kind}: {exported} of {acknowledged}");
        unacknowledged += exported - acknowledged;
    }
    assert!(unacknowledged <= deaths, "{unacknowledged} for {deaths} deaths");
    println!("{} operations acknowledged, {unacknowledged} more", board.sum(0..KINDS));
    let line = told(&segment).into_iter().find(|line| line.starts_with("observed{")).unwrap();
    let sum = format!("observed{{}} {} {} ", exported[OBSERVED], exported[OBSERVED]);
    assert!(line.starts_with(&sum), "{line}");
    drop(nothing_is_left(&segment));
    println!("{:?}", segment.usage());
    assert_eq!(segment.usage().overflows + segment.usage().refused + segment.usage().damage, 0);
}

/// After eight passes no removed series waits, no claim of a dead writer is left, and a series can be made.
fn nothing_is_left(segment: &Segment) -> Writer {
    let writer = segment.writer().unwrap();
    for _ in 0..8 {
        writer.reclaim_now();
    }
    let last = writer.reclaim_now();
    assert_eq!(last, Reclaimed { passed: true, ..Reclaimed::default() });
    let mut there = 0;
    for family in segment.view().families() {
        let overflow = OVERFLOW_LABELS.as_bytes();
        family.for_each(&mut |series| there += u64::from(series.labels != overflow));
    }
    assert_eq!(segment.usage().series, there, "the count of series is right again");
    writer
}
