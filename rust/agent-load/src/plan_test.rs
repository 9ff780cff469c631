use super::*;

const GOOD: &str = r#"{"connections": 10, "target": "127.0.0.1:8125", "protocol": "statsd",
    "sources": {"loopback": {"first": 0, "count": 2}}, "opening_max": 5, "ack_every": 1, "connect_timeout_s": 1,
    "ack_timeout_s": 2.5, "reconnect": {"min_s": 0.1, "max_s": 5}, "metric": "load", "run": "r-1",
    "seed": 7, "control_fd": 3, "report_fd": 4}"#;

fn why(from: &str, to: &str) -> String {
    let text = GOOD.replace(from, to);
    assert_ne!(text, GOOD);
    Plan::from_json(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_good_plan_is_taken() {
    let plan = Plan::from_json(GOOD.as_bytes()).unwrap();
    assert_eq!(plan.ack_timeout(), Duration::from_millis(2500));
    assert_eq!(plan.sources, Sources::Loopback { first: 0, count: 2 });
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    assert!(why("\"connections\": 10", "\"connections\": 0").contains("connections must be 1"));
    assert!(why("\"opening_max\": 5", "\"opening_max\": 0").contains("opening_max"));
    assert!(why("\"ack_every\": 1", "\"ack_every\": 0").contains("ack_every"));
    let text = GOOD.replace("\"ack_every\": 1", "\"ack_every\": 2").replace("statsd", "http");
    let http = Plan::from_json(text.as_bytes()).unwrap_err().to_string();
    assert!(http.contains("1 with http"));
    assert!(why("\"ack_timeout_s\": 2.5", "\"ack_timeout_s\": 0").contains("ack_timeout_s"));
    assert!(why("\"count\": 2", "\"count\": 0").contains("at least one"));
    assert!(why("\"max_s\": 5", "\"max_s\": 0.05").contains("min_s <= max_s"));
    assert!(why("127.0.0.1:8125", "[::1]:8125").contains("IPv4"));
    assert!(why("r-1", "r|1").contains("letters"));
    assert!(why("\"seed\"", "\"sead\"").contains("sead"));
    let listed = "{\"listed\": [\"::1\"]}";
    let family = why("{\"loopback\": {\"first\": 0, \"count\": 2}}", listed);
    assert!(family.contains("same family"));
}
