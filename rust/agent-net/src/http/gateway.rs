//! The Pushgateway: groups of metrics that batch jobs push and nobody else owns.
//!
//! A pushed value is what the job says it is, not something to add to; so groups do not go through
//! cells. Each group is one small file in `gateway.v1` inside the folder of segments
//! (`gateway_file.rs` has its format), written beside and renamed into place: every worker sees the
//! same groups, a reader sees all of a push or none, and groups survive every process, as segments
//! do. Workers keep what they read until a file's identity, time or size changes.
//!
//! - PUT replaces the group, POST only the families it names, DELETE removes the group.
//! - Labels of the path win over labels of the body; without an `instance`, `instance=""` is added.
//! - Refused as a whole, with the line: malformed text, time stamps, series that are there twice,
//!   families called `push_time_seconds` or `push_failure_time_seconds`; and what the page would leave
//!   out, because the collector, an app or another group has the name with another type, or another group the very series.
//! - Types are kept: a pushed counter is shown as a counter with the pushed value; `X_created` beside `X` is when `X` began
//!   (`gateway_created.rs`).
//! - Each group shows `push_time_seconds` and `push_failure_time_seconds` (0 = never).
//!
//! Limits: [`GROUPS_MAX`] groups, [`BYTES_MAX`] bytes in all; more is refused with 507. Writers
//! take turns by a lock on a file of the folder, waited for up to [`LOCK_WAIT`] (then 503); only
//! render threads do.
//!
//! Not promised: protobuf bodies, groups that outlive the folder (a reboot, for `/dev/shm`),
//! merging of help.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_wire::prometheus_text;
use agent_wire::{Limits, Reject};

use super::gateway_group::{label_text, Family, Group, Pushed, FAILURE_TIME, PUSH_TIME};
use super::gateway_path::GroupKey;
use super::{gateway_created, gateway_file};
use crate::scrape::{refused, Candidate, LabelSets};

pub const GROUPS_MAX: usize = 1000;
pub const BYTES_MAX: u64 = 64 << 20;
pub const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Why a push was refused.
#[derive(Debug)]
pub enum PutError {
    /// The text is wrong: 400.
    Bad { reason: &'static str, text: String },
    /// Groups or bytes are at their limit: 507.
    Full,
    /// Another worker holds the lock for too long: 503.
    Locked,
    /// The folder cannot be used: 500.
    Folder(io::Error),
}

impl PutError {
    /// The reason as a label value.
    pub fn reason(&self) -> &'static str {
        match self {
            PutError::Bad { reason, .. } => reason,
            PutError::Full => "gateway_full",
            PutError::Locked => "gateway_locked",
            PutError::Folder(_) => "gateway_folder",
        }
    }
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> PutError {
        PutError::Folder(error)
    }
}

/// The groups of one folder, as one worker sees them.
pub struct Gateway {
    /// Nothing when the worker has no folder.
    folder: Option<PathBuf>,
    seen: Mutex<HashMap<String, Seen>>,
}

/// A file that was read, or could not be.
struct Seen {
    identity: (u64, i64, i64, u64),
    group: Option<Arc<Group>>,
}

impl Gateway {
    pub fn new(apps_folder: &Path) -> Gateway {
        let known = !apps_folder.as_os_str().is_empty();
        let folder = known.then(|| apps_folder.join("gateway.v1"));
        Gateway { folder, seen: Mutex::default() }
    }

    /// All groups, sorted by key; and how many files are not usable.
    pub fn groups(&self) -> (Vec<Arc<Group>>, usize) {
        let Some(folder) = &self.folder else { return (Vec::new(), 0) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = HashMap::new();
        let mut bad = 0;
        for (name, metadata) in group_files(folder).into_iter().take(GROUPS_MAX) {
            let identity =
                (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len());
            let known = seen.remove(&name).filter(|known| known.identity == identity);
            let entry = known.unwrap_or_else(|| {
                let group = read_group(&folder.join(&name)).ok().map(Arc::new);
                Seen { identity, group }
            });
            bad += usize::from(entry.group.is_none());
            found.insert(name, entry);
        }
        *seen = found;
        let mut groups: Vec<Arc<Group>> =
            seen.values().filter_map(|entry| entry.group.clone()).collect();
        groups.sort_by(|a, b| a.key.labels.cmp(&b.key.labels));
        (groups, bad)
    }

    /// PUT (`replace`) or POST. `sources`: the families of the segments.
    pub fn put(
        &self,
        key: &GroupKey,
        replace: bool,
        body: &[u8],
        limits: &Limits,
        sources: Vec<Candidate<'_>>,
    ) -> Result<(), PutError> {
        let read = read_body(key, body, limits);
        let folder = self.make_folder()?;
        let _turn = Turn::take(folder)?;
        let now_s = now_s();
        let (others, _) = self.groups();
        let old = others.iter().find(|group| group.key == *key);
        let mut group = old.map_or_else(|| Group::new(key, now_s), |old| Group::clone(old));
        let checked = read.and_then(|families| {
            let pushed: HashSet<String> = families.iter().map(|f| f.name.clone()).collect();
            let mut kept = group.clone();
            kept.families.retain(|old| !replace && !pushed.contains(&old.name));
            kept.families.extend(families.into_iter().map(|family| {
                let first_unix_ms = first_of(&family, &group).unwrap_or((now_s * 1e3) as u64);
                Family { first_unix_ms, ..family }
            }));
            kept.families = gateway_created::fold(kept.families);
            let others = others.iter().map(|group| &**group).filter(|group| group.key != *key);
            check(&kept, &pushed, sources, others)?;
            Ok(kept)
        });
        let result = match checked {
            Ok(changed) => {
                group = changed;
                group.pushed_s = now_s;
                Ok(())
            }
            Err(error) => {
                group.failed_s = now_s;
                Err(error)
            }
        };
        if old.is_none() && others.len() >= GROUPS_MAX {
            return result.and(Err(PutError::Full));
        }
        // That a refusal was noted down must not hide why it was refused.
        let written = write_group(folder, &group);
        result.and(written)
    }

    /// Removes a group; that there is none is no error.
    pub fn delete(&self, key: &GroupKey) -> Result<(), PutError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        match fs::remove_file(folder.join(gateway_file::name_of(key))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn make_folder(&self) -> Result<&Path, PutError> {
        let Some(folder) = &self.folder else {
            return Err(io::Error::other("there is no folder for groups").into());
        };
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        crate::apps::check_folder(folder).map_err(|why| io::Error::other(why.text()))?;
        Ok(folder)
    }
}

/// Reads a body and completes its labels.
fn read_body(key: &GroupKey, body: &[u8], limits: &Limits) -> Result<Vec<Family>, PutError> {
    let bad = |reason, text| Err(PutError::Bad { reason, text });
    let parsed = match prometheus_text::parse(body, limits) {
        Ok(parsed) => parsed,
        Err(error) => return bad(error.reason.as_str(), error.to_string()),
    };
    let mut families = Vec::with_capacity(parsed.len());
    for family in parsed {
        if family.name == PUSH_TIME || family.name == FAILURE_TIME {
            return bad("name_reserved", format!("{} is written by the gateway", family.name));
        }
        let mut texts = HashSet::with_capacity(family.series.len());
        let mut series = Vec::with_capacity(family.series.len());
        for one in family.series {
            if one.timestamp_ms.is_some() {
                let reason = Reject::TimestampRefused.as_str();
                return bad(
                    reason,
                    format!("line {}: a pushed sample has no time stamp", one.line),
                );
            }
            if one.labels.len() + key.labels.len() + 1 > agent_wire::limits::LABELS_CAP {
                let reason = Reject::LabelsTooMany.as_str();
                return bad(reason, format!("line {}: too many labels", one.line));
            }
            let text = label_text(&one.labels, key);
            if !texts.insert(text.clone()) {
                let text =
                    format!("line {}: with the labels of the group it is there twice", one.line);
                return bad("series_repeated", text);
            }
            let has_plain_bounds = one.has_plain_bounds;
            series.push(Pushed { has_plain_bounds, ..Pushed::new(text, one.value) });
        }
        let (name, help, kind) = (family.name.into_owned(), family.help, family.kind);
        families.push(Family { name, help, kind, first_unix_ms: 0, series });
    }
    Ok(families)
}

/// Since when the group has the name with the type that it has now; nothing when it is new.
fn first_of(family: &Family, group: &Group) -> Option<u64> {
    let is_it = |old: &&Family| old.name == family.name && old.kind == family.kind;
    group.families.iter().find(is_it).map(|old| old.first_unix_ms)
}

/// Refuses what the page would leave out: a name that somebody else had before, and a series that another group has.
fn check<'a>(
    group: &'a Group,
    pushed: &HashSet<String>,
    mut candidates: Vec<Candidate<'a>>,
    others: impl Iterator<Item = &'a Group>,
) -> Result<(), PutError> {
    let bad = |reason, text| Err(PutError::Bad { reason, text });
    let mut theirs: HashMap<&str, Vec<(&Family, &GroupKey)>> = HashMap::new();
    for other in others {
        candidates.extend(Candidate::all_of_group(other));
        for family in &other.families {
            theirs.entry(&family.name).or_default().push((family, &other.key));
        }
    }
    candidates.extend(Candidate::all_of_group(group));
    let refused = refused(candidates);
    let mut sets = LabelSets::default();
    // What the group has kept was judged when it came.
    for family in group.families.iter().filter(|family| pushed.contains(&family.name)) {
        let claim = Candidate::of_pushed(family, group).claim;
        if let Some(conflict) = refused.iter().find(|conflict| conflict.refused == claim) {
            return bad("type_conflict", conflict.to_string());
        }
        sets.clear();
        for series in &family.series {
            sets.insert(series.labels.as_bytes());
        }
        for (other, key) in theirs.get(family.name.as_str()).into_iter().flatten() {
            let mut labels = other.series.iter().map(|series| &series.labels);
            if let Some(labels) = labels.find(|labels| sets.contains(labels.as_bytes())) {
                let (name, key) = (&family.name, key.text());
                let text = format!("group {{{key}}} has the series {name}{{{labels}}} already");
                return bad("series_repeated", text);
            }
        }
    }
    Ok(())
}

fn read_group(path: &Path) -> io::Result<Group> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)?;
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text)?;
    let group = gateway_file::decode(&text).map_err(io::Error::other)?;
    Ok(group.with_times())
}

/// Writes beside, renames into place.
fn write_group(folder: &Path, group: &Group) -> Result<(), PutError> {
    let text = gateway_file::encode(group, &[PUSH_TIME, FAILURE_TIME]);
    let name = gateway_file::name_of(&group.key);
    let others = group_files(folder).into_iter().filter(|(other, _)| *other != name);
    let used: u64 = others.map(|(_, metadata)| metadata.len()).sum();
    if used + text.len() as u64 > BYTES_MAX {
        return Err(PutError::Full);
    }
    // Only the holder of the lock writes, so one name is enough, and a killed writer leaves one
    // file.
    let beside = folder.join("next.tmp");
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&beside)?;
        file.write_all(&text)?;
        fs::rename(&beside, folder.join(&name))
    })();
    result.map_err(|error: io::Error| {
        let _ = fs::remove_file(&beside);
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => PutError::Full,
            _ => PutError::Folder(error),
        }
    })
}

/// Names and metadata of what may be groups.
fn group_files(folder: &Path) -> Vec<(String, fs::Metadata)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<(String, fs::Metadata)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_group = name.ends_with(gateway_file::SUFFIX);
            // `DirEntry::metadata` does not follow links.
            let metadata =
                entry.metadata().ok().filter(|metadata| is_group && metadata.is_file())?;
            Some((name, metadata))
        })
        .collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64 / 1e3)
}

/// A writer's turn; the kernel ends it when the process dies.
struct Turn {
    _lock: File,
}

impl Turn {
    fn take(folder: &Path) -> Result<Turn, PutError> {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(folder.join("lock"))?;
        let began = Instant::now();
        loop {
            // SAFETY: a system call on a descriptor that is open.
            if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                return Ok(Turn { _lock: lock });
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock if began.elapsed() > LOCK_WAIT => {
                    return Err(PutError::Locked)
                }
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
#[path = "gateway_test.rs"]
mod tests;
