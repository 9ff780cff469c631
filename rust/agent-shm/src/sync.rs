//! The one door to atomics. Everything shared between processes is made of two things: a 64-bit [`Word`] and a 16-byte
//! [`Pair`] of two words that changes in one step. Under `--cfg model` both are the stand-ins of model.rs, which is why no
//! other file of the crate names `core::sync::atomic`.

#[cfg(model)]
pub use crate::model::{fence, Ordering, Pair, Word};

#[cfg(not(model))]
pub use core::sync::atomic::{fence, AtomicU64 as Word, Ordering};

/// Two words that are always read and written together: `{count, f64 sum}` of a histogram bucket, `{retired, value}` of a
/// per-process gauge. A 128-bit compare-and-swap (`cmpxchg16b`, `ldxp/stxp`): a process killed at any instruction has
/// changed both halves or neither.
#[cfg(not(model))]
#[repr(transparent)]
pub struct Pair(portable_atomic::AtomicU128);

#[cfg(not(model))]
impl Pair {
    /// Whether this machine has the 128-bit compare-and-swap; without it there is no shared segment.
    pub fn is_lock_free() -> bool {
        portable_atomic::AtomicU128::is_lock_free()
    }

    /// Both halves at one moment. Needs write permission on machines without 16-byte vector loads: read-only mappings use
    /// [`Pair::load_counted`].
    pub fn load(&self) -> (u64, u64) {
        split(self.0.load(Ordering::Acquire))
    }

    /// Both halves at one moment, by 8-byte loads only, for pairs whose first half grows with every change, or changes
    /// once per owner and never back: the same first half before and after means that the second half belongs to it.
    /// After 64 attempts under a hammering
    /// writer the last read is given.
    pub fn load_counted(&self) -> (u64, u64) {
        // SAFETY: `self` is 16 valid bytes, aligned to 16; both halves lie in it, and 8-byte atomic loads of a location
        // that others change with 16-byte atomics are defined by the hardware we run on (x86-64, aarch64).
        let (first, second) = unsafe {
            let base: *const Word = (self as *const Pair).cast();
            (&*base, &*base.add(1))
        };
        let mut count = first.load(Ordering::Acquire);
        let mut sum = second.load(Ordering::Acquire);
        for _ in 0..64 {
            let again = first.load(Ordering::Acquire);
            if again == count {
                break;
            }
            count = again;
            sum = second.load(Ordering::Acquire);
        }
        (count, sum)
    }

    /// Replaces both halves by `change` of them in one step; gives the halves that were replaced.
    #[inline]
    pub fn update(&self, mut change: impl FnMut(u64, u64) -> (u64, u64)) -> (u64, u64) {
        // The first guess may be torn: the compare-and-swap then fails and hands the true halves.
        let mut old = self.guess();
        loop {
            let (a, b) = split(old);
            let (a, b) = change(a, b);
            let new = join(a, b);
            match self.0.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return split(old),
                Err(now) => old = now,
            }
        }
    }

    #[inline]
    fn guess(&self) -> u128 {
        // SAFETY: as in `load_counted`.
        let (first, second) = unsafe {
            let base: *const Word = (self as *const Pair).cast();
            (&*base, &*base.add(1))
        };
        join(first.load(Ordering::Relaxed), second.load(Ordering::Relaxed))
    }
}

#[cfg(not(model))]
#[inline]
fn split(both: u128) -> (u64, u64) {
    (both as u64, (both >> 64) as u64)
}

#[cfg(not(model))]
#[inline]
fn join(first: u64, second: u64) -> u128 {
    u128::from(first) | (u128::from(second) << 64)
}

/// Whether a sum is one that two finite numbers may not have.
#[inline]
pub fn overflows(old: f64, amount: f64) -> bool {
    (old + amount).is_infinite() && old.is_finite() && amount.is_finite()
}

/// Adds `amount` to the f64 whose bits `word` holds, unless that makes an infinite number of two finite ones.
#[inline]
pub fn add_finite(word: &Word, amount: f64) -> bool {
    // Acquire and release, as `add_f64`: the value is the whole message.
    let add = |old| {
        let old = f64::from_bits(old);
        (!overflows(old, amount)).then(|| (old + amount).to_bits())
    };
    word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add).is_ok()
}

/// Adds `amount` to the f64 whose bits `word` holds; gives the bits before.
#[cfg(model)]
pub fn add_f64(word: &Word, amount: f64) -> u64 {
    let mut old = word.load(Ordering::Relaxed);
    loop {
        let new = (f64::from_bits(old) + amount).to_bits();
        match word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return old,
            Err(now) => old = now,
        }
    }
}
