//! `Summary`: count, sum, and quantiles of the last 60 seconds.
//!
//! Count and sum are in shared cells and exact. The quantiles come from the newest values of the series, of all processes
//! together: 64 that belong to the series, and up to 2,048 a copy (up to nine times as many where several processes observe
//! much) while the summaries of the app keep less than a quarter of the segment's memory. A series that gets more in a
//! minute is represented by its newest ones. `render()` shows quantiles, the collector does not.

use crate::error::{Kind, Refusal};
use crate::metric::{Common, Metric};
use crate::observe;
use crate::raw::Method;
use crate::registry::Registry;
use crate::text::Text;
use crate::timer::{Action, Block};
use agent_client::Class;
use agent_metric::quantiles;
use agent_shm::OwnedShape;
use pyo3::prelude::*;

/// Count, sum, and quantiles of the last 60 seconds, computed when the page is rendered.
///
/// The quantiles are of the newest values of each label set, of all processes together: the last 64 at least, up to 2,048
/// (more where several processes observe much) while the summaries of the app take less than a quarter of its segment's
/// memory. Count and sum are of all values. `agent.render()` shows the quantiles, the collector does not.
#[pyclass(frozen, extends = Metric, module = "agent")]
#[derive(Default)]
pub struct Summary;

pub const METHODS: &[Method] = &[
    Method(
        c"observe",
        c"observe($self, /, amount)\n--\n\nAdds a finite value to count, sum and window.",
        observe::method,
    ),
    Method(c"labels", crate::labels::DOC, crate::labels::labels),
];

#[pymethods]
impl Summary {
    #[new]
    #[pyo3(signature = (
        name, documentation, labelnames = None, namespace = "", subsystem = "", unit = "", registry
        = None, *, quantiles = None
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
        quantiles: Option<Vec<f64>>,
    ) -> PyResult<PyClassInitializer<Summary>> {
        let quantiles = quantiles::check(quantiles.unwrap_or_else(|| quantiles::DEFAULT.to_vec()))
            .map_err(|why| Refusal::new(Kind::Name, why))?;
        let class = Class::Summary;
        let common = Common { class, name, documentation, labelnames, namespace, subsystem, unit };
        let shape = OwnedShape::Summary(quantiles);
        Metric::define(py, registry, common.definition(shape)?)
    }

    /// Adds every value in a buffer or list, all or none.
    fn observe_many(slf: &Bound<'_, Self>, values: &Bound<'_, PyAny>) -> PyResult<()> {
        observe::many(slf.py(), slf.as_super().get(), values)
    }

    /// Observes the seconds that a `with` block or a call of a decorated function takes.
    fn time(slf: &Bound<'_, Self>) -> PyResult<Block> {
        Block::new(slf.as_any(), Action::ObserveSeconds)
    }
}
