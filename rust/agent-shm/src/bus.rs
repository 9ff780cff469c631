//! SIGBUS in a segment: a wrong number instead of a dead process.
//!
//! Touching a page of a mapped file that was truncated, or that the file system has no memory for, raises SIGBUS. The
//! handler looks whether the address lies in a registered range; then it maps zero pages from the faulting page to the
//! end of the range, marks the range as hit, and returns: the access is done again and finds zeros, which everybody who
//! uses a segment must expect anyway. A writer counts into memory of its own from there on, until it looks
//! (`Segment::was_hit`) and leaves the segment. Any other fault goes to the handler that was there before.
//!
//! A handler that is installed later (`faulthandler.enable()`) comes first, until the next look of a writer, which takes
//! the signal back and passes on to him what is not ours. Until then he may print a traceback; when he then restores us
//! and raises the signal again, as `faulthandler` does, the access is done again and survived here.
//!
//! In the handler: reads of static atomics, bare system calls, writes of static atomics, `errno` saved. It is installed
//! when the first range is registered. At most [`SEGMENTS_MAX`] ranges.
//!
//! # Why the tables are safe
//!
//! A range is one word, so that the handler never reads the start of one and the end of another. A fault in a range happens
//! only while somebody reads that segment, who holds it mapped, and so registered: a region lets go of its [`Guard`] before
//! it unmaps.
//!
//! What a thread is passing on stands in a row of its own, taken by one `compare_exchange`. A handler that jumps out
//! (`siglongjmp`) leaves the row taken; the thread finds it at its next fault, and begins again, because its frame then is
//! not below the one that it left. When all rows are taken, a fault goes to who was there before us.

use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::Once;

/// Segments that a process can have mapped at one time and survive the loss of.
pub const SEGMENTS_MAX: usize = 1088;

/// Where the pages of a range begin (36 bits), how many they are (27 bits), and whether they are writable (1 bit), in units
/// of 4 KiB; 0 is a free row.
#[derive(Clone, Copy)]
struct Span(u64);

const UNIT_BITS: u32 = 12;
const LENGTH_BITS: u32 = 27;

impl Span {
    /// Nothing when it does not fit.
    fn new(start: usize, bytes: usize, writable: bool) -> Option<Span> {
        let start = start as u64 >> UNIT_BITS;
        let length = (bytes as u64).div_ceil(1 << UNIT_BITS);
        let fits = start >> (63 - LENGTH_BITS) == 0 && length >> LENGTH_BITS == 0;
        fits.then_some(Span(start << (LENGTH_BITS + 1) | length << 1 | u64::from(writable)))
    }

    fn start(self) -> usize {
        (self.0 >> (LENGTH_BITS + 1) << UNIT_BITS) as usize
    }

    fn end(self) -> usize {
        self.start() + ((self.0 >> 1 & ((1 << LENGTH_BITS) - 1)) << UNIT_BITS) as usize
    }

    fn is_writable(self) -> bool {
        self.0 & 1 == 1
    }
}

struct Range {
    span: AtomicU64,
    hits: AtomicU64,
}

/// A signal that a thread is passing on, or has passed on last.
struct Passing {
    /// 0 is a free row.
    thread: AtomicI32,
    /// Where the frame of our handler stood, and what the kernel gave it; 0 when it came back.
    frame: AtomicUsize,
    context: AtomicUsize,
}

#[allow(clippy::declare_interior_mutable_const)] // Only to fill the tables.
const FREE: Range = Range { span: AtomicU64::new(0), hits: AtomicU64::new(0) };
#[allow(clippy::declare_interior_mutable_const)]
const NOBODY: Passing =
    Passing { thread: AtomicI32::new(0), frame: AtomicUsize::new(0), context: AtomicUsize::new(0) };

static RANGES: [Range; SEGMENTS_MAX] = [FREE; SEGMENTS_MAX];
static PASSING: [Passing; PASSING_MAX] = [NOBODY; PASSING_MAX];
/// Threads that have passed on such a signal. Hardly any program survives one.
const PASSING_MAX: usize = 64;
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
static INSTALL: Once = Once::new();
/// The action that was there before; written once, before ours is installed.
static ORIGINAL: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());
/// The action of who took the signal after us, and from whom we took it back.
static IN_FRONT: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());
static TAKEN_BACK: AtomicU32 = AtomicU32::new(0);
const TAKEN_BACK_MAX: u32 = 100;

/// An address range that is survived, as long as this lives.
pub struct Guard {
    row: usize,
}

impl Guard {
    /// Registers a mapping; nothing when the table is full.
    pub fn new(start: usize, length: usize, writable: bool) -> Option<Guard> {
        INSTALL.call_once(install);
        let span = Span::new(start, length, writable)?;
        // Release: the handler that sees the span sees no hits of the range before it.
        let row = RANGES.iter().position(|range| {
            let taken = range.span.compare_exchange(0, span.0, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        })?;
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
        range.hits.store(0, Ordering::Relaxed);
        // Release: who takes the row finds no hits.
        range.span.store(0, Ordering::Release);
    }
}

fn install() {
    // SAFETY: a system call without pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE_BYTES.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
    ORIGINAL.store(Box::into_raw(Box::new(action_now())), Ordering::Release);
    take_the_signal();
}

/// Comes first again, where somebody took the signal after us: what is not ours goes to him. Cheap enough for once a
/// second.
pub fn come_first_again() {
    if !INSTALL.is_completed() {
        return;
    }
    let now = action_now();
    if now.sa_sigaction == on_bus as *const () as usize {
        return;
    }
    // Whoever does as we do would go on for ever.
    if TAKEN_BACK.fetch_add(1, Ordering::Relaxed) >= TAKEN_BACK_MAX {
        return;
    }
    // Leaked: a handler may be reading the one before.
    IN_FRONT.store(Box::into_raw(Box::new(now)), Ordering::Release);
    take_the_signal();
}

fn action_now() -> libc::sigaction {
    // SAFETY: the kernel fills in a struct that may be all zeros.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut action);
        action
    }
}

fn take_the_signal() {
    // SAFETY: a system call with a valid pointer, and a handler that does nothing that a handler may not.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

/// The range that holds `address`.
fn range_of(address: usize) -> Option<(&'static Range, Span)> {
    RANGES.iter().find_map(|range| {
        let span = Span(range.span.load(Ordering::Acquire));
        (span.start()..span.end()).contains(&address).then_some((range, span))
    })
}

/// The row of a thread, which takes one at its first signal.
fn passing_of(thread: i32) -> Option<&'static Passing> {
    let own = PASSING.iter().find(|row| row.thread.load(Ordering::Relaxed) == thread);
    own.or_else(|| {
        PASSING.iter().find(|row| {
            // Nobody else reads a row that is not his own: relaxed.
            let taken =
                row.thread.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed);
            taken.is_ok()
        })
    })
}

extern "C" fn on_bus(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: called by the kernel, or by who passes on what it got from there, with valid arguments.
    let (code, is_own) = unsafe { ((*info).si_code, (*info).si_pid() == libc::getpid()) };
    // SAFETY: as above; a fault has an address, a signal that was sent has none.
    if code > 0 && unsafe { survive((*info).si_addr() as usize) } {
        return;
    }
    let mut to = IN_FRONT.load(Ordering::Acquire);
    let here = 0_u8;
    let frame = std::ptr::from_ref(&here) as usize;
    let passing = passing_of(this_thread());
    let before = passing.map_or((0, 0), |row| {
        (row.frame.load(Ordering::Relaxed), row.context.load(Ordering::Relaxed))
    });
    if code == libc::SI_TKILL && is_own {
        if before.0 != 0 {
            // `faulthandler` gives back what it was handed, by raising it again: on to who was there before us.
            to = std::ptr::null_mut();
        // SAFETY: the context of a handler with SA_SIGINFO.
        } else if unsafe { is_raised_in_a_handler(context.cast()) } {
            // It came before us and raises again: the access that faulted is done again, and faults again if it does.
            return;
        }
    }
    if code > 0 && before.1 == context as usize && frame < before.0 {
        // Whom it was passed on to passed it back, from a frame below ours.
        to = std::ptr::null_mut();
    }
    match passing.filter(|_| !to.is_null()) {
        Some(row) => {
            row.frame.store(frame, Ordering::Relaxed);
            row.context.store(context as usize, Ordering::Relaxed);
        }
        None => to = ORIGINAL.load(Ordering::Acquire),
    }
    // SAFETY: both are leaked and never changed; the first is there since before this handler is.
    unsafe { pass_on(&*to, signal, info, context) };
    if let Some(row) = passing {
        row.context.store(0, Ordering::Relaxed);
    }
}

/// Puts zero pages where a registered range faulted, from that page to its end.
///
/// # Safety
/// Only from the handler.
unsafe fn survive(address: usize) -> bool {
    let Some((range, span)) = range_of(address) else { return false };
    let page = address & !(PAGE_BYTES.load(Ordering::Relaxed) - 1);
    let end = span.end();
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = match span.is_writable() {
        true => libc::PROT_READ | libc::PROT_WRITE,
        false => libc::PROT_READ,
    };
    // SAFETY: replaces pages of a range that is registered and so mapped by a segment, which could not be read anyway.
    let mapped = unsafe {
        let errno = *libc::__errno_location();
        let mapped = libc::mmap(page as *mut c_void, end - page, protection, flags, -1, 0);
        *libc::__errno_location() = errno;
        mapped
    };
    if mapped != libc::MAP_FAILED {
        range.hits.fetch_add(1, Ordering::Relaxed);
    }
    mapped != libc::MAP_FAILED
}

fn this_thread() -> i32 {
    // SAFETY: a system call without arguments.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Whether the thread was on its signal stack, or is another than the first and has none, as those of Python: then it may
/// have been in a handler.
///
/// # Safety
/// `context` is what the kernel gave the handler.
unsafe fn is_raised_in_a_handler(context: *const libc::ucontext_t) -> bool {
    // SAFETY: as above.
    let context = unsafe { &*context };
    #[cfg(target_arch = "x86_64")]
    let pointer = context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize;
    #[cfg(target_arch = "aarch64")]
    let pointer = context.uc_mcontext.sp as usize;
    let (start, bytes) = (context.uc_stack.ss_sp as usize, context.uc_stack.ss_size);
    // SAFETY: a system call without arguments.
    let is_first = this_thread() == unsafe { libc::getpid() };
    bytes == 0 && !is_first || (start..start + bytes).contains(&pointer)
}

/// Does what would have happened without us.
///
/// # Safety
/// Only from the handler, with the arguments the kernel gave it.
unsafe fn pass_on(
    to: &libc::sigaction,
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: called by the kernel with a valid `info`.
    let was_sent = unsafe { (*info).si_code } <= 0;
    match to.sa_sigaction {
        libc::SIG_IGN if was_sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // The faulting instruction runs again and ends the process, as it would have; what was sent is sent again.
            // SAFETY: system calls with a valid pointer.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &action, std::ptr::null_mut());
                if was_sent {
                    libc::syscall(libc::SYS_tgkill, libc::getpid(), this_thread(), signal);
                }
            }
        }
        handler if to.sa_flags & libc::SA_SIGINFO != 0 => {
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
