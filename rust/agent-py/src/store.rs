//! Where the metrics of one registry live, seen from this process: segment, writer, and what
//! happens to them at fork, at a full disk, and when an older definition is in the way.
//!
//! ```text
//!  (nothing) --first metric--> shared segment --no room--> private memory, warned once
//!      ^ \--folder unusable, app not known--> private memory
//!      +-- fork while the app was not known; file replaced; older definitions, nobody uses them
//! ```
//!
//! Older definitions: a metric in the file may have other buckets than the program has now, because
//! the program was changed and started again. Nobody alive uses them: the file is replaced, all
//! counters begin anew. A process that is alive does (a rolling upgrade): the new processes share
//! the file `APP.2.v1.seg`, as app `APP.2`, and so on to 9.
//!
//! No slot free: the process writes as a guest (`guest.rs` of agent-shm), warned once, and asks for a
//! slot again every second, at the next use of a metric. So that uses come by here, a guest's
//! handles are never `live`: they take the slow way, which `opened` serves.
//!
//! Every move to other memory raises `epoch`; a handle remembers the epoch in which it was
//! resolved, so the hot path is one comparison with `live`: the epoch while this process has a
//! writer, 0 while it has none (after a fork).
//!
//! All of it is touched only by a thread that is attached to the interpreter (the module declares
//! `gil_used`), with one exception: the fork handler, which runs in a child that has one thread.
//! Nothing here calls Python while it holds a borrow.

use crate::error;
use agent_shm::{Options, Segment, Writer};
use pyo3::prelude::*;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the segment is to be found.
pub enum Source {
    /// `agent.app` knows, when the first metric is made; failures end in private memory.
    App,
    /// As asked for by the user; failures are raised.
    Path { app: String, path: PathBuf },
    /// Private memory, as asked for.
    Private { app: String },
}

/// Why a registry that should share is in private memory. The text is a label value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Folder,
    Open,
    Memory,
    Conflict,
}

impl Cause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Folder => "folder",
            Cause::Open => "open",
            Cause::Memory => "memory",
            Cause::Conflict => "conflict",
        }
    }
}

struct Binding {
    segment: Segment,
    app: String,
    path: Option<PathBuf>,
    /// Private memory until the app is known: dropped at fork.
    pending: bool,
}

#[derive(Default)]
struct Inner {
    binding: Option<Binding>,
    /// Definitions by family name, and the family that owns each sample name.
    families: HashMap<String, Arc<crate::family::Family>>,
    samples: HashMap<String, String>,
    fallback: Option<(Cause, String)>,
}

pub struct Store {
    live: Cell<u32>,
    epoch: Cell<u32>,
    writer: UnsafeCell<Option<Writer>>,
    inner: RefCell<Inner>,
    source: Source,
    options: Options,
    /// The number in `APP.2.v1.seg`.
    sibling: Cell<u32>,
    /// Updates that found no memory at all, in this process.
    lost: Cell<u64>,
    /// When a guest last asked for a slot, unix milliseconds; 0 before it was told to be one.
    asked: Cell<u64>,
}

/// A guest asks for a slot so often, and no more: with all slots taken that is a system call each.
const ASK_EVERY_MS: u64 = 1000;

/// Sides of one app that may live beside each other in rolling upgrades.
const SIBLINGS_MAX: u32 = 9;
/// Attempts to claim a slot of a file that others replace meanwhile.
const ATTEMPTS: u32 = 5;

// SAFETY: only attached threads touch a store, one at a time; the fork handler runs in a process of
// one thread.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    pub fn new(source: Source, options: Options) -> Arc<Store> {
        let store = Arc::new(Store {
            live: Cell::new(0),
            epoch: Cell::new(1),
            writer: UnsafeCell::new(None),
            inner: RefCell::default(),
            source,
            options,
            sibling: Cell::new(1),
            lost: Cell::new(0),
            asked: Cell::new(0),
        });
        crate::fork::watch(&store);
        store
    }

    /// The writer, when a handle of `epoch` may be used with it.
    #[inline(always)]
    pub fn writer_of(&self, epoch: u32) -> Option<&Writer> {
        if epoch != self.live.get() || epoch == 0 {
            return None;
        }
        // SAFETY: `live` is not 0, so the writer is there; it is replaced only by attached threads,
        // never during a call that holds this reference, because such calls do not run Python code.
        unsafe { (*self.writer.get()).as_ref() }
    }

    /// As [`Store::writer_of`], for the slow way: a guest's too.
    pub fn opened(&self, epoch: u32) -> Option<&Writer> {
        if epoch != self.epoch.get() {
            return None;
        }
        // SAFETY: as in `writer_of`; after a fork there is none.
        unsafe { (*self.writer.get()).as_ref() }
    }

    /// Whether this process writes without a slot.
    pub fn is_guest(&self) -> bool {
        self.opened(self.epoch.get()).is_some_and(Writer::is_guest)
    }

    fn put_writer(&self, writer: Writer) {
        let live = if writer.is_guest() { 0 } else { self.epoch.get() };
        // SAFETY: attached, and callers hold no reference to the writer.
        unsafe { *self.writer.get() = Some(writer) };
        self.live.set(live);
    }

    /// For a guest: takes a slot when one is free by now.
    fn ask_for_slot(&self, py: Python<'_>) {
        let now = crate::render::now_unix_ms();
        if now.abs_diff(self.asked.get()) < ASK_EVERY_MS {
            return;
        }
        let first = self.asked.replace(now) == 0;
        let found = self.opened(self.epoch.get()).and_then(Writer::take_slot);
        match found {
            Some(writer) => self.put_writer(writer),
            None if first => {
                let slots_max = self.segment().map_or(0, |s| s.header().options.slots_max);
                error::warn(
                    py,
                    &format!(
                        "all {slots_max} writer slots of app {:?} belong to living processes: this \
                         one counts without a slot until one is free; its values of per-process \
                         gauges and its samples for quantiles are missing until then",
                        self.app()
                    ),
                );
            }
            None => {}
        }
    }

    /// The epoch and a writer of it, opening and claiming what is missing. Nothing only when memory
    /// itself is gone.
    #[cold]
    pub fn open(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        if self.live.get() != 0 {
            return Ok(Some(self.live.get()));
        }
        if self.is_guest() {
            self.ask_for_slot(py);
            return Ok(Some(self.epoch.get()));
        }
        for _ in 0..ATTEMPTS {
            if self.inner.borrow().binding.is_none() {
                let binding = self.bind(py)?;
                let mut inner = self.inner.borrow_mut();
                // Finding the app ran Python code, which may have made a metric of its own.
                if inner.binding.is_none() {
                    inner.binding = binding;
                }
            }
            if self.opened(self.epoch.get()).is_some() {
                return Ok(Some(self.epoch.get()));
            }
            match self.segment().map(|segment| segment.writer_or_guest()) {
                Some(Ok(writer)) => {
                    self.put_writer(writer);
                    self.announce();
                    if self.is_guest() {
                        self.asked.set(0);
                        self.ask_for_slot(py);
                    }
                    return Ok(Some(self.epoch.get()));
                }
                // The file was replaced after it was mapped: look again at its path.
                Some(Err(agent_shm::Error::NotUsable { .. })) => self.unbind(),
                Some(Err(agent_shm::Error::Io { ref source, .. }))
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    self.unbind();
                }
                Some(Err(error)) if !self.is_private() => {
                    self.fall_back(py, Cause::Open, &error.to_string());
                }
                _ => return Ok(None),
            }
        }
        self.fall_back(py, Cause::Open, "the segment keeps being replaced by others");
        Ok(None)
    }

    /// Puts the definitions that are known into a segment that is new to this process, so that a
    /// page shows them before their next use. Errors are left to that use, which repairs them.
    fn announce(&self) {
        let epoch = self.epoch.get();
        let Some(writer) = self.opened(epoch) else { return };
        for family in self.families() {
            let id = family.id(writer, epoch);
            if let (Ok(id), true) = (id, family.label_names.is_empty()) {
                let _ = writer.series(id, "");
            }
        }
    }

    /// Forgets the segment; the next use looks for it again.
    fn unbind(&self) {
        self.drop_writer();
        let old = self.inner.borrow_mut().binding.take();
        drop(old);
        self.next_epoch();
    }

    fn next_epoch(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1).max(1));
    }

    fn bind(&self, py: Python<'_>) -> PyResult<Option<Binding>> {
        match &self.source {
            Source::Private { app } => Ok(self.private(app, false)),
            Source::Path { app, path } => match Segment::open_or_create(path, app, &self.options) {
                Ok(segment) => Ok(Some(shared(segment, app.clone(), path))),
                Err(error) => Err(error::segment(&error)),
            },
            Source::App => Ok(self.bind_app(py)),
        }
    }

    fn bind_app(&self, py: Python<'_>) -> Option<Binding> {
        let (base, path) = match find_app(py) {
            Ok(place) => place,
            Err(error) => {
                self.note(py, Cause::Folder, &error.value(py).to_string());
                return self.private("program", false);
            }
        };
        if base.is_empty() {
            return self.private("program", true);
        }
        let mut path = PathBuf::from(path);
        let mut app = base.clone();
        if self.sibling.get() > 1 {
            app = format!("{base}.{}", self.sibling.get());
            path.set_file_name(format!("{app}.v{}.seg", agent_shm::LAYOUT_VERSION));
        }
        match Segment::open_or_create(&path, &app, &self.options) {
            Ok(segment) => Some(shared(segment, app, &path)),
            Err(error) => {
                self.note(py, Cause::Open, &error.to_string());
                self.private(&app, false)
            }
        }
    }

    /// Nothing when there is not even address space.
    fn private(&self, app: &str, pending: bool) -> Option<Binding> {
        let small = Options { bytes_max: 16 << 20, slots_max: 64, ..self.options };
        let segment = Segment::anonymous(app, &small).ok()?;
        Some(Binding { segment, app: app.into(), path: None, pending })
    }

    /// A metric of ours has another shape in the file. Moves to a file where it has not; see the
    /// head of this module.
    #[cold]
    pub fn conflict(&self, py: Python<'_>, text: &str) -> PyResult<()> {
        let (true, Some(segment), Some(path)) =
            (matches!(self.source, Source::App), self.segment(), self.path())
        else {
            return Err(error::Refusal::new(error::Kind::Conflict, text).into());
        };
        let own = self.opened(self.epoch.get());
        let guests = u32::from(own.is_some_and(Writer::is_guest));
        let own = own.map(Writer::slot);
        let others = segment.slots().iter().any(|slot| slot.alive && Some(slot.index) != own)
            || segment.guests().alive > guests;
        if !others && crate::replace::remove(&path, &segment) {
            self.unbind();
        } else if self.sibling.get() < SIBLINGS_MAX {
            self.sibling.set(self.sibling.get() + 1);
            self.unbind();
        } else {
            self.fall_back(py, Cause::Conflict, text);
        }
        Ok(())
    }

    /// Goes on in private memory. Handles of the shared segment are resolved again at their next
    /// use.
    #[cold]
    pub fn fall_back(&self, py: Python<'_>, cause: Cause, detail: &str) {
        let app = self.app();
        self.drop_writer();
        let binding = self.private(&app, false);
        let old = std::mem::replace(&mut self.inner.borrow_mut().binding, binding);
        drop(old);
        self.next_epoch();
        self.note(py, cause, detail);
    }

    /// Remembers the cause, for `render` and `inspect`, and warns once.
    fn note(&self, py: Python<'_>, cause: Cause, detail: &str) {
        let first = {
            let mut inner = self.inner.borrow_mut();
            let first = inner.fallback.is_none();
            inner.fallback.get_or_insert_with(|| (cause, detail.to_string()));
            first
        };
        if first {
            error::warn(
                py,
                &format!(
                    "metrics of this process are in private memory, unseen by a collector: {detail}"
                ),
            );
        }
    }

    fn drop_writer(&self) {
        self.live.set(0);
        // SAFETY: attached, and callers hold no reference to the writer.
        unsafe { *self.writer.get() = None };
    }

    /// In a forked child, which has one thread: the inherited slot is the parent's. Its claim is
    /// neither released nor kept; only the descriptor goes.
    pub fn after_fork(&self) {
        self.live.set(0);
        // SAFETY: the only thread of this process; a call that was under way in another thread does
        // not exist here.
        let inherited = unsafe { (*self.writer.get()).take() };
        if let Some(writer) = inherited {
            if let Some(fd) = writer.lock_fd() {
                // SAFETY: the descriptor is this writer's own, and nobody uses the writer any more.
                unsafe { libc::close(fd) };
            }
            // Not dropped: another thread of the parent may have been in the middle of changing it.
            std::mem::forget(writer);
        }
        // A borrow that was held at the fork stays held in the child when its thread is gone: leave
        // the binding then.
        if let Ok(mut inner) = self.inner.try_borrow_mut() {
            if inner.binding.as_ref().is_some_and(|binding| binding.pending) {
                // Leaked, not unmapped: a handle may still point into it until it is resolved
                // again.
                std::mem::forget(inner.binding.take());
                self.next_epoch();
            }
        }
    }

    pub fn segment(&self) -> Option<Segment> {
        self.inner.borrow().binding.as_ref().map(|binding| binding.segment.clone())
    }

    /// The name of the app, empty before the first metric.
    pub fn app(&self) -> String {
        match (&self.inner.borrow().binding, &self.source) {
            (Some(binding), _) => binding.app.clone(),
            (None, Source::Path { app, .. } | Source::Private { app }) => app.clone(),
            (None, Source::App) => String::new(),
        }
    }

    /// The file of the segment; nothing for private memory and before the first metric.
    pub fn path(&self) -> Option<PathBuf> {
        self.inner.borrow().binding.as_ref().and_then(|binding| binding.path.clone())
    }

    pub fn is_private(&self) -> bool {
        self.inner.borrow().binding.as_ref().is_some_and(|binding| binding.path.is_none())
    }

    pub fn fallback(&self) -> Option<(Cause, String)> {
        self.inner.borrow().fallback.clone()
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// An update that could be kept nowhere.
    pub fn lose(&self) {
        self.lost.set(self.lost.get() + 1);
    }

    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    pub fn families(&self) -> Vec<Arc<crate::family::Family>> {
        self.inner.borrow().families.values().cloned().collect()
    }

    pub fn family(&self, name: &str) -> Option<Arc<crate::family::Family>> {
        self.inner.borrow().families.get(name).cloned()
    }

    /// The family whose samples include the name.
    pub fn owner_of_sample(&self, sample: &str) -> Option<String> {
        self.inner.borrow().samples.get(sample).cloned()
    }

    pub fn keep(&self, family: &Arc<crate::family::Family>) {
        let mut inner = self.inner.borrow_mut();
        for suffix in family.class.suffixes() {
            inner.samples.insert(format!("{}{suffix}", family.name), family.name.clone());
        }
        inner.families.insert(family.name.clone(), family.clone());
    }
}

fn shared(segment: Segment, app: String, path: &Path) -> Binding {
    Binding { segment, app, path: Some(path.into()), pending: false }
}

fn find_app(py: Python<'_>) -> PyResult<(String, String)> {
    let start_dir = crate::START_DIR.get().map_or("", String::as_str);
    py.import("agent.app")?.call_method1("find", (start_dir,))?.extract()
}

impl Drop for Store {
    fn drop(&mut self) {
        crate::fork::forget(self);
    }
}
