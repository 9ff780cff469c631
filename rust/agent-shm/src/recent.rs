//! The newest values of a summary, from which its quantiles are computed.
//!
//! Each copy of a summary's cells (the first, and the stripes of a hot one) keeps its newest values beside count and sum:
//!
//! ```text
//! cells    table | - | {count, sum}
//! table    32 pointers, to chunks of 64 pairs        pair    {unix ms (42) | number (22), f64 bits}
//! ```
//!
//! The count before an observation is the *number* of its value, and the number says where the pair stands. So there is
//! no cursor to write; a process killed between the two leaves out one value, and whoever reads finds a number missing.
//! A pair changes in one step and never back to an older number, whichever process comes late.
//!
//! The last 64 values depend on no other metric: the first chunk is memory of the series like its cells, so they are there
//! as soon as the series is. More chunks come as values do, up to 2,048 values a copy, while those of
//! all series together take less than a quarter of the segment's memory; beyond that a value goes into the first chunk.
//!
//! Any number of readers: each has its own cursor and counts exactly what was overwritten before it came. A value whose
//! number was taken and which is not there yet is waited for until the next look, when it is one of the last 64, and then
//! lost.
//!
//! Not promised: values in the order in which they were observed.

use crate::block;
use crate::cells::observe_sum;
use crate::clock::now_unix_ms;
use crate::entry;
use crate::handle::{Series, SeriesId};
use crate::layout::*;
use crate::metric;
use crate::parts::{self, Form};
use crate::read::Reader;
use crate::ring::Drained;
use crate::segment::Segment;
use crate::sync::{fence, Ordering};
use crate::writer::Writer;
use std::collections::HashSet;

const NUMBER_BITS: u32 = 22;
const NUMBERS: u64 = 1 << NUMBER_BITS;
/// Values that may be on their way: those before are lost.
const WAITED_FOR: u64 = 64;
/// How late a value may come. A pair that is older is not newer, whatever its number says: the numbers of a series jump when
/// millions that were counted elsewhere are added at once.
const LATE_MS: u64 = 1000;
const TABLE: Form = Form::pointers(RECENT_MAX / RECENT_IN_CHUNK);
const CHUNK: Form = Form::cells(RECENT_IN_CHUNK * 16);

impl Writer {
    /// Not inlined: the way of a histogram stays short.
    #[inline(never)]
    pub(crate) fn observe_summary(&self, s: &Series, keeps: bool, value: f64, n: u64) {
        let own = s.own.get();
        let total = if n == 1 { value } else { value * n as f64 };
        // Before the number is taken: who is stopped in between comes late by both.
        let now = if keeps { now_unix_ms() } else { 0 };
        let counts = observe_sum(self.region().pair(own + SUMMARY_PAIR), n, total);
        if keeps && n > 0 {
            self.keep(own, counts.1.wrapping_sub(1), now, value);
        }
        self.stripe_if_hot(s, counts);
    }

    /// As many values at once: the newest of them are kept.
    pub(crate) fn many_summary(&self, s: &Series, keeps: bool, values: &[f64]) {
        let own = s.own.get();
        let (n, sum) = (values.len() as u64, values.iter().sum());
        let now = now_unix_ms();
        let counts = observe_sum(self.region().pair(own + SUMMARY_PAIR), n, sum);
        if keeps {
            let kept = self.segment().inner.options.recent_max() as usize;
            // In parts, so that no pair falls behind by so many numbers that it looks newer than what comes.
            for (part, values) in values.chunks(NUMBERS as usize / 4).enumerate() {
                let first = counts.0 + part as u64 * (NUMBERS / 4);
                let skipped = values.len().saturating_sub(kept);
                for (number, &value) in (first + skipped as u64..).zip(&values[skipped..]) {
                    self.keep(own, number, now, value);
                }
            }
        }
        self.stripe_if_hot(s, counts);
    }

    /// Values that were counted elsewhere, and the newest of them with their times. Inside an epoch.
    pub(crate) fn absorb_summary(
        &self,
        s: &Series,
        keeps: bool,
        n: u64,
        sum: f64,
        recent: &[(u64, f64)],
    ) {
        let own = s.own.get();
        let counts = observe_sum(self.region().pair(own + SUMMARY_PAIR), n, sum);
        if keeps {
            let first = counts.1.wrapping_sub(recent.len() as u64);
            for (number, &(unix_ms, value)) in (first..).zip(recent) {
                self.keep(own, number, unix_ms, value);
            }
        }
        self.stripe_if_hot(s, counts);
    }

    /// Inside an epoch.
    #[inline]
    fn keep(&self, own: u64, number: u64, unix_ms: u64, value: f64) {
        let index = number & u64::from(self.segment().inner.options.recent_max() - 1);
        let chunk = match parts::part(self.region(), own) {
            0 => 0,
            table => parts::part(self.region(), table + index / RECENT_IN_CHUNK * 8),
        };
        let chunk = if chunk == 0 { self.new_chunk(own, index, unix_ms) } else { chunk };
        if chunk == 0 {
            return;
        }
        let key = unix_ms << NUMBER_BITS | (number % NUMBERS);
        let pair = self.region().pair(chunk + index % RECENT_IN_CHUNK * 16);
        pair.update(|old, bits| {
            let ahead = old.wrapping_sub(number) % NUMBERS;
            let is_newer = old != 0
                && ahead != 0
                && ahead < NUMBERS / 2
                && (old >> NUMBER_BITS) + LATE_MS > unix_ms;
            if is_newer {
                (old, bits)
            } else {
                (key, value.to_bits())
            }
        });
    }

    /// The chunk of a place that has none yet, or the one that takes its values; 0 when there is no memory at all.
    #[cold]
    fn new_chunk(&self, own: u64, index: u64, unix_ms: u64) -> u64 {
        let region = self.region();
        let claimer = self.claimer();
        let is_out = self.recent_refused_s.get() == unix_ms / 1000;
        let refused = |_| {
            // To look for memory takes longer the less there is: once a second is enough.
            self.recent_refused_s.set(unix_ms / 1000);
            region.word(WORD_REFUSED).fetch_add(1, Ordering::Relaxed);
        };
        let known = parts::part(region, own);
        if is_out && known == 0 {
            return 0;
        }
        let Ok(table) = claimer.part_or_new(own, TABLE).map_err(refused) else { return 0 };
        let number = index / RECENT_IN_CHUNK;
        if number > 0 && !is_out && self.may_keep_more() {
            let link = table + number * 8;
            let form = Form { flag: PART_IS_RECENT, ..CHUNK };
            if let Ok(chunk) = claimer.part_or_new(link, form) {
                return chunk;
            }
            self.recent_refused_s.set(unix_ms / 1000);
        }
        match parts::part(region, table) {
            0 if is_out => 0,
            0 => claimer.part_or_new(table, CHUNK).map_err(refused).unwrap_or(0),
            first => first,
        }
    }

    fn may_keep_more(&self) -> bool {
        let chunks = self.region().word(WORD_RECENT).load(Ordering::Relaxed);
        chunks.saturating_mul(RECENT_IN_CHUNK * 16) < self.segment().inner.options.bytes_max / 4
    }
}

/// What one reader has seen of the newest values of one series.
pub struct RecentReader {
    /// Of the first cells and of each stripe: the first number that was not there at the last look.
    next: [u64; 1 + STRIPES as usize],
    /// Numbers that were taken at the last look, and their values not there.
    missing: HashSet<(usize, u64)>,
    /// Whether what was overwritten before the first look is lost.
    is_late: bool,
}

impl RecentReader {
    /// For a series that is as old as its reader: everything that is not there any more is lost.
    pub fn from_birth() -> RecentReader {
        RecentReader { next: [0; 1 + STRIPES as usize], missing: HashSet::new(), is_late: false }
    }

    /// Begins with what is there.
    pub fn from_oldest() -> RecentReader {
        RecentReader { is_late: true, ..RecentReader::from_birth() }
    }
}

/// One copy of a summary's cells, as it was found.
struct Copy {
    place: usize,
    count: u64,
    /// Number, time and value.
    values: Vec<(u64, u64, f64)>,
}

impl Segment {
    /// Gives the values of a summary that are new to the reader, each with its time; nothing when the series is gone.
    pub fn recent(
        &self,
        id: SeriesId,
        reader: &mut RecentReader,
        each: impl FnMut(u64, f64),
    ) -> Option<Drained> {
        let (inner, block) = (&*self.inner, entry::offset(id.offset));
        let meta = entry::meta(&inner.region, block);
        if !meta.is(entry::Kind::Series) || usize::from(meta.key_len) > entry::KEY_BYTES_MAX {
            return None;
        }
        let liveness = self.liveness();
        let (cells, extra) = (entry::cells(block, meta.key_len.into()), block + ENTRY_EXTRA);
        Reader { inner, liveness: &liveness, cells, extra }.recent(id, reader, each)
    }
}

impl Reader<'_> {
    /// As [`Segment::recent`].
    pub(crate) fn recent(
        &self,
        id: SeriesId,
        reader: &mut RecentReader,
        mut each: impl FnMut(u64, f64),
    ) -> Option<Drained> {
        let kept = u64::from(self.inner.options.recent_max());
        let copies = self.copies(id, &reader.next, !reader.missing.is_empty())?;
        let was_missing = std::mem::take(&mut reader.missing);
        let (mut drained, mut came_late) = (Drained::default(), 0);
        for Copy { place, count, values } in copies {
            let next = reader.next[place].min(count);
            let oldest = next.max(count.saturating_sub(kept));
            let mut lost = oldest - next;
            let mut is_there = vec![false; (count - oldest) as usize];
            for (number, unix_ms, value) in values {
                let is_late = was_missing.contains(&(place, number));
                if number >= oldest {
                    is_there[(number - oldest) as usize] = true;
                } else if !is_late {
                    continue;
                }
                came_late += u64::from(is_late);
                drained.read += 1;
                each(unix_ms, value);
            }
            for (number, _) in (oldest..count).zip(is_there).filter(|(_, is_there)| !is_there) {
                if number + WAITED_FOR >= count {
                    reader.missing.insert((place, number));
                } else {
                    lost += 1;
                }
            }
            reader.next[place] = count;
            // A count that somebody made up may be anything.
            drained.lost = drained.lost.saturating_add(lost);
        }
        drained.lost = drained.lost.saturating_add(was_missing.len() as u64 - came_late);
        if std::mem::take(&mut reader.is_late) {
            // What a first look misses was lost to others, or comes to us late.
            drained.lost = 0;
            reader.missing.clear();
        }
        Some(drained)
    }

    /// The copies with something new, or all of them; nothing when the series is gone, or no summary.
    fn copies(&self, id: SeriesId, seen: &[u64], all: bool) -> Option<Vec<Copy>> {
        let (region, block) = (&self.inner.region, entry::offset(id.offset));
        let is_it = || {
            let state = block::state(region, block);
            state.is_live() && state.generation == id.generation
        };
        let metric = entry::offset(entry::meta(region, block).metric);
        let payload = metric::payload(region, metric)?;
        if !is_it() || !metric::is_summary(region, payload) {
            return None;
        }
        let mut copies = Vec::new();
        self.each_copy(|place, cells| {
            let (count, _) = self.pair_bits(cells + SUMMARY_PAIR);
            if all || count != seen[place] {
                copies.push(read_copy(self, place, cells, count));
            }
        });
        // All that was read above was read before this word is.
        fence(Ordering::Acquire);
        is_it().then_some(copies)
    }
}

fn read_copy(reader: &Reader<'_>, place: usize, cells: u64, count: u64) -> Copy {
    let kept = u64::from(reader.inner.options.recent_max());
    let mut values = Vec::new();
    let table = reader.part(cells);
    let chunks = if table == 0 { 0 } else { kept.div_ceil(RECENT_IN_CHUNK) };
    for chunk in (0..chunks).map(|chunk| reader.part(table + chunk * 8)).filter(|&chunk| chunk != 0)
    {
        for index in 0..RECENT_IN_CHUNK {
            let (key, bits) = reader.pair_bits(chunk + index * 16);
            // How far the number is behind the last one that was taken; of one taken since, far too much.
            let behind = count.wrapping_sub(1).wrapping_sub(key) % NUMBERS;
            if key != 0 && behind < kept && behind < count {
                values.push((count - 1 - behind, key >> NUMBER_BITS, f64::from_bits(bits)));
            }
        }
    }
    Copy { place, count, values }
}
