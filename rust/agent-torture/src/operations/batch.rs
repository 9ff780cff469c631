//! Many observations in one call: each bucket with its values is in or out, the batch as a whole need not be.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_shm::{Segment, Series, Shape, Writer};

pub fn rows() -> Vec<Operation> {
    let row = |name, bind| on_segment(name, "batch", Grain::Buckets, writer_only, bind);
    vec![
        row("observe many, classic", |w, random| {
            let series = series(w, "sizes", CLASSIC, "");
            many(series, values(random, 64 + random.clone().below(64)))
        }),
        row("observe a few, classic", |w, random| {
            let series = series(w, "sizes", CLASSIC, "");
            many(series, values(random, 2 + random.clone().below(4)))
        }),
        row("observe many, exponential", |w, random| {
            // One bucket an exponent, whose bounds are powers of two.
            let series = series(w, "sizes", Shape::Exponential { schema: 0 }, "");
            many(series, values(random, 64 + random.clone().below(64)))
        }),
        on_segment("observe many, summary", "batch", Grain::Whole, writer_only, |w, random| {
            let series = series(w, "sizes", SUMMARY, "");
            many(series, values(random, 64 + random.clone().below(64)))
        }),
    ]
}

fn writer_only(segment: &Segment, random: &mut Random) -> Writer {
    if random.chance(2) {
        second_writer(segment)
    } else {
        writer(segment)
    }
}

fn many(series: Series, values: Vec<f64>) -> Act {
    Box::new(move |w| applied(w.observe_many(&series, &values)))
}

/// Upper bounds only, so that a bucket's part of the sum is known.
fn values(random: &mut Random, count: u64) -> Vec<f64> {
    (0..count).map(|_| *random.pick(&BOUNDS)).collect()
}
