//! Definitions: registering a metric, and a family that changes.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_shm::{Joined, Segment, Shape, Writer};

pub fn rows() -> Vec<Operation> {
    let row = |name, grain, prepare, bind| on_segment(name, "define", grain, prepare, bind);
    vec![
        row(
            "register a metric",
            Grain::Whole,
            |s, _| writer(s),
            |_, random| {
                let shape = *random.pick(&[COUNTER, CLASSIC, EXPONENTIAL, SUMMARY]);
                Box::new(move |w| {
                    w.metric(&spec("new", shape)).expect("there is room");
                })
            },
        ),
        row("find a metric", Grain::Nothing, with_series, |_, _| {
            Box::new(|w| {
                w.metric(&spec("shop", COUNTER)).expect("it is there");
            })
        }),
        row(
            "register a family",
            Grain::Whole,
            |s, _| writer(s),
            |_, _| {
                Box::new(|w| {
                    join(w, CLASSIC, "code");
                })
            },
        ),
        row("join a family", Grain::Nothing, with_old_family, |_, _| {
            Box::new(|w| assert!(join(w, CLASSIC, "").is_shown))
        }),
        row("change a family", Grain::Items, with_old_family, |_, random| {
            let (shape, names) =
                *random.pick(&[(COUNTER, ""), (CLASSIC, "code"), (EXPONENTIAL, ""), (SUMMARY, "")]);
            Box::new(move |w| assert!(join(w, shape, names).is_shown))
        }),
        row(
            "go back to an older definition",
            Grain::Items,
            |s, random| {
                let old = with_old_family(s, random);
                drop(old);
                let new = writer(s);
                let id = join(&new, COUNTER, "").id;
                applied(new.add(&new.series(id, "").expect("there is room"), 7));
                drop(new);
                writer(s)
            },
            |_, _| Box::new(|w| assert!(join(w, CLASSIC, "").is_shown)),
        )
        .with_memory(Memory::Later),
    ]
}

fn join(writer: &Writer, shape: Shape<'_>, label_names: &str) -> Joined {
    writer.family(&spec("family", shape), label_names, 0).expect("there is room for a family")
}

fn with_series(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    let series = series(&writer, "shop", COUNTER, "");
    applied(writer.add(&series, random.below(100)));
    writer
}

fn with_old_family(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    let id = join(&writer, CLASSIC, "").id;
    for n in 0..random.below(3) {
        let labels = if n == 0 { String::new() } else { format!("n=\"{n}\"") };
        let series = writer.series(id, &labels).expect("there is room for a series");
        applied(writer.observe(&series, 1.0, n + 1));
    }
    writer
}
