//! Stand-ins for atomics, for models of interleavings (`--cfg model`), and death in a model.
//!
//! `--cfg loom` explores every order within a bound, and every value that a weakly ordered machine may show; `--cfg
//! shuttle` tries random orders of machines without weak ordering. In both, each access to a word or a pair is one step.
//!
//! A thread can *die* before any of its steps, as a killed process does: [`live_for`] unwinds it there, and nothing that
//! runs on the way (the end of a protected section, the drop of a writer) touches shared memory. `Segment::bury` then
//! does what the kernel does, and no more: it lets go of the locks.
//!
//! Not modelled: a pair is one indivisible thing (which is the machine's promise), never two words; the barrier that Linux
//! executes for others is a fence of our own. Processes test both. That somebody relies on this barrier and nobody can
//! execute it is modelled: [`lose_membarrier`].

use std::cell::Cell;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
#[cfg(loom)]
use {loom::sync::atomic::AtomicU64, loom::sync::Mutex, loom::thread};
#[cfg(shuttle)]
use {shuttle::sync::atomic::AtomicU64, shuttle::thread, std::sync::Mutex};

pub use std::sync::atomic::Ordering;

#[cfg(loom)]
pub fn fence(order: Ordering) {
    if is_alive() {
        loom::sync::atomic::fence(order);
    }
}

/// All steps are in one order here.
#[cfg(shuttle)]
pub fn fence(_order: Ordering) {}

/// What a dying thread unwinds with.
struct Death;

thread_local! {
    // All threads of a model run on one thread of the machine.
    /// Who dies, and after how many steps.
    static MORTAL: Cell<Option<(thread::ThreadId, u64)>> = const { Cell::new(None) };
    static LOST: Cell<bool> = const { Cell::new(false) };
}

/// Writers that come from now on leave the barrier to others, and nobody has it: as in a process that registered, beside
/// one with a filter of system calls. For the whole model; to be said or denied at its beginning.
pub fn lose_membarrier(is_lost: bool) {
    LOST.set(is_lost);
}

pub fn membarrier_is_lost() -> bool {
    LOST.get()
}

/// Runs `life`, which dies before step `steps` (counted from 0) of this thread. Gives nothing when it died.
pub fn live_for<T>(steps: u64, life: impl FnOnce() -> T) -> Option<T> {
    let before = MORTAL.replace(Some((thread::current().id(), steps)));
    assert_eq!(before, None, "one death at a time");
    let end = catch_unwind(AssertUnwindSafe(life));
    MORTAL.set(None);
    match end {
        Ok(value) => Some(value),
        Err(death) if death.is::<Death>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Before each step: false when the thread is dead, or a test has failed, and the step is not made.
fn is_alive() -> bool {
    if std::thread::panicking() {
        return false;
    }
    let Some((who, steps)) = MORTAL.get() else { return true };
    if thread::current().id() == who {
        if steps == 0 {
            // Not a panic: nobody is to hear of it.
            resume_unwind(Box::new(Death));
        }
        MORTAL.set(Some((who, steps - 1)));
    }
    true
}

/// An atomic word.
pub struct Word(AtomicU64);

/// A change that gives the value before.
macro_rules! changes {
    ($($name:ident)*) => {
        $(pub fn $name(&self, value: u64, order: Ordering) -> u64 {
            if is_alive() { self.0.$name(value, order) } else { 0 }
        })*
    };
}

impl Word {
    pub fn new(value: u64) -> Word {
        Word(AtomicU64::new(value))
    }

    pub fn load(&self, order: Ordering) -> u64 {
        if is_alive() {
            self.0.load(order)
        } else {
            0
        }
    }

    pub fn store(&self, value: u64, order: Ordering) {
        if is_alive() {
            self.0.store(value, order);
        }
    }

    changes!(swap fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min);

    pub fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if is_alive() {
            self.0.compare_exchange(old, new, success, failure)
        } else {
            Err(0)
        }
    }

    pub fn compare_exchange_weak(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(old, new, success, failure)
    }

    pub fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        mut change: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let mut old = self.load(failure);
        while let Some(new) = change(old) {
            match self.compare_exchange(old, new, success, failure) {
                Ok(_) => return Ok(old),
                Err(now) if now == old => return Err(now),
                Err(now) => old = now,
            }
        }
        Err(old)
    }
}

/// Two words that change in one step.
pub struct Pair {
    halves: Mutex<(u64, u64)>,
    /// A step, where the mutex is none.
    #[cfg(shuttle)]
    step: Word,
}

impl Pair {
    pub fn new() -> Pair {
        Pair {
            halves: Mutex::new((0, 0)),
            #[cfg(shuttle)]
            step: Word::new(0),
        }
    }

    pub fn load(&self) -> (u64, u64) {
        self.update(|first, second| (first, second))
    }

    pub fn load_counted(&self) -> (u64, u64) {
        self.load()
    }

    pub fn update(&self, mut change: impl FnMut(u64, u64) -> (u64, u64)) -> (u64, u64) {
        #[cfg(loom)]
        if !is_alive() {
            return (0, 0);
        }
        #[cfg(shuttle)]
        self.step.load(Ordering::SeqCst);
        let mut halves = self.halves.lock().unwrap();
        let old = *halves;
        *halves = change(old.0, old.1);
        old
    }
}
