//! What is refused, in words that a binding makes an exception of.

use std::fmt;

/// Which sort of mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Name,
    Label,
    Amount,
    Conflict,
    Buffer,
    Segment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A segment that was asked for cannot be used.
impl From<&agent_shm::Error> for Refusal {
    #[cold]
    fn from(error: &agent_shm::Error) -> Refusal {
        let kind = match error {
            agent_shm::Error::Conflict { .. } => Kind::Conflict,
            _ => Kind::Segment,
        };
        Refusal::new(kind, error.to_string())
    }
}
