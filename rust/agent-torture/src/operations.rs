//! The table of operations that are walked through, one file a group.

mod absorb;
mod batch;
mod counter;
mod define;
mod files;
mod gauge;
mod histogram;
mod memory;
mod remove;
mod ring;
mod series;
mod slot;

use crate::operation::Operation;

/// Every operation, by group.
pub fn table() -> Vec<Operation> {
    let groups = [
        files::rows(),
        slot::rows(),
        define::rows(),
        series::rows(),
        counter::rows(),
        histogram::rows(),
        batch::rows(),
        ring::rows(),
        gauge::rows(),
        absorb::rows(),
        remove::rows(),
        memory::rows(),
    ];
    groups.into_iter().flatten().collect()
}
