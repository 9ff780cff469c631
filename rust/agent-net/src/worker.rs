//! A worker process: the segment, the loop, an exit code.
//!
//! Called by the forked child with the interpreter's lock released. SIGTERM to this thread means drain;
//! SIGINT and SIGHUP are the supervisor's business. When the segment cannot be opened (a full
//! /dev/shm, a file of another version) the worker goes on in private memory and says so: it keeps
//! answering, and what it counts is shown by itself alone.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;

use agent_shm::{Options, Segment};

use crate::admission::Admission;
use crate::apply::Applier;
use crate::config::{Series, WorkerConfig};
use crate::control::{Control, Level};
use crate::engine::{files_max, Engine};
use crate::http::HttpService;
use crate::place::Place;
use crate::system;

/// All is done.
pub const EXIT_DONE: i32 = 0;
/// The system refused something that cannot be done without.
pub const EXIT_SYSTEM: i32 = 71;
/// A bug.
pub const EXIT_BUG: i32 = 70;
/// The config makes no sense.
pub const EXIT_CONFIG: i32 = 78;

/// The name of the collector's own segment.
pub const COLLECTOR: &str = "agent";

impl Series {
    /// The size of the collector's segment.
    pub fn options(&self) -> Options {
        Options {
            series_max: self.series_max,
            metric_series_max: self.metric_series_max,
            metrics_max: self.metrics_max,
            bytes_max: self.segment_bytes_max,
            ..Options::collector()
        }
    }
}

/// The collector's segment; private memory and the reason when it cannot be had.
pub fn open_segment(path: &str, series: &Series) -> (Segment, Option<String>) {
    let options = series.options();
    match Segment::open_or_create(Path::new(path), COLLECTOR, &options) {
        Ok(segment) => (segment, None),
        Err(error) => {
            let why = format!("counting in private memory: {error}");
            (Segment::private(COLLECTOR, &options), Some(why))
        }
    }
}

/// Runs a worker until it has drained; gives the exit code of the process.
pub fn run_worker(json: &[u8]) -> i32 {
    let config = match WorkerConfig::from_json(json) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("agent worker: {error}");
            return EXIT_CONFIG;
        }
    };
    match catch_unwind(AssertUnwindSafe(|| run(&config))) {
        Ok(Ok(code)) => code,
        Ok(Err((code, why))) => complain(config.control_fd, code, &why),
        Err(_) => complain(config.control_fd, EXIT_BUG, "the worker panicked"),
    }
}

/// The last words go to the supervisor, which writes them in its format.
pub(crate) fn complain(control_fd: i32, code: i32, why: &str) -> i32 {
    match Control::new(control_fd) {
        Ok(mut control) if control_fd >= 0 => control.log(Level::Error, why),
        _ => eprintln!("agent: {why}"),
    }
    code
}

fn run(config: &WorkerConfig) -> Result<i32, (i32, String)> {
    if config.worker == Place::Desk {
        system::hurry();
    }
    let (segment, private) = open_segment(&config.segment, &config.series);
    let now_ms = system::monotonic_ms();
    let admission = Admission::new(&config.limits, config.workers, files_max(), now_ms);
    let applier = Applier::new(&segment, config, admission).map_err(|why| (EXIT_CONFIG, why))?;
    let http = HttpService::new(config, &segment);
    let failed = |what: &'static str| move |error| (EXIT_SYSTEM, format!("{what}: {error}"));
    let signal = system::terminate_signal().map_err(failed("waiting for SIGTERM"))?;
    let mut engine = Engine::new(config, &segment, applier, http, Some(signal))
        .map_err(failed("adopting the listeners"))?;
    if let Some(why) = private {
        engine.log(Level::Error, &why);
    }
    engine.run().map_err(failed("waiting for events"))
}
