//! `Gauge`: goes up and down.

use crate::error::{Kind, Refusal};
use crate::metric::{single_number, slowly, Common, Metric};
use crate::raw::{none, Arguments, Method};
use crate::registry::Registry;
use crate::text::Text;
use crate::timer::{Action, Block};
use agent_client::Class;
use agent_shm::{GaugeMode, OwnedShape};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::time::{SystemTime, UNIX_EPOCH};

#[pyclass(frozen, extends = Metric, module = "agent")]
#[derive(Default)]
pub struct Gauge;

pub const METHODS: &[Method] = &[
    Method(c"set", c"set($self, value, /)\n--\n\nSets the gauge; any float, NaN included.", set),
    Method(c"inc", c"inc($self, /, amount=1)\n--\n\nRaises the gauge.", inc),
    Method(c"dec", c"dec($self, /, amount=1)\n--\n\nLowers the gauge.", dec),
    Method(c"labels", crate::labels::DOC, crate::labels::labels),
];

#[pymethods]
impl Gauge {
    #[new]
    #[pyo3(signature = (
        name, documentation, labelnames = None, namespace = "", subsystem = "", unit = "", registry
        = None, *, multiprocess_mode = "mostrecent"
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
        multiprocess_mode: &str,
    ) -> PyResult<PyClassInitializer<Gauge>> {
        let Some(mode) = GaugeMode::parse(multiprocess_mode) else {
            let known: Vec<_> = GaugeMode::ALL.iter().map(|(_, name)| *name).collect();
            let text =
                format!("multiprocess_mode {multiprocess_mode:?} is none of {}", known.join(", "));
            return Err(Refusal::new(Kind::Name, text).into());
        };
        let class = Class::Gauge;
        let (name, documentation) = (name.0, documentation.0);
        let common = Common { class, name, documentation, labelnames, namespace, subsystem, unit };
        Metric::define(py, registry, common.definition(OwnedShape::Gauge(mode))?)
    }

    /// Sets the gauge to the seconds since 1970.
    fn set_to_current_time(slf: &Bound<'_, Self>) -> PyResult<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        slf.as_super().get().apply(slf.py(), |writer, series| writer.set(series, now))
    }

    /// Raises the gauge during a `with` block or a call of a decorated function.
    fn track_inprogress(slf: &Bound<'_, Self>) -> Block {
        Block::new(slf.as_any(), Action::TrackInProgress)
    }

    /// Sets the gauge to the seconds that a `with` block or a call of a decorated function took.
    fn time(slf: &Bound<'_, Self>) -> Block {
        Block::new(slf.as_any(), Action::SetSeconds)
    }
}

unsafe extern "C" fn set(
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
    if nargs == 1 && args.named() == 0 {
        if let Ok(value) = crate::number::real(&args.get(0)) {
            if metric.try_apply(&|writer, series| writer.set(series, value)) {
                return none();
            }
        }
    }
    slowly(py, || {
        let value = single_number(args, "set", "value")?
            .ok_or_else(|| PyTypeError::new_err("set() needs a value"))?;
        metric.apply(py, |writer, series| writer.set(series, value))
    })
}

unsafe extern "C" fn inc(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the arguments are those of this call.
    unsafe { shift(slf, args, nargs, names, "inc", 1.0) }
}

unsafe extern "C" fn dec(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the arguments are those of this call.
    unsafe { shift(slf, args, nargs, names, "dec", -1.0) }
}

#[inline(always)]
unsafe fn shift(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
    method: &str,
    sign: f64,
) -> *mut ffi::PyObject {
    // SAFETY: methods are called attached, with a live `self` of this class and their arguments.
    let (py, metric, args) = unsafe {
        let py = Python::assume_attached();
        (py, Metric::of(py, slf), Arguments::new(py, args, nargs, names))
    };
    if nargs == 0
        && names.is_null()
        && metric.try_apply(&|writer, series| writer.shift(series, sign))
    {
        return none();
    }
    slowly(py, || {
        let amount = single_number(args, method, "amount")?.unwrap_or(1.0) * sign;
        metric.apply(py, |writer, series| writer.shift(series, amount))
    })
}
