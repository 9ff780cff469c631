//! A segment: one mapped file of one app. Making it, opening it, and what stands in its header.
//!
//! Opening is a race that everybody survives: a new file is filled in under another name and *linked* to its own, which
//! fails when somebody was faster, whose file is then opened. A file of an earlier boot, one that was left half made, or
//! one that contradicts itself is replaced by whoever gets the lock on its replace byte (file.rs). Attaching says at which
//! stage it failed and why.
//!
//! Lifetime of the numbers: as long as the file. They survive the death of every process; a reboot, a new layout version
//! (another file name) or the removal of the file begins anew, all series at once, and `created_unix_ms` says when. A
//! definition that changes begins anew alone (family.rs).

use crate::error::Error;
use crate::layout::*;
use crate::metric::{self, MetricMeta};
use crate::region::Region;
use crate::ring::{self, Drained, Entry, Ring};
use crate::series::SeriesId;
use crate::slot::{self, Liveness, SlotInfo};
#[cfg(not(loom))]
use crate::sync::Pair;
use crate::sync::{fence, Ordering};
use crate::{block, entry};
use std::path::Path;
use std::sync::Arc;

pub(crate) struct Inner {
    pub region: Region,
    pub places: Places,
    pub options: Options,
}

/// A segment mapped into this process. Cheap to clone.
#[derive(Clone)]
pub struct Segment {
    pub(crate) inner: Arc<Inner>,
}

/// What stands in the header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub app: String,
    pub layout_version: u32,
    pub boot_id: u128,
    pub created_unix_ms: u64,
    pub options: Options,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub series: u64,
    pub metrics: u64,
    /// Memory of blocks that exists, and may exist at most.
    pub bytes_committed: u64,
    pub bytes_max: u64,
    /// Address space of the whole segment, mostly holes.
    pub bytes_reserved: u64,
    pub overflows: u64,
    pub removed: u64,
    pub refused: u64,
    pub pending: u64,
    /// Accesses that a corrupt offset sent outside of the mapping.
    pub damage: u64,
    /// Metrics of processes that went to private memory, for want of room here.
    pub fallbacks: u64,
}

impl Segment {
    /// Opens the segment at `path` for writing, making it when there is none.
    ///
    /// # Errors
    /// When the directory or file cannot be used, belongs to another user, is of another layout, or memory for it
    /// cannot be had. The caller falls back to [`Segment::anonymous`].
    #[cfg(not(loom))]
    pub fn open_or_create(path: &Path, app: &str, options: &Options) -> Result<Segment, Error> {
        if !Pair::is_lock_free() {
            return Err(Error::NoWideAtomics);
        }
        crate::file::open_or_create(path, app, options)
    }

    /// Attaches an existing segment for reading.
    #[cfg(not(loom))]
    pub fn attach(path: &Path) -> Result<Segment, Error> {
        crate::file::attach(path)
    }

    /// A segment in anonymous memory, for when there is no place for a file.
    ///
    /// # Errors
    /// When there is not enough address space either.
    pub fn anonymous(app: &str, options: &Options) -> Result<Segment, Error> {
        let options = options.clamped();
        let places = Places::of(&options);
        let region = Region::anonymous(&places)?;
        format(&region, app, &options, 0, [1, 2]);
        Ok(Segment { inner: Arc::new(Inner { region, places, options }) })
    }

    /// As [`Segment::anonymous`], for tests.
    ///
    /// # Panics
    /// When there is not enough address space.
    pub fn private(app: &str, options: &Options) -> Segment {
        Segment::anonymous(app, options).unwrap_or_else(|error| panic!("{error}"))
    }

    #[cfg(not(loom))]
    pub(crate) fn from_region(region: Region, options: Options) -> Segment {
        let places = Places::of(&options);
        Segment { inner: Arc::new(Inner { region, places, options }) }
    }

    pub fn header(&self) -> Header {
        header(&self.inner.region)
    }

    pub fn path(&self) -> &Path {
        self.inner.region.path()
    }

    /// Device and inode of the file; nothing for private memory.
    pub fn file_id(&self) -> Option<(u64, u64)> {
        self.inner.region.file_id()
    }

    /// Whether pages of the file were gone when they were touched: what is read since is not to be believed, and what
    /// is written is seen by nobody else.
    pub fn was_hit(&self) -> bool {
        self.inner.region.was_hit()
    }

    /// Whether such a loss is survived; false when this process has too many segments mapped.
    pub fn is_guarded(&self) -> bool {
        self.inner.region.is_guarded()
    }

    /// Whether the path still leads to the mapped file; nothing when it cannot be told (no permission).
    #[cfg(not(loom))]
    pub fn is_in_place(&self) -> Option<bool> {
        let region = &self.inner.region;
        region.file_id().map_or(Some(true), |id| crate::lock::leads_to(region.path(), id))
    }

    /// Definitions that ever appeared in it: grows when a program comes with one that is new.
    pub fn births(&self) -> u64 {
        self.inner.region.word(WORD_BIRTHS).load(Ordering::Acquire)
    }

    /// Says on the page that a metric of some process went to private memory.
    pub fn count_fallback(&self) {
        if self.inner.region.is_writable() {
            self.inner.region.word(WORD_FALLBACKS).fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn usage(&self) -> Usage {
        let region = &self.inner.region;
        let word = |offset| region.word(offset).load(Ordering::Relaxed);
        Usage {
            series: word(WORD_SERIES),
            metrics: word(WORD_METRICS),
            bytes_committed: block::pages_committed(region, &self.inner.places) * PAGE_BYTES,
            bytes_max: self.inner.options.bytes_max,
            bytes_reserved: self.inner.places.total,
            overflows: word(WORD_OVERFLOWS),
            removed: word(WORD_REMOVED),
            refused: word(WORD_REFUSED),
            pending: word(WORD_PENDING),
            damage: region.damage(),
            fallbacks: word(WORD_FALLBACKS),
        }
    }

    /// Slots that were used at least once.
    pub fn slots(&self) -> Vec<SlotInfo> {
        let liveness = self.liveness();
        (0..self.slots_used()).map(|index| slot::info(&self.inner, &liveness, index)).collect()
    }

    /// Whether any writer lives, this process's own included.
    pub fn is_in_use(&self) -> bool {
        let liveness = self.liveness();
        (0..self.slots_used()).any(|index| liveness.slot_is_alive(index))
    }

    pub(crate) fn liveness(&self) -> Liveness<'_> {
        Liveness::new(&self.inner, None)
    }

    pub fn slots_used(&self) -> u16 {
        let used = self.inner.region.word(WORD_SLOTS_USED).load(Ordering::Acquire);
        used.min(u64::from(self.inner.options.slots_max)) as u16
    }

    pub fn slot_is_alive(&self, index: u16) -> bool {
        self.liveness().slot_is_alive(index)
    }

    pub(crate) fn ring(&self, index: u16) -> Option<Ring<'_>> {
        let Inner { region, places, options, .. } = &*self.inner;
        let slot = places.slot(index);
        let start = places.rings + u64::from(index) * places.ring_bytes;
        let there =
            index < options.slots_max && region.word(slot + SLOT_RING).load(Ordering::Acquire) == 1;
        there.then_some(Ring { region, slot, start, cells: u64::from(options.ring_records) })
    }

    /// A cursor into the ring of a slot, at its oldest record; nothing while the slot never wrote one.
    pub fn ring_reader(&self, slot: u16) -> Option<RingReader> {
        let ring = self.ring(slot)?;
        let cursor = ring::RingReader::new(&ring);
        Some(RingReader { segment: self.clone(), slot, cursor })
    }

    /// The metric and the label text behind a series of a ring record; nothing when it was removed.
    pub fn describe(&self, id: SeriesId) -> Option<(MetricMeta, String)> {
        let region = &self.inner.region;
        let block = entry::offset(id.offset);
        let is_it = || {
            fence(Ordering::Acquire);
            let state = block::state(region, block);
            state.is_live() && state.generation == id.generation
        };
        let meta = entry::meta(region, block);
        if !is_it() || !meta.is(entry::Kind::Series) {
            return None;
        }
        let mut labels = Vec::with_capacity(usize::from(meta.key_len) + 8);
        entry::read_bytes(region, block + ENTRY_KEY, meta.key_len.into(), &mut labels);
        let metric = metric::read(region, entry::offset(meta.metric))?;
        let labels = String::from_utf8(labels).ok()?;
        is_it().then_some((metric, labels))
    }
}

/// A reader's place in the ring of one slot.
pub struct RingReader {
    segment: Segment,
    slot: u16,
    cursor: ring::RingReader,
}

impl RingReader {
    pub fn slot(&self) -> u16 {
        self.slot
    }

    /// Gives every record since the last call, oldest first, at most a ring full; counts what was overwritten before.
    pub fn drain(&mut self, each: impl FnMut(Entry<'_>)) -> Drained {
        match self.segment.ring(self.slot) {
            Some(ring) => self.cursor.drain(&ring, each),
            None => Drained::default(),
        }
    }
}

/// Writes the header of a new segment. The magic word comes last: before it, nobody takes the file for a segment.
pub(crate) fn format(region: &Region, app: &str, options: &Options, boot_id: u128, key: [u64; 2]) {
    let put = |offset, value| region.word(offset).store(value, Ordering::Relaxed);
    put(WORD_LAYOUT, u64::from(LAYOUT_VERSION) << 32 | u64::from(layout_hash()));
    put(WORD_BOOT, boot_id as u64);
    put(WORD_BOOT + 8, (boot_id >> 64) as u64);
    put(WORD_KEY, key[0]);
    put(WORD_KEY + 8, key[1]);
    put(WORD_CREATED, now_unix_ms());
    put(
        WORD_SERIES_MAX,
        u64::from(options.series_max) << 32 | u64::from(options.metric_series_max),
    );
    put(WORD_METRICS_MAX, u64::from(options.metrics_max) << 32 | u64::from(options.slots_max));
    put(WORD_RING_RECORDS, options.ring_records.into());
    put(WORD_BYTES_MAX, options.bytes_max);
    put(WORD_EPOCH, 1);
    let mut name = app.as_bytes();
    while name.len() as u64 > APP_BYTES_MAX {
        name = &name[..name.len() - 1];
    }
    put(WORD_APP_LEN, name.len() as u64);
    entry::write_bytes(region, APP_START, name);
    region.word(WORD_MAGIC).store(MAGIC, Ordering::Release);
}

pub(crate) fn header(region: &Region) -> Header {
    let word = |offset| region.word(offset).load(Ordering::Acquire);
    let mut app = Vec::new();
    let len = word(WORD_APP_LEN).min(APP_BYTES_MAX) as usize;
    entry::read_bytes(region, APP_START, len, &mut app);
    Header {
        app: String::from_utf8_lossy(&app).into_owned(),
        layout_version: (word(WORD_LAYOUT) >> 32) as u32,
        boot_id: u128::from(word(WORD_BOOT + 8)) << 64 | u128::from(word(WORD_BOOT)),
        created_unix_ms: word(WORD_CREATED),
        options: Options {
            series_max: (word(WORD_SERIES_MAX) >> 32) as u32,
            metric_series_max: word(WORD_SERIES_MAX) as u32,
            metrics_max: (word(WORD_METRICS_MAX) >> 32) as u32,
            slots_max: word(WORD_METRICS_MAX) as u16,
            ring_records: word(WORD_RING_RECORDS) as u32,
            bytes_max: word(WORD_BYTES_MAX),
        },
    }
}

/// Wall clock, milliseconds; the cheap clock of the kernel, 1 to 4 ms coarse.
#[cfg(not(loom))]
pub(crate) fn now_unix_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME_COARSE, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Wall clock, nanoseconds: fine enough that of two values the later one is known.
#[cfg(not(loom))]
pub(crate) fn now_unix_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(loom)]
pub(crate) fn now_unix_ns() -> u64 {
    1
}

#[cfg(loom)]
pub(crate) fn now_unix_ms() -> u64 {
    1
}
