//! Who may send how much: the decision to accept or refuse, with its reason.

use std::net::IpAddr;

use crate::telemetry::Reason;

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
