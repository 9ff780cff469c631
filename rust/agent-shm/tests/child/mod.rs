//! Real processes for tests: forked children that use the crate and nothing else, memory shared with them, and folders.
//!
//! Limits: a forked child of a threaded test program may only do what needs no lock that another thread held at that
//! moment. So tests that fork take turns ([`alone`]), and children end by `_exit`, never by returning.
#![allow(dead_code)]

use agent_shm::{MetricSpec, Segment, Shape, Value};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time; a test that failed does not fail the others.
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child process; killed and reaped when dropped.
pub struct Child {
    pub pid: i32,
    reaped: bool,
}

/// Runs `body` in a forked child that ends with its exit code, or with 99 when it panics.
pub fn fork(body: impl FnOnce() -> i32) -> Child {
    // SAFETY: the child runs `body` and leaves by `_exit`; see the head of the file.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: system calls without pointers; when the test dies, so does the child.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: as above.
        unsafe { libc::_exit(result.unwrap_or(99)) };
    }
    Child { pid, reaped: false }
}

impl Child {
    pub fn signal(&self, signal: i32) {
        // SAFETY: a system call without pointers, to a child that is not reaped yet.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    /// Waits for a change of state; gives the raw status.
    pub fn wait(&mut self, flags: i32) -> i32 {
        let status = wait_for(self.pid, flags);
        self.reaped = libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
        status
    }

    /// Waits until the child is dead but leaves it a zombie.
    pub fn wait_zombie(&self) {
        // SAFETY: the kernel fills in a struct that may be all zeros.
        let result = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.pid as u32, &mut info, flags)
        };
        assert_eq!(result, 0);
    }

    /// Waits for the end and expects it to be a good one.
    pub fn join(mut self) {
        let status = self.wait(0);
        assert!(libc::WIFEXITED(status), "killed by signal {}", libc::WTERMSIG(status));
        assert_eq!(libc::WEXITSTATUS(status), 0, "exit code of a child");
    }

    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.wait(0);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(libc::SIGKILL);
            self.wait(0);
        }
    }
}

pub fn wait_for(pid: i32, flags: i32) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: the kernel fills in the status.
        if unsafe { libc::waitpid(pid, &mut status, flags) } == pid {
            return status;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "waitpid: {error}");
    }
}

/// Words in anonymous memory that children share with the test.
pub struct Board {
    words: &'static [AtomicU64],
}

impl Board {
    pub fn new(words: usize) -> Board {
        // SAFETY: fresh zeroed memory of that size, shared with later children, never unmapped.
        let words = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            let base = libc::mmap(std::ptr::null_mut(), words * 8, protection, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            std::slice::from_raw_parts(base.cast(), words)
        };
        Board { words }
    }

    pub fn get(&self, index: usize) -> u64 {
        self.words[index].load(Ordering::SeqCst)
    }

    pub fn set(&self, index: usize, value: u64) {
        self.words[index].store(value, Ordering::SeqCst);
    }

    pub fn add(&self, index: usize, amount: u64) -> u64 {
        self.words[index].fetch_add(amount, Ordering::SeqCst)
    }

    pub fn sum(&self, indices: std::ops::Range<usize>) -> u64 {
        indices.map(|index| self.get(index)).sum()
    }

    /// Waits until a word has at least this value; panics after two minutes.
    pub fn wait(&self, index: usize, at_least: u64) {
        let start = Instant::now();
        while self.get(index) < at_least {
            assert!(start.elapsed() < Duration::from_secs(120), "word {index} stays too small");
            std::thread::yield_now();
        }
    }
}

/// A folder of our own; gone when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("agent-shm-{name}-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&path)
            .unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn spec<'a>(name: &'a str, shape: Shape<'a>) -> MetricSpec<'a> {
    MetricSpec { name, help: "help", unit: "", shape }
}

/// Everything that a segment exports, one line a series, sorted; empty buckets are left out.
pub fn told(segment: &Segment) -> Vec<String> {
    let mut lines = Vec::new();
    for family in segment.view().families() {
        let name = family.meta().name.clone();
        lines.push(format!("{name} {:?}", family.meta().shape));
        family.for_each(&mut |series| {
            let labels = String::from_utf8_lossy(series.labels);
            let value = match series.value {
                Value::Histogram { count, sum, buckets } => {
                    let full: Vec<_> = buckets.iter().filter(|(_, n)| *n > 0).collect();
                    assert_eq!(full.iter().map(|(_, n)| n).sum::<u64>(), count);
                    format!("{count} {sum} {full:?}")
                }
                value => format!("{value:?}"),
            };
            lines.push(format!("{name}{{{labels}}} {value}"));
        });
    }
    lines.sort();
    lines
}

/// The value of a series as one number: a counter's total, a gauge, a count.
pub fn total(segment: &Segment, name: &str, labels: &str) -> Option<f64> {
    let mut found = None;
    for family in segment.view().families().iter().filter(|family| family.meta().name == name) {
        family.for_each(&mut |series| {
            if series.labels == labels.as_bytes() {
                found = Some(match series.value {
                    Value::Counter { whole, fraction } => whole as f64 + fraction,
                    Value::Gauge(value) => value,
                    Value::Histogram { count, .. } | Value::Summary { count, .. } => count as f64,
                    Value::GaugePerProcess(values) => {
                        values.iter().map(|process| process.value).sum()
                    }
                });
            }
        });
    }
    found
}

/// A small generator of numbers that look random; the seed is printed by whoever uses it.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Processor time of this thread so far, microseconds.
pub fn cpu_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}
