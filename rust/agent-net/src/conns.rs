//! The connections of a loop: slab, wheel, side buffers and epoll, kept in step.
//!
//! What every protocol needs of a connection and no more: opening, writing as far as it goes, keeping
//! the rest, asking the kernel for the right events, closing. A connection waits in memory only for
//! as long as there is something to wait for; written output and finished input give their buffers
//! back at once.

use std::os::fd::RawFd;

use crate::admission::Peer;
use crate::side::{Pool, Side};
use crate::slab::{flag, Conn, Protocol, Slab};
use crate::system::{self, Epoll, Interest};
use crate::wheel::{tick_of, Wheel};

/// Bit in a token: the event is that of the stream's eventfd.
pub const STREAM_BIT: u64 = 1 << 31;
/// Bit in a token: not a connection. Slab indices stay below it.
pub const SPECIAL_BIT: u64 = 1 << 30;

/// How far a write went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    All,
    /// The rest is kept; an event will tell when to go on.
    Pending,
    /// The peer is gone.
    Broken,
}

pub struct Conns {
    pub epoll: Epoll,
    pub slab: Slab,
    pub wheel: Wheel,
    pub pool: Pool,
    pub now_ms: u64,
}

impl Conns {
    pub fn new(epoll: Epoll, now_ms: u64) -> Conns {
        let (slab, wheel) = (Slab::default(), Wheel::new(tick_of(now_ms)));
        Conns { epoll, slab, wheel, pool: Pool::default(), now_ms }
    }

    pub fn at(&mut self, index: u32) -> &mut Conn {
        self.slab.at(index)
    }

    /// The side buffers of a connection, made when it has none.
    pub fn side(&mut self, index: u32) -> &mut Side {
        self.pool.get(&mut self.slab.at(index).side)
    }

    /// The side buffers of a connection that has some.
    pub fn busy(&mut self, index: u32) -> Option<&mut Side> {
        self.pool.find(self.slab.at(index).side)
    }

    /// Takes a new connection in; gives the descriptor back when there is no room for it.
    pub fn open(
        &mut self,
        fd: RawFd,
        protocol: Protocol,
        peer: &Peer,
        listener: u8,
        deadline: u32,
    ) -> Result<u32, RawFd> {
        let index = self.slab.insert(fd, protocol, peer).ok_or(fd)?;
        let token = self.slab.token(index);
        let conn = self.slab.at(index);
        (conn.listener, conn.seen) = (listener, tick_of(self.now_ms));
        if self.epoll.add(fd, token, Interest::Read).is_err() {
            self.slab.remove(index);
            return Err(fd);
        }
        self.wheel.file(&mut self.slab, index, deadline);
        Ok(index)
    }

    /// Notes that the peer did something.
    #[inline]
    pub fn touch(&mut self, index: u32) {
        let tick = tick_of(self.now_ms);
        self.slab.at(index).seen = tick;
    }

    /// Writes `bytes` behind what already waits.
    pub fn write(&mut self, index: u32, bytes: &[u8]) -> Sent {
        if bytes.is_empty() {
            return self.state(index);
        }
        let (fd, waits) = (self.at(index).fd, self.state(index) == Sent::Pending);
        let sent = match waits {
            true => 0,
            false => match system::send(fd, bytes) {
                Ok(count) => count,
                Err(error) if system::is_again(&error) => 0,
                Err(_) => return Sent::Broken,
            },
        };
        if sent > 0 {
            self.touch(index);
        }
        if sent == bytes.len() {
            return Sent::All;
        }
        self.side(index).output.extend_from_slice(&bytes[sent..]);
        self.set_flags(index, flag::WANTS_WRITE, true);
        Sent::Pending
    }

    fn state(&mut self, index: u32) -> Sent {
        match self.busy(index).is_some_and(|side| !side.unwritten().is_empty()) {
            true => Sent::Pending,
            false => Sent::All,
        }
    }

    /// Writes what waits.
    pub fn flush(&mut self, index: u32) -> Sent {
        let fd = self.at(index).fd;
        let Some(side) = self.busy(index) else { return self.written(index) };
        while !side.unwritten().is_empty() {
            match system::send(fd, side.unwritten()) {
                Ok(count) => side.written += count,
                Err(error) if system::is_again(&error) => {
                    self.touch(index);
                    return Sent::Pending;
                }
                Err(_) => return Sent::Broken,
            }
        }
        (side.output, side.written) = (Vec::new(), 0);
        self.touch(index);
        self.written(index)
    }

    fn written(&mut self, index: u32) -> Sent {
        self.set_flags(index, flag::WANTS_WRITE, false);
        Sent::All
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&mut self, index: u32) -> usize {
        self.busy(index).map_or(0, |side| side.unwritten().len())
    }

    /// Changes flags, and with them what the kernel tells.
    pub fn set_flags(&mut self, index: u32, bits: u16, on: bool) {
        let token = self.slab.token(index);
        let conn = self.slab.at(index);
        let before = interest(conn);
        conn.set(bits, on);
        let (fd, after) = (conn.fd, interest(conn));
        if before != after {
            // It can only fail for a descriptor that is not there, and this one is.
            let _ = self.epoll.change(fd, token, after);
        }
    }

    /// Gives back what an idle connection does not need.
    pub fn settle(&mut self, index: u32) {
        self.pool.release_if_idle(&mut self.slab.at(index).side);
    }

    /// Ends a connection; gives the row of its source and its listener.
    pub fn close(&mut self, index: u32, with_reset: bool) -> (u32, u8) {
        if let Some(stream) = self.busy(index).and_then(|side| side.stream.take()) {
            self.epoll.remove(stream.fd());
        }
        self.wheel.take_out(&mut self.slab, index);
        let conn = self.slab.at(index);
        self.pool.release(&mut conn.side);
        let (fd, row, listener) = (conn.fd, conn.row, conn.listener);
        self.slab.remove(index);
        if with_reset {
            system::close_with_reset(fd);
        } else {
            system::close(fd);
        }
        (row, listener)
    }
}

fn interest(conn: &Conn) -> Interest {
    match (conn.has(flag::NO_READ), conn.has(flag::WANTS_WRITE)) {
        (false, false) => Interest::Read,
        (false, true) => Interest::Both,
        (true, true) => Interest::Write,
        (true, false) => Interest::Nothing,
    }
}
