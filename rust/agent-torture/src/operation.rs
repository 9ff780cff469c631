//! One operation: a row of the table, and what all rows are made with.
//!
//! An operation is three functions. `prepare` brings the segment, and the writer that will be walked, to where the operation
//! begins, at full speed. `bind` finds or makes the handles, and gives the act; it is also called for the next writer, on
//! a segment that was recovered, to do the same again. What is random in them follows from the seed.

use crate::grain::Grain;
use crate::random::Random;
use agent_shm::{MetricSpec, Options, Outcome, Segment, Series, Shape, Writer};
use std::path::Path;

/// What the walked child does, and what the next writer repeats.
pub type Act = Box<dyn FnOnce(&Writer)>;

/// An operation on the file itself: before there is a segment, or on one that cannot be used.
pub struct OnFile {
    /// What is in the folder before; the path is where the segment is to be.
    pub prepare: fn(&Path, &mut Random),
    pub act: fn(&Path),
    /// Whether the file must be left as it is, since it is not ours to replace.
    pub refuses: bool,
}

/// What memory is in use after a death, compared with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// No more; and the same once the next writer did the same.
    Exact,
    /// No more. A stripe that was not made is made at the next occasion.
    NoMore,
    /// Only time gives it back: a definition that nobody uses is kept ten minutes.
    Later,
}

pub enum Kind {
    OnSegment {
        prepare: fn(&Segment, &mut Random) -> Writer,
        bind: fn(&Writer, &mut Random) -> Act,
    },
    OnFile(OnFile),
}

/// One row.
pub struct Operation {
    pub name: &'static str,
    pub group: &'static str,
    pub grain: Grain,
    /// Changes of the limits that its segment has.
    pub limits: fn(&mut Options),
    /// Whether other metrics with values stand beside; not where memory is counted in blocks.
    pub is_furnished: bool,
    pub memory: Memory,
    pub kind: Kind,
}

/// A row with nothing special.
pub const fn on_segment(
    name: &'static str,
    group: &'static str,
    grain: Grain,
    prepare: fn(&Segment, &mut Random) -> Writer,
    bind: fn(&Writer, &mut Random) -> Act,
) -> Operation {
    let kind = Kind::OnSegment { prepare, bind };
    Operation {
        name,
        group,
        grain,
        limits: |_| (),
        is_furnished: true,
        memory: Memory::Exact,
        kind,
    }
}

impl Operation {
    pub const fn with_limits(mut self, limits: fn(&mut Options)) -> Operation {
        self.limits = limits;
        self
    }

    /// Alone in its segment.
    pub const fn unfurnished(mut self) -> Operation {
        self.is_furnished = false;
        self
    }

    pub const fn with_memory(mut self, memory: Memory) -> Operation {
        self.memory = memory;
        self
    }

    /// The limits of its segment: as small as they can be, so that a copy is cheap.
    pub fn options(&self) -> Options {
        let mut options = Options {
            series_max: 64,
            metric_series_max: 32,
            metrics_max: 16,
            slots_max: 4,
            ring_records: 8,
            recent_max: 8,
            bytes_max: 16 * PAGE_BYTES,
        };
        (self.limits)(&mut options);
        options
    }
}

/// Of a page of blocks.
pub const PAGE_BYTES: u64 = 16 * 1024;

pub const COUNTER: Shape<'static> = Shape::Counter;
/// Powers of two, whose sums are exact.
pub const BOUNDS: [f64; 4] = [1.0, 2.0, 4.0, 8.0];
pub const CLASSIC: Shape<'static> = Shape::Explicit(&BOUNDS);
pub const EXPONENTIAL: Shape<'static> = Shape::Exponential { schema: 2 };
pub const SUMMARY: Shape<'static> = Shape::Summary(&[0.5, 0.99]);

pub fn spec<'a>(name: &'a str, shape: Shape<'a>) -> MetricSpec<'a> {
    MetricSpec { name, help: "What is walked through.", unit: "", shape }
}

/// The series of that name and labels, made if there is none.
pub fn series(writer: &Writer, name: &str, shape: Shape<'_>, labels: &str) -> Series {
    let metric = writer.metric(&spec(name, shape)).expect("there is room for a metric");
    writer.series(metric, labels).expect("there is room for a series")
}

pub fn applied(outcome: Outcome) {
    assert_eq!(outcome, Outcome::Applied);
}

pub fn writer(segment: &Segment) -> Writer {
    segment.writer().expect("there is a free slot")
}

/// A writer of a segment in which more than one was seen.
pub fn second_writer(segment: &Segment) -> Writer {
    let first = writer(segment);
    if first.slot() > 0 {
        return first;
    }
    writer(segment)
}

/// A multiple of an eighth, whose sums are exact.
pub fn eighths(random: &mut Random, below: u64) -> f64 {
    random.below(below * 8) as f64 / 8.0
}
