//! System calls: the one home of `unsafe` for sockets, but for the batched receive in
//! [`crate::datagram`].
//!
//! Thin and without policy. Descriptors are plain numbers here, because a connection has no room for
//! more; who closes one is said where it is kept. Every call that can block does not: sockets are
//! non-blocking, or the flag says so.

use std::io;
use std::mem::{size_of, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Turns the -1 of a system call into its error.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Nothing to read, no room to write: come back when the kernel says so.
pub fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Milliseconds since the machine started, at the grain of the kernel's tick (1 to 4 ms).
pub fn monotonic_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Microseconds since the machine started.
pub fn monotonic_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Seconds of unix time.
pub fn unix_s() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

/// Descriptors this process may have open.
pub fn file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in a valid struct.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => limit.rlim_cur,
        _ => 1024,
    }
}

pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: system calls without pointers.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    }
    Ok(())
}

/// Reads from a socket without waiting.
#[inline]
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of a slice that is ours.
    check_size(unsafe {
        libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
    })
}

/// Writes to a socket without waiting and without a signal.
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

/// Closes a TCP connection with a reset, leaving nothing behind.
pub fn close_with_reset(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // On a unix socket it has no effect, and none is needed.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    close(fd);
}

/// Says that no more bytes follow.
pub fn shutdown_write(fd: RawFd) {
    // SAFETY: a system call without pointers. An error means that the connection is gone already.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Refuses connections from now on; those of TCP that were not accepted are reset. All copies of the
/// listener in all processes are closed by it.
pub fn shutdown_listener(fd: RawFd) {
    // SAFETY: a system call without pointers. An error means that it listens no more already.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Whether there are bytes to read.
pub fn has_input(fd: RawFd) -> bool {
    let mut byte = [0u8; 1];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the pointer and the length are those of an array that is ours.
    let count = unsafe { libc::recv(fd, byte.as_mut_ptr().cast(), byte.len(), flags) };
    count > 0
}

/// Sets a socket option from a plain value.
pub fn set_option<T: Copy>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let (pointer, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the pointer and the length are those of a value.
    check(unsafe { libc::setsockopt(fd, level, name, pointer, len) }).map(drop)
}

/// Descriptors that go with one message at most; the kernel's own limit is 253.
pub const FILES_MAX: usize = 128;
/// Room for the control message with them.
const FILES_CONTROL_WORDS: usize =
    (size_of::<libc::cmsghdr>() + FILES_MAX * size_of::<RawFd>()) / 8;

/// A message header over one buffer and one control message; both must outlive its use.
fn message_header(buffer: &mut libc::iovec, control: *mut u64, control_len: usize) -> libc::msghdr {
    // SAFETY: all zero is a valid value of this plain struct.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    (header.msg_iov, header.msg_iovlen) = (buffer, 1);
    (header.msg_control, header.msg_controllen) = (control.cast(), control_len as _);
    header
}

/// Sends a message with copies of descriptors, up to [`FILES_MAX`]; waits as long as the socket's
/// option says.
pub fn send_with_files(socket: RawFd, bytes: &[u8], files: &[RawFd]) -> io::Result<usize> {
    assert!(!files.is_empty() && files.len() <= FILES_MAX);
    let mut vector =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = [0u64; FILES_CONTROL_WORDS];
    let payload = size_of_val(files) as libc::c_uint;
    // SAFETY: a calculation.
    let space = unsafe { libc::CMSG_SPACE(payload) } as usize;
    let header = message_header(&mut vector, control.as_mut_ptr(), space);
    // SAFETY: the control message has room for the header and all descriptors, and is aligned for
    // them; the kernel reads both buffers, which live until it returns.
    check_size(unsafe {
        let first = libc::CMSG_FIRSTHDR(&header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(payload) as _;
        let data = libc::CMSG_DATA(first).cast::<RawFd>();
        std::ptr::copy_nonoverlapping(files.as_ptr(), data, files.len());
        libc::sendmsg(socket, &header, libc::MSG_NOSIGNAL)
    })
}

/// Receives such a message without waiting; the descriptors are the caller's. There are fewer than were
/// sent when this process is out of them.
pub fn receive_with_files(
    socket: RawFd,
    bytes: &mut [u8],
    files: &mut Vec<RawFd>,
) -> io::Result<usize> {
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = [0u64; FILES_CONTROL_WORDS];
    let mut header = message_header(&mut vector, control.as_mut_ptr(), size_of_val(&control));
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points to two buffers that are ours, with their lengths.
    let count = check_size(unsafe { libc::recvmsg(socket, &mut header, flags) })?;
    // SAFETY: the kernel has filled in the control message and says in the header how much of it; the
    // macros stay within that. Its data is a sequence of descriptors, which are nobody else's.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&header);
        if !first.is_null()
            && ((*first).cmsg_level, (*first).cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
        {
            let len = (*first).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            let data = libc::CMSG_DATA(first).cast::<RawFd>();
            files.extend((0..len / size_of::<RawFd>()).map(|at| data.add(at).read_unaligned()));
        }
    }
    Ok(count)
}

/// Asks the scheduler to let this thread, and those that it starts, in soon: with turns of 0.1 ms (Linux
/// 6.12 and later) and, where that is permitted, ahead of others in niceness. What is refused is not
/// needed.
pub fn hurry() {
    const TURN_NS: u64 = 100_000;
    const NICER_BY: i32 = 10;
    const NICE_MIN: i32 = -20;
    // SAFETY: a query; -1 is a niceness too.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    for nice in [(nice - NICER_BY).max(NICE_MIN), nice] {
        let wanted = libc::sched_attr {
            size: size_of::<libc::sched_attr>() as u32,
            sched_policy: libc::SCHED_OTHER as u32,
            sched_flags: 0,
            sched_nice: nice,
            sched_priority: 0,
            sched_runtime: TURN_NS,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the kernel reads a struct of the size that stands in it.
        if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &wanted, 0) } == 0 {
            return;
        }
    }
}

/// What was sent on a unix socket and not read yet, in bytes of the kernel's memory.
pub fn unread_bytes(socket: RawFd) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer; where it cannot tell, it stays 0.
    unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &mut bytes) };
    bytes
}

/// The kernel had no memory for it now.
pub fn is_out_of_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS))
}

/// The longest that a blocking send on the socket waits.
pub fn set_send_timeout(socket: RawFd, most: Duration) -> io::Result<()> {
    let time = libc::timeval {
        tv_sec: most.as_secs() as libc::time_t,
        tv_usec: most.subsec_micros().into(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &time)
}

/// Reads a socket option that is an integer.
pub fn int_option(fd: RawFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let pointer = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the pointer and the length are those of an integer.
    check(unsafe { libc::getsockopt(fd, level, name, pointer, &mut len) })?;
    Ok(value)
}

/// Datagrams the kernel dropped since the socket was made, because its buffer was full.
pub fn kernel_drops(fd: RawFd) -> io::Result<u32> {
    // Place of the count in what SO_MEMINFO gives, from <linux/sock_diag.h>.
    const SK_MEMINFO_DROPS: usize = 8;
    let mut words = [0u32; SK_MEMINFO_DROPS + 1];
    let mut len = size_of_val(&words) as libc::socklen_t;
    let pointer = words.as_mut_ptr().cast();
    // SAFETY: the pointer and the length are those of an array.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, pointer, &mut len) })?;
    Ok(words[SK_MEMINFO_DROPS])
}

/// The address in what the kernel filled in; nothing for unix sockets.
pub fn address_of(storage: &libc::sockaddr_storage) -> Option<IpAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which struct the kernel wrote; the storage is large enough and aligned for it.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            // A dual-stack listener shows IPv4 senders in the mapped form.
            Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
        }
        _ => None,
    }
}

/// An empty address for the kernel to fill in.
pub fn no_address() -> libc::sockaddr_storage {
    // SAFETY: all zero is a valid value of this plain struct.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Takes a connection from a listener. The descriptor is the caller's.
pub fn accept(listener: RawFd) -> io::Result<(RawFd, Option<IpAddr>)> {
    let mut storage = no_address();
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let pointer = std::ptr::from_mut(&mut storage).cast();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the pointer and the length are those of an address that is ours.
    let fd = check(unsafe { libc::accept4(listener, pointer, &mut len, flags) })?;
    Ok((fd, address_of(&storage)))
}

/// A descriptor on nothing, to be given up when the last one is needed.
pub fn spare() -> Option<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path ends in a zero; the descriptor belongs to nobody else.
    unsafe {
        let fd = libc::open(c"/dev/null".as_ptr(), flags);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

/// A descriptor that is readable when this thread was sent SIGTERM, which then does nothing else.
pub fn terminate_signal() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is filled in before it is read; the descriptor belongs to nobody else.
    unsafe {
        check(libc::sigemptyset(set.as_mut_ptr()))?;
        check(libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM))?;
        let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
        Ok(OwnedFd::from_raw_fd(check(libc::signalfd(-1, set.as_ptr(), flags))?))
    }
}

/// Takes one signal from such a descriptor.
pub fn take_signal(fd: &OwnedFd) {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    // SAFETY: the pointer and the length are those of an array. That there is none is fine.
    unsafe { libc::read(fd.as_raw_fd(), info.as_mut_ptr().cast(), info.len()) };
}

/// One thing that happened to a descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    /// Both directions are gone.
    pub broken: bool,
}

/// What to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    Both,
    /// Only errors.
    Nothing,
    /// Read, and only one of the processes that wait is woken.
    ReadExclusive,
    /// Read, once; to be asked for again.
    ReadOnce,
}

impl Interest {
    fn bits(self) -> u32 {
        let bits = match self {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::Both => libc::EPOLLIN | libc::EPOLLOUT,
            Interest::Nothing => 0,
            Interest::ReadExclusive => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
            Interest::ReadOnce => libc::EPOLLIN | libc::EPOLLONESHOT,
        };
        bits as u32
    }
}

/// A level-triggered epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// Whether the kernel (5.11) and the sandbox have the wait that counts in nanoseconds.
    has_fine_wait: bool,
}

/// Events taken with one wait.
const EVENTS: usize = 256;
const NO_EVENT: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: a system call without pointers; the descriptor belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Epoll { fd, events: vec![NO_EVENT; EVENTS], has_fine_wait: true })
    }

    fn control(&self, what: i32, fd: RawFd, token: u64, bits: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: bits, u64: token };
        // SAFETY: the event is a valid struct that the kernel only reads.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), what, fd, &mut event) }).map(drop)
    }

    pub fn add(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest.bits())
    }

    pub fn change(&self, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest.bits())
    }

    /// That it was not there is fine.
    pub fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    /// Waits and puts what happened into `ready`. Where the kernel counts in milliseconds, up to one
    /// longer than asked.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let count = match self.wait_raw(timeout) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        // Errors and hang-ups are found by reading or writing.
        let broken = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
        ready.extend(self.events[..count].iter().map(|event| Ready {
            token: event.u64,
            readable: event.events & (libc::EPOLLIN as u32 | broken) != 0,
            writable: event.events & (libc::EPOLLOUT as u32 | broken) != 0,
            broken: event.events & broken != 0,
        }));
        Ok(())
    }

    fn wait_raw(&mut self, timeout: Duration) -> io::Result<libc::c_int> {
        let timeout = timeout.min(Duration::from_secs(60));
        let fd = self.fd.as_raw_fd();
        let (pointer, len) = (self.events.as_mut_ptr(), self.events.len() as libc::c_int);
        if self.has_fine_wait {
            let time = libc::timespec {
                tv_sec: timeout.as_secs() as libc::time_t,
                tv_nsec: timeout.subsec_nanos().into(),
            };
            let no_mask = std::ptr::null();
            // SAFETY: the pointer and the length are those of a vector of valid structs; the time is
            // one too, and no signal mask is a valid one.
            match check(unsafe { libc::epoll_pwait2(fd, pointer, len, &time, no_mask) }) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.has_fine_wait = false;
                }
                result => return result,
            }
        }
        let timeout_ms = timeout.as_micros().div_ceil(1000) as libc::c_int;
        // SAFETY: the pointer and the length are those of a vector of valid structs.
        check(unsafe { libc::epoll_wait(fd, pointer, len, timeout_ms) })
    }
}
