//! Locks of single bytes, through which the kernel says who lives.
//!
//! Open-file-description locks: they belong to one `open`, not to a process, and go when its last descriptor *and* its
//! last mapping are gone. So a lock needs no descriptor: a lease (slot.rs) maps one page through the
//! description and tells the kernel to leave that page out of forked children. It keeps the number for asking only.
//! Nobody's `closerange` can take the lock away, and a child lets go of the number that it inherits.
//!
//! All bytes lie far behind the end of any segment: locks and data never meet.

#[cfg(not(model))]
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// First of the bytes of slots: one for each slot, held by its owner.
const SLOTS: i64 = 1 << 60;
/// First of the bytes of incarnations: one for each owner that a slot ever has. See slot.rs.
const INCARNATIONS: i64 = 1 << 61;
const INCARNATION_STEP: i64 = 1 << 12;
const END: i64 = 1 << 62;
/// Held while a stale file is replaced; see file.rs.
#[cfg(not(model))]
pub const REPLACE: i64 = SLOTS - 1;
/// Held by the process that reclaims; see reclaim.rs.
pub const RECLAIM: i64 = SLOTS - 2;
/// Held by the maker of a new file until it has its name; see file.rs.
#[cfg(not(model))]
pub const MAKER: i64 = SLOTS - 3;

pub fn slot_byte(index: u16) -> i64 {
    SLOTS + i64::from(index)
}

pub fn incarnation_byte(index: u16, generation: u64) -> i64 {
    INCARNATIONS + (generation & 0xff_ffff_ffff) as i64 * INCARNATION_STEP + i64::from(index)
}

/// Takes the exclusive lock of one byte. `false` when somebody has it.
///
/// # Errors
/// What the kernel said, when it is not that: a file system without such locks.
pub fn try_lock(file: &impl AsRawFd, byte: i64) -> io::Result<bool> {
    try_lock_range(file, byte, 1)
}

/// Takes every byte of living writers at once: nobody lives, and nobody can come while it is held.
#[cfg(not(model))]
pub fn try_lock_all_slots(file: &File) -> io::Result<bool> {
    try_lock_range(file, SLOTS, END - SLOTS)
}

fn try_lock_range(file: &impl AsRawFd, start: i64, len: i64) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, start, len);
    // SAFETY: a system call on an open file with a valid struct.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Lets go of the lock of one byte.
pub fn unlock(file: &impl AsRawFd, byte: i64) {
    let mut lock = flock(libc::F_UNLCK, byte, 1);
    // SAFETY: as above.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) };
}

/// Whether somebody else has locked this byte.
pub fn is_locked(file: &impl AsRawFd, byte: i64) -> bool {
    is_any_locked(file, byte, 1)
}

/// Whether any writer of this file lives.
pub fn is_any_slot_locked(file: &impl AsRawFd) -> bool {
    is_any_locked(file, SLOTS, END - SLOTS)
}

fn is_any_locked(file: &impl AsRawFd, start: i64, len: i64) -> bool {
    let mut lock = flock(libc::F_WRLCK, start, len);
    // SAFETY: as above; the kernel fills the struct in.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    // When the kernel cannot say, the safe answer is "alive".
    result != 0 || i32::from(lock.l_type) != libc::F_UNLCK
}

fn flock(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}
