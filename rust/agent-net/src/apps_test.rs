//! Segments that come, go, are replaced, broken or not ours.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::symlink;

use agent_shm::{MetricSpec, Options, Outcome, Shape};

use super::*;
use crate::http::conn_test::temporary_folder;
use crate::scrape::{render, Source};
use agent_wire::exposition::Format;

/// Makes the segment of an app with one counter at `n`.
fn make(folder: &Path, app: &str, n: u64) -> Segment {
    let path = folder.join(format!("{app}{SUFFIX}"));
    let segment = Segment::open_or_create(&path, app, &Options::default()).expect("a segment");
    let writer = segment.writer().expect("a slot");
    let spec = MetricSpec { name: "hits", help: "", unit: "", shape: Shape::Counter };
    let metric = writer.metric(&spec).expect("room");
    let series = writer.series(metric, "").expect("room");
    assert_eq!(writer.add(&series, n), Outcome::Applied);
    segment
}

fn names(apps: &[App]) -> Vec<&str> {
    apps.iter().map(|app| app.name.as_str()).collect()
}

fn shown(apps: &[App]) -> String {
    let sources: Vec<Source<'_>> =
        apps.iter().map(|app| Source::of_app(&app.segment, &app.name)).collect();
    let mut out = Vec::new();
    render(&sources, Format::Text004, &mut out);
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn apps_are_found_followed_and_let_go() {
    let folder = temporary_folder("apps");
    let own = make(&folder, "agent", 1);
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, own.file_id());
    assert_eq!(names(&apps.refresh(&stats)), [""; 0]);
    make(&folder, "shop", 2);
    make(&folder, "blog", 3);
    let found = apps.refresh(&stats);
    assert_eq!(names(&found), ["blog", "shop"]);
    assert!(shown(&found).contains("hits_total{app=\"shop\"} 2\n"));
    fs::remove_file(folder.join("shop.v1.seg")).expect("remove");
    make(&folder, "shop", 5);
    let found = apps.refresh(&stats);
    assert!(shown(&found).contains("hits_total{app=\"shop\"} 5\n"), "{}", shown(&found));
    fs::remove_file(folder.join("blog.v1.seg")).expect("remove");
    assert_eq!(names(&apps.refresh(&stats)), ["shop"]);
    assert!(apps.refused().is_empty());
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn what_cannot_be_used_is_left_out_counted_once_and_named() {
    let folder = temporary_folder("apps");
    make(&folder, "good", 1);
    fs::write(folder.join("garbage.v1.seg"), vec![7; 100_000]).expect("write");
    fs::write(folder.join("empty.v1.seg"), b"").expect("write");
    fs::create_dir(folder.join("folder.v1.seg")).expect("mkdir");
    symlink(folder.join("good.v1.seg"), folder.join("link.v1.seg")).expect("link");
    let whole = fs::read(folder.join("good.v1.seg")).expect("read");
    fs::write(folder.join("short.v1.seg"), &whole[..5000]).expect("write");
    make(&folder, "open", 1);
    let path = folder.join("open.v1.seg");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("chmod");
    fs::write(folder.join("notes.txt"), b"not a segment").expect("write");
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    assert_eq!(names(&apps.refresh(&stats)), ["good"]);
    assert_eq!(names(&apps.refresh(&stats)), ["good"]);
    assert_eq!(stats.of(Count::AppsRefused, "reason=\"not_usable\""), 6);
    let refused: Vec<String> = apps.refused().into_iter().map(|(name, _)| name).collect();
    let expected = ["empty", "folder", "garbage", "link", "open", "short"];
    assert_eq!(refused, expected.map(|name| format!("{name}.v1.seg")));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(names(&apps.refresh(&stats)), ["good", "open"], "looked at again after a change");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_segment_of_another_version_is_named_so() {
    let folder = temporary_folder("apps");
    make(&folder, "old", 1);
    let path = folder.join("old.v1.seg");
    let mut bytes = fs::read(&path).expect("read");
    // The layout word stands behind the magic word; its upper half is the version.
    bytes[12..16].copy_from_slice(&77u32.to_le_bytes());
    fs::write(&path, bytes).expect("write");
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    assert!(apps.refresh(&stats).is_empty());
    assert_eq!(apps.refused(), [("old.v1.seg".to_owned(), Refused::OtherLayout)]);
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_folder_that_others_may_write_to_is_not_read() {
    let folder = temporary_folder("apps");
    make(&folder, "shop", 1);
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    assert_eq!(apps.refresh(&stats).len(), 1);
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("chmod");
    assert!(apps.refresh(&stats).is_empty());
    assert_eq!(stats.of(Count::AppsRefused, "reason=\"folder_open_to_others\""), 1);
    assert_eq!(check_folder(Path::new("/etc/passwd")), Err(Refused::FolderNotOurs));
    assert_eq!(check_folder(&folder.join("no")), Err(Refused::FolderUnreadable));
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).expect("chmod");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_segment_truncated_under_our_feet_costs_itself_and_not_the_process() {
    let folder = temporary_folder("apps");
    make(&folder, "good", 1);
    drop(make(&folder, "cut", 2));
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    let found = apps.refresh(&stats);
    assert_eq!(names(&found), ["cut", "good"]);
    let view = found[0].segment.view();
    let file = OpenOptions::new().write(true).open(folder.join("cut.v1.seg")).expect("open");
    file.set_len(0).expect("truncate");
    // The view knows the old length, so these reads fall into pages that are gone.
    let mut sum = 0;
    for family in view.families() {
        family.for_each(&mut |series| sum += series.labels.len());
    }
    assert_eq!(sum, 0);
    drop(view);
    assert!(shown(&found).contains("hits_total{app=\"good\"} 1\n"));
    assert_eq!(names(&apps.refresh(&stats)), ["good"]);
    assert_eq!(stats.of(Count::AppsRefused, "reason=\"damaged\""), 1);
    assert_eq!(apps.refused(), [("cut.v1.seg".to_owned(), Refused::Damaged)]);
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_fault_outside_of_segments_still_ends_the_process() {
    let folder = temporary_folder("apps");
    make(&folder, "good", 1);
    let stats = Stats::default();
    assert_eq!(Apps::new(&folder, None).refresh(&stats).len(), 1);
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(folder.join("other"))
        .expect("create");
    use std::os::fd::AsRawFd;
    // SAFETY: the child does only system calls and one read that must raise SIGBUS.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &limit);
            let flags = libc::MAP_SHARED;
            let base =
                libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, file.as_raw_fd(), 0);
            std::ptr::read_volatile(base.cast::<u8>());
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        status
    };
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGBUS, "{status}");
    fs::remove_dir_all(folder).expect("clean up");
}
