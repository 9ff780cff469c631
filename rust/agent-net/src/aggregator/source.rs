//! One segment whose records are read, and what is made of them: the rings of the collector's own segment, the newest
//! values of summaries of an app's.
//!
//! A record names its series by a number; the series is looked up once and remembered until it has
//! been idle for as long as the longest window. Records of the collector's segment carry weights,
//! see [`crate::window::pack`]; those of apps are bare values.
//!
//! Records that were there before us are old: what is older than the running second is
//! left out of the windows, because nobody knows any more when it was read last; members of sets
//! and events are taken.

use std::rc::Rc;

use agent_shm::{
    Drained, Entry, MetricId, MetricMeta, MetricSpec, Outcome, OwnedShape, RecentReader,
    RecordKind, RingReader, Segment, Series, SeriesId, Shape, Writer,
};
use hashbrown::HashMap;

use crate::aggregator::show::{Base, Ids, Share, Shown};
use crate::apps::App;
use crate::events::Relay;
use crate::telemetry::{Own, SelfMetric};
use crate::unique::UniqueWindow;
use crate::window::{is_error, unpack, Window};

/// Seconds of old records that sets still take.
const SET_MEMORY_S: u64 = 60;

/// Why a record went into no window; the rows of `agent_window_samples_refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    DistributionsMax,
    SetsMax,
    /// The series was removed before the record was read, or the record makes no sense.
    Unknown,
    /// Infinite or not a number.
    NotFinite,
}

impl Refused {
    pub const ALL: [Refused; 4] =
        [Refused::DistributionsMax, Refused::SetsMax, Refused::Unknown, Refused::NotFinite];

    pub const fn as_str(self) -> &'static str {
        match self {
            Refused::DistributionsMax => "distributions_max",
            Refused::SetsMax => "sets_max",
            Refused::Unknown => "unknown",
            Refused::NotFinite => "not_finite",
        }
    }
}

/// What all sources of one aggregator share.
pub struct Common {
    pub writer: Writer,
    pub ids: Ids,
    pub relay: Relay,
    pub is_windowed: bool,
    pub distributions: Count,
    pub sets: Count,
    pub refused: [u64; Refused::ALL.len()],
    /// The second that is running.
    pub open_s: u64,
    /// Number of the last publication, from 1.
    pub turn: u64,
}

/// How many there are and may be.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    pub used: u32,
    pub max: u32,
}

impl Count {
    fn is_full(self) -> bool {
        self.used >= self.max
    }
}

impl Common {
    #[cold]
    fn refuse(&mut self, why: Refused) {
        self.refused[why as usize] += 1;
    }
}

struct Distribution {
    window: Window,
    metric: Rc<str>,
    is_error: bool,
    shown: Shown,
}

struct Set {
    members: UniqueWindow,
    /// The gauge of the estimate: the series of the records itself.
    series: Series,
    labels: String,
}

enum Target {
    Distribution(Box<Distribution>),
    Set(Box<Set>),
}

/// What one pass over the records of a source found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pass {
    pub read: u64,
    pub lost: u64,
    /// Share of the fullest ring, or of what the busiest summary keeps, that was new.
    pub fill: f64,
}

impl Pass {
    fn add(&mut self, drained: Drained, is_old: bool, records_max: u32) {
        self.lost = self.lost.saturating_add(drained.lost);
        // A predecessor has counted what was there already.
        self.read += if is_old { 0 } else { drained.read };
        let records = (drained.read + drained.lost) as f64;
        self.fill = self.fill.max(records / f64::from(records_max.max(1)));
    }
}

/// Segments up to this size are looked through for new series in every pass, others once a second.
const SMALL_BYTES: u64 = 4 << 20;

/// The summaries of an app, each with a cursor. To find them takes a pass over the segment, which is made when series
/// came or went.
#[derive(Default)]
struct Summaries {
    readers: HashMap<SeriesId, RecentReader>,
    /// Definitions, series and removals at the last look, and its second.
    seen: Option<(u64, u64, u64)>,
    looked_s: u64,
}

impl Summaries {
    fn look(&mut self, segment: &Segment, is_first: bool, now_s: u64) {
        let usage = segment.usage();
        let now = Some((segment.births(), usage.series, usage.removed));
        let may = usage.bytes_committed <= SMALL_BYTES || now_s != self.looked_s;
        if now == self.seen || !may {
            return;
        }
        (self.seen, self.looked_s) = (now, now_s);
        for family in segment.view().families() {
            if !matches!(&family.meta().shape, OwnedShape::Summary(q) if !q.is_empty()) {
                continue;
            }
            for id in family.ids() {
                let reader =
                    if is_first { RecentReader::from_oldest } else { RecentReader::from_birth };
                self.readers.entry(id).or_insert_with(reader);
            }
        }
    }
}

/// One segment with its readers and windows.
pub struct Source {
    feed: Feed,
    segment: Segment,
    rings: Vec<Option<RingReader>>,
    summaries: Summaries,
    is_first_pass: bool,
    sum: Drained,
    read: Own,
    lost: Own,
    label: String,
}

/// The part that a record meets.
struct Feed {
    segment: Segment,
    /// Keeps the segment guarded; none for the collector's own.
    app: Option<App>,
    targets: HashMap<SeriesId, Target>,
    shares: HashMap<Rc<str>, Share>,
}

impl Source {
    pub fn own(segment: &Segment) -> Source {
        Source::new(segment.clone(), None, &segment.header().app)
    }

    pub fn of_app(app: &App) -> Source {
        Source::new(app.segment.clone(), Some(app.clone()), &app.name)
    }

    fn new(segment: Segment, app: Option<App>, name: &str) -> Source {
        let mut label = String::from("app=\"");
        agent_metric::name::escape_label_value(name.as_bytes(), &mut label);
        label.push('"');
        let feed =
            Feed { segment: segment.clone(), app, targets: HashMap::new(), shares: HashMap::new() };
        Source {
            feed,
            segment,
            rings: Vec::new(),
            summaries: Summaries::default(),
            is_first_pass: true,
            sum: Drained::default(),
            read: Own::new(SelfMetric::RingRead, label.clone()),
            lost: Own::new(SelfMetric::RingLost, label.clone()),
            label,
        }
    }

    /// Whether it is this app, and the same file of it.
    pub fn is(&self, app: &App) -> bool {
        let own = self.feed.app.as_ref();
        own.is_some_and(|own| own.name == app.name)
            && self.segment.file_id() == app.segment.file_id()
    }

    pub fn is_app(&self) -> bool {
        self.feed.app.is_some()
    }

    /// Takes everything that is new.
    pub fn drain(&mut self, common: &mut Common) -> Pass {
        let pass =
            if self.is_app() { self.drain_summaries(common) } else { self.drain_rings(common) };
        self.is_first_pass = false;
        self.sum.read += pass.read;
        self.sum.lost = self.sum.lost.saturating_add(pass.lost);
        pass
    }

    fn drain_rings(&mut self, common: &mut Common) -> Pass {
        let mut pass = Pass::default();
        let own_slot = common.writer.slot();
        self.rings.resize_with(usize::from(self.segment.slots_used()), || None);
        for (slot, reader) in (0..).zip(&mut self.rings) {
            if slot == own_slot {
                continue;
            }
            if reader.is_none() {
                *reader = self.segment.ring_reader(slot);
            }
            let Some(reader) = reader else { continue };
            let (feed, is_old) = (&mut self.feed, self.is_first_pass);
            let drained = reader.drain(|entry| feed.take(entry, is_old, common));
            pass.add(drained, is_old, self.segment.header().options.ring_records);
        }
        pass
    }

    fn drain_summaries(&mut self, common: &mut Common) -> Pass {
        let mut pass = Pass::default();
        let Source { feed, segment, summaries, is_first_pass: is_old, .. } = self;
        summaries.look(segment, *is_old, common.open_s);
        let kept = segment.header().options.recent_max;
        summaries.readers.retain(|&id, reader| {
            let drained = segment.recent(id, reader, |unix_ms, value| {
                feed.sample_of_time(id, unix_ms, value.to_bits(), *is_old, common);
            });
            drained.inspect(|drained| pass.add(*drained, *is_old, kept)).is_some()
        });
        pass
    }

    /// `seconds` are over: moves the windows on and shows them.
    pub fn turn(&mut self, common: &mut Common, seconds: u64) {
        self.read.add(&common.writer, std::mem::take(&mut self.sum.read));
        self.lost.add(&common.writer, std::mem::take(&mut self.sum.lost));
        self.feed.turn(common, seconds);
    }

    /// The segment is gone: nothing of it is shown any more.
    pub fn remove(self, common: &mut Common) {
        for (_, target) in self.feed.targets {
            target.remove(common);
        }
        for (_, share) in self.feed.shares {
            share.remove(&common.writer, &common.ids);
        }
        for metric in [SelfMetric::RingRead, SelfMetric::RingLost] {
            if let Ok(id) = common.writer.metric(&metric.spec()) {
                common.writer.remove(id, &self.label);
            }
        }
    }
}

impl Feed {
    #[inline]
    fn take(&mut self, entry: Entry<'_>, is_old: bool, common: &mut Common) {
        match entry {
            Entry::Value { series, kind: RecordKind::Sample, unix_ms, bits } => {
                self.sample_of_time(series, unix_ms, bits, is_old, common);
            }
            Entry::Value { series, kind: RecordKind::Unique, unix_ms, bits } => {
                self.member(series, unix_ms, bits, is_old, common);
            }
            Entry::Event { unix_ms, bytes } => common.relay.take(unix_ms, bytes, is_old),
        }
    }

    #[inline]
    fn sample_of_time(
        &mut self,
        series: SeriesId,
        unix_ms: u64,
        bits: u64,
        is_old: bool,
        common: &mut Common,
    ) {
        if common.is_windowed && !(is_old && unix_ms < common.open_s * 1000) {
            self.sample(series, unix_ms, bits, common);
        }
    }

    #[inline]
    fn sample(&mut self, series: SeriesId, unix_ms: u64, bits: u64, common: &mut Common) {
        let (value, times) = match self.app {
            None => unpack(bits),
            Some(_) => (f64::from_bits(bits), 1),
        };
        if !value.is_finite() {
            return common.refuse(Refused::NotFinite);
        }
        let is_next = unix_ms >= (common.open_s + 1) * 1000;
        let target = match self.targets.get_mut(&series) {
            Some(target) => target,
            None => match self.meet_distribution(series, common) {
                Ok(target) => target,
                Err(why) => return common.refuse(why),
            },
        };
        match target {
            Target::Distribution(known) => known.window.observe(value, times, is_next),
            Target::Set(_) => common.refuse(Refused::Unknown),
        }
    }

    fn member(
        &mut self,
        series: SeriesId,
        unix_ms: u64,
        hash: u64,
        is_old: bool,
        common: &mut Common,
    ) {
        let second = unix_ms / 1000;
        if is_old && second + SET_MEMORY_S < common.open_s {
            return;
        }
        let target = match self.targets.get_mut(&series) {
            Some(target) => target,
            None => match self.meet_set(series, common) {
                Ok(target) => target,
                Err(why) => return common.refuse(why),
            },
        };
        match target {
            // Times of the future would push everything else out.
            Target::Set(set) => set.members.insert(hash, second.min(common.open_s + 1)),
            Target::Distribution(_) => common.refuse(Refused::Unknown),
        }
    }

    #[cold]
    fn meet_distribution(
        &mut self,
        series: SeriesId,
        common: &mut Common,
    ) -> Result<&mut Target, Refused> {
        if common.distributions.is_full() {
            return Err(Refused::DistributionsMax);
        }
        let (meta, labels) = self.segment.describe(series).ok_or(Refused::Unknown)?;
        if matches!(meta.shape, OwnedShape::Counter | OwnedShape::Gauge(_)) {
            return Err(Refused::Unknown);
        }
        let app = self.app.as_ref().map(|app| app.name.as_str());
        let metric = match self.shares.get_key_value(meta.name.as_str()) {
            Some((name, _)) => name.clone(),
            None => {
                let name: Rc<str> = meta.name.as_str().into();
                let share = Share::new(Base::new(app, &name, ""));
                self.shares.insert(name.clone(), share);
                name
            }
        };
        common.distributions.used += 1;
        let known = Distribution {
            window: Window::default(),
            is_error: is_error(&labels),
            shown: Shown::new(Base::new(app, &metric, &labels)),
            metric,
        };
        Ok(self.targets.entry(series).insert(Target::Distribution(Box::new(known))).into_mut())
    }

    #[cold]
    fn meet_set(&mut self, id: SeriesId, common: &mut Common) -> Result<&mut Target, Refused> {
        if common.sets.is_full() {
            return Err(Refused::SetsMax);
        }
        let (meta, labels) = self.segment.describe(id).ok_or(Refused::Unknown)?;
        let metric = registered(&common.writer, &meta).ok_or(Refused::Unknown)?;
        let series = common.writer.find(metric, &labels).ok_or(Refused::Unknown)?;
        if series.id() != id {
            return Err(Refused::Unknown);
        }
        common.sets.used += 1;
        let set = Set { members: UniqueWindow::default(), series, labels };
        Ok(self.targets.entry(id).insert(Target::Set(Box::new(set))).into_mut())
    }

    fn turn(&mut self, common: &mut Common, seconds: u64) {
        let Feed { targets, shares, .. } = self;
        let turn = common.turn;
        let idle = targets.extract_if(|_, target| match target {
            Target::Set(set) => !set.turn(common),
            Target::Distribution(known) => {
                known.window.turn(seconds);
                if known.window.is_empty() {
                    return true;
                }
                known.shown.set(&common.writer, &common.ids, &known.window, turn);
                if let Some(share) = shares.get_mut(&known.metric) {
                    share.count(&known.window, known.is_error, turn);
                }
                false
            }
        });
        let idle: Vec<Target> = idle.map(|(_, target)| target).collect();
        idle.into_iter().for_each(|target| target.remove(common));
        for (_, share) in shares.extract_if(|_, share| !share.is_current(turn)) {
            share.remove(&common.writer, &common.ids);
        }
        shares.values_mut().for_each(|share| share.set(&common.writer, &common.ids));
    }
}

impl Set {
    /// Shows the estimate; whether there is any reason to keep the set.
    fn turn(&mut self, common: &Common) -> bool {
        let (writer, estimate) = (&common.writer, self.members.estimate(common.open_s));
        let outcome = writer.set(&self.series, estimate);
        if self.members.is_empty() || outcome == Outcome::Applied {
            return !self.members.is_empty();
        }
        // Removed or about to expire, and there are members: like any write, it comes back.
        let Ok(series) = writer.series(self.series.metric(), &self.labels) else { return false };
        self.series = series;
        writer.set(&self.series, estimate) == Outcome::Applied
    }
}

impl Target {
    fn remove(self, common: &mut Common) {
        match self {
            Target::Set(_) => common.sets.used -= 1,
            Target::Distribution(known) => {
                common.distributions.used -= 1;
                known.shown.remove(&common.writer, &common.ids);
            }
        }
    }
}

/// The metric of a set, which has to be a shared gauge.
fn registered(writer: &Writer, meta: &MetricMeta) -> Option<MetricId> {
    let OwnedShape::Gauge(mode) = meta.shape else { return None };
    let spec = MetricSpec {
        name: &meta.name,
        help: &meta.help,
        unit: &meta.unit,
        shape: Shape::Gauge(mode),
    };
    writer.metric(&spec).ok()
}
