//! Which numbers a metric takes.

use crate::refusal::{Kind, Refusal};
use agent_metric::bounds::is_observable;

/// What a counter can be raised by.
pub fn check(name: &str, amount: f64) -> Result<(), Refusal> {
    if amount >= 0.0 && amount.is_finite() {
        return Ok(());
    }
    let why = match amount {
        _ if amount.is_nan() => "NaN",
        _ if amount.is_infinite() => "an infinite amount",
        _ => "a negative amount",
    };
    let text =
        format!("counter {name} cannot be raised by {why} ({amount:?}); a gauge can go down");
    Err(Refusal::new(Kind::Amount, text))
}

/// What a histogram or summary can observe.
pub fn check_observation(name: &str, value: f64) -> Result<(), Refusal> {
    if is_observable(value) {
        return Ok(());
    }
    let text = match value.is_finite() {
        false => format!("{name} cannot observe {value}: its sum would be that for ever"),
        true => format!(
            "{name} cannot observe {value:e}: values end at 2^900, so that sums stay finite"
        ),
    };
    Err(Refusal::new(Kind::Amount, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_takes_what_is_finite_and_not_below_zero() {
        for amount in [0.0, -0.0, 1e-300, f64::MAX] {
            assert_eq!(check("c", amount), Ok(()));
        }
        for (amount, why) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "infinite"),
            (-f64::INFINITY, "infinite"),
            (-1.0, "negative"),
        ] {
            let refusal = check("c", amount).unwrap_err();
            assert_eq!(refusal.kind, Kind::Amount);
            assert!(refusal.text.contains(why), "{refusal}");
        }
    }

    #[test]
    fn an_observation_is_finite_and_so_is_any_sum_of_them() {
        let largest = agent_metric::bounds::OBSERVATION_MAX;
        for value in [0.0, largest, -largest] {
            assert_eq!(check_observation("h", value), Ok(()));
        }
        for (value, why) in [
            (f64::NAN, "for ever"),
            (-f64::INFINITY, "for ever"),
            (largest * 1.5, "2^900"),
            (-f64::MAX, "2^900"),
        ] {
            let refusal = check_observation("h", value).unwrap_err();
            assert!(refusal.text.contains(why), "{refusal}");
        }
    }
}
