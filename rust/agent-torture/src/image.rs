//! The files of a folder at one moment, page by page, and how they are put back.
//!
//! Pages that did not change are shared between images, holes are none. What is put back stands in the same inodes as far
//! as names are the same, so that whoever has a file mapped or locked keeps it.
//!
//! Limits: regular files of one owner; times are not kept.

use crate::error::Error;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

pub const PAGE: usize = 4096;
pub type Page = Rc<[u8; PAGE]>;

/// One file; a page that is none is a hole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileImage {
    pub len: u64,
    pub mode: u32,
    pub pages: Vec<Option<Page>>,
}

/// A folder: several names may lead to one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    pub names: BTreeMap<OsString, usize>,
    pub files: Vec<FileImage>,
}

impl Image {
    pub fn file(&self, name: &str) -> Option<&FileImage> {
        self.names.get(OsStr::new(name)).map(|&index| &self.files[index])
    }

    /// Makes the folder look like the image.
    pub fn put(&self, folder: &Path) -> Result<(), Error> {
        self.put_back(folder).map_err(Error::io(format!("write to {}", folder.display())))
    }

    fn put_back(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !self.names.contains_key(&entry.file_name()) {
                fs::remove_file(entry.path())?;
            }
        }
        // The name under which each file is there already.
        let mut there: HashMap<usize, &OsStr> = HashMap::new();
        for (name, &index) in &self.names {
            let path = folder.join(name);
            match there.get(&index) {
                Some(first) if inode(&folder.join(first))? == inode(&path).unwrap_or(0) => {}
                Some(first) => {
                    let _ = fs::remove_file(&path);
                    fs::hard_link(folder.join(first), &path)?;
                }
                None => {
                    self.files[index].put_back(&path)?;
                    there.insert(index, name);
                }
            }
        }
        Ok(())
    }
}

impl FileImage {
    fn put_back(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(self.mode & 0o777).open(path)?;
        if file.metadata()?.nlink() > 1 {
            // Of another image, in which it had another name as well.
            fs::remove_file(path)?;
            file = options.open(path)?;
        }
        file.set_permissions(Permissions::from_mode(self.mode & 0o777))?;
        file.set_len(self.len)?;
        let now = read(&file, self.len)?;
        for (index, (now, wanted)) in now.iter().zip(&self.pages).enumerate() {
            let at = index * PAGE;
            match wanted {
                _ if now == wanted => {}
                Some(page) => {
                    let end = PAGE.min(self.len as usize - at);
                    file.write_all_at(&page[..end], at as u64)?;
                }
                None => punch(&file, at)?,
            }
        }
        Ok(())
    }

    /// The pages as bytes, holes as zeros.
    pub fn bytes(&self) -> Vec<u8> {
        let zeros = [0; PAGE];
        let pages = self.pages.iter().flat_map(|page| page.as_deref().unwrap_or(&zeros));
        pages.copied().take(self.len as usize).collect()
    }
}

fn inode(path: &Path) -> io::Result<u64> {
    fs::symlink_metadata(path).map(|metadata| metadata.ino())
}

fn punch(file: &File, at: usize) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: a system call on an open file.
    if unsafe { libc::fallocate(file.as_raw_fd(), mode, at as i64, PAGE as i64) } == 0 {
        return Ok(());
    }
    // Where there are no holes, zeros read the same.
    file.write_all_at(&[0; PAGE], at as u64)
}

fn read(file: &File, len: u64) -> io::Result<Vec<Option<Page>>> {
    let mut pages = vec![None; (len as usize).div_ceil(PAGE)];
    for index in extents(file, len)?.into_iter().flatten() {
        let mut page = [0; PAGE];
        let end = PAGE.min(len as usize - index * PAGE);
        file.read_exact_at(&mut page[..end], (index * PAGE) as u64)?;
        pages[index] = Some(Rc::new(page));
    }
    Ok(pages)
}

/// Ranges of pages that are no holes.
pub fn extents(file: &File, len: u64) -> io::Result<Vec<std::ops::Range<usize>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < len {
        let Some(start) = seek(file, at, libc::SEEK_DATA)? else { break };
        let end = seek(file, start, libc::SEEK_HOLE)?.unwrap_or(len).min(len);
        found.push(start as usize / PAGE..(end as usize).div_ceil(PAGE));
        at = end;
    }
    Ok(found)
}

/// Nothing when there is no more data.
fn seek(file: &File, from: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    // SAFETY: a system call on an open file.
    match unsafe { libc::lseek(file.as_raw_fd(), from as i64, whence) } {
        -1 => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENXIO) => Ok(None),
                _ => Err(error),
            }
        }
        at => Ok(Some(at as u64)),
    }
}
