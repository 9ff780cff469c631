//! The desk's connections that go to a worker; [`crate::desk`] says which, and why.

use super::Engine;
use crate::admission::HTTP_RESERVE;
use crate::desk::pushes;
use crate::handover::message;
use crate::listen::{CloseReason, RefuseReason, ACCEPTS_MAX};
use crate::place::Place;
use crate::slab::{flag, NONE};
use crate::system;
use crate::wheel::tick_of;

/// Requests, or reads with several of them, in one tick of 250 ms before kept connections are passed on.
const REQUESTS_MAX: u32 = 1000;
/// Doors looked at for the one behind which least waits.
const LOOKS_MAX: usize = 4;

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
        let message = message(conn, input);
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
