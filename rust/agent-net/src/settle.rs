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

use std::path::Path;

use agent_shm::{Error, FamilyView, Options, Segment, Value, Writer};

use crate::place::Place;
use crate::seats;
use crate::telemetry::{self, Own, Reason, SelfMetric, SourceId};
use crate::worker::COLLECTOR;

const REASON: &str = "worker_died";

/// Books what a dead worker had received and not finished as rejected. Gives how many samples.
///
/// # Errors
/// The file is no segment, or it has no slot.
pub fn settle(path: &Path, worker: Place) -> Result<u64, Error> {
    let segment = Segment::open_or_create(path, COLLECTOR, &Options::collector())?;
    Ok(settle_in(&segment.writer()?, worker))
}

fn settle_in(writer: &Writer, worker: Place) -> u64 {
    let mut settled = 0;
    for source in SourceId::ALL {
        let left = left(writer, source, worker);
        book(writer, SelfMetric::Rejected, source.as_str(), worker, left);
        settled += left;
    }
    for source in ["http", "statsd_tcp", "statsd_unix"] {
        let lost = connections(writer, source, worker);
        book(writer, SelfMetric::ConnectionsClosed, source, worker, lost);
    }
    seats::vacate(writer, worker);
    settled
}

fn book(writer: &Writer, metric: SelfMetric, source: &str, worker: Place, count: u64) {
    if count > 0 {
        let text = telemetry::labels(Some(("reason", REASON)), source, worker);
        Own::new(metric, text).add(writer, count);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Place = Place::Worker(1);
    const TWO: Place = Place::Worker(2);

    fn count(writer: &Writer, metric: SelfMetric, labels: String, n: u64) {
        Own::new(metric, labels).add(writer, n);
    }

    fn columns(writer: &Writer, worker: Place, [received, applied, rejected]: [u64; 3]) {
        let labels = |reason| telemetry::labels(reason, "push", worker);
        count(writer, SelfMetric::Received, labels(None), received);
        count(writer, SelfMetric::Applied, labels(None), applied);
        count(writer, SelfMetric::Rejected, labels(Some(("reason", "of_tomorrow"))), rejected);
    }

    #[test]
    fn what_was_in_work_is_booked_once_and_of_one_worker() {
        let segment = Segment::private("agent", &Options::default());
        let writer = segment.writer().unwrap();
        columns(&writer, ONE, [100, 90, 4]);
        columns(&writer, TWO, [50, 49, 0]);
        assert_eq!(settle_in(&writer, ONE), 6);
        assert_eq!(settle_in(&writer, ONE), 0);
        let rejected = || writer.family_by_name(SelfMetric::Rejected.row().name);
        assert_eq!(total(rejected(), "push", ONE), 10);
        assert_eq!(settle_in(&writer, TWO), 1);
    }

    #[test]
    fn more_finished_than_received_is_nothing_to_book() {
        let segment = Segment::private("agent", &Options::default());
        let writer = segment.writer().unwrap();
        columns(&writer, ONE, [5, 4, 2]);
        assert_eq!(settle_in(&writer, ONE), 0);
    }

    #[test]
    fn connections_go_with_their_worker() {
        let segment = Segment::private("agent", &Options::default());
        let writer = segment.writer().unwrap();
        let labels = || telemetry::labels(None, "statsd_tcp", ONE);
        count(&writer, SelfMetric::ConnectionsOpened, labels(), 7);
        count(&writer, SelfMetric::ConnectionsTakenOver, labels(), 2);
        let closed = telemetry::labels(Some(("reason", "peer")), "statsd_tcp", ONE);
        count(&writer, SelfMetric::ConnectionsClosed, closed, 5);
        assert_eq!(connections(&writer, "statsd_tcp", ONE), 4);
        settle_in(&writer, ONE);
        assert_eq!(connections(&writer, "statsd_tcp", ONE), 0);
    }
}
