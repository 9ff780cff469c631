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
//! refused as a whole by its reader. A name is also taken by the samples of a family (`x_count` of
//! histogram `x`).
//!
//! Foreign segments are not trusted: a name or label text that would break the page is left out.
//!
//! Cost: a view of each segment (16 bytes a series), then one pass; the output is flushed every
//! [`PIECE_BYTES`] and never collected. Not promised: that series of different segments are of the
//! same instant.

mod names;

use agent_shm::{octave, FamilyView, OwnedShape, Segment, SeriesId, SeriesView, Value, View};
use agent_wire::exposition::{Encoder, FamilyKind, Format};
use agent_wire::prometheus_text::SeriesValue;

use crate::http::gateway::Group;

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
}

/// What a page leaves out of one source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Families that another source has with another type, or whose samples have a taken name.
    pub type_conflicts: u64,
    /// Families of apps whose name is no metric name.
    pub bad_names: u64,
    /// Series of apps whose label text is broken.
    pub bad_labels: u64,
}

impl Skipped {
    /// The counts by the value of the label `reason`.
    pub fn by_reason(&self) -> [(&'static str, u64); 3] {
        [
            ("type_conflict", self.type_conflicts),
            ("bad_name", self.bad_names),
            ("bad_labels", self.bad_labels),
        ]
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
pub fn render_pieces<'g>(
    sources: &[Source<'_>],
    pushed: &'g [std::sync::Arc<Group>],
    format: Format,
    out: &mut Vec<u8>,
    flush: &mut dyn FnMut(&mut Vec<u8>) -> bool,
) -> LeftOut {
    let views: Vec<View<'_>> = sources.iter().map(|source| source.segment.view()).collect();
    let mut left_out =
        LeftOut { sources: vec![Skipped::default(); sources.len()], ..LeftOut::default() };
    let mut plan = Plan::default();
    for (index, (view, source)) in views.iter().zip(sources).enumerate() {
        let owner = source.app.map_or(Owner::Collector, Owner::App);
        let skipped = &mut left_out.sources[index];
        for family in view.families() {
            let name = &family.meta().name;
            if source.app.is_some() && !agent_wire::name::is_metric_clean(name.as_bytes()) {
                skipped.bad_names += 1;
                continue;
            }
            let part = Part::Cells { source: index, family };
            let kind = Type::of_shape(&family.meta().shape);
            skipped.type_conflicts += u64::from(!plan.add(name, kind, owner, part));
        }
    }
    for group in pushed {
        for family in &group.families {
            let (base, kind) = Type::of_pushed(&family.name, family.kind);
            let part = Part::Pushed { family };
            let taken = plan.add(base, kind, Owner::Group(&group.key), part);
            left_out.pushed.type_conflicts += u64::from(!taken);
        }
    }
    let page = Page { sources, encoder: Encoder::new(format), left_out, quantiles: Vec::new() };
    page.write(&plan.into_families(), out, flush)
}

/// The samples of a family that one source has.
enum Part<'a> {
    Cells { source: usize, family: &'a FamilyView<'a> },
    Pushed { family: &'a crate::http::gateway::Family },
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

/// The writer of one page.
struct Page<'a> {
    sources: &'a [Source<'a>],
    encoder: Encoder,
    left_out: LeftOut,
    quantiles: Vec<(f64, f64)>,
}

impl Page<'_> {
    fn write(
        mut self,
        families: &[Merged<'_>],
        out: &mut Vec<u8>,
        flush: &mut dyn FnMut(&mut Vec<u8>) -> bool,
    ) -> LeftOut {
        for family in families {
            self.header(family, out);
            for part in &family.parts {
                let goes_on = match part {
                    Part::Cells { source, family } => self.cells(*source, family, out, flush),
                    Part::Pushed { family } => {
                        self.pushed(family, out);
                        out.len() < PIECE_BYTES || flush(out)
                    }
                };
                if !goes_on {
                    return self.left_out;
                }
            }
        }
        self.encoder.finish(out);
        self.left_out
    }

    fn header(&mut self, family: &Merged<'_>, out: &mut Vec<u8>) {
        let mut help = family.parts.iter().map(|part| match part {
            Part::Cells { family, .. } => family.meta().help.as_str(),
            Part::Pushed { family, .. } => family.help.as_str(),
        });
        let help = help.find(|help| !help.is_empty()).unwrap_or("");
        let unit = family.parts.iter().find_map(|part| match part {
            Part::Cells { family, .. } => Some(family.meta().unit.as_str()),
            Part::Pushed { .. } => None,
        });
        let start = out.len();
        let kind = family.kind.kind();
        self.encoder.family(out, &family.name, help, unit.unwrap_or(""), kind);
        if family.kind == Type::BareCounter && self.encoder.format() == Format::Text004 {
            // The encoder knows counters by `_total` only.
            let said = b" untyped\n";
            if out[start..].ends_with(said) {
                out.truncate(out.len() - said.len());
                out.extend_from_slice(b" counter\n");
            }
        }
    }

    fn cells(
        &mut self,
        source: usize,
        family: &FamilyView<'_>,
        out: &mut Vec<u8>,
        flush: &mut dyn FnMut(&mut Vec<u8>) -> bool,
    ) -> bool {
        let (number, source) = (source, self.sources[source]);
        let mut app = source.app.map(AppLabels::new);
        let (encoder, quantiles) = (&self.encoder, &mut self.quantiles);
        let mut bad_labels = 0;
        let mut goes_on = true;
        let fine = match family.meta().shape {
            OwnedShape::Exponential { schema } => Some(schema),
            _ => None,
        };
        let mut coarse = Vec::new();
        family.for_each(&mut |series| {
            if !goes_on {
                return;
            }
            let labels = match &mut app {
                None => Some(series.labels),
                Some(app) => app.with(series.labels),
            };
            let Some(labels) = labels else {
                bad_labels += 1;
                return;
            };
            let mut series = series.clone();
            if let (Some(schema), Value::Histogram { buckets, .. }) = (fine, &mut series.value) {
                coarsen(buckets, schema, &mut coarse);
                *buckets = &coarse;
            }
            write_series(encoder, &series, labels, source.quantiles, quantiles, out);
            if out.len() >= PIECE_BYTES {
                goes_on = flush(out);
            }
        });
        self.left_out.sources[number].bad_labels += bad_labels;
        goes_on
    }

    fn pushed(&self, family: &crate::http::gateway::Family, out: &mut Vec<u8>) {
        let encoder = &self.encoder;
        // Only the pusher knows since when it counts, and some push it, as a gauge of that name.
        let created = None;
        for (labels, value) in &family.series {
            let labels = labels.as_bytes();
            match value {
                SeriesValue::Number(value) if family.kind == FamilyKind::Counter => {
                    encoder.counter(out, labels, 0, *value, created);
                }
                SeriesValue::Number(value) => encoder.gauge(out, labels, *value),
                SeriesValue::Histogram { buckets, sum } => {
                    encoder.histogram(out, labels, buckets, *sum, created)
                }
                SeriesValue::Summary { quantiles, sum, count } => {
                    encoder.summary(out, labels, quantiles, *sum, *count, created)
                }
            }
        }
    }
}

/// The buckets of an exponential histogram as a text page shows them: two an octave (bounds are
/// powers of the root of two), since every bound is a series to its reader. The bounds are the same
/// whatever was observed; more appear with new magnitudes. A bucket with something in it has its lower
/// bound too: a reader takes the bound before for that, and would else interpolate from zero.
fn coarsen(fine: &[(f64, u64)], schema: u8, coarse: &mut Vec<(f64, u64)>) {
    coarse.clear();
    let mut inside = 0;
    for &(upper, count) in fine {
        inside += count;
        if !octave::is_half_octave(upper) {
            continue;
        }
        // Around zero there is one bucket, whose lower bound is no power.
        if inside > 0 && upper > octave::SMALLEST && upper.is_finite() {
            let lower = if schema == 0 { upper / 2.0 } else { octave::half_octave_below(upper) };
            if coarse.last().is_none_or(|&(before, _)| before < lower) {
                coarse.push((lower, 0));
            }
        }
        coarse.push((upper, inside));
        inside = 0;
    }
}

#[inline]
fn write_series(
    encoder: &Encoder,
    series: &SeriesView<'_>,
    labels: &[u8],
    source: Option<Quantiles<'_>>,
    quantiles: &mut Vec<(f64, f64)>,
    out: &mut Vec<u8>,
) {
    let created = Some(series.created_unix_ms);
    match &series.value {
        Value::Counter { whole, fraction } => {
            encoder.counter(out, labels, *whole, *fraction, created)
        }
        Value::Gauge(value) => encoder.gauge(out, labels, *value),
        Value::GaugePerProcess(values) => {
            for (pid, value) in *values {
                encoder.gauge_of_process(out, labels, *pid, *value);
            }
        }
        Value::Histogram { sum, buckets, .. } => {
            encoder.histogram(out, labels, buckets, *sum, created)
        }
        Value::Summary { count, sum } => {
            quantiles.clear();
            if let Some(source) = source {
                source(series.id, quantiles);
            }
            encoder.summary(out, labels, quantiles, *sum, *count, created)
        }
    }
}

/// What [`inspect_labels`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Labels {
    Sound,
    /// Sound, with a label `app` of its own at this place.
    Clash(usize),
    Broken,
}

/// Whether label text of a foreign segment is what it must be: `name="value"` joined by commas,
/// values with `\\`, `\"` and `\n` escaped, UTF-8. By hand and in one pass: it is done for every
/// series.
fn inspect_labels(labels: &[u8]) -> Labels {
    if !labels.is_ascii() && std::str::from_utf8(labels).is_err() {
        return Labels::Broken;
    }
    let mut clash = None;
    let mut at = 0;
    while at < labels.len() {
        let start = at;
        while matches!(labels.get(at), Some(c) if c.is_ascii_alphanumeric() || *c == b'_') {
            at += 1;
        }
        let name = &labels[start..at];
        if name.first().is_none_or(u8::is_ascii_digit) || !labels[at..].starts_with(b"=\"") {
            return Labels::Broken;
        }
        if name == b"app" {
            clash = Some(start);
        }
        at += 2;
        loop {
            match labels.get(at) {
                Some(b'"') => break,
                Some(b'\\') if matches!(labels.get(at + 1), Some(b'\\' | b'"' | b'n')) => at += 2,
                None | Some(b'\n' | b'\\') => return Labels::Broken,
                Some(_) => at += 1,
            }
        }
        at += 1;
        match labels.get(at) {
            None => {}
            Some(b',') if at + 1 < labels.len() => at += 1,
            Some(_) => return Labels::Broken,
        }
    }
    clash.map_or(Labels::Sound, Labels::Clash)
}

/// The label text of one app: `app="shop"`, then what the series has. Built here and not by the
/// encoder's prefix, because the one pass over foreign label text finds a second `app` on its way.
struct AppLabels {
    text: Vec<u8>,
    prefix: usize,
}

impl AppLabels {
    fn new(app: &str) -> AppLabels {
        let mut text = String::from("app=\"");
        agent_wire::name::escape_label_value(app.as_bytes(), &mut text);
        text.push('"');
        AppLabels { prefix: text.len(), text: text.into_bytes() }
    }

    /// Nothing when the series' own labels are broken.
    #[inline]
    fn with(&mut self, labels: &[u8]) -> Option<&[u8]> {
        self.text.truncate(self.prefix);
        if labels.is_empty() {
            return Some(&self.text);
        }
        self.text.push(b',');
        match inspect_labels(labels) {
            Labels::Sound => self.text.extend_from_slice(labels),
            Labels::Clash(at) => {
                self.text.extend_from_slice(&labels[..at]);
                self.text.extend_from_slice(b"exported_");
                self.text.extend_from_slice(&labels[at..]);
            }
            Labels::Broken => return None,
        }
        Some(&self.text)
    }
}

#[cfg(test)]
#[path = "scrape_test.rs"]
mod tests;
