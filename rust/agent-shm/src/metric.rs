//! A metric: name, help, unit and shape, written once into the map; and how its shape is told in words and in bytes.

use crate::block;
use crate::entry::{self, Kind};
use crate::error::Error;
use crate::layout::*;
use crate::region::Region;
use crate::sync::Ordering;
use agent_metric::name::cut;
use agent_metric::octave::SCHEMA_MAX;
use agent_metric::{GaugeMode, OwnedShape, Shape};

pub const NAME_BYTES_MAX: usize = 512;
pub const HELP_BYTES_MAX: usize = 1024;
pub const UNIT_BYTES_MAX: usize = 64;
pub const BOUNDS_MAX: usize = 512;
/// 32 names of 200 bytes, and commas.
pub const LABEL_NAMES_BYTES_MAX: usize = 6432;

fn shape_word(shape: &Shape<'_>) -> u64 {
    let (code, detail) = match shape {
        Shape::Counter => (SHAPE_COUNTER, 0),
        Shape::Gauge(mode) => (SHAPE_GAUGE, *mode as u8),
        Shape::Exponential { schema } => (SHAPE_EXPONENTIAL, *schema),
        Shape::Explicit(_) => (SHAPE_EXPLICIT, 0),
        Shape::Summary(_) => (SHAPE_SUMMARY, 0),
    };
    let numbers = shape.numbers().len() as u64;
    u64::from(code) | u64::from(detail) << SHAPE_DETAIL_SHIFT | numbers << SHAPE_NUMBERS_SHIFT
}

/// The check of a definition, above the shape in its word: 32 bits that differ when anything that was defined differs, but
/// by chance.
fn check_of(shape: &Shape<'_>, [help, unit, label_names]: [&str; 3]) -> u64 {
    let numbers = shape.numbers().iter().map(|number| number.to_bits());
    let sum = numbers.fold(entry::mix(0, shape_word(shape)), entry::mix);
    let texts = [help, unit, label_names];
    let sum = texts.iter().fold(sum, |sum, text| {
        entry::mix_bytes(entry::mix(sum, text.len() as u64), text.as_bytes())
    });
    entry::mix(sum, 0) >> SHAPE_BITS << SHAPE_BITS
}

/// Whether what was read of a metric is what it was made with.
pub fn is_intact(region: &Region, block: u64, meta: &MetricMeta) -> bool {
    let shape = meta.shape.borrowed();
    let word = shape_word(&shape) | check_of(&shape, [&meta.help, &meta.unit, &meta.label_names]);
    payload(region, block)
        .is_some_and(|payload| region.word(payload + METRIC_SHAPE).load(Ordering::Acquire) == word)
}

/// Bytes of cells in the entry of a series of this shape.
pub fn cell_bytes(shape: &Shape<'_>) -> u64 {
    match shape {
        Shape::Counter | Shape::Gauge(_) => 16,
        Shape::Summary(_) => SUMMARY_BYTES,
        Shape::Explicit(bounds) => (bounds.len() as u64 + 1) * 16,
        Shape::Exponential { .. } => EXPONENTIAL_BYTES,
    }
}

/// What `METRIC_REPLACED` says.
pub fn is_replaced(word: u64) -> bool {
    matches!(word, REPLACED | LEFT)
}

#[derive(Debug, Clone, Copy)]
pub struct MetricSpec<'a> {
    /// Full name, without the `_total` that exposition adds to counters.
    pub name: &'a str,
    pub help: &'a str,
    pub unit: &'a str,
    pub shape: Shape<'a>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MetricMeta {
    pub name: String,
    pub help: String,
    pub unit: String,
    pub shape: OwnedShape,
    /// Names of its labels, joined by commas, as they are part of its definition; empty where nobody said.
    pub label_names: String,
    /// Label sets that went to the overflow series.
    pub overflows: u64,
    /// Its number among all definitions that the segment ever had: of several with one name, the last one counts.
    pub birth: u64,
    /// When the name first appeared with this type.
    pub first_unix_ms: u64,
}

impl MetricMeta {
    /// Whether it is the metric that `spec` and these label names define.
    pub fn is_defined_by(&self, spec: &MetricSpec<'_>, label_names: &str) -> bool {
        self.shape.borrowed() == spec.shape
            && self.unit == cut(spec.unit, UNIT_BYTES_MAX)
            && self.label_names == label_names
    }
}

/// A metric of one segment. Good as long as a living process uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MetricId {
    pub(crate) unit: u32,
    pub(crate) generation: u32,
}

/// Bytes of the block that `spec` needs.
pub fn block_bytes(spec: &MetricSpec<'_>, label_names: &str) -> Result<u64, Error> {
    let too_large = |what, bytes, bytes_max| Err(Error::TooLarge { what, bytes, bytes_max });
    if spec.name.is_empty() || spec.name.len() > NAME_BYTES_MAX {
        return too_large("metric name", spec.name.len(), NAME_BYTES_MAX);
    }
    if spec.shape.numbers().len() > BOUNDS_MAX {
        return too_large("bucket list", spec.shape.numbers().len(), BOUNDS_MAX);
    }
    if label_names.len() > LABEL_NAMES_BYTES_MAX {
        return too_large("list of label names", label_names.len(), LABEL_NAMES_BYTES_MAX);
    }
    let texts = [cut(spec.help, HELP_BYTES_MAX), cut(spec.unit, UNIT_BYTES_MAX), label_names];
    let text: u64 = texts.iter().map(|text| text.len() as u64 + 8).sum();
    let payload = METRIC_BOUNDS + spec.shape.numbers().len() as u64 * 8 + text;
    Ok(entry::cells(0, spec.name.len()) + payload)
}

/// Fills in a block that nobody else can see yet.
pub fn write(
    region: &Region,
    block: u64,
    spec: &MetricSpec<'_>,
    label_names: &str,
    birth: u64,
    now_unix_ms: u64,
) {
    let name = spec.name.as_bytes();
    entry::write(region, block, entry::Meta::new(Kind::Metric, 0, name), name, now_unix_ms);
    let payload = entry::cells(block, name.len());
    let put = |offset, value| region.word(payload + offset).store(value, Ordering::Relaxed);
    let (help, unit) = (cut(spec.help, HELP_BYTES_MAX), cut(spec.unit, UNIT_BYTES_MAX));
    let lengths = [help, unit, label_names].map(|text| text.len() as u64);
    put(METRIC_SHAPE, shape_word(&spec.shape) | check_of(&spec.shape, [help, unit, label_names]));
    put(METRIC_TEXT, lengths[0] << 48 | lengths[1] << 32 | lengths[2]);
    put(METRIC_BIRTH, birth);
    for (index, number) in spec.shape.numbers().iter().enumerate() {
        put(METRIC_BOUNDS + index as u64 * 8, number.to_bits());
    }
    let mut at = payload + METRIC_BOUNDS + spec.shape.numbers().len() as u64 * 8;
    for text in [help, unit, label_names] {
        entry::write_bytes(region, at, text.as_bytes());
        at += round_up(text.len() as u64, 8);
    }
}

/// How many pointers to parts the cells of a series begin with; `shape` is the word of its metric's shape.
pub fn cell_pointers(shape: u64) -> u64 {
    match shape as u8 {
        SHAPE_EXPONENTIAL => EXPONENTIAL_POINTERS,
        SHAPE_SUMMARY => 1,
        _ => 0,
    }
}

/// Where the payload of a metric starts, or nothing when there is no metric at `block`.
pub fn payload(region: &Region, block: u64) -> Option<u64> {
    let meta = entry::meta(region, block);
    let fits = usize::from(meta.key_len) <= NAME_BYTES_MAX;
    (meta.is(Kind::Metric) && fits).then(|| entry::cells(block, meta.key_len.into()))
}

/// Whether the metric with this payload is a summary.
pub fn is_summary(region: &Region, payload: u64) -> bool {
    region.word(payload + METRIC_SHAPE).load(Ordering::Acquire) as u8 == SHAPE_SUMMARY
}

/// Reads a metric back, checking everything: the segment may be somebody else's.
pub fn read(region: &Region, block: u64) -> Option<MetricMeta> {
    let payload = payload(region, block)?;
    let get = |offset| region.word(payload + offset).load(Ordering::Acquire);
    let word = get(METRIC_SHAPE);
    let (code, detail, len) = (
        word as u8,
        (word >> SHAPE_DETAIL_SHIFT) as u8,
        (word >> SHAPE_NUMBERS_SHIFT) as usize & 0xffff,
    );
    if len > BOUNDS_MAX {
        return None;
    }
    let numbers = || -> Vec<f64> {
        (0..len as u64).map(|i| f64::from_bits(get(METRIC_BOUNDS + i * 8))).collect()
    };
    let shape = match code {
        SHAPE_COUNTER => OwnedShape::Counter,
        SHAPE_GAUGE => OwnedShape::Gauge(GaugeMode::ALL.get(usize::from(detail))?.mode),
        SHAPE_EXPONENTIAL if detail <= SCHEMA_MAX => OwnedShape::Exponential { schema: detail },
        SHAPE_EXPLICIT => OwnedShape::Explicit(numbers()),
        SHAPE_SUMMARY => OwnedShape::Summary(numbers()),
        _ => return None,
    };
    let text = get(METRIC_TEXT);
    let lengths = [(text >> 48) as usize, (text >> 32) as usize & 0xffff, text as u32 as usize];
    let [help_len, unit_len, names_len] = lengths;
    if help_len > HELP_BYTES_MAX || unit_len > UNIT_BYTES_MAX || names_len > LABEL_NAMES_BYTES_MAX {
        return None;
    }
    let string = |start, len| {
        let mut bytes = Vec::with_capacity(len + 8);
        entry::read_bytes(region, start, len, &mut bytes);
        String::from_utf8(bytes).ok()
    };
    let mut at = payload + METRIC_BOUNDS + len as u64 * 8;
    let texts = lengths.map(|len| {
        let text = string(at, len);
        at += round_up(len as u64, 8);
        text
    });
    let [help, unit, label_names] = texts;
    Some(MetricMeta {
        name: string(block + ENTRY_KEY, entry::meta(region, block).key_len.into())?,
        help: help?,
        unit: unit?,
        label_names: label_names?,
        shape,
        overflows: get(METRIC_OVERFLOWS),
        birth: get(METRIC_BIRTH),
        first_unix_ms: entry::created_unix_ms(region, block),
    })
}

/// Whether a block is a metric that is there.
pub fn is_metric(region: &Region, block: u64) -> bool {
    block::state(region, block).is_live() && entry::meta(region, block).is(Kind::Metric)
}
