//! Adding what was counted in private memory. It takes several steps, each of them whole; a death in between leaves part.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_metric::GaugeMode;
use agent_shm::{Beside, Outcome, Parcel, Series, Shape, Value};

pub fn rows() -> Vec<Operation> {
    let row = |name, grain, bind| on_segment(name, "absorb", grain, |s, _| writer(s), bind);
    vec![
        row("absorb a counter", Grain::Rising, |w, random| {
            let series = series(w, "jobs", COUNTER, "");
            let (whole, fraction) = (random.below(100) + 1, 0.5);
            absorb(series, Parcel::of(&Value::Counter { whole, fraction }, Beside::default()))
        }),
        row("absorb a classic histogram", Grain::Items, |w, random| {
            absorb_buckets(series(w, "sizes", CLASSIC, ""), random)
        }),
        row("absorb an exponential histogram", Grain::Items, |w, random| {
            absorb_buckets(series(w, "sizes", Shape::Exponential { schema: 0 }, ""), random)
        }),
        row("absorb a summary", Grain::Whole, |w, random| {
            let series = series(w, "waits", SUMMARY, "");
            let (count, sum) = (random.below(9) + 1, 1.0 + eighths(random, 9));
            let recent = (0..count).map(|n| (n, n as f64)).collect();
            absorb(
                series,
                Parcel::of(&Value::Summary { count, sum }, Beside { recent, ..Beside::default() }),
            )
        }),
        row("absorb a gauge", Grain::Whole, |w, random| {
            let series = series(w, "queue", Shape::Gauge(GaugeMode::MostRecent), "");
            let value = 1.0 + eighths(random, 9);
            absorb(series, Parcel::of(&Value::Gauge(value), Beside::default()))
        }),
    ]
}

fn absorb_buckets(series: Series, random: &mut Random) -> Act {
    let counts = BOUNDS.map(|bound| (bound, random.below(3)));
    let buckets = [counts.as_slice(), &[(f64::INFINITY, 1)]].concat();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let value = Value::Histogram { count, sum: 100.5, buckets: buckets.into() };
    absorb(series, Parcel::of(&value, Beside::default()))
}

fn absorb(series: Series, mut parcel: Parcel) -> Act {
    Box::new(move |w| assert_eq!(w.absorb(&series, &mut parcel), Outcome::Applied))
}
