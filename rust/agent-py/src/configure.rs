//! What `agent.configure` was told. It holds for the life of the process and for its forked children.
//!
//! Purpose: one place that Python writes and that [`crate::host`] reads. The checks of a name, and the refusal of one
//! that comes too late, are in `agent/app/given.py`.
//!
//! The name is set once: a second one is refused by Python before it comes here, and ignored if it does.

use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

static APP: OnceLock<String> = OnceLock::new();
static STRICT: AtomicBool = AtomicBool::new(false);

/// Whether an update that cannot be shared raises, where else the process falls back to private memory.
pub fn is_strict() -> bool {
    // Relaxed: written and read by threads that are attached to the interpreter, one at a time.
    STRICT.load(Ordering::Relaxed)
}

/// Keeps what is given; None leaves it as it was.
#[pyfunction]
pub fn configure(app: Option<String>, strict: Option<bool>) {
    if let Some(app) = app {
        APP.get_or_init(|| app);
    }
    if let Some(strict) = strict {
        // Relaxed: as in `is_strict`.
        STRICT.store(strict, Ordering::Relaxed);
    }
}

/// The name that was given, and whether the process is strict.
#[pyfunction]
pub fn configured() -> (Option<&'static str>, bool) {
    (APP.get().map(String::as_str), is_strict())
}
