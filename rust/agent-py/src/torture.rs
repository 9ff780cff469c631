//! Death at every instruction, for `python -m agent torture`: the arguments in, the report out as plain
//! values.
//!
//! Runs without the GIL. The child that is stepped is forked from this process and runs no Python, so
//! this process must have one thread. Between two operations the GIL is taken: signals are handled, and
//! whoever wants to be told of progress is.

use agent_torture::{Error, Next, Options, Progress, StepReport};
use pyo3::exceptions::{
    PyNotImplementedError, PyOSError, PyPermissionError, PyRuntimeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::path::PathBuf;
use std::time::Duration;

/// Walks the operations of a segment one instruction at a time until the time is over, and recovers what
/// a death at each would leave.
///
/// # Errors
/// NotImplementedError and PermissionError where it cannot be done, RuntimeError in a process with threads,
/// ValueError for an operation or a time that there is not, OSError for a file of its own; and what
/// `progress` raised.
#[pyfunction]
#[pyo3(signature = (seed, seconds, operations=None, progress=None, folder=None))]
pub fn torture_steps<'py>(
    py: Python<'py>,
    seed: u64,
    seconds: f64,
    operations: Option<Vec<String>>,
    progress: Option<Py<PyAny>>,
    folder: Option<PathBuf>,
) -> PyResult<Bound<'py, PyDict>> {
    let time_limit = Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyValueError::new_err(format!("seconds is {seconds}: {error}")))?;
    let operations = operations.unwrap_or_default();
    let options = Options { seed, time_limit, rounds: None, operations, folder };
    let mut raised = None;
    let report = py.detach(|| {
        agent_torture::run(&options, &mut |now| match told(progress.as_ref(), now) {
            Ok(next) => next,
            Err(error) => {
                raised = Some(error);
                Next::Stop
            }
        })
    });
    match raised {
        Some(error) => Err(error),
        None => written(py, &report.map_err(refused)?),
    }
}

/// Handles signals, and tells of progress; `False` stops.
fn told(progress: Option<&Py<PyAny>>, now: &Progress<'_>) -> PyResult<Next> {
    Python::attach(|py| {
        py.check_signals()?;
        let Some(progress) = progress else { return Ok(Next::Continue) };
        let told = PyDict::new(py);
        told.set_item("round", now.round)?;
        told.set_item("operation", now.operation)?;
        told.set_item("kill_points", now.kill_points)?;
        told.set_item("states", now.states)?;
        told.set_item("findings", now.findings)?;
        told.set_item("seconds", now.elapsed.as_secs_f64())?;
        let answer = progress.call1(py, (told,))?;
        Ok(if answer.is(py.None()) || answer.is_truthy(py)? { Next::Continue } else { Next::Stop })
    })
}

fn refused(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::NotSupported { .. } => PyNotImplementedError::new_err(text),
        Error::Forbidden { .. } => PyPermissionError::new_err(text),
        Error::Threads { .. } => PyRuntimeError::new_err(text),
        Error::Unknown { .. } => PyValueError::new_err(text),
        Error::Io { .. } | Error::Segment { .. } => PyOSError::new_err(text),
    }
}

fn written<'py>(py: Python<'py>, report: &StepReport) -> PyResult<Bound<'py, PyDict>> {
    let told = PyDict::new(py);
    told.set_item("seed", report.seed)?;
    told.set_item("rounds", report.rounds)?;
    told.set_item("seconds", report.elapsed.as_secs_f64())?;
    told.set_item("stopped", report.stopped)?;
    told.set_item("kill_points", report.kill_points())?;
    told.set_item("states", report.states())?;
    let operations = PyList::empty(py);
    for operation in &report.operations {
        let row = PyDict::new(py);
        row.set_item("name", operation.name)?;
        row.set_item("group", operation.group)?;
        row.set_item("walks", operation.walks)?;
        row.set_item("kill_points", operation.kill_points)?;
        row.set_item("states", operation.states)?;
        let findings = PyList::empty(py);
        for finding in &operation.findings {
            let row = PyDict::new(py);
            row.set_item("seed", finding.seed)?;
            row.set_item("operation", finding.operation)?;
            row.set_item("instruction", finding.instruction)?;
            row.set_item("reason", &finding.reason)?;
            findings.append(row)?;
        }
        row.set_item("findings", findings)?;
        operations.append(row)?;
    }
    told.set_item("operations", operations)?;
    Ok(told)
}
