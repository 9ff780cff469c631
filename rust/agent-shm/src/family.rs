//! Definitions that change: of one name there may be several metrics, and one of them counts.
//!
//! A program is changed and started again: other buckets, labels, type. Its *family* then begins anew, alone: a metric
//! with the new definition hangs beside the old one in the same chain, old and new processes write side by side, and a
//! page shows the one whose definition appeared last (`METRIC_BIRTH`), to everybody. What the others go on counting is
//! kept apart. Nothing else of the segment is touched.
//!
//! When a definition comes back that is not the one that counts, it is one of two things:
//!
//! | who comes | what it gets |
//! |---|---|
//! | an old process, or one that replaces an old one, while new ones live | the old metric, not shown |
//! | a program that was rolled back | a new metric, at zero, which counts from now on |
//!
//! It is an old process while new ones live, and either somebody of its kind lives, or it has the parent that one of its
//! kind had (a worker that was recycled by its server). So for each family it is known who uses it: a lane by slot, with
//! the incarnation of the slot and a hash of the parent. A family that nobody uses and that does not count is removed
//! ten minutes after that was seen, one that began anew at once.

use crate::entry::Kind;
use crate::error::Error;
use crate::layout::*;
use crate::metric::{self, is_replaced, MetricId, MetricSpec};
use crate::parts;
use crate::slot::Liveness;
use crate::sync::Ordering;
use crate::writer::Writer;

/// A family that does not count is kept so long after its last user was gone, so that a recycled worker finds it.
const KEPT_MS: u64 = 600_000;

/// What [`Writer::family`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    pub id: MetricId,
    /// Whether pages show it; else another definition of the name does.
    pub is_shown: bool,
    /// By how much this very call raised [`crate::Segment::births`]: 0 when the metric was there.
    pub births: u64,
}

/// One metric of a name.
#[derive(Clone, Copy)]
struct Found {
    block: u64,
    birth: u64,
}

impl Writer {
    /// The metric of this definition, used from now on by this writer. `lineage` is a hash of who started this process;
    /// 0 when nobody knows.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Io`] when there is no room.
    pub fn family(
        &self,
        spec: &MetricSpec<'_>,
        label_names: &str,
        lineage: u32,
    ) -> Result<Joined, Error> {
        self.reclaim_if_due();
        let _guard = self.enter();
        let liveness = self.liveness();
        let key = self.map().key(Kind::Metric, 0, spec.name.as_bytes());
        let mut made = None;
        let mut births = 0;
        loop {
            let (mut shown, mut same) = (None, None);
            let mut first_unix_ms: Option<u64> = None;
            let head = self.map().each(&key, |block| {
                let Some(meta) = metric::read(self.region(), block) else { return };
                let found = Found { block, birth: meta.birth };
                newest(&mut shown, found);
                if meta.shape.borrowed().is_of_type(&spec.shape) {
                    let first = first_unix_ms.get_or_insert(meta.first_unix_ms);
                    *first = meta.first_unix_ms.min(*first);
                }
                if meta.is_defined_by(spec, label_names) && !self.is_replaced(block) {
                    newest(&mut same, found);
                }
            });
            let Some(head) = head else { return Err(self.corrupt()) };
            if let (Some(shown), Some(same)) = (shown, same) {
                let is_shown = shown.block == same.block;
                if is_shown || self.is_of_old(shown, same, lineage, &liveness) {
                    self.discard_family(made.take());
                    if let Some(id) = self.use_family(same.block, lineage) {
                        return Ok(Joined { id, is_shown, births });
                    }
                    continue;
                }
            }
            let block = match made {
                Some(block) => block,
                None => {
                    let block = self.new_metric(spec, label_names)?;
                    births += 1;
                    // Before anybody sees it: who finds it finds that it is used.
                    self.note_user(block, lineage);
                    block
                }
            };
            made = Some(block);
            if let Some(first_unix_ms) = first_unix_ms {
                // The page has had the name with this type since then.
                crate::entry::set_created(self.region(), block, first_unix_ms);
            }
            // After the search: whoever comes in between changes the chain, and with that our turn is over. So births are
            // in the order of the chain.
            let birth = self.region().word(WORD_BIRTHS).fetch_add(1, Ordering::AcqRel) + 1;
            births += 1;
            if let Some(payload) = metric::payload(self.region(), block) {
                self.region().word(payload + METRIC_BIRTH).store(birth, Ordering::Relaxed);
            }
            if self.map().insert(&key, block, head) {
                let id = self.declare_metric(block);
                // Again, now that it can be found: who looked in between looks once more.
                self.region().word(WORD_BIRTHS).fetch_add(1, Ordering::AcqRel);
                if let Some(same) = same {
                    self.replace(same.block);
                }
                return Ok(Joined { id, is_shown: true, births: births + 1 });
            }
        }
    }

    /// Whether the definition `same` comes from an old process, while `shown` is what the new ones use.
    fn is_of_old(&self, shown: Found, same: Found, lineage: u32, liveness: &Liveness<'_>) -> bool {
        self.is_used(shown.block, liveness)
            && (self.uses(same.block)
                || self.is_used(same.block, liveness)
                || self.was_used_by(same.block, lineage))
    }

    /// Whether a living process, other than this one, uses the family.
    fn is_used(&self, block: u64, liveness: &Liveness<'_>) -> bool {
        let mut is_used = false;
        self.each_user(block, |slot, user| {
            let generation = liveness.generation(slot);
            is_used |= slot != self.slot()
                && generation as u32 == user as u32
                && !is_used
                && liveness.is_alive(slot, generation);
        });
        is_used
    }

    fn was_used_by(&self, block: u64, lineage: u32) -> bool {
        let mut was_used = false;
        self.each_user(block, |_, user| was_used |= lineage != 0 && (user >> 32) as u32 == lineage);
        was_used
    }

    fn each_user(&self, block: u64, mut each: impl FnMut(u16, u64)) {
        let slots = self.segment().slots_used();
        parts::each_lane(self.region(), block + ENTRY_EXTRA, slots, USER_BYTES, |slot, at| {
            let user = self.region().word(at).load(Ordering::Acquire);
            if user != 0 {
                each(slot, user);
            }
        });
    }

    /// Says that this writer uses the family; nothing when it is gone.
    fn use_family(&self, block: u64, lineage: u32) -> Option<MetricId> {
        let id = self.metric_id(block);
        self.note_user(block, lineage);
        self.shape(id).ok()?;
        // Who registered it may have been killed before it had one.
        let _ = self.overflow_series(id);
        Some(id)
    }

    /// Without memory for the lane the family may be thought unused; its series then say that it was replaced.
    fn note_user(&self, block: u64, lineage: u32) {
        if let Ok(at) = self.claimer().lane(block + ENTRY_EXTRA, self.slot(), USER_BYTES) {
            let user = u64::from(lineage) << 32 | self.generation() & 0xffff_ffff;
            self.region().word(at).store(user, Ordering::Release);
        }
    }

    /// Gives back a block that was filled in for nothing, and what hangs below it.
    fn discard_family(&self, made: Option<u64>) {
        if let Some(block) = made {
            parts::free_below(self.region(), self.places(), block + ENTRY_EXTRA, 1, 0);
        }
        self.discard(made);
    }

    fn is_replaced(&self, block: u64) -> bool {
        let Some(payload) = metric::payload(self.region(), block) else { return true };
        is_replaced(self.region().word(payload + METRIC_REPLACED).load(Ordering::Acquire))
    }

    /// Notes in which epoch it was seen that the family began anew; `true` when whoever was about to make a series of
    /// it is done.
    fn is_left(&self, block: u64) -> bool {
        let Some(payload) = metric::payload(self.region(), block) else { return false };
        let word = self.region().word(payload + METRIC_REPLACED);
        if word.load(Ordering::Acquire) == REPLACED {
            self.stamp(block);
            word.store(LEFT, Ordering::Release);
        }
        self.is_past_grace(block)
    }

    /// Says that the family began anew: who holds it gets it again by its definition.
    fn replace(&self, block: u64) {
        let Some(payload) = metric::payload(self.region(), block) else { return };
        self.region().word(payload + METRIC_REPLACED).store(REPLACED, Ordering::Release);
        self.region().word(WORD_PENDING).fetch_add(1, Ordering::Relaxed);
    }

    /// One step of the families that do not count towards their end: `metrics` are all there are, by the unit of their
    /// blocks. By the one who reclaims, inside an epoch; `true` when something is on its way.
    pub(crate) fn retire_families(&self, metrics: &[u64], now_unix_ms: u64) -> bool {
        let liveness = self.liveness();
        let mut names: std::collections::BTreeMap<String, Vec<Found>> = Default::default();
        for &block in metrics {
            if let Some(meta) = metric::read(self.region(), block) {
                names.entry(meta.name).or_default().push(Found { block, birth: meta.birth });
            }
        }
        let mut dead = Vec::new();
        let mut is_waiting = false;
        for family in names.values().filter(|family| family.len() > 1) {
            let last = family.iter().map(|found| found.birth).max().unwrap_or(0);
            for old in family.iter().filter(|found| found.birth < last) {
                if self.is_replaced(old.block) {
                    is_waiting = true;
                    if self.is_left(old.block) {
                        dead.push(old.block);
                    }
                } else {
                    let is_used = self.uses(old.block) || self.is_used(old.block, &liveness);
                    self.note_use(old.block, is_used, now_unix_ms);
                }
            }
        }
        if !dead.is_empty() {
            let units: Vec<u32> = dead.iter().map(|&block| crate::entry::unit(block)).collect();
            self.kill_series_of(&|unit| units.contains(&unit), false);
            dead.iter().for_each(|&block| {
                self.kill_metric(block);
            });
        }
        is_waiting
    }

    /// Whether this writer uses the family.
    fn uses(&self, block: u64) -> bool {
        let mut uses = false;
        self.each_user(block, |slot, user| {
            uses |= slot == self.slot() && user as u32 == self.generation() as u32;
        });
        uses
    }

    /// Notes since when nobody uses a family that does not count, and lets it go when that is long ago.
    fn note_use(&self, block: u64, is_used: bool, now_unix_ms: u64) {
        let Some(payload) = metric::payload(self.region(), block) else { return };
        let since = self.region().word(payload + METRIC_REPLACED);
        match since.load(Ordering::Acquire) {
            then if is_replaced(then) => {}
            then => {
                let next = match then {
                    _ if is_used => 0,
                    0 => now_unix_ms.max(LEFT + 1),
                    // Who joins it at this moment is told that it began anew, and joins again.
                    _ if now_unix_ms.abs_diff(then) >= KEPT_MS => REPLACED,
                    _ => then,
                };
                let order = (Ordering::AcqRel, Ordering::Relaxed);
                let _ = since.compare_exchange(then, next, order.0, order.1);
            }
        }
    }
}

/// Whether it is the newest so far.
fn newest(slot: &mut Option<Found>, found: Found) {
    if slot.is_none_or(|known| known.birth < found.birth) {
        *slot = Some(found);
    }
}
