//! Removing series. A removed series is unreachable at once; its memory comes back by reclaim.rs.

use crate::block::{self, State};
use crate::entry::{self, Kind, OVERFLOW_LABELS};
use crate::layout::*;
use crate::map::Lookup;
use crate::metric::{self, MetricId};
use crate::sync::Ordering;
use crate::writer::Writer;

impl Writer {
    /// Removes one series; `false` when there was none. Increments that race with it may be lost with it.
    pub fn remove(&self, metric: MetricId, labels: &str) -> bool {
        let removed = {
            let _guard = self.enter();
            let key = self.map().key(Kind::Series, metric.unit, labels.as_bytes());
            match self.shape(metric).map(|_| self.map().find(&key)) {
                Ok(Lookup::Found(block)) => self.kill_now(block),
                _ => false,
            }
        };
        self.reclaim_if_due();
        removed
    }

    /// Removes every series of a metric; gives how many there were.
    pub fn clear(&self, metric: MetricId) -> usize {
        let (removed, overflowed) = {
            let _guard = self.enter();
            let Ok(shape) = self.shape(metric) else { return 0 };
            let overflows = self.region().word(shape.1 + METRIC_OVERFLOWS);
            let overflowed = overflows.load(Ordering::Relaxed) > 0;
            // The overflow series stays while nothing went there: later there may be no memory for it.
            (self.kill_series_of(&|unit| unit == metric.unit, !overflowed), overflowed)
        };
        if overflowed && !self.is_inside() {
            // A limit was reached: it must be there before the next one is, so make room for it.
            // Three passes free series, three more the pages that they leave.
            for _ in 0..6 {
                self.reclaim_now();
            }
            let _guard = self.enter();
            let _ = self.overflow_series(metric);
        }
        self.reclaim_if_due();
        removed
    }

    /// Removes every series of these metrics; gives how many there were. Inside an epoch.
    pub(crate) fn kill_series_of(
        &self,
        doomed: &dyn Fn(u32) -> bool,
        keep_overflow: bool,
    ) -> usize {
        let (region, places) = (self.region(), self.places());
        let mut removed = 0;
        for index in 0..block::pages_committed(region, places) {
            let Some(page) = block::page(region, places, index) else { continue };
            for block in block::blocks(places, index, page.class) {
                if !block::state(region, block).is_live() {
                    continue;
                }
                let meta = entry::meta(region, block);
                let is_kept =
                    keep_overflow && entry::key_is(region, block, OVERFLOW_LABELS.as_bytes());
                if meta.is(Kind::Series) && doomed(meta.metric) && !is_kept && self.kill_now(block)
                {
                    removed += 1;
                }
            }
        }
        removed
    }

    /// Declares a series dead, whether it is about to expire or not. Inside an epoch.
    fn kill_now(&self, block: u64) -> bool {
        // Twice at most changes the state under us without killing it: expiring, and live again.
        (0..8).any(|_| self.kill(block, block::state(self.region(), block)))
    }

    /// Declares a series dead if it is still in the state `state`. Inside an epoch.
    pub(crate) fn kill(&self, block: u64, state: State) -> bool {
        if !state.is_live()
            || !block::shift(self.region(), block, state, state.with(block::DEAD, 0))
        {
            return false;
        }
        self.region().word(WORD_REMOVED).fetch_add(1, Ordering::Relaxed);
        self.region().word(WORD_PENDING).fetch_add(1, Ordering::Relaxed);
        let meta = entry::meta(self.region(), block);
        let payload = metric::payload(self.region(), entry::offset(meta.metric));
        if entry::key_is(self.region(), block, OVERFLOW_LABELS.as_bytes()) {
            if let Some(payload) = payload {
                self.region().word(payload + METRIC_OVERFLOWS).store(0, Ordering::Relaxed);
            }
        } else {
            self.count_off(WORD_SERIES);
            if let Some(payload) = payload {
                self.count_off(payload + METRIC_SERIES);
            }
        }
        self.unlink(block);
        true
    }

    /// Declares a metric without series dead. Inside an epoch.
    pub(crate) fn kill_metric(&self, block: u64) -> bool {
        let state = block::state(self.region(), block);
        let dead = state.with(block::DEAD, 0);
        if state.state != block::LIVE || !block::shift(self.region(), block, state, dead) {
            return false;
        }
        self.region().word(WORD_PENDING).fetch_add(1, Ordering::Relaxed);
        self.count_off(WORD_METRICS);
        self.unlink(block);
        true
    }

    /// Takes a dead entry out of its chain, by the walk over it. Gives whether it was not there any more before.
    pub(crate) fn unlink(&self, block: u64) -> bool {
        let meta = entry::meta(self.region(), block);
        let mut key = Vec::new();
        let len = usize::from(meta.key_len).min(entry::KEY_BYTES_MAX);
        entry::read_bytes(self.region(), block + ENTRY_KEY, len, &mut key);
        let kind = if meta.is(Kind::Metric) { Kind::Metric } else { Kind::Series };
        !self.map().holds(&self.map().key(kind, meta.metric, &key), block)
    }

    fn count_off(&self, word: u64) {
        let word = self.region().word(word);
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
}
