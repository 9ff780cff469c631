//! A group of pushed metrics, as the gateway keeps it and a page shows it.

use agent_metric::{FamilyKind, Sample, SampleValue};
use agent_wire::prometheus_text::SeriesValue;

use super::gateway_path::GroupKey;

pub const PUSH_TIME: &str = "push_time_seconds";
pub const FAILURE_TIME: &str = "push_failure_time_seconds";

/// One family of a group, its labels complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// As pushed.
    pub name: String,
    pub help: String,
    pub kind: FamilyKind,
    /// When the group first had the name with this type.
    pub first_unix_ms: u64,
    pub series: Vec<Pushed>,
}

/// One series of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    /// Canonical label text.
    pub labels: String,
    pub value: SeriesValue,
    /// When it began, if the pusher said so.
    pub created_unix_ms: Option<u64>,
    /// Whole bounds were pushed without `.0`, and text shows them so.
    pub has_plain_bounds: bool,
}

impl Pushed {
    pub fn new(labels: String, value: SeriesValue) -> Pushed {
        Pushed { labels, value, created_unix_ms: None, has_plain_bounds: false }
    }

    /// As a page shows it in a family of this kind.
    pub fn sample(&self, kind: FamilyKind) -> Sample<'_> {
        let value = match &self.value {
            SeriesValue::Number(value) if kind == FamilyKind::Counter => {
                SampleValue::Counter { whole: 0, fraction: *value }
            }
            SeriesValue::Number(value) => SampleValue::Number(*value),
            SeriesValue::Histogram { buckets, sum } => {
                SampleValue::Histogram { buckets, sum: *sum }
            }
            SeriesValue::Summary { quantiles, sum, count } => {
                SampleValue::Summary { quantiles, sum: *sum, count: *count }
            }
        };
        let Pushed { created_unix_ms, has_plain_bounds, .. } = *self;
        Sample { labels: self.labels.as_bytes(), created_unix_ms, value, has_plain_bounds }
    }
}

/// One group as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub key: GroupKey,
    pub created_unix_ms: u64,
    pub families: Vec<Family>,
    /// Last successful and last refused push, Unix time; 0 = never.
    pub pushed_s: f64,
    pub failed_s: f64,
}

impl Group {
    pub fn new(key: &GroupKey, now_s: f64) -> Group {
        Group {
            key: key.clone(),
            created_unix_ms: (now_s * 1000.0) as u64,
            families: Vec::new(),
            pushed_s: 0.0,
            failed_s: 0.0,
        }
    }

    /// The group with its two times as families, for the page.
    pub fn with_times(mut self) -> Group {
        let labels = label_text(&[], &self.key);
        let mut add = |name: &str, help: &str, value: f64| {
            let series = vec![Pushed::new(labels.clone(), SeriesValue::Number(value))];
            let (name, help, kind) = (name.to_owned(), help.to_owned(), FamilyKind::Gauge);
            let first_unix_ms = self.created_unix_ms;
            self.families.push(Family { name, help, kind, first_unix_ms, series });
        };
        add(PUSH_TIME, "Unix time of the last push to this group that was taken.", self.pushed_s);
        add(FAILURE_TIME, "Unix time of the last push to this group that failed.", self.failed_s);
        self
    }
}

/// The labels of a series with those of its group, which win. An empty `instance` is written out:
/// it keeps a scraper that honours labels from adding its own.
pub fn label_text(own: &[(&str, std::borrow::Cow<'_, str>)], key: &GroupKey) -> String {
    let own = own.iter().filter(|(name, _)| !key.has(name)).map(|(n, v)| (*n, v.as_ref()));
    let group = key.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut all: Vec<(&str, &str)> = own.chain(group).collect();
    if !all.iter().any(|(name, _)| *name == "instance") {
        all.push(("instance", ""));
    }
    all.sort_unstable();
    GroupKey::text_of(&all)
}
