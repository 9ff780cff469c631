//! How a process keeps its segment, whatever the program around it does: descriptors closed and recycled, users changed,
//! files removed and truncated, disks full, forks, definitions that come before and after.

mod program;

use agent_client::*;
use agent_shm::{GaugeMode, Options, Outcome, OwnedShape, Segment, Series, Writer};
use program::child::{self, alone, fork, total, Board, Child, Folder};
use program::*;
use std::cell::RefCell;
use std::fs;
use std::os::fd::AsRawFd;
use std::sync::Arc;

fn close_range(first: u32, last: u32) {
    // SAFETY: a system call without pointers, in a child that owns none of what it closes by intention.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

#[test]
fn a_definition_makes_no_segment_and_the_first_update_shows_them_all() {
    let _turn = alone();
    let folder = Folder::new("first");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = store();
    let (a, b) = (counter(&store, "a"), counter(&store, "b"));
    let labelled = define(&store, "labelled", OwnedShape::Counter, &["x"]);
    store.note_early(&labelled, "x=\"1\"");
    assert!(!path.exists());
    inc(&a, &host, 2);
    assert_eq!((value(&path, "a"), value(&path, "b")), (Some(2.0), Some(0.0)));
    assert_eq!(total(&Segment::attach(&path).unwrap(), "labelled", "x=\"1\""), Some(0.0));
    inc(&b, &host, 1);
    assert_eq!(value(&path, "b"), Some(1.0));
}

/// Every chain of the map is made to lead nowhere, under two living processes.
#[test]
fn a_chain_that_leads_nowhere_costs_what_hangs_in_it_and_nothing_else() {
    let _turn = alone();
    let folder = Folder::new("chains");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let (first, second, third) = (store(), store(), store());
    let labelled = define(&first, "labelled", OwnedShape::Counter, &["x"]);
    let (steps, of_second) = (counter(&first, "steps"), counter(&second, "steps"));
    inc(&steps, &host, 5);
    inc(&of_second, &host, 6);
    // The heads of the chains stand behind the header.
    let heads = u64::from(options().series_max / 2).next_power_of_two();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let nowhere = 8_u64.to_le_bytes().repeat(heads as usize);
    std::os::unix::fs::FileExt::write_all_at(&file, &nowhere, 4096).unwrap();

    // What has no place goes aside, and that is said; the others go on where they are.
    let new = Handle::new(first.clone(), labelled, "x=\"1\"".into());
    inc(&new, &host, 7);
    inc(&steps, &host, 10);
    inc(&of_second, &host, 20);
    assert_eq!((first.lost(), second.lost()), (0, 0));
    assert_eq!(Segment::attach(&path).unwrap().usage().fallbacks, 1);
    let told = host.warned.borrow().clone();
    assert!(told.iter().any(|text| text.contains("no room for metric labelled")), "{told:?}");
    // Who comes later begins beside it, and a page adds both.
    inc(&counter(&third, "steps"), &host, 100);
    let beside = folder.file("shop~2.v3.seg");
    assert_eq!(value(&beside, "steps"), Some(100.0));
    // When nobody is left in it, it is taken away.
    drop((steps, of_second, new, first, second));
    inc(&counter(&store(), "steps"), &host, 1);
    assert!(folder.file("shop.v3.seg.damaged").exists());
    assert_eq!(value(&path, "steps"), Some(1.0));
}

/// One file after the other is damaged under a writer that goes on in it.
#[test]
fn a_process_begins_in_the_first_of_nine_files_that_is_whole_and_alone_when_none_is() {
    let _turn = alone();
    let folder = Folder::new("nine");
    let first = folder.file("shop.v3.seg");
    let mut writers = Vec::new();
    for number in 1..=9 {
        let path =
            if number == 1 { first.clone() } else { folder.file(&format!("shop~{number}.v3.seg")) };
        let (store, host) = (store(), Program::new(&first));
        inc(&counter(&store, "steps"), &host, 1);
        assert_eq!(store.path().as_ref(), Some(&path));
        writers.push(store);
        // Both copies of the layout word.
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        for at in [8, 2056] {
            std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 8], at).unwrap();
        }
    }
    let (store, host) = (store(), Program::new(&first));
    inc(&counter(&store, "steps"), &host, 1);
    assert_eq!(store.fallback().map(|(cause, _)| cause.as_str()), Some("open"));
}

/// Root starts, its child becomes another user, and forks: the grandchild may not open the file.
#[test]
fn what_is_forked_after_the_user_changed_counts_alone_and_the_page_says_so() {
    // SAFETY: a system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: changing the user needs root");
        return;
    }
    let _turn = alone();
    let folder = Folder::new("setuid");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = store();
    let (requests, _idle) = (counter(&store, "requests"), counter(&store, "idle"));
    inc(&requests, &host, 1);
    fork(|| {
        // SAFETY: a system call without pointers.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
        inc(&requests, &host, 10);
        fork(|| {
            inc(&requests, &host, 100);
            let told = host.warned.borrow();
            assert!(store.is_private() && told.len() == 1 && told[0].contains("private memory"));
            0
        })
        .join();
        inc(&requests, &host, 10);
        0
    })
    .join();
    assert_eq!(value(&path, "requests"), Some(21.0), "its child counts on");
    let missing = Segment::attach(&path).unwrap().usage().fallbacks;
    assert_eq!(missing, 2, "two metrics of one process are not there, and every page says so");
}

/// Every daemoniser closes all descriptors, and the program opens files of its own under the same numbers.
#[test]
fn no_byte_goes_through_a_descriptor_that_became_somebody_elses_file() {
    let _turn = alone();
    let folder = Folder::new("descriptors");
    let path = folder.file("shop.v3.seg");
    let database = folder.file("database");
    fork(|| {
        let host = Program::new(&path);
        let store = store();
        let requests = counter(&store, "requests");
        let paths = define(&store, "paths", OwnedShape::Counter, &["path"]);
        inc(&requests, &host, 1);
        let slot = store.opened_now().unwrap().slot();
        close_range(3, !0);
        let files: Vec<fs::File> = (0..40)
            .map(|n| fs::File::create(folder.file(&format!("database{n}"))).unwrap())
            .collect();
        assert!(files[0].as_raw_fd() == 3, "the number of the segment is one of these");
        // Growth, slow calls, passes.
        for n in 0..20_000 {
            let handle = Handle::new(store.clone(), paths.clone(), format!("path=\"{n}\""));
            inc(&handle, &host, 1);
            inc(&requests, &host, 1);
            if n % 100 == 0 {
                store.opened_now().unwrap().reclaim_now();
            }
        }
        for n in 0..40 {
            assert_eq!(fs::metadata(folder.file(&format!("database{n}"))).unwrap().len(), 0);
        }
        let segment = Segment::attach(&path).unwrap();
        assert_eq!(total(&segment, "requests", ""), Some(20_001.0));
        assert!(segment.slot_is_alive(slot), "it keeps its slot");
        assert_eq!(segment.usage().overflows, 10_000, "the limit of a metric, and nothing else");
        assert!(store.fallback().is_none() && host.warned.borrow().is_empty());
        0
    })
    .join();
    drop(database);
}

#[test]
fn a_forked_child_has_a_slot_before_it_can_change_its_user() {
    let _turn = alone();
    // SAFETY: a system call without arguments.
    assert_eq!(unsafe { libc::geteuid() }, 0, "to be run as root");
    let folder = Folder::new("dropped");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = store();
    let requests = counter(&store, "requests");
    let paths = define(&store, "paths", OwnedShape::Counter, &["path"]);
    inc(&requests, &host, 1);
    let children: Vec<Child> = (0..4)
        .map(|child| {
            let (store, paths, requests, host) = (&store, &paths, &requests, &host);
            fork(move || {
                // SAFETY: system calls without pointers.
                unsafe {
                    assert_eq!(libc::setgid(65534), 0);
                    assert_eq!(libc::setuid(65534), 0);
                }
                for n in 0..5000 {
                    inc(requests, host, 1);
                    let label = format!("path=\"{}\"", child * 5000 + n);
                    inc(&Handle::new(store.clone(), paths.clone(), label), host, 1);
                }
                assert!(store.fallback().is_none());
                i32::from(store.opened_now().unwrap().slot() == 0)
            })
        })
        .collect();
    children.into_iter().for_each(Child::join);
    assert_eq!(value(&path, "requests"), Some(20_001.0));
    assert!(host.warned.borrow().is_empty());
}

#[test]
fn a_removed_file_is_noticed_and_everybody_meets_in_a_new_one() {
    let _turn = alone();
    let folder = Folder::new("removed");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let (one, two) = (store(), store());
    let (first, second) = (counter(&one, "requests"), counter(&two, "requests"));
    inc(&first, &host, 5);
    inc(&second, &host, 5);
    fs::remove_file(&path).unwrap();
    // Looked at once a second by a process at work.
    let until = std::time::Instant::now() + std::time::Duration::from_millis(1500);
    while std::time::Instant::now() < until {
        (0..100).for_each(|_| inc(&first, &host, 1));
        (0..100).for_each(|_| inc(&second, &host, 1));
    }
    let counted = value(&path, "requests").unwrap();
    assert!(counted > 0.0, "{counted}");
    let before = counted;
    (0..100).for_each(|_| inc(&first, &host, 1));
    assert_eq!(value(&path, "requests"), Some(before + 100.0));
    let warned = host.warned.borrow();
    assert_eq!(warned.len(), 2, "once for each: {warned:?}");
    assert!(warned[0].contains("begin anew") && warned[0].contains("was removed"), "{warned:?}");
}

#[test]
fn a_slow_call_notices_a_removed_file_at_once() {
    let _turn = alone();
    let folder = Folder::new("slow");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = store();
    let requests = counter(&store, "requests");
    let paths = define(&store, "paths", OwnedShape::Counter, &["path"]);
    inc(&requests, &host, 5);
    fs::remove_file(&path).unwrap();
    inc(&Handle::new(store.clone(), paths, "path=\"1\"".into()), &host, 1);
    inc(&requests, &host, 2);
    assert_eq!(value(&path, "requests"), Some(2.0));
    assert_eq!(total(&Segment::attach(&path).unwrap(), "paths", "path=\"1\""), Some(1.0));
}

#[test]
fn a_truncated_file_is_survived_and_left() {
    let _turn = alone();
    for keep in [0, 4096, 100_000] {
        let folder = Folder::new("truncated");
        let path = folder.file("shop.v3.seg");
        fork(|| {
            let host = Program::new(&path);
            let store = store();
            let requests = counter(&store, "requests");
            inc(&requests, &host, 5);
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(keep).unwrap();
            let until = std::time::Instant::now() + std::time::Duration::from_millis(1500);
            while std::time::Instant::now() < until {
                (0..100).for_each(|_| inc(&requests, &host, 1));
            }
            let counted = value(&path, "requests").unwrap();
            (0..100).for_each(|_| inc(&requests, &host, 1));
            assert_eq!(value(&path, "requests"), Some(counted + 100.0), "{keep}");
            assert_eq!(host.warned.borrow().len(), 1, "{:?}", host.warned.borrow());
            0
        })
        .join();
    }
}

/// A thousand definitions after the first update: each is joined once, not all of them at each.
#[test]
fn to_define_a_metric_takes_no_longer_when_there_are_thousands() {
    let _turn = alone();
    let folder = Folder::new("thousands");
    let host = Program::new(&folder.file("shop.v3.seg"));
    let store = store();
    let first = counter(&store, "first");
    inc(&first, &host, 1);
    let define = |from: usize| {
        let began = child::cpu_us();
        for n in from..from + 1000 {
            inc(&counter(&store, &format!("metric_{n}")), &host, 1);
        }
        child::cpu_us() - began
    };
    let early = define(0);
    for part in 1..5 {
        define(part * 1000);
    }
    let late = define(5000);
    assert!(
        late < early * 4 + 20_000,
        "{early} us for the first thousand, {late} us for the sixth"
    );
}

/// Finding the app is foreign code, which may come back into the store, or let another thread do so.
#[test]
fn private_memory_is_given_back_once_whoever_asks_meanwhile() {
    struct Reentrant<'a> {
        program: Program,
        handle: RefCell<Option<&'a Handle>>,
    }
    impl Host for Reentrant<'_> {
        fn find_app(&self) -> Result<Place, NoPlace> {
            let handle = self.handle.borrow_mut().take();
            if let Some(handle) = handle {
                handle.store.ask_again_now();
                handle.apply_slowly(&self.program, &add(1)).unwrap();
            }
            self.program.find_app()
        }

        fn is_strict(&self) -> bool {
            false
        }

        fn warn(&self, _text: &str) {}
    }
    let _turn = alone();
    let folder = Folder::new("reentrant");
    let path = folder.file("later/shop.v3.seg");
    fs::write(folder.file("later"), "in the way").unwrap();
    let store = store();
    let requests = counter(&store, "requests");
    inc(&requests, &Program::new(&path), 7);
    fs::remove_file(folder.file("later")).unwrap();
    let host = Reentrant { program: Program::new(&path), handle: RefCell::new(Some(&requests)) };
    store.ask_again_now();
    requests.apply_slowly(&host, &add(1)).unwrap();
    assert_eq!(value(&path, "requests"), Some(9.0));
}

#[test]
fn a_strict_program_is_refused_instead() {
    let _turn = alone();
    let folder = Folder::new("strict");
    let path = folder.file("shop.v3.seg");
    let host = Program { strict: true, ..Program::new(&path) };
    let store = Store::new(Source::App, Options { metrics_max: 1, ..options() });
    inc(&counter(&store, "one"), &host, 1);
    let refused = counter(&store, "two").apply_slowly(&host, &add(1)).unwrap_err();
    assert!(refused.text.contains("no room for metric two"), "{refused}");
    let host = Program { strict: true, ..Program::new(&folder.file("none/shop.v3.seg")) };
    fs::write(folder.file("none"), "a file").unwrap();
    let store = self::store();
    let refused = counter(&store, "one").apply_slowly(&host, &add(1)).unwrap_err();
    assert_eq!(refused.kind, Kind::Segment);
}

#[test]
fn private_memory_is_left_when_the_segment_can_be_had() {
    let _turn = alone();
    let folder = Folder::new("back");
    let path = folder.file("later/shop.v3.seg");
    fs::write(folder.file("later"), "in the way").unwrap();
    let host = Program::new(&path);
    let store = store();
    let requests = counter(&store, "requests");
    inc(&requests, &host, 7);
    assert!(store.is_private() && store.fallback().is_some());
    fs::remove_file(folder.file("later")).unwrap();
    store.ask_again_now();
    (0..5000).for_each(|_| inc(&requests, &host, 1));
    assert!(!store.is_private() && store.fallback().is_none());
    assert_eq!(value(&path, "requests"), Some(5007.0));
}

/// What `track_inprogress` counts: a killed holder leaves nothing behind, wherever it was counted first.
#[test]
fn what_is_held_in_private_memory_comes_back_as_held() {
    let _turn = alone();
    let folder = Folder::new("held-back");
    let path = folder.file("later/shop.v3.seg");
    fs::write(folder.file("later"), "in the way").unwrap();
    let board = Board::new(2);
    let child = fork(|| {
        let host = Program::new(&path);
        let store = store();
        let shape = OwnedShape::Gauge(GaugeMode::MostRecent);
        let level = Handle::new(store.clone(), define(&store, "level", shape, &[]), String::new());
        let change = |update: &dyn Fn(&Writer, &Series) -> Outcome| {
            level.apply_slowly(&host, &update).unwrap();
        };
        change(&|writer, series| writer.shift(series, 5.0));
        let holds = [(); 2].map(|()| level.hold(&host).unwrap().unwrap());
        assert!(store.is_private());
        fs::remove_file(folder.file("later")).unwrap();
        store.ask_again_now();
        level.give_back(&host, &holds[0]).unwrap();
        assert!(!store.is_private());
        board.set(0, 1);
        board.wait(1, 1);
        0
    });
    board.wait(0, 1);
    assert_eq!(value(&path, "level"), Some(6.0), "one of the two is still held");
    child.kill();
    assert_eq!(value(&path, "level"), Some(5.0));
}

/// What a parent counted in private memory is the parent's to give back: not its children's too.
#[test]
fn a_child_of_a_process_in_private_memory_gives_back_its_own_alone() {
    let _turn = alone();
    let folder = Folder::new("own");
    let path = folder.file("later/shop.v3.seg");
    fs::write(folder.file("later"), "in the way").unwrap();
    let host = Program::new(&path);
    let store = store();
    let requests = counter(&store, "requests");
    inc(&requests, &host, 100);
    let child = fork(|| {
        inc(&requests, &host, 1);
        fs::remove_file(folder.file("later")).unwrap();
        store.ask_again_now();
        inc(&requests, &host, 1);
        i32::from(store.is_private())
    });
    child.join();
    store.ask_again_now();
    inc(&requests, &host, 1);
    assert_eq!(value(&path, "requests"), Some(103.0));
}

#[test]
fn a_child_forked_in_the_middle_counts_what_it_counts() {
    let _turn = alone();
    let folder = Folder::new("fork");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = store();
    let requests = counter(&store, "requests");
    inc(&requests, &host, 1);
    let board = Board::new(1);
    let children: Vec<Child> = (0..8)
        .map(|_| {
            fork(|| {
                (0..1000).for_each(|_| inc(&requests, &host, 1));
                board.add(0, 1);
                board.wait(0, 8);
                0
            })
        })
        .collect();
    children.into_iter().for_each(Child::join);
    let segment = Segment::attach(&path).unwrap();
    assert_eq!(total(&segment, "requests", ""), Some(8001.0));
    assert_eq!(segment.slots().len(), 9);
    assert!(segment.slot_is_alive(0), "the parent's");
    assert_eq!(segment.slots().iter().filter(|slot| slot.alive).count(), 1);
}

#[test]
fn a_changed_definition_is_a_matter_of_its_family() {
    let _turn = alone();
    let folder = Folder::new("changed");
    let path = folder.file("shop.v3.seg");
    let board = Board::new(1);
    let took = |bounds: &[f64]| {
        let store = store();
        let family = define(&store, "took", OwnedShape::Explicit(bounds.to_vec()), &[]);
        let keep = counter(&store, "keep");
        (Handle::new(store, family, String::new()), keep)
    };
    let observe = |writer: &Writer, series: &Series| writer.observe(series, 0.5, 1);
    let host = Program::new(&path);
    let (old, keep) = took(&[1.0, 2.0]);
    old.apply_slowly(&host, &observe).unwrap();
    inc(&keep, &host, 10);
    // A rolling upgrade: one new process beside the old one, each at work.
    let child = fork(|| {
        let (new, keep) = took(&[1.0, 5.0]);
        for _ in 0..100 {
            new.apply_slowly(&Program::new(&path), &observe).unwrap();
            inc(&keep, &Program::new(&path), 1);
        }
        board.set(0, 1);
        board.wait(0, 2);
        0
    });
    board.wait(0, 1);
    for _ in 0..50 {
        old.apply_slowly(&host, &observe).unwrap();
        inc(&keep, &host, 1);
    }
    assert_eq!((value(&path, "took"), value(&path, "keep")), (Some(100.0), Some(160.0)));
    // The new one is rolled back: the old one counts again, from zero.
    board.set(0, 2);
    child.join();
    while value(&path, "took") != Some(0.0) {
        (0..1000).for_each(|_| inc(&keep, &host, 0));
    }
    old.apply_slowly(&host, &observe).unwrap();
    assert_eq!((value(&path, "took"), value(&path, "keep")), (Some(1.0), Some(160.0)));
}

/// Of few updates, too: who counts once in a while learns with the next one that nobody newer lives.
#[test]
fn an_old_process_counts_on_the_page_again_when_the_newer_ones_are_gone() {
    let _turn = alone();
    let folder = Folder::new("again");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = store();
    let took = |store: &Arc<Store>, bounds: &[f64]| {
        let family = define(store, "took", OwnedShape::Explicit(bounds.to_vec()), &[]);
        Handle::new(store.clone(), family, String::new())
    };
    let observe = |writer: &Writer, series: &Series| writer.observe(series, 0.5, 1);
    let count = |handle: &Handle| {
        if !handle.try_apply(&observe) {
            handle.apply_slowly(&host, &observe).unwrap();
        }
    };
    let old = took(&store, &[1.0]);
    count(&old);
    fork(|| {
        count(&took(&self::store(), &[1.0, 2.0]));
        0
    })
    .join();
    let pause = || std::thread::sleep(std::time::Duration::from_millis(1100));
    // It hears of the other one in one of 64 updates.
    (0..64).for_each(|_| count(&old));
    pause();
    count(&old);
    pause();
    count(&old);
    let before = value(&path, "took").unwrap();
    count(&old);
    count(&old);
    assert_eq!(value(&path, "took"), Some(before + 2.0));
    let segment = Segment::attach(&path).unwrap();
    let shape = segment.view().families()[0].meta().shape.clone();
    assert_eq!(shape, OwnedShape::Explicit(vec![1.0]), "its own definition");
}
