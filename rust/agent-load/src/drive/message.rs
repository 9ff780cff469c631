//! Messages go, answers come.

use super::{Executor, SENDS_A_TURN};
use crate::outcome::Event;
use crate::protocol::{Answer, Part};
use crate::slab::{flag, State};
use crate::system;

impl Executor {
    /// Sends what the schedule asks for.
    pub(super) fn send_due(&mut self) {
        for _ in 0..SENDS_A_TURN {
            let Some(rounds) = &mut self.rounds else { return };
            let now_ns = system::now_ns();
            let Some(due) = rounds.take(now_ns) else { return };
            let conn = self.slab.at(due.index);
            match conn.state {
                State::Open => {
                    self.record.dispatch.record(now_ns - due.intended_ns);
                    self.send(due.index, due.intended_ns, now_ns);
                }
                State::Awaiting | State::Writing => {
                    let (behind, event) = match conn.behind.checked_add(1) {
                        Some(behind) => (behind, Event::Deferred),
                        None => (conn.behind, Event::Skipped),
                    };
                    conn.behind = behind;
                    self.record.outcome.count(event);
                }
                State::Closed | State::Waiting | State::Opening => {
                    self.record.outcome.count(Event::Skipped);
                }
            }
        }
    }

    #[inline]
    fn send(&mut self, index: u32, intended_ns: u64, now_ns: u64) {
        self.record.outcome.count(Event::Sent);
        let conn = self.slab.at(index);
        conn.since_ns = intended_ns;
        conn.set_sent(now_ns);
        conn.sequence = conn.sequence.wrapping_add(1);
        conn.unanswered += 1;
        conn.done = 0;
        self.write(index);
    }

    /// Asks about messages that were sent without a question.
    fn ask(&mut self, index: u32) {
        let now_ns = system::now_ns();
        let conn = self.slab.at(index);
        conn.since_ns = now_ns;
        conn.set_sent(now_ns);
        conn.flags |= flag::QUESTION;
        conn.done = 0;
        self.write(index);
    }

    /// The schedule is over: asks about what is unanswered, for the next connections of all.
    pub(super) fn ask_some(&mut self, next: u32) -> u32 {
        let end = (next + SENDS_A_TURN as u32).min(self.slab.len());
        for index in next..end {
            let conn = self.slab.at(index);
            if conn.state == State::Open && conn.unanswered > 0 {
                self.ask(index);
            }
        }
        end
    }

    /// Writes what is left of the message.
    #[inline]
    fn write(&mut self, index: u32) {
        let conn = self.slab.at(index);
        let (fd, done) = (conn.fd, usize::from(conn.done));
        let part = match (conn.has(flag::QUESTION), conn.unanswered >= self.plan.ack_every) {
            (true, _) => Part::Question,
            (false, true) => Part::Asking,
            (false, false) => Part::Silent,
        };
        let message = self.protocol.message(part, index, conn.sequence);
        let rest = &message[done..];
        let is_whole = match system::send(fd, rest) {
            Ok(count) if count == rest.len() => true,
            Ok(count) => {
                conn.done += count as u16;
                false
            }
            Err(error) if system::is_again(&error) => false,
            Err(_) => return self.lose(index, Event::Broken),
        };
        if is_whole {
            conn.done = 0;
        }
        let state = match (is_whole, part) {
            (false, _) => State::Writing,
            (true, Part::Silent) => State::Open,
            (true, _) => State::Awaiting,
        };
        self.slab.set_state(index, state);
    }

    pub(super) fn write_on(&mut self, index: u32) {
        self.write(index);
        if self.slab.at(index).state == State::Open {
            self.catch_up(index);
        }
    }

    /// Takes what has come on a connection; all of it when the peer has `ended`.
    #[inline]
    pub(super) fn receive(&mut self, token: u64, ended: bool) {
        while let Some(index) = self.slab.find(token) {
            let fd = self.slab.at(index).fd;
            match system::receive(fd, &mut self.buffer) {
                Ok(0) => self.lose(index, Event::ClosedByPeer),
                Ok(count) => {
                    self.take_answer(index, count);
                    if count < self.buffer.len() && !ended {
                        return;
                    }
                }
                Err(error) if system::is_again(&error) => return,
                Err(_) => self.lose(index, Event::Broken),
            }
        }
    }

    #[inline]
    fn take_answer(&mut self, index: u32, count: usize) {
        let conn = self.slab.at(index);
        if conn.state != State::Awaiting {
            return self.lose(index, Event::AnswerBad);
        }
        let bytes = &self.buffer[..count];
        match self.protocol.answer(index, conn.sequence, &mut conn.done, bytes) {
            Answer::Partial => return,
            Answer::Bad => return self.lose(index, Event::AnswerBad),
            Answer::Nacked => self.record.outcome.add(Event::Nacked, conn.unanswered.into()),
            Answer::Acked => {
                self.record.outcome.add(Event::Acked, conn.unanswered.into());
                if !conn.has(flag::QUESTION) {
                    self.record.service.record(self.now_ns.saturating_sub(conn.sent_ns()));
                    self.record.message.record(self.now_ns.saturating_sub(conn.since_ns));
                }
            }
        }
        conn.unanswered = 0;
        conn.flags &= !flag::QUESTION;
        self.slab.set_state(index, State::Open);
        self.catch_up(index);
    }

    /// Sends the next message that had to wait.
    fn catch_up(&mut self, index: u32) {
        let conn = self.slab.at(index);
        if conn.behind == 0 {
            return;
        }
        conn.behind -= 1;
        let (since_ns, now_ns) = (conn.since_ns, system::now_ns());
        // It was due one interval after the one that was answered now.
        self.send(index, (since_ns + self.interval_ns).min(now_ns), now_ns);
    }
}
