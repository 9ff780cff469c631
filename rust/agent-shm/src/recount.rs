//! How many series there are, counted anew.
//!
//! The counts that the limits are compared with change one instruction after the series does: a writer killed in
//! between leaves them off by one. While a pass of `reclaim.rs` goes over all blocks it counts them, and puts right each
//! count that nobody changed meanwhile. A series that comes and goes during the pass may leave a count off by one until
//! the next: limits are sharp to within the writers at work, never adrift.

use crate::block::{State, PART};
use crate::entry::{self, Kind, OVERFLOW_LABELS};
use crate::layout::*;
use crate::metric;
use crate::region::Region;
use crate::sync::Ordering;
use std::collections::HashMap;

/// A count as it was when the pass came by first, and what the pass found.
#[derive(Clone, Copy)]
struct Count {
    before: u64,
    found: u64,
}

pub struct Recount<'a> {
    region: &'a Region,
    series: Count,
    metrics: Count,
    recent: Count,
    /// By the place of the count in the payload of a metric.
    of_metrics: HashMap<u64, Count>,
}

impl<'a> Recount<'a> {
    pub fn new(region: &'a Region) -> Recount<'a> {
        let count = |word| Count { before: region.word(word).load(Ordering::Acquire), found: 0 };
        let (series, metrics) = (count(WORD_SERIES), count(WORD_METRICS));
        let recent = count(WORD_RECENT);
        Recount { region, series, metrics, recent, of_metrics: HashMap::new() }
    }

    /// Takes in one block that is in use.
    pub fn visit(&mut self, block: u64, state: State) {
        if state.state == PART {
            let header = self.region.word(block + PART_LINK).load(Ordering::Acquire);
            self.recent.found += u64::from(header & PART_IS_RECENT != 0);
        }
        if !state.is_live() {
            return;
        }
        let meta = entry::meta(self.region, block);
        if meta.is(Kind::Metric) {
            self.metrics.found += 1;
            self.of_metric(block);
        } else if meta.is(Kind::Series)
            && !entry::key_is(self.region, block, OVERFLOW_LABELS.as_bytes())
        {
            self.series.found += 1;
            if let Some(count) = self.of_metric(entry::offset(meta.metric)) {
                count.found += 1;
            }
        }
    }

    fn of_metric(&mut self, block: u64) -> Option<&mut Count> {
        let word = metric::payload(self.region, block)? + METRIC_SERIES;
        let region = self.region;
        Some(self.of_metrics.entry(word).or_insert_with(|| Count {
            before: region.word(word).load(Ordering::Acquire),
            found: 0,
        }))
    }

    /// Puts the counts right.
    pub fn settle(self) {
        let of_all =
            [(WORD_SERIES, self.series), (WORD_METRICS, self.metrics), (WORD_RECENT, self.recent)];
        // In an order of their own, so that the same pass is the same steps.
        let mut of_metrics: Vec<_> = self.of_metrics.into_iter().collect();
        of_metrics.sort_by_key(|&(word, _)| word);
        for (word, Count { before, found }) in of_all.into_iter().chain(of_metrics) {
            if before != found {
                let word = self.region.word(word);
                let _ = word.compare_exchange(before, found, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}
