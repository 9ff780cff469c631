//! What the supervisor calls: its children's loops, and the collector's own segment.

use crate::registry::Registry;
use agent_net::config::WorkerConfig;
use agent_shm::Options;
use agent_wire::mapping::Mapper;
use pyo3::prelude::*;
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
    let usual = Options::collector();
    let options = Options {
        series_max: series_max.unwrap_or(usual.series_max),
        metric_series_max: metric_series_max.unwrap_or(usual.metric_series_max),
        metrics_max: metrics_max.unwrap_or(usual.metrics_max),
        slots_max: slots_max.unwrap_or(usual.slots_max),
        ring_records: ring_records.unwrap_or(usual.ring_records),
        bytes_max: bytes_max.unwrap_or(usual.bytes_max),
    };
    Registry::of_path(py, app, path, options)
}

/// The event loop of one worker, until it has drained; gives its exit code. Without the GIL.
#[pyfunction]
pub fn run_worker(py: Python<'_>, config: &[u8]) -> i32 {
    py.detach(|| agent_net::worker::run_worker(config))
}

/// The loop of the aggregator, until it is told to stop; gives its exit code. Without the GIL.
#[pyfunction]
pub fn run_aggregator(py: Python<'_>, config: &[u8]) -> i32 {
    py.detach(|| agent_net::aggregator::run_aggregator(config))
}

/// Why a worker would refuse its config: the rule at fault, if it is one, and the reason.
#[pyfunction]
pub fn check_worker_config(config: &[u8]) -> Option<(Option<usize>, String)> {
    let config = match WorkerConfig::from_json(config) {
        Ok(config) => config,
        Err(error) => return Some((None, error.to_string())),
    };
    Mapper::compile(&config.mapping).err().map(|error| (Some(error.rule), error.detail))
}
