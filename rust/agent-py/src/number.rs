//! Numbers from Python objects, and which of them a metric takes.

use crate::error::{Kind, Refusal};
use agent_metric::bounds::is_observable;
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
pub fn check_amount(name: &str, amount: f64) -> Result<(), Refusal> {
    if amount >= 0.0 && amount.is_finite() {
        return Ok(());
    }
    let why = match amount {
        _ if amount.is_nan() => "NaN",
        _ if amount.is_infinite() => "an infinite amount",
        _ => "a negative amount",
    };
    let text =
        format!("counter {name} cannot be raised by {why} ({amount:?}); a gauge can go down");
    Err(Refusal::new(Kind::Amount, text))
}

/// What a histogram or summary can observe.
pub fn check_observation(name: &str, value: f64) -> Result<(), Refusal> {
    if is_observable(value) {
        return Ok(());
    }
    let text = match value.is_finite() {
        false => format!("{name} cannot observe {value}: its sum would be that for ever"),
        true => format!(
            "{name} cannot observe {value:e}: values end at 2^900, so that sums stay finite"
        ),
    };
    Err(Refusal::new(Kind::Amount, text))
}
