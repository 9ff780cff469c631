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

use crate::block::{self, State, CLAIMED, CLAIMED_PART, DEAD, FREE, LIMBO, PART};
use crate::clock::now_unix_ms;
use crate::entry::{self, Kind};
use crate::epoch;
use crate::layout::*;
use crate::metric;
use crate::page::{PageWord, Phase};
use crate::parts;
use crate::recount::Recount;
use crate::slot::Liveness;
use crate::sync::Ordering;
use crate::writer::Writer;
use std::collections::HashSet;

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
            removed_metrics: Vec::new(),
            owners: HashSet::new(),
            lowest_free: None,
        };
        for index in 0..block::pages_committed(self.region(), self.places()) {
            pass.page(index);
        }
        pass.free_metrics();
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
            return liveness.try_lock(LOCK_RECLAIM);
        }
        let word = self.region().word(WORD_RECLAIMING);
        let own = u64::from(self.slot()) + 1;
        word.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn unlock(&self, liveness: &Liveness<'_>) {
        match self.region().is_shared() {
            true => liveness.unlock(LOCK_RECLAIM),
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
    /// Metrics that may be freed, unless a series of theirs is still there: what hangs below its cells, its metric says.
    removed_metrics: Vec<(u64, State)>,
    /// The metrics of all series that are there, in whatever state.
    owners: HashSet<u32>,
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
            LIMBO if !writer.is_past_grace(block) => {}
            LIMBO if entry::meta(region, block).is(Kind::Metric) => {
                self.removed_metrics.push((block, state));
            }
            LIMBO if writer.free_entry(block, state) => {
                self.reclaimed.freed += 1;
                return false;
            }
            PART if self.free_orphan(block, state) => return false,
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
        if !matches!(now.state, FREE | PART | CLAIMED_PART) {
            let meta = entry::meta(region, block);
            if meta.is(Kind::Series) {
                self.owners.insert(meta.metric);
            }
        }
        now.state != FREE
    }

    fn free_metrics(&mut self) {
        for (block, state) in std::mem::take(&mut self.removed_metrics) {
            if !self.owners.contains(&entry::unit(block)) && self.writer.free_entry(block, state) {
                self.reclaimed.freed += 1;
                self.reclaimed.waiting = self.reclaimed.waiting.saturating_sub(1);
            }
        }
    }

    /// A part to which nothing leads: what it hung below was freed without it.
    fn free_orphan(&self, block: u64, state: State) -> bool {
        let (region, places) = (self.writer.region(), self.writer.places());
        let header = region.word(block + PART_LINK).load(Ordering::Acquire);
        let link = (header >> 32) * 8;
        // Without a link it is half freed, and `free_below` finds it again.
        if link < places.blocks
            || region.word(link).load(Ordering::Acquire) as u32 == entry::unit(block)
        {
            return false;
        }
        parts::free_below(region, places, block + PART_BODY, header & 0xffff, 0);
        parts::free_part(region, places, block, state, header)
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
        // Its owner may have finished it before we asked for him, and others may use it by now.
        if block::state(region, block) != state {
            return false;
        }
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

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use crate::handle::Outcome;
    use crate::inner::Inner;
    use crate::map::Lookup;
    use crate::metric::MetricSpec;
    use crate::segment::Segment;
    use agent_metric::{GaugeMode, Shape};

    fn spec<'a>(name: &'a str, shape: Shape<'a>) -> MetricSpec<'a> {
        MetricSpec { name, help: "", unit: "", shape }
    }

    fn applied(outcome: Outcome) {
        assert_eq!(outcome, Outcome::Applied);
    }

    fn pass<'a>(writer: &'a Writer, liveness: &'a Liveness<'a>) -> Pass<'a> {
        Pass {
            writer,
            liveness,
            reclaimed: Reclaimed::default(),
            recount: Recount::new(writer.region()),
            metrics: Vec::new(),
            removed_metrics: Vec::new(),
            owners: HashSet::new(),
            lowest_free: None,
        }
    }

    /// The reclaimer sees a claim, stops, and goes on when the claim has become a series that somebody uses.
    #[test]
    fn what_was_claimed_and_is_in_use_by_now_keeps_what_hangs_below_it() {
        let segment = Segment::private("t", &Options::default());
        let [maker, user, reclaimer] = [0; 3].map(|_| segment.writer().unwrap());
        let metric = maker.metric(&spec("g", Shape::Gauge(GaugeMode::LiveSum))).unwrap();
        let (labels, bytes) = (b"k=\"v\"", entry::cells(0, 5) + 64);
        let guard = maker.enter();
        let key = maker.map().key(Kind::Series, metric.unit, labels);
        let Lookup::Missing(head) = maker.map().find(&key) else { panic!("it is there") };
        let purpose = block::Purpose { state: CLAIMED, what: "series" };
        let block = maker.claimer().claim(bytes, purpose).unwrap();
        let meta = entry::Meta::new(Kind::Series, metric.unit, labels);
        entry::write(maker.region(), block, meta, labels, now_unix_ms());
        let liveness = reclaimer.liveness();
        let seen = block::state(reclaimer.region(), block);
        assert!(maker.map().insert(&key, block, head));
        block::publish(maker.region(), block);
        drop(guard);
        let series = user.series(metric, "k=\"v\"").unwrap();
        applied(user.set(&series, 1.0));
        let part =
            entry::offset(user.region().word(block + ENTRY_EXTRA).load(Ordering::Acquire) as u32);
        let _inside = user.enter();
        assert!(maker.remove(metric, "k=\"v\""));
        let pass = pass(&reclaimer, &liveness);
        assert!(pass.is_abandoned(seen.owner));
        assert!(!pass.recover(block, seen));
        assert_eq!(block::state(user.region(), part).state, PART, "somebody is inside");
    }

    /// Metric and series come out of their grace together; who gets the metric's memory then must not matter.
    #[test]
    fn what_hangs_below_series_is_freed_with_them_whatever_becomes_of_their_metric() {
        let segment = Segment::private("t", &Options::default());
        let [writer, other] = [0; 2].map(|_| segment.writer().unwrap());
        let shape = Shape::Summary(&[0.5]);
        let old = writer.family(&spec("s", shape), "k", 0).unwrap();
        for n in 0..100 {
            let series = writer.series(old.id, &format!("k=\"{n}\"")).unwrap();
            applied(writer.observe(&series, 1.0, 1));
        }
        let metric = entry::offset(old.id.unit);
        let changed = segment.writer().unwrap();
        changed.family(&spec("s", Shape::Summary(&[0.9])), "k", 0).unwrap();
        drop(changed);
        assert_ne!(writer.family(&spec("s", shape), "k", 0).unwrap().id, old.id, "begun anew");
        let is_free = || block::state(writer.region(), metric).state == FREE;
        for _ in 0..40 {
            let liveness = writer.liveness();
            writer.advance_epoch(&liveness);
            let mut pass = pass(&writer, &liveness);
            let pages = block::pages_committed(writer.region(), writer.places());
            // Killed as soon as the metric's memory is free.
            let is_killed = (0..pages).any(|index| {
                pass.page(index);
                is_free()
            });
            if !is_killed {
                pass.free_metrics();
                let metrics = std::mem::take(&mut pass.metrics);
                let _guard = writer.enter();
                writer.retire_families(&metrics, now_unix_ms());
            }
            if is_free() {
                break;
            }
        }
        for name in ["a", "b", "c", "d"] {
            other.family(&spec(name, Shape::Explicit(&[0.5])), "k", 0).unwrap();
        }
        assert!(!is_free(), "somebody has got it");
        for _ in 0..8 {
            writer.reclaim_now();
        }
        assert_eq!(segment.audit().faults, [""; 0]);
    }

    /// With it, not when its memory is used again: that others in its page live on must not matter.
    #[test]
    fn what_hangs_below_a_series_is_freed_with_it() {
        let segment = Segment::private("t", &Options::default());
        let writer = segment.writer().unwrap();
        for shape in [Shape::Exponential { schema: 3 }, Shape::Summary(&[0.5])] {
            let metric = writer.metric(&spec(&shape.told(), shape)).unwrap();
            for labels in ["k=\"stays\"", "k=\"goes\""] {
                let series = writer.series(metric, labels).unwrap();
                applied(writer.observe(&series, 1.0, 1));
            }
            assert!(writer.remove(metric, "k=\"goes\""));
            let freed: u64 = (0..3).map(|_| writer.reclaim_now().freed).sum();
            assert_eq!((freed, segment.audit().faults), (1, vec![]), "{shape:?}");
        }
    }

    #[test]
    fn what_an_owner_left_inside_of_an_operation_is_recovered_by_the_next_call_of_the_next_one() {
        let segment = Segment::private("t", &Options::default());
        let killed = segment.writer().unwrap();
        let metric = killed.metric(&spec("c", Shape::Counter)).unwrap();
        let slot = killed.slot();
        std::mem::forget(killed.enter());
        let purpose = block::Purpose { state: CLAIMED, what: "series" };
        let block = killed.claimer().claim(512, purpose).unwrap();
        std::mem::forget(killed);
        let Inner { region, places, .. } = &*segment.inner;
        // What the kernel does with the lock of a file.
        region.word(places.slot(slot) + SLOT_CLAIMED).store(0, Ordering::Release);
        let next = segment.writer().unwrap();
        assert_eq!(next.slot(), slot);
        next.series(metric, "").unwrap();
        assert_eq!(block::state(region, block).state, FREE);
    }

    #[test]
    fn a_part_to_which_nothing_leads_is_freed() {
        let segment = Segment::private("t", &Options::default());
        let writer = segment.writer().unwrap();
        let metric = writer.metric(&spec("g", Shape::Gauge(GaugeMode::LiveSum))).unwrap();
        let series = writer.series(metric, "").unwrap();
        applied(writer.set(&series, 1.0));
        // Its entry lost it, as in files that an earlier version left behind.
        writer.region().word(series.entry + ENTRY_EXTRA).fetch_and(!0xffff_ffff, Ordering::AcqRel);
        assert!(!segment.audit().faults.is_empty());
        for _ in 0..4 {
            writer.reclaim_now();
        }
        assert_eq!(segment.audit().faults, [""; 0]);
    }
}
