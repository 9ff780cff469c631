//! A metric whose sample's name another program of the app had first is on no page: the one who defines it is told.

#[path = "../../agent-shm/tests/child/mod.rs"]
mod child;

use agent_client::*;
use agent_shm::{GaugeMode, Options, OwnedShape, Series, Writer};
use child::{alone, Folder};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

/// A program whose app is known, and what it was told.
struct Program(PathBuf, RefCell<Vec<String>>);

impl Host for Program {
    fn find_app(&self) -> Result<Place, NoPlace> {
        Ok(Place::Known { app: "shop".into(), path: self.0.clone() })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn warn(&self, text: &str) {
        self.1.borrow_mut().push(text.into());
    }
}

fn options() -> Options {
    Options { slots_max: 64, bytes_max: 8 << 20, ..Options::default() }
}

fn count(store: &Arc<Store>, host: &Program, name: &str, class: Class) {
    let shape = match class {
        Class::Counter => OwnedShape::Counter,
        Class::Gauge => OwnedShape::Gauge(GaugeMode::MostRecent),
        Class::Histogram => OwnedShape::Explicit(vec![1.0]),
        Class::Summary => OwnedShape::Summary(vec![0.5]),
    };
    let (help, unit, label_names) = (String::new(), String::new(), Vec::new());
    let definition = Definition { class, name: name.into(), help, unit, shape, label_names };
    let handle = Handle::new(store.clone(), store.define(definition).unwrap(), String::new());
    let update = |writer: &Writer, series: &Series| match class {
        Class::Counter => writer.add(series, 1),
        Class::Gauge => writer.set(series, 1.0),
        _ => writer.observe(series, 1.0, 1),
    };
    handle.apply_slowly(host, &update).unwrap();
}

/// What a program is told that defines `new` after one that defined `old`; both count.
fn told(folder: &Folder, old: (&str, Class), new: (&str, Class)) -> Vec<String> {
    let path = folder.file(&format!("{}-{}.v3.seg", old.0, new.0));
    let host = Program(path, RefCell::default());
    count(&Store::new(Source::App, options()), &host, old.0, old.1);
    assert!(host.1.borrow().is_empty());
    let later = Store::new(Source::App, options());
    // The segment is open, or is opened, when the metric comes.
    count(&later, &host, "first", Class::Counter);
    count(&later, &host, new.0, new.1);
    for _ in 0..3 {
        later.open(&host).unwrap();
    }
    let opened = host.1.take();
    let again = Store::new(Source::App, options());
    count(&again, &host, new.0, new.1);
    assert_eq!(host.1.take(), opened);
    opened
}

#[test]
fn whose_name_is_taken_is_told_once_with_the_remedy() {
    let _turn = alone();
    let folder = Folder::new("clash");
    for (old, new, sample) in [
        (("jobs", Class::Counter), ("jobs_total", Class::Gauge), "jobs_total"),
        (("runs_total", Class::Gauge), ("runs", Class::Counter), "runs_total"),
        (("lat", Class::Histogram), ("lat_count", Class::Counter), "lat_count"),
        (("wait", Class::Summary), ("wait_sum", Class::Gauge), "wait_sum"),
        (("size_sum", Class::Gauge), ("size", Class::Summary), "size_sum"),
    ] {
        let told = told(&folder, old, new);
        let [text] = &told[..] else { panic!("{told:?}") };
        let wanted = [
            format!("metric {} of app", new.0),
            format!("the name {sample} is taken by the {} {},", old.1.name().to_lowercase(), old.0),
            "apps remove shop".into(),
        ];
        assert!(wanted.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn who_takes_nobodys_name_is_told_nothing() {
    let _turn = alone();
    let folder = Folder::new("no-clash");
    for (old, new) in [
        (("jobs", Class::Counter), ("jobs", Class::Counter)),
        (("jobs", Class::Gauge), ("jobs_total", Class::Gauge)),
        (("lat", Class::Summary), ("lat_bucket", Class::Gauge)),
        (("a", Class::Counter), ("a_sum", Class::Counter)),
    ] {
        assert_eq!(told(&folder, old, new), Vec::<String>::new(), "{} {}", old.0, new.0);
    }
}
