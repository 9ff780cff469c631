//! Removing: one series, all of a metric, those that nobody used.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_shm::{Expirer, Segment, Shape, Writer};

pub fn rows() -> Vec<Operation> {
    let row = |name, grain, prepare, bind| on_segment(name, "remove", grain, prepare, bind);
    vec![
        row("remove a counter", Grain::Whole, some::<0>, |w, _| remove(w, COUNTER)),
        row("remove a histogram with parts", Grain::Whole, some::<1>, |w, _| {
            remove(w, EXPONENTIAL)
        }),
        row("clear a metric", Grain::Items, some::<0>, |w, _| clear(w, COUNTER)),
        row("clear a histogram", Grain::Items, some::<1>, |w, _| clear(w, EXPONENTIAL)),
        row("clear a metric that had overflowed", Grain::Items, overflowed, |w, _| {
            clear(w, COUNTER)
        })
        .with_limits(|options| options.metric_series_max = 2)
        .unfurnished(),
        row("expire what nobody uses", Grain::Items, some::<0>, |w, _| {
            let mut expirer = Expirer::default();
            expirer.run(w, 0, IDLE_MS, |_| true);
            // Epochs pass, in which nobody uses anything.
            for _ in 0..4 {
                w.reclaim_now();
            }
            Box::new(move |w| {
                expirer.run(w, 10 * IDLE_MS, IDLE_MS, |meta| meta.name == "kept");
            })
        }),
    ]
}

const IDLE_MS: u64 = 1000;
const SHAPES: [Shape<'static>; 2] = [COUNTER, EXPONENTIAL];

fn some<const SHAPE: usize>(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    for n in 0..random.below(3) + 1 {
        let series = series(&writer, "kept", SHAPES[SHAPE], &format!("n=\"{n}\""));
        match SHAPES[SHAPE] {
            Shape::Counter => applied(writer.add(&series, n + 1)),
            _ => applied(writer.observe(&series, -2.5 * (n as f64 + 1.0), 1)),
        }
    }
    writer
}

/// One series more than there may be. Another metric's overflow series stands in the same page, so that no page is given
/// back on the way: that is walked elsewhere, and takes long.
fn overflowed(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    let _ = series(&writer, "other", COUNTER, "n=\"9\",length=\"16\"");
    for n in 0..3 {
        let series = series(&writer, "kept", COUNTER, &format!("n=\"{n}\",length=\"16\""));
        assert_eq!(series.is_overflow(), n == 2);
        applied(writer.add(&series, random.below(9) + 1));
    }
    writer
}

fn remove(writer: &Writer, shape: Shape<'_>) -> Act {
    let metric = writer.metric(&spec("kept", shape)).expect("it is there");
    Box::new(move |w| {
        w.remove(metric, "n=\"0\"");
    })
}

fn clear(writer: &Writer, shape: Shape<'_>) -> Act {
    let metric = writer.metric(&spec("kept", shape)).expect("it is there");
    Box::new(move |w| {
        w.clear(metric);
    })
}
