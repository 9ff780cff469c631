//! Segments that come, go, are replaced, broken or not ours.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};

use agent_shm::{Extent, MetricSpec, Options, Outcome, Shape, Writer};

use super::folders::FOLDERS_MAX;
use super::*;
use crate::http::conn_test::temporary_folder;
use crate::scrape::{render, Source};
use agent_wire::Format;

fn file(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}{}", suffix()))
}

/// Makes the segment of an app with one counter at `n`.
fn make(folder: &Path, app: &str, n: u64) -> Segment {
    write(&file(folder, app), app, n).segment().clone()
}

/// Adds `n` to the counter of an app; it lives as long as the writer.
fn write(path: &Path, app: &str, n: u64) -> Writer {
    let segment = Segment::open_or_create(path, app, &Options::default()).expect("a segment");
    let writer = segment.writer().expect("a slot");
    let spec = MetricSpec { name: "hits", help: "", unit: "", shape: Shape::Counter };
    let metric = writer.metric(&spec).expect("room");
    let series = writer.series(metric, "").expect("room");
    assert_eq!(writer.add(&series, n), Outcome::Applied);
    drop(series);
    writer
}

/// So many seconds after an instant, on both clocks.
fn after(now: Clocks, seconds: u64) -> Clocks {
    let ms = seconds * 1000;
    Clocks { unix_ms: now.unix_ms + ms, monotonic_ms: now.monotonic_ms + ms }
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
    fs::remove_file(file(&folder, "shop")).expect("remove");
    make(&folder, "shop", 5);
    let found = apps.refresh(&stats);
    assert!(shown(&found).contains("hits_total{app=\"shop\"} 5\n"), "{}", shown(&found));
    fs::remove_file(file(&folder, "blog")).expect("remove");
    assert_eq!(names(&apps.refresh(&stats)), ["shop"]);
    assert!(apps.refused().is_empty());
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_segment_of_another_layout_is_refused_by_name_and_harms_nobody() {
    let folder = temporary_folder("apps");
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    make(&folder, "shop", 2);
    make(&folder, "old", 3);
    fs::rename(file(&folder, "old"), folder.join("old.v1.seg")).expect("a name");
    fs::write(folder.join("notes.seg"), "no version").expect("a file");
    assert_eq!(names(&apps.refresh(&stats)), ["shop"]);
    assert_eq!(apps.refused(), [("old.v1.seg".to_owned(), Refused::OtherLayout)]);
    fs::remove_file(folder.join("old.v1.seg")).expect("remove");
    assert_eq!(names(&apps.refresh(&stats)), ["shop"]);
    assert_eq!(apps.refused(), []);
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn an_app_without_living_writers_leaves_the_page_and_comes_back_with_its_counters() {
    let folder = temporary_folder("apps");
    let path = file(&folder, "shop");
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    let start = Clocks::read();
    let writer = write(&path, "shop", 2);
    let year = 365 * 86_400;
    assert_eq!(names(&apps.refresh_at(&stats, after(start, year))), ["shop"], "it lives");
    drop(writer);
    let death = after(start, year);
    assert_eq!(names(&apps.refresh_at(&stats, death)), ["shop"]);
    assert_eq!(names(&apps.refresh_at(&stats, after(death, 3599))), ["shop"]);
    assert_eq!(names(&apps.refresh_at(&stats, after(death, 3600))), [""; 0]);
    let writer = write(&path, "shop", 3);
    let found = apps.refresh_at(&stats, after(death, 7200));
    assert!(shown(&found).contains("hits_total{app=\"shop\"} 5\n"), "{}", shown(&found));
    drop(writer);
    apps.set_idle_s(0);
    assert_eq!(names(&apps.refresh_at(&stats, after(death, 100 * year))), ["shop"], "for ever");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_clock_that_is_set_back_keeps_no_dead_app_on_the_page() {
    let folder = temporary_folder("apps");
    make(&folder, "shop", 2);
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    let start = Clocks::read();
    assert_eq!(apps.refresh_at(&stats, start).len(), 1);
    let year_ms = 365 * 86_400_000;
    let set_back = |now: Clocks| Clocks { unix_ms: now.unix_ms - year_ms, ..now };
    assert_eq!(apps.refresh_at(&stats, set_back(after(start, 3599))).len(), 1);
    assert_eq!(apps.refresh_at(&stats, set_back(after(start, 3600))).len(), 0);
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn the_next_collector_knows_when_an_app_was_last_alive() {
    let folder = temporary_folder("apps");
    let path = file(&folder, "shop");
    let stats = Stats::default();
    let writer = write(&path, "shop", 2);
    let start = Clocks::read();
    // The writer began now, and lives two days; a collector is there and marks the file.
    let (death, two_days) = (after(start, 172_800), 172_800_000);
    assert_eq!(Apps::new(&folder, None).refresh_at(&stats, death).len(), 1);
    let marked = fs::metadata(&path).expect("a file").modified().expect("a time");
    let marked_ms = marked.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    assert_eq!(u128::from(start.unix_ms) + two_days, marked_ms);
    drop(writer);
    // Whoever ends sets the time too, by the machine's clock, which stands two days earlier here.
    fs::File::open(&path).expect("a file").set_modified(marked).expect("ours");
    assert_eq!(Apps::new(&folder, None).refresh_at(&stats, after(death, 3500)).len(), 1);
    assert_eq!(Apps::new(&folder, None).refresh_at(&stats, after(death, 3600)).len(), 0);
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn two_deployments_are_called_apart_even_when_one_is_not_shown_any_more() {
    let folder = temporary_folder("apps");
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    write(&file(&folder, "shop-0000000a"), "shop", 1);
    let start = Clocks::read();
    assert_eq!(names(&apps.refresh_at(&stats, start)), ["shop"]);
    let writer = write(&file(&folder, "shop-0000000b"), "shop", 2);
    let both = ["shop-0000000a", "shop-0000000b"];
    assert_eq!(names(&apps.refresh_at(&stats, after(start, 60))), both);
    assert_eq!(names(&apps.refresh_at(&stats, after(start, 4000))), ["shop-0000000b"]);
    fs::remove_file(file(&folder, "shop-0000000a")).expect("remove");
    assert_eq!(names(&apps.refresh_at(&stats, after(start, 4060))), ["shop"]);
    // A name that was given is never taken by one that was found.
    let given = write(&file(&folder, "shop"), "shop", 3);
    assert_eq!(names(&apps.refresh_at(&stats, after(start, 4061))), ["shop", "shop-0000000b"]);
    drop((writer, given));
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn what_cannot_be_used_is_left_out_counted_once_and_named() {
    let folder = temporary_folder("apps");
    make(&folder, "good", 1);
    fs::write(file(&folder, "garbage"), vec![7; 100_000]).expect("write");
    fs::write(file(&folder, "empty"), b"").expect("write");
    fs::create_dir(file(&folder, "folder")).expect("mkdir");
    symlink(file(&folder, "good"), file(&folder, "link")).expect("link");
    let whole = fs::read(file(&folder, "good")).expect("read");
    fs::write(file(&folder, "short"), &whole[..5000]).expect("write");
    make(&folder, "open", 1);
    let path = file(&folder, "open");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("chmod");
    fs::write(folder.join("notes.txt"), b"not a segment").expect("write");
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    assert_eq!(names(&apps.refresh(&stats)), ["good"]);
    assert_eq!(names(&apps.refresh(&stats)), ["good"]);
    assert_eq!(stats.of(Count::AppsRefused, "reason=\"not_usable\""), 6);
    let refused: Vec<String> = apps.refused().into_iter().map(|(name, _)| name).collect();
    let expected = ["empty", "folder", "garbage", "link", "open", "short"];
    assert_eq!(refused, expected.map(|name| format!("{name}{}", suffix())));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(names(&apps.refresh(&stats)), ["good", "open"], "looked at again after a change");
    fs::remove_dir_all(folder).expect("clean up");
}

#[test]
fn a_segment_of_another_version_is_named_so() {
    let folder = temporary_folder("apps");
    make(&folder, "old", 1);
    let path = file(&folder, "old");
    // The layout word stands behind the magic word; its upper half is the version.
    agent_shm::change_header(&path, 8, &[77 << 32]).expect("change");
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    assert!(apps.refresh(&stats).is_empty());
    assert_eq!(apps.refused(), [(format!("old{}", suffix()), Refused::OtherLayout)]);
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
    let file = OpenOptions::new().write(true).open(file(&folder, "cut")).expect("open");
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
    assert_eq!(apps.refused(), [(format!("cut{}", suffix()), Refused::Damaged)]);
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

/// A folder of folders, as an administrator makes it.
fn shared_folders(parent: &Path, names: &[&str]) -> Vec<PathBuf> {
    let make = |name: &&str| {
        let path = parent.join(name);
        fs::create_dir(&path).expect("make");
        fs::set_permissions(&path, Permissions::from_mode(0o2750)).expect("chmod");
        path
    };
    names.iter().map(make).collect()
}

fn give_away(path: &Path, owner: u32) {
    std::os::unix::fs::lchown(path, Some(owner), None).expect("chown");
}

#[test]
fn a_shared_folder_is_read_whoever_owns_it_if_nobody_else_may_write_to_it() {
    let (folder, parent) = (temporary_folder("apps"), temporary_folder("shared"));
    let folders = shared_folders(&parent, &["alice", "bob", "carol", "open"]);
    for (path, n) in folders.iter().zip(1..) {
        make(path, "shop", n);
    }
    make(&folder, "blog", 9);
    make(&folders[2], "wiki", 5);
    fs::set_permissions(&folders[3], Permissions::from_mode(0o2770)).expect("chmod");
    symlink(&folders[0], parent.join("link")).expect("link");
    fs::write(parent.join("file"), b"").expect("write");
    // SAFETY: a system call without arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    if is_root {
        give_away(&folders[0], 12345);
        give_away(&file(&folders[0], "shop"), 12345);
        // A file that its folder's owner did not make.
        give_away(&file(&folders[2], "wiki"), 12345);
    }
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    assert_eq!(names(&apps.refresh(&stats)), ["blog"], "nobody said so");
    apps.set_shared(&[format!("{}/*", parent.display()), folder.display().to_string()]);
    let found = apps.refresh(&stats);
    let of = |name: &str| format!("shop@{}/{name}", parent.display());
    let mut expected = vec!["blog".to_owned(), of("alice"), of("bob"), of("carol")];
    if !is_root {
        expected.push("wiki".to_owned());
    }
    assert_eq!(names(&found), expected);
    let line = format!("hits_total{{app=\"{}\"}} 2\n", of("bob"));
    assert!(shown(&found).contains(&line), "{}", shown(&found));
    assert_eq!(stats.of(Count::AppsRefused, "reason=\"folder_open_to_others\""), 1);
    if is_root {
        let wiki = file(&folders[2], "wiki").display().to_string();
        assert_eq!(apps.refused(), [(wiki, Refused::NotUsable)]);
    }
    fs::remove_file(file(&folders[0], "shop")).expect("remove");
    fs::remove_dir_all(&folders[1]).expect("remove");
    let found = names(&apps.refresh(&stats)).join(" ");
    assert!(found.starts_with("blog shop"), "alone, it has its name again: {found}");
    fs::remove_dir_all(folder).expect("clean up");
    fs::remove_dir_all(parent).expect("clean up");
}

#[test]
fn a_shared_folder_cannot_fill_the_places_of_others() {
    let (folder, parent) = (temporary_folder("apps"), temporary_folder("shared"));
    let many: Vec<String> = (0..FOLDERS_MAX - 1).map(|n| format!("u{n:03}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let folders = shared_folders(&parent, &many);
    for name in ["a", "b", "c"] {
        make(&folders[0], name, 1);
    }
    make(&folders[1], "d", 1);
    make(&folder, "own", 1);
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    apps.set_shared(&[format!("{}/u*", parent.display())]);
    assert_eq!(names(&apps.refresh(&stats)), ["a", "b", "d", "own"]);
    let path = file(&folders[0], "c").display().to_string();
    assert_eq!(apps.refused(), [(path, Refused::TooMany)]);
    fs::remove_dir_all(folder).expect("clean up");
    fs::remove_dir_all(parent).expect("clean up");
}

/// Where the words of a segment stand that say what it has: the limit of its bytes, and the pages of blocks.
const BYTES_MAX_AT: u64 = 80;
const PAGES_AT: u64 = 128;

fn exists_bytes(path: &Path) -> u64 {
    fs::metadata(path).expect("there").blocks() * 512
}

#[test]
fn a_file_that_claims_more_memory_than_it_has_is_not_read_and_gets_none() {
    let (folder, parent) = (temporary_folder("apps"), temporary_folder("shared"));
    let folders = shared_folders(&parent, &["alice", "bob"]);
    make(&folder, "own", 1);
    make(&folders[1], "good", 1);
    drop(make(&folders[0], "bad", 1));
    let path = file(&folders[0], "bad");
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    apps.set_shared(&[format!("{}/*", parent.display())]);
    assert_eq!(names(&apps.refresh(&stats)), ["bad", "good", "own"]);
    let bad = OpenOptions::new().read(true).write(true).open(&path).expect("open");
    let read = |at| {
        let mut word = [0; 8];
        bad.read_exact_at(&mut word, at).expect("read");
        u64::from_le_bytes(word)
    };
    // All its pages have memory now, each of small blocks.
    let (pages, before) = (read(BYTES_MAX_AT) / 16384, exists_bytes(&path));
    bad.write_all_at(&pages.to_le_bytes(), PAGES_AT).expect("write");
    let table = 4096 + 8 * (u64::from(Options::default().series_max) / 2).next_power_of_two();
    for page in 0..pages {
        bad.write_all_at(&3_u64.to_le_bytes(), table + page * 8).expect("write");
    }
    for _ in 0..2 {
        let found = apps.refresh(&stats);
        assert_eq!(names(&found), ["good", "own"]);
        assert!(shown(&found).contains("hits_total{app=\"good\"} 1\n"));
        assert_eq!(apps.refused(), [(path.display().to_string(), Refused::Damaged)]);
    }
    assert_eq!(exists_bytes(&path), before, "nobody read it");
    // Said after the look, it is not believed either.
    bad.write_all_at(&1_u64.to_le_bytes(), PAGES_AT).expect("write");
    let late = make(&folders[0], "late", 3);
    let found = apps.refresh(&stats);
    assert!(shown(&found).contains("hits_total{app=\"late\"} 3\n"), "{}", shown(&found));
    let path = file(&folders[0], "late");
    let before = exists_bytes(&path);
    let late_file = OpenOptions::new().write(true).open(&path).expect("open");
    late_file.write_all_at(&pages.to_le_bytes(), PAGES_AT).expect("write");
    for page in 16..pages {
        late_file.write_all_at(&3_u64.to_le_bytes(), table + page * 8).expect("write");
    }
    assert!(shown(&found).contains("hits_total{app=\"late\"} 3\n"), "{}", shown(&found));
    assert_eq!(exists_bytes(&path), before, "nobody read it");
    drop(late);
    fs::remove_dir_all(folder).expect("clean up");
    fs::remove_dir_all(parent).expect("clean up");
}

#[test]
fn what_is_read_of_shared_folders_has_a_bound_and_the_small_ones_come_first() {
    let (folder, parent) = (temporary_folder("apps"), temporary_folder("shared"));
    let folders = shared_folders(&parent, &["alice", "bob"]);
    make(&folder, "own", 1);
    for name in ["a", "b", "c"] {
        make(&folders[0], name, 1);
    }
    let small = make(&folders[1], "d", 1);
    let Extent::Bytes(each) = small.extent() else { panic!("it is there") };
    let stats = Stats::default();
    let mut apps = Apps::new(&folder, None);
    apps.set_shared(&[format!("{}/*", parent.display())]);
    apps.shared_bytes_max = 3 * each;
    for _ in 0..2 {
        assert_eq!(names(&apps.refresh(&stats)), ["a", "b", "d", "own"]);
        let path = file(&folders[0], "c").display().to_string();
        assert_eq!(apps.refused(), [(path, Refused::TooMany)]);
        assert_eq!(stats.of(Count::AppsRefused, "reason=\"too_many\""), 1, "counted once");
    }
    fs::remove_file(file(&folders[0], "a")).expect("remove");
    assert_eq!(names(&apps.refresh(&stats)), ["b", "c", "d", "own"]);
    assert_eq!(apps.refused(), []);
    fs::remove_dir_all(folder).expect("clean up");
    fs::remove_dir_all(parent).expect("clean up");
}
