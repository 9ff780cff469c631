//! What a page says of numbers that are not on it: so that a partial total is not taken for a whole one.

use agent_metric::{FamilyHead, FamilyKind, FamilyVisitor, OwnedShape, Piece, Sample, SampleValue};
use agent_shm::View;

use super::labels::AppLabels;
use super::plan::Merged;
use super::{Skipped, Source};
use agent_metric::own::{DAMAGED, LOST, PRIVATE, SUPERSEDED};

const PRIVATE_HELP: &str =
    "Metrics that a process counts in memory of its own, because the segment \
                            had no room or could not be used: times that it happened.";
const LOST_HELP: &str =
    "Updates that a process could keep nowhere: neither the segment nor its own memory \
                         had room.";
const SUPERSEDED_HELP: &str = "Metrics that are not shown, because a newer definition of the name \
                               is: old processes may still count in them.";
const DAMAGED_HELP: &str = "Series and families that are not shown, because their labels or \
                            their name are damaged in memory.";

/// Writes a sample for each source that has something to say.
pub fn write(
    visitor: &mut dyn FamilyVisitor,
    sources: &[Source<'_>],
    views: &[View<'_>],
    families: &[Merged<'_>],
    left_out: &[Skipped],
    out: &mut Vec<u8>,
) {
    let fallbacks = sources.iter().map(|source| source.segment.usage().fallbacks);
    let lost = sources.iter().map(|source| source.segment.usage().lost);
    let superseded = views.iter().map(|view| view.superseded() as u64);
    let damaged = left_out.iter().map(|skipped| skipped.damaged);
    let all: [(&str, &str, FamilyKind, Vec<u64>); 4] = [
        (PRIVATE, PRIVATE_HELP, FamilyKind::Counter, fallbacks.collect()),
        (LOST, LOST_HELP, FamilyKind::Counter, lost.collect()),
        (SUPERSEDED, SUPERSEDED_HELP, FamilyKind::Gauge, superseded.collect()),
        (DAMAGED, DAMAGED_HELP, FamilyKind::Gauge, damaged.collect()),
    ];
    for (name, help, kind, numbers) in all {
        let is_taken = families.iter().any(|family| family.name == name);
        if is_taken || numbers.iter().all(|number| *number == 0) {
            continue;
        }
        let head = FamilyHead { name, help, unit: "", kind, is_native: false };
        visitor.family(&head, Piece::All, out);
        for (source, number) in sources.iter().zip(numbers).filter(|(_, number)| *number > 0) {
            let mut app = source.app.map(|app| AppLabels::of(app, &OwnedShape::Counter));
            let labels = app.as_mut().and_then(|app| app.with(b"")).unwrap_or(b"");
            let value = match kind {
                FamilyKind::Counter => SampleValue::Counter { whole: number, fraction: 0.0 },
                _ => SampleValue::Number(number as f64),
            };
            visitor.sample(&Sample::new(labels, value), out);
        }
    }
}
