//! What a page has and what it leaves out: which family stands under which name, with the samples of whom.
//!
//! Whoever asks for a name is a [`Candidate`] with the time at which the name first appeared with its type: in a segment the
//! birth of the metric, in a pushed group the push that brought it. Names are given in the order of these times, so the one
//! that was there first keeps its name, however files are called, and after every restart of the collector; at one time the
//! order of the sources decides. The collector's own `agent_*` come before all others. Those of shared folders come after
//! all others, whatever their times are: who owns one writes them.
//!
//! Limits: times are of the wall clock, all of one machine, in steps of 4 ms; none is before its segment was made.
//! Not promised: the order of what was made while the clock was set back. A segment that lies about its times can say no
//! time before that at which the kernel saw its file made, where the file system keeps that.

use std::sync::Arc;

use agent_metric::{bounds, OwnedShape};
use agent_shm::{FamilyView, MetricMeta, View};

use super::names::{Claim, Conflict, Names, Owner, Type};
use super::{LeftOut, Skipped, Source};
use crate::http::gateway_group::{Family, Group};

/// What the names of the collector's own metrics begin with.
const OWN: &str = "agent_";

/// A family that asks for its names.
pub struct Candidate<'a> {
    pub claim: Claim<'a>,
    /// When the name first appeared with this type there.
    pub first_unix_ms: u64,
    /// Of a shared folder.
    pub is_shared: bool,
}

impl<'a> Candidate<'a> {
    pub fn of_metric(meta: &MetricMeta, source: &Source<'a>) -> Candidate<'a> {
        let (owner, is_shared) = (source.owner(), source.is_shared);
        let made_unix_ms = source.segment.header().created_unix_ms.max(source.born_unix_ms);
        let is_own = owner == Owner::Collector && meta.name.starts_with(OWN);
        let first_unix_ms = if is_own { 0 } else { meta.first_unix_ms.max(made_unix_ms) };
        let (name, kind) = (meta.name.clone(), Type::of_shape(&meta.shape));
        Candidate { claim: Claim { name, kind, owner }, first_unix_ms, is_shared }
    }

    /// Whose turn it is to ask: the smallest first.
    fn turn(&self) -> (bool, u64) {
        (self.is_shared, self.first_unix_ms)
    }

    /// What a segment has, without its series.
    pub fn all_of_segment(source: &Source<'a>) -> Vec<Candidate<'a>> {
        let metrics = source.segment.metrics();
        let sound = metrics.iter().filter(|meta| fault_of(meta, source.owner()).is_none());
        sound.map(|meta| Candidate::of_metric(meta, source)).collect()
    }

    pub fn of_pushed(family: &Family, group: &'a Group) -> Candidate<'a> {
        let (name, kind) = Type::of_pushed(&family.name, family.kind);
        let claim = Claim { name: name.to_owned(), kind, owner: Owner::Group(&group.key) };
        Candidate { claim, first_unix_ms: family.first_unix_ms, is_shared: false }
    }

    pub fn all_of_group(group: &'a Group) -> impl Iterator<Item = Candidate<'a>> {
        group.families.iter().map(|family| Candidate::of_pushed(family, group))
    }
}

/// The conflicts of those whose name another one has that came before.
pub fn refused<'a>(mut candidates: Vec<Candidate<'a>>) -> Vec<Conflict<'a>> {
    candidates.sort_by_key(Candidate::turn);
    let mut names = Names::of_page();
    candidates.into_iter().filter_map(|candidate| names.claim(candidate.claim).err()).collect()
}

/// The samples of a family that one source has.
pub enum Part<'v> {
    Cells { source: usize, family: &'v FamilyView<'v> },
    Pushed { group: usize, family: &'v Family },
}

/// A family of the page.
pub struct Merged<'v> {
    pub name: String,
    pub kind: Type,
    /// Whoever had the name first comes first.
    pub parts: Vec<Part<'v>>,
}

impl Merged<'_> {
    /// Whether all its series are native histograms. A family of both kinds is shown as classic.
    pub fn is_native(&self) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Cells { family, .. } => {
                matches!(family.meta().shape, OwnedShape::Exponential { .. })
            }
            Part::Pushed { .. } => false,
        })
    }
}

/// What the page has, and what it leaves out for its name.
pub struct Plan<'v, 'a> {
    /// Sorted by name.
    pub families: Vec<Merged<'v>>,
    pub left_out: LeftOut,
    pub conflicts: Vec<Conflict<'a>>,
}

impl<'v, 'a: 'v> Plan<'v, 'a> {
    pub fn of(
        views: &'v [View<'v>],
        sources: &[Source<'a>],
        pushed: &'a [Arc<Group>],
    ) -> Plan<'v, 'a> {
        let mut left_out =
            LeftOut { sources: vec![Skipped::default(); sources.len()], ..LeftOut::default() };
        let mut asking = candidates(views, sources, pushed, &mut left_out);
        asking.sort_by_key(|(candidate, _)| candidate.turn());
        let mut names = Names::of_page();
        let mut parts: Vec<Vec<Part<'v>>> = Vec::new();
        let mut conflicts = Vec::new();
        for (candidate, part) in asking {
            match names.claim(candidate.claim) {
                Ok(index) => {
                    parts.resize_with(parts.len().max(index + 1), Vec::new);
                    parts[index].push(part);
                }
                Err(conflict) => {
                    match part {
                        Part::Cells { source, .. } => left_out.sources[source].type_conflicts += 1,
                        Part::Pushed { .. } => left_out.pushed.type_conflicts += 1,
                    }
                    conflicts.push(conflict);
                }
            }
        }
        let claims = names.into_families().into_iter().zip(parts);
        let mut families: Vec<Merged<'v>> = claims
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(Claim { name, kind, .. }, parts)| Merged { name, kind, parts })
            .collect();
        families.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Plan { families, left_out, conflicts }
    }
}

/// All that ask for a name, in the order of the sources; what cannot be shown under any is counted.
fn candidates<'v, 'a: 'v>(
    views: &'v [View<'v>],
    sources: &[Source<'a>],
    pushed: &'a [Arc<Group>],
    left_out: &mut LeftOut,
) -> Vec<(Candidate<'a>, Part<'v>)> {
    let mut asking = Vec::new();
    for (index, (view, source)) in views.iter().zip(sources).enumerate() {
        let (owner, skipped) = (source.owner(), &mut left_out.sources[index]);
        skipped.damaged += view.damaged();
        for family in view.families() {
            match fault_of(family.meta(), owner) {
                Some(Fault::Name) => skipped.bad_names += 1,
                Some(Fault::Bounds) => skipped.bad_bounds += 1,
                None => {
                    let candidate = Candidate::of_metric(family.meta(), source);
                    asking.push((candidate, Part::Cells { source: index, family }));
                }
            }
        }
    }
    for (index, group) in pushed.iter().enumerate() {
        for family in &group.families {
            let part = Part::Pushed { group: index, family };
            asking.push((Candidate::of_pushed(family, group), part));
        }
    }
    asking
}

/// Why a family of a segment cannot be shown under any name.
enum Fault {
    Name,
    Bounds,
}

fn fault_of(meta: &MetricMeta, owner: Owner<'_>) -> Option<Fault> {
    let is_foreign = owner != Owner::Collector;
    if is_foreign && !agent_wire::name::is_metric_clean(meta.name.as_bytes()) {
        return Some(Fault::Name);
    }
    match &meta.shape {
        OwnedShape::Explicit(bounds) if !bounds::ascend(bounds) => Some(Fault::Bounds),
        _ => None,
    }
}
