//! What a sample is, whichever protocol it came by: a kind, a value, a rate, and the checks that
//! every codec applies to them.
//!
//! Not promised: the numbers are not scaled here. A timer's value is in the unit it was sent in;
//! [`crate::name::family`] tells the scale.

use serde::Deserialize;

use crate::{Limits, Reject};

/// Counter increments end below it: a cell holds less than 2^63. Above 2^53, whole numbers are read to 16 digits.
pub const INCREMENT_END: f64 = 9_223_372_036_854_775_808.0;

/// The six kinds of StatsD, also those of a JSON push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `c`: adds.
    Counter,
    /// `g`: sets, or shifts when the value has a sign.
    Gauge,
    /// `ms`: a duration in milliseconds.
    Timer,
    /// `h`: a measured value.
    Histogram,
    /// `d`: a measured value, aggregated over all hosts.
    Distribution,
    /// `s`: a member of a set whose size is estimated.
    Set,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Counter, Kind::Gauge, Kind::Timer, Kind::Histogram, Kind::Distribution, Kind::Set];

    /// The name in JSON and in mapping rules.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Timer => "timer",
            Kind::Histogram => "histogram",
            Kind::Distribution => "distribution",
            Kind::Set => "set",
        }
    }

    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether a sample of this kind stands for `1 / rate` samples.
    pub const fn is_sampled(self) -> bool {
        !matches!(self, Kind::Gauge | Kind::Set)
    }
}

/// One measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Counter increment, gauge level, timer or histogram value; always finite.
    Number(f64),
    /// A gauge value with a sign: shifts the level; always finite.
    Delta(f64),
    /// A member of a set; never empty.
    Set(&'a [u8]),
}

/// Checks one number of a sample; `rate` has passed [`check_rate`].
#[inline]
pub fn check_number(kind: Kind, number: f64, rate: f64) -> Result<(), Reject> {
    if !number.is_finite() {
        return Err(Reject::ValueNotFinite);
    }
    match kind {
        Kind::Counter if number < 0.0 => Err(Reject::ValueNegative),
        Kind::Counter if number >= INCREMENT_END * rate => Err(Reject::ValueOutOfRange),
        Kind::Timer if number < 0.0 => Err(Reject::ValueNegative),
        _ => Ok(()),
    }
}

/// Checks a sample rate: in `rate_min ..= 1`.
#[inline]
pub fn check_rate(rate: f64, limits: &Limits) -> Result<(), Reject> {
    if rate.is_nan() || rate < 0.0 {
        Err(Reject::RateMalformed)
    } else if rate == 0.0 {
        Err(Reject::RateZero)
    } else if rate < limits.rate_min {
        Err(Reject::RateTooSmall)
    } else if rate > 1.0 {
        Err(Reject::RateAboveOne)
    } else {
        Ok(())
    }
}

/// How many samples the next sample at this rate stands for, in whole numbers: for histograms. `carry` is what was left over
/// by the samples before it, and begins at [`CARRY_START`]: the sum of the weights is within a half of the sum of `1 / rate`.
#[inline]
pub fn weight(rate: f64, carry: f64) -> (u64, f64) {
    if rate >= 1.0 {
        return (1, carry);
    }
    // `check_rate` bounds it by 1 / rate_min; the cast saturates for anything else.
    let due = 1.0 / rate + carry;
    let whole = (due as u64).max(1);
    (whole, due - whole as f64)
}

/// The sum of weights is rounded, not cut.
pub const CARRY_START: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_for_as_many_as_their_rates_say_together() {
        let of_thousand = |rate| {
            let (mut sum, mut carry) = (0, CARRY_START);
            for _ in 0..1000 {
                let times;
                (times, carry) = weight(rate, carry);
                sum += times;
            }
            sum
        };
        let expected =
            [(1.0, 1000), (0.95, 1053), (0.8, 1250), (0.7, 1429), (0.6, 1667), (0.3, 3333)];
        for (rate, times) in expected {
            assert_eq!(of_thousand(rate), times, "{rate}");
        }
        assert_eq!(weight(1e-6, CARRY_START).0, 1_000_000);
    }

    #[test]
    fn a_scaled_increment_is_held_to_what_a_cell_holds() {
        assert_eq!(check_number(Kind::Counter, INCREMENT_END.next_down(), 1.0), Ok(()));
        assert_eq!(check_number(Kind::Counter, INCREMENT_END, 1.0), Err(Reject::ValueOutOfRange));
        assert_eq!(check_number(Kind::Counter, 1e17, 0.01), Err(Reject::ValueOutOfRange));
        assert_eq!(check_number(Kind::Gauge, f64::MAX, 1.0), Ok(()));
        assert_eq!(check_number(Kind::Timer, -1.0, 1.0), Err(Reject::ValueNegative));
        assert_eq!(check_number(Kind::Histogram, -1.0, 1.0), Ok(()));
    }

    #[test]
    fn every_kind_is_found_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::from_name("meter"), None);
    }
}
