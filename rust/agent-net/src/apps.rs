//! The segments of apps: found in folders, attached for reading, let go when they vanish.
//!
//! There is the folder of the collector's own user, and there may be *shared* ones, which users let the collector read
//! (`apps/folders.rs`). Before every scrape they are listed. A file `<name>.vN.seg`, N being our version of the
//! layout, is attached once and again when its inode changes (the app was restarted with another
//! layout, or after a clean-up); a file that is gone is detached. What cannot be used is left out,
//! counted by reason, and looked at again only when its identity, time or size changes, or when
//! there is room for it: a bad file costs itself, never the scrape.
//!
//! An app without living writers is not shown any more after `apps.idle_s` (`apps/life.rs`); it
//! stays attached, and is shown again when a writer comes. What an app is called on the page is in
//! `apps/called.rs`.
//!
//! Refused: a folder that others than its owner may write to, symbolic links, files of others than the owner of their
//! folder, files that others may write to, other layouts, truncated files, more than [`ATTACHED_MAX`] at one time. Shared
//! folders have half of these places, in equal parts, so that none of their owners can fill them all. Of their files only
//! what exists is read, up to a bound (`apps/foreign.rs`).
//!
//! # SIGBUS
//!
//! A mapped file that its owner truncates makes the next read of the lost pages a SIGBUS, which
//! kills the process. `agent-shm` has the handler for that; every attached segment is
//! registered with it, and one that was hit is detached and counted as `damaged`.

mod called;
mod folders;
mod foreign;
mod life;

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use agent_shm::{Error, Segment, LAYOUT_VERSION, SEGMENTS_MAX};

use crate::http::{Count, Stats};
pub use folders::check_folder;
use folders::{Folder, Found};
use life::{Clocks, Life};

/// Apps attached at one time, shown or not.
pub const ATTACHED_MAX: usize = SEGMENTS_MAX - 64;
/// How long an app is shown without a living writer, where nothing else is said.
pub const IDLE_S: u32 = 3600;

/// What the name of a segment of our layout ends with.
fn suffix() -> &'static str {
    static SUFFIX: OnceLock<String> = OnceLock::new();
    SUFFIX.get_or_init(|| format!(".v{LAYOUT_VERSION}.seg"))
}

/// An attached app. Whoever holds one may read the segment: the guard lives as long as any clone.
#[derive(Clone)]
pub struct App {
    pub name: String,
    /// Of a shared folder: its names on the page come after those of all others.
    pub is_shared: bool,
    /// When its file was made, by the kernel's word, unix ms; 0 where the file system does not say.
    pub born_unix_ms: u64,
    pub segment: Segment,
}

/// Why a folder or a file is not used; `as_str` is the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    FolderNotOurs,
    FolderOpenToOthers,
    FolderUnreadable,
    NotUsable,
    OtherLayout,
    Unreadable,
    Damaged,
    TooMany,
}

impl Refused {
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::FolderNotOurs => "folder_not_ours",
            Refused::FolderOpenToOthers => "folder_open_to_others",
            Refused::FolderUnreadable => "folder_unreadable",
            Refused::NotUsable => "not_usable",
            Refused::OtherLayout => "other_layout",
            Refused::Unreadable => "unreadable",
            Refused::Damaged => "damaged",
            Refused::TooMany => "too_many",
        }
    }

    /// One sentence for a person.
    pub fn text(self) -> &'static str {
        match self {
            Refused::FolderNotOurs => "the folder belongs to another user or is a link",
            Refused::FolderOpenToOthers => "others may write to the folder",
            Refused::FolderUnreadable => "the folder cannot be read",
            Refused::NotUsable => "the file is not a segment that may be used",
            Refused::OtherLayout => "the segment is of another version",
            Refused::Unreadable => "the file cannot be read",
            Refused::Damaged => "the segment was truncated or contradicts itself",
            Refused::TooMany => "there are too many apps",
        }
    }
}

/// What tells two files of one name apart: device, inode.
type FileId = (u64, u64);

/// A file that is not used, as it was when it was looked at.
#[derive(PartialEq, Eq)]
struct Quarantined {
    id: FileId,
    changed: (i64, i64, u64),
    why: Refused,
}

struct Attached {
    id: FileId,
    folder: PathBuf,
    /// Called like its file; what it is called on the page depends on the others.
    app: App,
    damage: u64,
    life: Life,
}

/// The apps of all folders.
pub struct Apps {
    /// Empty: there are no apps.
    folder: PathBuf,
    /// Paths of shared folders; the last part may have `*`.
    shared: Vec<String>,
    /// What is read of all shared folders together.
    shared_bytes_max: u64,
    own: Option<FileId>,
    /// Nothing: apps are shown for ever.
    idle: Option<Duration>,
    attached: HashMap<PathBuf, Attached>,
    quarantine: HashMap<PathBuf, Quarantined>,
}

impl Apps {
    /// `own` is the collector's segment, which is not an app.
    pub fn new(folder: &Path, own: Option<FileId>) -> Apps {
        Apps {
            folder: folder.to_owned(),
            shared: Vec::new(),
            shared_bytes_max: foreign::BYTES_MAX,
            own,
            idle: idle(IDLE_S),
            attached: HashMap::new(),
            quarantine: HashMap::new(),
        }
    }

    /// How long an app is shown without a living writer; 0 = for ever.
    pub fn set_idle_s(&mut self, idle_s: u32) {
        self.idle = idle(idle_s);
    }

    /// Which folders of other users are read.
    pub fn set_shared(&mut self, shared: &[String]) {
        self.shared = shared.to_vec();
        if !shared.is_empty() {
            self.shared_bytes_max = foreign::bytes_max();
        }
    }

    /// Looks at the folders again and gives the apps to show, sorted by name.
    pub fn refresh(&mut self, stats: &Stats) -> Vec<App> {
        self.refresh_at(stats, Clocks::read())
    }

    fn refresh_at(&mut self, stats: &Stats, now: Clocks) -> Vec<App> {
        if self.folder.as_os_str().is_empty() {
            return Vec::new();
        }
        let (folders, refused) = folders::all(&self.folder, &self.shared);
        let mut files = Vec::new();
        for why in refused {
            stats.add_reason(Count::AppsRefused, why.as_str());
        }
        for folder in &folders {
            match folder.list() {
                Ok(found) => files.extend(found),
                Err(why) => stats.add_reason(Count::AppsRefused, why.as_str()),
            }
        }
        let known: HashMap<&Path, &Metadata> =
            files.iter().map(|found| (&*found.path, &found.metadata)).collect();
        self.attached.retain(|path, one| known.get(&**path).is_some_and(|m| id_of(m) == one.id));
        self.quarantine.retain(|path, _| known.contains_key(&**path));
        self.drop_damaged(&known, stats);
        let shared_max = shared_max(&folders);
        for found in &files {
            self.look_at(found, shared_max, stats);
        }
        self.bound_shared(&known, stats);
        self.quarantine.retain(|path, _| !self.attached.contains_key(path));
        for (path, one) in &mut self.attached {
            if let Some(metadata) = known.get(&**path) {
                one.life.look(&one.app.segment, metadata, now);
            }
        }
        let mut apps = self.shown(now);
        apps.sort_by(|a, b| a.name.cmp(&b.name));
        apps
    }

    /// The apps that have not been without a writer for too long, as they are called. Several files of one app, of which
    /// one was damaged while it was in use, are one.
    fn shown(&self, now: Clocks) -> Vec<App> {
        // Those that are not shown have their say too: else a name would change when one leaves.
        let files = self.attached.values().map(|one| called::File {
            stem: &one.app.name,
            folder: &one.folder,
            is_shared: one.app.is_shared,
            said: one.app.segment.header().app,
        });
        let names = called::names(&files.collect::<Vec<_>>());
        let mut apps: HashMap<String, (bool, bool, u64, Vec<Segment>)> = HashMap::new();
        for (one, name) in self.attached.values().zip(names) {
            let (is_shown, is_shared, born, segments) = apps.entry(name).or_default();
            *is_shared = one.app.is_shared;
            // Of several files of one app the last one that was made: nobody gains by a file that he finds.
            *born = one.app.born_unix_ms.max(*born);
            *is_shown |= self.idle.is_none_or(|idle| !one.life.is_over(idle, now));
            segments.push(one.app.segment.clone());
        }
        let shown = apps.into_iter().filter(|(_, (is_shown, ..))| *is_shown);
        let app = |(name, (_, is_shared, born_unix_ms, segments))| {
            Some(App { name, is_shared, born_unix_ms, segment: Segment::joined(segments)? })
        };
        shown.filter_map(app).collect()
    }

    /// Names and reasons of what is not used, sorted by name; those of shared folders with their path.
    pub fn refused(&self) -> Vec<(String, Refused)> {
        let name =
            |path: &Path| path.strip_prefix(&self.folder).unwrap_or(path).to_string_lossy().into();
        let mut refused: Vec<(String, Refused)> =
            self.quarantine.iter().map(|(path, bad)| (name(path), bad.why)).collect();
        refused.sort_by(|a, b| a.0.cmp(&b.0));
        refused
    }

    fn drop_damaged(&mut self, known: &HashMap<&Path, &Metadata>, stats: &Stats) {
        let hit = |one: &Attached| {
            one.app.segment.was_hit() || one.app.segment.usage().damage > one.damage
        };
        let paths: Vec<PathBuf> = self
            .attached
            .iter()
            .filter(|(_, one)| hit(one))
            .map(|(path, _)| path.clone())
            .collect();
        for path in paths {
            self.attached.remove(&path);
            if let Some(metadata) = known.get(&*path) {
                self.refuse(&path, metadata, Refused::Damaged, stats);
            }
        }
    }

    /// Before anything of the files of shared folders is read.
    fn bound_shared(&mut self, known: &HashMap<&Path, &Metadata>, stats: &Stats) {
        let shared = self.attached.iter().filter(|(_, one)| one.app.is_shared);
        let files = shared.map(|(path, one)| foreign::File {
            path,
            folder: &one.folder,
            segment: &one.app.segment,
        });
        let refused = foreign::bound(&files.collect::<Vec<_>>(), self.shared_bytes_max);
        for (path, why) in refused {
            self.attached.remove(&path);
            if let Some(metadata) = known.get(&*path) {
                self.refuse(&path, metadata, why, stats);
            }
        }
    }

    fn look_at(&mut self, found: &Found<'_>, shared_max: usize, stats: &Stats) {
        let Found { folder, path, metadata, is_ours } = found;
        if self.own == Some(id_of(metadata)) || self.attached.contains_key(path) {
            return;
        }
        let here = |one: &&Attached| one.folder == folder.path;
        let is_full = self.attached.len() >= ATTACHED_MAX
            || (folder.is_shared && self.attached.values().filter(here).count() >= shared_max);
        let known = self.quarantine.get(path);
        if known.is_some_and(|bad| {
            bad.id == id_of(metadata)
                && bad.changed == changed(metadata)
                && (is_full || bad.why != Refused::TooMany)
        }) {
            return;
        }
        if !is_ours {
            self.refuse(path, metadata, Refused::OtherLayout, stats);
            return;
        }
        if is_full {
            self.refuse(path, metadata, Refused::TooMany, stats);
            return;
        }
        match attach(folder, path) {
            Ok(attached) => {
                self.attached.insert(path.clone(), attached);
            }
            // It vanished, or was replaced while we looked: the next scrape sees what is there
            // then.
            Err(None) => {}
            Err(Some(why)) => self.refuse(path, metadata, why, stats),
        }
    }

    fn refuse(&mut self, path: &Path, metadata: &Metadata, why: Refused, stats: &Stats) {
        let bad = Quarantined { id: id_of(metadata), changed: changed(metadata), why };
        // One that was tried again because there might have been room was counted before.
        if self.quarantine.get(path) != Some(&bad) {
            stats.add_reason(Count::AppsRefused, why.as_str());
            self.quarantine.insert(path.to_owned(), bad);
        }
    }
}

/// How many apps of one shared folder are attached.
fn shared_max(folders: &[Folder]) -> usize {
    let shared = folders.iter().filter(|folder| folder.is_shared).count();
    (ATTACHED_MAX / 2 / shared.max(1)).max(1)
}

fn attach(folder: &Folder, path: &Path) -> Result<Attached, Option<Refused>> {
    let segment = Segment::attach_of(path, folder.owner).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => None,
        Error::Io { source, .. } if source.raw_os_error() == Some(libc::ELOOP) => {
            Some(Refused::NotUsable)
        }
        Error::Io { .. } => Some(Refused::Unreadable),
        Error::OtherLayout { .. } => Some(Refused::OtherLayout),
        _ => Some(Refused::NotUsable),
    })?;
    let id = segment.file_id().ok_or(None)?;
    if !segment.is_guarded() {
        return Err(Some(Refused::TooMany));
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name = file.strip_suffix(suffix()).unwrap_or(&file).to_owned();
    if folder.is_shared {
        // Nothing before its extent was looked at.
        segment.read_up_to(0);
    }
    let (damage, is_shared) = (segment.usage().damage, folder.is_shared);
    let born_unix_ms = born_unix_ms(&segment);
    let (app, life) = (App { name, is_shared, born_unix_ms, segment }, Life::default());
    Ok(Attached { id, folder: folder.path.clone(), app, damage, life })
}

fn born_unix_ms(segment: &Segment) -> u64 {
    let born = fs::symlink_metadata(segment.path()).and_then(|metadata| metadata.created());
    let since = born.ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_millis() as u64)
}

fn idle(idle_s: u32) -> Option<Duration> {
    (idle_s > 0).then(|| Duration::from_secs(idle_s.into()))
}

fn id_of(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

fn changed(metadata: &Metadata) -> (i64, i64, u64) {
    (metadata.ctime(), metadata.ctime_nsec(), metadata.len())
}

#[cfg(test)]
#[path = "apps_test.rs"]
mod tests;
