//! Recovery of a segment: by a new writer on the state that a death left. The locks of the dead are gone, those of who lives
//! beside are not.

use crate::error::Error;
use crate::grain::{Done, Grain, Span};
use crate::image::Image;
use crate::operation::{Act, Memory, Operation};
use crate::picture::Picture;
use crate::stage::{Stage, APP};
use crate::walk::Walk;
use agent_metric::Shape;
use agent_shm::{MetricSpec, Outcome, Reclaimed, Segment, Writer};
use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Blocks in use, by their size.
type Blocks = BTreeMap<u64, u64>;

/// What a state is like, in every respect that is compared.
struct Examined {
    /// What is shown as it was left, and after recovery.
    left: Picture,
    recovered: Picture,
    /// After the next writer did the same.
    repeated: Picture,
    blocks: Blocks,
    /// After the next writer did the same, and when everything was removed.
    blocks_repeated: Blocks,
    emptied: Blocks,
    /// Whether there is room for one more metric.
    has_room: bool,
}

/// So many passes give everything back.
const PASSES_MAX: u32 = 24;

/// Everything that does not hold: the number of the instruction, and a sentence.
pub fn judge(
    stage: &Stage,
    walk: &Walk,
    operation: &Operation,
    bind: &dyn Fn(&Writer) -> Act,
) -> Result<(u64, Vec<(u64, String)>), Error> {
    let slot = slot_of(stage, walk)?;
    let examine = |image: &Image| examine(stage, image, slot, bind);
    let (Some(first), Some(last)) = (walk.states.first(), walk.states.last()) else {
        return Ok((0, Vec::new()));
    };
    let before = match examine(&first.1)? {
        Ok(before) => before,
        Err(reason) => return Ok((1, vec![(0, format!("before it began: {reason}"))])),
    };
    let after = match examine(&last.1)? {
        Ok(after) => after,
        Err(reason) => return Ok((1, vec![(last.0, format!("when it was over: {reason}"))])),
    };
    let (mut findings, grain) = (Vec::new(), operation.grain);
    let left = Span { grain, before: &before.left, after: &after.left };
    let recovered = Span { grain, before: &before.recovered, after: &after.recovered };
    let mut known: Vec<(&Image, Option<Done<'_>>)> = Vec::new();
    let mut was_done = Done::new();
    let mut states = 0;
    for (instruction, image) in &walk.states {
        let seen = known.iter().find(|(other, _)| *other == image).map(|(_, done)| done.clone());
        let done = match seen {
            Some(done) => done,
            None => {
                states += 1;
                let verdict = examine(image)?.and_then(|state| {
                    let done = left.done(&state.left)?;
                    let is_in = done == left.changes() && !done.is_empty();
                    compare(&state, &before, &after, &recovered, is_in)?;
                    if operation.memory != Memory::Later {
                        no_leaks(&state, &before, &after, operation)?;
                    }
                    Ok(done)
                });
                if let Err(reason) = &verdict {
                    findings.push((*instruction, reason.clone()));
                }
                known.push((image, verdict.as_ref().ok().cloned()));
                verdict.ok()
            }
        };
        let Some(done) = done else { continue };
        if let Some(undone) = was_done.difference(&done).next() {
            let reason = format!("{}: {} was in, and is out again", undone.0, undone.1);
            findings.push((*instruction, reason));
        }
        was_done = done;
    }
    Ok((states, findings))
}

fn compare(
    state: &Examined,
    before: &Examined,
    after: &Examined,
    recovered: &Span<'_>,
    is_in: bool,
) -> Result<(), String> {
    let done = recovered.done(&state.recovered).map_err(|reason| format!("recovered: {reason}"))?;
    if is_in && done != recovered.changes() {
        return Err("it was in, and is not after recovery".into());
    }
    let repeated = &state.repeated;
    let expected = match recovered.grain {
        _ if before.repeated == after.repeated => vec![&after.repeated],
        Grain::Nothing => vec![&before.repeated, &after.repeated],
        Grain::Whole if state.recovered == before.recovered => vec![&before.repeated],
        Grain::Whole => vec![&after.repeated],
        // Of several steps some are done twice then.
        Grain::Items | Grain::Buckets | Grain::Rising => vec![repeated],
    };
    if !expected.contains(&repeated) {
        return Err(format!(
            "done again by the next writer: {}",
            difference(repeated, expected[0])
        ));
    }
    if state.has_room != before.has_room && state.has_room != after.has_room {
        return Err("there is no room for a metric, as there was before and is afterwards".into());
    }
    Ok(())
}

fn no_leaks(
    state: &Examined,
    before: &Examined,
    after: &Examined,
    operation: &Operation,
) -> Result<(), String> {
    let found = &state.blocks_repeated;
    let expected = [&before.blocks_repeated, &after.blocks_repeated];
    let is_repeatable = matches!(operation.grain, Grain::Whole | Grain::Nothing);
    if operation.memory == Memory::Exact && is_repeatable && !expected.contains(&found) {
        let expected = expected[1];
        return Err(format!(
            "after the next writer did the same, blocks in use are {found:?}, expected {expected:?}"
        ));
    }
    no_leak("after recovery", &state.blocks, &before.blocks, &after.blocks)?;
    no_leak("when all is removed", &state.emptied, &before.emptied, &after.emptied)
}

/// No more memory is in use than without the operation or with it.
fn no_leak(when: &str, found: &Blocks, one: &Blocks, two: &Blocks) -> Result<(), String> {
    for (size, found) in found {
        let [one, two] = [one, two].map(|blocks| blocks.get(size).copied().unwrap_or(0));
        if *found > one.max(two) {
            return Err(format!(
                "{when} {found} blocks of {size} bytes are in use; without a death {one} or {two}"
            ));
        }
    }
    Ok(())
}

fn difference(found: &Picture, expected: &Picture) -> String {
    let keys = expected.items.keys().chain(found.items.keys());
    for key in keys {
        let (now, then) = (found.items.get(key), expected.items.get(key));
        if now != then {
            return format!("{} {} is {now:?}, expected {then:?}", key.0, key.1);
        }
    }
    format!("the ring gives {:?}, expected {:?}", found.ring, expected.ring)
}

/// The slot of the one that was walked.
fn slot_of(stage: &Stage, walk: &Walk) -> Result<u16, Error> {
    if let Some((_, image)) = walk.states.first() {
        image.put(stage.folder())?;
    }
    let slots = stage.segment.slots();
    Ok(slots.iter().find(|slot| slot.pid == walk.pid).map_or(0, |slot| slot.index))
}

fn examine(
    stage: &Stage,
    image: &Image,
    slot: u16,
    bind: &dyn Fn(&Writer) -> Act,
) -> Result<Result<Examined, String>, Error> {
    image.put(stage.folder())?;
    let examined = catch_unwind(AssertUnwindSafe(|| recover(stage, slot, bind)));
    Ok(examined.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("recovery failed: {}", text.unwrap_or("it panicked")))
    }))
}

fn recover(stage: &Stage, slot: u16, bind: &dyn Fn(&Writer) -> Act) -> Result<Examined, String> {
    let told = |what: &'static str| move |error: agent_shm::Error| format!("{what}: {error}");
    let reader = Segment::attach(&stage.path).map_err(told("attach"))?;
    let left = Picture::of(&reader, slot);
    let segment =
        Segment::open_or_create(&stage.path, APP, &stage.options).map_err(told("open"))?;
    if Picture::of(&segment, slot) != left {
        return Err("who reads only sees something else than who may write".into());
    }
    let writers = writers(&segment, slot)?;
    settle(&writers)?;
    let recovered = Picture::of(&segment, slot);
    let audit = segment.audit();
    no_faults("after recovery", &segment)?;
    drop(writers);
    // The slot is free at once, and there is nothing left to recover.
    let writers = self::writers(&segment, slot)?;
    let writer = &writers[writers.len() - 1];
    let again = writer.reclaim_now();
    if again != (Reclaimed { passed: true, ..Reclaimed::default() }) {
        return Err(format!("a second recovery found more: {again:?}"));
    }
    if Picture::of(&segment, slot) != recovered || segment.audit() != audit {
        return Err("a second recovery changed something".into());
    }
    bind(writer)(writer);
    let repeated = Picture::of(&segment, slot);
    settle(&writers)?;
    no_faults("after the next writer did the same", &segment)?;
    let blocks_repeated = segment.audit().blocks;
    let has_room = next_writer_works(writer)?;
    if let Some(beside) = &stage.beside {
        let outcome = beside.writer.add(&beside.counter, 1);
        let shown = Picture::of(&segment, slot).number("alive{}");
        if outcome != Outcome::Applied || shown != Some(6.0) {
            return Err(format!("who lives beside counted ({outcome:?}) and sees {shown:?}"));
        }
    }
    for name in segment.metrics().into_iter().map(|meta| meta.name) {
        if let Some((metric, _)) = writer.find_metric(&name) {
            writer.clear(metric);
        }
    }
    settle(&writers)?;
    no_faults("when all is removed", &segment)?;
    let emptied = segment.audit().blocks;
    match segment.usage().damage + reader.usage().damage {
        0 => Ok(Examined {
            left,
            recovered,
            repeated,
            blocks: audit.blocks,
            blocks_repeated,
            emptied,
            has_room,
        }),
        damage => Err(format!("{damage} accesses were outside of the segment")),
    }
}

/// Writers up to the one that takes over the slot of the dead one; that one is the last.
fn writers(segment: &Segment, slot: u16) -> Result<Vec<Writer>, String> {
    let mut writers = Vec::new();
    loop {
        let writer = segment.writer().map_err(|error| format!("no slot is free: {error}"))?;
        let taken = writer.slot();
        writers.push(writer);
        match taken {
            taken if taken == slot => return Ok(writers),
            taken if taken > slot => return Err(format!("slot {slot} is not free")),
            _ => {}
        }
    }
}

/// Makes passes until there is nothing left to do.
fn settle(writers: &[Writer]) -> Result<(), String> {
    let mut last = Reclaimed::default();
    for _ in 0..PASSES_MAX {
        for writer in writers {
            last = writer.reclaim_now();
        }
        if last == (Reclaimed { passed: true, ..Reclaimed::default() }) {
            return Ok(());
        }
    }
    Err(format!("after {PASSES_MAX} passes there is something left: {last:?}"))
}

fn no_faults(when: &str, segment: &Segment) -> Result<(), String> {
    match segment.audit().faults.first() {
        Some(fault) => Err(format!("{when}: {fault}")),
        None => Ok(()),
    }
}

/// A new metric, a new series, and a value that is shown; `false` when the segment has no room for a metric.
fn next_writer_works(writer: &Writer) -> Result<bool, String> {
    let spec = MetricSpec { name: "next", help: "", unit: "", shape: Shape::Counter };
    let metric = match writer.metric(&spec) {
        Ok(metric) => metric,
        Err(agent_shm::Error::Full { .. }) => return Ok(false),
        Err(error) => return Err(format!("the next writer gets no metric: {error}")),
    };
    let series = match writer.series(metric, "who=\"next\"") {
        Ok(series) if series.is_overflow() => return Ok(false),
        Err(agent_shm::Error::Full { .. }) => return Ok(false),
        Ok(series) => series,
        Err(error) => return Err(format!("the next writer gets no series: {error}")),
    };
    let outcome = writer.add(&series, 7);
    let shown = Picture::of(writer.segment(), 0).number("next{who=\"next\"}");
    match (outcome, shown) {
        (Outcome::Applied, Some(7.0)) => Ok(true),
        _ => Err(format!("the next writer counted 7 ({outcome:?}) and sees {shown:?}")),
    }
}
