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
//! everything when the successor does not take a message within a second.
//!
//! Not promised: versions. Both ends are forked from one supervisor, so numbers are in the machine's
//! order.

use std::net::{IpAddr, Ipv6Addr};

use crate::slab::{flag, Conn, Protocol};

/// Bytes of a record without what waits.
pub const HEAD_BYTES: usize = 31;

/// What goes with a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    pub protocol: Protocol,
    pub was_shed: bool,
    pub all_acked: bool,
    pub is_skipping: bool,
    pub has_sent: bool,
    pub listener: u8,
    pub seen: u32,
    pub address: Option<IpAddr>,
    /// Read and not applied.
    pub input: &'a [u8],
    /// Answers, not written.
    pub output: &'a [u8],
}

const PROTOCOLS: [Protocol; 5] = [
    Protocol::Http,
    Protocol::LinesTcp,
    Protocol::UnixUnknown,
    Protocol::LinesUnix,
    Protocol::PacketsUnix,
];

impl<'a> Record<'a> {
    pub fn of(conn: &Conn, input: &'a [u8], output: &'a [u8]) -> Record<'a> {
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

    pub fn encode(&self, out: &mut Vec<u8>) {
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
    pub fn decode(message: &mut &'a [u8]) -> Option<Record<'a>> {
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
