//! Where everything stands in a segment. All numbers are bytes from its start.
//!
//! ```text
//! 0            header     4 KiB: magic, layout, boot id, hash key, limits, name of the app (all of it twice), counters
//! 4096         heads      one word per hash bucket of the metric map: the newest entry of its chain
//! ...          pages      one word per page: size class of its blocks, blocks in use; see block.rs
//! (4 KiB)      slots      slots_max x 128: one per writer (a process, or a thread of the collector); committed when used
//! (4 KiB)      rings      slots_max x ring_records x 32: committed with a slot's first record; none in the segment of an app
//! (4 KiB)      blocks     pages of 16 KiB, each cut into blocks of one size class: metrics, series, lanes, octaves
//! ```
//!
//! All constants that two processes must agree on stand in `layout!` below, which makes them part of `layout_hash`. The
//! numbers of gauge modes, and where each has its cells, come from agent-metric and are part of it too. Halves of words are
//! 32 bits, and have no constant.
//!
//! The file has its full size from the start and is sparse: it grows by committing memory, never by being made longer.
//!
//! Offsets of blocks are stored divided by 16 (a *unit*), so that 31 bits reach 32 GiB and one bit is left for a mark.
//! `LAYOUT_VERSION` stands in the file's name too: two versions live beside each other during an upgrade, each unseen by
//! the other.

use agent_metric::GaugeMode;

/// A constant as the numbers that it is made of.
trait Numbers {
    fn add_to(&self, numbers: &mut Vec<u64>);
}

impl<const N: usize> Numbers for [u64; N] {
    fn add_to(&self, numbers: &mut Vec<u64>) {
        numbers.extend(self);
    }
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl Numbers for $type {
            fn add_to(&self, numbers: &mut Vec<u64>) {
                numbers.push(*self as u64);
            }
        })*
    };
}

numbers!(u8 u16 u32 u64 i64);

/// Declares the constants of the layout and `constants()`, which lists them all: none can be left out of the hash.
macro_rules! layout {
    ($($(#[$attribute:meta])* $visible:vis const $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$attribute])* $visible const $name: $type = $value;)*

        /// The values of all constants, in the order of their declarations.
        #[allow(unused_doc_comments)]
        fn constants() -> Vec<u64> {
            let mut numbers = Vec::new();
            $($(#[$attribute])* $name.add_to(&mut numbers);)*
            numbers
        }
    };
}

layout! {
    /// Changes whenever a byte of the layout changes its meaning.
    pub const LAYOUT_VERSION: u32 = 3;
    pub const MAGIC: u64 = u64::from_le_bytes(*b"agentseg");

    #[cfg(not(model))]
    pub const HEADER_BYTES: u64 = 4096;
    #[cfg(model)]
    pub const HEADER_BYTES: u64 = 576;
    pub const WORD_MAGIC: u64 = 0;
    /// Layout version, and a hash of the constants in this file.
    pub const WORD_LAYOUT: u64 = 8;
    pub const WORD_BOOT: u64 = 16; // two words
    pub const WORD_KEY: u64 = 32; // two words: the key of the series hash
    pub const WORD_CREATED: u64 = 48; // unix milliseconds
    pub const WORD_SERIES_MAX: u64 = 56; // series_max, metric_series_max
    pub const WORD_METRICS_MAX: u64 = 64; // metrics_max, slots_max
    pub const WORD_RING_RECORDS: u64 = 72;
    pub const WORD_BYTES_MAX: u64 = 80;
    pub const WORD_RECENT_MAX: u64 = 88;
    pub const WORD_CHECK: u64 = 96; // of the words before it and the name of the app; see header.rs
    pub const WORD_COMMITTED: u64 = 128; // pages whose memory exists
    pub const WORD_CLAIMED: u64 = 136; // pages below this one have a class (a hint)
    pub const WORD_EPOCH: u64 = 192; // see epoch.rs; alone on its line: every operation reads it
    pub const WORD_SERIES: u64 = 256; // series now
    pub const WORD_METRICS: u64 = 264;
    pub const WORD_OVERFLOWS: u64 = 272; // label sets that went to an overflow series
    pub const WORD_REMOVED: u64 = 280; // series removed or expired so far
    pub const WORD_REFUSED: u64 = 288; // operations refused because memory could not be had
    pub const WORD_SLOTS_USED: u64 = 296; // slots below this one were used at least once
    pub const WORD_PENDING: u64 = 304; // removed series whose memory is not free yet (a hint)
    pub const WORD_RECLAIMING: u64 = 312; // private segments only: slot + 1 of who reclaims
    pub const WORD_BIRTHS: u64 = 320; // definitions that ever appeared
    pub const WORD_FALLBACKS: u64 = 328; // metrics of processes that went to private memory
    pub const WORD_LEFT_INSIDE: u64 = 336; // 1 after an owner of a slot died inside an operation
    pub const WORD_RECENT: u64 = 344; // chunks of newest values beyond the first of each summary; see recent.rs
    pub const WORD_DAMAGED: u64 = 352; // `DAMAGED` after somebody found a chain that leads nowhere
    /// No other value, so that a bit that changes there says nothing.
    pub const DAMAGED: u64 = 0x0dea_d0c4_a115_eed5;
    pub const WORD_LATEST: u64 = 360; // the last stamp of a gauge of whom the latest counts
    pub const WORD_LOST: u64 = 368; // updates that found no memory anywhere
    pub const WORD_APP_LEN: u64 = 512;
    pub const APP_BYTES_MAX: u64 = 128;
    pub const APP_START: u64 = 520;
    /// How far behind the first words of the header they stand again.
    #[cfg(not(model))]
    pub const HEADER_AGAIN: u64 = 2048;
    /// One word per size class: no page below this one is known to have a free block (a hint).
    #[cfg(not(model))]
    pub const WORD_ROOM: u64 = 1024;
    #[cfg(model)]
    pub const WORD_ROOM: u64 = 536;

    pub const SLOT_BYTES: u64 = 128;
    pub const SLOT_GENERATION: u64 = 0; // grows with every owner; never 0 once used
    pub const SLOT_PID: u64 = 8;
    pub const SLOT_STARTED: u64 = 16; // unix milliseconds
    pub const SLOT_RING: u64 = 24; // 1 when the ring's memory exists
    pub const SLOT_RING_REFUSED: u64 = 32; // records not written because it could not be had
    pub const SLOT_CLAIMED: u64 = 40; // private segments only: 1 while owned
    pub const SLOT_REMOTE: u64 = 48; // 1 when the owner leaves the barrier to others
    pub const SLOT_ACTIVE: u64 = 64; // own line: 0, or (epoch << 1) | 1 inside an operation
    pub const SLOT_RING_WRITTEN: u64 = 72; // cells written since the slot exists

    pub const RING_CELL_BYTES: u64 = 32;
    /// The stamp of a cell: its number + 1, whether it follows another, whether it is being written; see ring.rs.
    pub const STAMP_SHIFT: u32 = 2;
    pub const STAMP_FOLLOWS: u64 = 2;
    pub const STAMP_WRITING: u64 = 1;
    /// The word of time and kind of a cell.
    pub const CELL_TIME_SHIFT: u32 = 16;
    pub const CELL_KIND_SHIFT: u32 = 8;
    pub const KIND_SAMPLE: u8 = 1;
    pub const KIND_UNIQUE: u8 = 2;
    pub const KIND_EVENT: u8 = 3;

    #[cfg(not(model))]
    pub const PAGE_BYTES: u64 = 16 * 1024;
    /// Small enough for a model checker.
    #[cfg(model)]
    pub const PAGE_BYTES: u64 = 256;
    /// Pages whose memory is committed at once.
    pub const CHUNK_PAGES: u64 = 16;

    /// Rings and blocks start on pages of the machine.
    #[cfg(not(model))]
    const RINGS_ALIGN: u64 = 4096;
    #[cfg(model)]
    const RINGS_ALIGN: u64 = 64;

    #[cfg(not(model))]
    const RING_RECORDS_MIN: u32 = 8;
    #[cfg(model)]
    const RING_RECORDS_MIN: u32 = 2;

    /// Every block starts with its state word: mark, generation, owner, state and class; see block.rs.
    pub const BLOCK_STATE: u64 = 0;
    /// The upper 13 bits of every state word.
    pub const STATE_MARK: u64 = 0xfff0 << 48;
    pub const STATE_MARK_BITS: u64 = 0xfff8 << 48;
    pub const STATE_GENERATION_SHIFT: u32 = 21;
    pub const STATE_OWNER_SHIFT: u32 = 9;
    pub const STATE_SHIFT: u32 = 6;
    pub const CLASS_MASK: u64 = 0x3f;
    pub const GENERATIONS: u32 = (1 << 30) - 1;
    pub const FREE: u8 = 0;
    /// Being filled in by `owner`; whether it is reachable already, the map knows.
    pub const CLAIMED: u8 = 1;
    pub const LIVE: u8 = 2;
    /// Removed; may still hang in its chain.
    pub const DEAD: u8 = 3;
    /// Out of its chain; waits for two epochs after that in `ENTRY_STAMP`.
    pub const LIMBO: u8 = 4;
    /// Dies unless somebody used it: see expire.rs.
    pub const EXPIRING: u8 = 5;
    /// A part being filled in, and a part that hangs below its entry.
    pub const CLAIMED_PART: u8 = 6;
    pub const PART: u8 = 7;

    /// The word of a page: generation, epoch, blocks in use, phase, class + 1; see page.rs.
    pub const PAGE_GENERATION_SHIFT: u32 = 34;
    pub const PAGE_EPOCH_SHIFT: u32 = 20;
    pub const PAGE_EPOCH_MASK: u64 = 0x3fff;
    pub const PAGE_USED_SHIFT: u32 = 8;
    pub const PAGE_USED_MASK: u64 = 0x7ff;
    /// Set when the class has an odd number of bits.
    pub const PAGE_PARITY_SHIFT: u32 = 19;
    pub const PAGE_PHASE_SHIFT: u32 = 6;

    /// An entry (a series or a metric) in the map:
    pub const ENTRY_NEXT: u64 = 8; // hash tag (high half), next entry's unit << 1 | mark (low half)
    pub const ENTRY_META: u64 = 16; // metric's unit (high half), kind, key length
    pub const ENTRY_EXTRA: u64 = 24; // stripes' or lanes' unit (low half), epoch of the last use (high half)
    pub const ENTRY_CREATED: u64 = 32; // unix milliseconds (lower 48 bits), check of the key and of ENTRY_META
    /// Bits of the time; those above are the check.
    pub const CREATED_BITS: u32 = 48;
    /// In the place of the time of creation, of an entry that is dead or began anew: the epoch in which that was seen.
    pub const ENTRY_STAMP: u64 = ENTRY_CREATED;
    /// The mark in `ENTRY_NEXT`: the entry that says this is leaving its chain.
    pub const LINK_MARK: u64 = 1;
    /// In `ENTRY_META`:
    pub const META_METRIC_SHIFT: u32 = 32;
    pub const META_KIND_SHIFT: u32 = 16;
    pub const KIND_METRIC: u16 = 1;
    pub const KIND_SERIES: u16 = 2;
    /// The factor of the checks of keys and definitions.
    pub const CHECK_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    pub const ENTRY_KEY: u64 = 40; // key bytes, then the cells at the next multiple of 16

    /// The payload of a metric's entry, behind its name:
    pub const METRIC_SHAPE: u64 = 0; // shape, mode or schema, number of bounds; above `SHAPE_BITS` a check of the definition
    pub const SHAPE_BITS: u32 = 32;
    pub const SHAPE_COUNTER: u8 = 1;
    pub const SHAPE_GAUGE: u8 = 2;
    pub const SHAPE_EXPONENTIAL: u8 = 3;
    pub const SHAPE_EXPLICIT: u8 = 4;
    pub const SHAPE_SUMMARY: u8 = 5;
    /// Of the mode or schema, and of the number of bounds.
    pub const SHAPE_DETAIL_SHIFT: u32 = 8;
    pub const SHAPE_NUMBERS_SHIFT: u32 = 16;
    pub const METRIC_SERIES: u64 = 8; // series now
    pub const METRIC_TEXT: u64 = 16; // lengths of help (16 bits), unit (16) and label names (32)
    pub const METRIC_OVERFLOWS: u64 = 24; // label sets that went to the overflow series
    pub const METRIC_BIRTH: u64 = 32; // its number among all definitions ever; of one name the last counts
    pub const METRIC_REPLACED: u64 = 40; // whether it began anew, or since when nobody uses it; see family.rs
    /// In `METRIC_REPLACED`: it began anew; and the epoch in which that was seen is written down. Larger numbers are the time
    /// since when nobody uses it.
    pub const REPLACED: u64 = 1;
    pub const LEFT: u64 = 2;
    /// What hangs below a definition of each slot that uses it; see family.rs.
    pub const USER_BYTES: u64 = 8;
    pub const METRIC_BOUNDS: u64 = 48; // f64 bits; then help, unit and label names

    /// A part: a block that hangs below an entry, in the pointer word that `PART_LINK` names. Its body starts with as many
    /// pointer words (units of parts below it) as `PART_LINK` says; the rest are cells.
    /// Offset of the pointer word / 8 (high half), whether it counts in `WORD_RECENT` (bit 16), pointers in the body (16 bits).
    pub const PART_LINK: u64 = 8;
    pub const PART_IS_RECENT: u64 = 1 << 16;
    pub const PART_BODY: u64 = 16;

    /// Where no cell of a counter comes: the update that would is refused.
    pub const COUNTER_END: u64 = 1 << 63;

    /// The cells of an exponential histogram: 16 pointers to groups, one to the negative side, and three pairs, which count
    /// what is too small for an octave, above all of them, and below all of them; see parts.rs.
    pub const EXPONENTIAL_POINTERS: u64 = 17;
    pub const EXPONENTIAL_NEGATIVE: u64 = 16 * 8;
    pub const EXPONENTIAL_ZERO: u64 = 18 * 8;
    pub const EXPONENTIAL_OVER: u64 = EXPONENTIAL_ZERO + 16;
    pub const EXPONENTIAL_UNDER: u64 = EXPONENTIAL_OVER + 16;
    pub const EXPONENTIAL_BYTES: u64 = EXPONENTIAL_UNDER + 16;
    pub const GROUPS: u64 = 16;
    pub const OCTAVES_IN_GROUP: u64 = 8;

    /// Pointers on each of the two levels above the lanes of a gauge, and lanes in a group; see lane.rs.
    #[cfg(not(model))]
    pub const LANE_FAN: u64 = 16;
    #[cfg(model)]
    pub const LANE_FAN: u64 = 2;
    pub const LANE_BYTES: u64 = 32;
    /// Of a fold lane.
    pub const LANE_GENERATION: u64 = 16;
    /// Of an own lane of `livemostrecent`, which has one pair of values and this one: when it was set, nanoseconds.
    pub const LANE_TIME: u64 = 16;
    /// From the pair of one incarnation to that of the next, where both are kept.
    pub const LANE_NEXT: u64 = 16;

    /// The cells of a summary: a pointer to the table of its newest values, a word that is free, and the pair {count, sum}.
    /// Of a shared gauge in private memory: 1 once it was set, behind its value. What was only added up stays 0.
    pub const GAUGE_SET: u64 = 8;
    pub const SUMMARY_PAIR: u64 = 16;
    pub const SUMMARY_BYTES: u64 = 32;
    /// Newest values that one copy of a summary's cells keeps at most, and how many of them are in a chunk.
    #[cfg(not(model))]
    pub const RECENT_MAX: u64 = 2048;
    #[cfg(model)]
    pub const RECENT_MAX: u64 = 4;
    #[cfg(not(model))]
    pub const RECENT_IN_CHUNK: u64 = 64;
    #[cfg(model)]
    pub const RECENT_IN_CHUNK: u64 = 2;
    /// Bits of the number beside the time of a value.
    pub const NUMBER_BITS: u32 = 22;

    /// Writers that share a stripe differ by a multiple of this.
    pub const STRIPES: u64 = 8;
    /// A line of the cache.
    pub const STRIPE_BYTES: u64 = 64;

    /// Block sizes. 16-byte steps where most series are, then about 12 % apart; the largest is a page.
    #[cfg(not(model))]
    pub const CLASSES: [u64; 39] = [
        16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352, 384,
        416, 448, 480, 512, 576, 640, 768, 896, 1024, 1280, 1536, 1808, 2336, 2720, 3264, 4096, 5456,
        8192, 16384,
    ];
    #[cfg(model)]
    pub const CLASSES: [u64; 5] = [64, 80, 96, 144, 256];

    /// What a block's state word has room for; and three levels of 16 pointers, see parts.rs.
    pub const SLOTS_MAX: u16 = 4096;
    const RINGS_BYTES_MAX: u64 = 8 << 30;

    /// Bytes of the file's locks, far behind its end; see lock.rs. One of each slot, and one of each owner that it ever has.
    pub const LOCK_SLOTS: i64 = 1 << 60;
    pub const LOCK_INCARNATIONS: i64 = 1 << 61;
    pub const LOCK_INCARNATION_STEP: i64 = 1 << 12;
    pub const LOCK_END: i64 = 1 << 62;
    /// Held while a stale file is replaced; see file.rs.
    #[cfg(not(model))]
    pub const LOCK_REPLACE: i64 = LOCK_SLOTS - 1;
    /// Held by the process that reclaims; see reclaim.rs.
    pub const LOCK_RECLAIM: i64 = LOCK_SLOTS - 2;
    /// Held by the maker of a new file until it has its name; see file.rs.
    #[cfg(not(model))]
    pub const LOCK_MAKER: i64 = LOCK_SLOTS - 3;
}

pub fn class_for(bytes: u64) -> Option<u8> {
    CLASSES.iter().position(|&size| size >= bytes && size <= PAGE_BYTES).map(|i| i as u8)
}

pub const fn blocks_in_page(class: u8) -> u64 {
    PAGE_BYTES / CLASSES[class as usize]
}

pub const fn round_up(value: u64, step: u64) -> u64 {
    value.div_ceil(step) * step
}

/// What a segment may hold at most; written once, when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Series in the segment; the next ones go to the overflow series of their metric.
    pub series_max: u32,
    /// Series of one metric.
    pub metric_series_max: u32,
    /// Metrics; they are never removed.
    pub metrics_max: u32,
    /// Writers alive at the same time.
    pub slots_max: u16,
    /// Records in a writer's ring, a power of two; 0 where nobody writes one.
    pub ring_records: u32,
    /// Newest values that one copy of a summary's cells keeps, a power of two up to `RECENT_MAX`.
    pub recent_max: u32,
    /// Bytes of blocks.
    pub bytes_max: u64,
}

impl Default for Options {
    /// For an app: 100,000 series, 4,096 processes, at most 256 MiB, no rings; 0.7 MB when new.
    fn default() -> Options {
        Options {
            series_max: 100_000,
            metric_series_max: 10_000,
            metrics_max: 10_000,
            slots_max: SLOTS_MAX,
            ring_records: 0,
            recent_max: RECENT_MAX as u32,
            bytes_max: 256 << 20,
        }
    }
}

impl Options {
    /// For the collector: 1,000,000 series, rings of 2 MiB, at most 2 GiB.
    pub fn collector() -> Options {
        Options {
            series_max: 1_000_000,
            metric_series_max: 100_000,
            metrics_max: 65_536,
            slots_max: 512,
            ring_records: 65_536,
            recent_max: RECENT_MAX as u32,
            bytes_max: 2 << 30,
        }
    }

    /// Brings every limit into the range that the layout can hold.
    pub fn clamped(self) -> Options {
        let slots_max = self.slots_max.clamp(1, SLOTS_MAX);
        // All rings together stay below 8 GiB: blocks stand behind them, and 31 bits must reach the last one.
        let records_max = (RINGS_BYTES_MAX / RING_CELL_BYTES / u64::from(slots_max)) as u32;
        let records_max = (records_max / 2 + 1).next_power_of_two().min(1 << 22);
        Options {
            series_max: self.series_max.clamp(1, 1 << 26),
            metric_series_max: self.metric_series_max.clamp(1, 1 << 26),
            metrics_max: self.metrics_max.clamp(1, 1 << 24),
            slots_max,
            ring_records: match self.ring_records {
                0 => 0,
                records => records.clamp(RING_RECORDS_MIN, records_max).next_power_of_two(),
            },
            recent_max: self.recent_max.clamp(1, RECENT_MAX as u32).next_power_of_two(),
            bytes_max: self.bytes_max.clamp(PAGE_BYTES, 16 << 30),
        }
    }
}

/// The places that follow from the limits.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    pub slots: u64,
    pub slots_max: u64,
    pub heads: u64,
    pub heads_len: u64,
    pub pages: u64,
    pub pages_max: u64,
    pub rings: u64,
    pub ring_bytes: u64,
    pub blocks: u64,
    pub total: u64,
}

impl Places {
    pub fn of(options: &Options) -> Places {
        let heads = HEADER_BYTES;
        // Chains of two at the limit: half a word per series, and a lookup touches two or three lines.
        let heads_len = (u64::from(options.series_max) / 2).next_power_of_two();
        let pages = heads + heads_len * 8;
        let pages_max = options.bytes_max / PAGE_BYTES;
        let slots = round_up(pages + pages_max * 8, RINGS_ALIGN);
        let slots_max = u64::from(options.slots_max);
        let rings = round_up(slots + slots_max * SLOT_BYTES, RINGS_ALIGN);
        let ring_bytes = u64::from(options.ring_records) * RING_CELL_BYTES;
        let blocks = round_up(rings + slots_max * ring_bytes, PAGE_BYTES);
        let total = blocks + pages_max * PAGE_BYTES;
        Places {
            slots,
            slots_max,
            heads,
            heads_len,
            pages,
            pages_max,
            rings,
            ring_bytes,
            blocks,
            total,
        }
    }

    /// Where what may be touched ends, when so many pages are committed.
    #[cfg(not(model))]
    pub fn used(&self, pages_committed: u64) -> u64 {
        self.blocks + pages_committed.min(self.pages_max) * PAGE_BYTES
    }

    pub fn slot(&self, index: u16) -> u64 {
        self.slots + u64::from(index) * SLOT_BYTES
    }

    pub fn page(&self, index: u64) -> u64 {
        self.blocks + index * PAGE_BYTES
    }
}

/// Differs when any constant of the layout does, so that a forgotten `LAYOUT_VERSION` is noticed.
pub fn layout_hash() -> u32 {
    let mut numbers = constants();
    let modes = GaugeMode::ALL.iter().map(|row| (row.mode as u64) << 8 | row.storage as u64);
    numbers.extend(modes);
    hash_of(&numbers)
}

/// FNV-1a.
fn hash_of(numbers: &[u64]) -> u32 {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn the_hash_differs_when_any_constant_does_and_when_two_swap_their_values() {
        let constants = constants();
        assert!(constants.len() > 130, "{}", constants.len());
        let hash = hash_of(&constants);
        for at in 0..constants.len() {
            let mut changed = constants.clone();
            changed[at] += 1;
            assert_ne!(hash_of(&changed), hash, "constant {at}");
            for other in (0..at).filter(|&other| constants[other] != constants[at]) {
                let mut swapped = constants.clone();
                swapped.swap(at, other);
                assert_ne!(hash_of(&swapped), hash, "constants {at} and {other}");
            }
        }
    }

    #[test]
    fn every_constant_of_this_file_is_in_the_list() {
        let text = include_str!("layout.rs");
        let list = text.split("\nlayout! {").nth(1).and_then(|rest| rest.split("\n}").next());
        let outside = text.replacen(list.unwrap(), "", 1);
        let is_declared = |line: &&str| {
            let line = line.trim_start().trim_start_matches("pub ");
            line.starts_with("const ") && !line.starts_with("const fn ")
        };
        let outside: Vec<_> = outside.lines().filter(is_declared).collect();
        assert_eq!(outside, Vec::<&str>::new());
    }
}
