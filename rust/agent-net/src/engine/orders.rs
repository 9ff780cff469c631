//! What the supervisor orders: new settings, facts to tell, the end.

use super::{Engine, Phase, Timeouts, HALF_LINE_QUIET_MS, LAST_BATCHES_MAX, QUIET_MS, RETIRE_MS};
use crate::config::WorkerConfig;
use crate::control::Order;
use crate::listen::{CloseReason, LAST_ACCEPTS_MAX};
use crate::memory::Memory;
use crate::slab::{flag, Conn, Protocol, NONE};
use crate::system;
use crate::wheel::TICK_MS;

impl Engine {
    pub(super) fn listen_to_supervisor(&mut self) {
        let mut orders = Vec::new();
        self.control.read(&mut orders);
        for order in orders {
            match order {
                Order::Drain => self.leave(),
                Order::Yield => self.has_successor = true,
                Order::Retire => {
                    for socket in &self.datagrams {
                        self.conns.epoll.remove(socket.fd);
                    }
                    self.datagrams.clear();
                    self.begin_retirement();
                    match self.handover_out {
                        Some(_) => self.handover_from = Some(0),
                        None => self.stop_handing_over(),
                    }
                }
                Order::Stop => self.phase = Phase::Stopped,
                Order::State(json) => self.http.set_state(&json),
                Order::Reload(json) => self.reload(&json),
                Order::Gone => {
                    self.conns.epoll.remove(self.control.fd());
                    self.leave();
                    self.begin_retirement();
                    self.stop_handing_over();
                }
            }
        }
    }

    fn reload(&mut self, json: &str) {
        let result = WorkerConfig::from_json(json.as_bytes())
            .map_err(|error| error.to_string())
            .and_then(|config| {
                self.applier.reload(&config)?;
                Ok(config)
            });
        match result {
            Ok(config) => {
                self.http.reload(&config);
                self.timeouts = Timeouts::new(&config);
                if config.limits.memory_bytes_max != self.memory_bytes_max {
                    self.memory_bytes_max = config.limits.memory_bytes_max;
                    self.memory = Memory::new(self.memory_bytes_max, config.workers);
                }
                self.control.say("reloaded");
            }
            Err(why) => self.control.say(&format!("refused {why}")),
        }
    }

    pub(super) fn begin_drain(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        let until_ms = self.conns.now_ms + self.timeouts.drain_ms;
        self.phase = Phase::Draining { until_ms };
        if let Some(desk) = &mut self.desk {
            desk.close_doors();
        }
        self.http.set_draining();
        for number in 0..self.listeners.len() {
            self.accept(number, LAST_ACCEPTS_MAX);
            self.conns.epoll.remove(self.listeners[number].fd);
        }
    }

    /// From running, or in the middle of a drain.
    fn begin_retirement(&mut self) {
        let soon_ms = self.conns.now_ms + RETIRE_MS;
        let until_ms = match self.phase {
            Phase::Running => soon_ms,
            Phase::Draining { until_ms } => until_ms.min(soon_ms),
            Phase::Retiring { .. } | Phase::Stopped => return,
        };
        self.phase = Phase::Retiring { until_ms };
        self.swept_ms = 0;
        // Who waits there is served by the successor; without one, see `leave`.
        for listening in &self.listeners {
            self.conns.epoll.remove(listening.fd);
        }
        self.leave_desk();
    }

    /// The whole collector leaves: nobody will accept what comes now.
    fn leave(&mut self) {
        self.begin_drain();
        self.awaits_desk = self.desk_in.is_some();
        self.take_from_desk();
        for number in 0..self.listeners.len() {
            // Again, as late as can be: a worker that was draining on its own has a new queue.
            self.accept(number, LAST_ACCEPTS_MAX);
            system::shutdown_listener(self.listeners[number].fd);
            if self.listeners[number].is_shared {
                // The queue of a unix socket outlives this, and no more can come.
                self.accept(number, LAST_ACCEPTS_MAX);
            }
        }
    }

    /// Whether all is done. While it is not: closes what is quiet, and when the time is over everything.
    pub(super) fn is_finished(&mut self) -> bool {
        let until_ms = match self.phase {
            Phase::Running => return false,
            Phase::Stopped => 0,
            Phase::Draining { until_ms } | Phase::Retiring { until_ms } => until_ms,
        };
        let is_due = self.conns.now_ms >= self.swept_ms + TICK_MS;
        if self.conns.slab.open() > 0 && is_due {
            self.swept_ms = self.conns.now_ms;
            let is_over = self.conns.now_ms >= until_ms;
            match self.phase {
                // What was busy may go now.
                Phase::Retiring { .. } if self.handover_out.is_some() && !is_over => {
                    self.handover_from.get_or_insert(0);
                }
                Phase::Retiring { .. } => self.part(is_over),
                _ => self.sweep(is_over),
            }
        }
        if self.conns.now_ms >= until_ms {
            self.pushes.clear();
        }
        if self.awaits_desk && self.desk_in.is_some() && self.conns.now_ms < until_ms {
            return false;
        }
        if self.conns.slab.open() > 0 || !self.pushes.is_empty() {
            return false;
        }
        if self.phase != Phase::Stopped {
            for number in 0..self.datagrams.len() {
                self.receive(number, LAST_BATCHES_MAX);
            }
        }
        self.tick_second();
        true
    }

    fn sweep(&mut self, is_over: bool) {
        let now_ms = self.conns.now_ms;
        for index in self.conns.slab.open_from(0, usize::MAX) {
            let conn = self.conns.at(index);
            let fd = conn.fd;
            let quiet_ms = if conn.protocol == Protocol::Http { 0 } else { QUIET_MS };
            let is_quiet = (u64::from(conn.seen) + 1) * TICK_MS + quiet_ms <= now_ms;
            let is_idle = conn.side == NONE && !conn.has(flag::CLOSING);
            // Half a line whose rest does not come must not hold up the exit.
            let is_stuck = conn.protocol != Protocol::Http
                && !conn.has(flag::WANTS_WRITE)
                && (u64::from(conn.seen) + 1) * TICK_MS + HALF_LINE_QUIET_MS <= now_ms;
            if is_over {
                self.close(index, CloseReason::DrainTimeout);
            } else if (is_stuck || (is_quiet && is_idle)) && system::has_input(fd) {
                // With unread bytes a close is a reset; they are read in the next turns of the loop.
            } else if is_stuck {
                self.cut_lines(index, CloseReason::Drain);
            } else if is_quiet && is_idle {
                self.close(index, CloseReason::Drain);
            }
        }
    }

    /// Takes leave of every connection: what it has sent is applied first.
    fn part(&mut self, is_over: bool) {
        for index in self.conns.slab.open_from(0, usize::MAX) {
            match self.conns.at(index).protocol {
                Protocol::Http => self.part_from_http(index, is_over),
                _ => self.part_from_lines(index, is_over),
            }
        }
    }

    fn part_from_lines(&mut self, index: u32, is_over: bool) {
        if !self.conns.at(index).has(flag::NO_READ) {
            self.read_what_is_there(index);
        }
        let now_ms = self.conns.now_ms;
        let has_unwritten = self.conns.unwritten(index) > 0;
        let conn = self.conns.at(index);
        // A whole tick: `seen` may be the last moment of its own.
        let is_quiet = (u64::from(conn.seen) + 2) * TICK_MS <= now_ms;
        if conn.protocol == Protocol::Free || (has_unwritten && !is_over) {
            return;
        }
        if is_over && has_unwritten {
            self.close(index, CloseReason::DrainTimeout);
        } else if is_over || is_quiet || conn.has(flag::ALL_ACKED) {
            self.cut_lines(index, CloseReason::Drain);
        }
    }

    fn part_from_http(&mut self, index: u32, is_over: bool) {
        let is_idle = |conn: &Conn| conn.side == NONE && !conn.has(flag::CLOSING | flag::NO_READ);
        if is_idle(self.conns.at(index)) {
            // A request that has come already is answered.
            self.read_http(index);
        }
        let now_ms = self.conns.now_ms;
        let conn = self.conns.at(index);
        if conn.protocol == Protocol::Free {
            return;
        }
        // The first request of a new connection is on its way, and nobody would send it again.
        let is_quiet = conn.has(flag::HAS_SENT) || (u64::from(conn.seen) + 2) * TICK_MS <= now_ms;
        if is_over {
            self.close(index, CloseReason::DrainTimeout);
        } else if is_idle(conn) && is_quiet {
            self.close(index, CloseReason::Drain);
        }
    }
}
