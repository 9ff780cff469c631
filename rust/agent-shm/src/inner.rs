//! What all handles of one mapped segment share: the bytes, where things stand in them, and the limits.

use crate::layout::{Options, Places};
use crate::region::Region;

pub struct Inner {
    pub region: Region,
    pub places: Places,
    pub options: Options,
}
