//! What a process does with what has no room in its segment: it counts it aside, says so, and brings it back.

mod program;

use agent_client::*;
use agent_shm::{GaugeMode, Options, OwnedShape, Segment, Series, Writer};
use program::child::{alone, total, Folder};
use program::*;
use std::path::Path;

#[test]
fn a_metric_without_room_goes_aside_alone_and_comes_back() {
    let _turn = alone();
    let folder = Folder::new("aside");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let tiny = Options { bytes_max: 192 << 10, ..options() };
    let store = Store::new(Source::App, tiny);
    let requests = counter(&store, "requests");
    inc(&requests, &host, 1);
    let filler = define(&store, "filler", OwnedShape::Counter, &["n"]);
    for bytes in (1..400).step_by(12) {
        for n in 0..90 {
            let text = format!("n=\"{n:0bytes$}\"");
            inc(&Handle::new(store.clone(), filler.clone(), text), &host, 1);
        }
    }
    // Of a size that no page has.
    let bounds = (0..300).map(f64::from).collect();
    let late = define(&store, "late", OwnedShape::Explicit(bounds), &[]);
    let late = Handle::new(store.clone(), late, String::new());
    let observe = |writer: &Writer, series: &Series| writer.observe(series, 7.5, 1);
    (0..1000).for_each(|_| late.apply_slowly(&host, &observe).unwrap());
    assert_eq!(value(&path, "late"), None, "there is no room for it");
    (0..1000).for_each(|_| inc(&requests, &host, 1));
    assert_eq!(value(&path, "requests"), Some(1001.0), "everything else goes on");
    assert!(store.fallback().is_none());
    assert_eq!(Segment::attach(&path).unwrap().usage().fallbacks, 1, "every page can say so");
    let told = host.warned.borrow().clone();
    assert!(told.len() == 1 && told[0].contains("no room for metric late"), "{told:?}");
    let all = Handle::new(store.clone(), filler, String::new());
    assert!(all.clear(&host).unwrap() > 100);
    // Asked once a second.
    let mut observed = 1000.0;
    while value(&path, "late").is_none() {
        late.apply_slowly(&host, &observe).unwrap();
        observed += 1.0;
    }
    assert_eq!(value(&path, "late"), Some(observed), "what was aside is there");
    late.apply_slowly(&host, &observe).unwrap();
    assert_eq!(value(&path, "late"), Some(observed + 1.0));
}

/// What a process says of a gauge of all needs memory of its own; without it nobody else's value is touched.
#[test]
fn a_gauge_without_room_for_one_process_keeps_what_all_say() {
    let _turn = alone();
    let folder = Folder::new("held");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = Store::new(Source::App, Options { bytes_max: 128 << 10, ..options() });
    let level = define(&store, "level", OwnedShape::Gauge(GaugeMode::MostRecent), &[]);
    let level = Handle::new(store.clone(), level, String::new());
    let set = |writer: &Writer, series: &Series| writer.set(series, 100.0);
    level.apply_slowly(&host, &set).unwrap();
    let filler = define(&store, "filler", OwnedShape::Counter, &["n"]);
    for bytes in (1..400).step_by(4) {
        for n in 0..90 {
            let text = format!("n=\"{n:0bytes$}\"");
            inc(&Handle::new(store.clone(), filler.clone(), text), &host, 1);
        }
    }
    let holds: Vec<_> = (0..5).map(|_| level.hold(&host).unwrap().expect("aside")).collect();
    assert_eq!((value(&path, "level"), store.lost()), (Some(100.0), 0));
    let told = host.warned.borrow().clone();
    assert!(told.len() == 1 && told[0].contains("no room for metric level"), "{told:?}");
    assert_eq!(Segment::attach(&path).unwrap().usage().fallbacks, 1);
    level.give_back(&host, &holds[0]).unwrap();
    let all = Handle::new(store.clone(), filler, String::new());
    assert!(all.clear(&host).unwrap() > 100);
    // Asked once a second; what is held then is held in the segment, as long as it is.
    while value(&path, "level") == Some(100.0) {
        store.ask_again_now();
        level.apply_slowly(&host, &|writer, series| writer.shift(series, 0.0)).unwrap();
    }
    assert_eq!((value(&path, "level"), store.lost()), (Some(104.0), 0));
    for hold in &holds[1..] {
        level.give_back(&host, hold).unwrap();
    }
    assert_eq!(value(&path, "level"), Some(100.0));
}

fn sum_and_count(path: &Path, name: &str) -> (f64, u64) {
    let segment = Segment::attach(path).unwrap();
    let mut found = (0.0, 0);
    for family in segment.view().families().iter().filter(|family| family.meta().name == name) {
        family.for_each(&mut |series| {
            if let agent_shm::Value::Histogram { count, sum, .. } = series.value {
                found = (sum, count);
            }
        });
    }
    found
}

#[test]
fn what_is_cleared_does_not_come_back_from_aside() {
    let _turn = alone();
    let folder = Folder::new("cleared");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = Store::new(Source::App, Options { metrics_max: 1, ..options() });
    let (first, second) = (counter(&store, "first"), counter(&store, "second"));
    inc(&first, &host, 1);
    inc(&second, &host, 1000);
    store.clear(&host).unwrap();
    inc(&second, &host, 1);
    let (aside, _) = store.aside().expect("there still is no room");
    let mut totals = Vec::new();
    for family in aside.writer.view().families() {
        family.for_each(&mut |series| totals.push(format!("{:?}", series.value)));
    }
    assert!(!totals.concat().contains("1001"), "{totals:?}");
}

/// Of each kind that needs memory of its own for what one process says, or for a new bucket.
#[test]
fn what_has_no_room_is_kept_whole_and_added_when_there_is_some() {
    let _turn = alone();
    let folder = Folder::new("kept");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = Store::new(Source::App, Options { bytes_max: 512 << 10, ..options() });
    let modes = [GaugeMode::Sum, GaugeMode::LiveSum, GaugeMode::Max, GaugeMode::LiveMostRecent];
    let gauges = modes.map(|mode| {
        let family = define(&store, mode.name(), OwnedShape::Gauge(mode), &[]);
        Handle::new(store.clone(), family, String::new())
    });
    let [times, rest] = ["times", "rest"].map(|name| {
        let family = define(&store, name, OwnedShape::Exponential { schema: 6 }, &[]);
        Handle::new(store.clone(), family, String::new())
    });
    let observe = |value: f64| move |writer: &Writer, s: &Series| writer.observe(s, value, 1);
    times.apply_slowly(&host, &observe(1.0)).unwrap();
    let filler = define(&store, "filler", OwnedShape::Counter, &["n"]);
    for bytes in (1..900).step_by(4) {
        for n in 0..90 {
            let text = format!("n=\"{n:0bytes$}\"");
            inc(&Handle::new(store.clone(), filler.clone(), text), &host, 1);
        }
    }
    // Takes the octaves that there still is memory for.
    for power in 0..30 {
        rest.apply_slowly(&host, &observe(f64::from(1 << power))).unwrap();
    }
    let raise = |writer: &Writer, s: &Series| writer.shift(s, 2.0);
    for _ in 0..10 {
        gauges.iter().for_each(|gauge| gauge.apply_slowly(&host, &raise).unwrap());
        times.apply_slowly(&host, &observe(100.0)).unwrap();
        times.apply_slowly(&host, &|writer, s| writer.observe_many(s, &[1.0, 1e-3])).unwrap();
        let many: Vec<f64> = (0..100).map(|n| if n % 2 == 0 { 1.0 } else { 1e6 }).collect();
        times.apply_slowly(&host, &|writer, s| writer.observe_many(s, &many)).unwrap();
    }
    assert_eq!(store.lost(), 0);
    assert_eq!(value(&path, "times"), Some(1.0), "nothing in a wrong bucket");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    store.ask_again_now();
    times.apply_slowly(&host, &observe(1.0)).unwrap();
    let (sum, count) = sum_and_count(&path, "times");
    assert_eq!(sum, count as f64, "of what is aside at most the ones, with their own sum");
    assert_eq!(Segment::attach(&path).unwrap().usage().fallbacks, 6);

    let all = Handle::new(store.clone(), filler, String::new());
    assert!(all.clear(&host).unwrap() > 100);
    while value(&path, "times") != Some(2.0 + 10.0 * 103.0) {
        store.ask_again_now();
        inc(&all, &host, 1);
    }
    for (mode, gauge) in modes.iter().zip(&gauges) {
        gauge.apply_slowly(&host, &raise).unwrap();
        assert_eq!(value(&path, mode.name()), Some(22.0), "{mode:?}");
    }
    assert_eq!(value(&path, "times"), Some(2.0 + 10.0 * 103.0));
    assert_eq!(sum_and_count(&path, "times").0, 2.0 + 10.0 * (100.0 + 1.001 + 50.0 + 50e6));
    let segment = Segment::attach(&path).unwrap();
    let (mut below, mut above) = (0, 0);
    segment.view().families().iter().filter(|f| f.meta().name == "times").for_each(|family| {
        family.for_each(&mut |series| {
            if let agent_shm::Value::Histogram { buckets, .. } = series.value {
                for &(upper, count) in buckets.iter() {
                    below += if upper < 0.01 { count } else { 0 };
                    above += if upper > 1e5 { count } else { 0 };
                }
            }
        });
    });
    assert_eq!((below, above), (10, 500));
}

/// Neither the segment nor the memory of the process has room: said, and counted on every page.
#[test]
fn what_is_kept_nowhere_is_lost_and_every_page_counts_it() {
    let _turn = alone();
    let folder = Folder::new("lost");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = Store::new(Source::App, Options { metrics_max: 2, ..options() });
    let names = ["a", "b", "c", "d", "e", "f"];
    let counters: Vec<_> = names.iter().map(|name| counter(&store, name)).collect();
    for _ in 0..100 {
        counters.iter().for_each(|counter| inc(counter, &host, 1));
    }
    let usage = Segment::attach(&path).unwrap().usage();
    assert_eq!((store.lost(), usage.lost, usage.fallbacks), (200, 200, 2));
    let told = host.warned.borrow();
    assert_eq!(told.iter().filter(|text| text.contains("are lost")).count(), 2, "{told:?}");
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn what_is_aside_can_be_removed_and_goes_on_and_comes_back_all_at_once() {
    let _turn = alone();
    let folder = Folder::new("several");
    let path = folder.file("shop.v3.seg");
    let host = Program::new(&path);
    let store = Store::new(Source::App, Options { bytes_max: 192 << 10, ..options() });
    let filler = define(&store, "filler", OwnedShape::Counter, &["n"]);
    for bytes in (1..400).step_by(12) {
        for n in 0..90 {
            let text = format!("n=\"{n:0bytes$}\"");
            inc(&Handle::new(store.clone(), filler.clone(), text), &host, 1);
        }
    }
    let bounds = (0..60).map(f64::from).collect();
    let late = define(&store, "late", OwnedShape::Explicit(bounds), &["n"]);
    let handle = |n: u32| Handle::new(store.clone(), late.clone(), format!("n=\"{n}\""));
    let observe = |writer: &Writer, series: &Series| writer.observe(series, 7.5, 1);
    let handles: Vec<Handle> = (0..20).map(handle).collect();
    let twin = handle(0);
    let all = |handle: &Handle| handle.apply_slowly(&host, &observe).unwrap();
    (0..10).for_each(|_| handles.iter().for_each(all));
    assert!(twin.remove(&host, "n=\"0\"").unwrap());
    (0..5).for_each(|_| all(&handles[0]));
    (0..5).for_each(|_| all(&twin));
    assert_eq!(store.lost(), 0);
    Handle::new(store.clone(), filler, String::new()).clear(&host).unwrap();
    let shown = |n: u32| total(&Segment::attach(&path).unwrap(), "late", &format!("n=\"{n}\""));
    while shown(1).is_none() {
        all(&handles[1]);
    }
    // With the first everything came back, whether it is used again or not.
    assert_eq!((shown(0), shown(2), shown(19)), (Some(10.0), Some(10.0), Some(10.0)));
    all(&handles[0]);
    all(&twin);
    assert_eq!((shown(0), store.lost()), (Some(12.0), 0));
}
