//! Decoded samples into cells, refusals into the ledger.

use std::marker::PhantomData;

use agent_wire::{Kind, Value};

use crate::admission::{Peer, Shed};
use crate::telemetry::{Reason, SourceId};

/// The labels of a sample.
#[derive(Debug, Clone, Copy)]
pub enum Labels<'a> {
    /// DogStatsD tags, raw.
    Tags(&'a [u8]),
    /// Canonical label text, as [`agent_wire::labels`] writes it.
    Text(&'a str),
}

/// One value of one metric, as any protocol gives it.
#[derive(Debug, Clone, Copy)]
pub struct NormalSample<'a> {
    /// As sent.
    pub name: &'a [u8],
    pub kind: Kind,
    pub value: Value<'a>,
    /// In `rate_min ..= 1`.
    pub rate: f64,
    pub labels: Labels<'a>,
    /// As sent; empty when none.
    pub unit: &'a str,
    /// Empty when none.
    pub help: &'a str,
}

/// One batch of samples being applied: the cells' protected section is open as long as it lives.
pub struct Apply<'a> {
    batch: PhantomData<&'a mut ()>,
}

impl Apply<'_> {
    /// Counts the sample as received, adds it to its cell, counts it as applied; or as rejected.
    pub fn sample(&mut self, source: SourceId, sample: &NormalSample<'_>) -> Result<(), Reason> {
        let _ = sample;
        self.reject(source, Reason::SegmentFull, 1);
        Err(Reason::SegmentFull)
    }

    /// Counts `count` samples received and rejected that never became a [`NormalSample`].
    pub fn reject(&mut self, source: SourceId, reason: Reason, count: u64) {
        let _ = (source, reason, count);
    }

    /// Whether a pushing request of this peer may go on to its body.
    pub fn admit_request(&mut self, peer: &Peer, now_ms: u64) -> Result<(), Shed> {
        let _ = (peer, now_ms);
        Ok(())
    }

    /// Charges the samples of an accepted body to the peer's limits.
    pub fn charge(&mut self, peer: &Peer, samples: u64, now_ms: u64) {
        let _ = (peer, samples, now_ms);
    }
}
