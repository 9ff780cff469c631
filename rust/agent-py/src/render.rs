//! `render()`: the page of one registry, made without the GIL.
//!
//! Text 0.0.4, OpenMetrics 1.0 or protobuf, the only form with native histograms. The cells of all processes, the dead
//! included, are read from the segment. A summary's quantiles are exact over what the segment still has of its values of
//! the last 60 seconds (nearest rank); without a value in that time it shows none.

use crate::error;
use crate::host;
use agent_client::Store;
use agent_net::scrape::{self, Source};
use agent_shm::{now_unix_ms, OwnedShape, RecentReader, Segment, SeriesId};
use agent_wire::Format;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::path::PathBuf;

const WINDOW_MS: u64 = 60_000;

pub fn render<'py>(py: Python<'py>, store: &Store, format: &str) -> PyResult<Bound<'py, PyBytes>> {
    let format = format_of(format)?;
    host::with(py, |host| store.open(host))?;
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
    let segment = &segment.with_those_beside();
    let oldest = now_unix_ms().saturating_sub(WINDOW_MS);
    let quantiles =
        |id: SeriesId, out: &mut Vec<(f64, f64)>| quantiles_of(segment, id, oldest, out);
    let source = Source { quantiles: Some(&quantiles), ..Source::own(segment) };
    scrape::render(&[source], format, page);
}

/// The quantiles of a summary over its values since `oldest`.
fn quantiles_of(segment: &Segment, id: SeriesId, oldest: u64, out: &mut Vec<(f64, f64)>) {
    let Some((meta, _)) = segment.describe(id) else { return };
    let OwnedShape::Summary(wanted) = meta.shape else { return };
    let mut values = Vec::new();
    let found = segment.recent(id, &mut RecentReader::from_oldest(), |unix_ms, value| {
        if unix_ms >= oldest {
            values.push(value);
        }
    });
    if found.is_none() || values.is_empty() {
        return;
    }
    values.sort_unstable_by(f64::total_cmp);
    out.extend(wanted.iter().map(|&quantile| (quantile, nearest_rank(&values, quantile))));
}

/// The smallest value with at least `quantile` of all at or below it; `values` ascend and are not
/// empty.
fn nearest_rank(values: &[f64], quantile: f64) -> f64 {
    let rank = (quantile * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}
