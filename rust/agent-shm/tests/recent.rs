//! What a user may rely on of the newest values of summaries.

use agent_shm::*;

fn spec<'a>(name: &'a str, shape: Shape<'a>) -> MetricSpec<'a> {
    MetricSpec { name, help: "", unit: "", shape }
}

fn summary(writer: &Writer, name: &str, labels: &str) -> Series {
    let metric = writer.metric(&spec(name, Shape::Summary(&[0.5]))).unwrap();
    writer.series(metric, labels).unwrap()
}

fn observe(writer: &Writer, series: &Series, values: impl IntoIterator<Item = f64>) {
    for value in values {
        assert_eq!(writer.observe(series, value, 1), Outcome::Applied);
    }
}

/// What a reader finds now, in order, and its account.
fn look(segment: &Segment, series: &Series, reader: &mut RecentReader) -> (Vec<f64>, Drained) {
    let mut values = Vec::new();
    let drained = segment.recent(series.id(), reader, |_, value| values.push(value)).unwrap();
    values.sort_by(f64::total_cmp);
    (values, drained)
}

fn all(segment: &Segment, series: &Series) -> Vec<f64> {
    look(segment, series, &mut RecentReader::from_oldest()).0
}

fn account(read: u64, lost: u64) -> Drained {
    Drained { read, lost }
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = f64> {
    range.map(f64::from)
}

#[test]
fn a_busy_summary_takes_no_value_of_a_slow_one() {
    let segment = Segment::private("t", &Options::default());
    let writer = segment.writer().unwrap();
    let (busy, slow) = (summary(&writer, "busy", ""), summary(&writer, "slow", ""));
    for tenth in 0..10 {
        observe(&writer, &slow, [f64::from(tenth)]);
        observe(&writer, &busy, numbers(tenth * 100_000..(tenth + 1) * 100_000));
    }
    assert_eq!(all(&segment, &slow), numbers(0..10).collect::<Vec<_>>());
    assert_eq!(all(&segment, &busy), numbers(1_000_000 - 2048..1_000_000).collect::<Vec<_>>());
}

#[test]
fn series_of_one_family_keep_their_own_values_too() {
    let segment = Segment::private("t", &Options::default());
    let writer = segment.writer().unwrap();
    let (busy, slow) = (summary(&writer, "s", "n=\"1\""), summary(&writer, "s", "n=\"2\""));
    observe(&writer, &slow, [1.0, 2.0, 3.0]);
    let many: Vec<f64> = numbers(0..5000).collect();
    assert_eq!(writer.observe_many(&busy, &many), Outcome::Applied);
    assert_eq!(all(&segment, &slow), [1.0, 2.0, 3.0]);
    assert_eq!(all(&segment, &busy), many[5000 - 2048..]);
}

#[test]
fn a_leap_of_millions_does_not_keep_what_is_older() {
    let segment = Segment::private("t", &Options::default());
    let writer = segment.writer().unwrap();
    let (batch, weight) = (summary(&writer, "batch", ""), summary(&writer, "weight", ""));
    observe(&writer, &batch, numbers(0..2048));
    observe(&writer, &weight, numbers(0..2048));

    let many: Vec<f64> = numbers(0..3_000_000).collect();
    assert_eq!(writer.observe_many(&batch, &many), Outcome::Applied);
    assert_eq!(all(&segment, &batch), numbers(3_000_000 - 2048..3_000_000).collect::<Vec<_>>());

    assert_eq!(writer.observe(&weight, 7.0, 3_000_000), Outcome::Applied);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    observe(&writer, &weight, numbers(10_000..12_048));
    assert_eq!(all(&segment, &weight), numbers(10_000..12_048).collect::<Vec<_>>());
}

#[test]
fn every_reader_gets_everything_once_and_counts_what_was_overwritten() {
    let segment = Segment::private("t", &Options { recent_max: 8, ..Options::default() });
    let writer = segment.writer().unwrap();
    let series = summary(&writer, "s", "");
    observe(&writer, &series, numbers(0..20));
    let (mut one, mut other) = (RecentReader::from_birth(), RecentReader::from_oldest());
    let newest: Vec<f64> = numbers(12..20).collect();
    assert_eq!(look(&segment, &series, &mut one), (newest.clone(), account(8, 12)));
    assert_eq!(look(&segment, &series, &mut one), (vec![], account(0, 0)));
    observe(&writer, &series, [20.0]);
    assert_eq!(look(&segment, &series, &mut one), (vec![20.0], account(1, 0)));
    let newest: Vec<f64> = numbers(13..21).collect();
    assert_eq!(look(&segment, &series, &mut other), (newest, account(8, 0)));
    observe(&writer, &series, numbers(21..40));
    let newest: Vec<f64> = numbers(32..40).collect();
    assert_eq!(look(&segment, &series, &mut one), (newest.clone(), account(8, 11)));
    assert_eq!(look(&segment, &series, &mut other), (newest, account(8, 11)));
}

#[test]
fn a_value_whose_number_was_taken_is_waited_for_once() {
    let segment = Segment::private("t", &Options::default());
    let writer = segment.writer().unwrap();
    let series = summary(&writer, "s", "");
    let mut reader = RecentReader::from_birth();
    // Three at once have three numbers, and one value for all: like two processes killed before the value.
    assert_eq!(writer.observe(&series, 7.0, 3), Outcome::Applied);
    assert_eq!(look(&segment, &series, &mut reader), (vec![7.0], account(1, 0)));
    assert_eq!(look(&segment, &series, &mut reader), (vec![], account(0, 2)));
    assert_eq!(look(&segment, &series, &mut reader), (vec![], account(0, 0)));
    // Those of long ago are not waited for.
    assert_eq!(writer.observe(&series, 8.0, 1000), Outcome::Applied);
    assert_eq!(look(&segment, &series, &mut reader).1, account(1, 1000 - 64));
    assert_eq!(look(&segment, &series, &mut reader).1, account(0, 63));
}

#[test]
fn processes_that_share_a_summary_lose_nothing_to_each_other() {
    let segment = Segment::private("t", &Options::default());
    let (one, other) = (segment.writer().unwrap(), segment.writer().unwrap());
    let (a, b) = (summary(&one, "s", ""), summary(&other, "s", ""));
    let mut reader = RecentReader::from_birth();
    let mut found = Vec::new();
    // Long enough for stripes to appear, and a reader that keeps up.
    for round in 0..40 {
        let first = round * 400;
        observe(&one, &a, numbers(first..first + 200));
        observe(&other, &b, numbers(first + 200..first + 400));
        let (values, drained) = look(&segment, &a, &mut reader);
        assert_eq!(drained.lost, 0, "round {round}");
        found.extend(values);
    }
    found.sort_by(f64::total_cmp);
    assert_eq!(found, numbers(0..16_000).collect::<Vec<_>>());
}

#[test]
fn values_of_summaries_leave_three_quarters_of_the_memory_to_others() {
    let options = Options { bytes_max: 4 << 20, metric_series_max: 100_000, ..Options::default() };
    let segment = Segment::private("t", &options);
    let writer = segment.writer().unwrap();
    let mut busy = Vec::new();
    for n in 0..200 {
        let series = summary(&writer, "busy", &format!("n=\"{n}\""));
        observe(&writer, &series, numbers(0..3000));
        busy.push(series);
    }
    // Those that came first keep all, those that came last the values of the first chunk.
    assert_eq!(all(&segment, &busy[0]).len(), 2048);
    for series in &busy {
        let found = all(&segment, series);
        assert!(found.len() >= 64, "{}", found.len());
        assert_eq!(found[found.len() - 50..], numbers(2950..3000).collect::<Vec<_>>());
    }
    let counter = writer.metric(&spec("c", Shape::Counter)).unwrap();
    let room = (0..10_000)
        .take_while(|n| !writer.series(counter, &format!("n=\"{n}\"")).unwrap().is_overflow());
    assert_eq!(room.count(), 10_000);
}

#[test]
fn a_removed_summary_gives_the_memory_of_its_values_back() {
    let options = Options { bytes_max: 4 << 20, ..Options::default() };
    let segment = Segment::private("t", &options);
    let writer = segment.writer().unwrap();
    let metric = writer.metric(&spec("s", Shape::Summary(&[0.5]))).unwrap();
    let mut committed = Vec::new();
    for round in 0..60 {
        for n in 0..10 {
            let series = writer.series(metric, &format!("n=\"{round}-{n}\"")).unwrap();
            observe(&writer, &series, numbers(0..3000));
            assert_eq!(all(&segment, &series).len(), 2048, "round {round}");
        }
        assert_eq!(writer.clear(metric), 10);
        for _ in 0..6 {
            writer.reclaim_now();
        }
        committed.push(segment.usage().bytes_committed);
    }
    assert_eq!(committed[5], committed[59]);
}

#[test]
fn without_memory_for_values_count_and_sum_go_on() {
    let options = Options { bytes_max: 64 << 10, metric_series_max: 100_000, ..Options::default() };
    let segment = Segment::private("t", &options);
    let writer = segment.writer().unwrap();
    let series = summary(&writer, "s", "");
    let counter = writer.metric(&spec("c", Shape::Counter)).unwrap();
    let full =
        (0..100_000).any(|n| writer.series(counter, &format!("n=\"{n}\"")).unwrap().is_overflow());
    assert!(full);
    observe(&writer, &series, numbers(0..100));
    assert_eq!(all(&segment, &series), []);
    assert!(segment.usage().refused > 0);
    let view = segment.view();
    let family = view.families().iter().find(|family| family.meta().name == "s").unwrap();
    family.for_each(&mut |series| {
        assert_eq!(series.value, Value::Summary { count: 100, sum: 4950.0 });
    });
}

#[test]
fn a_series_that_is_gone_has_no_values_and_nor_has_a_counter() {
    let segment = Segment::private("t", &Options::default());
    let writer = segment.writer().unwrap();
    let series = summary(&writer, "s", "k=\"v\"");
    observe(&writer, &series, [1.0]);
    let counter = writer.metric(&spec("c", Shape::Counter)).unwrap();
    let other = writer.series(counter, "").unwrap();
    let read = |id| segment.recent(id, &mut RecentReader::from_birth(), |_, _| ());
    assert_eq!(read(series.id()), Some(account(1, 0)));
    assert_eq!(read(other.id()), None);
    assert!(writer.remove(series.metric(), "k=\"v\""));
    assert_eq!(read(series.id()), None);
}
