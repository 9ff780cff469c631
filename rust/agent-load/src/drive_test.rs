//! One executor in a thread, told and heard over socket pairs, against a target of a few lines.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use serde_json::Value;

use crate::{run_executor, system};

/// Lines until an event, added up: counts, failures, and the number of values of each latency.
type Totals = BTreeMap<String, u64>;

struct Run {
    orders: Option<UnixStream>,
    lines: BufReader<UnixStream>,
    thread: Option<JoinHandle<i32>>,
    totals: Totals,
}

impl Run {
    fn start(target: &str, extra: &str) -> Run {
        Run::start_asking(target, extra, 1)
    }

    fn start_asking(target: &str, extra: &str, every: u16) -> Run {
        let (control, orders) = UnixStream::pair().unwrap();
        let (lines, report) = UnixStream::pair().unwrap();
        let plan = format!(
            r#"{{"connections": 50, "target": "{target}", "protocol": "statsd", "opening_max": 8, "ack_every": {every},
            "sources": {{"loopback": {{"first": 0, "count": 2}}}}, "connect_timeout_s": 5,
            "metric": "load", "run": "r1", "seed": 1, {extra},
            "control_fd": {}, "report_fd": {}}}"#,
            control.as_raw_fd(),
            report.as_raw_fd()
        );
        let thread = std::thread::spawn(move || {
            let code = run_executor(plan.as_bytes());
            system::close(report.into_raw_fd());
            system::close(control.into_raw_fd());
            code
        });
        let mut run = Run {
            orders: Some(orders),
            lines: BufReader::new(lines),
            thread: Some(thread),
            totals: Totals::new(),
        };
        run.until("ready");
        run.order(&format!("begin {}", system::now_ns()));
        run
    }

    fn order(&mut self, line: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Reads up to an event and gives the last line of figures before it.
    fn until(&mut self, event: &str) -> Value {
        let mut last = Value::Null;
        loop {
            let mut line = String::new();
            assert_ne!(
                self.lines.read_line(&mut line).unwrap(),
                0,
                "no {event}: {:?}",
                self.totals
            );
            let told: Value = serde_json::from_str(&line).unwrap();
            if told["event"] == event {
                return last;
            }
            self.add(&told);
            last = told;
        }
    }

    fn add(&mut self, told: &Value) {
        for part in ["counts", "failures"] {
            for (name, count) in told[part].as_object().into_iter().flatten() {
                *self.totals.entry(name.clone()).or_default() += count.as_u64().unwrap();
            }
        }
        for (name, delta) in told["latency"].as_object().into_iter().flatten() {
            let counts = delta["buckets"].as_array().unwrap().iter();
            let sum: u64 = counts.map(|pair| pair[1].as_u64().unwrap()).sum();
            *self.totals.entry(format!("latency {name}")).or_default() += sum;
        }
    }

    fn total(&self, name: &str) -> u64 {
        self.totals.get(name).copied().unwrap_or(0)
    }

    fn end(&mut self) -> i32 {
        self.orders = None;
        self.thread.take().unwrap().join().unwrap()
    }
}

const PATIENT: &str = r#""ack_timeout_s": 5, "reconnect": null"#;

/// A target: `answer` gets each connection, with its number, in a thread of its own.
fn target(answer: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = std::sync::Arc::new(answer);
    // They end with the test process.
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(number, stream.unwrap()));
        }
    });
    address
}

/// Sends every `_ack` line back.
fn acknowledge(stream: TcpStream) {
    let mut out = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        if line.starts_with("_ack|") && out.write_all(format!("{line}\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// Messages on their way for some time, then none, and all accounted for.
fn send_for_a_while(run: &mut Run, enough: u64) {
    run.order(&format!("message 20000000 {}", system::now_ns()));
    let mut last = Value::Null;
    while run.total("messages_sent") < enough {
        let mut line = String::new();
        assert_ne!(run.lines.read_line(&mut line).unwrap(), 0);
        last = serde_json::from_str(&line).unwrap();
        run.add(&last);
    }
    assert!(last["cpu_s"].as_f64().unwrap() > 0.0);
    run.order("finish");
    run.until("quiet");
    let ended = run.total("messages_acked") + run.total("nacked") + run.total("messages_uncertain");
    assert_eq!(run.total("messages_sent"), ended, "{:?}", run.totals);
}

#[test]
fn it_opens_sends_and_closes_and_every_message_is_accounted_for() {
    let mut run = Run::start(&target(|_, stream| acknowledge(stream)), PATIENT);
    run.order(&format!("open 1000 {}", system::now_ns()));
    let figures = run.until("opened");
    assert_eq!(figures["open"], 50);
    assert_eq!((run.total("opened"), run.total("latency connect")), (50, 50));
    send_for_a_while(&mut run, 1000);
    assert_eq!(run.total("messages_sent"), run.total("messages_acked"));
    for name in ["latency message", "latency service"] {
        assert_eq!(run.total(name), run.total("messages_acked"));
    }
    let in_time = run.total("messages_sent") - run.total("messages_deferred");
    assert_eq!(run.total("latency dispatch"), in_time);
    run.order("close fin");
    assert_eq!(run.until("closed")["open"], 0);
    run.order(&format!("open 0 {}", system::now_ns()));
    assert_eq!(run.until("opened")["open"], 50);
    run.order("stop");
    run.until("done");
    assert_eq!(run.total("opened"), 100);
    assert_eq!(run.total("closed_by_peer") + run.total("broken"), 0);
    assert_eq!(run.end(), 0);
}

#[test]
fn one_answer_stands_for_all_messages_before_it() {
    let mut run = Run::start_asking(&target(|_, stream| acknowledge(stream)), PATIENT, 7);
    run.order(&format!("open 0 {}", system::now_ns()));
    run.until("opened");
    send_for_a_while(&mut run, 1003);
    assert_eq!(run.total("messages_sent"), run.total("messages_acked"));
    let answers = run.total("latency message");
    assert!(answers > 0 && answers * 7 <= run.total("messages_acked"));
    assert_eq!(run.end(), 0);
}

#[test]
fn connections_to_nobody_fail_with_the_reason() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let mut run = Run::start(&address, PATIENT);
    run.order(&format!("open 0 {}", system::now_ns()));
    assert_eq!(run.until("opened")["open"], 0);
    assert_eq!((run.total("refused"), run.total("opened")), (50, 0));
    assert_eq!(run.end(), 0);
}

#[test]
fn lost_connections_come_back_and_the_time_that_took_is_told() {
    // Each of the first fifty is ended after its first line.
    let address = target(|number, mut stream| match number {
        0..50 => drop(stream.read(&mut [0; 64])),
        _ => acknowledge(stream),
    });
    let extra = r#""ack_timeout_s": 5, "reconnect": {"min_s": 0.01, "max_s": 0.05}"#;
    let mut run = Run::start(&address, extra);
    run.order(&format!("open 0 {}", system::now_ns()));
    run.until("opened");
    send_for_a_while(&mut run, 2000);
    assert_eq!(run.total("closed_by_peer") + run.total("broken"), 50);
    assert_eq!(run.total("messages_uncertain"), 50);
    assert_eq!((run.total("reconnected"), run.total("latency recovery")), (50, 50));
    assert_eq!(run.end(), 0);
}

#[test]
fn a_target_that_does_not_answer_costs_the_connection() {
    let address = target(|_, mut stream| while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {});
    let mut run = Run::start(&address, r#""ack_timeout_s": 0.2, "reconnect": null"#);
    run.order(&format!("open 0 {}", system::now_ns()));
    run.until("opened");
    run.order(&format!("message 20000000 {}", system::now_ns()));
    while run.total("ack_timed_out") < 50 {
        let mut line = String::new();
        assert_ne!(run.lines.read_line(&mut line).unwrap(), 0);
        run.add(&serde_json::from_str(&line).unwrap());
    }
    assert_eq!(run.total("messages_uncertain"), 50);
    assert!(run.total("messages_deferred") > 0, "they waited for the answer");
    assert_eq!(run.end(), 0);
}

#[test]
fn an_answer_that_is_none_ends_the_connection() {
    let address = target(|_, mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"_ack|somebody else's\n");
        let _ = stream.read(&mut [0; 64]);
    });
    let mut run = Run::start(&address, PATIENT);
    run.order(&format!("open 0 {}", system::now_ns()));
    run.until("opened");
    run.order(&format!("message 20000000 {}", system::now_ns()));
    while run.total("answer_bad") < 50 {
        let mut line = String::new();
        assert_ne!(run.lines.read_line(&mut line).unwrap(), 0);
        run.add(&serde_json::from_str(&line).unwrap());
    }
    assert_eq!(run.total("messages_acked"), 0);
    assert_eq!(run.end(), 0);
}

#[test]
fn nonsense_from_the_controller_ends_it_with_the_reason() {
    let mut run = Run::start("127.0.0.1:9", PATIENT);
    run.order("dance");
    let mut line = String::new();
    while !line.contains("failed") {
        line.clear();
        assert_ne!(run.lines.read_line(&mut line).unwrap(), 0);
    }
    assert!(line.contains("dance"), "{line}");
    assert_eq!(run.end(), 70);
}
