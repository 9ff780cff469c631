//! What `track_inprogress` holds of a gauge, from its begin to its end.
//!
//! A block gives back what it took, where it took it, or nothing. Its series may be gone by then (cleared, removed,
//! expired), its file may be, and a forked child inherits the block but not what its parent holds: giving back there would
//! take from what nobody holds. Only what was counted in private memory moves along when the process finds its segment;
//! then it is given back where it went. Not promised: whose it is, when such a gauge was cleared between.

use crate::handle::Handle;
use crate::host::Host;
use crate::refusal::Refusal;
use agent_shm::{Outcome, Series, SeriesId, Writer};
use std::cell::Cell;

/// 1, taken of a gauge.
#[derive(Debug)]
pub struct Hold {
    /// Forks between the first process of the store and the one that took it.
    forks: u32,
    at: Place,
    is_private: bool,
}

/// Where a handle counts: which of the segments that the store had, whether beside it, and the series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    moves: u32,
    aside: u32,
    series: SeriesId,
}

fn release(writer: &Writer, series: &Series) -> Outcome {
    writer.release(series, 1.0)
}

impl Handle {
    fn place(&self) -> Option<Place> {
        let (moves, aside) = (self.store.moves.get(), self.aside_number());
        Some(Place { moves, aside, series: self.series_id()? })
    }

    /// Takes 1; nothing when there is no room for it.
    ///
    /// # Errors
    /// As [`Handle::apply_slowly`].
    pub fn hold(&self, host: &dyn Host) -> Result<Option<Hold>, Refusal> {
        let is_taken = Cell::new(false);
        let hold = |writer: &Writer, series: &Series| {
            let outcome = writer.hold(series, 1.0);
            is_taken.set(outcome == Outcome::Applied);
            outcome
        };
        if !self.try_apply(&hold) {
            self.apply_slowly(host, &hold)?;
        }
        let Some(at) = self.place().filter(|_| is_taken.get()) else { return Ok(None) };
        let is_private = at.aside != 0 || self.store.is_private();
        Ok(Some(Hold { forks: self.store.forks.get(), at, is_private }))
    }

    /// Gives back what was taken, if it still is where it was.
    ///
    /// # Errors
    /// As [`Handle::apply_slowly`].
    pub fn give_back(&self, host: &dyn Host, hold: &Hold) -> Result<(), Refusal> {
        if hold.forks != self.store.forks.get() {
            return Ok(());
        }
        let is_there = || self.place() == Some(hold.at);
        if is_there() && self.try_apply(&release) {
            return Ok(());
        }
        if self.store.open(host)?.is_none() {
            return Ok(());
        }
        if is_there() && self.apply_in_place(&release) == Outcome::Applied {
            return Ok(());
        }
        // What was beside the segment goes there without a move of the process.
        let has_moved = hold.at.aside != 0 || hold.at.moves != self.store.moves.get();
        match hold.is_private && has_moved {
            true => self.apply_slowly(host, &release),
            false => Ok(()),
        }
    }
}
