//! `render()`: the page of one registry, made without the GIL.
//!
//! Text 0.0.4, OpenMetrics 1.0 or protobuf, the only form with native histograms. `agent_net::scrape::render_own` says what
//! is on it.

use crate::error;
use crate::host;
use agent_client::Store;
use agent_net::scrape::render_own;
use agent_shm::Segment;
use agent_wire::Format;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::path::PathBuf;

pub fn render<'py>(py: Python<'py>, store: &Store, format: &str) -> PyResult<Bound<'py, PyBytes>> {
    let format = format_of(format)?;
    host::with(py, |host| store.open(host))?;
    let segment = store.segment();
    let page = segment.map(|segment| py.detach(|| render_own(&segment, format)));
    Ok(PyBytes::new(py, &page.unwrap_or_default()))
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
    Ok(PyBytes::new(py, &py.detach(|| render_own(&segment, format))))
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
