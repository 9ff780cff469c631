//! The folders that apps are looked for in, and which of them may be read.
//!
//! The own folder belongs to the collector's user, and nobody else may write to it. A shared folder belongs to any user, who
//! alone may write to it: so what lies in it is of its owner, and its owner can harm nobody but himself. Both are folders and
//! no links to folders. A collector reads a shared one because its group lets it, or because it is root.
//!
//! Shared folders are given by paths whose last part may have `*`; each stands for all folders that it fits, files and links
//! aside.
//!
//! Limits: [`FOLDERS_MAX`] folders, [`ENTRIES_MAX`] entries of a folder are looked at.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agent_shm::LAYOUT_VERSION;

use super::Refused;

/// Folders at one time.
pub const FOLDERS_MAX: usize = 256;
/// What is looked at in one folder, whatever it is.
pub const ENTRIES_MAX: usize = 8192;

/// A folder that may be read.
pub struct Folder {
    pub path: PathBuf,
    pub owner: u32,
    pub is_shared: bool,
    id: (u64, u64),
}

/// A file that may be a segment.
pub struct Found<'a> {
    pub folder: &'a Folder,
    pub path: PathBuf,
    pub metadata: Metadata,
    /// Of our version of the layout.
    pub is_ours: bool,
}

impl Folder {
    /// The files that may be segments, of any layout, sorted by name, links among them: attaching refuses those.
    pub fn list(&self) -> Result<Vec<Found<'_>>, Refused> {
        let entries = fs::read_dir(&self.path).map_err(|_| Refused::FolderUnreadable)?;
        let found = entries.take(ENTRIES_MAX).filter_map(Result::ok).filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (stem, version) = name.strip_suffix(".seg")?.rsplit_once(".v")?;
            let is_ours = version.parse::<u32>().ok()? == LAYOUT_VERSION;
            let wanted = !stem.is_empty() && !stem.starts_with('.');
            let metadata = entry.metadata().ok().filter(|_| wanted)?;
            Some(Found { folder: self, path: self.path.join(&name), metadata, is_ours })
        });
        let mut found: Vec<Found<'_>> = found.collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

/// The own folder and the shared ones, each once, and why others are not read.
pub fn all(own: &Path, shared: &[String]) -> (Vec<Folder>, Vec<Refused>) {
    let (mut folders, mut refused): (Vec<Folder>, Vec<Refused>) = (Vec::new(), Vec::new());
    let mut take = |folder: Result<Folder, Refused>| match folder {
        Ok(folder) if folders.iter().any(|known| known.id == folder.id) => {}
        Ok(_) if folders.len() >= FOLDERS_MAX => refused.push(Refused::TooMany),
        Ok(folder) => folders.push(folder),
        Err(why) => refused.push(why),
    };
    take(look(own, false));
    for pattern in shared {
        for path in fitting(Path::new(pattern)) {
            take(look(&path, true));
        }
    }
    (folders, refused)
}

/// Whether a folder is one that only we can put files into.
pub fn check_folder(folder: &Path) -> Result<(), Refused> {
    look(folder, false).map(|_| ())
}

fn look(path: &Path, is_shared: bool) -> Result<Folder, Refused> {
    let metadata = fs::symlink_metadata(path).map_err(|_| Refused::FolderUnreadable)?;
    // SAFETY: a system call without arguments.
    let is_ours = metadata.uid() == unsafe { libc::geteuid() };
    if !metadata.is_dir() || !(is_ours || is_shared) {
        return Err(Refused::FolderNotOurs);
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(Refused::FolderOpenToOthers);
    }
    let id = (metadata.dev(), metadata.ino());
    Ok(Folder { path: path.to_owned(), owner: metadata.uid(), is_shared, id })
}

/// The folders that a path with `*` in its last part fits, sorted; one without is there or not.
fn fitting(pattern: &Path) -> Vec<PathBuf> {
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let (Some(parent), Some(last)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let last = last.to_string_lossy();
    if !last.contains('*') {
        let there = fs::symlink_metadata(pattern).is_ok();
        return if there { vec![pattern.to_owned()] } else { Vec::new() };
    }
    let entries = fs::read_dir(parent).into_iter().flatten().take(ENTRIES_MAX).flatten();
    let fits = entries.filter(|entry| fits(&last, &entry.file_name().to_string_lossy()));
    let mut found: Vec<PathBuf> =
        fits.map(|entry| entry.path()).filter(|path| is_folder(path)).collect();
    found.sort();
    found
}

/// Whether a name is what a pattern says, in which `*` is any text.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        let fitting =
            [("a", "a"), ("*", ""), ("*", "x"), ("a*", "a"), ("*c", "abc"), ("a*c*e", "abcde")];
        for (pattern, name) in fitting {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("a", "ab"), ("a*", "ba"), ("*c", "cb"), ("a*a", "a"), ("a*c*e", "aec")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
