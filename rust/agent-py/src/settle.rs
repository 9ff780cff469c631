//! Closing the ledger of a worker that died.
//!
//! A worker counts a sample as received, changes its cell, then counts it as applied or rejected.
//! What it was working on when it was killed is the difference; nobody can know whether the cell
//! was changed, so the difference is booked as rejected for the reason `worker_died`. Call it after
//! the death and before a successor of the same number starts.

use crate::error;
use agent_net::telemetry::{self, Own, SelfMetric, SourceId};
use agent_shm::{Options, Segment, Value, View};
use pyo3::prelude::*;
use std::path::PathBuf;

const REASON: &str = "worker_died";

/// Books what a dead worker had received and not finished as rejected. Gives how many samples.
#[pyfunction]
pub fn settle_worker(py: Python<'_>, path: PathBuf, worker: u32) -> PyResult<u64> {
    py.detach(|| settle(&path, worker)).map_err(|error| error::segment(&error))
}

fn settle(path: &std::path::Path, worker: u32) -> Result<u64, agent_shm::Error> {
    let segment =
        Segment::open_or_create(path, agent_net::worker::COLLECTOR, &Options::collector())?;
    let writer = segment.writer()?;
    let view = segment.view();
    let mut settled = 0;
    for source in SourceId::ALL {
        let sum = |metric| sum(&view, metric, source, worker);
        let finished = sum(SelfMetric::Applied) + sum(SelfMetric::Rejected);
        let left = sum(SelfMetric::Received).saturating_sub(finished);
        if left > 0 {
            let text = telemetry::labels(Some(("reason", REASON)), source.as_str(), worker);
            Own::new(SelfMetric::Rejected, text).add(&writer, left);
            settled += left;
        }
    }
    Ok(settled)
}

/// The sum of a counter over the series of one source and worker.
fn sum(view: &View<'_>, metric: SelfMetric, source: SourceId, worker: u32) -> u64 {
    let name = metric.row().name;
    let Some(family) = view.families().iter().find(|family| family.meta().name == name) else {
        return 0;
    };
    let (source, worker) =
        (format!("source=\"{}\"", source.as_str()), format!("worker=\"{worker}\""));
    let mut total = 0;
    family.for_each(&mut |series| {
        // Values of these labels hold no commas.
        let labels = String::from_utf8_lossy(series.labels);
        let has = |wanted: &str| labels.split(',').any(|label| label == wanted);
        if let (true, true, Value::Counter { whole, .. }) =
            (has(&source), has(&worker), series.value)
        {
            total += whole;
        }
    });
    total
}
