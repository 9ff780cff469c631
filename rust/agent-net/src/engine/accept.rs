//! Accepting connections and refusing them; [`crate::listen`] has the rules.

use std::io;

use super::Engine;
use crate::admission::{Peer, Refusal, Seat, HTTP_RESERVE};
use crate::listen::{CloseReason, RefuseReason, NO_ROOM};
use crate::slab::{flag, Protocol};
use crate::system;
use crate::wheel::{tick_of, TICK_MS};

/// An HTTP connection that was idle for this time may be closed for a new one.
const EVICT_IDLE_MS: u64 = 1000;
/// Connections looked at in search of one.
const EVICT_LOOKS_MAX: u32 = 1024;
/// HTTP connections that are accepted between two rests when there is no memory to do so, for probes.
const TRICKLE: usize = 16;

impl Engine {
    /// Takes what waits at a listener, up to `most`.
    pub(crate) fn accept(&mut self, number: usize, most: usize) {
        if self.listeners[number].fd < 0 {
            return;
        }
        let mut opened = 0;
        self.applier.admission().forget_others();
        let is_http = self.listeners[number].protocol == Protocol::Http;
        let mut trickle = if is_http { TRICKLE } else { 0 };
        for _ in 0..most {
            if !self.may_accept() {
                if trickle == 0 {
                    self.rest(number);
                    break;
                }
                trickle -= 1;
            }
            match system::accept(self.listeners[number].fd) {
                Ok((fd, address)) => {
                    self.seats.note_accepted(self.applier.writer());
                    let peer = self.applier.admission().peer(address, self.conns.now_ms);
                    opened += u64::from(self.welcome(number, fd, &peer));
                }
                Err(error) if system::is_again(&error) => break,
                // The peer gave up while it waited.
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
                Err(error) => {
                    if !self.no_descriptor(number, &error) {
                        break;
                    }
                }
            }
        }
        if opened > 0 {
            self.listeners[number].opened.add(self.applier.writer(), opened);
            self.thin_out();
        }
    }

    fn welcome(&mut self, number: usize, fd: i32, peer: &Peer) -> bool {
        if self.applier.admission().must_ask_others() {
            let others = self.seats.others(self.applier.writer());
            self.applier.admission().set_others(others);
        }
        let listening = &self.listeners[number];
        let protocol = listening.protocol;
        let is_http = protocol == Protocol::Http;
        let has_reserve = listening.open < u64::from(HTTP_RESERVE);
        let seat = if is_http { Seat::Http } else { Seat::Ordinary };
        let is_beyond_cap = self.applier.admission().is_full_for_all();
        let mut admitted = self.applier.admission().open(peer, seat);
        let is_full = matches!(admitted, Err(Refusal::ConnectionsMax | Refusal::Memory));
        if is_full && is_http && (has_reserve || self.evict_slow_http()) {
            admitted = self.applier.admission().open(peer, Seat::Reserved);
        }
        if let Err(refusal) = admitted {
            self.refuse(number, fd, refusal.into());
            return false;
        }
        let deadline = self.idle_deadline(protocol);
        match self.conns.open(fd, protocol, peer, number as u8, deadline) {
            Ok(index) => {
                self.conns.at(index).set(flag::BEYOND_CAP, is_beyond_cap);
                self.listeners[number].open += 1;
                self.show_connections();
                true
            }
            Err(fd) => {
                self.applier.admission().closed(peer.row);
                self.refuse(number, fd, RefuseReason::NoRoom);
                false
            }
        }
    }

    /// Closes an HTTP connection whose peer has said nothing for a second, or has not come to the end of a
    /// request's head in that time, or does not close after our last answer, if one is found soon:
    /// whoever has many of them open shall not keep probes out.
    fn evict_slow_http(&mut self) -> bool {
        let now = tick_of(self.conns.now_ms);
        let long_ago = now.saturating_sub((EVICT_IDLE_MS / TICK_MS) as u32);
        let end = self.conns.slab.capacity() as u32;
        for _ in 0..EVICT_LOOKS_MAX.min(end) {
            let index = if self.evict_from < end { self.evict_from } else { 0 };
            self.evict_from = index + 1;
            let conn = self.conns.at(index);
            let waits_for_peer = conn.protocol == Protocol::Http
                && !conn.has(flag::CLOSING | flag::NO_READ | flag::READ_CLOSED);
            let is_silent = conn.seen < long_ago;
            // It has its answer, and time to read it.
            let is_done = conn.protocol == Protocol::Http
                && conn.has(flag::CLOSING)
                && !conn.has(flag::NO_READ | flag::WANTS_WRITE)
                && conn.seen + 1 < now;
            let is_slow = waits_for_peer && (is_silent || self.has_slow_head(index)) || is_done;
            // Between two requests, or in the middle of one whose rest does not come.
            let is_ours_to_move =
                self.conns.busy(index).is_some_and(|side| side.is_pushing || side.stream.is_some());
            if is_slow && !is_ours_to_move {
                self.close(index, CloseReason::Evicted);
                return true;
            }
        }
        false
    }

    fn has_slow_head(&mut self, index: u32) -> bool {
        let (http, now_ms) = (&self.http, self.conns.now_ms);
        let side = self.conns.busy(index);
        side.is_some_and(|side| http.is_slow_head(&side.http, now_ms, EVICT_IDLE_MS))
    }

    #[cold]
    pub(crate) fn refuse(&mut self, number: usize, fd: i32, reason: RefuseReason) {
        self.listeners[number].note_refused(self.applier.writer(), reason);
        if self.listeners[number].protocol == Protocol::Http {
            let _ = system::send(fd, NO_ROOM);
            system::shutdown_write(fd);
            system::close(fd);
        } else {
            system::close_with_reset(fd);
        }
    }

    /// Out of descriptors, or worse. Whether to go on accepting.
    #[cold]
    fn no_descriptor(&mut self, number: usize, error: &io::Error) -> bool {
        let is_ours = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
        if is_ours && self.spare.turn_away(self.listeners[number].fd) {
            self.listeners[number].note_refused(self.applier.writer(), RefuseReason::FileLimit);
            return true;
        }
        if !is_ours {
            self.rest(number);
        }
        false
    }

    /// Lets connections wait in the kernel's queue for a while.
    #[cold]
    fn rest(&mut self, number: usize) {
        self.listeners[number].is_paused = true;
        self.rested_ms = self.conns.now_ms;
        self.conns.epoll.remove(self.listeners[number].fd);
    }
}
