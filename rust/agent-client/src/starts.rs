//! When the blocks of `time()` that are open began.
//!
//! A block may be entered again while it is open (recursion): its starts form a stack, one for each thread. Interleaved
//! `async` tasks that share one block would mix up their starts.

use std::cell::RefCell;
use std::time::Instant;

/// The starts of one block object.
#[derive(Debug, Default)]
pub struct Starts {
    open: RefCell<Vec<(libc::pthread_t, Instant)>>,
}

impl Starts {
    pub fn begin(&self) {
        self.open.borrow_mut().push((this_thread(), Instant::now()));
    }

    /// Seconds since the newest start of this thread, which ends with that; nothing where this thread has none.
    pub fn end(&self) -> Option<f64> {
        let mut open = self.open.borrow_mut();
        // A generator may go on in another thread than it began in; its block is nobody else's.
        let index = match open.len() {
            1 => 0,
            _ => open.iter().rposition(|(owner, _)| *owner == this_thread())?,
        };
        Some(open.remove(index).1.elapsed().as_secs_f64())
    }
}

fn this_thread() -> libc::pthread_t {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::pthread_self() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elsewhere<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    #[test]
    fn an_end_belongs_to_the_newest_start() {
        let starts = Starts::default();
        starts.begin();
        std::thread::sleep(std::time::Duration::from_millis(2));
        starts.begin();
        let (inner, outer) = (starts.end().unwrap(), starts.end().unwrap());
        assert!(inner < outer && outer >= 0.002, "{inner} {outer}");
        assert_eq!(starts.end(), None);
    }

    #[test]
    fn threads_have_stacks_of_their_own_and_a_single_start_may_end_elsewhere() {
        // A block is used by one thread at a time, as the GIL has it.
        let starts = std::sync::Mutex::new(Starts::default());
        let with = |run: fn(&Starts) -> Option<f64>| run(&starts.lock().unwrap());
        let begin: fn(&Starts) -> Option<f64> = |starts| {
            starts.begin();
            None
        };
        with(begin);
        assert!(elsewhere(|| with(Starts::end)).is_some());
        with(begin);
        elsewhere(|| with(begin));
        let first = starts.lock().unwrap().open.borrow()[1];
        assert!(with(Starts::end).is_some());
        assert_eq!(starts.lock().unwrap().open.borrow()[0], first, "of the other thread");
    }
}
