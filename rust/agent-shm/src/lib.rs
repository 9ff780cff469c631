//! Metrics in shared memory.
//!
//! A *segment* is one mapped file of one app. In it, a *metric map* leads from names and label texts to *series*, whose
//! *cells* all processes add to; *slots* say who writes and whether it lives; *rings* carry raw samples to whoever wants
//! them. Counters and histograms have no owner: a process that dies leaves nothing to clean up. One that finds no slot
//! cannot write; its client counts in private memory.
//!
//! Promises (each held by a test; `tests/` and the files named):
//!
//! 1. No mutex, no waiting: no writer waits for a writer, no reader for a writer (`series.rs`, `map.rs`, `ring.rs`).
//! 2. Death at any instruction leaves every operation fully in or fully out (`sync.rs`: one atomic step for each).
//! 3. Liveness is the kernel's word, never a time-out and never a process id (`slot.rs`, `lock.rs`).
//! 4. No SIGBUS: memory exists before it is touched (`region.rs`), and a file truncated under us is survived (`bus.rs`).
//! 5. Offsets, not addresses, and all of them checked (`region.rs`, `view.rs`).
//! 6. Bounded: series, metrics, slots, rings and bytes have limits, and what a limit refuses is still counted, in the
//!    overflow series of its metric (`writer.rs`).
//! 7. A write through a stale handle never lands in another series (`series.rs`, `epoch.rs`, `block.rs`).
//! 8. A histogram's count and sum always belong together: they change in one 16-byte step (`sync.rs`).
//! 9. Memory that is given back serves blocks of any size, without a collector (`block.rs`, `reclaim.rs`).
//! 10. A definition that changes begins anew alone (`family.rs`).
//!
//! Not promised: values of different series from the same instant; survival of a reboot; 32-bit machines; file systems
//! without locks of open file descriptions, or on kernels before 5.14 without `fallocate`.
//!
//! ```
//! use agent_shm::{MetricSpec, Options, Outcome, Segment, Shape, Value};
//!
//! let segment = Segment::private("demo", &Options::default());
//! let writer = segment.writer().unwrap();
//! let spec = MetricSpec { name: "requests", help: "Requests.", unit: "", shape: Shape::Counter };
//! let requests = writer.metric(&spec).unwrap();
//! let ok = writer.series(requests, "code=\"200\"").unwrap();
//! assert_eq!(writer.add(&ok, 1), Outcome::Applied);
//!
//! segment.view().families()[0].for_each(&mut |series| {
//!     assert_eq!(series.labels, b"code=\"200\"");
//!     assert_eq!(series.value, Value::Counter { whole: 1, fraction: 0.0 });
//! });
//! ```

mod absorb;
#[cfg(not(model))]
mod audit;
mod batch;
#[cfg(not(model))]
mod beside;
mod block;
#[cfg(not(model))]
mod bus;
mod cells;
mod clock;
#[cfg(all(test, not(model)))]
mod damage_test;
mod entry;
mod epoch;
mod error;
mod expire;
mod family;
#[cfg(not(model))]
mod file;
#[cfg(not(model))]
mod foreign;
mod gauge;
mod handle;
mod header;
mod identity;
mod inner;
mod join;
mod lane;
mod layout;
mod lock;
mod map;
mod metric;
#[cfg(model)]
mod model;
#[cfg(model)]
mod model_segment;
mod pace;
mod page;
mod parts;
mod read;
mod recent;
mod reclaim;
mod recount;
mod region;
mod registry;
mod remove;
mod ring;
mod segment;
mod series;
mod slot;
mod sync;
mod value;
mod view;
mod writer;

pub use absorb::{Beside, Parcel};
pub use agent_metric::{octave, GaugeMode, OwnedShape, Shape};
#[cfg(not(model))]
pub use audit::{change_header, Audit, BOOT_ID_AT, HASH_KEY_AT};
#[cfg(not(model))]
pub use beside::{base, path_beside, suffix, BESIDE_MAX};
#[cfg(not(model))]
pub use bus::{come_first_again, SEGMENTS_MAX};
pub use clock::now_unix_ms;
pub use entry::{KEY_BYTES_MAX, OVERFLOW_LABELS};
pub use error::Error;
pub use expire::Expirer;
pub use family::Joined;
#[cfg(not(model))]
pub use foreign::Extent;
pub use handle::{Outcome, Series, SeriesId};
pub use header::Header;
pub use layout::{Options, COUNTER_END, LAYOUT_VERSION};
pub use metric::{
    MetricId, MetricMeta, MetricSpec, BOUNDS_MAX, HELP_BYTES_MAX, NAME_BYTES_MAX, UNIT_BYTES_MAX,
};
#[cfg(model)]
pub use model::{live_for, lose_membarrier};
pub use recent::RecentReader;
pub use reclaim::Reclaimed;
pub use ring::{Drained, Entry, RecordKind, EVENT_BYTES_MAX};
pub use segment::{RingReader, Segment, Usage, RENEW_MS};
pub use slot::SlotInfo;
pub use value::{ProcessValue, Value};
pub use view::{FamilyView, SeriesView, View};
pub use writer::{Guard, Writer};
