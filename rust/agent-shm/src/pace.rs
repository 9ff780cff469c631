//! When a writer makes a pass of reclaiming: decided from what waits, without a look at any block.

use std::cell::Cell;

/// One of so many calls of `reclaim` makes a pass even when nothing is known to wait.
const FORCED_EVERY: u32 = 64;
/// A writer makes a pass when so much more waits than after the last one, and a quarter of what lives.
const DUE_MIN: u64 = 256;
/// It makes one after so many label sets without memory, when something waits; while somebody holds up the epoch, at
/// most one a second, and at most so small a share of its time.
const MISSED_MIN: u64 = 64;
const HELD_UP_MS: u64 = 1000;
const HELD_UP_SHARE: u64 = 20;
/// No pause is longer: a clock that was set back must not stop a writer. Between two passes for the sake of a count it is
/// so long, since every process that is at its limit makes them.
const PAUSE_MS_MAX: u64 = 60_000;

#[derive(Default)]
pub struct Pace {
    calls: Cell<u32>,
    /// What waited after the last pass of this writer.
    left: Cell<u64>,
    /// Label sets that found no memory since the last pass.
    missed: Cell<u64>,
    /// When a pass for their sake is worth its time again: after one that found the epoch held up.
    not_before_ms: Cell<u64>,
    /// A count said that there is room for no more, and a pass counts anew.
    is_refused: Cell<bool>,
    /// When a pass for its sake is worth its time again.
    no_count_before_ms: Cell<u64>,
    /// Others do it by the clock.
    by_others: Cell<bool>,
}

impl Pace {
    pub fn leave_to_others(&self) {
        self.by_others.set(true);
    }

    /// There was no memory for a label set.
    pub fn miss(&self) {
        self.missed.set(self.missed.get() + 1);
    }

    /// A count of series or metrics is at its limit. It may be damaged; then nothing else would ever ask for a pass.
    pub fn refuse(&self) {
        self.is_refused.set(true);
    }

    /// Whether this writer makes a pass now: `waiting` blocks want one, `series` live, and somebody may have died inside
    /// an operation.
    pub fn is_due(
        &self,
        waiting: u64,
        series: u64,
        is_left_inside: bool,
        now_ms: impl Fn() -> u64,
    ) -> bool {
        let is_much = waiting > self.left.get() + DUE_MIN.max(series / 4);
        let is_missed = || {
            waiting > 0 && self.missed.get() > MISSED_MIN && is_time(&self.not_before_ms, now_ms())
        };
        let is_refused = || self.is_refused.get() && is_time(&self.no_count_before_ms, now_ms());
        !self.by_others.get() && (is_much || is_missed() || is_left_inside || is_refused())
    }

    /// Counts a call by the clock; gives whether it makes a pass although nothing waits.
    pub fn is_forced(&self) -> bool {
        let calls = self.calls.get();
        self.calls.set(calls.wrapping_add(1));
        calls % FORCED_EVERY == FORCED_EVERY - 1
    }

    /// Whether this writer makes the pass or somebody else is at it: not again for what waits now.
    pub fn begin(&self, waiting: u64, now_ms: u64) {
        self.left.set(waiting);
        // Whoever makes the pass counts.
        if self.is_refused.take() {
            self.no_count_before_ms.set(now_ms + PAUSE_MS_MAX);
        }
    }

    /// A pass is over that took so long and left so much.
    pub fn end(&self, waiting: u64, is_held_up: bool, took_ms: u64, now_ms: u64) {
        self.left.set(waiting);
        self.missed.set(0);
        let pause = HELD_UP_MS.max(took_ms * HELD_UP_SHARE).min(PAUSE_MS_MAX);
        self.not_before_ms.set(if is_held_up { now_ms + pause } else { 0 });
    }
}

fn is_time(not_before_ms: &Cell<u64>, now_ms: u64) -> bool {
    let wait = not_before_ms.get().saturating_sub(now_ms);
    wait == 0 || wait > PAUSE_MS_MAX
}
