//! Connections: 56 bytes each, in chunks, found by index and checked by generation.
//!
//! A token is `generation << 32 | index`, the user data of epoll. A freed entry counts its generation
//! up, so an event or a token of an earlier connection finds nothing. What only a busy connection
//! needs (half a line, output, a request) stands in [`crate::side`], and the entry holds its number.
//!
//! Limits: chunks of 256 entries, at most 2^30 entries. Chunks are kept when connections go; the
//! memory of a peak is used again by the next one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_wire::framing::Framer;

use crate::admission::Peer;

/// No entry, no side buffer, no neighbour.
pub const NONE: u32 = u32::MAX;

const CHUNK: usize = 256;
const ENTRIES_MAX: usize = 1 << 30;

/// What the bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// The entry is free.
    Free,
    Http,
    /// Lines over TCP.
    LinesTcp,
    /// Lines, or length-prefixed packets, over a unix stream; not known before the first bytes.
    UnixUnknown,
    LinesUnix,
    /// Packets with a 32-bit little-endian length before each.
    PacketsUnix,
}

/// Bits of [`Conn::flags`].
pub mod flag {
    /// The address is IPv4 (else IPv6, when [`ADDRESS`] is set).
    pub const IPV4: u16 = 1 << 0;
    /// There is an address at all.
    pub const ADDRESS: u16 = 1 << 1;
    /// Samples were shed since the last `_ack`.
    pub const SHED: u16 = 1 << 2;
    /// Close as soon as the output is written.
    pub const CLOSING: u16 = 1 << 3;
    /// The kernel is asked to tell when output can be written.
    pub const WANTS_WRITE: u16 = 1 << 4;
    /// The kernel is asked not to tell of input: a request is being answered.
    pub const NO_READ: u16 = 1 << 5;
    /// The peer will send no more.
    pub const READ_CLOSED: u16 = 1 << 6;
    /// Everything the peer has sent is acknowledged: it loses nothing, and sends nothing twice, when
    /// it has to go on elsewhere.
    pub const ALL_ACKED: u16 = 1 << 7;
    /// The peer has sent something.
    pub const HAS_SENT: u16 = 1 << 8;
    /// Let in where there was no room, so that probes get through.
    pub const BEYOND_CAP: u16 = 1 << 9;
}

/// One connection.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Conn {
    pub fd: i32,
    generation: u32,
    /// Tick of the last byte from the peer: all that a heartbeat costs.
    pub seen: u32,
    /// Tick at which the wheel looks at it; `NONE` when it is not in the wheel.
    pub(crate) filed: u32,
    pub(crate) previous: u32,
    /// Next in the wheel, or next free entry.
    pub(crate) next: u32,
    /// Row of the source address in the admission table.
    pub row: u32,
    /// Number of its side buffers, `NONE` while it is idle.
    pub side: u32,
    pub framer: Framer,
    address: [u8; 16],
    pub protocol: Protocol,
    /// Index of the listener it came by.
    pub listener: u8,
    pub flags: u16,
}

const _: () = assert!(size_of::<Conn>() <= 56, "an idle connection costs this and nothing else");

impl Conn {
    fn free(generation: u32, next: u32) -> Conn {
        Conn {
            fd: -1,
            generation,
            seen: 0,
            filed: NONE,
            previous: NONE,
            next,
            row: 0,
            side: NONE,
            framer: Framer::default(),
            address: [0; 16],
            protocol: Protocol::Free,
            flags: 0,
            listener: 0,
        }
    }

    pub fn has(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    pub fn set(&mut self, bits: u16, on: bool) {
        self.flags = if on { self.flags | bits } else { self.flags & !bits };
    }

    pub fn peer(&self) -> Peer {
        let address = match (self.has(flag::ADDRESS), self.has(flag::IPV4)) {
            (false, _) => None,
            (true, true) => {
                let [a, b, c, d, ..] = self.address;
                Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            (true, false) => Some(IpAddr::V6(Ipv6Addr::from(self.address))),
        };
        Peer { address, row: self.row }
    }

    fn set_address(&mut self, address: Option<IpAddr>) {
        match address {
            None => {}
            Some(IpAddr::V4(v4)) => {
                self.address[..4].copy_from_slice(&v4.octets());
                self.flags |= flag::ADDRESS | flag::IPV4;
            }
            Some(IpAddr::V6(v6)) => {
                self.address = v6.octets();
                self.flags |= flag::ADDRESS;
            }
        }
    }
}

/// All connections of a loop.
#[derive(Debug)]
pub struct Slab {
    chunks: Vec<Box<[Conn]>>,
    free: u32,
    open: u32,
}

impl Default for Slab {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: NONE, open: 0 }
    }
}

impl Slab {
    /// Connections open now.
    pub fn open(&self) -> u32 {
        self.open
    }

    /// Entries there is memory for.
    pub fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// A new connection; nothing when the slab has reached its hard end.
    pub fn insert(&mut self, fd: i32, protocol: Protocol, peer: &Peer) -> Option<u32> {
        if self.free == NONE {
            self.grow()?;
        }
        let index = self.free;
        let conn = self.at(index);
        let (next_free, generation) = (conn.next, conn.generation);
        *conn = Conn { fd, protocol, row: peer.row, ..Conn::free(generation, NONE) };
        conn.set_address(peer.address);
        self.free = next_free;
        self.open += 1;
        Some(index)
    }

    #[cold]
    fn grow(&mut self) -> Option<()> {
        let first = self.capacity();
        if first + CHUNK > ENTRIES_MAX {
            return None;
        }
        let last = first + CHUNK - 1;
        let chain = (first..=last).map(|at| {
            let next = if at == last { NONE } else { at as u32 + 1 };
            Conn::free(0, next)
        });
        self.chunks.push(chain.collect());
        self.free = first as u32;
        Some(())
    }

    /// Frees the entry. The caller has taken it out of the wheel and given back its side buffers.
    pub fn remove(&mut self, index: u32) {
        let free = self.free;
        let conn = self.at(index);
        debug_assert!(conn.filed == NONE && conn.side == NONE && conn.protocol != Protocol::Free);
        *conn = Conn::free(conn.generation.wrapping_add(1), free);
        self.free = index;
        self.open -= 1;
    }

    /// The token of an open connection.
    pub fn token(&self, index: u32) -> u64 {
        u64::from(self.chunks[index as usize / CHUNK][index as usize % CHUNK].generation) << 32
            | u64::from(index)
    }

    /// The index of a token, if its connection is still open.
    #[inline]
    pub fn find(&self, token: u64) -> Option<u32> {
        let index = token as u32;
        let conn = self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)?;
        let same = conn.generation == (token >> 32) as u32 && conn.protocol != Protocol::Free;
        same.then_some(index)
    }

    /// The entry at an index that [`Slab::find`] or the wheel gave.
    #[inline]
    pub fn at(&mut self, index: u32) -> &mut Conn {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    /// Indices of all open connections at or after `from`, up to `most` of them: for passes over all
    /// of them in pieces.
    pub fn open_from(&self, from: u32, most: usize) -> Vec<u32> {
        let conns = self.chunks.iter().flat_map(|chunk| chunk.iter());
        let indexed = conns.enumerate().skip(from as usize);
        let open = indexed.filter(|(_, conn)| conn.protocol != Protocol::Free);
        open.map(|(index, _)| index as u32).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Peer {
        Peer { address: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))), row: last.into() }
    }

    #[test]
    fn a_token_of_a_closed_connection_finds_nothing_even_when_its_entry_is_used_again() {
        let mut slab = Slab::default();
        let first = slab.insert(3, Protocol::Http, &peer(1)).expect("room");
        let old = slab.token(first);
        assert_eq!(slab.find(old), Some(first));
        slab.remove(first);
        assert_eq!(slab.find(old), None);
        let second = slab.insert(4, Protocol::LinesTcp, &peer(2)).expect("room");
        assert_eq!(second, first, "the entry is used again");
        assert_eq!(slab.find(old), None);
        assert_eq!(slab.find(slab.token(second)), Some(second));
    }

    #[test]
    fn addresses_survive_the_entry() {
        let mut slab = Slab::default();
        let v6 = Peer { address: Some("2001:db8::7".parse().expect("an address")), row: 9 };
        for peer in [peer(7), v6, Peer { address: None, row: 0 }] {
            let index = slab.insert(3, Protocol::Http, &peer).expect("room");
            assert_eq!(slab.at(index).peer(), peer);
        }
    }

    #[test]
    fn entries_of_closed_connections_are_used_before_new_memory() {
        let mut slab = Slab::default();
        let all: Vec<u32> =
            (0..3000).map(|n| slab.insert(n, Protocol::Http, &peer(1)).expect("room")).collect();
        let capacity = slab.capacity();
        assert_eq!(slab.open_from(0, 5000), all);
        for round in 0..3 {
            all.iter().for_each(|&index| slab.remove(index));
            assert_eq!(slab.open(), 0, "round {round}");
            all.iter().for_each(|&fd| {
                slab.insert(fd as i32, Protocol::Http, &peer(1)).expect("room");
            });
        }
        assert_eq!(slab.capacity(), capacity);
    }
}
