//! What has to name all four classes: wrapping a child, pickling.

use crate::counter::Counter;
use crate::gauge::Gauge;
use crate::histogram::Histogram;
use crate::metric::Metric;
use crate::registry::Registry;
use crate::summary::Summary;
use agent_client::Class;
use agent_shm::OwnedShape;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// A child as an object of its parent's class.
pub fn wrap(py: Python<'_>, metric: Metric) -> PyResult<Bound<'_, PyAny>> {
    let class = metric.family().class;
    let base = PyClassInitializer::from(metric);
    Ok(match class {
        Class::Counter => Bound::new(py, base.add_subclass(Counter))?.into_any(),
        Class::Gauge => Bound::new(py, base.add_subclass(Gauge))?.into_any(),
        Class::Histogram => Bound::new(py, base.add_subclass(Histogram))?.into_any(),
        Class::Summary => Bound::new(py, base.add_subclass(Summary))?.into_any(),
    })
}

/// `agent.metrics.rebuild` and its arguments.
pub fn reduce<'py>(slf: &Bound<'py, Metric>) -> PyResult<Bound<'py, PyTuple>> {
    let py = slf.py();
    let metric = slf.get();
    let family = metric.family();
    let options = PyDict::new(py);
    options.set_item("labelnames", PyTuple::new(py, &family.label_names)?)?;
    options.set_item("unit", &family.unit)?;
    match &family.shape {
        OwnedShape::Counter => {}
        OwnedShape::Gauge(mode) => options.set_item("multiprocess_mode", mode.name())?,
        OwnedShape::Exponential { schema } => {
            options.set_item("native", true)?;
            options.set_item("schema", schema)?;
        }
        OwnedShape::Explicit(bounds) => options.set_item("buckets", bounds)?,
        OwnedShape::Summary(quantiles) => options.set_item("quantiles", quantiles)?,
    }
    let default = Registry::default_of(py)?;
    if !std::ptr::eq(&*default.get().store, &**metric.store()) {
        options.set_item("registry", Registry::of_store(py, metric.store().clone())?)?;
    }
    let rebuild = py.import("agent.metrics")?.getattr("rebuild")?;
    let arguments = (slf.get_type(), &family.name, &family.help, options, metric.values(py));
    (rebuild, arguments).into_pyobject(py)
}
