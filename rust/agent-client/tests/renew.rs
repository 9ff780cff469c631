//! The time of a segment's file: whoever counts renews it, so that it says when the app was last alive.

#[path = "../../agent-shm/tests/child/mod.rs"]
mod child;

use agent_client::*;
use agent_shm::{Options, OwnedShape, Segment, RENEW_MS};
use child::{alone, Folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A program whose app is known.
struct Program(PathBuf);

impl Host for Program {
    fn find_app(&self) -> Result<Place, NoPlace> {
        Ok(Place::Known { app: "shop".into(), path: self.0.clone() })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn warn(&self, text: &str) {
        panic!("{text}");
    }
}

fn options() -> Options {
    Options { slots_max: 64, bytes_max: 8 << 20, ..Options::default() }
}

fn counter(store: &Arc<Store>) -> Handle {
    let family = store.define(Definition {
        class: Class::Counter,
        name: "requests".into(),
        help: String::new(),
        unit: String::new(),
        shape: OwnedShape::Counter,
        label_names: Vec::new(),
    });
    Handle::new(store.clone(), family.unwrap(), String::new())
}

fn inc(handle: &Handle, host: &Program) {
    handle.apply_slowly(host, &|writer, series| writer.add(series, 1)).unwrap();
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

fn set_modified(path: &Path, time: SystemTime) {
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Nobody else may do it: a collector of another user cannot, and often none runs.
#[test]
fn who_counts_renews_the_time_of_the_file_and_so_does_who_ends() {
    let _turn = alone();
    let folder = Folder::new("renew");
    let path = folder.file("shop.v3.seg");
    let host = Program(path.clone());
    let store = Store::new(Source::App, options());
    let requests = counter(&store);
    let before = SystemTime::now();
    inc(&requests, &host);
    set_modified(&path, UNIX_EPOCH);
    store.ask_again_now();
    inc(&requests, &host);
    assert!(modified(&path) + Duration::from_secs(1) > before);
    set_modified(&path, UNIX_EPOCH);
    drop((requests, store));
    assert!(modified(&path) + Duration::from_secs(1) > before);
}

#[test]
fn only_an_old_time_of_the_mapped_file_is_renewed() {
    let _turn = alone();
    let folder = Folder::new("renew-which");
    let path = folder.file("shop.v3.seg");
    let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
    let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
    let now = 10 * RENEW_MS;
    for (then, renewed) in [
        (now - RENEW_MS + 1, now - RENEW_MS + 1),
        (now - RENEW_MS, now),
        // The clock was set back.
        (now + RENEW_MS - 1, now + RENEW_MS - 1),
        (now + RENEW_MS, now),
    ] {
        set_modified(&path, at(then));
        segment.renew_time(now);
        assert_eq!(modified(&path), at(renewed), "{then}");
    }
    let other = folder.file("other");
    fs::rename(&path, folder.file("moved")).unwrap();
    fs::write(&other, "not ours").unwrap();
    set_modified(&other, at(0));
    std::os::unix::fs::symlink(&other, &path).unwrap();
    segment.renew_time(now);
    assert_eq!(modified(&other), at(0), "behind a link");
    fs::rename(&other, &path).unwrap();
    segment.renew_time(now);
    assert_eq!(modified(&path), at(0), "another file");
}
