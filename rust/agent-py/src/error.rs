//! The one mapping from what goes wrong here to the exceptions of `agent.errors`.

use pyo3::prelude::*;
use pyo3::types::PyType;

pub use agent_client::Kind;

/// A refusal in words, before it becomes an exception.
pub struct Refusal(agent_client::Refusal);

impl Refusal {
    #[cold]
    pub fn new(kind: Kind, text: impl Into<String>) -> Refusal {
        Refusal(agent_client::Refusal::new(kind, text))
    }
}

impl From<Refusal> for PyErr {
    #[cold]
    fn from(refusal: Refusal) -> PyErr {
        raised(refusal.0)
    }
}

/// The class of `agent.errors`.
const fn class_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Name => "InvalidNameError",
        Kind::Label => "LabelError",
        Kind::Amount => "AmountError",
        Kind::Conflict => "ConflictError",
        Kind::Buffer => "BufferTypeError",
        Kind::Segment => "SegmentError",
    }
}

/// What the client crate refused, as an exception.
#[cold]
pub fn raised(refusal: agent_client::Refusal) -> PyErr {
    Python::attach(|py| match class(py, class_of(refusal.kind)) {
        Ok(class) => PyErr::from_type(class, (refusal.text,)),
        Err(error) => error,
    })
}

/// A segment that was asked for by path cannot be used.
pub fn segment(error: &agent_shm::Error) -> PyErr {
    raised(error.into())
}

/// Warns once for each text and place, through Python's filters.
///
/// # Errors
/// What a filter makes of it, and what the program raises meanwhile.
pub fn warn(py: Python<'_>, text: &str) -> PyResult<()> {
    let category = class(py, "AgentWarning")?;
    py.import("warnings")?.call_method1("warn", (text, category, 2)).map(drop)
}

/// Whether it is one of the exceptions of `agent.errors`.
pub fn is_ours(py: Python<'_>, error: &PyErr) -> bool {
    class(py, "AgentError").is_ok_and(|class| error.is_instance(py, &class))
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import("agent.errors")?.getattr(name)?.cast_into::<PyType>()?)
}
