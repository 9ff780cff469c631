//! `Counter`: only goes up.

use crate::buffer;
use crate::metric::{Common, Metric};
use crate::number;
use crate::raw::{none, slowly, Arguments, Method};
use crate::registry::Registry;
use crate::text::Text;
use crate::timer::{Action, Block};
use agent_client::Class;
use agent_shm::OwnedShape;
use pyo3::exceptions::{PyBaseException, PyException, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

/// Only goes up. Exposed as `NAME_total`.
#[pyclass(frozen, extends = Metric, module = "agent")]
#[derive(Default)]
pub struct Counter;

pub const METHODS: &[Method] = &[
    Method(
        c"inc",
        c"inc($self, /, amount=1)\n--\n\nRaises the counter by 1, or by a finite amount >= 0.",
        inc,
    ),
    Method(c"labels", crate::labels::DOC, crate::labels::labels),
];

#[pymethods]
impl Counter {
    #[new]
    #[pyo3(signature = (
        name, documentation, labelnames = None, namespace = "", subsystem = "", unit = "", registry
        = None
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        name: Text<'_>,
        documentation: Text<'_>,
        labelnames: Option<&Bound<'_, PyAny>>,
        namespace: &str,
        subsystem: &str,
        unit: &str,
        registry: Option<&Bound<'_, Registry>>,
    ) -> PyResult<PyClassInitializer<Counter>> {
        let class = Class::Counter;
        let common = Common { class, name, documentation, labelnames, namespace, subsystem, unit };
        Metric::define(py, registry, common.definition(OwnedShape::Counter)?)
    }

    /// Raises the counter by every amount in a buffer or list, all or none.
    fn inc_many(slf: &Bound<'_, Self>, amounts: &Bound<'_, PyAny>) -> PyResult<()> {
        let metric = slf.as_super().get();
        let (whole, fraction) = buffer::sum_of_amounts(&metric.family().name, amounts)?;
        metric.apply(slf.py(), |writer, series| writer.add_parts(series, whole, fraction))
    }

    /// Counts the exceptions of a `with` block or of a decorated function, and lets them pass.
    #[pyo3(signature = (exception = None))]
    fn count_exceptions(
        slf: &Bound<'_, Self>,
        exception: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Block> {
        let exception =
            exception.unwrap_or_else(|| PyType::new::<PyException>(slf.py()).into_any());
        check_is_caught(&exception)?;
        Block::new(slf.as_any(), Action::CountExceptions(exception.unbind()))
    }
}

/// What can stand behind `except`: a class of exceptions, or a tuple of such.
fn check_is_caught(exception: &Bound<'_, PyAny>) -> PyResult<()> {
    let is_class = |one: &Bound<'_, PyAny>| {
        let class = one.cast::<PyType>();
        class.is_ok_and(|class| class.is_subclass_of::<PyBaseException>().unwrap_or(false))
    };
    let is_caught = match exception.cast::<PyTuple>() {
        Ok(several) => several.iter().all(|one| is_class(&one)),
        Err(_) => is_class(exception),
    };
    match is_caught {
        true => Ok(()),
        false => {
            let text = format!(
                "count_exceptions() takes a class of exceptions or a tuple of them, not {}",
                exception.repr()?
            );
            Err(PyTypeError::new_err(text))
        }
    }
}

unsafe extern "C" fn inc(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: methods are called attached, with a live `self` of this class.
    let (py, metric) = unsafe {
        let py = Python::assume_attached();
        (py, Metric::of(py, slf))
    };
    if nargs == 0 && names.is_null() {
        if metric.try_apply(&|writer, series| writer.add(series, 1)) {
            return none();
        }
        return slowly(|| metric.apply(py, |writer, series| writer.add(series, 1)));
    }
    // SAFETY: the arguments are those of this call.
    let args = unsafe { Arguments::new(py, args, nargs, names) };
    slowly(|| inc_by(py, metric, args))
}

fn inc_by(py: Python<'_>, metric: &Metric, args: Arguments<'_, '_>) -> PyResult<()> {
    let Some(amount) = args.single("inc", "amount")? else {
        return metric.apply(py, |writer, series| writer.add(series, 1));
    };
    if let Some(amount) = number::whole(&amount) {
        return metric.apply(py, |writer, series| writer.add(series, amount));
    }
    let amount = number::real(&amount)?;
    number::check_amount(&metric.family().name, amount)?;
    metric.apply(py, |writer, series| writer.add_f64(series, amount))
}
