//! Quantiles of a summary: which can be asked for, and which value stands at one.
//!
//! *Nearest rank*: of `count` values in ascending order, a quantile is the one with the number `quantile * count`, rounded
//! up. So it is a value that was observed, the smallest with at least that share of all at or below it.

/// Those of a summary, where nobody says.
pub const DEFAULT: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// Quantiles that a summary can have.
pub const COUNT_MAX: usize = 32;

/// Quantiles as a definition gives them.
///
/// # Errors
/// What is wrong with them, in a sentence.
pub fn check(quantiles: Vec<f64>) -> Result<Vec<f64>, String> {
    let inside = quantiles.iter().all(|quantile| (0.0..=1.0).contains(quantile));
    let ascending = quantiles.windows(2).all(|pair| pair[0] < pair[1]);
    if inside && ascending && quantiles.len() <= COUNT_MAX {
        return Ok(quantiles);
    }
    Err(format!("quantiles must ascend, lie in 0 to 1 and be at most {COUNT_MAX}: {quantiles:?}"))
}

/// The number of the value at a quantile of `count` values: from 1 to `count`, and 1 when there is none.
pub fn rank(quantile: f64, count: u64) -> u64 {
    ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1))
}

/// The value at a quantile; `values` ascend. Nothing when there are none.
pub fn nearest_rank(values: &[f64], quantile: f64) -> Option<f64> {
    values.get(rank(quantile, values.len() as u64) as usize - 1).copied()
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn quantiles_that_cannot_be_asked_for_are_refused() {
        assert_eq!(check(DEFAULT.to_vec()), Ok(DEFAULT.to_vec()));
        assert_eq!(check(vec![0.0, 1.0]), Ok(vec![0.0, 1.0]));
        assert_eq!(check(vec![]), Ok(vec![]));
        let many = (0..33).map(|n| f64::from(n) / 33.0).collect();
        for wrong in [vec![-0.1], vec![1.1], vec![f64::NAN], vec![0.9, 0.5], vec![0.5, 0.5], many] {
            assert!(check(wrong).unwrap_err().contains("at most 32"));
        }
    }

    #[test]
    fn the_nearest_rank_is_the_smallest_value_with_enough_at_or_below_it() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        let at = |quantile| nearest_rank(&values, quantile).unwrap();
        assert_eq!(
            [at(0.0), at(0.05), at(0.1), at(0.11), at(0.5), at(0.99), at(1.0)],
            [1.0, 1.0, 1.0, 2.0, 5.0, 10.0, 10.0]
        );
        assert_eq!(nearest_rank(&[7.0], 0.5), Some(7.0));
        assert_eq!(nearest_rank(&[], 0.5), None);
    }
}
