//! What the load controller calls: the loop of one executor.

use pyo3::prelude::*;

/// Carries out a load plan (JSON) until it is told to stop; gives its exit code. Without the GIL.
#[pyfunction]
pub fn run_load_executor(py: Python<'_>, plan: &[u8]) -> i32 {
    py.detach(|| agent_load::run_executor(plan))
}
