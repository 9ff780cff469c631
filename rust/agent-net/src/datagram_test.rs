//! Real sockets on loopback.

use super::*;
use crate::admission::Admission;
use crate::apply::Applier;
use crate::config::{Limits, WorkerConfig};
use crate::telemetry::tests::totals;
use agent_shm::Options;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

fn applier(segment: &Segment, limits: &Limits) -> Applier {
    let json = br#"{"worker": 0, "segment": "", "control_fd": -1}"#;
    let config = WorkerConfig::from_json(json).expect("valid");
    Applier::new(segment, &config, Admission::new(limits, 1, 10, 0)).expect("a slot")
}

fn wait_readable(fd: RawFd) {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 10_000) }, 1, "nothing arrived");
}

/// Receives until `messages` have been applied; gives the totals of the segment.
fn run(fd: RawFd, source: SourceId, limits: &Limits, datagrams: u64) -> Totals {
    let segment = Segment::private("agent", &Options::default());
    let mut applier = applier(&segment, limits);
    let mut receiver = Receiver::default();
    let label = format!("{{source=\"{}\",worker=\"0\"}}", source.as_str());
    let name = format!("agent_source_datagrams_received{label}");
    loop {
        wait_readable(fd);
        let count = receiver.receive(fd, source).expect("readable");
        let (_, panics) = apply_batch(&receiver, count, source, &mut applier.batch(), 0);
        assert_eq!(panics, 0);
        let totals = totals(&segment);
        if totals[&name] >= datagrams as f64 {
            return totals;
        }
    }
}

type Totals = std::collections::BTreeMap<String, f64>;

#[test]
fn lines_of_many_datagrams_are_all_applied_joined_or_not() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let segment = Segment::private("agent", &Options::default());
    let _ = Socket::adopt(socket.as_raw_fd(), SourceId::StatsdUdp, Place::Worker(0), &segment);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    sender.connect(socket.local_addr().expect("bound")).expect("connected");
    // One send, 40 datagrams: the kernel hands them over joined.
    let size = b"hits:1|c\nhits:2|c".len() as i32;
    system::set_option(sender.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, &size).expect("GSO");
    sender.send(&b"hits:1|c\nhits:2|c".repeat(40)).expect("sent");
    system::set_option(sender.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, &0).expect("GSO");
    for _ in 0..10 {
        sender.send(b"hits:3|c\n").expect("sent");
    }
    let totals = run(socket.as_raw_fd(), SourceId::StatsdUdp, &Limits::default(), 50);
    assert_eq!(totals["hits{}"], 40.0 * 3.0 + 30.0);
    assert_eq!(totals["agent_source_samples_applied{source=\"statsd_udp\",worker=\"0\"}"], 90.0);
}

#[test]
fn unix_datagrams_of_any_size_are_applied_or_counted() {
    let (ours, theirs) = UnixDatagram::pair().expect("a pair");
    theirs.send(b"a:1|c\r\na:1|c").expect("sent");
    theirs.send(&b"a:1|c\n".repeat(30_000)).expect("sent");
    system::set_option(theirs.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &(1i32 << 20))
        .or_else(|_| {
            system::set_option(theirs.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, &(1i32 << 20))
        })
        .expect("a large buffer");
    let too_long = b"a:1|c\n".repeat(60_000);
    let is_sent = theirs.send(&too_long).is_ok();
    theirs.send(b"a:1|c").expect("sent");
    let datagrams = 3 + u64::from(is_sent);
    let totals = run(ours.as_raw_fd(), SourceId::StatsdUnixgram, &Limits::default(), datagrams);
    assert_eq!(totals["a{}"], 30_003.0);
    if !is_sent {
        return;
    }
    // As many lines as were seen, the cut one among them.
    let seen = (UNIX_BYTES / 6 + 1) as f64;
    let reason = "reason=\"datagram_truncated\",source=\"statsd_unixgram\",worker=\"0\"";
    assert_eq!(totals[&format!("agent_source_samples_rejected{{{reason}}}")], seen);
}

#[test]
fn a_source_over_its_limit_is_read_dropped_and_counted() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    sender.connect(socket.local_addr().expect("bound")).expect("connected");
    for _ in 0..5 {
        sender.send(b"a:1|c\na:1|c").expect("sent");
    }
    let limits = Limits { source_samples_per_s_max: 3, ..Limits::default() };
    let totals = run(socket.as_raw_fd(), SourceId::StatsdUdp, &limits, 5);
    assert_eq!(totals["a{}"], 4.0);
    let reason = "reason=\"source_rate\",source=\"statsd_udp\",worker=\"0\"";
    assert_eq!(totals[&format!("agent_source_samples_rejected{{{reason}}}")], 6.0);
}

#[test]
fn kernel_drops_are_published_once_also_by_a_successor() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
    sender.connect(socket.local_addr().expect("bound")).expect("connected");
    let fd = socket.as_raw_fd();
    system::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &1i32).expect("small");
    let segment = Segment::private("agent", &Options::default());
    let writer = segment.writer().expect("a slot");
    let key = "agent_kernel_drops{source=\"statsd_udp\",worker=\"0\"}";
    let mut first = Socket::adopt(fd, SourceId::StatsdUdp, Place::Worker(0), &segment);
    for _ in 0..100 {
        sender.send(&[b'x'; 1000]).expect("sent");
    }
    first.publish(&writer);
    let dropped = f64::from(system::kernel_drops(fd).expect("counted"));
    assert!(dropped > 0.0);
    assert_eq!(totals(&segment)[key], dropped);
    // More is dropped while there is no worker.
    for _ in 0..50 {
        sender.send(&[b'x'; 1000]).expect("sent");
    }
    let mut second = Socket::adopt(fd, SourceId::StatsdUdp, Place::Worker(0), &segment);
    second.publish(&writer);
    let dropped = f64::from(system::kernel_drops(fd).expect("counted"));
    assert_eq!(totals(&segment)[key], dropped);
    // Another socket begins at zero.
    let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
    Socket::adopt(other.as_raw_fd(), SourceId::StatsdUdp, Place::Worker(0), &segment)
        .publish(&writer);
    assert_eq!(totals(&segment)[key], dropped);
}
