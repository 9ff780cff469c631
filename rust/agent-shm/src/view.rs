//! A view: what is in a segment now, grouped by metric, for exposition.
//!
//! Collecting is one pass over the pages in memory order; it finds the places of series, not their values. Of several
//! metrics of one name the newest is shown (family.rs). Values are read when a series is visited (read.rs): first
//! everything is copied, then the state word is compared again, so that a series that was removed or whose memory was
//! reused meanwhile is left out rather than shown wrong.
//!
//! Promised: every series that was there before the view was made and is still there is visited once; a histogram's count
//! and sum belong together; nothing waits for a writer, no writer waits for a view. Not promised: that values of
//! different series are of the same instant. Everything read is checked, since the segment may be another app's.
//!
//! A name, label text or definition in which a bit has changed is left out and counted: the entry has a check of it. So it is neither
//! shown wrong nor a second time beside the series that it now looks like. Not promised against whoever writes a segment
//! on purpose; the reader of foreign segments checks more.

use crate::block::{self, State};
use crate::entry::{self, Kind, OVERFLOW_LABELS};
use crate::handle::SeriesId;
use crate::inner::Inner;
use crate::layout::*;
use crate::map::Map;
use crate::metric::{self, MetricMeta};
use crate::page::PageWord;
use crate::read::{self, Reader, Scratch};
use crate::segment::Segment;
use crate::slot::Liveness;
use crate::sync::{fence, Ordering};
use crate::value::Value;
use crate::writer::Writer;
use std::collections::HashMap;
use std::rc::Rc;

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
    liveness: Rc<Liveness<'s>>,
    pub(crate) meta: MetricMeta,
    series: Vec<(u64, u64)>,
    /// Of the segment that the view is of, not of one beside it.
    pub(crate) is_main: bool,
    /// What segments beside it have of the family; see join.rs.
    pub(crate) beside: Vec<FamilyView<'s>>,
}

pub struct View<'s> {
    pub(crate) families: Vec<FamilyView<'s>>,
    pub(crate) superseded: usize,
    pub(crate) damaged: u64,
}

impl Segment {
    /// Collects what is live now.
    pub fn view(&self) -> View<'_> {
        let own = View::collect(&self.inner, self.liveness());
        self.beside.iter().fold(own, |view, older| view.join(older.view()))
    }

    /// The metrics that a view shows, sorted by name: a view without its series.
    pub fn metrics(&self) -> Vec<MetricMeta> {
        let inner = &*self.inner;
        let mut newest: HashMap<String, MetricMeta> = HashMap::new();
        for_each_live(inner, |block, _| {
            if entry::meta(&inner.region, block).is(Kind::Metric) {
                let Some(meta) = read_metric(inner, block) else { return };
                let known = newest.get(&meta.name).map_or(0, |known| known.birth);
                if meta.birth >= known {
                    newest.insert(meta.name.clone(), meta);
                }
            }
        });
        for meta in self.beside.iter().flat_map(Segment::metrics) {
            newest.entry(meta.name.clone()).or_insert(meta);
        }
        let mut metrics: Vec<MetricMeta> = newest.into_values().collect();
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics
    }
}

impl Writer {
    /// As [`Segment::view`]; also where this process may not open the file again.
    pub fn view(&self) -> View<'_> {
        View::collect(&self.segment().inner, self.liveness())
    }

    /// One metric and all of its series: a view of nothing else, by a pass over the whole segment.
    pub fn family_by_name(&self, name: &str) -> Option<FamilyView<'_>> {
        let (id, meta) = self.find_metric(name)?;
        let inner = &*self.segment().inner;
        let mut series = Vec::new();
        for_each_live(inner, |block, word| {
            let meta = entry::meta(&inner.region, block);
            if meta.is(Kind::Series) && meta.metric == id.unit {
                series.push((block, word));
            }
        });
        Some(FamilyView::new(inner, Rc::new(self.liveness()), meta, series))
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
        let (inner, liveness) = (&*self.segment().inner, Rc::new(self.liveness()));
        Some(FamilyView::new(inner, liveness, meta, series))
    }
}

/// Visits every live entry; gives how many pages are damaged, whose blocks nobody can find.
fn for_each_live(inner: &Inner, mut each: impl FnMut(u64, u64)) -> u64 {
    let mut damaged = 0;
    let readable = inner.region.reach().saturating_sub(inner.places.blocks) / PAGE_BYTES;
    for index in 0..block::pages_committed(&inner.region, &inner.places).min(readable) {
        let page = match block::page_word_of(&inner.region, &inner.places, index) {
            PageWord::Class(page) => page,
            PageWord::NoClass => continue,
            PageWord::Damaged => {
                damaged += 1;
                continue;
            }
        };
        if CLASSES[usize::from(page.class)] < ENTRY_KEY {
            continue;
        }
        for block in block::blocks(&inner.places, index, page.class) {
            let word = inner.region.word(block).load(Ordering::Acquire);
            if State::of(word).is_some_and(State::is_live) {
                each(block, word);
            }
        }
    }
    damaged
}

/// A metric whose name and definition are those that it was made with.
fn read_metric(inner: &Inner, block: u64) -> Option<MetricMeta> {
    let meta = metric::read(&inner.region, block)?;
    let map = Map { region: &inner.region, places: &inner.places, hash_key: inner.sealed.key() };
    // Not by its check, which a metric that began anew has no more.
    let is_it = map.has_key(block, &map.key(Kind::Metric, 0, meta.name.as_bytes()))
        && metric::is_intact(&inner.region, block, &meta);
    is_it.then_some(meta)
}

/// Whether a block is what it was when its state word was read, so that what was read since is of it.
fn is_still(inner: &Inner, block: u64, word: u64) -> bool {
    // All that was read before was read before this word is.
    fence(Ordering::Acquire);
    let now = inner.region.word(block).load(Ordering::Acquire);
    let (Some(before), Some(now)) = (State::of(word), State::of(now)) else { return false };
    // Between live and expiring only the state differs: it is the same entry.
    now.is_live() && now.with(before.state, now.owner) == before
}

/// Whether a series that is of no metric is so because of a damaged header.
fn is_stray(inner: &Inner, block: u64, word: u64) -> bool {
    let meta = entry::meta(&inner.region, block);
    let mut labels = Vec::new();
    let key_len = usize::from(meta.key_len).min(entry::KEY_BYTES_MAX);
    entry::read_bytes(&inner.region, block + ENTRY_KEY, key_len, &mut labels);
    !entry::is_intact(&inner.region, block, meta, &labels) && is_still(inner, block, word)
}

impl<'s> View<'s> {
    fn collect(inner: &'s Inner, liveness: Liveness<'s>) -> View<'s> {
        let liveness = Rc::new(liveness);
        let mut by_unit: HashMap<u32, usize> = HashMap::new();
        let mut families: Vec<FamilyView<'_>> = Vec::new();
        // The family of the series before: they often stand together.
        let mut last = (0, usize::MAX);
        let (mut damaged, mut stray) = (0, 0);
        let mut family_of = |unit: u32, families: &mut Vec<FamilyView<'s>>| {
            *by_unit.entry(unit).or_insert_with(|| {
                let block = entry::offset(unit);
                if block < inner.places.blocks {
                    return usize::MAX;
                }
                let word = inner.region.word(block).load(Ordering::Acquire);
                let live = State::of(word).is_some_and(State::is_live);
                match read_metric(inner, block).filter(|_| live) {
                    None if live && is_still(inner, block, word) => {
                        damaged += u64::from(entry::meta(&inner.region, block).is(Kind::Metric));
                        usize::MAX
                    }
                    Some(meta) => {
                        let series = Vec::new();
                        families.push(FamilyView::new(inner, liveness.clone(), meta, series));
                        families.len() - 1
                    }
                    None => usize::MAX,
                }
            })
        };
        let damaged_pages = for_each_live(inner, |block, word| {
            let meta = entry::meta(&inner.region, block);
            if meta.is(Kind::Metric) {
                family_of(entry::unit(block), &mut families);
            } else if meta.is(Kind::Series) {
                if last.0 != meta.metric {
                    last = (meta.metric, family_of(meta.metric, &mut families));
                }
                match families.get_mut(last.1) {
                    Some(family) => family.series.push((block, word)),
                    None => stray += u64::from(is_stray(inner, block, word)),
                }
            }
        });
        let found = families.len();
        // The newest of each name first, then only that.
        families
            .sort_by(|a, b| a.meta.name.cmp(&b.meta.name).then(b.meta.birth.cmp(&a.meta.birth)));
        families.dedup_by(|later, first| later.meta.name == first.meta.name);
        let superseded = found - families.len();
        View { families, superseded, damaged: damaged + stray + damaged_pages }
    }

    /// Sorted by name.
    pub fn families(&self) -> &[FamilyView<'s>] {
        &self.families
    }

    /// Metrics that are not shown, because another definition of their name appeared later.
    pub fn superseded(&self) -> usize {
        self.superseded
    }

    /// Metrics whose name or definition is damaged, series that say that they are of something that is no metric, and
    /// pages of memory whose size class is damaged, with all that is in them.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }
}

impl<'s> FamilyView<'s> {
    fn new(
        inner: &'s Inner,
        liveness: Rc<Liveness<'s>>,
        meta: MetricMeta,
        series: Vec<(u64, u64)>,
    ) -> FamilyView<'s> {
        FamilyView { inner, liveness, meta, series, is_main: true, beside: Vec::new() }
    }

    pub fn meta(&self) -> &MetricMeta {
        &self.meta
    }

    /// Its series in the segment that the view is of, dead ones among them that died since.
    pub fn ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        self.series.iter().filter(|_| self.is_main).filter_map(|&(block, word)| {
            let generation = State::of(word)?.generation;
            Some(SeriesId { offset: entry::unit(block), generation })
        })
    }

    pub fn len(&self) -> usize {
        self.series.len() + self.beside.iter().map(FamilyView::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits every series; gives how many were left out because their label text or memory is damaged. The overflow
    /// series is left out while nothing went there.
    pub fn for_each(&self, each: &mut dyn FnMut(SeriesView<'_>)) -> u64 {
        match self.is_main && self.beside.is_empty() {
            true => self.for_each_read(&mut |series, _| each(series)),
            false => self.for_each_joined(each),
        }
    }

    /// As [`FamilyView::for_each`], with what reads more of the series.
    pub(crate) fn for_each_read(&self, each: &mut dyn FnMut(SeriesView<'_>, &Reader<'_>)) -> u64 {
        let mut scratch = Scratch::default();
        let mut damaged = 0;
        for &(block, word) in &self.series {
            damaged += u64::from(!self.visit(block, word, &mut scratch, each));
        }
        damaged
    }

    /// Whether its label text and memory are sound, or not looked at.
    fn visit(
        &self,
        block: u64,
        word: u64,
        scratch: &mut Scratch,
        each: &mut dyn FnMut(SeriesView<'_>, &Reader<'_>),
    ) -> bool {
        let region = &self.inner.region;
        let meta = entry::meta(region, block);
        let key_len = usize::from(meta.key_len);
        if key_len > entry::KEY_BYTES_MAX {
            return !is_still(self.inner, block, word);
        }
        scratch.labels.clear();
        entry::read_bytes(region, block + ENTRY_KEY, key_len, &mut scratch.labels);
        let created_unix_ms = entry::created_unix_ms(region, block);
        let cells = entry::cells(block, key_len);
        let (inner, liveness, extra) = (self.inner, &*self.liveness, block + ENTRY_EXTRA);
        let reader = Reader { inner, liveness, cells, extra };
        let Scratch { labels, buckets, per_process } = scratch;
        let needs = cells - block + metric::cell_bytes(&self.meta.shape.borrowed());
        // What is behind a block that is too small for the cells is of others, and a page of it could be of any length.
        if !read::is_within(region, &self.inner.places, block, needs) {
            return !is_still(self.inner, block, word);
        }
        let is_sound = entry::is_intact(region, block, meta, labels);
        let value = reader.value(&self.meta.shape, buckets, per_process);
        let (Some(before), true) = (State::of(word), is_still(self.inner, block, word)) else {
            return true;
        };
        if !is_sound {
            return false;
        }
        // A gauge of living processes, and none lives.
        let Some(value) = value else { return true };
        let untouched = labels == OVERFLOW_LABELS.as_bytes() && self.meta.overflows == 0;
        if !untouched {
            let id = SeriesId { offset: entry::unit(block), generation: before.generation };
            each(SeriesView { id, labels, created_unix_ms, value }, &reader);
        }
        true
    }
}
