//! What all handles of one mapped segment share: the bytes, where things stand in them, and what its header said.

use crate::header::Sealed;
use crate::layout::{Options, Places};
use crate::region::Region;

pub struct Inner {
    pub region: Region,
    pub places: Places,
    pub options: Options,
    /// As it was when the segment was opened: what happens to the header since is nothing to us.
    pub sealed: Sealed,
}

impl Inner {
    pub fn new(region: Region, sealed: Sealed) -> Inner {
        let options = sealed.options();
        Inner { region, places: Places::of(&options), options, sealed }
    }
}
