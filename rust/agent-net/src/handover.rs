//! Connections go from a worker that retires to its successor, and their peers notice nothing.
//!
//! ```text
//! retiring worker -> SOCK_SEQPACKET pair -> successor
//! message: up to 128 records, and as many descriptors in the same order
//! record:  what the slab's entry says, half a line that was read, answers that were not written
//! ```
//!
//! What a peer has sent is either applied, in the record, or still in the kernel, so nothing is lost,
//! applied twice or answered twice. The pair is made when a worker is born and its receiving end is
//! given to the successor at its birth; the end of the stream says that the predecessor is gone.
//!
//! Handed over are connections of line protocols, and those of HTTP between two requests; what is busy
//! goes when it has become idle. What cannot go in time is ended as in [`crate::engine`], and so is
//! everything when the successor does not take a message within [`PATIENCE`].
//!
//! Not promised: versions. Both ends are forked from one supervisor, so numbers are in the machine's
//! order.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use agent_wire::framing::Framer;

use crate::desk;
use crate::engine::Engine;
use crate::listen::{CloseReason, Listening, RefuseReason};
use crate::slab::{flag, Conn, Protocol, NONE};
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
/// Bytes of a record without what waits.
const HEAD_BYTES: usize = 31;

/// What goes with a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record<'a> {
    protocol: Protocol,
    was_shed: bool,
    all_acked: bool,
    is_skipping: bool,
    has_sent: bool,
    listener: u8,
    seen: u32,
    address: Option<IpAddr>,
    /// Read and not applied.
    input: &'a [u8],
    /// Answers, not written.
    output: &'a [u8],
}

const PROTOCOLS: [Protocol; 5] = [
    Protocol::Http,
    Protocol::LinesTcp,
    Protocol::UnixUnknown,
    Protocol::LinesUnix,
    Protocol::PacketsUnix,
];

impl<'a> Record<'a> {
    fn of(conn: &Conn, input: &'a [u8], output: &'a [u8]) -> Record<'a> {
        Record {
            protocol: conn.protocol,
            was_shed: conn.has(flag::SHED),
            all_acked: conn.has(flag::ALL_ACKED),
            is_skipping: conn.framer.is_skipping(),
            has_sent: conn.has(flag::HAS_SENT),
            listener: conn.listener,
            seen: conn.seen,
            address: conn.peer().address,
            input,
            output,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let flags = [
            self.was_shed,
            self.all_acked,
            self.is_skipping,
            self.address.is_some(),
            self.has_sent,
        ];
        let bits = flags.iter().enumerate().map(|(bit, &on)| u8::from(on) << bit).sum();
        // IPv4 travels in its mapped form.
        let address = match self.address {
            None => Ipv6Addr::UNSPECIFIED,
            Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
            Some(IpAddr::V6(v6)) => v6,
        };
        out.extend_from_slice(&[self.protocol as u8, bits, self.listener]);
        for number in [self.seen, self.input.len() as u32, self.output.len() as u32] {
            out.extend_from_slice(&number.to_ne_bytes());
        }
        out.extend_from_slice(&address.octets());
        out.extend_from_slice(self.input);
        out.extend_from_slice(self.output);
    }

    /// Takes a record off the front of a message.
    fn decode(message: &mut &'a [u8]) -> Option<Record<'a>> {
        let (head, rest) = message.split_first_chunk::<HEAD_BYTES>()?;
        let number = |at: usize| {
            head[at..at + 4].try_into().map_or(0, |bytes: [u8; 4]| u32::from_ne_bytes(bytes))
        };
        let octets: [u8; 16] = head[15..31].try_into().ok()?;
        let has = |bit: u8| head[1] & 1 << bit != 0;
        let v6 = Ipv6Addr::from(octets);
        let (input, rest) = rest.split_at_checked(number(7) as usize)?;
        let (output, rest) = rest.split_at_checked(number(11) as usize)?;
        *message = rest;
        Some(Record {
            protocol: *PROTOCOLS.iter().find(|protocol| **protocol as u8 == head[0])?,
            was_shed: has(0),
            all_acked: has(1),
            is_skipping: has(2),
            has_sent: has(4),
            listener: head[2],
            seen: number(3),
            address: has(3).then(|| v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)),
            input,
            output,
        })
    }
}

/// The message with which the desk passes a connection on.
pub(crate) fn message(conn: &Conn, input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + input.len());
    Record::of(conn, input, &[]).encode(&mut bytes);
    bytes
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_arrive_as_they_were_packed() {
        let plain = Record {
            protocol: Protocol::LinesTcp,
            was_shed: true,
            all_acked: false,
            is_skipping: false,
            has_sent: true,
            listener: 2,
            seen: 77,
            address: Some("127.9.8.7".parse().expect("an address")),
            input: b"half:1",
            output: b"",
        };
        let records = [
            plain.clone(),
            Record { address: None, protocol: Protocol::PacketsUnix, ..plain.clone() },
            Record {
                address: Some("2001:db8::1".parse().expect("an address")),
                protocol: Protocol::Http,
                input: b"",
                ..plain.clone()
            },
            Record { all_acked: true, is_skipping: true, output: b"_ack|1\n", ..plain },
        ];
        let mut message = Vec::new();
        records.iter().for_each(|record| record.encode(&mut message));
        let mut rest = &message[..];
        for record in &records {
            assert_eq!(Record::decode(&mut rest).as_ref(), Some(record));
        }
        assert_eq!(Record::decode(&mut rest), None);
        let cut = &mut &message[..message.len() - 1];
        assert_eq!(std::iter::from_fn(|| Record::decode(cut)).count(), records.len() - 1);
    }
}
