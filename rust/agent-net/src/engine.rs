//! The event loop of a worker: one thread, one level-triggered epoll.
//!
//! ```text
//! wait -> for each ready: control | signal | listener | datagram socket | connection | answer stream
//!      -> every 250 ms: deadlines     -> every second: publish counts, look at memory
//! ```
//!
//! The clock is read once per wake-up. A connection gets one read per wake-up, a listener a batch of
//! accepts, a datagram socket a few batches, so nobody starves. Lines are always read: what is over a
//! limit is dropped after reading, by reason.
//!
//! Drain: listeners are no longer waited for; requests in progress are answered; a line connection is
//! closed once it has been quiet for [`QUIET_MS`]; datagram sockets are emptied last. After
//! `drain_timeout_s` everything is cut. Sockets of the supervisor are never closed here.
//!
//! Deadlines: a request by what HTTP says; written bytes that nobody takes, [`WRITE_TIMEOUT_MS`]; idle
//! connections by protocol. They are at most one tick late.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use agent_shm::Segment;

use crate::apply::Applier;
use crate::config::{ListenerSource, WorkerConfig};
use crate::conns::{Conns, Sent, SPECIAL_BIT, STREAM_BIT};
use crate::control::{Control, Level, Order};
use crate::datagram::{self, Receiver, Socket};
use crate::exchange::LINGER_MS;
use crate::http::HttpService;
use crate::listen::{CloseReason, Listening, Spare};
use crate::memory::Memory;
use crate::nap::Nap;
use crate::slab::{flag, Conn, Protocol, NONE};
use crate::system::{self, Epoll, Interest, Ready};
use crate::telemetry::{Own, SelfMetric, SourceId};
use crate::wheel::{tick_after, tick_of, TICK_MS};

/// Bytes taken with one read.
pub const READ_BYTES: usize = 128 << 10;
/// Room before them for a half line of the read before.
pub const HEADROOM: usize = 4 << 10;
/// A peer that takes nothing of what we write is closed after this time.
pub const WRITE_TIMEOUT_MS: u64 = 30_000;
/// A line connection that was quiet for this time may be closed in a drain.
pub const QUIET_MS: u64 = 500;
/// Descriptors that are not for connections, as the supervisor counts them too.
const FILES_RESERVED: u64 = 128;
/// Batches taken from a datagram socket at the end of a drain.
const LAST_BATCHES_MAX: usize = 1024;

const CONTROL: u64 = SPECIAL_BIT | 0xffff;
const SIGNAL: u64 = SPECIAL_BIT | 0xfffe;
const DATAGRAM: u64 = SPECIAL_BIT | 0x8000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Draining { until_ms: u64 },
    Stopped,
}

struct Timeouts {
    http_idle_ms: u64,
    stream_idle_ms: u64,
    drain_ms: u64,
    memory_used_ratio_max: f64,
}

impl Timeouts {
    fn new(config: &WorkerConfig) -> Timeouts {
        let ms = |seconds: f64| (seconds.max(0.0) * 1000.0) as u64;
        Timeouts {
            http_idle_ms: ms(config.limits.http_idle_timeout_s),
            stream_idle_ms: ms(config.limits.stream_idle_timeout_s),
            drain_ms: ms(config.drain_timeout_s),
            memory_used_ratio_max: config.limits.memory_used_ratio_max,
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

/// Self-metrics of the loop.
struct Figures {
    panics: Own,
    logs_dropped: Own,
    wakeups: Own,
    sources: Own,
    side_bytes: Own,
    memory_used: Own,
    memory_limit: Own,
}

impl Figures {
    fn new(worker: u32) -> Figures {
        let own = |metric| Own::new(metric, format!("worker=\"{worker}\""));
        Figures {
            panics: own(SelfMetric::Panics),
            logs_dropped: own(SelfMetric::LogsDropped),
            wakeups: own(SelfMetric::Wakeups),
            sources: own(SelfMetric::Sources),
            side_bytes: own(SelfMetric::SideBytes),
            memory_used: own(SelfMetric::MemoryUsedRatio),
            memory_limit: own(SelfMetric::MemoryLimit),
        }
    }
}

pub struct Engine {
    pub(crate) conns: Conns,
    pub(crate) applier: Applier,
    pub(crate) http: HttpService,
    pub(crate) listeners: Vec<Listening>,
    pub(crate) spare: Spare,
    /// [`HEADROOM`] and [`READ_BYTES`].
    pub(crate) buffer: Vec<u8>,
    /// Answers of one read, before they are written.
    pub(crate) answers: Vec<u8>,
    datagrams: Vec<(Socket, SourceId)>,
    receiver: Receiver,
    control: Control,
    signal: Option<OwnedFd>,
    timeouts: Timeouts,
    memory: Memory,
    memory_bytes_max: u64,
    figures: Figures,
    phase: Phase,
    nap: Nap,
    /// In this wake-up.
    datagrams_read: u64,
    wakeups: u64,
    published_ms: u64,
    swept_ms: u64,
    due: Vec<u32>,
}

fn is_datagram(token: u64) -> bool {
    // The two special tokens above have this bit as well.
    token & STREAM_BIT == 0 && token & DATAGRAM == DATAGRAM && token < SIGNAL
}

/// Connections a worker may have: as configured, and never more than its file limit allows.
pub fn connections_max(config: &WorkerConfig) -> u32 {
    let files = system::file_limit().saturating_sub(FILES_RESERVED).clamp(1, 1 << 29) as u32;
    match config.limits.connections_max {
        0 => files,
        most => most.min(files),
    }
}

impl Engine {
    /// Adopts the listeners and the control pipe.
    pub fn new(
        config: &WorkerConfig,
        segment: &Segment,
        applier: Applier,
        http: HttpService,
        signal: Option<OwnedFd>,
    ) -> io::Result<Engine> {
        let now_ms = system::monotonic_ms();
        let conns = Conns::new(Epoll::new()?, now_ms);
        let mut engine = Engine {
            conns,
            applier,
            http,
            listeners: Vec::new(),
            spare: Spare::new(),
            buffer: vec![0; HEADROOM + READ_BYTES],
            answers: Vec::new(),
            datagrams: Vec::new(),
            receiver: Receiver::default(),
            control: Control::new(config.control_fd)?,
            signal,
            timeouts: Timeouts::new(config),
            memory: Memory::new(config.limits.memory_bytes_max, config.workers),
            memory_bytes_max: config.limits.memory_bytes_max,
            figures: Figures::new(config.worker),
            phase: Phase::Running,
            nap: Nap::new(0),
            datagrams_read: 0,
            wakeups: 0,
            published_ms: 0,
            swept_ms: 0,
            due: Vec::new(),
        };
        engine.adopt(config, segment)?;
        Ok(engine)
    }

    fn adopt(&mut self, config: &WorkerConfig, segment: &Segment) -> io::Result<()> {
        let epoll = &self.conns.epoll;
        if config.control_fd >= 0 {
            epoll.add(config.control_fd, CONTROL, Interest::Read)?;
        }
        if let Some(signal) = &self.signal {
            epoll.add(signal.as_raw_fd(), SIGNAL, Interest::Read)?;
        }
        for listener in &config.listeners {
            let number = self.listeners.len() as u16;
            if let Some(listening) = Listening::adopt(listener, config.worker, number)? {
                let token = SPECIAL_BIT | u64::from(number);
                epoll.add(listener.fd, token, listening.interest())?;
                self.listeners.push(listening);
                continue;
            }
            let (source, interest) = match listener.source {
                ListenerSource::StatsdUdp => (SourceId::StatsdUdp, Interest::Read),
                _ => (SourceId::StatsdUnixgram, Interest::ReadExclusive),
            };
            let token = DATAGRAM | self.datagrams.len() as u64;
            epoll.add(listener.fd, token, interest)?;
            let socket = Socket::adopt(listener.fd, source, config.worker, segment);
            self.datagrams.push((socket, source));
        }
        let buffers = self.datagrams.iter().map(|(socket, _)| socket.buffer_bytes());
        self.nap = Nap::new(buffers.min().unwrap_or(0));
        self.announce(config);
        Ok(())
    }

    /// Shows the accounts of all sources that exist, at zero.
    fn announce(&mut self, config: &WorkerConfig) {
        for listener in &config.listeners {
            let sources: &[SourceId] = match listener.source {
                ListenerSource::Http => &[SourceId::Push],
                ListenerSource::StatsdUdp => &[SourceId::StatsdUdp],
                ListenerSource::StatsdTcp => &[SourceId::StatsdTcp],
                ListenerSource::StatsdUnixgram => &[SourceId::StatsdUnixgram],
                ListenerSource::StatsdUnix => &[SourceId::StatsdUnix],
            };
            for source in sources {
                let (account, writer) = self.applier.account(*source);
                account.announce(writer);
            }
        }
        let label = format!("worker=\"{}\"", config.worker);
        Own::new(SelfMetric::WorkerStart, label).set(self.applier.writer(), system::unix_s());
    }

    pub fn log(&mut self, level: Level, message: &str) {
        self.control.log(level, message);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Runs until it is told to leave; gives the exit code.
    pub fn run(&mut self) -> io::Result<i32> {
        self.tick_second();
        self.control.say("ready");
        let mut ready = Vec::new();
        loop {
            self.conns.epoll.wait(self.timeout_ms(), &mut ready)?;
            self.wakeups += 1;
            self.conns.now_ms = system::monotonic_ms();
            self.datagrams_read = 0;
            for event in &ready {
                self.dispatch(event);
            }
            self.tick();
            if self.is_finished() {
                self.control.say("drained");
                return Ok(0);
            }
            let others = ready.iter().filter(|event| !is_datagram(event.token)).count();
            match self.nap.after(self.datagrams_read, others) {
                0 => {}
                us => std::thread::sleep(Duration::from_micros(us.into())),
            }
        }
    }

    fn timeout_ms(&self) -> u64 {
        if self.conns.wheel.is_empty() && self.phase == Phase::Running {
            (self.published_ms + 1000).saturating_sub(self.conns.now_ms).clamp(1, 1000)
        } else {
            TICK_MS
        }
    }

    fn dispatch(&mut self, event: &Ready) {
        match event.token {
            CONTROL => self.listen_to_supervisor(),
            SIGNAL => {
                if let Some(signal) = &self.signal {
                    system::take_signal(signal);
                }
                self.begin_drain();
            }
            token if token & STREAM_BIT != 0 => {
                if let Some(index) = self.conns.slab.find(token & !STREAM_BIT) {
                    self.pump(index);
                }
            }
            token if is_datagram(token) => {
                self.receive((token & 0x7fff) as usize, datagram::CALLS_MAX);
            }
            token if token & SPECIAL_BIT != 0 => self.accept((token & 0x7fff) as usize),
            token => self.serve(token, event),
        }
    }

    fn serve(&mut self, token: u64, event: &Ready) {
        let Some(index) = self.conns.slab.find(token) else { return };
        if event.writable && self.conns.at(index).has(flag::WANTS_WRITE) {
            self.write_on(index);
        }
        // It may have been closed, or told not to read.
        let Some(index) = self.conns.slab.find(token) else { return };
        let conn = self.conns.at(index);
        if conn.has(flag::NO_READ) {
            if event.broken {
                self.close(index, CloseReason::Reset);
            }
        } else if event.readable {
            match conn.protocol {
                Protocol::Http => self.read_http(index),
                _ => self.read_lines(index),
            }
        }
    }

    fn write_on(&mut self, index: u32) {
        match self.conns.flush(index) {
            Sent::Pending => {}
            Sent::Broken => self.close(index, CloseReason::Reset),
            Sent::All if self.conns.at(index).protocol == Protocol::Http => self.wrote_http(index),
            Sent::All if self.conns.at(index).has(flag::CLOSING) => {
                self.close(index, CloseReason::Eof);
            }
            Sent::All => self.conns.settle(index),
        }
    }

    /// Takes what a datagram socket has, up to `calls` batches. Whether it may have more.
    fn receive(&mut self, number: usize, calls: usize) -> bool {
        for _ in 0..calls {
            let (socket, source) = &self.datagrams[number];
            let Ok(count) = self.receiver.receive(socket.fd) else { return false };
            self.datagrams_read += count as u64;
            let now_ms = self.conns.now_ms;
            let mut apply = self.applier.batch();
            let (_, panics) =
                datagram::apply_batch(&self.receiver, count, *source, &mut apply, now_ms);
            drop(apply);
            for _ in 0..panics {
                self.note_panic();
            }
            if count < datagram::BATCH {
                return false;
            }
        }
        true
    }

    /// Ends a connection and accounts for it.
    pub(crate) fn close(&mut self, index: u32, reason: CloseReason) {
        let with_reset = matches!(
            reason,
            CloseReason::DrainTimeout | CloseReason::SlowReader | CloseReason::AnswerBroken
        );
        let (row, listener) = self.conns.close(index, with_reset);
        self.applier.admission().closed(row);
        let writer = self.applier.writer();
        if let Some(listening) = self.listeners.get_mut(usize::from(listener)) {
            listening.note_closed(writer, reason);
        }
    }

    /// A panic was caught; the samples in work are booked as such.
    #[cold]
    pub(crate) fn note_panic(&mut self) {
        for source in SourceId::ALL {
            let (account, writer) = self.applier.account(source);
            account.settle(writer);
        }
        self.figures.panics.add(self.applier.writer(), 1);
        self.log(Level::Error, "a panic was caught in the data plane: please report it");
    }

    // Deadlines.

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
        } else if self.conns.busy(index).is_some_and(|side| side.stream.is_some()) {
            // The render thread has limits of its own and will say when it gives up.
            self.conns.touch(index);
            self.file(index);
        } else {
            self.close(index, CloseReason::Idle);
        }
    }

    fn tick(&mut self) {
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

    fn tick_second(&mut self) {
        let now_ms = self.conns.now_ms;
        self.published_ms = now_ms;
        self.applier.tick(now_ms);
        self.look_at_memory();
        let writer = self.applier.writer();
        for listening in &mut self.listeners {
            listening.publish(writer);
            if std::mem::take(&mut listening.is_paused) && self.phase == Phase::Running {
                let token = SPECIAL_BIT | u64::from(listening.number);
                // When it fails again, accepting will say so.
                let _ = self.conns.epoll.add(listening.fd, token, listening.interest());
            }
        }
        for (socket, _) in &mut self.datagrams {
            socket.publish(writer);
        }
        self.http.publish(writer);
        let figures = &mut self.figures;
        figures.wakeups.add(writer, std::mem::take(&mut self.wakeups));
        figures.panics.add(writer, 0);
        figures.logs_dropped.add(writer, self.control.take_logs_dropped());
        figures.side_bytes.set(writer, self.conns.pool.input_bytes() as f64);
        let sources = self.applier.admission().sources() as f64;
        figures.sources.set(self.applier.writer(), sources);
        self.control.flush();
    }

    fn look_at_memory(&mut self) {
        let Some(usage) = self.memory.usage() else { return };
        let (ratio, most) = (usage.ratio(), self.timeouts.memory_used_ratio_max);
        let was_short = self.applier.admission().memory_is_short();
        // A little below the watermark it is lifted again, so that it does not flicker.
        let is_short = most < 1.0 && ratio >= if was_short { most * 0.97 } else { most };
        self.applier.admission().set_memory_is_short(is_short);
        let writer = self.applier.writer();
        self.figures.memory_used.set(writer, ratio);
        self.figures.memory_limit.set(writer, usage.limit_bytes as f64);
        if is_short != was_short {
            let now =
                if is_short { "above the watermark: samples are shed" } else { "enough again" };
            self.log(Level::Warning, &format!("memory is {now} ({:.0} % used)", ratio * 100.0));
        }
    }

    // Orders.

    fn listen_to_supervisor(&mut self) {
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

    fn begin_drain(&mut self) {
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
    fn is_finished(&mut self) -> bool {
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
            if is_over {
                self.close(index, CloseReason::DrainTimeout);
            } else if is_quiet && is_idle {
                self.close(index, CloseReason::Drain);
            }
        }
    }
}
