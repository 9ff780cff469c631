//! A page of memory that a child shares with the one who watches it: whether its operation is over, and why it failed.

use std::sync::atomic::{AtomicU64, Ordering};

const BYTES: usize = 4096;
const TEXT_AT: usize = 64;
const TEXT_MAX: usize = BYTES - TEXT_AT;
/// The words in front of the text.
const DONE: usize = 0;
const ERRNO: usize = 1;
const TEXT_LEN: usize = 2;

pub struct Board {
    base: *mut u8,
}

impl Board {
    pub fn new() -> std::io::Result<Board> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0)
        };
        match base {
            libc::MAP_FAILED => Err(std::io::Error::last_os_error()),
            base => Ok(Board { base: base.cast() }),
        }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: inside of the mapping, aligned, and only ever reached as an atomic.
        unsafe { &*self.base.cast::<AtomicU64>().add(index) }
    }

    /// Partner of each Release: the Acquire of the one who watches.
    pub fn set_done(&self) {
        self.word(DONE).store(1, Ordering::Release);
    }

    pub fn is_done(&self) -> bool {
        self.word(DONE).load(Ordering::Acquire) != 0
    }

    pub fn set_errno(&self, errno: i32) {
        self.word(ERRNO).store(errno as u64, Ordering::Release);
    }

    pub fn errno(&self) -> Option<i32> {
        Some(self.word(ERRNO).load(Ordering::Acquire) as i32).filter(|errno| *errno != 0)
    }

    pub fn set_text(&self, text: &str) {
        let len = text.len().min(TEXT_MAX);
        // SAFETY: inside of the mapping; the one who watches reads it after the length, when the child has ended.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.base.add(TEXT_AT), len) };
        self.word(TEXT_LEN).store(len as u64, Ordering::Release);
    }

    pub fn text(&self) -> Option<String> {
        let len = (self.word(TEXT_LEN).load(Ordering::Acquire) as usize).min(TEXT_MAX);
        // SAFETY: inside of the mapping; the child that wrote it has ended.
        let bytes = unsafe { std::slice::from_raw_parts(self.base.add(TEXT_AT), len) };
        (len > 0).then(|| String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing borrows from it any more.
        unsafe { libc::munmap(self.base.cast(), BYTES) };
    }
}
