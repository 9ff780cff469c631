//! The desk: the one process that accepts HTTP connections. It answers probes and scrapes itself and
//! passes on to a worker who pushes.
//!
//! ```text
//! HTTP listener -> desk: GET, HEAD        answered here
//!                        POST, PUT ... --+
//!                        very many ------+-> SOCK_SEQPACKET pair of a worker -> answered there
//! ```
//!
//! A worker under load is one of many processes that want a core, and its next turn may be 100 ms away.
//! The desk has next to nothing to do, so its turn comes at once, and it asks the scheduler for that too
//! ([`system::hurry`]).
//!
//! Passed on are, with what was read of a request and before any of it was used ([`crate::handover`] has
//! the record):
//! - connections on which a read begins with a method that pushes: POST, PUT, PATCH, DELETE; one that is
//!   pipelined behind a GET is served here;
//! - kept ones that ask after 1,000 requests in a tick: several workers answer more of them
//!   than one desk, and who asks that often is no probe;
//! - ones that have never sent anything, when half of the descriptors are taken; when three quarters are,
//!   whatever is idle.
//!
//! A connection that was passed on does not come back.
//!
//! Workers have their turns in order, but for those that are full and those that are slower than others to
//! take what they are given. When none takes a connection, it stays: the desk is a worker with fewer
//! listeners. Who was let in beyond the cap may read and not push; and where no process has room, who
//! pushes is turned away before the last places are taken, which are for those who read.
//!
//! A pair is made for each worker's place and lives as long as the collector: what waits in it when a
//! worker dies is its successor's. When the whole collector leaves, the desk passes nothing on, and a
//! worker stays until the desk has closed its end of the pair.
//!
//! Not promised: that probes are answered soon when silent HTTP connections come faster than half the
//! descriptors in a tick; then the newest are passed on as well, probes among them.

use std::os::fd::RawFd;

use crate::system;

/// Bytes that the desk reads at once: they must fit into a message.
pub const READ_BYTES: usize = 16 << 10;

/// What the desk has and a worker has not.
pub(crate) struct Desk {
    /// To the workers, in their order.
    pub doors: Vec<RawFd>,
    /// Whose turn it is.
    pub next: usize,
    /// Requests begun in this tick.
    pub requests: u32,
    tick: u32,
    /// Connections that this process has descriptors for, and each worker: their limits are the same.
    pub room: u32,
    /// Where the search for silent connections goes on.
    pub search_from: u32,
}

impl Desk {
    /// Nothing where there are no doors.
    pub fn new(doors: &[RawFd], room: u32) -> Option<Desk> {
        (!doors.is_empty()).then(|| Desk {
            doors: doors.to_vec(),
            next: 0,
            requests: 0,
            tick: 0,
            room,
            search_from: 0,
        })
    }

    pub fn count_request(&mut self, tick: u32) {
        if self.tick != tick {
            (self.tick, self.requests) = (tick, 0);
        }
        self.requests += 1;
    }

    pub fn is_crowded(&self, open: u32) -> bool {
        open >= self.room / 2
    }

    pub fn is_nearly_full(&self, open: u32) -> bool {
        open >= self.room / 4 * 3
    }

    /// The whole collector leaves: what comes now is answered here.
    pub fn close_doors(&mut self) {
        self.doors.drain(..).for_each(system::close);
    }
}

/// Whether what was read begins a request that pushes: POST, PUT, PATCH, DELETE.
pub(crate) fn pushes(input: &[u8]) -> bool {
    matches!(input.first(), Some(b'P' | b'D'))
}
