//! Taking away a segment file whose definitions nobody alive uses.

use agent_shm::Segment;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Removes the file at `path` when it is still `segment`'s. True when the caller should open the
/// path again: the file is gone or is another one by now. False when somebody else is deciding the
/// same thing at this moment, or it cannot be removed.
pub fn remove(path: &Path, segment: &Segment) -> bool {
    let Some(Ok(directory)) = path.parent().map(File::open) else { return false };
    // One process at a time looks and removes; the lock goes with the descriptor.
    // SAFETY: a system call on an open descriptor.
    if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return false;
    }
    match fs::symlink_metadata(path) {
        Ok(now) if Some((now.dev(), now.ino())) == segment.file_id() => {
            fs::remove_file(path).is_ok()
        }
        _ => true,
    }
}
