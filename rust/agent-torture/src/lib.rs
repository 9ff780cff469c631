//! Death at every instruction.
//!
//! Each operation of a segment is walked through in a child, one instruction at a time. After each instruction the files are
//! as a SIGKILL at that moment would leave them; each state that differs from the ones before is put back, recovered by a
//! new writer and examined (oracle.rs): the operation is fully in or fully out, count, sum and buckets agree, nothing else
//! has changed, no memory is lost, the next writer works, and a second recovery finds nothing to do.
//!
//! | file | the one idea |
//! |---|---|
//! | `run` | rounds of walks until the time is over |
//! | `operations`, `operation` | the table of operations, a file a group; what a row is |
//! | `stage` | the segment that an operation is walked in |
//! | `walk` | from the first instruction to the last |
//! | `stepper`, `board` | a child that runs one instruction at a time; the page that it shares |
//! | `decode`, `watch`, `image` | what an instruction may change; what it did change; the files at one moment |
//! | `oracle` | what must hold of every state |
//! | `picture`, `grain` | what a segment shows; what of it may be in while the rest is out |
//! | `random`, `folder`, `report`, `error` | numbers from a seed; a folder of one's own; results |
//!
//! ```no_run
//! use agent_torture::{run, Next, Options};
//! use std::time::Duration;
//!
//! let options = Options {
//!     seed: 1,
//!     time_limit: Duration::from_secs(60),
//!     rounds: None,
//!     operations: Vec::new(),
//!     folder: None,
//! };
//! let report = run(&options, &mut |_| Next::Continue).unwrap();
//! assert_eq!(report.findings().count(), 0);
//! ```
//!
//! Limits: Linux on x86-64, a process of one thread, ptrace allowed. Not promised: the interleaving of several writers
//! (that is loom's), a death of the machine, and that two runs with one seed have the same number of instructions.

mod board;
mod decode;
mod error;
mod folder;
mod grain;
mod image;
mod operation;
mod operations;
mod oracle;
mod picture;
mod random;
mod report;
mod run;
mod stage;
mod stepper;
mod walk;
mod watch;

pub use error::Error;
pub use grain::Grain;
pub use operation::{on_segment, Act, Kind, Memory, OnFile, Operation};
pub use operations::table;
pub use random::Random;
pub use report::{Finding, Next, OperationReport, Progress, StepReport};
pub use run::{run, run_table, Options};
