//! What a page shows of an app that has a second file, because its first was damaged under living writers.

#[path = "child/mod.rs"]
mod child;

use agent_shm::*;
use child::{spec, told, total, Folder};

fn options() -> Options {
    Options { slots_max: 8, bytes_max: 1 << 20, ..Options::default() }
}

fn made(folder: &Folder, name: &str) -> (Segment, Writer) {
    let segment = Segment::open_or_create(&folder.file(name), "shop", &options()).unwrap();
    let writer = segment.writer().unwrap();
    (segment, writer)
}

/// Made again until the clock that stamps both, which is coarse, has gone on.
fn made_after(old: &Segment, folder: &Folder, name: &str) -> (Segment, Writer) {
    loop {
        let (new, writer) = made(folder, name);
        if new.header().created_unix_ms > old.header().created_unix_ms {
            return (new, writer);
        }
        drop(writer);
        std::fs::remove_file(new.path()).unwrap();
    }
}

/// One series of a metric.
fn series(writer: &Writer, name: &str, shape: Shape<'_>, labels: &str) -> Series {
    writer.series(writer.metric(&spec(name, shape)).unwrap(), labels).unwrap()
}

fn done(outcome: Outcome) {
    assert_eq!(outcome, Outcome::Applied);
}

const MODES: [GaugeMode; 6] = [
    GaugeMode::Sum,
    GaugeMode::Min,
    GaugeMode::Max,
    GaugeMode::LiveSum,
    GaugeMode::MostRecent,
    GaugeMode::LiveAll,
];

fn count(writer: &Writer, n: u64) {
    let value = n as f64;
    let steps = series(writer, "steps", Shape::Counter, "");
    done(writer.add(&steps, n));
    done(writer.add_f64(&steps, 0.75));
    done(writer.add(&series(writer, "paths", Shape::Counter, &format!("n=\"{n}\"")), n));
    done(writer.observe(&series(writer, "took", Shape::Explicit(&[1.0, 9.0]), ""), value, 2));
    done(writer.observe(&series(writer, "native", Shape::Exponential { schema: 0 }, ""), value, 1));
    done(writer.observe(&series(writer, "waits", Shape::Summary(&[0.5]), ""), value, 1));
    for (number, mode) in MODES.into_iter().enumerate() {
        done(writer.set(&series(writer, &format!("g{number}"), Shape::Gauge(mode), ""), value));
    }
    done(writer.hold(&series(writer, "g4", Shape::Gauge(GaugeMode::MostRecent), ""), 1.0));
}

#[test]
fn every_number_of_both_files_is_on_the_page() {
    let folder = Folder::new("join");
    let (old, old_writer) = made(&folder, "shop.v3.seg");
    let (new, new_writer) = made(&folder, "shop~2.v3.seg");
    count(&old_writer, 3);
    count(&new_writer, 5);
    done(old_writer.add(&series(&old_writer, "early", Shape::Counter, ""), 7));
    done(new_writer.add(&series(&new_writer, "late", Shape::Counter, ""), 9));
    // Whichever is asked: the one that was made last counts as the newer.
    for joined in [Segment::joined(vec![new, old.clone()]).unwrap(), old.with_those_beside()] {
        let is = |name: &str, labels: &str| total(&joined, name, labels).unwrap();
        assert_eq!((is("steps", ""), is("early", ""), is("late", "")), (9.5, 7.0, 9.0));
        assert_eq!((is("paths", "n=\"3\""), is("paths", "n=\"5\"")), (3.0, 5.0));
        let gauges: Vec<f64> = (0..4).map(|number| is(&format!("g{number}"), "")).collect();
        assert_eq!(gauges, [8.0, 3.0, 5.0, 8.0]);
        let shown = told(&joined).join("\n");
        for line in [
            "took{} 4 16 [(9.0, 4)]",
            "native{} 2 8 [(4.0, 1), (8.0, 1)]",
            "waits{} Summary { count: 2, sum: 8.0 }",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        assert_eq!(joined.metrics().len(), joined.view().families().len());
    }
}

#[test]
fn a_gauge_of_all_is_what_the_newer_file_says_and_what_is_held_in_both() {
    let folder = Folder::new("join-held");
    let (old, one) = made(&folder, "shop.v3.seg");
    let shape = Shape::Gauge(GaugeMode::MostRecent);
    let a = series(&one, "level", shape, "");
    done(one.set(&a, 3.0));
    done(one.hold(&a, 1.0));
    let older = Segment::attach(old.path()).unwrap();
    let (new, other) = made_after(&old, &folder, "shop~2.v3.seg");
    let b = series(&other, "level", shape, "");
    done(other.set(&b, 5.0));
    done(other.hold(&b, 1.0));
    let joined = Segment::joined(vec![older, new]).unwrap();
    assert_eq!(total(&joined, "level", ""), Some(7.0));
    drop(one);
    assert_eq!(total(&joined, "level", ""), Some(6.0), "the dead hold nothing");
}

#[test]
fn a_family_that_both_define_otherwise_is_that_of_the_newer() {
    let folder = Folder::new("join-clash");
    let (old, one) = made(&folder, "shop.v3.seg");
    done(one.add(&series(&one, "m", Shape::Counter, ""), 3));
    let (new, other) = made_after(&old, &folder, "shop~2.v3.seg");
    done(other.set(&series(&other, "m", Shape::Gauge(GaugeMode::Max), ""), 5.0));
    let joined = Segment::joined(vec![old, new]).unwrap();
    assert_eq!(total(&joined, "m", ""), Some(5.0));
    assert_eq!(joined.view().superseded(), 1);
}

#[test]
fn quantiles_are_never_taken_from_a_series_of_the_other_file() {
    let folder = Folder::new("join-recent");
    let (old, one) = made(&folder, "shop.v3.seg");
    let only = series(&one, "only", Shape::Summary(&[0.5]), "");
    done(one.observe(&only, 3.0, 1));
    let (new, other) = made_after(&old, &folder, "shop~2.v3.seg");
    done(other.observe(&series(&other, "twin", Shape::Summary(&[0.5]), ""), 5.0, 1));
    let joined = Segment::joined(vec![old, new]).unwrap();
    for family in joined.view().families() {
        let is_in_main = family.meta().name == "twin";
        assert_eq!(family.ids().count() > 0, is_in_main);
        family.for_each(&mut |series| {
            let mut found = Vec::new();
            let each = |_, value| found.push(value);
            let account = joined.recent(series.id, &mut RecentReader::from_birth(), each);
            assert_eq!(account.is_some(), is_in_main, "{}", family.meta().name);
            assert_eq!(found.len(), usize::from(is_in_main));
        });
    }
}

#[test]
fn files_beside_each_other_are_told_by_their_names() {
    assert_eq!((base("shop~2"), base("shop"), base("shop~x")), ("shop", "shop", "shop~x"));
    let first = std::path::Path::new("/f/shop.v3.seg");
    let third = path_beside(first, 3);
    assert_eq!(third, std::path::Path::new("/f/shop~3.v3.seg"));
    assert_eq!(
        (path_beside(&third, 1), path_beside(&third, 9)),
        (first.into(), path_beside(first, 9))
    );
}

#[test]
fn a_minimum_that_nobody_set_in_the_newer_file_is_no_zero() {
    let folder = Folder::new("unset");
    let (old, old_writer) = made(&folder, "shop.v3.seg");
    let (new, new_writer) = made_after(&old, &folder, "shop~2.v3.seg");
    for (name, mode, value) in [("least", GaugeMode::Min, 5.0), ("most", GaugeMode::Max, -5.0)] {
        done(old_writer.set(&series(&old_writer, name, Shape::Gauge(mode), ""), value));
        drop(series(&new_writer, name, Shape::Gauge(mode), ""));
        for pair in [vec![old.clone(), new.clone()], vec![new.clone(), old.clone()]] {
            let joined = Segment::joined(pair).unwrap();
            let line = format!("{name}{{}} Gauge({value:?})");
            assert!(told(&joined).contains(&line), "{line}: {:?}", told(&joined));
        }
    }
}
