//! Puts the lines of a body together to families and series.

use std::borrow::Cow;
use std::collections::HashMap;

use super::line::{Fault, Line, Sample};
use super::{Family, Series, SeriesValue, TextError};
use crate::{Limits, Reject};
use agent_metric::name::suffix;
use agent_metric::FamilyKind;

/// Counts above this are not exact in the f64 they arrive in.
const COUNT_MAX: f64 = 9_007_199_254_740_992.0;

pub(super) struct Builder<'a, 'l> {
    limits: &'l Limits,
    families: Vec<Draft<'a>>,
    by_name: HashMap<&'a str, usize>,
    /// (family, label text without `le` and `quantile`) -> position among its series.
    by_labels: HashMap<(usize, String), usize>,
    samples: usize,
}

struct Draft<'a> {
    name: &'a str,
    help: Option<String>,
    kind: Option<FamilyKind>,
    series: Vec<SeriesDraft<'a>>,
}

struct SeriesDraft<'a> {
    labels: Vec<(&'a str, Cow<'a, str>)>,
    line: usize,
    timestamp_ms: Option<i64>,
    /// Value of a plain sample.
    number: Option<f64>,
    /// (`le` or `quantile`, value).
    points: Vec<(f64, f64)>,
    has_plain_bounds: bool,
    sum: Option<f64>,
    count: Option<f64>,
}

/// Which part of a series a sample is.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Number,
    Point,
    Sum,
    Count,
}

fn fault<T>(detail: impl Into<String>) -> Result<T, Fault> {
    Err((Reject::TextMalformed, detail.into()))
}

impl<'a, 'l> Builder<'a, 'l> {
    pub fn new(limits: &'l Limits) -> Self {
        Builder {
            limits,
            families: Vec::new(),
            by_name: HashMap::new(),
            by_labels: HashMap::new(),
            samples: 0,
        }
    }

    pub fn add(&mut self, number: usize, line: Line<'a>) -> Result<(), Fault> {
        match line {
            Line::Nothing => Ok(()),
            Line::Help { name, text } => {
                let family = self.family(name);
                if self.families[family].help.replace(text).is_some() {
                    return fault(format!("a second HELP of {name}"));
                }
                Ok(())
            }
            Line::Type { name, kind } => {
                let family = self.family(name);
                let family = &mut self.families[family];
                if !family.series.is_empty() {
                    return fault(format!("TYPE of {name} behind its samples"));
                }
                if family.kind.replace(kind).is_some() {
                    return fault(format!("a second TYPE of {name}"));
                }
                Ok(())
            }
            Line::Sample(sample) => self.add_sample(number, sample),
        }
    }

    fn family(&mut self, name: &'a str) -> usize {
        let next = self.families.len();
        let index = *self.by_name.entry(name).or_insert(next);
        if index == next {
            self.families.push(Draft { name, help: None, kind: None, series: Vec::new() });
        }
        index
    }

    /// The family of a sample's name and the part it is: `x_sum` belongs to a histogram `x` if
    /// there is one, otherwise it is a family of its own.
    fn place(&mut self, name: &'a str) -> Result<(usize, Part), Fault> {
        for (suffix, part) in
            [(suffix::BUCKET, Part::Point), (suffix::SUM, Part::Sum), (suffix::COUNT, Part::Count)]
        {
            let owner = name.strip_suffix(suffix).and_then(|base| self.by_name.get(base));
            let Some(&family) = owner else { continue };
            match self.families[family].kind {
                Some(FamilyKind::Histogram) => return Ok((family, part)),
                Some(FamilyKind::Summary) if part != Part::Point => return Ok((family, part)),
                _ => {}
            }
        }
        let family = self.family(name);
        match self.families[family].kind {
            Some(FamilyKind::Histogram) => {
                fault(format!("{name} is a histogram, which has no sample of this name"))
            }
            Some(FamilyKind::Summary) => Ok((family, Part::Point)),
            _ => Ok((family, Part::Number)),
        }
    }

    fn add_sample(&mut self, line: usize, mut sample: Sample<'a>) -> Result<(), Fault> {
        self.samples += 1;
        if self.samples > self.limits.body_samples_max {
            let detail = format!("a body has at most {} samples", self.limits.body_samples_max);
            return Err((Reject::SamplesTooMany, detail));
        }
        let (family, part) = self.place(sample.name)?;
        let kind = self.families[family].kind.unwrap_or(FamilyKind::Unknown);
        if kind == FamilyKind::Counter {
            check_counter(sample.value)?;
        }
        let (at, is_plain) = match part {
            Part::Point => take_bound(kind, &mut sample.labels)?,
            _ => (0.0, false),
        };
        sample.labels.retain(|(_, value)| !value.is_empty());
        sample.labels.sort_unstable_by_key(|(name, _)| *name);
        let index = self.series(family, line, &mut sample);
        let series = &mut self.families[family].series[index];
        series.timestamp_ms = series.timestamp_ms.or(sample.timestamp_ms);
        let before = match part {
            Part::Number => series.number.replace(sample.value),
            Part::Sum => series.sum.replace(sample.value),
            Part::Count => series.count.replace(sample.value),
            Part::Point => {
                series.points.push((at, sample.value));
                series.has_plain_bounds |= is_plain;
                None
            }
        };
        match before {
            Some(_) => fault(format!("{} is there twice with the same labels", sample.name)),
            None => Ok(()),
        }
    }

    /// The series of these labels, made if it is new.
    fn series(&mut self, family: usize, line: usize, sample: &mut Sample<'a>) -> usize {
        let mut key = String::new();
        for (name, value) in &sample.labels {
            key.push_str(name);
            key.push_str("=\"");
            agent_metric::name::escape_label_value(value.as_bytes(), &mut key);
            key.push_str("\",");
        }
        let all = &mut self.families[family].series;
        let next = all.len();
        let index = *self.by_labels.entry((family, key)).or_insert(next);
        if index == next {
            all.push(SeriesDraft {
                labels: std::mem::take(&mut sample.labels),
                line,
                timestamp_ms: None,
                number: None,
                points: Vec::new(),
                has_plain_bounds: false,
                sum: None,
                count: None,
            });
        }
        index
    }

    /// The families that have samples or a type.
    pub fn finish(self) -> Result<Vec<Family<'a>>, TextError> {
        let mut done = Vec::with_capacity(self.families.len());
        for draft in self.families {
            if draft.series.is_empty() && draft.kind.is_none() {
                continue;
            }
            let kind = draft.kind.unwrap_or(FamilyKind::Unknown);
            let mut series = Vec::with_capacity(draft.series.len());
            for mut part in draft.series {
                let value = value_of(kind, &mut part).map_err(|detail| {
                    let detail = format!("{}: {detail}", draft.name);
                    TextError::new(part.line, Reject::TextMalformed, detail)
                })?;
                let SeriesDraft { labels, line, timestamp_ms, has_plain_bounds, .. } = part;
                series.push(Series { labels, value, has_plain_bounds, timestamp_ms, line });
            }
            let (name, help) = (Cow::Borrowed(draft.name), draft.help.unwrap_or_default());
            done.push(Family { name, help, kind, series });
        }
        Ok(done)
    }
}

fn check_counter(value: f64) -> Result<(), Fault> {
    if !value.is_finite() {
        Err((Reject::ValueNotFinite, "a counter is finite".to_owned()))
    } else if value < 0.0 {
        Err((Reject::ValueNegative, "a counter is not negative".to_owned()))
    } else {
        Ok(())
    }
}

/// Takes `le` or `quantile` out of the labels; and whether it is whole and all digits.
fn take_bound(
    kind: FamilyKind,
    labels: &mut Vec<(&str, Cow<'_, str>)>,
) -> Result<(f64, bool), Fault> {
    let wanted = if kind == FamilyKind::Histogram { "le" } else { "quantile" };
    let Some(at) = labels.iter().position(|(name, _)| *name == wanted) else {
        return Err((Reject::LabelsMalformed, format!("the label {wanted} is missing")));
    };
    let (_, text) = labels.swap_remove(at);
    let bound = crate::number::parse_f64_any(text.as_bytes()).ok();
    let right = |bound: &f64| match kind {
        FamilyKind::Histogram => !bound.is_nan(),
        _ => (0.0..=1.0).contains(bound),
    };
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    bound
        .filter(right)
        .map(|bound| (bound, is_plain))
        .ok_or_else(|| (Reject::LabelsMalformed, format!("the label {wanted} is no bound")))
}

fn value_of(kind: FamilyKind, part: &mut SeriesDraft<'_>) -> Result<SeriesValue, String> {
    part.points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    if part.points.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err("the same bucket or quantile is there twice".to_owned());
    }
    let count = part.count.map(whole).transpose()?;
    match kind {
        FamilyKind::Histogram => {
            let buckets = buckets_of(&part.points, count)?;
            Ok(SeriesValue::Histogram { buckets, sum: part.sum.unwrap_or(0.0) })
        }
        FamilyKind::Summary => Ok(SeriesValue::Summary {
            quantiles: std::mem::take(&mut part.points),
            sum: part.sum.unwrap_or(0.0),
            count: count.unwrap_or(0),
        }),
        _ => part.number.map(SeriesValue::Number).ok_or_else(|| "no value".to_owned()),
    }
}

fn whole(count: f64) -> Result<u64, String> {
    if (0.0..=COUNT_MAX).contains(&count) && count.trunc() == count {
        Ok(count as u64)
    } else {
        Err(format!("{count} is no count"))
    }
}

/// Cumulative points to buckets counted each for itself.
fn buckets_of(points: &[(f64, f64)], count: Option<u64>) -> Result<Vec<(f64, u64)>, String> {
    let mut buckets = Vec::with_capacity(points.len() + 1);
    let mut below = 0;
    for &(upper, cumulative) in points {
        let cumulative = whole(cumulative)?;
        let inside = cumulative.checked_sub(below).ok_or("a bucket is below the one before it")?;
        buckets.push((upper, inside));
        below = cumulative;
    }
    let total = match (points.last(), count) {
        (Some(&(upper, _)), None) if upper == f64::INFINITY => below,
        (Some(&(upper, _)), Some(count)) if upper == f64::INFINITY && count != below => {
            return Err("_count is not the +Inf bucket".to_owned());
        }
        (_, Some(count)) => count,
        (_, None) => return Err("neither a +Inf bucket nor _count".to_owned()),
    };
    if buckets.last().is_none_or(|&(upper, _)| upper != f64::INFINITY) {
        let inside = total.checked_sub(below).ok_or("_count is below the last bucket")?;
        buckets.push((f64::INFINITY, inside));
    }
    Ok(buckets)
}
