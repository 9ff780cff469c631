//! `Registry`: metrics bound to one segment. The default one is the app's.

use crate::error::{Kind, Refusal};
use crate::host;
use agent_client::{Source, Store};
use agent_shm::Options;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyTuple};
use std::path::PathBuf;
use std::sync::Arc;

/// Limits where some are given: `over!(usual, series_max)` has the `series_max` that is named so here, if it is one.
macro_rules! over {
    ($usual:expr, $($limit:ident),+) => {{
        let usual = $usual;
        Options { $($limit: $limit.unwrap_or(usual.$limit),)+ ..usual }
    }};
}
pub(crate) use over;

static DEFAULT: PyOnceLock<Py<Registry>> = PyOnceLock::new();

/// Metrics bound to one segment: a file, or private memory when no path is given.
///
/// `agent.REGISTRY` is the app's own. Limits count for a file that is made now; one that is there keeps its own.
#[pyclass(frozen, module = "agent")]
pub struct Registry {
    pub store: Arc<Store>,
}

impl Registry {
    /// The registry of the app; nothing is opened until it has a metric.
    pub fn default_of(py: Python<'_>) -> PyResult<&Bound<'_, Registry>> {
        let made = DEFAULT.get_or_try_init(py, || {
            let store = Store::new(Source::App, Options::default());
            Py::new(py, Registry { store })
        })?;
        Ok(made.bind(py))
    }

    pub fn of_store(py: Python<'_>, store: Arc<Store>) -> PyResult<Bound<'_, Registry>> {
        Bound::new(py, Registry { store })
    }

    pub fn of_path(
        py: Python<'_>,
        app: &str,
        path: PathBuf,
        options: Options,
    ) -> PyResult<Registry> {
        let store = Store::new(Source::Path { app: app.into(), path }, options);
        host::with(py, |host| store.open(host))?;
        Ok(Registry { store })
    }
}

#[pymethods]
impl Registry {
    #[new]
    #[pyo3(signature = (
        path = None, app = None, *, series_max = None, metric_series_max = None, metrics_max = None,
        slots_max = None, recent_max = None, bytes_max = None
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        path: Option<PathBuf>,
        app: Option<&str>,
        series_max: Option<u32>,
        metric_series_max: Option<u32>,
        metrics_max: Option<u32>,
        slots_max: Option<u16>,
        recent_max: Option<u32>,
        bytes_max: Option<u64>,
    ) -> PyResult<Registry> {
        let options = over!(Options::default(), series_max, metric_series_max, metrics_max);
        let options = over!(options, slots_max, recent_max, bytes_max);
        match path {
            Some(path) => Registry::of_path(py, app.unwrap_or("program"), path, options),
            None => {
                let source = Source::Private { app: app.unwrap_or("program").into() };
                Ok(Registry { store: Store::new(source, options) })
            }
        }
    }

    /// Name of the app; empty before the first update.
    #[getter]
    fn app(&self) -> String {
        self.store.app()
    }

    /// The segment's file; None in private memory and before the first update.
    #[getter]
    fn path(&self) -> Option<String> {
        self.store.path().map(|path| path.to_string_lossy().into_owned())
    }

    /// Why the metrics of this process are in private memory though they should be shared: cause
    /// and detail.
    #[getter]
    fn fallback(&self) -> Option<(&'static str, String)> {
        self.store.fallback().map(|(cause, detail)| (cause.as_str(), detail))
    }

    /// Updates of this process that found no memory anywhere.
    #[getter]
    fn lost(&self) -> u64 {
        self.store.lost()
    }

    /// Opens the segment, if there is anything to count and it is not open; what cannot be opened is left to the first
    /// update.
    fn open(&self, py: Python<'_>) -> PyResult<()> {
        if self.store.is_open() || self.store.families().is_empty() {
            return Ok(());
        }
        host::with(py, |host| {
            let _ = self.store.open(host);
            Ok(())
        })
    }

    /// The merged view of all processes, as bytes of a text format.
    #[pyo3(signature = (format = "prometheus"))]
    fn render<'py>(&self, py: Python<'py>, format: &str) -> PyResult<Bound<'py, PyBytes>> {
        crate::render::render(py, &self.store, format)
    }

    /// Removes every series of every metric, of all processes: counters begin anew. Gives how many
    /// there were.
    fn clear(&self, py: Python<'_>) -> PyResult<usize> {
        host::with(py, |host| self.store.clear(host))
    }

    fn __repr__(&self) -> String {
        match (self.store.path(), self.store.app()) {
            (Some(path), app) => format!("<agent.Registry {app} at {}>", path.display()),
            (None, app) => format!("<agent.Registry {app} in private memory>"),
        }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let registry = slf.get();
        let Some(path) = registry.store.path() else {
            let text = "a registry in private memory cannot be sent to another process";
            return Err(Refusal::new(Kind::Segment, text).into());
        };
        let arguments = (path.to_string_lossy().into_owned(), registry.store.app());
        (slf.get_type(), arguments).into_pyobject(slf.py())
    }
}

/// The registry of the app.
#[pyfunction]
pub fn default_registry(py: Python<'_>) -> PyResult<Bound<'_, Registry>> {
    Registry::default_of(py).cloned()
}
