//! Listeners: adopted from the supervisor, accepted from in bounded batches.
//!
//! A listener belongs to the supervisor, which keeps it open; here it is only waited for. A unix socket
//! is shared by all workers, so one of them is woken at a time.
//!
//! When the process is out of descriptors, a spare one is given up, the connection is accepted and
//! closed at once, and the spare is taken again: the client learns that there is no room, and the loop
//! does not spin. When the machine is out of memory or of files, the listener rests ([`REST_MS`]); so it does
//! when there is no memory to refuse connections with (see [`crate::memory`]), but for a few of HTTP.
//!
//! A drain first takes what waits: the kernel has told those clients that they are connected. When the
//! whole collector leaves, the listener then refuses, so that a client hears it at once; in a worker that
//! leaves alone the queue is its successor's.
//!
//! Where there is no room for connections, in memory or by the cap, those of lines are reset, those of HTTP
//! get 503. But probes and scrapes must get in: HTTP has a reserve, and when that is taken by silent
//! connections, one of them is closed for each new one.
//!
//! Limits: [`ACCEPTS_MAX`] connections before others have their turn, [`LAST_ACCEPTS_MAX`] in a drain.

use std::io;
use std::os::fd::OwnedFd;

use agent_shm::Writer;

use crate::admission::Refusal;
use crate::config::{Listener, ListenerSource};
use crate::place::Place;
use crate::slab::Protocol;
use crate::system::{self, Interest};
use crate::telemetry::{labels, Own, SelfMetric};

/// Connections taken from one listener in one turn.
pub const ACCEPTS_MAX: usize = 128;

/// Connections taken from one listener when a drain begins; no backlog is longer.
pub const LAST_ACCEPTS_MAX: usize = 65_536;
/// Between two tries of a listener that rests.
pub const REST_MS: u64 = 50;

/// The answer to an HTTP connection for which there is no room.
pub(crate) const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\
    Connection: close\r\n\r\n";

macro_rules! reasons {
    ($name:ident: $doc:literal { $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)+ }) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            const COUNT: usize = [$($text),+].len();

            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }
    };
}

reasons! { CloseReason: "Why a connection ended; the label `reason`." {
    /// The peer closed it.
    Eof => "eof",
    /// The peer broke it off.
    Reset => "reset",
    /// Nothing came for long.
    Idle => "idle",
    /// A request came too slowly.
    SlowRequest => "slow_request",
    /// Answers were not read.
    SlowReader => "slow_reader",
    /// Our answer was the last.
    Answered => "answered",
    /// An answer could not be finished.
    AnswerBroken => "answer_broken",
    /// A packet or a line broke the protocol.
    Protocol => "protocol",
    /// There was no room for a half line.
    BuffersFull => "buffers_full",
    /// A bug here.
    Panic => "panic",
    /// A silent one of HTTP, when there was no room for a new one.
    Evicted => "evicted",
    /// The worker leaves, and the connection was quiet.
    Drain => "drain",
    /// Another process has it now: a successor, or a worker to which the desk passed it on.
    HandedOver => "handed_over",
    /// The worker leaves, and could wait no longer.
    DrainTimeout => "drain_timeout",
}}

reasons! { RefuseReason: "Why a connection was not kept; the label `reason`." {
    ConnectionsMax => "connections_max",
    SourceConnectionsMax => "source_connections_max",
    Memory => "memory",
    /// The process or the machine is out of descriptors.
    FileLimit => "file_limit",
    /// The kernel would not watch it.
    NoRoom => "no_room",
}}

impl From<Refusal> for RefuseReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::ConnectionsMax => RefuseReason::ConnectionsMax,
            Refusal::SourceConnectionsMax => RefuseReason::SourceConnectionsMax,
            Refusal::Memory => RefuseReason::Memory,
        }
    }
}

/// A listener of streams, and the account of its connections.
pub struct Listening {
    /// -1 where the desk accepts.
    pub fd: i32,
    pub protocol: Protocol,
    /// Its place among the listeners of the worker.
    pub number: u8,
    name: &'static str,
    worker: Place,
    /// A unix socket: all workers have it.
    pub is_shared: bool,
    /// Rests until the next tick.
    pub is_paused: bool,
    pub open: u64,
    pub opened: Own,
    taken_over: Own,
    open_now: Own,
    closed: Vec<Option<Own>>,
    refused: Vec<Option<Own>>,
}

impl Listening {
    /// Adopts a listener of streams; nothing for datagrams.
    pub fn adopt(listener: &Listener, worker: Place, number: u8) -> io::Result<Option<Listening>> {
        let (protocol, name, is_shared) = match listener.source {
            ListenerSource::Http => (Protocol::Http, "http", false),
            ListenerSource::StatsdTcp => (Protocol::LinesTcp, "statsd_tcp", false),
            ListenerSource::StatsdUnix => (Protocol::UnixUnknown, "statsd_unix", true),
            ListenerSource::StatsdUdp | ListenerSource::StatsdUnixgram => return Ok(None),
        };
        if listener.fd >= 0 {
            system::set_nonblocking(listener.fd)?;
        }
        if protocol == Protocol::Http {
            // Connections inherit it: an answer in two pieces does not wait for the peer's.
            let _ = system::set_option(listener.fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32);
        }
        let text = labels(None, name, worker);
        Ok(Some(Listening {
            fd: listener.fd,
            protocol,
            number,
            name,
            worker,
            is_shared,
            is_paused: false,
            open: 0,
            opened: Own::new(SelfMetric::ConnectionsOpened, text.clone()),
            taken_over: Own::new(SelfMetric::ConnectionsTakenOver, text.clone()),
            open_now: Own::new(SelfMetric::ConnectionsOpen, text),
            closed: (0..CloseReason::COUNT).map(|_| None).collect(),
            refused: (0..RefuseReason::COUNT).map(|_| None).collect(),
        }))
    }

    pub fn interest(&self) -> Interest {
        if self.is_shared {
            Interest::ReadExclusive
        } else {
            Interest::Read
        }
    }

    pub fn note_closed(&mut self, writer: &Writer, reason: CloseReason) {
        self.open = self.open.saturating_sub(1);
        let (name, worker) = (self.name, self.worker);
        let own = self.closed[reason as usize].get_or_insert_with(|| {
            let text = labels(Some(("reason", reason.as_str())), name, worker);
            Own::new(SelfMetric::ConnectionsClosed, text)
        });
        own.add(writer, 1);
    }

    pub fn note_taken_over(&mut self, writer: &Writer) {
        self.open += 1;
        self.taken_over.add(writer, 1);
    }

    pub fn note_refused(&mut self, writer: &Writer, reason: RefuseReason) {
        let (name, worker) = (self.name, self.worker);
        let own = self.refused[reason as usize].get_or_insert_with(|| {
            let text = labels(Some(("reason", reason.as_str())), name, worker);
            Own::new(SelfMetric::ConnectionsRefused, text)
        });
        own.add(writer, 1);
    }

    /// Publishes what is only counted locally.
    pub fn publish(&mut self, writer: &Writer) {
        self.opened.add(writer, 0);
        self.taken_over.add(writer, 0);
        self.open_now.set(writer, self.open as f64);
        let reasons = self.closed.iter_mut().chain(&mut self.refused);
        reasons.flatten().for_each(|own| own.touch(writer));
    }
}

/// The descriptor that is given up when there is no other.
pub struct Spare(Option<OwnedFd>);

impl Spare {
    pub fn new() -> Spare {
        Spare(system::spare())
    }

    /// Accepts a connection in its place and closes it. Whether there was one.
    pub fn turn_away(&mut self, listener: i32) -> bool {
        drop(self.0.take());
        let accepted = system::accept(listener);
        if let Ok((fd, _)) = accepted {
            system::close_with_reset(fd);
        }
        self.0 = system::spare();
        accepted.is_ok()
    }
}

impl Default for Spare {
    fn default() -> Self {
        Spare::new()
    }
}
