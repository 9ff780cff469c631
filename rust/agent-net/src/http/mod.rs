//! The HTTP/1.1 engine: bytes of a connection in, bytes for the connection out.
//!
//! ```text
//! engine --bytes--> HttpService::on_bytes --> head.rs -> routes.rs -> answer in `out`
//!                                                 \-> body.rs, decode.rs -> push.rs -> apply
//!                                                  \-> pool.rs (threads): pages, groups -> Stream
//! ```
//!
//! # The contract with the event loop
//!
//! - `on_bytes` gets what arrived and says how much of it is done with. It keeps unfinished heads
//!   and bodies itself, in the boxed [`HttpState`]; an idle connection has none.
//! - [`Next::Read`]: everything was consumed, wait for more. `out` is empty.
//! - [`Next::Write`]: write `out`. Bytes not consumed are pipelined requests: keep them, and call
//!   again with them (before reading more) when `out` is written.
//! - [`Next::WriteThenClose`]: write `out`, shut down the sending side, read and forget what still
//!   comes for a moment (else the answer is lost in a reset), close.
//! - [`Next::Stream`]: write `out`, then the chunks of the stream as [`Stream::take`] gives them,
//!   waiting on [`Stream::fd`]; do not read meanwhile. After [`Taken::End`] go on as after `Write`,
//!   or close when it says so; after [`Taken::Broken`] close at once.
//! - [`Next::Apply`]: write `out` (an interim answer, if anything). The body of a push is being
//!   applied: give it a slice with [`HttpService::apply_more`] in this and the next turns of the loop, until
//!   that gives the answer; do not read meanwhile.
//! - [`HttpService::deadline_ms`] says when to call [`HttpService::on_deadline`]; without state
//!   there is none, and the idle time-out is the loop's own.
//! - Every second, and before the worker exits: [`HttpService::publish`].
//!
//! # Limits
//!
//! Head 16 KiB, 64 headers, target 4 KiB, 5 s; body 4 MiB compressed, 16 MiB plain, growth 100, 1
//! KiB/s; bodies of one worker together 64 MiB; answers of threads 2 at a time, 256 waiting, 4
//! chunks of 64 KiB each. All from [`crate::config::Limits`] where it names them.
//!
//! Not promised: HTTP/2, TLS, `Upgrade`, range requests, conditional requests, several content
//! codings.

mod answer;
mod body;
mod conn;
mod decode;
pub mod gateway;
mod gateway_created;
mod gateway_file;
pub mod gateway_group;
pub mod gateway_path;
mod head;
mod health;
mod jobs;
mod page;
mod pool;
mod push;
mod respond;
mod routes;
mod status;
mod stream;

#[cfg(test)]
pub(crate) mod conn_test;
#[cfg(test)]
mod damage_test;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use agent_shm::{Segment, Writer};

use crate::admission::{Peer, Shed};
use crate::apply::{Apply, NormalSample};
use crate::apps::Apps;
use crate::config::WorkerConfig;
use crate::counts::{Count, Stats};
use crate::place::Place;
use crate::telemetry::{Reason, SourceId};

use body::{BodyLimits, Budget};
use gateway::Gateway;
use health::Health;
use pool::Pool;
use respond::DateLine;

pub use conn::HttpState;
pub use push::Push;
pub use stream::{Stream, Taken};

/// What the event loop does next with a connection.
pub enum Next {
    Read,
    Write,
    WriteThenClose,
    Stream(Stream),
    Apply(Box<Push>),
}

/// What a request needs of the rest of the worker. [`Apply`] is the one that counts.
pub trait Ingest {
    fn sample(&mut self, source: SourceId, sample: &NormalSample<'_>) -> Result<(), Reason>;
    /// A sentence about a sample that was refused as `type_conflict`.
    fn explain_conflict(&mut self, sample: &NormalSample<'_>) -> Option<String>;
    fn reject(&mut self, source: SourceId, reason: Reason, count: u64);
    fn admit_request(&mut self, peer: &Peer, now_ms: u64) -> Result<(), Shed>;
    fn charge(&mut self, peer: &Peer, samples: u64, now_ms: u64);
}

impl Ingest for Apply<'_> {
    fn sample(&mut self, source: SourceId, sample: &NormalSample<'_>) -> Result<(), Reason> {
        Apply::sample(self, source, sample)
    }

    fn explain_conflict(&mut self, sample: &NormalSample<'_>) -> Option<String> {
        Apply::explain_conflict(self, sample)
    }

    fn reject(&mut self, source: SourceId, reason: Reason, count: u64) {
        Apply::reject(self, source, reason, count);
    }

    fn admit_request(&mut self, peer: &Peer, now_ms: u64) -> Result<(), Shed> {
        Apply::admit_request(self, peer, now_ms)
    }

    fn charge(&mut self, peer: &Peer, samples: u64, now_ms: u64) {
        Apply::charge(self, peer, samples, now_ms);
    }
}

/// The settings of one worker that requests depend on.
#[derive(Debug, Clone)]
struct Settings {
    wire: agent_wire::Limits,
    body: BodyLimits,
    head_bytes_max: usize,
    head_timeout_ms: u64,
    schema_json: Arc<str>,
}

impl Settings {
    fn new(config: &WorkerConfig) -> Settings {
        let limits = &config.limits;
        Settings {
            wire: limits.wire(),
            body: BodyLimits {
                coded_bytes_max: limits.body_bytes_max,
                plain_bytes_max: limits.body_decompressed_bytes_max,
                ratio_max: limits.body_ratio_max,
                bytes_per_s_min: limits.body_bytes_per_s_min,
            },
            head_bytes_max: limits.header_bytes_max,
            head_timeout_ms: (limits.header_timeout_s.max(0.0) * 1000.0) as u64,
            schema_json: config.schema_json.as_str().into(),
        }
    }
}

/// What the event loop and the render threads of one worker share.
struct Shared {
    segment: Segment,
    apps: Mutex<Apps>,
    gateway: Gateway,
    stats: Arc<Stats>,
    /// The supervisor's last `state` line, for the status page.
    state: Mutex<Arc<str>>,
    version: String,
    worker: Place,
}

/// The HTTP engine of one worker.
pub struct HttpService {
    settings: Settings,
    shared: Arc<Shared>,
    budget: Budget,
    pool: Pool,
    health: Health,
    date: DateLine,
    /// The whole answer of an ordinary liveness probe, remade with the date.
    alive: (String, Vec<u8>),
    /// The last head that was an ordinary liveness probe: the same bytes again need no second look.
    probe: Vec<u8>,
    requests: [[u64; STATUSES.len()]; routes::LABELS.len()],
    panics_published: usize,
}

/// Statuses that are counted one by one; the last one stands for all others.
const STATUSES: [u16; 18] =
    [200, 202, 207, 400, 404, 405, 408, 413, 414, 415, 417, 431, 500, 501, 503, 505, 507, 0];

impl HttpService {
    pub fn new(config: &WorkerConfig, segment: &Segment) -> HttpService {
        let stats = Arc::new(Stats::default());
        let folder = Path::new(&config.apps_dir);
        let mut apps = Apps::new(folder, segment.file_id());
        apps.set_idle_s(config.apps_idle_s);
        apps.set_shared(&config.apps_shared_dirs);
        let shared = Shared {
            segment: segment.clone(),
            apps: Mutex::new(apps),
            gateway: Gateway::new(folder),
            stats,
            state: Mutex::new("{}".into()),
            version: config.version.clone(),
            worker: config.worker,
        };
        let mut health = Health::default();
        health.set_private_memory(segment.file_id().is_none());
        HttpService {
            settings: Settings::new(config),
            shared: Arc::new(shared),
            budget: Budget::new(config.limits.bodies_bytes_max),
            pool: Pool::default(),
            health,
            date: DateLine::default(),
            alive: Default::default(),
            probe: Vec::new(),
            requests: Default::default(),
            panics_published: 0,
        }
    }

    /// Takes new settings; requests in progress finish under the old ones.
    pub fn reload(&mut self, config: &WorkerConfig) {
        self.settings = Settings::new(config);
        let mut apps = self.shared.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.set_idle_s(config.apps_idle_s);
        apps.set_shared(&config.apps_shared_dirs);
    }

    /// Takes the supervisor's `state` line (see `health.rs` for what is read in it).
    pub fn set_state(&mut self, json: &str) {
        self.health.set_state(json);
        *self.shared.state.lock().unwrap_or_else(PoisonError::into_inner) = json.into();
    }

    /// `/readyz` says no for this reason, or not any more.
    pub fn set_out_of_memory(&mut self, why: Option<String>) {
        self.health.set_out_of_memory(why);
    }

    /// `/readyz` says no from now on, and connections are closed after their next answer.
    pub fn set_draining(&mut self) {
        self.health.set_draining();
        self.probe.clear();
    }

    /// Adds what was counted since the last call to the collector's segment.
    pub fn publish(&mut self, writer: &Writer) {
        let stats = &self.shared.stats;
        for (route, row) in self.requests.iter_mut().enumerate() {
            for (status, count) in row.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
                let code = match STATUSES[status] {
                    0 => "other".to_owned(),
                    code => code.to_string(),
                };
                let labels = format!("code=\"{code}\",route=\"{}\"", routes::LABELS[route]);
                stats.add(Count::Requests, &labels, std::mem::take(count));
            }
        }
        let panics = self.pool.pressure().panics();
        stats.add(Count::JobsPanicked, "", (panics - self.panics_published) as u64);
        self.panics_published = panics;
        stats.publish(writer);
    }

    /// Bytes that bodies in progress hold.
    pub fn bodies_bytes(&self) -> usize {
        self.budget.spent()
    }

    fn count(&mut self, route: usize, status: u16) {
        let column = STATUSES.iter().position(|known| *known == status);
        self.requests[route][column.unwrap_or(STATUSES.len() - 1)] += 1;
    }
}
