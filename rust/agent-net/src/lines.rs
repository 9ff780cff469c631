//! A readable connection of a line protocol: one read, what it holds applied, answers written.
//!
//! All connections of a thread read into one buffer. Its front is kept free, so that the half line of
//! the last read can be put before the new bytes and lines are always contiguous; only a long half
//! line is collected in its side buffer instead. Reading never stops while answers wait; a peer that
//! does not read [`ANSWER_BYTES_MAX`] of them is closed.

use std::panic::{catch_unwind, AssertUnwindSafe};

use agent_wire::framing::Framer;

use crate::conns::Sent;
use crate::engine::{Engine, HEADROOM};
use crate::listen::CloseReason;
use crate::side::Side;
use crate::slab::{flag, Protocol};
use crate::stream::{self, Feed};
use crate::system;
use crate::telemetry::SourceId;

/// Answers that may wait for a peer to read them.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Reads of a connection before it is closed from our side: more than any receive buffer holds.
const LAST_READS_MAX: usize = 64;

/// How the bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// The peer has said that there is no more.
    Proper,
    /// The connection broke.
    CutOff,
}

/// What came of one piece.
struct Fed {
    done: usize,
    protocol: Protocol,
    framer: Framer,
    was_shed: bool,
    all_acked: bool,
    is_broken: bool,
}

impl Engine {
    pub(crate) fn read_lines(&mut self, index: u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = catch_unwind(AssertUnwindSafe(|| self.read_into(index, &mut buffer)));
        self.buffer = buffer;
        if result.is_err() {
            self.note_panic();
            self.close(index, CloseReason::Panic);
        }
    }

    fn read_into(&mut self, index: u32, buffer: &mut [u8]) {
        let fd = self.conns.at(index).fd;
        let count = match system::receive(fd, &mut buffer[HEADROOM..]) {
            Ok(0) => return self.finish_lines(index, End::Proper, CloseReason::Eof),
            Ok(count) => count,
            Err(error) if system::is_again(&error) => return,
            Err(_) => return self.finish_lines(index, End::CutOff, CloseReason::Reset),
        };
        self.conns.touch(index);
        self.conns.at(index).set(flag::HAS_SENT, true);
        let held = self.conns.busy(index).map_or(&[][..], |side| &side.input);
        let is_kept = if held.len() <= HEADROOM {
            let start = HEADROOM - held.len();
            buffer[start..HEADROOM].copy_from_slice(held);
            let data = &buffer[start..HEADROOM + count];
            let Some(done) = self.apply_lines(index, data, count, End::Open) else { return };
            let rest = &data[done..];
            let number = &mut self.conns.slab.at(index).side;
            // The usual end of a read is a line end: then there is nothing to keep.
            (rest.is_empty() && *number == crate::slab::NONE)
                || self.conns.pool.set_input(number, rest)
        } else {
            self.collect(index, &buffer[HEADROOM..HEADROOM + count])
        };
        if !is_kept {
            return self.close(index, CloseReason::BuffersFull);
        }
        let conn = self.conns.slab.at(index);
        if conn.protocol == Protocol::Free {
            return;
        }
        if conn.has(flag::ALL_ACKED) && self.is_parting() && self.conns.unwritten(index) == 0 {
            return self.cut_lines(index, CloseReason::Drain);
        }
        self.conns.settle(index);
    }

    /// A half line that is too long for the front of the read buffer. `false` when it cannot be kept.
    fn collect(&mut self, index: u32, more: &[u8]) -> bool {
        let number = &mut self.conns.slab.at(index).side;
        if !self.conns.pool.append_input(number, more) {
            return false;
        }
        let number = *number;
        let Some(Side { input, .. }) = self.conns.pool.find(number) else { return false };
        let data = std::mem::take(input);
        let done = self.apply_lines(index, &data, more.len(), End::Open);
        // Where the connection is closed now, its input was counted as empty.
        let Some(done) = done else {
            self.conns.pool.forget_input(data.len());
            return true;
        };
        if let Some(side) = self.conns.pool.find(number) {
            side.input = data;
        }
        self.conns.pool.consume_input(number, done);
        true
    }

    /// Applies what is whole in `data`, of which the last `fresh` bytes are new, and writes the answers.
    /// Gives the number of bytes that are done with, or nothing when the connection was closed.
    fn apply_lines(&mut self, index: u32, data: &[u8], fresh: usize, end: End) -> Option<usize> {
        let now_ms = self.conns.now_ms;
        let mut out = std::mem::take(&mut self.answers);
        let conn = self.conns.slab.at(index);
        let peer = conn.peer();
        let mut fed = Fed {
            done: 0,
            protocol: conn.protocol,
            framer: conn.framer,
            was_shed: conn.has(flag::SHED),
            all_acked: conn.has(flag::ALL_ACKED),
            is_broken: false,
        };
        let mut apply = self.applier.batch();
        let source = source_of(fed.protocol);
        let mut feed = Feed {
            shed: apply.admit(&peer, now_ms).err().map(|shed| shed.reason),
            apply: &mut apply,
            source,
            was_shed: &mut fed.was_shed,
            all_acked: &mut fed.all_acked,
            out: &mut out,
            samples: 0,
        };
        if fed.protocol == Protocol::UnixUnknown {
            fed.protocol = match (stream::detect(data), end) {
                (Protocol::UnixUnknown, End::Open) => Protocol::UnixUnknown,
                // Three bytes and no more: a very short line.
                (Protocol::UnixUnknown, _) => Protocol::LinesUnix,
                (known, _) => known,
            };
        }
        match fed.protocol {
            Protocol::PacketsUnix => match feed.packets(data) {
                Ok(done) => fed.done = done,
                Err(stream::TooLong) => fed.is_broken = true,
            },
            Protocol::UnixUnknown => {}
            _ => fed.done = feed.lines(&mut fed.framer, data),
        }
        let rest = &data[fed.done..];
        match end {
            _ if fed.is_broken => {}
            End::Open => {}
            End::Proper => feed.end(fed.protocol, &fed.framer, rest),
            End::CutOff => feed.cut_off(fed.protocol, &fed.framer, rest),
        }
        let samples = feed.samples;
        apply.charge(&peer, samples, now_ms);
        apply.bytes(source, fresh as u64);
        drop(apply);
        let conn = self.conns.slab.at(index);
        (conn.protocol, conn.framer) = (fed.protocol, fed.framer);
        conn.set(flag::SHED, fed.was_shed);
        conn.set(flag::ALL_ACKED, fed.all_acked);
        let is_open = self.answer_lines(index, &out, fed.is_broken);
        out.clear();
        self.answers = out;
        is_open.then_some(fed.done)
    }

    /// Writes answers. `false` when the connection was closed over it.
    fn answer_lines(&mut self, index: u32, out: &[u8], is_broken: bool) -> bool {
        let sent = if out.is_empty() { Sent::All } else { self.conns.write(index, out) };
        let reason = match sent {
            _ if is_broken => CloseReason::Protocol,
            Sent::Broken => CloseReason::Reset,
            Sent::Pending if self.conns.unwritten(index) > ANSWER_BYTES_MAX => {
                CloseReason::SlowReader
            }
            Sent::Pending => {
                self.file(index);
                return true;
            }
            Sent::All => return true,
        };
        self.close(index, reason);
        false
    }

    /// Applies what the kernel has of this connection, up to [`LAST_READS_MAX`] reads.
    pub(crate) fn read_what_is_there(&mut self, index: u32) {
        for _ in 0..LAST_READS_MAX {
            self.conns.at(index).set(flag::HAS_SENT, false);
            self.read_lines(index);
            let conn = self.conns.at(index);
            if conn.protocol == Protocol::Free || !conn.has(flag::HAS_SENT) {
                return;
            }
        }
    }

    /// Ends a connection from our side; half a line that was received is booked as such.
    pub(crate) fn cut_lines(&mut self, index: u32, reason: CloseReason) {
        self.finish_lines(index, End::CutOff, reason);
    }

    /// The peer will send no more: what is left is applied or refused, answers are written, then it is
    /// closed.
    fn finish_lines(&mut self, index: u32, end: End, reason: CloseReason) {
        let number = self.conns.at(index).side;
        let input = self.conns.pool.find(number).map(|side| std::mem::take(&mut side.input));
        let input = input.unwrap_or_default();
        self.conns.pool.forget_input(input.len());
        if self.apply_lines(index, &input, 0, end).is_none() {
            return;
        }
        if end == End::Proper && self.conns.unwritten(index) > 0 {
            self.conns.set_flags(index, flag::NO_READ, true);
            self.conns.at(index).set(flag::CLOSING | flag::READ_CLOSED, true);
            return;
        }
        self.close(index, reason);
    }
}

fn source_of(protocol: Protocol) -> SourceId {
    match protocol {
        Protocol::LinesTcp => SourceId::StatsdTcp,
        _ => SourceId::StatsdUnix,
    }
}
