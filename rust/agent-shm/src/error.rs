//! What can go wrong, one sentence each. The text is for people: it names what was wrong and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

#[derive(Debug)]
pub enum Error {
    /// The operating system refused; `stage` says what was being done.
    Io { stage: &'static str, path: PathBuf, source: io::Error },
    /// The file is there but is not a segment that may be used.
    NotUsable { path: PathBuf, reason: String },
    /// The file contradicts itself, and processes that are alive write into it.
    Damaged { path: PathBuf, reason: String },
    /// The same definition began anew; who holds this one gets it again by name.
    Replaced,
    /// The file was laid out by another version of Agent.
    OtherLayout { path: PathBuf, found: u32, expected: u32 },
    /// A metric of that name exists with another type, mode or buckets.
    Conflict { name: String, existing: String, wanted: String },
    /// The name, label text or bucket list is longer than a block can hold.
    TooLarge { what: &'static str, bytes: usize, bytes_max: usize },
    /// A limit of the segment is reached and there is no overflow series to fall back to.
    Full { what: &'static str },
    /// Every writer slot is taken by a living process.
    NoSlot { slots_max: u16 },
    /// The machine cannot change 16 bytes in one step.
    NoWideAtomics,
    /// The segment was attached for reading only.
    ReadOnly,
    /// Offsets in the segment contradict each other.
    Corrupt,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { stage, path, source } => {
                write!(f, "{stage} {}: {source}", path.display())
            }
            Error::NotUsable { path, reason } => {
                write!(f, "{} is not a usable segment: {reason}", path.display())
            }
            Error::Damaged { path, reason } => {
                write!(f, "{} is damaged and in use: {reason}", path.display())
            }
            Error::Replaced => f.write_str("the metric began anew with the same definition"),
            Error::OtherLayout { path, found, expected } => write!(
                f,
                "{} has layout {found}, this version of Agent reads layout {expected}",
                path.display()
            ),
            Error::Conflict { name, existing, wanted } => {
                write!(f, "metric {name:?} exists as {existing}, not as {wanted}")
            }
            Error::TooLarge { what, bytes, bytes_max } => {
                write!(f, "{what} takes {bytes} bytes, at most {bytes_max} fit")
            }
            Error::Full { what } => write!(f, "the segment is full: {what}"),
            Error::NoSlot { slots_max } => {
                write!(f, "all {slots_max} writer slots belong to living processes")
            }
            Error::NoWideAtomics => {
                f.write_str("this machine has no 16-byte compare-and-swap, which segments need")
            }
            Error::ReadOnly => f.write_str("the segment is attached for reading only"),
            Error::Corrupt => f.write_str("the segment's offsets contradict each other"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
