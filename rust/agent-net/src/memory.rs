//! How much memory is used, of how much, and how many connections it has room for.
//!
//! The limit is `memory_bytes_max`, else that of a cgroup on the way to the root (v2 `memory.max`, v1
//! `memory.limit_in_bytes`; of several, the one with the fewest bytes left), else the machine's memory.
//! Usage is the cgroup's, other processes in it included, without the page cache that the kernel can drop
//! at once: inactive, neither dirty nor under writeback. Without a cgroup it is this worker's private
//! memory times the number of workers, what they share once, and the kernel's part of each connection.
//!
//! ```text
//! one look:    room = (limit * ratio - used) / CONNECTION_BYTES, for all processes together
//! afterwards:  credit = room - connections that all processes have accepted since this look began
//!
//! 0 ...................... admit_max ............ accept_max ................. shed_max ......... limit
//!   connections are admitted   they are refused     they wait in the kernel     samples are shed
//! ```
//!
//! A connection counts at the most that it can cost (8 KiB; measured 1.5 KiB in a v1 group; the objects
//! of the kernel are 3.8 KiB in all, and a v2 group pays for unread data as well) until a look replaces the
//! estimate by what was charged. All processes draw on one account: one that looked long ago has no claim
//! of its own to room that the others have taken meanwhile. The share above `ratio` stays free for what no
//! look can foresee: data of many connections that arrives at once (at 15 %, a page for every fourth of the
//! connections that fit), a page that is rendered, and connections that are refused: the kernel frees a
//! part of each (0.9 KiB) only a second later under load, so 40,000 a second would fill any reserve. That
//! is why they draw on the account as well, and are left where they cost the group nothing when it is
//! used up: halfway to the mark at which samples are shed, so that a flood costs no sample of those who
//! are in.
//!
//! Limits: processes that accept at the same moment may each take one connection more than there is room
//! for. Not promised: memory that other processes take between two looks; without a cgroup, what other
//! processes do to the machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::Limits;

/// What an idle connection costs in the kernel: socket, inode, descriptor, epoll entry.
const KERNEL_BYTES: u64 = 4096;
/// What any connection costs at most: a page of received data is charged to its socket as well (cgroup
/// v2), and it has an entry of ours.
const CONNECTION_BYTES: u64 = KERNEL_BYTES + 4096;
/// What the kernel may keep of a refused connection for a while: inode and file, 0.9 KiB measured.
const REFUSED_BYTES: u64 = 2048;
/// Room for fewer is none, so that the last bytes below the watermark are not asked for one by one.
const ROOM_MIN: u64 = 16;
/// What one CPU may keep from `memory.stat`: the kernel brings the figures together in batches of 64 pages.
const STAT_BATCH_BYTES: u64 = 64 * 4096;
/// Of every file of the kernel that we read in pages; a larger page errs to caution.
const PAGE_BYTES: u64 = 4096;

/// Memory used and the most that may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    pub used_bytes: u64,
    pub limit_bytes: u64,
}

impl Usage {
    pub fn ratio(&self) -> f64 {
        self.used_bytes as f64 / self.limit_bytes.max(1) as f64
    }

    /// Bytes that are left below this share of the limit.
    fn room_bytes(&self, ratio_max: f64) -> u64 {
        let most = (self.limit_bytes as f64 * ratio_max) as u64;
        most.saturating_sub(self.used_bytes)
    }

    fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes)
    }
}

/// Shares of the limit; 1 is no mark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Marks {
    /// Connections are refused above it.
    pub admit_max: f64,
    /// They are not accepted above it.
    pub accept_max: f64,
    /// Samples are shed above it.
    pub shed_max: f64,
}

impl Marks {
    pub fn new(limits: &Limits) -> Marks {
        let admit_max = limits.memory_connections_ratio_max;
        let shed_max = limits.memory_used_ratio_max;
        let next = if shed_max > admit_max { shed_max } else { 1.0 };
        Marks { admit_max, accept_max: (admit_max + next) / 2.0, shed_max }
    }
}

/// How far connections may be taken before somebody looks again.
///
/// `accepted` is the count of connections that all processes together have ever accepted, those included
/// that were refused then.
#[derive(Debug, Default)]
pub struct Room {
    /// Nothing without a limit.
    span: Option<Span>,
    is_full: bool,
}

/// What a look found, as counts of accepted connections.
#[derive(Debug)]
struct Span {
    seen: u64,
    /// From here on they are refused.
    admits_until: u64,
    /// From here on they are not accepted.
    accepts_until: u64,
}

impl Room {
    /// Takes over a look. `accepted` must have been read before `usage`: what is accepted between the two
    /// is then counted twice and not missed.
    pub fn look(&mut self, usage: Usage, marks: Marks, accepted: u64) {
        let room = usage.room_bytes(marks.admit_max) / CONNECTION_BYTES;
        let has_limit = marks.admit_max < 1.0;
        let is_above = is_above(usage.ratio(), marks.admit_max, self.is_full);
        self.is_full = has_limit && (room < ROOM_MIN || is_above);
        let (room, cost) = match self.is_full {
            true => (0, REFUSED_BYTES),
            false => (room, CONNECTION_BYTES),
        };
        let room_to_refuse = usage.room_bytes(marks.accept_max) / cost;
        self.span = has_limit.then_some(Span {
            seen: accepted,
            admits_until: accepted.saturating_add(room),
            accepts_until: accepted.saturating_add(room_to_refuse),
        });
    }

    /// Connections that may be let in now.
    pub fn credit(&self, accepted: u64) -> u32 {
        match &self.span {
            None => u32::MAX,
            // The account began anew: nothing is known.
            Some(span) if accepted < span.seen => 0,
            Some(span) => {
                let left = span.admits_until.saturating_sub(accepted);
                left.min(u64::from(u32::MAX - 1)) as u32
            }
        }
    }

    /// Whether there is memory left to accept a connection, be it to refuse it.
    pub fn may_accept(&self, accepted: u64) -> bool {
        self.span.as_ref().is_none_or(|span| accepted < span.accepts_until)
    }

    /// Whether the last look found none.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}

/// Above a watermark; once above, a little below it is still above, so that it does not flicker.
pub fn is_above(ratio: f64, most: f64, was_above: bool) -> bool {
    most < 1.0 && ratio >= if was_above { most * 0.97 } else { most }
}

/// The words of the files of one version of cgroups.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    limit: &'static str,
    current: &'static str,
    inactive: &'static str,
    /// Page cache that must be written before it can be dropped.
    unwritten: [&'static str; 2],
}

const VERSION_2: Names = Names {
    limit: "memory.max",
    current: "memory.current",
    inactive: "inactive_file",
    unwritten: ["file_dirty", "file_writeback"],
};
const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    current: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
    unwritten: ["total_dirty", "total_writeback"],
};

/// A cgroup with a limit.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    bytes: u64,
    folder: PathBuf,
    names: &'static Names,
}

impl Group {
    /// `stat_error_bytes`: by how much `memory.stat` may be behind.
    fn usage(&self, stat_error_bytes: u64) -> Option<Usage> {
        let current = number(&self.folder.join(self.names.current))?;
        let text = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let figure = |name| field(&text, name).unwrap_or(0);
        let unwritten: u64 = self.names.unwritten.iter().map(|name| figure(name)).sum();
        let cache = figure(self.names.inactive).saturating_sub(unwritten + stat_error_bytes);
        Some(Usage { used_bytes: current.saturating_sub(cache), limit_bytes: self.bytes })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Limit {
    /// From the config, or the machine's: compared with what our processes use.
    Own(u64),
    /// Of every cgroup up to the root that has one.
    Groups(Vec<Group>),
}

/// Knows where the limit comes from.
#[derive(Debug)]
pub struct Memory {
    limit: Limit,
    workers: u64,
    stat_error_bytes: u64,
}

impl Memory {
    /// `bytes_max` of 0 asks the cgroup and the machine.
    pub fn new(bytes_max: u64, workers: u32) -> Memory {
        let limit = match bytes_max {
            0 => {
                let found = groups(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
                match found.is_empty() {
                    true => Limit::Own(machine_bytes(Path::new("/proc/meminfo"))),
                    false => Limit::Groups(found),
                }
            }
            bytes => Limit::Own(bytes),
        };
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let stat_error_bytes = cpus(&online) * STAT_BATCH_BYTES;
        Memory { limit, workers: workers.max(1).into(), stat_error_bytes }
    }

    /// `connections` are those of all processes now. Nothing when the kernel does not say.
    pub fn usage(&self, connections: u32) -> Option<Usage> {
        match &self.limit {
            Limit::Own(bytes) => {
                let resident = own_bytes(Path::new("/proc/self/statm"), self.workers)?;
                let used_bytes = resident + u64::from(connections) * KERNEL_BYTES;
                Some(Usage { used_bytes, limit_bytes: *bytes })
            }
            Limit::Groups(groups) => {
                let usages = groups.iter().filter_map(|group| group.usage(self.stat_error_bytes));
                usages.min_by_key(Usage::left_bytes)
            }
        }
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after a word that begins a line.
fn field(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix([' ', ':']))?;
    line.split_whitespace().next()?.parse().ok()
}

fn machine_bytes(meminfo: &Path) -> u64 {
    let text = fs::read_to_string(meminfo).unwrap_or_default();
    field(&text, "MemTotal").map_or(u64::MAX, |kib| kib * 1024)
}

/// Private memory of every worker, taken from this one, and shared memory once.
fn own_bytes(statm: &Path, workers: u64) -> Option<u64> {
    let text = fs::read_to_string(statm).ok()?;
    let mut pages = text.split_whitespace().skip(1).map(|word| word.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some((resident.saturating_sub(shared) * workers + shared) * PAGE_BYTES)
}

/// The number of CPUs, of a list such as `0-3,8`: the last of them may stand for all.
fn cpus(online: &str) -> u64 {
    let last = online.trim().rsplit([',', '-']).next().and_then(|word| word.parse::<u64>().ok());
    last.map_or(1, |last| last + 1)
}

/// The cgroups with a limit from ours up to the root.
fn groups(own: &Path, root: &Path) -> Vec<Group> {
    let text = fs::read_to_string(own).unwrap_or_default();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, names) = match controllers {
            "" => (root.to_owned(), &VERSION_2),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), &VERSION_1)
            }
            _ => continue,
        };
        // In a container the path is that of the host and not there; the mount itself is ours.
        let path = base.join(path.trim_start_matches('/'));
        for folder in path.ancestors().take_while(|at| at.starts_with(&base)) {
            match number(&folder.join(names.limit)) {
                // Version 1 writes "no limit" as a number.
                Some(bytes) if bytes < 1 << 60 => {
                    found.push(Group { bytes, folder: folder.to_owned(), names });
                }
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
