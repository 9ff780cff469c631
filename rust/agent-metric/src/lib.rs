//! What a metric is: its kind, its buckets, what the processes of an app mean by one gauge. No memory, no I/O, no clock;
//! every other crate says these things in these words.

pub mod bounds;
pub mod octave;
mod shape;

pub use shape::{GaugeMode, OwnedShape, Shape};
