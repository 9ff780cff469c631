//! Windows against the sorted samples, and their limits.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn window_of(values: &[f64]) -> Window {
    let mut window = Window::default();
    values.iter().for_each(|&value| window.observe(value, 1, false));
    window.turn(1);
    window
}

fn counts(window: &Window) -> [u64; 3] {
    [0, 1, 2].map(|at| window.sums()[at].count())
}

/// The smallest value with at least `q` of all at or below it.
fn nearest_rank(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1]
}

#[test]
fn a_weight_travels_in_the_low_bits() {
    for value in [0.001234, 1e300, -7.5, 0.0, f64::MIN_POSITIVE] {
        for weight in [1, 10, 1_000_000] {
            let (back, times) = unpack(pack(value, weight));
            assert_eq!(times, weight);
            assert!((back - value).abs() <= value.abs() * 1e-9, "{value} came as {back}");
        }
    }
    assert_eq!(unpack(pack(1.0, u64::MAX)).1, WEIGHT_MASK);
}

#[test]
fn windows_slide_and_forget() {
    let mut window = Window::default();
    for second in 0..100u64 {
        window.observe(1.0, second, false);
        window.turn(1);
    }
    assert_eq!(counts(&window), [99, (90..100).sum(), (40..100).sum()]);
    window.turn(30);
    assert_eq!(counts(&window), [0, 0, (70..100).sum()]);
    assert_eq!(window.sums()[1].quantile(0.5), None);
    window.turn(1000);
    assert_eq!(counts(&window), [0, 0, 0]);
    assert!(window.is_empty());
}

#[test]
fn the_running_second_is_in_no_window_and_the_next_one_waits_its_turn() {
    let mut window = Window::default();
    window.observe(5.0, 1, false);
    window.observe(7.0, 3, true);
    assert_eq!(window.sums()[2].quantile(0.5), None);
    window.turn(1);
    let median = window.sums()[0].quantile(0.5).expect("one sample");
    assert!((median - 5.0).abs() <= 5.0 * 0.022);
    window.turn(1);
    assert_eq!(counts(&window), [3, 4, 4]);
    let last = window.sums()[0].quantile(0.5).expect("samples");
    assert!((last - 7.0).abs() <= 7.0 * 0.022);
}

#[test]
fn values_out_of_range_go_to_the_ends() {
    let window = window_of(&[1e-300, 1e300, -1e300, f64::INFINITY, 0.0]);
    let sum = &window.sums()[0];
    let limit = f64::exp2(64.0);
    let quantiles = [0.0, 0.3, 0.6, 1.0].map(|q| sum.quantile(q).expect("samples"));
    assert_eq!(quantiles, [-limit, 0.0, 0.0, limit]);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let mut window = Window::default();
    // Every bucket there is, of both signs.
    let each = |exponent: i32| f64::exp2(f64::from(exponent) / 16.0) * 1.0001;
    for _ in 0..SECONDS + 5 {
        for value in (-1024..1024).map(each) {
            window.observe(value, 1, false);
            window.observe(-value, 1, false);
        }
        window.turn(1);
    }
    assert_eq!(counts(&window), [4096, 40_960, 245_760], "all of them are counted");
    assert_eq!(window.slices.len(), SECONDS);
    assert!(window.slices.iter().all(|slice| slice.buckets.len() == SLICE_BUCKETS_MAX));
    assert!(window.sums.iter().all(|sum| sum.buckets.len() <= SLICE_BUCKETS_MAX));
    assert!(window.running.counts.capacity() + window.next.counts.capacity() == 0);
    let top = window.sums()[2].quantile(0.99).expect("samples");
    // The upper half of the buckets is exact: only the lowest became one.
    assert!(top > f64::exp2(61.0) && top < f64::exp2(64.0), "{top}");
}

#[test]
fn error_labels_are_those_of_the_list() {
    for labels in
        [r#"status="500""#, r#"a="b",code="503""#, r#"error="true""#, r#"outcome="error""#]
    {
        assert!(is_error(labels), "{labels}");
    }
    for labels in ["", r#"status="499""#, r#"code="ok""#, r#"error="false""#, r#"errors="true""#] {
        assert!(!is_error(labels), "{labels}");
    }
}

proptest! {
    /// Against the sorted samples: never more than 2.2 % off, for any size and sign within the
    /// range.
    #[test]
    fn a_quantile_is_within_its_error(
        values in proptest::collection::vec(
            prop_oneof![-1e9f64..1e9, 1e-12f64..1.0, Just(0.0), 1e-19f64..1e19], 1..200),
        q in 0.0f64..=1.0,
    ) {
        let mut values = values;
        let estimate = window_of(&values).sums()[0].quantile(q).expect("samples");
        let exact = nearest_rank(&mut values, q);
        // Below 2^-64 a value counts as 0.
        let error = (estimate - exact).abs();
        prop_assert!(error <= exact.abs() * 0.022 + 1e-19, "{} for {}", estimate, exact);
    }

    /// Any course of samples and pauses: the sums are those of the samples of their seconds.
    #[test]
    fn the_sums_are_those_of_the_last_seconds(
        course in proptest::collection::vec((1u64..4, 1u64..1000, 1u64..70, any::<bool>()), 1..60),
        q in 0.0f64..=1.0,
    ) {
        let mut window = Window::default();
        let mut model: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        let mut now = 0;
        for (times, value, pause, is_next) in course {
            let pause = if pause > 65 { pause } else { pause % 3 };
            window.observe(value as f64, times, is_next);
            // The next second of a late call is the one that runs then.
            let second = if is_next { now + pause.max(1) } else { now };
            model.entry(second).or_default().extend((0..times).map(|_| value as f64));
            let pause = pause.max(1);
            window.turn(pause);
            now += pause;
            for (sum, seconds) in window.sums().iter().zip(WINDOWS_S) {
                let first = now.saturating_sub(seconds as u64);
                let values = model.range(first..now).flat_map(|(_, values)| values);
                let mut inside: Vec<f64> = values.copied().collect();
                prop_assert_eq!(sum.count(), inside.len() as u64);
                let Some(estimate) = sum.quantile(q) else {
                    prop_assert!(inside.is_empty());
                    continue;
                };
                let exact = nearest_rank(&mut inside, q);
                prop_assert!((estimate - exact).abs() <= exact * 0.022);
            }
        }
    }
}

#[test]
fn a_quantile_is_never_beyond_the_samples() {
    for values in [&[5.0][..], &[-3.0], &[0.1, 0.2, 0.3], &[1e30, 1e-30]] {
        let mut window = Window::default();
        values.iter().for_each(|&value| window.observe(value, 1, false));
        window.turn(1);
        let (low, high) =
            values.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        for q in [0.0, 0.5, 0.95, 0.99, 1.0] {
            let quantile = window.quantile(0, q).expect("samples");
            assert!((low..=high).contains(&quantile), "{quantile} of {values:?} at {q}");
        }
    }
    assert_eq!(Window::default().quantile(0, 0.5), None);
}
