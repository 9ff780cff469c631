//! The walk can fail: operations that are wrong on purpose are found, each with its instruction and its reason.
//!
//! A program of its own instead of tests in the harness: what forks must have one thread.

use agent_shm::{MetricSpec, Outcome, Segment, Series, Shape, Writer};
use agent_torture::{
    on_segment, run, run_table, Act, Error, Grain, Next, Operation, Options, Random, StepReport,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn main() {
    if let Err(error @ (Error::NotSupported { .. } | Error::Forbidden { .. })) =
        run_table(&[], &options(), &mut |_| Next::Continue)
    {
        println!("not run: {error}");
        return;
    }
    what_is_right_is_not_found_fault_with();
    a_count_and_then_a_sum_are_found_torn();
    two_series_one_after_the_other_are_found_half_done();
    what_was_in_and_is_out_again_is_found();
    what_an_operation_does_beside_is_found();
    an_operation_that_fails_is_found();
    a_seed_repeats_what_it_found();
    an_operation_that_does_not_exist_is_named();
    whoever_is_told_of_progress_may_stop();
    a_process_with_threads_is_refused();
    println!("operations that are wrong on purpose are found");
}

fn options() -> Options {
    Options {
        seed: 7,
        time_limit: Duration::from_secs(600),
        rounds: Some(2),
        operations: Vec::new(),
        folder: None,
    }
}

/// The reasons that a run of this operation finds.
fn reasons(operation: Operation) -> Vec<String> {
    let report = walk(operation, options());
    assert!(report.kill_points() > 0);
    report.findings().map(|finding| finding.reason.clone()).collect()
}

fn walk(operation: Operation, options: Options) -> StepReport {
    run_table(&[operation], &options, &mut |_| Next::Continue).unwrap()
}

#[track_caller]
fn assert_found(operation: Operation, reason: &str) {
    let found = reasons(operation);
    assert!(found.iter().any(|found| found.contains(reason)), "{reason:?} is not in {found:?}");
}

fn series(writer: &Writer, shape: Shape<'_>, labels: &str) -> Series {
    let spec = MetricSpec { name: "wrong", help: "", unit: "", shape };
    writer.series(writer.metric(&spec).unwrap(), labels).unwrap()
}

const CLASSIC: Shape<'static> = Shape::Explicit(&[1.0, 2.0]);
/// Numbers that stand nowhere else in the file.
const COUNT: u64 = 776_655;
const OTHER: u64 = 443_322;
const THIRD: u64 = 221_144;

/// A histogram with `COUNT` values of 2, and two counters.
fn prepare(segment: &Segment, _: &mut Random) -> Writer {
    let writer = segment.writer().unwrap();
    let applied = |outcome| assert_eq!(outcome, Outcome::Applied);
    let spec = |name, shape| MetricSpec { name, help: "", unit: "", shape };
    let get =
        |name, shape| writer.series(writer.metric(&spec(name, shape)).unwrap(), "k=\"v\"").unwrap();
    applied(writer.observe(&get("h", CLASSIC), 2.0, COUNT));
    applied(writer.add(&get("c", Shape::Counter), OTHER));
    applied(writer.add(&get("d", Shape::Counter), THIRD));
    writer
}

/// The segment, mapped once more: what an operation that does not keep to the rules writes through.
struct Words(&'static [AtomicU64]);

impl Words {
    fn of(writer: &Writer) -> Words {
        let file = std::fs::File::options().read(true).write(true).open(writer.segment().path());
        let file = file.unwrap();
        let bytes = file.metadata().unwrap().len() as usize;
        // SAFETY: a new shared mapping of the whole file, which keeps its length and stays mapped until the child ends.
        let words = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            let base = libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0);
            assert_ne!(base, libc::MAP_FAILED);
            std::slice::from_raw_parts(base.cast(), bytes / 8)
        };
        Words(words)
    }

    /// The word that has this value, or the next one, when it is repeated on a segment where it is done already.
    fn find(&self, value: u64) -> &'static AtomicU64 {
        let has = |value| self.0.iter().find(move |word| word.load(Ordering::Relaxed) == value);
        has(value).or_else(|| has(value + 1)).unwrap_or_else(|| panic!("{value} stands nowhere"))
    }

    fn after(&self, word: &AtomicU64, words: isize) -> &'static AtomicU64 {
        let index = (std::ptr::from_ref(word) as usize - self.0.as_ptr() as usize) / 8;
        &self.0[index.checked_add_signed(words).unwrap()]
    }
}

fn what_is_right_is_not_found_fault_with() {
    let operation = on_segment("right", "test", Grain::Whole, prepare, |w, _| {
        let series = series(w, CLASSIC, "");
        Box::new(move |w| assert_eq!(w.observe(&series, 2.0, 1), Outcome::Applied))
    });
    assert_eq!(reasons(operation), Vec::<String>::new());
}

fn a_count_and_then_a_sum_are_found_torn() {
    fn bind(writer: &Writer, _: &mut Random) -> Act {
        let words = Words::of(writer);
        let count = words.find(COUNT);
        let sum = words.after(count, 1);
        Box::new(move |_| {
            let more = f64::from_bits(sum.load(Ordering::Relaxed)) + 2.0;
            count.fetch_add(1, Ordering::SeqCst);
            sum.store(more.to_bits(), Ordering::SeqCst);
        })
    }
    assert_found(on_segment("torn", "test", Grain::Whole, prepare, bind), "half done");
    // As a batch, whose buckets may be in one by one, but not without their sums.
    assert_found(on_segment("torn", "test", Grain::Buckets, prepare, bind), "its buckets say");
}

fn two_series_one_after_the_other_are_found_half_done() {
    let bind = |writer: &Writer, _: &mut Random| -> Act {
        let words = Words::of(writer);
        let (one, two) = (words.find(OTHER), words.find(THIRD));
        Box::new(move |_| {
            one.fetch_add(1, Ordering::SeqCst);
            two.fetch_add(1, Ordering::SeqCst);
        })
    };
    assert_found(on_segment("two", "test", Grain::Whole, prepare, bind), "half done");
}

fn what_was_in_and_is_out_again_is_found() {
    let bind = |writer: &Writer, _: &mut Random| -> Act {
        let word = Words::of(writer).find(OTHER);
        Box::new(move |_| {
            word.fetch_add(1, Ordering::SeqCst);
            word.fetch_sub(1, Ordering::SeqCst);
            word.fetch_add(1, Ordering::SeqCst);
        })
    };
    assert_found(on_segment("back", "test", Grain::Whole, prepare, bind), "is out again");
}

fn what_an_operation_does_beside_is_found() {
    let bind = |writer: &Writer, _: &mut Random| -> Act {
        let id = series(writer, Shape::Counter, "").metric();
        // The row says that nothing changes, and there is a new series.
        Box::new(move |w| drop(w.series(id, "forgotten=\"1\"")))
    };
    assert_found(on_segment("forgets", "test", Grain::Nothing, prepare, bind), "it changes");
}

fn an_operation_that_fails_is_found() {
    let bind = |_: &Writer, _: &mut Random| -> Act { Box::new(|_| panic!("out of luck")) };
    assert_found(on_segment("fails", "test", Grain::Whole, prepare, bind), "out of luck");
    let bind = |_: &Writer, _: &mut Random| -> Act { Box::new(|_| std::process::abort()) };
    assert_found(on_segment("aborts", "test", Grain::Whole, prepare, bind), "signal 6");
}

fn a_seed_repeats_what_it_found() {
    fn now_and_then() -> Operation {
        on_segment("now and then", "test", Grain::Whole, prepare, |writer, random| {
            let (other, series) =
                (Words::of(writer).find(OTHER), series(writer, Shape::Counter, ""));
            let is_wrong = random.chance(3);
            Box::new(move |w| {
                if is_wrong {
                    other.fetch_add(1, Ordering::SeqCst);
                }
                assert_eq!(w.add(&series, 1), Outcome::Applied);
            })
        })
    }
    let report = walk(now_and_then(), Options { rounds: Some(12), ..options() });
    let first = report.findings().next().unwrap().clone();
    assert!(report.findings().map(|finding| finding.seed).min() < Some(7 + 12));
    let again = walk(now_and_then(), Options { seed: first.seed, rounds: Some(1), ..options() });
    let again = again.findings().next().unwrap();
    assert_eq!((again.seed, &again.reason), (first.seed, &first.reason));
}

fn an_operation_that_does_not_exist_is_named() {
    let options = Options { operations: vec!["fly".into()], ..options() };
    let error = run(&options, &mut |_| Next::Continue).unwrap_err().to_string();
    assert!(error.contains("\"fly\"") && error.contains("inc by a fraction"), "{error}");
}

fn whoever_is_told_of_progress_may_stop() {
    let options = Options { operations: vec!["counter".into()], rounds: None, ..options() };
    let mut told = 0;
    let report = run(&options, &mut |progress| {
        told += 1;
        assert!(progress.kill_points > 0);
        if told == 3 {
            Next::Stop
        } else {
            Next::Continue
        }
    })
    .unwrap();
    assert_eq!(report.operations.iter().map(|operation| operation.walks).sum::<u64>(), 3);
    assert!(report.stopped);
}

fn a_process_with_threads_is_refused() {
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || receive.recv().is_ok());
    let error = run(&options(), &mut |_| Next::Continue).unwrap_err();
    assert!(matches!(error, Error::Threads { found: 2 }), "{error}");
    drop(send);
    assert!(!other.join().unwrap());
}
