//! The loop's clockwork: deadlines every tick, publishing and memory every second.

use super::{Engine, Phase, WRITE_TIMEOUT_MS};
use crate::config::WorkerConfig;
use crate::conns::{Conns, SPECIAL_BIT};
use crate::control::Level;
use crate::exchange::LINGER_MS;
use crate::http::HttpService;
use crate::listen::{CloseReason, REST_MS};
use crate::memory::{is_above, Marks, Usage};
use crate::slab::{flag, Conn, Protocol};
use crate::wheel::{tick_after, tick_of, TICK_MS};

/// Between two looks at the memory when there is no room.
const LOOK_FULL_MS: u64 = 20;
/// While connections come: what else grows is noticed as soon.
const LOOK_BUSY_MS: u64 = 100;

/// Times of the config, in the loop's unit.
pub(super) struct Timeouts {
    http_idle_ms: u64,
    stream_idle_ms: u64,
    pub(super) drain_ms: u64,
    memory: Marks,
}

impl Timeouts {
    pub(super) fn new(config: &WorkerConfig) -> Timeouts {
        let ms = |seconds: f64| (seconds.max(0.0) * 1000.0) as u64;
        Timeouts {
            http_idle_ms: ms(config.limits.http_idle_timeout_s),
            stream_idle_ms: ms(config.limits.stream_idle_timeout_s),
            drain_ms: ms(config.drain_timeout_s),
            memory: Marks::new(&config.limits),
        }
    }

    fn idle_ms(&self, protocol: Protocol) -> u64 {
        match protocol {
            Protocol::Http => self.http_idle_ms,
            _ => self.stream_idle_ms,
        }
    }

    /// The tick at which the connection is due, as things stand.
    fn deadline(&self, conn: &Conn, request_ms: Option<u64>) -> u32 {
        if let Some(at_ms) = request_ms {
            return tick_after(at_ms);
        }
        let after_ms = match (conn.has(flag::CLOSING), conn.has(flag::WANTS_WRITE)) {
            (_, true) => WRITE_TIMEOUT_MS,
            (true, false) => LINGER_MS,
            (false, false) => self.idle_ms(conn.protocol),
        };
        tick_after(u64::from(conn.seen) * TICK_MS + after_ms)
    }
}

impl Engine {
    /// The tick at which a new connection of this kind is looked at first.
    pub(crate) fn idle_deadline(&self, protocol: Protocol) -> u32 {
        tick_after(self.conns.now_ms + self.timeouts.idle_ms(protocol))
    }

    /// Makes sure that the connection is looked at in time.
    pub(crate) fn file(&mut self, index: u32) {
        let request_ms = self.request_deadline(index);
        let deadline = self.timeouts.deadline(self.conns.at(index), request_ms);
        self.conns.wheel.file(&mut self.conns.slab, index, deadline);
    }

    fn expire(&mut self, index: u32) {
        let conn = self.conns.at(index);
        let (closes, waits) = (conn.has(flag::CLOSING), conn.has(flag::WANTS_WRITE));
        if waits {
            self.close(index, CloseReason::SlowReader);
        } else if closes {
            self.close(index, CloseReason::Answered);
        } else if self.request_deadline(index).is_some() {
            self.late_http(index);
        } else if self
            .conns
            .busy(index)
            .is_some_and(|side| side.stream.is_some() || side.is_pushing)
        {
            // It waits for us; a render thread has limits of its own and will say when it gives up.
            self.conns.touch(index);
            self.file(index);
        } else {
            self.close(index, CloseReason::Idle);
        }
    }

    pub(super) fn tick(&mut self) {
        let now = tick_of(self.conns.now_ms);
        let mut due = std::mem::take(&mut self.due);
        let Conns { wheel, slab, pool, .. } = &mut self.conns;
        let timeouts = &self.timeouts;
        wheel.advance(slab, now, &mut due, |slab, index| {
            let conn = slab.at(index);
            let side = pool.find(conn.side);
            timeouts.deadline(conn, side.and_then(|side| HttpService::deadline_ms(&side.http)))
        });
        for index in due.drain(..) {
            self.expire(index);
        }
        self.due = due;
        if self.conns.now_ms >= self.rested_ms + REST_MS {
            self.wake_listeners();
        }
        if self.conns.now_ms >= self.published_ms + 1000 {
            self.tick_second();
        }
    }

    fn wake_listeners(&mut self) {
        for listening in &mut self.listeners {
            if std::mem::take(&mut listening.is_paused) && self.phase == Phase::Running {
                let token = SPECIAL_BIT | u64::from(listening.number);
                // When it fails again, accepting will say so.
                let _ = self.conns.epoll.add(listening.fd, token, listening.interest());
            }
        }
    }

    pub(super) fn tick_second(&mut self) {
        let now_ms = self.conns.now_ms;
        self.published_ms = now_ms;
        self.applier.tick(now_ms);
        self.look_at_memory();
        if self.desk.is_some() {
            // Who was let in beyond the cap may push when others have gone.
            let others = self.seats.others(self.applier.writer());
            self.applier.admission().set_others(others);
        }
        if !self.has_successor {
            self.publish_state();
        }
        let writer = self.applier.writer();
        self.http.publish(writer);
        let figures = &mut self.figures;
        figures.wakeups.add(writer, std::mem::take(&mut self.wakeups));
        figures.panics.add(writer, 0);
        figures.logs_dropped.add(writer, self.control.take_logs_dropped());
        self.control.flush();
    }

    /// What a place has one value of: gauges, and the kernel's counts of its sockets.
    fn publish_state(&mut self) {
        self.show_connections();
        let sources = self.applier.admission().sources() as f64;
        let writer = self.applier.writer();
        for listening in &mut self.listeners {
            listening.publish(writer);
        }
        for socket in &mut self.datagrams {
            socket.publish(writer);
        }
        let figures = &mut self.figures;
        figures.side_bytes.set(writer, self.conns.pool.input_bytes() as f64);
        figures.sources.set(writer, sources);
    }

    /// Before each connection: knows how many may be let in, and whether one more may be accepted at all.
    pub(crate) fn may_accept(&mut self) -> bool {
        let accepted = self.seats.accepted(self.applier.writer());
        let credit = self.room.credit(accepted);
        let age_ms = self.conns.now_ms - self.memory_looked_ms;
        // Used up is not full; what is full is not looked at for each who is refused.
        let is_due = match credit {
            0 => !self.room.is_full() || age_ms >= LOOK_FULL_MS,
            _ => age_ms >= LOOK_BUSY_MS,
        };
        if is_due {
            self.look_at_memory();
        } else {
            self.applier.admission().set_memory_credit(credit);
        }
        self.room.may_accept(accepted)
    }

    fn look_at_memory(&mut self) {
        let writer = self.applier.writer();
        let others = self.seats.others(writer);
        // Before the kernel is asked: see `Room::look`.
        let accepted = self.seats.accepted(writer);
        let connections = self.applier.admission().connections().saturating_add(others);
        let Some(usage) = self.memory.usage(connections) else { return };
        self.memory_looked_ms = self.conns.now_ms;
        let ratio = usage.ratio();
        let writer = self.applier.writer();
        self.figures.memory_used.set(writer, ratio);
        self.figures.memory_limit.set(writer, usage.limit_bytes as f64);
        let most = self.timeouts.memory.shed_max;
        let was_short = self.applier.admission().memory_is_short();
        let is_short = is_above(ratio, most, was_short);
        self.applier.admission().set_memory_is_short(is_short);
        if is_short != was_short {
            let now =
                if is_short { "above the watermark: samples are shed" } else { "enough again" };
            self.log(Level::Warning, &format!("memory is {now} ({:.0} % used)", ratio * 100.0));
        }
        self.look_at_room(usage, accepted);
    }

    /// Whether there is room for more connections, and for how many.
    fn look_at_room(&mut self, usage: Usage, accepted: u64) {
        let was_full = self.room.is_full();
        self.room.look(usage, self.timeouts.memory, accepted);
        let is_full = self.room.is_full();
        self.applier.admission().set_memory_credit(self.room.credit(accepted));
        self.seats.note_full(self.applier.writer(), is_full);
        // The desk is asked about all.
        let is_any_full =
            is_full || self.desk.is_some() && self.seats.is_any_full(self.applier.writer());
        let used = || format!("{:.0} % of the memory limit is used", usage.ratio() * 100.0);
        let told = is_any_full.then(|| format!("{}: new connections are refused", used()));
        match &told {
            Some(told) if is_full && !was_full => self.log(Level::Warning, told),
            None if was_full => {
                self.log(Level::Warning, &format!("{}: new connections are welcome again", used()));
            }
            _ => {}
        }
        self.http.set_out_of_memory(told);
    }
}
