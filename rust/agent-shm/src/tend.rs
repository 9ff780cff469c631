//! Tending: giving memory back, and letting idle series go.
//!
//! One process tends at a time, under a kernel lock that its death releases; everybody else goes on. A pass looks at the
//! state word of every block and moves each one step along (`block.rs` has the picture):
//!
//! - `DEAD`: walked out of its chain, then `LIMBO` with the epoch of now;
//! - `LIMBO`, two epochs later: its parts are freed, then itself;
//! - `CLAIMED` by a dead writer: published when it hangs in its chain already, freed when not;
//! - `EXPIRING`, two epochs later: dead if its value is still the one that was idle, live again if not. A writer that
//!   comes meanwhile finds its handle stale, gets the series anew and thereby makes it live: nothing is lost to expiry.
//!
//! A pass reads every block's first line: 10 ms for 100,000 series. It runs only when something waits, and now and then
//! to find what kills have left.

use crate::block::{self, State, CLAIMED, CLAIMED_PART, DEAD, EXPIRING, FREE, LIMBO, LIVE};
use crate::census::Census;
use crate::entry::{self, Kind};
use crate::epoch;
use crate::guest;
use crate::layout::*;
use crate::metric::{self, MetricMeta};
use crate::parts;
use crate::series::SeriesId;
use crate::slot;
use crate::sync::Ordering;
use crate::view::Value;
use crate::writer::Writer;
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;

/// Lock byte of the process that tends.
const TEND_BYTE: i64 = slot::REPLACE_BYTE - 1;
/// A pass is made in every so manieth call even when nothing is known to wait.
const FORCED_EVERY: u32 = 64;

#[derive(Default)]
pub(crate) struct TendState {
    calls: Cell<u32>,
    lock: std::cell::OnceCell<Option<File>>,
}

/// What a call of [`Writer::tend`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tended {
    /// Whether a pass was made; without one nothing waited, or somebody else tends.
    pub passed: bool,
    pub freed: u64,
    /// Removed, waiting for their epochs.
    pub waiting: u64,
    /// Blocks that dead writers had claimed.
    pub recovered: u64,
}

impl Writer {
    /// Moves removed series and leftovers of dead writers towards reuse. Call it every second or so; it is cheap when
    /// there is nothing to do. Memory of a removed series is free after three calls.
    pub fn tend(&self) -> Tended {
        let calls = self.tend.calls.get();
        self.tend.calls.set(calls.wrapping_add(1));
        let waiting = self.region().word(WORD_PENDING).load(Ordering::Relaxed) > 0;
        if !waiting && calls % FORCED_EVERY != FORCED_EVERY - 1 {
            return Tended::default();
        }
        self.tend_now()
    }

    /// As [`Writer::tend`], but always makes a pass.
    pub fn tend_now(&self) -> Tended {
        if !self.take_tending() {
            return Tended::default();
        }
        let segment = self.segment();
        epoch::try_advance(self.region(), self.places(), |slot| segment.slot_is_alive(slot));
        let mut tended = Tended { passed: true, ..Tended::default() };
        let mut census = Census::new(self.region());
        for index in 0..block::pages_committed(self.region(), self.places()) {
            self.tend_page(index, &mut tended, &mut census);
        }
        census.settle();
        self.region().word(WORD_PENDING).store(tended.waiting, Ordering::Relaxed);
        self.give_tending_back();
        tended
    }

    fn tend_page(&self, index: u64, tended: &mut Tended, census: &mut Census<'_>) {
        let (region, places) = (self.region(), self.places());
        let Some(page) = block::page(region, places, index) else { return };
        let mut used = 0;
        for number in 0..blocks_in_page(page.class) {
            let block = places.page(index) + number * CLASSES[usize::from(page.class)];
            let state = block::state(region, block);
            match state.state {
                FREE => continue,
                DEAD => self.retire(block, state),
                LIMBO if self.free_when_due(block, state) => {
                    tended.freed += 1;
                    continue;
                }
                CLAIMED | CLAIMED_PART if self.is_abandoned(state.owner) => {
                    tended.recovered += u64::from(self.recover(block, state));
                }
                _ => {}
            }
            used += 1;
            let now = block::state(region, block);
            tended.waiting += u64::from(matches!(now.state, DEAD | LIMBO));
            census.visit(block, now);
        }
        block::recount(region, places, index, page, used);
    }

    /// `DEAD` to `LIMBO`: out of the chain for sure, then stamped with the epoch.
    fn retire(&self, block: u64, state: State) {
        let _guard = self.enter();
        if self.is_in_chain(block) {
            return;
        }
        self.stamp(block);
        block::shift(self.region(), block, state, state.with(LIMBO, 0));
    }

    fn is_in_chain(&self, block: u64) -> bool {
        let meta = entry::meta(self.region(), block);
        let mut key = Vec::new();
        let len = usize::from(meta.key_len).min(entry::KEY_BYTES_MAX);
        entry::read_bytes(self.region(), block + ENTRY_KEY, len, &mut key);
        let kind = if meta.is(Kind::Metric) { Kind::Metric } else { Kind::Series };
        self.map().holds(&self.map().key(kind, meta.metric, &key), block)
    }

    /// Writes the epoch of now into the upper half of `ENTRY_EXTRA`.
    fn stamp(&self, block: u64) {
        let epoch = self.epoch();
        let extra = self.region().word(block + ENTRY_EXTRA);
        let _ = extra.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            Some(word & 0xffff_ffff | epoch << 32)
        });
    }

    fn epoch(&self) -> u64 {
        self.region().word(WORD_EPOCH).load(Ordering::Acquire)
    }

    /// Whether `epoch` is late enough for what was stamped on `block`.
    fn is_past_grace(&self, block: u64, epoch: u64) -> bool {
        let stamped = self.region().word(block + ENTRY_EXTRA).load(Ordering::Acquire) >> 32;
        u64::from((epoch as u32).wrapping_sub(stamped as u32)) >= epoch::GRACE
    }

    fn free_when_due(&self, block: u64, state: State) -> bool {
        self.is_past_grace(block, self.epoch()) && self.free_entry(block, state)
    }

    /// Frees what hangs below a series, then the series.
    fn free_entry(&self, block: u64, state: State) -> bool {
        let (region, places) = (self.region(), self.places());
        let meta = entry::meta(region, block);
        parts::free_below(region, places, block + ENTRY_EXTRA, 1, 0);
        let payload = metric::payload(region, entry::offset(meta.metric));
        let code =
            payload.map_or(0, |p| region.word(p + METRIC_SHAPE).load(Ordering::Acquire) & 0xff);
        if code == 3 {
            let cells = entry::cells(block, meta.key_len.into());
            parts::free_below(region, places, cells, parts::EXPONENTIAL_POINTERS, 0);
        }
        block::free(region, places, block, state)
    }

    /// Whether nobody goes on filling in what was seen claimed for this slot. Blocks are claimed inside of operations
    /// only: no mark means that the operation is over, and then either the state has moved on, and the change that the
    /// caller is about to make fails, or the claim is of an owner who died before this one came.
    fn is_abandoned(&self, owner: u16) -> bool {
        let (region, places) = (self.region(), self.places());
        let is_outside = if u64::from(owner) == places.slots_max() {
            guest::is_nobody_inside(region, places)
        } else {
            region.word(places.slot(owner) + SLOT_ACTIVE).load(Ordering::Acquire) == 0
        };
        is_outside || !self.segment().slot_is_alive(owner)
    }

    /// A block whose owner died while filling it in.
    fn recover(&self, block: u64, state: State) -> bool {
        let _guard = self.enter();
        let region = self.region();
        let hangs = if state.state == CLAIMED {
            self.is_in_chain(block)
        } else {
            let link = (region.word(block + PART_LINK).load(Ordering::Acquire) >> 32) * 8;
            region.word(link).load(Ordering::Acquire) as u32 == entry::unit(block)
        };
        if hangs {
            block::publish(region, block);
            return true;
        }
        block::free(region, self.places(), block, state)
    }

    fn take_tending(&self) -> bool {
        if !self.region().is_shared() {
            let word = self.region().word(WORD_TENDING);
            return word.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok();
        }
        let lock = self.tend.lock.get_or_init(|| slot::open_again(self.region()).ok());
        lock.as_ref().is_some_and(|file| slot::try_lock(file, TEND_BYTE))
    }

    fn give_tending_back(&self) {
        if !self.region().is_shared() {
            self.region().word(WORD_TENDING).store(0, Ordering::Release);
        } else if let Some(Some(file)) = self.tend.lock.get() {
            slot::unlock(file, TEND_BYTE);
        }
    }
}

/// Finds series that have not changed for long. Lives in the one process that expires (the aggregator).
#[derive(Default)]
pub struct Expirer {
    seen: HashMap<SeriesId, (u64, u64)>,
}

impl Expirer {
    /// Lets series go whose value has been the same for `idle_ms`; `now_ms` is any clock that does not jump back.
    /// Gives how many died. To be followed by [`Writer::tend`]. Metrics that are not `mortal` keep their series.
    pub fn run(
        &mut self,
        writer: &Writer,
        now_ms: u64,
        idle_ms: u64,
        mortal: impl Fn(&MetricMeta) -> bool,
    ) -> u64 {
        // The epoch first: only a value read when the grace was over already can be the last one.
        let epoch = writer.epoch();
        let view = writer.segment().view();
        let mut seen = HashMap::with_capacity(self.seen.len());
        let mut expired = 0;
        for family in view.families().iter().filter(|family| mortal(family.meta())) {
            family.for_each(&mut |series| {
                let digest = digest(&series.value);
                let (old, since) = self.seen.get(&series.id).copied().unwrap_or((digest, now_ms));
                let since = if old == digest { since } else { now_ms };
                let idle = now_ms.saturating_sub(since) >= idle_ms;
                if idle && writer.expire_step(series.id, old == digest, epoch) {
                    expired += 1;
                } else {
                    seen.insert(series.id, (digest, since));
                }
            });
        }
        self.seen = seen;
        expired
    }
}

impl Writer {
    /// One step of an idle series towards its end; `true` when it died.
    fn expire_step(&self, id: SeriesId, unchanged: bool, epoch: u64) -> bool {
        let _guard = self.enter();
        let block = entry::offset(id.offset);
        let state = block::state(self.region(), block);
        if state.generation != id.generation {
            return false;
        }
        match state.state {
            LIVE => {
                self.stamp(block);
                block::shift(self.region(), block, state, state.with(EXPIRING, 0));
                false
            }
            EXPIRING if !unchanged => {
                block::publish(self.region(), block);
                false
            }
            // From exactly this state: whoever made it live again meanwhile is about to add.
            EXPIRING if self.is_past_grace(block, epoch) => self.kill(block, state),
            EXPIRING => {
                // Nothing else may be waiting: ask for epochs.
                self.region().word(WORD_PENDING).fetch_max(1, Ordering::Relaxed);
                false
            }
            _ => false,
        }
    }
}

/// A number that differs when the value does, up to accidents of 1 in 2^64.
fn digest(value: &Value<'_>) -> u64 {
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match value {
        Value::Counter { whole, fraction } => mix(mix(1, *whole), fraction.to_bits()),
        Value::Gauge(value) => mix(2, value.to_bits()),
        Value::GaugePerProcess(values) => values
            .iter()
            .fold(3, |hash, (pid, value)| mix(mix(hash, (*pid).into()), value.to_bits())),
        Value::Histogram { count, sum, .. } | Value::Summary { count, sum } => {
            mix(mix(4, *count), sum.to_bits())
        }
    }
}
