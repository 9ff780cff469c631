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
//! - kept ones that ask after [`REQUESTS_MAX`] requests in a tick: several workers answer more of them
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

use crate::admission::HTTP_RESERVE;
use crate::engine::{files_max, Engine};
use crate::listen::{CloseReason, RefuseReason, ACCEPTS_MAX};
use crate::place::Place;
use crate::slab::{flag, NONE};
use crate::system;
use crate::wheel::tick_of;

/// Requests, or reads with several of them, in one tick of 250 ms before kept connections are passed on.
const REQUESTS_MAX: u32 = 1000;
/// Doors looked at for the one behind which least waits.
const LOOKS_MAX: usize = 4;
/// Bytes that the desk reads at once: they must fit into a message.
pub const READ_BYTES: usize = 16 << 10;

/// What the desk has and a worker has not.
pub(crate) struct Desk {
    /// To the workers, in their order.
    doors: Vec<RawFd>,
    /// Whose turn it is.
    next: usize,
    /// Requests begun in this tick.
    requests: u32,
    tick: u32,
    /// Connections that this process has descriptors for, and each worker: their limits are the same.
    room: u32,
    /// Where the search for silent connections goes on.
    search_from: u32,
}

impl Desk {
    /// Nothing where there are no doors.
    pub fn new(doors: &[RawFd]) -> Option<Desk> {
        (!doors.is_empty()).then(|| Desk {
            doors: doors.to_vec(),
            next: 0,
            requests: 0,
            tick: 0,
            room: files_max(),
            search_from: 0,
        })
    }

    fn count_request(&mut self, tick: u32) {
        if self.tick != tick {
            (self.tick, self.requests) = (tick, 0);
        }
        self.requests += 1;
    }

    fn is_crowded(&self, open: u32) -> bool {
        open >= self.room / 2
    }

    fn is_nearly_full(&self, open: u32) -> bool {
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

impl Engine {
    /// `input` was read: whether the connection went to a worker with it, or its end.
    pub(crate) fn passes_on(&mut self, index: u32, input: &[u8]) -> bool {
        let tick = tick_of(self.conns.now_ms);
        let Some(desk) = &mut self.desk else { return false };
        let conn = self.conns.slab.at(index);
        if conn.side != NONE {
            return false; // In the middle of a request.
        }
        desk.count_request(tick);
        // A connection for each request would not become cheaper by going.
        let is_one_too_many = desk.requests > REQUESTS_MAX && conn.has(flag::HAS_SENT);
        let (room, pushes) = (desk.room, pushes(input));
        if conn.has(flag::BEYOND_CAP) && !self.has_room_now(index) {
            // There is room for an answer.
            if pushes {
                self.turn_away(index, RefuseReason::ConnectionsMax);
            }
            return pushes;
        }
        if (pushes || is_one_too_many) && self.pass_on(index, input) {
            return true;
        }
        // Nobody has room for it: the last places are for those who read.
        let is_last = self.conns.slab.open() + HTTP_RESERVE >= room;
        if pushes && is_last {
            self.turn_away(index, RefuseReason::FileLimit);
        }
        pushes && is_last
    }

    /// Whether a connection that was let in beyond the cap is within it now.
    fn has_room_now(&mut self, index: u32) -> bool {
        let others = self.seats.others(self.applier.writer());
        let admission = self.applier.admission();
        admission.set_others(others);
        let has_room = !admission.is_over_for_all();
        self.conns.at(index).set(flag::BEYOND_CAP, !has_room);
        has_room
    }

    /// After a batch of new connections: makes room where half of it is taken.
    pub(crate) fn thin_out(&mut self) {
        let now = tick_of(self.conns.now_ms);
        let Some(desk) = &mut self.desk else { return };
        let open = self.conns.slab.open();
        if !desk.is_crowded(open) {
            return;
        }
        let is_nearly_full = desk.is_nearly_full(open);
        let found = self.conns.slab.open_from(desk.search_from, 2 * ACCEPTS_MAX);
        desk.search_from = found.last().map_or(0, |last| last + 1);
        for index in found {
            let conn = self.conns.at(index);
            let has_never_asked = !conn.has(flag::HAS_SENT) && conn.seen < now;
            if (has_never_asked || is_nearly_full) && self.can_go(index) {
                self.pass_on(index, &[]);
            }
        }
    }

    fn pass_on(&mut self, index: u32, input: &[u8]) -> bool {
        let Some(desk) = &mut self.desk else { return false };
        let conn = self.conns.slab.at(index);
        let fd = conn.fd;
        let message = crate::handover::message(conn, input);
        let count = desk.doors.len();
        let first = desk.next;
        let in_turn = |turn: usize| (first + turn) % count;
        // Of the next few the one behind which least waits, else all in order.
        let shortest = (0..LOOKS_MAX.min(count))
            .map(in_turn)
            .min_by_key(|&number| system::unread_bytes(desk.doors[number]));
        desk.next = if count > 0 { in_turn(1) } else { 0 };
        self.seats.note_passing(self.applier.writer(), 1);
        for number in shortest.into_iter().chain((0..count).map(in_turn)) {
            let there = self.seats.of(self.applier.writer(), Place::Worker(number as u32));
            if there >= desk.room {
                continue;
            }
            // A door that is stuck is passed by; its socket does not wait.
            if system::send_with_files(desk.doors[number], &message, &[fd]).is_ok() {
                // The socket lives on: closing our copy alone would leave it in our epoll.
                self.conns.epoll.remove(fd);
                self.close(index, CloseReason::HandedOver);
                return true;
            }
        }
        self.seats.note_passing(self.applier.writer(), -1);
        false
    }
}
