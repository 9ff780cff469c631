//! Closing the ledger of a worker that died; `agent_net::settle` does it.

use crate::error;
use agent_net::settle::settle;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::PathBuf;

/// Books what a dead worker had received and not finished as rejected. Gives how many samples. A place is
/// the number of a worker, or `desk`.
///
/// # Errors
/// ValueError for another place, SegmentError with the reason.
#[pyfunction]
pub fn settle_worker(py: Python<'_>, path: PathBuf, place: &str) -> PyResult<u64> {
    let worker = place.parse().map_err(PyValueError::new_err::<String>)?;
    py.detach(|| settle(&path, worker)).map_err(|error| error::segment(&error))
}
