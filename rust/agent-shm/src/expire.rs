//! Expiry: letting go of series that nobody used for long.
//!
//! Every use of a series leaves the epoch in its entry (`Writer::holds`), a gauge that is set to the same value again
//! included. The expirer remembers which epoch was in force when, and so knows what was not used since. Such a series
//! is first `EXPIRING`, which a handle takes for removed; then every process executes a barrier; then the entry is
//! looked at again. A use that was under way has left its epoch by then and saves the series; one that comes later finds
//! the series expiring, gets it anew and thereby makes it live. So an increment that was applied is never lost to
//! expiry. Where the barrier cannot reach everybody (no `membarrier`), nothing expires while such a process lives.

use crate::block::{self, EXPIRING, LIVE};
use crate::entry::{self, OVERFLOW_LABELS};
use crate::epoch;
use crate::handle::SeriesId;
use crate::layout::*;
use crate::metric::MetricMeta;
use crate::sync::Ordering;
use crate::writer::Writer;
use std::collections::VecDeque;

/// Entries of the history for one `idle_ms`: how much later than asked a series may go, as a share of it.
const HISTORY: u64 = 64;

/// Finds series that were not used for long. Lives in the one process that expires (the aggregator).
#[derive(Default)]
pub struct Expirer {
    /// Epochs, each with the last time at which it was seen in force.
    history: VecDeque<(u64, u64)>,
}

impl Expirer {
    /// Lets series go that nobody used for `idle_ms`; `now_ms` is any clock that does not jump back. Gives how many
    /// died. To be followed by [`Writer::reclaim`]. Metrics that are not `mortal` keep their series.
    pub fn run(
        &mut self,
        writer: &Writer,
        now_ms: u64,
        idle_ms: u64,
        mortal: impl Fn(&MetricMeta) -> bool,
    ) -> u64 {
        self.remember(writer, now_ms, idle_ms);
        let Some(&(since, at)) = self.history.front() else { return 0 };
        if at.saturating_add(idle_ms) > now_ms {
            return 0;
        }
        let mut idle = Vec::new();
        let view = writer.view();
        for family in view.families().iter().filter(|family| mortal(family.meta())) {
            // Those without a value too: a gauge of living processes when none lives.
            let keeps_overflow = family.meta().overflows == 0;
            let may_go = |id: &SeriesId| {
                writer.is_idle(*id, since) && writer.begin_to_expire(*id, keeps_overflow)
            };
            idle.extend(family.ids().filter(may_go));
        }
        if idle.is_empty() {
            return 0;
        }
        let is_seen = epoch::everybody_barrier() || writer.everybody_fences();
        let died = |id: &&SeriesId| writer.end_expiry(**id, is_seen && writer.is_idle(**id, since));
        idle.iter().filter(died).count() as u64
    }

    fn remember(&mut self, writer: &Writer, now_ms: u64, idle_ms: u64) {
        writer.advance_epoch(&writer.liveness());
        let epoch = writer.epoch();
        let step = idle_ms / HISTORY;
        match self.history.back_mut() {
            Some(last) if last.0 == epoch || now_ms.saturating_sub(last.1) < step => {
                if last.0 == epoch {
                    last.1 = now_ms;
                }
            }
            _ => self.history.push_back((epoch, now_ms)),
        }
        let is_old = |entry: &(u64, u64)| entry.1.saturating_add(idle_ms) <= now_ms;
        while self.history.get(1).is_some_and(is_old) {
            self.history.pop_front();
        }
    }
}

impl Writer {
    /// Whether the series was not used in epoch `since` or later, nor can a use be under way.
    fn is_idle(&self, id: SeriesId, since: u64) -> bool {
        let extra = self.region().word(entry::offset(id.offset) + ENTRY_EXTRA);
        let used = (extra.load(Ordering::Acquire) >> 32) as u32;
        let age = |epoch: u64| (epoch as u32).wrapping_sub(used) as i32;
        age(since) > 0 && age(self.epoch()) >= epoch::GRACE as i32
    }

    fn begin_to_expire(&self, id: SeriesId, keeps_overflow: bool) -> bool {
        let _guard = self.enter();
        let block = entry::offset(id.offset);
        let state = block::state(self.region(), block);
        let is_overflow = || entry::key_is(self.region(), block, OVERFLOW_LABELS.as_bytes());
        match state.state {
            _ if state.generation != id.generation => false,
            _ if keeps_overflow && is_overflow() => false,
            LIVE => block::shift(self.region(), block, state, state.with(EXPIRING, 0)),
            // Of an expirer that was killed.
            EXPIRING => true,
            _ => false,
        }
    }

    /// From exactly this state: whoever made it live again meanwhile is about to add.
    fn end_expiry(&self, id: SeriesId, is_idle: bool) -> bool {
        let _guard = self.enter();
        let block = entry::offset(id.offset);
        let state = block::state(self.region(), block);
        if state.generation != id.generation || state.state != EXPIRING {
            return false;
        }
        if is_idle {
            return self.kill(block, state);
        }
        block::publish(self.region(), block);
        false
    }

    /// Whether every living writer executes barriers of its own.
    fn everybody_fences(&self) -> bool {
        let liveness = self.liveness();
        (0..self.segment().slots_used()).all(|index| {
            let slot = self.places().slot(index);
            let remote = self.region().word(slot + SLOT_REMOTE).load(Ordering::Acquire);
            remote == 0 || !liveness.slot_is_alive(index)
        })
    }
}
