//! The cells of one series, read: its first cells, its stripes or lanes, its octaves.

use crate::block;
use crate::inner::Inner;
use crate::lane;
use crate::layout::*;
use crate::parts;
use crate::region::Region;
use crate::slot::Liveness;
use crate::sync::Ordering;
use crate::value::{ProcessValue, Value};
use agent_metric::{octave, GaugeMode, OwnedShape, Reduction, Storage};
use std::borrow::Cow;

/// Room that is used again for every series of a family.
#[derive(Default)]
pub struct Scratch {
    pub labels: Vec<u8>,
    pub buckets: Vec<(f64, u64)>,
    pub per_process: Vec<ProcessValue>,
}

/// Reads the cells of one series.
pub struct Reader<'a> {
    pub inner: &'a Inner,
    pub liveness: &'a Liveness<'a>,
    pub cells: u64,
    pub extra: u64,
}

/// Whether `bytes` from the start of a block on are its own, by the size class of its page.
pub fn is_within(region: &Region, places: &Places, block: u64, bytes: u64) -> bool {
    let Some(inside) = block.checked_sub(places.blocks) else { return false };
    // A model checker has enough to do with the links.
    cfg!(model)
        || block::page(region, places, inside / PAGE_BYTES)
            .is_some_and(|page| bytes <= CLASSES[usize::from(page.class)])
}

impl Reader<'_> {
    fn region(&self) -> &Region {
        &self.inner.region
    }

    /// Nothing for a gauge of living processes when none lives.
    pub fn value<'v>(
        &self,
        shape: &OwnedShape,
        buckets: &'v mut Vec<(f64, u64)>,
        per_process: &'v mut Vec<ProcessValue>,
    ) -> Option<Value<'v>> {
        Some(match shape {
            OwnedShape::Counter => self.counter(),
            OwnedShape::Gauge(mode) => return self.gauge(*mode, per_process),
            OwnedShape::Summary(_) => {
                let mut total = (0, 0.0);
                self.each_copy(|_, cells| add(&mut total, self.pair(cells + SUMMARY_PAIR)));
                Value::Summary { count: total.0, sum: total.1 }
            }
            OwnedShape::Explicit(bounds) => {
                let bounds = bounds.iter().copied().chain([f64::INFINITY]);
                buckets.clear();
                buckets.extend(bounds.map(|bound| (bound, 0)));
                let mut total = (0, 0.0);
                self.each_copy(|_, cells| {
                    for (index, bucket) in buckets.iter_mut().enumerate() {
                        let pair = self.pair(cells + index as u64 * 16);
                        bucket.1 = bucket.1.saturating_add(pair.0);
                        add(&mut total, pair);
                    }
                });
                Value::Histogram { count: total.0, sum: total.1, buckets: Cow::Borrowed(buckets) }
            }
            OwnedShape::Exponential { schema } => self.exponential(*schema, buckets),
        })
    }

    fn pair(&self, offset: u64) -> (u64, f64) {
        let (count, sum) = self.pair_bits(offset);
        (count, f64::from_bits(sum))
    }

    pub(crate) fn pair_bits(&self, offset: u64) -> (u64, u64) {
        let pair = self.region().pair(offset);
        if self.region().is_writable() {
            pair.load()
        } else {
            pair.load_counted()
        }
    }

    /// Visits the cells above and every stripe, with its place among them. A damaged segment may have one twice: it says where it hangs.
    pub(crate) fn each_copy(&self, mut each: impl FnMut(usize, u64)) {
        each(0, self.cells);
        let stripes = self.part(self.extra);
        if stripes == 0 {
            return;
        }
        for stripe in 0..STRIPES {
            let copy = self.part(stripes + stripe * 8);
            if copy != 0 {
                each(1 + stripe as usize, copy);
            }
        }
    }

    pub(crate) fn part(&self, link: u64) -> u64 {
        let body = parts::part(self.region(), link);
        if body != 0 && parts::hangs_in(self.region(), body, link) {
            body
        } else {
            0
        }
    }

    /// Whether a part is as long as it has to be: of one that is not, the rest would be that of others.
    fn holds(&self, body: u64, bytes: u64) -> bool {
        let block = body - PART_BODY;
        is_within(self.region(), &self.inner.places, block, PART_BODY + bytes)
    }

    fn counter(&self) -> Value<'static> {
        let mut total = (0_u64, 0.0);
        self.each_copy(|_, cells| {
            let (whole, fraction) = self.counter_cell(cells);
            total.0 = total.0.saturating_add(whole);
            total.1 += fraction;
        });
        let carry = total.1 as u64;
        // A death between adding and taking back what the end of the range refused leaves a cell past it.
        let whole = total.0.saturating_add(carry).min(COUNTER_END - 1);
        Value::Counter { whole, fraction: total.1 - carry as f64 }
    }

    #[cfg(not(model))]
    fn counter_cell(&self, cells: u64) -> (u64, f64) {
        let (whole, bits) = self.pair_bits(cells);
        (whole, crate::cells::fraction(bits))
    }

    /// In a model words and pairs are different objects, and counters are words.
    #[cfg(model)]
    fn counter_cell(&self, cells: u64) -> (u64, f64) {
        let word = |offset| self.region().word(offset).load(Ordering::Acquire);
        (word(cells), f64::from_bits(word(cells + 8)))
    }

    fn exponential<'v>(&self, schema: u8, buckets: &'v mut Vec<(f64, u64)>) -> Value<'v> {
        let size = 1_usize << schema;
        // Octave by octave, negative ones first and from the far end, so that bounds ascend.
        let mut octaves: Vec<Option<Vec<u64>>> = vec![None; 256];
        let (mut zero, mut over, mut under) = ((0, 0.0), (0, 0.0), (0, 0.0));
        let mut total = (0, 0.0);
        self.each_copy(|_, cells| {
            add(&mut zero, self.pair(cells + EXPONENTIAL_ZERO));
            add(&mut over, self.pair(cells + EXPONENTIAL_OVER));
            add(&mut under, self.pair(cells + EXPONENTIAL_UNDER));
            self.each_octave(cells, schema, |negative, octave, body| {
                let place = if negative { 127 - octave } else { 128 + octave };
                let counts = octaves[place].get_or_insert_with(|| vec![0; size]);
                for (index, count) in counts.iter_mut().enumerate() {
                    let pair = self.pair(body + index as u64 * 16);
                    *count = u64::saturating_add(*count, pair.0);
                    add(&mut total, pair);
                }
            });
        });
        add(&mut total, zero);
        add(&mut total, over);
        add(&mut total, under);
        buckets.clear();
        if under.0 > 0 {
            buckets.push((-f64::exp2(f64::from(octave::OCTAVE_MAX + 1)), under.0));
        }
        fill_buckets(&octaves, schema, zero.0, buckets);
        buckets.push((f64::INFINITY, over.0));
        Value::Histogram { count: total.0, sum: total.1, buckets: Cow::Borrowed(buckets) }
    }

    /// The bound, count and sum of each cell of a histogram that has counted: a bucket of a hot one has several.
    pub(crate) fn filled_buckets(&self, shape: &OwnedShape) -> Vec<(f64, u64, f64)> {
        let mut found = Vec::new();
        let mut add = |upper: f64, (count, sum): (u64, f64)| {
            if count > 0 {
                found.push((upper, count, sum));
            }
        };
        match shape {
            OwnedShape::Explicit(bounds) => self.each_copy(|_, cells| {
                for (index, &upper) in bounds.iter().chain([&f64::INFINITY]).enumerate() {
                    add(upper, self.pair(cells + index as u64 * 16));
                }
            }),
            OwnedShape::Exponential { schema } => self.each_copy(|_, cells| {
                let last = f64::exp2(f64::from(octave::OCTAVE_MAX + 1));
                add(f64::exp2(f64::from(octave::OCTAVE_MIN)), self.pair(cells + EXPONENTIAL_ZERO));
                add(f64::INFINITY, self.pair(cells + EXPONENTIAL_OVER));
                add(-last, self.pair(cells + EXPONENTIAL_UNDER));
                self.each_octave(cells, *schema, |negative, octave, body| {
                    for index in 0..1 << schema {
                        let (_, upper) = octave::bounds(negative, octave, index, *schema);
                        add(upper, self.pair(body + index as u64 * 16));
                    }
                });
            }),
            _ => {}
        }
        found
    }

    /// Visits the octaves of one copy of exponential cells: whether it is negative, its number, and where its buckets are.
    fn each_octave(&self, cells: u64, schema: u8, mut each: impl FnMut(bool, usize, u64)) {
        for (negative, group) in
            [false, true].into_iter().flat_map(|n| (0..16).map(move |g| (n, g)))
        {
            let side = if negative { self.part(cells + EXPONENTIAL_NEGATIVE) } else { cells };
            let octaves_of = if side == 0 { 0 } else { self.part(side + group * 8) };
            if octaves_of == 0 {
                continue;
            }
            for octave in group as usize * 8..group as usize * 8 + 8 {
                let body = self.part(octaves_of + octave as u64 % OCTAVES_IN_GROUP * 8);
                if body != 0 && self.holds(body, 16 << schema) {
                    each(negative, octave, body);
                }
            }
        }
    }

    /// What living processes hold of a gauge that all share.
    pub(crate) fn held(&self, shape: &OwnedShape) -> f64 {
        let mut sum = 0.0;
        if let OwnedShape::Gauge(mode) = shape {
            if mode.storage() == Storage::Shared {
                self.each_living(*mode, |_, held, _| sum += held);
            }
        }
        sum
    }

    fn gauge<'v>(
        &self,
        mode: GaugeMode,
        per_process: &'v mut Vec<ProcessValue>,
    ) -> Option<Value<'v>> {
        let value = match (mode.storage(), mode.reduction()) {
            (Storage::Shared, _) => {
                let shared = self.region().word(self.cells).load(Ordering::Acquire);
                Some(f64::from_bits(shared) + self.held(&OwnedShape::Gauge(mode)))
            }
            (Storage::Fold, _) => Some(self.folded(mode).unwrap_or(0.0)),
            (_, Reduction::Each) => {
                per_process.clear();
                self.each_process(mode, per_process);
                return Some(Value::GaugePerProcess(Cow::Borrowed(per_process)));
            }
            (_, reduction) => {
                let mut result: Option<(f64, u64)> = None;
                self.each_living(mode, |_, value, time| {
                    result = Some(match result {
                        Some((_, last)) if reduction == Reduction::Latest && last <= time => {
                            (value, time)
                        }
                        Some((known, last)) => (reduction.of(known, value), last),
                        None => (value, time),
                    });
                });
                result.map(|(value, _)| value)
            }
        };
        value.map(Value::Gauge)
    }

    /// Whether a gauge has no value yet, and shows 0 for that.
    pub fn is_unset(&self, shape: &OwnedShape) -> bool {
        let OwnedShape::Gauge(mode) = shape else { return false };
        mode.storage() == Storage::Fold && self.folded(*mode).is_none()
    }

    /// Whether a gauge that all processes share was set, and not only changed.
    pub fn was_set(&self, shape: &OwnedShape) -> bool {
        matches!(shape, OwnedShape::Gauge(mode) if mode.storage() == Storage::Shared)
            && self.region().word(self.cells + GAUGE_SET).load(Ordering::Relaxed) != 0
    }

    /// The reduction over all processes that ever were; nothing where none has said a number.
    fn folded(&self, mode: GaugeMode) -> Option<f64> {
        let mut values = Vec::new();
        self.each_lane(|_, lane| {
            // Both at one moment: a new owner moves one into the other, and neither twice nor never may it be seen.
            let (retired, value) = self.pair_bits(lane);
            values.extend(lane::lane_value(retired));
            values.extend(lane::lane_value(value));
        });
        values.into_iter().reduce(|known, value| mode.reduction().of(known, value))
    }

    /// Visits what living processes say: the id, the value, and when it was set.
    fn each_living(&self, mode: GaugeMode, mut each: impl FnMut(u32, f64, u64)) {
        self.each_lane(|slot, lane| {
            let generation = self.liveness.generation(slot);
            let pair = || self.pair_bits(lane + lane::own_pair(mode, generation));
            let time = || self.region().word(lane + LANE_TIME).load(Ordering::Acquire);
            // A value with a time that is not later than it: the time is written after the value.
            let mut before = time();
            let (who, bits) = loop {
                let found = pair();
                let now = time();
                if now == before {
                    break found;
                }
                before = now;
            };
            let Some(value) = lane::lane_value(bits) else { return };
            if who as u32 == generation as u32 && self.liveness.is_alive(slot, generation) {
                each((who >> 32) as u32, value, before);
            }
        });
    }

    /// What every process says, of `all` the dead included: the last two owners of each slot. Of two with one id the
    /// second has its slot beside it, whoever lives; of two in one slot the later one is shown.
    fn each_process(&self, mode: GaugeMode, found: &mut Vec<ProcessValue>) {
        let has_last = mode.storage() == Storage::OwnAndLast;
        let mut ids = Vec::new();
        self.each_lane(|slot, lane| {
            let generation = self.liveness.generation(slot);
            let other = if has_last { self.pair_bits(lane + LANE_NEXT) } else { (0, 0) };
            let mut owners = [self.pair_bits(lane), other];
            // The later owner first, by its incarnation, which goes round.
            if (owners[0].0 as u32).wrapping_sub(owners[1].0 as u32) as i32 <= 0 {
                owners.swap(0, 1);
            }
            let mut of_slot = None;
            for (who, bits) in owners {
                let Some(value) = lane::lane_value(bits) else { continue };
                let pid = (who >> 32) as u32;
                if of_slot.replace(pid) == Some(pid) {
                    continue;
                }
                let twin = ids.contains(&pid).then_some(slot);
                ids.push(pid);
                let lives =
                    who as u32 == generation as u32 && self.liveness.is_alive(slot, generation);
                if lives || has_last {
                    found.push(ProcessValue { pid, twin, value });
                }
            }
        });
    }

    fn each_lane(&self, each: impl FnMut(u16, u64)) {
        let used = self.region().word(WORD_SLOTS_USED).load(Ordering::Acquire);
        let slots = used.min(self.inner.places.slots_max) as u16;
        lane::each_lane(self.region(), self.extra, slots, each);
    }
}

fn add(total: &mut (u64, f64), more: (u64, f64)) {
    total.0 = total.0.saturating_add(more.0);
    total.1 += more.1;
    // Sums past the largest float are infinite from then on; those of both signs together are +Inf.
    if total.1.is_nan() {
        total.1 = f64::INFINITY;
    }
}

fn fill_buckets(
    octaves: &[Option<Vec<u64>>],
    schema: u8,
    zero: u64,
    buckets: &mut Vec<(f64, u64)>,
) {
    for (place, counts) in octaves.iter().enumerate() {
        if place == 128 && (zero > 0 || !buckets.is_empty()) {
            buckets.push((f64::exp2(f64::from(octave::OCTAVE_MIN)), zero));
        }
        let Some(counts) = counts else { continue };
        let negative = place < 128;
        let octave = if negative { 127 - place } else { place - 128 };
        for position in 0..counts.len() {
            let index = if negative { counts.len() - 1 - position } else { position };
            let (_, upper) = octave::bounds(negative, octave, index, schema);
            buckets.push((upper, counts[index]));
        }
    }
}
