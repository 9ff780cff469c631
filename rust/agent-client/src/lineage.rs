//! Who started this process: what a worker that is recycled has in common with the one before it.
//!
//! Read once for each process, from `/proc`: 20 microseconds.
//!
//! The first process of a machine is the parent of every daemon and of every orphan, and says nothing. The first one of a
//! container often is the master of an app, and then runs the same program as its workers do; it has the same number in
//! every container, and is told by its namespace.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;

/// What the kernel numbers the first namespace of processes with (`PROC_PID_INIT_INO`).
const NAMESPACE_OF_MACHINE: u64 = 0xeffffffc;

/// A hash of the parent's id and start, kept for one process.
#[derive(Default)]
pub struct Lineage {
    known: Cell<(u32, u32)>,
}

impl Lineage {
    /// 0 when nobody knows, or the parent is the first process of the machine.
    pub fn of_this_process(&self) -> u32 {
        let process = std::process::id();
        let (of, known) = self.known.get();
        if of == process {
            return known;
        }
        let lineage = read().unwrap_or(0);
        self.known.set((process, lineage));
        lineage
    }
}

/// Whether a process runs the program that this one runs, as a master that forks does and an init does not.
fn is_our_program(process: u32) -> bool {
    let program =
        |of: &str| std::fs::metadata(format!("/proc/{of}/exe")).map(|it| (it.dev(), it.ino()));
    match (program(&process.to_string()), program("self")) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => false,
    }
}

fn read() -> Option<u32> {
    let parent = std::os::unix::process::parent_id();
    let namespace = match parent {
        0 => return None,
        1 => std::fs::metadata("/proc/self/ns/pid").map(|found| found.ino()).ok()?,
        _ => 0,
    };
    if parent == 1 && (namespace == NAMESPACE_OF_MACHINE || !is_our_program(parent)) {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).ok()?;
    // The name, which may hold anything, is in parentheses; the start is the 20th field behind it.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    let text = format!("{parent}:{start}:{namespace}");
    Some((crate::name::hash(text.as_bytes()) as u32).max(1))
}
