//! Many processes on one segment file: what they count together, who gets which slot, and what their deaths leave.

mod child;

use agent_shm::*;
use child::*;
use std::os::fd::AsRawFd;

fn options() -> Options {
    Options { slots_max: 32, ring_records: 8, bytes_max: 8 << 20, ..Options::default() }
}

#[test]
fn totals_of_many_processes_are_exact() {
    const PROCESSES: u64 = 6;
    const ROUNDS: u64 = 20_000;
    let _turn = alone();
    let folder = Folder::new("totals");
    let path = folder.file("shop.v3.seg");
    let board = Board::new(1);
    let children: Vec<Child> = (0..PROCESSES)
        .map(|n| {
            fork(|| {
                let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
                let writer = segment.writer().unwrap();
                let get = |name, shape| {
                    writer.series(writer.metric(&spec(name, shape)).unwrap(), "").unwrap()
                };
                let counter = get("requests", Shape::Counter);
                let times = get("times", Shape::Exponential { schema: 4 });
                let sizes = get("sizes", Shape::Explicit(&[1.0, 5.0]));
                let busy = get("busy", Shape::Gauge(GaugeMode::Sum));
                let jobs = get("jobs", Shape::Gauge(GaugeMode::MostRecent));
                let rank = get("rank", Shape::Gauge(GaugeMode::All));
                board.add(0, 1);
                board.wait(0, PROCESSES);
                let applied = |outcome| assert_eq!(outcome, Outcome::Applied);
                for round in 0..ROUNDS {
                    let value = (round % 7) as f64;
                    applied(writer.add(&counter, 1));
                    applied(writer.add_f64(&counter, 0.5));
                    applied(writer.observe(&times, value, 1));
                    applied(writer.observe(&sizes, value, 1));
                    applied(writer.shift(&busy, 1.0));
                    applied(writer.shift(&jobs, 1.0));
                }
                applied(writer.set(&rank, n as f64));
                0
            })
        })
        .collect();
    children.into_iter().for_each(Child::join);
    let segment = Segment::attach(&path).unwrap();
    let all = PROCESSES * ROUNDS;
    assert_eq!(total(&segment, "requests", ""), Some(all as f64 * 1.5));
    let mut sum = 0.0;
    (0..ROUNDS).for_each(|round| sum += (round % 7) as f64 * PROCESSES as f64);
    for family in segment.view().families() {
        family.for_each(&mut |series| match series.value {
            Value::Histogram { count, sum: found, buckets } => {
                assert_eq!((count, found), (all, sum));
                assert_eq!(buckets.iter().map(|(_, n)| n).sum::<u64>(), all);
            }
            Value::GaugePerProcess(values) => {
                let mut ranks: Vec<u64> =
                    values.iter().map(|process| process.value as u64).collect();
                ranks.sort_unstable();
                assert_eq!(ranks, (0..PROCESSES).collect::<Vec<_>>(), "a slot for everybody");
            }
            Value::Gauge(value) => assert_eq!(value, all as f64),
            _ => {}
        });
    }
    assert_eq!(segment.usage().damage, 0);
}

#[test]
fn eight_processes_that_create_the_same_file_get_the_same_one() {
    const PROCESSES: u64 = 8;
    let _turn = alone();
    let folder = Folder::new("race");
    for round in 0..40 {
        let path = folder.file(&format!("shop{round}.v3.seg"));
        let board = Board::new(10);
        let children: Vec<Child> = (0..PROCESSES as usize)
            .map(|n| {
                fork(|| {
                    board.add(8, 1);
                    board.wait(8, PROCESSES);
                    let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
                    board.set(n, segment.file_id().unwrap().1);
                    let writer = segment.writer().unwrap();
                    let metric = writer.metric(&spec("started", Shape::Counter)).unwrap();
                    let series = writer.series(metric, "").unwrap();
                    assert_eq!(writer.add(&series, 1), Outcome::Applied);
                    board.add(9, 1);
                    board.wait(9, PROCESSES);
                    0
                })
            })
            .collect();
        children.into_iter().for_each(Child::join);
        let segment = Segment::attach(&path).unwrap();
        let inode = segment.file_id().unwrap().1;
        assert!((0..8).all(|n| board.get(n) == inode), "round {round}");
        assert_eq!(total(&segment, "started", ""), Some(8.0), "round {round}");
        assert_eq!(segment.slots().len(), 8);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), round + 1, "no leftovers");
    }
}

#[test]
fn a_killed_process_gives_its_slot_back_at_once_even_as_a_zombie() {
    let _turn = alone();
    let folder = Folder::new("zombie");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let board = Board::new(1);
    for generation in 1..50 {
        board.set(0, 0);
        let mut child = fork(|| {
            let _writer = segment.writer().unwrap();
            board.set(0, 1);
            board.wait(0, 2);
            0
        });
        board.wait(0, 1);
        let slot = &segment.slots()[0];
        assert!(slot.alive);
        assert_eq!((slot.pid, slot.generation), (child.pid as u32, generation));
        child.signal(libc::SIGKILL);
        child.wait_zombie();
        assert!(!segment.slot_is_alive(0), "a zombie is dead");
        child.wait(0);
        assert_eq!(segment.slots_used(), 1);
    }
}

#[test]
fn a_stopped_process_is_alive_and_what_it_stands_on_is_not_reused() {
    let _turn = alone();
    let folder = Folder::new("stopped");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let board = Board::new(1);
    let mut child = fork(|| {
        let writer = segment.writer().unwrap();
        let metric = writer.metric(&spec("a", Shape::Counter)).unwrap();
        let series = writer.series(metric, "").unwrap();
        let guard = writer.enter();
        assert_eq!(guard.add(&series, 1), Outcome::Applied);
        board.set(0, 1);
        board.wait(0, 2);
        assert_eq!(guard.add(&series, 1), Outcome::Stale);
        drop(guard);
        board.set(0, 3);
        board.wait(0, 4);
        0
    });
    board.wait(0, 1);
    child.signal(libc::SIGSTOP);
    assert!(libc::WIFSTOPPED(child.wait(libc::WUNTRACED)));
    let writer = segment.writer().unwrap();
    assert_eq!(writer.slot(), 1, "the slot of a stopped process is taken");
    assert!(segment.slot_is_alive(0));
    let metric = writer.metric(&spec("a", Shape::Counter)).unwrap();
    assert!(writer.remove(metric, ""));
    for _ in 0..10 {
        let reclaimed = writer.reclaim_now();
        assert_eq!((reclaimed.freed, reclaimed.waiting), (0, 1));
    }
    child.signal(libc::SIGCONT);
    board.set(0, 2);
    board.wait(0, 3);
    assert_eq!((0..4).map(|_| writer.reclaim_now().freed).sum::<u64>(), 1);
    board.set(0, 4);
    child.join();
}

#[test]
fn a_forked_child_that_keeps_the_descriptor_only_delays_the_slot() {
    let _turn = alone();
    // SAFETY: a system call without pointers: orphans of our children become ours.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    let folder = Folder::new("inherited");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let board = Board::new(2);
    let parent = fork(|| {
        let _writer = segment.writer().unwrap();
        // SAFETY: the grandchild only waits.
        let grandchild = unsafe { libc::fork() };
        if grandchild == 0 {
            board.wait(1, 1);
            // SAFETY: leaves at once.
            unsafe { libc::_exit(0) };
        }
        board.set(0, grandchild as u64);
        board.wait(1, 1);
        0
    });
    board.wait(0, 1);
    parent.kill();
    assert!(segment.slot_is_alive(0), "the descriptor is still open in the grandchild");
    assert_eq!(segment.writer().unwrap().slot(), 1);
    board.set(1, 1);
    wait_for(board.get(0) as i32, 0);
    assert!(!segment.slot_is_alive(0));
    assert_eq!(segment.writer().unwrap().slot(), 0);
}

/// A daemoniser closes every number, and the next files get them: nothing is asked, locked or closed through those.
#[test]
fn a_number_that_is_somebody_elses_file_by_now_is_left_alone() {
    let _turn = alone();
    let folder = Folder::new("numbers");
    let path = folder.file("a.seg");
    let segment = Segment::open_or_create(&path, "a", &options()).unwrap();
    let other = segment.writer().unwrap();
    let foreign = std::fs::File::create(folder.file("b")).unwrap();
    let lost = fork(|| {
        let writer = segment.writer().unwrap();
        let numbers = numbers_of(&path);
        assert!(!numbers.is_empty(), "it keeps one for asking");
        for &number in &numbers {
            // SAFETY: numbers of this process, which is ours alone.
            assert_eq!(unsafe { libc::dup2(foreign.as_raw_fd(), number) }, number);
        }
        let metric = writer.metric(&spec("a", Shape::Gauge(GaugeMode::LiveSum))).unwrap();
        for (writer, value) in [(&writer, 1.0), (&other, 2.0)] {
            let series = writer.series(metric, "").unwrap();
            assert_eq!(writer.set(&series, value), Outcome::Applied);
        }
        let mut shown = Value::Gauge(0.0);
        writer.view().families()[0].for_each(&mut |series| {
            if let Value::Gauge(value) = series.value {
                shown = Value::Gauge(value);
            }
        });
        assert_eq!(shown, Value::Gauge(3.0), "the parent lives");
        assert!(writer.reclaim_now().passed);
        let slot = writer.slot();
        drop(writer);
        assert!(!segment.slot_is_alive(slot));
        for number in numbers {
            // SAFETY: a system call without pointers.
            assert_ne!(unsafe { libc::fcntl(number, libc::F_GETFD) }, -1, "it was closed");
        }
        0
    });
    lost.join();
    assert!(segment.slot_is_alive(other.slot()));
}

/// The descriptors of this process that lead to the file.
fn numbers_of(path: &std::path::Path) -> Vec<i32> {
    let leads_there = |number: &i32| {
        std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|found| found == path)
    };
    (3..256).filter(leads_there).collect()
}

#[test]
fn a_forked_child_that_drops_the_writer_of_its_parent_does_no_harm() {
    let _turn = alone();
    let folder = Folder::new("dropped");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let writer = segment.writer().unwrap();
    let mut writer = Some(writer);
    fork(|| {
        drop(writer.take());
        assert_eq!(segment.writer().unwrap().slot(), 1);
        0
    })
    .join();
    assert!(segment.slot_is_alive(0));
}

#[test]
fn two_thousand_lives_leave_no_trace() {
    const LIVES: u64 = 2000;
    let _turn = alone();
    let folder = Folder::new("lives");
    let path = folder.file("shop.v3.seg");
    let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
    let reclaimer = segment.writer().unwrap();
    let mut after_20 = (0, 0);
    for life in 0..LIVES {
        let mut child = fork(|| {
            let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
            let writer = segment.writer().unwrap();
            let counter = writer.metric(&spec("lives", Shape::Counter)).unwrap();
            let times = writer.metric(&spec("times", Shape::Exponential { schema: 4 })).unwrap();
            let shared = writer.series(counter, "who=\"all\"").unwrap();
            assert_eq!(writer.add(&shared, 1), Outcome::Applied);
            let own = format!("life=\"{life}\"");
            for n in 0..4 {
                let shared = writer.series(times, &format!("n=\"{n}\"")).unwrap();
                assert_eq!(writer.observe(&shared, 1.0, 1), Outcome::Applied);
                let mine = writer.series(times, &own).unwrap();
                assert_eq!(writer.observe(&mine, 1e3, 1), Outcome::Applied);
                assert!(writer.remove(times, &own));
            }
            let gauge = writer.metric(&spec("sum", Shape::Gauge(GaugeMode::Sum))).unwrap();
            assert_eq!(writer.set(&writer.series(gauge, "").unwrap(), 1.0), Outcome::Applied);
            if life % 2 == 0 {
                // SAFETY: ends this child without any clean-up.
                unsafe { libc::raise(libc::SIGKILL) };
            }
            0
        });
        let status = child.wait(0);
        assert!(libc::WIFSIGNALED(status) || libc::WEXITSTATUS(status) == 0, "life {life}");
        reclaimer.reclaim_now();
        let now = (segment.usage().bytes_committed, segment.slots_used());
        if life == 20 {
            after_20 = now;
        }
    }
    assert_eq!((segment.usage().bytes_committed, segment.slots_used()), after_20);
    assert_eq!(total(&segment, "lives", "who=\"all\""), Some(LIVES as f64));
    assert_eq!(total(&segment, "sum", ""), Some(LIVES as f64));
    for n in 0..4 {
        assert_eq!(total(&segment, "times", &format!("n=\"{n}\"")), Some(LIVES as f64));
    }
    assert_eq!(segment.usage().series, 6);
    assert_eq!(segment.usage().overflows + segment.usage().refused, 0);
}

#[test]
fn a_segment_can_be_opened_while_others_make_it_grow() {
    let _turn = alone();
    let folder = Folder::new("growing");
    let board = Board::new(1);
    for round in 0..30 {
        let path = folder.file(&format!("shop{round}.v3.seg"));
        let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
        board.set(0, 0);
        let grower = fork(|| {
            let writer = segment.writer().unwrap();
            let metric = writer.metric(&spec("m", Shape::Counter)).unwrap();
            for n in 0.. {
                let series = writer.series(metric, &format!("n=\"{n}\"")).unwrap();
                board.set(0, 1);
                if series.is_overflow() {
                    return 0;
                }
            }
            1
        });
        board.wait(0, 1);
        while segment.usage().series < 10_000 {
            Segment::open_or_create(&path, "shop", &options()).unwrap();
            Segment::attach(&path).unwrap();
        }
        grower.join();
    }
}

#[test]
fn what_a_killed_maker_leaves_is_swept_and_what_a_living_one_fills_is_not() {
    let _turn = alone();
    let folder = Folder::new("sweep");
    let left = || {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
        names.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    // Killed at whatever moment.
    for round in 0..200 {
        let board = Board::new(1);
        let child = fork(|| {
            for n in 0.. {
                board.add(0, 1);
                let path = folder.file(&format!("made{n}.v3.seg"));
                Segment::open_or_create(&path, "made", &options()).unwrap();
                std::fs::remove_file(&path).unwrap();
            }
            0
        });
        board.wait(0, 1 + round % 5);
        child.kill();
    }
    std::fs::write(folder.file(".made.v3.seg.1.0.new"), "half").unwrap();
    std::fs::write(folder.file(".precious.new"), "not ours").unwrap();
    let held = std::fs::File::create(folder.file(".made.v3.seg.2.0.new")).unwrap();
    hold_as_maker(&held);
    Segment::open_or_create(&folder.file("shop.v3.seg"), "shop", &options()).unwrap();
    let mut names = left();
    names.retain(|name| !name.starts_with("made"));
    names.sort();
    assert_eq!(names, [".made.v3.seg.2.0.new", ".precious.new", "shop.v3.seg"]);
}

/// What a process does that fills in a new file.
fn hold_as_maker(file: &std::fs::File) {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: (1 << 60) - 3,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: a system call on an open file with a valid struct.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) };
    assert_eq!(result, 0);
}

/// From now on this process has no `membarrier(2)`.
fn forbid_membarrier() {
    // SAFETY: pure constructors of instructions.
    let filter = unsafe {
        [
            libc::BPF_STMT((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0),
            libc::BPF_JUMP(
                (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
                libc::SYS_membarrier as u32,
                0,
                1,
            ),
            libc::BPF_STMT(libc::BPF_RET as u16, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            libc::BPF_STMT(libc::BPF_RET as u16, libc::SECCOMP_RET_ALLOW),
        ]
    };
    let program =
        libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut().cast() };
    // SAFETY: system calls with a program that lives during the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

/// Makes a series, removes it and tends; how many blocks came back.
fn come_and_go(writer: &Writer) -> u64 {
    let metric = writer.metric(&spec("comes", Shape::Counter)).unwrap();
    writer.series(metric, "a=\"b\"").unwrap();
    assert!(writer.remove(metric, "a=\"b\""));
    (0..4).map(|_| writer.reclaim_now().freed).sum()
}

#[test]
fn without_membarrier_memory_comes_back_unless_somebody_relies_on_it() {
    let _turn = alone();
    let folder = Folder::new("membarrier");
    let segment = Segment::open_or_create(&folder.file("a.seg"), "a", &options()).unwrap();
    let board = Board::new(1);
    let child = fork(|| {
        forbid_membarrier();
        board.wait(0, 1);
        let writer = segment.writer().unwrap();
        assert_eq!(come_and_go(&writer), 0, "the first one leaves the barrier to others");
        board.set(0, 2);
        board.wait(0, 3);
        assert_eq!((0..4).map(|_| writer.reclaim_now().freed).sum::<u64>(), 1);
        assert_eq!(come_and_go(&writer), 1);
        0
    });
    let first = segment.writer().unwrap();
    assert_eq!(come_and_go(&first), 1);
    board.set(0, 1);
    board.wait(0, 2);
    drop(first);
    board.set(0, 3);
    child.join();
}
