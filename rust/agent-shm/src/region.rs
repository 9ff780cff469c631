//! The bytes of a segment: a mapped file, anonymous memory, or (in a model) an array of stand-ins.
//!
//! - One mapping for the whole life. The file is sparse and has its full size from the start; memory is committed in
//!   chunks *before* it is touched, through the mapping itself (`MADV_POPULATE_WRITE`), so a full disk or a full
//!   `/dev/shm` is an error here and never a SIGBUS on a store. No descriptor is kept: nothing can be written through a
//!   number that has become somebody else's file.
//! - Offsets, never addresses. Every access is checked against what is committed; one that lies outside gets a word that
//!   belongs to nobody and raises `damaged`, so that a corrupt file costs wrong numbers of its own and nothing else.
//! - Of a file of another user only what exists is read: a hole that is read would become memory (foreign.rs).
//! - A file that is truncated or damaged under us is survived: see bus.rs. `was_hit` tells.
//!
//! Kernels before 5.14 have no `MADV_POPULATE_WRITE`: there the file is opened again, compared with the mapped one by
//! device and inode, and asked for memory with `fallocate`.

#[cfg(not(model))]
pub use mapped::Region;
#[cfg(model)]
pub use model::Region;

#[cfg(not(model))]
mod mapped {
    use crate::bus::Guard;
    use crate::error::Error;
    use crate::identity::{self, open_again, FileId, Mapped};
    use crate::layout::{Places, PAGE_BYTES, WORD_COMMITTED};
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
        places: Places,
        /// Bytes that may be touched, as far as this process knows: follows `WORD_COMMITTED`, and never shrinks. 0 where
        /// `reach` says it.
        limit: Word,
        /// Of a foreign file, where what was found to exist ends; else `u64::MAX`. See foreign.rs.
        reach: Word,
        /// Device and inode of the file; nothing for private memory.
        file_id: Option<FileId>,
        /// Of the file system as this process saw it then.
        root: Option<FileId>,
        path: PathBuf,
        writable: bool,
        damaged: Word,
        nobody: Box<[Word; 4]>,
        guard: Option<Guard>,
    }

    // SAFETY: the mapping lives as long as the value, is never remapped, and is only reached through atomics.
    unsafe impl Send for Region {}
    // SAFETY: as above.
    unsafe impl Sync for Region {}

    impl Region {
        /// Maps `file`; the caller may close it then.
        pub fn map(
            file: &File,
            path: &Path,
            places: &Places,
            writable: bool,
        ) -> Result<Region, Error> {
            let fail = |stage| move |source| Error::Io { stage, path: path.into(), source };
            let metadata = file.metadata().map_err(fail("look at"))?;
            let protection =
                if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
            let base = map_raw(places.total, protection, libc::MAP_SHARED, file.as_raw_fd())
                .map_err(fail("map"))?;
            let id = Some((metadata.dev(), metadata.ino()));
            let mut region = Region::new(base, places, id, path, writable);
            region.guard = Guard::new(base.as_ptr() as usize, places.total as usize, writable);
            Ok(region)
        }

        /// Memory of this process (and of children forked later), never exported.
        pub fn anonymous(places: &Places) -> Result<Region, Error> {
            let path = Path::new("(private memory)");
            let base = map_raw(
                places.total,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
            )
            .map_err(|source| Error::Io { stage: "map", path: path.into(), source })?;
            Ok(Region::new(base, places, None, path, true))
        }

        fn new(
            base: NonNull<u8>,
            places: &Places,
            file_id: Option<FileId>,
            path: &Path,
            writable: bool,
        ) -> Region {
            let nobody = Box::new([Word::new(0), Word::new(0), Word::new(0), Word::new(0)]);
            let (limit, damaged) = (Word::new(places.blocks), Word::new(0));
            let (reserved, path) = (places.total, path.into());
            let (places, reach, guard) = (*places, Word::new(u64::MAX), None);
            let root = file_id.and_then(|_| identity::root());
            Region {
                base,
                reserved,
                places,
                limit,
                reach,
                file_id,
                root,
                path,
                writable,
                damaged,
                nobody,
                guard,
            }
        }

        pub fn path(&self) -> &Path {
            &self.path
        }

        pub fn is_writable(&self) -> bool {
            self.writable
        }

        /// As [`crate::Segment::is_in_place`].
        pub fn is_in_place(&self) -> Option<bool> {
            let Some(id) = self.file_id else { return Some(true) };
            let address = self.base.as_ptr() as usize;
            Mapped { path: &self.path, id, address, root: self.root }.is_in_place()
        }

        /// Device and inode of the mapped file.
        pub fn file_id(&self) -> Option<FileId> {
            self.file_id
        }

        pub fn is_shared(&self) -> bool {
            self.file_id.is_some()
        }

        /// Whether a page of the file was gone when it was touched: from then on this mapping shows zeros of its own.
        pub fn was_hit(&self) -> bool {
            self.guard.as_ref().is_some_and(Guard::was_hit)
        }

        /// Whether a page that is gone is survived; else there was no room for one more segment in the handler's table.
        pub fn is_guarded(&self) -> bool {
            self.guard.is_some() || !self.is_shared()
        }

        /// Accesses outside of the region so far: a sign of corruption.
        pub fn damage(&self) -> u64 {
            self.damaged.load(Ordering::Relaxed)
        }

        /// The 8 bytes at `offset`, which is a multiple of 8.
        #[inline]
        pub fn word(&self, offset: u64) -> &Word {
            // SAFETY: see `pointer`; what it gives lives as long as the region.
            unsafe { &*self.pointer(offset) }
        }

        /// As [`Region::word`], for those who keep the region alive themselves.
        #[inline]
        pub fn pointer(&self, offset: u64) -> *const Word {
            if offset % 8 != 0 || !self.holds(offset, 8) {
                return &self.outside(offset)[0];
            }
            // SAFETY: in the mapping and aligned (checked above); a `Word` is valid for any bytes, and every access to
            // the mapping is atomic.
            unsafe { self.base.add(offset as usize).cast().as_ptr() }
        }

        /// The 32 bytes at `offset`, which is a multiple of 8.
        #[inline]
        pub fn quad(&self, offset: u64) -> &[Word; 4] {
            if offset % 8 != 0 || !self.holds(offset, 32) {
                return self.outside(offset);
            }
            // SAFETY: as in `pointer`.
            unsafe { self.base.add(offset as usize).cast().as_ref() }
        }

        /// The 16 bytes at `offset`, which is a multiple of 16.
        #[inline]
        pub fn pair(&self, offset: u64) -> &Pair {
            if offset % 16 != 0 || !self.holds(offset, 16) {
                let words = self.outside(offset);
                let start = words.as_ptr().cast::<u8>();
                // SAFETY: 32 bytes aligned to 8 hold one aligned 16-byte value; it belongs to nobody.
                unsafe { return &*start.add(start.align_offset(16)).cast() }
            }
            // SAFETY: as in `pointer`.
            unsafe { self.base.add(offset as usize).cast().as_ref() }
        }

        #[inline]
        fn holds(&self, offset: u64, bytes: u64) -> bool {
            let Some(end) = offset.checked_add(bytes) else { return false };
            end <= self.limit.load(Ordering::Relaxed) || self.holds_by_now(offset, end)
        }

        /// From now on this mapping reads what makers of segments give memory to, and blocks below `reach`, only.
        pub fn set_reach(&self, reach: u64) {
            self.reach.store(reach, Ordering::Relaxed);
            self.limit.store(0, Ordering::Relaxed);
        }

        /// Where the blocks that may be read end.
        pub fn reach(&self) -> u64 {
            self.reach.load(Ordering::Relaxed)
        }

        /// What this process has seen committed stays so.
        pub fn mend_committed(&self) {
            let seen = self.limit.load(Ordering::Relaxed).saturating_sub(self.places.blocks);
            self.word(WORD_COMMITTED).fetch_max(seen / PAGE_BYTES, Ordering::AcqRel);
        }

        /// Others may have committed more since.
        #[cold]
        fn holds_by_now(&self, offset: u64, end: u64) -> bool {
            let (reach, places) = (self.reach(), &self.places);
            if reach != u64::MAX {
                return end <= places.heads
                    || offset >= places.pages && end <= places.rings
                    || offset >= places.blocks && end <= reach.min(self.reserved);
            }
            // SAFETY: the header is always mapped; no `word` here, which would come back to this function.
            let committed: &Word =
                unsafe { self.base.add(WORD_COMMITTED as usize).cast().as_ref() };
            let bytes = committed.load(Ordering::Acquire).saturating_mul(PAGE_BYTES);
            let limit = self.places.blocks.saturating_add(bytes).min(self.reserved);
            self.limit.fetch_max(limit, Ordering::Relaxed);
            end <= limit
        }

        #[cold]
        fn outside(&self, offset: u64) -> &[Word; 4] {
            // What lies behind the reach may be newer than the look that set it.
            if offset < self.reach() {
                self.damaged.fetch_add(1, Ordering::Relaxed);
            }
            &self.nobody
        }

        /// Makes sure that memory stands behind `[offset, offset + bytes)`. Idempotent; any process may do it.
        pub fn commit(&self, offset: u64, bytes: u64) -> io::Result<()> {
            if !self.is_shared() {
                return Ok(());
            }
            let start = offset & !(MEMORY_PAGE_BYTES - 1);
            let end = (offset + bytes).next_multiple_of(MEMORY_PAGE_BYTES).min(self.reserved);
            loop {
                // SAFETY: whole pages of our own mapping; their contents stay as they are.
                let result = unsafe {
                    let at = self.base.as_ptr().add(start as usize).cast();
                    libc::madvise(at, (end - start) as usize, libc::MADV_POPULATE_WRITE)
                };
                if result == 0 {
                    return Ok(());
                }
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN) => {}
                    Some(libc::EINVAL) => return self.allocate(start, end - start),
                    // The file system had no page for us, or the file is shorter than it was.
                    Some(libc::EFAULT) => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                    _ => return Err(error),
                }
            }
        }

        /// As `commit`, on kernels that cannot do it through a mapping.
        #[cold]
        fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
            let file = open_again(&self.path, self.file_id, true).map_err(|error| match error {
                Error::Io { source, .. } => source,
                other => io::Error::other(other.to_string()),
            })?;
            loop {
                // SAFETY: a system call on a file that was opened a moment ago and is the mapped one.
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

    /// What the kernel commits at least; larger pages are multiples of it.
    const MEMORY_PAGE_BYTES: u64 = 4096;

    impl Drop for Region {
        fn drop(&mut self) {
            // First, so that the handler never acts on addresses that are not ours any more.
            self.guard = None;
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

#[cfg(model)]
mod model {
    use crate::error::Error;
    use crate::sync::{Pair, Word};
    use std::io;
    use std::path::Path;

    /// As many stand-ins as the region has words. A pair shares its place with two words that nobody uses; pairs stand
    /// in blocks only.
    pub struct Region {
        words: Vec<Word>,
        pairs: Vec<Pair>,
        blocks: u64,
    }

    impl Region {
        pub fn anonymous(places: &crate::layout::Places) -> Result<Region, Error> {
            let reserved = places.total;
            let words = (0..reserved / 8).map(|_| Word::new(0)).collect();
            let pairs = (places.blocks / 16..reserved / 16).map(|_| Pair::new()).collect();
            Ok(Region { words, pairs, blocks: places.blocks })
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

        pub fn was_hit(&self) -> bool {
            false
        }

        pub fn is_guarded(&self) -> bool {
            true
        }

        pub fn reach(&self) -> u64 {
            u64::MAX
        }

        pub fn pointer(&self, offset: u64) -> *const Word {
            self.word(offset)
        }

        pub fn word(&self, offset: u64) -> &Word {
            &self.words[offset as usize / 8]
        }

        pub fn quad(&self, offset: u64) -> &[Word; 4] {
            let start = offset as usize / 8;
            self.words[start..start + 4].try_into().expect("four words")
        }

        pub fn pair(&self, offset: u64) -> &Pair {
            &self.pairs[(offset - self.blocks) as usize / 16]
        }

        pub fn commit(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
            Ok(())
        }
    }
}
