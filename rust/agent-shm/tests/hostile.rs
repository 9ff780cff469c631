//! Files that are not what they should be, and file systems without room.
//!
//! Whatever stands in a foreign file, attaching it and looking at it neither crashes nor takes long. Here without the
//! SIGBUS handler of the collector: what is tested does not need one. `AGENT_SHM_FLIP_STEP` sets how far apart the bytes
//! are that are changed where the file is all zeros (default 61; everywhere else each byte is).

mod child;

use agent_shm::*;
use child::*;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

fn options() -> Options {
    Options {
        series_max: 64,
        metric_series_max: 64,
        metrics_max: 16,
        slots_max: 4,
        ring_records: 8,
        bytes_max: 16 * 16384,
    }
}

fn get(writer: &Writer, name: &str, shape: Shape<'_>, labels: &str) -> Series {
    writer.series(writer.metric(&spec(name, shape)).unwrap(), labels).unwrap()
}

/// A segment with one of everything, whose writers are gone.
fn populate(path: &Path) -> Segment {
    let segment = Segment::open_or_create(path, "shop", &options()).unwrap();
    let (writer, other) = (segment.writer().unwrap(), segment.writer().unwrap());
    let applied = |outcome| assert_eq!(outcome, Outcome::Applied);
    for n in 0..12 {
        let labels = format!("path=\"/{n}\"");
        applied(writer.add(&get(&writer, "requests", Shape::Counter, &labels), n));
        let times = get(&writer, "times", Shape::Exponential { schema: 2 }, &labels);
        applied(writer.observe(&times, n as f64 - 3.0, 1));
    }
    let hot = get(&writer, "requests", Shape::Counter, "path=\"/hot\"");
    applied(writer.add(&hot, 5000));
    applied(writer.observe(&get(&writer, "sizes", Shape::Explicit(&[1.0, 5.0]), ""), 2.0, 5000));
    let quantiles = get(&writer, "waits", Shape::Summary(&[0.5]), "");
    applied(writer.observe(&quantiles, 2.0, 1));
    for (writer, mode) in [(&writer, GaugeMode::All), (&other, GaugeMode::All)] {
        applied(writer.set(&get(writer, "ranks", Shape::Gauge(mode), ""), 1.0));
    }
    applied(writer.set(&get(&writer, "jobs", Shape::Gauge(GaugeMode::MostRecent), ""), 1.0));
    (0..9).for_each(|n| writer.record(&quantiles, RecordKind::Sample, n));
    (0..9).for_each(|n| {
        assert_eq!(writer.observe(&quantiles, f64::from(n as u32), 1), Outcome::Applied)
    });
    writer.event(b"deployed version two of the shop");
    let gone = writer.metric(&spec("requests", Shape::Counter)).unwrap();
    assert!(writer.remove(gone, "path=\"/0\""));
    writer.reclaim_now();
    segment.clone()
}

/// A copy of a good segment after `spoil`, and what attaching and opening it say.
fn refusals(folder: &Folder, spoil: impl FnOnce(&Path)) -> [String; 2] {
    let path = folder.file("shop.v3.seg");
    let _ = fs::remove_file(&path);
    drop(populate(&path));
    spoil(&path);
    let before = fs::symlink_metadata(&path).unwrap();
    let attach = Segment::attach(&path).err().expect("attach refuses").to_string();
    let open = Segment::open_or_create(&path, "shop", &options());
    let open = open.err().expect("open refuses").to_string();
    let after = fs::symlink_metadata(&path).unwrap();
    assert_eq!((before.len(), before.modified().ok()), (after.len(), after.modified().ok()));
    let name = path.display().to_string();
    assert!(attach.contains(&name) && open.contains(&name), "names the file: {attach} / {open}");
    [attach, open]
}

fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Both halves of the header.
fn patch_both(path: &Path, offset: u64, bytes: &[u8]) {
    patch(path, offset, bytes);
    patch(path, HALF + offset, bytes);
}

const HALF: u64 = 2048;

fn cut(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn replace(path: &Path, make: impl FnOnce(&Path)) {
    let real = path.with_extension("real");
    fs::rename(path, &real).unwrap();
    make(&real);
}

/// A name for the message, how to spoil a good segment, and what both must say about it.
type Spoiled = (&'static str, fn(&Path), &'static str);

const SPOILED: &[Spoiled] = &[
    (
        "no segment",
        |path| replace(path, |_| fs::write(path, b"not a segment".repeat(1000)).unwrap()),
        "it does not begin like a segment",
    ),
    (
        "another magic and limits",
        |path| (patch_both(path, 0, b"elf"), patch_both(path, 86, &[0xff])).1,
        "it does not begin like a segment",
    ),
    (
        "another version and length",
        |path| (patch_both(path, 12, &[9]), cut(path, 4096)).1,
        "has layout 9, this version of Agent reads",
    ),
    ("mode 0666", |path| mode(path, 0o666), "others may write to it (mode 666)"),
    ("mode 0620", |path| mode(path, 0o620), "others may write to it (mode 620)"),
    (
        "symbolic link",
        |path| replace(path, |real| std::os::unix::fs::symlink(real, path).unwrap()),
        "symbolic link",
    ),
    ("FIFO", |path| replace(path, |_| fifo(path)), "it is not a regular file"),
    (
        "directory",
        |path| replace(path, |_| fs::create_dir(path).unwrap()),
        "not a regular file|Is a directory",
    ),
];

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &Path) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a system call with a valid path.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[test]
fn what_is_not_a_good_segment_is_refused_and_told_why() {
    for (name, spoil, expected) in SPOILED {
        let folder = Folder::new("refused");
        for told in refusals(&folder, spoil) {
            assert!(expected.split('|').any(|text| told.contains(text)), "{name}: {told}");
        }
    }
}

/// What a file that contradicts itself says of it.
const DAMAGED: &[Spoiled] = &[
    ("magic", |path| patch_both(path, 0, b"e"), "it does not begin like a segment"),
    ("version", |path| patch_both(path, 12, &[9]), "has layout 9, this version of Agent reads"),
    ("layout", |path| patch_both(path, 8, &[1, 2, 3]), "its layout differs"),
    ("magic and version", |path| patch_both(path, 0, &[0; 16]), "it does not begin like a segment"),
    ("empty", |path| cut(path, 0), "it is 0 bytes long, shorter than a header"),
    ("cut in its header", |path| cut(path, 100), "it is 100 bytes long, its header speaks of"),
    ("header only", |path| cut(path, 4096), "it is 4096 bytes long, its header speaks of"),
    ("limits", |path| patch_both(path, 86, &[0xff]), "its limits are out of range"),
    ("too long", |path| cut(path, fs::metadata(path).unwrap().len() + 1), "its header speaks of"),
];

#[test]
fn a_file_that_was_cut_off_behind_all_that_is_used_is_read_and_made_whole() {
    let _turn = alone();
    let folder = Folder::new("cut");
    let path = folder.file("shop.v3.seg");
    // More than one chunk of memory, so that some of it is not used.
    drop(Segment::open_or_create(&path, "shop", &Options { bytes_max: 1 << 20, ..options() }));
    let old = populate(&path);
    let (whole, count) = (fs::metadata(&path).unwrap().len(), told_count(&old));
    let used = whole - old.usage().bytes_max + old.usage().bytes_committed;
    for length in [used, used + 1, whole - 4096] {
        cut(&path, length);
        assert_eq!(told_count(&Segment::attach(&path).unwrap()), count, "{length}");
        let new = Segment::open_or_create(&path, "shop", &options()).unwrap();
        assert_eq!((new.file_id(), told_count(&new)), (old.file_id(), count), "{length}");
        assert_eq!(fs::metadata(&path).unwrap().len(), whole, "{length}");
        cut(&path, length);
        assert!(old.mend_length(), "{length}");
        assert_eq!(fs::metadata(&path).unwrap().len(), whole, "{length}");
    }
    cut(&path, used - 1);
    assert!(!old.mend_length());
    assert!(Segment::attach(&path).is_err());
}

#[test]
fn a_damaged_file_is_kept_aside_and_replaced_when_nobody_lives_in_it() {
    let _turn = alone();
    for (name, spoil, expected) in DAMAGED {
        let folder = Folder::new("damaged");
        let path = folder.file("shop.v3.seg");
        let old = populate(&path).file_id();
        spoil(&path);
        let told = Segment::attach(&path).err().expect("refused").to_string();
        assert!(told.contains(expected), "{name}: {told}");
        let new = Segment::open_or_create(&path, "shop", &options()).unwrap();
        assert_ne!(new.file_id(), old, "{name}");
        assert_eq!(told_count(&new), 0, "{name}");
        let kept = fs::metadata(folder.file("shop.v3.seg.damaged")).unwrap();
        assert_eq!(Some((kept.dev(), kept.ino())), old, "{name}");
    }
}

/// Words that are written once: magic, layout, boot, hash key, time, limits, check, name of the app.
fn constants() -> impl Iterator<Item = u64> {
    (0..96).chain(512..648).flat_map(|at| [at, HALF + at])
}

#[test]
fn a_changed_byte_of_the_header_costs_nothing_and_is_mended() {
    let _turn = alone();
    let folder = Folder::new("header");
    let path = folder.file("shop.v3.seg");
    let old = populate(&path);
    let (whole, header, count) = (fs::read(&path).unwrap(), old.header(), told_count(&old));
    let total = |segment: &Segment| {
        let writer = segment.writer().unwrap();
        let series = get(&writer, "requests", Shape::Counter, "path=\"/hot\"");
        assert_eq!(writer.add(&series, 1), Outcome::Applied);
        assert!(!series.is_overflow());
        told_count(segment)
    };
    for at in constants() {
        for bits in [1, 0x80, 0xff] {
            let byte = whole[at as usize] ^ bits;
            patch(&path, at, &[byte]);
            // Who has it open counts into the same series, and who comes reads the same.
            assert_eq!((total(&old), old.header()), (count, header.clone()), "byte {at}");
            let reader = Segment::attach(&path).unwrap();
            assert_eq!((told_count(&reader), reader.header()), (count, header.clone()), "{at}");
            assert_eq!(fs::read(&path).unwrap()[at as usize], byte, "a reader changes nothing");
            let new = Segment::open_or_create(&path, "shop", &options()).unwrap();
            assert_eq!((new.file_id(), total(&new)), (old.file_id(), count), "byte {at}");
            assert_eq!(fs::read(&path).unwrap()[at as usize], whole[at as usize], "byte {at}");
        }
    }
    let writer = old.writer().unwrap();
    (0..6).for_each(|_| assert!(writer.reclaim_now().passed));
    drop(writer);
    assert_eq!(old.audit().faults, Vec::<String>::new());
}

#[test]
fn a_header_that_is_damaged_twice_is_that_of_a_damaged_file() {
    let _turn = alone();
    let folder = Folder::new("header-twice");
    let path = folder.file("shop.v3.seg");
    drop(populate(&path));
    // The name of the app.
    patch(&path, 520, b"s?op");
    patch(&path, HALF + 520, b"sh?p");
    let told = Segment::attach(&path).err().expect("refused").to_string();
    assert!(told.contains("its header contradicts itself"), "{told}");
}

#[test]
fn a_file_with_the_name_of_none_of_ours_is_refused_whatever_is_in_it() {
    let folder = Folder::new("foreign");
    for name in ["shop.v1.seg", "shop.seg", "notes"] {
        let path = folder.file(name);
        drop(populate(&path));
        patch_both(&path, 0, b"elf");
        let error = Segment::open_or_create(&path, "shop", &options()).err().expect("refused");
        assert!(matches!(error, agent_shm::Error::NotUsable { .. }), "{name}: {error}");
        assert!(!folder.file(&format!("{name}.damaged")).exists(), "{name}");
    }
}

#[test]
fn a_damaged_file_is_not_replaced_under_a_living_writer() {
    let _turn = alone();
    for (name, spoil, expected) in DAMAGED {
        let folder = Folder::new("living");
        let path = folder.file("shop.v3.seg");
        let old = populate(&path);
        let writer = old.writer().unwrap();
        spoil(&path);
        let error = Segment::open_or_create(&path, "shop", &options()).err().expect("refused");
        assert!(matches!(error, agent_shm::Error::Damaged { .. }), "{name}: {error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
        let there = fs::metadata(&path).unwrap();
        assert_eq!(Some((there.dev(), there.ino())), old.file_id(), "{name}");
        drop(writer);
        Segment::open_or_create(&path, "shop", &options()).expect("replaced");
    }
}

/// In a control group of a container the boot id may be unreadable, or be another one.
#[test]
fn a_file_of_another_boot_with_a_living_writer_is_used() {
    let _turn = alone();
    let folder = Folder::new("boot-living");
    let path = folder.file("shop.v3.seg");
    let old = populate(&path);
    let writer = old.writer().unwrap();
    change_header(&path, BOOT_ID_AT, &[7, 8]).unwrap();
    let same = Segment::open_or_create(&path, "shop", &options()).unwrap();
    assert_eq!(same.file_id(), old.file_id());
    assert_eq!(Segment::attach(&path).unwrap().file_id(), old.file_id());
    drop(writer);
}

#[test]
fn a_truncated_file_does_not_kill_its_writers_and_readers() {
    let _turn = alone();
    for keep in [0, 4096, 16384] {
        let folder = Folder::new("bus");
        let path = folder.file("shop.v3.seg");
        let segment = populate(&path);
        let reader = Segment::attach(&path).unwrap();
        let child = fork(|| {
            let writer = segment.writer().unwrap();
            let requests = get(&writer, "requests", Shape::Counter, "path=\"/1\"");
            cut(&path, keep);
            for n in 0..2000 {
                let _ = writer.add(&requests, 1);
                let labels = format!("path=\"/{n}\"");
                if let Ok(metric) = writer.metric(&spec("times", Shape::Counter)) {
                    if let Ok(series) = writer.series(metric, &labels) {
                        let _ = writer.add(&series, 1);
                    }
                }
            }
            assert!(segment.was_hit(), "and it knows");
            for family in reader.view().families() {
                family.for_each(&mut |_| ());
            }
            0
        });
        child.join();
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !is_root("changing the owner of a file") {
        return;
    }
    let folder = Folder::new("owner");
    for told in refusals(&folder, |path| std::os::unix::fs::chown(path, Some(12345), None).unwrap())
    {
        assert!(told.contains("it belongs to user 12345, we are 0"), "{told}");
    }
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let folder = Folder::new("folder");
    let inner = folder.file("open");
    fs::create_dir(&inner).unwrap();
    mode(&inner, 0o777);
    let error = Segment::open_or_create(&inner.join("a.seg"), "a", &options()).err().unwrap();
    assert!(error.to_string().contains("with mode 777; it must be ours"), "{error}");
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 0);
}

#[test]
fn a_segment_of_another_boot_is_replaced_by_a_new_one() {
    let _turn = alone();
    let folder = Folder::new("boot");
    let path = folder.file("shop.v3.seg");
    // Held open, so that its inode has no new owner.
    let old = populate(&path);
    change_header(&path, BOOT_ID_AT, &[7, 8]).unwrap();
    let told = Segment::attach(&path).err().unwrap().to_string();
    assert!(told.contains("before the last boot"), "{told}");
    let new = Segment::open_or_create(&path, "shop", &options()).unwrap();
    assert_ne!(new.file_id(), old.file_id());
    assert_eq!(told_count(&new), 0);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no leftovers");
}

fn told_count(segment: &Segment) -> usize {
    told(segment).len()
}

/// Looks at everything that a reader can look at; gives how much that was.
fn look(segment: &Segment) -> usize {
    let mut seen = 0;
    for family in segment.view().families() {
        seen += family.meta().name.len() + family.meta().help.len();
        family.for_each(&mut |series| {
            seen += series.labels.len();
            seen += match series.value {
                Value::Histogram { buckets, .. } => buckets.len(),
                Value::GaugePerProcess(values) => values.len(),
                _ => 1,
            };
        });
        for id in family.ids() {
            let _ = segment.recent(id, &mut RecentReader::from_birth(), |_, _| seen += 1);
        }
    }
    for slot in segment.slots() {
        let Some(mut reader) = segment.ring_reader(slot.index) else { continue };
        reader.drain(|entry| {
            seen += match entry {
                Entry::Value { series, .. } => segment.describe(series).map_or(0, |d| d.1.len()),
                Entry::Event { bytes, .. } => bytes.len(),
            }
        });
    }
    seen + segment.header().app.len() + segment.usage().series as usize
}

/// Time that this thread has worked: what others do on the machine does not count.
fn worked_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in a valid struct.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

#[test]
fn no_changed_byte_crashes_or_delays_a_reader() {
    let _turn = alone();
    let step: usize = match std::env::var("AGENT_SHM_FLIP_STEP") {
        Ok(step) => step.parse().unwrap(),
        Err(_) => 61,
    };
    let folder = Folder::new("flip");
    let path = folder.file("shop.v3.seg");
    drop(populate(&path));
    let good = fs::read(&path).unwrap();
    let board = Board::new(4);
    const AT: usize = 0;
    const ATTACHED: usize = 1;
    const REFUSED: usize = 2;
    const SLOWEST_MS: usize = 3;
    let mut reader = fork(|| {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        for at in 0..good.len() {
            let near = &good[at & !31..(at & !31) + 32];
            if at % step != 0 && near.iter().all(|byte| *byte == 0) {
                continue;
            }
            for change in [0x01, 0x80, 0xff] {
                board.set(AT, at as u64);
                file.write_all_at(&[good[at] ^ change], at as u64).unwrap();
                let start = worked_ms();
                match Segment::attach(&path) {
                    Ok(segment) => {
                        std::hint::black_box(look(&segment));
                        board.add(ATTACHED, 1);
                    }
                    Err(_) => drop(board.add(REFUSED, 1)),
                }
                let took = worked_ms() - start;
                board.set(SLOWEST_MS, board.get(SLOWEST_MS).max(took));
            }
            file.write_all_at(&good[at..at + 1], at as u64).unwrap();
        }
        0
    });
    let status = reader.wait(0);
    assert_eq!(status, 0, "byte {} of {} ends the reader", board.get(AT), good.len());
    let (attached, refused) = (board.get(ATTACHED), board.get(REFUSED));
    println!("{attached} attached, {refused} refused, {} ms the slowest", board.get(SLOWEST_MS));
    assert!(attached > 1000 && refused == 0);
    assert!(board.get(SLOWEST_MS) < 100);
}

/// Where `text` stands in the file, which has it once.
fn place_of(bytes: &[u8], text: &[u8]) -> u64 {
    let places: Vec<usize> =
        (0..bytes.len() - text.len()).filter(|&at| bytes[at..].starts_with(text)).collect();
    assert_eq!(places.len(), 1, "{}", String::from_utf8_lossy(text));
    places[0] as u64
}

#[test]
fn a_changed_bit_of_a_name_or_label_costs_that_series_and_is_counted() {
    let folder = Folder::new("flips");
    let path = folder.file("shop");
    let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
    let writer = segment.writer().unwrap();
    for labels in ["path=\"/a\"", "path=\"/b\""] {
        let series = get(&writer, "requests", Shape::Counter, labels);
        assert_eq!(writer.add(&series, 1), Outcome::Applied);
    }
    let seen = || {
        let (view, mut texts, mut damaged) = (segment.view(), Vec::new(), 0);
        for family in view.families() {
            let name = family.meta().name.clone();
            damaged += family.for_each(&mut |series| {
                texts.push(format!("{name}{{{}}}", String::from_utf8_lossy(series.labels)));
            });
        }
        texts.sort();
        (texts, damaged, view.damaged())
    };
    let both = ["requests{path=\"/a\"}", "requests{path=\"/b\"}"];
    assert_eq!(seen(), (both.map(str::to_owned).to_vec(), 0, 0));
    let whole = fs::read(&path).unwrap();
    let (label, name) = (place_of(&whole, b"path=\"/a\""), place_of(&whole, b"requests"));
    // `a` becomes `b` among others: a second series of the same labels.
    for (place, bits, shown, in_family, in_view) in
        [(label, 9 * 8, &both[1..], 1, 0), (name, 8 * 8, &both[..0], 0, 1)]
    {
        for bit in 0..bits {
            let at = place + bit / 8;
            let byte = whole[at as usize];
            patch(&path, at, &[byte ^ 1 << (bit % 8)]);
            assert_eq!(seen(), (shown.iter().map(|&s| s.to_owned()).collect(), in_family, in_view));
            patch(&path, at, &[byte]);
        }
    }
    assert_eq!(seen().0, both, "as before");
}

#[test]
fn a_changed_bit_of_a_definition_costs_that_metric_and_is_counted() {
    let folder = Folder::new("definition");
    let path = folder.file("shop");
    let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
    let writer = segment.writer().unwrap();
    let shape = Shape::Explicit(&[1.0, 5.0]);
    let series = get(&writer, "sizes_of_orders", shape, "path=\"/a\"");
    assert_eq!(writer.observe(&series, 2.0, 1), Outcome::Applied);
    let series = get(&writer, "requests", Shape::Counter, "path=\"/a\"");
    assert_eq!(writer.add(&series, 1), Outcome::Applied);
    let seen = || {
        let view = segment.view();
        let names = |metas: &mut dyn Iterator<Item = &MetricMeta>| -> Vec<String> {
            metas.map(|meta| meta.name.clone()).collect()
        };
        let shown = names(&mut view.families().iter().map(FamilyView::meta));
        assert_eq!(shown, names(&mut segment.metrics().iter()));
        (shown, view.damaged())
    };
    assert_eq!(seen(), (vec!["requests".to_owned(), "sizes_of_orders".to_owned()], 0));
    let whole = fs::read(&path).unwrap();
    // Behind 40 bytes of header and the name, at the next multiple of 16.
    let definition = place_of(&whole, b"sizes_of_orders") - 40 + 64;
    // Its shape, the lengths of its texts, its bounds.
    for at in [0, 16, 48, 56].map(|word| definition + word).into_iter().flat_map(|w| w..w + 8) {
        let byte = whole[at as usize];
        for bit in 0..8 {
            patch(&path, at, &[byte ^ 1 << bit]);
            assert_eq!(seen(), (vec!["requests".to_owned()], 1), "bit {bit} of byte {at}");
        }
        patch(&path, at, &[byte]);
    }
    assert_eq!(seen().0.len(), 2, "as before");
}

#[test]
fn a_series_whose_block_is_too_small_for_its_cells_is_left_out_and_counted() {
    let folder = Folder::new("small");
    let path = folder.file("shop");
    let segment = Segment::open_or_create(&path, "shop", &options()).unwrap();
    let writer = segment.writer().unwrap();
    let bounds: Vec<f64> = (0..500).map(f64::from).collect();
    let series = get(&writer, "sizes", Shape::Explicit(&bounds), "path=\"/large\"");
    assert_eq!(writer.observe(&series, 2.0, 1), Outcome::Applied);
    let seen = || {
        let (view, mut buckets) = (segment.view(), 0);
        let damaged = view.families()[0].for_each(&mut |series| {
            if let Value::Histogram { buckets: found, .. } = series.value {
                buckets += found.len();
            }
        });
        (buckets, damaged)
    };
    assert_eq!(seen(), (501, 0));
    let whole = fs::read(&path).unwrap();
    // With these options the words of pages begin at 4352, and blocks at 16384.
    let page = (place_of(&whole, b"path=\"/large\"") - 16384) / 16384;
    let at = 4352 + page * 8;
    // The page is one of blocks of 64 bytes now: two of them are what were blocks of 8192.
    patch(&path, at, &[whole[at as usize] & 0xc0 | 4]);
    assert_eq!(seen(), (0, 2), "that series, and the one for what a limit refuses");
    patch(&path, at, &whole[at as usize..at as usize + 1]);
    assert_eq!(seen(), (501, 0));
}

fn is_root(what: &str) -> bool {
    // SAFETY: a system call without arguments.
    let is = unsafe { libc::geteuid() } == 0;
    assert!(is || std::env::var_os("CI").is_none(), "{what} needs root, which CI has");
    if !is {
        eprintln!("skipped: {what} needs root");
    }
    is
}

/// Exit code of a child that may not have mounts of its own.
const NOT_ALLOWED: i32 = 77;

/// Runs `body` in a process of its own with a file system of `size` at the folder that it is given.
fn on_small_disk(name: &str, size: &str, body: impl FnOnce(PathBuf)) {
    if !is_root("mounting a small file system") {
        return;
    }
    let _turn = alone();
    let folder = Folder::new(name);
    let (target, data) = (
        std::ffi::CString::new(folder.path().to_str().unwrap()).unwrap(),
        std::ffi::CString::new(format!("size={size},mode=0700")).unwrap(),
    );
    let mut child = fork(|| {
        // SAFETY: system calls with valid strings; the mount is seen by this process only and goes with it.
        unsafe {
            if libc::unshare(libc::CLONE_NEWNS) != 0 {
                return NOT_ALLOWED;
            }
            let (root, kind, none) = (c"/".as_ptr(), c"tmpfs".as_ptr(), std::ptr::null());
            let private = libc::MS_REC | libc::MS_PRIVATE;
            assert_eq!(libc::mount(none, root, none, private, std::ptr::null()), 0);
            assert_eq!(libc::mount(kind, target.as_ptr(), kind, 0, data.as_ptr().cast()), 0);
        }
        body(folder.path().to_path_buf());
        0
    });
    let status = child.wait(0);
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == NOT_ALLOWED {
        assert!(std::env::var_os("CI").is_none(), "CI may mount file systems");
        eprintln!("skipped: this container may not mount file systems");
        return;
    }
    assert_eq!(status, 0, "the raw status of the process on the small disk");
}

#[test]
fn a_disk_too_small_for_a_segment_is_an_error_and_leaves_nothing() {
    on_small_disk("tiny", "1m", |folder| {
        let error = Segment::open_or_create(&folder.join("a.seg"), "a", &Options::collector());
        let error = error.err().unwrap().to_string();
        assert!(error.contains("commit memory of") && error.contains("No space left"), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    });
}

/// Makes series and rings until there is no memory, and far beyond; everything must be counted somewhere, or refused where
/// it has no place of its own.
fn fill(folder: &Path, options: &Options) {
    let segment = Segment::open_or_create(&folder.join("a.seg"), "a", options).unwrap();
    let writer = segment.writer().unwrap();
    let counter = writer.metric(&spec("c", Shape::Counter)).unwrap();
    let times = writer.metric(&spec("t", Shape::Exponential { schema: 4 })).unwrap();
    let applied = |outcome| assert_eq!(outcome, Outcome::Applied);
    const SERIES: u64 = 60_000;
    let mut refused = 0;
    for n in 0..SERIES {
        let labels = format!("n=\"{n}\"");
        applied(writer.add(&writer.series(counter, &labels).unwrap(), 2));
        if n % 4 == 0 {
            let series = writer.series(times, &labels).unwrap();
            match writer.observe(&series, (n % 1000) as f64, 1) {
                Outcome::NoRoom => refused += 1,
                outcome => applied(outcome),
            }
        }
    }
    let others: Vec<Writer> = (0..8).map(|_| segment.writer().unwrap()).collect();
    let series = writer.series(counter, "n=\"0\"").unwrap();
    others.iter().for_each(|other| other.record(&series, RecordKind::Sample, 1));
    let (mut whole_of_all, mut count_of_all) = (0, 0);
    let reader = Segment::attach(&folder.join("a.seg")).unwrap();
    for family in reader.view().families() {
        family.for_each(&mut |series| match series.value {
            Value::Counter { whole, .. } => whole_of_all += whole,
            Value::Histogram { count, .. } => count_of_all += count,
            other => panic!("{other:?}"),
        });
    }
    assert_eq!((whole_of_all, count_of_all), (SERIES * 2, SERIES / 4 - refused));
    assert!(segment.usage().overflows > 0, "{:?}", segment.usage());
    let records: u64 =
        segment.slots().iter().map(|slot| slot.ring_written + slot.ring_refused).sum();
    assert_eq!(records, 8);
    assert_eq!(segment.usage().damage, 0);
}

#[test]
fn totals_are_exact_on_a_disk_of_one_mebibyte() {
    on_small_disk("one", "1m", |folder| fill(&folder, &Options::default()));
}

#[test]
fn totals_are_exact_on_a_disk_of_eight_mebibytes() {
    let options = Options { metric_series_max: 1 << 20, series_max: 1 << 20, ..Options::default() };
    on_small_disk("eight", "8m", |folder| fill(&folder, &options));
}
