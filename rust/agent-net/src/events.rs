//! The last events and service checks, where anybody who attaches the collector's segment finds
//! them.
//!
//! ```text
//! worker -> its ring, among its samples -> aggregator -> the aggregator's ring -> recent_events
//! ```
//!
//! A worker's ring is overwritten by samples within a second when it is busy. So the aggregator,
//! which sees every record, writes events once more into its own ring, where nothing else goes.
//! Such a text is marked with [`MARK`] and begins with the time that it was received at; whoever
//! reads events takes marked ones only.
//!
//! Limits: the last [`EVENTS_MAX`], each of 4 KiB (an event's own limit in a ring);
//! [`EVENTS_PER_PASS_MAX`] from one pass of the aggregator, the newest. Not promised: an event is
//! here a second after it was received at the latest, not at once; of several that are the same in
//! one tick of the clock one is shown; `recent_events` reads all rings, about 0.3 ms for each.

use std::collections::VecDeque;

use agent_shm::{Entry, Segment, Writer};

/// Events kept.
pub const EVENTS_MAX: usize = 100;
/// Events taken over in one pass; a flood of them does not delay the samples.
pub const EVENTS_PER_PASS_MAX: usize = EVENTS_MAX;
/// First byte of a text that the aggregator wrote; no line of a protocol begins with it.
pub const MARK: u8 = 0x1e;

/// The last events and service checks of the collector's segment: when each was received and its
/// text as sent, ascending by time, at most [`EVENTS_MAX`]. Invalid UTF-8 is replaced. The text
/// comes from the network: escape it.
pub fn recent_events(segment: &Segment) -> Vec<(u64, String)> {
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    for slot in 0..segment.slots_used() {
        let Some(mut reader) = segment.ring_reader(slot) else { continue };
        reader.drain(|entry| {
            if let Entry::Event { bytes, .. } = entry {
                found.extend(unmark(bytes).map(|(unix_ms, text)| (unix_ms, text.to_vec())));
            }
        });
    }
    found.sort();
    // An aggregator that was replaced may have written one that its successor wrote again.
    found.dedup();
    let first = found.len().saturating_sub(EVENTS_MAX);
    let text =
        |(unix_ms, text): &(u64, Vec<u8>)| (*unix_ms, String::from_utf8_lossy(text).into_owned());
    found[first..].iter().map(text).collect()
}

fn unmark(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let rest = bytes.strip_prefix(&[MARK])?;
    let end = memchr::memchr(b' ', rest)?;
    let unix_ms = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((unix_ms, &rest[end + 1..]))
}

/// The events of one pass on their way into the aggregator's ring.
#[derive(Debug)]
pub struct Relay {
    waiting: VecDeque<(u64, Vec<u8>)>,
    /// What a predecessor has written, ascending by time.
    known: Vec<(u64, String)>,
}

impl Relay {
    /// Begins where a predecessor in `segment` ended.
    pub fn new(segment: &Segment) -> Relay {
        Relay { waiting: VecDeque::new(), known: recent_events(segment) }
    }

    /// An event of a ring; `is_old` when a predecessor may have seen it.
    pub fn take(&mut self, unix_ms: u64, text: &[u8], is_old: bool) {
        if text.first() == Some(&MARK) || (is_old && self.is_known(unix_ms, text)) {
            return;
        }
        if self.waiting.len() == EVENTS_PER_PASS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((unix_ms, text.to_vec()));
    }

    fn is_known(&self, unix_ms: u64, text: &[u8]) -> bool {
        let last_ms = self.known.last().map_or(0, |(last_ms, _)| *last_ms);
        // In the very millisecond in which the predecessor ended, only the text tells.
        let is_it = |(at, known): &(u64, String)| *at == unix_ms && known.as_bytes() == text;
        unix_ms < last_ms || self.known.iter().any(is_it)
    }

    /// Writes what came since the last call.
    pub fn pass_on(&mut self, writer: &Writer) {
        for (unix_ms, text) in self.waiting.drain(..) {
            let mut marked = vec![MARK];
            marked.extend_from_slice(unix_ms.to_string().as_bytes());
            marked.push(b' ');
            marked.extend_from_slice(&text);
            writer.event(&marked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_shm::Options;

    fn texts(segment: &Segment) -> Vec<String> {
        recent_events(segment).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn events_outlive_the_ring_they_came_in_and_only_the_last_are_kept() {
        let segment = Segment::private("agent", &Options::collector());
        let writer = segment.writer().expect("a slot");
        let mut relay = Relay::new(&segment);
        for n in 0..250 {
            relay.take(n, format!("_e{{1,1}}:{n}|b").as_bytes(), false);
            relay.take(n, b"_sc|db|0", false);
            relay.pass_on(&writer);
        }
        let found = recent_events(&segment);
        assert_eq!(found.len(), EVENTS_MAX);
        assert_eq!(found.last(), Some(&(249, "_sc|db|0".to_owned())));
        assert_eq!(found[0], (200, "_e{1,1}:200|b".to_owned()));
    }

    #[test]
    fn a_flood_of_the_longest_events_leaves_the_newest() {
        let segment = Segment::private("agent", &Options::collector());
        let writer = segment.writer().expect("a slot");
        let mut relay = Relay::new(&segment);
        for n in 0..1000u64 {
            let mut text = format!("_e{n} ").into_bytes();
            text.resize(10_000, b'x');
            relay.take(n, &text, false);
        }
        relay.pass_on(&writer);
        let found = recent_events(&segment);
        assert_eq!(found.len(), EVENTS_MAX);
        assert!(found[0].1.starts_with("_e900 "), "{}", &found[0].1[..10]);
    }

    #[test]
    fn a_successor_takes_over_what_its_predecessor_did_not() {
        let segment = Segment::private("agent", &Options::collector());
        let (first, second) =
            (segment.writer().expect("a slot"), segment.writer().expect("a slot"));
        let mut relay = Relay::new(&segment);
        relay.take(5, b"_e a", false);
        relay.pass_on(&first);
        let mut relay = Relay::new(&segment);
        relay.take(5, b"_e a", true);
        relay.take(6, b"_e b", true);
        relay.pass_on(&second);
        assert_eq!(texts(&segment), ["_e a", "_e b"]);
    }

    #[test]
    fn only_marked_texts_are_shown_and_broken_marks_are_not() {
        let segment = Segment::private("agent", &Options::collector());
        let writer = segment.writer().expect("a slot");
        for text in
            [&b"_e raw"[..], b"\x1e", b"\x1ex y", b"\x1e99999999999999999999 y", b"\x1e7 \xff"]
        {
            writer.event(text);
        }
        assert_eq!(recent_events(&segment), [(7, "\u{fffd}".to_owned())]);
    }
}
