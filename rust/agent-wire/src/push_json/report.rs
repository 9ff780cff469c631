//! What became of a pushed body, for the answer and for the ledger.
//!
//! `accepted + refused` is the number of samples in the body; `reasons` sums up to `refused`. Only
//! the first `refusals_listed_max` refusals are listed one by one.

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::{Limits, Reject};

/// One refused sample.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Refusal {
    /// Position in the body, from 0.
    pub index: usize,
    /// The line of an NDJSON body, from 1, lines of only blanks included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    pub reason: Reject,
    /// One sentence for a person; may be empty.
    pub detail: String,
}

/// The account of one body. As JSON:
/// `{"accepted":2,"refused":1,"reasons":{"name_empty":1},"refusals":[{"index":..}]}`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    pub accepted: u64,
    pub refused: u64,
    pub reasons: Reasons,
    pub refusals: Vec<Refusal>,
    #[serde(skip)]
    listed_max: usize,
}

/// How often each reason occurred.
#[derive(Debug, Clone, PartialEq)]
pub struct Reasons([u64; Reject::ALL.len()]);

impl Reasons {
    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reject, u64)> + '_ {
        let both = Reject::ALL.iter().zip(self.0);
        both.filter(|(_, count)| *count > 0).map(|(reason, count)| (*reason, count))
    }
}

impl Report {
    pub(super) fn new(limits: &Limits) -> Report {
        Report {
            accepted: 0,
            refused: 0,
            reasons: Reasons([0; Reject::ALL.len()]),
            refusals: Vec::new(),
            listed_max: limits.refusals_listed_max,
        }
    }

    pub(super) fn accept(&mut self) {
        self.accepted += 1;
    }

    pub(super) fn refuse(
        &mut self,
        index: usize,
        line: Option<usize>,
        reason: Reject,
        detail: String,
    ) {
        self.refused += 1;
        self.reasons.0[reason as usize] += 1;
        if self.refusals.len() < self.listed_max {
            self.refusals.push(Refusal { index, line, reason, detail });
        }
    }
}

impl Serialize for Reject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for Reasons {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (reason, count) in self.iter() {
            map.serialize_entry(reason.as_str(), &count)?;
        }
        map.end()
    }
}
