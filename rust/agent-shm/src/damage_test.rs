//! Single words of a segment's own bookkeeping, changed: what that costs, and that it is no more.

use crate::block;
use crate::handle::{Outcome, Series};
use crate::layout::*;
use crate::metric::{MetricId, MetricSpec};
use crate::page::PageWord;
use crate::segment::Segment;
use crate::sync::Ordering;
use crate::value::Value;
use crate::writer::Writer;
use agent_metric::Shape;

fn options(pages: u64) -> Options {
    Options {
        series_max: 10_000,
        metric_series_max: 10_000,
        metrics_max: 16,
        slots_max: 4,
        ring_records: 8,
        recent_max: 8,
        bytes_max: pages * PAGE_BYTES,
    }
}

fn counter(writer: &Writer, name: &str) -> MetricId {
    let spec = MetricSpec { name, help: "", unit: "", shape: Shape::Counter };
    writer.metric(&spec).unwrap()
}

fn label(n: u64) -> String {
    format!("user=\"{n:0200}\"")
}

/// One of each label set; gives those that did not go to the overflow series.
fn count(writer: &Writer, metric: MetricId, numbers: std::ops::Range<u64>) -> Vec<Series> {
    let series = numbers.map(|n| writer.series(metric, &label(n)).unwrap());
    let series = series.inspect(|series| assert_eq!(writer.add(series, 1), Outcome::Applied));
    series.filter(|series| !series.overflow).collect()
}

/// The sum of everything on the page, and what is missing there because it is damaged.
fn shown(segment: &Segment) -> (u64, u64) {
    let view = segment.view();
    let (mut total, mut damaged) = (0, view.damaged());
    for family in view.families() {
        damaged += family.for_each(&mut |series| {
            if let Value::Counter { whole, .. } = series.value {
                total += whole;
            }
        });
    }
    (total, damaged)
}

fn page_of(segment: &Segment, block: u64) -> u64 {
    (block - segment.inner.places.blocks) / PAGE_BYTES
}

fn flip(segment: &Segment, offset: u64, bits: u64) {
    segment.inner.region.word(offset).fetch_xor(bits, Ordering::AcqRel);
}

/// All memory is full of series of one metric; the last of them.
fn full_segment() -> (Segment, Writer, MetricId, Series) {
    let segment = Segment::anonymous("shop", &options(8)).unwrap();
    let writer = segment.writer().unwrap();
    let metric = counter(&writer, "requests");
    let last = count(&writer, metric, 0..1000).pop().unwrap();
    (segment, writer, metric, last)
}

#[test]
fn a_page_of_no_class_that_there_is_holds_nobody_up_and_is_counted() {
    let (segment, writer, metric, last) = full_segment();
    let (region, places) = (&segment.inner.region, &segment.inner.places);
    let index = page_of(&segment, last.entry);
    assert_eq!(shown(&segment), (1000, 0));
    let before = region.word(places.pages + index * 8).load(Ordering::Acquire);
    for class in CLASSES.len() as u64 + 1..=0x3f {
        region.word(places.pages + index * 8).store(before & !0x3f | class, Ordering::Release);
        assert_eq!(block::page_word_of(region, places, index), PageWord::Damaged);
        // No memory is left, so every page is looked at.
        let from = class * 100;
        assert!(count(&writer, metric, from..from + 100).is_empty(), "class {class}");
        writer.reclaim_now();
        let (total, damaged) = shown(&segment);
        assert_eq!(damaged, 1, "class {class}");
        assert!(total > 0, "class {class}: the other pages are shown");
    }
    region.word(places.pages + index * 8).store(before, Ordering::Release);
    assert_eq!(shown(&segment).1, 0);
}

#[test]
fn a_page_is_never_overwritten_for_the_phase_that_its_word_says() {
    for bits in [1_u64 << 6, 1 << 7, 3 << 6] {
        let (segment, writer, metric, last) = full_segment();
        let places = &segment.inner.places;
        let word = places.pages + page_of(&segment, last.entry) * 8;
        flip(&segment, word, bits);
        assert_eq!(shown(&segment), (1000, 0), "phase {bits:#x}: all of it is on the page still");
        for _ in 0..6 {
            writer.reclaim_now();
        }
        assert_eq!(shown(&segment), (1000, 0), "phase {bits:#x}");
        assert_eq!(writer.add(&last, 1), Outcome::Applied, "phase {bits:#x}");
        assert!(count(&writer, metric, 2000..2010).is_empty());
        assert_eq!(shown(&segment), (1011, 0), "phase {bits:#x}");
        assert_eq!(segment.audit().faults, Vec::<String>::new(), "phase {bits:#x}");
    }
}

#[test]
fn a_fraction_that_is_none_is_not_shown_and_goes_with_the_next_update() {
    let damage = [f64::to_bits(-0.5), 1.0_f64.to_bits(), f64::NAN.to_bits(), u64::MAX];
    for bits in damage.into_iter().chain([f64::NEG_INFINITY.to_bits(), (1_u64 << 63) - 1]) {
        let segment = Segment::anonymous("shop", &options(8)).unwrap();
        let writer = segment.writer().unwrap();
        let series = writer.series(counter(&writer, "seconds"), "").unwrap();
        assert_eq!(writer.add_f64(&series, 7.5), Outcome::Applied);
        let told = || {
            let view = segment.view();
            let mut told = Vec::new();
            view.families()[0].for_each(&mut |series| match series.value {
                Value::Counter { whole, fraction } => told.push((whole, fraction)),
                _ => unreachable!("it is a counter"),
            });
            told
        };
        assert_eq!(told(), [(7, 0.5)]);
        let region = &segment.inner.region;
        region.word(series.cells + 8).store(bits, Ordering::Release);
        assert_eq!(told(), [(7, 0.0)], "{bits:#x}");
        assert_eq!(writer.add_f64(&series, 1.25), Outcome::Applied);
        assert_eq!(told(), [(8, 0.25)], "{bits:#x}");
    }
}

#[test]
fn buckets_that_are_too_many_together_stay_the_most_that_there_is() {
    let segment = Segment::anonymous("shop", &options(8)).unwrap();
    let writer = segment.writer().unwrap();
    let shape = Shape::Explicit(&[1.0, 2.0]);
    let spec = MetricSpec { name: "sizes", help: "", unit: "", shape };
    let series = writer.series(writer.metric(&spec).unwrap(), "").unwrap();
    for value in [0.5, 1.5] {
        assert_eq!(writer.observe(&series, value, 1), Outcome::Applied);
    }
    for bucket in [series.cells, series.cells + 16] {
        flip(&segment, bucket, 1 << 63);
    }
    let mut told = Vec::new();
    segment.view().families()[0].for_each(&mut |series| match series.value {
        Value::Histogram { count, .. } => told.push(count),
        _ => unreachable!("it is a histogram"),
    });
    assert_eq!(told, [u64::MAX]);
}

#[test]
fn a_count_that_is_damaged_is_put_right_by_who_is_refused_for_it() {
    let (segment, writer) = {
        let segment = Segment::anonymous("shop", &options(64)).unwrap();
        let writer = segment.writer().unwrap();
        (segment, writer)
    };
    let metric = counter(&writer, "requests");
    let of_metric = writer.shape(metric).unwrap().1 + METRIC_SERIES;
    for (turn, word) in [WORD_SERIES, of_metric].into_iter().enumerate() {
        // Each process asks for a pass once a minute at most; this is another one.
        let writer = segment.writer().unwrap();
        flip(&segment, word, 1 << 40);
        let from = turn as u64 * 100;
        let counted = count(&writer, metric, from..from + 100).len();
        assert!(counted >= 98, "of {turn}: {counted} of 100 label sets have a series");
    }
    let writer = segment.writer().unwrap();
    flip(&segment, WORD_METRICS, 1 << 40);
    let spec = MetricSpec { name: "new", help: "", unit: "", shape: Shape::Counter };
    assert!(writer.metric(&spec).is_err(), "the count says that there are too many");
    assert!(writer.series(metric, "").is_ok());
    assert!(writer.metric(&spec).is_ok(), "it was counted anew");
    assert_eq!(segment.audit().faults, Vec::<String>::new());
}

#[test]
fn a_limit_that_is_reached_costs_one_pass_and_no_more() {
    let options = Options { metric_series_max: 10, ..options(64) };
    let segment = Segment::anonymous("shop", &options).unwrap();
    let writer = segment.writer().unwrap();
    let metric = counter(&writer, "requests");
    let epoch = writer.epoch();
    let counted = count(&writer, metric, 0..2000).len();
    assert_eq!(counted, 10);
    // Each pass moves the epoch on.
    assert!(writer.epoch() - epoch <= 2, "{} passes", writer.epoch() - epoch);
}

#[test]
fn a_page_in_use_that_lost_its_class_is_not_given_away() {
    let (segment, writer, metric, last) = full_segment();
    let (region, places) = (&segment.inner.region, &segment.inner.places);
    let index = page_of(&segment, last.entry);
    let word = region.word(places.pages + index * 8);
    let before = word.load(Ordering::Acquire);
    word.store(before & !0x3f, Ordering::Release);
    // Of another size: in the words that are zero, new blocks of this page would begin.
    for n in 0..300 {
        let series = writer.series(metric, &format!("n=\"{n}\"")).unwrap();
        assert_eq!(writer.add(&series, 1), Outcome::Applied);
        assert!(series.overflow, "all other memory is in use");
    }
    writer.reclaim_now();
    assert_eq!(writer.add(&last, 1), Outcome::Applied);
    word.store(before, Ordering::Release);
    assert_eq!(shown(&segment), (1301, 0));
}
