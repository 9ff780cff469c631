//! What the HTTP engine, the scrapes and the gateway count about themselves.
//!
//! Counted in this process, added to the collector's segment by [`Stats::publish`], which the
//! engine calls every second and before it exits. A killed worker loses at most the last second of
//! these counts; samples are counted by the ledger, not here.
//!
//! | metric | labels | counts |
//! |---|---|---|
//! | `agent_http_requests` | `route`, `code` | answers |
//! | `agent_http_refused` | `reason` | requests refused: head, body, limits |
//! | `agent_http_jobs_panicked` | | answers lost to a bug |
//! | `agent_scrapes_broken` | | answers given up because the reader was too slow or left |
//! | `agent_scrape_families_skipped` | `app`, `reason` | families and series left out of a page; no `app`: the collector, groups |
//! | `agent_scrape_infinite_sums` | `app` | series on a page with an infinite sum, which finite values have made |
//! | `agent_apps_refused` | `reason` | files in the folder of segments that were not used |
//! | `agent_gateway_refused` | `reason` | pushes to the gateway that were refused |
//! | `agent_scrape_duration_seconds` | | from the start of a scrape to its last byte handed over |

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_shm::{MetricSpec, Outcome, Shape, Writer};

use crate::place::Place;
use crate::telemetry::{labels, SelfMetric, SourceId, OWN_BOUNDS};

/// One metric of the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    Requests,
    Refused,
    JobsPanicked,
    ScrapesBroken,
    FamiliesSkipped,
    InfiniteSums,
    AppsRefused,
    GatewayRefused,
    /// The ledger of the gateway, in the series of [`crate::telemetry`].
    Received,
    Applied,
    Rejected,
}

impl Count {
    fn name(self) -> &'static str {
        match self {
            Count::Requests => "agent_http_requests",
            Count::Refused => "agent_http_refused",
            Count::JobsPanicked => "agent_http_jobs_panicked",
            Count::ScrapesBroken => "agent_scrapes_broken",
            Count::FamiliesSkipped => "agent_scrape_families_skipped",
            Count::InfiniteSums => "agent_scrape_infinite_sums",
            Count::AppsRefused => "agent_apps_refused",
            Count::GatewayRefused => "agent_gateway_refused",
            Count::Received => SelfMetric::Received.row().name,
            Count::Applied => SelfMetric::Applied.row().name,
            Count::Rejected => SelfMetric::Rejected.row().name,
        }
    }

    fn help(self) -> &'static str {
        match self {
            Count::Requests => "HTTP requests answered.",
            Count::Refused => "HTTP requests refused, by reason.",
            Count::JobsPanicked => "HTTP answers lost to a bug in this program.",
            Count::ScrapesBroken => "Answers given up because the reader was too slow or left.",
            Count::FamiliesSkipped => "Families and series left out of a page, by app and reason.",
            Count::InfiniteSums => {
                "Series on a page whose finite values were too large for their sum, by app."
            }
            Count::AppsRefused => "Files in the folder of segments that were not used, by reason.",
            Count::GatewayRefused => "Pushes to the gateway that were refused, by reason.",
            Count::Received => SelfMetric::Received.row().help,
            Count::Applied => SelfMetric::Applied.row().help,
            Count::Rejected => SelfMetric::Rejected.row().help,
        }
    }
}

/// Scrape times kept until the next publication.
const DURATIONS_MAX: usize = 1024;

/// Shared by the event loop and the render threads of one worker.
#[derive(Debug, Default)]
pub struct Stats {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    counts: BTreeMap<(Count, String), u64>,
    durations_s: Vec<f64>,
}

impl Stats {
    /// `labels` is canonical label text. Its values come from tables in this program and from the names
    /// of attached apps, never from the network.
    pub fn add(&self, count: Count, labels: &str, n: u64) {
        if n == 0 {
            return;
        }
        let mut inner = self.lock();
        match inner.counts.get_mut(&(count, labels.to_owned())) {
            Some(sum) => *sum += n,
            None => {
                inner.counts.insert((count, labels.to_owned()), n);
            }
        }
    }

    pub fn add_reason(&self, count: Count, reason: &str) {
        self.add(count, &format!("reason=\"{reason}\""), 1);
    }

    /// The account of a push to the gateway: `rejected` has the reason when it was refused.
    pub fn settle_gateway(&self, worker: Place, samples: u64, rejected: Option<&str>) {
        let source = SourceId::Pushgateway.as_str();
        let plain = labels(None, source, worker);
        self.add(Count::Received, &plain, samples);
        match rejected {
            None => self.add(Count::Applied, &plain, samples),
            Some(reason) => {
                let labels = labels(Some(("reason", reason)), source, worker);
                self.add(Count::Rejected, &labels, samples);
            }
        }
    }

    pub fn observe_scrape(&self, seconds: f64) {
        let mut inner = self.lock();
        if inner.durations_s.len() < DURATIONS_MAX {
            inner.durations_s.push(seconds);
        }
    }

    /// Adds to the segment what was counted since the last call; what it does not take is kept.
    pub fn publish(&self, writer: &Writer) {
        let mut inner = self.lock();
        inner.counts.retain(|(count, labels), n| !publish_count(writer, *count, labels, *n));
        if !inner.durations_s.is_empty() && publish_durations(writer, &inner.durations_s) {
            inner.durations_s.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub fn of(&self, count: Count, labels: &str) -> u64 {
        self.lock().counts.get(&(count, labels.to_owned())).copied().unwrap_or(0)
    }
}

fn publish_count(writer: &Writer, count: Count, labels: &str, n: u64) -> bool {
    let spec =
        MetricSpec { name: count.name(), help: count.help(), unit: "", shape: Shape::Counter };
    let Ok(metric) = writer.metric(&spec) else { return false };
    let Ok(series) = writer.series(metric, labels) else { return false };
    matches!(writer.add(&series, n), Outcome::Applied)
}

fn publish_durations(writer: &Writer, seconds: &[f64]) -> bool {
    let spec = MetricSpec {
        name: "agent_scrape_duration_seconds",
        help: "Time from the start of a scrape to its last byte handed over.",
        unit: "seconds",
        shape: Shape::Explicit(&OWN_BOUNDS),
    };
    let Ok(metric) = writer.metric(&spec) else { return false };
    let Ok(series) = writer.series(metric, "") else { return false };
    matches!(writer.observe_many(&series, seconds), Outcome::Applied)
}
