//! Connections come and go.

use std::cmp::Reverse;

use super::{Executor, OPENS_A_TURN};
use crate::outcome::{Event, Failure};
use crate::schedule::mix;
use crate::slab::{flag, State};
use crate::system;

impl Executor {
    /// Opens what the schedule and the lost connections ask for, as far as `opening_max` allows.
    pub(super) fn open_due(&mut self) {
        for _ in 0..OPENS_A_TURN {
            if self.slab.count(State::Opening) >= self.plan.opening_max {
                return;
            }
            if !self.open_next() && !self.retry_next() {
                return;
            }
        }
    }

    fn open_next(&mut self) -> bool {
        let Some(openings) = self.openings else { return false };
        while self.next < self.slab.len() && self.slab.at(self.next).state != State::Closed {
            self.next += 1;
        }
        if self.next == self.slab.len() {
            self.openings = None;
            return false;
        }
        let (intended_ns, index) = (openings.intended_ns(self.opened), self.next);
        if intended_ns > system::now_ns() {
            return false;
        }
        self.opened += 1;
        self.next += 1;
        let conn = self.slab.at(index);
        conn.since_ns = intended_ns;
        conn.flags &= !flag::RETURNING;
        self.connect(index);
        true
    }

    fn retry_next(&mut self) -> bool {
        let Some(&Reverse((at_ns, index, generation))) = self.retries.peek() else { return false };
        if at_ns > system::now_ns() {
            return false;
        }
        self.retries.pop();
        let conn = self.slab.at(index);
        if conn.generation == generation && conn.state == State::Waiting {
            self.connect(index);
        }
        true
    }

    fn connect(&mut self, index: u32) {
        let source = self.plan.sources.of(index, self.slab.len());
        self.slab.at(index).set_sent(system::now_ns());
        match system::connect(&self.target, source) {
            Ok(fd) => {
                self.slab.at(index).fd = fd;
                self.slab.set_state(index, State::Opening);
                if let Err(error) = self.epoll.add_socket(fd, self.slab.token(index)) {
                    self.note_failure(index, Failure::of(&error));
                }
            }
            Err(error) => self.note_failure(index, Failure::of(&error)),
        }
    }

    pub(super) fn note_open(&mut self, index: u32) {
        self.slab.set_state(index, State::Open);
        self.record.outcome.count(Event::Opened);
        let now_ns = self.now_ns;
        let conn = self.slab.at(index);
        conn.failures = 0;
        let since_ns = now_ns.saturating_sub(conn.since_ns);
        if conn.has(flag::RETURNING) {
            conn.flags &= !flag::RETURNING;
            self.record.outcome.count(Event::Reconnected);
            self.record.recovery.record(since_ns);
        } else {
            self.record.connect_service.record(now_ns.saturating_sub(conn.sent_ns()));
            self.record.connect.record(since_ns);
        }
    }

    pub(super) fn note_opening_error(&mut self, index: u32) {
        match system::socket_error(self.slab.at(index).fd) {
            Some(error) => self.note_failure(index, Failure::of(&error)),
            // It opened, and ended at once; reading will tell how.
            None => self.note_open(index),
        }
    }

    pub(super) fn note_timeout(&mut self, index: u32) {
        self.note_failure(index, Failure::TimedOut);
    }

    fn note_failure(&mut self, index: u32, failure: Failure) {
        self.record.outcome.fail(failure);
        let fd = self.slab.detach(index);
        if fd >= 0 {
            system::close(fd);
        }
        self.come_back_or_close(index);
    }

    /// An open connection is no more, and `event` says why.
    #[cold]
    pub(super) fn lose(&mut self, index: u32, event: Event) {
        self.record.outcome.count(event);
        self.abandon(index, event != Event::ClosedByPeer);
        let now_ns = self.now_ns;
        let conn = self.slab.at(index);
        conn.since_ns = now_ns;
        conn.flags = flag::RETURNING;
        self.come_back_or_close(index);
    }

    /// Closes a connection on purpose; it stays closed until it is opened again.
    pub(super) fn close(&mut self, index: u32, with_reset: bool) {
        self.abandon(index, with_reset);
        self.slab.set_state(index, State::Closed);
        let conn = self.slab.at(index);
        (conn.failures, conn.flags) = (0, 0);
    }

    /// Accounts for the messages of a connection and closes its socket.
    fn abandon(&mut self, index: u32, with_reset: bool) {
        let conn = self.slab.at(index);
        self.record.outcome.add(Event::Uncertain, conn.unanswered.into());
        self.record.outcome.add(Event::Skipped, conn.behind.into());
        self.protocol.forget(index);
        match self.slab.detach(index) {
            -1 => {}
            fd if with_reset => system::close_with_reset(fd),
            fd => system::close(fd),
        }
    }

    fn come_back_or_close(&mut self, index: u32) {
        let Some(backoff) = self.plan.reconnect else {
            self.slab.set_state(index, State::Closed);
            return;
        };
        let conn = self.slab.at(index);
        let wait_s = (backoff.min_s * 2f64.powi(conn.failures.into())).min(backoff.max_s);
        conn.failures = conn.failures.saturating_add(1);
        let salt = self.plan.seed ^ u64::from(index) << 32 ^ u64::from(conn.generation);
        // Between half of it and all of it: what was lost together does not return together.
        let part = 0.5 + (mix(salt) >> 11) as f64 / (1u64 << 54) as f64;
        let generation = conn.generation;
        let at_ns = system::now_ns() + (wait_s * part * 1e9) as u64;
        self.retries.push(Reverse((at_ns, index, generation)));
        self.slab.set_state(index, State::Waiting);
    }
}
