//! Memory: given back, taken by another size, grown, and not there.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use crate::stepper::{Step, Victim};
use agent_metric::GaugeMode;
use agent_shm::{Outcome, Segment, Shape, Writer};
use std::cell::Cell;

pub fn rows() -> Vec<Operation> {
    let row = |name, grain, prepare, bind| on_segment(name, "memory", grain, prepare, bind);
    vec![
        row("reclaim what was removed", Grain::Nothing, removed, |_, _| reclaim()),
        row(
            "reclaim after a death",
            Grain::Items,
            |s, random| {
                let writer = writer(s);
                leave_a_corpse(s, random);
                for _ in 0..random.below(4) {
                    writer.reclaim_now();
                }
                writer
            },
            |_, _| reclaim(),
        ),
        row(
            "reclaim where a death left a count off",
            Grain::Nothing,
            |s, random| {
                let writer = writer(s);
                let is_off = |fault: &String| fault.contains("series are counted");
                leave_a_corpse_when(s, random, 0, &|| s.audit().faults.iter().any(is_off));
                writer
            },
            |_, _| reclaim(),
        ),
        row("take an empty page for another size", Grain::Whole, emptied, |w, _| {
            let metric = w.metric(&spec("things", COUNTER)).expect("it is there");
            let labels = format!("long=\"{}\"", "y".repeat(600));
            Box::new(move |w| {
                drop(w.series(metric, &labels));
            })
        }),
        row("grow by a chunk", Grain::Whole, full_chunk, |w, _| {
            let metric = w.metric(&spec("large", Shape::Explicit(&LARGE))).expect("it is there");
            Box::new(move |w| {
                let series = w.series(metric, "n=\"99\"").expect("there is room");
                assert!(!series.is_overflow());
            })
        })
        .with_limits(|options| options.bytes_max = 32 * PAGE_BYTES)
        .unfurnished(),
        row("overflow: no memory for a series", Grain::Whole, full, |w, _| {
            let metric = w.metric(&spec("large", Shape::Explicit(&LARGE))).expect("it is there");
            Box::new(move |w| {
                let series = w.series(metric, "n=\"99\"").expect("there is an overflow series");
                assert!(series.is_overflow());
            })
        })
        .with_limits(|options| options.bytes_max = 8 * PAGE_BYTES)
        .unfurnished(),
        row("no room for a process's value of a gauge", Grain::Nothing, full, |w, _| {
            let gauge = series(w, "queue", Shape::Gauge(GaugeMode::Sum), "");
            Box::new(move |w| assert_eq!(w.set(&gauge, 3.0), Outcome::NoRoom))
        })
        .with_limits(|options| options.bytes_max = 8 * PAGE_BYTES)
        .unfurnished(),
        row("no room for an exponent: the nearest bucket", Grain::Whole, full, |w, _| {
            let times = series(w, "times", EXPONENTIAL, "");
            Box::new(move |w| applied(w.observe(&times, 3.0, 1)))
        })
        .with_limits(|options| options.bytes_max = 8 * PAGE_BYTES)
        .unfurnished(),
    ]
}

fn reclaim() -> Act {
    Box::new(|w| {
        w.reclaim_now();
    })
}

/// A series with parts was removed, up to six passes ago.
fn removed(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    let (shape, name) = *random.pick(&[(EXPONENTIAL, "times"), (COUNTER, "things")]);
    let gone = series(&writer, name, shape, "k=\"gone\"");
    match shape {
        Shape::Counter => applied(writer.add(&gone, 3)),
        _ => applied(writer.observe(&gone, 2.5, 1)),
    }
    assert!(writer.remove(gone.metric(), "k=\"gone\""));
    for _ in 0..random.below(8) {
        writer.reclaim_now();
    }
    writer
}

/// The only series in a page was removed, and the page is on its way to take any size, or there.
fn emptied(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    let labels = format!("mid=\"{}\"", "x".repeat(300));
    let gone = series(&writer, "things", COUNTER, &labels);
    assert!(writer.remove(gone.metric(), &labels));
    for _ in 0..random.below(9) {
        writer.reclaim_now();
    }
    writer
}

/// With these a histogram takes a page.
const LARGE: [f64; 512] = {
    let mut bounds = [0.0; 512];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = index as f64;
        index += 1;
    }
    bounds
};

/// Every page of the first chunk is taken.
fn full_chunk(segment: &Segment, _: &mut Random) -> Writer {
    let writer = writer(segment);
    let mut n = 0;
    while segment.audit().pages < 16 {
        drop(series(&writer, "large", Shape::Explicit(&LARGE), &format!("n=\"{n}\"")));
        n += 1;
    }
    writer
}

/// No page is left, and no room in those of lanes and exponents.
fn full(segment: &Segment, _: &mut Random) -> Writer {
    let writer = writer(segment);
    let _ = series(&writer, "queue", Shape::Gauge(GaugeMode::Sum), "");
    let _ = series(&writer, "times", EXPONENTIAL, "");
    for n in 0.. {
        if series(&writer, "large", Shape::Explicit(&LARGE), &format!("n=\"{n}\"")).is_overflow() {
            break;
        }
    }
    // What the overflow shows is not part of what is walked.
    writer
}

/// Lets a process die at a random instruction of a random operation.
pub fn leave_a_corpse(segment: &Segment, random: &mut Random) {
    let (which, steps, walked) = (random.below(4), random.below(2500), Cell::new(0));
    leave_a_corpse_when(segment, random, which, &|| walked.replace(walked.get() + 1) == steps);
}

/// Lets a process die in an operation as soon as `is_time`, which is asked before each of its instructions.
fn leave_a_corpse_when(
    segment: &Segment,
    random: &mut Random,
    which: u64,
    is_time: &dyn Fn() -> bool,
) {
    let (path, new) = (segment.path().to_owned(), format!("k=\"{}\"", random.below(1000)));
    let prepare = move || -> Box<dyn FnOnce()> {
        let options = segment.header().options;
        let segment = Segment::open_or_create(&path, "torture", &options).expect("it is there");
        let writer = writer(&segment);
        let old = series(&writer, "corpse", EXPONENTIAL, "k=\"old\"");
        Box::new(move || match which {
            0 => drop(writer.series(old.metric(), &new)),
            1 => applied(writer.observe(&old, 700.0, 1)),
            2 => assert!(writer.remove(old.metric(), "k=\"old\"")),
            _ => assert!(writer.metric(&spec("corpse of a metric", COUNTER)).is_ok()),
        })
    };
    let mut victim = Victim::start(prepare).expect("a fork").expect("a child that is traced");
    while !is_time() {
        if victim.step().expect("a step").expect("a child that goes on") == Step::Done {
            break;
        }
    }
}
