//! Whether an app has living writers, and since when it has none.
//!
//! Who is alive is the kernel's word (`Segment::has_living_writer`). When the last one was is the latest
//! of what this process saw, the start of a writer, and the time of the file. As updates of a mapped
//! file leave no time, writers set it while they look at the file, and a collector of the same user
//! that sees a living writer sets it, each at most once in [`MARK_INTERVAL`]: so all processes of a
//! collector, and the next collector, know the same.
//!
//! Not promised: an app that counted hardly anything for long and ended while no collector of its user
//! was there may leave the page too soon, since the last minute in which it looked at its file is all
//! that is known.
//!
//! Clocks that are set: an app is without writers for as long as either clock says.

use std::fs::{Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_shm::Segment;

use crate::system;

/// How old the time of a living app's file may get.
pub const MARK_INTERVAL: Duration = Duration::from_secs(60);

/// One instant on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    pub unix_ms: u64,
    /// Never jumps.
    pub monotonic_ms: u64,
}

impl Clocks {
    pub fn read() -> Clocks {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = since.map_or(0, |since| since.as_millis() as u64);
        Clocks { unix_ms, monotonic_ms: system::monotonic_ms() }
    }
}

/// What is known of one app.
#[derive(Debug, Default)]
pub struct Life {
    /// Unix milliseconds; of no meaning while `dead_since_ms` is nothing.
    last_alive_ms: u64,
    /// Monotonic milliseconds of the first look that found nobody.
    dead_since_ms: Option<u64>,
}

impl Life {
    /// Takes down what there is to see now.
    pub fn look(&mut self, segment: &Segment, metadata: &Metadata, now: Clocks) {
        let marked_ms = modified_ms(metadata);
        if segment.has_living_writer() {
            *self = Life { last_alive_ms: now.unix_ms, dead_since_ms: None };
            if now.unix_ms.abs_diff(marked_ms) >= MARK_INTERVAL.as_millis() as u64 {
                mark(segment, now);
            }
            return;
        }
        if self.dead_since_ms.is_none() {
            let started = segment.slots().iter().map(|slot| slot.started_unix_ms).max();
            self.last_alive_ms = self.last_alive_ms.max(marked_ms).max(started.unwrap_or(0));
            self.dead_since_ms = Some(now.monotonic_ms);
        }
    }

    /// Whether nobody has been alive for so long.
    pub fn is_over(&self, idle: Duration, now: Clocks) -> bool {
        let idle_ms = idle.as_millis() as u64;
        self.dead_since_ms.is_some_and(|since_ms| {
            now.monotonic_ms.saturating_sub(since_ms) >= idle_ms
                || now.unix_ms.saturating_sub(self.last_alive_ms) >= idle_ms
        })
    }
}

fn modified_ms(metadata: &Metadata) -> u64 {
    let ms = metadata.mtime().saturating_mul(1000) + metadata.mtime_nsec() / 1_000_000;
    u64::try_from(ms).unwrap_or(0)
}

/// Sets the time of the file. A failure costs what the head of this module says, and nothing else.
fn mark(segment: &Segment, now: Clocks) {
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(segment.path()) else {
        return;
    };
    let is_it =
        file.metadata().is_ok_and(|found| Some((found.dev(), found.ino())) == segment.file_id());
    if is_it {
        let _ = file.set_modified(UNIX_EPOCH + Duration::from_millis(now.unix_ms));
    }
}
