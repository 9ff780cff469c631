//! Changing what this process says of a gauge; see lane.rs for how it stands there.

use crate::cells::Cells;
use crate::clock;
use crate::handle::{Outcome, Series};
use crate::lane::{fold, folds, lane_value, own_pair, to_lane};
use crate::layout::*;
use crate::sync::{overflows, Ordering};
use crate::writer::Writer;
use agent_metric::{GaugeMode, Reduction};
use std::cell::Cell;

/// An addition that does not make an infinite number of two finite ones.
struct Shift {
    change: f64,
    is_refused: Cell<bool>,
}

impl Shift {
    fn new(change: f64) -> Shift {
        Shift { change, is_refused: Cell::new(false) }
    }

    fn of(&self, old: Option<f64>) -> f64 {
        let old = old.unwrap_or(0.0);
        self.is_refused.set(overflows(old, self.change));
        if self.is_refused.get() {
            old
        } else {
            old + self.change
        }
    }

    fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.is_refused.get() {
            Outcome::Refused
        } else {
            outcome
        }
    }
}

impl Writer {
    /// Changes this process's value of a per-process gauge; `change` gets the value now, if there is one.
    pub(crate) fn change_lane(&self, s: &Series, change: impl Fn(Option<f64>) -> f64) -> Outcome {
        let Cells::SlotGauge(mode) = s.kind else { return Outcome::Applied };
        if !self.has_lane(s, mode) {
            return Outcome::NoRoom;
        }
        let own = s.own.get();
        if folds(mode) {
            self.region().pair(own).update(|retired, value| {
                let value = change(lane_value(value));
                (retired, to_lane(value))
            });
            return Outcome::Applied;
        }
        self.change_own(own + own_pair(mode, self.generation()), &change);
        if mode.reduction() == Reduction::Latest {
            self.region().word(own + LANE_TIME).store(self.next_time(), Ordering::Release);
        }
        Outcome::Applied
    }

    /// Later than every stamp before it in this segment, whatever the clock does: the time, or the last one and 1.
    fn next_time(&self) -> u64 {
        let (latest, now) = (self.region().word(WORD_LATEST), clock::now_unix_ns());
        match latest.fetch_max(now, Ordering::AcqRel) < now {
            true => now,
            // Not 0 even when somebody damaged the word.
            false => latest.fetch_add(1, Ordering::AcqRel).wrapping_add(1).max(1),
        }
    }

    /// Adds `change` to what this process says.
    pub(crate) fn shift_lane(&self, s: &Series, change: f64) -> Outcome {
        let shift = Shift::new(change);
        let outcome = self.change_lane(s, |old| shift.of(old));
        shift.outcome(outcome)
    }

    /// Adds `change` to what this process holds of a gauge that all share.
    pub fn hold(&self, s: &Series, change: f64) -> Outcome {
        self.guarded(s, || match s.kind {
            Cells::SlotGauge(_) => self.shift_lane(s, change),
            Cells::SharedGauge => {
                if !self.has_lane(s, GaugeMode::MostRecent) {
                    return Outcome::NoRoom;
                }
                let shift = Shift::new(change);
                self.change_own(s.own.get(), &|old| shift.of(old));
                shift.outcome(Outcome::Applied)
            }
            _ => Outcome::Applied,
        })
    }

    /// Gives back `amount` of what this process holds: of a gauge that all share never more than that, and nothing where
    /// this process said nothing.
    pub fn release(&self, s: &Series, amount: f64) -> Outcome {
        self.guarded(s, || {
            if matches!(s.kind, Cells::SlotGauge(_)) {
                return self.change_lane(s, |old| old.map_or(0.0, |old| old - amount));
            }
            if s.kind != Cells::SharedGauge {
                return Outcome::Applied;
            }
            if !self.has_lane(s, GaugeMode::MostRecent) {
                return Outcome::NoRoom;
            }
            self.change_own(s.own.get(), &|old| old.map_or(0.0, |old| (old - amount).max(0.0)));
            Outcome::Applied
        })
    }

    fn change_own(&self, pair: u64, change: &dyn Fn(Option<f64>) -> f64) {
        let who = u64::from(std::process::id()) << 32 | self.generation() & 0xffff_ffff;
        self.region().pair(pair).update(|owner, value| {
            let old = if owner == who { lane_value(value) } else { None };
            (who, to_lane(change(old)))
        });
    }

    /// Whether this slot has a lane in the series, which is made now if there is none. A refusal is counted.
    #[inline]
    fn has_lane(&self, s: &Series, mode: GaugeMode) -> bool {
        s.own_of.get() == self.identity() || self.take_lane(s, mode)
    }

    /// Finds or makes the lane of this slot.
    #[cold]
    fn take_lane(&self, s: &Series, mode: GaugeMode) -> bool {
        let Ok(lane) = self.claimer().lane(s.entry + ENTRY_EXTRA, self.slot(), LANE_BYTES) else {
            self.region().word(WORD_REFUSED).fetch_add(1, Ordering::Relaxed);
            return false;
        };
        if folds(mode) {
            let generation = self.region().word(lane + LANE_GENERATION);
            if generation.load(Ordering::Acquire) != self.generation() {
                self.region().pair(lane).update(|retired, value| (fold(mode, retired, value), 0));
                generation.store(self.generation(), Ordering::Release);
            }
        }
        s.own.set(lane);
        s.own_of.set(self.identity());
        true
    }
}
