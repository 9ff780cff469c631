//! Exponential buckets: from a value to its bucket and back. Pure arithmetic, no memory.
//!
//! The model of Prometheus native histograms and OpenTelemetry exponential histograms: with schema `s`, bucket bounds are
//! the powers of `2^(2^-s)`, upper bounds inclusive. An octave is `(2^e, 2^(e+1)]`; it has `2^s` buckets. A value reported
//! as the middle of its bucket is off by at most `(g - 1) / (g + 1)` with `g = 2^(2^-s)`: 4.3 % for schema 3
//! (the default), 2.2 % for 4, 1.1 % for 5.
//!
//! Limits: octaves -64 to 63. Smaller magnitudes count as zero, larger ones go to the bucket up to +Inf.

pub const SCHEMA_MAX: u8 = 6;
pub const OCTAVE_MIN: i32 = -64;
pub const OCTAVE_MAX: i32 = 63;
/// 2^-64: what is not above it counts as zero.
pub const SMALLEST: f64 = 1.0 / 18_446_744_073_709_551_616.0;

/// 2^(j/64), correctly rounded.
#[allow(clippy::excessive_precision, clippy::approx_constant)]
const ROOTS: [f64; 65] = [
    1.0,
    1.0108892860517005,
    1.0218971486541166,
    1.0330248790212284,
    1.0442737824274138,
    1.0556451783605572,
    1.0671404006768237,
    1.0787607977571199,
    1.0905077326652577,
    1.102382583307841,
    1.1143867425958924,
    1.1265216186082418,
    1.1387886347566916,
    1.1511892299529827,
    1.1637248587775775,
    1.1763969916502812,
    1.189207115002721,
    1.202156731452703,
    1.215247359980469,
    1.22848053610687,
    1.241857812073484,
    1.255380757024691,
    1.2690509571917332,
    1.2828700160787783,
    1.2968395546510096,
    1.3109612115247644,
    1.3252366431597413,
    1.339667524053303,
    1.3542555469368927,
    1.3690024229745905,
    1.383909881963832,
    1.3989796725383112,
    1.4142135623730951,
    1.42961333839197,
    1.4451808069770467,
    1.460917794180647,
    1.4768261459394993,
    1.4929077282912648,
    1.5091644275934228,
    1.5255981507445384,
    1.5422108254079407,
    1.559004400237837,
    1.5759808451078865,
    1.593142151342267,
    1.6104903319492543,
    1.6280274218573478,
    1.645755478153965,
    1.6636765803267364,
    1.681792830507429,
    1.7001063537185235,
    1.718619298122478,
    1.7373338352737062,
    1.7562521603732995,
    1.7753764925265212,
    1.7947090750031072,
    1.8142521755003989,
    1.8340080864093424,
    1.8539791250833855,
    1.8741676341103,
    1.8945759815869656,
    1.9152065613971474,
    1.9360617934922943,
    1.9571441241754002,
    1.978456026387951,
    2.0,
];

const MANTISSA: u64 = (1 << 52) - 1;

/// The first candidate for the upper six bits of a mantissa.
const GUESS: [u8; 64] = {
    let mut guess = [0; 64];
    let mut high = 0;
    while high < 64 {
        let low_end = 1.0 + high as f64 / 64.0;
        let mut j = 0;
        while j < 63 && ROOTS[j + 1] < low_end {
            j += 1;
        }
        guess[high] = j as u8;
        high += 1;
    }
    guess
};

/// The mantissas of [`ROOTS`], and what none is above; padded, so that an index of seven bits is one of it.
const BOUNDS: [u64; 128] = {
    let mut bounds = [u64::MAX; 128];
    let mut j = 0;
    while j < 64 {
        bounds[j] = ROOTS[j].to_bits() & MANTISSA;
        j += 1;
    }
    bounds
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The magnitude is below 2^-64.
    Zero,
    /// `octave` counts from `OCTAVE_MIN`.
    Bucket { negative: bool, octave: usize, index: usize },
    /// The magnitude is above 2^64.
    Over { negative: bool },
}

/// The bucket of `value`, which is not NaN.
#[inline]
pub fn place(value: f64, schema: u8) -> Place {
    let bits = value.to_bits();
    let negative = bits >> 63 == 1;
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = bits & MANTISSA;
    // An exact power of two is the upper bound of the octave below it.
    let octave = if mantissa == 0 { exponent - 1 } else { exponent };
    if octave < OCTAVE_MIN {
        return Place::Zero;
    }
    if octave > OCTAVE_MAX {
        return Place::Over { negative };
    }
    let index = if mantissa == 0 { (1 << schema) - 1 } else { index_in_octave(mantissa, schema) };
    Place::Bucket { negative, octave: (octave - OCTAVE_MIN) as usize, index }
}

/// A cell of [`GUESS`] holds at most one bound of a schema up to 5, and two of schema 6: as many steps are
/// enough, and none needs a branch.
#[inline]
fn index_in_octave(mantissa: u64, schema: u8) -> usize {
    let step = SCHEMA_MAX - schema.min(SCHEMA_MAX);
    let mut index = usize::from(GUESS[(mantissa >> 46) as usize]) >> step;
    index += usize::from(mantissa > BOUNDS[(index + 1) << step & 127]);
    if step == 0 {
        index += usize::from(mantissa > BOUNDS[(index + 1) & 127]);
    }
    index
}

/// Bounds of a bucket: `(lower, upper]`, for negative ones `[lower, upper)`.
pub fn bounds(negative: bool, octave: usize, index: usize, schema: u8) -> (f64, f64) {
    let step = SCHEMA_MAX - schema;
    let scale = f64::exp2(f64::from(octave as i32 + OCTAVE_MIN));
    let low = scale * ROOTS[index << step];
    let high = scale * ROOTS[((index + 1) << step).min(64)];
    if negative {
        (-high, -low)
    } else {
        (low, high)
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every value lies within the bounds of the bucket that it is counted in, at every schema.
        #[test]
        fn a_value_lies_within_its_bucket(value in prop::num::f64::ANY, schema in 0..=SCHEMA_MAX) {
            prop_assume!(!value.is_nan());
            match place(value, schema) {
                Place::Zero => prop_assert!(value.abs() <= f64::exp2(-64.0)),
                Place::Over { .. } => prop_assert!(value.abs() > f64::exp2(64.0)),
                Place::Bucket { negative, octave, index } => {
                    let (low, high) = bounds(negative, octave, index, schema);
                    let (low, high) = if negative { (-high, -low) } else { (low, high) };
                    prop_assert!(low < value.abs() && value.abs() <= high, "{low} < {value} <= {high}");
                }
            }
        }
    }

    #[test]
    fn bounds_belong_to_the_bucket_below() {
        for schema in 0..=SCHEMA_MAX {
            for octave in [0, 63, 64, 65, 127] {
                for index in 0..1 << schema {
                    let (lower, upper) = bounds(false, octave, index, schema);
                    let bucket = Place::Bucket { negative: false, octave, index };
                    assert_eq!(place(upper, schema), bucket);
                    assert_eq!(place(f64::from_bits(lower.to_bits() + 1), schema), bucket);
                }
            }
        }
    }

    #[test]
    fn special_values_have_a_place() {
        assert_eq!(place(0.0, 4), Place::Zero);
        assert_eq!(place(-0.0, 4), Place::Zero);
        assert_eq!(place(f64::INFINITY, 4), Place::Over { negative: false });
        assert_eq!(place(f64::NEG_INFINITY, 4), Place::Over { negative: true });
    }
}
