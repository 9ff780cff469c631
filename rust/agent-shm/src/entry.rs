//! An entry: a block that is a metric or a series. Key bytes and the fields of its header.

use crate::layout::*;
use crate::region::Region;
use crate::sync::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    Metric = 1,
    Series = 2,
}

/// Longest key: the label text of a series or the name of a metric.
pub const KEY_BYTES_MAX: usize = 8192;

/// The labels of the series that takes what a limit refused.
pub const OVERFLOW_LABELS: &str = "agent_overflow=\"true\"";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The metric's unit for a series, 0 for a metric.
    pub metric: u32,
    pub kind: u16,
    pub key_len: u16,
}

impl Meta {
    pub fn new(kind: Kind, metric: u32, key: &[u8]) -> Meta {
        Meta { metric, kind: kind as u16, key_len: key.len() as u16 }
    }

    pub fn of(word: u64) -> Meta {
        Meta { metric: (word >> 32) as u32, kind: (word >> 16) as u16, key_len: word as u16 }
    }

    pub fn word(self) -> u64 {
        u64::from(self.metric) << 32 | u64::from(self.kind) << 16 | u64::from(self.key_len)
    }

    pub fn is(self, kind: Kind) -> bool {
        self.kind == kind as u16
    }
}

pub fn meta(region: &Region, entry: u64) -> Meta {
    Meta::of(region.word(entry + ENTRY_META).load(Ordering::Acquire))
}

/// Where the cells of an entry start, behind its key.
#[inline]
pub fn cells(entry: u64, key_len: usize) -> u64 {
    entry + round_up(ENTRY_KEY + key_len as u64, 16)
}

pub fn unit(offset: u64) -> u32 {
    (offset / 16) as u32
}

pub fn offset(unit: u32) -> u64 {
    u64::from(unit) * 16
}

const CREATED_MASK: u64 = (1 << CREATED_BITS) - 1;

/// Unix milliseconds; of no meaning in an entry that is dead.
pub fn created_unix_ms(region: &Region, entry: u64) -> u64 {
    region.word(entry + ENTRY_CREATED).load(Ordering::Relaxed) & CREATED_MASK
}

pub fn set_created(region: &Region, entry: u64, unix_ms: u64) {
    let word = region.word(entry + ENTRY_CREATED);
    let check = word.load(Ordering::Relaxed) & !CREATED_MASK;
    word.store(check | unix_ms & CREATED_MASK, Ordering::Relaxed);
}

/// Notes that an entry, which is not dead, is as old as this.
pub fn set_created_before(region: &Region, entry: u64, unix_ms: u64) {
    let word = region.word(entry + ENTRY_CREATED);
    // In place of the time a dead entry has a stamp: then the exchange fails, or is overwritten.
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
        (old & CREATED_MASK > unix_ms).then_some(old & !CREATED_MASK | unix_ms & CREATED_MASK)
    });
}

/// Whether metric, kind and key are those that the entry was made with. A change by accident is missed once in 65,536.
#[inline]
pub fn is_intact(region: &Region, entry: u64, meta: Meta, key: &[u8]) -> bool {
    let word = region.word(entry + ENTRY_CREATED).load(Ordering::Relaxed);
    word >> CREATED_BITS == check_of(meta, key)
}

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The next sum of a check.
#[inline]
pub fn mix(sum: u64, word: u64) -> u64 {
    let product = (sum ^ word).wrapping_mul(ODD);
    product ^ product >> 32
}

/// 16 bits that differ when anything differs, but by chance; a few instructions for each 8 bytes.
#[inline]
fn check_of(meta: Meta, key: &[u8]) -> u64 {
    mix_bytes(mix(0, meta.word()), key).wrapping_mul(ODD) >> CREATED_BITS
}

#[inline]
pub fn mix_bytes(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        sum = mix(sum, u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
    }
    let rest = chunks.remainder();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(sum, u64::from_le_bytes(last))
}

/// Fills in the header and the key of an entry that nobody else can see yet.
pub fn write(region: &Region, entry: u64, meta: Meta, key: &[u8], now_unix_ms: u64) {
    region.word(entry + ENTRY_META).store(meta.word(), Ordering::Relaxed);
    let created = now_unix_ms & CREATED_MASK | check_of(meta, key) << CREATED_BITS;
    region.word(entry + ENTRY_CREATED).store(created, Ordering::Relaxed);
    write_bytes(region, entry + ENTRY_KEY, key);
}

/// Bytes as words: the mapping is only ever touched through atomics.
pub fn write_bytes(region: &Region, start: u64, bytes: &[u8]) {
    for (index, chunk) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let value = u64::from_le_bytes(word);
        region.word(start + index as u64 * 8).store(value, Ordering::Relaxed);
    }
}

/// Appends `len` bytes from `start` (a multiple of 8) to `out`.
pub fn read_bytes(region: &Region, start: u64, len: usize, out: &mut Vec<u8>) {
    let (begin, end) = (out.len(), out.len() + len);
    out.resize(begin + len.next_multiple_of(8), 0);
    for (index, bytes) in (0..).zip(out[begin..].chunks_exact_mut(8)) {
        let word = region.word(start + index * 8).load(Ordering::Relaxed);
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out.truncate(end);
}

pub fn key_is(region: &Region, entry: u64, key: &[u8]) -> bool {
    key.chunks(8).enumerate().all(|(index, chunk)| {
        let word = region.word(entry + ENTRY_KEY + index as u64 * 8).load(Ordering::Relaxed);
        word.to_le_bytes()[..chunk.len()] == *chunk
    })
}
