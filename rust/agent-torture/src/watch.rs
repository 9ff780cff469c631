//! Images of a folder while a child changes it, one instruction at a time.
//!
//! After an instruction that writes no memory nothing is looked at. After one that may, the pages that are no holes are
//! compared with what they were, through a mapping. Names, sizes and holes change by system calls, and a hole also by the
//! first store into it, which the number of the file's blocks tells. So every change is seen at the instruction that made it.

use crate::decode::Effect;
use crate::error::Error;
use crate::image::{extents, FileImage, Image, PAGE};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub struct Watch {
    folder: PathBuf,
    names: BTreeMap<OsString, u64>,
    /// By inode.
    files: BTreeMap<u64, Watched>,
}

/// A file, mapped for reading.
struct Watched {
    file: File,
    base: *const u8,
    mapped: usize,
    blocks: u64,
    extents: Vec<Range<usize>>,
    image: FileImage,
}

impl Watch {
    /// Begins with what is there now.
    pub fn new(folder: &Path) -> Result<Watch, Error> {
        let (names, files) = (BTreeMap::new(), BTreeMap::new());
        let mut watch = Watch { folder: folder.into(), names, files };
        watch.look(Effect::SystemCall)?;
        Ok(watch)
    }

    /// Looks for what an instruction of that effect may have changed; `true` when something did.
    pub fn look(&mut self, effect: Effect) -> Result<bool, Error> {
        let what = || format!("look at {}", self.folder.display());
        match effect {
            Effect::Nothing => Ok(false),
            Effect::MayWrite => {
                let mut changed = false;
                for watched in self.files.values_mut() {
                    changed |= watched.look(false).map_err(Error::io(what()))?;
                }
                Ok(changed)
            }
            Effect::SystemCall => {
                let what = what();
                self.look_at_names().map_err(Error::io(what))
            }
        }
    }

    pub fn image(&self) -> Image {
        let inodes: Vec<u64> = self.files.keys().copied().collect();
        let index = |inode: &u64| inodes.iter().position(|known| known == inode).unwrap_or(0);
        let names = self.names.iter().map(|(name, inode)| (name.clone(), index(inode))).collect();
        let files = self.files.values().map(|watched| watched.image.clone()).collect();
        Image { names, files }
    }

    fn look_at_names(&mut self) -> io::Result<bool> {
        let mut names = BTreeMap::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            names.insert(entry.file_name(), std::os::unix::fs::DirEntryExt::ino(&entry));
        }
        let mut changed = names != self.names;
        self.files.retain(|inode, _| names.values().any(|named| named == inode));
        for (name, inode) in &names {
            match self.files.get_mut(inode) {
                Some(watched) => changed |= watched.look(true)?,
                None => {
                    let mut watched = Watched::open(&self.folder.join(name))?;
                    watched.look(true)?;
                    self.files.insert(*inode, watched);
                    changed = true;
                }
            }
        }
        self.names = names;
        Ok(changed)
    }
}

impl Watched {
    fn open(path: &Path) -> io::Result<Watched> {
        let (file, extents) = (File::open(path)?, Vec::new());
        let image = FileImage::default();
        Ok(Watched { file, base: std::ptr::null(), mapped: 0, blocks: 0, extents, image })
    }

    /// `anew`: a system call may have made holes of pages.
    fn look(&mut self, anew: bool) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        let mut changed = false;
        if (metadata.len(), metadata.mode()) != (self.image.len, self.image.mode) {
            changed = true;
            self.resize(metadata.len())?;
            self.image.mode = metadata.mode();
        }
        if anew || changed || metadata.blocks() != self.blocks {
            changed |= self.look_for_holes()?;
            self.blocks = metadata.blocks();
        }
        for index in self.extents.iter().cloned().flatten() {
            let now = page(self.base, index);
            if self.image.pages[index].as_deref() != Some(now) {
                self.image.pages[index] = Some(Rc::new(*now));
                changed = true;
            }
        }
        Ok(changed)
    }

    fn resize(&mut self, len: u64) -> io::Result<()> {
        let pages = (len as usize).div_ceil(PAGE);
        self.unmap();
        if pages > 0 {
            // SAFETY: a new mapping at an address of the kernel's choice.
            let base = unsafe {
                let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
                let fd = self.file.as_raw_fd();
                libc::mmap(std::ptr::null_mut(), pages * PAGE, read, shared, fd, 0)
            };
            if base == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            (self.base, self.mapped) = (base.cast_const().cast(), pages * PAGE);
        }
        self.image.len = len;
        self.image.pages.resize(pages, None);
        Ok(())
    }

    fn look_for_holes(&mut self) -> io::Result<bool> {
        self.extents = extents(&self.file, self.image.len)?;
        let mut changed = false;
        for index in 0..self.image.pages.len() {
            let is_data = self.extents.iter().any(|range| range.contains(&index));
            if !is_data && self.image.pages[index].take().is_some() {
                changed = true;
            }
        }
        Ok(changed)
    }

    fn unmap(&mut self) {
        if self.mapped > 0 {
            // SAFETY: the mapping made in `resize`; no page of it is borrowed.
            unsafe { libc::munmap(self.base.cast_mut().cast(), self.mapped) };
            self.mapped = 0;
        }
    }
}

/// One page of the mapping at `base`, of which `index` is a page of data.
fn page<'m>(base: *const u8, index: usize) -> &'m [u8; PAGE] {
    // SAFETY: inside of the mapping, and the file is as long: it was just asked, and who could change it is stopped. The
    // caller is done with it before anybody goes on.
    unsafe { &*base.add(index * PAGE).cast() }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.unmap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;
    use std::fs;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_folder_is_put_back_as_it_was() {
        let folder = Folder::new(None, "image").unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let file = File::create(&one).unwrap();
        file.set_len(5 * PAGE as u64 + 100).unwrap();
        file.write_all_at(b"in the third page", 2 * PAGE as u64 + 8).unwrap();
        fs::hard_link(&one, &two).unwrap();
        let before = Watch::new(folder.path()).unwrap().image();
        assert_eq!(before.files.len(), 1, "two names of one file");
        let pages = &before.file("two").unwrap().pages;
        assert_eq!(pages.iter().filter(|page| page.is_some()).count(), 1, "the rest is a hole");
        file.write_all_at(b"where a hole was", 0).unwrap();
        file.write_all_at(b"changed", 2 * PAGE as u64).unwrap();
        file.set_len(3 * PAGE as u64).unwrap();
        fs::remove_file(&two).unwrap();
        fs::write(folder.path().join("three"), b"new").unwrap();
        let inode = || fs::metadata(&one).unwrap().ino();
        let inode_before = inode();
        before.put(folder.path()).unwrap();
        assert_eq!(Watch::new(folder.path()).unwrap().image(), before);
        assert_eq!(inode(), inode_before, "the file is the same");
    }
}
