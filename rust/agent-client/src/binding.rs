//! A segment opened for a store: the app's, the one at a path, or private memory and why.

use crate::host::{Host, NoPlace, Place};
use crate::refusal::Refusal;
use agent_shm::{path_beside, Error, Options, Segment, BESIDE_MAX};
use std::path::{Path, PathBuf};

/// Where the segment is to be found.
pub enum Source {
    /// The host knows, when there is something to count; failures end in private memory.
    App,
    /// As asked for by the user; failures are raised.
    Path { app: String, path: PathBuf },
    /// Private memory, as asked for.
    Private { app: String },
}

/// Why a registry that should share is in private memory. The text is a label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Folder,
    Open,
    Memory,
}

impl Cause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Folder => "folder",
            Cause::Open => "open",
            Cause::Memory => "memory",
        }
    }
}

pub struct Binding {
    pub segment: Segment,
    pub app: String,
    /// The file; nothing for private memory.
    pub path: Option<PathBuf>,
    /// Private memory until the app is known: dropped at fork.
    pub pending: bool,
}

/// Why private memory is used where shared memory should be.
pub type Fallback = (Cause, String);

/// What was opened; nothing when there is not even address space, and why that was needed.
pub type Opened = (Option<Binding>, Option<Fallback>);

/// Private memory is small: nobody else sees it.
const PRIVATE_BYTES_MAX: u64 = 16 << 20;

impl Binding {
    /// # Errors
    /// What the user asked for by path cannot be used.
    pub fn open(source: &Source, options: &Options, host: &dyn Host) -> Result<Opened, Refusal> {
        match source {
            Source::Private { app } => Ok((Binding::private(app, options, None), None)),
            Source::Path { app, path } => match Segment::open_or_create(path, app, options) {
                Ok(segment) => Ok((Some(Binding::shared(segment, app, path)), None)),
                Err(error) => Err(Refusal::from(&error)),
            },
            Source::App => Ok(Binding::of_app(options, host)),
        }
    }

    fn of_app(options: &Options, host: &dyn Host) -> Opened {
        let (app, path) = match host.find_app() {
            Ok(Place::Known { app, path }) => (app, path),
            Ok(Place::Later) => {
                let private = Binding::private("program", options, None);
                return (private.map(|binding| Binding { pending: true, ..binding }), None);
            }
            Err(NoPlace::Interrupted) => return (None, None),
            Err(NoPlace::Because(text)) => {
                let why = Some((Cause::Folder, text));
                return (Binding::private("program", options, why.clone()), why);
            }
        };
        let mut file = path.clone();
        for number in 2..=BESIDE_MAX {
            match Segment::open_or_create(&file, &app, options) {
                Ok(segment) => return (Some(Binding::shared(segment, &app, &file)), None),
                // Its writers go on in it; we begin beside it.
                Err(Error::Damaged { .. }) if number < BESIDE_MAX => {
                    file = path_beside(&path, number);
                }
                Err(error) => {
                    let why = Some((Cause::Open, error.to_string()));
                    return (Binding::private(&app, options, why.clone()), why);
                }
            }
        }
        (None, None)
    }

    fn shared(segment: Segment, app: &str, path: &Path) -> Binding {
        let (app, path) = (app.into(), Some(path.into()));
        Binding { segment, app, path, pending: false }
    }

    pub fn private(app: &str, options: &Options, fallback: Option<Fallback>) -> Option<Binding> {
        let bytes_max = options.bytes_max.min(PRIVATE_BYTES_MAX);
        let small = Options { bytes_max, slots_max: 64, ..*options };
        let segment = Segment::anonymous(app, &small).ok()?;
        if fallback.is_some() {
            segment.count_fallback();
        }
        Some(Binding { segment, app: app.into(), path: None, pending: false })
    }

    pub fn is_private(&self) -> bool {
        self.path.is_none()
    }

    /// Why this segment is to be left, if it is.
    pub fn why_leave(&self) -> Option<&'static str> {
        if self.segment.was_hit() {
            return Some("its file was damaged or truncated");
        }
        if self.segment.is_in_place() == Some(false) {
            return Some("its file was removed or replaced");
        }
        (!self.segment.mend_length()).then_some("its file was truncated")
    }
}
