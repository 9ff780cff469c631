//! `render()`: the page of one registry, made without the GIL.
//!
//! Text 0.0.4, OpenMetrics 1.0 or protobuf, the only form with native histograms. Cells and rings of all processes, the dead included, are read from the segment. A summary's
//! quantiles are exact over what its rings still hold of the last 60 seconds (nearest rank);
//! without a value in that time it shows none.

use crate::error;
use crate::host::PythonHost;
use agent_client::Store;
use agent_net::scrape::{self, Source};
use agent_shm::{Entry, OwnedShape, RecordKind, Segment, SeriesId};
use agent_wire::Format;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

const WINDOW_MS: u64 = 60_000;

pub fn render<'py>(py: Python<'py>, store: &Store, format: &str) -> PyResult<Bound<'py, PyBytes>> {
    let format = format_of(format)?;
    store.open(&PythonHost(py)).map_err(error::raised)?;
    let mut page = Vec::new();
    if let Some(segment) = store.segment() {
        py.detach(|| page_of(&segment, format, &mut page));
    }
    Ok(PyBytes::new(py, &page))
}

/// The page of the segment at `path`, with the quantiles of its processes. Attaches for reading and
/// changes nothing. Raises SegmentError when it is none.
#[pyfunction]
#[pyo3(signature = (path, format = "prometheus"))]
pub fn render_segment<'py>(
    py: Python<'py>,
    path: PathBuf,
    format: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let format = format_of(format)?;
    let segment = Segment::attach(&path).map_err(|error| error::segment(&error))?;
    let mut page = Vec::new();
    py.detach(|| page_of(&segment, format, &mut page));
    Ok(PyBytes::new(py, &page))
}

fn format_of(name: &str) -> PyResult<Format> {
    match name {
        "prometheus" => Ok(Format::Text004),
        "openmetrics" => Ok(Format::OpenMetrics100),
        "protobuf" => Ok(Format::Protobuf),
        other => {
            let text = format!("format {other:?} is not 'prometheus', 'openmetrics' or 'protobuf'");
            Err(PyValueError::new_err(text))
        }
    }
}

fn page_of(segment: &Segment, format: Format, page: &mut Vec<u8>) {
    let windows = windows(segment, now_unix_ms());
    let quantiles = |id: SeriesId, out: &mut Vec<(f64, f64)>| {
        if let Some(found) = windows.get(&id) {
            out.extend_from_slice(found);
        }
    };
    let source = Source { segment, app: None, quantiles: Some(&quantiles) };
    scrape::render(&[source], format, page);
}

/// The quantiles of every summary that has recent values in a ring.
pub fn windows(segment: &Segment, now_unix_ms: u64) -> HashMap<SeriesId, Vec<(f64, f64)>> {
    let oldest = now_unix_ms.saturating_sub(WINDOW_MS);
    let mut values: HashMap<SeriesId, Vec<f64>> = HashMap::new();
    for slot in 0..segment.slots_used() {
        let Some(mut reader) = segment.ring_reader(slot) else { continue };
        reader.drain(|entry| {
            if let Entry::Value { series, kind: RecordKind::Sample, unix_ms, bits } = entry {
                if unix_ms >= oldest {
                    values.entry(series).or_default().push(f64::from_bits(bits));
                }
            }
        });
    }
    let mut windows = HashMap::new();
    for (series, mut values) in values {
        let Some((meta, _)) = segment.describe(series) else { continue };
        if let OwnedShape::Summary(wanted) = meta.shape {
            values.sort_unstable_by(f64::total_cmp);
            let found = wanted.iter().map(|&quantile| (quantile, nearest_rank(&values, quantile)));
            windows.insert(series, found.collect());
        }
    }
    windows
}

/// The smallest value with at least `quantile` of all at or below it; `values` ascend and are not
/// empty.
fn nearest_rank(values: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

pub fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
