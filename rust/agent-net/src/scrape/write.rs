//! The writing of a page, family by family.
//!
//! A family goes out in one piece; a histogram or summary that OpenMetrics does not have (see
//! [`agent_wire::exposition`]) goes out in pieces there. Whether it is one is looked at before its first line, so in that form
//! histograms and summaries are read twice.

use agent_metric::{FamilyHead, FamilyKind, FamilyVisitor, OwnedShape, Piece, Sample, SampleValue};
use agent_shm::{FamilyView, ProcessValue, Value, View};
use agent_wire::exposition::{is_below_zero, is_summary_below_zero};
use agent_wire::prometheus_text::SeriesValue;

use super::labels::{AppLabels, LabelSets, TextSet};
use super::plan::{Merged, Part};
use super::{incomplete, LeftOut, Quantiles, Skipped, Source, PIECE_BYTES};
use crate::http::gateway_group::Family;

/// Takes what it wants of the output; says whether to go on.
pub type Flush<'f> = &'f mut dyn FnMut(&mut Vec<u8>) -> bool;

/// The writer of one page.
pub struct Page<'a> {
    sources: &'a [Source<'a>],
    visitor: &'a mut dyn FamilyVisitor,
    left_out: LeftOut,
    quantiles: Vec<(f64, f64)>,
    sets: LabelSets,
    texts: TextSet,
}

/// What the samples of a family have in common while they are written.
#[derive(Clone, Copy)]
struct Turn {
    /// Several sources have the family: label sets may meet.
    is_merged: bool,
    /// The first piece: what is left out is counted once.
    is_first: bool,
}

impl<'a> Page<'a> {
    pub fn new(
        sources: &'a [Source<'a>],
        visitor: &'a mut dyn FamilyVisitor,
        left_out: LeftOut,
    ) -> Page<'a> {
        let (quantiles, sets, texts) = (Vec::new(), LabelSets::default(), TextSet::default());
        Page { sources, visitor, left_out, quantiles, sets, texts }
    }

    pub fn write(
        mut self,
        families: &[Merged<'_>],
        views: &[View<'_>],
        out: &mut Vec<u8>,
        flush: Flush<'_>,
    ) -> LeftOut {
        for family in families {
            let pieces: &[Piece] = match self.is_below_zero(family) {
                true => &Piece::EACH,
                false => &[Piece::All],
            };
            for (index, piece) in pieces.iter().enumerate() {
                self.header(family, *piece, out);
                let turn = Turn { is_merged: family.parts.len() > 1, is_first: index == 0 };
                if !self.samples(family, turn, out, flush) {
                    return self.left_out;
                }
            }
        }
        let skipped = &self.left_out.sources;
        incomplete::write(self.visitor, self.sources, views, families, skipped, out);
        self.visitor.finish(out);
        self.left_out
    }

    fn header(&mut self, family: &Merged<'_>, piece: Piece, out: &mut Vec<u8>) {
        let mut help = family.parts.iter().map(|part| match part {
            Part::Cells { family, .. } => family.meta().help.as_str(),
            Part::Pushed { family, .. } => family.help.as_str(),
        });
        let help = help.find(|help| !help.is_empty()).unwrap_or("");
        let unit = family.parts.iter().find_map(|part| match part {
            Part::Cells { family, .. } => Some(family.meta().unit.as_str()),
            Part::Pushed { .. } => None,
        });
        let head = FamilyHead {
            name: &family.name,
            help,
            unit: unit.unwrap_or(""),
            kind: family.kind,
            is_native: family.is_native(),
        };
        self.visitor.family(&head, piece, out);
    }

    /// Whether the family has to be written in pieces.
    fn is_below_zero(&mut self, family: &Merged<'_>) -> bool {
        let is_distribution = matches!(family.kind, FamilyKind::Histogram | FamilyKind::Summary);
        if !is_distribution || !self.visitor.wants_pieces() {
            return false;
        }
        let (sources, quantiles) = (self.sources, &mut self.quantiles);
        family.parts.iter().any(|part| match part {
            Part::Cells { source, family } => {
                cells_below_zero(family, sources[*source].quantiles, quantiles)
            }
            Part::Pushed { family, .. } => family.series.iter().any(|series| match &series.value {
                SeriesValue::Number(_) => false,
                SeriesValue::Histogram { buckets, sum } => is_below_zero(buckets, *sum),
                SeriesValue::Summary { quantiles, sum, .. } => {
                    is_summary_below_zero(quantiles, *sum)
                }
            }),
        })
    }

    fn samples(
        &mut self,
        family: &Merged<'_>,
        turn: Turn,
        out: &mut Vec<u8>,
        flush: Flush<'_>,
    ) -> bool {
        self.sets.clear();
        family.parts.iter().all(|part| match part {
            Part::Cells { source, family } => self.cells(*source, family, turn, out, flush),
            Part::Pushed { family, .. } => {
                self.pushed(family, turn, out);
                out.len() < PIECE_BYTES || flush(out)
            }
        })
    }

    fn cells(
        &mut self,
        number: usize,
        family: &FamilyView<'_>,
        turn: Turn,
        out: &mut Vec<u8>,
        flush: Flush<'_>,
    ) -> bool {
        let source = self.sources[number];
        let shape = &family.meta().shape;
        let mut app = source.app.map(|app| AppLabels::of(app, shape));
        let Page { visitor, quantiles, sets, texts, .. } = self;
        // What we wrote ourselves is there once.
        let mut texts = source.app.map(|_| texts.begin(family.len()));
        let mut skipped = Skipped::default();
        let mut goes_on = true;
        let damaged = family.for_each(&mut |series| {
            if !goes_on {
                return;
            }
            let labels = match &mut app {
                None => Some(series.labels),
                Some(app) => app.with(series.labels),
            };
            let Some(labels) = labels else {
                skipped.bad_labels += 1;
                return;
            };
            if texts.as_mut().is_some_and(|texts| !texts.insert(labels)) {
                skipped.repeated += 1;
                return;
            }
            // Of those of a process the set is whole with its number only.
            let is_of_process = matches!(series.value, Value::GaugePerProcess(_));
            if turn.is_merged && !is_of_process && !sets.insert(labels) {
                skipped.repeated += 1;
                return;
            }
            if let Value::Histogram { sum, .. } | Value::Summary { sum, .. } = series.value {
                skipped.infinite_sums += u64::from(sum.is_infinite());
            }
            let created_unix_ms = Some(series.created_unix_ms);
            let mut tell = |value: SampleValue<'_>| {
                let has_plain_bounds = false;
                visitor.sample(&Sample { labels, created_unix_ms, value, has_plain_bounds }, out);
            };
            if let Value::GaugePerProcess(values) = series.value {
                let sets = turn.is_merged.then_some(&mut *sets);
                skipped.repeated += each_process(labels, &values, sets, &mut tell);
            } else {
                quantiles.clear();
                if let (Value::Summary { .. }, Some(source)) = (&series.value, source.quantiles) {
                    source(series.id, quantiles);
                }
                if let Some(value) = value_of(&series.value, shape, quantiles) {
                    tell(value);
                }
            }
            if out.len() >= PIECE_BYTES {
                goes_on = flush(out);
            }
        });
        skipped.damaged += damaged;
        if turn.is_first {
            self.left_out.sources[number].add(&skipped);
        }
        goes_on
    }

    fn pushed(&mut self, family: &Family, turn: Turn, out: &mut Vec<u8>) {
        for series in &family.series {
            if turn.is_merged && !self.sets.insert(series.labels.as_bytes()) {
                self.left_out.pushed.repeated += u64::from(turn.is_first);
                continue;
            }
            self.visitor.sample(&series.sample(family.kind), out);
        }
    }
}

fn cells_below_zero(
    family: &FamilyView<'_>,
    source: Option<Quantiles<'_>>,
    quantiles: &mut Vec<(f64, f64)>,
) -> bool {
    if let OwnedShape::Explicit(bounds) = &family.meta().shape {
        if bounds.first().is_some_and(|bound| *bound < 0.0) {
            return true;
        }
    }
    let mut found = false;
    family.for_each(&mut |series| {
        found = found
            || match series.value {
                // What the page shows of a native one has positive bounds only.
                Value::Histogram { sum, .. } => is_below_zero(&[], sum),
                Value::Summary { sum, .. } => {
                    quantiles.clear();
                    if let Some(source) = source {
                        source(series.id, quantiles);
                    }
                    is_summary_below_zero(quantiles, sum)
                }
                _ => false,
            };
    });
    found
}

/// The one value of a series of a segment; a gauge by process has none, see [`each_process`].
#[inline]
fn value_of<'v>(
    value: &'v Value<'_>,
    shape: &OwnedShape,
    quantiles: &'v [(f64, f64)],
) -> Option<SampleValue<'v>> {
    Some(match (value, shape) {
        (&Value::Counter { whole, fraction }, _) => SampleValue::Counter { whole, fraction },
        (&Value::Gauge(value), _) => SampleValue::Number(value),
        (&Value::Histogram { sum, ref buckets, .. }, &OwnedShape::Exponential { schema }) => {
            SampleValue::Native { schema, buckets, sum }
        }
        (&Value::Histogram { sum, ref buckets, .. }, _) => SampleValue::Histogram { buckets, sum },
        (&Value::Summary { count, sum }, _) => SampleValue::Summary { quantiles, sum, count },
        (Value::GaugePerProcess(_), _) => return None,
    })
}

/// One sample a process; gives how many were there already.
fn each_process(
    labels: &[u8],
    values: &[ProcessValue],
    sets: Option<&mut LabelSets>,
    tell: &mut dyn FnMut(SampleValue<'_>),
) -> u64 {
    let mut here = LabelSets::default();
    let sets = sets.unwrap_or(&mut here);
    let mut repeated = 0;
    for process in values {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut set = labels.to_vec();
        set.extend_from_slice(format!("{comma}pid=\"{}\"", process.id()).as_bytes());
        if sets.insert(&set) {
            let ProcessValue { pid, twin, value } = *process;
            tell(SampleValue::OfProcess { pid, twin, value });
        } else {
            repeated += 1;
        }
    }
    repeated
}
