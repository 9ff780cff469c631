//! The one way of a value, or of many, into a histogram or a summary, whether values come alone, in a batch or from a
//! timer.

use crate::buffer::Values;
use crate::metric::{needed_number, Metric};
use crate::number;
use crate::raw::{none, slowly};
use agent_metric::bounds::is_observable;
use pyo3::ffi;
use pyo3::prelude::*;

/// One value of a histogram or a summary, already checked.
pub fn one(py: Python<'_>, metric: &Metric, value: f64) -> PyResult<()> {
    metric.apply(py, |writer, series| writer.observe(series, value, 1))
}

/// Every value of a buffer, list or tuple: all or none.
pub fn many(py: Python<'_>, metric: &Metric, values: &Bound<'_, PyAny>) -> PyResult<()> {
    let values = Values::of(values)?;
    if let Some(value) = values.first_not_observable() {
        number::check_observation(&metric.family().name, value)?;
    }
    let mut result = Ok(());
    values.each_run(&mut |run| {
        if result.is_ok() {
            result = metric.apply(py, |writer, series| writer.observe_many(series, run));
        }
    });
    result
}

/// The method `observe` of both classes.
///
/// # Safety
/// Called by Python as a method of a class whose instances are [`Metric`]s.
pub unsafe extern "C" fn method(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls it as a method of its class.
    let (py, metric, args) = unsafe { Metric::called(slf, args, nargs, names) };
    if nargs == 1 && names.is_null() {
        match number::real(&args.get(0)) {
            Ok(value) if is_observable(value) => {
                if metric.try_apply(&|writer, series| writer.observe(series, value, 1)) {
                    return none();
                }
            }
            Ok(_) => {}
            Err(error) => return crate::raw::raise(py, error),
        }
    }
    slowly(|| {
        let value = needed_number(args, "observe", "amount")?;
        number::check_observation(&metric.family().name, value)?;
        one(py, metric, value)
    })
}
