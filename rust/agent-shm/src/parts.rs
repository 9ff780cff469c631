//! Parts: blocks that hang below an entry in a pointer word. Lanes of a hot series, lanes of a per-process gauge, octaves
//! of an exponential histogram.
//!
//! ```text
//! exponential cells   16 pointers (8 octaves each) | pointer to the negative side | - | {zero} | {over}
//!   group of octaves  8 pointers
//!     octave          2^schema pairs {count, sum}
//! negative side       16 pointers, to groups as above
//! counter lanes       8 x 64 bytes, a cell in each
//! histogram lanes     8 pointers, to copies of the cells
//! gauge lanes         pointers, 16 slots each
//!   group of slots    16 x {retired, value} {generation, unix ms}
//! ```
//!
//! Hanging a part in is one compare-and-swap of the pointer word from 0; who loses takes the winner's. A part stays as
//! long as its entry.

use crate::block::{self, Cursor};
use crate::entry;
use crate::error::Error;
use crate::layout::*;
use crate::region::Region;
use crate::sync::Ordering;

pub const EXPONENTIAL_POINTERS: u64 = 17;
pub const EXPONENTIAL_NEGATIVE: u64 = 16 * 8;
pub const EXPONENTIAL_ZERO: u64 = 18 * 8;
pub const EXPONENTIAL_OVER: u64 = EXPONENTIAL_ZERO + 16;
pub const EXPONENTIAL_BYTES: u64 = EXPONENTIAL_OVER + 16;
pub const GROUPS: u64 = 16;
pub const OCTAVES_IN_GROUP: u64 = 8;
pub const GAUGE_SLOTS_IN_GROUP: u64 = 16;
pub const GAUGE_LANE_BYTES: u64 = 32;

/// What a new part looks like.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub pointers: u64,
    pub bytes: u64,
}

impl Form {
    pub const fn pointers(pointers: u64) -> Form {
        Form { pointers, bytes: pointers * 8 }
    }

    pub const fn cells(bytes: u64) -> Form {
        Form { pointers: 0, bytes }
    }
}

/// Who allocates.
pub struct Allocator<'a> {
    pub region: &'a Region,
    pub places: &'a Places,
    pub cursor: &'a Cursor,
    pub owner: u16,
}

/// The body of the part in pointer word `link`; 0 when there is none.
#[inline]
pub fn part(region: &Region, link: u64) -> u64 {
    match region.word(link).load(Ordering::Acquire) as u32 {
        0 => 0,
        unit => entry::offset(unit) + PART_BODY,
    }
}

impl Allocator<'_> {
    /// The body of the part in pointer word `link`, made now if there is none.
    pub fn part_or_new(&self, link: u64, form: Form) -> Result<u64, Error> {
        let body = part(self.region, link);
        if body != 0 {
            return Ok(body);
        }
        let bytes = PART_BODY + form.bytes;
        let block = block::claim(self.region, self.places, self.cursor, self.owner, bytes, "part")?;
        // The claim said CLAIMED; a part says so by a state of its own, for whoever cleans up after us.
        let claimed = block::state(self.region, block);
        let as_part = claimed.with(block::CLAIMED_PART, self.owner);
        if !block::shift(self.region, block, claimed, as_part) {
            return Err(Error::Corrupt);
        }
        let header = (link / 8) << 32 | form.pointers;
        self.region.word(block + PART_LINK).store(header, Ordering::Relaxed);
        let word = self.region.word(link);
        let old = word.load(Ordering::Acquire);
        // The upper half of a pointer word may carry something else (the epoch of removal): keep it.
        let new = (old & !0xffff_ffff) | u64::from(entry::unit(block));
        let hung = old as u32 == 0
            && word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if hung {
            block::publish(self.region, block);
            return Ok(block + PART_BODY);
        }
        block::free(self.region, self.places, block, as_part);
        match part(self.region, link) {
            0 => self.part_or_new(link, form),
            body => Ok(body),
        }
    }

    /// The pair that counts in octave `octave` of the exponential cells at `cells`.
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

/// Frees everything that hangs in `count` pointer words from `start`. The caller is the only one who tends.
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
        if hangs_here && matches!(state.state, block::PART | block::CLAIMED_PART) {
            free_below(region, places, block + PART_BODY, header & 0xffff_ffff, depth + 1);
            block::free(region, places, block, state);
        }
    }
}
