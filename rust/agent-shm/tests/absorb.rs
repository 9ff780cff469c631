//! What comes back from private memory: nothing lost, nothing counted twice, what is held stays held.

use agent_shm::*;

fn spec<'a>(shape: Shape<'a>) -> MetricSpec<'a> {
    MetricSpec { name: "m", help: "", unit: "", shape }
}

fn small() -> Options {
    Options { bytes_max: 1 << 20, ..Options::default() }
}

struct Place {
    segment: Segment,
    writer: Writer,
    metric: MetricId,
}

impl Place {
    fn new(shape: Shape<'_>) -> Place {
        let segment = Segment::private("t", &small());
        let writer = segment.writer().unwrap();
        let metric = writer.metric(&spec(shape)).unwrap();
        Place { segment, writer, metric }
    }

    fn series(&self) -> Series {
        self.writer.series(self.metric, "").unwrap()
    }

    fn told(&self) -> String {
        let mut told = String::new();
        self.segment.view().families()[0].for_each(&mut |series| {
            told = match series.value {
                Value::Histogram { count, sum, buckets } => {
                    let filled: Vec<_> = buckets.iter().filter(|(_, n)| *n > 0).collect();
                    format!("{count} {sum} {filled:?}")
                }
                value => format!("{value:?}"),
            };
        });
        told
    }

    fn parcel(&self) -> Parcel {
        let mut found = None;
        self.segment.view().families()[0].for_each_parcel(&mut |_, parcel| found = Some(parcel));
        found.unwrap()
    }
}

/// Counts something of every part that the shape has.
fn count(place: &Place) {
    let (writer, series) = (&place.writer, place.series());
    let outcomes = match place.writer.segment().metrics()[0].shape {
        OwnedShape::Counter => [writer.add(&series, 7), writer.add_f64(&series, 0.25)],
        OwnedShape::Gauge(_) => [writer.set(&series, 5.0), writer.hold(&series, 2.0)],
        _ => [writer.observe(&series, 0.5, 1), writer.observe(&series, 3.0, 1)],
    };
    assert_eq!(outcomes, [Outcome::Applied; 2]);
}

const SHAPES: [Shape<'static>; 9] = [
    Shape::Counter,
    Shape::Gauge(GaugeMode::MostRecent),
    Shape::Gauge(GaugeMode::Sum),
    Shape::Gauge(GaugeMode::LiveMax),
    Shape::Gauge(GaugeMode::LiveAll),
    Shape::Explicit(&[1.0, 5.0]),
    Shape::Exponential { schema: 3 },
    Shape::Summary(&[]),
    Shape::Summary(&[0.5]),
];

#[test]
fn everything_comes_back_and_once() {
    for shape in SHAPES {
        let (aside, place) = (Place::new(shape), Place::new(shape));
        count(&aside);
        let mut parcel = aside.parcel();
        assert_eq!(place.writer.absorb(&place.series(), &mut parcel), Outcome::Applied);
        assert_eq!(place.told(), aside.told(), "{shape:?}");
        assert!(parcel.is_empty());
        assert_eq!(place.writer.absorb(&place.series(), &mut parcel), Outcome::Applied);
        assert_eq!(place.told(), aside.told(), "{shape:?}: a second time nothing");
    }
}

#[test]
fn a_series_that_expired_meanwhile_loses_nothing_and_doubles_nothing() {
    for shape in SHAPES {
        let (aside, place) = (Place::new(shape), Place::new(shape));
        count(&aside);
        let mut parcel = aside.parcel();
        let parts = parcel.len();
        let series = place.series();
        // Between the search for the series and the first addition to it, somebody else lets it go.
        let other = place.segment.writer().unwrap();
        let mut expirer = Expirer::default();
        let expired: u64 = (0..10).map(|now| expirer.run(&other, now * 1000, 1, |_| true)).sum();
        assert_eq!(expired, 1, "{shape:?}");
        assert_eq!(place.writer.absorb(&series, &mut parcel), Outcome::Stale);
        assert_eq!(parcel.len(), parts, "all of it is still to be added");
        assert_eq!(place.writer.absorb(&place.series(), &mut parcel), Outcome::Applied);
        assert_eq!(place.told(), aside.told(), "{shape:?}");
    }
}

#[test]
fn what_a_process_holds_ends_with_it_wherever_it_was_counted_first() {
    let mode = Shape::Gauge(GaugeMode::MostRecent);
    let (aside, place) = (Place::new(mode), Place::new(mode));
    count(&aside);
    let holder = place.segment.writer().unwrap();
    let series = holder.series(place.metric, "").unwrap();
    assert_eq!(holder.absorb(&series, &mut aside.parcel()), Outcome::Applied);
    assert_eq!(place.told(), "Gauge(7.0)");
    // One block ends in the segment, in another the process dies.
    assert_eq!(holder.hold(&series, -1.0), Outcome::Applied);
    assert_eq!(place.told(), "Gauge(6.0)");
    drop(holder);
    assert_eq!(place.told(), "Gauge(5.0)");
}

#[test]
fn the_values_of_a_summary_come_along_with_their_times() {
    let shape = Shape::Summary(&[0.5]);
    let (aside, place) = (Place::new(shape), Place::new(shape));
    let series = aside.series();
    let values: Vec<f64> = (0..3000).map(f64::from).collect();
    assert_eq!(aside.writer.observe_many(&series, &values), Outcome::Applied);
    assert_eq!(place.writer.observe(&place.series(), 7.5, 1), Outcome::Applied);
    let mut reader = RecentReader::from_birth();
    let read = |reader: &mut RecentReader| {
        let mut found = Vec::new();
        let account = place
            .segment
            .recent(place.series().id(), reader, |unix_ms, value| found.push((unix_ms, value)))
            .unwrap();
        (found, account)
    };
    assert_eq!(read(&mut reader).1, Drained { read: 1, lost: 0 });
    assert_eq!(place.writer.absorb(&place.series(), &mut aside.parcel()), Outcome::Applied);
    let (mut found, account) = read(&mut reader);
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert_eq!(account, Drained { read: 2048, lost: 3000 - 2048 });
    assert_eq!(found.iter().map(|(_, value)| *value).collect::<Vec<_>>(), values[3000 - 2048..]);
    let mut times = Vec::new();
    let each = |unix_ms, _| times.push(unix_ms);
    aside.segment.recent(series.id(), &mut RecentReader::from_oldest(), each).unwrap();
    assert!(found.iter().all(|(unix_ms, _)| times.contains(unix_ms)));
}

/// Four workers that began in private memory and set the same thing have set it once, not four times.
#[test]
fn a_gauge_that_was_set_is_set_and_one_that_was_changed_is_changed() {
    let shape = Shape::Gauge(GaugeMode::MostRecent);
    let to = Place::new(shape);
    let bring = |from: &Place| {
        assert_eq!(to.writer.absorb(&to.series(), &mut from.parcel()), Outcome::Applied);
    };
    for _ in 0..4 {
        let from = Place::new(shape);
        assert_eq!(from.writer.set(&from.series(), 7.0), Outcome::Applied);
        bring(&from);
        assert_eq!(to.told(), "Gauge(7.0)");
    }
    for total in [8.5, 10.0] {
        let from = Place::new(shape);
        assert_eq!(from.writer.shift(&from.series(), 1.5), Outcome::Applied);
        bring(&from);
        assert_eq!(to.told(), format!("Gauge({total:?})"));
    }
}

#[test]
fn a_minimum_that_nobody_set_is_no_zero() {
    for (mode, value) in [(GaugeMode::Min, 5.0), (GaugeMode::Max, -5.0)] {
        let (to, from) = (Place::new(Shape::Gauge(mode)), Place::new(Shape::Gauge(mode)));
        assert_eq!(to.writer.set(&to.series(), value), Outcome::Applied);
        drop(from.series());
        assert!(from.parcel().is_empty());
        assert_eq!(to.writer.absorb(&to.series(), &mut from.parcel()), Outcome::Applied);
        assert_eq!(to.told(), format!("Gauge({value:?})"));
    }
}
