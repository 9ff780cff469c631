use super::*;
use proptest::prelude::*;

fn protocol(name: &str) -> Protocol {
    let json = format!(
        r#"{{"connections": 10, "target": "127.0.0.1:80", "protocol": "{name}", "sources": "any",
        "opening_max": 1, "ack_every": 1, "connect_timeout_s": 1, "ack_timeout_s": 1, "reconnect": null,
        "metric": "load.messages", "run": "r1", "seed": 0, "control_fd": 3, "report_fd": 4}}"#
    );
    Protocol::new(&Plan::from_json(json.as_bytes()).unwrap())
}

/// The answer to message 2 of connection 255, in two pieces.
fn in_pieces(protocol: &mut Protocol, answer: &[u8], cut: usize) -> Answer {
    let mut done = 0;
    let (first, second) = answer.split_at(cut);
    if !first.is_empty() {
        let seen = protocol.answer(255, 2, &mut done, first);
        if seen != Answer::Partial {
            return seen;
        }
    }
    protocol.answer(255, 2, &mut done, second)
}

#[test]
fn a_statsd_message_is_a_counter_and_asks_for_its_own_answer() {
    let mut protocol = protocol("statsd");
    let message = protocol.message(Part::Asking, 255, 2).to_vec();
    assert_eq!(message, b"load.messages:1|c|#run:r1\n_ack|000000ff00000002\n");
    assert_eq!(protocol.message(Part::Question, 0, u32::MAX), b"_ack|00000000ffffffff\n");
    assert_eq!(protocol.message(Part::Silent, 255, 3), b"load.messages:1|c|#run:r1\n");
}

#[test]
fn an_http_message_is_one_request_with_a_body_of_the_length_it_says() {
    let mut protocol = protocol("http");
    let message = String::from_utf8(protocol.message(Part::Asking, 1, 1).to_vec()).unwrap();
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/push HTTP/1.1\r\nHost: 127.0.0.1:80\r\n"));
    assert!(head.contains(&format!("Content-Length: {}", body.len())));
    let sample = r#"{"name":"load.messages","type":"counter","value":1,"labels":{"run":"r1"}}"#;
    assert_eq!(body, sample);
}

#[test]
fn answers_are_known_wherever_they_are_cut() {
    let http = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let accepted = r#"{"accepted":1,"rejected":0,"errors":[]}"#;
    for (name, answer, wanted) in [
        ("statsd", "_ack|000000ff00000002\n".to_owned(), Answer::Acked),
        ("statsd", "_nack|000000ff00000002\n".to_owned(), Answer::Nacked),
        ("statsd", "_ack|000000ff00000003\n".to_owned(), Answer::Bad),
        ("statsd", "_ack|000000fe00000002\n".to_owned(), Answer::Bad),
        ("http", http("200 OK", accepted), Answer::Acked),
        ("http", http("503 Service Unavailable", "busy"), Answer::Nacked),
        ("http", http("400 Bad Request", "no"), Answer::Bad),
        ("http", http("200 OK", "ok"), Answer::Bad),
    ] {
        for cut in 0..answer.len() {
            let mut protocol = protocol(name);
            let seen = in_pieces(&mut protocol, answer.as_bytes(), cut);
            assert_eq!(seen, wanted, "{name} {answer:?} cut at {cut}");
            assert!(protocol.parts.is_empty());
        }
    }
}

#[test]
fn more_than_the_answer_is_none() {
    let mut done = 0;
    let answer = protocol("statsd").answer(255, 2, &mut done, b"_ack|000000ff00000002\n_");
    assert_eq!(answer, Answer::Bad);
}

#[test]
fn an_answer_that_does_not_end_is_none() {
    let mut protocol = protocol("http");
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    let mut done = 0;
    assert_eq!(protocol.answer(1, 1, &mut done, head), Answer::Partial);
    assert_eq!(protocol.answer(1, 1, &mut done, &[b'x'; ANSWER_BYTES_MAX]), Answer::Bad);
    assert_eq!(protocol.answer(1, 1, &mut done, head), Answer::Partial);
    protocol.forget(1);
    assert!(protocol.parts.is_empty());
}

proptest! {
    #[test]
    fn no_bytes_upset_it(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        for name in ["statsd", "http"] {
            let mut protocol = protocol(name);
            prop_assert_ne!(in_pieces(&mut protocol, &bytes, bytes.len() / 2), Answer::Acked);
        }
    }
}
