//! `Histogram`: counts of values by bucket; classic bounds, or the exponential buckets of a native histogram.

use crate::error::{Kind, Refusal};
use crate::metric::{Common, Metric};
use crate::observe;
use crate::raw::Method;
use crate::registry::Registry;
use crate::text::Text;
use crate::timer::{Action, Block};
use agent_client::Class;
use agent_metric::{bounds, OwnedShape};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// Counts of values by bucket. All series of a metric have the same bounds, from birth.
///
/// *Classic*, the default: the finite upper bounds in `buckets`, in the unit of the metric, ascending, at most 512; +Inf
/// is implied. Not given: those of prometheus_client, 0.005 to 10, made for seconds. A quantile computed from them is in
/// the right bucket and off by at most its width.
///
/// *Native*, with `native=True`: 2^schema buckets for each power of two (schema 0 to 6, 3 if not given), made where values
/// fall, so any range is covered. A quantile is in the right bucket, so off by at most its width: 100 % with schema 0,
/// 41, 19, 9.1, 4.4, 2.2, 1.1 % with 1 to 6, and half of that read as its middle. Prometheus gets these buckets by protobuf, which it asks for when native histograms are enabled there. The text
/// formats show the powers of two from 2^-20 (a microsecond) to 2^30 instead: exact counts at these bounds, a quantile up
/// to a factor of two off, what is smaller (or negative) in the first bucket, what is larger in the last. `schema` alone
/// means native, too.
///
/// InvalidNameError: bounds or a schema that cannot be used. TypeError: both `buckets` and native.
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
    bounds::check_schema(schema).map_err(|why| Refusal::new(Kind::Name, why))
}
