//! One page of metrics out of many segments.
//!
//! ```text
//! collector's segment --+
//! segment of app shop --+-> families by name -> one HELP/TYPE each -> samples -> pieces of 64 KiB
//! gateway groups -------+   (whoever was there first wins)
//! ```
//!
//! A family that several sources have is written once, with the samples of all. When they disagree on what a name is, the one
//! with which the name first appeared wins (`scrape/plan.rs`); the others are left out and counted ([`Skipped`]), because a
//! page that says both is refused as a whole by its reader. A name is also taken by the samples of a family (`x_count` and
//! `x_created` of histogram `x`). Of a label set that several of them have, the family that was there first shows it.
//!
//! Foreign segments are not trusted: a name or label text that would break the page is left out, and so is a label set that
//! one of them has twice. What is damaged is left out of any segment.
//!
//! Cost: a view of each segment (16 bytes a series), then one pass; the output is flushed every
//! [`PIECE_BYTES`] and never collected. Not promised: that series of different segments are of the
//! same instant.

mod disputes;
mod incomplete;
mod labels;
mod names;
mod plan;
mod write;

use std::sync::Arc;

use agent_metric::FamilyVisitor;
use agent_shm::{Segment, SeriesId, View};
use agent_wire::{encoder, Format};

use crate::apps::App;
use crate::http::gateway_group::Group;
use plan::Plan;
use write::{Flush, Page};

pub use disputes::{disputes, Repeated};
pub use labels::LabelSets;
pub use names::{clash, Claim, Conflict, Names, Owner, Type};
pub use plan::{refused, Candidate};

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
    /// Of a shared folder: it gets the names that nobody else has.
    pub is_shared: bool,
    /// Its file was not made before, unix ms: what it says of its own times may be a lie.
    pub born_unix_ms: u64,
    /// Where summaries get their quantiles; without it they have a sum and a count.
    pub quantiles: Option<Quantiles<'a>>,
}

impl<'a> Source<'a> {
    pub fn own(segment: &'a Segment) -> Source<'a> {
        Source { segment, app: None, is_shared: false, born_unix_ms: 0, quantiles: None }
    }

    pub fn of_app(segment: &'a Segment, app: &'a str) -> Source<'a> {
        Source { segment, app: Some(app), is_shared: false, born_unix_ms: 0, quantiles: None }
    }

    pub fn of(app: &'a App) -> Source<'a> {
        let of_file = Source::of_app(&app.segment, &app.name);
        Source { is_shared: app.is_shared, born_unix_ms: app.born_unix_ms, ..of_file }
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
    /// Series that another family before has with the same labels.
    pub repeated: u64,
    /// Series and families whose labels or name are damaged.
    pub damaged: u64,
    /// Not left out: series whose sum is infinite, because finite values were too large for it.
    pub infinite_sums: u64,
}

impl Skipped {
    /// The counts by the value of the label `reason`.
    pub fn by_reason(&self) -> [(&'static str, u64); 6] {
        [
            ("type_conflict", self.type_conflicts),
            ("bad_name", self.bad_names),
            ("bad_bounds", self.bad_bounds),
            ("bad_labels", self.bad_labels),
            ("series_repeated", self.repeated),
            ("damaged", self.damaged),
        ]
    }

    fn add(&mut self, more: &Skipped) {
        self.type_conflicts += more.type_conflicts;
        self.bad_names += more.bad_names;
        self.bad_bounds += more.bad_bounds;
        self.bad_labels += more.bad_labels;
        self.repeated += more.repeated;
        self.damaged += more.damaged;
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

/// As [`visit`], with the encoder of a format.
pub fn render_pieces(
    sources: &[Source<'_>],
    pushed: &[Arc<Group>],
    format: Format,
    out: &mut Vec<u8>,
    flush: Flush<'_>,
) -> LeftOut {
    visit(sources, pushed, &mut *encoder::of(format), out, flush)
}

/// Tells `visitor` all families. What it writes to `out` goes to `flush` when it is large: that takes what it wants and
/// says whether to go on; the last part is left in `out`.
pub fn visit(
    sources: &[Source<'_>],
    pushed: &[Arc<Group>],
    visitor: &mut dyn FamilyVisitor,
    out: &mut Vec<u8>,
    flush: Flush<'_>,
) -> LeftOut {
    let views: Vec<View<'_>> = sources.iter().map(|source| source.segment.view()).collect();
    let Plan { families, left_out, .. } = Plan::of(&views, sources, pushed);
    Page::new(sources, visitor, left_out).write(&families, &views, out, flush)
}

#[cfg(test)]
#[path = "scrape_test.rs"]
mod tests;
