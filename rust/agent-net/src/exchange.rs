//! An HTTP connection: bytes to [`HttpService`], its answers to the socket.
//!
//! ```text
//! read -> (at the desk: to a worker, if it pushes)
//!      -> on_bytes -> Read:           wait for more
//!                     Write:          write, then go on with pipelined bytes
//!                     Stream:         write, then chunk after chunk from a render thread
//!                     Apply:          write, then slice after slice of the body (`engine/pushes.rs`)
//!                     WriteThenClose: write, shut down, read and forget for a moment, close
//! ```
//!
//! While an answer waits to be written the connection is not read, so one client can hold no more
//! than one read of requests and one answer. An idle keep-alive connection owns nothing but its entry.

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::conns::{Sent, STREAM_BIT};
use crate::desk;
use crate::engine::{Engine, HEADROOM, READ_BYTES};
use crate::http::{HttpService, HttpState, Next, Stream, Taken};
use crate::listen::{CloseReason, RefuseReason, NO_ROOM};
use crate::slab::flag;
use crate::system::{self, Interest};
use crate::wheel::tick_after;

/// Time to read and forget after our last answer.
pub const LINGER_MS: u64 = 2_000;
/// Chunks of a stream before other connections have their turn.
const CHUNKS_MAX: usize = 16;

impl Engine {
    pub(crate) fn read_http(&mut self, index: u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let most = if self.desk.is_some() { desk::READ_BYTES } else { READ_BYTES };
        match system::receive(self.conns.at(index).fd, &mut buffer[HEADROOM..HEADROOM + most]) {
            Ok(0) => self.close(index, CloseReason::Eof),
            Ok(count) => {
                self.conns.touch(index);
                let input = &buffer[HEADROOM..HEADROOM + count];
                // After our last answer the rest is read and forgotten.
                if !self.conns.at(index).has(flag::CLOSING) && !self.passes_on(index, input) {
                    self.conns.at(index).set(flag::HAS_SENT, true);
                    self.drive(index, input);
                }
            }
            Err(error) if system::is_again(&error) => {}
            Err(_) => self.close(index, CloseReason::Reset),
        }
        self.buffer = buffer;
    }

    /// Hands bytes to the service until they are done with or an answer must be waited for.
    pub(crate) fn drive(&mut self, index: u32, data: &[u8]) {
        let mut state = self.conns.busy(index).and_then(|side| side.http.take());
        let peer = self.conns.at(index).peer();
        let now_ms = self.conns.now_ms;
        let mut out = std::mem::take(&mut self.answers);
        let mut done = 0;
        loop {
            out.clear();
            let (http, applier) = (&mut self.http, &mut self.applier);
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut apply = applier.batch();
                let (consumed, next) =
                    http.on_bytes(&mut state, &data[done..], &peer, &mut out, &mut apply, now_ms);
                // Most bodies are one slice, and answered at once.
                let next = match next {
                    Next::Apply(push) => http.apply_more(push, &peer, &mut out, &mut apply, now_ms),
                    next => next,
                };
                (consumed, next)
            }));
            let Ok((consumed, next)) = result else {
                self.note_panic();
                self.close(index, CloseReason::Panic);
                break;
            };
            done += consumed;
            let sent = self.conns.write(index, &out);
            let goes_on = matches!((&next, sent), (Next::Write, Sent::All));
            if goes_on && done < data.len() {
                continue;
            }
            self.keep(index, state.take(), &data[done..]);
            self.after(index, next, sent);
            break;
        }
        out.clear();
        if out.capacity() > 4 * crate::engine::READ_BYTES {
            out = Vec::new();
        }
        self.answers = out;
    }

    /// Keeps a request in progress and bytes that came too early.
    fn keep(&mut self, index: u32, state: Option<Box<HttpState>>, rest: &[u8]) {
        if state.is_some() {
            self.conns.side(index).http = state;
        }
        if !rest.is_empty() {
            let number = &mut self.conns.slab.at(index).side;
            if !self.conns.pool.set_input(number, rest) {
                // Without them the next request cannot be read; the answer goes out all the same.
                self.conns.at(index).set(flag::READ_CLOSED, true);
            }
        }
    }

    pub(crate) fn after(&mut self, index: u32, next: Next, sent: Sent) {
        match (next, sent) {
            (Next::Apply(push), _) => self.begin_push(index, push, sent),
            (_, Sent::Broken) => self.close(index, CloseReason::Reset),
            (Next::Stream(stream), _) => self.begin_stream(index, stream),
            (Next::WriteThenClose, Sent::All) => self.begin_close(index),
            (Next::WriteThenClose, Sent::Pending) => {
                self.conns.at(index).set(flag::CLOSING, true);
                self.conns.set_flags(index, flag::NO_READ, true);
                self.file(index);
            }
            (Next::Read | Next::Write, Sent::Pending) => {
                self.conns.set_flags(index, flag::NO_READ, true);
                self.file(index);
            }
            (Next::Read | Next::Write, Sent::All) => self.resume(index),
        }
    }

    /// An answer is written: the next request, which may have come already.
    fn resume(&mut self, index: u32) {
        if self.conns.at(index).has(flag::READ_CLOSED) {
            return self.begin_close(index);
        }
        let number = self.conns.at(index).side;
        let input = self.conns.pool.take_input(number);
        self.conns.set_flags(index, flag::NO_READ, false);
        if !input.is_empty() {
            return self.drive(index, &input);
        }
        self.conns.settle(index);
        if self.is_draining() && self.conns.at(index).side == crate::slab::NONE {
            return self.begin_close(index);
        }
        self.may_go_now(index);
        self.file(index);
    }

    /// There is no room for this connection: it is told so, and closed.
    pub(crate) fn turn_away(&mut self, index: u32, reason: RefuseReason) {
        let number = usize::from(self.conns.at(index).listener);
        self.listeners[number].note_refused(self.applier.writer(), reason);
        self.conns.write(index, NO_ROOM);
        self.begin_close(index);
    }

    /// No more from us: the peer reads our answer to its end before the connection goes.
    fn begin_close(&mut self, index: u32) {
        let deadline = tick_after(self.conns.now_ms + LINGER_MS);
        let conn = self.conns.at(index);
        conn.set(flag::CLOSING, true);
        system::shutdown_write(conn.fd);
        self.conns.touch(index);
        self.conns.set_flags(index, flag::NO_READ, false);
        let conns = &mut self.conns;
        conns.pool.release(&mut conns.slab.at(index).side);
        conns.wheel.file(&mut conns.slab, index, deadline);
    }

    fn begin_stream(&mut self, index: u32, stream: Stream) {
        let token = self.conns.slab.token(index) | STREAM_BIT;
        if self.conns.epoll.add(stream.fd(), token, Interest::ReadOnce).is_err() {
            return self.close(index, CloseReason::AnswerBroken);
        }
        self.conns.side(index).stream = Some(stream);
        self.conns.set_flags(index, flag::NO_READ, true);
        self.file(index);
    }

    /// Moves chunks from the render thread to the socket.
    pub(crate) fn pump(&mut self, index: u32) {
        for _ in 0..CHUNKS_MAX {
            if self.conns.unwritten(index) > 0 {
                return;
            }
            let Some(stream) = self.conns.busy(index).and_then(|side| side.stream.as_mut()) else {
                return;
            };
            match stream.take() {
                Taken::Chunk(chunk) => match self.conns.write(index, &chunk) {
                    Sent::All => {}
                    Sent::Pending => return self.file(index),
                    Sent::Broken => return self.close(index, CloseReason::Reset),
                },
                Taken::Pending => break,
                Taken::End { close } => return self.end_stream(index, close),
                Taken::Broken => return self.close(index, CloseReason::AnswerBroken),
            }
        }
        let token = self.conns.slab.token(index) | STREAM_BIT;
        let fd = self.conns.busy(index).and_then(|side| side.stream.as_ref().map(Stream::fd));
        if let Some(fd) = fd {
            // It can only fail for a descriptor that is not there, and this one is.
            let _ = self.conns.epoll.change(fd, token, Interest::ReadOnce);
        }
    }

    fn end_stream(&mut self, index: u32, close: bool) {
        if let Some(stream) = self.conns.busy(index).and_then(|side| side.stream.take()) {
            self.conns.epoll.remove(stream.fd());
        }
        if close {
            self.begin_close(index);
        } else {
            self.resume(index);
        }
    }

    /// What waited is written.
    pub(crate) fn wrote_http(&mut self, index: u32) {
        if self.conns.at(index).has(flag::CLOSING) {
            self.begin_close(index);
        } else if self.conns.busy(index).is_some_and(|side| side.stream.is_some()) {
            self.pump(index);
        } else if !self.conns.busy(index).is_some_and(|side| side.is_pushing) {
            self.resume(index);
        }
    }

    /// The request in progress is too late.
    pub(crate) fn late_http(&mut self, index: u32) {
        let mut state = self.conns.busy(index).and_then(|side| side.http.take());
        let mut out = Vec::new();
        let next = self.http.on_deadline(&mut state, &mut out);
        let sent = self.conns.write(index, &out);
        self.keep(index, state, &[]);
        self.after(index, next, sent);
    }

    /// When the request in progress is too late.
    pub(crate) fn request_deadline(&mut self, index: u32) -> Option<u64> {
        self.conns.busy(index).and_then(|side| HttpService::deadline_ms(&side.http))
    }
}
