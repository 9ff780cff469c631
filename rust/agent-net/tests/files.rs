//! Out of file descriptors. A test binary of its own: the limit is that of the whole process.

mod harness;

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use harness::{connect, expect_bytes, get, Worker, PATIENCE};
use serde_json::json;

/// A socket that has its descriptor already and is connected later.
fn socket() -> std::net::TcpStream {
    // SAFETY: a system call without pointers; the descriptor belongs to nobody else.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        std::net::TcpStream::from(OwnedFd::from_raw_fd(fd))
    }
}

fn connect_now(stream: &std::net::TcpStream, to: SocketAddr) {
    let SocketAddr::V4(to) = to else { panic!("IPv4 only") };
    // SAFETY: the address is a valid struct of the given length.
    let result = unsafe {
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_port = to.port().to_be();
        address.sin_addr.s_addr = u32::from(*to.ip()).to_be();
        let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        libc::connect(stream.as_raw_fd(), std::ptr::from_ref(&address).cast(), len)
    };
    assert_eq!(result, 0, "the kernel accepts before the worker does");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
}

#[test]
fn without_descriptors_newcomers_are_turned_away_and_the_others_are_served() {
    let worker = Worker::start("files", json!({}));
    let mut held = connect(worker.tcp);
    held.write_all(b"a:1|c\n_ack|1\n").expect("sent");
    expect_bytes(&mut held, b"_ack|1\n");
    let newcomers: Vec<_> = (0..20).map(|_| socket()).collect();
    let limit = libc::rlimit { rlim_cur: 256, rlim_max: agent_net::system::file_limit() };
    // SAFETY: the kernel only reads the struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let mut filling = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        filling.push(file);
    }
    for newcomer in &newcomers {
        connect_now(newcomer, worker.tcp);
        let (mut newcomer, mut byte) = (newcomer, [0; 1]);
        let error = newcomer.read(&mut byte).expect_err("it was not kept");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    held.write_all(b"a:1|c\n_ack|2\n").expect("sent");
    expect_bytes(&mut held, b"_ack|2\n");
    drop((filling, newcomers));
    let mut again = connect(worker.tcp);
    again.write_all(b"a:1|c\n_ack|3\n").expect("sent");
    expect_bytes(&mut again, b"_ack|3\n");
    worker.expect("a{}", 3.0);
    let key = "agent_connections_refused{reason=\"file_limit\",source=\"statsd_tcp\",worker=\"0\"}";
    worker.expect(key, 20.0);
    assert!(get(worker.http, "/livez").starts_with("HTTP/1.1 200"));
}
