//! The loop's clockwork: deadlines every tick, publishing and memory every second.

use super::{Engine, Phase, WRITE_TIMEOUT_MS};
use crate::config::WorkerConfig;
use crate::conns::{Conns, SPECIAL_BIT};
use crate::control::Level;
use crate::exchange::LINGER_MS;
use crate::http::HttpService;
use crate::listen::CloseReason;
use crate::memory::Usage;
use crate::slab::{flag, Conn, Protocol};
use crate::wheel::{tick_after, tick_of, TICK_MS};

/// Between two looks at the memory when there is no room.
const LOOK_MS: u64 = 20;

/// Times of the config, in the loop's unit.
pub(super) struct Timeouts {
    http_idle_ms: u64,
    stream_idle_ms: u64,
    pub(super) drain_ms: u64,
    memory_used_ratio_max: f64,
    memory_connections_ratio_max: f64,
}

impl Timeouts {
    pub(super) fn new(config: &WorkerConfig) -> Timeouts {
        let ms = |seconds: f64| (seconds.max(0.0) * 1000.0) as u64;
        Timeouts {
            http_idle_ms: ms(config.limits.http_idle_timeout_s),
            stream_idle_ms: ms(config.limits.stream_idle_timeout_s),
            drain_ms: ms(config.drain_timeout_s),
            memory_used_ratio_max: config.limits.memory_used_ratio_max,
            memory_connections_ratio_max: config.limits.memory_connections_ratio_max,
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
        if self.conns.now_ms >= self.published_ms + 1000 {
            self.tick_second();
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
        for listening in &mut self.listeners {
            if std::mem::take(&mut listening.is_paused) && self.phase == Phase::Running {
                let token = SPECIAL_BIT | u64::from(listening.number);
                // When it fails again, accepting will say so.
                let _ = self.conns.epoll.add(listening.fd, token, listening.interest());
            }
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

    /// Before a batch of connections: knows how many memory has room for.
    pub(crate) fn make_room_known(&mut self) {
        if self.applier.admission().memory_credit() > 0 {
            return;
        }
        // Used up is not full; what is full is not looked at for each who is refused.
        if !self.memory_is_full || self.conns.now_ms >= self.memory_looked_ms + LOOK_MS {
            self.look_at_memory();
        }
    }

    fn look_at_memory(&mut self) {
        let Some(usage) = self.memory.usage() else { return };
        self.memory_looked_ms = self.conns.now_ms;
        let ratio = usage.ratio();
        let writer = self.applier.writer();
        self.figures.memory_used.set(writer, ratio);
        self.figures.memory_limit.set(writer, usage.limit_bytes as f64);
        let most = self.timeouts.memory_used_ratio_max;
        let was_short = self.applier.admission().memory_is_short();
        let is_short = is_above(ratio, most, was_short);
        self.applier.admission().set_memory_is_short(is_short);
        if is_short != was_short {
            let now =
                if is_short { "above the watermark: samples are shed" } else { "enough again" };
            self.log(Level::Warning, &format!("memory is {now} ({:.0} % used)", ratio * 100.0));
        }
        self.look_at_room(usage);
    }

    /// Whether there is room for more connections, and for how many.
    fn look_at_room(&mut self, usage: Usage) {
        let most = self.timeouts.memory_connections_ratio_max;
        let was_full = self.memory_is_full;
        let is_full = is_above(usage.ratio(), most, was_full);
        let credit = match most < 1.0 {
            true if is_full => 0,
            true => usage.credit(most, self.workers).max(1),
            false => u32::MAX,
        };
        self.applier.admission().set_memory_credit(credit);
        self.memory_is_full = is_full;
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

/// Above a watermark; once above, a little below it is still above, so that it does not flicker.
fn is_above(ratio: f64, most: f64, was_above: bool) -> bool {
    most < 1.0 && ratio >= if was_above { most * 0.97 } else { most }
}
