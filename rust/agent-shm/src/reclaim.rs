//! Reclaiming: giving memory back.
//!
//! One process reclaims at a time, under a kernel lock that its death releases; everybody else goes on. A pass looks at
//! the state word of every block and moves each one step along (`block.rs` has the picture):
//!
//! - `DEAD`: walked out of its chain, then `LIMBO` with the epoch of now;
//! - `LIMBO`, two epochs later: its parts are freed, then itself;
//! - `CLAIMED` by a dead writer: published when it hangs in its chain already, freed when not;
//! - a page without a block in use loses its class, and with that can take blocks of any size.
//!
//! Who makes a pass: whoever makes or removes series, when a quarter as much waits as lives, and 256 at least; so its
//! cost is spread over the removals, a few blocks for each, and a segment is at most about twice what lives in it. A
//! collector does it by the clock, in its own segment. A pass reads every block's first line: 10 ms for 100,000 series.
//!
//! A writer that is stopped inside an operation holds up reuse until it goes on; then limits and the overflow series
//! bound what that costs.

use crate::block::{self, State, CLAIMED, CLAIMED_PART, DEAD, FREE, LIMBO};
use crate::clock::now_unix_ms;
use crate::entry::{self, Kind};
use crate::epoch;
use crate::layout::*;
use crate::lock;
use crate::metric;
use crate::page::{PageWord, Phase};
use crate::parts;
use crate::recount::Recount;
use crate::slot::Liveness;
use crate::sync::Ordering;
use crate::writer::Writer;

/// What a call of [`Writer::reclaim`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Whether a pass was made; without one nothing waited, or somebody else reclaims.
    pub passed: bool,
    pub freed: u64,
    /// Removed, waiting for their epochs.
    pub waiting: u64,
    /// Blocks that dead writers had claimed.
    pub recovered: u64,
    /// Pages that can take blocks of any size again, and that are on their way to it.
    pub pages: u64,
    pub pages_waiting: u64,
}

impl Writer {
    /// Leaves passes to somebody who makes them by the clock: for writers that must not stop for one.
    pub fn leave_reclaiming_to_others(&self) {
        self.pace.leave_to_others();
    }

    /// A pass, when enough waits for it. Outside of protected sections only: inside, no epoch can pass.
    pub(crate) fn reclaim_if_due(&self) {
        let word = |offset| self.region().word(offset).load(Ordering::Relaxed);
        let (waiting, series) = (word(WORD_PENDING), word(WORD_SERIES));
        let is_left_inside = word(WORD_LEFT_INSIDE) != 0;
        if self.pace.is_due(waiting, series, is_left_inside, now_unix_ms) && !self.is_inside() {
            self.reclaim_now();
        }
    }

    /// Moves removed series and leftovers of dead writers towards reuse. Call it every second or so; it is cheap when
    /// there is nothing to do. Memory of a removed series is free after three passes.
    pub fn reclaim(&self) -> Reclaimed {
        let waiting = self.region().word(WORD_PENDING).load(Ordering::Relaxed) > 0;
        if !self.pace.is_forced() && !waiting {
            return Reclaimed::default();
        }
        self.reclaim_now()
    }

    /// As [`Writer::reclaim`], but always makes a pass.
    #[cold]
    pub fn reclaim_now(&self) -> Reclaimed {
        let liveness = self.liveness();
        let waiting = self.region().word(WORD_PENDING).load(Ordering::Relaxed);
        self.pace.begin(waiting, now_unix_ms());
        if !self.lock(&liveness) {
            return Reclaimed::default();
        }
        self.region().word(WORD_LEFT_INSIDE).store(0, Ordering::Relaxed);
        let (began, before) = (now_unix_ms(), self.epoch());
        self.advance_epoch(&liveness);
        let is_held_up = self.epoch() == before;
        let reclaimed = self.pass(&liveness);
        let waiting = reclaimed.waiting + reclaimed.pages_waiting;
        self.region().word(WORD_PENDING).store(waiting, Ordering::Relaxed);
        let now = now_unix_ms();
        self.pace.end(waiting, is_held_up, now.saturating_sub(began), now);
        self.unlock(&liveness);
        reclaimed
    }

    fn pass(&self, liveness: &Liveness<'_>) -> Reclaimed {
        let mut pass = Pass {
            writer: self,
            liveness,
            reclaimed: Reclaimed { passed: true, ..Reclaimed::default() },
            recount: Recount::new(self.region()),
            metrics: Vec::new(),
            lowest_free: None,
        };
        for index in 0..block::pages_committed(self.region(), self.places()) {
            pass.page(index);
        }
        let Pass { mut reclaimed, recount, metrics, lowest_free, .. } = pass;
        recount.settle();
        if let Some(index) = lowest_free {
            block::offer_pages(self.region(), index);
        }
        let _guard = self.enter();
        reclaimed.waiting += u64::from(self.retire_families(&metrics, now_unix_ms()));
        reclaimed
    }

    pub(crate) fn advance_epoch(&self, liveness: &Liveness<'_>) {
        epoch::try_advance(self.region(), self.places(), |slot| liveness.slot_is_alive(slot));
    }

    /// Writes down the epoch of now: that in which something was seen to be over. Only the one who reclaims stamps, and
    /// what has a stamp has no other use for the word.
    pub(crate) fn stamp(&self, block: u64) {
        self.region().word(block + ENTRY_STAMP).store(self.epoch(), Ordering::Release);
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.region().word(WORD_EPOCH).load(Ordering::Acquire)
    }

    /// Whether it is late enough for what was stamped on `block`.
    pub(crate) fn is_past_grace(&self, block: u64) -> bool {
        let stamped = self.region().word(block + ENTRY_STAMP).load(Ordering::Acquire);
        self.epoch().wrapping_sub(stamped) >= epoch::GRACE
    }

    /// Frees what hangs below an entry, then the entry.
    fn free_entry(&self, block: u64, state: State) -> bool {
        let (region, places) = (self.region(), self.places());
        let meta = entry::meta(region, block);
        parts::free_below(region, places, block + ENTRY_EXTRA, 1, 0);
        let payload = match meta.is(Kind::Series) {
            true => metric::payload(region, entry::offset(meta.metric)),
            false => None,
        };
        let pointers = payload.map_or(0, |payload| {
            metric::cell_pointers(region.word(payload + METRIC_SHAPE).load(Ordering::Acquire))
        });
        let cells = entry::cells(block, meta.key_len.into());
        parts::free_below(region, places, cells, pointers, 0);
        block::free(region, places, block, state)
    }

    fn lock(&self, liveness: &Liveness<'_>) -> bool {
        if self.region().is_shared() {
            return liveness.try_lock(lock::RECLAIM);
        }
        let word = self.region().word(WORD_RECLAIMING);
        let own = u64::from(self.slot()) + 1;
        word.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn unlock(&self, liveness: &Liveness<'_>) {
        match self.region().is_shared() {
            true => liveness.unlock(lock::RECLAIM),
            false => self.region().word(WORD_RECLAIMING).store(0, Ordering::Release),
        }
    }
}

struct Pass<'a> {
    writer: &'a Writer,
    liveness: &'a Liveness<'a>,
    reclaimed: Reclaimed,
    recount: Recount<'a>,
    metrics: Vec<u64>,
    /// The first page without a class that others may not know of.
    lowest_free: Option<u64>,
}

impl Pass<'_> {
    fn page(&mut self, index: u64) {
        let (region, places) = (self.writer.region(), self.writer.places());
        let page = match block::page_word_of(region, places, index) {
            PageWord::Class(page) => page,
            PageWord::NoClass => {
                self.lowest_free = self.lowest_free.or(Some(index));
                return;
            }
            PageWord::Damaged => return,
        };
        let mut used = 0;
        for block in block::blocks(places, index, page.class) {
            used += u64::from(self.block(block));
        }
        block::recount(region, places, index, page, used);
        if used < blocks_in_page(page.class) {
            block::has_room(region, page.class, index);
        }
        if used == 0 || page.phase != Phase::InUse {
            let _guard = self.writer.enter();
            let Some(page) = block::page(region, places, index) else { return };
            let is_free = block::retire_page(region, places, index, page, self.writer.epoch());
            self.reclaimed.pages += u64::from(is_free);
            // Nothing else may be waiting: ask for epochs.
            self.reclaimed.pages_waiting += u64::from(!is_free && used == 0);
        }
    }

    /// One step of one block; gives whether it is in use.
    fn block(&mut self, block: u64) -> bool {
        let (writer, region) = (self.writer, self.writer.region());
        let state = block::state(region, block);
        match state.state {
            FREE => return false,
            DEAD => self.retire(block, state),
            LIMBO if writer.is_past_grace(block) && writer.free_entry(block, state) => {
                self.reclaimed.freed += 1;
                return false;
            }
            CLAIMED | CLAIMED_PART if self.is_abandoned(state.owner) => {
                self.reclaimed.recovered += u64::from(self.recover(block, state));
            }
            _ => {}
        }
        let now = block::state(region, block);
        self.reclaimed.waiting += u64::from(matches!(now.state, DEAD | LIMBO));
        self.recount.visit(block, now);
        if metric::is_metric(region, block) {
            self.metrics.push(block);
        }
        now.state != FREE
    }

    /// `DEAD` to `LIMBO`: out of the chain for sure, then stamped with the epoch.
    fn retire(&self, block: u64, state: State) {
        let _guard = self.writer.enter();
        if self.writer.unlink(block) {
            self.writer.stamp(block);
            block::shift(self.writer.region(), block, state, state.with(LIMBO, 0));
        }
    }

    /// True when the owner of a block that was seen claimed has died or finished. Blocks are claimed inside of operations
    /// only: no mark means that the operation is over. Then either the state has moved on, and the caller's change fails,
    /// or the claim is of an owner who died before this one came.
    fn is_abandoned(&self, owner: u16) -> bool {
        let slot = self.writer.places().slot(owner);
        let active = self.writer.region().word(slot + SLOT_ACTIVE).load(Ordering::Acquire);
        active == 0 || !self.liveness.slot_is_alive(owner)
    }

    /// A block whose owner died while filling it in.
    fn recover(&self, block: u64, state: State) -> bool {
        let _guard = self.writer.enter();
        let region = self.writer.region();
        let hangs = if state.state == CLAIMED {
            !self.writer.unlink(block)
        } else {
            let link = (region.word(block + PART_LINK).load(Ordering::Acquire) >> 32) * 8;
            // One that was not linked yet has none.
            link != 0 && region.word(link).load(Ordering::Acquire) as u32 == entry::unit(block)
        };
        if hangs {
            block::publish(region, block);
            return true;
        }
        if state.state == CLAIMED {
            // Who uses a family is noted below it before anybody can find it: that goes with it.
            parts::free_below(region, self.writer.places(), block + ENTRY_EXTRA, 1, 0);
        }
        block::free(region, self.writer.places(), block, state)
    }
}
