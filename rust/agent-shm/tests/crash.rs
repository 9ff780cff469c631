//! Death at any moment. Two ways: SIGKILL of working processes at random moments, with an oracle that knows what they
//! acknowledged; and (x86-64) one operation walked through instruction by instruction, where the segment as it is after
//! each one is copied, recovered and compared: the operation must be fully in or fully out.
//!
//! `AGENT_SHM_SEED` repeats the random run; the seed and the number of kill points are printed.

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

#[cfg(target_arch = "x86_64")]
mod single_steps {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    fn options() -> Options {
        Options { series_max: 16, slots_max: 4, bytes_max: 8 * 16384, ..super::options() }
    }

    fn series(writer: &Writer, name: &str, shape: Shape<'_>, labels: &str) -> Series {
        writer.series(writer.metric(&spec(name, shape)).unwrap(), labels).unwrap()
    }

    const COUNTER: Shape<'_> = Shape::Counter;
    const TIMES: Shape<'_> = Shape::Exponential { schema: 3 };
    const SUM: Shape<'_> = Shape::Gauge(GaugeMode::Sum);

    /// One operation: what comes before it, by a process of its own and by the one that is walked through, and itself.
    struct Case {
        name: &'static str,
        /// Labels of the series that it is about.
        labels: Option<&'static str>,
        prepare: fn(&Writer),
        operate: fn(&Writer, Option<Series>),
    }

    impl Case {
        /// The series that the operation is about; the segment has one metric then.
        fn handle(&self, writer: &Writer) -> Option<Series> {
            let labels = self.labels?;
            let meta = writer.segment().view().families().first()?.meta().clone();
            let metric = writer.metric(&spec(&meta.name, meta.shape.borrowed())).unwrap();
            Some(writer.series(metric, labels).unwrap())
        }
    }

    fn applied(outcome: Outcome) {
        assert_eq!(outcome, Outcome::Applied);
    }

    const CASES: &[Case] = &[
        Case {
            name: "add",
            labels: Some(""),
            prepare: |writer| drop(series(writer, "c", COUNTER, "")),
            operate: |writer, series| applied(writer.add(&series.unwrap(), 3)),
        },
        Case {
            name: "add a fraction",
            labels: Some(""),
            prepare: |writer| drop(series(writer, "c", COUNTER, "")),
            operate: |writer, series| applied(writer.add_f64(&series.unwrap(), 0.5)),
        },
        Case {
            name: "add, and get lanes",
            labels: Some(""),
            prepare: |writer| {
                let series = series(writer, "c", COUNTER, "");
                applied(writer.add(&series, 4094));
            },
            operate: |writer, series| applied(writer.add(&series.unwrap(), 2)),
        },
        Case {
            name: "observe",
            labels: Some(""),
            prepare: |writer| {
                let series = series(writer, "t", TIMES, "");
                applied(writer.observe(&series, 1.5, 1));
            },
            operate: |writer, series| applied(writer.observe(&series.unwrap(), 1.5, 2)),
        },
        Case {
            name: "observe, first in its octave",
            labels: Some(""),
            prepare: |writer| drop(series(writer, "t", TIMES, "")),
            operate: |writer, series| applied(writer.observe(&series.unwrap(), -1.5, 1)),
        },
        Case {
            name: "observe, and get a lane",
            labels: Some(""),
            prepare: |writer| {
                let series = series(writer, "t", TIMES, "");
                applied(writer.observe(&series, 1.5, 4095));
            },
            operate: |writer, series| applied(writer.observe(&series.unwrap(), 1.5, 1)),
        },
        Case {
            name: "register a metric",
            labels: None,
            prepare: |_| (),
            operate: |writer, _| {
                writer.metric(&spec("new", TIMES)).unwrap();
            },
        },
        Case {
            name: "make a series",
            labels: Some("k=\"0\""),
            prepare: |writer| drop(series(writer, "t", TIMES, "k=\"0\"")),
            operate: |writer, other| {
                drop(writer.series(other.unwrap().metric(), "k=\"1\"").unwrap());
            },
        },
        Case {
            name: "remove a series",
            labels: Some(""),
            prepare: |writer| {
                applied(writer.observe(&series(writer, "t", TIMES, ""), 2.5, 1));
            },
            operate: |writer, series| {
                writer.remove(series.unwrap().metric(), "");
            },
        },
        Case {
            name: "push a record",
            labels: Some(""),
            prepare: |writer| {
                let series = series(writer, "c", COUNTER, "");
                (0..9).for_each(|n| writer.record(&series, RecordKind::Sample, n));
            },
            operate: |writer, series| writer.record(&series.unwrap(), RecordKind::Sample, 9),
        },
        Case {
            name: "push an event",
            labels: Some(""),
            prepare: |writer| {
                let series = series(writer, "c", COUNTER, "");
                (0..9).for_each(|n| writer.record(&series, RecordKind::Sample, n));
            },
            operate: |writer, _| writer.event(b"deployed version two of the shop"),
        },
        Case {
            name: "adopt a gauge",
            labels: Some(""),
            prepare: |writer| drop(series(writer, "g", SUM, "")),
            operate: |writer, series| applied(writer.set(&series.unwrap(), 3.0)),
        },
        Case {
            name: "claim a slot",
            labels: None,
            prepare: |_| (),
            operate: |writer, _| drop(writer.segment().writer().unwrap()),
        },
        Case {
            name: "tend",
            labels: None,
            prepare: |writer| {
                let gone = series(writer, "t", TIMES, "k=\"gone\"");
                applied(writer.observe(&gone, 2.5, 1));
                assert!(writer.remove(gone.metric(), "k=\"gone\""));
                for _ in 0..2 {
                    writer.reclaim_now();
                }
            },
            operate: |writer, _| {
                writer.reclaim_now();
            },
        },
    ];

    /// What is exported, and the records of the ring of the slot that is walked through.
    fn everything(segment: &Segment) -> Vec<String> {
        let mut lines = told(segment);
        if let Some(mut reader) = segment.ring_reader(1) {
            let mut last = String::new();
            reader.drain(|entry| {
                last = match entry {
                    Entry::Value { bits, .. } => format!("record {bits}"),
                    Entry::Event { bytes, .. } => format!("event {bytes:?}"),
                }
            });
            lines.push(last);
        }
        lines
    }

    /// The writer that takes the slot of the one that was walked through.
    fn successor(segment: &Segment) -> (Writer, Writer) {
        let (first, second) = (segment.writer().unwrap(), segment.writer().unwrap());
        assert_eq!(second.slot(), 1);
        (first, second)
    }

    /// Puts `bytes` where a segment file is expected.
    fn put(path: &Path, bytes: &[u8]) -> Segment {
        let _ = std::fs::remove_file(path);
        let mut file = std::fs::OpenOptions::new();
        file.write(true).create_new(true).mode(0o600);
        file.open(path).unwrap().write_all(bytes).unwrap();
        Segment::open_or_create(path, "a", &options()).unwrap()
    }

    struct Walk<'c> {
        case: &'c Case,
        path: std::path::PathBuf,
        before: Vec<String>,
        /// Everything after the operation, and after doing it again on top.
        after: Vec<String>,
        again: Vec<String>,
    }

    impl Walk<'_> {
        /// Repeats the operation as the next owner of the slot; gives what is exported then.
        fn repeat(&self, segment: &Segment) -> Vec<String> {
            let (_first, second) = successor(segment);
            let handle = self.case.handle(&second);
            (self.case.operate)(&second, handle);
            everything(segment)
        }

        /// Recovers a segment whose writer died after this instruction; `true` when its operation counts.
        fn check(&self, bytes: &[u8]) -> bool {
            let name = self.case.name;
            let segment = put(&self.path, bytes);
            let found = everything(&segment);
            let is_in = found == self.after && self.before != self.after;
            assert!(is_in || found == self.before, "{name}: half done\n{found:#?}");
            // Even when the slot has a living owner again.
            let owners = successor(&segment);
            drop(nothing_is_left(&segment));
            drop(owners);
            assert_eq!(segment.writer().unwrap().reclaim_now().recovered, 0, "{name}: left behind");
            let reclaimed = everything(&segment);
            // A series that hangs in its chain but was not declared yet becomes one: out before, in now.
            let is_in = reclaimed == self.after && self.before != self.after;
            assert!(is_in || reclaimed == found, "{name}: changed by recovery\n{reclaimed:#?}");
            let expected = if is_in { &self.again } else { &self.after };
            assert_eq!(&self.repeat(&segment), expected, "{name}: repeated after {is_in}");
            assert_eq!(segment.usage().damage + segment.usage().refused, 0, "{name}");
            is_in
        }
    }

    /// The file as it is now: read while nobody runs who could change it.
    const MAPPED_BYTES: usize = 1 << 20;

    struct Mapped {
        base: *const u8,
        file: std::fs::File,
    }

    impl Mapped {
        fn new(path: &Path) -> Mapped {
            let file = std::fs::File::open(path).unwrap();
            let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            // SAFETY: a new mapping; bytes behind the end of the file are never looked at.
            let base = unsafe {
                libc::mmap(std::ptr::null_mut(), MAPPED_BYTES, read, shared, file.as_raw_fd(), 0)
            };
            assert_ne!(base, libc::MAP_FAILED);
            Mapped { base: base.cast(), file }
        }

        fn bytes(&self) -> &[u8] {
            let len = self.file.metadata().unwrap().len() as usize;
            assert!(len <= MAPPED_BYTES);
            // SAFETY: mapped above; the only writer is stopped while the slice is looked at.
            unsafe { std::slice::from_raw_parts(self.base, len) }
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: the mapping made above.
            unsafe { libc::munmap(self.base.cast_mut().cast(), MAPPED_BYTES) };
        }
    }

    /// Walks a child through the operation; gives every state of the file in order, the number of instructions too.
    fn walk(case: &Case, path: &Path) -> (u64, Vec<Vec<u8>>) {
        let board = Board::new(1);
        let mut child = fork(|| {
            let segment = Segment::open_or_create(path, "a", &options()).unwrap();
            // A dead writer leaves a gauge in slot 1; slot 0 stays ours, so that two were seen.
            let first = segment.writer().unwrap();
            let second = segment.writer().unwrap();
            if case.name == "adopt a gauge" {
                applied(second.set(&series(&second, "g", SUM, ""), 5.0));
            }
            drop(second);
            let second = segment.writer().unwrap();
            (case.prepare)(&second);
            let handle = case.handle(&second);
            let _first = first;
            // SAFETY: system calls without pointers: the test walks us from here.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
            }
            (case.operate)(&second, handle);
            board.set(0, 1);
            0
        });
        let status = child.wait(0);
        assert!(libc::WIFSTOPPED(status), "{}: {status:#x}", case.name);
        let file = Mapped::new(path);
        let mut states = vec![file.bytes().to_vec()];
        let mut steps = 0;
        while board.get(0) == 0 {
            // SAFETY: the child is stopped and traced by us.
            let stepped = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, child.pid, 0, 0) };
            assert_eq!(stepped, 0, "{}", std::io::Error::last_os_error());
            let status = child.wait(0);
            assert!(libc::WIFSTOPPED(status), "{}: {status:#x}", case.name);
            assert_eq!(libc::WSTOPSIG(status), libc::SIGTRAP, "{}", case.name);
            steps += 1;
            if states.last().is_some_and(|last| last != file.bytes()) {
                states.push(file.bytes().to_vec());
            }
        }
        child.kill();
        (steps, states)
    }

    /// Instructions that change nothing in the segment leave the same thing to recover: each different state is
    /// recovered once.
    #[test]
    fn an_operation_that_dies_at_any_instruction_is_in_or_out() {
        let _turn = alone();
        let (mut points, mut different) = (0, 0);
        for case in CASES {
            let folder = Folder::new("steps");
            let (steps, states) = walk(case, &folder.file("a.seg"));
            let copy = folder.file("copy.seg");
            let mut walk = Walk {
                case,
                before: everything(&put(&copy, &states[0])),
                path: copy.clone(),
                after: Vec::new(),
                again: Vec::new(),
            };
            let segment = put(&copy, states.last().unwrap());
            walk.after = everything(&segment);
            walk.again = walk.repeat(&segment);
            let ins: Vec<bool> = states.iter().map(|bytes| walk.check(bytes)).collect();
            assert!(ins.is_sorted(), "{}: in, then out again", case.name);
            println!("{:>30}: {steps} instructions, {} states", case.name, states.len());
            assert!(states.len() > 1, "{}", case.name);
            points += steps;
            different += states.len();
        }
        println!("{points} kill points, {different} different states, all in or out");
        assert!(points > 10_000);
    }
}
