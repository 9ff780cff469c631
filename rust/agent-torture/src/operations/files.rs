//! The file itself: made, replaced, refused, attached.

use crate::grain::Grain;
use crate::operation::*;
use agent_shm::{change_header, Options, Segment, BOOT_ID_AT};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

pub fn rows() -> Vec<Operation> {
    let row = |name, prepare, act, refuses| Operation {
        name,
        group: "file",
        grain: Grain::Items,
        limits: |options| options.bytes_max = 4 * PAGE_BYTES,
        is_furnished: false,
        memory: Memory::Exact,
        kind: Kind::OnFile(OnFile { prepare, act, refuses }),
    };
    vec![
        row("create", |_, _| (), open, false),
        row(
            "create where a killed maker left its file",
            |path, random| {
                let left = path.with_file_name(".app.v3.seg.1.0.new");
                fs::write(left, vec![0; random.below(5000) as usize]).expect("a file is written");
            },
            open,
            false,
        ),
        row(
            "replace a file of an earlier boot",
            |path, _| {
                with_a_counter(path);
                change_header(path, BOOT_ID_AT, &[5, 5]).expect("its header is changed");
            },
            open,
            false,
        ),
        row(
            "replace a file that was never finished",
            |path, _| {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
                drop(file.expect("a file is made"));
            },
            open,
            false,
        ),
        row(
            "replace a file that was cut off",
            |path, random| {
                with_a_counter(path);
                let file = OpenOptions::new().write(true).open(path).expect("it is there");
                file.set_len(4096 + random.below(10_000)).expect("a file is cut off");
            },
            open,
            false,
        ),
        row(
            "replace a file with impossible limits",
            |path, random| {
                with_a_counter(path);
                // The limits of series, which cannot be so high.
                change_header(path, 56, &[u64::MAX - random.below(9)]).expect("it is changed");
            },
            open,
            false,
        ),
        row(
            "refuse a file that is no segment",
            |path, random| {
                let mut file = OpenOptions::new();
                let file = file.write(true).create_new(true).mode(0o600).open(path);
                let text = "a letter to a friend, ".repeat(random.below(500) as usize + 1);
                file.and_then(|file| file.write_all_at(text.as_bytes(), 0)).expect("it is written");
            },
            open,
            true,
        ),
        row(
            "attach and read",
            |path, _| with_a_counter(path),
            |path| {
                let segment = Segment::attach(path).expect("it is a segment");
                assert_eq!(segment.view().families().len(), 1);
            },
            false,
        ),
    ]
}

fn options() -> Options {
    let row = rows().into_iter().next().expect("there are rows");
    row.options()
}

fn open(path: &Path) {
    let _ = Segment::open_or_create(path, "app", &options());
}

fn with_a_counter(path: &Path) {
    let segment = Segment::open_or_create(path, "app", &options()).expect("a segment is made");
    let writer = writer(&segment);
    applied(writer.add(&series(&writer, "kept", COUNTER, ""), 5));
}
