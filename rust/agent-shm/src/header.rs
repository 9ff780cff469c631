//! The header of a segment: which app, which boot, which limits, which hash key.
//!
//! It is written once, and twice over: the same words stand in the first and in the second half of the header, each with a
//! check. A bit that changes in one of them costs nothing: who opens the file takes the sound one, and a writer mends the
//! other. Who has the segment open keeps what it has read.
//!
//! Not promised: that a file whose two halves are both damaged is read. It counts as damaged.

use crate::clock::now_unix_ms;
use crate::layout::*;
#[cfg(not(model))]
use crate::region::Region;
#[cfg(not(model))]
use crate::sync::Ordering;
use agent_metric::name::cut;
#[cfg(not(model))]
use core::hash::Hasher;
#[cfg(not(model))]
use siphasher::sip::SipHasher13;

/// What stands in the header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub app: String,
    pub layout_version: u32,
    pub boot_id: u128,
    pub created_unix_ms: u64,
    pub options: Options,
}

/// Words that are written once: those before `WORD_CHECK`, and the name of the app.
const FIXED: usize = (WORD_CHECK / 8) as usize;
const NAME: usize = ((8 + APP_BYTES_MAX) / 8) as usize;

/// The words of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    words: [u64; FIXED + NAME],
}

/// Which of the two is to be believed.
#[cfg(not(model))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soundness {
    Both,
    /// The other one is to be mended.
    One,
    /// The words are those of the first.
    None,
}

impl Sealed {
    /// The longest beginning of `app` that there is room for.
    pub fn new(app: &str, options: &Options, boot_id: u128, key: [u64; 2]) -> Sealed {
        let mut sealed = Sealed { words: [0; FIXED + NAME] };
        let mut put = |offset, value| sealed.words[index(offset)] = value;
        put(WORD_MAGIC, MAGIC);
        put(WORD_LAYOUT, u64::from(LAYOUT_VERSION) << 32 | u64::from(layout_hash()));
        put(WORD_BOOT, boot_id as u64);
        put(WORD_BOOT + 8, (boot_id >> 64) as u64);
        put(WORD_KEY, key[0]);
        put(WORD_KEY + 8, key[1]);
        put(WORD_CREATED, now_unix_ms());
        put(
            WORD_SERIES_MAX,
            u64::from(options.series_max) << 32 | u64::from(options.metric_series_max),
        );
        put(WORD_METRICS_MAX, u64::from(options.metrics_max) << 32 | u64::from(options.slots_max));
        put(WORD_RING_RECORDS, options.ring_records.into());
        put(WORD_RECENT_MAX, options.recent_max.into());
        put(WORD_BYTES_MAX, options.bytes_max);
        let name = cut(app, APP_BYTES_MAX as usize);
        put(WORD_APP_LEN, name.len() as u64);
        for (offset, chunk) in (APP_START..).step_by(8).zip(name.as_bytes().chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            put(offset, u64::from_le_bytes(bytes));
        }
        sealed
    }

    /// The sound one of the two that `word` reads, or the first.
    #[cfg(not(model))]
    pub fn find(word: impl Fn(u64) -> u64) -> (Sealed, Soundness) {
        let copy = |start: u64| {
            let words = OFFSETS.map(|offset| word(start + offset));
            let sealed = Sealed { words };
            (sealed, sealed.check() == word(start + WORD_CHECK))
        };
        match (copy(0), copy(HEADER_AGAIN)) {
            ((first, true), (second, true)) if first == second => (first, Soundness::Both),
            ((first, true), _) => (first, Soundness::One),
            (_, (second, true)) => (second, Soundness::One),
            ((first, false), (_, false)) => (first, Soundness::None),
        }
    }

    /// Writes both. The magic word comes last: before it, nobody takes the file for a segment.
    #[cfg(not(model))]
    pub fn put(&self, region: &Region) {
        for start in [HEADER_AGAIN, 0] {
            let put = |offset, value, order| region.word(start + offset).store(value, order);
            put(WORD_CHECK, self.check(), Ordering::Relaxed);
            for (&offset, &value) in OFFSETS.iter().zip(&self.words).skip(1) {
                put(offset, value, Ordering::Relaxed);
            }
            put(WORD_MAGIC, self.words[0], Ordering::Release);
        }
    }

    /// As it stands in a file: offsets, and bytes to be written there.
    #[cfg(not(model))]
    pub fn bytes(&self) -> Vec<(u64, [u8; 8])> {
        let words = OFFSETS.iter().copied().zip(self.words);
        let words: Vec<_> = words.chain([(WORD_CHECK, self.check())]).collect();
        let copies = [0, HEADER_AGAIN].into_iter().flat_map(|start| {
            words.iter().map(move |(offset, value)| (start + offset, value.to_le_bytes()))
        });
        copies.collect()
    }

    #[cfg(not(model))]
    fn check(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(MAGIC, MAGIC);
        self.words.iter().for_each(|&word| hasher.write_u64(word));
        hasher.finish()
    }

    pub fn word(&self, offset: u64) -> u64 {
        self.words[index(offset)]
    }

    #[cfg(not(model))]
    pub fn set_word(&mut self, offset: u64, value: u64) {
        self.words[index(offset)] = value;
    }

    pub fn key(&self) -> [u64; 2] {
        [self.word(WORD_KEY), self.word(WORD_KEY + 8)]
    }

    pub fn options(&self) -> Options {
        Options {
            series_max: (self.word(WORD_SERIES_MAX) >> 32) as u32,
            metric_series_max: self.word(WORD_SERIES_MAX) as u32,
            metrics_max: (self.word(WORD_METRICS_MAX) >> 32) as u32,
            slots_max: self.word(WORD_METRICS_MAX) as u16,
            ring_records: self.word(WORD_RING_RECORDS) as u32,
            recent_max: self.word(WORD_RECENT_MAX) as u32,
            bytes_max: self.word(WORD_BYTES_MAX),
        }
    }

    /// The boot of the machine in which it was made; 0 where the kernel did not say.
    pub fn boot_id(&self) -> u128 {
        u128::from(self.word(WORD_BOOT + 8)) << 64 | u128::from(self.word(WORD_BOOT))
    }

    pub fn header(&self) -> Header {
        let name: Vec<u8> =
            self.words[FIXED + 1..].iter().flat_map(|word| word.to_le_bytes()).collect();
        let len = self.word(WORD_APP_LEN).min(APP_BYTES_MAX) as usize;
        Header {
            app: String::from_utf8_lossy(&name[..len]).into_owned(),
            layout_version: (self.word(WORD_LAYOUT) >> 32) as u32,
            boot_id: self.boot_id(),
            created_unix_ms: self.word(WORD_CREATED),
            options: self.options(),
        }
    }
}

/// Where the words of a header stand.
#[cfg(not(model))]
const OFFSETS: [u64; FIXED + NAME] = {
    let mut offsets = [0; FIXED + NAME];
    let mut at = 0;
    while at < FIXED + NAME {
        offsets[at] = match at < FIXED {
            true => at as u64 * 8,
            false => WORD_APP_LEN + (at - FIXED) as u64 * 8,
        };
        at += 1;
    }
    offsets
};

fn index(offset: u64) -> usize {
    match offset < WORD_CHECK {
        true => (offset / 8) as usize,
        false => FIXED + ((offset - WORD_APP_LEN) / 8) as usize,
    }
}
