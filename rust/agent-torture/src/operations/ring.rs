//! Rings: the first record, one that may overwrite another, texts, and reading.

use crate::grain::Grain;
use crate::operation::*;
use crate::random::Random;
use agent_shm::{RecordKind, Segment, Series, Writer};

pub fn rows() -> Vec<Operation> {
    let row = |name, prepare, bind| on_segment(name, "ring", Grain::Nothing, prepare, bind);
    vec![
        row("push the first record", |s, _| writer(s), push),
        row("push a record", filled, push),
        row("push a text", filled, |_, random| {
            let text = "deployed version two of the shop"[..random.below(30) as usize].to_owned();
            Box::new(move |w| w.event(text.as_bytes()))
        }),
        row("drain", filled, |w, _| {
            let reader = w.segment().ring_reader(w.slot());
            Box::new(move |_| {
                let mut read = 0;
                let drained = reader.map(|mut reader| reader.drain(|_| read += 1));
                assert!(drained.is_none_or(|drained| drained.read == read));
            })
        }),
    ]
}

fn summary(writer: &Writer) -> Series {
    series(writer, "waits", SUMMARY, "")
}

/// With up to two rounds of records in it.
fn filled(segment: &Segment, random: &mut Random) -> Writer {
    let writer = writer(segment);
    let series = summary(&writer);
    for n in 0..random.below(17) + 1 {
        writer.record(&series, RecordKind::Sample, (n as f64).to_bits());
    }
    writer
}

fn push(writer: &Writer, random: &mut Random) -> Act {
    let (series, value) = (summary(writer), random.below(1000) as f64 + 0.25);
    Box::new(move |w| w.record(&series, RecordKind::Sample, value.to_bits()))
}
