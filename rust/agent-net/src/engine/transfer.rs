//! Giving connections to the successor, and taking them from the predecessor and the desk; [`crate::handover`] has the
//! record that goes with each.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use agent_wire::framing::Framer;

use super::Engine;
use crate::desk;
use crate::handover::{Record, HEAD_BYTES};
use crate::listen::{CloseReason, Listening, RefuseReason};
use crate::slab::{flag, Protocol, NONE};
use crate::system::{self, FILES_MAX};

/// Bytes of one message.
const MESSAGE_BYTES_MAX: usize = 96 << 10;
/// Bytes that may wait in a connection that is handed over.
const BYTES_MAX: usize = 64 << 10;
/// Connections handed over before others have their turn.
const CONNECTIONS_MAX: usize = 256;
/// Messages taken before others have their turn.
const MESSAGES_MAX: usize = 2;
/// The same of the desk, whose messages have one connection each.
const DESK_MESSAGES_MAX: usize = 64;
/// The longest that a retiring worker waits for its successor to take a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who gives a connection away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Giver {
    /// Its listeners are ours, in the same order.
    Predecessor,
    /// All it gives is of HTTP.
    Desk,
}

/// Connections that go with one message.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    files: Vec<RawFd>,
    indices: Vec<u32>,
}

impl Engine {
    /// Gives the successor the next connections that can go, if it is the time for it.
    pub(crate) fn go_on_handing_over(&mut self) {
        let Some(from) = self.handover_from else { return };
        match self.hand_over(from) {
            Ok(next) => self.handover_from = next,
            Err(_) => self.stop_handing_over(),
        }
    }

    /// The connection has become idle: where connections go to a successor, it goes before its next
    /// request, which may come at any moment.
    pub(crate) fn may_go_now(&mut self, index: u32) {
        if self.is_handing_over() {
            let from = self.handover_from.unwrap_or(index);
            self.handover_from = Some(from.min(index));
        }
    }

    /// There is nobody to take connections: they come to their end here.
    pub(crate) fn stop_handing_over(&mut self) {
        (self.handover_out, self.handover_from) = (None, None);
        self.http.set_draining();
    }

    /// Hands over some connections from this index on; gives where to go on.
    fn hand_over(&mut self, from: u32) -> io::Result<Option<u32>> {
        let Some(socket) = self.handover_out else { return Ok(None) };
        system::set_send_timeout(socket, PATIENCE)?;
        let mut batch = Batch::default();
        let indices = self.conns.slab.open_from(from, CONNECTIONS_MAX);
        let next = indices.last().map(|last| last + 1);
        for index in indices {
            if !self.can_go(index) {
                continue;
            }
            let more = HEAD_BYTES + self.waiting(index);
            let is_full =
                batch.files.len() == FILES_MAX || batch.bytes.len() + more > MESSAGE_BYTES_MAX;
            if is_full {
                self.send_off(socket, &mut batch)?;
            }
            self.pack(index, &mut batch);
        }
        if !batch.files.is_empty() {
            self.send_off(socket, &mut batch)?;
        }
        Ok(next)
    }

    pub(crate) fn can_go(&mut self, index: u32) -> bool {
        let conn = self.conns.at(index);
        if conn.has(flag::CLOSING | flag::NO_READ | flag::READ_CLOSED) {
            return false;
        }
        match conn.protocol {
            Protocol::Http => conn.side == NONE,
            _ => self.waiting(index) <= BYTES_MAX,
        }
    }

    fn waiting(&mut self, index: u32) -> usize {
        self.conns.busy(index).map_or(0, |side| side.input.len() + side.unwritten().len())
    }

    fn pack(&mut self, index: u32, batch: &mut Batch) {
        let conn = self.conns.slab.at(index).clone();
        let side = self.conns.pool.find(conn.side);
        let (input, output) =
            side.map_or((&[][..], &[][..]), |side| (&side.input[..], side.unwritten()));
        Record::of(&conn, input, output).encode(&mut batch.bytes);
        batch.files.push(conn.fd);
        batch.indices.push(index);
    }

    /// Sends a message, and forgets the connections that went with it.
    fn send_off(&mut self, socket: RawFd, batch: &mut Batch) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        while let Err(error) = system::send_with_files(socket, &batch.bytes, &batch.files) {
            // More descriptors are under way than one may have open: the successor takes some.
            let is_crowded = error.raw_os_error() == Some(libc::ETOOMANYREFS);
            let may_try = is_crowded || error.kind() == io::ErrorKind::Interrupted;
            if !may_try || Instant::now() >= until {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for index in batch.indices.drain(..) {
            // The socket lives on: closing our copy alone would leave it in our epoll.
            self.conns.epoll.remove(self.conns.slab.at(index).fd);
            self.close(index, CloseReason::HandedOver);
        }
        batch.bytes.clear();
        batch.files.clear();
        Ok(())
    }

    /// Takes connections from the predecessor.
    pub(crate) fn take_over(&mut self) {
        let Some(socket) = self.handover_in else { return };
        if !self.take_messages(socket, Giver::Predecessor, MESSAGES_MAX) {
            self.conns.epoll.remove(socket);
            system::close(socket);
            self.handover_in = None;
        }
    }

    /// Takes connections that push from the desk.
    pub(crate) fn take_from_desk(&mut self) {
        let Some(socket) = self.desk_in else { return };
        if !self.take_messages(socket, Giver::Desk, DESK_MESSAGES_MAX) {
            self.leave_desk();
        }
    }

    /// Takes nothing from the desk any more.
    pub(crate) fn leave_desk(&mut self) {
        if let Some(socket) = self.desk_in.take() {
            self.conns.epoll.remove(socket);
            system::close(socket);
        }
    }

    /// Takes up to `most` messages; whether there may be more, now or later.
    fn take_messages(&mut self, socket: RawFd, giver: Giver, most: usize) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut is_open = true;
        for _ in 0..most {
            let mut files = Vec::with_capacity(FILES_MAX);
            match system::receive_with_files(socket, &mut buffer, &mut files) {
                Ok(count) if count > 0 => self.take_message(&buffer[..count], files, giver),
                Err(error) if system::is_again(&error) || system::is_out_of_memory(&error) => break,
                // The other end is gone.
                Ok(_) | Err(_) => {
                    is_open = false;
                    break;
                }
            }
        }
        self.buffer = buffer;
        is_open
    }

    fn take_message(&mut self, mut message: &[u8], files: Vec<RawFd>, giver: Giver) {
        let mut files = files.into_iter();
        while let Some(mut record) = Record::decode(&mut message) {
            if giver == Giver::Desk {
                self.seats.note_passing(self.applier.writer(), -1);
                let is_http = |listening: &Listening| listening.protocol == Protocol::Http;
                let number = self.listeners.iter().position(is_http);
                record.listener = number.map_or(u8::MAX, |number| number as u8);
            }
            let Some(listening) = self.listeners.get_mut(usize::from(record.listener)) else {
                files.next().into_iter().for_each(system::close);
                continue;
            };
            match files.next() {
                Some(fd) => self.take(&record, fd, giver),
                // The kernel had no descriptor left for it here, and has closed it.
                None => listening.note_refused(self.applier.writer(), RefuseReason::FileLimit),
            }
        }
        files.for_each(system::close);
    }

    fn take(&mut self, record: &Record<'_>, fd: RawFd, giver: Giver) {
        let admission = self.applier.admission();
        let peer = admission.peer(record.address, self.conns.now_ms);
        match giver {
            Giver::Predecessor => admission.take_over(&peer),
            // Others it moved of its own accord: nobody asked for an answer.
            Giver::Desk if !desk::pushes(record.input) => admission.take_over(&peer),
            Giver::Desk => {
                if let Err(refusal) = admission.take_pusher(&peer) {
                    return self.refuse(record.listener.into(), fd, refusal.into());
                }
            }
        }
        let deadline = self.idle_deadline(record.protocol);
        let opened = self.conns.open(fd, record.protocol, &peer, record.listener, deadline);
        let Ok(index) = opened else {
            self.applier.admission().closed(peer.row);
            return self.refuse(record.listener.into(), fd, RefuseReason::NoRoom);
        };
        let listening = &mut self.listeners[usize::from(record.listener)];
        listening.note_taken_over(self.applier.writer());
        self.show_connections();
        let conn = self.conns.at(index);
        conn.seen = record.seen;
        conn.set(flag::HAS_SENT, record.has_sent);
        conn.framer = Framer::resumed(record.is_skipping);
        conn.set(flag::SHED, record.was_shed);
        conn.set(flag::ALL_ACKED, record.all_acked);
        if giver == Giver::Desk {
            if !record.input.is_empty() {
                self.drive(index, record.input);
            }
            return;
        }
        let number = &mut self.conns.slab.at(index).side;
        if !record.input.is_empty() && !self.conns.pool.set_input(number, record.input) {
            return self.close(index, CloseReason::BuffersFull);
        }
        if !record.output.is_empty() {
            self.conns.side(index).output.extend_from_slice(record.output);
            self.conns.set_flags(index, flag::WANTS_WRITE, true);
        }
        self.file(index);
    }
}
