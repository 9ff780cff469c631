//! Why a run cannot begin or go on, one sentence each. What the oracle finds is no error: see report.rs.

use std::fmt;
use std::io;

#[derive(Debug)]
pub enum Error {
    /// This machine cannot be stepped.
    NotSupported { reason: String },
    /// The kernel does not let a child be traced.
    Forbidden { source: io::Error, hint: String },
    /// Forking needs a process of one thread.
    Threads { found: usize },
    /// There is no operation of that name.
    Unknown { name: String, known: Vec<&'static str> },
    /// The operating system refused; `what` says what was being done.
    Io { what: String, source: io::Error },
    /// The segment of a run could not be made.
    Segment { what: &'static str, source: agent_shm::Error },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub(crate) fn segment(what: &'static str) -> impl FnOnce(agent_shm::Error) -> Error {
        move |source| Error::Segment { what, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotSupported { reason } => {
                write!(f, "single-stepping is not supported here, because {reason}")
            }
            Error::Forbidden { source, hint } => {
                write!(f, "the kernel forbids to trace a child (ptrace: {source}){hint}")
            }
            Error::Threads { found } => write!(
                f,
                "single-stepping forks and needs a process of one thread, this one has {found}"
            ),
            Error::Unknown { name, known } => {
                write!(f, "there is no operation {name:?}; there are: {}", known.join(", "))
            }
            Error::Io { what, source } => write!(f, "{what}: {source}"),
            Error::Segment { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Forbidden { source, .. } | Error::Io { source, .. } => Some(source),
            Error::Segment { source, .. } => Some(source),
            _ => None,
        }
    }
}
