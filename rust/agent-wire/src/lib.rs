//! Pure codecs: bytes in, samples out, and metrics back out as text.
//!
//! | module | what it does |
//! |---|---|
//! | [`framing`] | cuts a byte stream or a datagram into lines |
//! | [`statsd`] | one line of StatsD or DogStatsD 1.0 to 1.6 -> [`statsd::Item`] |
//! | [`push_json`] | JSON object, array or NDJSON -> samples, each accepted or refused by itself |
//! | [`prometheus_text`] | a Pushgateway body (text format 0.0.4) -> families |
//! | [`name`] | names as Prometheus wants them; family name, unit and scale of a sample |
//! | [`name_tags`] | tags inside of a StatsD name: Influx, Librato, SignalFx |
//! | [`labels`] | tags and pairs -> canonical label text `a="x",b="y"`, and back |
//! | [`mapping`] | rules that rename, label, retype or drop StatsD names |
//! | [`exposition`] | text format 0.0.4 and OpenMetrics 1.0 |
//! | [`protobuf`] | the same as protobuf, with native histograms |
//! | [`encoder`] | the one of a form |
//! | [`negotiate`] | which form a client asked for |
//! | [`number`] | floats and integers, read and written |
//!
//! Rules of the crate: no I/O, no clock, no `unsafe`, no panic on any input, memory bounded by
//! [`Limits`], every refusal has exactly one [`Reject`] reason. A StatsD line is decoded without
//! allocating. The table of what happens to bad input stands in [`reject`].
//!
//! Not promised: values are `f64` and so exact up to 2^53; the unit of a `h` or `d` sample is not
//! guessed; two raw names that sanitise to one name become one series; length-prefixed stream framing and exemplars are
//! not read or written, native histograms and protobuf are not read. A family's samples are written in the order
//! the caller gives them, and the caller must not write one family twice.
#![forbid(unsafe_code)]

pub mod encoder;
pub mod exposition;
mod format;
pub mod framing;
pub mod labels;
pub mod limits;
pub mod mapping;
pub mod name;
pub mod name_tags;
pub mod negotiate;
pub mod number;
pub mod prometheus_text;
pub mod protobuf;
pub mod push_json;
pub mod reject;
pub mod sample;
pub mod statsd;

pub use format::Format;
pub use limits::Limits;
pub use reject::Reject;
pub use sample::{Kind, Value};
