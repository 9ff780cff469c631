//! The segments of apps: found in a folder, attached for reading, let go when they vanish.
//!
//! Before every scrape the folder is listed. A file `<app>.v1.seg` is attached once and again when
//! its inode changes (the app was restarted with another layout, or after a clean-up); a file that
//! is gone is detached. What cannot be used is left out, counted by reason, and looked at again
//! only when its identity, time or size changes: a bad file costs itself, never the scrape.
//!
//! Refused: a folder that is not ours or that others may write to, symbolic links, files of other
//! users, files that others may write to, other layouts, truncated files, more than [`APPS_MAX`].
//!
//! # SIGBUS
//!
//! A mapped file that its owner truncates makes the next read of the lost pages a SIGBUS, which
//! kills the process. `apps/bus.rs` has the handler for that; here every attached segment is
//! registered with it, and one that was hit is detached and counted as `damaged`.

mod bus;

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_shm::{Error, Segment};

use crate::http::{Count, Stats};
use bus::Watched;

/// Apps shown at one time.
pub const APPS_MAX: usize = 256;
const SUFFIX: &str = ".v1.seg";

/// An attached app. Whoever holds one may read the segment: the guard lives as long as any clone.
#[derive(Clone)]
pub struct App {
    pub name: String,
    pub segment: Segment,
    watched: Arc<Watched>,
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
    app: App,
    damage: u64,
}

/// The apps of one folder.
pub struct Apps {
    folder: PathBuf,
    own: Option<FileId>,
    attached: HashMap<String, Attached>,
    quarantine: HashMap<String, Quarantined>,
}

impl Apps {
    /// `own` is the collector's segment, which is not an app.
    pub fn new(folder: &Path, own: Option<FileId>) -> Apps {
        Apps {
            folder: folder.to_owned(),
            own,
            attached: HashMap::new(),
            quarantine: HashMap::new(),
        }
    }

    /// Looks at the folder again and gives the apps there are, sorted by name.
    pub fn refresh(&mut self, stats: &Stats) -> Vec<App> {
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
        let mut apps: Vec<App> = self.attached.values().map(|one| one.app.clone()).collect();
        apps.sort_by(|a, b| a.name.cmp(&b.name));
        apps
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
            one.app.watched.was_hit() || one.app.segment.usage().damage > one.damage
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
        let known = self.quarantine.get(name);
        if known.is_some_and(|bad| bad.id == id_of(metadata) && bad.changed == changed(metadata)) {
            return;
        }
        if self.own == Some(id_of(metadata)) || self.attached.contains_key(name) {
            return;
        }
        if self.attached.len() >= APPS_MAX {
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
    let watched = Arc::new(Watched::new(&segment).ok_or(Some(Refused::TooMany))?);
    let name = file.strip_suffix(SUFFIX).unwrap_or(file).to_owned();
    let damage = segment.usage().damage;
    Ok(Attached { id, app: App { name, segment, watched }, damage })
}

/// The files that may be segments of apps, links among them: attaching refuses those.
fn list(folder: &Path) -> Result<Vec<(String, Metadata)>, Refused> {
    let entries = fs::read_dir(folder).map_err(|_| Refused::FolderUnreadable)?;
    let mut files: Vec<(String, Metadata)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let stem = name.strip_suffix(SUFFIX)?;
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
