//! A series as one writer holds it, and what can be done to its cells.
//!
//! A handle is a place and the state word that stood there. Every operation compares the word inside an epoch before it
//! touches a cell: a series that was removed answers [`Outcome::Stale`] and nothing is written; one whose memory was given
//! to another series has another generation in the word. Between the comparison and the write nothing can be reused, that
//! is what the epoch is for.
//!
//! Lanes: a series whose total crosses a multiple of 4096 while more than one writer was ever seen gets eight padded
//! cells; from then on each writer adds to the one of its slot. The first cell stays part of the total.
//!
//! Orderings: the state word is read with Acquire (its partner is the publishing compare-and-swap in `block.rs`); cells
//! are changed by read-modify-writes, whose order among each other does not matter to a sum.

use crate::block::{State, LIVE};
use crate::entry;
use crate::layout::*;
use crate::metric::{GaugeMode, MetricId, OwnedShape};
use crate::octave::{self, Place};
use crate::parts::{self, Form};
use crate::sync::{add_f64, Ordering, Pair};
use crate::writer::Writer;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesId {
    /// In units of 16 bytes from the start of the segment.
    pub offset: u32,
    pub generation: u32,
}

/// Whether an operation found its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    Applied,
    /// The series was removed (or is about to expire): get it again from [`Writer::series`] and repeat.
    Stale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cells {
    Counter,
    SharedGauge,
    SlotGauge(GaugeMode),
    Exponential { schema: u8 },
    Explicit,
    Summary,
}

impl Cells {
    pub(crate) fn of(shape: &OwnedShape) -> Cells {
        match shape {
            OwnedShape::Counter => Cells::Counter,
            OwnedShape::Gauge(GaugeMode::MostRecent) => Cells::SharedGauge,
            OwnedShape::Gauge(mode) => Cells::SlotGauge(*mode),
            OwnedShape::Exponential { schema } => Cells::Exponential { schema: *schema },
            OwnedShape::Explicit(_) => Cells::Explicit,
            OwnedShape::Summary(_) => Cells::Summary,
        }
    }
}

/// A series, held by one process. Survives a fork: places are the same in the child.
#[derive(Clone)]
pub struct Series {
    pub(crate) entry: u64,
    pub(crate) word: u64,
    pub(crate) cells: u64,
    /// Where this writer adds: the cells above, or its lane.
    pub(crate) own: Cell<u64>,
    /// The writer that `own` belongs to, when it is a lane.
    pub(crate) own_of: Cell<u64>,
    pub(crate) kind: Cells,
    pub(crate) metric: MetricId,
    pub(crate) overflow: bool,
    pub(crate) bounds: Arc<[f64]>,
    pub(crate) _not_sync: core::marker::PhantomData<Rc<()>>,
}

// SAFETY: nothing in a handle belongs to a thread; it is `!Sync` because of its cached lane, which `Cell` already says.
unsafe impl Send for Series {}

impl Series {
    pub fn id(&self) -> SeriesId {
        let generation = State::of(self.word).generation;
        SeriesId { offset: entry::unit(self.entry), generation }
    }

    pub fn metric(&self) -> MetricId {
        self.metric
    }

    /// Whether a limit sent the label set to the metric's overflow series.
    pub fn is_overflow(&self) -> bool {
        self.overflow
    }
}

/// Lanes are looked at when a total crosses a multiple of 2 to this.
const HOT_SHIFT: u32 = 12;

impl Writer {
    /// Inside an epoch: whether the handle's series is still there.
    #[inline(always)]
    pub(crate) fn lives(&self, s: &Series) -> bool {
        self.region().word(s.entry).load(Ordering::Acquire) == s.word
    }

    #[inline(always)]
    fn guarded(&self, s: &Series, change: impl FnOnce()) -> Outcome {
        self.enter_epoch();
        let lives = self.lives(s);
        if lives {
            change();
        }
        self.leave_epoch();
        if lives {
            Outcome::Applied
        } else {
            Outcome::Stale
        }
    }

    /// Adds `n` to a counter.
    #[inline]
    pub fn add(&self, s: &Series, n: u64) -> Outcome {
        debug_assert_eq!(s.kind, Cells::Counter);
        self.guarded(s, || {
            let old = self.region().word(s.own.get()).fetch_add(n, Ordering::Relaxed);
            if (old ^ old.wrapping_add(n)) >> HOT_SHIFT != 0 {
                self.heat(s);
            }
        })
    }

    /// Adds to a counter; `amount` is finite and not negative. Whole amounts take the integer way.
    #[inline]
    pub fn add_f64(&self, s: &Series, amount: f64) -> Outcome {
        debug_assert!(amount >= 0.0 && amount.is_finite());
        let whole = amount as u64;
        if whole as f64 == amount && whole < 1 << 53 {
            return self.add(s, whole);
        }
        self.guarded(s, || {
            add_f64(self.region().word(s.own.get() + 8), amount);
        })
    }

    /// Sets a gauge.
    #[inline]
    pub fn set(&self, s: &Series, value: f64) -> Outcome {
        self.guarded(s, || match s.kind {
            Cells::SlotGauge(_) => self.change_lane(s, |_| value),
            _ => self.region().word(s.cells).store(value.to_bits(), Ordering::Release),
        })
    }

    /// The value of a gauge that all processes share; nothing when the series was removed or is none.
    #[inline]
    pub fn gauge(&self, s: &Series) -> Option<f64> {
        let mut value = None;
        let outcome = self.guarded(s, || {
            if s.kind == Cells::SharedGauge {
                value = Some(f64::from_bits(self.region().word(s.cells).load(Ordering::Acquire)));
            }
        });
        if outcome == Outcome::Applied {
            value
        } else {
            None
        }
    }

    /// Adds `change`, of any sign, to a gauge.
    #[inline]
    pub fn shift(&self, s: &Series, change: f64) -> Outcome {
        self.guarded(s, || match s.kind {
            Cells::SlotGauge(_) => self.change_lane(s, |old| old.unwrap_or(0.0) + change),
            _ => {
                add_f64(self.region().word(s.cells), change);
            }
        })
    }

    /// Counts the value `n` times in a histogram or summary: its bucket's count and sum change in one step.
    #[inline]
    pub fn observe(&self, s: &Series, value: f64, n: u64) -> Outcome {
        debug_assert!(!value.is_nan());
        self.guarded(s, || self.observe_inside(s, value, n))
    }

    #[inline]
    pub(crate) fn observe_inside(&self, s: &Series, value: f64, n: u64) {
        let own = s.own.get();
        let pair = match s.kind {
            Cells::Summary => own,
            Cells::Explicit => own + explicit_index(&s.bounds, value) as u64 * 16,
            Cells::Exponential { schema } => match octave::place(value, schema) {
                Place::Bucket { negative, octave, index } => {
                    self.bucket(own, negative, octave, index as u64, schema)
                }
                Place::Zero => own + parts::EXPONENTIAL_ZERO,
                Place::Over { .. } => own + parts::EXPONENTIAL_OVER,
            },
            Cells::Counter | Cells::SharedGauge | Cells::SlotGauge(_) => return,
        };
        let total = if n == 1 { value } else { value * n as f64 };
        self.hot(s, observe_sum(self.region().pair(pair), n, total));
    }

    /// Gives the series lanes when its bucket's count went over a multiple of 4096.
    #[inline]
    pub(crate) fn hot(&self, s: &Series, (old, new): (u64, u64)) {
        if (old ^ new) >> HOT_SHIFT != 0 {
            self.heat(s);
        }
    }

    /// Where bucket `index` of an octave counts; without memory for the octave, the bucket up to +Inf.
    #[inline]
    pub(crate) fn bucket(
        &self,
        cells: u64,
        negative: bool,
        octave: usize,
        index: u64,
        schema: u8,
    ) -> u64 {
        match self.octave(cells, negative, octave, schema) {
            Some(octave) => octave + index * 16,
            None => cells + parts::EXPONENTIAL_OVER,
        }
    }

    #[inline]
    fn octave(&self, cells: u64, negative: bool, octave: usize, schema: u8) -> Option<u64> {
        match parts::octave_if_any(self.region(), cells, negative, octave) {
            Some(body) => Some(body),
            None => self.new_octave(cells, negative, octave, schema),
        }
    }

    #[cold]
    fn new_octave(&self, cells: u64, negative: bool, octave: usize, schema: u8) -> Option<u64> {
        match self.allocator().octave(cells, negative, octave, schema) {
            Ok(body) => Some(body),
            Err(_) => {
                // No memory for a new octave: the observation goes to the bucket up to +Inf, so that count and sum
                // stay right, and is reported.
                self.region().word(WORD_REFUSED).fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Gives a hot series lanes, and this writer its own.
    #[cold]
    fn heat(&self, s: &Series) {
        let shared = self.region().word(WORD_SLOTS_USED).load(Ordering::Relaxed) > 1;
        if s.own_of.get() == self.identity() || !shared {
            return;
        }
        let lane = u64::from(self.slot()) % LANES;
        let extra = s.entry + ENTRY_EXTRA;
        let allocator = self.allocator();
        let own = match s.kind {
            Cells::Counter => allocator
                .part_or_new(extra, Form::cells(LANES * LANE_BYTES))
                .map(|lanes| lanes + lane * LANE_BYTES),
            Cells::Exponential { .. } => {
                let pointers = parts::EXPONENTIAL_POINTERS;
                self.copy_lane(s, lane, Form { pointers, bytes: parts::EXPONENTIAL_BYTES })
            }
            Cells::Explicit => {
                self.copy_lane(s, lane, Form::cells((s.bounds.len() as u64 + 1) * 16))
            }
            Cells::Summary => self.copy_lane(s, lane, Form::cells(16)),
            Cells::SharedGauge | Cells::SlotGauge(_) => return,
        };
        // Without memory for lanes the series goes on in the cell that it has.
        if let Ok(own) = own {
            s.own.set(own);
        }
        s.own_of.set(self.identity());
    }

    fn copy_lane(&self, s: &Series, lane: u64, form: Form) -> Result<u64, crate::error::Error> {
        let lanes = self.allocator().part_or_new(s.entry + ENTRY_EXTRA, Form::pointers(LANES))?;
        self.allocator().part_or_new(lanes + lane * 8, form)
    }

    /// Changes this process's value of a per-process gauge; `change` gets the value now, if there is one.
    fn change_lane(&self, s: &Series, change: impl Fn(Option<f64>) -> f64) {
        if s.own_of.get() != self.identity() && !self.adopt_lane(s) {
            return self.keep_aside(s, &change);
        }
        let own = s.own.get();
        self.region().pair(own).update(|retired, value| {
            let value = change(lane_value(value));
            (retired, to_lane(value))
        });
        self.region().word(own + 24).store(self.now_unix_ms(), Ordering::Release);
    }

    /// Takes over the lane of this slot. What its last owner left is folded into `retired` by the gauge's mode, in one
    /// step and so that doing it twice changes nothing.
    #[cold]
    fn adopt_lane(&self, s: &Series) -> bool {
        let Cells::SlotGauge(mode) = s.kind else { return false };
        if self.is_guest() {
            return false;
        }
        let slot = u64::from(self.slot());
        let allocator = self.allocator();
        let groups = self.places().slots_max().div_ceil(parts::GAUGE_SLOTS_IN_GROUP);
        let group = allocator.part_or_new(s.entry + ENTRY_EXTRA, Form::pointers(groups)).and_then(
            |table| {
                let bytes = parts::GAUGE_SLOTS_IN_GROUP * parts::GAUGE_LANE_BYTES;
                let link = table + slot / parts::GAUGE_SLOTS_IN_GROUP * 8;
                allocator.part_or_new(link, Form::cells(bytes))
            },
        );
        let Ok(group) = group else { return false };
        let lane = group + slot % parts::GAUGE_SLOTS_IN_GROUP * parts::GAUGE_LANE_BYTES;
        let generation = self.region().word(lane + 16);
        if generation.load(Ordering::Acquire) != self.generation() {
            self.region().pair(lane).update(|retired, value| (fold(mode, retired, value), 0));
            generation.store(self.generation(), Ordering::Release);
        }
        s.own.set(lane);
        s.own_of.set(self.identity());
        true
    }

    /// The state of a series' handle made anew: what [`Writer::series`] gives.
    pub(crate) fn handle(
        &self,
        block: u64,
        metric: MetricId,
        key_len: usize,
        shape: &OwnedShape,
        overflow: bool,
    ) -> Series {
        let state = crate::block::state(self.region(), block).with(LIVE, 0);
        let cells = entry::cells(block, key_len);
        let bounds: Arc<[f64]> = match shape {
            OwnedShape::Explicit(bounds) => bounds.as_slice().into(),
            _ => Arc::new([]),
        };
        let (own, own_of) = (Cell::new(cells), Cell::new(0));
        let (kind, word) = (Cells::of(shape), state.word());
        let _not_sync = core::marker::PhantomData;
        Series { entry: block, word, cells, own, own_of, kind, metric, overflow, bounds, _not_sync }
    }
}

/// The first bucket whose upper bound holds the value; the last one is +Inf. Few bounds are all compared, which the
/// compiler does several at a time and without branches to mispredict.
#[inline]
pub(crate) fn explicit_index(bounds: &[f64], value: f64) -> usize {
    if bounds.len() <= 32 {
        bounds.iter().map(|&bound| usize::from(value > bound)).sum()
    } else {
        bounds.partition_point(|&bound| value > bound)
    }
}

/// Adds `n` values of that sum to a `{count, sum}` pair; gives the count before and after.
#[inline]
pub(crate) fn observe_sum(pair: &Pair, n: u64, total: f64) -> (u64, u64) {
    let add = |count: u64, sum| (count.wrapping_add(n), (f64::from_bits(sum) + total).to_bits());
    let old = pair.update(add).0;
    (old, old.wrapping_add(n))
}

/// Zero bits mean "never set", so zero itself is written as minus zero.
fn to_lane(value: f64) -> u64 {
    match value.to_bits() {
        0 => (-0.0_f64).to_bits(),
        bits => bits,
    }
}

/// The value that a lane's bits stand for.
pub(crate) fn lane_value(bits: u64) -> Option<f64> {
    match bits {
        0 => None,
        bits => Some(f64::from_bits(bits) + 0.0),
    }
}

fn fold(mode: GaugeMode, retired: u64, value: u64) -> u64 {
    let (Some(old), Some(new)) = (lane_value(retired), lane_value(value)) else {
        return if retired == 0 && !mode.is_live() && mode != GaugeMode::All {
            value
        } else {
            retired
        };
    };
    match mode {
        GaugeMode::Sum => to_lane(old + new),
        GaugeMode::Min => to_lane(old.min(new)),
        GaugeMode::Max => to_lane(old.max(new)),
        _ => retired,
    }
}
