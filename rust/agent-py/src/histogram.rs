//! `Histogram`: counts of values by bucket; classic bounds, or the exponential buckets of a native histogram.

use crate::error::{Kind, Refusal};
use crate::metric::{Common, Metric};
use crate::observe;
use crate::raw::Method;
use crate::registry::Registry;
use crate::text::Text;
use crate::timer::{Action, Block};
use agent_client::Class;
use agent_metric::octave::SCHEMA_MAX;
use agent_metric::{bounds, OwnedShape};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

#[pyclass(frozen, extends = Metric, module = "agent")]
#[derive(Default)]
pub struct Histogram;

pub const METHODS: &[Method] = &[
    Method(
        c"observe",
        c"observe($self, /, amount)\n--\n\nCounts a finite value in its bucket.",
        observe::method,
    ),
    Method(c"labels", crate::labels::DOC, crate::labels::labels),
];

#[pymethods]
impl Histogram {
    #[new]
    #[pyo3(signature = (
        name, documentation, labelnames = None, namespace = "", subsystem = "", unit = "", registry
        = None, *, buckets = None, native = false, schema = None
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
        native: bool,
        schema: Option<u8>,
    ) -> PyResult<PyClassInitializer<Histogram>> {
        let shape = match (buckets, native || schema.is_some()) {
            (Some(_), true) => {
                let text = "buckets and a native histogram (native, schema) exclude each other";
                return Err(PyTypeError::new_err(text));
            }
            (Some(bounds), false) => OwnedShape::Explicit(checked_bounds(bounds)?),
            (None, false) => OwnedShape::Explicit(bounds::DEFAULT.to_vec()),
            (None, true) => OwnedShape::Exponential { schema: checked_schema(schema)? },
        };
        let class = Class::Histogram;
        let common = Common { class, name, documentation, labelnames, namespace, subsystem, unit };
        Metric::define(py, registry, common.definition(shape)?)
    }

    /// Counts every value in a buffer or list, all or none.
    fn observe_many(slf: &Bound<'_, Self>, values: &Bound<'_, PyAny>) -> PyResult<()> {
        observe::many(slf.py(), slf.as_super().get(), values)
    }

    /// Observes the seconds that a `with` block or a call of a decorated function takes.
    fn time(slf: &Bound<'_, Self>) -> PyResult<Block> {
        Block::new(slf.as_any(), Action::ObserveSeconds)
    }
}

fn checked_bounds(given: Vec<f64>) -> Result<Vec<f64>, Refusal> {
    let refused = |why| Refusal::new(Kind::Name, format!("buckets cannot be used: {why}"));
    bounds::check(given).map_err(refused)
}

fn checked_schema(schema: Option<u8>) -> Result<u8, Refusal> {
    match schema.unwrap_or(bounds::NATIVE_SCHEMA) {
        schema if schema <= SCHEMA_MAX => Ok(schema),
        schema => {
            let text =
                format!("schema {schema} is not in 0 to {SCHEMA_MAX} (2^schema buckets an octave)");
            Err(Refusal::new(Kind::Name, text))
        }
    }
}
