//! What the supervisor calls: forking its children, and the collector's own segment.

use crate::registry::{over, Registry};
use agent_net::child;
use agent_net::config::WorkerConfig;
use agent_shm::Options;
use agent_wire::mapping::Mapper;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The registry of the segment at `path`, made with the collector's limits where none are given.
#[pyfunction]
#[pyo3(signature = (
    path, app = "agent", *, series_max = None, metric_series_max = None, metrics_max = None,
    slots_max = None, ring_records = None, bytes_max = None
))]
#[allow(clippy::too_many_arguments)]
pub fn open_segment(
    py: Python<'_>,
    path: PathBuf,
    app: &str,
    series_max: Option<u32>,
    metric_series_max: Option<u32>,
    metrics_max: Option<u32>,
    slots_max: Option<u16>,
    ring_records: Option<u32>,
    bytes_max: Option<u64>,
) -> PyResult<Registry> {
    let options = over!(Options::collector(), series_max, metric_series_max, metrics_max);
    let options = over!(options, slots_max, ring_records, bytes_max);
    Registry::of_path(py, app, path, options)
}

/// A child's life from its settings; the result is its exit code.
type Life = fn(&[u8]) -> i32;

/// Forks children one right after the other: what each is, its name, its settings, the descriptors it
/// closes. Gives pids, and -errno where it failed. The children run no Python.
#[pyfunction]
pub fn fork_children(children: Vec<(String, String, Vec<u8>, Vec<RawFd>)>) -> PyResult<Vec<i32>> {
    let mut lives: Vec<Life> = Vec::with_capacity(children.len());
    for (kind, ..) in &children {
        lives.push(match kind.as_str() {
            "worker" => agent_net::worker::run_worker,
            "aggregator" => agent_net::aggregator::run_aggregator,
            _ => return Err(PyValueError::new_err(format!("there is no child {kind:?}"))),
        });
    }
    let mut pids = Vec::with_capacity(children.len());
    for (life, (_, name, config, close)) in lives.into_iter().zip(&children) {
        let pid = child::fork(name, close, || life(config));
        pids.push(pid.unwrap_or_else(|error| -error.raw_os_error().unwrap_or(libc::EAGAIN)));
    }
    Ok(pids)
}

/// Why a worker would refuse its config: for each reason the rule at fault, if it is one.
#[pyfunction]
pub fn check_worker_config(config: &[u8]) -> Vec<(Option<usize>, String)> {
    let config = match WorkerConfig::from_json(config) {
        Ok(config) => config,
        Err(error) => return vec![(None, error.to_string())],
    };
    let errors = Mapper::errors(&config.mapping).into_iter();
    errors.map(|error| (Some(error.rule), error.detail)).collect()
}
