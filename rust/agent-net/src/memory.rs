//! How much memory is used, of how much: the watermark of admission.
//!
//! The limit is `memory_bytes_max`, else that of the cgroup (v2 `memory.max`, v1
//! `memory.limit_in_bytes`, the smallest on the way to the root), else the machine's memory. Usage is
//! the cgroup's, without the page cache that the kernel can drop at once (`inactive_file`), when the
//! limit is the cgroup's; else this worker's private memory times the number of workers, and what
//! they share once.
//!
//! Read every second, and sooner when as many connections were opened as there was room for: it costs
//! a few small files. Not promised: what other processes
//! outside the cgroup do to the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// What the kernel and we keep for an idle connection, at most.
const CONNECTION_BYTES: f64 = 4096.0;

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

    /// Connections that each of `workers` may open before it looks again, so that all of them together
    /// stay below `ratio_max`: they take at most half of the room that is left.
    pub fn credit(&self, ratio_max: f64, workers: u32) -> u32 {
        let most = self.limit_bytes as f64 * ratio_max;
        let room = (most - self.used_bytes as f64).max(0.0);
        (room / (2.0 * CONNECTION_BYTES * f64::from(workers.max(1)))) as u32
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Limit {
    /// From the config, or the machine's: compared with what our processes use.
    Own(u64),
    /// Of a cgroup; `stat` names the line of the dropable page cache.
    Cgroup { bytes: u64, current: PathBuf, stat: PathBuf, inactive: &'static str },
}

/// Knows where the limit comes from.
#[derive(Debug)]
pub struct Memory {
    limit: Limit,
    workers: u64,
}

impl Memory {
    /// `bytes_max` of 0 asks the cgroup and the machine.
    pub fn new(bytes_max: u64, workers: u32) -> Memory {
        let limit = match bytes_max {
            0 => cgroup(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
                .unwrap_or_else(|| Limit::Own(machine_bytes(Path::new("/proc/meminfo")))),
            bytes => Limit::Own(bytes),
        };
        Memory { limit, workers: workers.max(1).into() }
    }

    /// Nothing when the kernel does not say.
    pub fn usage(&self) -> Option<Usage> {
        match &self.limit {
            Limit::Own(bytes) => {
                let used_bytes = own_bytes(Path::new("/proc/self/statm"), self.workers)?;
                Some(Usage { used_bytes, limit_bytes: *bytes })
            }
            Limit::Cgroup { bytes, current, stat, inactive } => {
                let current = number(current)?;
                let text = fs::read_to_string(stat).unwrap_or_default();
                let cache = field(&text, inactive).unwrap_or(0);
                Some(Usage { used_bytes: current.saturating_sub(cache), limit_bytes: *bytes })
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
    // Every Linux we run on has pages of 4 KiB in this file, or a multiple that errs to caution.
    Some((resident.saturating_sub(shared) * workers + shared) * 4096)
}

/// The cgroup with the smallest limit from ours up to the root.
fn cgroup(own: &Path, root: &Path) -> Option<Limit> {
    let text = fs::read_to_string(own).ok()?;
    let mut best: Option<Limit> = None;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (base, files) = match controllers {
            "" => (root.to_owned(), ["memory.max", "memory.current", "inactive_file"]),
            _ if controllers.split(',').any(|name| name == "memory") => {
                let files =
                    ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
                (root.join("memory"), files)
            }
            _ => continue,
        };
        // In a container the path is that of the host and not there; the mount itself is ours.
        for folder in base.join(path).ancestors().take_while(|at| at.starts_with(&base)) {
            let Some(bytes) = number(&folder.join(files[0])) else { continue };
            let smaller = match &best {
                Some(Limit::Cgroup { bytes: least, .. }) => bytes < *least,
                _ => bytes < 1 << 60,
            };
            if smaller {
                best = Some(Limit::Cgroup {
                    bytes,
                    current: folder.join(files[1]),
                    stat: folder.join("memory.stat"),
                    inactive: files[2],
                });
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("agent-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder");
            Folder(path)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn workers_share_the_room_that_is_left() {
        let usage = Usage { used_bytes: 60 << 20, limit_bytes: 100 << 20 };
        assert_eq!(usage.credit(0.8, 1), 2560);
        assert_eq!(usage.credit(0.8, 4), 640);
        assert_eq!(usage.credit(0.6, 1), 0);
        assert_eq!(usage.credit(0.5, 1), 0);
    }

    #[test]
    fn the_smallest_limit_up_to_the_root_counts() {
        let folder = Folder::new("cgroup2");
        folder.write("own", "0::/a/b\n");
        folder.write("fs/memory.max", "max\n");
        folder.write("fs/a/memory.max", "1000\n");
        folder.write("fs/a/memory.current", "900\n");
        folder.write("fs/a/memory.stat", "file 500\ninactive_file 400\n");
        folder.write("fs/a/b/memory.max", "5000\n");
        let limit = cgroup(&folder.0.join("own"), &folder.0.join("fs")).expect("a limit");
        let memory = Memory { limit, workers: 3 };
        let usage = memory.usage().expect("readable");
        assert_eq!(usage, Usage { used_bytes: 500, limit_bytes: 1000 });
        assert_eq!(usage.ratio(), 0.5);
    }

    #[test]
    fn version_one_and_no_limit_are_known_too() {
        let folder = Folder::new("cgroup1");
        folder.write("own", "5:cpu:/x\n4:memory:/x\n0::/\n");
        folder.write("fs/memory/x/memory.limit_in_bytes", "2000\n");
        folder.write("fs/memory/x/memory.usage_in_bytes", "700\n");
        folder.write("fs/memory/x/memory.stat", "total_inactive_file 100\n");
        let limit = cgroup(&folder.0.join("own"), &folder.0.join("fs")).expect("a limit");
        let usage = Memory { limit, workers: 1 }.usage().expect("readable");
        assert_eq!(usage, Usage { used_bytes: 600, limit_bytes: 2000 });
        folder.write("none", "0::/\n");
        assert_eq!(cgroup(&folder.0.join("none"), &folder.0.join("empty")), None);
    }

    #[test]
    fn without_a_cgroup_private_memory_counts_for_each_worker() {
        let folder = Folder::new("statm");
        folder.write("statm", "5000 300 100 1 0 20 0\n");
        assert_eq!(own_bytes(&folder.0.join("statm"), 4), Some((200 * 4 + 100) * 4096));
        assert!(Memory::new(1 << 30, 1).usage().expect("proc").used_bytes > 0);
    }
}
