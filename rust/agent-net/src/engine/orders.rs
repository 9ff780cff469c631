//! What the supervisor orders: new settings, facts to tell, the end.

use super::{
    connections_max, Engine, Phase, Timeouts, HALF_LINE_QUIET_MS, LAST_BATCHES_MAX, QUIET_MS,
};
use crate::config::WorkerConfig;
use crate::control::Order;
use crate::listen::CloseReason;
use crate::memory::Memory;
use crate::slab::{flag, Protocol, NONE};
use crate::wheel::TICK_MS;

impl Engine {
    pub(super) fn listen_to_supervisor(&mut self) {
        let mut orders = Vec::new();
        self.control.read(&mut orders);
        for order in orders {
            match order {
                Order::Drain => self.begin_drain(),
                Order::Stop => self.phase = Phase::Stopped,
                Order::State(json) => self.http.set_state(&json),
                Order::Reload(json) => self.reload(&json),
                Order::Gone => {
                    self.conns.epoll.remove(self.control.fd());
                    self.begin_drain();
                }
            }
        }
    }

    fn reload(&mut self, json: &str) {
        let result = WorkerConfig::from_json(json.as_bytes())
            .map_err(|error| error.to_string())
            .and_then(|config| {
                self.applier.reload(&config, connections_max(&config))?;
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
        for listening in &self.listeners {
            self.conns.epoll.remove(listening.fd);
        }
        self.http.set_draining();
    }

    /// Whether all is done. While it is not: closes what is quiet, and when the time is over everything.
    pub(super) fn is_finished(&mut self) -> bool {
        let until_ms = match self.phase {
            Phase::Running => return false,
            Phase::Stopped => 0,
            Phase::Draining { until_ms } => until_ms,
        };
        if self.conns.slab.open() > 0 && self.conns.now_ms >= self.swept_ms + TICK_MS {
            self.swept_ms = self.conns.now_ms;
            self.sweep(self.conns.now_ms >= until_ms);
        }
        if self.conns.slab.open() > 0 {
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
            let quiet_ms = if conn.protocol == Protocol::Http { 0 } else { QUIET_MS };
            let is_quiet = (u64::from(conn.seen) + 1) * TICK_MS + quiet_ms <= now_ms;
            let is_idle = conn.side == NONE && !conn.has(flag::CLOSING);
            // Half a line whose rest does not come must not hold up the exit.
            let is_stuck = conn.protocol != Protocol::Http
                && !conn.has(flag::WANTS_WRITE)
                && (u64::from(conn.seen) + 1) * TICK_MS + HALF_LINE_QUIET_MS <= now_ms;
            if is_over {
                self.close(index, CloseReason::DrainTimeout);
            } else if (is_quiet && is_idle) || is_stuck {
                self.close(index, CloseReason::Drain);
            }
        }
    }
}
