//! Lines of a stream: framing, applying, answering. No sockets here.
//!
//! ```text
//! lines:    a:1|c LF a:2|c LF _ack|7 LF          -> "_ack|7 LF" once both are applied
//! packets:  u32 little-endian length, that many bytes of lines, and so on      (unix streams only)
//! ```
//!
//! Datadog's clients put a 32-bit little-endian length before each packet on unix streams. Which of the
//! two a client speaks shows in its first four bytes: a length below 16 MiB has a zero in its fourth
//! byte, and no line has one there.
//!
//! `_ack|TOKEN` is answered with the same line when everything before it on the connection has been
//! applied, or refused by what it says. When samples before it were shed by a limit the answer is
//! `_nack|TOKEN`: send them again later.
//!
//! A last line without a line end is applied if it can be read, and counted; a sender that says
//! goodbye properly may leave it out. In a connection that was reset it is refused, as is half a packet.
//!
//! Limits: a packet has at most [`PACKET_BYTES_MAX`]; a longer one ends the connection.

use agent_wire::framing::{self, Frame, Framer};
use agent_wire::{statsd, Reject};

use crate::apply::{Apply, Line};
use crate::slab::Protocol;
use crate::telemetry::{Reason, SourceId};

/// Bytes of one length-prefixed packet.
pub const PACKET_BYTES_MAX: usize = 64 << 10;
/// Bytes that show which of the two a unix stream speaks.
const PREFIX_BYTES: usize = 4;

/// What a unix stream speaks, as far as its first bytes tell.
pub fn detect(first: &[u8]) -> Protocol {
    match first {
        [_, _, _, 0, ..] => Protocol::PacketsUnix,
        [_, _, _, _, ..] => Protocol::LinesUnix,
        _ => Protocol::UnixUnknown,
    }
}

/// A packet is longer than [`PACKET_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// One read of a stream being applied.
pub struct Feed<'f, 'a> {
    pub apply: &'f mut Apply<'a>,
    pub source: SourceId,
    /// Why samples are not applied now.
    pub shed: Option<Reason>,
    /// Samples were shed since the last `_ack`.
    pub was_shed: &'f mut bool,
    /// The last line was an `_ack`.
    pub all_acked: &'f mut bool,
    /// Answers.
    pub out: &'f mut Vec<u8>,
    /// Samples applied or refused by what they say.
    pub samples: u64,
}

impl Feed<'_, '_> {
    /// Applies the whole lines at the front of `input`; gives how many bytes are done with.
    pub fn lines(&mut self, framer: &mut Framer, input: &[u8]) -> usize {
        let line_bytes_max = self.apply.limits().line_bytes_max;
        let mut done = 0;
        loop {
            let consumed = match framer.next(&input[done..], line_bytes_max) {
                Frame::Line { line, consumed } => {
                    self.line(line);
                    consumed
                }
                Frame::TooLong { consumed } => {
                    self.too_long();
                    consumed
                }
                Frame::Skipped { consumed } => consumed,
                Frame::Partial => return done,
            };
            done += consumed;
        }
    }

    /// Applies the whole packets at the front of `input`.
    pub fn packets(&mut self, input: &[u8]) -> Result<usize, TooLong> {
        let line_bytes_max = self.apply.limits().line_bytes_max;
        let mut done = 0;
        while let Some((prefix, rest)) = input[done..].split_first_chunk::<PREFIX_BYTES>() {
            let length = u32::from_le_bytes(*prefix) as usize;
            if length > PACKET_BYTES_MAX {
                self.too_long();
                return Err(TooLong);
            }
            let Some(packet) = rest.get(..length) else { break };
            for line in framing::lines(packet) {
                if line.len() > line_bytes_max {
                    self.too_long();
                } else {
                    self.line(line);
                }
            }
            done += PREFIX_BYTES + length;
        }
        Ok(done)
    }

    /// The stream has ended properly with `rest` unconsumed.
    pub fn end(&mut self, protocol: Protocol, framer: &Framer, rest: &[u8]) {
        if protocol == Protocol::PacketsUnix || !framer.is_incomplete(rest) {
            return self.cut_off(protocol, framer, rest);
        }
        let line = rest.strip_suffix(b"\r").unwrap_or(rest);
        if statsd::parse_line(line, self.apply.limits()).is_err() {
            return self.cut_off(protocol, framer, rest);
        }
        let (account, writer) = self.apply.account(self.source);
        account.unterminated(writer);
        self.line(line);
    }

    /// The stream has broken off with `rest` unconsumed.
    pub fn cut_off(&mut self, protocol: Protocol, framer: &Framer, rest: &[u8]) {
        let is_half = match protocol {
            Protocol::PacketsUnix => !rest.is_empty(),
            _ => framer.is_incomplete(rest),
        };
        if is_half {
            self.samples += 1;
            self.apply.reject(self.source, Reject::LineIncomplete.into(), 1);
        }
    }

    fn too_long(&mut self) {
        *self.all_acked = false;
        self.samples += 1;
        self.apply.reject(self.source, Reject::LineTooLong.into(), 1);
    }

    #[inline]
    fn line(&mut self, line: &[u8]) {
        *self.all_acked = false;
        if let Some(reason) = self.shed {
            return self.shed_line(line, reason);
        }
        match self.apply.line(self.source, line) {
            Line::Samples(count) => self.samples += count,
            Line::Told => {}
            Line::Ack(token) => self.answer(token),
        }
    }

    #[cold]
    fn shed_line(&mut self, line: &[u8], reason: Reason) {
        match line.strip_prefix(b"_ack|") {
            Some(token) if !token.is_empty() && token.len() <= statsd::ACK_BYTES_MAX => {
                self.answer(token);
            }
            _ => {
                *self.was_shed = true;
                self.apply.reject(self.source, reason, 1);
            }
        }
    }

    fn answer(&mut self, token: &[u8]) {
        *self.all_acked = true;
        let is_ack = !std::mem::take(self.was_shed);
        self.out.extend_from_slice(if is_ack { b"_ack|" } else { b"_nack|" });
        self.out.extend_from_slice(token);
        self.out.push(b'\n');
        let (account, writer) = self.apply.account(self.source);
        account.acked(writer, is_ack);
    }
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod tests;
