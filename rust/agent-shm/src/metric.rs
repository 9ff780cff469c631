//! A metric: name, help, unit and shape, written once into the map; and how its shape is told in words and in bytes.

use crate::entry::{self, Kind};
use crate::error::Error;
use crate::layout::*;
use crate::octave::SCHEMA_MAX;
use crate::region::Region;
use crate::sync::Ordering;

pub const NAME_BYTES_MAX: usize = 512;
pub const HELP_BYTES_MAX: usize = 1024;
pub const UNIT_BYTES_MAX: usize = 64;
pub const BOUNDS_MAX: usize = 512;

/// What the processes of an app mean by one gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum GaugeMode {
    /// One number for all: `set` replaces it, `inc` and `dec` change it, whoever calls.
    #[default]
    MostRecent = 0,
    /// One number per process; those of dead processes stay until their slot has a new owner.
    All = 1,
    LiveAll = 2,
    /// The sum over all processes, the dead included.
    Sum = 3,
    LiveSum = 4,
    Min = 5,
    LiveMin = 6,
    Max = 7,
    LiveMax = 8,
    /// What the living process that set it last said.
    LiveMostRecent = 9,
}

impl GaugeMode {
    pub const ALL: [(GaugeMode, &'static str); 10] = [
        (GaugeMode::MostRecent, "mostrecent"),
        (GaugeMode::All, "all"),
        (GaugeMode::LiveAll, "liveall"),
        (GaugeMode::Sum, "sum"),
        (GaugeMode::LiveSum, "livesum"),
        (GaugeMode::Min, "min"),
        (GaugeMode::LiveMin, "livemin"),
        (GaugeMode::Max, "max"),
        (GaugeMode::LiveMax, "livemax"),
        (GaugeMode::LiveMostRecent, "livemostrecent"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub fn parse(name: &str) -> Option<GaugeMode> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(mode, _)| *mode)
    }

    pub fn is_live(self) -> bool {
        use GaugeMode::*;
        matches!(self, LiveAll | LiveSum | LiveMin | LiveMax | LiveMostRecent)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape<'a> {
    Counter,
    Gauge(GaugeMode),
    /// `2^schema` buckets an octave.
    Exponential {
        schema: u8,
    },
    /// Finite upper bounds, ascending; +Inf is implied.
    Explicit(&'a [f64]),
    /// Quantiles to be computed from the rings; the cells hold count and sum.
    Summary(&'a [f64]),
}

#[derive(Debug, Clone, PartialEq)]
pub enum OwnedShape {
    Counter,
    Gauge(GaugeMode),
    Exponential { schema: u8 },
    Explicit(Vec<f64>),
    Summary(Vec<f64>),
}

impl OwnedShape {
    pub fn borrowed(&self) -> Shape<'_> {
        match self {
            OwnedShape::Counter => Shape::Counter,
            OwnedShape::Gauge(mode) => Shape::Gauge(*mode),
            OwnedShape::Exponential { schema } => Shape::Exponential { schema: *schema },
            OwnedShape::Explicit(bounds) => Shape::Explicit(bounds),
            OwnedShape::Summary(quantiles) => Shape::Summary(quantiles),
        }
    }
}

impl Shape<'_> {
    fn word(&self) -> u64 {
        let (code, detail) = match self {
            Shape::Counter => (1, 0),
            Shape::Gauge(mode) => (2, *mode as u8),
            Shape::Exponential { schema } => (3, *schema),
            Shape::Explicit(_) => (4, 0),
            Shape::Summary(_) => (5, 0),
        };
        code | u64::from(detail) << 8 | (self.numbers().len() as u64) << 16
    }

    fn numbers(&self) -> &[f64] {
        match self {
            Shape::Explicit(numbers) | Shape::Summary(numbers) => numbers,
            _ => &[],
        }
    }

    /// For messages: `histogram with 14 buckets`.
    pub fn told(&self) -> String {
        match self {
            Shape::Counter => "counter".into(),
            Shape::Gauge(mode) => format!("gauge ({})", mode.name()),
            Shape::Exponential { schema } => format!("exponential histogram (schema {schema})"),
            Shape::Explicit(bounds) => format!("histogram with bounds {bounds:?}"),
            Shape::Summary(quantiles) => format!("summary with quantiles {quantiles:?}"),
        }
    }

    /// Bytes of cells in the entry of a series of this shape.
    pub fn cell_bytes(&self) -> u64 {
        match self {
            Shape::Counter | Shape::Gauge(_) | Shape::Summary(_) => 16,
            Shape::Explicit(bounds) => (bounds.len() as u64 + 1) * 16,
            Shape::Exponential { .. } => crate::parts::EXPONENTIAL_BYTES,
        }
    }
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
    /// Label sets that went to the overflow series.
    pub overflows: u64,
}

/// A metric of one segment. Metrics are never removed: an id stays good as long as the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MetricId(pub(crate) u32);

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Bytes of the block that `spec` needs.
pub fn block_bytes(spec: &MetricSpec<'_>) -> Result<u64, Error> {
    let too_large = |what, bytes, bytes_max| Err(Error::TooLarge { what, bytes, bytes_max });
    if spec.name.is_empty() || spec.name.len() > NAME_BYTES_MAX {
        return too_large("metric name", spec.name.len(), NAME_BYTES_MAX);
    }
    if spec.shape.numbers().len() > BOUNDS_MAX {
        return too_large("bucket list", spec.shape.numbers().len(), BOUNDS_MAX);
    }
    let text = cut(spec.help, HELP_BYTES_MAX).len() + 8 + cut(spec.unit, UNIT_BYTES_MAX).len() + 8;
    let payload = METRIC_BOUNDS + spec.shape.numbers().len() as u64 * 8 + text as u64;
    Ok(entry::cells(0, spec.name.len()) + payload)
}

/// Fills in a block that nobody else can see yet.
pub fn write(region: &Region, block: u64, spec: &MetricSpec<'_>, now_unix_ms: u64) {
    let name = spec.name.as_bytes();
    entry::write(region, block, entry::Meta::new(Kind::Metric, 0, name), name, now_unix_ms);
    let payload = entry::cells(block, name.len());
    let put = |offset, value| region.word(payload + offset).store(value, Ordering::Relaxed);
    let (help, unit) = (cut(spec.help, HELP_BYTES_MAX), cut(spec.unit, UNIT_BYTES_MAX));
    put(METRIC_SHAPE, spec.shape.word());
    put(METRIC_TEXT, (help.len() as u64) << 32 | unit.len() as u64);
    for (index, number) in spec.shape.numbers().iter().enumerate() {
        put(METRIC_BOUNDS + index as u64 * 8, number.to_bits());
    }
    let text = payload + METRIC_BOUNDS + spec.shape.numbers().len() as u64 * 8;
    entry::write_bytes(region, text, help.as_bytes());
    entry::write_bytes(region, text + round_up(help.len() as u64, 8), unit.as_bytes());
}

/// Where the payload of a metric starts, or nothing when there is no metric at `block`.
pub fn payload(region: &Region, block: u64) -> Option<u64> {
    let meta = entry::meta(region, block);
    let fits = usize::from(meta.key_len) <= NAME_BYTES_MAX;
    (meta.is(Kind::Metric) && fits).then(|| entry::cells(block, meta.key_len.into()))
}

/// Reads a metric back, checking everything: the segment may be somebody else's.
pub fn read(region: &Region, block: u64) -> Option<MetricMeta> {
    let payload = payload(region, block)?;
    let get = |offset| region.word(payload + offset).load(Ordering::Acquire);
    let word = get(METRIC_SHAPE);
    let (code, detail, len) = (word as u8, (word >> 8) as u8, (word >> 16) as usize & 0xffff);
    if len > BOUNDS_MAX {
        return None;
    }
    let numbers = || -> Vec<f64> {
        (0..len as u64).map(|i| f64::from_bits(get(METRIC_BOUNDS + i * 8))).collect()
    };
    let shape = match code {
        1 => OwnedShape::Counter,
        2 => OwnedShape::Gauge(GaugeMode::ALL.get(usize::from(detail))?.0),
        3 if detail <= SCHEMA_MAX => OwnedShape::Exponential { schema: detail },
        4 => OwnedShape::Explicit(numbers()),
        5 => OwnedShape::Summary(numbers()),
        _ => return None,
    };
    let text = get(METRIC_TEXT);
    let (help_len, unit_len) = ((text >> 32) as usize, text as u32 as usize);
    if help_len > HELP_BYTES_MAX || unit_len > UNIT_BYTES_MAX {
        return None;
    }
    let start = payload + METRIC_BOUNDS + len as u64 * 8;
    let string = |start, len| {
        let mut bytes = Vec::with_capacity(len + 8);
        entry::read_bytes(region, start, len, &mut bytes);
        String::from_utf8(bytes).ok()
    };
    Some(MetricMeta {
        name: string(block + ENTRY_KEY, entry::meta(region, block).key_len.into())?,
        help: string(start, help_len)?,
        unit: string(start + round_up(help_len as u64, 8), unit_len)?,
        shape,
        overflows: get(METRIC_OVERFLOWS),
    })
}
