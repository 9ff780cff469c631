//! A writer: the right to one slot, and with it to metrics, series and a ring.
//!
//! One per thread that writes; a Python process has one, used under the GIL. Operations of one writer do not overlap, and
//! that is all the exclusion there is: writers never wait for each other. What a writer can do stands in the files of
//! what it does it to: registry.rs (metrics, series), series.rs (cells), gauge.rs, remove.rs, reclaim.rs, expire.rs.

use crate::block::{Claimer, Cursor};
use crate::clock::now_unix_ms;
use crate::epoch::{self, Barrier};
use crate::error::Error;
use crate::handle::Series;
use crate::layout::*;
use crate::map::Map;
use crate::metric::MetricId;
use crate::pace::Pace;
use crate::region::Region;
use crate::ring::{RecordKind, Ring};
use crate::segment::Segment;
use crate::slot::{Lease, Liveness};
use crate::sync::{Ordering, Word};
use agent_metric::OwnedShape;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

pub struct Writer {
    /// First, so that the lock goes before the mapping does.
    pub(crate) lease: Lease,
    segment: Segment,
    pub(crate) barrier: Barrier,
    /// How many protected sections are open; only the outermost marks the slot.
    depth: Cell<u32>,
    /// The epoch that the open section was marked with.
    pub(crate) seen: Cell<u64>,
    /// The slot's mark, and the epoch of the segment: read and written by every operation.
    active: *const Word,
    epoch: *const Word,
    pub(crate) cursor: Cursor,
    /// What is known of metrics: shape, and where the payload is.
    pub(crate) shapes: RefCell<HashMap<MetricId, Rc<(OwnedShape, u64)>>>,
    pub(crate) pace: Pace,
    /// The second in which there was no memory for newest values.
    pub(crate) recent_refused_s: Cell<u64>,
    process: u32,
}

// SAFETY: the cells and counters in it are used by whoever owns the writer, one thread at a time (`!Sync`); the `Rc`s in
// `shapes` never leave it; the pointers lead into the mapping that `segment` keeps.
unsafe impl Send for Writer {}

impl Segment {
    /// Claims a slot.
    ///
    /// # Errors
    /// [`Error::NoSlot`] when every slot has a living owner, [`Error::ReadOnly`] for an attached segment,
    /// [`Error::NotUsable`] when the file was replaced after it was mapped: open it again.
    pub fn writer(&self) -> Result<Writer, Error> {
        let inner = &self.inner;
        if !inner.region.is_writable() {
            return Err(Error::ReadOnly);
        }
        let lease = Lease::take(inner, now_unix_ms())?;
        let slot = inner.places.slot(lease.index);
        let barrier = Barrier::register();
        barrier.announce(&inner.region, slot);
        Ok(Writer {
            segment: self.clone(),
            lease,
            barrier,
            depth: Cell::new(0),
            seen: Cell::new(0),
            active: inner.region.pointer(slot + SLOT_ACTIVE),
            epoch: inner.region.pointer(WORD_EPOCH),
            cursor: Cursor::default(),
            shapes: RefCell::default(),
            pace: Pace::default(),
            recent_refused_s: Cell::new(0),
            process: std::process::id(),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // In a forked child the slot is the parent's.
        if self.process == std::process::id() {
            #[cfg(not(model))]
            self.segment.renew_time(now_unix_ms());
            self.lease.release(self.region(), self.places());
        }
    }
}

/// A protected section for a batch: while it is open, operations skip the entry into the epoch.
pub struct Guard<'w> {
    writer: &'w Writer,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.writer.leave_epoch();
    }
}

impl core::ops::Deref for Guard<'_> {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        self.writer
    }
}

impl Writer {
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    pub fn slot(&self) -> u16 {
        self.lease.index
    }

    /// In a forked child, of the parent's writer: lets go of what was inherited without touching the parent's slot.
    pub fn forget_in_child(self) {
        let writer = std::mem::ManuallyDrop::new(self);
        // SAFETY: read once, and the writer is never used or dropped again. What else it has is leaked: another thread
        // of the parent may have been in the middle of changing it.
        unsafe { std::ptr::read(&writer.lease) }.forget_in_child();
    }

    pub(crate) fn region(&self) -> &Region {
        &self.segment.inner.region
    }

    pub(crate) fn places(&self) -> &Places {
        &self.segment.inner.places
    }

    pub(crate) fn generation(&self) -> u64 {
        self.lease.generation
    }

    /// Never 0, and different for every owner of every slot.
    pub(crate) fn identity(&self) -> u64 {
        self.lease.generation << 16 | u64::from(self.lease.index)
    }

    pub(crate) fn claimer(&self) -> Claimer<'_> {
        let (region, places, cursor) = (self.region(), self.places(), &self.cursor);
        Claimer { region, places, cursor, owner: self.lease.index }
    }

    pub(crate) fn map(&self) -> Map<'_> {
        let hash_key = self.segment().inner.sealed.key();
        Map { region: self.region(), places: self.places(), hash_key }
    }

    pub(crate) fn liveness(&self) -> Liveness<'_> {
        Liveness::new(&self.segment.inner, Some(&self.lease))
    }

    #[inline(always)]
    pub(crate) fn enter_epoch(&self) {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if depth == 0 {
            // SAFETY: words of the mapping that `segment` keeps alive.
            let (epoch, active) = unsafe { (&*self.epoch, &*self.active) };
            self.seen.set(epoch::enter(epoch, active, self.barrier));
        }
    }

    #[inline(always)]
    pub(crate) fn leave_epoch(&self) {
        let depth = self.depth.get() - 1;
        self.depth.set(depth);
        if depth == 0 {
            // SAFETY: as in `enter_epoch`.
            epoch::leave(unsafe { &*self.active });
        }
    }

    pub(crate) fn is_inside(&self) -> bool {
        self.depth.get() > 0
    }

    /// Opens a protected section. Keep it short: while it is open no memory of removed series is reused.
    #[inline]
    pub fn enter(&self) -> Guard<'_> {
        self.enter_epoch();
        Guard { writer: self }
    }

    /// Puts a sample or a member of a set into this writer's ring.
    #[inline]
    pub fn record(&self, s: &Series, kind: RecordKind, bits: u64) {
        if let Some(ring) = self.own_ring() {
            ring.push(s.id(), kind, now_unix_ms(), bits);
        }
    }

    /// Puts a text into this writer's ring, cut to 4 KiB.
    pub fn event(&self, bytes: &[u8]) {
        if let Some(ring) = self.own_ring() {
            ring.push_event(now_unix_ms(), bytes);
        }
    }

    #[inline]
    fn own_ring(&self) -> Option<Ring<'_>> {
        match self.segment.ring(self.lease.index) {
            Some(ring) => Some(ring),
            None => self.commit_ring(),
        }
    }

    /// The first record of a slot: its ring gets memory, or the record is counted as refused, as it is where there are no
    /// rings.
    #[cold]
    fn commit_ring(&self) -> Option<Ring<'_>> {
        let places = self.places();
        let slot = places.slot(self.lease.index);
        let start = places.rings + u64::from(self.lease.index) * places.ring_bytes;
        match self.region().commit(start, places.ring_bytes) {
            Ok(()) if places.ring_bytes > 0 => {
                self.region().word(slot + SLOT_RING).store(1, Ordering::Release);
                self.segment.ring(self.lease.index)
            }
            _ => {
                self.region().word(slot + SLOT_RING_REFUSED).fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}
