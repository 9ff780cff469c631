//! Updates: what a writer does to the cells of a series.
//!
//! A handle is a place and the state word that stood there. Every operation compares the word inside an epoch before it
//! touches a cell: a series that was removed answers [`Outcome::Stale`] and nothing is written; one whose memory was given
//! to another series has another word there (block.rs). Between the comparison and the write nothing can be reused, that
//! is what the epoch is for.
//!
//! Every operation leaves the epoch in its entry, when it is not there already: expire.rs goes by it.
//!
//! Stripes: a series whose total crosses a multiple of 4096 while more than one writer was ever seen gets eight padded
//! copies of its cells; from then on each writer adds to the one of its slot. The first cells stay part of the total.
//!
//! Counters stay below 2^63: what would pass it is refused, and answered with [`Outcome::Refused`].
//!
//! Orderings: the state word is read with Acquire (its partner is the publishing compare-and-swap in `block.rs`); cells
//! are changed by read-modify-writes, whose order among each other does not matter to a sum.

use crate::block::{State, LIVE};
use crate::cells::{explicit_index, observe_sum, plain, Cells};
use crate::entry;
use crate::handle::{Outcome, Series};
use crate::layout::*;
use crate::metric::MetricId;
use crate::parts::{self, Form};
#[cfg(model)]
use crate::sync::add_f64;
use crate::sync::{add_finite, Ordering, Word};
use crate::writer::Writer;
use agent_metric::octave::{self, Place};
use agent_metric::OwnedShape;
use std::cell::Cell;
use std::sync::Arc;

/// Stripes are looked at when a total crosses a multiple of 2 to this.
const STRIPE_SHIFT: u32 = 12;
/// Smaller amounts are added first and taken back when they were too much: 2^31 of them at once do not wrap.
const LARGE: u64 = 1 << 32;

impl Writer {
    /// Inside an epoch: whether the handle's series is still there; it is used now.
    #[inline(always)]
    pub(crate) fn holds(&self, s: &Series) -> bool {
        let words = self.region().quad(s.entry);
        // Before the state is read: see expire.rs.
        let used = words[ENTRY_EXTRA as usize / 8].load(Ordering::Acquire) >> 32;
        let lives = words[0].load(Ordering::Acquire) == s.word;
        if used as u32 == self.seen.get() as u32 || !lives {
            return lives;
        }
        self.touch(s, words)
    }

    /// The first use of the series in this epoch.
    #[cold]
    fn touch(&self, s: &Series, words: &[Word; 4]) -> bool {
        let seen = self.seen.get() as u32;
        let extra = &words[ENTRY_EXTRA as usize / 8];
        // Never back: somebody may have seen the next epoch already.
        let _ = extra.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let is_later = seen.wrapping_sub((word >> 32) as u32) as i32 > 0;
            is_later.then_some(word & 0xffff_ffff | u64::from(seen) << 32)
        });
        // Partner: the barrier in `Expirer::run`. Either it sees the use, or we see that the series is expiring.
        self.barrier.of_writer();
        words[0].load(Ordering::Acquire) == s.word
    }

    #[inline(always)]
    pub(crate) fn guarded(&self, s: &Series, change: impl FnOnce() -> Outcome) -> Outcome {
        self.enter_epoch();
        let outcome = if self.holds(s) { change() } else { Outcome::Stale };
        self.leave_epoch();
        outcome
    }

    /// Adds `n`, which is below 2^63, to a counter.
    #[inline]
    pub fn add(&self, s: &Series, n: u64) -> Outcome {
        debug_assert_eq!(s.kind, Cells::Counter);
        if n >= LARGE {
            return self.add_large(s, n);
        }
        self.guarded(s, || {
            let cell = self.region().word(s.own.get());
            let old = cell.fetch_add(n, Ordering::Relaxed);
            let new = old.wrapping_add(n);
            if (old ^ new) >> STRIPE_SHIFT | new >> 63 != 0 {
                return self.crossed(s, cell, n, new);
            }
            Outcome::Applied
        })
    }

    /// An amount that may take a counter near its end: in or out in one step.
    #[cold]
    fn add_large(&self, s: &Series, n: u64) -> Outcome {
        self.guarded(s, || {
            let cell = self.region().word(s.own.get());
            let add = |old: u64| old.checked_add(n).filter(|new| *new < COUNTER_END);
            match cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
                Ok(_) => Outcome::Applied,
                Err(_) => Outcome::Refused,
            }
        })
    }

    /// A counter went over a multiple of 4096: 2^63 is one.
    #[cold]
    fn crossed(&self, s: &Series, cell: &Word, n: u64, new: u64) -> Outcome {
        if new >= COUNTER_END {
            cell.fetch_sub(n, Ordering::Relaxed);
            return Outcome::Refused;
        }
        self.take_stripe(s);
        Outcome::Applied
    }

    /// Adds to a counter; `amount` is finite and not negative. Whole amounts take the integer way; of others the
    /// fraction below 1 is kept apart, so that it is never too small to be added.
    #[inline]
    pub fn add_f64(&self, s: &Series, amount: f64) -> Outcome {
        debug_assert!(amount >= 0.0 && amount.is_finite());
        if amount >= COUNTER_END as f64 {
            return Outcome::Refused;
        }
        let whole = amount as u64;
        if whole as f64 == amount {
            return self.add(s, whole);
        }
        self.guarded(s, || self.add_fraction(s, whole, amount - whole as f64))
    }

    /// Adds a whole amount and a fraction below 1 to a counter, all or nothing.
    pub fn add_parts(&self, s: &Series, whole: u64, fraction: f64) -> Outcome {
        debug_assert!((0.0..1.0).contains(&fraction));
        match fraction > 0.0 {
            true => self.guarded(s, || self.add_fraction(s, whole, fraction)),
            false => self.add(s, whole),
        }
    }

    /// Both parts in one step; what the fractions make together goes over to the whole.
    #[cfg(not(model))]
    fn add_fraction(&self, s: &Series, whole: u64, fraction: f64) -> Outcome {
        let mut is_full = false;
        let (before, _) = self.region().pair(s.own.get()).update(|count, bits| {
            let sum = crate::cells::fraction(bits) + fraction;
            let carry = u64::from(sum >= 1.0);
            let count_after = count.saturating_add(whole).saturating_add(carry);
            is_full = count_after >= COUNTER_END;
            match is_full {
                true => (count, bits),
                false => (count_after, (sum - carry as f64).to_bits()),
            }
        });
        if is_full {
            return Outcome::Refused;
        }
        if (before ^ (before + whole + 1)) >> STRIPE_SHIFT != 0 {
            self.take_stripe(s);
        }
        Outcome::Applied
    }

    /// In a model words and pairs are different objects.
    #[cfg(model)]
    fn add_fraction(&self, s: &Series, _whole: u64, fraction: f64) -> Outcome {
        add_f64(self.region().word(s.own.get() + 8), fraction);
        Outcome::Applied
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, s: &Series, value: f64) -> Outcome {
        self.guarded(s, || match s.kind {
            Cells::SlotGauge(_) => self.change_lane(s, |_| value),
            _ => {
                self.region().word(s.cells).store(plain(value).to_bits(), Ordering::Release);
                if !self.region().is_shared() {
                    self.note_set(s);
                }
                Outcome::Applied
            }
        })
    }

    /// For who moves a gauge of private memory to a segment later. Apart, so that the way of others stays short.
    #[cold]
    #[inline(never)]
    fn note_set(&self, s: &Series) {
        self.region().word(s.cells + GAUGE_SET).store(1, Ordering::Relaxed);
    }

    /// The value of a gauge that all processes share; nothing when the series was removed or is none.
    #[inline]
    pub fn gauge(&self, s: &Series) -> Option<f64> {
        let mut value = None;
        let outcome = self.guarded(s, || {
            if s.kind == Cells::SharedGauge {
                value = Some(f64::from_bits(self.region().word(s.cells).load(Ordering::Acquire)));
            }
            Outcome::Applied
        });
        value.filter(|_| outcome == Outcome::Applied)
    }

    /// Adds `change`, of any sign, to a gauge. Refused when two finite numbers would make an infinite one.
    #[inline]
    pub fn shift(&self, s: &Series, change: f64) -> Outcome {
        self.guarded(s, || match s.kind {
            Cells::SlotGauge(_) => self.shift_lane(s, change),
            _ => match add_finite(self.region().word(s.cells), change) {
                true => Outcome::Applied,
                false => Outcome::Refused,
            },
        })
    }

    /// Counts the value `n` times in a histogram or summary: its bucket's count and sum change in one step.
    #[inline]
    pub fn observe(&self, s: &Series, value: f64, n: u64) -> Outcome {
        debug_assert!(agent_metric::bounds::is_observable(value));
        self.guarded(s, || {
            if let Cells::Summary { keeps } = s.kind {
                self.observe_summary(s, keeps, value, n);
                return Outcome::Applied;
            }
            match self.pair_of(s, value) {
                Ok(pair) => {
                    self.observe_pair(s, pair, n, if n == 1 { value } else { value * n as f64 });
                    Outcome::Applied
                }
                Err(outcome) => outcome,
            }
        })
    }

    /// The pair of the bucket in which a value is counted.
    ///
    /// # Errors
    /// [`Outcome::NoRoom`] without memory for the bucket; [`Outcome::Applied`] for what has no buckets.
    #[inline]
    pub(crate) fn pair_of(&self, s: &Series, value: f64) -> Result<u64, Outcome> {
        let own = s.own.get();
        Ok(match s.kind {
            Cells::Explicit => own + explicit_index(&s.bounds, value) as u64 * 16,
            Cells::Exponential { schema } => match octave::place(value, schema) {
                Place::Bucket { negative, octave, index } => {
                    self.bucket(s, negative, octave, index as u64, schema)?
                }
                Place::Zero => own + EXPONENTIAL_ZERO,
                Place::Over { negative: false } => own + EXPONENTIAL_OVER,
                Place::Over { negative: true } => own + EXPONENTIAL_UNDER,
            },
            Cells::Counter | Cells::SharedGauge | Cells::SlotGauge(_) | Cells::Summary { .. } => {
                return Err(Outcome::Applied);
            }
        })
    }

    /// Adds `n` values of that sum to a pair of the series.
    #[inline]
    pub(crate) fn observe_pair(&self, s: &Series, pair: u64, n: u64, total: f64) {
        self.stripe_if_hot(s, observe_sum(self.region().pair(pair), n, total));
    }

    /// Gives the series stripes when a count went over a multiple of 4096.
    #[inline]
    pub(crate) fn stripe_if_hot(&self, s: &Series, (old, new): (u64, u64)) {
        if (old ^ new) >> STRIPE_SHIFT != 0 {
            self.take_stripe(s);
        }
    }

    /// Where bucket `index` of an octave counts. The octave gets memory with its first value.
    ///
    /// # Errors
    /// [`Outcome::NoRoom`] when there is none: a value counted elsewhere would be wrong for ever.
    #[inline]
    pub(crate) fn bucket(
        &self,
        s: &Series,
        negative: bool,
        octave: usize,
        index: u64,
        schema: u8,
    ) -> Result<u64, Outcome> {
        match parts::octave_if_any(self.region(), s.own.get(), negative, octave) {
            Some(octave) => Ok(octave + index * 16),
            None => self.bucket_of_new_octave(s, negative, octave, index, schema),
        }
    }

    /// In the stripe of this writer, or else in the cells that all share.
    #[cold]
    fn bucket_of_new_octave(
        &self,
        s: &Series,
        negative: bool,
        octave: usize,
        index: u64,
        schema: u8,
    ) -> Result<u64, Outcome> {
        let of = |cells| self.claimer().octave(cells, negative, octave, schema);
        let body = of(s.own.get()).or_else(|_| of(s.cells)).map_err(|_| {
            self.region().word(WORD_REFUSED).fetch_add(1, Ordering::Relaxed);
            Outcome::NoRoom
        })?;
        Ok(body + index * 16)
    }

    /// Gives a hot series stripes, and this writer its own.
    #[cold]
    fn take_stripe(&self, s: &Series) {
        let shared = self.region().word(WORD_SLOTS_USED).load(Ordering::Relaxed) > 1;
        if s.own_of.get() == self.identity() || !shared {
            return;
        }
        let form = match s.kind {
            // With the part's header a line of its own.
            Cells::Counter => Form::cells(STRIPE_BYTES - PART_BODY),
            Cells::Summary { .. } => Form { pointers: 1, ..Form::cells(STRIPE_BYTES - PART_BODY) },
            Cells::Exponential { .. } => {
                Form { pointers: EXPONENTIAL_POINTERS, ..Form::cells(EXPONENTIAL_BYTES) }
            }
            Cells::Explicit => Form::cells((s.bounds.len() as u64 + 1) * 16),
            Cells::SharedGauge | Cells::SlotGauge(_) => return,
        };
        let stripe = u64::from(self.slot()) % STRIPES;
        let claimer = self.claimer();
        let own = claimer
            .part_or_new(s.entry + ENTRY_EXTRA, Form::pointers(STRIPES))
            .and_then(|stripes| claimer.part_or_new(stripes + stripe * 8, form));
        // Without memory for stripes the series goes on in the cells that it has.
        if let Ok(own) = own {
            s.own.set(own);
        }
        s.own_of.set(self.identity());
    }

    /// The state of a series' handle made anew: what [`Writer::series`] gives.
    pub(crate) fn handle(
        &self,
        block: u64,
        metric: MetricId,
        key_len: usize,
        shape: &OwnedShape,
        overflow: bool,
    ) -> Series {
        let state: State = crate::block::state(self.region(), block).with(LIVE, 0);
        let cells = entry::cells(block, key_len);
        let bounds: Arc<[f64]> = match shape {
            OwnedShape::Explicit(bounds) => bounds.as_slice().into(),
            _ => Arc::new([]),
        };
        let (own, own_of) = (Cell::new(cells), Cell::new(0));
        let (kind, word) = (Cells::of(shape), state.word());
        let _not_sync = core::marker::PhantomData;
        Series { entry: block, word, cells, own, own_of, kind, metric, overflow, bounds, _not_sync }
    }
}
