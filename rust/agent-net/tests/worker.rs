//! A whole worker: real sockets in, the segment and HTTP out.

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

use harness::{connect, expect_bytes, get, read_to_end, request, Worker, PATIENCE};
use serde_json::json;

#[test]
fn every_socket_ends_in_one_total_and_the_ledger_closes() {
    let mut worker = Worker::start("every", json!({}));
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    udp.send_to(b"hits:1|c\nhits:1|c", worker.udp).expect("sent");
    let unixgram = UnixDatagram::unbound().expect("a socket");
    unixgram.send_to(b"hits:10|c", &worker.unixgram).expect("sent");
    let mut tcp = connect(worker.tcp);
    tcp.write_all(b"hits:100|c\nbad line\n_ack|t\n").expect("sent");
    expect_bytes(&mut tcp, b"_ack|t\n");
    let mut unix = UnixStream::connect(&worker.unix).expect("connected");
    unix.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    // The framing of Datadog's clients, in two writes as they do it.
    for packet in [&b"hits:1000|c\nhits:1000|c"[..], b"_ack|u"] {
        unix.write_all(&(packet.len() as u32).to_le_bytes()).expect("sent");
        unix.write_all(packet).expect("sent");
    }
    expect_bytes(&mut unix, b"_ack|u\n");
    let body = r#"{"name": "hits", "type": "counter", "value": 10000}"#;
    let answer = request(
        worker.http,
        &format!(
            "POST /v1/push HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    worker.expect("hits{}", 12_112.0);
    assert_eq!(worker.ledger("statsd_tcp"), (2.0, 1.0, 1.0));
    assert_eq!(worker.ledger("statsd_unix"), (2.0, 2.0, 0.0));
    assert_eq!(worker.ledger("statsd_udp"), (2.0, 2.0, 0.0));
    assert_eq!(worker.ledger("push"), (1.0, 1.0, 0.0));
    let page = get(worker.http, "/metrics");
    assert!(page.contains("\nhits_total 12112\n"), "{page}");
    assert!(get(worker.http, "/livez").starts_with("HTTP/1.1 200"));
    drop((tcp, unix));
    assert_eq!(worker.drain(), 0);
}

#[test]
fn an_ack_covers_everything_before_it_on_many_connections() {
    let worker = Worker::start("acks", json!({}));
    let mut connections: Vec<_> = (0..50).map(|_| connect(worker.tcp)).collect();
    let text = b"load:1|c\nlat:3:4|ms|#a:b\n".repeat(1000);
    for round in 0..3 {
        for stream in &mut connections {
            stream.write_all(&text).expect("sent");
            stream.write_all(format!("_ack|{round}\n").as_bytes()).expect("sent");
        }
        for stream in &mut connections {
            expect_bytes(stream, format!("_ack|{round}\n").as_bytes());
        }
        let samples = 50_000.0 * f64::from(round + 1);
        let totals = worker.totals();
        assert_eq!(totals["load{}"], samples);
        assert_eq!(totals["lat_seconds{a=\"b\"}"], 2.0 * samples);
    }
    assert_eq!(worker.ledger("statsd_tcp").0, 450_000.0);
}

#[test]
fn bad_streams_are_counted_and_the_good_one_beside_them_goes_on() {
    let worker = Worker::start("bad", json!({"line_bytes_max": 1024}));
    let mut good = connect(worker.tcp);
    good.write_all(b"good:1|c\n").expect("sent");
    let mut long = connect(worker.tcp);
    long.write_all(&vec![b'x'; 1 << 20]).expect("sent");
    long.write_all(b"\nafter:1|c\n_ack|1\n").expect("sent");
    expect_bytes(&mut long, b"_ack|1\n");
    let mut noise = connect(worker.tcp);
    noise.write_all(&[0xff, 0x00, 0x80, b'\n', 1, 2, 3, b'\n']).expect("sent");
    noise.write_all(b"half:1|c\nhalf:5|c").expect("sent");
    drop(noise);
    let mut cut = connect(worker.tcp);
    cut.write_all(b"half:7").expect("sent");
    drop(cut);
    worker.expect("half{}", 6.0);
    worker.expect("after{}", 1.0);
    good.write_all(b"good:1|c\n_ack|2\n").expect("sent");
    expect_bytes(&mut good, b"_ack|2\n");
    worker.expect("good{}", 2.0);
    let reason = |word: &str| {
        format!(
            "agent_source_samples_rejected{{reason=\"{word}\",source=\"statsd_tcp\",worker=\"0\"}}"
        )
    };
    worker.expect(&reason("line_too_long"), 1.0);
    worker.expect(&reason("line_incomplete"), 1.0);
    worker.expect("agent_source_unterminated_lines{source=\"statsd_tcp\",worker=\"0\"}", 1.0);
    let (received, applied, rejected) = worker.ledger("statsd_tcp");
    assert_eq!(received, applied + rejected);
}

#[test]
fn connections_over_the_cap_are_reset_and_probes_still_get_in() {
    let worker = Worker::start("cap", json!({"connections_max": 5}));
    let mut held: Vec<_> = (0..5).map(|_| connect(worker.tcp)).collect();
    for (n, stream) in held.iter_mut().enumerate() {
        stream.write_all(format!("_ack|{n}\n").as_bytes()).expect("sent");
        expect_bytes(stream, format!("_ack|{n}\n").as_bytes());
    }
    let mut sixth = connect(worker.tcp);
    let error = sixth.read(&mut [0; 1]).expect_err("it was not kept");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(get(worker.http, "/livez").starts_with("HTTP/1.1 200"));
    assert!(get(worker.http, "/metrics").contains("agent_connections_refused_total"));
    let push = "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n";
    let answer = request(worker.http, push);
    assert!(answer.starts_with("HTTP/1.1 503"), "before its body: {answer}");
    assert!(answer.contains("Retry-After: "), "{answer}");
    drop(held.pop());
    worker
        .expect("agent_connections_closed{reason=\"eof\",source=\"statsd_tcp\",worker=\"0\"}", 1.0);
    let mut again = connect(worker.tcp);
    again.write_all(b"_ack|again\n").expect("sent");
    expect_bytes(&mut again, b"_ack|again\n");
}

#[test]
fn idle_and_slow_connections_are_closed_in_time() {
    let limits =
        json!({"stream_idle_timeout_s": 1, "http_idle_timeout_s": 1, "header_timeout_s": 1});
    let worker = Worker::start("idle", limits);
    let mut lines = connect(worker.tcp);
    lines.write_all(b"a:1|c\n").expect("sent");
    let mut http = connect(worker.http);
    http.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut slow = connect(worker.http);
    slow.write_all(b"GET /livez HTT").expect("sent");
    assert_eq!(read_to_end(&mut lines), b"");
    assert!(read_to_end(&mut http).starts_with(b"HTTP/1.1 200"));
    let answer = read_to_end(&mut slow);
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    let closed = |source: &str| {
        format!("agent_connections_closed{{reason=\"idle\",source=\"{source}\",worker=\"0\"}}")
    };
    worker.expect(&closed("statsd_tcp"), 1.0);
    worker.expect(&closed("http"), 1.0);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_a_large_page_streams() {
    let worker = Worker::start("pipeline", json!({}));
    let mut tcp = connect(worker.tcp);
    for n in 0..5000 {
        tcp.write_all(format!("page:1|c|#n:{n}\n").as_bytes()).expect("sent");
    }
    tcp.write_all(b"_ack|1\n").expect("sent");
    expect_bytes(&mut tcp, b"_ack|1\n");
    let mut http = connect(worker.http);
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    http.write_all(format!("{get}{get}{last}").as_bytes()).expect("sent");
    let answers = String::from_utf8(read_to_end(&mut http)).expect("text");
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 5);
    assert_eq!(answers.matches("page_total{n=\"4999\"} 1\n").count(), 2);
    worker.expect("agent_connections_open{source=\"http\",worker=\"0\"}", 0.0);
}

#[test]
fn a_reload_changes_limits_and_a_bad_one_changes_nothing() {
    let mut worker = Worker::start("reload", json!({}));
    let mut config = worker.config();
    config["limits"] = json!({"name_bytes_max": 8});
    config["mapping"] = json!([{"match": "old.*", "name": "new_$1"}]);
    worker.say(&format!("reload {config}"));
    assert_eq!(worker.said(), "reloaded");
    config["mapping"] = json!([{"match": "(", "match_type": "regex", "name": "x"}]);
    config["limits"] = json!({});
    worker.say(&format!("reload {config}"));
    assert!(worker.said().starts_with("refused mapping rule 0"));
    let mut tcp = connect(worker.tcp);
    tcp.write_all(b"old.a:1|c\nlong.name:1|c\n_ack|1\n").expect("sent");
    expect_bytes(&mut tcp, b"_ack|1\n");
    worker.expect("new_a{}", 1.0);
    assert_eq!(worker.ledger("statsd_tcp"), (2.0, 1.0, 1.0));
}

#[test]
fn a_drain_takes_what_was_sent_and_a_successor_goes_on_in_the_same_series() {
    let mut worker = Worker::start("drain", json!({}));
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut tcp = connect(worker.tcp);
    for _ in 0..100 {
        udp.send_to(b"hits:1|c", worker.udp).expect("sent");
        tcp.write_all(b"hits:1|c\n").expect("sent");
    }
    // It stays open while it is used, and is closed when it is quiet.
    tcp.write_all(b"hits:1|c\n_ack|1\n").expect("sent");
    expect_bytes(&mut tcp, b"_ack|1\n");
    worker.terminate();
    assert_eq!(read_to_end(&mut tcp), b"");
    assert_eq!(worker.wait(), 0);
    worker.expect("hits{}", 201.0);
    // Nobody listens now; the queue of the socket waits for the next worker.
    udp.send_to(b"hits:1|c", worker.udp).expect("sent");
    let mut waiting = connect(worker.tcp);
    waiting.write_all(b"hits:1|c\n_ack|2\n").expect("sent");
    worker.begin();
    expect_bytes(&mut waiting, b"_ack|2\n");
    worker.expect("hits{}", 203.0);
    assert_eq!(worker.ledger("statsd_udp"), (101.0, 101.0, 0.0));
}

#[test]
fn a_collector_that_leaves_serves_who_is_connected_and_refuses_who_comes_later() {
    let mut worker = Worker::start("leave", json!({}));
    let mut tcp = connect(worker.tcp);
    tcp.write_all(b"hits:1|c\n_ack|1\n").expect("sent");
    expect_bytes(&mut tcp, b"_ack|1\n");
    let mut unix = UnixStream::connect(&worker.unix).expect("connected");
    worker.say("drain");
    unix.write_all(b"hits:1|c\n_ack|2\n").expect("sent");
    expect_bytes(&mut unix, b"_ack|2\n");
    let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    let deadline = Instant::now() + PATIENCE;
    while !TcpStream::connect(worker.http).is_err_and(refused) {
        assert!(Instant::now() < deadline, "connections are still taken");
        // As long as somebody sends, the worker stays.
        tcp.write_all(b"hits:1|c\n_ack|3\n").expect("sent");
        expect_bytes(&mut tcp, b"_ack|3\n");
    }
    assert!(TcpStream::connect(worker.tcp).is_err_and(refused));
    assert!(UnixStream::connect(&worker.unix).is_err_and(refused));
    tcp.write_all(b"_ack|4\n").expect("sent");
    expect_bytes(&mut tcp, b"_ack|4\n");
    assert_eq!(worker.said(), "drained");
    assert_eq!(worker.wait(), 0);
}

#[test]
fn a_worker_whose_supervisor_vanishes_leaves_soon_whatever_its_peers_do() {
    let mut worker = Worker::start("gone", json!({"header_timeout_s": 600}));
    let mut lines = connect(worker.tcp);
    lines.write_all(b"hits:1|c\nhalf:1").expect("sent");
    let mut kept = connect(worker.http);
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut slow = connect(worker.http);
    slow.write_all(b"GET /livez HTT").expect("sent");
    worker.expect("hits{}", 1.0);
    // One that never pauses and never asks for an acknowledgement.
    let mut busy = connect(worker.tcp);
    let sender = std::thread::spawn(move || while busy.write_all(b"busy:1|c\n").is_ok() {});
    let began = std::time::Instant::now();
    let alone = UnixStream::pair().expect("a pair").0;
    worker.lines = std::io::BufReader::new(alone);
    assert_eq!(worker.wait(), 0);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    sender.join().expect("no panic");
    let (received, applied, rejected) = worker.ledger("statsd_tcp");
    assert_eq!(received, applied + rejected);
}

/// A request to push `samples` counters called `hits`, one of 20 without a name.
fn large_push(samples: usize) -> Vec<u8> {
    let good = b"{\"name\":\"hits\",\"type\":\"counter\",\"value\":1}\n".repeat(19);
    let body = [&good[..], b"{\"type\":\"counter\",\"value\":1}\n"].concat().repeat(samples / 20);
    let head = "POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n";
    let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

fn large_bodies() -> serde_json::Value {
    let bytes = 64 << 20;
    json!({"body_samples_max": 1_000_000, "body_decompressed_bytes_max": bytes,
        "bodies_bytes_max": 2 * bytes, "source_samples_per_s_max": 0,
        "source_window_samples_max": 0})
}

#[test]
fn while_a_million_samples_are_applied_probes_are_answered_between_them() {
    let worker = Worker::start("million", large_bodies());
    let request = large_push(1_000_000);
    let mut sender = connect(worker.http);
    let mut probe = connect(worker.http);
    let pushing = std::thread::spawn(move || {
        let probe = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        sender.write_all(&request).expect("sent");
        sender.write_all(probe.as_bytes()).expect("sent");
        String::from_utf8(read_to_end(&mut sender)).expect("text")
    });
    let all_began = Instant::now();
    let mut waits = Vec::new();
    while !pushing.is_finished() {
        let began = Instant::now();
        probe.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut answer = [0; 512];
        assert!(probe.read(&mut answer).expect("an answer") > 12);
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        waits.push(began.elapsed());
    }
    let took = all_began.elapsed();
    let answers = pushing.join().expect("no panic");
    assert!(answers.starts_with("HTTP/1.1 207 "), "{answers}");
    assert!(answers.contains("{\"accepted\":950000,\"rejected\":50000,"), "{answers}");
    assert!(answers.contains("{\"index\":19,\"line\":20,\"reason\":\"name_empty\","), "{answers}");
    assert!(answers.ends_with("\r\n\r\nok\n"), "what came behind it is answered behind it");
    assert_eq!(worker.ledger("push"), (1_000_000.0, 950_000.0, 50_000.0));
    assert_eq!(worker.totals()["hits{}"], 950_000.0);
    waits.sort_unstable();
    let median = waits[waits.len() / 2];
    println!("{} probes: median {median:?} of {took:?}", waits.len());
    // However fast the machine is: one that waits for the whole body would be the only one.
    assert!(median * 10 < took, "{} probes: median {median:?} of {took:?}", waits.len());
}

#[test]
fn a_body_is_applied_to_its_end_also_when_its_sender_has_gone_or_the_worker_leaves() {
    let mut worker = Worker::start("gone_sender", large_bodies());
    let mut waiting = connect(worker.http);
    waiting.write_all(&large_push(200_000)).expect("sent");
    let mut sender = connect(worker.http);
    sender.write_all(&large_push(200_000)).expect("sent");
    drop(sender);
    worker.say("drain");
    let answer = String::from_utf8(read_to_end(&mut waiting)).expect("text");
    assert!(answer.contains("{\"accepted\":190000,\"rejected\":10000,"), "{answer}");
    assert_eq!(worker.said(), "drained");
    assert_eq!(worker.wait(), 0);
    assert_eq!(worker.ledger("push"), (400_000.0, 380_000.0, 20_000.0));
}

#[test]
fn a_push_that_contradicts_a_metric_is_told_its_name_and_both_types() {
    let worker = Worker::start("conflict", json!({}));
    let mut tcp = connect(worker.tcp);
    tcp.write_all(b"jobs:1|c\nwait:1|h\n_ack|1\n").expect("sent");
    expect_bytes(&mut tcp, b"_ack|1\n");
    let cases = [
        ("jobs", "metric \"jobs\" exists as counter, not as gauge (mostrecent)"),
        ("jobs_total", "jobs_total is a gauge here, but the collector has it as a counter"),
        ("wait_count", "wait_count is a gauge here, but the collector has wait as a histogram"),
    ];
    for (name, why) in cases {
        let body = json!([{"name": name, "type": "gauge", "value": 1}]).to_string();
        let length = body.len();
        let head = "POST /v1/push HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let answer = request(worker.http, &format!("{head}Content-Length: {length}\r\n\r\n{body}"));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let (_, answer) = answer.split_once("\r\n\r\n").expect("a body");
        let answer: serde_json::Value = serde_json::from_str(answer).expect("JSON");
        let error = json!({"index": 0, "reason": "type_conflict", "detail": why});
        assert_eq!(answer["errors"][0], error, "{name}");
    }
    // The same on a line: it is refused and counted, and not hidden.
    tcp.write_all(b"wait.sum:1|g\n_ack|2\n").expect("sent");
    expect_bytes(&mut tcp, b"_ack|2\n");
    assert_eq!(worker.ledger("statsd_tcp"), (3.0, 2.0, 1.0));
}

#[test]
fn a_source_over_its_rate_is_told_so_and_loses_its_own_samples_only() {
    let limits = json!({"source_samples_per_s_max": 1000, "source_window_samples_max": 0});
    let worker = Worker::start("rate", limits);
    let mut tcp = connect(worker.tcp);
    tcp.write_all(&b"a:1|c\n".repeat(5000)).expect("sent");
    tcp.write_all(b"_ack|1\n").expect("sent");
    let mut first = [0; 1];
    tcp.read_exact(&mut first).expect("an answer");
    let mut unix = UnixStream::connect(&worker.unix).expect("connected");
    unix.write_all(b"b:1|c\n_ack|2\n").expect("sent");
    expect_bytes(&mut unix, b"_ack|2\n");
    let (received, applied, rejected) = worker.ledger("statsd_tcp");
    assert_eq!((received, applied + rejected), (5000.0, 5000.0));
    tcp.write_all(&b"a:1|c\n".repeat(10)).expect("sent");
    tcp.write_all(b"_ack|3\n").expect("sent");
    let mut rest = [0; 14];
    tcp.read_exact(&mut rest).expect("the rest of the first answer, and the second");
    assert!(rest.ends_with(b"_nack|3\n"), "{}", String::from_utf8_lossy(&rest));
}

/// Half a line, half a long line, a packet's prefix, a line that is skipped, answers that nobody has
/// read yet, a kept connection: all go on where they were.
#[test]
fn connections_go_on_with_the_successor_in_the_middle_of_whatever_they_were_doing() {
    let mut worker = Worker::start_generous("handover");
    let long = format!("hits{}", ":1.00000000".repeat(900));
    let too_long = "y".repeat(100_000);
    let begun = ["hits:1|c\nhits:", &format!("hits:1|c\n{long}"), &format!("hits:1|c\n{too_long}")];
    let mut lines = begun.map(|text| {
        let mut stream = connect(worker.tcp);
        stream.write_all(text.as_bytes()).expect("sent");
        stream
    });
    let mut packets = UnixStream::connect(&worker.unix).expect("connected");
    packets.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    packets.write_all(&[8, 0, 0, 0]).expect("sent");
    packets.write_all(b"hits:1|c\x08\0\0\0hits").expect("sent");
    let mut deaf = connect(worker.tcp);
    let asked = 40_000;
    let answers = std::thread::spawn({
        let mut deaf = deaf.try_clone().expect("a copy");
        move || {
            for n in 0..asked {
                deaf.write_all(format!("hits:1|c\n_ack|{n}\n").as_bytes()).expect("sent");
            }
        }
    });
    let mut kept = connect(worker.http);
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    expect_bytes(&mut kept, b"HTTP/1.1 200");
    answers.join().expect("sent");
    worker.expect("hits{}", 4.0 + f64::from(asked));
    worker.say("yield");
    let old = worker.hand_over();
    old.retire();
    assert!(old.left_within(PATIENCE));
    for (stream, rest) in lines.iter_mut().zip(["10|c\n", "|c\n", ":1|c\nhits:10|c\n"]) {
        stream.write_all(format!("{rest}_ack|end\n").as_bytes()).expect("sent");
        expect_bytes(stream, b"_ack|end\n");
    }
    packets.write_all(b":1|c").expect("sent");
    let mut read = BufReader::new(&mut deaf).lines();
    for n in 0..asked {
        assert_eq!(read.next().expect("more").expect("readable"), format!("_ack|{n}"));
    }
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let both = String::from_utf8_lossy(&read_to_end(&mut kept)).into_owned();
    assert_eq!(both.matches("HTTP/1.1 200").count(), 1, "{both}");
    worker.expect("hits{}", 4.0 + f64::from(asked) + 10.0 + 900.0 + 10.0 + 1.0);
    let too_long = "agent_source_samples_rejected{reason=\"line_too_long\",source=\"statsd_tcp\",\
        worker=\"0\"}";
    worker.expect(too_long, 1.0);
    let moved = "agent_connections_taken_over{source=\"statsd_tcp\",worker=\"0\"}";
    worker.expect(moved, 4.0);
    assert_eq!(worker.drain(), 0);
}

/// A worker as it is while its successor starts: same listeners, another control pipe, and no way to
/// hand anything over.
#[test]
fn a_retiring_worker_applies_what_it_has_received_and_its_successor_serves_the_queue_at_once() {
    let mut worker = Worker::start("retire", json!({}));
    let mut asks = connect(worker.tcp);
    asks.write_all(b"hits:1|c\n_ack|1\n").expect("sent");
    expect_bytes(&mut asks, b"_ack|1\n");
    let mut idle = connect(worker.tcp);
    idle.write_all(b"hits:1|c\n").expect("sent");
    let mut half = connect(worker.tcp);
    half.write_all(b"hits:1|c\nhits:1").expect("sent");
    let mut kept = connect(worker.http);
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    worker.expect("hits{}", 3.0);
    worker.expect("agent_connections_opened{source=\"http\",worker=\"0\"}", 1.0);
    worker.say("yield");
    let old = worker.hand_over();
    let mut waiting = connect(worker.tcp);
    waiting.write_all(b"hits:10|c\n_ack|2\n").expect("sent");
    asks.write_all(b"hits:100|c\n_ack|3\n").expect("sent");
    old.retire();
    // What was sent before the order counts and is answered; then the peer is to come back.
    assert_eq!(read_to_end(&mut asks), b"_ack|3\n");
    assert_eq!(read_to_end(&mut idle), b"");
    assert_eq!(read_to_end(&mut half), b"");
    assert!(read_to_end(&mut kept).starts_with(b"HTTP/1.1 200"));
    expect_bytes(&mut waiting, b"_ack|2\n");
    let mut again = connect(worker.tcp);
    again.write_all(b"hits:1000|c\n_ack|4\n").expect("sent");
    expect_bytes(&mut again, b"_ack|4\n");
    worker.expect("hits{}", 1113.0);
    let reason = "agent_source_samples_rejected{reason=\"line_incomplete\",source=\"statsd_tcp\",\
        worker=\"0\"}";
    worker.expect(reason, 1.0);
    assert!(old.left_within(PATIENCE));
    let (received, applied, rejected) = worker.ledger("statsd_tcp");
    assert_eq!(received, applied + rejected);
    assert_eq!(worker.drain(), 0);
}
