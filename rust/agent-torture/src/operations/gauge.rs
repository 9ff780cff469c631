//! Gauges: one number for all, one for each process in every mode, and what is held.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_metric::GaugeMode;
use agent_shm::{Segment, Series, Shape, Writer};

pub fn rows() -> Vec<Operation> {
    let row = |name, grain, prepare, bind| on_segment(name, "gauge", grain, prepare, bind);
    let mut rows = vec![
        row("set, mostrecent", Grain::Whole, set_before::<0>, set::<0>),
        row("shift, mostrecent", Grain::Whole, set_before::<0>, |w, random| {
            let (gauge, change) = (gauge::<0>(w), 1.0 + eighths(random, 10));
            Box::new(move |w| applied(w.shift(&gauge, change)))
        }),
        row("shift, sum", Grain::Whole, set_before::<3>, |w, random| {
            let (gauge, change) = (gauge::<3>(w), 1.0 + eighths(random, 10));
            Box::new(move |w| applied(w.shift(&gauge, change)))
        }),
        // The dead hold nothing, so nothing of it is ever left.
        row("hold, mostrecent", Grain::Nothing, set_before::<0>, hold::<0>),
        row("hold, livesum", Grain::Nothing, set_before::<4>, hold::<4>),
        row("hold and let go", Grain::Nothing, set_before::<0>, |w, _| {
            let gauge = gauge::<0>(w);
            applied(w.hold(&gauge, 1.0));
            Box::new(move |w| {
                applied(w.hold(&gauge, 1.0));
                applied(w.hold(&gauge, -2.0));
            })
        }),
        row("take over the value of a dead process, sum", Grain::Whole, left::<3>, set::<3>),
        row("take over the value of a dead process, min", Grain::Whole, left::<5>, set::<5>),
        row("take over the value of a dead process, max", Grain::Whole, left::<7>, set::<7>),
        row("take over the value of a dead process, all", Grain::Whole, left::<1>, set::<1>),
    ];
    rows.extend([
        row("set first, all", Grain::Whole, known::<1>, set::<1>),
        row("set first, sum", Grain::Whole, known::<3>, set::<3>),
        row("set first, min", Grain::Whole, known::<5>, set::<5>),
        row("set first, max", Grain::Whole, known::<7>, set::<7>),
        row("set again, all", Grain::Whole, set_before::<1>, set::<1>),
        row("set again, sum", Grain::Whole, set_before::<3>, set::<3>),
        row("set again, min", Grain::Whole, set_before::<5>, set::<5>),
        row("set again, max", Grain::Whole, set_before::<7>, set::<7>),
        // Of those that only the living count for, the dead leave nothing.
        row("set, liveall", Grain::Nothing, known::<2>, set::<2>),
        row("set, livesum", Grain::Nothing, known::<4>, set::<4>),
        row("set, livemin", Grain::Nothing, known::<6>, set::<6>),
        row("set, livemax", Grain::Nothing, known::<8>, set::<8>),
        row("set, livemostrecent", Grain::Nothing, known::<9>, set::<9>),
    ]);
    rows
}

fn gauge<const MODE: usize>(writer: &Writer) -> Series {
    series(writer, "queue", Shape::Gauge(GaugeMode::ALL[MODE].mode), "")
}

/// The gauge is there and nobody has said anything.
fn known<const MODE: usize>(segment: &Segment, _: &mut Random) -> Writer {
    let writer = writer(segment);
    let _ = gauge::<MODE>(&writer);
    writer
}

fn set_before<const MODE: usize>(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    applied(writer.set(&gauge::<MODE>(&writer), 1.0 + eighths(random, 100)));
    writer
}

/// Somebody who had the slot left a value.
fn left<const MODE: usize>(segment: &Segment, random: &mut Random) -> Writer {
    let gone = set_before::<MODE>(segment, random);
    let slot = gone.slot();
    drop(gone);
    let writer = writer(segment);
    assert_eq!(writer.slot(), slot);
    writer
}

fn set<const MODE: usize>(writer: &Writer, random: &mut Random) -> Act {
    let (gauge, value) = (gauge::<MODE>(writer), eighths(random, 100));
    Box::new(move |w| applied(w.set(&gauge, value)))
}

fn hold<const MODE: usize>(writer: &Writer, _: &mut Random) -> Act {
    let gauge = gauge::<MODE>(writer);
    Box::new(move |w| applied(w.hold(&gauge, 1.0)))
}
