//! What an executor says: JSON lines on the report pipe.
//!
//! ```text
//! {"event": "ready", "detail": ""}          ready, opened, quiet, closed, done, failed
//! {"second": 3, "counts": {..}, "failures": {..}, "latency": {"message": {"buckets": [[i, n], ..],
//!  "sum_ns": .., "max_ns": ..}, ..}, "open": .., "opening": .., "awaiting": .., "waiting": .., "cpu_s": ..}
//! ```
//!
//! A line of figures holds what happened since the one before: the sum of all lines is the run. One is
//! made each second, and one before each event, so that the figures of a phase are whole when its end
//! is told. The loop never waits for the controller: while a line is not taken, the next one is not
//! made, and its second goes into a later line.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::latency::{Delta, Histogram};
use crate::outcome::Outcome;
use crate::slab::{Slab, State};
use crate::system;

/// Bytes that may wait before the loop stops making lines.
const PENDING_BYTES_MAX: usize = 64 << 10;

/// Everything that is recorded between two lines.
#[derive(Debug, Default)]
pub struct Record {
    pub outcome: Outcome,
    /// From the intended instant until a connection is open.
    pub connect: Histogram,
    /// From the real `connect`.
    pub connect_service: Histogram,
    /// From the loss of a connection until it is open again.
    pub recovery: Histogram,
    /// From the intended instant until the answer is here.
    pub message: Histogram,
    /// From the real send.
    pub service: Histogram,
    /// From the intended instant to the real send: the executor's own lateness.
    pub dispatch: Histogram,
}

#[derive(Serialize)]
struct Figures<'a> {
    second: u64,
    counts: BTreeMap<&'a str, u64>,
    failures: BTreeMap<&'a str, u64>,
    latency: BTreeMap<&'a str, Delta>,
    open: u32,
    opening: u32,
    awaiting: u32,
    waiting: u32,
    cpu_s: f64,
}

#[derive(Serialize)]
struct Said<'a> {
    event: &'a str,
    detail: &'a str,
}

impl Record {
    fn take(&mut self) -> (Outcome, BTreeMap<&'static str, Delta>) {
        let histograms = [
            ("connect", &mut self.connect),
            ("connect_service", &mut self.connect_service),
            ("recovery", &mut self.recovery),
            ("message", &mut self.message),
            ("service", &mut self.service),
            ("dispatch", &mut self.dispatch),
        ];
        let deltas = histograms
            .into_iter()
            .filter(|(_, histogram)| !histogram.is_empty())
            .map(|(name, histogram)| (name, histogram.take()))
            .collect();
        (std::mem::take(&mut self.outcome), deltas)
    }
}

/// The report pipe.
#[derive(Debug)]
pub struct Report {
    fd: i32,
    pending: Vec<u8>,
}

impl Report {
    pub fn new(fd: i32) -> io::Result<Report> {
        system::set_nonblocking(fd)?;
        Ok(Report { fd, pending: Vec::new() })
    }

    /// A line of figures, unless the ones before wait to be taken.
    pub fn figures(&mut self, second: u64, record: &mut Record, slab: &Slab) {
        if self.pending.len() > PENDING_BYTES_MAX {
            return;
        }
        let (outcome, latency) = record.take();
        self.line(&Figures {
            second,
            counts: outcome.events().collect(),
            failures: outcome.failures().collect(),
            latency,
            open: slab.open(),
            opening: slab.count(State::Opening),
            awaiting: slab.count(State::Awaiting) + slab.count(State::Writing),
            waiting: slab.count(State::Waiting),
            cpu_s: system::cpu_s(),
        });
    }

    pub fn event(&mut self, event: &str, detail: &str) {
        self.line(&Said { event, detail });
    }

    fn line(&mut self, value: &impl Serialize) {
        // Numbers and texts into memory: this cannot fail.
        if serde_json::to_writer(&mut self.pending, value).is_ok() {
            self.pending.push(b'\n');
        }
        self.flush();
    }

    /// Writes what the pipe takes.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() {
            match system::write(self.fd, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                }
                Err(error) if system::is_again(&error) => return,
                // The controller is gone, which the control pipe tells as well.
                Err(_) => self.pending.clear(),
            }
        }
    }

    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}
