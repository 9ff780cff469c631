//! Who may send how much: every decision to accept or refuse, with its reason.
//!
//! ```text
//! connection: all of the worker, all of all workers -> room in memory -> of its source address
//! samples:    memory watermark -> bucket and window of all -> bucket and window of the source
//! ```
//!
//! A decision is taken before a datagram, a read or a body, and the samples are charged after they
//! were counted. So a source may overdraw its bucket by one of these, and pays it back first.
//!
//! Source addresses stand in a table of at most `sources_max` rows. A new address takes the row of
//! the one not heard of for longest; rows with open connections stay. When all rows are taken so,
//! and for unix sockets, row 0 is shared. The sliding window is the usual two-count estimate: the
//! last whole window, weighted by what is still in view, and the running one.
//!
//! Limits of 0 are off. Not promised: limits of a source hold per worker, because the kernel spreads
//! connections over workers; a sender with many addresses has many buckets.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use hashbrown::HashTable;

use crate::config::Limits;
use crate::telemetry::Reason;

/// Connections over the cap that are accepted on the HTTP listener all the same, so that probes and
/// scrapes get through; their pushes are refused.
pub const HTTP_RESERVE: u32 = 64;
/// HTTP connections that a source address may have beyond its cap: probes and scrapes often come from
/// the address of the busiest senders.
const SOURCE_HTTP_RESERVE: u32 = 16;

/// The row of unix sockets, and of addresses for which there is no row.
pub const SHARED_ROW: u32 = 0;

const NONE: u32 = u32::MAX;

/// The other end of a connection or the sender of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Nothing for unix sockets.
    pub address: Option<IpAddr>,
    /// Row of the source address in the table of [`crate::admission`].
    pub row: u32,
}

/// A request or samples refused by a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed {
    pub reason: Reason,
    /// For `Retry-After`, at least 1.
    pub retry_after_s: u32,
}

/// What a new connection may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    Ordinary,
    /// Of HTTP: some more from one address.
    Http,
    /// Of HTTP when there are few of it: also where there is no room for others.
    Reserved,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The worker, or all of them together, have as many as they may.
    ConnectionsMax,
    /// The source address has as many as it may.
    SourceConnectionsMax,
    /// Memory is above the watermark.
    Memory,
}

/// The rates of one source, or of all.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    per_s: f64,
    burst: f64,
    window: f64,
    window_ms: u64,
}

impl Rates {
    fn new(per_s: u64, burst: u64, window: u64, window_s: u32, share: f64) -> Rates {
        let burst = if burst == 0 { per_s } else { burst };
        Rates {
            per_s: per_s as f64 / share,
            burst: burst as f64 / share,
            window: window as f64 / share,
            window_ms: u64::from(window_s.max(1)) * 1000,
        }
    }
}

/// A token bucket and a sliding window.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    tokens: f64,
    previous: f64,
    current: f64,
    filled_ms: u64,
    window: u32,
}

impl Meter {
    fn full(rates: &Rates, now_ms: u64) -> Meter {
        let window = (now_ms / rates.window_ms) as u32;
        Meter { tokens: rates.burst, filled_ms: now_ms, window, ..Meter::default() }
    }

    fn refresh(&mut self, rates: &Rates, now_ms: u64) {
        let passed_s = now_ms.saturating_sub(self.filled_ms) as f64 / 1000.0;
        self.tokens = (self.tokens + passed_s * rates.per_s).min(rates.burst);
        self.filled_ms = now_ms;
        let window = (now_ms / rates.window_ms) as u32;
        match window.wrapping_sub(self.window) {
            0 => return,
            1 => (self.previous, self.current) = (self.current, 0.0),
            _ => (self.previous, self.current) = (0.0, 0.0),
        }
        self.window = window;
    }

    /// Seconds until it has tokens again, or until the window has moved on.
    fn check(&mut self, rates: &Rates, now_ms: u64, by: [Reason; 2]) -> Result<(), Shed> {
        self.refresh(rates, now_ms);
        if rates.per_s > 0.0 && self.tokens <= 0.0 {
            let wait_s = (-self.tokens / rates.per_s).ceil().clamp(1.0, 3600.0);
            return Err(Shed { reason: by[0], retry_after_s: wait_s as u32 });
        }
        if rates.window > 0.0 {
            let into = (now_ms % rates.window_ms) as f64 / rates.window_ms as f64;
            let seen = self.previous * (1.0 - into) + self.current;
            if seen >= rates.window {
                let left_ms = rates.window_ms - now_ms % rates.window_ms;
                let retry_after_s = left_ms.div_ceil(1000).max(1) as u32;
                return Err(Shed { reason: by[1], retry_after_s });
            }
        }
        Ok(())
    }

    fn charge(&mut self, samples: u64) {
        self.tokens -= samples as f64;
        self.current += samples as f64;
    }
}

/// One source address.
#[derive(Debug, Clone)]
struct Row {
    address: Option<IpAddr>,
    connections: u32,
    /// Neighbours in the order of use; rows with connections stand in it too and are passed over.
    newer: u32,
    older: u32,
    meter: Meter,
}

/// The limits of one worker and the state they need.
#[derive(Debug)]
pub struct Admission {
    source: Rates,
    total: Rates,
    meter: Meter,
    /// Of this worker.
    files_max: u32,
    /// Of all workers together.
    connections_max: u32,
    source_connections_max: u32,
    connections: u32,
    /// Of the other workers, as of the last look.
    others: u32,
    /// How many may be opened before the next one.
    seats_credit: u32,
    workers: u32,
    /// HTTP connections come from the desk, which knows the cap.
    is_behind_desk: bool,
    memory_is_short: bool,
    /// Connections that memory has room for, as far as known.
    memory_credit: u32,
    rows: Vec<Row>,
    rows_max: usize,
    index: HashTable<u32>,
    hash: RandomState,
    newest: u32,
    oldest: u32,
    /// The address of the last datagram, so that a busy sender is not looked up each time.
    last: Option<Peer>,
}

impl Admission {
    /// `files_max` are the connections that this worker has descriptors for; `workers` divides the rates
    /// of all sources.
    pub fn new(limits: &Limits, workers: u32, files_max: u32, now_ms: u64) -> Admission {
        let (source, total) = rates(limits, workers);
        let shared = Row {
            address: None,
            connections: 0,
            newer: NONE,
            older: NONE,
            meter: Meter::full(&source, now_ms),
        };
        Admission {
            source,
            total,
            meter: Meter::full(&total, now_ms),
            files_max,
            connections_max: connections_max(limits),
            source_connections_max: limits.source_connections_max,
            connections: 0,
            others: 0,
            seats_credit: 0,
            workers: workers.max(1),
            is_behind_desk: false,
            memory_is_short: false,
            memory_credit: u32::MAX,
            rows: vec![shared],
            rows_max: limits.sources_max.max(1) as usize + 1,
            index: HashTable::new(),
            hash: RandomState::new(),
            newest: NONE,
            oldest: NONE,
            last: None,
        }
    }

    /// Takes over new limits; buckets keep what is in them, up to their new size.
    pub fn reload(&mut self, limits: &Limits, workers: u32) {
        (self.source, self.total) = rates(limits, workers);
        self.connections_max = connections_max(limits);
        self.forget_others();
        self.source_connections_max = limits.source_connections_max;
        self.rows_max = (limits.sources_max.max(1) as usize + 1).max(self.rows.len());
    }

    /// Connections of this worker.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// Whether what the other workers have must be known before a connection is opened.
    pub fn must_ask_others(&self) -> bool {
        self.connections_max < u32::MAX && self.seats_credit == 0
    }

    /// Time has passed: what the others have is not known any more.
    pub fn forget_others(&mut self) {
        self.seats_credit = 0;
    }

    /// What the other workers have now; see [`crate::seats`]. As many connections as are this worker's
    /// part of the seats that are left may be opened before it is asked again.
    pub fn set_others(&mut self, connections: u32) {
        self.others = connections;
        let all = self.connections.saturating_add(connections);
        self.seats_credit = self.connections_max.saturating_sub(all) / self.workers;
    }

    /// What the watermark says now; see [`crate::memory`].
    pub fn set_memory_is_short(&mut self, short: bool) {
        self.memory_is_short = short;
    }

    pub fn memory_is_short(&self) -> bool {
        self.memory_is_short
    }

    /// How many connections may be opened before somebody must look at the memory again.
    pub fn set_memory_credit(&mut self, credit: u32) {
        self.memory_credit = credit;
    }

    pub fn memory_credit(&self) -> u32 {
        self.memory_credit
    }

    /// Source addresses known now.
    pub fn sources(&self) -> usize {
        self.index.len()
    }

    /// The peer with its row; the address counts as heard of now.
    #[inline]
    pub fn peer(&mut self, address: Option<IpAddr>, now_ms: u64) -> Peer {
        match self.last {
            Some(last) if last.address == address => last,
            _ => {
                let peer = self.find(address, now_ms);
                self.last = Some(peer);
                peer
            }
        }
    }

    fn find(&mut self, address: Option<IpAddr>, now_ms: u64) -> Peer {
        let Some(ip) = address else {
            return Peer { address, row: SHARED_ROW };
        };
        let hash = self.hash.hash_one(ip);
        let rows = &self.rows;
        let known = self.index.find(hash, |&row| rows[row as usize].address == address).copied();
        let row = match known.or_else(|| self.new_row(ip, hash, now_ms)) {
            Some(row) => row,
            None => return Peer { address, row: SHARED_ROW },
        };
        self.unlink(row);
        self.link_newest(row);
        Peer { address, row }
    }

    fn new_row(&mut self, ip: IpAddr, hash: u64, now_ms: u64) -> Option<u32> {
        let fresh = Row {
            address: Some(ip),
            connections: 0,
            newer: NONE,
            older: NONE,
            meter: Meter::full(&self.source, now_ms),
        };
        let row = if self.rows.len() < self.rows_max {
            self.rows.push(fresh);
            (self.rows.len() - 1) as u32
        } else {
            let row = self.evictable()?;
            self.forget(row);
            self.rows[row as usize] = fresh;
            row
        };
        let (rows, hasher) = (&self.rows, &self.hash);
        let rehash = |&row: &u32| hasher.hash_one(rows[row as usize].address.unwrap_or(ip));
        self.index.insert_unique(hash, row, rehash);
        self.link_newest(row);
        Some(row)
    }

    /// The row not used for longest that has no connection; looks at no more than 16.
    fn evictable(&mut self) -> Option<u32> {
        for _ in 0..16 {
            let row = self.oldest;
            if row == NONE || self.rows[row as usize].connections == 0 {
                return (row != NONE).then_some(row);
            }
            self.unlink(row);
            self.link_newest(row);
        }
        None
    }

    fn forget(&mut self, row: u32) {
        self.unlink(row);
        self.last = None;
        if let Some(ip) = self.rows[row as usize].address {
            if let Ok(entry) = self.index.find_entry(self.hash.hash_one(ip), |&at| at == row) {
                entry.remove();
            }
        }
    }

    fn unlink(&mut self, row: u32) {
        let (newer, older) = (self.rows[row as usize].newer, self.rows[row as usize].older);
        match newer {
            NONE if self.newest == row => self.newest = older,
            NONE => {}
            newer => self.rows[newer as usize].older = older,
        }
        match older {
            NONE if self.oldest == row => self.oldest = newer,
            NONE => {}
            older => self.rows[older as usize].newer = newer,
        }
        (self.rows[row as usize].newer, self.rows[row as usize].older) = (NONE, NONE);
    }

    fn link_newest(&mut self, row: u32) {
        let older = self.newest;
        if older == row {
            return;
        }
        self.rows[row as usize].older = older;
        match older {
            NONE => self.oldest = row,
            older => self.rows[older as usize].newer = row,
        }
        self.newest = row;
    }

    /// Whether a new connection may stay. The caller closes it again with [`Admission::closed`].
    pub fn open(&mut self, peer: &Peer, seat: Seat) -> Result<(), Refusal> {
        let is_reserved = seat == Seat::Reserved;
        let reserve = if is_reserved { HTTP_RESERVE } else { 0 };
        let all = self.connections.saturating_add(self.others);
        // There are few with a reserve, so it holds even where a reload made the cap too small.
        if self.connections >= self.files_max.saturating_add(reserve)
            || (all >= self.connections_max && !is_reserved)
        {
            return Err(Refusal::ConnectionsMax);
        }
        if self.memory_credit == 0 && !is_reserved {
            return Err(Refusal::Memory);
        }
        let row = &mut self.rows[peer.row as usize];
        let reserve = if seat == Seat::Ordinary { 0 } else { SOURCE_HTTP_RESERVE };
        let most = self.source_connections_max.saturating_add(reserve);
        if self.source_connections_max > 0 && row.connections >= most && peer.address.is_some() {
            return Err(Refusal::SourceConnectionsMax);
        }
        row.connections += 1;
        self.connections += 1;
        if self.memory_credit < u32::MAX {
            self.memory_credit = self.memory_credit.saturating_sub(1);
        }
        self.seats_credit = self.seats_credit.saturating_sub(1);
        Ok(())
    }

    /// A connection that was let in before, by another process: limits are for new ones.
    pub fn take_over(&mut self, peer: &Peer) {
        self.rows[peer.row as usize].connections += 1;
        self.connections += 1;
    }

    /// HTTP connections come from the desk: it has checked the cap for all.
    pub fn trust_desk(&mut self) {
        self.is_behind_desk = true;
    }

    /// Whether the cap, or memory, leaves no room for a connection of any process.
    pub fn is_full_for_all(&self) -> bool {
        self.connections.saturating_add(self.others) >= self.connections_max
            || self.memory_credit == 0
    }

    /// The same for one that is counted already.
    pub fn is_over_for_all(&self) -> bool {
        self.connections.saturating_add(self.others) > self.connections_max
            || self.memory_credit == 0
    }

    /// A connection that the desk let in and passes on because it pushes: what the desk cannot know is
    /// how many others of its source are here.
    pub fn take_pusher(&mut self, peer: &Peer) -> Result<(), Refusal> {
        let most = self.source_connections_max.saturating_add(SOURCE_HTTP_RESERVE);
        let row = &self.rows[peer.row as usize];
        if self.source_connections_max > 0 && row.connections >= most && peer.address.is_some() {
            return Err(Refusal::SourceConnectionsMax);
        }
        self.take_over(peer);
        Ok(())
    }

    /// Gives back what [`Admission::open`] took.
    pub fn closed(&mut self, row: u32) {
        let row = &mut self.rows[row as usize];
        row.connections = row.connections.saturating_sub(1);
        self.connections = self.connections.saturating_sub(1);
    }

    /// Whether samples of this peer may be applied now.
    #[inline]
    pub fn samples(&mut self, peer: &Peer, now_ms: u64) -> Result<(), Shed> {
        if self.memory_is_short {
            return Err(Shed { reason: Reason::Memory, retry_after_s: 5 });
        }
        self.meter.check(&self.total, now_ms, [Reason::TotalRate, Reason::TotalWindow])?;
        let meter = &mut self.rows[peer.row as usize].meter;
        meter.check(&self.source, now_ms, [Reason::SourceRate, Reason::SourceWindow])
    }

    /// Whether a pushing request may go on to its body.
    pub fn request(&mut self, peer: &Peer, now_ms: u64) -> Result<(), Shed> {
        let all = self.connections.saturating_add(self.others);
        let is_over = self.connections > self.files_max || all > self.connections_max;
        if is_over && !self.is_behind_desk {
            return Err(Shed { reason: Reason::ConnectionsMax, retry_after_s: 5 });
        }
        self.samples(peer, now_ms)
    }

    /// Charges samples that were let through.
    #[inline]
    pub fn charge(&mut self, peer: &Peer, samples: u64) {
        self.meter.charge(samples);
        self.rows[peer.row as usize].meter.charge(samples);
    }
}

fn connections_max(limits: &Limits) -> u32 {
    match limits.connections_max {
        0 => u32::MAX,
        most => most,
    }
}

fn rates(limits: &Limits, workers: u32) -> (Rates, Rates) {
    let source = Rates::new(
        limits.source_samples_per_s_max,
        limits.source_samples_burst_max,
        limits.source_window_samples_max,
        limits.rate_window_s,
        1.0,
    );
    let total = Rates::new(
        limits.total_samples_per_s_max,
        limits.total_samples_burst_max,
        limits.total_window_samples_max,
        limits.rate_window_s,
        f64::from(workers.max(1)),
    );
    (source, total)
}

#[cfg(test)]
#[path = "admission_test.rs"]
mod tests;
