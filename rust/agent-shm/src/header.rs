//! The header of a segment: which app, which boot, which limits.

use crate::clock::now_unix_ms;
use crate::entry;
use crate::layout::*;
use crate::region::Region;
use crate::sync::Ordering;

/// What stands in the header of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub app: String,
    pub layout_version: u32,
    pub boot_id: u128,
    pub created_unix_ms: u64,
    pub options: Options,
}

/// Writes the header of a new segment. The magic word comes last: before it, nobody takes the file for a segment.
pub fn format(region: &Region, app: &str, options: &Options, boot_id: u128, key: [u64; 2]) {
    let put = |offset, value| region.word(offset).store(value, Ordering::Relaxed);
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
    put(WORD_BYTES_MAX, options.bytes_max);
    put(WORD_EPOCH, 1);
    let mut name = app.as_bytes();
    while name.len() as u64 > APP_BYTES_MAX {
        name = &name[..name.len() - 1];
    }
    put(WORD_APP_LEN, name.len() as u64);
    entry::write_bytes(region, APP_START, name);
    region.word(WORD_MAGIC).store(MAGIC, Ordering::Release);
}

pub fn read(region: &Region) -> Header {
    let word = |offset| region.word(offset).load(Ordering::Acquire);
    let mut app = Vec::new();
    let len = word(WORD_APP_LEN).min(APP_BYTES_MAX) as usize;
    entry::read_bytes(region, APP_START, len, &mut app);
    Header {
        app: String::from_utf8_lossy(&app).into_owned(),
        layout_version: (word(WORD_LAYOUT) >> 32) as u32,
        boot_id: boot_id(word),
        created_unix_ms: word(WORD_CREATED),
        options: options(word),
    }
}

/// The limits, out of the words of a header.
pub fn options(word: impl Fn(u64) -> u64) -> Options {
    Options {
        series_max: (word(WORD_SERIES_MAX) >> 32) as u32,
        metric_series_max: word(WORD_SERIES_MAX) as u32,
        metrics_max: (word(WORD_METRICS_MAX) >> 32) as u32,
        slots_max: word(WORD_METRICS_MAX) as u16,
        ring_records: word(WORD_RING_RECORDS) as u32,
        bytes_max: word(WORD_BYTES_MAX),
    }
}

/// The boot of the machine in which it was made; 0 where the kernel did not say.
pub fn boot_id(word: impl Fn(u64) -> u64) -> u128 {
    u128::from(word(WORD_BOOT + 8)) << 64 | u128::from(word(WORD_BOOT))
}
