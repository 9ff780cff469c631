//! Guests: writers beyond the last slot.
//!
//! When every slot has a living owner, the next process writes as a *guest*. It adds to the same cells as everybody else:
//! counters, histograms, sums and shared gauges have no owner, so its numbers count at once and outlive it. What it lacks
//! is what belongs to a slot: a ring (its records are counted as refused), and a place in per-process gauges (its values
//! wait in its own memory until a slot is free; see `writer.rs`). An operation of a guest costs 20 ns more.
//!
//! All guests share one more slot record behind the last slot, the *common slot*:
//!
//! ```text
//! SLOT_GENERATION     guests so far; the number of each is the byte that it locks, far behind those of the slots
//! SLOT_CLAIMED        private segments only: guests now
//! SLOT_RING_REFUSED   records that no ring took
//! SLOT_MARKS          two words, for even and odd epochs: entries so far (32) | guests inside an operation (32)
//! ```
//!
//! *Epochs.* A guest is counted in the mark of the epoch that it saw. Memory comes back two advances after it was
//! unlinked; one of the two looks at the even mark, the other at the odd one, so whichever epoch the guest saw, however
//! old, one of them waits for it. A guest killed inside an operation leaves its mark one too high. That holds up the
//! reuse of memory (never counting) until no guest is alive: then the mark is put to 0, by a compare-and-swap that the
//! entries so far make fail when a guest has come meanwhile.

use crate::error::Error;
use crate::layout::*;
use crate::region::Region;
use crate::segment::Segment;
use crate::series::Series;
use crate::slot;
use crate::sync::{fence, Ordering, Word};
use crate::writer::Writer;
use std::fs::File;

/// The `depth` of a guest's writer outside of operations: never 0, so that it makes no mark in a slot.
pub const IDLE: u32 = 1 << 16;
/// First of the bytes that guests lock.
const LOCKS_START: i64 = slot::LOCK_BASE + (1 << 32);
const LOCKS: i64 = 1 << 48;
/// Living guests are counted up to this: a system call for each.
const COUNTED_MAX: u32 = 10_000;
/// Values of gauges that a guest keeps aside.
const ASIDE_MAX: usize = 10_000;
const ENTRY: u64 = 1 << 32;
const INSIDE: u64 = ENTRY - 1;

/// What is known of the writers without a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Guests {
    pub alive: u32,
    /// So many there ever were.
    pub ever: u64,
    /// Ring records of theirs that were counted and dropped.
    pub ring_refused: u64,
}

/// Gives the number of a new guest and the lock that says that it lives.
pub fn claim(region: &Region, places: &Places) -> Result<(u64, Option<File>), Error> {
    let lock = if region.is_shared() { Some(slot::open_again(region)?) } else { None };
    let common = places.common();
    let number = region.word(common + SLOT_GENERATION).fetch_add(1, Ordering::AcqRel) + 1;
    match &lock {
        Some(file) if !slot::try_lock(file, LOCKS_START + number as i64 % LOCKS) => {
            Err(Error::NoSlot { slots_max: places.slots_max() as u16 })
        }
        Some(_) => Ok((number, lock)),
        None => {
            region.word(common + SLOT_CLAIMED).fetch_add(1, Ordering::AcqRel);
            Ok((number, None))
        }
    }
}

/// In private memory, takes a guest off the count; a lock goes by itself.
pub fn release(region: &Region, places: &Places) {
    if !region.is_shared() {
        region.word(places.common() + SLOT_CLAIMED).fetch_sub(1, Ordering::AcqRel);
    }
}

pub fn is_any_alive(region: &Region, places: &Places, probe: Option<&File>) -> bool {
    match probe {
        Some(file) => slot::locked_in(file, LOCKS_START, LOCKS).is_some(),
        None => region.word(places.common() + SLOT_CLAIMED).load(Ordering::Acquire) > 0,
    }
}

/// Marks one guest as inside; gives the mark to be taken back by [`leave`].
pub fn enter(region: &Region, places: &Places) -> u64 {
    let epoch = region.word(WORD_EPOCH).load(Ordering::Relaxed);
    let mark = places.common() + SLOT_MARKS + epoch % 2 * 8;
    region.word(mark).fetch_add(ENTRY | 1, Ordering::AcqRel);
    // Partner: the barrier in `epoch::try_advance`. Guests issue their own, registered or not.
    fence(Ordering::SeqCst);
    mark
}

pub fn leave(region: &Region, mark: u64) {
    region.word(mark).fetch_sub(1, Ordering::Release);
}

/// Whether no guest is inside an operation, as far as anybody can tell who does not ask the kernel.
pub fn is_nobody_inside(region: &Region, places: &Places) -> bool {
    let marks = places.common() + SLOT_MARKS;
    [0, 8].iter().all(|word| region.word(marks + word).load(Ordering::Acquire) & INSIDE == 0)
}

/// Whether the epoch may go on from `epoch` as far as guests are concerned.
pub fn has_seen(
    region: &Region,
    places: &Places,
    epoch: u64,
    is_any_alive: impl FnOnce() -> bool,
) -> bool {
    let mark: &Word = region.word(places.common() + SLOT_MARKS + (epoch + 1) % 2 * 8);
    let seen = mark.load(Ordering::Acquire);
    if seen & INSIDE == 0 {
        return true;
    }
    // Asked after the mark was read: whoever is counted in it was alive before.
    !is_any_alive()
        && mark.compare_exchange(seen, seen & !INSIDE, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

impl Segment {
    /// Writers without a slot.
    pub fn guests(&self) -> Guests {
        let inner = &*self.inner;
        let common = inner.places.common();
        let word = |offset| inner.region.word(common + offset).load(Ordering::Acquire);
        let alive = match &inner.probe {
            Some(file) => alive_by_locks(file),
            None => word(SLOT_CLAIMED) as u32,
        };
        Guests { alive, ever: word(SLOT_GENERATION), ring_refused: word(SLOT_RING_REFUSED) }
    }
}

impl Writer {
    /// Whether it writes without a slot.
    pub fn is_guest(&self) -> bool {
        self.claim.is_guest
    }

    /// For a guest, outside of operations: a writer with a slot, when one is free by now. What this one kept aside for
    /// per-process gauges is in its place then. This one is to be dropped.
    #[cold]
    pub fn take_slot(&self) -> Option<Writer> {
        if !self.is_guest() {
            return None;
        }
        let next = self.segment().writer().ok()?;
        for (series, value) in self.aside.borrow_mut().drain().map(|(_, kept)| kept) {
            // A series that was removed meanwhile took the value with it.
            let _ = next.set(&series, value);
        }
        Some(next)
    }

    /// Changes a guest's value of a per-process gauge, where nobody sees it. For a writer that has a slot but no memory,
    /// and at a limit, the change is refused.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep_aside(&self, s: &Series, change: &dyn Fn(Option<f64>) -> f64) {
        let mut aside = self.aside.borrow_mut();
        let known = aside.get(&s.id()).map(|(_, value)| *value);
        if !self.is_guest() || known.is_none() && aside.len() >= ASIDE_MAX {
            self.region().word(WORD_REFUSED).fetch_add(1, Ordering::Relaxed);
            return;
        }
        aside.insert(s.id(), (s.clone(), change(known)));
    }
}

/// Locks held in the range of guests: the kernel names one, the others are on its left and on its right.
fn alive_by_locks(file: &File) -> u32 {
    let mut ranges = vec![(LOCKS_START, LOCKS)];
    let mut alive = 0;
    while let (true, Some((start, len))) = (alive < COUNTED_MAX, ranges.pop()) {
        let Some(byte) = slot::locked_in(file, start, len) else { continue };
        alive += 1;
        let left = byte - start;
        let right = len - left - 1;
        ranges.extend([(byte + 1, right), (start, left)].iter().filter(|(_, len)| *len > 0));
    }
    alive
}
