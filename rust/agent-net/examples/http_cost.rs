//! What the HTTP engine costs without sockets: `cargo run --release -p agent-net --example
//! http_cost`.
//!
//! Prints nanoseconds of one thread for a liveness probe as `wrk` sends it, for a push of one
//! sample, and for a sample of a push of a thousand; samples go into real cells. Best of five.

use std::time::Instant;

use agent_net::admission::{Peer, Shed};
use agent_net::apply::NormalSample;
use agent_net::config::WorkerConfig;
use agent_net::http::{HttpService, Ingest, Next};
use agent_net::telemetry::{Reason, SourceId};
use agent_shm::{Options, Segment};

/// Takes every sample and does nothing with it: what is measured is HTTP and JSON.
struct Nothing {
    samples: u64,
}

impl Ingest for Nothing {
    fn sample(&mut self, _: SourceId, _: &NormalSample<'_>) -> Result<(), Reason> {
        self.samples += 1;
        Ok(())
    }

    fn explain_conflict(&mut self, _: &NormalSample<'_>) -> Option<String> {
        None
    }

    fn reject(&mut self, _: SourceId, _: Reason, _: u64) {}

    fn admit_request(&mut self, _: &Peer, _: u64) -> Result<(), Shed> {
        Ok(())
    }

    fn charge(&mut self, _: &Peer, _: u64, _: u64) {}
}

fn measure(what: &str, service: &mut HttpService, request: &[u8], each: u64, rounds: u64) {
    let peer = Peer { address: None, row: 0 };
    let mut sink = Nothing { samples: 0 };
    let mut out = Vec::new();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let began = Instant::now();
        for round in 0..rounds {
            out.clear();
            let mut state = None;
            let (used, mut next) =
                service.on_bytes(&mut state, request, &peer, &mut out, &mut sink, round / 1000);
            while let Next::Apply(push) = next {
                next = service.apply_more(push, &peer, &mut out, &mut sink, round / 1000);
            }
            assert!(used == request.len() && matches!(next, Next::Write));
            assert!(out.starts_with(b"HTTP/1.1 200"));
        }
        best = best.min(began.elapsed().as_secs_f64());
    }
    println!("{what:<34} {:>8.0} ns", best * 1e9 / (rounds * each) as f64);
}

fn push(samples: &[String]) -> Vec<u8> {
    let body = format!("[{}]", samples.join(","));
    let length = body.len();
    let head =
        "POST /v1/push HTTP/1.1\r\nHost: localhost:9464\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn main() {
    if cfg!(debug_assertions) {
        eprintln!("a debug build measures nothing: use --release");
        std::process::exit(2);
    }
    let json = br#"{"worker":0,"segment":"","control_fd":0}"#;
    let config = WorkerConfig::from_json(json).expect("a config");
    let segment = Segment::private("agent", &Options::default());
    let mut service = HttpService::new(&config, &segment);
    let sample = |n: usize| {
        format!(
            r#"{{"name":"orders","type":"counter","value":{n},"labels":{{"shop":"eu","path":"/a/{n}"}}}}"#
        )
    };
    let probe = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n\r\n";
    measure("GET /livez", &mut service, probe, 1, 1_000_000);
    let browser = "GET /livez HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nUser-Agent: kube-probe/1.30\r\n\
        Accept: */*\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n";
    measure("GET /livez, six headers", &mut service, browser.as_bytes(), 1, 1_000_000);
    measure("POST /v1/push, one sample", &mut service, &push(&[sample(1)]), 1, 200_000);
    let thousand: Vec<String> = (0..1000).map(sample).collect();
    measure("POST /v1/push, a thousand, each", &mut service, &push(&thousand), 1000, 400);
}
