//! What the operations of the core cost, in nanoseconds: `cargo run --release -p agent-shm --example cell_speed`.
//! Best of several rounds; the floor is a bare `lock xadd`.

use agent_shm::*;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn best(name: &str, turns: u64, mut work: impl FnMut(u64)) {
    let mut best = f64::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        for turn in 0..turns {
            work(turn);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / turns as f64);
    }
    println!("{name:<44} {best:>8.1} ns");
}

fn main() {
    let directory = std::env::temp_dir().join(format!("agent-cell-speed-{}", std::process::id()));
    let path = directory.join("speed.v3.seg");
    let segment = Segment::open_or_create(&path, "speed", &Options::collector()).unwrap();
    let writer = segment.writer().unwrap();
    let spec = |name, shape| MetricSpec { name, help: "", unit: "", shape };
    let make = |name, shape, labels: &str| {
        writer.series(writer.metric(&spec(name, shape)).unwrap(), labels).unwrap()
    };

    let floor = AtomicU64::new(0);
    best("floor: fetch_add", 10_000_000, |_| {
        black_box(floor.fetch_add(1, Ordering::Relaxed));
    });
    let counter = make("counter", Shape::Counter, "");
    best("counter add", 10_000_000, |_| assert!(writer.add(&counter, 1) == Outcome::Applied));
    best("counter add_f64 0.5", 10_000_000, |_| {
        assert!(writer.add_f64(&counter, 0.5) == Outcome::Applied)
    });
    let gauge = make("gauge", Shape::Gauge(GaugeMode::MostRecent), "");
    best("gauge set", 10_000_000, |_| assert!(writer.set(&gauge, 1.0) == Outcome::Applied));
    let bounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
    let explicit = make("explicit", Shape::Explicit(&bounds), "");
    best("explicit observe", 5_000_000, |n| {
        assert!(writer.observe(&explicit, (n & 1023) as f64 * 0.001, 1) == Outcome::Applied)
    });
    let exponential = make("exponential", Shape::Exponential { schema: 4 }, "");
    best("exponential observe", 5_000_000, |n| {
        assert!(writer.observe(&exponential, (n & 1023) as f64 * 0.001, 1) == Outcome::Applied)
    });
    best("ring record", 5_000_000, |n| writer.record(&exponential, RecordKind::Sample, n));
    best("series lookup", 1_000_000, |_| {
        black_box(writer.series(counter.metric(), "").unwrap());
    });

    let wide = writer.metric(&spec("wide", Shape::Counter)).unwrap();
    let before = segment.usage().bytes_committed;
    let start = Instant::now();
    let count = 90_000;
    for n in 0..count {
        let series = writer.series(wide, &format!("method=\"GET\",path=\"/v1/{n}\"")).unwrap();
        assert!(writer.add(&series, 1) == Outcome::Applied);
    }
    let each = start.elapsed().as_nanos() as f64 / f64::from(count);
    println!("{:<44} {each:>8.1} ns", "new series (with its label text)");
    let bytes = (segment.usage().bytes_committed - before) as f64 / f64::from(count);
    println!("{:<44} {bytes:>8.1} bytes", "memory per counter");
    let tall = writer.metric(&spec("tall", Shape::Explicit(&bounds))).unwrap();
    let before = segment.usage().bytes_committed;
    for n in 0..count {
        writer.series(tall, &format!("method=\"GET\",path=\"/v1/{n}\"")).unwrap();
    }
    let bytes = (segment.usage().bytes_committed - before) as f64 / f64::from(count);
    println!("{:<44} {bytes:>8.1} bytes", "memory per 15-bucket histogram");
    let start = Instant::now();
    let mut seen = 0_u64;
    for family in segment.view().families() {
        family.for_each(&mut |series| seen += series.labels.len() as u64);
    }
    black_box(seen);
    let total = segment.usage().series as f64;
    let each = start.elapsed().as_nanos() as f64 / total;
    println!("{:<44} {each:>8.1} ns a series", "view and read");
    std::fs::remove_dir_all(directory).unwrap();
}
