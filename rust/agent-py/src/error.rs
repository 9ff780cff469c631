//! The one mapping from what goes wrong here to the exceptions of `agent.errors`.

use pyo3::prelude::*;
use pyo3::types::PyType;

/// A class of `agent.errors`, by its name there.
#[derive(Clone, Copy)]
pub enum Kind {
    Name,
    Label,
    Amount,
    Conflict,
    Buffer,
    Segment,
}

impl Kind {
    const fn class(self) -> &'static str {
        match self {
            Kind::Name => "InvalidNameError",
            Kind::Label => "LabelError",
            Kind::Amount => "AmountError",
            Kind::Conflict => "ConflictError",
            Kind::Buffer => "BufferTypeError",
            Kind::Segment => "SegmentError",
        }
    }
}

/// A refusal in words, before it becomes an exception.
pub struct Refusal {
    pub kind: Kind,
    pub text: String,
}

impl Refusal {
    #[cold]
    pub fn new(kind: Kind, text: impl Into<String>) -> Refusal {
        Refusal { kind, text: text.into() }
    }
}

impl From<Refusal> for PyErr {
    #[cold]
    fn from(refusal: Refusal) -> PyErr {
        Python::attach(|py| match class(py, refusal.kind.class()) {
            Ok(class) => PyErr::from_type(class, (refusal.text,)),
            Err(error) => error,
        })
    }
}

/// A segment that was asked for by path cannot be used.
pub fn segment(error: &agent_shm::Error) -> PyErr {
    match error {
        agent_shm::Error::Conflict { .. } => Refusal::new(Kind::Conflict, error.to_string()).into(),
        _ => Refusal::new(Kind::Segment, error.to_string()).into(),
    }
}

/// Warns once for each text and place, through Python's filters. A filter that turns warnings into
/// errors must not break an increment, so an exception is shown as unraisable.
pub fn warn(py: Python<'_>, text: &str) {
    let warned = class(py, "AgentWarning").and_then(|category| {
        py.import("warnings")?.call_method1("warn", (text, category, 2)).map(drop)
    });
    if let Err(error) = warned {
        error.write_unraisable(py, None);
    }
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import("agent.errors")?.getattr(name)?.cast_into::<PyType>()?)
}
