//! Writer slots: who writes, and whether it is alive.
//!
//! A slot is owned by whoever holds the kernel's lock on its byte, taken through an open file description of its own
//! (OFD lock). The kernel lets go of it when the process dies, at any instruction, zombie or not, in whatever container;
//! a stopped process keeps it. No time-out and no process id decides anything; ids are written for people to read.
//! A forked child that keeps the inherited descriptor only delays the reuse of the slot.
//!
//! In private memory (no file) a slot is owned through a word instead, and nobody else is there to ask.

use crate::error::Error;
use crate::guest;
use crate::layout::*;
use crate::region::Region;
use crate::sync::Ordering;
use std::fs::{File, OpenOptions};
#[cfg(not(loom))]
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
#[cfg(not(loom))]
use std::path::Path;

/// Far behind the end of any segment: lock bytes and data never meet.
pub const LOCK_BASE: i64 = 1 << 60;
/// Held while a stale file is replaced; see file.rs.
pub const REPLACE_BYTE: i64 = LOCK_BASE - 1;
/// Held by the maker of a new file until it has its name; see file.rs.
pub const MAKER_BYTE: i64 = LOCK_BASE - 3;

/// The right to write as slot `index`; the lock goes with the last descriptor.
pub struct Claim {
    pub index: u16,
    /// The slot's generation, or the guest's number.
    pub generation: u64,
    pub is_guest: bool,
    lock: Option<File>,
}

impl Claim {
    /// The right to write without a slot.
    pub fn guest(region: &Region, places: &Places) -> Result<Claim, Error> {
        let (generation, lock) = guest::claim(region, places)?;
        Ok(Claim { index: places.slots_max() as u16, generation, is_guest: true, lock })
    }

    pub fn lock_fd(&self) -> Option<i32> {
        self.lock.as_ref().map(AsRawFd::as_raw_fd)
    }
}

/// One slot as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    pub index: u16,
    pub alive: bool,
    pub pid: u32,
    /// Owners that the slot has had.
    pub generation: u64,
    pub started_unix_ms: u64,
    /// Whether its ring has memory, how many cells were ever written, and records that could not be.
    pub ring: bool,
    pub ring_written: u64,
    pub ring_refused: u64,
}

/// Takes the first slot that no living process owns.
pub fn claim(
    region: &Region,
    places: &Places,
    slots_max: u16,
    now_unix_ms: u64,
) -> Result<Claim, Error> {
    let lock = if region.is_shared() { Some(open_again(region)?) } else { None };
    for index in 0..slots_max {
        let slot = places.slot(index);
        let taken = match &lock {
            Some(file) => try_lock(file, LOCK_BASE + i64::from(index)),
            None => {
                let word = region.word(slot + SLOT_CLAIMED);
                word.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
            }
        };
        if !taken {
            continue;
        }
        region.word(slot + SLOT_ACTIVE).store(0, Ordering::Release);
        region.word(slot + SLOT_PID).store(u64::from(std::process::id()), Ordering::Relaxed);
        region.word(slot + SLOT_STARTED).store(now_unix_ms, Ordering::Relaxed);
        let generation = region.word(slot + SLOT_GENERATION).fetch_add(1, Ordering::AcqRel) + 1;
        region.word(WORD_SLOTS_USED).fetch_max(u64::from(index) + 1, Ordering::AcqRel);
        return Ok(Claim { index, generation, is_guest: false, lock });
    }
    Err(Error::NoSlot { slots_max })
}

/// Gives a private slot back; a shared one goes with its lock.
pub fn release(region: &Region, places: &Places, claim: &Claim) {
    if claim.is_guest {
        return guest::release(region, places);
    }
    let slot = places.slot(claim.index);
    region.word(slot + SLOT_ACTIVE).store(0, Ordering::Release);
    if claim.lock.is_none() {
        region.word(slot + SLOT_CLAIMED).store(0, Ordering::Release);
    }
}

/// Whether a living process owns the slot. `probe` is any open file of the segment, or nothing for private memory.
pub fn is_alive(region: &Region, places: &Places, probe: Option<&File>, index: u16) -> bool {
    match probe {
        _ if u64::from(index) == places.slots_max() => guest::is_any_alive(region, places, probe),
        Some(file) => locked_in(file, LOCK_BASE + i64::from(index), 1).is_some(),
        None => region.word(places.slot(index) + SLOT_CLAIMED).load(Ordering::Acquire) == 1,
    }
}

pub fn info(region: &Region, places: &Places, probe: Option<&File>, index: u16) -> SlotInfo {
    let word = |offset: u64| region.word(places.slot(index) + offset).load(Ordering::Acquire);
    SlotInfo {
        index,
        alive: is_alive(region, places, probe, index),
        pid: word(SLOT_PID) as u32,
        generation: word(SLOT_GENERATION),
        started_unix_ms: word(SLOT_STARTED),
        ring: word(SLOT_RING) == 1,
        ring_written: word(SLOT_RING_WRITTEN),
        ring_refused: word(SLOT_RING_REFUSED),
    }
}

/// A second open file description of the same file: locks belong to descriptions, not to processes.
pub fn open_again(region: &Region) -> Result<File, Error> {
    let path = region.path();
    let fail = |source| Error::Io { stage: "open for locking", path: path.into(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path)
        .map_err(fail)?;
    let here = file.metadata().map_err(fail)?;
    if region.file_id() != Some((here.dev(), here.ino())) {
        let reason = "the file was replaced while it was being opened".into();
        return Err(Error::NotUsable { path: path.into(), reason });
    }
    Ok(file)
}

/// Takes the exclusive lock of one byte, or not; never waits.
pub fn try_lock(file: &File, byte: i64) -> bool {
    let mut lock = flock(libc::F_WRLCK, byte, 1);
    // SAFETY: a system call on an open file with a valid struct.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) == 0 }
}

/// Lets go of the lock of one byte.
pub fn unlock(file: &File, byte: i64) {
    let mut lock = flock(libc::F_UNLCK, byte, 1);
    // SAFETY: as above.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &mut lock) };
}

/// A byte of this range that somebody has locked.
pub fn locked_in(file: &File, start: i64, len: i64) -> Option<i64> {
    let mut lock = flock(libc::F_WRLCK, start, len);
    // SAFETY: as above; the kernel fills the struct in.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    // When the kernel cannot say, the safe answer is "alive".
    let locked = result != 0 || i32::from(lock.l_type) != libc::F_UNLCK;
    locked.then(|| lock.l_start.clamp(start, start + len - 1))
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

#[cfg(not(loom))]
/// Opens the file for asking about locks only; read access is enough.
pub fn open_probe(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW).open(path)
}
