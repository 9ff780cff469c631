//! What the cells of a series are, by the shape of its metric, and how values change them.

use crate::sync::Pair;
use agent_metric::{GaugeMode, OwnedShape, Storage};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    Counter,
    SharedGauge,
    SlotGauge(GaugeMode),
    Exponential {
        schema: u8,
    },
    Explicit,
    /// Whether it keeps its newest values.
    Summary {
        keeps: bool,
    },
}

impl Cells {
    pub fn of(shape: &OwnedShape) -> Cells {
        match shape {
            OwnedShape::Counter => Cells::Counter,
            OwnedShape::Gauge(mode) => match mode.storage() {
                Storage::Shared => Cells::SharedGauge,
                _ => Cells::SlotGauge(*mode),
            },
            OwnedShape::Exponential { schema } => Cells::Exponential { schema: *schema },
            OwnedShape::Explicit(_) => Cells::Explicit,
            OwnedShape::Summary(quantiles) => Cells::Summary { keeps: !quantiles.is_empty() },
        }
    }
}

/// The first bucket whose upper bound holds the value; the last one is +Inf. Few bounds are all compared, which the
/// compiler does several at a time and without branches to mispredict.
#[inline]
pub fn explicit_index(bounds: &[f64], value: f64) -> usize {
    if bounds.len() <= 32 {
        bounds.iter().map(|&bound| usize::from(value > bound)).sum()
    } else {
        bounds.partition_point(|&bound| value > bound)
    }
}

/// The part of a counter below 1. What is none, a damaged cell says: the whole is what is known.
#[cfg(not(model))]
#[inline]
pub fn fraction(bits: u64) -> f64 {
    Some(f64::from_bits(bits)).filter(|part| (0.0..1.0).contains(part)).unwrap_or(0.0)
}

/// Adds `n` values of that sum to a `{count, sum}` pair; gives the count before and after.
#[inline]
pub fn observe_sum(pair: &Pair, n: u64, total: f64) -> (u64, u64) {
    let add = |count: u64, sum| (count.wrapping_add(n), (f64::from_bits(sum) + total).to_bits());
    let old = pair.update(add).0;
    (old, old.wrapping_add(n))
}

/// A signalling NaN is what state words look like (block.rs): no cell may hold one.
#[inline]
pub fn plain(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else {
        value
    }
}
