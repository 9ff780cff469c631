//! The segments of apps: found in a folder, attached for reading, let go when they vanish.
//!
//! Before every scrape the folder is listed. A file `<name>.vN.seg`, N being our version of the
//! layout, is attached once and again when its inode changes (the app was restarted with another
//! layout, or after a clean-up); a file that is gone is detached. What cannot be used is left out,
//! counted by reason, and looked at again only when its identity, time or size changes, or when
//! there is room for it: a bad file costs itself, never the scrape.
//!
//! An app without living writers is not shown any more after `apps.idle_s` (`apps/life.rs`); it
//! stays attached, and is shown again when a writer comes. What an app is called on the page is in
//! `apps/called.rs`.
//!
//! Refused: a folder that is not ours or that others may write to, symbolic links, files of other
//! users, files that others may write to, other layouts, truncated files, more than
//! [`ATTACHED_MAX`] at one time.
//!
//! # SIGBUS
//!
//! A mapped file that its owner truncates makes the next read of the lost pages a SIGBUS, which
//! kills the process. `agent-shm` has the handler for that; every attached segment is
//! registered with it, and one that was hit is detached and counted as `damaged`.

mod called;
mod life;

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use agent_shm::{Error, Segment, LAYOUT_VERSION, SEGMENTS_MAX};

use crate::http::{Count, Stats};
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
    /// Called like its file; what it is called on the page depends on the others.
    app: App,
    damage: u64,
    life: Life,
}

/// The apps of one folder.
pub struct Apps {
    folder: PathBuf,
    own: Option<FileId>,
    /// Nothing: apps are shown for ever.
    idle: Option<Duration>,
    attached: HashMap<String, Attached>,
    quarantine: HashMap<String, Quarantined>,
}

impl Apps {
    /// `own` is the collector's segment, which is not an app.
    pub fn new(folder: &Path, own: Option<FileId>) -> Apps {
        Apps {
            folder: folder.to_owned(),
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

    /// Looks at the folder again and gives the apps to show, sorted by name.
    pub fn refresh(&mut self, stats: &Stats) -> Vec<App> {
        self.refresh_at(stats, Clocks::read())
    }

    fn refresh_at(&mut self, stats: &Stats, now: Clocks) -> Vec<App> {
        if self.folder.as_os_str().is_empty() {
            return Vec::new();
        }
        let files = match check_folder(&self.folder).and_then(|()| list(&self.folder)) {
            Ok(files) => files,
            Err(why) => {
                stats.add_reason(Count::AppsRefused, why.as_str());
                self.attached.clear();
                return Vec::new();
            }
        };
        self.attached.retain(|name, attached| {
            files.iter().any(|(file, meta)| file == name && id_of(meta) == attached.id)
        });
        self.quarantine.retain(|name, _| files.iter().any(|(file, _)| file == name));
        self.drop_damaged(&files, stats);
        for (name, metadata) in &files {
            self.look_at(name, metadata, stats);
        }
        for (file, metadata) in &files {
            if let Some(one) = self.attached.get_mut(file) {
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
        let names =
            called::names(self.attached.values().map(|one| (&*one.app.name, &one.app.segment)));
        let mut apps: HashMap<String, (bool, Vec<Segment>)> = HashMap::new();
        for (one, name) in self.attached.values().zip(names) {
            let (is_shown, segments) = apps.entry(name).or_default();
            *is_shown |= self.idle.is_none_or(|idle| !one.life.is_over(idle, now));
            segments.push(one.app.segment.clone());
        }
        let shown = apps.into_iter().filter(|(_, (is_shown, _))| *is_shown);
        let app = |(name, (_, segments))| Some(App { name, segment: Segment::joined(segments)? });
        shown.filter_map(app).collect()
    }

    /// Names and reasons of what is not used, sorted by name.
    pub fn refused(&self) -> Vec<(String, Refused)> {
        let mut refused: Vec<(String, Refused)> =
            self.quarantine.iter().map(|(name, bad)| (name.clone(), bad.why)).collect();
        refused.sort_by(|a, b| a.0.cmp(&b.0));
        refused
    }

    fn drop_damaged(&mut self, files: &[(String, Metadata)], stats: &Stats) {
        let hit = |one: &Attached| {
            one.app.segment.was_hit() || one.app.segment.usage().damage > one.damage
        };
        let names: Vec<String> =
            self.attached.iter().filter(|(_, one)| hit(one)).map(|(n, _)| n.clone()).collect();
        for name in names {
            self.attached.remove(&name);
            if let Some((_, metadata)) = files.iter().find(|(file, _)| *file == name) {
                self.refuse(&name, metadata, Refused::Damaged, stats);
            }
        }
    }

    fn look_at(&mut self, name: &str, metadata: &Metadata, stats: &Stats) {
        let is_full = self.attached.len() >= ATTACHED_MAX;
        let known = self.quarantine.get(name);
        if known.is_some_and(|bad| {
            bad.id == id_of(metadata)
                && bad.changed == changed(metadata)
                && (is_full || bad.why != Refused::TooMany)
        }) {
            return;
        }
        if self.own == Some(id_of(metadata)) || self.attached.contains_key(name) {
            return;
        }
        if !name.ends_with(suffix()) {
            self.refuse(name, metadata, Refused::OtherLayout, stats);
            return;
        }
        if is_full {
            self.refuse(name, metadata, Refused::TooMany, stats);
            return;
        }
        match attach(&self.folder, name) {
            Ok(attached) => {
                self.quarantine.remove(name);
                self.attached.insert(name.to_owned(), attached);
            }
            // It vanished, or was replaced while we looked: the next scrape sees what is there
            // then.
            Err(None) => {}
            Err(Some(why)) => self.refuse(name, metadata, why, stats),
        }
    }

    fn refuse(&mut self, name: &str, metadata: &Metadata, why: Refused, stats: &Stats) {
        stats.add_reason(Count::AppsRefused, why.as_str());
        let bad = Quarantined { id: id_of(metadata), changed: changed(metadata), why };
        self.quarantine.insert(name.to_owned(), bad);
    }
}

fn attach(folder: &Path, file: &str) -> Result<Attached, Option<Refused>> {
    let segment = Segment::attach(&folder.join(file)).map_err(|error| match error {
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
    let name = file.strip_suffix(suffix()).unwrap_or(file).to_owned();
    let damage = segment.usage().damage;
    Ok(Attached { id, app: App { name, segment }, damage, life: Life::default() })
}

fn idle(idle_s: u32) -> Option<Duration> {
    (idle_s > 0).then(|| Duration::from_secs(idle_s.into()))
}

/// The files that may be segments of apps, links among them: attaching refuses those.
fn list(folder: &Path) -> Result<Vec<(String, Metadata)>, Refused> {
    let entries = fs::read_dir(folder).map_err(|_| Refused::FolderUnreadable)?;
    let mut files: Vec<(String, Metadata)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (stem, version) = name.strip_suffix(".seg")?.rsplit_once(".v")?;
            // Those of another layout are not read, and that is said.
            version.parse::<u32>().ok()?;
            let wanted = !stem.is_empty() && !stem.starts_with('.');
            let metadata = entry.metadata().ok().filter(|_| wanted)?;
            Some((name, metadata))
        })
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

/// Whether a folder is one that only we can put files into.
pub fn check_folder(folder: &Path) -> Result<(), Refused> {
    let metadata = fs::symlink_metadata(folder).map_err(|_| Refused::FolderUnreadable)?;
    // SAFETY: a system call without arguments.
    let uid = unsafe { libc::geteuid() };
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(Refused::FolderNotOurs);
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(Refused::FolderOpenToOthers);
    }
    Ok(())
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
