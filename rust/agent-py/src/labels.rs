//! `labels(...)`: from label values to the child, by position or by keyword.

use crate::error::{Kind, Refusal};
use crate::metric::{exact, Metric};
use crate::raw::{self, Arguments, Method};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

pub const DOC: &std::ffi::CStr = c"labels($self, /, *labelvalues, **labelkwargs)\n--\n\n\
    The child of these label values, by position or by keyword. Values are turned into text by\n\
    str(). The same values give the same child.";

pub const METHODS: &[Method] = &[Method(c"labels", DOC, labels)];

/// # Safety
/// Called by CPython as a method of one of the four classes.
pub unsafe extern "C" fn labels(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls it as a method of its class.
    let (py, metric, args) = unsafe { Metric::called(slf, args, nargs, names) };
    let found = fast(metric, &args, names);
    if !found.is_null() {
        return found;
    }
    raw::enter(|| slow(py, metric, args).map(Bound::into_ptr))
}

/// A known child for exact strings, else null.
#[inline]
fn fast(
    metric: &Metric,
    args: &Arguments<'_, '_>,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let Some(children) = &metric.children else { return std::ptr::null_mut() };
    let count = metric.family().label_names.len();
    let places = match (args.positional(), args.named()) {
        (given, 0) if given == count => None,
        (0, given) if given == count => match children.places(names) {
            Some(places) => Some(places),
            None => return std::ptr::null_mut(),
        },
        _ => return std::ptr::null_mut(),
    };
    let value =
        |index: usize| args.get(places.map_or(index, |places| places[index].into())).as_ptr();
    // SAFETY: attached; `value` gives live objects, and the tuple is complete before anybody sees
    // it.
    unsafe {
        if !(0..count).all(|index| ffi::PyUnicode_CheckExact(value(index)) != 0) {
            return std::ptr::null_mut();
        }
        let key = ffi::PyTuple_New(count as ffi::Py_ssize_t);
        if key.is_null() {
            ffi::PyErr_Clear();
            return key;
        }
        for index in 0..count {
            let item = value(index);
            ffi::Py_INCREF(item);
            ffi::PyTuple_SET_ITEM(key, index as ffi::Py_ssize_t, item);
        }
        let found = children.get_raw(key);
        ffi::Py_DECREF(key);
        found
    }
}

#[cold]
fn slow<'py>(
    py: Python<'py>,
    metric: &Metric,
    args: Arguments<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    if metric.children.is_none() {
        return Err(metric.no_children().into());
    }
    if args.positional() > 0 && args.named() > 0 {
        let text = "labels() takes values by position or by keyword, not both";
        return Err(Refusal::new(Kind::Label, text).into());
    }
    let Some(names) = args.names() else {
        let values: Vec<_> = (0..args.positional()).map(|index| args.get(index)).collect();
        let key = metric.key_of_values(py, &PyTuple::new(py, values)?)?;
        return metric.child(py, &key);
    };
    let places = places(metric, &names)?;
    let values: Vec<Bound<'py, PyString>> =
        places.iter().map(|&place| exact(&args.get(place))).collect::<PyResult<_>>()?;
    if let Some(children) = &metric.children {
        children.learn(names, &places);
    }
    metric.child(py, &PyTuple::new(py, values)?)
}

/// For each label of the metric, which keyword has its value.
fn places(metric: &Metric, names: &Bound<'_, PyTuple>) -> PyResult<Vec<usize>> {
    let given: Vec<String> = names.extract()?;
    let wanted = &metric.family().label_names;
    let places: Option<Vec<usize>> =
        wanted.iter().map(|name| given.iter().position(|other| other == name)).collect();
    match places {
        Some(places) if given.len() == wanted.len() => Ok(places),
        _ => {
            let text = format!(
                "{} has the labels ({}), got ({})",
                metric.family().name,
                wanted.join(", "),
                given.join(", ")
            );
            Err(Refusal::new(Kind::Label, text).into())
        }
    }
}
