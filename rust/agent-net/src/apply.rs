//! Decoded samples into cells, refusals into the ledger.
//!
//! ```text
//! line -> parse -> received+1 -> cache (else: rules, name, labels, segment) -> cell, ring -> applied+1
//!                                                       \-> refused by a reason -> rejected+1
//! ```
//!
//! | kind | cell | value |
//! |---|---|---|
//! | counter | counter | value / rate |
//! | gauge | gauge, the most recent value | value, or a shift when it had a sign |
//! | timer, histogram, distribution | histogram: classic bounds or native, as the settings and mapping rules say | value, `1 / rate` times, what is no whole number carried over to the next; timers in seconds |
//! | set | gauge set by the aggregator | a 64-bit hash of the member, in the ring |
//!
//! An [`Apply`] is one batch: a datagram batch, one read of a stream, one request. While it lives
//! the cells' protected section is open, so a batch should not last. Windows come from the rings:
//! every observation is one record, see [`crate::window::pack`] for how its weight travels.
//!
//! Names that begin with `agent_` are our own: a sample of such a name counts as `exported_agent_...`, so that
//! nobody on the network can write into the ledger. The label `app` says on the page which app a series is of: a sample's own
//! goes by `exported_app`, so that nobody on the network can stand in for an app.
//!
//! Time stamps of samples (`|T`) are read and not used: a cell has no time. Container, external and
//! cardinality fields are read and not used. A metric keeps the type of its first sample; others are
//! refused as `type_conflict`, and so is a new metric with a name that the samples of another have
//! (`x_count` beside histogram `x`): the page could not show both.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;

use agent_metric::bounds::is_observable;
use agent_metric::{FamilyKind, OwnedShape};
use agent_shm::{
    Error, GaugeMode, Guard, MetricSpec, Outcome, RecordKind, Segment, Series, Shape, Writer,
};
use agent_wire::mapping::{Mapped, Mapper};
use agent_wire::sample::weight;
use agent_wire::statsd::{self, Further, Item, Metric};
use agent_wire::{labels, name, name_tags, Kind, Reject, Value};

use crate::admission::{Admission, Peer, Shed};
use crate::cache::{Cache, Key, Known, Target, ENTRIES_MAX, RETRY_S};
use crate::config::WorkerConfig;
use crate::scrape::clash;
use crate::telemetry::{Account, Own, Reason, SelfMetric, SourceId};
use crate::window;

/// How the names of our own metrics begin.
pub const OWN_PREFIX: &str = "agent_";

/// The labels of a sample.
#[derive(Debug, Clone, Copy)]
pub enum Labels<'a> {
    /// DogStatsD tags, raw; the mapping rules look at such samples.
    Tags(&'a [u8]),
    /// Canonical label text, as [`agent_wire::labels`] writes it.
    Text(&'a str),
}

/// One value of one metric, as any protocol gives it.
#[derive(Debug, Clone, Copy)]
pub struct NormalSample<'a> {
    /// As sent.
    pub name: &'a [u8],
    pub kind: Kind,
    pub value: Value<'a>,
    /// In `rate_min ..= 1`.
    pub rate: f64,
    pub labels: Labels<'a>,
    /// As sent; empty when none.
    pub unit: &'a str,
    /// Empty when none.
    pub help: &'a str,
}

/// What a line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// This many samples, applied or rejected.
    Samples(u64),
    /// An event or a service check.
    Told,
    /// To be answered with the token.
    Ack(&'a [u8]),
}

/// How samples are read and named; replaced as a whole by a reload.
struct Rules {
    limits: agent_wire::Limits,
    mapper: Mapper,
    /// What observed values become where no mapping rule says it.
    observed: OwnedShape,
    windows: bool,
}

/// The writing side of one thread: its writer, what it remembers, its accounts, its limits.
pub struct Applier {
    writer: Writer,
    parts: Parts,
    admission: Admission,
}

struct Parts {
    rules: Rules,
    cache: Cache,
    accounts: Vec<Account>,
    scratch: Scratch,
    now_s: u32,
    /// Makes the hash of a set's member the same in all workers of a segment, and no other.
    unique_salt: u64,
    cache_entries: Own,
    cache_misses: Own,
}

#[derive(Default)]
struct Scratch {
    name: String,
    labels: String,
}

impl Applier {
    /// # Errors
    /// Mapping rules that cannot be used, or no free slot in the segment.
    pub fn new(
        segment: &Segment,
        config: &WorkerConfig,
        admission: Admission,
    ) -> Result<Applier, String> {
        let writer = segment.writer().map_err(|error| error.to_string())?;
        // The aggregator does it, by the clock; a batch must not wait for a pass.
        writer.leave_reclaiming_to_others();
        crate::telemetry::reserve(&writer);
        let account = |source: &SourceId| Account::new(*source, config.worker);
        let label = format!("worker=\"{}\"", config.worker);
        let parts = Parts {
            rules: Rules::new(config)?,
            cache: Cache::new(ENTRIES_MAX),
            accounts: SourceId::ALL.iter().map(account).collect(),
            scratch: Scratch::default(),
            now_s: 0,
            unique_salt: segment.header().created_unix_ms,
            cache_entries: Own::new(SelfMetric::CacheEntries, label.clone()),
            cache_misses: Own::new(SelfMetric::CacheMisses, label),
        };
        Ok(Applier { writer, parts, admission })
    }

    /// Takes over new rules and limits.
    ///
    /// # Errors
    /// Mapping rules that cannot be used; then nothing has changed.
    pub fn reload(&mut self, config: &WorkerConfig) -> Result<(), String> {
        self.parts.rules = Rules::new(config)?;
        self.parts.cache.clear();
        self.admission.reload(&config.limits, config.workers);
        Ok(())
    }

    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    pub fn admission(&mut self) -> &mut Admission {
        &mut self.admission
    }

    pub fn line_bytes_max(&self) -> usize {
        self.parts.rules.limits.line_bytes_max
    }

    /// Opens a batch.
    #[inline]
    pub fn batch(&mut self) -> Apply<'_> {
        Apply {
            _open: self.writer.enter(),
            writer: &self.writer,
            parts: &mut self.parts,
            admission: &mut self.admission,
        }
    }

    /// Once a second or so: publishes what is only counted locally.
    pub fn tick(&mut self, now_ms: u64) {
        self.parts.now_s = (now_ms / 1000) as u32;
        for account in &mut self.parts.accounts {
            account.touch(&self.writer);
        }
        self.parts.cache_entries.set(&self.writer, self.parts.cache.len() as f64);
        self.parts.cache_misses.add(&self.writer, self.parts.cache.take_misses());
    }

    pub fn account(&mut self, source: SourceId) -> (&mut Account, &Writer) {
        (&mut self.parts.accounts[source as usize], &self.writer)
    }
}

impl Rules {
    fn new(config: &WorkerConfig) -> Result<Rules, String> {
        let mapper = Mapper::compile(&config.mapping).map_err(|error| error.to_string())?;
        let limits = agent_wire::Limits { name_tags: config.name_tags, ..config.limits.wire() };
        let observed = config.histograms.shape();
        Ok(Rules { limits, mapper, observed, windows: config.windows })
    }
}

/// One batch of samples being applied: the cells' protected section is open as long as it lives.
pub struct Apply<'a> {
    _open: Guard<'a>,
    writer: &'a Writer,
    parts: &'a mut Parts,
    admission: &'a mut Admission,
}

/// Label texts of these forms never meet in the cache.
const FORM_TAGS: u8 = 0;
const FORM_TEXT: u8 = 16;

impl<'a> Apply<'a> {
    /// The writer of this thread, for cells of one's own.
    pub fn writer(&self) -> &'a Writer {
        self.writer
    }

    /// Limits of the codecs.
    pub fn limits(&self) -> &agent_wire::Limits {
        &self.parts.rules.limits
    }

    /// Whether a pushing request of this peer may go on to its body.
    pub fn admit_request(&mut self, peer: &Peer, now_ms: u64) -> Result<(), Shed> {
        self.admission.request(peer, now_ms)
    }

    /// The sender at this address, with its row.
    #[inline]
    pub fn peer(&mut self, address: Option<IpAddr>, now_ms: u64) -> Peer {
        self.admission.peer(address, now_ms)
    }

    /// Whether lines of this peer may be applied now.
    #[inline]
    pub fn admit(&mut self, peer: &Peer, now_ms: u64) -> Result<(), Shed> {
        self.admission.samples(peer, now_ms)
    }

    /// Charges the samples of a body, a datagram or a read to the peer's limits.
    #[inline]
    pub fn charge(&mut self, peer: &Peer, samples: u64, _now_ms: u64) {
        self.admission.charge(peer, samples);
    }

    pub fn memory_is_short(&self) -> bool {
        self.admission.memory_is_short()
    }

    /// Counts bytes read.
    pub fn bytes(&mut self, source: SourceId, count: u64) {
        self.parts.accounts[source as usize].bytes(self.writer, count);
    }

    pub fn account(&mut self, source: SourceId) -> (&mut Account, &'a Writer) {
        (&mut self.parts.accounts[source as usize], self.writer)
    }

    /// Counts `count` samples received and rejected that never became a sample.
    pub fn reject(&mut self, source: SourceId, reason: Reason, count: u64) {
        let account = &mut self.parts.accounts[source as usize];
        account.received(self.writer, count);
        account.rejected(self.writer, reason, count);
    }

    /// Decodes one line and applies it.
    #[inline]
    pub fn line<'l>(&mut self, source: SourceId, line: &'l [u8]) -> Line<'l> {
        match statsd::parse_line(line, &self.parts.rules.limits) {
            Ok(Item::Metric(metric)) => Line::Samples(self.metric(source, &metric)),
            Err(reject) => {
                self.reject(source, reject.into(), 1);
                let further = statsd::further(line, &self.parts.rules.limits);
                Line::Samples(1 + self.further(source, further))
            }
            Ok(Item::Ack(token)) => Line::Ack(token),
            Ok(Item::Event(_)) => {
                self.writer.event(line);
                self.parts.accounts[source as usize].event(self.writer);
                Line::Told
            }
            Ok(Item::Check(_)) => {
                self.writer.event(line);
                self.parts.accounts[source as usize].check(self.writer);
                Line::Told
            }
        }
    }

    #[inline]
    fn metric(&mut self, source: SourceId, metric: &Metric<'_>) -> u64 {
        self.values(source, metric) + self.further(source, metric.further())
    }

    /// The samples of a line after its first.
    #[inline]
    fn further(&mut self, source: SourceId, mut further: Further<'_>) -> u64 {
        let mut count = 0;
        while let Some(sample) = further.next(&self.parts.rules.limits) {
            count += match sample {
                Ok(metric) => self.values(source, &metric),
                Err(reject) => {
                    self.reject(source, reject.into(), 1);
                    1
                }
            };
        }
        count
    }

    #[inline]
    fn values(&mut self, source: SourceId, metric: &Metric<'_>) -> u64 {
        let mut count = 0;
        for value in metric.values.clone() {
            let sample = NormalSample {
                name: metric.name,
                kind: metric.kind,
                value,
                rate: metric.rate,
                labels: Labels::Tags(metric.tags),
                unit: "",
                help: "",
            };
            // The reason is in the ledger.
            let _ = self.sample(source, &sample);
            count += 1;
        }
        count
    }

    /// Counts the sample as received, adds it to its cell, counts it as applied; or as rejected.
    #[inline]
    pub fn sample(&mut self, source: SourceId, sample: &NormalSample<'_>) -> Result<(), Reason> {
        let account = source as usize;
        self.parts.accounts[account].received(self.writer, 1);
        let result = self.put(sample);
        match result {
            Ok(()) => self.parts.accounts[account].applied(self.writer, 1),
            Err(reason) => self.parts.accounts[account].rejected(self.writer, reason, 1),
        }
        result
    }

    /// For a sample with label text that was refused as `type_conflict`: the name, the type there and
    /// the type that came.
    #[cold]
    pub fn explain_conflict(&mut self, sample: &NormalSample<'_>) -> Option<String> {
        let mut name = String::new();
        name::family_with_unit(sample.kind, sample.name, sample.unit, &mut name)?;
        if name.starts_with(OWN_PREFIX) {
            name.insert_str(0, "exported_");
        }
        let known = self.writer.find_metric(&name).map(|(_, known)| known.shape);
        let shape = shape_of(sample.kind, &self.parts.rules.observed, known.as_ref());
        let spec = MetricSpec { name: &name, help: "", unit: "", shape };
        conflict_with(self.writer, &spec)
    }

    #[inline]
    fn put(&mut self, sample: &NormalSample<'_>) -> Result<(), Reason> {
        let (form, text) = match sample.labels {
            Labels::Tags(tags) => (FORM_TAGS, tags),
            Labels::Text(text) => (FORM_TEXT, text.as_bytes()),
        };
        let key = Key {
            form: form | sample.kind as u8,
            name: sample.name,
            unit: sample.unit.as_bytes(),
            labels: text,
        };
        let (writer, windows) = (self.writer, self.parts.rules.windows);
        let salt = self.parts.unique_salt;
        if let Some(known) = self.parts.cache.find(&key, self.parts.now_s) {
            if let Some(result) = put_known(writer, known, sample, windows, salt) {
                return result;
            }
        }
        // Not known, or removed since: look it up; a second removal in between is looked up again.
        for _ in 0..3 {
            let known = self.parts.resolve(writer, sample);
            let result = put_known(writer, &known, sample, windows, salt);
            self.parts.cache.insert(&key, known);
            if let Some(result) = result {
                return result;
            }
        }
        Err(Reason::SegmentFull)
    }
}

/// Adds the value to the cell; nothing when the series was removed.
#[inline]
fn put_known(
    writer: &Writer,
    known: &Known,
    sample: &NormalSample<'_>,
    windows: bool,
    salt: u64,
) -> Option<Result<(), Reason>> {
    let outcome = match (&known.target, sample.value) {
        (Target::Counter(series), Value::Number(number)) => {
            let amount = number * known.scale / sample.rate;
            // The codec has checked counters; a rule may have made one of something else.
            if amount < 0.0 {
                return Some(Err(Reject::ValueNegative.into()));
            }
            count(writer, series, amount)
        }
        (Target::Gauge(series), Value::Number(number)) => writer.set(series, number * known.scale),
        (Target::Gauge(series), Value::Delta(number)) => writer.shift(series, number * known.scale),
        (Target::Observed(series), Value::Number(number)) => {
            let number = number * known.scale;
            if !is_observable(number) {
                return Some(Err(Reject::ValueOutOfRange.into()));
            }
            let (times, carry) = weight(sample.rate, known.carry.get());
            let outcome = writer.observe(series, number, times);
            if outcome == Outcome::Applied {
                known.carry.set(carry);
                if windows {
                    writer.record(series, RecordKind::Sample, window::pack(number, times));
                }
            }
            outcome
        }
        (Target::Unique(series), Value::Set(member)) => {
            // A record does not look at its series: this does, and makes one that is about to
            // expire come back.
            let outcome = writer.shift(series, 0.0);
            if outcome == Outcome::Applied {
                writer.record(series, RecordKind::Unique, unique_hash(salt, member));
            }
            outcome
        }
        (Target::Refused(reason), _) => return Some(Err(*reason)),
        // A rule made a gauge something else; a shift is no value for it.
        _ => return Some(Err(Reason::TypeConflict)),
    };
    match outcome {
        Outcome::Applied => Some(Ok(())),
        Outcome::Stale => None,
        // A counter would pass what it holds, a gauge would become infinite.
        Outcome::Refused => Some(Err(Reject::ValueOutOfRange.into())),
        Outcome::NoRoom => Some(Err(Reason::SegmentFull)),
    }
}

#[inline]
fn count(writer: &Writer, series: &Series, amount: f64) -> Outcome {
    if amount.fract() == 0.0 {
        // The cast saturates, and the cell refuses what it cannot hold.
        writer.add(series, amount as u64)
    } else {
        writer.add_f64(series, amount)
    }
}

/// The same member has the same hash in every worker of the segment.
fn unique_hash(salt: u64, member: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(salt);
    hasher.write(member);
    hasher.finish()
}

impl Parts {
    /// Finds or makes the series of a sample.
    #[cold]
    fn resolve(&mut self, writer: &Writer, sample: &NormalSample<'_>) -> Known {
        match self.try_resolve(writer, sample) {
            Ok(known) => known,
            Err(reason) => Known::refused(reason, self.now_s.saturating_add(RETRY_S)),
        }
    }

    fn try_resolve(&mut self, writer: &Writer, sample: &NormalSample<'_>) -> Result<Known, Reason> {
        let Scratch { name: family, labels: text } = &mut self.scratch;
        let limits = &self.rules.limits;
        let (mut kind, mut help) = (sample.kind, sample.help);
        let mut observed = &self.rules.observed;
        let (unit, scale) = match sample.labels {
            Labels::Tags(tags) => {
                let named = name_tags::split(sample.name, limits.name_tags);
                let in_name = named.map_or(&b""[..], |named| named.tags);
                let bare = named.map_or(Cow::Borrowed(sample.name), |named| named.bare());
                match self.rules.mapper.apply(&bare, sample.kind) {
                    Mapped::Unmatched => {
                        labels::from_statsd::<&str, &str>(in_name, tags, &[], limits, text)?;
                        name::family_into(kind, &bare, family)
                    }
                    Mapped::Drop { .. } => return Err(Reject::MappingDrop.into()),
                    Mapped::Renamed(new) => {
                        labels::from_statsd(in_name, tags, &new.labels, limits, text)?;
                        (kind, help) = (new.kind, new.help);
                        observed = new.observed.unwrap_or(observed);
                        name::family_into(kind, new.name.as_bytes(), family)
                    }
                }
            }
            Labels::Text(given) => {
                text.clear();
                text.push_str(given);
                name::family_with_unit(kind, sample.name, sample.unit, family)
                    .ok_or(Reject::UnitUnknown)?
            }
        };
        if family.is_empty() {
            return Err(Reject::NameEmpty.into());
        }
        if family.starts_with(OWN_PREFIX) {
            family.insert_str(0, "exported_");
        }
        labels::move_away("app", text);
        let help = if help.is_empty() { default_help(kind) } else { help };
        let known = writer.find_metric(family).map(|(_, known)| known.shape);
        let shape = shape_of(kind, observed, known.as_ref());
        let spec = MetricSpec { name: family, help, unit, shape };
        if conflict_with(writer, &spec).is_some() {
            return Err(Reason::TypeConflict);
        }
        let metric = writer.metric(&spec).map_err(|error| reason_of(&error))?;
        let series = writer.series(metric, text).map_err(|error| reason_of(&error))?;
        let until_s = match series.is_overflow() {
            true => self.now_s.saturating_add(RETRY_S),
            false => u32::MAX,
        };
        let target = match kind {
            Kind::Counter => Target::Counter(series),
            Kind::Gauge => Target::Gauge(series),
            Kind::Timer | Kind::Histogram | Kind::Distribution => Target::Observed(series),
            Kind::Set => Target::Unique(series),
        };
        Ok(Known::new(target, scale, until_s))
    }
}

/// Who has a name of the family with another type: the metric itself, or one whose samples are called
/// so, which the page would not show beside it.
#[cold]
fn conflict_with(writer: &Writer, spec: &MetricSpec<'_>) -> Option<String> {
    if let Some((_, known)) = writer.find_metric(spec.name) {
        if known.shape.borrowed() == spec.shape {
            return None;
        }
        let (name, existing, wanted) =
            (spec.name.into(), known.shape.borrowed().told(), spec.shape.told());
        return Some(Error::Conflict { name, existing, wanted }.to_string());
    }
    let find = |name: &str| {
        writer.find_metric(name).map(|(_, known)| FamilyKind::of_shape(&known.shape.borrowed()))
    };
    let kind = FamilyKind::of_shape(&spec.shape);
    clash(spec.name, kind, find).map(|conflict| conflict.to_string())
}

/// A histogram that is there already keeps its bounds: they are the same for as long as the family lives, whatever
/// settings say meanwhile.
fn shape_of<'s>(kind: Kind, observed: &'s OwnedShape, known: Option<&'s OwnedShape>) -> Shape<'s> {
    match kind {
        Kind::Counter => Shape::Counter,
        Kind::Gauge | Kind::Set => Shape::Gauge(GaugeMode::MostRecent),
        Kind::Timer | Kind::Histogram | Kind::Distribution => {
            let is_histogram = |shape: &&OwnedShape| {
                matches!(shape, OwnedShape::Exponential { .. } | OwnedShape::Explicit(_))
            };
            known.filter(is_histogram).unwrap_or(observed).borrowed()
        }
    }
}

/// HELP of a metric whose sender gives none: every family has one.
fn default_help(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "Counter, as received.",
        Kind::Gauge => "Gauge, as received.",
        Kind::Timer => "Timer, as received, in seconds.",
        Kind::Histogram => "Histogram, as received.",
        Kind::Distribution => "Distribution, as received.",
        Kind::Set => "Distinct members of a set over the last minute, estimated.",
    }
}

fn reason_of(error: &Error) -> Reason {
    match error {
        Error::Conflict { .. } => Reason::TypeConflict,
        Error::Full { what: "metrics_max" } => Reason::MetricsFull,
        _ => Reason::SegmentFull,
    }
}

#[cfg(test)]
#[path = "apply_test.rs"]
mod tests;
