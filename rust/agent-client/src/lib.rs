//! How a process is bound to its segment.
//!
//! `agent-shm` has segments and writers; a language binding has objects that its users hold for as long as they like.
//! Between them stands this crate: which segment, whose definitions, what happens at a fork, at a full disk, when the
//! file vanishes or is damaged, when a definition changes. It knows no Python, and cargo tests it alone.
//!
//! | file | the one idea |
//! |---|---|
//! | `store.rs` | where the metrics of a registry live, seen from this process |
//! | `binding.rs` | a segment opened for it: shared, or private and why |
//! | `look.rs` | what a process looks for while it works |
//! | `aside.rs` | metrics that found no room: private until there is some |
//! | `family.rs`, `name.rs` | a definition; names |
//! | `clash.rs` | sample names that another program of the app had first |
//! | `handle.rs` | one series as a user's object holds it |
//! | `hold.rs`, `starts.rs` | what `track_inprogress()` holds, given back where it was taken; when `time()` began |
//! | `amount.rs` | which numbers a metric takes |
//! | `fork.rs`, `lineage.rs` | what a forked child does first; who started this process |
//! | `host.rs`, `refusal.rs` | what is asked of the language around; what is refused |
//!
//! All of it is used by one thread at a time, as a language with a global lock does; the fork handler runs in a child
//! that has one thread.

pub mod amount;
mod aside;
mod binding;
mod clash;
mod family;
mod fork;
mod handle;
mod hold;
mod host;
mod lineage;
mod look;
pub mod name;
mod refusal;
mod starts;
mod store;

pub use binding::{Cause, Source};
pub use family::{Definition, Family};
pub use handle::Handle;
pub use hold::Hold;
pub use host::{Host, NoPlace, Place};
pub use name::Class;
pub use refusal::{Kind, Refusal};
pub use starts::Starts;
pub use store::Store;
