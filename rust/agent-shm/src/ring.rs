//! Rings: what a cell cannot hold. Raw samples with their time, for windows and exact quantiles; unique values; events.
//!
//! One ring per slot, written by the slot's owner only. A ring is a broadcast: the writer never waits and never asks who
//! reads, it overwrites the oldest; every reader keeps its own cursor and knows exactly how much was overwritten before
//! it came. So an app's own `render()` and a collector read the same ring, and a reader that died or sleeps stops nobody.
//!
//! ```text
//! cell (32 bytes)   stamp | a | b | c
//!   stamp           number of the cell + 1 (62) | follows another (1) | being written (1)
//!   value           a = series (unit, generation)   b = unix ms (48) | kind (8) | 0      c = f64 bits or hash
//!   event           a = length in bytes             b = unix ms (48) | kind (8) | cells that follow   c = 0
//!   ... follow      a, b, c = 24 bytes of text
//! ```
//!
//! A writer killed inside a cell leaves a stamp that nobody reads and a cursor that does not count it; the slot's
//! next owner goes on from the cursor and overwrites it. Seqlock orderings after Boehm, *Can seqlocks get along with
//! programming language memory models?* (2012).

use crate::handle::SeriesId;
use crate::layout::*;
use crate::region::Region;
use crate::sync::{fence, Ordering};

/// Longest event text; longer ones are cut.
pub const EVENT_BYTES_MAX: usize = 4096;
const EVENT_CELL_BYTES: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// The f64 bits of an observation.
    Sample = KIND_SAMPLE,
    /// The 64-bit hash of a member of a set.
    Unique = KIND_UNIQUE,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entry<'a> {
    Value { series: SeriesId, kind: RecordKind, unix_ms: u64, bits: u64 },
    Event { unix_ms: u64, bytes: &'a [u8] },
}

/// What one call of [`RingReader::drain`] saw, in cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    pub read: u64,
    /// Overwritten before they could be read.
    pub lost: u64,
}

/// One ring in memory; where it is and how long.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    pub region: &'a Region,
    pub slot: u64,
    pub start: u64,
    pub cells: u64,
}

fn stamp(number: u64, follows: bool) -> u64 {
    (number + 1) << STAMP_SHIFT | if follows { STAMP_FOLLOWS } else { 0 }
}

fn time_and_kind(unix_ms: u64, kind: u8) -> u64 {
    unix_ms << CELL_TIME_SHIFT | u64::from(kind) << CELL_KIND_SHIFT
}

impl Ring<'_> {
    fn cell(&self, number: u64) -> u64 {
        self.start + (number & (self.cells - 1)) * RING_CELL_BYTES
    }

    pub fn written(&self) -> u64 {
        self.region.word(self.slot + SLOT_RING_WRITTEN).load(Ordering::Acquire)
    }

    /// Writes one cell; by the slot's owner only.
    #[inline]
    fn put(&self, number: u64, follows: bool, [a, b, c]: [u64; 3]) {
        let cell = self.region.quad(self.cell(number));
        let stamp = stamp(number, follows);
        cell[0].store(stamp | STAMP_WRITING, Ordering::Relaxed);
        // Partner: the Acquire fence in `get`. A reader that sees new contents sees this stamp too.
        fence(Ordering::Release);
        cell[1].store(a, Ordering::Relaxed);
        cell[2].store(b, Ordering::Relaxed);
        cell[3].store(c, Ordering::Relaxed);
        cell[0].store(stamp, Ordering::Release);
    }

    #[inline]
    pub fn push(&self, series: SeriesId, kind: RecordKind, unix_ms: u64, bits: u64) {
        let written = self.region.word(self.slot + SLOT_RING_WRITTEN);
        let number = written.load(Ordering::Relaxed);
        let a = u64::from(series.offset) << 32 | u64::from(series.generation);
        self.put(number, false, [a, time_and_kind(unix_ms, kind as u8), bits]);
        written.store(number + 1, Ordering::Release);
    }

    pub fn push_event(&self, unix_ms: u64, bytes: &[u8]) {
        let room = (self.cells as usize / 2).saturating_sub(1) * EVENT_CELL_BYTES;
        let bytes = &bytes[..bytes.len().min(EVENT_BYTES_MAX).min(room)];
        let follow = bytes.len().div_ceil(EVENT_CELL_BYTES) as u64;
        let written = self.region.word(self.slot + SLOT_RING_WRITTEN);
        let number = written.load(Ordering::Relaxed);
        let b = time_and_kind(unix_ms, KIND_EVENT) | follow;
        self.put(number, false, [bytes.len() as u64, b, 0]);
        for (index, chunk) in bytes.chunks(EVENT_CELL_BYTES).enumerate() {
            let mut cell = [0; EVENT_CELL_BYTES];
            cell[..chunk.len()].copy_from_slice(chunk);
            let word = |i: usize| {
                u64::from_le_bytes(cell[i * 8..i * 8 + 8].try_into().unwrap_or_default())
            };
            self.put(number + 1 + index as u64, true, [word(0), word(1), word(2)]);
        }
        // Readers come only as far as this: an event is there whole or not at all.
        written.store(number + 1 + follow, Ordering::Release);
    }

    /// The contents of cell `number`, or nothing when it has been overwritten or is not of that sort.
    fn get(&self, number: u64, follows: bool) -> Option<[u64; 3]> {
        let cell = self.region.quad(self.cell(number));
        let stamp = stamp(number, follows);
        if cell[0].load(Ordering::Acquire) != stamp {
            return None;
        }
        let contents = [1, 2, 3].map(|word| cell[word].load(Ordering::Relaxed));
        // Partner: the Release fence in `put`.
        fence(Ordering::Acquire);
        (cell[0].load(Ordering::Relaxed) == stamp).then_some(contents)
    }
}

/// A cursor into one ring. Does not touch the ring: any number of readers may exist.
pub struct RingReader {
    next: u64,
    text: Vec<u8>,
}

impl RingReader {
    /// Starts at the oldest cell that is still there.
    pub fn new(ring: &Ring<'_>) -> RingReader {
        RingReader { next: ring.written().saturating_sub(ring.cells), text: Vec::new() }
    }

    /// Gives every record since the last call, oldest first, at most a ring full.
    pub fn drain(&mut self, ring: &Ring<'_>, mut each: impl FnMut(Entry<'_>)) -> Drained {
        let written = ring.written();
        let mut drained = Drained::default();
        if written < self.next {
            // The ring of a new segment under the same name.
            self.next = 0;
        }
        if written - self.next > ring.cells {
            drained.lost = written - self.next - ring.cells;
            self.next = written - ring.cells;
        }
        while self.next < written {
            let before = self.next;
            match ring.get(before, false) {
                Some(contents) => self.give(ring, contents, written, &mut drained, &mut each),
                // Overwritten, or what is left of an event whose beginning was.
                None => {
                    drained.lost += 1;
                    self.next = before + 1;
                }
            }
        }
        drained
    }

    fn give(
        &mut self,
        ring: &Ring<'_>,
        [a, b, c]: [u64; 3],
        written: u64,
        drained: &mut Drained,
        each: &mut impl FnMut(Entry<'_>),
    ) {
        let (unix_ms, kind) = (b >> CELL_TIME_SHIFT, (b >> CELL_KIND_SHIFT) as u8);
        let record = match kind {
            KIND_SAMPLE => Some(RecordKind::Sample),
            KIND_UNIQUE => Some(RecordKind::Unique),
            _ => None,
        };
        if let Some(kind) = record {
            let series = SeriesId { offset: (a >> 32) as u32, generation: a as u32 };
            each(Entry::Value { series, kind, unix_ms, bits: c });
            drained.read += 1;
            self.next += 1;
            return;
        }
        let follow = (b & 0xff).min(written - self.next - 1);
        self.text.clear();
        let whole = kind == KIND_EVENT
            && (1..=follow).all(|index| match ring.get(self.next + index, true) {
                Some(words) => {
                    words.iter().for_each(|word| self.text.extend_from_slice(&word.to_le_bytes()));
                    true
                }
                None => false,
            });
        self.text.truncate(a as usize);
        self.next += 1 + follow;
        if whole {
            drained.read += 1 + follow;
            each(Entry::Event { unix_ms, bytes: &self.text });
        } else {
            drained.lost += 1 + follow;
        }
    }
}
