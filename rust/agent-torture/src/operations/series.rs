//! Series: made, found, and refused by a limit.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_shm::{Segment, Shape, Writer};

pub fn rows() -> Vec<Operation> {
    let row = |name, grain, prepare, bind| on_segment(name, "series", grain, prepare, bind);
    vec![
        row("register a series", Grain::Whole, some, |w, random| {
            let (shape, name) = *random.pick(&SHAPES);
            make(w, name, shape, format!("k=\"{}\"", "x".repeat(random.below(60) as usize)))
        }),
        row("find a series", Grain::Nothing, some, |w, _| {
            make(w, "counted", COUNTER, "n=\"0\"".into())
        }),
        row("register a series where another one was", Grain::Whole, some_gone, |w, _| {
            make(w, "counted", COUNTER, "n=\"8\"".into())
        }),
        row("overflow: more series than a metric may have", Grain::Whole, some, |w, _| {
            make(w, "counted", COUNTER, "n=\"9\"".into())
        })
        .with_limits(|options| options.metric_series_max = 3),
        row("overflow: more series than the segment may have", Grain::Whole, some, |w, _| {
            make(w, "counted", COUNTER, "n=\"9\"".into())
        })
        .with_limits(|options| options.series_max = 3)
        .unfurnished(),
    ]
}

const SHAPES: [(Shape<'static>, &str); 4] =
    [(COUNTER, "counted"), (CLASSIC, "classic"), (EXPONENTIAL, "native"), (SUMMARY, "summary")];

/// A counter with three series.
fn some(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    for n in 0..3 {
        let series = series(&writer, "counted", COUNTER, &format!("n=\"{n}\""));
        // At a limit one of them may be the overflow series.
        applied(writer.add(&series, random.below(9) + 1));
    }
    writer
}

fn some_gone(segment: &Segment, random: &mut Random) -> Writer {
    let writer = some(segment, random);
    let metric = series(&writer, "counted", COUNTER, "n=\"0\"").metric();
    assert!(writer.remove(metric, "n=\"1\""));
    for _ in 0..random.below(5) {
        writer.reclaim_now();
    }
    writer
}

fn make(writer: &Writer, name: &'static str, shape: Shape<'static>, labels: String) -> Act {
    let metric = writer.metric(&spec(name, shape)).expect("there is room for a metric");
    Box::new(move |w| drop(w.series(metric, &labels).expect("there is room for a series")))
}
