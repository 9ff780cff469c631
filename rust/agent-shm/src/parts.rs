//! Parts: blocks that hang below an entry in a pointer word. Stripes of a hot series, lanes by slot, octaves of an
//! exponential histogram, newest values of a summary.
//!
//! ```text
//! exponential cells   16 pointers (8 octaves each) | pointer to the negative side | - | {zero} | {over} | {under}
//!   group of octaves  8 pointers
//!     octave          2^schema pairs {count, sum}
//! negative side       16 pointers, to groups as above
//! stripes             8 pointers, to copies of the cells
//! lanes               16 pointers, to 16 pointers each, to the lanes of 16 slots each
//! newest values       32 pointers, to chunks of 64 pairs each
//! ```
//!
//! Hanging a part in is one compare-and-swap of the pointer word from 0; who loses takes the winner's. A part stays as
//! long as its entry.

use crate::block::{self, Claimer, Purpose, State};
use crate::entry;
use crate::error::Error;
use crate::layout::*;
use crate::region::Region;
use crate::sync::Ordering;

const PART: Purpose = Purpose { state: block::CLAIMED_PART, what: "part" };

/// What a new part looks like.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub pointers: u64,
    pub bytes: u64,
    /// `PART_IS_RECENT` or 0.
    pub flag: u64,
}

impl Form {
    pub const fn pointers(pointers: u64) -> Form {
        Form { pointers, bytes: pointers * 8, flag: 0 }
    }

    pub const fn cells(bytes: u64) -> Form {
        Form { pointers: 0, bytes, flag: 0 }
    }
}

/// The body of the part in pointer word `link`; 0 when there is none.
#[inline]
pub fn part(region: &Region, link: u64) -> u64 {
    match region.word(link).load(Ordering::Acquire) as u32 {
        0 => 0,
        unit => entry::offset(unit) + PART_BODY,
    }
}

impl Claimer<'_> {
    /// The body of the part in pointer word `link`, made now if there is none.
    pub fn part_or_new(&self, link: u64, form: Form) -> Result<u64, Error> {
        let body = part(self.region, link);
        if body != 0 {
            return Ok(body);
        }
        let block = self.claim(PART_BODY + form.bytes, PART)?;
        let header = (link / 8) << 32 | form.flag | form.pointers;
        self.region.word(block + PART_LINK).store(header, Ordering::Relaxed);
        let word = self.region.word(link);
        loop {
            let old = word.load(Ordering::Acquire);
            if old as u32 != 0 {
                free(self.region, self.places, block, block::state(self.region, block));
                return Ok(part(self.region, link));
            }
            // The upper half of a pointer word may carry something else (the epoch of the last use): keep it.
            let new = (old & !0xffff_ffff) | u64::from(entry::unit(block));
            if word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                if form.flag == PART_IS_RECENT {
                    self.region.word(WORD_RECENT).fetch_add(1, Ordering::Relaxed);
                }
                block::publish(self.region, block);
                return Ok(block + PART_BODY);
            }
        }
    }

    /// The pairs that count in octave `octave` of the exponential cells at `cells`.
    pub fn octave(
        &self,
        cells: u64,
        negative: bool,
        octave: usize,
        schema: u8,
    ) -> Result<u64, Error> {
        let side = if negative {
            self.part_or_new(cells + EXPONENTIAL_NEGATIVE, Form::pointers(GROUPS))?
        } else {
            cells
        };
        let (group, within) = (octave as u64 / OCTAVES_IN_GROUP, octave as u64 % OCTAVES_IN_GROUP);
        let group = self.part_or_new(side + group * 8, Form::pointers(OCTAVES_IN_GROUP))?;
        self.part_or_new(group + within * 8, Form::cells(16 << schema))
    }

    /// The lane of a slot below the pointer word `link`.
    pub fn lane(&self, link: u64, slot: u16, lane_bytes: u64) -> Result<u64, Error> {
        let (high, middle, low) = lane_path(slot);
        let table = self.part_or_new(link, Form::pointers(LANE_FAN))?;
        let table = self.part_or_new(table + high * 8, Form::pointers(LANE_FAN))?;
        let lanes = self.part_or_new(table + middle * 8, Form::cells(LANE_FAN * lane_bytes))?;
        Ok(lanes + low * lane_bytes)
    }
}

fn lane_path(slot: u16) -> (u64, u64, u64) {
    let slot = u64::from(slot);
    (slot / (LANE_FAN * LANE_FAN), slot / LANE_FAN % LANE_FAN, slot % LANE_FAN)
}

/// Visits the lanes below `link` of slots under `slots`: the slot, and where its lane is.
pub fn each_lane(
    region: &Region,
    link: u64,
    slots: u16,
    lane_bytes: u64,
    mut each: impl FnMut(u16, u64),
) {
    let table = part(region, link);
    if table == 0 {
        return;
    }
    for first in (0..slots).step_by(LANE_FAN as usize) {
        let (high, middle, _) = lane_path(first);
        let below = part(region, table + high * 8);
        let lanes = if below == 0 { 0 } else { part(region, below + middle * 8) };
        if lanes == 0 {
            continue;
        }
        for low in 0..(slots - first).min(LANE_FAN as u16) {
            each(first + low, lanes + u64::from(low) * lane_bytes);
        }
    }
}

/// The pairs of an octave if they exist.
#[inline]
pub fn octave_if_any(region: &Region, cells: u64, negative: bool, octave: usize) -> Option<u64> {
    let side = if negative { part(region, cells + EXPONENTIAL_NEGATIVE) } else { cells };
    if side == 0 {
        return None;
    }
    let group = part(region, side + octave as u64 / OCTAVES_IN_GROUP * 8);
    if group == 0 {
        return None;
    }
    match part(region, group + octave as u64 % OCTAVES_IN_GROUP * 8) {
        0 => None,
        body => Some(body),
    }
}

/// Whether the part whose body this is says that it hangs in `link`: a part of a damaged segment may hang in several.
pub fn hangs_in(region: &Region, body: u64, link: u64) -> bool {
    let header = region.word(body - PART_BODY + PART_LINK).load(Ordering::Acquire);
    header >> 32 == link / 8
}

/// Frees a part. Its link goes first: whoever claims this memory and is stopped before he has overwritten it must not be
/// taken for what hung there.
pub fn free(region: &Region, places: &Places, block: u64, state: State) -> bool {
    region.word(block + PART_LINK).store(0, Ordering::Release);
    block::free(region, places, block, state)
}

/// Frees everything that hangs in `count` pointer words from `start`. The caller is the only one who reclaims, and may be
/// killed anywhere: what is left hangs there still, and a part that lost only its link is known by its state.
pub fn free_below(region: &Region, places: &Places, start: u64, count: u64, depth: u32) {
    if depth > 4 || count > 1024 {
        return;
    }
    for index in 0..count {
        let link = start + index * 8;
        let unit = region.word(link).load(Ordering::Acquire) as u32;
        let block = entry::offset(unit);
        if unit == 0 || block < places.blocks {
            continue;
        }
        let state = block::state(region, block);
        let header = region.word(block + PART_LINK).load(Ordering::Acquire);
        let hangs_here = header >> 32 == link / 8;
        let is_half_freed = header == 0 && state.state == block::PART;
        if is_half_freed || hangs_here && matches!(state.state, block::PART | block::CLAIMED_PART) {
            free_below(region, places, block + PART_BODY, header & 0xffff, depth + 1);
            free_part(region, places, block, state, header);
            region.word(link).fetch_and(!0xffff_ffff, Ordering::AcqRel);
        }
    }
}

/// Frees one part, below which nothing hangs any more.
pub fn free_part(region: &Region, places: &Places, block: u64, state: State, header: u64) -> bool {
    let is_freed = free(region, places, block, state);
    if is_freed && header & PART_IS_RECENT != 0 {
        let of_all = region.word(WORD_RECENT);
        let _ = of_all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }
    is_freed
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use crate::metric::MetricSpec;
    use crate::segment::Segment;
    use crate::writer::Writer;
    use agent_metric::Shape;

    /// A removed series that is about to be freed: a link of it, and the part that hangs there.
    fn limbo(writer: &Writer) -> (u64, u64) {
        let shape = Shape::Gauge(agent_metric::GaugeMode::LiveSum);
        let spec = MetricSpec { name: "g", help: "", unit: "", shape };
        let metric = writer.metric(&spec).unwrap();
        let series = writer.series(metric, "k=\"v\"").unwrap();
        assert_eq!(writer.set(&series, 1.0), crate::handle::Outcome::Applied);
        let link = series.entry + ENTRY_EXTRA;
        let block = part(writer.region(), link) - PART_BODY;
        assert!(writer.remove(metric, "k=\"v\""));
        writer.reclaim_now();
        assert_eq!(block::state(writer.region(), series.entry).state, block::LIMBO);
        (link, block)
    }

    /// Claims the memory of `block` as a part, and is stopped before anything else.
    fn claim_and_stop(writer: &Writer, block: u64) {
        let free = block::state(writer.region(), block);
        let claimed = free.with(block::CLAIMED_PART, writer.slot());
        assert!(free.state == block::FREE && block::shift(writer.region(), block, free, claimed));
    }

    #[test]
    fn a_claimer_keeps_memory_that_a_killed_reclaimer_had_freed() {
        let segment = Segment::private("t", &Options::default());
        let (writer, claimer) = (segment.writer().unwrap(), segment.writer().unwrap());
        let (link, block) = limbo(&writer);
        let (region, places) = (writer.region(), writer.places());
        // Killed after the part is free, before its link is.
        assert!(free(region, places, block, block::state(region, block)));
        assert_eq!(region.word(link).load(Ordering::Acquire) as u32, entry::unit(block));
        let inside = claimer.enter();
        claim_and_stop(&claimer, block);
        let before = block::state(region, block);
        free_below(region, places, link, 1, 0);
        assert_eq!(block::state(region, block), before, "the claimer's");
        drop(inside);
    }

    #[test]
    fn what_a_killed_claimer_left_is_freed_and_hangs_nowhere() {
        let segment = Segment::private("t", &Options::default());
        let writer = segment.writer().unwrap();
        let (_, block) = limbo(&writer);
        let (region, places) = (writer.region(), writer.places());
        assert!(free(region, places, block, block::state(region, block)));
        let claimer = segment.writer().unwrap();
        claim_and_stop(&claimer, block);
        drop(claimer);
        writer.reclaim_now();
        assert_eq!(block::state(region, block).state, block::FREE);
    }

    #[test]
    fn a_part_that_lost_only_its_link_is_freed_by_the_next_pass() {
        let segment = Segment::private("t", &Options::default());
        let writer = segment.writer().unwrap();
        let (link, block) = limbo(&writer);
        // Killed in `free`, between its two steps.
        writer.region().word(block + PART_LINK).store(0, Ordering::Release);
        free_below(writer.region(), writer.places(), link, 1, 0);
        assert_eq!(block::state(writer.region(), block).state, block::FREE);
        assert_eq!(writer.region().word(link).load(Ordering::Acquire) as u32, 0);
    }
}
