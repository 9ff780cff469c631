//! Counters: whole amounts, fractions, and the stripes of a busy one.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_shm::{Outcome, Segment, Series, Writer, COUNTER_END};

pub fn rows() -> Vec<Operation> {
    let row = |name, prepare, bind| on_segment(name, "counter", Grain::Whole, prepare, bind);
    vec![
        row("inc", begun, |w, random| {
            let (counter, amount) = (counter(w), random.below(1000) + 1);
            Box::new(move |w| applied(w.add(&counter, amount)))
        }),
        row("inc by a fraction", begun, |w, random| {
            let (counter, amount) = (counter(w), random.below(3) as f64 + 0.125);
            Box::new(move |w| applied(w.add_f64(&counter, amount)))
        }),
        row("inc by fractions that make a whole", almost_one, |w, random| {
            let (counter, amount) = (counter(w), random.below(3) as f64 + 0.875);
            Box::new(move |w| applied(w.add_f64(&counter, amount)))
        }),
        row("inc by a large amount", begun, |w, random| {
            let (counter, amount) = (counter(w), (1 << 40) + random.below(1 << 40));
            Box::new(move |w| applied(w.add(&counter, amount)))
        }),
        on_segment("inc that is refused", "counter", Grain::Nothing, almost_full, |w, random| {
            let (counter, amount) = (counter(w), (1 << 33) + random.below(1 << 40));
            Box::new(move |w| assert_eq!(w.add(&counter, amount), Outcome::Refused))
        }),
        row("inc, and get a stripe", hot, |w, random| {
            let (counter, amount) = (counter(w), random.below(100) + 10);
            Box::new(move |w| applied(w.add(&counter, amount)))
        })
        .with_memory(Memory::NoMore),
        row("inc by a fraction, and get a stripe", hot, |w, random| {
            let (counter, amount) = (counter(w), random.below(100) as f64 + 10.5);
            Box::new(move |w| applied(w.add_f64(&counter, amount)))
        })
        .with_memory(Memory::NoMore),
        row("inc in a stripe", striped, |w, random| {
            let (counter, amount) = (counter(w), random.below(100) + 1);
            Box::new(move |w| applied(w.add(&counter, amount)))
        }),
        row("inc of a handle whose series was removed", begun, |w, random| {
            let (old, amount) = (counter(w), random.below(100) + 1);
            w.remove(old.metric(), LABELS);
            let new = counter(w);
            Box::new(move |w| {
                assert_eq!(w.add(&old, amount), Outcome::Stale);
                applied(w.add(&new, amount));
            })
        }),
    ]
}

const LABELS: &str = "code=\"200\"";

fn counter(writer: &Writer) -> Series {
    series(writer, "requests", COUNTER, LABELS)
}

fn begun(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    let counter = counter(&writer);
    if random.chance(2) {
        applied(writer.add(&counter, random.below(1000)));
    }
    writer
}

fn almost_one(segment: &Segment, random: &mut Random) -> Writer {
    let writer = begun(segment, random);
    applied(writer.add_f64(&counter(&writer), 0.5));
    writer
}

fn almost_full(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    applied(writer.add(&counter(&writer), COUNTER_END - 1 - random.below(1 << 30)));
    writer
}

/// Right below the amount at which stripes are made.
fn hot(segment: &Segment, random: &mut Random) -> Writer {
    let writer = second_writer(segment);
    applied(writer.add(&counter(&writer), 4095 - random.below(10)));
    writer
}

fn striped(segment: &Segment, random: &mut Random) -> Writer {
    let writer = hot(segment, random);
    applied(writer.add(&counter(&writer), 10));
    writer
}
