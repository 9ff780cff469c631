//! The account of memory: marks, looks, and the files of the kernel in folders of their own.

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("agent-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const MIB: u64 = 1 << 20;

fn marks(admit_max: f64) -> Marks {
    let limits = Limits {
        memory_connections_ratio_max: admit_max,
        memory_used_ratio_max: 1.0,
        ..Limits::default()
    };
    Marks::new(&limits)
}

#[test]
fn a_flood_ends_halfway_to_where_samples_are_shed() {
    let marks = Marks::new(&Limits::default());
    assert_eq!((marks.admit_max, marks.accept_max, marks.shed_max), (0.85, 0.875, 0.9));
    assert_eq!(self::marks(0.8).accept_max, 0.9);
    let limits = Limits { memory_used_ratio_max: 0.5, ..Limits::default() };
    assert_eq!(Marks::new(&limits).accept_max, 0.925, "samples are shed long before");
}

fn used(used_bytes: u64) -> Usage {
    Usage { used_bytes, limit_bytes: 100 * MIB }
}

#[test]
fn a_look_gives_room_up_to_the_watermark_and_what_anybody_admits_takes_it() {
    let mut room = Room::default();
    assert_eq!(room.credit(0), u32::MAX, "nothing is known of a limit");
    room.look(used(60 * MIB), marks(0.8), 1000);
    assert_eq!(room.credit(1000), 2560, "20 MiB, 8 KiB each");
    assert_eq!(room.credit(3000), 560, "others have admitted as well");
    assert_eq!(room.credit(3560), 0);
    assert_eq!(room.credit(9000), 0);
    assert!(!room.is_full(), "used up is not full");
    assert_eq!(room.credit(999), 0, "an account that began anew says nothing");
    assert!(room.may_accept(1000 + 3840 - 1), "up to 90 MiB, to be refused");
    assert!(!room.may_accept(1000 + 3840));
    room.look(used(65 * MIB), marks(0.8), 3560);
    assert_eq!(room.credit(3560), 1920);
}

#[test]
fn full_lasts_until_a_little_below_the_watermark() {
    let mut room = Room::default();
    room.look(used(80 * MIB - 15 * CONNECTION_BYTES), marks(0.8), 5);
    assert!(room.is_full(), "room for fewer than {ROOM_MIN}");
    assert_eq!(room.credit(5), 0);
    assert!(room.may_accept(5));
    room.look(used(91 * MIB), marks(0.8), 5);
    assert!(!room.may_accept(5));
    room.look(used(78 * MIB), marks(0.8), 5);
    assert!(room.is_full());
    room.look(used(77 * MIB), marks(0.8), 5);
    assert!(!room.is_full());
    assert_eq!(room.credit(5), 384);
    room.look(used(200 * MIB), marks(1.0), 5);
    assert_eq!(room.credit(5), u32::MAX, "a ratio of 1 is no limit");
    assert!(room.may_accept(5));
}

/// Twenty processes, each starved for as long as chance likes between its looks, at any true cost of a
/// connection, and a kernel that frees what was refused whenever it likes: usage passes neither of the
/// marks, and what fits is taken.
#[test]
fn whatever_the_order_of_looks_usage_stays_below_the_marks() {
    for seed in 0..200u64 {
        let mut random = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed + 1);
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let true_bytes = 1500 + next(CONNECTION_BYTES - 1500 + 1);
        let refused_bytes = 900 + next(1000);
        let mut rooms: Vec<Room> = (0..20).map(|_| Room::default()).collect();
        for room in &mut rooms {
            room.look(used(30 * MIB), marks(0.85), 0);
        }
        let (mut admitted, mut refused, mut freed) = (0, 0, 0);
        let mut most = 0;
        for _ in 0..60_000 {
            let room = &mut rooms[next(20) as usize];
            let bytes = 30 * MIB + admitted * true_bytes + (refused - freed) * refused_bytes;
            most = most.max(bytes);
            if room.credit(admitted + refused) == 0 {
                room.look(used(bytes), marks(0.85), admitted + refused);
            }
            // Nobody else has a turn meanwhile.
            for _ in 0..next(40) {
                if room.credit(admitted + refused) > 0 {
                    admitted += 1;
                } else if room.may_accept(admitted + refused) {
                    refused += 1;
                }
            }
            if next(1000) == 0 {
                freed = refused;
            }
        }
        let held = 30 * MIB + admitted * true_bytes;
        assert!(held <= 85 * MIB, "seed {seed}: {held}");
        assert!(held > 80 * MIB, "seed {seed}: {held}");
        assert!(most as f64 <= 92.5 * MIB as f64, "seed {seed}: {most}");
        assert!(refused > 0, "seed {seed}");
    }
}

#[test]
fn of_several_groups_the_one_with_the_least_left_counts() {
    let folder = Folder::new("cgroup2");
    folder.write("own", "0::/a/b\n");
    folder.write("fs/memory.max", "max\n");
    folder.write("fs/a/memory.max", "1000\n");
    folder.write("fs/a/memory.current", "900\n");
    let stat = "file 500\ninactive_file 450\nfile_dirty 30\nfile_writeback 20\n";
    folder.write("fs/a/memory.stat", stat);
    folder.write("fs/a/b/memory.max", "5000\n");
    folder.write("fs/a/b/memory.current", "800\n");
    let found = groups(&folder.0.join("own"), &folder.0.join("fs"));
    let mut memory = Memory { limit: Limit::Groups(found), workers: 3, stat_error_bytes: 0 };
    let usage = memory.usage(7).expect("readable");
    assert_eq!(usage, Usage { used_bytes: 500, limit_bytes: 1000 });
    assert_eq!(usage.ratio(), 0.5);
    memory.stat_error_bytes = 100;
    assert_eq!(memory.usage(7).expect("readable").used_bytes, 600, "less of the cache is sure");
    folder.write("fs/a/b/memory.current", "4900\n");
    let usage = memory.usage(7).expect("readable");
    assert_eq!(usage, Usage { used_bytes: 4900, limit_bytes: 5000 });
}

#[test]
fn version_one_and_no_limit_are_known_too() {
    let folder = Folder::new("cgroup1");
    folder.write("own", "5:cpu:/x\n4:memory:/x\n0::/\n");
    folder.write("fs/memory/memory.limit_in_bytes", "9223372036854771712\n");
    folder.write("fs/memory/x/memory.limit_in_bytes", "2000\n");
    folder.write("fs/memory/x/memory.usage_in_bytes", "700\n");
    folder.write("fs/memory/x/memory.stat", "total_inactive_file 100\ntotal_dirty 40\n");
    let found = groups(&folder.0.join("own"), &folder.0.join("fs"));
    let memory = Memory { limit: Limit::Groups(found), workers: 1, stat_error_bytes: 0 };
    let usage = memory.usage(0).expect("readable");
    assert_eq!(usage, Usage { used_bytes: 640, limit_bytes: 2000 });
    folder.write("none", "0::/\n");
    assert_eq!(groups(&folder.0.join("none"), &folder.0.join("empty")), []);
}

#[test]
fn without_a_cgroup_private_memory_counts_for_each_worker_and_the_kernel_s_for_each_connection() {
    let folder = Folder::new("statm");
    folder.write("statm", "5000 300 100 1 0 20 0\n");
    assert_eq!(own_bytes(&folder.0.join("statm"), 4), Some((200 * 4 + 100) * 4096));
    let memory = Memory::new(1 << 30, 1);
    let (idle, busy) = (memory.usage(0).expect("proc"), memory.usage(1_000_000).expect("proc"));
    assert!(idle.used_bytes > 0);
    assert!(busy.used_bytes - idle.used_bytes > 3_000_000_000);
}

#[test]
fn cpus_are_counted_up_to_the_last() {
    assert_eq!(cpus("0\n"), 1);
    assert_eq!(cpus("0-3,8-11\n"), 12);
    assert_eq!(cpus(""), 1);
}
