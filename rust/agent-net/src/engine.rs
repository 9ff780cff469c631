//! The event loop of a worker: one thread, one level-triggered epoll.
//!
//! ```text
//! wait -> for each ready: control | signal | listener | datagram socket | connection | answer stream
//!      -> every 250 ms: deadlines     -> every second: publish counts, look at memory
//! ```
//!
//! The clock is read once per wake-up. A connection gets one read per wake-up, a listener a batch of
//! accepts, a datagram socket a few batches, the body of a push one slice, so nobody starves. Lines are
//! always read: what is over a limit is dropped after reading, by reason.
//!
//! Drain: what waits at the listeners is accepted, then they are no longer waited for, and refuse when the
//! whole collector leaves; requests in progress are answered; a line connection is
//! closed once it has been quiet for [`QUIET_MS`]; datagram sockets are emptied last. After
//! `drain_timeout_s` everything is cut. Sockets of the supervisor are never closed here.
//!
//! Retire, when a successor serves the same listeners, or when the supervisor is dead: as a drain, but
//! nobody is waited for. A successor gets the connections ([`crate::handover`]). For what stays: what a
//! line connection has sent is applied, then it is closed, right behind an `_ack`, so that the peer has
//! nothing to send again, else in the first moment without a byte. After [`RETIRE_MS`] everything is cut.
//!
//! Deadlines: a request by what HTTP says; written bytes that nobody takes, [`WRITE_TIMEOUT_MS`]; idle
//! connections by protocol. They are at most one tick late.

mod accept;
mod orders;
mod pushes;
mod relay;
mod timing;
mod transfer;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use agent_shm::Segment;

use crate::apply::Applier;
use crate::config::{ListenerSource, WorkerConfig};
use crate::conns::{Conns, Sent, SPECIAL_BIT, STREAM_BIT};
use crate::control::{Control, Level};
use crate::datagram::{self, Receiver, Socket};
use crate::desk::Desk;
use crate::http::HttpService;
use crate::listen::{CloseReason, Listening, Spare, ACCEPTS_MAX, REST_MS};
use crate::memory::{Memory, Room};
use crate::place::Place;
use crate::seats::Seats;
use crate::slab::{flag, Protocol};
use crate::system::{self, Epoll, Interest, Ready};
use crate::telemetry::{Own, SelfMetric, SourceId};
use crate::wheel::TICK_MS;
use pushes::Pushes;
use timing::Timeouts;

/// Bytes taken with one read.
pub const READ_BYTES: usize = 128 << 10;
/// Room before them for a half line of the read before.
pub const HEADROOM: usize = 4 << 10;
/// A peer that takes nothing of what we write is closed after this time.
pub const WRITE_TIMEOUT_MS: u64 = 30_000;
/// A line connection that was quiet for this time in the middle of a line is closed in a drain.
const HALF_LINE_QUIET_MS: u64 = 1000;
/// A line connection that was quiet for this time may be closed in a drain.
pub const QUIET_MS: u64 = 500;
/// The longest that a worker stays that has a successor, or no supervisor.
pub const RETIRE_MS: u64 = 3000;
/// Descriptors that are not for connections, as the supervisor counts them too.
const FILES_RESERVED: u64 = 128;
/// Batches taken from a datagram socket at the end of a drain.
const LAST_BATCHES_MAX: usize = 1024;

const CONTROL: u64 = SPECIAL_BIT | 0xffff;
const SIGNAL: u64 = SPECIAL_BIT | 0xfffe;
const HANDOVER: u64 = SPECIAL_BIT | 0xfffd;
const DESK: u64 = SPECIAL_BIT | 0xfffc;
const DATAGRAM: u64 = SPECIAL_BIT | 0x8000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Draining { until_ms: u64 },
    Retiring { until_ms: u64 },
    Stopped,
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
    fn new(worker: Place) -> Figures {
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
    pub(crate) seats: Seats,
    /// [`HEADROOM`] and [`READ_BYTES`].
    pub(crate) buffer: Vec<u8>,
    /// Answers of one read, before they are written.
    pub(crate) answers: Vec<u8>,
    pub(crate) pushes: Pushes,
    /// To the successor, from the predecessor.
    pub(crate) handover_out: Option<RawFd>,
    pub(crate) handover_in: Option<RawFd>,
    /// Where handing over goes on, while it does.
    pub(crate) handover_from: Option<u32>,
    /// Of the desk.
    pub(crate) desk: Option<Desk>,
    /// Of a worker: from the desk.
    pub(crate) desk_in: Option<RawFd>,
    datagrams: Vec<Socket>,
    receiver: Receiver,
    control: Control,
    signal: Option<OwnedFd>,
    timeouts: Timeouts,
    memory: Memory,
    memory_bytes_max: u64,
    memory_looked_ms: u64,
    room: Room,
    /// Where the search for an idle HTTP connection goes on.
    pub(crate) evict_from: u32,
    figures: Figures,
    phase: Phase,
    /// The whole collector leaves: until the desk has gone, more may come from there.
    pub(crate) awaits_desk: bool,
    /// A successor publishes the gauges of this place, and reads its datagrams.
    has_successor: bool,
    wakeups: u64,
    published_ms: u64,
    /// Since when a listener rests, if one does.
    pub(crate) rested_ms: u64,
    swept_ms: u64,
    due: Vec<u32>,
}

fn is_datagram(token: u64) -> bool {
    // The special tokens above have this bit as well.
    token & STREAM_BIT == 0 && token & DATAGRAM == DATAGRAM && token < DESK
}

/// Connections that a worker has descriptors for.
pub fn files_max() -> u32 {
    system::file_limit().saturating_sub(FILES_RESERVED).clamp(1, 1 << 29) as u32
}

/// Asks to be woken for a datagram socket.
fn listen_for(epoll: &Epoll, number: usize, socket: &Socket) -> io::Result<()> {
    let interest = match socket.source {
        SourceId::StatsdUdp => Interest::Read,
        // All workers wait for the same socket.
        _ => Interest::ReadExclusive,
    };
    epoll.add(socket.fd, DATAGRAM | number as u64, interest)
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
            seats: Seats::new(config.worker, config.workers),
            buffer: vec![0; HEADROOM + READ_BYTES],
            answers: Vec::new(),
            pushes: Pushes::new(),
            handover_out: (config.handover_out_fd >= 0).then_some(config.handover_out_fd),
            handover_in: (config.handover_in_fd >= 0).then_some(config.handover_in_fd),
            handover_from: None,
            desk: Desk::new(&config.desk_out_fds, files_max()),
            desk_in: (config.desk_in_fd >= 0).then_some(config.desk_in_fd),
            datagrams: Vec::new(),
            receiver: Receiver::default(),
            control: Control::new(config.control_fd)?,
            signal,
            timeouts: Timeouts::new(config),
            memory: Memory::new(config.limits.memory_bytes_max, config.workers),
            memory_bytes_max: config.limits.memory_bytes_max,
            memory_looked_ms: 0,
            room: Room::default(),
            evict_from: 0,
            figures: Figures::new(config.worker),
            phase: Phase::Running,
            awaits_desk: false,
            has_successor: false,
            wakeups: 0,
            published_ms: 0,
            rested_ms: 0,
            swept_ms: 0,
            due: Vec::new(),
        };
        if engine.desk.is_some() && engine.handover_in.is_none() {
            engine.seats.none_is_passing(engine.applier.writer());
        }
        if engine.desk_in.is_some() {
            engine.applier.admission().trust_desk();
        }
        engine.adopt(config, segment)?;
        Ok(engine)
    }

    fn adopt(&mut self, config: &WorkerConfig, segment: &Segment) -> io::Result<()> {
        let epoll = &self.conns.epoll;
        if config.control_fd >= 0 {
            epoll.add(config.control_fd, CONTROL, Interest::Read)?;
        }
        if let Some(handover) = self.handover_in {
            epoll.add(handover, HANDOVER, Interest::Read)?;
        }
        if let Some(desk) = self.desk_in {
            epoll.add(desk, DESK, Interest::Read)?;
        }
        if let Some(signal) = &self.signal {
            epoll.add(signal.as_raw_fd(), SIGNAL, Interest::Read)?;
        }
        for listener in &config.listeners {
            let number = self.listeners.len() as u8;
            if let Some(listening) = Listening::adopt(listener, config.worker, number)? {
                let token = SPECIAL_BIT | u64::from(number);
                if listener.fd >= 0 {
                    epoll.add(listener.fd, token, listening.interest())?;
                }
                self.listeners.push(listening);
                continue;
            }
            let source = match listener.source {
                ListenerSource::StatsdUdp => SourceId::StatsdUdp,
                _ => SourceId::StatsdUnixgram,
            };
            let number = self.datagrams.len();
            let socket = Socket::adopt(listener.fd, source, config.worker, segment);
            listen_for(epoll, number, &socket)?;
            self.datagrams.push(socket);
        }
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

    /// Whether connections are to come to their end, here.
    pub(crate) fn is_draining(&self) -> bool {
        match self.phase {
            Phase::Running => false,
            Phase::Retiring { .. } => self.handover_out.is_none(),
            Phase::Draining { .. } | Phase::Stopped => true,
        }
    }

    /// Whether a successor takes them.
    pub(crate) fn is_handing_over(&self) -> bool {
        matches!(self.phase, Phase::Retiring { .. }) && self.handover_out.is_some()
    }

    /// Whether they are to do so as soon as their peer loses nothing by it.
    pub(crate) fn is_parting(&self) -> bool {
        matches!(self.phase, Phase::Retiring { .. }) && self.handover_out.is_none()
    }

    /// Runs until it is told to leave; gives the exit code.
    pub fn run(&mut self) -> io::Result<i32> {
        self.tick_second();
        self.control.say("ready");
        let mut ready = Vec::new();
        loop {
            self.conns.epoll.wait(self.timeout(), &mut ready)?;
            self.wakeups += 1;
            self.conns.now_ms = system::monotonic_ms();
            for event in &ready {
                self.dispatch(event);
            }
            self.look_at_datagrams();
            self.go_on_pushing();
            self.go_on_handing_over();
            self.tick();
            if self.is_finished() {
                self.control.say("drained");
                return Ok(0);
            }
        }
    }

    fn timeout(&self) -> Duration {
        if !self.pushes.is_empty() || self.handover_from.is_some() {
            return Duration::ZERO;
        }
        let timeout_ms = if self.listeners.iter().any(|listening| listening.is_paused) {
            REST_MS
        } else if self.conns.wheel.is_empty() && self.phase == Phase::Running {
            (self.published_ms + 1000).saturating_sub(self.conns.now_ms).clamp(1, 1000)
        } else {
            TICK_MS
        };
        let nap = self.datagrams.iter().filter_map(Socket::nap_left).min();
        nap.unwrap_or(Duration::MAX).min(Duration::from_millis(timeout_ms))
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
            HANDOVER => self.take_over(),
            DESK => self.take_from_desk(),
            token if token & STREAM_BIT != 0 => {
                if let Some(index) = self.conns.slab.find(token & !STREAM_BIT) {
                    self.pump(index);
                }
            }
            token if is_datagram(token) => {
                self.hear((token & 0x7fff) as usize);
            }
            token if token & SPECIAL_BIT != 0 => {
                self.accept((token & 0x7fff) as usize, ACCEPTS_MAX);
            }
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

    /// Takes the datagrams that the loop was woken for.
    fn hear(&mut self, number: usize) {
        if number >= self.datagrams.len() {
            // The order to retire came in the same wake-up: the successor reads it.
            return;
        }
        self.receive(number, datagram::CALLS_MAX);
        let socket = &mut self.datagrams[number];
        if socket.nap.woken(system::monotonic_us()) {
            self.conns.epoll.remove(socket.fd);
        }
    }

    /// Takes the datagrams of sockets whose nap is over.
    fn look_at_datagrams(&mut self) {
        for number in 0..self.datagrams.len() {
            if self.datagrams[number].nap_left() != Some(Duration::ZERO) {
                continue;
            }
            let (found, has_more) = self.receive(number, datagram::CALLS_MAX);
            let socket = &mut self.datagrams[number];
            if !socket.nap.looked(system::monotonic_us(), found, has_more) {
                // Without memory for it the naps go on.
                if listen_for(&self.conns.epoll, number, socket).is_err() {
                    socket.nap.looked(system::monotonic_us(), u64::MAX, false);
                }
            }
        }
    }

    /// Takes what a datagram socket has, up to `calls` batches: how many messages, and whether there
    /// may be more.
    fn receive(&mut self, number: usize, calls: usize) -> (u64, bool) {
        let mut found = 0;
        for _ in 0..calls {
            let socket = &self.datagrams[number];
            let Ok(count) = self.receiver.receive(socket.fd, socket.source) else {
                return (found, false);
            };
            found += count as u64;
            let now_ms = self.conns.now_ms;
            let mut apply = self.applier.batch();
            let (_, panics) =
                datagram::apply_batch(&self.receiver, count, socket.source, &mut apply, now_ms);
            drop(apply);
            for _ in 0..panics {
                self.note_panic();
            }
            if !self.receiver.is_full() {
                return (found, false);
            }
        }
        (found, true)
    }

    /// Ends a connection and accounts for it.
    pub(crate) fn close(&mut self, index: u32, reason: CloseReason) {
        let with_reset = matches!(
            reason,
            CloseReason::DrainTimeout | CloseReason::SlowReader | CloseReason::AnswerBroken
        );
        let (row, listener) = self.conns.close(index, with_reset);
        self.applier.admission().closed(row);
        self.show_connections();
        let writer = self.applier.writer();
        if let Some(listening) = self.listeners.get_mut(usize::from(listener)) {
            listening.note_closed(writer, reason);
        }
    }

    /// Tells the other workers how many connections are here, unless a successor tells them.
    pub(crate) fn show_connections(&mut self) {
        if !self.has_successor {
            let connections = self.applier.admission().connections();
            self.seats.note(self.applier.writer(), connections);
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
}
