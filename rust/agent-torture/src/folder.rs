//! A folder of a run's own; gone when dropped.

use crate::error::Error;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Folder(PathBuf);

impl Folder {
    /// A new folder in `parent`; where none is given, in shared memory, else where temporary files are.
    pub fn new(parent: Option<&Path>, name: &str) -> Result<Folder, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Only the number has to differ.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("agent-torture-{name}-{}-{count}", std::process::id());
        let path = match parent {
            Some(parent) => parent.join(name),
            None => match Path::new("/dev/shm") {
                memory if memory.is_dir() => memory.join(name),
                _ => std::env::temp_dir().join(name),
            },
        };
        let what = format!("make the folder {}", path.display());
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::io(what))?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
