//! The data plane: sockets in, cells out.
//!
//! ```text
//!  UDP, unix datagrams -> datagram --+                       +-> cells and rings of the segment
//!  TCP, unix streams   -> stream ----+-> apply (cache of     |
//!  HTTP                -> http ------+    series handles) ---+-> telemetry (the ledger)
//!        listen -> engine (one epoll loop of one thread) <- control (the supervisor's pipe)
//!                  slab (56 bytes a connection), wheel (deadlines), admission (every limit)
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the settings of a worker and of the aggregator, as the supervisor sends them |
//! | [`child`] | a forked child that runs no Python |
//! | [`worker`] | builds everything, runs the loop, gives an exit code |
//! | [`engine`] | the event loop: readiness, deadlines, drain; accepting, passing on, bodies slice by slice |
//! | [`listen`] | listeners, and the account of their connections |
//! | [`desk`], [`handover`] | what the desk passes on; what goes with a connection to another process |
//! | [`place`], [`seats`] | who one is; how many connections all have together |
//! | [`slab`], [`wheel`] | connections in 56 bytes each; deadlines without timers |
//! | [`side`], [`conns`] | what a busy connection owns; all of a connection kept in step |
//! | [`datagram`], [`nap`] | receiving in batches, and letting them gather |
//! | [`stream`], [`lines`] | lines of a stream; their connections |
//! | [`exchange`] | the connections of HTTP |
//! | [`apply`], [`cache`] | decoded samples into cells, refusals into the ledger |
//! | [`admission`], [`memory`] | who may send how much; how much memory is left |
//! | [`system`] | system calls |
//! | [`settle`] | the ledger of a worker that died |
//! | [`telemetry`], [`counts`] | the table of self-metrics; what HTTP, scrapes and gateway count |
//! | [`window`], [`unique`], [`aggregator`] | sliding quantiles and unique counts from the rings |
//! | [`events`] | the last events, where the status page finds them |
//! | [`http`], [`scrape`], [`apps`] | requests, rendering, the segments of apps |
//! | [`control`] | lines from and to the supervisor |
//!
//! One thread runs one loop and shares nothing with another but the segment. Nothing is allocated
//! for an idle connection; no system call, clock read or lock is spent on a single line. A worker
//! never stops reading: what is over a limit is read, then dropped and counted by its reason.

pub mod admission;
pub mod aggregator;
pub mod apply;
pub mod apps;
pub mod cache;
pub mod child;
pub mod config;
pub mod conns;
pub mod control;
pub mod counts;
pub mod datagram;
pub mod desk;
pub mod engine;
pub mod events;
pub mod exchange;
pub mod handover;
pub mod http;
pub mod lines;
pub mod listen;
pub mod memory;
pub mod nap;
pub mod place;
pub mod scrape;
pub mod seats;
pub mod settle;
pub mod side;
pub mod slab;
pub mod stream;
pub mod system;
pub mod telemetry;
pub mod unique;
pub mod wheel;
pub mod window;
pub mod worker;
