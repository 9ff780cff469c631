//! Closing the ledger of a worker that died.
//!
//! A worker counts a sample as received, changes its cell, then counts it as applied or rejected.
//! What it was working on when it was killed is the difference; nobody can know whether the cell
//! was changed, so the difference is booked as rejected for the reason `worker_died`. Call it after
//! the death and before a successor of the same number starts.
//!
//! Its connections are gone with it: they are booked as closed for the same reason, and their number
//! becomes zero.
//!
//! The columns of the ledger are looked up by their names, whatever else the segment holds. Only when they
//! leave a difference are all series of the column of rejections added up, by a pass over the segment:
//! another version may have counted there for a reason that this one has no name for.

use crate::error;
use agent_net::place::Place;
use agent_net::seats;
use agent_net::telemetry::{self, Own, Reason, SelfMetric, SourceId};
use agent_shm::{FamilyView, Options, Segment, Value, Writer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::PathBuf;

const REASON: &str = "worker_died";

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

fn settle(path: &std::path::Path, worker: Place) -> Result<u64, agent_shm::Error> {
    let segment =
        Segment::open_or_create(path, agent_net::worker::COLLECTOR, &Options::collector())?;
    let writer = segment.writer()?;
    let mut settled = 0;
    for source in SourceId::ALL {
        let left = left(&writer, source, worker);
        if left > 0 {
            let text = telemetry::labels(Some(("reason", REASON)), source.as_str(), worker);
            Own::new(SelfMetric::Rejected, text).add(&writer, left);
            settled += left;
        }
    }
    for source in ["http", "statsd_tcp", "statsd_unix"] {
        let lost = connections(&writer, source, worker);
        if lost > 0 {
            let text = telemetry::labels(Some(("reason", REASON)), source, worker);
            Own::new(SelfMetric::ConnectionsClosed, text).add(&writer, lost);
        }
    }
    seats::vacate(&writer, worker);
    Ok(settled)
}

/// Connections that a worker had when it died.
fn connections(writer: &Writer, source: &str, worker: Place) -> u64 {
    let of = |metric: SelfMetric| total(writer.family_by_name(metric.row().name), source, worker);
    let came = of(SelfMetric::ConnectionsOpened) + of(SelfMetric::ConnectionsTakenOver);
    came.saturating_sub(of(SelfMetric::ConnectionsClosed))
}

/// Samples of one source and worker that were received and not finished.
fn left(writer: &Writer, source: SourceId, worker: Place) -> u64 {
    let plain = || std::iter::once(telemetry::labels(None, source.as_str(), worker));
    let reasons = Reason::all().map(Reason::as_str).chain([REASON]);
    let rejected =
        reasons.map(|reason| telemetry::labels(Some(("reason", reason)), source.as_str(), worker));
    let sum = |family| total(family, source.as_str(), worker);
    let of = |metric: SelfMetric| sum(writer.family_of(metric.row().name, plain()));
    let open = of(SelfMetric::Received).saturating_sub(of(SelfMetric::Applied));
    let name = SelfMetric::Rejected.row().name;
    match open.saturating_sub(sum(writer.family_of(name, rejected))) {
        0 => 0,
        _ => open.saturating_sub(sum(writer.family_by_name(name))),
    }
}

/// The sum of a counter over the series of one source and worker, and of what found no place of its own.
fn total(family: Option<FamilyView<'_>>, source: &str, worker: Place) -> u64 {
    let Some(family) = family else { return 0 };
    let (source, worker) = (format!("source=\"{source}\""), format!("worker=\"{worker}\""));
    let mut total = 0;
    family.for_each(&mut |series| {
        // Values of these labels hold no commas.
        let labels = String::from_utf8_lossy(series.labels);
        let has = |wanted: &str| labels.split(',').any(|label| label == wanted);
        // The owner is unknown: a sample that is not settled is better than one that is booked twice.
        let is_overflow = has("agent_overflow=\"true\"");
        if let (true, true, Value::Counter { whole, .. }) =
            (has(&source) || is_overflow, has(&worker) || is_overflow, series.value)
        {
            total += whole;
        }
    });
    total
}
