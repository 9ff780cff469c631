//! What a store asks of Python: which app this is, and to warn.
//!
//! Any of it may run a signal handler, which may raise. What it raised goes to the caller of the method, after the store has
//! done its work; trouble of our own is told, and never raised.

use crate::error;
use agent_client::{Host, NoPlace, Place};
use pyo3::exceptions::PyWarning;
use pyo3::prelude::*;
use std::cell::RefCell;
use std::path::PathBuf;

/// An attached thread, and what the program raised meanwhile.
pub struct PythonHost<'py> {
    py: Python<'py>,
    raised: RefCell<Option<PyErr>>,
}

/// Does something with a store.
///
/// # Errors
/// What the store refuses, or what the program raised meanwhile: then what was to be done is done, if that was possible.
pub fn with<T>(
    py: Python<'_>,
    work: impl FnOnce(&PythonHost<'_>) -> Result<T, agent_client::Refusal>,
) -> PyResult<T> {
    let host = PythonHost { py, raised: RefCell::new(None) };
    let result = work(&host);
    match host.raised.into_inner() {
        Some(error) => Err(error),
        None => result.map_err(error::raised),
    }
}

impl PythonHost<'_> {
    fn find(&self) -> PyResult<(String, PathBuf)> {
        let start_dir = crate::START_DIR.get().map_or("", String::as_str);
        self.py.import("agent.app")?.call_method1("find", (start_dir,))?.extract()
    }

    /// Whether Python is on its way out, where nothing can be imported any more.
    fn is_ending(&self) -> bool {
        let ending = self.py.import("sys").and_then(|sys| sys.call_method0("is_finalizing"));
        ending.and_then(|ending| ending.is_truthy()).unwrap_or(true)
    }

    fn keep(&self, error: PyErr) {
        let mut raised = self.raised.borrow_mut();
        match *raised {
            None => *raised = Some(error),
            Some(_) => error.write_unraisable(self.py, None),
        }
    }
}

impl Host for PythonHost<'_> {
    fn prepare(&self) {
        let prepared = self.py.import("agent.app").and_then(|app| app.call_method0("prepare"));
        if let Err(error) = prepared {
            self.keep(error);
        }
    }

    fn find_app(&self) -> Result<Place, NoPlace> {
        match self.find() {
            Ok((app, _)) if app.is_empty() => Ok(Place::Later),
            Ok((app, path)) => Ok(Place::Known { app, path }),
            Err(error) if error::is_ours(self.py, &error) => {
                Err(NoPlace::Because(error.value(self.py).to_string()))
            }
            Err(_) if self.is_ending() => {
                Err(NoPlace::Because("the interpreter is shutting down".into()))
            }
            Err(error) => {
                self.keep(error);
                Err(NoPlace::Interrupted)
            }
        }
    }

    fn is_strict(&self) -> bool {
        crate::configure::is_strict()
    }

    /// A filter that turns warnings into errors must not break an increment: that one is shown as unraisable.
    fn warn(&self, text: &str) {
        match error::warn(self.py, text) {
            Err(error) if error.is_instance_of::<PyWarning>(self.py) => {
                error.write_unraisable(self.py, None);
            }
            Err(error) => self.keep(error),
            Ok(()) => {}
        }
    }
}
