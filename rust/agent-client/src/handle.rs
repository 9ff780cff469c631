//! One series, as a user's object holds it.
//!
//! A use is: compare two epochs, one call into `agent-shm`. Everything else (no writer after a fork, a series that was
//! removed, a segment that was replaced, no room) is found out behind that comparison, repaired, and the use repeated;
//! nothing is lost and nothing counted twice.

use crate::family::Family;
use crate::host::Host;
use crate::refusal::{Kind, Refusal};
use crate::store::Store;
use agent_shm::{Error, MetricId, Outcome, OwnedShape, Series, SeriesId, Writer};
use std::cell::{Cell, UnsafeCell};
use std::sync::Arc;

/// Repairs before an update is given up: each can be undone at once by another process, hardly several in a row.
const ATTEMPTS: u32 = 8;

pub struct Handle {
    /// The store's epoch in which `series` is good; 0 never is.
    epoch: Cell<u32>,
    /// The number of what is aside, when the series is there.
    aside: Cell<u32>,
    series: UnsafeCell<Option<Series>>,
    pub store: Arc<Store>,
    pub family: Arc<Family>,
    /// Canonical label text.
    pub text: Box<str>,
}

// SAFETY: like the store, used by one thread at a time.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub fn new(store: Arc<Store>, family: Arc<Family>, text: String) -> Handle {
        let (epoch, aside, series) = (Cell::new(0), Cell::new(0), UnsafeCell::new(None));
        Handle { epoch, aside, series, store, family, text: text.into() }
    }

    /// Does it now, when nothing is in the way.
    #[inline(always)]
    pub fn try_apply(&self, update: &impl Fn(&Writer, &Series) -> Outcome) -> bool {
        let Some(writer) = self.store.writer_of(self.epoch.get()) else { return false };
        self.apply_with(writer, update) == Outcome::Applied
    }

    #[inline(always)]
    fn apply_with(
        &self,
        writer: &Writer,
        update: &impl Fn(&Writer, &Series) -> Outcome,
    ) -> Outcome {
        // SAFETY: replaced only in `resolve`, and an update does not call the host.
        match unsafe { &*self.series.get() } {
            Some(series) => update(writer, series),
            None => Outcome::Stale,
        }
    }

    /// Does it, whatever is in the way.
    ///
    /// # Errors
    /// A counter that would pass 2^63; what [`Store::open`] refuses.
    #[cold]
    #[inline(never)]
    pub fn apply_slowly(
        &self,
        host: &dyn Host,
        update: &impl Fn(&Writer, &Series) -> Outcome,
    ) -> Result<(), Refusal> {
        for attempt in 0..ATTEMPTS {
            let epoch = self.store.open(host)?;
            let is_known = attempt == 0 && epoch.is_some() && epoch == Some(self.epoch.get());
            // What is aside stays there until the store has brought it back: then its series is gone.
            let stays = attempt == 0 && self.is_aside();
            if !is_known && !stays && !self.resolve(host)? {
                break;
            }
            let outcome = match self.is_aside() || self.store.opened(self.epoch.get()).is_some() {
                true => self.apply_in_place(update),
                false => Outcome::Stale,
            };
            match outcome {
                Outcome::Applied => return Ok(()),
                Outcome::Stale => {}
                Outcome::Refused => {
                    let name = &self.family.name;
                    let text = match self.family.shape == OwnedShape::Counter {
                        true => format!("counter {name} is full: it cannot pass 2^63 - 1"),
                        false => format!("gauge {name} cannot go so far: it would be infinite"),
                    };
                    return Err(Refusal::new(Kind::Amount, text));
                }
                // The series is there; this process's part of it, or a bucket, has no room.
                Outcome::NoRoom if self.is_aside() => break,
                Outcome::NoRoom => {
                    let why = Error::Full { what: "bytes_max" };
                    if !self.go_aside(host, &why)? {
                        break;
                    }
                    match self.apply_in_place(update) {
                        Outcome::Applied => return Ok(()),
                        // The user was told in between, which may have brought it back.
                        Outcome::Stale => {}
                        _ => break,
                    }
                }
            }
        }
        self.store.lose();
        Ok(())
    }

    /// Does it to the series there is, in the segment of the store or beside it.
    pub(crate) fn apply_in_place(&self, update: &impl Fn(&Writer, &Series) -> Outcome) -> Outcome {
        match (self.store.aside(), self.store.opened_now()) {
            (Some((aside, number)), _) if self.aside.get() == number => {
                self.apply_with(&aside.writer, update)
            }
            (_, Some(writer)) if self.aside.get() == 0 => self.apply_with(writer, update),
            _ => Outcome::Stale,
        }
    }

    fn is_aside(&self) -> bool {
        self.store.aside().is_some_and(|(_, number)| number == self.aside.get())
    }

    /// Gets the series anew. False: there is no memory for it, not even private.
    ///
    /// # Errors
    /// As [`Handle::apply_slowly`].
    #[cold]
    pub fn resolve(&self, host: &dyn Host) -> Result<bool, Refusal> {
        for _ in 0..ATTEMPTS {
            let Some(epoch) = self.store.open(host)? else { return Ok(false) };
            match self.store.place(&self.family, &self.text) {
                Ok(series) => {
                    self.keep(epoch, 0, series);
                    return Ok(true);
                }
                Err(Error::Replaced) => {}
                Err(error @ Error::TooLarge { .. }) => return Err(Refusal::from(&error)),
                Err(error) => return self.go_aside(host, &error),
            }
        }
        Ok(false)
    }

    fn go_aside(&self, host: &dyn Host, why: &Error) -> Result<bool, Refusal> {
        let placed = self.store.place_aside(host, &self.family, &self.text, why)?;
        let (Some(series), Some((_, number))) = (placed, self.store.aside()) else {
            return Ok(false);
        };
        self.keep(0, number, series);
        Ok(true)
    }

    fn keep(&self, epoch: u32, aside: u32, series: Series) {
        // SAFETY: no reference to the old series is out.
        unsafe { *self.series.get() = Some(series) };
        self.epoch.set(epoch);
        self.aside.set(aside);
    }

    /// Removes the series of the family with these labels; gives whether there was one.
    ///
    /// # Errors
    /// As [`Handle::apply_slowly`].
    pub fn remove(&self, host: &dyn Host, text: &str) -> Result<bool, Refusal> {
        let aside = self.store.aside().is_some_and(|(aside, _)| aside.remove(&self.family, text));
        Ok(self.of_family(host, |writer, id| writer.remove(id, text))?.unwrap_or(false) || aside)
    }

    /// Removes every series of the family; gives how many there were.
    ///
    /// # Errors
    /// As [`Handle::apply_slowly`].
    pub fn clear(&self, host: &dyn Host) -> Result<usize, Refusal> {
        if let Some((aside, _)) = self.store.aside() {
            aside.clear(&self.family);
        }
        Ok(self.of_family(host, Writer::clear)?.unwrap_or(0))
    }

    fn of_family<T>(
        &self,
        host: &dyn Host,
        change: impl Fn(&Writer, MetricId) -> T,
    ) -> Result<Option<T>, Refusal> {
        let Some(epoch) = self.store.open(host)? else { return Ok(None) };
        let Some(writer) = self.store.opened(epoch) else { return Ok(None) };
        // A metric without room has nothing there.
        Ok(self.store.id(&self.family).ok().map(|id| change(writer, id)))
    }

    /// The number of what is aside, when the series is or was there, else 0.
    pub(crate) fn aside_number(&self) -> u32 {
        self.aside.get()
    }

    pub(crate) fn series_id(&self) -> Option<SeriesId> {
        // SAFETY: as in `apply_with`.
        unsafe { (*self.series.get()).as_ref().map(Series::id) }
    }

    /// Whether the series is really the metric's overflow series.
    pub fn is_overflow(&self) -> bool {
        // SAFETY: as in `apply_with`.
        unsafe { (*self.series.get()).as_ref().is_some_and(Series::is_overflow) }
    }
}
