//! Writer slots: who writes, and whether it is alive.
//!
//! A slot is owned by whoever holds the kernel's lock on its byte. Each owner is one *incarnation* of the slot, with a
//! number of its own, and holds the byte of that number as well: asking whether incarnation 7 of slot 3 lives has one
//! answer, whoever owns the slot by now and however far its taking over has come. The kernel lets go of both bytes when
//! the process dies, at any instruction, zombie or not, in whatever container; a stopped process keeps them. No time-out
//! and no process id decides anything; ids are written for people to read.
//!
//! The locks are held by a mapping and not by a descriptor (lock.rs). A descriptor of the same description is kept for
//! asking, and is asked only after device and inode were compared; without one the file is opened again; when that
//! cannot be done either (dropped privileges), everybody counts as alive, which delays reuse and shows the last values
//! of the dead.
//!
//! In private memory (no file) a slot is owned through a word instead, and nobody else is there to ask.

use crate::clock;
use crate::error::Error;
use crate::identity;
use crate::inner::Inner;
use crate::layout::*;
use crate::lock;
use crate::region::Region;
use crate::sync::Ordering;
use std::cell::{Cell, OnceCell, RefCell};
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

/// The right to write as slot `index`, held until it is dropped or the process dies.
pub struct Lease {
    pub index: u16,
    pub generation: u64,
    lock: Option<Lock>,
}

/// The description that holds the locks of a lease.
struct Lock {
    page: *mut libc::c_void,
    /// For asking; may have been closed by others, see [`Lock::descriptor`].
    fd: RawFd,
    file_id: identity::FileId,
    process: u32,
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

impl Lease {
    /// Takes the first slot that no living process owns.
    pub fn take(inner: &Inner, now_unix_ms: u64) -> Result<Lease, Error> {
        let Inner { region, places, options, .. } = inner;
        let file = if region.is_shared() { Some(open_again(region)?) } else { None };
        for index in 0..options.slots_max {
            let slot = places.slot(index);
            let taken = match &file {
                Some(file) => lock::try_lock(file, lock::slot_byte(index)).map_err(|source| {
                    Error::Io { stage: "lock a slot of", path: region.path().into(), source }
                })?,
                None => {
                    let word = region.word(slot + SLOT_CLAIMED);
                    word.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
                }
            };
            if taken {
                return Lease::begin(inner, index, file, now_unix_ms);
            }
        }
        // Somebody holds all of them for a moment while he replaces the file.
        if file.is_some() && is_replaced(region) {
            return Err(identity::replaced(region.path()));
        }
        Err(Error::NoSlot { slots_max: options.slots_max })
    }

    /// The slot is ours alone from here on.
    fn begin(
        inner: &Inner,
        index: u16,
        file: Option<File>,
        now_unix_ms: u64,
    ) -> Result<Lease, Error> {
        let Inner { region, places, .. } = inner;
        let slot = places.slot(index);
        let fail = |stage| move |source| Error::Io { stage, path: region.path().into(), source };
        region.commit(slot, SLOT_BYTES).map_err(fail("commit memory of"))?;
        let generation = region.word(slot + SLOT_GENERATION).load(Ordering::Acquire) + 1;
        let lock = match file {
            Some(file) => {
                lock::try_lock(&file, lock::incarnation_byte(index, generation))
                    .map_err(fail("lock a slot of"))?;
                // After the lock: who replaces a file looks whether anybody holds one, and then unlinks.
                if is_replaced(region) {
                    return Err(identity::replaced(region.path()));
                }
                Some(Lock::keep(file, region).map_err(fail("map the lock of"))?)
            }
            None => None,
        };
        if region.word(slot + SLOT_ACTIVE).swap(0, Ordering::AcqRel) != 0 {
            region.word(WORD_LEFT_INSIDE).store(1, Ordering::Relaxed);
        }
        region.word(slot + SLOT_PID).store(u64::from(std::process::id()), Ordering::Relaxed);
        region.word(slot + SLOT_STARTED).store(now_unix_ms, Ordering::Relaxed);
        // Release: who sees this incarnation sees its id.
        region.word(slot + SLOT_GENERATION).store(generation, Ordering::Release);
        region.word(WORD_SLOTS_USED).fetch_max(u64::from(index) + 1, Ordering::AcqRel);
        Ok(Lease { index, generation, lock })
    }

    /// Gives the slot back.
    pub fn release(&self, region: &Region, places: &Places) {
        let slot = places.slot(self.index);
        region.word(slot + SLOT_ACTIVE).store(0, Ordering::Release);
        if self.lock.is_none() {
            region.word(slot + SLOT_CLAIMED).store(0, Ordering::Release);
        }
    }

    /// In a forked child: closes the number that was inherited, when it is still ours. The locks are the parent's.
    pub fn forget_in_child(self) {
        if let Some(lock) = &self.lock {
            if let Some(fd) = lock.descriptor() {
                // SAFETY: compared with the mapped file a moment ago; this process has one thread.
                unsafe { libc::close(fd) };
            }
        }
        std::mem::forget(self);
    }
}

impl Lock {
    fn keep(file: File, region: &Region) -> std::io::Result<Lock> {
        // SAFETY: a new mapping of one page that is never touched.
        let page = unsafe {
            let (none, shared) = (libc::PROT_NONE, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), LOCK_PAGE, none, shared, file.as_raw_fd(), 0)
        };
        if page == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the page mapped above; children do not get it, so they cannot keep our locks.
        unsafe { libc::madvise(page, LOCK_PAGE, libc::MADV_DONTFORK) };
        let file_id = region.file_id().unwrap_or_default();
        let fd = std::os::fd::IntoRawFd::into_raw_fd(file);
        Ok(Lock { page, fd, file_id, process: std::process::id() })
    }

    /// The number, when it still leads to this description: to the same file, and through it our own locks are no
    /// obstacle, as they would be through any other description of the file.
    fn asker(&self, own: i64) -> Option<RawFd> {
        self.descriptor().filter(|fd| !lock::is_locked(fd, own))
    }

    /// The number, when it still leads to the segment.
    fn descriptor(&self) -> Option<RawFd> {
        // SAFETY: the kernel fills in a struct that may be all zeros, or says that the number is none.
        let found = unsafe {
            let mut status: libc::stat = std::mem::zeroed();
            (libc::fstat(self.fd, &mut status) == 0).then_some((status.st_dev, status.st_ino))
        };
        (found == Some(self.file_id)).then_some(self.fd)
    }
}

const LOCK_PAGE: usize = 4096;

// SAFETY: an address that nobody reads, and numbers.
unsafe impl Send for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        // In a forked child the page is not there and the locks are the parent's.
        if self.process != std::process::id() {
            return;
        }
        if let Some(fd) = self.descriptor() {
            // SAFETY: ours, compared a moment ago.
            unsafe { libc::close(fd) };
        }
        // SAFETY: mapped in `keep`; the last reference to the description, so the locks go with it.
        unsafe { libc::munmap(self.page, LOCK_PAGE) };
    }
}

#[cfg(not(model))]
fn is_replaced(region: &Region) -> bool {
    region.is_in_place() == Some(false)
}

#[cfg(model)]
fn is_replaced(_region: &Region) -> bool {
    false
}

fn open_again(region: &Region) -> Result<File, Error> {
    identity::open_again(region.path(), region.file_id(), region.is_writable())
}

/// Who lives, asked once for each incarnation. Made for one page or one pass; the answers do not change in it.
pub struct Liveness<'a> {
    inner: &'a Inner,
    /// The slot, incarnation and lock of the writer that asks: its own description does not report its own locks.
    own: Option<&'a Lease>,
    file: OnceCell<Option<Asked>>,
    known: RefCell<Vec<(u64, bool)>>,
    /// Processor time that a reader has spent on asking.
    asked_ns: Cell<u64>,
}

/// When a reader has spent so much for one view, everybody whom it has not asked for counts as alive.
const ASKING_NS_MAX: u64 = 200_000_000;

enum Asked {
    Opened(File),
    Kept(RawFd),
}

impl AsRawFd for Asked {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Asked::Opened(file) => file.as_raw_fd(),
            Asked::Kept(fd) => *fd,
        }
    }
}

impl<'a> Liveness<'a> {
    pub fn new(inner: &'a Inner, own: Option<&'a Lease>) -> Liveness<'a> {
        let (file, known, asked_ns) = (OnceCell::new(), RefCell::default(), Cell::new(0));
        Liveness { inner, own, file, known, asked_ns }
    }

    /// Whether the owner of the slot that it has now lives.
    pub fn slot_is_alive(&self, index: u16) -> bool {
        let generation = self.generation(index);
        generation != 0 && self.is_alive(index, generation)
    }

    pub fn generation(&self, index: u16) -> u64 {
        let slot = self.inner.places.slot(index);
        self.inner.region.word(slot + SLOT_GENERATION).load(Ordering::Acquire)
    }

    /// Whether this incarnation lives.
    pub fn is_alive(&self, index: u16, generation: u64) -> bool {
        if self.own.is_some_and(|own| own.index == index && own.generation == generation) {
            return true;
        }
        let at = usize::from(index);
        if let Some(&(known, alive)) = self.known.borrow().get(at) {
            if known == generation {
                return alive;
            }
        }
        let alive = self.ask(index, generation);
        let mut known = self.known.borrow_mut();
        if known.len() <= at {
            known.resize(at + 1, (0, false));
        }
        known[at] = (generation, alive);
        alive
    }

    /// Whether anybody lives.
    pub fn is_any_alive(&self) -> bool {
        if !self.inner.region.is_shared() {
            let used = self.inner.region.word(WORD_SLOTS_USED).load(Ordering::Acquire);
            let slots = used.min(self.inner.places.slots_max) as u16;
            return (0..slots).any(|slot| self.slot_is_alive(slot));
        }
        match self.file.get_or_init(|| self.open()) {
            Some(file) => self.own.is_some() || lock::is_any_slot_locked(file),
            None => true,
        }
    }

    fn ask(&self, index: u16, generation: u64) -> bool {
        let Inner { region, places, .. } = self.inner;
        if !region.is_shared() {
            let slot = places.slot(index);
            return region.word(slot + SLOT_CLAIMED).load(Ordering::Acquire) == 1
                && self.generation(index) == generation;
        }
        match self.file.get_or_init(|| self.open()) {
            Some(file) => {
                let byte = lock::incarnation_byte(index, generation);
                match region.is_writable() {
                    true => lock::is_locked(file, byte),
                    false => self.ask_within_budget(file, byte),
                }
            }
            None => true,
        }
    }

    /// Of a file that others have locked at thousands of places each question takes long: a reader must not.
    fn ask_within_budget(&self, file: &Asked, byte: i64) -> bool {
        if self.asked_ns.get() > ASKING_NS_MAX {
            return true;
        }
        let before = clock::thread_cpu_ns();
        let alive = lock::is_locked(file, byte);
        let took = clock::thread_cpu_ns().saturating_sub(before);
        self.asked_ns.set(self.asked_ns.get() + took);
        alive
    }

    fn open(&self) -> Option<Asked> {
        if let Some(Lease { index, generation, lock: Some(lock) }) = self.own {
            if let Some(fd) = lock.asker(lock::incarnation_byte(*index, *generation)) {
                return Some(Asked::Kept(fd));
            }
        }
        open_again(&self.inner.region).ok().map(Asked::Opened)
    }

    /// Takes the lock of the one who reclaims; given back by [`Liveness::unlock`], or by our death.
    pub fn try_lock(&self, byte: i64) -> bool {
        let file = self.file.get_or_init(|| self.open());
        file.as_ref().is_some_and(|file| lock::try_lock(file, byte).unwrap_or(false))
    }

    pub fn unlock(&self, byte: i64) {
        if let Some(Some(file)) = self.file.get() {
            lock::unlock(file, byte);
        }
    }
}

pub fn info(inner: &Inner, liveness: &Liveness<'_>, index: u16) -> SlotInfo {
    let slot = inner.places.slot(index);
    let word = |offset: u64| inner.region.word(slot + offset).load(Ordering::Acquire);
    SlotInfo {
        index,
        alive: liveness.slot_is_alive(index),
        pid: word(SLOT_PID) as u32,
        generation: word(SLOT_GENERATION),
        started_unix_ms: word(SLOT_STARTED),
        ring: word(SLOT_RING) == 1,
        ring_written: word(SLOT_RING_WRITTEN),
        ring_refused: word(SLOT_RING_REFUSED),
    }
}
