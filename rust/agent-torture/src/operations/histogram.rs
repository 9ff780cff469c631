//! Single observations: classic buckets, exponential ones, summaries.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_shm::{Segment, Series, Shape, Writer};

pub fn rows() -> Vec<Operation> {
    let row = |name, prepare, bind| on_segment(name, "histogram", Grain::Whole, prepare, bind);
    vec![
        row("observe, classic", begun::<0>, |w, random| {
            let (series, value) = (held::<0>(w), eighths(random, 10));
            let n = random.below(3) + 1;
            Box::new(move |w| applied(w.observe(&series, value, n)))
        }),
        row("observe, classic, and get a stripe", hot::<0>, |w, _| {
            let series = held::<0>(w);
            Box::new(move |w| applied(w.observe(&series, 1.0, 20)))
        })
        .with_memory(Memory::NoMore),
        row("observe, exponential", begun::<1>, |w, random| {
            let (series, n) = (held::<1>(w), random.below(3) + 1);
            Box::new(move |w| applied(w.observe(&series, 1.5, n)))
        }),
        row("observe, exponential, first of its exponent", begun::<1>, |w, random| {
            let series = held::<1>(w);
            let power = f64::exp2(random.below(100) as f64 - 50.0);
            let value = if random.chance(2) { -1.5 } else { 1.5 } * power;
            Box::new(move |w| applied(w.observe(&series, value, 1)))
        }),
        row("observe, exponential, outside of all exponents", begun::<1>, |w, random| {
            let values = [0.0, 1e-30, 1e30, -1e30];
            let (series, value) = (held::<1>(w), *random.pick(&values));
            Box::new(move |w| applied(w.observe(&series, value, 1)))
        }),
        row("observe, exponential, and get a stripe", hot::<1>, |w, _| {
            let series = held::<1>(w);
            Box::new(move |w| applied(w.observe(&series, 1.0, 20)))
        })
        .with_memory(Memory::NoMore),
        row("observe, exponential, first in a stripe", striped::<1>, |w, _| {
            let series = held::<1>(w);
            Box::new(move |w| applied(w.observe(&series, 3.0, 1)))
        }),
        row("observe, summary", begun::<2>, |w, random| {
            let (series, value) = (held::<2>(w), eighths(random, 100));
            Box::new(move |w| applied(w.observe(&series, value, 1)))
        }),
        row("observe, summary, and get a stripe", hot::<2>, |w, _| {
            let series = held::<2>(w);
            Box::new(move |w| applied(w.observe(&series, 1.0, 20)))
        })
        .with_memory(Memory::NoMore),
    ]
}

const SHAPES: [Shape<'static>; 3] = [CLASSIC, EXPONENTIAL, SUMMARY];

fn held<const SHAPE: usize>(writer: &Writer) -> Series {
    series(writer, "latency", SHAPES[SHAPE], "code=\"200\"")
}

fn begun<const SHAPE: usize>(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    let series = held::<SHAPE>(&writer);
    for _ in 0..random.below(3) {
        applied(writer.observe(&series, 1.5, random.below(100) + 1));
    }
    writer
}

/// Right below the count at which stripes are made.
fn hot<const SHAPE: usize>(segment: &Segment, random: &mut Random) -> Writer {
    let writer = second_writer(segment);
    applied(writer.observe(&held::<SHAPE>(&writer), 1.0, 4095 - random.below(10)));
    writer
}

fn striped<const SHAPE: usize>(segment: &Segment, random: &mut Random) -> Writer {
    let writer = hot::<SHAPE>(segment, random);
    applied(writer.observe(&held::<SHAPE>(&writer), 1.0, 10));
    writer
}
