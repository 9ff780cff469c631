//! Bounds of histograms: the usual ones, which ones can be used, and the ladder that text shows of a native histogram.
//!
//! A family has one set of bounds from birth, the same in all its series: only then is a sum over series by `le`
//! cumulative, and no increment is lost to `rate()` because its bound was not there before.
//!
//! *Classic*: the bounds of the definition. A quantile lies in the right bucket; it is off by at most the width of it.
//!
//! *Native*: buckets of [`crate::octave`], shown whole in protobuf. A quantile is in the right bucket here too, and the
//! width of it is relative: 9.1 % for schema 3. The text formats have no form for them and show the
//! ladder instead: the powers of two from 2^-20 to 2^30, 51 bounds and +Inf, whatever was observed. All are bounds of
//! every schema, so the counts at them are exact. A quantile read from it is off by less than a factor of two. What is
//! not above 2^-20 (a microsecond, and everything negative) stands in the first bucket, what is above 2^30 (a GiB) in
//! the last. The range holds durations in seconds from 1 us to 34 years and sizes up to a GiB; a finer ladder, or a
//! wider one, would cost each series more lines than the classic default, of which there are 15, is worth many times over.

use crate::octave::SCHEMA_MAX;

/// prometheus_client's default: 14 bounds, made for seconds.
pub const DEFAULT: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The default of Prometheus' Go library and so of statsd_exporter.
pub const STATSD: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Finite bounds that a family can have.
pub const COUNT_MAX: usize = 512;

/// The largest value, of either sign, that is observed: 2^900. As many of them as a count can hold, 2^63, have a sum that a
/// float holds, so no sum of observations is ever infinite.
pub const OBSERVATION_MAX: f64 = f64::from_bits((1023 + 900) << 52);

/// Whether a histogram or summary can take the value: not NaN, not infinite, at most [`OBSERVATION_MAX`].
#[inline]
pub fn is_observable(value: f64) -> bool {
    value.abs() <= OBSERVATION_MAX
}

/// Buckets an octave of a native histogram, as a power of two, where nobody says: 8, each 9.1 % wide.
pub const NATIVE_SCHEMA: u8 = 3;

const LADDER_FIRST: i32 = -20;
const LADDER_LAST: i32 = 30;

/// Finite, ascending bounds; a last one of +Inf is implied and may be given.
///
/// # Errors
/// What is wrong with them, as the end of a sentence.
pub fn check(mut bounds: Vec<f64>) -> Result<Vec<f64>, &'static str> {
    if bounds.last() == Some(&f64::INFINITY) {
        bounds.pop();
    }
    if bounds.is_empty() {
        Err("there must be one that is finite")
    } else if bounds.len() > COUNT_MAX {
        Err("there are more than 512")
    } else if !bounds.iter().all(|bound| bound.is_finite()) {
        Err("all but a last +Inf must be finite")
    } else if !ascend(&bounds) {
        Err("they must ascend")
    } else {
        Ok(bounds)
    }
}

/// The schema of a native histogram, or the usual one.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn check_schema(schema: Option<u8>) -> Result<u8, String> {
    match schema.unwrap_or(NATIVE_SCHEMA) {
        schema if schema <= SCHEMA_MAX => Ok(schema),
        schema => {
            Err(format!("schema {schema} is not in 0 to {SCHEMA_MAX} (2^schema buckets an octave)"))
        }
    }
}

/// Whether these can be the finite bounds of a page: ascending, none twice.
pub fn ascend(bounds: &[f64]) -> bool {
    bounds.iter().all(|bound| bound.is_finite()) && bounds.windows(2).all(|pair| pair[0] < pair[1])
}

/// The finite bounds of the ladder, ascending.
pub fn ladder() -> impl Iterator<Item = f64> {
    (LADDER_FIRST..=LADDER_LAST).map(|power| f64::exp2(f64::from(power)))
}

/// The buckets of a native histogram at the bounds of the ladder and at +Inf. `fine` has (upper bound, count in this bucket
/// alone), ascending.
pub fn onto_ladder(fine: &[(f64, u64)], coarse: &mut Vec<(f64, u64)>) {
    coarse.clear();
    let mut fine = fine.iter().peekable();
    for bound in ladder().chain([f64::INFINITY]) {
        let mut inside = 0u64;
        while let Some(&(_, count)) = fine.next_if(|(upper, _)| *upper <= bound) {
            inside = inside.wrapping_add(count);
        }
        coarse.push((bound, inside));
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use crate::octave::{self, Place};
    use proptest::prelude::*;

    /// The fine buckets of these values, as a view gives them.
    fn fine(values: &[f64], schema: u8) -> Vec<(f64, u64)> {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for &value in values {
            let upper = match octave::place(value, schema) {
                Place::Zero => octave::SMALLEST,
                Place::Over { negative: true } => -f64::exp2(64.0),
                Place::Over { negative: false } => f64::INFINITY,
                Place::Bucket { negative, octave, index } => {
                    octave::bounds(negative, octave, index, schema).1
                }
            };
            buckets.push((upper, 1));
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }

    proptest! {
        /// The text of a native histogram is exact at each of its bounds, and shows the same bounds whatever was observed.
        #[test]
        fn the_ladder_counts_what_is_at_or_below_each_bound(
            values in proptest::collection::vec(
                prop_oneof![-1e3..1e3f64, 1e-9..1e-3f64, 1e6..1e12f64, Just(1.0), Just(0.0)], 0..40),
            schema in 0..=octave::SCHEMA_MAX,
        ) {
            let mut coarse = Vec::new();
            onto_ladder(&fine(&values, schema), &mut coarse);
            prop_assert!(coarse.iter().map(|(upper, _)| *upper).eq(ladder().chain([f64::INFINITY])));
            let mut below = 0;
            for (upper, inside) in coarse {
                below += inside;
                prop_assert_eq!(below, values.iter().filter(|value| **value <= upper).count() as u64);
            }
        }
    }

    #[test]
    fn a_schema_that_there_is_not_is_named() {
        assert_eq!(check_schema(None), Ok(NATIVE_SCHEMA));
        assert_eq!(check_schema(Some(SCHEMA_MAX)), Ok(SCHEMA_MAX));
        assert!(check_schema(Some(SCHEMA_MAX + 1)).unwrap_err().contains("not in 0 to"));
    }

    #[test]
    fn bounds_that_cannot_be_used_are_named() {
        assert_eq!(check(vec![1.0, 2.0, f64::INFINITY]), Ok(vec![1.0, 2.0]));
        for (bounds, told) in [
            (vec![], "finite"),
            (vec![f64::INFINITY], "finite"),
            (vec![f64::NAN], "finite"),
            (vec![2.0, 1.0], "ascend"),
            (vec![1.0, 1.0], "ascend"),
            ((0..513).map(f64::from).collect(), "512"),
        ] {
            assert!(check(bounds).expect_err("unusable").contains(told));
        }
        assert!(check(DEFAULT.to_vec()).is_ok() && check(STATSD.to_vec()).is_ok());
    }
}
