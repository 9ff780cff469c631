//! System calls: the one home of `unsafe` in this crate.
//!
//! Thin and without policy. Sockets are plain numbers here, because a connection has no room for
//! more; the slab says who owns one. None of these calls waits but [`Epoll::wait`].

use std::io;
use std::mem::{size_of, MaybeUninit};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::schedule::SECOND_NS;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Nothing to read, no room to write.
pub fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// CLOCK_MONOTONIC: one clock for all processes of the machine.
#[inline]
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * SECOND_NS + time.tv_nsec as u64
}

/// CPU time of this process, user and kernel, in seconds.
pub fn cpu_s() -> f64 {
    // SAFETY: all zero is a valid value of this plain struct, and the kernel fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = MaybeUninit::zeroed().assume_init();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Raises the number of descriptors to what the hard limit allows; gives it.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in, then reads, a valid struct.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
    }
    Ok(limit.rlim_cur)
}

/// Makes a descriptor not wait.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: system calls without pointers.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    }
    Ok(())
}

/// Reads from a pipe.
pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of a slice that is ours.
    check_size(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Writes to a pipe.
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of a slice.
    check_size(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

/// Reads from a socket.
#[inline]
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of a slice that is ours.
    check_size(unsafe {
        libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
    })
}

/// Writes to a socket, without a signal.
#[inline]
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of a slice.
    check_size(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Closes a descriptor that nobody uses any more.
pub fn close(fd: RawFd) {
    // SAFETY: the caller owned it and forgets it.
    unsafe { libc::close(fd) };
}

/// Closes a connection with a reset, leaving nothing behind.
pub fn close_with_reset(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // Without it the connection ends politely, which is an end as well.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    close(fd);
}

fn set_option<T: Copy>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let (pointer, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the pointer and the length are those of a value.
    check(unsafe { libc::setsockopt(fd, level, name, pointer, len) }).map(drop)
}

/// What went wrong with a socket; nothing when it is well.
pub fn socket_error(fd: RawFd) -> Option<io::Error> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the pointer and the length are those of an integer.
    let got =
        check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, pointer, &mut len) });
    match (got, value) {
        (Err(error), _) => Some(error),
        (Ok(_), 0) => None,
        (Ok(_), code) => Some(io::Error::from_raw_os_error(code)),
    }
}

/// An address as the kernel wants it.
#[derive(Clone, Copy)]
pub struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddress {
    pub fn new(address: SocketAddr) -> RawAddress {
        // SAFETY: all zero is a valid value of this plain struct.
        let mut storage: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
        let pointer = std::ptr::from_mut(&mut storage);
        let len = match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                // SAFETY: the storage is large enough and aligned for every kind of address.
                unsafe { pointer.cast::<libc::sockaddr_in>().write(raw) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { pointer.cast::<libc::sockaddr_in6>().write(raw) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        RawAddress { storage, len: len as libc::socklen_t }
    }

    fn family(&self) -> i32 {
        i32::from(self.storage.ss_family)
    }

    fn pointer(&self) -> *const libc::sockaddr {
        std::ptr::from_ref(&self.storage).cast()
    }
}

/// Begins a connection from an address, the port being the kernel's choice. The descriptor is the
/// caller's; readiness to write says that the connection is there.
pub fn connect(target: &RawAddress, source: Option<IpAddr>) -> io::Result<RawFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a system call without pointers.
    let fd = check(unsafe { libc::socket(target.family(), kind, 0) })?;
    let begun = source.map_or(Ok(()), |ip| bind_without_port(fd, ip)).and_then(|()| {
        // SAFETY: the pointer and the length are those of an address.
        check(unsafe { libc::connect(fd, target.pointer(), target.len) }).map(drop)
    });
    match begun {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            close(fd);
            Err(error)
        }
        _ => Ok(fd),
    }
}

fn bind_without_port(fd: RawFd, ip: IpAddr) -> io::Result<()> {
    let one: libc::c_int = 1;
    // For IPv6 sockets, too.
    set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &one)?;
    let address = RawAddress::new(SocketAddr::new(ip, 0));
    // SAFETY: the pointer and the length are those of an address.
    check(unsafe { libc::bind(fd, address.pointer(), address.len) }).map(drop)
}

/// One thing that happened to a descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// The peer will send no more.
    pub ended: bool,
    pub failed: bool,
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// Whether the kernel has `epoll_pwait2` (5.11), which waits for less than a millisecond.
    is_fine: bool,
}

/// Events taken with one wait.
const EVENTS: usize = 256;

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: a system call without pointers; the descriptor belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        Ok(Epoll { fd, events, is_fine: true })
    }

    fn add(&self, fd: RawFd, token: u64, bits: libc::c_int) -> io::Result<()> {
        let mut event = libc::epoll_event { events: bits as u32, u64: token };
        let epoll = self.fd.as_raw_fd();
        // SAFETY: the event is a valid struct that the kernel only reads.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) }).map(drop)
    }

    /// Tells when a pipe can be read, as long as it can.
    pub fn add_pipe(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.add(fd, token, libc::EPOLLIN)
    }

    /// Tells each change of a socket once. One call for the life of a connection: it is never changed.
    pub fn add_socket(&self, fd: RawFd, token: u64) -> io::Result<()> {
        self.add(fd, token, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET)
    }

    /// Waits and puts what happened into `ready`.
    pub fn wait(&mut self, timeout_ns: u64, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let mut count = if self.is_fine { self.wait_fine(timeout_ns) } else { None };
        if count.is_none() {
            self.is_fine = false;
            let timeout_ms = timeout_ns.div_ceil(1_000_000).min(60_000) as libc::c_int;
            let (pointer, len) = (self.events.as_mut_ptr(), self.events.len() as libc::c_int);
            // SAFETY: the pointer and the length are those of a vector of valid structs.
            let result = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), pointer, len, timeout_ms) };
            count = Some(check(result).map(|count| count as usize));
        }
        let count = match count {
            Some(Ok(count)) => count,
            Some(Err(error)) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => 0,
        };
        let has = |bits: u32, wanted: libc::c_int| bits & wanted as u32 != 0;
        ready.extend(self.events[..count].iter().map(|event| Ready {
            token: event.u64,
            readable: has(event.events, libc::EPOLLIN),
            writable: has(event.events, libc::EPOLLOUT),
            ended: has(event.events, libc::EPOLLRDHUP | libc::EPOLLHUP),
            failed: has(event.events, libc::EPOLLERR),
        }));
        Ok(())
    }

    /// `None` when the kernel does not know the call.
    fn wait_fine(&mut self, timeout_ns: u64) -> Option<io::Result<usize>> {
        let timeout = libc::timespec {
            tv_sec: (timeout_ns / SECOND_NS) as libc::time_t,
            tv_nsec: (timeout_ns % SECOND_NS) as libc::c_long,
        };
        let (pointer, len) = (self.events.as_mut_ptr(), self.events.len() as libc::c_int);
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: the events are a vector of valid structs of that length, the time is a valid struct, and
        // there is no mask.
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                pointer,
                len,
                std::ptr::from_ref(&timeout),
                no_mask,
                0usize,
            )
        };
        match usize::try_from(result) {
            Ok(count) => Some(Ok(count)),
            Err(_) => match io::Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => None,
                error => Some(Err(error)),
            },
        }
    }
}
