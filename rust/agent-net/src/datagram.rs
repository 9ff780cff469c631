//! Datagrams in batches: UDP and unix.
//!
//! ```text
//! recvmmsg: up to 32 messages -> each cut at its GRO segment size -> datagrams -> lines -> apply
//! ```
//!
//! The kernel may join datagrams of one sender into one message of up to 64 KiB (UDP_GRO), which costs
//! a thirtieth per datagram. A unix datagram may be longer: up to the sender's buffer, 208 KiB unless
//! somebody has raised it. A message longer than its buffer is dropped whole and counted by the lines that
//! were seen of it. What the kernel had to drop because the socket's buffer was full it counts itself; that count is read every
//! second and published as the difference to what was published before, also across workers that
//! were killed: the last reading stands in the segment (`agent_socket_kernel_drops`).
//!
//! A unix socket holds `net.unix.max_dgram_qlen` datagrams, 10 by default: they are taken as they come, without naps. A
//! sender that blocks loses none; one that does not is told by `EAGAIN`, and only it can count: the kernel does not.
//!
//! Limits: 32 messages of 64 KiB a call, or 8 of 256 KiB from a unix socket, [`CALLS_MAX`] calls before other sockets have
//! their turn. Not promised: answers; `_ack` lines in datagrams are passed over.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use agent_shm::{Segment, Value, Writer};
use agent_wire::framing::lines;
use agent_wire::Reject;

use crate::apply::{Apply, Line};
use crate::nap::Nap;
use crate::place::Place;
use crate::system;
use crate::telemetry::{labels, Own, Reason, SelfMetric, SourceId};

/// Bytes of all buffers together.
const BUFFERS_BYTES: usize = 2 << 20;
/// The longest message of UDP: datagrams, or joined ones, are shorter.
const UDP_BYTES: usize = 64 << 10;
/// The longest unix datagram that is taken.
const UNIX_BYTES: usize = 256 << 10;
/// Calls before other sockets have their turn.
pub const CALLS_MAX: usize = 4;
/// Room for the control message with the segment size.
const CONTROL_BYTES: usize = 64;

/// What one call gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    pub messages: usize,
    pub bytes: u64,
}

/// Buffers for one batch, used for all datagram sockets of a thread.
pub struct Receiver {
    buffers: Vec<u8>,
    udp: Batch,
    unix: Batch,
    /// Whose headers the last call has filled in, and how many.
    last: (bool, usize),
}

/// The buffers cut into messages of one size.
struct Batch {
    message_bytes: usize,
    addresses: Vec<libc::sockaddr_storage>,
    controls: Vec<[u64; CONTROL_BYTES / 8]>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// Headers that the last call has filled in.
    used: usize,
}

// SAFETY: the pointers in `vectors` and `headers` of its batches lead into heap memory of the receiver, which
// goes with it and stays where it is.
unsafe impl Send for Receiver {}

/// One message in the receiver's buffers.
pub struct Message<'a> {
    pub bytes: &'a [u8],
    pub address: Option<std::net::IpAddr>,
    /// Length of the datagrams in it; the last one may be shorter.
    pub segment: usize,
    pub is_truncated: bool,
}

impl Default for Receiver {
    fn default() -> Self {
        Receiver {
            // Zeroed memory that is not resident before the kernel writes to it.
            buffers: vec![0; BUFFERS_BYTES],
            udp: Batch::new(UDP_BYTES),
            unix: Batch::new(UNIX_BYTES),
            last: (false, 0),
        }
    }
}

impl Receiver {
    /// Takes what is there, up to a batch; gives the number of messages.
    pub fn receive(&mut self, fd: RawFd, source: SourceId) -> io::Result<usize> {
        let is_unix = source == SourceId::StatsdUnixgram;
        let batch = if is_unix { &mut self.unix } else { &mut self.udp };
        let count = batch.receive(fd, &mut self.buffers)?;
        self.last = (is_unix, count);
        Ok(count)
    }

    /// Whether the last batch had no room for more.
    pub fn is_full(&self) -> bool {
        let (is_unix, count) = self.last;
        count == if is_unix { &self.unix } else { &self.udp }.headers.len()
    }

    /// A message of the last batch.
    pub fn message(&self, index: usize) -> Message<'_> {
        let (is_unix, count) = self.last;
        assert!(index < count, "of the last batch");
        if is_unix { &self.unix } else { &self.udp }.message(index, &self.buffers)
    }
}

impl Batch {
    fn new(message_bytes: usize) -> Batch {
        let count = BUFFERS_BYTES / message_bytes;
        Batch {
            message_bytes,
            addresses: vec![system::no_address(); count],
            controls: vec![[0; CONTROL_BYTES / 8]; count],
            vectors: Vec::with_capacity(count),
            headers: Vec::with_capacity(count),
            used: 0,
        }
    }

    fn receive(&mut self, fd: RawFd, buffers: &mut [u8]) -> io::Result<usize> {
        if self.headers.is_empty() {
            self.prepare(buffers);
        }
        for header in &mut self.headers[..self.used] {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = CONTROL_BYTES;
        }
        let (pointer, len) = (self.headers.as_mut_ptr(), self.headers.len() as libc::c_uint);
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: every header points to memory that the receiver owns and never gives up or moves, with its full length:
        // `prepare` has set it, and what the kernel changed is set again.
        let count = unsafe { libc::recvmmsg(fd, pointer, len, flags, std::ptr::null_mut()) };
        self.used = system::check(count)? as usize;
        Ok(self.used)
    }

    /// Points the headers at the buffers.
    fn prepare(&mut self, buffers: &mut [u8]) {
        for buffer in buffers.chunks_exact_mut(self.message_bytes) {
            let iov_base = buffer.as_mut_ptr().cast();
            self.vectors.push(libc::iovec { iov_base, iov_len: self.message_bytes });
        }
        for index in 0..self.vectors.len() {
            // SAFETY: all zero is a valid value of this plain struct.
            let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            header.msg_name = std::ptr::from_mut(&mut self.addresses[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES;
            self.headers.push(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        }
    }

    fn message<'b>(&self, index: usize, buffers: &'b [u8]) -> Message<'b> {
        let header = &self.headers[index];
        let len = header.msg_len as usize;
        let start = index * self.message_bytes;
        Message {
            bytes: &buffers[start..start + len.min(self.message_bytes)],
            // Senders of unix datagrams may have no name; then the kernel writes none.
            address: match header.msg_hdr.msg_namelen {
                0 => None,
                _ => system::address_of(&self.addresses[index]),
            },
            segment: segment_size(&header.msg_hdr).unwrap_or(len),
            is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }
}

/// The size of the datagrams that the kernel joined.
fn segment_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel filled in the control buffer of this header and its length; the macros stay
    // within it, and the data is read without assuming an alignment.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            let message = &*control;
            if message.cmsg_level == libc::SOL_UDP && message.cmsg_type == libc::UDP_GRO {
                let size: libc::c_int = std::ptr::read_unaligned(libc::CMSG_DATA(control).cast());
                return usize::try_from(size).ok().filter(|size| *size > 0);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

/// Applies the messages of a batch. Gives how many panicked.
pub fn apply_batch(
    receiver: &Receiver,
    count: usize,
    source: SourceId,
    apply: &mut Apply<'_>,
    now_ms: u64,
) -> (Received, u64) {
    let (mut received, mut panics, mut datagrams) = (Received::default(), 0, 0);
    for index in 0..count {
        let message = receiver.message(index);
        received.messages += 1;
        received.bytes += message.bytes.len() as u64;
        datagrams += message.bytes.len().div_ceil(message.segment.max(1)).max(1) as u64;
        let mut done = 0;
        let result = catch_unwind(AssertUnwindSafe(|| {
            apply_message(&message, source, apply, now_ms, &mut done);
        }));
        if result.is_err() {
            panics += 1;
            settle_panic(apply, source, &message, done);
        }
    }
    let (account, writer) = apply.account(source);
    account.datagrams(writer, datagrams);
    account.bytes(writer, received.bytes);
    (received, panics)
}

/// Books the line that panicked, and those after it.
#[cold]
fn settle_panic(apply: &mut Apply<'_>, source: SourceId, message: &Message<'_>, done: u64) {
    let (account, writer) = apply.account(source);
    account.settle(writer);
    let left = line_count(message).saturating_sub(done + 1);
    apply.reject(source, Reason::Panic, left);
}

fn segments<'a>(message: &Message<'a>) -> impl Iterator<Item = &'a [u8]> {
    message.bytes.chunks(message.segment.max(1))
}

fn line_count(message: &Message<'_>) -> u64 {
    segments(message).map(|segment| lines(segment).count() as u64).sum()
}

fn apply_message(
    message: &Message<'_>,
    source: SourceId,
    apply: &mut Apply<'_>,
    now_ms: u64,
    done: &mut u64,
) {
    if message.is_truncated {
        return apply.reject(source, Reason::DatagramTruncated, line_count(message));
    }
    let peer = apply.peer(message.address, now_ms);
    if let Err(shed) = apply.admit(&peer, now_ms) {
        return apply.reject(source, shed.reason, line_count(message));
    }
    let line_bytes_max = apply.limits().line_bytes_max;
    let mut samples = 0;
    for line in segments(message).flat_map(lines) {
        if line.len() > line_bytes_max {
            apply.reject(source, Reject::LineTooLong.into(), 1);
            samples += 1;
        } else if let Line::Samples(count) = apply.line(source, line) {
            samples += count;
        }
        *done += 1;
    }
    apply.charge(&peer, samples, now_ms);
}

/// One datagram socket: how it is listened to, and what is published about it.
pub struct Socket {
    pub fd: RawFd,
    pub source: SourceId,
    pub nap: Nap,
    drops: Own,
    seen: Own,
    buffer: Own,
    published: u32,
}

impl Socket {
    /// Takes over a bound socket: joins datagrams, and goes on where the last worker stopped.
    pub fn adopt(fd: RawFd, source: SourceId, worker: Place, segment: &Segment) -> Socket {
        // Not on unix sockets and old kernels; then every message is one datagram.
        let _ = system::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, &1i32);
        let text = labels(None, source.as_str(), worker);
        let kernel = system::kernel_drops(fd).unwrap_or(0);
        let last = last_seen(segment, &text);
        Socket {
            fd,
            source,
            nap: match source {
                // Ten datagrams fill it.
                SourceId::StatsdUnixgram => Nap::never(),
                _ => Nap::new(buffer_bytes(fd)),
            },
            drops: Own::new(SelfMetric::KernelDrops, text.clone()),
            seen: Own::new(SelfMetric::SocketDrops, text.clone()),
            buffer: Own::new(SelfMetric::ReceiveBuffer, text),
            // A count that went back belongs to another socket.
            published: if last <= kernel { last } else { 0 },
        }
    }

    /// Time until the socket is looked at without being woken for it; nothing when it is not napping.
    pub fn nap_left(&self) -> Option<Duration> {
        let left_us = self.nap.until_us?.saturating_sub(system::monotonic_us());
        Some(Duration::from_micros(left_us))
    }

    /// Publishes what the kernel counted.
    pub fn publish(&mut self, writer: &Writer) {
        if let Ok(drops) = system::kernel_drops(self.fd) {
            self.drops.add(writer, drops.wrapping_sub(self.published).into());
            self.seen.set(writer, drops.into());
            self.published = drops;
        }
        self.buffer.set(writer, buffer_bytes(self.fd).into());
    }
}

/// The receive buffer that the kernel granted.
fn buffer_bytes(fd: RawFd) -> u32 {
    let bytes = system::int_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF);
    bytes.ok().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(0)
}

/// The last reading in the segment.
fn last_seen(segment: &Segment, labels: &str) -> u32 {
    let mut last = 0.0;
    let view = segment.view();
    let name = SelfMetric::SocketDrops.row().name;
    for family in view.families().iter().filter(|family| family.meta().name == name) {
        family.for_each(&mut |series| {
            if let (true, Value::Gauge(value)) = (series.labels == labels.as_bytes(), series.value)
            {
                last = value;
            }
        });
    }
    last as u32
}

#[cfg(test)]
#[path = "datagram_test.rs"]
mod tests;
