//! Nanoseconds per line and per sample of the codecs, best of several rounds.
//!
//! `cargo run --release -p agent-wire --example wire_speed`. One thread, data in the cache; compare
//! numbers of one run only. Refuses a debug build.

use std::hint::black_box;
use std::time::Instant;

use agent_metric::{FamilyHead, FamilyKind, Piece, Sample, SampleValue};
use agent_wire::encoder;
use agent_wire::push_json::{self, Body};
use agent_wire::Format;
use agent_wire::{framing, labels, prometheus_text, statsd, Kind, Limits};

const ROUNDS: usize = 15;

/// Prints the best round of `work`, which does `units` things.
fn measure(what: &str, units: usize, mut work: impl FnMut()) {
    let best = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_nanos() as f64 / units as f64
        })
        .fold(f64::INFINITY, f64::min);
    println!("{what:<56} {best:8.1} ns");
}

fn line(limits: &Limits, text: &str) {
    const TIMES: usize = 200_000;
    measure(text, TIMES, || {
        for _ in 0..TIMES {
            let item = statsd::parse_line(black_box(text.as_bytes()), limits);
            black_box(&item).as_ref().expect("a good line");
        }
    });
}

fn main() {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build; use --release");
        std::process::exit(2);
    }
    let limits = Limits::default();
    line(&limits, "name:1|c");
    line(&limits, "name:1|c|#a:b,c:d");
    line(&limits, "shop.checkout.latency:12.75|ms|@0.5|#env:prod,host:web-1");
    line(&limits, "shop.checkout.latency:1:2:3:4:5:6:7:8|d|#env:prod");

    let packed = "shop.orders.paid:1|c|#shop:eu,kind:new\n".repeat(30);
    measure("framing + parse, a line of a packed datagram of 30", 30_000, || {
        for _ in 0..1000 {
            for line in framing::lines(black_box(packed.as_bytes())) {
                let _ = black_box(&statsd::parse_line(line, &limits));
            }
        }
    });

    let mut text = String::new();
    measure("labels of a:b,c:d", 200_000, || {
        for _ in 0..200_000 {
            let _ = labels::from_statsd_tags(black_box(b"a:b,c:d"), &limits, &mut text);
            black_box(&text);
        }
    });
    let mut name = String::new();
    measure("family of shop.orders.paid", 200_000, || {
        for _ in 0..200_000 {
            let raw = black_box(b"shop.orders.paid");
            black_box(agent_wire::name::family_into(Kind::Counter, raw, &mut name));
        }
    });

    let sample =
        r#"{"name":"shop.orders","type":"counter","value":1,"labels":{"shop":"eu","kind":"new"}}"#;
    let array = format!("[{}]", vec![sample; 1000].join(","));
    measure("JSON push, a sample of an array of 1000", 100_000, || {
        for _ in 0..100 {
            let body = black_box(array.as_bytes());
            black_box(push_json::decode(body, Body::Json, &limits, |sample| {
                black_box(sample);
                Ok(())
            }));
        }
    });
    let lines = vec![sample; 1000].join("\n");
    measure("NDJSON push, a sample of 1000 lines", 100_000, || {
        for _ in 0..100 {
            let body = black_box(lines.as_bytes());
            black_box(push_json::decode(body, Body::Ndjson, &limits, |_| Ok(())));
        }
    });

    let mut out = Vec::with_capacity(1 << 20);
    let mut page = encoder::of(Format::OpenMetrics100);
    let head = |name, kind| FamilyHead { name, help: "Help.", unit: "", kind, is_native: false };
    page.family(&head("shop_orders", FamilyKind::Counter), Piece::All, &mut out);
    measure("exposition, a counter with two labels", 100_000, || {
        for _ in 0..100 {
            out.clear();
            for value in 0..1000 {
                let value = SampleValue::Counter { whole: value, fraction: 0.0 };
                let sample = Sample::new(black_box(b"shop=\"eu\",kind=\"new\""), value);
                page.sample(&sample, &mut out);
            }
            black_box(&out);
        }
    });
    let buckets: Vec<(f64, u64)> = (0..15).map(|n| (0.001 * f64::from(1 << n), 10)).collect();
    page.family(&head("api_seconds", FamilyKind::Histogram), Piece::All, &mut out);
    measure("exposition, a histogram of 15 buckets", 10_000, || {
        for _ in 0..100 {
            out.clear();
            for _ in 0..100 {
                let value = SampleValue::Histogram { buckets: &buckets, sum: 2.5 };
                page.sample(&Sample::new(black_box(b"shop=\"eu\""), value), &mut out);
            }
            black_box(&out);
        }
    });

    let mut body = String::from("# TYPE a gauge\n");
    for n in 0..1000 {
        body.push_str(&format!("a{{shop=\"eu\",n=\"{n}\"}} {n}.5\n"));
    }
    measure("Prometheus text, a sample with two labels", 10_000, || {
        for _ in 0..10 {
            let _ = black_box(&prometheus_text::parse(black_box(body.as_bytes()), &limits));
        }
    });
}
