//! SIGBUS in a segment: a wrong number instead of a dead process.
//!
//! Touching a page of a mapped file that was truncated, or that the file system has no memory for, raises SIGBUS. The
//! handler looks whether the address lies in a registered range; then it maps zero pages from the faulting page to the
//! end of the range, marks the range as hit, and returns: the access is done again and finds zeros, which everybody who
//! uses a segment must expect anyway. A writer counts into memory of its own from there on, until it looks
//! (`Segment::was_hit`) and leaves the segment. Any other fault goes to the handler that was there before; one that is
//! installed later (`faulthandler.enable()`) comes first, and may end the process.
//!
//! In the handler: reads of static atomics, `mmap` (a bare system call), writes of static atomics, `errno` saved. It is
//! installed once, when the first range is registered. At most [`SEGMENTS_MAX`] ranges.
//!
//! # Why the table is safe
//!
//! A row is taken by one `compare_exchange` on `owner`; its bounds are written before `end` becomes
//! non-zero (release) and `end` is set to 0 before the row is given back. The handler reads `end`
//! first (acquire). A fault in a range happens only while somebody reads that segment, who holds it
//! mapped, and so registered: a region lets go of its [`Guard`] before it unmaps.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Once;

/// Segments that a process can have mapped at one time and survive the loss of.
pub const SEGMENTS_MAX: usize = 1088;

struct Range {
    taken: AtomicBool,
    start: AtomicUsize,
    end: AtomicUsize,
    writable: AtomicBool,
    hits: AtomicU64,
}

#[allow(clippy::declare_interior_mutable_const)] // Only to fill the table.
const FREE: Range = Range {
    taken: AtomicBool::new(false),
    start: AtomicUsize::new(0),
    end: AtomicUsize::new(0),
    writable: AtomicBool::new(false),
    hits: AtomicU64::new(0),
};

static RANGES: [Range; SEGMENTS_MAX] = [FREE; SEGMENTS_MAX];
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
static INSTALL: Once = Once::new();
/// The action that was there before; written once, before ours is installed.
static BEFORE: Before = Before(std::cell::UnsafeCell::new(MaybeUninit::zeroed()));

struct Before(std::cell::UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once under `INSTALL` before the handler that reads it can run.
unsafe impl Sync for Before {}

/// An address range that is survived, as long as this lives.
pub struct Guard {
    row: usize,
}

impl Guard {
    /// Registers a mapping; nothing when the table is full.
    pub fn new(start: usize, length: usize, writable: bool) -> Option<Guard> {
        INSTALL.call_once(install);
        let row = RANGES.iter().position(|range| {
            range.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })?;
        let range = &RANGES[row];
        range.hits.store(0, Ordering::Relaxed);
        range.start.store(start, Ordering::Relaxed);
        range.writable.store(writable, Ordering::Relaxed);
        range.end.store(start + length, Ordering::Release);
        Some(Guard { row })
    }

    /// Whether an access in it faulted: what was read or written since is not to be believed.
    pub fn was_hit(&self) -> bool {
        RANGES[self.row].hits.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let range = &RANGES[self.row];
        range.end.store(0, Ordering::Release);
        range.taken.store(false, Ordering::Release);
    }
}

fn install() {
    // SAFETY: plain system calls with valid pointers; `BEFORE` is written before the handler is
    // installed and never again, so the handler's reads do not race.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE);
        PAGE_BYTES.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
        libc::sigaction(libc::SIGBUS, std::ptr::null(), (*BEFORE.0.get()).as_mut_ptr());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

/// The range that holds `address`.
fn range_of(address: usize) -> Option<(&'static Range, usize)> {
    RANGES.iter().find_map(|range| {
        let end = range.end.load(Ordering::Acquire);
        let start = range.start.load(Ordering::Relaxed);
        (end != 0 && (start..end).contains(&address)).then_some((range, end))
    })
}

extern "C" fn on_bus(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: called by the kernel with a valid `info`; `mmap` replaces pages of a range that is
    // registered and so mapped by a segment, from the faulting page on, which could not be read
    // anyway.
    unsafe {
        // A signal that was sent has no address.
        let found = if (*info).si_code > 0 { range_of((*info).si_addr() as usize) } else { None };
        if let Some((range, end)) = found {
            let address = (*info).si_addr() as usize;
            let errno = *libc::__errno_location();
            let page = address & !(PAGE_BYTES.load(Ordering::Relaxed) - 1);
            let flags =
                libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let at = page as *mut c_void;
            let protection = match range.writable.load(Ordering::Relaxed) {
                true => libc::PROT_READ | libc::PROT_WRITE,
                false => libc::PROT_READ,
            };
            let mapped = libc::mmap(at, end - page, protection, flags, -1, 0);
            *libc::__errno_location() = errno;
            if mapped != libc::MAP_FAILED {
                range.hits.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        pass_on(signal, info, context);
    }
}

/// Does what would have happened without us.
///
/// # Safety
/// Only from the handler, with the arguments the kernel gave it.
unsafe fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: `BEFORE` was written before this handler was installed.
    let before = unsafe { (*BEFORE.0.get()).assume_init_ref() };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The faulting instruction runs again and ends the process, as it would have.
            // SAFETY: a system call with a valid pointer.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: installed with SA_SIGINFO, so it is a function of this type.
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: installed without SA_SIGINFO, so it is a function of this type.
            let handler: extern "C" fn(i32) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
