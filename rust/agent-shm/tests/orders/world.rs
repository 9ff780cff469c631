//! What every model needs: a small segment, the exploration itself, and what must hold when everything is over.

use agent_shm::*;
#[cfg(loom)]
pub use loom::thread;
#[cfg(shuttle)]
pub use shuttle::thread;

/// Small, so that a model fits: a page holds four series, three overflow series or two metrics.
pub fn segment(pages: u64, series_max: u32) -> Segment {
    let options = Options {
        series_max,
        metric_series_max: 16,
        metrics_max: 4,
        slots_max: 5,
        ring_records: 2,
        recent_max: 2,
        bytes_max: pages * 256,
    };
    Segment::private("m", &options)
}

/// Steps of a model, its preparation included.
#[cfg(loom)]
const BRANCHES_MAX: usize = 50_000;

#[cfg(loom)]
thread_local! {
    static SPAWNED_FIRST: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Orders with at most so many preemptions; without a bound, with any number. `LOOM_MAX_PREEMPTIONS` overrules it.
///
/// Not every one: loom keeps one access of each word to tell what depends on what, and a thread that reads a word before it
/// changes it hides that another one had read it (loom's issues 166 and 392). Then the order in which the change comes
/// first is not tried, if the other thread ran first. So models of two threads begin with either of them.
#[cfg(loom)]
pub fn explore(preemptions_max: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    explore_from(preemptions_max, false, std::sync::Arc::new(run));
}

/// As [`explore`], with the thread that calls [`spawn`] as the first, and then with the one that is spawned.
#[cfg(loom)]
pub fn explore_pair(preemptions_max: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let run = std::sync::Arc::new(run);
    explore_from(preemptions_max, false, run.clone());
    explore_from(preemptions_max, true, run);
}

#[cfg(loom)]
fn explore_from(
    preemptions_max: Option<usize>,
    spawned_first: bool,
    run: std::sync::Arc<impl Fn() + Sync + Send + 'static>,
) {
    use std::sync::atomic::{AtomicU64, Ordering};
    SPAWNED_FIRST.set(spawned_first);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions_max);
    // What comes before the first thread has one order.
    builder.expect_explicit_explore = true;
    builder.max_branches = BRANCHES_MAX;
    let orders = std::sync::Arc::new(AtomicU64::new(0));
    let (count, began) = (orders.clone(), std::time::Instant::now());
    let bound = builder.preemption_bound;
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        run();
    });
    let name = std::thread::current().name().unwrap_or_default().to_string();
    let (orders, seconds) = (orders.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    let first = if spawned_first { ", the spawned one first" } else { "" };
    println!("{name}: {orders} orders{first}, preemptions {bound:?}, {seconds:.1} s");
}

#[cfg(shuttle)]
pub use self::explore as explore_pair;

/// `AGENT_SCHEDULES` random orders, half of them by priorities that change at few points (PCT), from `AGENT_SEED`.
#[cfg(shuttle)]
pub fn explore(_preemptions_max: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    };
    let (schedules, seed) = (number("AGENT_SCHEDULES", 20_000), number("AGENT_SEED", 1));
    let mut config = shuttle::Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    let run = std::sync::Arc::new(run);
    let began = std::time::Instant::now();
    let half = schedules as usize / 2;
    let same = run.clone();
    let scheduler = RandomScheduler::new_from_seed(seed, schedules as usize - half);
    let random = shuttle::Runner::new(scheduler, config.clone()).run(move || same());
    let scheduler = PctScheduler::new_from_seed(seed, 4, half);
    let pct = shuttle::Runner::new(scheduler, config).run(move || run());
    let name = std::thread::current().name().unwrap_or_default().to_string();
    let seconds = began.elapsed().as_secs_f64();
    println!("{name}: {random} random and {pct} PCT schedules, seed {seed}, {seconds:.1} s");
}

/// Starts the one other thread of a model of two: from here on, orders matter.
pub fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    let handle = spawn_first(run);
    #[cfg(loom)]
    if SPAWNED_FIRST.get() {
        thread::yield_now();
    }
    handle
}

/// Starts the first of several other threads of a model: from here on, orders matter.
pub fn spawn_first<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    #[cfg(loom)]
    loom::explore();
    thread::spawn(run)
}

pub use self::thread::spawn as spawn_next;

pub fn metric(writer: &Writer, shape: Shape<'_>) -> MetricId {
    writer.metric(&MetricSpec { name: "m", help: "", unit: "", shape }).unwrap()
}

pub fn applied(outcome: Outcome) {
    assert_eq!(outcome, Outcome::Applied);
}

/// Labels and counter total, or count and sum, of every series.
pub fn totals(view: View<'_>) -> Vec<(String, u64, f64)> {
    let mut found = Vec::new();
    for family in view.families() {
        family.for_each(&mut |series| {
            let labels = String::from_utf8(series.labels.to_vec()).unwrap();
            found.push(match series.value {
                Value::Counter { whole, fraction } => (labels, whole, fraction),
                Value::Summary { count, sum } => (labels, count, sum),
                Value::Histogram { count, sum, buckets } => {
                    assert_eq!(buckets.iter().map(|(_, n)| n).sum::<u64>(), count);
                    (labels, count, sum)
                }
                other => panic!("{other:?}"),
            });
        });
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Adds until it is applied, as a caller does.
pub fn add(writer: &Writer, metric: MetricId, labels: &str, n: u64) {
    while writer.add(&writer.series(metric, labels).unwrap(), n) == Outcome::Stale {
        thread::yield_now();
    }
}

/// Passes until nothing moves any more.
pub fn come_to_rest(writer: &Writer) {
    let rest = |done: Reclaimed| {
        assert!(done.passed, "the lock of the one who reclaims was left behind");
        done == Reclaimed { passed: true, pages: done.pages, ..Reclaimed::default() }
    };
    // Twice: the first may have done what it does not count.
    let rests = |_| rest(writer.reclaim_now()) && rest(writer.reclaim_now());
    assert!((0..8).any(rests), "something waits for ever");
}

/// When all is over: passes come to rest, so many blocks are in use and no more, the counts that limits are compared with
/// agree with what is there, and nothing reached outside.
pub fn settle(segment: &Segment, writer: &Writer, blocks: std::ops::RangeInclusive<usize>) {
    come_to_rest(writer);
    let in_use = segment.blocks_in_use();
    assert!(blocks.contains(&in_use), "{in_use} blocks are in use, not {blocks:?}");
    let there = totals(segment.view()).iter().filter(|series| series.0 != OVERFLOW_LABELS).count();
    let usage = segment.usage();
    assert_eq!((usage.series, usage.pending), (there as u64, 0), "counts");
    assert_eq!(usage.damage, 0);
}

/// Runs it once, in one order.
#[cfg(loom)]
pub fn once(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = BRANCHES_MAX;
    builder.check(run);
}
