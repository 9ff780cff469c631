//! What a page costs: run with `cargo run --release -p agent-net --example render_cost`.
//!
//! Prints the time to render a segment of 100,000 and of 1,000,000 counters, and one of 500
//! counters and 500 histograms, each as the collector's own and as an app's (label `app`, label
//! text checked). Best of seven, single thread, into one buffer that is reused: no system call is
//! in it.

use std::time::Instant;

use agent_net::scrape::{render, Source};
use agent_shm::{MetricSpec, Options, Outcome, Segment, Shape};
use agent_wire::Format;

fn counters(count: usize) -> Segment {
    let options = Options { metric_series_max: 2_000_000, ..Options::collector() };
    let options = Options { series_max: 2_000_000, ..options };
    let segment = Segment::private("cost", &options);
    let writer = segment.writer().expect("a slot");
    for family in 0..10 {
        let name = format!("requests_{family}");
        let spec = MetricSpec { name: &name, help: "", unit: "", shape: Shape::Counter };
        let metric = writer.metric(&spec).expect("room");
        for n in 0..count / 10 {
            let labels = format!("code=\"200\",path=\"/items/{n}\"");
            let series = writer.series(metric, &labels).expect("room");
            assert_eq!(writer.add(&series, n as u64 * 977), Outcome::Applied);
        }
    }
    segment
}

fn mixed() -> Segment {
    let segment = Segment::private("cost", &Options::default());
    let writer = segment.writer().expect("a slot");
    for n in 0..500 {
        let name = format!("counter_{n}");
        let spec = MetricSpec { name: &name, help: "A.", unit: "", shape: Shape::Counter };
        let series = writer.series(writer.metric(&spec).expect("room"), "").expect("room");
        assert_eq!(writer.add(&series, n), Outcome::Applied);
        let name = format!("latency_{n}_seconds");
        let bounds: Vec<f64> = (0..14).map(|power| 0.001 * f64::from(1 << power)).collect();
        let shape = Shape::Explicit(&bounds);
        let spec = MetricSpec { name: &name, help: "A.", unit: "seconds", shape };
        let series = writer.series(writer.metric(&spec).expect("room"), "").expect("room");
        assert_eq!(writer.observe(&series, 0.01 * n as f64, 1), Outcome::Applied);
    }
    segment
}

fn measure(what: &str, segment: &Segment) {
    for (format, word) in [(Format::Text004, "text"), (Format::OpenMetrics100, "openmetrics")] {
        for source in [Source::own(segment), Source::of_app(segment, "shop")] {
            let mut out = Vec::new();
            let mut best = f64::INFINITY;
            for _ in 0..7 {
                out.clear();
                let began = Instant::now();
                render(&[source], format, &mut out);
                best = best.min(began.elapsed().as_secs_f64());
            }
            let app = if source.app.is_some() { "app" } else { "own" };
            let megabytes = out.len() as f64 / 1e6;
            println!("{what:<28} {word:<12} {app:<4} {:>8.2} ms {megabytes:>7.1} MB", best * 1e3);
        }
    }
}

fn main() {
    if cfg!(debug_assertions) {
        eprintln!("a debug build measures nothing: use --release");
        std::process::exit(2);
    }
    measure("500 counters + 500 histograms", &mixed());
    measure("100,000 counters", &counters(100_000));
    measure("1,000,000 counters", &counters(1_000_000));
}
