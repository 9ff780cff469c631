//! What only models of interleavings ask of a segment: that a process is killed, and what is in use when all is over.

use crate::block;
use crate::layout::*;
use crate::segment::Segment;
use crate::sync::Ordering;

impl Segment {
    /// What the kernel does when the process that owns this slot is killed.
    pub fn bury(&self, slot: u16) {
        let (region, own) = (&self.inner.region, u64::from(slot) + 1);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let _ = region.word(WORD_RECLAIMING).compare_exchange(own, 0, order.0, order.1);
        region.word(self.inner.places.slot(slot) + SLOT_CLAIMED).store(0, Ordering::Release);
    }

    /// Blocks that are in use.
    pub fn blocks_in_use(&self) -> usize {
        let (region, places) = (&self.inner.region, &self.inner.places);
        let is_used = |block: &u64| block::state(region, *block).state != block::FREE;
        (0..block::pages_committed(region, places))
            .filter_map(|index| Some((index, block::page(region, places, index)?)))
            .flat_map(|(index, page)| block::blocks(places, index, page.class))
            .filter(is_used)
            .count()
    }
}
