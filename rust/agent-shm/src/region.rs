//! The bytes of a segment: a mapped file, anonymous memory, or (under loom) an array of model atomics.
//!
//! - One mapping for the whole life: address space is reserved once, memory is committed in chunks by `fallocate`
//!   *before* it is touched, so a full disk or a full `/dev/shm` is an error here and never a SIGBUS on a store.
//!   The emulation that libc offers where the file system has no `fallocate` is not used: it writes, and would race.
//! - Offsets, never addresses. Every access is checked against the mapped length; one that lies outside gets a word that
//!   belongs to nobody and raises `damaged`, so that a corrupt file costs wrong numbers of its own and nothing else.
//! - What is not promised: protection from somebody who truncates a file that is in use. The collector, which maps files
//!   of others, installs a handler for that (`agent-net`, `apps.rs`); an app maps only its own.

#[cfg(not(loom))]
pub use mapped::Region;
#[cfg(loom)]
pub use model::Region;

#[cfg(not(loom))]
mod mapped {
    use crate::error::Error;
    use crate::sync::{Ordering, Pair, Word};
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::ptr::NonNull;

    pub struct Region {
        base: NonNull<u8>,
        /// Bytes of address space; nothing outside is ever touched.
        reserved: u64,
        /// Bytes that may be touched; for a read-only mapping the file's length.
        limit: Word,
        file: Option<File>,
        path: PathBuf,
        writable: bool,
        damaged: Word,
        nobody: Box<[Word; 4]>,
    }

    // SAFETY: the mapping lives as long as the value, is never remapped, and is only reached through atomics.
    unsafe impl Send for Region {}
    // SAFETY: as above.
    unsafe impl Sync for Region {}

    impl Region {
        /// Maps `file`, reserving `reserved` bytes of address space whatever its length is now.
        pub fn map(
            file: File,
            path: &Path,
            reserved: u64,
            writable: bool,
        ) -> Result<Region, Error> {
            let protection =
                if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
            let base = map_raw(reserved, protection, libc::MAP_SHARED, file.as_raw_fd())
                .map_err(|source| Error::Io { stage: "map", path: path.into(), source })?;
            let limit = if writable {
                reserved
            } else {
                file.metadata().map(|m| m.len()).unwrap_or(0).min(reserved)
            };
            Ok(Region::new(base, reserved, limit, Some(file), path, writable))
        }

        /// Memory of this process (and of children forked later), never exported.
        pub fn anonymous(reserved: u64) -> Result<Region, Error> {
            let path = Path::new("(private memory)");
            let base = map_raw(
                reserved,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
            )
            .map_err(|source| Error::Io { stage: "map", path: path.into(), source })?;
            Ok(Region::new(base, reserved, reserved, None, path, true))
        }

        fn new(
            base: NonNull<u8>,
            reserved: u64,
            limit: u64,
            file: Option<File>,
            path: &Path,
            writable: bool,
        ) -> Region {
            let nobody = Box::new([Word::new(0), Word::new(0), Word::new(0), Word::new(0)]);
            let (limit, damaged) = (Word::new(limit), Word::new(0));
            Region { base, reserved, limit, file, path: path.into(), writable, damaged, nobody }
        }

        pub fn path(&self) -> &Path {
            &self.path
        }

        pub fn is_writable(&self) -> bool {
            self.writable
        }

        /// Device and inode of the mapped file.
        pub fn file_id(&self) -> Option<(u64, u64)> {
            let metadata = self.file.as_ref()?.metadata().ok()?;
            Some((metadata.dev(), metadata.ino()))
        }

        pub fn is_shared(&self) -> bool {
            self.file.is_some()
        }

        /// The mapped addresses, for a SIGBUS handler.
        pub fn addresses(&self) -> (usize, usize) {
            (self.base.as_ptr() as usize, self.reserved as usize)
        }

        /// Accesses outside of the region so far: a sign of corruption.
        pub fn damage(&self) -> u64 {
            self.damaged.load(Ordering::Relaxed)
        }

        /// For readers: follows a file that has grown or shrunk since.
        pub fn refresh(&self) {
            if let (false, Some(file)) = (self.writable, &self.file) {
                let length = file.metadata().map(|m| m.len()).unwrap_or(0).min(self.reserved);
                self.limit.store(length, Ordering::Relaxed);
            }
        }

        /// The 8 bytes at `offset`, which is a multiple of 8.
        #[inline]
        pub fn word(&self, offset: u64) -> &Word {
            if offset % 8 != 0 || !self.holds(offset, 8) {
                return &self.outside()[0];
            }
            // SAFETY: in the mapping and aligned (checked above); a `Word` is valid for any bytes, and every access to
            // the mapping is atomic.
            unsafe { self.base.add(offset as usize).cast().as_ref() }
        }

        /// The 32 bytes at `offset`, which is a multiple of 8.
        #[inline]
        pub fn quad(&self, offset: u64) -> &[Word; 4] {
            if offset % 8 != 0 || !self.holds(offset, 32) {
                return self.outside();
            }
            // SAFETY: as in `word`.
            unsafe { self.base.add(offset as usize).cast().as_ref() }
        }

        /// The 16 bytes at `offset`, which is a multiple of 16.
        #[inline]
        pub fn pair(&self, offset: u64) -> &Pair {
            if offset % 16 != 0 || !self.holds(offset, 16) {
                let words = self.outside();
                let start = words.as_ptr().cast::<u8>();
                // SAFETY: 32 bytes aligned to 8 hold one aligned 16-byte value; it belongs to nobody.
                unsafe { return &*start.add(start.align_offset(16)).cast() }
            }
            // SAFETY: as in `word`.
            unsafe { self.base.add(offset as usize).cast().as_ref() }
        }

        fn holds(&self, offset: u64, bytes: u64) -> bool {
            offset.checked_add(bytes).is_some_and(|end| end <= self.limit.load(Ordering::Relaxed))
        }

        #[cold]
        fn outside(&self) -> &[Word; 4] {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            &self.nobody
        }

        /// Makes sure that memory stands behind `[offset, offset + bytes)`. Idempotent; any process may do it.
        pub fn commit(&self, offset: u64, bytes: u64) -> io::Result<()> {
            let Some(file) = &self.file else { return Ok(()) };
            loop {
                // SAFETY: a system call on a file that is open.
                let result =
                    unsafe { libc::fallocate(file.as_raw_fd(), 0, offset as i64, bytes as i64) };
                if result == 0 {
                    return Ok(());
                }
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }

    impl Drop for Region {
        fn drop(&mut self) {
            // SAFETY: the mapping made in `map_raw`, of that length; nothing borrows from it any more.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.reserved as usize) };
        }
    }

    fn map_raw(bytes: u64, protection: i32, flags: i32, fd: i32) -> io::Result<NonNull<u8>> {
        // SAFETY: a new mapping at an address of the kernel's choice; NORESERVE because most of it is never touched.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes as usize,
                protection,
                flags | libc::MAP_NORESERVE,
                fd,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
    }
}

#[cfg(loom)]
mod model {
    use crate::error::Error;
    use crate::sync::{Pair, Word};
    use std::io;
    use std::path::Path;

    /// As many model atomics as the region has words. A pair shares its place with two words that nobody uses.
    pub struct Region {
        words: Vec<Word>,
        pairs: Vec<Pair>,
    }

    impl Region {
        pub fn anonymous(reserved: u64) -> Result<Region, Error> {
            let words = (0..reserved / 8).map(|_| Word::new(0)).collect();
            let pairs = (0..reserved / 16).map(|_| Pair::new()).collect();
            Ok(Region { words, pairs })
        }

        pub fn path(&self) -> &Path {
            Path::new("(model)")
        }

        pub fn is_writable(&self) -> bool {
            true
        }

        pub fn file_id(&self) -> Option<(u64, u64)> {
            None
        }

        pub fn is_shared(&self) -> bool {
            false
        }

        pub fn damage(&self) -> u64 {
            0
        }

        pub fn refresh(&self) {}

        pub fn word(&self, offset: u64) -> &Word {
            &self.words[offset as usize / 8]
        }

        pub fn quad(&self, offset: u64) -> &[Word; 4] {
            let start = offset as usize / 8;
            self.words[start..start + 4].try_into().expect("four words")
        }

        pub fn pair(&self, offset: u64) -> &Pair {
            &self.pairs[offset as usize / 16]
        }

        pub fn commit(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
            Ok(())
        }
    }
}
