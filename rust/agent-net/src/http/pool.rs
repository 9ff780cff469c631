//! The threads that do what may take long: render a scrape, read and write groups of the gateway.
//!
//! At most [`THREADS_MAX`] per worker, started when there is work and gone after [`IDLE`] without,
//! so that an idle worker has none. Jobs wait in a queue of [`JOBS_MAX`]; more are refused, which
//! the caller answers with 503. A panicking job ends as a broken answer, not as a dead worker.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

pub const THREADS_MAX: usize = 2;
pub const JOBS_MAX: usize = 256;
const IDLE: Duration = Duration::from_secs(10);
const STACK_BYTES: usize = 512 << 10;
/// How long a reader may take nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same when other answers wait for a thread.
const PATIENCE_PRESSED: Duration = Duration::from_secs(2);

pub type Job = Box<dyn FnOnce(&Pressure) + Send>;

/// The pool takes no more jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// How many jobs wait, for those that run.
#[derive(Debug, Clone, Default)]
pub struct Pressure {
    waiting: Arc<AtomicUsize>,
    panics: Arc<AtomicUsize>,
}

impl Pressure {
    /// How long to wait for a reader now.
    pub fn patience(&self) -> Duration {
        match self.waiting.load(Ordering::Relaxed) {
            0 => PATIENCE,
            _ => PATIENCE_PRESSED,
        }
    }

    /// Jobs that panicked.
    pub fn panics(&self) -> usize {
        self.panics.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    pressure: Pressure,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Pool {
    pub fn pressure(&self) -> &Pressure {
        &self.shared.pressure
    }

    /// Queues a job, starting a thread for it when none is free and the limit allows.
    pub fn submit(&self, job: Job) -> Result<(), Busy> {
        let mut queue = self.shared.lock();
        if queue.jobs.len() >= JOBS_MAX {
            return Err(Busy);
        }
        let wanted = queue.idle <= queue.jobs.len() && queue.threads < THREADS_MAX;
        if wanted && !self.start() && queue.threads == 0 {
            return Err(Busy);
        } else if wanted {
            queue.threads += 1;
        }
        queue.jobs.push_back(job);
        self.shared.pressure.waiting.store(queue.jobs.len(), Ordering::Relaxed);
        self.shared.work.notify_one();
        Ok(())
    }

    fn start(&self) -> bool {
        let shared = self.shared.clone();
        let name = "agent-render".to_owned();
        thread::Builder::new()
            .name(name)
            .stack_size(STACK_BYTES)
            .spawn(move || shared.run())
            .is_ok()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            if catch_unwind(AssertUnwindSafe(|| job(&self.pressure))).is_err() {
                self.pressure.panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The next job, or nothing when the thread has been idle for long.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        let mut late = false;
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                self.pressure.waiting.store(queue.jobs.len(), Ordering::Relaxed);
                return Some(job);
            }
            if late {
                queue.threads -= 1;
                return None;
            }
            queue.idle += 1;
            let waited =
                self.work.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = waited.0;
            queue.idle -= 1;
            late = waited.1.timed_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_after_a_panic_and_the_panic_is_counted() {
        let pool = Pool::default();
        let (done, wait) = mpsc::channel();
        let quiet = || std::panic::resume_unwind(Box::new("on purpose"));
        pool.submit(Box::new(move |_| quiet())).expect("room");
        for n in 0..20 {
            let done = done.clone();
            pool.submit(Box::new(move |_| done.send(n).expect("test waits"))).expect("room");
        }
        drop(done);
        let mut ran: Vec<i32> = wait.iter().collect();
        ran.sort_unstable();
        assert_eq!(ran, (0..20).collect::<Vec<_>>());
        let began = std::time::Instant::now();
        while pool.pressure().panics() == 0 && began.elapsed() < Duration::from_secs(20) {
            thread::yield_now();
        }
        assert_eq!(pool.pressure().panics(), 1);
        assert!(pool.shared.lock().threads <= THREADS_MAX);
    }

    #[test]
    fn a_full_queue_refuses_and_shortens_the_patience_of_running_jobs() {
        let pool = Pool::default();
        let (started, wait_started) = mpsc::channel();
        let mut gates = Vec::new();
        for _ in 0..THREADS_MAX {
            let (open, gate) = mpsc::channel::<()>();
            let started = started.clone();
            gates.push(open);
            let job: Job = Box::new(move |_| {
                started.send(()).expect("test waits");
                let _ = gate.recv();
            });
            pool.submit(job).expect("room");
            wait_started.recv().expect("runs");
        }
        assert_eq!(pool.pressure().patience(), PATIENCE);
        for _ in 0..JOBS_MAX {
            pool.submit(Box::new(|_| ())).expect("room");
        }
        assert_eq!(pool.submit(Box::new(|_| ())), Err(Busy));
        assert_eq!(pool.pressure().patience(), PATIENCE_PRESSED);
        drop(gates);
    }
}
