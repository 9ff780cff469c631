//! Who lost what to whom: the families and series that a page leaves out because they are there already.
//!
//! For the status document; a page only counts them. It costs what a page costs.

use std::collections::HashMap;
use std::sync::Arc;

use agent_metric::FamilyKind;
use agent_shm::View;

use super::labels::{AppLabels, LabelSets};
use super::names::{Conflict, Owner};
use super::plan::{Merged, Part, Plan};
use super::Source;
use crate::http::gateway_group::Group;

/// A series that the page leaves out, because a family that was there before has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated<'a> {
    /// Name and labels.
    pub series: String,
    pub kind: FamilyKind,
    pub owner: Owner<'a>,
    pub holder: Owner<'a>,
}

/// All families that are left out for their name, and the first `most` series.
pub fn disputes<'a>(
    sources: &[Source<'a>],
    pushed: &'a [Arc<Group>],
    most: usize,
) -> (Vec<Conflict<'a>>, Vec<Repeated<'a>>) {
    let views: Vec<View<'_>> = sources.iter().map(|source| source.segment.view()).collect();
    let plan = Plan::of(&views, sources, pushed);
    let mut found = Vec::new();
    for family in plan.families.iter().filter(|family| family.parts.len() > 1) {
        repeated(family, sources, pushed, most, &mut found);
    }
    (plan.conflicts, found)
}

fn repeated<'a>(
    family: &Merged<'_>,
    sources: &[Source<'a>],
    pushed: &'a [Arc<Group>],
    most: usize,
    found: &mut Vec<Repeated<'a>>,
) {
    let sets = LabelSets::default();
    let mut holders = HashMap::new();
    let mut take = |labels: &[u8], owner: Owner<'a>| {
        let holder = *holders.entry(sets.key(labels)).or_insert(owner);
        if holder != owner && found.len() < most {
            let series = format!("{}{{{}}}", family.name, String::from_utf8_lossy(labels));
            found.push(Repeated { series, kind: family.kind, owner, holder });
        }
    };
    for part in &family.parts {
        match *part {
            Part::Cells { source, family } => {
                let source = sources[source];
                let mut app = source.app.map(|app| AppLabels::of(app, &family.meta().shape));
                family.for_each(&mut |series| match &mut app {
                    None => take(series.labels, source.owner()),
                    Some(app) => {
                        if let Some(labels) = app.with(series.labels) {
                            take(labels, source.owner());
                        }
                    }
                });
            }
            Part::Pushed { group, family } => family.series.iter().for_each(|series| {
                take(series.labels.as_bytes(), Owner::Group(&pushed[group].key))
            }),
        }
    }
}
