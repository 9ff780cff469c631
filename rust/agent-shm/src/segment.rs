//! A segment: one mapped file of one app, or private memory. What can be asked of it as a whole.
//!
//! Lifetime of the numbers: as long as the file. They survive the death of every process; a reboot, a new layout version
//! (another file name) or the removal of the file begins anew, all series at once, and `created_unix_ms` says when. A
//! definition that changes begins anew alone (family.rs).

use crate::error::Error;
use crate::handle::SeriesId;
use crate::header::{Header, Sealed};
use crate::inner::Inner;
use crate::layout::*;
use crate::metric::{self, MetricMeta};
use crate::region::Region;
use crate::ring::{self, Drained, Entry, Ring};
use crate::slot::{self, Liveness, SlotInfo};
use crate::sync::{fence, Ordering};
use crate::{block, entry};
#[cfg(not(model))]
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
#[cfg(not(model))]
use std::time::{Duration, UNIX_EPOCH};

/// How old the time of a file may get that somebody writes to.
pub const RENEW_MS: u64 = 60_000;

/// A segment mapped into this process. Cheap to clone.
#[derive(Clone)]
pub struct Segment {
    pub(crate) inner: Arc<Inner>,
    /// Older segments of the same app, that a view shows as well; see join.rs.
    pub(crate) beside: Arc<[Segment]>,
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
    /// Updates of processes that found no memory anywhere.
    pub lost: u64,
}

impl Segment {
    pub(crate) fn of(inner: Inner) -> Segment {
        Segment { inner: Arc::new(inner), beside: Arc::new([]) }
    }

    /// A segment in anonymous memory, for when there is no place for a file.
    ///
    /// # Errors
    /// When there is not enough address space either.
    pub fn anonymous(app: &str, options: &Options) -> Result<Segment, Error> {
        let options = options.clamped();
        let places = Places::of(&options);
        let region = Region::anonymous(&places)?;
        region.word(WORD_EPOCH).store(1, Ordering::Relaxed);
        let sealed = Sealed::new(app, &options, 0, [1, 2]);
        Ok(Segment::of(Inner::new(region, sealed)))
    }

    /// As [`Segment::anonymous`], for tests.
    ///
    /// # Panics
    /// When there is not enough address space.
    pub fn private(app: &str, options: &Options) -> Segment {
        Segment::anonymous(app, options).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn header(&self) -> Header {
        self.inner.sealed.header()
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

    /// Whether somebody found a chain that leads nowhere: series are missing, and cannot be made. All others go on, and
    /// those who come later begin in a file beside it.
    pub fn is_damaged(&self) -> bool {
        self.inner.region.word(WORD_DAMAGED).load(Ordering::Acquire) == DAMAGED
    }

    /// Whether such a loss is survived; false when this process has too many segments mapped.
    pub fn is_guarded(&self) -> bool {
        self.inner.region.is_guarded()
    }

    /// Whether the path still leads to the mapped file; nothing when it cannot be told (no permission, and it has a name).
    #[cfg(not(model))]
    pub fn is_in_place(&self) -> Option<bool> {
        self.inner.region.is_in_place()
    }

    /// Writes the header anew where it is not what this process has read, and what is known to be committed: who comes
    /// next shall find them.
    #[cfg(not(model))]
    pub fn mend_header(&self) {
        let region = &self.inner.region;
        if !region.is_shared() || !region.is_writable() || region.was_hit() {
            return;
        }
        let found = Sealed::find(|offset| region.word(offset).load(Ordering::Relaxed));
        if found != (self.inner.sealed, crate::header::Soundness::Both) {
            self.inner.sealed.put(region);
        }
        region.mend_committed();
    }

    /// Makes a file that somebody has cut off behind all that is used as long as it was. False: what was cut off was used.
    #[cfg(not(model))]
    pub fn mend_length(&self) -> bool {
        let Inner { region, places, .. } = &*self.inner;
        let Some(id) = region.file_id().filter(|_| region.is_writable()) else { return true };
        let Ok(now) = std::fs::symlink_metadata(region.path()) else { return true };
        if (now.dev(), now.ino()) != id || now.len() >= places.total {
            return true;
        }
        if now.len() < places.used(region.word(WORD_COMMITTED).load(Ordering::Acquire)) {
            return false;
        }
        // When it cannot be done now, the next look tries again; new memory is an error until then.
        if let Ok(file) = crate::identity::open_again(region.path(), Some(id), true) {
            let _ = file.set_len(places.total);
        }
        true
    }

    /// Sets the time of the file to now where it is older than [`RENEW_MS`]: updates of mapped memory leave none, and how
    /// long an app is shown and kept is told by it. A failure costs nothing but that.
    #[cfg(not(model))]
    pub fn renew_time(&self, now_unix_ms: u64) {
        let region = &self.inner.region;
        let Some(id) = region.file_id().filter(|_| region.is_writable()) else { return };
        let Ok(file) = crate::identity::open_again(region.path(), Some(id), false) else { return };
        let now = UNIX_EPOCH + Duration::from_millis(now_unix_ms);
        let is_young = file.metadata().and_then(|found| found.modified()).is_ok_and(|then| {
            let age = now.duration_since(then).unwrap_or_else(|ahead| ahead.duration());
            age < Duration::from_millis(RENEW_MS)
        });
        if !is_young {
            let _ = file.set_modified(now);
        }
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

    /// Says on the page that some process could keep an update nowhere.
    pub fn count_lost(&self) {
        if self.inner.region.is_writable() {
            self.inner.region.word(WORD_LOST).fetch_add(1, Ordering::Relaxed);
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
            fallbacks: word(WORD_FALLBACKS)
                + self.beside.iter().map(|s| s.usage().fallbacks).sum::<u64>(),
            lost: word(WORD_LOST) + self.beside.iter().map(|s| s.usage().lost).sum::<u64>(),
        }
    }

    /// Slots that were used at least once.
    pub fn slots(&self) -> Vec<SlotInfo> {
        let liveness = self.liveness();
        (0..self.slots_used()).map(|index| slot::info(&self.inner, &liveness, index)).collect()
    }

    pub(crate) fn liveness(&self) -> Liveness<'_> {
        Liveness::new(&self.inner, None)
    }

    pub fn slots_used(&self) -> u16 {
        let used = self.inner.region.word(WORD_SLOTS_USED).load(Ordering::Acquire);
        used.min(u64::from(self.inner.options.slots_max)) as u16
    }

    /// Whether any process writes to it: one question to the kernel, however many slots there are.
    pub fn has_living_writer(&self) -> bool {
        self.liveness().is_any_alive()
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
