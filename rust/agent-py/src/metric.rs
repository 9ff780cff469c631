//! The base of the four classes: a handle to one series, or the parent of labelled children.

use crate::children::Children;
use crate::error::{self, Kind, Refusal};
use crate::host;
use crate::raw::Arguments;
use crate::registry::Registry;
use crate::text::{self, Text};
use agent_client::name::{self, Class};
use agent_client::{Definition, Family, Handle, Hold, Store};
use agent_shm::{Outcome, OwnedShape, Series, Writer};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::PyClass;
use std::sync::Arc;

/// One of the four classes.
pub trait Subclass: PyClass<BaseType = Metric> + Default {}

impl<C: PyClass<BaseType = Metric> + Default> Subclass for C {}

/// Makes a child an object of its parent's class.
type Wrap = for<'py> fn(Python<'py>, Metric) -> PyResult<Bound<'py, PyAny>>;

fn wrap<C: Subclass>(py: Python<'_>, metric: Metric) -> PyResult<Bound<'_, PyAny>> {
    let object = PyClassInitializer::from(metric).add_subclass(C::default());
    Ok(Bound::new(py, object)?.into_any())
}

/// Base of the four classes. A metric with label names is a parent: only its children have a value.
#[pyclass(frozen, subclass, module = "agent")]
pub struct Metric {
    handle: Handle,
    wrap: Wrap,
    /// Label values of a child, in the constructor's order.
    values: Option<Py<PyTuple>>,
    pub children: Option<Children>,
}

impl Metric {
    fn new(
        store: Arc<Store>,
        family: Arc<Family>,
        text: String,
        values: Option<Py<PyTuple>>,
        wrap: Wrap,
    ) -> Metric {
        Metric { handle: Handle::new(store, family, text), wrap, values, children: None }
    }

    pub fn family(&self) -> &Family {
        &self.handle.family
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.handle.store
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

    /// What a raw method is called with: the interpreter, the metric, and the arguments.
    ///
    /// # Safety
    /// These are the arguments with which CPython calls a method of one of the four classes.
    #[inline(always)]
    pub unsafe fn called<'a>(
        slf: *mut pyo3::ffi::PyObject,
        args: *const *mut pyo3::ffi::PyObject,
        nargs: pyo3::ffi::Py_ssize_t,
        names: *mut pyo3::ffi::PyObject,
    ) -> (Python<'a>, &'a Metric, Arguments<'a, 'a>) {
        // SAFETY: methods are called attached, with a live `self` of their class and their arguments.
        unsafe {
            let py = Python::assume_attached();
            (py, Metric::of(py, slf), Arguments::new(py, args, nargs, names))
        }
    }

    /// Does it now, when nothing is in the way.
    #[inline(always)]
    pub fn try_apply(&self, update: &impl Fn(&Writer, &Series) -> Outcome) -> bool {
        self.handle.try_apply(update)
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
    fn apply_slowly(
        &self,
        py: Python<'_>,
        update: &impl Fn(&Writer, &Series) -> Outcome,
    ) -> PyResult<()> {
        self.check_is_bound()?;
        host::with(py, |host| self.handle.apply_slowly(host, update))
    }

    /// What a block takes; nothing when there is no room for it.
    pub fn hold(&self, py: Python<'_>) -> PyResult<Option<Hold>> {
        self.check_is_bound()?;
        let mut taken = None;
        let held = host::with(py, |host| {
            taken = self.handle.hold(host)?;
            Ok(())
        });
        match held {
            Ok(()) => Ok(taken),
            Err(error) => {
                // The block does not begin, so nobody would give it back.
                if let Some(hold) = taken {
                    let _ = host::with(py, |host| self.handle.give_back(host, &hold));
                }
                Err(error)
            }
        }
    }

    pub fn give_back(&self, py: Python<'_>, hold: &Hold) -> PyResult<()> {
        host::with(py, |host| self.handle.give_back(host, hold))
    }

    pub fn check_is_bound(&self) -> PyResult<()> {
        match &self.children {
            None => Ok(()),
            Some(_) => {
                let names = self.family().label_names.join(", ");
                let text = format!("{} has labels: use .labels({names})", self.family().name);
                Err(Refusal::new(Kind::Label, text).into())
            }
        }
    }

    /// The child of these values, made and remembered when it is new.
    pub fn child<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(children) = &self.children else {
            return Err(self.no_children().into());
        };
        if let Some(known) = children.get(key)? {
            return Ok(known);
        }
        let text = self.canonical(key)?;
        let (store, family) = (self.store().clone(), self.handle.family.clone());
        let child = Metric::new(store, family, text, Some(key.clone().unbind()), self.wrap);
        child.begin(py)?;
        // The series of a label explosion are one; remembering a child of each would make memory
        // explode instead.
        let keep = !child.handle.is_overflow();
        let child = (self.wrap)(py, child)?;
        if keep {
            let children_max = self.store().options().metric_series_max as usize;
            children.put(key, &child, children_max)?;
        }
        Ok(child)
    }

    /// Puts the series on the page, at 0: now when there is a segment, else when there is one.
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        if !self.store().is_open() {
            self.store().note_early(&self.handle.family, &self.handle.text);
            return Ok(());
        }
        host::with(py, |host| self.handle.resolve(host).map(drop))
    }

    /// Canonical label text of values in the constructor's order.
    fn canonical(&self, values: &Bound<'_, PyTuple>) -> PyResult<String> {
        let names = &self.family().label_names;
        let texts: Vec<String> = values
            .iter()
            .zip(names)
            .map(|(value, label)| text::of_label(&value, &self.family().name, label))
            .collect::<PyResult<_>>()?;
        Ok(self.family().text(&texts))
    }

    pub fn no_children(&self) -> Refusal {
        let name = &self.family().name;
        let text = match self.values {
            Some(_) => format!("{name}{{{}}} has its labels already", self.handle.text),
            None => format!("{name} was made without labels"),
        };
        Refusal::new(Kind::Label, text)
    }

    /// Makes the metric of a definition, as an object of class `C`. Its series is there at once when the registry is open
    /// and it has no labels.
    pub fn define<C: Subclass>(
        py: Python<'_>,
        registry: Option<&Bound<'_, Registry>>,
        definition: Definition,
    ) -> PyResult<PyClassInitializer<C>> {
        let store = match registry {
            Some(registry) => registry.get().store.clone(),
            None => Registry::default_of(py)?.get().store.clone(),
        };
        host::with(py, |host| {
            store.prepare(host);
            Ok(())
        })?;
        let family = store.define(definition).map_err(error::raised)?;
        let mut metric = Metric::new(store, family, String::new(), None, wrap::<C>);
        if !metric.family().label_names.is_empty() {
            metric.children = Some(Children::new(py));
        } else if metric.store().is_open() {
            metric.begin(py)?;
        }
        Ok(PyClassInitializer::from(metric).add_subclass(C::default()))
    }
}

/// What the four constructors share.
pub struct Common<'a> {
    pub class: Class,
    pub name: Text<'a>,
    pub documentation: Text<'a>,
    pub labelnames: Option<&'a Bound<'a, PyAny>>,
    pub namespace: &'a str,
    pub subsystem: &'a str,
    pub unit: &'a str,
}

impl Common<'_> {
    pub fn definition(&self, shape: OwnedShape) -> PyResult<Definition> {
        let name = name::family(self.class, self.namespace, self.subsystem, self.name.0, self.unit)
            .map_err(error::raised)?;
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
        let (class, help, unit) = (self.class, self.documentation.0.into(), self.unit.into());
        Ok(Definition { class, name, help, unit, shape, label_names })
    }
}

#[pymethods]
impl Metric {
    /// The family's name, without `_total`.
    #[getter]
    fn name(&self) -> &str {
        &self.family().name
    }

    #[getter]
    fn documentation(&self) -> &str {
        &self.family().help
    }

    #[getter]
    fn unit(&self) -> &str {
        &self.family().unit
    }

    #[getter]
    fn labelnames<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.family().label_names)
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
        let Some(children) = &self.children else {
            return Err(self.no_children().into());
        };
        let key = self.key_of_values(py, labelvalues)?;
        let text = self.canonical(&key)?;
        children.forget(&key)?;
        host::with(py, |host| self.handle.remove(host, &text))
    }

    /// Removes every series of the metric, of all processes. A metric without labels begins anew at 0, and so does a
    /// child, which removes its own series alone.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(children) = &self.children {
            children.clear(py);
            return host::with(py, |host| self.handle.clear(host).map(drop));
        }
        host::with(py, |host| match self.values {
            Some(_) => self.handle.remove(host, &self.handle.text).map(drop),
            None => self.handle.clear(host).map(drop),
        })?;
        self.begin(py)
    }

    fn __repr__(&self) -> String {
        let class = self.family().class.name();
        let name = &self.family().name;
        match &self.values {
            None => format!("<agent.{class} {name}>"),
            Some(_) => format!("<agent.{class} {name}{{{}}}>", self.handle.text),
        }
    }

    /// A metric is a name for numbers that are shared: a copy would be another name for the same.
    fn __copy__<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf.clone()
    }

    /// A metric can be sent to a spawned process: it finds the same series there.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let metric = slf.get();
        let family = metric.family();
        let options = PyDict::new(py);
        options.set_item("labelnames", PyTuple::new(py, &family.label_names)?)?;
        options.set_item("unit", &family.unit)?;
        match &family.shape {
            OwnedShape::Counter => {}
            OwnedShape::Gauge(mode) => options.set_item("multiprocess_mode", mode.name())?,
            OwnedShape::Exponential { schema } => {
                options.set_item("native", true)?;
                options.set_item("schema", schema)?;
            }
            OwnedShape::Explicit(bounds) => options.set_item("buckets", bounds)?,
            OwnedShape::Summary(quantiles) => options.set_item("quantiles", quantiles)?,
        }
        let default = Registry::default_of(py)?;
        if !std::ptr::eq(&*default.get().store, &**metric.store()) {
            options.set_item("registry", Registry::of_store(py, metric.store().clone())?)?;
        }
        let rebuild = py.import("agent.metrics")?.getattr("rebuild")?;
        // The constructor takes one `_total` away.
        let name = match family.class {
            Class::Counter => format!("{}_total", family.name),
            _ => family.name.clone(),
        };
        let arguments = (slf.get_type(), name, &family.help, options, metric.values(py));
        (rebuild, arguments).into_pyobject(py)
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
        let names = &self.family().label_names;
        if values.len() != names.len() {
            let text = format!(
                "{} has {} labels ({}), got {} values",
                self.family().name,
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

/// The one number that a raw method takes, when it was given.
pub fn single_number(
    args: Arguments<'_, '_>,
    method: &str,
    parameter: &str,
) -> PyResult<Option<f64>> {
    args.single(method, parameter)?.map(|value| crate::number::real(&value)).transpose()
}

/// As [`single_number`], where there must be one.
pub fn needed_number(args: Arguments<'_, '_>, method: &str, parameter: &str) -> PyResult<f64> {
    single_number(args, method, parameter)?
        .ok_or_else(|| PyTypeError::new_err(format!("{method}() needs a value")))
}
