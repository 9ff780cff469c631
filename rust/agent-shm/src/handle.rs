//! Handles: a series as one writer holds it.
//!
//! A handle is a place and the state word that stood there. What is done to it is in series.rs.

use crate::block::State;
use crate::cells::Cells;
use crate::entry;
use crate::metric::MetricId;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesId {
    /// In units of 16 bytes from the start of the segment.
    pub offset: u32,
    pub generation: u32,
}

/// Whether an operation found its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    Applied,
    /// The series was removed (or is about to expire): get it again by its labels and repeat.
    Stale,
    /// The counter would pass 2^63 - 1. Nothing was added.
    Refused,
    /// There is no memory for this process's value of the gauge. Nothing was changed.
    NoRoom,
}

/// A series, held by one process. Survives a fork: places are the same in the child.
#[derive(Clone)]
pub struct Series {
    pub(crate) entry: u64,
    pub(crate) word: u64,
    pub(crate) cells: u64,
    /// Where this writer adds: the cells above, its stripe, or its lane.
    pub(crate) own: Cell<u64>,
    /// The writer that `own` belongs to, when it is a stripe or a lane.
    pub(crate) own_of: Cell<u64>,
    pub(crate) kind: Cells,
    pub(crate) metric: MetricId,
    pub(crate) overflow: bool,
    pub(crate) bounds: Arc<[f64]>,
    pub(crate) _not_sync: core::marker::PhantomData<Rc<()>>,
}

// SAFETY: nothing in a handle belongs to a thread; it is `!Sync` because of its cached place, which `Cell` already says.
unsafe impl Send for Series {}

impl Series {
    pub fn id(&self) -> SeriesId {
        let generation = State::of(self.word).map_or(0, |state| state.generation);
        SeriesId { offset: entry::unit(self.entry), generation }
    }

    pub fn metric(&self) -> MetricId {
        self.metric
    }

    /// Whether a limit sent the label set to the metric's overflow series.
    pub fn is_overflow(&self) -> bool {
        self.overflow
    }
}
