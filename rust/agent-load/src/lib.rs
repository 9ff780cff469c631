//! The load engine: opens, holds and drives many connections, and says truthfully how that went.
//!
//! ```text
//!  controller (Python) -- orders --> control pipe --+
//!                                                   v
//!   plan -> [schedule] what is due -> [drive] one epoll loop, one thread -> sockets of the target
//!                                       |   ^
//!                     [slab] 32 bytes a connection, [protocol] bytes out and answers in
//!                                       v
//!  controller <-- one line of deltas a second -- [report] <- [latency], [outcome]
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`plan`] | what one executor does, checked |
//! | [`source`] | which address a connection comes from |
//! | [`schedule`] | when a connection opens, when its messages are due |
//! | [`protocol`] | the bytes of a message; what an answer says |
//! | [`slab`] | connections in 32 bytes each |
//! | [`drive`] | the loop; [`order`] is what it is told, [`report`] what it says |
//! | [`latency`] | a histogram that can be merged |
//! | [`outcome`] | what happened, counted by reason |
//! | [`system`] | system calls: the only `unsafe` |
//!
//! An *executor* is one process with one loop and a descriptor table of its own. It knows nothing of
//! the product but its protocols: it uses neither `agent-shm` nor `agent-net`, so that it tests them
//! from outside, through real bytes.
//!
//! What a latency means: the time from the instant at which the schedule wanted a message out, not
//! from when it went. When the target stalls, messages that wait behind the stall are counted from
//! their own instants. Service time (from the real send) and the executor's own lateness (*dispatch*)
//! are recorded beside it. Answers are stamped when the kernel reports them, a batch with one time.
//!
//! Limits: a connection has at most one message on its way; one that is due while the one before is
//! unanswered waits for it. Nothing is allocated for an idle connection, nothing grows with the
//! length of a run.
//!
//! Not promised: TLS, HTTP/2, more than one request on its way per connection, more samples in a
//! message than one.

pub mod drive;
pub mod latency;
pub mod order;
pub mod outcome;
pub mod plan;
pub mod protocol;
pub mod report;
pub mod schedule;
pub mod slab;
pub mod source;
pub mod system;

pub use drive::run_executor;
