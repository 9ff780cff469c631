//! SIGBUS in a segment: a wrong number instead of a dead process.
//!
//! Touching a page of a mapped file that was truncated, or that the file system has no memory for, raises SIGBUS. The
//! handler looks whether the address lies in a registered range; then it maps zero pages from the faulting page to the
//! end of the range, marks the range as hit, and returns: the access is done again and finds zeros, which everybody who
//! uses a segment must expect anyway. A writer counts into memory of its own from there on, until it looks
//! (`Segment::was_hit`) and leaves the segment. Any other fault goes to the handler that was there before.
//!
//! # Others who handle the signal
//!
//! Of a fault that is not ours nobody is called: the action that was found when ours was installed is put back as it was,
//! and the access is done again, so that the kernel gives him the signal as he asked for it. A signal that was sent is sent
//! again, unless his handler can be called. A writer's next look comes first again ([`come_first_again`]).
//!
//! Whoever installs a handler after us, and puts back what he found when he goes, finds one of our *levels*: a function of
//! its own for each action that we found. A level passes on to what it found, so that it never passes on to one who came
//! later and has gone. There are [`LEVELS`]; a program with more handlers than that keeps its last one in front.
//!
//! A handler that is installed later (`faulthandler.enable()`) comes first until the next look. Until then he may print a
//! traceback for a fault of ours; when he then restores us and raises the signal again from his signal stack, as
//! `faulthandler` does, the access is done again and survived here. So a thread of Python, which has no such stack, cannot
//! end the process by raising the signal itself.
//!
//! In the handler: reads of static atomics, bare system calls, writes of static atomics, `errno` saved. It is installed
//! when the first range is registered. At most [`SEGMENTS_MAX`] ranges.
//!
//! # Why the table is safe
//!
//! A range is one word, so that the handler never reads the start of one and the end of another. A fault in a range happens
//! only while somebody reads that segment, who holds it mapped, and so registered: a region lets go of its [`Guard`] before
//! it unmaps.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
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

#[allow(clippy::declare_interior_mutable_const)] // Only to fill the table.
const FREE: Range = Range { span: AtomicU64::new(0), hits: AtomicU64::new(0) };
static RANGES: [Range; SEGMENTS_MAX] = [FREE; SEGMENTS_MAX];
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);
static INSTALL: Once = Once::new();
/// Handlers of ours.
const LEVELS: usize = 16;
/// What was found when the handler of a level was installed; there before the handler is, and leaked.
static FOUND: [AtomicPtr<libc::sigaction>; LEVELS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; LEVELS];
/// Held by who looks.
static LOOKING: AtomicBool = AtomicBool::new(false);
/// The thread to which a sent signal was sent again last.
static SENT_AGAIN: AtomicI32 = AtomicI32::new(0);

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void);
static HANDLERS: [Handler; LEVELS] = [
    on_bus::<0>,
    on_bus::<1>,
    on_bus::<2>,
    on_bus::<3>,
    on_bus::<4>,
    on_bus::<5>,
    on_bus::<6>,
    on_bus::<7>,
    on_bus::<8>,
    on_bus::<9>,
    on_bus::<10>,
    on_bus::<11>,
    on_bus::<12>,
    on_bus::<13>,
    on_bus::<14>,
    on_bus::<15>,
];

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
    keep(0, action_now());
    take_the_signal(0);
}

/// Comes first again, where somebody took the signal after us. Cheap enough for once a second.
pub fn come_first_again() {
    if !INSTALL.is_completed() || LOOKING.swap(true, Ordering::Acquire) {
        return;
    }
    let now = action_now();
    match level_of(&now) {
        // Also when somebody went and put back what he had found.
        Some(_) => {}
        None => {
            // The level that found the same before, or one that has found nothing yet.
            let level = FOUND.iter().position(|found| {
                let found = found.load(Ordering::Acquire);
                // SAFETY: null, or leaked.
                unsafe { found.as_ref() }.is_none_or(|found| is_same(found, &now))
            });
            if let Some(level) = level {
                if FOUND[level].load(Ordering::Acquire).is_null() {
                    keep(level, now);
                }
                let found = take_the_signal(level);
                if !is_same(&found, &now) && level_of(&found).is_none() {
                    // Somebody came between the two.
                    keep(level, found);
                }
            }
        }
    }
    SENT_AGAIN.store(0, Ordering::Relaxed);
    LOOKING.store(false, Ordering::Release);
}

/// Whose handler it is, when it is one of ours.
fn level_of(action: &libc::sigaction) -> Option<usize> {
    HANDLERS.iter().position(|handler| *handler as *const () as usize == action.sa_sigaction)
}

fn is_same(one: &libc::sigaction, other: &libc::sigaction) -> bool {
    one.sa_sigaction == other.sa_sigaction && one.sa_flags == other.sa_flags
}

fn keep(level: usize, found: libc::sigaction) {
    // Leaked: a handler may be reading the one before. Release: the handler that sees the pointer sees the action.
    FOUND[level].store(Box::into_raw(Box::new(found)), Ordering::Release);
}

fn action_now() -> libc::sigaction {
    // SAFETY: the kernel fills in a struct that may be all zeros.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut action);
        action
    }
}

/// Gives the action that was there.
fn take_the_signal(level: usize) -> libc::sigaction {
    // SAFETY: a system call with valid pointers, and a handler that does nothing that a handler may not.
    unsafe {
        let mut found: libc::sigaction = std::mem::zeroed();
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = HANDLERS[level] as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &action, &mut found);
        found
    }
}

/// The range that holds `address`.
fn range_of(address: usize) -> Option<(&'static Range, Span)> {
    RANGES.iter().find_map(|range| {
        let span = Span(range.span.load(Ordering::Acquire));
        (span.start()..span.end()).contains(&address).then_some((range, span))
    })
}

extern "C" fn on_bus<const LEVEL: usize>(_: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: called by the kernel, or by who passes on what it got from there, with valid arguments.
    let (code, is_own) = unsafe { ((*info).si_code, (*info).si_pid() == libc::getpid()) };
    if code > 0 {
        // SAFETY: as above; a fault has an address, a signal that was sent has none.
        if !unsafe { survive((*info).si_addr() as usize) } {
            put_back(LEVEL);
        }
        return;
    }
    let thread = this_thread();
    // SAFETY: the context of a handler with SA_SIGINFO.
    let is_raised_again =
        code == libc::SI_TKILL && is_own && unsafe { is_raised_in_a_handler(context.cast()) };
    if is_raised_again && SENT_AGAIN.load(Ordering::Relaxed) != thread {
        // Whoever was in front raises what he was given for a fault. The access is done again, and faults again if it does.
        return;
    }
    let found = FOUND[LEVEL].load(Ordering::Acquire);
    // SAFETY: leaked, and there since the level was installed.
    if unsafe { (*found).sa_sigaction } == libc::SIG_IGN {
        return;
    }
    SENT_AGAIN.store(thread, Ordering::Relaxed);
    // SAFETY: as above.
    if unsafe { call(&*found, info, context) } {
        return;
    }
    put_back(LEVEL);
    // SAFETY: system calls with valid pointers; to itself a thread may send a signal with any contents.
    unsafe {
        let process = libc::getpid();
        let sent = libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, info);
        if sent != 0 {
            libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGBUS);
        }
    }
}

/// Calls a handler for a signal that was sent, so that ours stays: a program that has nothing to do for long does not look
/// again. False where there is none, or it asked to be called once.
///
/// # Safety
/// Only from the handler, with what the kernel gave it.
unsafe fn call(found: &libc::sigaction, info: *mut libc::siginfo_t, context: *mut c_void) -> bool {
    let is_handler = found.sa_sigaction != libc::SIG_DFL && found.sa_sigaction != libc::SIG_IGN;
    if !is_handler || found.sa_flags & libc::SA_RESETHAND != 0 {
        return false;
    }
    // SAFETY: installed with or without SA_SIGINFO, so it is a function of this type.
    unsafe {
        if found.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: Handler = std::mem::transmute(found.sa_sigaction);
            handler(libc::SIGBUS, info, context);
        } else {
            let handler: extern "C" fn(i32) = std::mem::transmute(found.sa_sigaction);
            handler(libc::SIGBUS);
        }
    }
    true
}

/// Gives the signal to who had it before the handler of a level did.
fn put_back(level: usize) {
    // SAFETY: a system call with a pointer that was leaked.
    unsafe {
        let errno = *libc::__errno_location();
        let found = FOUND[level].load(Ordering::Acquire);
        libc::sigaction(libc::SIGBUS, found, std::ptr::null_mut());
        *libc::__errno_location() = errno;
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
