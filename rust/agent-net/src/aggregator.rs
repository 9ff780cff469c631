//! The aggregator process: rings in, windows and estimates out.
//!
//! ```text
//!  rings of the collector's segment --+              every second   +-> gauges agent_window_*
//!                                     +-> windows ------------------+-> the gauge of each set
//!  rings of the segments of apps -----+                             +-> memory and age of series
//! ```
//!
//! One thread. A pass takes what is new in all rings; passes come every 100 ms, more often when a
//! ring fills fast, once a second when nothing comes. [`Aggregator::step`] is one pass with the
//! time as an argument; [`run_aggregator`] is the loop around it.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | distributions | `windows_series_max`, and a ninth of `metric_series_max` | refused |
//! | sets | `windows_series_max` | refused; their gauge stays as it was |
//! | records between two passes | one ring | `agent_ring_records_lost` |
//!
//! Refused samples are counted in `agent_window_samples_refused`, by reason.
//!
//! Which series have windows is first come, first served; an idle one makes room after a minute. A
//! record costs 22 ns with one distribution, 26 with a hundred, 45 with a thousand and 250 with ten
//! thousand that take turns (misses of the processor's caches); a distribution costs 3 to 12 us a
//! second.
//!
//! Not promised: windows survive the aggregator's death. A successor begins with empty ones; sets
//! take again what the rings still hold of the last minute.

mod show;
mod source;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use agent_shm::{Error, Expirer, MetricMeta, Segment};

use crate::aggregator::show::{Ids, SERIES_EACH};
use crate::aggregator::source::{Common, Count, Refused, Source};
use crate::apply::OWN_PREFIX;
use crate::apps::Apps;
use crate::config::AggregatorConfig;
use crate::control::{Control, Level, Order};
use crate::counts::Stats;
use crate::events::Relay;
use crate::system;
use crate::telemetry::{Own, SelfMetric};
use crate::worker::{complain, open_segment, EXIT_BUG, EXIT_CONFIG, EXIT_DONE, EXIT_SYSTEM};

pub use crate::aggregator::source::Pass;

/// Milliseconds between two passes: usually, and when the fullest ring was a fifth or half new.
const PAUSE_MS: u64 = 100;
const PAUSE_FILLING_MS: u64 = 25;
const PAUSE_FAST_MS: u64 = 5;
/// Passes without a record after which one a second is enough.
const QUIET_PASSES: u32 = 20;
/// The grain of the records' clock: so long after a second its records are all there.
const GRAIN_MS: u64 = 5;
/// Bounds of the time between two looks for idle series.
const EXPIRY_MS_MIN: u64 = 1000;
const EXPIRY_MS_MAX: u64 = 60_000;

/// The two clocks of a pass.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub unix_ms: u64,
    /// Never jumps.
    pub monotonic_ms: u64,
}

impl Now {
    pub fn read() -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = since.map_or(0, |since| since.as_millis() as u64);
        Now { unix_ms, monotonic_ms: system::monotonic_ms() }
    }
}

/// Everything between the rings and the gauges.
pub struct Aggregator {
    common: Common,
    /// The collector's own first.
    sources: Vec<Source>,
    apps: Apps,
    stats: Stats,
    expiry: Expiry,
    ledger: Ledger,
    quiet_passes: u32,
}

struct Expiry {
    expirer: Expirer,
    /// 0 = never.
    idle_ms: u64,
    due_ms: u64,
}

/// The aggregator's own metrics.
struct Ledger {
    distributions: Own,
    sets: Own,
    refused: Vec<Own>,
    expired: Own,
    freed: Own,
    pass: Own,
}

impl Ledger {
    fn new() -> Ledger {
        let own = |metric, labels: &str| Own::new(metric, labels.to_owned());
        let refused = |why: &Refused| {
            Own::new(SelfMetric::WindowRefused, format!("reason=\"{}\"", why.as_str()))
        };
        Ledger {
            distributions: own(SelfMetric::WindowSeries, "kind=\"distribution\""),
            sets: own(SelfMetric::WindowSeries, "kind=\"set\""),
            refused: Refused::ALL.iter().map(refused).collect(),
            expired: own(SelfMetric::SeriesExpired, ""),
            freed: own(SelfMetric::SeriesFreed, ""),
            pass: own(SelfMetric::AggregatorLoop, ""),
        }
    }
}

impl Aggregator {
    /// # Errors
    /// No free slot in the segment, or no room for the metrics of windows.
    pub fn new(
        segment: &Segment,
        config: &AggregatorConfig,
        now: Now,
    ) -> Result<Aggregator, Error> {
        let writer = segment.writer()?;
        let common = Common {
            ids: Ids::new(&writer)?,
            writer,
            relay: Relay::new(segment),
            is_windowed: config.windows,
            distributions: Count { used: 0, max: 0 },
            sets: Count { used: 0, max: 0 },
            refused: Default::default(),
            open_s: now.unix_ms / 1000,
            turn: 0,
        };
        let mut aggregator = Aggregator {
            common,
            sources: vec![Source::own(segment)],
            apps: Apps::new(Path::new(&config.apps_dir), segment.file_id()),
            stats: Stats::default(),
            expiry: Expiry { expirer: Expirer::default(), idle_ms: 0, due_ms: now.monotonic_ms },
            ledger: Ledger::new(),
            quiet_passes: 0,
        };
        aggregator.reload(config);
        aggregator.look_for_apps();
        Ok(aggregator)
    }

    /// Takes over new settings; what has windows already keeps them.
    pub fn reload(&mut self, config: &AggregatorConfig) {
        // The size of the segment is that of its first user.
        let options = self.common.writer.segment().header().options;
        let room = options.metric_series_max / SERIES_EACH;
        self.common.distributions.max = config.windows_series_max.min(room);
        self.common.sets.max = config.windows_series_max;
        self.common.is_windowed = config.windows;
        self.expiry.idle_ms = u64::from(config.series.idle_expiry_s) * 1000;
        self.apps.set_idle_s(config.apps_idle_s);
        self.apps.set_shared(&config.apps_shared_dirs);
    }

    /// One pass: takes what is new, and when a second is over, moves the windows on and shows them.
    pub fn step(&mut self, now: Now) -> Pass {
        let begun = Instant::now();
        let pass = self.drain();
        self.quiet_passes = if pass.fill > 0.0 { 0 } else { self.quiet_passes.saturating_add(1) };
        let second = now.unix_ms / 1000;
        // A clock that was set back: the running second is one of the new time.
        let seconds = second.saturating_sub(self.common.open_s);
        self.common.open_s = second;
        if seconds > 0 {
            self.turn(now, seconds);
        }
        self.ledger.pass.observe(&self.common.writer, begun.elapsed().as_secs_f64());
        pass
    }

    fn drain(&mut self) -> Pass {
        let mut sum = Pass::default();
        for source in &mut self.sources {
            let pass = source.drain(&mut self.common);
            sum.read += pass.read;
            sum.lost = sum.lost.saturating_add(pass.lost);
            sum.fill = sum.fill.max(pass.fill);
        }
        self.common.relay.pass_on(&self.common.writer);
        sum
    }

    fn turn(&mut self, now: Now, seconds: u64) {
        self.common.turn += 1;
        for source in &mut self.sources {
            source.turn(&mut self.common, seconds);
        }
        self.look_for_apps();
        self.expire(now);
        let Aggregator { common, ledger, stats, .. } = self;
        ledger.distributions.set(&common.writer, common.distributions.used.into());
        ledger.sets.set(&common.writer, common.sets.used.into());
        for (own, refused) in ledger.refused.iter_mut().zip(&mut common.refused) {
            own.add(&common.writer, std::mem::take(refused));
        }
        ledger.freed.add(&common.writer, common.writer.reclaim().freed);
        stats.publish(&common.writer);
    }

    fn look_for_apps(&mut self) {
        let apps = self.apps.refresh(&self.stats);
        let (kept, gone): (Vec<Source>, Vec<Source>) = std::mem::take(&mut self.sources)
            .into_iter()
            .partition(|source| !source.is_app() || apps.iter().any(|app| source.is(app)));
        self.sources = kept;
        gone.into_iter().for_each(|source| source.remove(&mut self.common));
        for app in &apps {
            if !self.sources.iter().any(|source| source.is(app)) {
                self.sources.push(Source::of_app(app));
            }
        }
    }

    fn expire(&mut self, now: Now) {
        let Expiry { expirer, idle_ms, due_ms } = &mut self.expiry;
        if *idle_ms == 0 || now.monotonic_ms < *due_ms {
            return;
        }
        *due_ms = now.monotonic_ms + (*idle_ms / 4).clamp(EXPIRY_MS_MIN, EXPIRY_MS_MAX);
        // Our own metrics do not expire: a counter of ours that began anew would break the ledger.
        let mortal = |metric: &MetricMeta| !metric.name.starts_with(OWN_PREFIX);
        let expired = expirer.run(&self.common.writer, now.monotonic_ms, *idle_ms, mortal);
        self.ledger.expired.add(&self.common.writer, expired);
    }

    /// How long nothing has to be done after a pass: at most to the end of the running second.
    pub fn pause_ms(&self, pass: Pass, now: Now) -> u64 {
        let pause = match pass.fill {
            fill if fill > 0.5 => PAUSE_FAST_MS,
            fill if fill > 0.2 => PAUSE_FILLING_MS,
            _ if self.quiet_passes >= QUIET_PASSES => 1000,
            _ => PAUSE_MS,
        };
        pause.min(1000 - now.unix_ms % 1000 + GRAIN_MS)
    }
}

/// Runs the aggregator until it has drained; gives the exit code of the process.
pub fn run_aggregator(json: &[u8]) -> i32 {
    let config = match AggregatorConfig::from_json(json) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("agent aggregator: {error}");
            return EXIT_CONFIG;
        }
    };
    match catch_unwind(AssertUnwindSafe(|| run(&config))) {
        Ok(Ok(())) => EXIT_DONE,
        Ok(Err(why)) => complain(config.control_fd, EXIT_SYSTEM, &why),
        Err(_) => complain(config.control_fd, EXIT_BUG, "the aggregator panicked"),
    }
}

fn run(config: &AggregatorConfig) -> Result<(), String> {
    let told = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut control = Control::new(config.control_fd).map_err(told("the supervisor's pipe"))?;
    let signal = system::terminate_signal().map_err(told("waiting for SIGTERM"))?;
    let (segment, private) = open_segment(&config.segment, &config.series);
    if let Some(why) = private {
        control.log(Level::Error, &why);
    }
    let mut aggregator = Aggregator::new(&segment, config, Now::read())
        .map_err(|error| format!("the collector's segment: {error}"))?;
    control.say("ready");
    let (mut orders, mut is_over) = (Vec::new(), false);
    while !is_over {
        let now = Now::read();
        let pass = aggregator.step(now);
        let pause_ms = aggregator.pause_ms(pass, Now::read());
        is_over = wait(control.fd(), &signal, pause_ms);
        control.read(&mut orders);
        control.flush();
        if orders
            .drain(..)
            .fold(is_over, |is_over, order| obey(&order, &mut aggregator, &mut control) || is_over)
        {
            break;
        }
    }
    finish(&mut aggregator);
    control.say("drained");
    Ok(())
}

/// The last pass: what the rings hold is shown, though its second is not over.
fn finish(aggregator: &mut Aggregator) {
    let now = Now::read();
    aggregator.step(now);
    aggregator.step(Now { unix_ms: now.unix_ms + 1000, ..now });
}

/// Whether it was the order to leave.
fn obey(order: &Order, aggregator: &mut Aggregator, control: &mut Control) -> bool {
    match order {
        Order::Drain | Order::Stop | Order::Retire | Order::Gone => return true,
        Order::Yield => {}
        Order::State(_) => {}
        Order::Reload(json) => match AggregatorConfig::from_json(json.as_bytes()) {
            Ok(config) => {
                aggregator.reload(&config);
                control.say("reloaded");
            }
            Err(error) => control.say(&format!("refused {error}")),
        },
    }
    false
}

/// Waits for the supervisor, for SIGTERM or for the time; whether it was SIGTERM.
fn wait(control_fd: RawFd, signal: &OwnedFd, pause_ms: u64) -> bool {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut entries = [entry(control_fd), entry(signal.as_raw_fd())];
    // SAFETY: the pointer and the length are those of an array. A failed call is a pause of no
    // length.
    unsafe { libc::poll(entries.as_mut_ptr(), 2, pause_ms as libc::c_int) };
    entries[1].revents != 0
}

#[cfg(test)]
#[path = "aggregator_test.rs"]
mod tests;
