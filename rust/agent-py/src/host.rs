//! What a store asks of Python: which app this is, and to warn.

use crate::error;
use agent_client::{Host, Place};
use pyo3::prelude::*;

/// An attached thread.
pub struct PythonHost<'py>(pub Python<'py>);

impl PythonHost<'_> {
    fn find(&self) -> PyResult<(String, String)> {
        let start_dir = crate::START_DIR.get().map_or("", String::as_str);
        self.0.import("agent.app")?.call_method1("find", (start_dir,))?.extract()
    }
}

impl Host for PythonHost<'_> {
    fn prepare(&self) {
        let prepared = self.0.import("agent.app").and_then(|app| app.call_method0("prepare"));
        if let Err(error) = prepared {
            error.write_unraisable(self.0, None);
        }
    }

    fn find_app(&self) -> Result<Place, String> {
        match self.find() {
            Ok((app, _)) if app.is_empty() => Ok(Place::Later),
            Ok((app, path)) => Ok(Place::Known { app, path: path.into() }),
            Err(error) => Err(error.value(self.0).to_string()),
        }
    }

    fn is_strict(&self) -> bool {
        crate::configure::is_strict()
    }

    fn warn(&self, text: &str) {
        error::warn(self.0, text);
    }
}
