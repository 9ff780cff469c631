#![cfg(model)]
//! Orders of events between those who share a segment. `ci/orders.sh loom` tries orders within a bound of preemptions,
//! systematically, and every value that a weakly ordered machine may show; `ci/orders.sh shuttle` tries random orders of
//! larger models.
//!
//! What a model is not: see `src/model.rs`. Which orders loom leaves out: see `explore` in world.rs.

#[cfg(shuttle)]
mod crowd;
mod families;
mod pairs;
mod roles;
#[cfg(loom)]
mod trios;
mod world;
