//! Where the metrics of one registry live, seen from this process: segment, writer, and what happens to them.
//!
//! ```text
//!  (nothing) --first update--> shared segment --a metric without room--> that metric aside, until there is
//!      ^ \--folder unusable, app not known--> private memory, asked again every second
//!      +-- fork while the app was not known; file removed, replaced, truncated
//! ```
//!
//! A definition alone makes no file: the first update does, and puts all definitions there, so that a page shows them
//! from 0 on. A registry that is open already takes a new definition at once.
//!
//! Every move to other memory raises `epoch`; a handle remembers the epoch in which it was resolved, so the hot path is
//! one comparison with `live`: the epoch while this process has a writer, 0 while it has none. It also burns `fuel`:
//! after so many updates the process looks whether the file is still in its place, whether it was damaged, and whether
//! another definition of a family counts by now. Every slow call looks too.
//!
//! All of it is used by one thread at a time. Nothing here calls the host while it holds a borrow.

use crate::aside::Aside;
use crate::binding::{Binding, Cause, Fallback, Opened, Source};
use crate::family::{Definition, Family};
use crate::fork::{Forked, Watch};
use crate::host::Host;
use crate::lineage::Lineage;
use crate::refusal::{Kind, Refusal};
use agent_metric::own::LOST;
use agent_shm::{now_unix_ms, Error, MetricId, Options, Segment, Series, Writer};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Updates of this process between two looks at its segment: a few comparisons, once a second more.
pub(crate) const FUEL: u32 = 64;
/// Attempts to claim a slot of a file that others replace meanwhile, or to add to a series that others remove.
pub(crate) const ATTEMPTS: u32 = 8;
/// Things that the user is told of.
const TOLD_MAX: usize = 64;
const PRIVATE: &str = "private memory";
/// Children of labelled metrics that are made before there is a segment.
const EARLY_MAX: usize = 10_000;

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) binding: Option<Binding>,
    /// Why it is private, or not even that, though it should be shared.
    pub(crate) fallback: Option<Fallback>,
    /// Definitions by family name, and the family that owns each sample name.
    pub(crate) families: HashMap<String, Arc<Family>>,
    pub(crate) samples: HashMap<String, String>,
    /// Series that were asked for before there was a segment.
    pub(crate) early: Vec<(Arc<Family>, Box<str>)>,
    /// Of what the user was told.
    pub(crate) told: Vec<String>,
}

pub struct Store {
    pub(crate) live: Cell<u32>,
    pub(crate) fuel: Cell<u32>,
    pub(crate) epoch: Cell<u32>,
    /// Grows when the process goes to another segment, and at a fork: see hold.rs.
    pub(crate) moves: Cell<u32>,
    pub(crate) forks: Cell<u32>,
    pub(crate) writer: UnsafeCell<Option<Writer>>,
    pub(crate) aside: UnsafeCell<Option<Aside>>,
    /// Grows when what is aside is given up.
    pub(crate) aside_epoch: Cell<u32>,
    pub(crate) inner: RefCell<Inner>,
    pub(crate) source: Source,
    pub(crate) options: Options,
    pub(crate) lineage: Lineage,
    /// Definitions that the segment had ever seen when the families were joined last.
    pub(crate) births: Cell<u64>,
    /// Whether pages show another definition of one of its families, as far as this process knows.
    pub(crate) has_hidden: Cell<bool>,
    pub(crate) looked_ms: Cell<u64>,
    /// When the file was looked at last.
    pub(crate) checked_ms: Cell<u64>,
    /// When the time of the file was renewed last, or found to be young.
    pub(crate) renewed_ms: Cell<u64>,
    /// When private memory was entered, or the segment was asked again last.
    pub(crate) rebind_ms: Cell<u64>,
    pub(crate) aside_ms: Cell<u64>,
    /// Families whose samples' names are to be compared with those of others.
    pub(crate) fresh: RefCell<Vec<Arc<Family>>>,
    /// When families may be joined again for what others define: it takes the longer the more there are.
    pub(crate) join_due: Cell<Option<Instant>>,
    /// When the segment may be asked again for room, and how many of the label sets aside were asked for in this round.
    pub(crate) room_due: Cell<Option<Instant>>,
    pub(crate) room_asked: Cell<usize>,
    /// Updates that found no memory at all, in this process.
    pub(crate) lost: Cell<u64>,
}

// SAFETY: one thread uses a store at a time (the head of lib.rs); the fork handler runs in a process of one thread.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

static WATCH: Watch<Store> = Watch::new();

extern "C" fn child() {
    WATCH.tell();
}

impl Store {
    pub fn new(source: Source, options: Options) -> Arc<Store> {
        let store = Arc::new(Store {
            live: Cell::new(0),
            fuel: Cell::new(0),
            epoch: Cell::new(1),
            moves: Cell::new(0),
            forks: Cell::new(0),
            writer: UnsafeCell::new(None),
            aside: UnsafeCell::new(None),
            aside_epoch: Cell::new(1),
            inner: RefCell::default(),
            source,
            options,
            lineage: Lineage::default(),
            births: Cell::new(0),
            has_hidden: Cell::new(false),
            looked_ms: Cell::new(0),
            checked_ms: Cell::new(0),
            renewed_ms: Cell::new(0),
            rebind_ms: Cell::new(0),
            aside_ms: Cell::new(0),
            fresh: RefCell::default(),
            join_due: Cell::new(None),
            room_due: Cell::new(None),
            room_asked: Cell::new(0),
            lost: Cell::new(0),
        });
        WATCH.watch(Arc::as_ptr(&store), child);
        store
    }

    /// The writer, when a handle of `epoch` may be used with it.
    #[inline(always)]
    pub fn writer_of(&self, epoch: u32) -> Option<&Writer> {
        let fuel = self.fuel.get();
        if epoch != self.live.get() || epoch == 0 || fuel == 0 {
            return None;
        }
        self.fuel.set(fuel - 1);
        // SAFETY: `live` is not 0, so the writer is there; it is replaced only by the one thread that uses the store,
        // never during a call that holds this reference, because such calls do not call the host.
        unsafe { (*self.writer.get()).as_ref() }
    }

    /// The writer, when it is of `epoch`, for the slow way.
    pub fn opened(&self, epoch: u32) -> Option<&Writer> {
        if epoch != self.epoch.get() {
            return None;
        }
        // SAFETY: as in `writer_of`; after a fork there is none.
        unsafe { (*self.writer.get()).as_ref() }
    }

    /// The writer there is.
    pub fn opened_now(&self) -> Option<&Writer> {
        self.opened(self.epoch.get())
    }

    pub fn is_open(&self) -> bool {
        self.opened_now().is_some()
    }

    pub(crate) fn put_writer(&self, writer: Writer) {
        // SAFETY: callers hold no reference to the writer.
        unsafe { *self.writer.get() = Some(writer) };
        self.live.set(self.epoch.get());
        self.fuel.set(self.updates_to_next_look());
    }

    /// The epoch of a writer, opening and claiming what is missing. Nothing only when memory itself is gone.
    ///
    /// # Errors
    /// What was asked for by path, or by a strict user, cannot be used.
    #[cold]
    pub fn open(&self, host: &dyn Host) -> Result<Option<u32>, Refusal> {
        self.look(host)?;
        for _ in 0..ATTEMPTS {
            if self.is_open() {
                return Ok(Some(self.epoch.get()));
            }
            if self.inner.borrow().binding.is_none() {
                let opened = Binding::open(&self.source, &self.options, host)?;
                self.bind(host, opened)?;
                // Telling the user may have run code that counts.
                if self.is_open() {
                    continue;
                }
            }
            match self.segment().map(|segment| segment.writer()) {
                Some(Ok(writer)) => {
                    self.put_writer(writer);
                    self.announce();
                    self.tell_clashes(host);
                    // Telling may have run code that left the segment.
                    if self.is_open() {
                        return Ok(Some(self.epoch.get()));
                    }
                }
                // The file was replaced after it was mapped: look again at its path. Not so in a jail, where the path
                // leads elsewhere.
                Some(Err(_)) if self.is_out_of_place() => self.unbind(),
                Some(Err(error)) if !self.is_private() => {
                    self.fall_back(host, Cause::Open, &error.to_string())?;
                }
                _ => return Ok(None),
            }
        }
        self.fall_back(host, Cause::Open, "the segment keeps being replaced by others")?;
        Ok(None)
    }

    fn is_out_of_place(&self) -> bool {
        self.segment().is_some_and(|segment| segment.is_in_place() == Some(false))
    }

    /// Before the first definition: see [`Host::prepare`].
    pub fn prepare(&self, host: &dyn Host) {
        if matches!(self.source, Source::App) && self.inner.borrow().families.is_empty() {
            host.prepare();
        }
    }

    /// Asks for the segment that should be there at the next look, if this is private memory.
    pub fn ask_again_now(&self) {
        self.rebind_ms.set(0);
        self.checked_ms.set(0);
        self.renewed_ms.set(0);
        self.fuel.set(0);
    }

    /// Takes a binding in, unless finding the app made one on its way; tells why it is private, if it should not be.
    fn bind(&self, host: &dyn Host, (binding, fallback): Opened) -> Result<(), Refusal> {
        if let (Some((_, text)), true) = (&fallback, host.is_strict()) {
            return Err(Refusal::new(Kind::Segment, text.clone()));
        }
        {
            let mut inner = self.inner.borrow_mut();
            if inner.binding.is_some() {
                return Ok(());
            }
            inner.binding = binding;
            inner.fallback.clone_from(&fallback);
        }
        if let Some((_, text)) = fallback {
            self.rebind_ms.set(now_unix_ms());
            self.tell(host, PRIVATE, &private_text(&text));
        }
        Ok(())
    }

    /// Puts the definitions that are known into a segment that is new to this process, so that a page shows them from
    /// 0 on. Errors are left to the next use, which repairs them.
    pub(crate) fn announce(&self) {
        let epoch = self.epoch.get();
        let early = std::mem::take(&mut self.inner.borrow_mut().early);
        let Some(writer) = self.opened(epoch) else { return };
        // Before: what appears meanwhile is looked at next time.
        let births = writer.segment().births();
        for family in self.families() {
            // Joined, not looked up: after a fork it is this process that uses it.
            let joined = self.join(&family, writer);
            if let (Ok(id), true) = (joined, family.label_names.is_empty()) {
                let _ = writer.series(id, "");
            }
        }
        for (family, text) in early {
            if let Ok(id) = self.id(&family) {
                let _ = writer.series(id, &text);
            }
        }
        self.births.set(births);
    }

    /// Forgets the segment; the next use looks for it again.
    pub(crate) fn unbind(&self) {
        self.drop_writer();
        let old = self.inner.borrow_mut().binding.take();
        drop(old);
        self.next_segment();
    }

    /// What was held in the segment before is not held in the next one.
    pub(crate) fn next_segment(&self) -> u32 {
        self.moves.set(self.moves.get().wrapping_add(1));
        self.next_epoch()
    }

    pub(crate) fn next_epoch(&self) -> u32 {
        self.epoch.set(self.epoch.get().wrapping_add(1).max(1));
        self.epoch.get()
    }

    /// Goes on in private memory. Handles of the shared segment are resolved again at their next use.
    fn fall_back(&self, host: &dyn Host, cause: Cause, detail: &str) -> Result<(), Refusal> {
        if host.is_strict() {
            return Err(Refusal::new(Kind::Segment, detail));
        }
        let app = self.app();
        self.drop_writer();
        if let Some(segment) = self.segment().filter(|_| !self.is_private()) {
            // It is mapped still, and its page is where the numbers are missing.
            self.families().iter().for_each(|_| segment.count_fallback());
        }
        let fallback = Some((cause, detail.to_string()));
        let binding = Binding::private(&app, &self.options, fallback.clone());
        let old = {
            let mut inner = self.inner.borrow_mut();
            inner.fallback = fallback;
            std::mem::replace(&mut inner.binding, binding)
        };
        drop(old);
        self.next_segment();
        self.rebind_ms.set(now_unix_ms());
        self.tell(host, PRIVATE, &private_text(detail));
        Ok(())
    }

    /// Warns once of each thing.
    pub(crate) fn tell(&self, host: &dyn Host, of: &str, text: &str) {
        {
            let mut inner = self.inner.borrow_mut();
            if inner.told.iter().any(|told| told == of) || inner.told.len() >= TOLD_MAX {
                return;
            }
            inner.told.push(of.to_string());
        }
        host.warn(text);
    }

    fn drop_writer(&self) {
        self.live.set(0);
        // SAFETY: callers hold no reference to the writer.
        unsafe { *self.writer.get() = None };
    }

    /// The metric of a family in the segment, joined now when it is not known.
    pub fn id(&self, family: &Arc<Family>) -> Result<MetricId, Error> {
        let Some(writer) = self.opened_now() else { return Err(Error::Full { what: "memory" }) };
        family.known_id(self.epoch.get()).map_or_else(|| self.join(family, writer), Ok)
    }

    /// Joins the metric of a family, again or for the first time: another definition of the name may count by now.
    pub(crate) fn join(&self, family: &Arc<Family>, writer: &Writer) -> Result<MetricId, Error> {
        let (epoch, before) = (self.epoch.get(), writer.segment().births());
        let joined = family.join(writer, epoch, self.lineage.of_this_process())?;
        self.note(family);
        // What this process itself defines is no news to it.
        let after = before + joined.births;
        if self.births.get() == before && writer.segment().births() == after {
            self.births.set(after);
        }
        if family.is_to_be_compared(epoch) {
            self.fresh.borrow_mut().push(family.clone());
        }
        Ok(joined.id)
    }

    /// A child of a fork from C may have begun without the families that its handles have; see `after_fork`.
    fn note(&self, family: &Arc<Family>) {
        let mut inner = self.inner.borrow_mut();
        if !inner.families.contains_key(&family.name) {
            for suffix in family.class.suffixes() {
                inner.samples.insert(format!("{}{suffix}", family.name), family.name.clone());
            }
            inner.families.insert(family.name.clone(), family.clone());
        }
    }

    /// The series of a family with these labels, in the segment.
    pub fn place(&self, family: &Arc<Family>, text: &str) -> Result<Series, Error> {
        let id = self.id(family)?;
        let Some(writer) = self.opened_now() else { return Err(Error::Full { what: "memory" }) };
        let placed = writer.series(id, text);
        if let Err(Error::Replaced) = placed {
            family.leave();
        }
        placed
    }

    /// Removes every series of every metric, of all processes; gives how many there were. Metrics of this process without
    /// labels begin anew at 0.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn clear(&self, host: &dyn Host) -> Result<usize, Refusal> {
        let Some(epoch) = self.open(host)? else { return Ok(0) };
        let Some(writer) = self.opened(epoch) else { return Ok(0) };
        let metrics = writer.segment().metrics();
        let ids = metrics.iter().filter_map(|meta| writer.find_metric(&meta.name));
        let removed = ids.map(|(id, _)| writer.clear(id)).sum();
        if let Some((aside, _)) = self.aside() {
            self.families().iter().for_each(|family| aside.clear(family));
        }
        self.announce();
        Ok(removed)
    }

    /// The series of a metric without room, in memory of this process; tells once, and every page.
    pub fn place_aside(
        &self,
        host: &dyn Host,
        family: &Family,
        text: &str,
        why: &Error,
    ) -> Result<Option<Series>, Refusal> {
        let name = &family.name;
        if host.is_strict() {
            return Err(Refusal::new(Kind::Segment, format!("no room for metric {name}: {why}")));
        }
        if self.aside().is_none() {
            let aside = Aside::new(&self.app(), &self.options);
            // SAFETY: there is nothing to which a reference could be out.
            unsafe { *self.aside.get() = aside };
        }
        let (spec, app) = (family.spec(), self.app());
        let placed =
            self.aside().and_then(|(aside, _)| aside.series(&spec, family.defined_names(), text));
        let Some((series, is_first)) = placed else {
            let text = format!(
                "there is no room for metric {name}, neither in the segment of app {app:?} nor in memory of this process: \
                 its updates are lost, and counted as {LOST}_total: {why}"
            );
            self.tell(host, &format!("lost {name}"), &text);
            return Ok(None);
        };
        if let (true, Some(segment)) = (is_first, self.segment()) {
            segment.count_fallback();
        }
        let text = format!(
            "there is no room for metric {name} in the segment of app {app:?}, so what this process counts in it from now \
             on is on no page until there is: {why}"
        );
        self.tell(host, name, &text);
        Ok(Some(series))
    }

    /// The writer of what is aside, and the number that a handle remembers of it.
    pub fn aside(&self) -> Option<(&Aside, u32)> {
        // SAFETY: made in `place_aside` and dropped at a fork only.
        unsafe { (*self.aside.get()).as_ref() }.map(|aside| (aside, self.aside_epoch.get()))
    }

    pub fn segment(&self) -> Option<Segment> {
        self.inner.borrow().binding.as_ref().map(|binding| binding.segment.clone())
    }

    /// The name of the app, empty before anything was counted.
    pub fn app(&self) -> String {
        match (&self.inner.borrow().binding, &self.source) {
            (Some(binding), _) => binding.app.clone(),
            (None, Source::Path { app, .. } | Source::Private { app }) => app.clone(),
            (None, Source::App) => String::new(),
        }
    }

    /// The file of the segment; nothing for private memory and before anything was counted.
    pub fn path(&self) -> Option<PathBuf> {
        self.inner.borrow().binding.as_ref().and_then(|binding| binding.path.clone())
    }

    pub fn is_private(&self) -> bool {
        self.inner.borrow().binding.as_ref().is_some_and(Binding::is_private)
    }

    pub(crate) fn has_fallen_back(&self) -> bool {
        self.inner.borrow().fallback.is_some()
    }

    /// Why the metrics of this process are in private memory though they should be shared.
    pub fn fallback(&self) -> Option<(Cause, String)> {
        self.inner.borrow().fallback.clone()
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// An update that could be kept nowhere; every page says so.
    pub fn lose(&self) {
        self.lost.set(self.lost.get() + 1);
        if let Some(segment) = self.segment() {
            segment.count_lost();
        }
    }

    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    pub fn families(&self) -> Vec<Arc<Family>> {
        self.inner.borrow().families.values().cloned().collect()
    }

    pub fn family(&self, name: &str) -> Option<Arc<Family>> {
        self.inner.borrow().families.get(name).cloned()
    }

    /// Notes a series that is asked for before there is a segment.
    pub fn note_early(&self, family: &Arc<Family>, text: &str) {
        let mut inner = self.inner.borrow_mut();
        if inner.early.len() < EARLY_MAX {
            inner.early.push((family.clone(), text.into()));
        }
    }

    /// The family of this definition: the one that is there when it says the same, else a new one.
    pub fn define(&self, definition: Definition) -> Result<Arc<Family>, Refusal> {
        let family = Family::new(definition)?;
        let mut inner = self.inner.borrow_mut();
        if let Some(known) = inner.families.get(&family.name) {
            if known.is_same(&family) {
                return Ok(known.clone());
            }
            let (name, known, told) = (&family.name, known.told(), family.told());
            let text = format!("metric {name:?} exists as {known}, not as {told}");
            return Err(Refusal::new(Kind::Conflict, text));
        }
        let samples = || family.class.suffixes().map(|end| format!("{}{end}", family.name));
        for sample in samples() {
            if let Some(owner) = inner.samples.get(&sample) {
                let name = &family.name;
                let text = format!("{name:?} would have the sample {sample:?}, as {owner:?} has");
                return Err(Refusal::new(Kind::Conflict, text));
            }
        }
        inner.samples.extend(samples().map(|sample| (sample, family.name.clone())));
        let family = Arc::new(family);
        inner.families.insert(family.name.clone(), family.clone());
        Ok(family)
    }
}

fn private_text(detail: &str) -> String {
    format!("metrics of this process are in private memory, unseen by a collector: {detail}")
}

impl Forked for Store {
    /// The inherited slot is the parent's. A child takes its own at once, while it still is the user that its parent
    /// was: later it may not be able to open the file.
    fn after_fork(&self) {
        self.live.set(0);
        self.forks.set(self.forks.get().wrapping_add(1));
        // SAFETY: the only thread of this process; a call that was under way in another thread does not exist here.
        let (inherited, aside) =
            unsafe { ((*self.writer.get()).take(), (*self.aside.get()).take()) };
        // What its parent counted aside is its parent's. Leaked: a handle may still point into it until it is resolved.
        std::mem::forget(aside);
        self.aside_epoch.set(self.aside_epoch.get().wrapping_add(1));
        let had_writer = inherited.is_some();
        if let Some(writer) = inherited {
            writer.forget_in_child();
        }
        let Ok(mut inner) = self.inner.try_borrow_mut() else {
            // C code forked while another thread was here. That thread does not exist in the child, and the borrow would
            // last for ever: begin with nothing. Leaked: it may have been half changed.
            // SAFETY: the only thread of this process, and nobody holds a reference into it.
            unsafe {
                std::ptr::write(&raw const self.inner as *mut RefCell<Inner>, RefCell::default())
            };
            self.next_segment();
            return;
        };
        // Private memory that should have been shared holds what the parent counted: that is the parent's to give back.
        let is_pending = inner.binding.as_ref().is_some_and(|binding| binding.pending);
        if is_pending || inner.fallback.take().is_some() {
            // Leaked, not unmapped: as above.
            std::mem::forget(inner.binding.take());
            self.next_segment();
            return;
        }
        let segment = match &inner.binding {
            Some(binding) if had_writer && !binding.is_private() => binding.segment.clone(),
            _ => return,
        };
        drop(inner);
        if matches!(self.source, Source::App) {
            if let Ok(writer) = segment.writer() {
                self.put_writer(writer);
                // So that the first slow call joins the families as this process.
                self.births.set(0);
                self.fuel.set(0);
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        WATCH.forget(self);
    }
}
