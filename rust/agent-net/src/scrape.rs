//! One page of metrics out of many segments.
//!
//! ```text
//! collector's segment --+
//! segment of app shop --+-> families by name -> one HELP/TYPE each -> samples -> pieces of 64 KiB
//! gateway groups -------+   (first wins)
//! ```
//!
//! Order: the collector first, then the apps by name, then the pushed groups; a family that several
//! of them have is written once, with the samples of all. When they disagree on what a name is, the
//! first wins; the others are left out and counted ([`Skipped`]), because a page that says both is
//! refused as a whole by its reader. A name is also taken by the samples of a family (`x_count` and
//! `x_created` of histogram `x`). Of a label set that several of them have, the first wins as well.
//!
//! Foreign segments are not trusted: a name or label text that would break the page is left out.
//!
//! Cost: a view of each segment (16 bytes a series), then one pass; the output is flushed every
//! [`PIECE_BYTES`] and never collected. Not promised: that series of different segments are of the
//! same instant.

mod incomplete;
mod labels;
mod names;
mod write;

use std::collections::HashMap;

use agent_metric::{bounds, OwnedShape};
use agent_shm::{FamilyView, Segment, SeriesId, View};
use agent_wire::Format;

use crate::http::gateway_group::{Family, Group};
use labels::AppLabels;
use write::{Flush, Page};

pub use labels::LabelSets;
pub use names::{clash, Claim, Conflict, Names, Owner, Type};

/// The output is handed on when it has grown to this size.
pub const PIECE_BYTES: usize = 64 << 10;

/// Quantiles of a summary, as (quantile, value) in ascending order.
pub type Quantiles<'a> = &'a dyn Fn(SeriesId, &mut Vec<(f64, f64)>);

/// One segment to render.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub segment: &'a Segment,
    /// The value of the label `app`; without it the samples have no such label and are trusted.
    pub app: Option<&'a str>,
    /// Where summaries get their quantiles; without it they have a sum and a count.
    pub quantiles: Option<Quantiles<'a>>,
}

impl<'a> Source<'a> {
    pub fn own(segment: &'a Segment) -> Source<'a> {
        Source { segment, app: None, quantiles: None }
    }

    pub fn of_app(segment: &'a Segment, app: &'a str) -> Source<'a> {
        Source { segment, app: Some(app), quantiles: None }
    }

    fn owner(&self) -> Owner<'a> {
        self.app.map_or(Owner::Collector, Owner::App)
    }
}

/// What a page leaves out of one source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Families that another source has with another type, or whose samples have a taken name.
    pub type_conflicts: u64,
    /// Families of apps whose name is no metric name.
    pub bad_names: u64,
    /// Histograms of apps whose bounds do not ascend.
    pub bad_bounds: u64,
    /// Series of apps whose label text is broken.
    pub bad_labels: u64,
    /// Series that another source before this one has with the same labels.
    pub repeated: u64,
    /// Not left out: series whose sum is infinite, because finite values were too large for it.
    pub infinite_sums: u64,
}

impl Skipped {
    /// The counts by the value of the label `reason`.
    pub fn by_reason(&self) -> [(&'static str, u64); 5] {
        [
            ("type_conflict", self.type_conflicts),
            ("bad_name", self.bad_names),
            ("bad_bounds", self.bad_bounds),
            ("bad_labels", self.bad_labels),
            ("series_repeated", self.repeated),
        ]
    }

    fn add(&mut self, more: &Skipped) {
        self.type_conflicts += more.type_conflicts;
        self.bad_names += more.bad_names;
        self.bad_bounds += more.bad_bounds;
        self.bad_labels += more.bad_labels;
        self.repeated += more.repeated;
        self.infinite_sums += more.infinite_sums;
    }
}

/// What a page leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// In the order of the sources.
    pub sources: Vec<Skipped>,
    /// Of pushed groups.
    pub pushed: Skipped,
}

/// Renders everything into `out`.
pub fn render(sources: &[Source<'_>], format: Format, out: &mut Vec<u8>) -> LeftOut {
    render_pieces(sources, &[], format, out, &mut |_| true)
}

/// Renders through `out`, handing it to `flush` when it is large. `flush` takes what it wants and
/// says whether to go on; the last part is left in `out`.
pub fn render_pieces(
    sources: &[Source<'_>],
    pushed: &[std::sync::Arc<Group>],
    format: Format,
    out: &mut Vec<u8>,
    flush: Flush<'_>,
) -> LeftOut {
    let views: Vec<View<'_>> = sources.iter().map(|source| source.segment.view()).collect();
    let (families, left_out) = plan(&views, sources, pushed);
    Page::new(sources, format, left_out).write(&families, &views, out, flush)
}

/// What the page has, sorted by name, and what it leaves out for its name.
fn plan<'a>(
    views: &'a [View<'a>],
    sources: &'a [Source<'a>],
    pushed: &'a [std::sync::Arc<Group>],
) -> (Vec<Merged<'a>>, LeftOut) {
    let mut left_out =
        LeftOut { sources: vec![Skipped::default(); sources.len()], ..LeftOut::default() };
    let mut plan = Plan::default();
    for (index, (view, source)) in views.iter().zip(sources).enumerate() {
        let skipped = &mut left_out.sources[index];
        for family in view.families() {
            let meta = family.meta();
            if source.app.is_some() && !agent_wire::name::is_metric_clean(meta.name.as_bytes()) {
                skipped.bad_names += 1;
                continue;
            }
            if matches!(&meta.shape, OwnedShape::Explicit(bounds) if !bounds::ascend(bounds)) {
                skipped.bad_bounds += 1;
                continue;
            }
            let part = Part::Cells { source: index, family };
            let kind = Type::of_shape(&meta.shape);
            let taken = plan.add(&meta.name, kind, source.owner(), part);
            skipped.type_conflicts += u64::from(!taken);
        }
    }
    for (index, group) in pushed.iter().enumerate() {
        for family in &group.families {
            let (base, kind) = Type::of_pushed(&family.name, family.kind);
            let part = Part::Pushed { group: index, family };
            let taken = plan.add(base, kind, Owner::Group(&group.key), part);
            left_out.pushed.type_conflicts += u64::from(!taken);
        }
    }
    (plan.into_families(), left_out)
}

/// A series that the page leaves out, because another source before has it.
pub struct Repeated<'a> {
    /// Name and labels.
    pub series: String,
    pub kind: Type,
    pub owner: Owner<'a>,
    pub holder: Owner<'a>,
}

/// The first `most` series that the page leaves out because they are there already.
pub fn repeated<'a>(
    sources: &[Source<'a>],
    pushed: &'a [std::sync::Arc<Group>],
    most: usize,
) -> Vec<Repeated<'a>> {
    let views: Vec<View<'_>> = sources.iter().map(|source| source.segment.view()).collect();
    let mut found = Vec::new();
    for family in plan(&views, sources, pushed).0.iter().filter(|family| family.parts.len() > 1) {
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
    found
}

/// The samples of a family that one source has.
enum Part<'a> {
    Cells { source: usize, family: &'a FamilyView<'a> },
    Pushed { group: usize, family: &'a Family },
}

/// A family of the page.
struct Merged<'a> {
    name: String,
    kind: Type,
    parts: Vec<Part<'a>>,
}

/// The families of the page, and the samples of each.
#[derive(Default)]
struct Plan<'a> {
    names: Names<'a>,
    /// By the index of the family in `names`.
    parts: Vec<Vec<Part<'a>>>,
}

impl<'a> Plan<'a> {
    fn add(&mut self, name: &str, kind: Type, owner: Owner<'a>, part: Part<'a>) -> bool {
        let Ok(index) = self.names.claim(name, kind, owner) else { return false };
        if index == self.parts.len() {
            self.parts.push(Vec::new());
        }
        self.parts[index].push(part);
        true
    }

    /// Sorted by name.
    fn into_families(self) -> Vec<Merged<'a>> {
        let claims = self.names.into_families().into_iter().zip(self.parts);
        let mut families: Vec<Merged<'a>> =
            claims.map(|(Claim { name, kind, .. }, parts)| Merged { name, kind, parts }).collect();
        families.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        families
    }
}

impl Merged<'_> {
    /// Whether all its series are native histograms. A family of both kinds is shown as classic.
    fn is_native(&self) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Cells { family, .. } => {
                matches!(family.meta().shape, OwnedShape::Exponential { .. })
            }
            Part::Pushed { .. } => false,
        })
    }
}

#[cfg(test)]
#[path = "scrape_test.rs"]
mod tests;
