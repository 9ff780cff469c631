//! `GET /v1/status`: what the status page shows, as one JSON document.
//!
//! | key | what |
//! |---|---|
//! | `version`, `worker`, `pid`, `unix_ms` | who answers, when |
//! | `supervisor` | the supervisor's last `state` line as it came |
//! | `segment` | the collector's segment: series, metrics, bytes, limits |
//! | `apps`, `apps_refused` | attached segments; files in the folder that are not used, and why |
//! | `gateway` | pushed groups |
//! | `conflicts` | families and series left out of `/metrics`: `{name, type, app or group}` and `holder`, the same of who has it |
//! | `own` | samples of every `agent_*` metric but windows: `{name, type, labels, value}` |
//! | `windows` | samples of `agent_window_*` |
//! | `top` | the families with most series over all segments |
//! | `events` | the last events and service checks, newest first |
//! | `cut` | what was left out because of the limits below |
//!
//! Totals are totals: rates are the reader's business (two documents and their `unix_ms`). At most
//! [`OWN_MAX`] + [`WINDOWS_MAX`] samples, [`TOP_MAX`] families, [`CONFLICTS_MAX`] conflicts,
//! [`EVENTS_MAX`] events of 300 characters.

use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use agent_metric::FamilyKind;
use agent_shm::{FamilyView, OwnedShape, Segment, SeriesView, Value, View};
use serde_json::{json, Map, Value as Json};

use super::gateway_group::Group;
use super::Shared;
use crate::apps::App;
use crate::events::recent_events;
use crate::scrape::{self, Claim, Owner, Source};

const OWN_MAX: usize = 4000;
const WINDOWS_MAX: usize = 1000;
const TOP_MAX: usize = 20;
const CONFLICTS_MAX: usize = 100;
const EVENTS_MAX: usize = 50;
const EVENT_CHARS_MAX: usize = 300;
const WINDOW_PREFIX: &str = "agent_window_";

/// The document.
pub fn render(shared: &Shared) -> Vec<u8> {
    let (apps, refused) = {
        let mut apps = shared.apps.lock().unwrap_or_else(PoisonError::into_inner);
        (apps.refresh(&shared.stats), apps.refused())
    };
    let (groups, bad_groups) = shared.gateway.groups();
    let view = shared.segment.view();
    let app_views: Vec<(&str, &Segment, View<'_>)> =
        apps.iter().map(|app| (app.name.as_str(), &app.segment, app.segment.view())).collect();
    let mut cut = Map::new();
    let is_window = |name: &str| name.starts_with(WINDOW_PREFIX);
    let is_own = |name: &str| name.starts_with("agent_") && !is_window(name);
    let own = samples(&view, is_own, OWN_MAX, "own", &mut cut);
    let windows = samples(&view, is_window, WINDOWS_MAX, "windows", &mut cut);
    let conflicts = conflicts(&shared.segment, &apps, &groups, &mut cut);
    let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let document = json!({
        "version": shared.version,
        "worker": shared.worker,
        "pid": std::process::id(),
        "unix_ms": unix_ms(),
        "supervisor": serde_json::from_str::<Json>(&state).unwrap_or(Json::Null),
        "segment": segment_json(&shared.segment),
        "apps": app_views.iter().map(|(name, segment, view)| {
            let mut about = segment_json(segment);
            about["name"] = json!(name);
            about["shown"] = json!(view.families().iter().map(shown).sum::<usize>());
            about
        }).collect::<Vec<_>>(),
        "apps_refused": refused.iter().map(|(file, why)| {
            json!({"file": file, "reason": why.as_str(), "why": why.text()})
        }).collect::<Vec<_>>(),
        "gateway": {"groups": groups.len(), "unreadable": bad_groups},
        "conflicts": conflicts,
        "own": own,
        "windows": windows,
        "top": top(&view, &app_views),
        "events": events(&shared.segment),
        "cut": cut,
    });
    // A tree of plain values into memory: this cannot fail.
    serde_json::to_vec(&document).unwrap_or_default()
}

fn segment_json(segment: &Segment) -> Json {
    let (header, usage) = (segment.header(), segment.usage());
    let slots = segment.slots();
    json!({
        "path": segment.path().display().to_string(),
        "shared": segment.file_id().is_some(),
        "created_unix_ms": header.created_unix_ms,
        "series": usage.series,
        "series_max": header.options.series_max,
        "metrics": usage.metrics,
        "bytes": usage.bytes_committed,
        "bytes_max": usage.bytes_max,
        "overflows": usage.overflows,
        "removed": usage.removed,
        "refused": usage.refused,
        "damage": usage.damage,
        "writers": slots.iter().filter(|slot| slot.alive).count(),
        "writers_ever": slots.len(),
    })
}

/// The samples of the families that are wanted, up to `most`.
fn samples(
    view: &View<'_>,
    wanted: impl Fn(&str) -> bool,
    most: usize,
    key: &str,
    cut: &mut Map<String, Json>,
) -> Vec<Json> {
    let mut rows = Vec::new();
    let mut left_out = 0u64;
    for family in view.families().iter().filter(|family| wanted(&family.meta().name)) {
        let meta = family.meta();
        family.for_each(&mut |series| {
            if rows.len() >= most {
                left_out += 1;
                return;
            }
            rows.push(sample(&meta.name, &meta.shape, &series));
        });
    }
    if left_out > 0 {
        cut.insert(key.to_owned(), left_out.into());
    }
    rows
}

fn sample(name: &str, shape: &OwnedShape, series: &SeriesView<'_>) -> Json {
    let labels = String::from_utf8_lossy(series.labels);
    let labels: Map<String, Json> = agent_wire::labels::parse(&labels)
        .map(|(name, value)| (name.to_owned(), Json::from(value.into_owned())))
        .collect();
    let value = match &series.value {
        Value::Counter { whole, fraction } if *fraction == 0.0 => json!(whole),
        Value::Counter { whole, fraction } => json!(*whole as f64 + fraction),
        Value::Gauge(value) => json!(value),
        Value::GaugePerProcess(values) => {
            values.iter().map(|process| (process.id(), json!(process.value))).collect()
        }
        Value::Histogram { count, sum, .. } | Value::Summary { count, sum } => {
            json!({"count": count, "sum": sum})
        }
    };
    json!({"name": name, "type": type_word(shape), "labels": labels, "value": value})
}

fn type_word(shape: &OwnedShape) -> &'static str {
    match shape {
        OwnedShape::Counter => "counter",
        OwnedShape::Gauge(_) => "gauge",
        OwnedShape::Exponential { .. } | OwnedShape::Explicit(_) => "histogram",
        OwnedShape::Summary(_) => "summary",
    }
}

/// Series of a family without its overflow series while nothing went there.
fn shown(family: &FamilyView<'_>) -> usize {
    family.len().saturating_sub(usize::from(family.meta().overflows == 0))
}

/// The families with most series.
fn top(own: &View<'_>, apps: &[(&str, &Segment, View<'_>)]) -> Vec<Json> {
    let own = own.families().iter().map(|family| ("", family));
    let apps = apps
        .iter()
        .flat_map(|(name, _, view)| view.families().iter().map(move |family| (*name, family)));
    let mut all: Vec<(&str, &FamilyView<'_>)> =
        own.chain(apps).filter(|(_, family)| shown(family) > 0).collect();
    all.sort_by(|(_, a), (_, b)| (shown(b), &a.meta().name).cmp(&(shown(a), &b.meta().name)));
    all.truncate(TOP_MAX);
    let row = |(app, family): (&str, &FamilyView<'_>)| {
        let meta = family.meta();
        json!({
            "app": app,
            "name": meta.name,
            "type": type_word(&meta.shape),
            "series": shown(family),
            "overflows": meta.overflows,
        })
    };
    all.into_iter().map(row).collect()
}

/// The families and series that the page leaves out because somebody had them before.
fn conflicts(
    own: &Segment,
    apps: &[App],
    groups: &[Arc<Group>],
    cut: &mut Map<String, Json>,
) -> Vec<Json> {
    let apps = apps.iter().map(Source::of);
    let sources: Vec<Source<'_>> = [Source::own(own)].into_iter().chain(apps).collect();
    let (families, series) = scrape::disputes(&sources, groups, CONFLICTS_MAX);
    if families.len() > CONFLICTS_MAX {
        cut.insert("conflicts".to_owned(), (families.len() - CONFLICTS_MAX).into());
    }
    let families = families.iter().map(|conflict| {
        let mut row = claim_json(&conflict.refused);
        row["holder"] = claim_json(&conflict.holder);
        row
    });
    let series = series.iter().map(|one| {
        let mut row = owned_json(&one.series, one.kind, one.owner);
        row["holder"] = owned_json(&one.series, one.kind, one.holder);
        row
    });
    families.chain(series).take(CONFLICTS_MAX).collect()
}

fn claim_json(claim: &Claim<'_>) -> Json {
    owned_json(&claim.shown(), claim.kind, claim.owner)
}

fn owned_json(name: &str, kind: FamilyKind, owner: Owner<'_>) -> Json {
    let mut row = json!({"name": name, "type": kind.word()});
    match owner {
        Owner::Collector => {}
        Owner::App(name) => row["app"] = name.into(),
        Owner::Group(key) => row["group"] = key.text().into(),
    }
    row
}

/// The last events and service checks, newest first.
fn events(segment: &Segment) -> Vec<Json> {
    let row = |(unix_ms, text): (u64, String)| {
        let text: String = text.chars().take(EVENT_CHARS_MAX).collect();
        json!({"unix_ms": unix_ms, "text": text})
    };
    recent_events(segment).into_iter().rev().take(EVENTS_MAX).map(row).collect()
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
