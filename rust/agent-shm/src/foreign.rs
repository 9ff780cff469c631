//! How far a file of another user is read.
//!
//! A hole of a file in memory that is read through a mapping becomes memory, and whoever reads pays for it. So a file that
//! claims more than it has must not be believed: whoever makes a segment gives memory to everything up to the slots, and to
//! blocks before they count as committed. A file for which that is not so is damaged. What was found to exist is read, and
//! nothing behind it until the next look; heads and rings are not read at all.
//!
//! Not promised: that a file does not lose memory after the look. What reading it costs then is what a look said at most.

use crate::block;
use crate::identity::id_of;
use crate::layout::*;
use crate::segment::Segment;
use std::os::unix::fs::MetadataExt;

/// What a look at a foreign file found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Bytes that a reader may touch.
    Bytes(u64),
    /// It claims more than exists.
    Hollow,
    /// Its path leads elsewhere by now.
    Gone,
}

impl Segment {
    /// Compares what the file claims with what exists. Nothing of it is to be read before [`Segment::read_up_to`].
    pub fn extent(&self) -> Extent {
        let (region, places) = (&self.inner.region, &self.inner.places);
        // Before the look at the file: it may grow in between, and never shrinks.
        let blocks = block::pages_committed(region, places) * PAGE_BYTES;
        let Some(id) = region.file_id() else { return Extent::Gone };
        match std::fs::symlink_metadata(region.path()) {
            Ok(now) if id_of(&now) != id => Extent::Gone,
            Ok(now) if now.blocks() * 512 < places.slots + blocks => Extent::Hollow,
            Ok(_) => Extent::Bytes(places.heads + (places.rings - places.pages) + blocks),
            Err(_) => Extent::Gone,
        }
    }

    /// Lets this mapping read what an extent of so many bytes has, and nothing else; for good.
    pub fn read_up_to(&self, extent_bytes: u64) {
        let places = &self.inner.places;
        let below = places.heads + (places.rings - places.pages);
        self.inner.region.set_reach(places.blocks + extent_bytes.saturating_sub(below));
    }
}
