//! A view: what is in a segment now, grouped by metric, for exposition.
//!
//! Collecting is one pass over the pages in memory order; it finds the places of series, not their values. Values are
//! read when a series is visited: first everything is copied, then the state word is compared again, so that a series
//! that was removed or whose memory was reused meanwhile is left out rather than shown wrong.
//!
//! Promised: every series that was there before the view was made and is still there is visited once; a histogram's count
//! and sum belong together; nothing waits for a writer, no writer waits for a view. Not promised: that values of
//! different series are of the same instant. Everything read is checked, since the segment may be another app's.

use crate::block::{self, EXPIRING, LIVE};
use crate::entry::{self, Kind};
use crate::layout::*;
use crate::metric::{self, GaugeMode, MetricMeta, OwnedShape};
use crate::octave;
use crate::parts;
use crate::region::Region;
use crate::segment::{Inner, Segment};
use crate::series::{lane_value, SeriesId};
use crate::sync::{fence, Ordering};
use crate::writer::Writer;
use std::collections::HashMap;

/// The value of one series, merged over all processes.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// The total is the sum of both.
    Counter {
        whole: u64,
        fraction: f64,
    },
    Gauge(f64),
    /// Process id and value, one for each process.
    GaugePerProcess(&'a [(u32, f64)]),
    /// Upper bound and count *in* each bucket, ascending; the last bound is +Inf. Exponential histograms give the buckets
    /// of the octaves that were ever touched.
    Histogram {
        count: u64,
        sum: f64,
        buckets: &'a [(f64, u64)],
    },
    Summary {
        count: u64,
        sum: f64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct SeriesView<'a> {
    pub id: SeriesId,
    /// Label text without braces, `a="x",b="y"`.
    pub labels: &'a [u8],
    pub created_unix_ms: u64,
    pub value: Value<'a>,
}

/// One metric and the places of its series.
pub struct FamilyView<'s> {
    inner: &'s Inner,
    meta: MetricMeta,
    series: Vec<(u64, u64)>,
}

pub struct View<'s> {
    families: Vec<FamilyView<'s>>,
}

#[derive(Default)]
struct Scratch {
    labels: Vec<u8>,
    buckets: Vec<(f64, u64)>,
    per_process: Vec<(u32, f64)>,
}

impl Segment {
    /// Collects what is live now.
    pub fn view(&self) -> View<'_> {
        let inner = &*self.inner;
        inner.region.refresh();
        let mut metrics: HashMap<u32, usize> = HashMap::new();
        let mut families: Vec<FamilyView<'_>> = Vec::new();
        let mut last = (0, usize::MAX);
        for_each_live(inner, |block, word| {
            let meta = entry::meta(&inner.region, block);
            if meta.is(Kind::Metric) {
                family_of(inner, entry::unit(block), &mut metrics, &mut families);
            } else if meta.is(Kind::Series) {
                if last.0 != meta.metric {
                    last =
                        (meta.metric, family_of(inner, meta.metric, &mut metrics, &mut families));
                }
                if let Some(family) = families.get_mut(last.1) {
                    family.series.push((block, word));
                }
            }
        });
        families.sort_by(|a, b| a.meta.name.cmp(&b.meta.name));
        View { families }
    }

    /// The metrics there are, sorted by name: a view without its series.
    pub fn metrics(&self) -> Vec<MetricMeta> {
        let inner = &*self.inner;
        inner.region.refresh();
        let mut metrics = Vec::new();
        for_each_live(inner, |block, word| {
            if (word >> 8) as u8 == LIVE && entry::meta(&inner.region, block).is(Kind::Metric) {
                metrics.extend(metric::read(&inner.region, block));
            }
        });
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics
    }
}

impl Writer {
    /// One metric and all of its series: a view of nothing else, by a pass over the whole segment.
    pub fn family(&self, name: &str) -> Option<FamilyView<'_>> {
        let (id, meta) = self.find_metric(name)?;
        let inner = &*self.segment().inner;
        inner.region.refresh();
        let mut series = Vec::new();
        for_each_live(inner, |block, word| {
            let meta = entry::meta(&inner.region, block);
            if meta.is(Kind::Series) && meta.metric == id.0 {
                series.push((block, word));
            }
        });
        Some(FamilyView { inner, meta, series })
    }

    /// One metric and its series with these label texts, each looked up by name.
    pub fn family_of(
        &self,
        name: &str,
        labels: impl Iterator<Item = String>,
    ) -> Option<FamilyView<'_>> {
        let (id, meta) = self.find_metric(name)?;
        let found = labels.filter_map(|labels| self.find(id, &labels));
        let series = found.map(|series| (series.entry, series.word)).collect();
        Some(FamilyView { inner: &self.segment().inner, meta, series })
    }
}

/// The index of the family of the metric at `unit`; out of range when there is no such metric.
fn family_of<'s>(
    inner: &'s Inner,
    unit: u32,
    metrics: &mut HashMap<u32, usize>,
    families: &mut Vec<FamilyView<'s>>,
) -> usize {
    *metrics.entry(unit).or_insert_with(|| {
        let block = entry::offset(unit);
        let live = block >= inner.places.blocks && block::state(&inner.region, block).state == LIVE;
        match metric::read(&inner.region, block).filter(|_| live) {
            Some(meta) => {
                families.push(FamilyView { inner, meta, series: Vec::new() });
                families.len() - 1
            }
            None => usize::MAX,
        }
    })
}

fn for_each_live(inner: &Inner, mut each: impl FnMut(u64, u64)) {
    for index in 0..block::pages_committed(&inner.region, &inner.places) {
        let Some(page) = block::page(&inner.region, &inner.places, index) else { continue };
        let size = CLASSES[usize::from(page.class)];
        if size < ENTRY_KEY {
            continue;
        }
        let start = inner.places.page(index);
        for number in 0..blocks_in_page(page.class) {
            let block = start + number * size;
            let word = inner.region.word(block).load(Ordering::Acquire);
            if matches!((word >> 8) as u8, LIVE | EXPIRING) {
                each(block, word);
            }
        }
    }
}

impl<'s> View<'s> {
    /// Sorted by name.
    pub fn families(&self) -> &[FamilyView<'s>] {
        &self.families
    }
}

impl FamilyView<'_> {
    pub fn meta(&self) -> &MetricMeta {
        &self.meta
    }

    pub fn len(&self) -> usize {
        self.series.len()
    }

    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Visits every series. The overflow series is left out while nothing went there.
    pub fn for_each(&self, each: &mut dyn FnMut(SeriesView<'_>)) {
        let mut scratch = Scratch::default();
        for &(block, word) in &self.series {
            self.visit(block, word, &mut scratch, each);
        }
    }

    fn visit(
        &self,
        block: u64,
        word: u64,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(SeriesView<'_>),
    ) {
        let region = &self.inner.region;
        let meta = entry::meta(region, block);
        let key_len = usize::from(meta.key_len);
        if key_len > entry::KEY_BYTES_MAX {
            return;
        }
        scratch.labels.clear();
        entry::read_bytes(region, block + ENTRY_KEY, key_len, &mut scratch.labels);
        let created_unix_ms = region.word(block + ENTRY_CREATED).load(Ordering::Relaxed);
        let cells = entry::cells(block, key_len);
        let reader = Reader { inner: self.inner, cells, extra: block + ENTRY_EXTRA };
        let Scratch { labels, buckets, per_process } = scratch;
        let value = reader.value(&self.meta.shape, buckets, per_process);
        // All that was read above was read before this word is.
        fence(Ordering::Acquire);
        let now = region.word(block).load(Ordering::Acquire);
        // Between live and expiring only the state byte differs: it is the same series.
        if now & !0xff00 != word & !0xff00 || !matches!((now >> 8) as u8, LIVE | EXPIRING) {
            return;
        }
        let untouched =
            labels == crate::writer::OVERFLOW_LABELS.as_bytes() && self.meta.overflows == 0;
        if !untouched {
            let id = SeriesId { offset: entry::unit(block), generation: (word >> 32) as u32 };
            each(SeriesView { id, labels, created_unix_ms, value });
        }
    }
}

/// Reads the cells of one series.
struct Reader<'a> {
    inner: &'a Inner,
    cells: u64,
    extra: u64,
}

impl Reader<'_> {
    fn region(&self) -> &Region {
        &self.inner.region
    }

    fn value<'v>(
        &self,
        shape: &OwnedShape,
        buckets: &'v mut Vec<(f64, u64)>,
        per_process: &'v mut Vec<(u32, f64)>,
    ) -> Value<'v> {
        match shape {
            OwnedShape::Counter => self.counter(),
            OwnedShape::Gauge(GaugeMode::MostRecent) => {
                Value::Gauge(f64::from_bits(self.region().word(self.cells).load(Ordering::Acquire)))
            }
            OwnedShape::Gauge(mode) => self.gauge(*mode, per_process),
            OwnedShape::Summary(_) => {
                let mut total = (0, 0.0);
                self.each_copy(|cells| add(&mut total, self.pair(cells)));
                Value::Summary { count: total.0, sum: total.1 }
            }
            OwnedShape::Explicit(bounds) => {
                let bounds = bounds.iter().copied().chain([f64::INFINITY]);
                buckets.clear();
                buckets.extend(bounds.map(|bound| (bound, 0)));
                let mut total = (0, 0.0);
                self.each_copy(|cells| {
                    for (index, bucket) in buckets.iter_mut().enumerate() {
                        let pair = self.pair(cells + index as u64 * 16);
                        bucket.1 = bucket.1.wrapping_add(pair.0);
                        add(&mut total, pair);
                    }
                });
                Value::Histogram { count: total.0, sum: total.1, buckets }
            }
            OwnedShape::Exponential { schema } => self.exponential(*schema, buckets),
        }
    }

    fn pair(&self, offset: u64) -> (u64, f64) {
        let (count, sum) = self.pair_bits(offset);
        (count, f64::from_bits(sum))
    }

    fn pair_bits(&self, offset: u64) -> (u64, u64) {
        let pair = self.region().pair(offset);
        if self.region().is_writable() {
            pair.load()
        } else {
            pair.load_counted()
        }
    }

    /// Visits the cells above and every writer's copy of them.
    fn each_copy(&self, mut each: impl FnMut(u64)) {
        each(self.cells);
        let lanes = parts::part(self.region(), self.extra);
        if lanes == 0 {
            return;
        }
        for lane in 0..LANES {
            let copy = parts::part(self.region(), lanes + lane * 8);
            if copy != 0 {
                each(copy);
            }
        }
    }

    fn counter(&self) -> Value<'static> {
        let cell = |offset| {
            let word = |offset| self.region().word(offset).load(Ordering::Acquire);
            (word(offset), f64::from_bits(word(offset + 8)))
        };
        let mut total = cell(self.cells);
        let lanes = parts::part(self.region(), self.extra);
        if lanes != 0 {
            (0..LANES).for_each(|lane| add(&mut total, cell(lanes + lane * LANE_BYTES)));
        }
        Value::Counter { whole: total.0, fraction: total.1 }
    }

    fn exponential<'v>(&self, schema: u8, buckets: &'v mut Vec<(f64, u64)>) -> Value<'v> {
        let size = 1_usize << schema;
        // Octave by octave, negative ones first and from the far end, so that bounds ascend.
        let mut octaves: Vec<Option<Vec<u64>>> = vec![None; 256];
        let (mut zero, mut over) = ((0, 0.0), (0, 0.0));
        let mut total = (0, 0.0);
        self.each_copy(|cells| {
            add(&mut zero, self.pair(cells + parts::EXPONENTIAL_ZERO));
            add(&mut over, self.pair(cells + parts::EXPONENTIAL_OVER));
            for (negative, group) in
                [false, true].into_iter().flat_map(|n| (0..16).map(move |g| (n, g)))
            {
                let side = if negative {
                    parts::part(self.region(), cells + parts::EXPONENTIAL_NEGATIVE)
                } else {
                    cells
                };
                if side == 0 || parts::part(self.region(), side + group * 8) == 0 {
                    continue;
                }
                for octave in group as usize * 8..group as usize * 8 + 8 {
                    let found = parts::octave_if_any(self.region(), cells, negative, octave);
                    let Some(body) = found else { continue };
                    let place = if negative { 127 - octave } else { 128 + octave };
                    let counts = octaves[place].get_or_insert_with(|| vec![0; size]);
                    for (index, count) in counts.iter_mut().enumerate() {
                        let pair = self.pair(body + index as u64 * 16);
                        *count = u64::wrapping_add(*count, pair.0);
                        add(&mut total, pair);
                    }
                }
            }
        });
        add(&mut total, zero);
        add(&mut total, over);
        buckets.clear();
        fill_buckets(&octaves, schema, zero.0, buckets);
        buckets.push((f64::INFINITY, over.0));
        Value::Histogram { count: total.0, sum: total.1, buckets }
    }

    fn gauge<'v>(&self, mode: GaugeMode, per_process: &'v mut Vec<(u32, f64)>) -> Value<'v> {
        per_process.clear();
        let (mut retired, mut latest) = (Vec::new(), (0, None));
        let table = parts::part(self.region(), self.extra);
        for slot in 0..self.inner.places.slots_max() {
            if table == 0 {
                break;
            }
            let group = parts::part(self.region(), table + slot / parts::GAUGE_SLOTS_IN_GROUP * 8);
            if group == 0 {
                continue;
            }
            let lane = group + slot % parts::GAUGE_SLOTS_IN_GROUP * parts::GAUGE_LANE_BYTES;
            let word = |offset| self.region().word(lane + offset).load(Ordering::Acquire);
            // Both at one moment: a new owner moves one into the other, and neither twice nor never may it be seen.
            let (left, value) = self.pair_bits(lane);
            retired.extend(lane_value(left));
            let Some(value) = lane_value(value) else { continue };
            let state = self.inner.places.slot(slot as u16);
            let owner = |offset| self.region().word(state + offset).load(Ordering::Acquire);
            let current = owner(SLOT_GENERATION) == word(16);
            if mode.is_live() && !(current && self.is_alive(slot as u16)) {
                continue;
            }
            if latest.1.is_none() || word(24) >= latest.0 {
                latest = (word(24), Some(value));
            }
            per_process.push((if current { owner(SLOT_PID) as u32 } else { 0 }, value));
        }
        let values = per_process.iter().map(|(_, value)| *value).chain(retired);
        use GaugeMode::*;
        match mode {
            All | LiveAll => Value::GaugePerProcess(per_process),
            Sum | LiveSum => Value::Gauge(values.sum()),
            Min | LiveMin => Value::Gauge(values.reduce(f64::min).unwrap_or(0.0)),
            Max | LiveMax => Value::Gauge(values.reduce(f64::max).unwrap_or(0.0)),
            MostRecent | LiveMostRecent => Value::Gauge(latest.1.unwrap_or(0.0)),
        }
    }

    fn is_alive(&self, slot: u16) -> bool {
        let Inner { region, places, probe, .. } = self.inner;
        crate::slot::is_alive(region, places, probe.as_ref(), slot)
    }
}

fn add(total: &mut (u64, f64), more: (u64, f64)) {
    total.0 = total.0.wrapping_add(more.0);
    total.1 += more.1;
    // Sums past the largest float are infinite from then on; those of both signs together are +Inf.
    if total.1.is_nan() {
        total.1 = f64::INFINITY;
    }
}

fn fill_buckets(
    octaves: &[Option<Vec<u64>>],
    schema: u8,
    zero: u64,
    buckets: &mut Vec<(f64, u64)>,
) {
    for (place, counts) in octaves.iter().enumerate() {
        if place == 128 && (zero > 0 || !buckets.is_empty()) {
            buckets.push((f64::exp2(f64::from(octave::OCTAVE_MIN)), zero));
        }
        let Some(counts) = counts else { continue };
        let negative = place < 128;
        let octave = if negative { 127 - place } else { place - 128 };
        for position in 0..counts.len() {
            let index = if negative { counts.len() - 1 - position } else { position };
            let (_, upper) = octave::bounds(negative, octave, index, schema);
            buckets.push((upper, counts[index]));
        }
    }
}
