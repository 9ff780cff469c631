//! Blocks: what `time()`, `track_inprogress()` and `count_exceptions()` give, for `with` and as a
//! decorator.
//!
//! Of a block that is entered again while it is open, `agent_client::Starts` keeps the starts. A call of `time()` for each
//! `with`, or the decorator, which makes a block for each call, never needs that. What `track_inprogress()` holds has no
//! thread: each end gives back one of the begins.

use crate::metric::Metric;
use agent_client::{Hold, Starts};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::cell::RefCell;

pub enum Action {
    ObserveSeconds,
    SetSeconds,
    TrackInProgress,
    /// A class of exceptions or a tuple of them.
    CountExceptions(Py<PyAny>),
}

/// A `with` block or decorator; see the methods that give one. It may be entered again while it is open, by other
/// threads as well. Tasks of one thread that share one `with time()` block swap their times: call `time()` for each.
///
/// As a decorator it is open during each call: of an `async` function until its coroutine ends, of a generator function
/// from the first item asked for to the end. Asynchronous generators raise TypeError: use `with` inside of them.
#[pyclass(frozen, module = "agent")]
pub struct Block {
    metric: Py<PyAny>,
    action: Action,
    starts: Starts,
    /// Nothing for a begin that found no room.
    holds: RefCell<Vec<Option<Hold>>>,
}

// SAFETY: touched only by attached threads, one at a time (the module declares `gil_used`).
unsafe impl Sync for Block {}

impl Block {
    /// # Errors
    /// The metric has labels: said here, not at the end of the block, where it would cover what the program raises.
    pub fn new(metric: &Bound<'_, PyAny>, action: Action) -> PyResult<Block> {
        metric.cast::<Metric>()?.get().check_is_bound()?;
        let (starts, holds) = (Starts::default(), RefCell::default());
        Ok(Block { metric: metric.clone().unbind(), action, starts, holds })
    }

    fn metric<'a>(&'a self, py: Python<'a>) -> PyResult<&'a Metric> {
        Ok(self.metric.bind(py).cast::<Metric>()?.get())
    }

    /// What this process holds ends with it: a block that is killed leaves no count behind.
    fn hold(&self, py: Python<'_>) -> PyResult<()> {
        let hold = self.metric(py)?.hold(py)?;
        self.holds.borrow_mut().push(hold);
        Ok(())
    }

    fn give_back(&self, py: Python<'_>) -> PyResult<()> {
        let last = self.holds.borrow_mut().pop();
        match last.flatten() {
            Some(hold) => self.metric(py)?.give_back(py, &hold),
            None => Ok(()),
        }
    }
}

#[pymethods]
impl Block {
    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let block = slf.get();
        match block.action {
            Action::ObserveSeconds | Action::SetSeconds => block.starts.begin(),
            Action::TrackInProgress => block.hold(slf.py())?,
            Action::CountExceptions(_) => {}
        }
        Ok(slf.clone())
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        class: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let metric = self.metric(py)?;
        match &self.action {
            Action::ObserveSeconds => {
                if let Some(took) = self.starts.end() {
                    crate::observe::one(py, metric, took)?;
                }
            }
            Action::SetSeconds => {
                if let Some(took) = self.starts.end() {
                    metric.apply(py, |writer, series| writer.set(series, took))?;
                }
            }
            Action::TrackInProgress => self.give_back(py)?,
            Action::CountExceptions(counted) => {
                if !class.is_none() && is_subclass(class, counted.bind(py))? {
                    metric.apply(py, |writer, series| writer.add(series, 1))?;
                }
            }
        }
        Ok(false)
    }

    /// As a decorator of a function, an `async` function or a generator function.
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("agent.metrics")?.call_method1("decorate", (slf, function))
    }

    /// A block that does the same and is not open.
    fn fresh(slf: &Bound<'_, Self>) -> PyResult<Block> {
        let py = slf.py();
        let block = slf.get();
        let action = match &block.action {
            Action::ObserveSeconds => Action::ObserveSeconds,
            Action::SetSeconds => Action::SetSeconds,
            Action::TrackInProgress => Action::TrackInProgress,
            Action::CountExceptions(counted) => Action::CountExceptions(counted.clone_ref(py)),
        };
        Block::new(block.metric.bind(py), action)
    }
}

fn is_subclass(class: &Bound<'_, PyAny>, counted: &Bound<'_, PyAny>) -> PyResult<bool> {
    let class = class.cast::<pyo3::types::PyType>()?;
    match counted.cast::<PyTuple>() {
        Ok(classes) => {
            for counted in classes.iter() {
                if class.is_subclass(&counted)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Err(_) => class.is_subclass(counted),
    }
}
