//! What each process says of one gauge.
//!
//! A gauge that is not one number for all has a *lane* for each slot that ever set it, below the series:
//!
//! ```text
//! fold lanes   {retired, value}  {incarnation, -}          `Storage::Fold`: the dead go on counting
//! own lanes    {who, value}  {who, value}                   the others; of `OwnAndLast` odd incarnations write the second
//!   who        process id (32) | incarnation of the slot (32)
//! ```
//!
//! A fold lane is taken over by moving what the last owner left into `retired`, in one step and so that doing it twice
//! changes nothing. An own lane needs no taking over: a new incarnation writes beside the last one, whose value and id
//! stay until the one after it. So of `all` a page has at most two processes for each slot that was ever used, and each value
//! stands with the id of the process that set it.
//!
//! The one number of `mostrecent` has own lanes as well, for what is held: a process that is inside of
//! `track_inprogress` holds 1, and a page adds what living processes hold. A dead one holds nothing.

use crate::cells::plain;
use crate::layout::*;
use crate::parts;
use crate::region::Region;
use agent_metric::{GaugeMode, Storage};

/// Whether the values of the dead are folded together.
pub fn folds(mode: GaugeMode) -> bool {
    mode.storage() == Storage::Fold
}

/// Where an incarnation writes in its own lane.
pub fn own_pair(mode: GaugeMode, generation: u64) -> u64 {
    match mode.storage() {
        Storage::OwnAndLast => generation % 2 * LANE_NEXT,
        _ => 0,
    }
}

/// Visits the lanes of a series: slot and place.
pub fn each_lane(region: &Region, extra: u64, slots: u16, each: impl FnMut(u16, u64)) {
    parts::each_lane(region, extra, slots, LANE_BYTES, each);
}

/// Zero bits mean "never set", so zero itself is written as minus zero.
pub fn to_lane(value: f64) -> u64 {
    match plain(value).to_bits() {
        0 => (-0.0_f64).to_bits(),
        bits => bits,
    }
}

/// The value that a lane's bits stand for.
pub fn lane_value(bits: u64) -> Option<f64> {
    match bits {
        0 => None,
        bits => Some(f64::from_bits(bits) + 0.0),
    }
}

pub fn fold(mode: GaugeMode, retired: u64, value: u64) -> u64 {
    let (Some(old), Some(new)) = (lane_value(retired), lane_value(value)) else {
        return if retired == 0 { value } else { retired };
    };
    to_lane(mode.reduction().of(old, new))
}
