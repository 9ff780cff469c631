//! Runs the shared protocol cases in `tests/vectors`: each input gives exactly the item or exactly
//! the reason that stands beside it. Python tests read the same files.

use std::path::Path;

use agent_metric::FamilyKind;
use agent_wire::prometheus_text::{self, Family, Series, SeriesValue};
use agent_wire::push_json::{self, Body, PushSample};
use agent_wire::statsd::{self, Cardinality, Item, Metric, Value};
use agent_wire::{labels, name, name_tags, Limits};
use serde_json::{json, Map, Value as Json};

fn cases(file: &str) -> Vec<Json> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let cases: Vec<Json> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    assert!(!cases.is_empty(), "{file} has cases");
    cases
}

/// The input of a case: text under `key`, or bytes under `hex`.
fn input(case: &Json, key: &str) -> Vec<u8> {
    match (&case[key], &case["hex"]) {
        (Json::String(text), _) => text.clone().into_bytes(),
        (_, Json::String(hex)) => (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
            .collect(),
        _ => panic!("no input in {case}"),
    }
}

fn text(bytes: &[u8]) -> Json {
    json!(String::from_utf8_lossy(bytes))
}

/// Adds a field unless it is what every item has.
fn put(map: &mut Map<String, Json>, key: &str, value: Json) {
    if value != json!("") && value != Json::Null {
        map.insert(key.to_owned(), value);
    }
}

/// Whole floats as integers, so that 1 in a file is the 1 that was read.
fn float(value: f64) -> Json {
    match value {
        v if v.is_nan() => json!("NaN"),
        f64::INFINITY => json!("+Inf"),
        f64::NEG_INFINITY => json!("-Inf"),
        v => json!(v),
    }
}

fn metric_json(metric: &Metric<'_>, expected: &Json) -> Json {
    let mut map = Map::new();
    let values = metric.values.clone().map(|value| match value {
        Value::Number(number) => float(number),
        Value::Delta(number) => json!({ "delta": number }),
        Value::Set(member) => json!({ "set": text(member) }),
    });
    put(&mut map, "name", text(metric.name));
    put(&mut map, "kind", json!(metric.kind.as_str()));
    put(&mut map, "values", values.collect());
    put(&mut map, "rate", if metric.rate == 1.0 { Json::Null } else { json!(metric.rate) });
    put(&mut map, "tags", text(metric.tags));
    put(&mut map, "timestamp", json!(metric.timestamp));
    put(&mut map, "container", metric.container.map_or(Json::Null, text));
    put(&mut map, "external", metric.external.map_or(Json::Null, text));
    let level = metric.cardinality.map(|level| match level {
        Cardinality::None => "none",
        Cardinality::Low => "low",
        Cardinality::Orchestrator => "orchestrator",
        Cardinality::High => "high",
    });
    put(&mut map, "cardinality", json!(level));
    // These two are not of the line, and are compared where a case has them.
    let named = name_tags::split(metric.name, name_tags::Dialects::default());
    if expected.get("labels").is_some() {
        let mut out = String::new();
        let in_name = named.map_or(&b""[..], |named| named.tags);
        labels::from_statsd::<&str, &str>(in_name, metric.tags, &[], &Limits::default(), &mut out)
            .expect("labels");
        map.insert("labels".into(), json!(out));
    }
    if expected.get("family").is_some() {
        let bare = named.map_or(metric.name.into(), |named| named.bare());
        map.insert("family".into(), json!(name::family(metric.kind, &bare).name));
    }
    Json::Object(map)
}

fn item_json(item: &Item<'_>, expected: &Json) -> Json {
    let mut map = Map::new();
    match item {
        Item::Metric(metric) => json!({"metric": metric_json(metric, &expected["metric"])}),
        Item::Ack(token) => json!({ "ack": text(token) }),
        Item::Event(event) => {
            put(&mut map, "title", text(event.title));
            map.insert("text".into(), text(event.text));
            put(&mut map, "timestamp", json!(event.timestamp));
            put(&mut map, "hostname", text(event.hostname));
            put(&mut map, "aggregation_key", text(event.aggregation_key));
            put(&mut map, "priority", json!(event.priority.as_str()));
            put(&mut map, "source_type", text(event.source_type));
            put(&mut map, "alert_type", json!(event.alert_type.as_str()));
            put(&mut map, "tags", text(event.tags));
            put(&mut map, "container", event.container.map_or(Json::Null, text));
            put(&mut map, "external", event.external.map_or(Json::Null, text));
            json!({ "event": map })
        }
        Item::Check(check) => {
            put(&mut map, "name", text(check.name));
            put(&mut map, "status", json!(check.status.as_str()));
            put(&mut map, "timestamp", json!(check.timestamp));
            put(&mut map, "hostname", text(check.hostname));
            put(&mut map, "tags", text(check.tags));
            put(&mut map, "message", text(check.message));
            put(&mut map, "container", check.container.map_or(Json::Null, text));
            put(&mut map, "external", check.external.map_or(Json::Null, text));
            json!({ "check": map })
        }
    }
}

/// All samples of a line, each a metric or the reason why it is refused.
fn samples_json(text: &[u8], expected: &Json, limits: &Limits) -> Json {
    let line = statsd::parse_line(text, limits);
    let (first, mut further) = match line {
        Ok(Item::Metric(metric)) => (Ok(metric.clone()), metric.further()),
        Err(reject) => (Err(reject), statsd::further(text, limits)),
        Ok(other) => panic!("{other:?}"),
    };
    let further = std::iter::from_fn(|| further.next(limits));
    let samples = std::iter::once(first).chain(further).enumerate();
    let found = samples.map(|(index, sample)| match sample {
        Ok(metric) => metric_json(&metric, &expected[index]),
        Err(reject) => json!(reject.as_str()),
    });
    found.collect()
}

/// Equal as numbers, not as JSON tokens: 1 and 1.0 are the same value.
fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => left == right,
    }
}

#[test]
fn statsd_lines_give_the_item_or_the_reason_beside_them() {
    let limits = Limits::default();
    for file in ["statsd/good", "statsd/bad", "dogstatsd/good", "dogstatsd/bad"] {
        for case in cases(&format!("{file}.json")) {
            let line = input(&case, "line");
            let result = statsd::parse_line(&line, &limits);
            if let Some(reason) = case.get("labels_reject") {
                let Ok(Item::Metric(metric)) = result else { panic!("{case}: {result:?}") };
                let refused = labels::from_statsd_tags(metric.tags, &limits, &mut String::new());
                assert_eq!(json!(refused.map_err(|r| r.as_str())), json!({ "Err": reason }));
                continue;
            }
            if let Some(expected) = case.get("samples") {
                let found = samples_json(&line, expected, &limits);
                assert!(same(&found, expected), "{}: {found}", case["case"]);
                continue;
            }
            if let Ok(Item::Metric(metric)) = &result {
                assert_eq!(metric.further().next(&limits), None, "{}", case["case"]);
            }
            match (result, case.get("item"), case.get("reject")) {
                (Ok(item), Some(expected), None) => {
                    let found = item_json(&item, expected);
                    assert!(same(&found, expected), "{}: {found}", case["case"]);
                }
                (Err(reason), None, Some(expected)) => {
                    assert_eq!(&json!(reason.as_str()), expected, "{}", case["case"]);
                }
                (result, ..) => panic!("{}: {result:?}", case["case"]),
            }
        }
    }
}

fn series_json(series: &Series<'_>) -> Json {
    let mut map = Map::new();
    let labels: Map<String, Json> =
        series.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    if !labels.is_empty() {
        map.insert("labels".into(), Json::Object(labels));
    }
    put(&mut map, "timestamp_ms", json!(series.timestamp_ms));
    let (key, value) = match &series.value {
        SeriesValue::Number(number) => ("number", float(*number)),
        SeriesValue::Histogram { buckets, sum } => {
            let buckets: Vec<_> = buckets.iter().map(|(le, n)| json!([float(*le), n])).collect();
            ("histogram", json!({"buckets": buckets, "sum": float(*sum)}))
        }
        SeriesValue::Summary { quantiles, sum, count } => {
            let quantiles: Vec<_> =
                quantiles.iter().map(|(q, v)| json!([float(*q), float(*v)])).collect();
            ("summary", json!({"quantiles": quantiles, "sum": float(*sum), "count": count}))
        }
    };
    map.insert(key.into(), value);
    Json::Object(map)
}

fn family_json(family: &Family<'_>) -> Json {
    let kind = match family.kind {
        FamilyKind::Counter | FamilyKind::BareCounter => "counter",
        FamilyKind::Gauge => "gauge",
        FamilyKind::Histogram => "histogram",
        FamilyKind::Summary => "summary",
        FamilyKind::Unknown => "unknown",
    };
    let series: Vec<_> = family.series.iter().map(series_json).collect();
    let mut map = Map::new();
    put(&mut map, "name", json!(family.name));
    put(&mut map, "help", json!(family.help));
    put(&mut map, "kind", json!(kind));
    map.insert("series".into(), Json::Array(series));
    Json::Object(map)
}

#[test]
fn prometheus_bodies_give_their_families_or_the_line_and_the_reason() {
    for file in ["prometheus_text/good.json", "prometheus_text/bad.json"] {
        for case in cases(file) {
            let body = input(&case, "body");
            match prometheus_text::parse(&body, &Limits::default()) {
                Ok(families) => {
                    let found: Json = families.iter().map(family_json).collect();
                    assert!(same(&found, &case["families"]), "{}: {found}", case["case"]);
                }
                Err(error) => {
                    let found = json!([error.line, error.reason.as_str()]);
                    let expected = json!([case["line"], case["reject"]]);
                    assert_eq!(found, expected, "{}: {error}", case["case"]);
                }
            }
        }
    }
}

fn sample_json(sample: &PushSample<'_, '_>) -> Json {
    let mut map = Map::new();
    map.insert("index".into(), json!(sample.index));
    put(&mut map, "name", json!(sample.name));
    put(&mut map, "type", json!(sample.kind.as_str()));
    let values = sample.values().map(|value| match value {
        Value::Number(number) | Value::Delta(number) => float(number),
        Value::Set(member) => text(member),
    });
    put(&mut map, "values", values.collect());
    if !sample.labels.is_empty() {
        put(&mut map, "labels", json!(sample.labels));
    }
    put(&mut map, "unit", json!(sample.unit));
    put(&mut map, "help", json!(sample.help));
    put(&mut map, "rate", if sample.rate == 1.0 { Json::Null } else { json!(sample.rate) });
    Json::Object(map)
}

#[test]
fn pushed_samples_are_accepted_or_refused_one_by_one() {
    for file in ["push_json/good.json", "push_json/bad.json"] {
        for case in cases(file) {
            let form = match case["form"].as_str() {
                Some("json") => Body::Json,
                Some("ndjson") => Body::Ndjson,
                _ => Body::Auto,
            };
            let body = input(&case, "body");
            let mut accepted = Vec::new();
            let report = push_json::decode(&body, form, &Limits::default(), |sample| {
                accepted.push(sample_json(sample));
                Ok(())
            });
            let refused: Vec<_> = report
                .refusals
                .iter()
                .map(|refusal| json!({"index": refusal.index, "reason": refusal.reason.as_str()}))
                .collect();
            let found = json!({"accepted": accepted, "refused": refused});
            let expected = json!({"accepted": case["accepted"], "refused": case["refused"]});
            assert!(same(&found, &expected), "{}: {found} {:?}", case["case"], report.refusals);
            assert_eq!(report.accepted as usize, accepted.len());
            assert_eq!(report.refused as usize, refused.len());
        }
    }
}
