//! The one way of a value, or of many, into the cell and the ring of a histogram or a summary.
//!
//! The ring of a process belongs to its summaries with quantiles, which need single values; a histogram has all
//! that its page shows in its cells. So a histogram never writes a record, and a summary with quantiles writes
//! one for each value, whether values come alone, in a batch or from a timer.

use crate::buffer::Values;
use crate::metric::{single_number, slowly, Metric};
use crate::number;
use crate::raw::{none, Arguments};
use agent_shm::{Outcome, OwnedShape, RecordKind, Series, Writer};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Whether values go into the ring as well.
#[inline]
fn is_recorded(metric: &Metric) -> bool {
    matches!(&metric.family().shape, OwnedShape::Summary(quantiles) if !quantiles.is_empty())
}

/// Applies a value. `SUMMARY` says what the class of the metric is, so that a histogram does not even look.
#[inline(always)]
fn put<const SUMMARY: bool>(
    metric: &Metric,
    writer: &Writer,
    series: &Series,
    value: f64,
) -> Outcome {
    let outcome = writer.observe(series, value, 1);
    if SUMMARY && outcome == Outcome::Applied && is_recorded(metric) {
        writer.record(series, RecordKind::Sample, value.to_bits());
    }
    outcome
}

/// One value of a histogram or a summary, already checked.
pub fn one(py: Python<'_>, metric: &Metric, value: f64) -> PyResult<()> {
    metric.apply(py, |writer, series| put::<true>(metric, writer, series, value))
}

/// Every value of a buffer, list or tuple: all or none.
pub fn many(py: Python<'_>, metric: &Metric, values: &Bound<'_, PyAny>) -> PyResult<()> {
    let values = Values::of(values)?;
    if let Some(value) = values.first_not_finite() {
        number::check_observation(&metric.family().name, value)?;
    }
    let is_recorded = is_recorded(metric);
    let mut result = Ok(());
    values.each_run(&mut |run| {
        if result.is_ok() {
            result = metric.apply(py, |writer, series| {
                let outcome = writer.observe_many(series, run);
                if is_recorded && outcome == Outcome::Applied {
                    writer.record_many(series, run);
                }
                outcome
            });
        }
    });
    result
}

/// The method `observe` of both classes.
///
/// # Safety
/// Called by Python as a method of a class whose instances are [`Metric`]s.
pub unsafe extern "C" fn method<const SUMMARY: bool>(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: methods are called attached, with a live `self` of this class and their arguments.
    let (py, metric, args) = unsafe {
        let py = Python::assume_attached();
        (py, Metric::of(py, slf), Arguments::new(py, args, nargs, names))
    };
    if nargs == 1 && names.is_null() {
        match number::real(&args.get(0)) {
            Ok(value) if value.is_finite() => {
                let put = |writer: &Writer, series: &Series| {
                    put::<SUMMARY>(metric, writer, series, value)
                };
                if metric.try_apply(&put) {
                    return none();
                }
            }
            Ok(_) => {}
            Err(error) => return crate::raw::raise(py, error),
        }
    }
    slowly(py, || {
        let value = single_number(args, "observe", "amount")?
            .ok_or_else(|| PyTypeError::new_err("observe() needs a value"))?;
        number::check_observation(&metric.family().name, value)?;
        one(py, metric, value)
    })
}
