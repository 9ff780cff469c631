//! A program with an app, as its store sees it: shared by the tests of this crate.

// Each test program uses what it needs.
#![allow(dead_code)]

#[path = "../../../agent-shm/tests/child/mod.rs"]
pub mod child;

use agent_client::*;
use agent_shm::{Options, Outcome, OwnedShape, Segment, Series, Writer};
use child::total;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A program whose app is known, and what it was warned of.
pub struct Program {
    pub path: PathBuf,
    pub strict: bool,
    pub warned: RefCell<Vec<String>>,
}

impl Program {
    pub fn new(path: &Path) -> Program {
        Program { path: path.into(), strict: false, warned: RefCell::default() }
    }
}

impl Host for Program {
    fn find_app(&self) -> Result<Place, NoPlace> {
        Ok(Place::Known { app: "shop".into(), path: self.path.clone() })
    }

    fn is_strict(&self) -> bool {
        self.strict
    }

    fn warn(&self, text: &str) {
        self.warned.borrow_mut().push(text.into());
    }
}

pub fn options() -> Options {
    Options { slots_max: 64, bytes_max: 8 << 20, ..Options::default() }
}

pub fn store() -> Arc<Store> {
    Store::new(Source::App, options())
}

pub fn define(store: &Arc<Store>, name: &str, shape: OwnedShape, labels: &[&str]) -> Arc<Family> {
    let class = match shape {
        OwnedShape::Counter => Class::Counter,
        OwnedShape::Gauge(_) => Class::Gauge,
        _ => Class::Histogram,
    };
    let label_names = labels.iter().map(|label| label.to_string()).collect();
    let (help, unit) = (String::new(), String::new());
    store.define(Definition { class, name: name.into(), help, unit, shape, label_names }).unwrap()
}

pub fn counter(store: &Arc<Store>, name: &str) -> Handle {
    let family = define(store, name, OwnedShape::Counter, &[]);
    Handle::new(store.clone(), family, String::new())
}

pub fn add(n: u64) -> impl Fn(&Writer, &Series) -> Outcome {
    move |writer, series| writer.add(series, n)
}

pub fn inc(handle: &Handle, host: &Program, n: u64) {
    if !handle.try_apply(&add(n)) {
        handle.apply_slowly(host, &add(n)).unwrap();
    }
}

pub fn value(path: &Path, name: &str) -> Option<f64> {
    total(&Segment::attach(path).unwrap(), name, "")
}
