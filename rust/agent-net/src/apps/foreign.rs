//! How much of the files of shared folders is read.
//!
//! Each claims how much memory it has; what it has not would become memory of ours when it is read (`agent_shm::Extent`).
//! So every look compares the two before anything is read: a file that claims more than exists is damaged. All of them
//! together are read up to a bound, a quarter of the memory that we may have and at most [`BYTES_MAX`]: even if their owners
//! take memory away after the look, no more than that is lost. Folders with little come first, so that nobody's large
//! files keep the small ones of others out; what does not fit is refused as too many.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use agent_shm::{Extent, Segment};

use super::Refused;
use crate::memory::Memory;

/// What is read of all shared folders together, where memory is not short.
pub const BYTES_MAX: u64 = 256 << 20;

/// Of a shared folder.
pub struct File<'a> {
    pub path: &'a Path,
    pub folder: &'a Path,
    pub segment: &'a Segment,
}

/// What may be read of shared folders by a collector in this control group, on this machine.
pub fn bytes_max() -> u64 {
    let usage = Memory::new(0, 1).usage(0);
    usage.map_or(BYTES_MAX, |usage| BYTES_MAX.min(usage.limit_bytes / 4))
}

/// Lets each file be read as far as it exists; gives those that must not be read.
pub fn bound(files: &[File<'_>], bytes_max: u64) -> Vec<(PathBuf, Refused)> {
    let mut refused = Vec::new();
    let mut found: Vec<(&File<'_>, u64)> = Vec::new();
    let mut of_folder: HashMap<&Path, u64> = HashMap::new();
    for file in files {
        match file.segment.extent() {
            Extent::Bytes(bytes) => {
                found.push((file, bytes));
                *of_folder.entry(file.folder).or_default() += bytes;
            }
            Extent::Hollow => refused.push((file.path.to_owned(), Refused::Damaged)),
            // The next look finds what is there then; until then nothing more of it is read.
            Extent::Gone => {}
        }
    }
    found.sort_by_key(|(file, _)| (of_folder[file.folder], file.path));
    let mut left = bytes_max;
    for (file, bytes) in found {
        match left.checked_sub(bytes) {
            Some(rest) => {
                left = rest;
                file.segment.read_up_to(bytes);
            }
            None => refused.push((file.path.to_owned(), Refused::TooMany)),
        }
    }
    refused
}
