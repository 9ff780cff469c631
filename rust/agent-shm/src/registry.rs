//! Metrics and series by name: found, or made now.
//!
//! [`Writer::metric`] is for segments whose definitions cannot change under a name (the collector's, where a type is a
//! matter of what was sent first). [`Writer::family`] is for programs, which are changed and started again: see
//! family.rs.

use crate::block::{self, Purpose};
use crate::clock::now_unix_ms;
use crate::entry::{self, Kind, Meta, OVERFLOW_LABELS};
use crate::error::Error;
use crate::handle::Series;
use crate::layout::*;
use crate::map::{Key, Lookup};
use crate::metric::{self, MetricId, MetricMeta, MetricSpec};
use crate::sync::Ordering;
use crate::writer::Writer;
use agent_metric::OwnedShape;
use std::rc::Rc;

impl Writer {
    /// The metric of that name, registered now if it is new.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it exists with another shape; [`Error::Full`] or [`Error::Io`] when there is no room.
    pub fn metric(&self, spec: &MetricSpec<'_>) -> Result<MetricId, Error> {
        let _guard = self.enter();
        let key = self.map().key(Kind::Metric, 0, spec.name.as_bytes());
        let mut made = None;
        loop {
            let (head, newest) = self.newest(&key)?;
            if let Some((block, meta)) = newest {
                self.discard(made);
                return self.known_metric(block, &meta, spec);
            }
            let block = match made {
                Some(block) => block,
                None => self.new_metric(spec, "")?,
            };
            made = Some(block);
            if self.map().insert(&key, block, head) {
                return Ok(self.declare_metric(block));
            }
        }
    }

    /// The metric of that name that counts, if there is one.
    pub fn find_metric(&self, name: &str) -> Option<(MetricId, MetricMeta)> {
        let _guard = self.enter();
        let key = self.map().key(Kind::Metric, 0, name.as_bytes());
        let (block, meta) = self.newest(&key).ok()?.1?;
        Some((self.metric_id(block), meta))
    }

    /// The value of the chain's head when the search began, and of the metrics of this key the one that counts.
    fn newest(&self, key: &Key<'_>) -> Result<(u64, Option<(u64, MetricMeta)>), Error> {
        let mut newest: Option<(u64, MetricMeta)> = None;
        let head = self.map().each(key, |block| {
            let Some(meta) = metric::read(self.region(), block) else { return };
            if newest.as_ref().is_none_or(|(_, known)| known.birth < meta.birth) {
                newest = Some((block, meta));
            }
        });
        Ok((head.ok_or_else(|| self.corrupt())?, newest))
    }

    /// Notes for everybody that the links of the segment are damaged: those that come later begin beside it.
    #[cold]
    pub(crate) fn corrupt(&self) -> Error {
        self.region().word(WORD_DAMAGED).store(DAMAGED, Ordering::Release);
        Error::Corrupt
    }

    pub(crate) fn metric_id(&self, block: u64) -> MetricId {
        let generation = block::state(self.region(), block).generation;
        MetricId { unit: entry::unit(block), generation }
    }

    /// A block with the metric in it that nobody else can see yet.
    pub(crate) fn new_metric(
        &self,
        spec: &MetricSpec<'_>,
        label_names: &str,
    ) -> Result<u64, Error> {
        let metrics_max = u64::from(self.segment().inner.options.metrics_max);
        if self.region().word(WORD_METRICS).load(Ordering::Relaxed) >= metrics_max {
            self.pace.refuse();
            return Err(Error::Full { what: "metrics_max" });
        }
        let bytes = metric::block_bytes(spec, label_names)?;
        let block = self.claimer().claim(bytes, METRIC)?;
        let birth = self.region().word(WORD_BIRTHS).fetch_add(1, Ordering::AcqRel) + 1;
        metric::write(self.region(), block, spec, label_names, birth, now_unix_ms());
        Ok(block)
    }

    /// Of a metric that hangs in its chain now.
    pub(crate) fn declare_metric(&self, block: u64) -> MetricId {
        block::publish(self.region(), block);
        self.region().word(WORD_METRICS).fetch_add(1, Ordering::Relaxed);
        let id = self.metric_id(block);
        // Now, while there is memory: later, when a limit is reached, there may be none.
        let _ = self.overflow_series(id);
        id
    }

    fn known_metric(
        &self,
        block: u64,
        meta: &MetricMeta,
        spec: &MetricSpec<'_>,
    ) -> Result<MetricId, Error> {
        if meta.shape.borrowed() == spec.shape {
            let id = self.metric_id(block);
            // Who registered it may have been killed before it had one.
            let _ = self.overflow_series(id);
            return Ok(id);
        }
        let (existing, wanted) = (meta.shape.borrowed().told(), spec.shape.told());
        Err(Error::Conflict { name: spec.name.into(), existing, wanted })
    }

    /// Gives back a block that was filled in for nothing.
    pub(crate) fn discard(&self, made: Option<u64>) {
        if let Some(block) = made {
            let state = block::state(self.region(), block);
            block::free(self.region(), self.places(), block, state);
        }
    }

    /// Shape and payload of a metric that is still there. Inside an epoch.
    ///
    /// # Errors
    /// [`Error::Replaced`] when it is gone or going.
    pub(crate) fn shape(&self, metric: MetricId) -> Result<Rc<(OwnedShape, u64)>, Error> {
        let block = entry::offset(metric.unit);
        let state = block::state(self.region(), block);
        if !state.is_live() || state.generation != metric.generation {
            self.shapes.borrow_mut().remove(&metric);
            return Err(Error::Replaced);
        }
        let known = self.shapes.borrow().get(&metric).cloned();
        let shape = match known {
            Some(known) => known,
            None => {
                let meta = metric::read(self.region(), block).ok_or(Error::Corrupt)?;
                let payload = metric::payload(self.region(), block).ok_or(Error::Corrupt)?;
                let shape = Rc::new((meta.shape, payload));
                self.shapes.borrow_mut().insert(metric, shape.clone());
                shape
            }
        };
        let word = self.region().word(shape.1 + METRIC_REPLACED).load(Ordering::Acquire);
        match metric::is_replaced(word) {
            true => Err(Error::Replaced),
            false => Ok(shape),
        }
    }

    /// The series of `metric` with these labels, made now if it is new. `labels` is canonical text, `a="x",b="y"`, the
    /// same bytes for the same label set. At a limit it is the overflow series of the metric.
    ///
    /// # Errors
    /// [`Error::Replaced`] when the metric began anew: get it again by its definition.
    pub fn series(&self, metric: MetricId, labels: &str) -> Result<Series, Error> {
        self.reclaim_if_due();
        let _guard = self.enter();
        let shape = self.shape(metric)?;
        self.find_or_insert(metric, labels, &shape, true)
    }

    /// The series with these labels if there is one.
    pub fn find(&self, metric: MetricId, labels: &str) -> Option<Series> {
        let _guard = self.enter();
        let shape = self.shape(metric).ok()?;
        let key = self.map().key(Kind::Series, metric.unit, labels.as_bytes());
        match self.map().find(&key) {
            Lookup::Found(block) => Some(self.handle(block, metric, labels.len(), &shape.0, false)),
            _ => None,
        }
    }

    pub(crate) fn overflow_series(&self, metric: MetricId) -> Result<Series, Error> {
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
        let key = self.map().key(Kind::Series, metric.unit, labels.as_bytes());
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
                Lookup::Corrupt => return Err(self.corrupt()),
            };
            let block = match made {
                Some(block) => block,
                None if limited && self.is_at_limit(shape.1) => {
                    self.pace.refuse();
                    return self.overflow(metric, shape.1);
                }
                None => match self.new_series(metric, labels, &shape.0) {
                    Ok(block) => block,
                    Err(Error::Full { .. } | Error::Io { .. }) if limited => {
                        self.pace.miss();
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
        let bytes = entry::cells(0, labels.len()) + metric::cell_bytes(&shape.borrowed());
        let block = self.claimer().claim(bytes, SERIES)?;
        let meta = Meta::new(Kind::Series, metric.unit, labels.as_bytes());
        entry::write(self.region(), block, meta, labels.as_bytes(), now_unix_ms());
        // Used now, as far as expire.rs is concerned.
        let used = self.seen.get() << 32;
        self.region().word(block + ENTRY_EXTRA).store(used, Ordering::Relaxed);
        Ok(block)
    }

    /// Says that label sets went to the overflow series, so that pages show it.
    pub fn note_overflow(&self, metric: MetricId) {
        let _guard = self.enter();
        if let Ok(shape) = self.shape(metric) {
            self.region().word(shape.1 + METRIC_OVERFLOWS).fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_at_limit(&self, payload: u64) -> bool {
        let options = &self.segment().inner.options;
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
}

const METRIC: Purpose = Purpose { state: block::CLAIMED, what: "metric" };
const SERIES: Purpose = Purpose { state: block::CLAIMED, what: "series" };
