//! What only models of interleavings ask of a segment: that a process is killed, and what is in use when all is over.

use crate::block;
use crate::entry::Kind;
use crate::layout::*;
use crate::map::Map;
use crate::metric;
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

    /// The numbers of all definitions of a name, in the order of their chain: the last inserted one first.
    pub fn births_of(&self, name: &str) -> Vec<u64> {
        let (region, places) = (&self.inner.region, &self.inner.places);
        let map = Map { region, places, hash_key: self.inner.sealed.key() };
        let mut births = Vec::new();
        let found = map.each(&map.key(Kind::Metric, 0, name.as_bytes()), |block| {
            births.extend(metric::read(region, block).map(|meta| meta.birth));
        });
        found.map(|_| births).expect("a chain that ends")
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
