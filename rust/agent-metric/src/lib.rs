//! What a metric is: its kind, its buckets, what the processes of an app mean by one gauge. No memory, no I/O, no clock;
//! every other crate says these things in these words. And how families are told to whoever has a form for them.

pub mod bounds;
mod family;
pub mod name;
pub mod octave;
pub mod own;
pub mod quantiles;
mod shape;

pub use family::{FamilyHead, FamilyKind, FamilyVisitor, Piece, Sample, SampleValue};
pub use shape::{GaugeMode, ModeRow, OwnedShape, Reduction, Shape, Storage};
