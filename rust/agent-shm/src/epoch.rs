//! When memory may be used again.
//!
//! A removed series is unreachable for those who come later, but a writer that found it earlier may still be about to add
//! to it. Epochs (Fraser, *Practical lock-freedom*, 2004) answer when none can be: every operation marks its slot as
//! active in the epoch it saw; the epoch advances only when every active slot has seen the current one; what was removed
//! in epoch `e` is free in `e + 2`. A slot whose owner is dead does not count, so a killed process blocks nothing; a
//! stopped one blocks reuse (never counting) until it goes on, and the segment's limits bound what that can cost.
//!
//! The mark must be visible before the operation reads anything: a full barrier, 6 ns, twice the cost of the increment
//! itself. Linux lets the rare side pay instead: [`membarrier`] makes every running thread of every process that
//! registered execute a barrier, so the frequent side needs only to keep the compiler from reordering. A process that
//! cannot register uses a real fence; both kinds live beside each other, and each slot says of which kind its owner is. A
//! process that has no `membarrier` (an old kernel, a filter of system calls) advances the epoch all the same while every
//! living owner fences by itself, and leaves it to others when not.

use crate::layout::*;
use crate::region::Region;
use crate::sync::{fence, Ordering, Word};

/// How this process makes its mark visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// Whoever advances the epoch issues the barrier for us.
    Remote,
    /// We issue it ourselves, in every operation.
    Own,
}

impl Barrier {
    /// Registers this process with the kernel.
    pub fn register() -> Barrier {
        if membarrier(MEMBARRIER_REGISTER_GLOBAL_EXPEDITED) {
            Barrier::Remote
        } else {
            Barrier::Own
        }
    }

    /// What the frequent side does between a mark of its own and a look at what the rare side changes.
    #[inline(always)]
    pub fn of_writer(self) {
        match self {
            Barrier::Remote => compiler_fence(),
            Barrier::Own => fence(Ordering::SeqCst),
        }
    }

    /// Says in the slot of which kind its new owner is, before its first operation.
    pub fn announce(self, region: &Region, slot: u64) {
        region.word(slot + SLOT_REMOTE).store((self == Barrier::Remote).into(), Ordering::Release);
        // Partner: the fence in `try_advance`. Who advances without `membarrier` and misses this word has unlinked what
        // it frees before anything that the owner reads.
        fence(Ordering::SeqCst);
    }
}

/// Marks the slot as active; gives the epoch that it was marked with. Partner: the barrier and the reads of `active` in
/// [`try_advance`].
#[inline(always)]
pub fn enter(epoch: &Word, active: &Word, barrier: Barrier) -> u64 {
    let mut now = epoch.load(Ordering::Relaxed);
    loop {
        active.store(now << 1 | 1, Ordering::Relaxed);
        barrier.of_writer();
        // A process that was stopped between the two lines before would be inside with a mark of long ago.
        let again = epoch.load(Ordering::Relaxed);
        if again == now {
            return now;
        }
        now = again;
    }
}

/// Release: whatever the operation read or wrote is over before the mark is gone.
#[inline(always)]
pub fn leave(active: &Word) {
    active.store(0, Ordering::Release);
}

/// Advances the epoch when every living active slot has seen it. `is_alive` is asked only for slots in the way.
/// Gives the epoch now in force, or nothing when it could not advance.
pub fn try_advance(
    region: &Region,
    places: &Places,
    is_alive: impl Fn(u16) -> bool,
) -> Option<u64> {
    let word = region.word(WORD_EPOCH);
    let epoch = word.load(Ordering::Acquire);
    let reaches_all = everybody_barrier();
    let used = region.word(WORD_SLOTS_USED).load(Ordering::Acquire).min(places.slots_max) as u16;
    for index in 0..used {
        let word = |offset| region.word(places.slot(index) + offset).load(Ordering::Acquire);
        let unseen = !reaches_all && word(SLOT_REMOTE) != 0;
        let active = word(SLOT_ACTIVE);
        if (unseen || active != 0 && active >> 1 != epoch) && is_alive(index) {
            return None;
        }
    }
    match word.compare_exchange(epoch, epoch + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(epoch + 1),
        Err(now) => Some(now),
    }
}

/// Epochs that must pass between the removal of something and the reuse of its memory.
pub const GRACE: u64 = 2;

#[cfg(not(model))]
#[inline(always)]
fn compiler_fence() {
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

#[cfg(model)]
fn compiler_fence() {
    // Nobody executes it for us in a model, unless that is what the model is about.
    if !crate::model::membarrier_is_lost() {
        fence(Ordering::SeqCst);
    }
}

#[cfg(not(model))]
const MEMBARRIER_GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const MEMBARRIER_REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

#[cfg(not(model))]
pub fn everybody_barrier() -> bool {
    // The expedited form reaches registered processes only; ours is one of them, and those that could not register
    // fence by themselves.
    fence(Ordering::SeqCst);
    membarrier(MEMBARRIER_GLOBAL_EXPEDITED)
}

#[cfg(model)]
pub fn everybody_barrier() -> bool {
    fence(Ordering::SeqCst);
    !crate::model::membarrier_is_lost()
}

#[cfg(model)]
fn membarrier(_command: libc::c_int) -> bool {
    crate::model::membarrier_is_lost()
}

#[cfg(not(model))]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: a system call without pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
