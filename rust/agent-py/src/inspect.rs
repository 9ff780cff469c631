//! `inspect(path)`: everything a segment says, as plain Python values. Attaches for reading and
//! changes nothing.

use crate::error;
use agent_shm::{FamilyView, OwnedShape, Segment, Value};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::path::PathBuf;

/// Header, usage, slots and families of the segment at `path`. Raises SegmentError when it is none.
#[pyfunction]
#[pyo3(signature = (path, *, series_shown_max = 100_000))]
pub fn inspect<'py>(
    py: Python<'py>,
    path: PathBuf,
    series_shown_max: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let segment = Segment::attach(&path).map_err(|error| error::segment(&error))?;
    let told = PyDict::new(py);
    told.set_item("path", path.to_string_lossy())?;
    told.set_item("header", header(py, &segment)?)?;
    told.set_item("usage", usage(py, &segment)?)?;
    told.set_item("slots", slots(py, &segment)?)?;
    let families = PyList::empty(py);
    let view = segment.view();
    let mut left = series_shown_max;
    for family in view.families() {
        families.append(told_family(py, family, &mut left)?)?;
    }
    told.set_item("families", families)?;
    told.set_item(
        "series_left_out",
        view.families().iter().map(FamilyView::len).sum::<usize>().saturating_sub(series_shown_max),
    )?;
    Ok(told)
}

/// Puts fields of a struct into a dict, under their names.
macro_rules! put {
    ($told:ident, $from:expr, $($field:ident),+) => {
        $($told.set_item(stringify!($field), &$from.$field)?;)+
    };
}

fn header<'py>(py: Python<'py>, segment: &Segment) -> PyResult<Bound<'py, PyDict>> {
    let header = segment.header();
    let (told, options) = (PyDict::new(py), header.options);
    put!(told, header, app, layout_version);
    told.set_item("boot_id", format!("{:032x}", header.boot_id))?;
    put!(told, header, created_unix_ms);
    put!(told, options, series_max, metric_series_max, metrics_max, slots_max);
    put!(told, options, ring_records, bytes_max);
    Ok(told)
}

fn usage<'py>(py: Python<'py>, segment: &Segment) -> PyResult<Bound<'py, PyDict>> {
    let (told, usage) = (PyDict::new(py), segment.usage());
    put!(told, usage, series, metrics, bytes_committed, bytes_max, bytes_reserved, overflows);
    put!(told, usage, removed, refused, pending, damage, fallbacks, lost);
    Ok(told)
}

fn slots<'py>(py: Python<'py>, segment: &Segment) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for slot in segment.slots() {
        let told = PyDict::new(py);
        put!(told, slot, index, alive, pid, generation, started_unix_ms);
        put!(told, slot, ring, ring_written, ring_refused);
        list.append(told)?;
    }
    Ok(list)
}

fn told_family<'py>(
    py: Python<'py>,
    family: &FamilyView<'_>,
    left: &mut usize,
) -> PyResult<Bound<'py, PyDict>> {
    let meta = family.meta();
    let told = PyDict::new(py);
    put!(told, meta, name, help, unit);
    told.set_item("type", type_of(&meta.shape))?;
    told.set_item("shape", meta.shape.borrowed().told())?;
    put!(told, meta, overflows);
    told.set_item("series_count", family.len())?;
    let list = PyList::empty(py);
    let mut result = Ok(());
    family.for_each(&mut |series| {
        if *left == 0 || result.is_err() {
            return;
        }
        *left -= 1;
        let labels = String::from_utf8_lossy(series.labels).into_owned();
        result = told_series(py, &labels, series.created_unix_ms, &series.value)
            .and_then(|told| list.append(told));
    });
    result?;
    told.set_item("series", list)?;
    Ok(told)
}

fn type_of(shape: &OwnedShape) -> &'static str {
    match shape {
        OwnedShape::Counter => "counter",
        OwnedShape::Gauge(_) => "gauge",
        OwnedShape::Exponential { .. } | OwnedShape::Explicit(_) => "histogram",
        OwnedShape::Summary(_) => "summary",
    }
}

fn told_series<'py>(
    py: Python<'py>,
    labels: &str,
    created_unix_ms: u64,
    value: &Value<'_>,
) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    told.set_item("labels", labels)?;
    told.set_item("created_unix_ms", created_unix_ms)?;
    match value {
        Value::Counter { whole, fraction } if *fraction == 0.0 => told.set_item("value", whole)?,
        Value::Counter { whole, fraction } => told.set_item("value", *whole as f64 + fraction)?,
        Value::Gauge(value) => told.set_item("value", value)?,
        Value::GaugePerProcess(values) => {
            let values: Vec<_> =
                values.iter().map(|process| (process.id(), process.value)).collect();
            told.set_item("per_process", values)?;
        }
        Value::Histogram { count, sum, buckets } => {
            told.set_item("count", count)?;
            told.set_item("sum", sum)?;
            let filled: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
            told.set_item("buckets", filled)?;
        }
        Value::Summary { count, sum } => {
            told.set_item("count", count)?;
            told.set_item("sum", sum)?;
        }
    }
    Ok(told)
}
