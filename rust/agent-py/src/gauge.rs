//! `Gauge`: goes up and down.

use crate::error::{Kind, Refusal};
use crate::metric::{needed_number, single_number, Common, Metric};
use crate::raw::{none, raise, slowly, Method};
use crate::registry::Registry;
use crate::text::Text;
use crate::timer::{Action, Block};
use agent_client::Class;
use agent_shm::{GaugeMode, OwnedShape};
use pyo3::ffi;
use pyo3::prelude::*;
use std::time::{SystemTime, UNIX_EPOCH};

/// Goes up and down.
///
/// `multiprocess_mode` says what several processes mean by it: `mostrecent` (the default) is one number that all
/// change; `sum`, `min`, `max` and `all` keep one for each process, and the `live` modes forget those of dead ones.
#[pyclass(frozen, extends = Metric, module = "agent")]
#[derive(Default)]
pub struct Gauge;

pub const METHODS: &[Method] = &[
    Method(c"set", c"set($self, value, /)\n--\n\nSets the gauge; any float, NaN included.", set),
    Method(c"inc", c"inc($self, /, amount=1)\n--\n\nRaises the gauge.", shift::<false>),
    Method(c"dec", c"dec($self, /, amount=1)\n--\n\nLowers the gauge.", shift::<true>),
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
            let known: Vec<_> = GaugeMode::ALL.iter().map(|row| row.name).collect();
            let text =
                format!("multiprocess_mode {multiprocess_mode:?} is none of {}", known.join(", "));
            return Err(Refusal::new(Kind::Name, text).into());
        };
        let class = Class::Gauge;
        let common = Common { class, name, documentation, labelnames, namespace, subsystem, unit };
        Metric::define(py, registry, common.definition(OwnedShape::Gauge(mode))?)
    }

    /// Sets the gauge to the seconds since 1970.
    fn set_to_current_time(slf: &Bound<'_, Self>) -> PyResult<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        slf.as_super().get().apply(slf.py(), |writer, series| writer.set(series, now))
    }

    /// Raises the gauge during a `with` block or a call of a decorated function. A killed process takes what it
    /// raised along, in the modes mostrecent and live...
    fn track_inprogress(slf: &Bound<'_, Self>) -> PyResult<Block> {
        Block::new(slf.as_any(), Action::TrackInProgress)
    }

    /// Sets the gauge to the seconds that a `with` block or a call of a decorated function took.
    fn time(slf: &Bound<'_, Self>) -> PyResult<Block> {
        Block::new(slf.as_any(), Action::SetSeconds)
    }
}

unsafe extern "C" fn set(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls it as a method of its class.
    let (py, metric, args) = unsafe { Metric::called(slf, args, nargs, names) };
    if nargs == 1 && args.named() == 0 {
        match crate::number::real(&args.get(0)) {
            Ok(value) => {
                if metric.try_apply(&|writer, series| writer.set(series, value)) {
                    return none();
                }
            }
            Err(error) => return raise(py, error),
        }
    }
    slowly(|| {
        let value = needed_number(args, "set", "value")?;
        metric.apply(py, |writer, series| writer.set(series, value))
    })
}

/// `inc` and `dec`.
unsafe extern "C" fn shift<const DOWN: bool>(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let (method, sign) = if DOWN { ("dec", -1.0) } else { ("inc", 1.0) };
    // SAFETY: CPython calls it as a method of its class.
    let (py, metric, args) = unsafe { Metric::called(slf, args, nargs, names) };
    if nargs == 0
        && names.is_null()
        && metric.try_apply(&|writer, series| writer.shift(series, sign))
    {
        return none();
    }
    slowly(|| {
        let amount = single_number(args, method, "amount")?.unwrap_or(1.0) * sign;
        metric.apply(py, |writer, series| writer.shift(series, amount))
    })
}
