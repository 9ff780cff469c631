//! A writer: the right to one slot, and with it to metrics, series and a ring.
//!
//! One per thread that writes; a Python process has one, used under the GIL. Operations of one writer do not overlap, and
//! that is all the exclusion there is: writers never wait for each other.

use crate::block::{self, Cursor, State};
use crate::entry::{self, Kind, Meta};
use crate::epoch::{self, Barrier};
use crate::error::Error;
use crate::guest;
use crate::layout::*;
use crate::map::{Lookup, Map};
use crate::metric::{self, MetricId, MetricSpec, OwnedShape};
use crate::parts::Allocator;
use crate::region::Region;
use crate::ring::RecordKind;
use crate::segment::{now_unix_ms, Segment};
use crate::series::{Series, SeriesId};
use crate::slot::{self, Claim};
use crate::sync::{Ordering, Word};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// The labels of the series that takes what a limit refused.
pub const OVERFLOW_LABELS: &str = "agent_overflow=\"true\"";

pub struct Writer {
    segment: Segment,
    pub(crate) claim: Claim,
    barrier: Barrier,
    /// How many protected sections are open; only the outermost marks the slot. Those of guests count from
    /// [`guest::IDLE`], so that others need not look whether they are one.
    depth: Cell<u32>,
    /// The mark of a guest inside an operation.
    mark: Cell<u64>,
    /// A guest's values of per-process gauges, until it has a slot.
    pub(crate) aside: RefCell<HashMap<SeriesId, (Series, f64)>>,
    cursor: Cursor,
    shapes: RefCell<HashMap<MetricId, Rc<(OwnedShape, u64)>>>,
    pub(crate) tend: crate::tend::TendState,
    process: u32,
}

// SAFETY: the cells and counters in it are used by whoever owns the writer, one thread at a time (`!Sync`); the `Rc`s in
// `shapes` never leave it.
unsafe impl Send for Writer {}

impl Segment {
    /// Claims a slot.
    ///
    /// # Errors
    /// [`Error::NoSlot`] when every slot has a living owner, [`Error::ReadOnly`] for an attached segment.
    pub fn writer(&self) -> Result<Writer, Error> {
        let inner = &self.inner;
        if !inner.region.is_writable() {
            return Err(Error::ReadOnly);
        }
        let slots_max = inner.options.slots_max;
        Ok(Writer::of(self, slot::claim(&inner.region, &inner.places, slots_max, now_unix_ms())?))
    }

    /// Claims a slot, or goes without one; see `guest.rs`.
    ///
    /// # Errors
    /// As [`Segment::writer`], but [`Error::NoSlot`] only when the kernel has no locks left.
    pub fn writer_or_guest(&self) -> Result<Writer, Error> {
        match self.writer() {
            Err(Error::NoSlot { .. }) => {
                let inner = &self.inner;
                Ok(Writer::of(self, Claim::guest(&inner.region, &inner.places)?))
            }
            other => other,
        }
    }
}

impl Writer {
    fn of(segment: &Segment, claim: Claim) -> Writer {
        let depth = if claim.is_guest { guest::IDLE } else { 0 };
        let barrier = Barrier::register();
        if !claim.is_guest {
            barrier.announce(&segment.inner.region, segment.inner.places.slot(claim.index));
        }
        Writer {
            segment: segment.clone(),
            claim,
            barrier,
            depth: Cell::new(depth),
            mark: Cell::new(0),
            aside: RefCell::default(),
            cursor: Cursor::default(),
            shapes: RefCell::default(),
            tend: Default::default(),
            process: std::process::id(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // In a forked child the slot is the parent's: only our copy of the lock goes.
        if self.process == std::process::id() {
            slot::release(self.region(), self.places(), &self.claim);
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
        self.claim.index
    }

    /// The descriptor whose lock says that we live; a forked child closes it.
    pub fn lock_fd(&self) -> Option<i32> {
        self.claim.lock_fd()
    }

    pub(crate) fn region(&self) -> &Region {
        &self.segment.inner.region
    }

    pub(crate) fn places(&self) -> &Places {
        &self.segment.inner.places
    }

    pub(crate) fn generation(&self) -> u64 {
        self.claim.generation
    }

    /// Never 0, and different for every owner of every slot.
    pub(crate) fn identity(&self) -> u64 {
        self.claim.generation << 16 | u64::from(self.claim.index)
    }

    pub(crate) fn now_unix_ms(&self) -> u64 {
        now_unix_ms()
    }

    pub(crate) fn allocator(&self) -> Allocator<'_> {
        let (region, places, cursor) = (self.region(), self.places(), &self.cursor);
        Allocator { region, places, cursor, owner: self.claim.index }
    }

    pub(crate) fn map(&self) -> Map<'_> {
        Map { region: self.region(), places: self.places() }
    }

    fn active(&self) -> &Word {
        self.region().word(self.places().slot(self.claim.index) + SLOT_ACTIVE)
    }

    #[inline(always)]
    pub(crate) fn enter_epoch(&self) {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if depth == 0 {
            epoch::enter(self.region().word(WORD_EPOCH), self.active(), self.barrier);
        } else if depth == guest::IDLE {
            self.mark.set(guest::enter(self.region(), self.places()));
        }
    }

    #[inline(always)]
    pub(crate) fn leave_epoch(&self) {
        let depth = self.depth.get() - 1;
        self.depth.set(depth);
        if depth == 0 {
            epoch::leave(self.active());
        } else if depth == guest::IDLE {
            guest::leave(self.region(), self.mark.get());
        }
    }

    /// Opens a protected section. Keep it short: while it is open no memory of removed series is reused.
    #[inline]
    pub fn enter(&self) -> Guard<'_> {
        self.enter_epoch();
        Guard { writer: self }
    }

    /// The metric of that name, registered now if it is new.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it exists with another shape; [`Error::Full`] or [`Error::Io`] when there is no room.
    pub fn metric(&self, spec: &MetricSpec<'_>) -> Result<MetricId, Error> {
        let _guard = self.enter();
        let key = self.map().key(Kind::Metric, 0, spec.name.as_bytes());
        let mut made = None;
        loop {
            let head = match self.map().find(&key) {
                Lookup::Found(block) => {
                    self.discard(made);
                    return self.known_metric(block, spec);
                }
                Lookup::Missing(head) => head,
                Lookup::Corrupt => return Err(Error::Corrupt),
            };
            let block = match made {
                Some(block) => block,
                None => self.new_metric(spec)?,
            };
            made = Some(block);
            if self.map().insert(&key, block, head) {
                block::publish(self.region(), block);
                self.region().word(WORD_METRICS).fetch_add(1, Ordering::Relaxed);
                let id = MetricId(entry::unit(block));
                // Now, while there is memory: later, when a limit is reached, there may be none.
                let _ = self.overflow_series(id);
                return Ok(id);
            }
        }
    }

    /// The metric of that name, if there is one.
    pub fn find_metric(&self, name: &str) -> Option<(MetricId, metric::MetricMeta)> {
        let _guard = self.enter();
        match self.map().find(&self.map().key(Kind::Metric, 0, name.as_bytes())) {
            Lookup::Found(block) => {
                let meta = metric::read(self.region(), block)?;
                Some((MetricId(entry::unit(block)), meta))
            }
            _ => None,
        }
    }

    fn new_metric(&self, spec: &MetricSpec<'_>) -> Result<u64, Error> {
        let metrics_max = u64::from(self.segment.inner.options.metrics_max);
        if self.region().word(WORD_METRICS).load(Ordering::Relaxed) >= metrics_max {
            return Err(Error::Full { what: "metrics_max" });
        }
        let bytes = metric::block_bytes(spec)?;
        let (region, places, owner) = (self.region(), self.places(), self.claim.index);
        let block = block::claim(region, places, &self.cursor, owner, bytes, "metric")?;
        metric::write(region, block, spec, now_unix_ms());
        Ok(block)
    }

    fn known_metric(&self, block: u64, spec: &MetricSpec<'_>) -> Result<MetricId, Error> {
        let meta = metric::read(self.region(), block).ok_or(Error::Corrupt)?;
        if meta.shape.borrowed() == spec.shape {
            let id = MetricId(entry::unit(block));
            // Who registered it may have been killed before it had one.
            let _ = self.overflow_series(id);
            return Ok(id);
        }
        let (existing, wanted) = (meta.shape.borrowed().told(), spec.shape.told());
        Err(Error::Conflict { name: spec.name.into(), existing, wanted })
    }

    /// Gives back a block that was filled in for nothing.
    fn discard(&self, made: Option<u64>) {
        if let Some(block) = made {
            let state = block::state(self.region(), block);
            block::free(self.region(), self.places(), block, state);
        }
    }

    fn shape(&self, metric: MetricId) -> Result<Rc<(OwnedShape, u64)>, Error> {
        if let Some(known) = self.shapes.borrow().get(&metric) {
            return Ok(known.clone());
        }
        let block = entry::offset(metric.0);
        let meta = metric::read(self.region(), block).ok_or(Error::Corrupt)?;
        let payload = metric::payload(self.region(), block).ok_or(Error::Corrupt)?;
        let shape = Rc::new((meta.shape, payload));
        self.shapes.borrow_mut().insert(metric, shape.clone());
        Ok(shape)
    }

    /// The series of `metric` with these labels, made now if it is new. `labels` is canonical text, `a="x",b="y"`, the
    /// same bytes for the same label set. At a limit it is the overflow series of the metric.
    pub fn series(&self, metric: MetricId, labels: &str) -> Result<Series, Error> {
        let _guard = self.enter();
        let shape = self.shape(metric)?;
        self.find_or_insert(metric, labels, &shape, true)
    }

    /// The series with these labels if there is one.
    pub fn find(&self, metric: MetricId, labels: &str) -> Option<Series> {
        let _guard = self.enter();
        let shape = self.shape(metric).ok()?;
        let key = self.map().key(Kind::Series, metric.0, labels.as_bytes());
        match self.map().find(&key) {
            Lookup::Found(block) => Some(self.handle(block, metric, labels.len(), &shape.0, false)),
            _ => None,
        }
    }

    fn overflow_series(&self, metric: MetricId) -> Result<Series, Error> {
        let shape = self.shape(metric)?;
        let mut series = self.find_or_insert(metric, OVERFLOW_LABELS, &shape, false)?;
        series.overflow = true;
        Ok(series)
    }

    fn find_or_insert(
        &self,
        metric: MetricId,
        labels: &str,
        shape: &(OwnedShape, u64),
        limited: bool,
    ) -> Result<Series, Error> {
        if labels.len() > entry::KEY_BYTES_MAX {
            let (bytes, bytes_max) = (labels.len(), entry::KEY_BYTES_MAX);
            return Err(Error::TooLarge { what: "label set", bytes, bytes_max });
        }
        let key = self.map().key(Kind::Series, metric.0, labels.as_bytes());
        let mut made = None;
        loop {
            let head = match self.map().find(&key) {
                Lookup::Found(block) => {
                    if block::publish(self.region(), block).state != block::LIVE {
                        // Removed since it was found: the next search takes it out of the chain.
                        continue;
                    }
                    self.discard(made);
                    return Ok(self.handle(block, metric, labels.len(), &shape.0, false));
                }
                Lookup::Missing(head) => head,
                Lookup::Corrupt => return Err(Error::Corrupt),
            };
            let block = match made {
                Some(block) => block,
                None if limited && self.is_at_limit(shape.1) => {
                    return self.overflow(metric, shape.1)
                }
                None => match self.new_series(metric, labels, &shape.0) {
                    Ok(block) => block,
                    Err(Error::Full { .. } | Error::Io { .. }) if limited => {
                        return self.overflow(metric, shape.1);
                    }
                    Err(error) => return Err(error),
                },
            };
            made = Some(block);
            if self.map().insert(&key, block, head) {
                block::publish(self.region(), block);
                if limited {
                    self.region().word(shape.1 + METRIC_SERIES).fetch_add(1, Ordering::Relaxed);
                    self.region().word(WORD_SERIES).fetch_add(1, Ordering::Relaxed);
                }
                return Ok(self.handle(block, metric, labels.len(), &shape.0, false));
            }
        }
    }

    fn new_series(&self, metric: MetricId, labels: &str, shape: &OwnedShape) -> Result<u64, Error> {
        let bytes = entry::cells(0, labels.len()) + shape.borrowed().cell_bytes();
        let (region, places, owner) = (self.region(), self.places(), self.claim.index);
        let block = block::claim(region, places, &self.cursor, owner, bytes, "series")?;
        let meta = Meta::new(Kind::Series, metric.0, labels.as_bytes());
        entry::write(region, block, meta, labels.as_bytes(), now_unix_ms());
        Ok(block)
    }

    fn is_at_limit(&self, payload: u64) -> bool {
        let options = &self.segment.inner.options;
        let of_metric = self.region().word(payload + METRIC_SERIES).load(Ordering::Relaxed);
        let of_all = self.region().word(WORD_SERIES).load(Ordering::Relaxed);
        of_metric >= options.metric_series_max.into() || of_all >= options.series_max.into()
    }

    #[cold]
    fn overflow(&self, metric: MetricId, payload: u64) -> Result<Series, Error> {
        self.region().word(WORD_OVERFLOWS).fetch_add(1, Ordering::Relaxed);
        self.region().word(payload + METRIC_OVERFLOWS).fetch_add(1, Ordering::Relaxed);
        self.overflow_series(metric)
    }

    /// Removes one series; `false` when there was none. Increments that race with it may be lost with it.
    pub fn remove(&self, metric: MetricId, labels: &str) -> bool {
        let _guard = self.enter();
        let key = self.map().key(Kind::Series, metric.0, labels.as_bytes());
        match self.map().find(&key) {
            Lookup::Found(block) => self.kill_now(block),
            _ => false,
        }
    }

    /// Declares a series dead, whether it is about to expire or not. Inside an epoch.
    fn kill_now(&self, block: u64) -> bool {
        // Twice at most changes the state under us without killing it: expiring, and live again.
        (0..8).any(|_| self.kill(block, block::state(self.region(), block)))
    }

    /// Declares a series dead if it is still in the state `state`. Inside an epoch.
    pub(crate) fn kill(&self, block: u64, state: State) -> bool {
        let mortal = matches!(state.state, block::LIVE | block::EXPIRING);
        if !mortal || !block::shift(self.region(), block, state, state.with(block::DEAD, 0)) {
            return false;
        }
        self.region().word(WORD_REMOVED).fetch_add(1, Ordering::Relaxed);
        self.region().word(WORD_PENDING).fetch_add(1, Ordering::Relaxed);
        let meta = entry::meta(self.region(), block);
        let payload = metric::payload(self.region(), entry::offset(meta.metric));
        if entry::key_is(self.region(), block, OVERFLOW_LABELS.as_bytes()) {
            if let Some(payload) = payload {
                self.region().word(payload + METRIC_OVERFLOWS).store(0, Ordering::Relaxed);
            }
        } else {
            self.count_off(WORD_SERIES);
            if let Some(payload) = payload {
                self.count_off(payload + METRIC_SERIES);
            }
        }
        let mut key = Vec::new();
        entry::read_bytes(self.region(), block + ENTRY_KEY, meta.key_len.into(), &mut key);
        // The walk takes it out of its chain.
        let _ = self.map().holds(&self.map().key(Kind::Series, meta.metric, &key), block);
        true
    }

    fn count_off(&self, word: u64) {
        let word = self.region().word(word);
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    /// Removes every series of a metric; gives how many there were.
    pub fn clear(&self, metric: MetricId) -> usize {
        let _guard = self.enter();
        let (region, places) = (self.region(), self.places());
        let overflows = metric::payload(region, entry::offset(metric.0))
            .map_or(0, |payload| region.word(payload + METRIC_OVERFLOWS).load(Ordering::Relaxed));
        let mut removed = 0;
        for index in 0..block::pages_committed(region, places) {
            let Some(page) = block::page(region, places, index) else { continue };
            for number in 0..blocks_in_page(page.class) {
                let block = places.page(index) + number * CLASSES[usize::from(page.class)];
                let state = block::state(region, block).state;
                let meta = entry::meta(region, block);
                let is_ours = matches!(state, block::LIVE | block::EXPIRING)
                    && meta.is(Kind::Series)
                    && meta.metric == metric.0;
                // The overflow series stays while nothing went there: later there may be no memory for it.
                let is_kept =
                    overflows == 0 && entry::key_is(region, block, OVERFLOW_LABELS.as_bytes());
                if is_ours && !is_kept && self.kill_now(block) {
                    removed += 1;
                }
            }
        }
        removed
    }

    /// Puts a sample or a member of a set into this writer's ring.
    #[inline]
    pub fn record(&self, s: &Series, kind: RecordKind, bits: u64) {
        if let Some(ring) = self.own_ring(1) {
            ring.push(s.id(), kind, now_unix_ms(), bits);
        }
    }

    /// Puts samples of one moment into this writer's ring.
    pub fn record_many(&self, s: &Series, values: &[f64]) {
        if let Some(ring) = self.own_ring(values.len() as u64) {
            ring.push_many(s.id(), RecordKind::Sample, now_unix_ms(), values);
        }
    }

    /// Puts a text into this writer's ring, cut to 4 KiB.
    pub fn event(&self, bytes: &[u8]) {
        if let Some(ring) = self.own_ring(1) {
            ring.push_event(now_unix_ms(), bytes);
        }
    }

    #[inline]
    fn own_ring(&self, records: u64) -> Option<crate::ring::Ring<'_>> {
        match self.segment.ring(self.claim.index) {
            Some(ring) => Some(ring),
            None => self.commit_ring(records),
        }
    }

    /// The first record of a slot: its ring gets memory, or the record is counted as refused.
    #[cold]
    fn commit_ring(&self, records: u64) -> Option<crate::ring::Ring<'_>> {
        let places = self.places();
        let slot = places.slot(self.claim.index);
        if self.is_guest() {
            self.region().word(slot + SLOT_RING_REFUSED).fetch_add(records, Ordering::Relaxed);
            return None;
        }
        let start = places.rings + u64::from(self.claim.index) * places.ring_bytes;
        match self.region().commit(start, places.ring_bytes) {
            Ok(()) => {
                self.region().word(slot + SLOT_RING).store(1, Ordering::Release);
                self.segment.ring(self.claim.index)
            }
            Err(_) => {
                self.region().word(slot + SLOT_RING_REFUSED).fetch_add(records, Ordering::Relaxed);
                None
            }
        }
    }
}
