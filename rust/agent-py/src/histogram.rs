//! `Histogram`: counts of values by bucket, exponential unless bounds are given.

use crate::buffer;
use crate::error::{Kind, Refusal};
use crate::metric::{single_number, slowly, Common, Metric};
use crate::name::Class;
use crate::number;
use crate::raw::{none, Arguments, Method};
use crate::registry::Registry;
use crate::text::Text;
use crate::timer::{Action, Block};
use agent_shm::{OwnedShape, Writer};
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

/// 8 buckets an octave: a quantile is at most 4.3 % off.
const SCHEMA: u8 = 3;
const SCHEMA_MAX: u8 = 6;

#[pyclass(frozen, extends = Metric, module = "agent")]
pub struct Histogram;

pub const METHODS: &[Method] = &[
    Method(
        c"observe",
        c"observe($self, /, amount)\n--\n\nCounts a finite value in its bucket.",
        observe,
    ),
    Method(c"labels", crate::labels::DOC, crate::labels::labels),
];

#[pymethods]
impl Histogram {
    #[new]
    #[pyo3(signature = (
        name, documentation, labelnames = None, namespace = "", subsystem = "", unit = "", registry
        = None, *, buckets = None, schema = None
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
        buckets: Option<Vec<f64>>,
        schema: Option<u8>,
    ) -> PyResult<PyClassInitializer<Histogram>> {
        let shape = match (buckets, schema) {
            (Some(_), Some(_)) => {
                let text = "buckets and schema exclude each other";
                return Err(PyTypeError::new_err(text));
            }
            (Some(bounds), None) => OwnedShape::Explicit(checked_bounds(bounds)?),
            (None, schema) => OwnedShape::Exponential { schema: checked_schema(schema)? },
        };
        let class = Class::Histogram;
        let (name, documentation) = (name.0, documentation.0);
        let common = Common { class, name, documentation, labelnames, namespace, subsystem, unit };
        let metric = Metric::define(py, registry, common.definition(shape)?)?;
        Ok(PyClassInitializer::from(metric).add_subclass(Histogram))
    }

    /// Counts every value in a buffer or list, all or none.
    fn observe_many(slf: &Bound<'_, Self>, values: &Bound<'_, PyAny>) -> PyResult<()> {
        buffer::observe_many(slf.py(), slf.as_super().get(), values, Writer::record_many)
    }

    /// Observes the seconds that a `with` block or a call of a decorated function takes.
    fn time(slf: &Bound<'_, Self>) -> Block {
        Block::new(slf.as_any(), Action::ObserveSeconds)
    }
}

/// Finite, ascending bounds; a last one of +Inf is implied and may be given.
fn checked_bounds(mut bounds: Vec<f64>) -> Result<Vec<f64>, Refusal> {
    if bounds.last() == Some(&f64::INFINITY) {
        bounds.pop();
    }
    let why = if bounds.is_empty() {
        "there must be one that is finite"
    } else if bounds.len() > agent_shm::BOUNDS_MAX {
        "there are more than 512"
    } else if !bounds.iter().all(|bound| bound.is_finite()) {
        "all but a last +Inf must be finite"
    } else if !bounds.windows(2).all(|pair| pair[0] < pair[1]) {
        "they must ascend"
    } else {
        return Ok(bounds);
    };
    Err(Refusal::new(Kind::Name, format!("buckets cannot be used: {why}")))
}

fn checked_schema(schema: Option<u8>) -> Result<u8, Refusal> {
    match schema.unwrap_or(SCHEMA) {
        schema if schema <= SCHEMA_MAX => Ok(schema),
        schema => {
            let text =
                format!("schema {schema} is not in 0 to {SCHEMA_MAX} (2^schema buckets an octave)");
            Err(Refusal::new(Kind::Name, text))
        }
    }
}

unsafe extern "C" fn observe(
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
                if metric.try_apply(&|writer, series| writer.observe(series, value, 1)) {
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
        number::check_observation(&metric.family.name, value)?;
        metric.apply(py, |writer, series| writer.observe(series, value, 1))
    })
}
