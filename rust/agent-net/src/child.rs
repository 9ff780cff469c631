//! A child of the supervisor: forked here, so that it never runs a line of Python.
//!
//! What a child touches it has to itself, and an interpreter touches nearly everything: counts of
//! references stand inside the objects. A child that goes straight into its loop has a third of the
//! private memory, and there may be fifty of them.
//!
//! Order in the child: signals as the supervisor's children have them, its name, the descriptors that
//! are not its own, its life, exit. Nothing unwinds into the frames of the parent.
//!
//! Limits: the process that forks must have one thread; in a child of a process with more, a lock
//! that another thread held would never be released.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;

use crate::system::{self, check};
use crate::worker::EXIT_BUG;

/// What is done about a signal in a child: those of the terminal and of operators are the
/// supervisor's business.
const DISPOSITIONS: [(libc::c_int, libc::sighandler_t); 6] = [
    (libc::SIGINT, libc::SIG_IGN),
    (libc::SIGHUP, libc::SIG_IGN),
    (libc::SIGUSR1, libc::SIG_IGN),
    (libc::SIGUSR2, libc::SIG_IGN),
    (libc::SIGCHLD, libc::SIG_DFL),
    (libc::SIGTERM, libc::SIG_DFL),
];

/// Forks a child that closes the descriptors in `close`, calls `life` and exits with its result. Gives
/// the child's pid.
///
/// # Errors
/// What fork says: no memory, or too many processes.
pub fn fork(name: &str, close: &[RawFd], life: impl FnOnce() -> i32) -> io::Result<libc::pid_t> {
    // 15 characters are shown; a name has no zero byte.
    let name = CString::new(format!("agent-{name}")).unwrap_or_default();
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: the sets are filled in before they are read. Blocked signals are not handled with the
    // parent's handlers in the child.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    // SAFETY: the caller's process has one thread, so every lock is free in the child.
    let pid = check(unsafe { libc::fork() });
    if let Ok(0) = pid {
        // SAFETY: system calls with constants, a string that ends in a zero, and the mask of before.
        unsafe {
            for (signal, disposition) in DISPOSITIONS {
                libc::signal(signal, disposition);
            }
            libc::prctl(libc::PR_SET_NAME, name.as_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        }
        close.iter().copied().for_each(system::close);
        let code = catch_unwind(AssertUnwindSafe(life)).unwrap_or(EXIT_BUG);
        // SAFETY: ends this process without running what the parent has registered for its own end.
        unsafe { libc::_exit(code) };
    }
    // SAFETY: the mask of before, filled in above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    pid
}
