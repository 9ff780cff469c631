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

use std::collections::HashMap;

use agent_shm::{octave, FamilyView, OwnedShape, Segment, SeriesId, SeriesView, Value, View};
use agent_wire::exposition::{Encoder, FamilyKind, Format};
use agent_wire::prometheus_text::SeriesValue;

use crate::http::gateway::Group;

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

/// What a page leaves out.
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

/// Renders everything into `out`.
pub fn render(sources: &[Source<'_>], format: Format, out: &mut Vec<u8>) -> Skipped {
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
) -> Skipped {
    let views: Vec<View<'_>> = sources.iter().map(|source| source.segment.view()).collect();
    let mut skipped = Skipped::default();
    let mut plan = Plan::default();
    for (index, (view, source)) in views.iter().zip(sources).enumerate() {
        for family in view.families() {
            let name = &family.meta().name;
            if source.app.is_some() && !agent_wire::name::is_metric_clean(name.as_bytes()) {
                skipped.bad_names += 1;
                continue;
            }
            let part = Part::Cells { source: index, family };
            plan.add(name, Type::of_shape(&family.meta().shape), part, &mut skipped);
        }
    }
    for group in pushed {
        for family in &group.families {
            let (base, kind) = Type::of_pushed(&family.name, family.kind);
            plan.add(base, kind, Part::Pushed { group, family }, &mut skipped);
        }
    }
    let page = Page { sources, encoder: Encoder::new(format), skipped, quantiles: Vec::new() };
    page.write(plan, out, flush)
}

/// What a name is to a reader of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Counter,
    /// A pushed counter that is not called `_total`; it is shown under the name it was pushed with.
    BareCounter,
    Gauge,
    Histogram,
    Summary,
    Unknown,
}

impl Type {
    fn of_shape(shape: &OwnedShape) -> Type {
        match shape {
            OwnedShape::Counter => Type::Counter,
            OwnedShape::Gauge(_) => Type::Gauge,
            OwnedShape::Exponential { .. } | OwnedShape::Explicit(_) => Type::Histogram,
            OwnedShape::Summary(_) => Type::Summary,
        }
    }

    /// The family name in our sense (without `_total`) and the type of a pushed family.
    fn of_pushed(name: &str, kind: FamilyKind) -> (&str, Type) {
        match (kind, name.strip_suffix("_total")) {
            (FamilyKind::Counter, Some(base)) if !base.is_empty() => (base, Type::Counter),
            (FamilyKind::Counter, _) => (name, Type::BareCounter),
            (FamilyKind::Gauge, _) => (name, Type::Gauge),
            (FamilyKind::Histogram, _) => (name, Type::Histogram),
            (FamilyKind::Summary, _) => (name, Type::Summary),
            (FamilyKind::Unknown, _) => (name, Type::Unknown),
        }
    }

    fn kind(self) -> FamilyKind {
        match self {
            Type::Counter => FamilyKind::Counter,
            Type::Gauge => FamilyKind::Gauge,
            Type::Histogram => FamilyKind::Histogram,
            Type::Summary => FamilyKind::Summary,
            Type::BareCounter | Type::Unknown => FamilyKind::Unknown,
        }
    }

    /// What its samples add to the name.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Type::Counter => &["_total"],
            Type::Histogram => &["_bucket", "_sum", "_count"],
            Type::Summary => &["_sum", "_count"],
            Type::BareCounter | Type::Gauge | Type::Unknown => &[],
        }
    }
}

/// The samples of a family that one source has.
enum Part<'a> {
    Cells { source: usize, family: &'a FamilyView<'a> },
    Pushed { group: &'a Group, family: &'a crate::http::gateway::Family },
}

/// A family of the page.
struct Merged<'a> {
    name: String,
    kind: Type,
    parts: Vec<Part<'a>>,
}

/// Who has which name.
#[derive(Default)]
struct Plan<'a> {
    families: Vec<Merged<'a>>,
    /// Name of a family or of its samples -> index in `families`.
    taken: HashMap<String, usize>,
}

impl<'a> Plan<'a> {
    fn add(&mut self, name: &str, kind: Type, part: Part<'a>, skipped: &mut Skipped) {
        if let Some(&index) = self.taken.get(name) {
            let family = &mut self.families[index];
            if family.name == name && family.kind == kind {
                family.parts.push(part);
            } else {
                skipped.type_conflicts += 1;
            }
            return;
        }
        let names = || kind.suffixes().iter().map(|suffix| format!("{name}{suffix}"));
        if names().any(|name| self.taken.contains_key(&name)) {
            skipped.type_conflicts += 1;
            return;
        }
        let index = self.families.len();
        self.taken.extend(names().chain([name.to_owned()]).map(|name| (name, index)));
        self.families.push(Merged { name: name.to_owned(), kind, parts: vec![part] });
    }
}

/// The writer of one page.
struct Page<'a> {
    sources: &'a [Source<'a>],
    encoder: Encoder,
    skipped: Skipped,
    quantiles: Vec<(f64, f64)>,
}

impl Page<'_> {
    fn write(
        mut self,
        mut plan: Plan<'_>,
        out: &mut Vec<u8>,
        flush: &mut dyn FnMut(&mut Vec<u8>) -> bool,
    ) -> Skipped {
        plan.families.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for family in &plan.families {
            self.header(family, out);
            for part in &family.parts {
                let goes_on = match part {
                    Part::Cells { source, family } => self.cells(*source, family, out, flush),
                    Part::Pushed { group, family } => {
                        self.pushed(group, family, out);
                        out.len() < PIECE_BYTES || flush(out)
                    }
                };
                if !goes_on {
                    return self.skipped;
                }
            }
        }
        self.encoder.finish(out);
        self.skipped
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
        let source = self.sources[source];
        let mut app = source.app.map(AppLabels::new);
        let (encoder, quantiles) = (&self.encoder, &mut self.quantiles);
        let mut bad_labels = 0;
        let mut goes_on = true;
        let fine = matches!(family.meta().shape, OwnedShape::Exponential { .. });
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
            if let (true, Value::Histogram { buckets, .. }) = (fine, &mut series.value) {
                coarsen(buckets, &mut coarse);
                *buckets = &coarse;
            }
            write_series(encoder, &series, labels, source.quantiles, quantiles, out);
            if out.len() >= PIECE_BYTES {
                goes_on = flush(out);
            }
        });
        self.skipped.bad_labels += bad_labels;
        goes_on
    }

    fn pushed(&self, group: &Group, family: &crate::http::gateway::Family, out: &mut Vec<u8>) {
        let encoder = &self.encoder;
        let created = Some(group.created_unix_ms);
        for (labels, value) in &family.series {
            let labels = labels.as_bytes();
            match value {
                SeriesValue::Number(value) if family.kind == FamilyKind::Counter => {
                    let bare = !family.name.ends_with("_total");
                    encoder.counter(out, labels, 0, *value, created.filter(|_| !bare));
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
/// whatever was observed; more appear with new magnitudes.
fn coarsen(fine: &[(f64, u64)], coarse: &mut Vec<(f64, u64)>) {
    coarse.clear();
    let mut inside = 0;
    for &(upper, count) in fine {
        inside += count;
        if octave::is_half_octave(upper) {
            coarse.push((upper, inside));
            inside = 0;
        }
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
