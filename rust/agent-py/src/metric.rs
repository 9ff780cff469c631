//! The base of the four classes: a handle to one series, or the parent of labelled children.
//!
//! A use is: compare two epochs, one call into `agent-shm`. Everything else (no writer after a
//! fork, a series that was removed, a segment that was replaced, a parent used without labels) is
//! found out behind that comparison, repaired, and the use repeated; nothing is lost and nothing
//! counted twice.

use crate::children::Children;
use crate::error::{Kind, Refusal};
use crate::family::{Definition, Family};
use crate::name::{self, Class};
use crate::raw::{self, Arguments};
use crate::registry::Registry;
use crate::store::{Cause, Store};
use crate::text;
use agent_shm::{Error, Outcome, OwnedShape, Series, Writer};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::cell::{Cell, UnsafeCell};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

/// Repairs before an update is given up: each can be undone at once by another process, hardly
/// several in a row.
const ATTEMPTS: u32 = 8;

/// One metric, or one child of a metric with labels. Made by its subclasses only.
#[pyclass(frozen, subclass, module = "agent")]
pub struct Metric {
    /// The store's epoch in which `series` is good; 0 never is.
    epoch: Cell<u32>,
    series: UnsafeCell<Option<Series>>,
    pub store: Arc<Store>,
    pub family: Arc<Family>,
    /// Canonical label text.
    text: Box<str>,
    /// Label values of a child, in the constructor's order.
    values: Option<Py<PyTuple>>,
    pub children: Option<Children>,
}

// SAFETY: touched only by attached threads, one at a time (the module declares `gil_used`).
unsafe impl Send for Metric {}
// SAFETY: as above.
unsafe impl Sync for Metric {}

impl Metric {
    fn new(
        store: Arc<Store>,
        family: Arc<Family>,
        text: String,
        values: Option<Py<PyTuple>>,
    ) -> Metric {
        let (epoch, series) = (Cell::new(0), UnsafeCell::new(None));
        Metric { epoch, series, store, family, text: text.into(), values, children: None }
    }

    /// The object behind `self` of a raw method.
    ///
    /// # Safety
    /// `object` is an instance of one of the four classes and outlives the call.
    #[inline(always)]
    pub unsafe fn of<'a>(py: Python<'a>, object: *mut pyo3::ffi::PyObject) -> &'a Metric {
        // SAFETY: promised by the caller; frozen classes are read through a plain reference.
        unsafe {
            let object: Borrowed<'a, 'a, PyAny> = Borrowed::from_ptr(py, object);
            &*std::ptr::from_ref(object.cast_unchecked::<Metric>().get())
        }
    }

    /// Does it now, when nothing is in the way.
    #[inline(always)]
    pub fn try_apply(&self, update: &impl Fn(&Writer, &Series) -> Outcome) -> bool {
        let Some(writer) = self.store.writer_of(self.epoch.get()) else { return false };
        self.apply_with(writer, update)
    }

    #[inline(always)]
    fn apply_with(&self, writer: &Writer, update: &impl Fn(&Writer, &Series) -> Outcome) -> bool {
        // SAFETY: replaced only in `resolve`, by attached threads, and an update runs no Python
        // code.
        match unsafe { &*self.series.get() } {
            Some(series) => update(writer, series) == Outcome::Applied,
            None => false,
        }
    }

    #[inline(always)]
    pub fn apply(
        &self,
        py: Python<'_>,
        update: impl Fn(&Writer, &Series) -> Outcome,
    ) -> PyResult<()> {
        if self.try_apply(&update) {
            return Ok(());
        }
        self.apply_slowly(py, &update)
    }

    #[cold]
    #[inline(never)]
    pub fn apply_slowly(
        &self,
        py: Python<'_>,
        update: &impl Fn(&Writer, &Series) -> Outcome,
    ) -> PyResult<()> {
        self.check_is_bound()?;
        for attempt in 0..ATTEMPTS {
            // The first time, the series that is known may do: that of a guest does.
            let known = attempt == 0 && self.store.open(py)? == Some(self.epoch.get());
            if !known && !self.resolve(py)? {
                break;
            }
            let writer = self.store.opened(self.epoch.get());
            if writer.is_some_and(|writer| self.apply_with(writer, update)) {
                return Ok(());
            }
        }
        self.store.lose();
        Ok(())
    }

    fn check_is_bound(&self) -> PyResult<()> {
        match &self.children {
            None => Ok(()),
            Some(_) => {
                let names = self.family.label_names.join(", ");
                let text = format!("{} has labels: use .labels({names})", self.family.name);
                Err(Refusal::new(Kind::Label, text).into())
            }
        }
    }

    /// Gets the series anew. False: there is no memory for it, not even private.
    #[cold]
    fn resolve(&self, py: Python<'_>) -> PyResult<bool> {
        for _ in 0..ATTEMPTS {
            let Some(epoch) = self.store.open(py)? else { return Ok(false) };
            let Some(writer) = self.store.opened(epoch) else { return Ok(false) };
            let found = self.family.id(writer, epoch);
            let found = found.and_then(|id| writer.series(id, &self.text));
            match found {
                Ok(series) => {
                    // SAFETY: attached, and no reference to the old series is out.
                    unsafe { *self.series.get() = Some(series) };
                    self.epoch.set(epoch);
                    return Ok(true);
                }
                Err(error @ Error::Conflict { .. }) => {
                    self.store.conflict(py, &error.to_string())?
                }
                Err(Error::Full { what: "metrics_max" }) => return Ok(false),
                Err(_) if self.store.is_private() => return Ok(false),
                Err(error) => self.store.fall_back(py, Cause::Memory, &error.to_string()),
            }
        }
        Ok(false)
    }

    /// Whether the series is really the metric's overflow series.
    fn is_overflow(&self) -> bool {
        // SAFETY: as in `try_apply`.
        unsafe { (*self.series.get()).as_ref().is_some_and(Series::is_overflow) }
    }

    /// The child of these values, made and remembered when it is new.
    pub fn child<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(children) = &self.children else { return Err(self.no_children().into()) };
        if let Some(known) = children.get(key)? {
            return Ok(known);
        }
        let text = self.canonical(key)?;
        let child =
            Metric::new(self.store.clone(), self.family.clone(), text, Some(key.clone().unbind()));
        child.resolve(py)?;
        // The series of a label explosion are one; remembering a child of each would make memory
        // explode instead.
        let keep = !child.is_overflow();
        let child = crate::classes::wrap(py, child)?;
        if keep {
            let children_max = self.store.options().metric_series_max as usize;
            children.put(key, &child, children_max)?;
        }
        Ok(child)
    }

    /// Canonical label text of values in the constructor's order.
    fn canonical(&self, values: &Bound<'_, PyTuple>) -> PyResult<String> {
        let names = &self.family.label_names;
        let texts: Vec<String> = values
            .iter()
            .zip(names)
            .map(|(value, label)| text::of_label(&value, &self.family.name, label))
            .collect::<PyResult<_>>()?;
        Ok(self.family.text(&texts))
    }

    pub fn no_children(&self) -> Refusal {
        let name = &self.family.name;
        let text = match self.values {
            Some(_) => format!("{name}{{{}}} has its labels already", self.text),
            None => format!("{name} was made without labels"),
        };
        Refusal::new(Kind::Label, text)
    }

    /// Makes the metric of a definition, and its series at once when it has no labels.
    pub fn define(
        py: Python<'_>,
        registry: Option<&Bound<'_, Registry>>,
        definition: Definition,
    ) -> PyResult<Metric> {
        let store = match registry {
            Some(registry) => registry.get().store.clone(),
            None => Registry::default_of(py)?.get().store.clone(),
        };
        let family = Family::define(&store, definition)?;
        let mut metric = Metric::new(store, family, String::new(), None);
        if metric.family.label_names.is_empty() {
            metric.resolve(py)?;
        } else {
            metric.children = Some(Children::new(py));
        }
        Ok(metric)
    }
}

/// What the four constructors share.
pub struct Common<'a> {
    pub class: Class,
    pub name: &'a str,
    pub documentation: &'a str,
    pub labelnames: Option<&'a Bound<'a, PyAny>>,
    pub namespace: &'a str,
    pub subsystem: &'a str,
    pub unit: &'a str,
}

impl Common<'_> {
    pub fn definition(&self, shape: OwnedShape) -> PyResult<Definition> {
        let name = name::family(self.class, self.namespace, self.subsystem, self.name, self.unit)?;
        let mut label_names = Vec::new();
        if let Some(names) = self.labelnames {
            if names.is_instance_of::<PyString>() {
                let text = "labelnames must be a sequence of names, not one str";
                return Err(PyTypeError::new_err(text));
            }
            for item in names.try_iter()? {
                label_names.push(item?.extract::<String>()?);
            }
        }
        let (class, help, unit) = (self.class, self.documentation.into(), self.unit.into());
        Ok(Definition { class, name, help, unit, shape, label_names })
    }
}

#[pymethods]
impl Metric {
    /// The family's name, without `_total`.
    #[getter]
    fn name(&self) -> &str {
        &self.family.name
    }

    #[getter]
    fn documentation(&self) -> &str {
        &self.family.help
    }

    #[getter]
    fn unit(&self) -> &str {
        &self.family.unit
    }

    #[getter]
    fn labelnames<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.family.label_names)
    }

    #[getter]
    fn labelvalues<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        match &self.values {
            Some(values) => values.bind(py).clone(),
            None => PyTuple::empty(py),
        }
    }

    /// Removes the child of these label values. True if there was one.
    #[pyo3(signature = (*labelvalues))]
    fn remove(&self, py: Python<'_>, labelvalues: &Bound<'_, PyTuple>) -> PyResult<bool> {
        let Some(children) = &self.children else { return Err(self.no_children().into()) };
        let key = self.key_of_values(py, labelvalues)?;
        let text = self.canonical(&key)?;
        children.forget(&key)?;
        let Some(epoch) = self.store.open(py)? else { return Ok(false) };
        let Some(writer) = self.store.opened(epoch) else { return Ok(false) };
        let id = self.family.id(writer, epoch).map_err(|error| crate::error::segment(&error))?;
        Ok(writer.remove(id, &text))
    }

    /// Removes every series of the metric, of all processes. Without labels it begins anew at 0.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(children) = &self.children {
            children.clear(py);
        }
        let Some(epoch) = self.store.open(py)? else { return Ok(()) };
        let Some(writer) = self.store.opened(epoch) else { return Ok(()) };
        let id = self.family.id(writer, epoch).map_err(|error| crate::error::segment(&error))?;
        writer.clear(id);
        if self.children.is_none() {
            self.resolve(py)?;
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        let class = self.family.class.name();
        let name = &self.family.name;
        match &self.values {
            None => format!("<agent.{class} {name}>"),
            Some(_) => format!("<agent.{class} {name}{{{}}}>", self.text),
        }
    }

    /// A metric can be sent to a spawned process: it finds the same series there.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        crate::classes::reduce(slf)
    }
}

impl Metric {
    pub fn values<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyTuple>> {
        self.values.as_ref().map(|values| values.bind(py).clone())
    }

    /// Positional label values as a tuple of exact strings.
    pub fn key_of_values<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let names = &self.family.label_names;
        if values.len() != names.len() {
            let text = format!(
                "{} has {} labels ({}), got {} values",
                self.family.name,
                names.len(),
                names.join(", "),
                values.len()
            );
            return Err(Refusal::new(Kind::Label, text).into());
        }
        let texts: Vec<_> = values.iter().map(|value| exact(&value)).collect::<PyResult<_>>()?;
        PyTuple::new(py, texts)
    }
}

/// The value as a `str` of exactly that class: what `str()` makes of it.
pub fn exact<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        return Ok(text.clone());
    }
    let text = value.str()?;
    match text.cast_exact::<PyString>() {
        Ok(text) => Ok(text.clone()),
        // `__str__` gave an instance of a subclass.
        // SAFETY: attached, with a live instance of a subclass of `str`; gives a new reference.
        Err(_) => unsafe {
            let plain = pyo3::ffi::PyUnicode_FromObject(text.as_ptr());
            Ok(Bound::from_owned_ptr_or_err(value.py(), plain)?.cast_into_unchecked())
        },
    }
}

/// The slow part of a raw method. A panic in it becomes an exception, not the end of the process.
#[cold]
#[inline(never)]
pub fn slowly(py: Python<'_>, work: impl FnOnce() -> PyResult<()>) -> *mut pyo3::ffi::PyObject {
    raw::finish(py, guarded(work))
}

pub fn guarded<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(_) => Err(PyRuntimeError::new_err("a bug in agent._core: see the message on stderr")),
    }
}

/// The one number that a raw method takes, when it was given.
pub fn single_number(
    args: Arguments<'_, '_>,
    method: &str,
    parameter: &str,
) -> PyResult<Option<f64>> {
    args.single(method, parameter)?.map(|value| crate::number::real(&value)).transpose()
}
