//! What the data plane says about itself: the table of self-metrics, and the ledger.
//!
//! The ledger, per source and worker: `received = applied + rejected{reason}`, always. A sample is
//! one value; a line that cannot be read counts as one received and one rejected. The counts are
//! written in the order received, cell, applied, each by this one thread, so a worker that is killed
//! leaves exactly the samples it was working on as the difference. A successor with the same worker
//! number goes on in the same series.
//!
//! Every self-metric is a row of one table; a metric without a row does not compile. Counters have
//! their family name here, `_total` comes with the exposition. Events and checks are no samples.

use agent_shm::{GaugeMode, MetricSpec, Outcome, Series, Shape, Writer};
use agent_wire::Reject;

use crate::place::Place;

/// Bounds of our own histograms, in seconds: passes and scrapes take from a tenth of a millisecond to a few seconds.
pub const OWN_BOUNDS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// Where samples come from; the label `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SourceId {
    StatsdUdp,
    StatsdTcp,
    StatsdUnixgram,
    StatsdUnix,
    Push,
    Pushgateway,
}

impl SourceId {
    pub const ALL: [SourceId; 6] = [
        SourceId::StatsdUdp,
        SourceId::StatsdTcp,
        SourceId::StatsdUnixgram,
        SourceId::StatsdUnix,
        SourceId::Push,
        SourceId::Pushgateway,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            SourceId::StatsdUdp => "statsd_udp",
            SourceId::StatsdTcp => "statsd_tcp",
            SourceId::StatsdUnixgram => "statsd_unixgram",
            SourceId::StatsdUnix => "statsd_unix",
            SourceId::Push => "push",
            SourceId::Pushgateway => "pushgateway",
        }
    }
}

macro_rules! own_reasons {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)+) => {
        /// Why a sample was not applied; the label `reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            /// The codec refused it.
            Wire(Reject),
            $($(#[$doc])* $variant,)+
        }

        impl Reason {
            const OWN: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The reason in snake_case, stable across versions.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Reason::Wire(reject) => reject.as_str(),
                    $(Reason::$variant => $text,)+
                }
            }
        }
    };
}

own_reasons! {
    /// The metric exists with another type or other buckets.
    TypeConflict => "type_conflict",
    /// The table of metric names is full.
    MetricsFull => "metrics_full",
    /// The segment cannot take it: no memory, too large a label set, or damaged.
    SegmentFull => "segment_full",
    /// The source address is over its token bucket.
    SourceRate => "source_rate",
    /// The source address is over its sliding window.
    SourceWindow => "source_window",
    /// All sources together are over the token bucket.
    TotalRate => "total_rate",
    /// All sources together are over the sliding window.
    TotalWindow => "total_window",
    /// Memory is above the watermark.
    Memory => "memory",
    /// The worker has more connections than it may.
    ConnectionsMax => "connections_max",
    /// The datagram was longer than the receive buffer.
    DatagramTruncated => "datagram_truncated",
    /// A bug here: decoding or applying panicked.
    Panic => "panic",
}

impl Reason {
    /// Number of reasons: the size of a table by [`Reason::index`].
    pub const COUNT: usize = Reject::ALL.len() + Reason::OWN.len();

    /// Every reason of this version.
    pub fn all() -> impl Iterator<Item = Reason> {
        Reject::ALL.iter().copied().map(Reason::Wire).chain(Reason::OWN.iter().copied())
    }

    /// Position among all reasons.
    pub fn index(self) -> usize {
        match self {
            Reason::Wire(reject) => reject as usize,
            own => {
                let at = Reason::OWN.iter().position(|other| *other == own);
                Reject::ALL.len() + at.unwrap_or(Reason::OWN.len() - 1)
            }
        }
    }
}

impl From<Reject> for Reason {
    fn from(reject: Reject) -> Self {
        Reason::Wire(reject)
    }
}

/// What a self-metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    pub r#type: Type,
    pub unit: &'static str,
    pub help: &'static str,
}

macro_rules! self_metrics {
    ($($variant:ident: $type:ident $name:literal, $unit:literal, $help:literal;)+) => {
        /// A self-metric: its place in [`TABLE`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum SelfMetric { $($variant,)+ }

        /// Every self-metric.
        pub const TABLE: &[Row] = &[
            $(Row { name: $name, r#type: Type::$type, unit: $unit, help: $help },)+
        ];
    };
}

self_metrics! {
    Received: Counter "agent_source_samples_received", "",
        "Samples read, by source: applied or rejected, or in work.";
    Applied: Counter "agent_source_samples_applied", "",
        "Samples added to a cell, by source.";
    Rejected: Counter "agent_source_samples_rejected", "",
        "Samples not applied, by source and reason.";
    ReceivedBytes: Counter "agent_source_received_bytes", "bytes",
        "Bytes read, by source.";
    Datagrams: Counter "agent_source_datagrams_received", "",
        "Datagrams read, by source.";
    Events: Counter "agent_source_events_received", "",
        "DogStatsD events read, by source.";
    Checks: Counter "agent_source_checks_received", "",
        "DogStatsD service checks read, by source.";
    Acks: Counter "agent_source_acks_sent", "",
        "Answers to `_ack` lines: outcome ack, or nack when samples before it were shed.";
    UnterminatedLines: Counter "agent_source_unterminated_lines", "",
        "Last lines of closed streams that had no line end and were applied all the same.";
    KernelDrops: Counter "agent_kernel_drops", "",
        "Datagrams the kernel dropped because the receive buffer was full, by source.";
    SocketDrops: Gauge "agent_socket_kernel_drops", "",
        "Drop count of a datagram socket at its last reading, as the kernel has it.";
    ReceiveBuffer: Gauge "agent_socket_receive_buffer_bytes", "bytes",
        "Receive buffer the kernel granted to a datagram socket.";
    ConnectionsOpen: Gauge "agent_connections_open", "",
        "Connections open now, by source.";
    WorkerConnections: Gauge "agent_worker_connections", "",
        "Connections of a worker now, of all sources; their sum is held below `limits.connections_max`.";
    DeskPassing: Gauge "agent_desk_passing_connections", "",
        "Connections on their way from the desk to a worker.";
    ConnectionsAccepted: Gauge "agent_connections_accepted", "",
        "Connections that all processes together have accepted, refused ones included: the account of \
         the room in memory.";
    ConnectionsOpened: Counter "agent_connections_opened", "",
        "Connections accepted, by source.";
    ConnectionsTakenOver: Counter "agent_connections_taken_over", "",
        "Connections taken over from a predecessor, or passed on by the desk, by source.";
    ConnectionsClosed: Counter "agent_connections_closed", "",
        "Connections closed, by source and reason.";
    ConnectionsRefused: Counter "agent_connections_refused", "",
        "Connections closed right after they were accepted, by source and reason.";
    SideBytes: Gauge "agent_connections_buffered_bytes", "bytes",
        "Bytes of half lines, requests and output held for connections.";
    CacheEntries: Gauge "agent_apply_cache_entries", "",
        "Names with their tags whose series a worker remembers.";
    CacheMisses: Counter "agent_apply_cache_misses", "",
        "Samples whose series had to be looked up by its canonical name.";
    Sources: Gauge "agent_admission_sources", "",
        "Source addresses with limits of their own.";
    MemoryUsedRatio: Gauge "agent_memory_used_ratio", "ratio",
        "Memory used over the memory limit, as the watermark of admission sees it.";
    MemoryLimit: Gauge "agent_memory_limit_bytes", "bytes",
        "Memory limit that the watermark is a share of.";
    MemoryFull: Gauge "agent_memory_full", "",
        "1 while new connections are refused because memory has no room for them.";
    Panics: Counter "agent_worker_panics", "",
        "Panics caught at a connection or batch: bugs.";
    LogsDropped: Counter "agent_worker_logs_dropped", "",
        "Log records the supervisor did not take in time.";
    WorkerStart: Gauge "agent_worker_start_time_seconds", "seconds",
        "When the worker process started, in unix time.";
    Wakeups: Counter "agent_worker_wakeups", "",
        "Times the event loop woke up.";
    RingRead: Counter "agent_ring_records_read", "",
        "Records taken from the rings of an app by the aggregator.";
    RingLost: Counter "agent_ring_records_lost", "",
        "Records overwritten in the rings of an app before the aggregator read them.";
    WindowSeries: Gauge "agent_window_series", "",
        "Series that have windows, by kind.";
    WindowRefused: Counter "agent_window_samples_refused", "",
        "Samples without a window because too many series have one.";
    WindowQuantile: Gauge "agent_window_quantile", "",
        "Quantile of a distribution over the last seconds; relative error at most 2.2 %.";
    WindowRate: Gauge "agent_window_samples_per_second", "",
        "Samples a second of a distribution over the last seconds.";
    WindowErrors: Gauge "agent_window_error_ratio", "ratio",
        "Share of a distribution's samples with an error label over the last seconds.";
    SeriesExpired: Counter "agent_series_expired", "",
        "Series removed because nobody wrote to them for long.";
    SeriesFreed: Counter "agent_series_freed", "",
        "Removed series whose memory can be used again.";
    AggregatorLoop: Histogram "agent_aggregator_pass_duration_seconds", "seconds",
        "Time of a pass of the aggregator: draining, windows, publishing.";
}

impl SelfMetric {
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The metric as the segment registers it.
    pub const fn spec(self) -> MetricSpec<'static> {
        self.row().spec()
    }
}

impl Row {
    const fn spec(&self) -> MetricSpec<'static> {
        let shape = match self.r#type {
            Type::Counter => Shape::Counter,
            Type::Gauge => Shape::Gauge(GaugeMode::MostRecent),
            Type::Histogram => Shape::Explicit(&OWN_BOUNDS),
        };
        MetricSpec { name: self.name, help: self.help, unit: self.unit, shape }
    }
}

/// Takes the places of all self-metrics, before senders have taken the last ones: an account that has
/// no place for a reason does not close.
pub fn reserve(writer: &Writer) {
    for row in TABLE {
        // Where even that does not fit, each use tries again.
        let _ = writer.metric(&row.spec());
    }
}

/// One series of a self-metric: found at first use, found again when it was removed.
///
/// When the segment has no room for it the count is lost; nothing else can be done about it, and the
/// segment's own overflow count says so.
pub struct Own {
    metric: SelfMetric,
    labels: String,
    series: Option<Series>,
}

impl Own {
    /// `labels` is canonical label text.
    pub fn new(metric: SelfMetric, labels: String) -> Own {
        Own { metric, labels, series: None }
    }

    #[inline]
    pub fn add(&mut self, writer: &Writer, count: u64) {
        let known = self.series.as_ref().map(|series| writer.add(series, count));
        if known != Some(Outcome::Applied) {
            self.again(writer, |series| writer.add(series, count));
        }
    }

    /// Keeps the series of a counter that was used from expiring: an account that forgets one of its
    /// columns no longer closes.
    pub fn touch(&mut self, writer: &Writer) {
        if self.series.is_some() {
            self.add(writer, 0);
        }
    }

    pub fn set(&mut self, writer: &Writer, value: f64) {
        let known = self.series.as_ref().map(|series| writer.set(series, value));
        if known != Some(Outcome::Applied) {
            self.again(writer, |series| writer.set(series, value));
        }
    }

    /// Adds to a gauge that several processes share.
    pub fn shift(&mut self, writer: &Writer, by: f64) {
        let known = self.series.as_ref().map(|series| writer.shift(series, by));
        if known != Some(Outcome::Applied) {
            self.again(writer, |series| writer.shift(series, by));
        }
    }

    /// The value of a gauge, also when another process sets it.
    pub fn get(&mut self, writer: &Writer) -> f64 {
        let known = self.series.as_ref().and_then(|series| writer.gauge(series));
        known.unwrap_or_else(|| {
            self.again(writer, |series| writer.shift(series, 0.0));
            self.series.as_ref().and_then(|series| writer.gauge(series)).unwrap_or(0.0)
        })
    }

    pub fn observe(&mut self, writer: &Writer, value: f64) {
        let known = self.series.as_ref().map(|series| writer.observe(series, value, 1));
        if known != Some(Outcome::Applied) {
            self.again(writer, |series| writer.observe(series, value, 1));
        }
    }

    #[cold]
    fn again(&mut self, writer: &Writer, apply: impl Fn(&Series) -> Outcome) {
        for _ in 0..3 {
            let found = writer.metric(&self.metric.spec());
            let Ok(series) = found.and_then(|id| writer.series(id, &self.labels)) else { return };
            let outcome = apply(&series);
            self.series = Some(series);
            if outcome == Outcome::Applied {
                return;
            }
        }
    }
}

/// The account of one source.
pub struct Account {
    source: SourceId,
    worker: Place,
    received: Own,
    applied: Own,
    bytes: Own,
    datagrams: Own,
    events: Own,
    checks: Own,
    acks: Own,
    nacks: Own,
    unterminated: Own,
    rejected: Vec<Option<Own>>,
    /// Received and neither applied nor rejected yet: what a panic leaves.
    in_work: u64,
}

/// Canonical label text of a source and a worker, with more pairs between them in order.
pub fn labels(reason: Option<(&str, &str)>, source: &str, worker: Place) -> String {
    match reason {
        Some((name, value)) if name < "source" => {
            format!("{name}=\"{value}\",source=\"{source}\",worker=\"{worker}\"")
        }
        Some((name, value)) => {
            format!("source=\"{source}\",{name}=\"{value}\",worker=\"{worker}\"")
        }
        None => format!("source=\"{source}\",worker=\"{worker}\""),
    }
}

impl Account {
    pub fn new(source: SourceId, worker: Place) -> Account {
        let own = |metric| Own::new(metric, labels(None, source.as_str(), worker));
        let ack = |outcome| {
            let text = labels(Some(("outcome", outcome)), source.as_str(), worker);
            Own::new(SelfMetric::Acks, text)
        };
        Account {
            source,
            worker,
            received: own(SelfMetric::Received),
            applied: own(SelfMetric::Applied),
            bytes: own(SelfMetric::ReceivedBytes),
            datagrams: own(SelfMetric::Datagrams),
            events: own(SelfMetric::Events),
            checks: own(SelfMetric::Checks),
            acks: ack("ack"),
            nacks: ack("nack"),
            unterminated: own(SelfMetric::UnterminatedLines),
            rejected: (0..Reason::COUNT).map(|_| None).collect(),
            in_work: 0,
        }
    }

    /// Makes the series of a source that exists, so that zero is shown and not absence.
    pub fn announce(&mut self, writer: &Writer) {
        self.received.add(writer, 0);
        self.applied.add(writer, 0);
    }

    /// Every second or so: keeps all columns from expiring.
    pub fn touch(&mut self, writer: &Writer) {
        let fixed = [
            &mut self.received,
            &mut self.applied,
            &mut self.bytes,
            &mut self.datagrams,
            &mut self.events,
            &mut self.checks,
            &mut self.acks,
            &mut self.nacks,
            &mut self.unterminated,
        ];
        fixed
            .into_iter()
            .chain(self.rejected.iter_mut().flatten())
            .for_each(|own| own.touch(writer));
    }

    /// Before the cell.
    #[inline]
    pub fn received(&mut self, writer: &Writer, count: u64) {
        self.in_work += count;
        self.received.add(writer, count);
    }

    /// After the cell.
    #[inline]
    pub fn applied(&mut self, writer: &Writer, count: u64) {
        self.applied.add(writer, count);
        self.in_work = self.in_work.saturating_sub(count);
    }

    /// Of samples that were counted as received.
    #[cold]
    pub fn rejected(&mut self, writer: &Writer, reason: Reason, count: u64) {
        let (source, worker) = (self.source, self.worker);
        let own = self.rejected[reason.index()].get_or_insert_with(|| {
            let text = labels(Some(("reason", reason.as_str())), source.as_str(), worker);
            Own::new(SelfMetric::Rejected, text)
        });
        own.add(writer, count);
        self.in_work = self.in_work.saturating_sub(count);
    }

    /// Books what a panic left in work, so that the account closes.
    pub fn settle(&mut self, writer: &Writer) {
        match self.in_work {
            0 => {}
            left => self.rejected(writer, Reason::Panic, left),
        }
    }

    pub fn bytes(&mut self, writer: &Writer, count: u64) {
        self.bytes.add(writer, count);
    }

    pub fn datagrams(&mut self, writer: &Writer, count: u64) {
        self.datagrams.add(writer, count);
    }

    pub fn event(&mut self, writer: &Writer) {
        self.events.add(writer, 1);
    }

    pub fn check(&mut self, writer: &Writer) {
        self.checks.add(writer, 1);
    }

    pub fn acked(&mut self, writer: &Writer, is_ack: bool) {
        if is_ack { &mut self.acks } else { &mut self.nacks }.add(writer, 1);
    }

    pub fn unterminated(&mut self, writer: &Writer) {
        self.unterminated.add(writer, 1);
    }
}

#[cfg(test)]
#[path = "telemetry_test.rs"]
pub(crate) mod tests;
