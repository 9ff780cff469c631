//! Numbers from Python objects. Which of them a metric takes, `agent_client::amount` says.

use crate::error;
use pyo3::ffi;
use pyo3::prelude::*;

/// The value of anything that `float()` takes but text.
#[inline]
pub fn real(value: &Borrowed<'_, '_, PyAny>) -> PyResult<f64> {
    // SAFETY: attached (a `Borrowed` proves it), with a live object; the exact check allows the
    // direct read.
    unsafe {
        if ffi::PyFloat_CheckExact(value.as_ptr()) != 0 {
            return Ok(ffi::PyFloat_AS_DOUBLE(value.as_ptr()));
        }
        let number = ffi::PyFloat_AsDouble(value.as_ptr());
        if number == -1.0 {
            if let Some(error) = PyErr::take(value.py()) {
                return Err(error);
            }
        }
        Ok(number)
    }
}

/// A whole amount that fits, when the object is exactly an int.
pub fn whole(value: &Borrowed<'_, '_, PyAny>) -> Option<u64> {
    // SAFETY: as in `real`.
    unsafe {
        if ffi::PyLong_CheckExact(value.as_ptr()) == 0 {
            return None;
        }
        let number = ffi::PyLong_AsLongLong(value.as_ptr());
        if number == -1 && !ffi::PyErr_Occurred().is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        u64::try_from(number).ok()
    }
}

/// What a counter can be raised by.
pub fn check_amount(name: &str, amount: f64) -> PyResult<()> {
    agent_client::amount::check(name, amount).map_err(error::raised)
}

/// What a histogram or summary can observe.
pub fn check_observation(name: &str, value: f64) -> PyResult<()> {
    agent_client::amount::check_observation(name, value).map_err(error::raised)
}
