//! When a pushed series began: `X_created` beside `X`.
//!
//! prometheus_client pushes the time at which a counter, histogram or summary began as a gauge `X_created` of its own, in
//! Unix seconds. On the page it belongs to `X`: OpenMetrics and protobuf have a place for it, and a gauge of that name beside
//! `X` would make the page one that readers refuse. So it is taken from the families and put into the series of the same
//! labels. One without such a series says nothing and goes. Without `X`, it is a gauge like any other.

use std::collections::HashMap;

use agent_metric::name::suffix;
use agent_metric::FamilyKind;
use agent_wire::prometheus_text::SeriesValue;

use super::gateway_group::{Family, Pushed};

/// The year 9999: what is not before it is no time.
const SECONDS_MAX: f64 = 253_402_300_800.0;

type Numbered = Vec<(usize, Family)>;

/// The name that the times of a family have; nothing when it can have none.
fn name_of_times(family: &Family) -> Option<String> {
    let base = match family.kind {
        FamilyKind::Counter => {
            family.name.strip_suffix(suffix::TOTAL).filter(|base| !base.is_empty())?
        }
        FamilyKind::Histogram | FamilyKind::Summary => &family.name,
        _ => return None,
    };
    Some(format!("{base}{}", suffix::CREATED))
}

/// Puts times into the series that they are of.
pub fn fold(mut families: Vec<Family>) -> Vec<Family> {
    let is_time = |family: &Family| matches!(family.kind, FamilyKind::Gauge | FamilyKind::Unknown);
    let names: HashMap<String, usize> = families
        .iter()
        .enumerate()
        .filter_map(|(index, family)| Some((name_of_times(family)?, index)))
        .collect();
    let (times, mut kept): (Numbered, Numbered) = families
        .drain(..)
        .enumerate()
        .partition(|(_, family)| is_time(family) && names.contains_key(&family.name));
    for (_, times) in times {
        let owner = names[&times.name];
        let of: HashMap<&str, &SeriesValue> =
            times.series.iter().map(|series| (series.labels.as_str(), &series.value)).collect();
        let owner = kept.iter_mut().filter(|(index, _)| *index == owner);
        for series in owner.flat_map(|(_, family)| &mut family.series) {
            if let Some(SeriesValue::Number(seconds)) = of.get(series.labels.as_str()) {
                let is_time = (0.0..SECONDS_MAX).contains(seconds);
                series.created_unix_ms = is_time.then_some((seconds * 1000.0).round() as u64);
            }
        }
    }
    kept.into_iter().map(|(_, family)| family).collect()
}

/// The times of a family as a family of their own, for the file of its group; nothing when there are none.
pub fn unfold(family: &Family) -> Option<Family> {
    let series: Vec<Pushed> = family
        .series
        .iter()
        .filter_map(|series| {
            let seconds = series.created_unix_ms? as f64 / 1000.0;
            Some(Pushed::new(series.labels.clone(), SeriesValue::Number(seconds)))
        })
        .collect();
    let name = name_of_times(family).filter(|_| !series.is_empty())?;
    let (help, kind, first_unix_ms) = (String::new(), FamilyKind::Gauge, family.first_unix_ms);
    Some(Family { name, help, kind, first_unix_ms, series })
}
