//! Whether a path still leads to the file that is mapped: device and inode are compared before anything is opened,
//! locked or replaced by its name.

use crate::error::Error;
use std::fs::{File, OpenOptions};
#[cfg(not(model))]
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Device and inode of a file.
pub type FileId = (u64, u64);

/// A new description of the mapped file; an error when its path leads elsewhere by now.
pub fn open_again(path: &Path, id: Option<FileId>, writable: bool) -> Result<File, Error> {
    let fail = |source| Error::Io { stage: "open for locking", path: path.into(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .and_then(above_standard)
        .map_err(fail)?;
    let here = file.metadata().map_err(fail)?;
    if id != Some((here.dev(), here.ino())) {
        return Err(replaced(path));
    }
    Ok(file)
}

/// The same file under a number above those of the standard streams: where they are closed, whatever writes to them would
/// write into it.
pub fn above_standard(file: File) -> std::io::Result<File> {
    if file.as_raw_fd() > 2 {
        return Ok(file);
    }
    // SAFETY: a system call on an open file; the new number is nobody else's.
    unsafe {
        match libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) {
            -1 => Err(std::io::Error::last_os_error()),
            number => Ok(File::from_raw_fd(number)),
        }
    }
}

/// The error of whoever finds another file in the place of its own.
pub fn replaced(path: &Path) -> Error {
    let reason = "the file was replaced while it was being opened".into();
    Error::NotUsable { path: path.into(), reason }
}

/// Whether `path` leads to the file with this device and inode; nothing when it cannot be told (no permission).
#[cfg(not(model))]
pub fn leads_to(path: &Path, id: FileId) -> Option<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(now) => Some((now.dev(), now.ino()) == id),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Where a file was mapped, by a process that may have no right to its folder any more, or another root.
#[cfg(not(model))]
pub struct Mapped<'a> {
    pub path: &'a Path,
    pub id: FileId,
    pub address: usize,
    /// The root of this process when it mapped the file.
    pub root: Option<FileId>,
}

#[cfg(not(model))]
impl Mapped<'_> {
    /// As [`leads_to`]. Who cannot look, or has another root (`chroot`), learns from its own mapping whether the file has
    /// a name still.
    pub fn is_in_place(&self) -> Option<bool> {
        match leads_to(self.path, self.id) {
            Some(false) if root() == self.root => Some(false),
            Some(true) => Some(true),
            _ => is_unlinked(self.address)?.then_some(false),
        }
    }
}

/// Device and inode of the root of this process.
#[cfg(not(model))]
pub fn root() -> Option<FileId> {
    std::fs::metadata("/").ok().map(|found| (found.dev(), found.ino()))
}

/// Whether the file that is mapped at `address` has no name any more, by what the kernel lists of this process.
#[cfg(not(model))]
fn is_unlinked(address: usize) -> Option<bool> {
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let start = format!("{address:x}-");
    let line = maps.split(|&byte| byte == b'\n').find(|line| line.starts_with(start.as_bytes()))?;
    Some(line.ends_with(b" (deleted)"))
}
