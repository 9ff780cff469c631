//! Streams cut anywhere give the same totals; answers come only after what was before them.

use super::*;
use crate::admission::Admission;
use crate::apply::Applier;
use crate::config::{Limits, WorkerConfig};
use crate::telemetry::tests::totals;
use agent_shm::{Options, Segment};
use proptest::prelude::*;
use std::collections::BTreeMap;

const SOURCE: SourceId = SourceId::StatsdUnix;

struct Stream {
    segment: Segment,
    applier: Applier,
    framer: Framer,
    was_shed: bool,
    all_acked: bool,
    held: Vec<u8>,
    out: Vec<u8>,
}

impl Stream {
    fn new() -> Stream {
        let segment = Segment::private("agent", &Options::default());
        let json = br#"{"worker": 0, "segment": "", "control_fd": -1,
            "limits": {"line_bytes_max": 100}}"#;
        let config = WorkerConfig::from_json(json).expect("valid");
        let admission = Admission::new(&Limits::default(), 1, 10, 0);
        let applier = Applier::new(&segment, &config, admission).expect("a slot");
        let (framer, held, out) = (Framer::default(), Vec::new(), Vec::new());
        Stream { segment, applier, framer, was_shed: false, all_acked: false, held, out }
    }

    fn feed<T>(
        &mut self,
        shed: Option<Reason>,
        act: impl FnOnce(&mut Feed, &mut Framer) -> T,
    ) -> T {
        let mut apply = self.applier.batch();
        let mut feed = Feed {
            apply: &mut apply,
            source: SOURCE,
            shed,
            was_shed: &mut self.was_shed,
            all_acked: &mut self.all_acked,
            out: &mut self.out,
            samples: 0,
        };
        act(&mut feed, &mut self.framer)
    }

    fn lines(&mut self, shed: Option<Reason>, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let done = self.feed(shed, |feed, framer| feed.lines(framer, &held));
        self.held = held[done..].to_vec();
    }

    fn end(&mut self) -> BTreeMap<String, f64> {
        let held = std::mem::take(&mut self.held);
        self.feed(None, |feed, framer| feed.end(Protocol::LinesUnix, framer, &held));
        totals(&self.segment)
    }
}

fn rejected(reason: &str) -> String {
    format!(
        "agent_source_samples_rejected{{reason=\"{reason}\",source=\"statsd_unix\",worker=\"0\"}}"
    )
}

#[test]
fn an_ack_is_answered_after_what_was_before_it() {
    let mut stream = Stream::new();
    stream.lines(None, b"a:1|c\na:1|c\n_ack|first\na:1|c\n_ack|sec");
    assert_eq!(stream.out, b"_ack|first\n");
    assert_eq!(totals(&stream.segment)["a{}"], 3.0);
    stream.lines(None, b"ond\r\n");
    assert_eq!(stream.out, b"_ack|first\n_ack|second\n");
}

#[test]
fn everything_is_acknowledged_right_behind_an_ack_and_only_there() {
    let mut stream = Stream::new();
    assert!(!stream.all_acked, "a peer that never asks has no answer to wait for");
    for (bytes, all_acked) in [
        (&b"a:1|c\n"[..], false),
        (b"a:1|c\n_ack|1\n", true),
        (b"a:1", true), // Half a line counts for nothing yet.
        (b"|c\n", false),
        (b"_ack|2\n_ack|3\n", true),
        (b"bad\n", false),
    ] {
        stream.lines(None, bytes);
        assert_eq!(stream.all_acked, all_acked, "{}", String::from_utf8_lossy(bytes));
    }
    stream.lines(Some(Reason::Memory), b"a:1|c\n");
    assert!(!stream.all_acked);
    stream.lines(Some(Reason::Memory), b"_ack|4\n");
    assert!(stream.all_acked, "a refusal is an answer too");
}

#[test]
fn what_was_shed_is_not_acknowledged() {
    let mut stream = Stream::new();
    stream.lines(Some(Reason::TotalRate), b"a:1|c\na:1|c\n");
    stream.lines(None, b"a:1|c\n_ack|1\na:1|c\n_ack|2\n");
    stream.lines(Some(Reason::TotalRate), b"_ack|3\na:1|c\n_ack|4\n");
    assert_eq!(stream.out, b"_nack|1\n_ack|2\n_ack|3\n_nack|4\n");
    let totals = totals(&stream.segment);
    assert_eq!((totals["a{}"], totals[&rejected("total_rate")]), (2.0, 3.0));
}

#[test]
fn a_last_line_without_its_end_counts_when_it_can_be_read() {
    let mut stream = Stream::new();
    stream.lines(None, b"a:1|c\na:2|c");
    let totals = stream.end();
    assert_eq!(totals["a{}"], 3.0);
    let key = "agent_source_unterminated_lines{source=\"statsd_unix\",worker=\"0\"}";
    assert_eq!(totals[key], 1.0);
    let mut stream = Stream::new();
    stream.lines(None, b"a:1|c\na:2|");
    assert_eq!(stream.end()[&rejected("line_incomplete")], 1.0);
}

#[test]
fn the_first_four_bytes_tell_packets_from_lines() {
    assert_eq!(detect(&10u32.to_le_bytes()), Protocol::PacketsUnix);
    assert_eq!(detect(&65_536u32.to_le_bytes()), Protocol::PacketsUnix);
    assert_eq!(detect(b"a:1|c\n"), Protocol::LinesUnix);
    assert_eq!(detect(b"a:1"), Protocol::UnixUnknown);
    assert_eq!(detect(b"\n\0"), Protocol::UnixUnknown, "a packet of ten bytes begins so");
}

#[test]
fn packets_are_applied_when_they_are_whole_and_a_long_one_ends_the_stream() {
    let mut stream = Stream::new();
    let mut bytes = Vec::new();
    for packet in [&b"a:1|c\na:1|c"[..], b"", b"b:1|c\n_ack|7"] {
        bytes.extend_from_slice(&(packet.len() as u32).to_le_bytes());
        bytes.extend_from_slice(packet);
    }
    let whole = bytes.len();
    bytes.extend_from_slice(&[5, 0, 0, 0, b'c', b':']);
    assert_eq!(stream.feed(None, |feed, _| feed.packets(&bytes)), Ok(whole));
    assert_eq!(stream.out, b"_ack|7\n");
    stream.feed(None, |feed, framer| feed.end(Protocol::PacketsUnix, framer, &bytes[whole..]));
    let long = 100_000u32.to_le_bytes();
    assert_eq!(stream.feed(None, |feed, _| feed.packets(&long)), Err(TooLong));
    let totals = totals(&stream.segment);
    assert_eq!((totals["a{}"], totals["b{}"]), (2.0, 1.0));
    assert_eq!(totals[&rejected("line_incomplete")], 1.0);
    assert_eq!(totals[&rejected("line_too_long")], 1.0);
}

proptest! {
    #[test]
    fn cuts_do_not_change_totals_or_answers(
        lines in proptest::collection::vec(
            "[ab]:[1-9]\\|c|_ack\\|[0-9]|[xyz]{0,5}|[a]{101,150}:1\\|c", 0..30),
        pieces in proptest::collection::vec(1usize..40, 1..10),
    ) {
        let text = lines.join("\n");
        let mut whole = Stream::new();
        whole.lines(None, text.as_bytes());
        let mut cut = Stream::new();
        let mut rest = text.as_bytes();
        for size in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            cut.lines(None, piece);
            rest = after;
        }
        let text_of = |stream: &mut Stream| {
            let totals = stream.end().into_iter().filter(|(key, _)| !key.contains("unterminated"));
            (totals.collect::<BTreeMap<_, _>>(), stream.out.clone())
        };
        prop_assert_eq!(text_of(&mut cut), text_of(&mut whole));
    }
}
