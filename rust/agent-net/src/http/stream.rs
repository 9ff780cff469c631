//! An answer made by another thread: a bounded queue of chunks and an eventfd.
//!
//! ```text
//! render thread: Sink::send -> [chunk chunk chunk chunk] -> Stream::take :event loop
//!                 waits when full        eventfd: readable while there is something to take
//! ```
//!
//! At most [`CHUNKS_MAX`] chunks wait, so a slow reader costs a bounded amount of memory and holds
//! up only the thread that renders for it. When it takes nothing for the sink's time limit the
//! render thread gives up and the answer is broken off: the connection must be closed. The event
//! loop never waits. Either side may be dropped at any time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Chunks of one answer that wait for the event loop.
pub const CHUNKS_MAX: usize = 4;
/// A chunk is sent when it has grown to this size.
pub const CHUNK_BYTES: usize = 64 << 10;

/// What the event loop got.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Bytes for the connection.
    Chunk(Vec<u8>),
    /// Nothing yet: wait until the descriptor is readable.
    Pending,
    /// The answer is complete; close the connection or go on with its next request.
    End { close: bool },
    /// The answer cannot be completed: close the connection.
    Broken,
}

/// The receiver of an answer, owned by the event loop.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
}

/// The sender of an answer, owned by a render thread.
pub struct Sink {
    shared: Arc<Shared>,
}

/// The receiver is gone or too slow: stop rendering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    room: Condvar,
    wake: File,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Vec<u8>>,
    /// `Some(close)` when nothing follows the chunks that wait.
    end: Option<bool>,
    sender_gone: bool,
    receiver_gone: bool,
}

/// Makes both ends. Fails when the process is out of file descriptors.
pub fn channel() -> io::Result<(Sink, Stream)> {
    // SAFETY: a system call without pointers; the descriptor it returns belongs to nobody else.
    let wake = unsafe {
        let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from(OwnedFd::from_raw_fd(fd))
    };
    let shared = Arc::new(Shared { queue: Mutex::default(), room: Condvar::new(), wake });
    Ok((Sink { shared: shared.clone() }, Stream { shared }))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic of a render thread leaves the queue as it was between two statements.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An eventfd counts; that it is full means that it is readable already.
    fn wake(&self) {
        let _ = (&self.wake).write(&1u64.to_ne_bytes());
    }
}

impl Stream {
    /// Readable while [`Stream::take`] has something to say.
    pub fn fd(&self) -> RawFd {
        self.shared.wake.as_raw_fd()
    }

    pub fn take(&mut self) -> Taken {
        let mut queue = self.shared.lock();
        if let Some(chunk) = queue.chunks.pop_front() {
            self.shared.room.notify_one();
            return Taken::Chunk(chunk);
        }
        match queue.end {
            Some(close) => Taken::End { close },
            None if queue.sender_gone => Taken::Broken,
            None => {
                // Under the lock, so that no chunk comes between the look and the reset.
                let _ = (&self.shared.wake).read(&mut [0; 8]);
                Taken::Pending
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.receiver_gone = true;
        queue.chunks.clear();
        self.shared.room.notify_all();
    }
}

impl Sink {
    /// Queues a chunk, waiting for room as long as `patience` allows; it is asked again and again,
    /// because others may have begun to wait for this thread.
    pub fn send(&self, chunk: Vec<u8>, patience: &dyn Fn() -> Duration) -> Result<(), Stopped> {
        let began = Instant::now();
        let mut queue = self.shared.lock();
        while queue.chunks.len() >= CHUNKS_MAX && !queue.receiver_gone {
            let left = patience().saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(Stopped);
            }
            let wait = left.min(Duration::from_millis(200));
            let waited = self.shared.room.wait_timeout(queue, wait);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.receiver_gone {
            return Err(Stopped);
        }
        queue.chunks.push_back(chunk);
        drop(queue);
        self.shared.wake();
        Ok(())
    }

    /// Nothing follows. Without this the answer counts as broken off.
    pub fn end(self, close: bool) {
        self.shared.lock().end = Some(close);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.lock().sender_gone = true;
        self.shared.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: fn() -> Duration = || Duration::from_secs(60);

    fn readable(stream: &Stream) -> bool {
        let mut poll = libc::pollfd { fd: stream.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    }

    #[test]
    fn chunks_come_in_order_and_the_descriptor_tells_when() {
        let (sink, mut stream) = channel().expect("eventfd");
        assert_eq!(stream.take(), Taken::Pending);
        assert!(!readable(&stream));
        sink.send(vec![1], &LONG).expect("room");
        sink.send(vec![2], &LONG).expect("room");
        assert!(readable(&stream));
        assert_eq!(stream.take(), Taken::Chunk(vec![1]));
        assert_eq!(stream.take(), Taken::Chunk(vec![2]));
        assert_eq!(stream.take(), Taken::Pending);
        assert!(!readable(&stream));
        sink.end(true);
        assert!(readable(&stream));
        assert_eq!(stream.take(), Taken::End { close: true });
    }

    #[test]
    fn a_full_queue_holds_the_sender_until_there_is_room() {
        let (sink, mut stream) = channel().expect("eventfd");
        let sender = std::thread::spawn(move || {
            for n in 0..100u8 {
                sink.send(vec![n], &LONG).expect("taken in the end");
            }
            sink.end(false);
        });
        let mut got = Vec::new();
        loop {
            match stream.take() {
                Taken::Chunk(chunk) => {
                    assert!(stream.shared.lock().chunks.len() <= CHUNKS_MAX);
                    got.extend(chunk);
                }
                Taken::Pending => std::thread::yield_now(),
                end => break assert_eq!(end, Taken::End { close: false }),
            }
        }
        assert_eq!(got, (0..100).collect::<Vec<u8>>());
        sender.join().expect("sender");
    }

    #[test]
    fn a_reader_that_takes_nothing_is_given_up_and_sees_a_broken_answer() {
        let (sink, mut stream) = channel().expect("eventfd");
        for _ in 0..CHUNKS_MAX {
            sink.send(vec![0], &LONG).expect("room");
        }
        assert_eq!(sink.send(vec![0], &|| Duration::ZERO), Err(Stopped));
        drop(sink);
        for _ in 0..CHUNKS_MAX {
            assert_eq!(stream.take(), Taken::Chunk(vec![0]));
        }
        assert_eq!(stream.take(), Taken::Broken);
    }

    #[test]
    fn a_reader_that_left_stops_the_sender_at_once() {
        let (sink, stream) = channel().expect("eventfd");
        drop(stream);
        assert_eq!(sink.send(vec![0], &LONG), Err(Stopped));
    }
}
