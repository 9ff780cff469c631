//! `agent._core`: the Python face of the Rust crates. Conversions and the release of the GIL; what
//! it says is in `python/agent/_core.pyi`.
//!
//! | module | what it does |
//! |---|---|
//! | [`metric`] | the base class: a handle or the parent of children |
//! | [`counter`], [`gauge`], [`histogram`], [`summary`] | the four classes |
//! | [`labels`], [`children`] | from label values to the child |
//! | [`timer`] | `with` blocks and decorators |
//! | [`registry`], [`host`] | a store of `agent-client` as an object; what it asks of Python |
//! | [`configure`] | what `agent.configure` was told |
//! | [`render`], [`inspect`] | pages and plain values |
//! | [`server`], [`settle`] | the loops of workers and aggregator; the ledger of a dead worker |
//! | [`load`] | the loop of a load executor |
//! | [`torture`] | death at every instruction of an operation |
//! | [`raw`], [`number`], [`text`], [`buffer`], [`error`] | methods without argument parsing; values |
//!
//! The module declares `gil_used`: handles and stores are plain cells that the GIL protects. Cells
//! in the segment are atomic, so this is what a free-threaded build would have to change, not the
//! segment.

mod buffer;
mod children;
mod configure;
mod counter;
mod error;
mod gauge;
mod histogram;
mod host;
mod inspect;
mod labels;
mod load;
mod metric;
mod number;
mod observe;
mod raw;
mod registry;
mod render;
mod server;
mod settle;
mod summary;
mod text;
mod timer;
mod torture;

use pyo3::prelude::*;
use std::sync::OnceLock;

/// The working directory when the module was imported; part of an app's identity.
static START_DIR: OnceLock<String> = OnceLock::new();

#[pymodule(gil_used = true)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let start_dir = std::env::current_dir().unwrap_or_default();
    START_DIR.get_or_init(|| start_dir.to_string_lossy().into_owned());
    module.add("BUILD_PROFILE", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    module.add("LAYOUT_VERSION", agent_shm::LAYOUT_VERSION)?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<metric::Metric>()?;
    module.add_class::<counter::Counter>()?;
    module.add_class::<gauge::Gauge>()?;
    module.add_class::<histogram::Histogram>()?;
    module.add_class::<summary::Summary>()?;
    module.add_class::<timer::Block>()?;
    module.add_class::<registry::Registry>()?;
    module.add_function(wrap_pyfunction!(registry::default_registry, module)?)?;
    module.add_function(wrap_pyfunction!(configure::configure, module)?)?;
    module.add_function(wrap_pyfunction!(configure::configured, module)?)?;
    module.add_function(wrap_pyfunction!(inspect::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(render::render_segment, module)?)?;
    module.add_function(wrap_pyfunction!(server::open_segment, module)?)?;
    module.add_function(wrap_pyfunction!(server::check_worker_config, module)?)?;
    module.add_function(wrap_pyfunction!(server::fork_children, module)?)?;
    module.add_function(wrap_pyfunction!(settle::settle_worker, module)?)?;
    module.add_function(wrap_pyfunction!(load::run_load_executor, module)?)?;
    module.add_function(wrap_pyfunction!(torture::torture_steps, module)?)?;
    let py = module.py();
    raw::install(&py.get_type::<metric::Metric>(), labels::METHODS)?;
    raw::install(&py.get_type::<counter::Counter>(), counter::METHODS)?;
    raw::install(&py.get_type::<gauge::Gauge>(), gauge::METHODS)?;
    raw::install(&py.get_type::<histogram::Histogram>(), histogram::METHODS)?;
    raw::install(&py.get_type::<summary::Summary>(), summary::METHODS)
}
