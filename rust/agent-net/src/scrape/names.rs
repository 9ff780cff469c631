//! Who has which name of the page.
//!
//! A family takes its own name and the names of its samples (`x_count` and `x_created` of histogram `x`), in whatever form
//! of the page they are shown. Names are claimed in the order of first appearance ([`super::plan`]). The first wins; a claim
//! that says something else of a taken name is refused, because a page that says both is refused as a whole by its reader.
//! What is refused takes no names.
//!
//! The page, the status document and the check of a push use the same rules, this file.

use agent_metric::own::{DAMAGED, LOST, PRIVATE, SUPERSEDED};
use std::fmt;

use agent_metric::{FamilyKind, OwnedShape};
use hashbrown::HashMap;

use crate::http::gateway_path::GroupKey;

/// What a name is to a reader of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Counter,
    /// A pushed counter that is not called `_total`; it is shown under the name it was pushed with.
    BareCounter,
    Gauge,
    Histogram,
    Summary,
    Unknown,
}

impl Type {
    pub fn of_shape(shape: &OwnedShape) -> Type {
        match shape {
            OwnedShape::Counter => Type::Counter,
            OwnedShape::Gauge(_) => Type::Gauge,
            OwnedShape::Exponential { .. } | OwnedShape::Explicit(_) => Type::Histogram,
            OwnedShape::Summary(_) => Type::Summary,
        }
    }

    /// The family name in our sense (without `_total`) and the type of a pushed family.
    pub fn of_pushed(name: &str, kind: FamilyKind) -> (&str, Type) {
        match (kind, name.strip_suffix("_total")) {
            (FamilyKind::Counter, Some(base)) if !base.is_empty() => (base, Type::Counter),
            (FamilyKind::Counter | FamilyKind::BareCounter, _) => (name, Type::BareCounter),
            (FamilyKind::Gauge, _) => (name, Type::Gauge),
            (FamilyKind::Histogram, _) => (name, Type::Histogram),
            (FamilyKind::Summary, _) => (name, Type::Summary),
            (FamilyKind::Unknown, _) => (name, Type::Unknown),
        }
    }

    pub fn kind(self) -> FamilyKind {
        match self {
            Type::Counter => FamilyKind::Counter,
            Type::Gauge => FamilyKind::Gauge,
            Type::Histogram => FamilyKind::Histogram,
            Type::Summary => FamilyKind::Summary,
            Type::BareCounter => FamilyKind::BareCounter,
            Type::Unknown => FamilyKind::Unknown,
        }
    }

    /// As a TYPE line of the page says it.
    pub fn word(self) -> &'static str {
        match self {
            Type::Counter | Type::BareCounter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
            Type::Summary => "summary",
            Type::Unknown => "untyped",
        }
    }

    fn phrase(self) -> &'static str {
        match self {
            Type::Counter | Type::BareCounter => "a counter",
            Type::Gauge => "a gauge",
            Type::Histogram => "a histogram",
            Type::Summary => "a summary",
            Type::Unknown => "untyped",
        }
    }

    /// What its samples add to the name.
    pub fn suffixes(self) -> &'static [&'static str] {
        match self {
            Type::Counter => &["_total", "_created"],
            Type::Histogram => &["_bucket", "_sum", "_count", "_created"],
            Type::Summary => &["_sum", "_count", "_created"],
            Type::BareCounter | Type::Gauge | Type::Unknown => &[],
        }
    }
}

/// Whose family it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    Collector,
    App(&'a str),
    Group(&'a GroupKey),
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Collector => f.write_str("the collector"),
            Owner::App(name) => write!(f, "app {name}"),
            Owner::Group(key) => write!(f, "group {{{}}}", key.text()),
        }
    }
}

/// A family and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Without the `_total` of a counter.
    pub name: String,
    pub kind: Type,
    pub owner: Owner<'a>,
}

impl Claim<'_> {
    /// The name as the page shows it.
    pub fn shown(&self) -> String {
        let suffix = if self.kind == Type::Counter { "_total" } else { "" };
        format!("{}{suffix}", self.name)
    }
}

/// A claim that came too late, and the one that holds the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict<'a> {
    pub refused: Claim<'a>,
    pub holder: Claim<'a>,
}

impl fmt::Display for Conflict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { refused, holder } = self;
        let (name, held) = (refused.shown(), holder.shown());
        write!(f, "{name} is {} here, but {} has ", refused.kind.phrase(), holder.owner)?;
        let held = if held == name { "it" } else { &held };
        write!(f, "{held} as {}", holder.kind.phrase())
    }
}

/// Why a family cannot join those of the collector, if it cannot: one of its names is another's.
/// `find` gives the type of a family of the collector. A family of the very name is none of its business:
/// it would have the same names, and another worker may register it at this moment.
pub fn clash(
    name: &str,
    kind: Type,
    find: impl Fn(&str) -> Option<Type>,
) -> Option<Box<Conflict<'static>>> {
    let claim = |name: &str, kind| Claim { name: name.to_owned(), kind, owner: Owner::Collector };
    let own = kind.suffixes().iter().map(|suffix| format!("{name}{suffix}"));
    for taken in own.chain([name.to_owned()]) {
        let family =
            if taken == name { None } else { find(&taken).map(|kind| claim(&taken, kind)) };
        let of_samples = || {
            SUFFIXES.iter().find_map(|suffix| {
                let base = taken.strip_suffix(suffix).filter(|base| *base != name)?;
                find(base).filter(|kind| kind.suffixes().contains(suffix)).map(|k| claim(base, k))
            })
        };
        if let Some(holder) = family.or_else(of_samples) {
            return Some(Box::new(Conflict { refused: claim(name, kind), holder }));
        }
    }
    None
}

/// All that [`Type::suffixes`] gives.
const SUFFIXES: [&str; 5] = ["_total", "_bucket", "_sum", "_count", "_created"];

/// Families that the page itself writes.
const OF_PAGE: [(&str, Type); 4] = [
    (PRIVATE, Type::Counter),
    (LOST, Type::Counter),
    (SUPERSEDED, Type::Gauge),
    (DAMAGED, Type::Gauge),
];

/// Who has which name.
pub struct Names<'a> {
    families: Vec<Claim<'a>>,
    /// Name of a family or of its samples -> index in `families`.
    taken: HashMap<String, usize>,
}

impl<'a> Names<'a> {
    /// Those of a page without families: the names of what it writes itself are taken.
    pub fn of_page() -> Names<'a> {
        let mut names = Names { families: Vec::new(), taken: HashMap::new() };
        for (name, kind) in OF_PAGE {
            // They differ, so none is refused.
            let _ = names.claim(Claim { name: name.to_owned(), kind, owner: Owner::Collector });
        }
        names
    }

    /// Takes the names of a family; gives its index among the families, or says who has a name already.
    pub fn claim(&mut self, claim: Claim<'a>) -> Result<usize, Conflict<'a>> {
        let Claim { name, kind, .. } = &claim;
        if let Some(&index) = self.taken.get(name) {
            let family = &self.families[index];
            let is_same = family.name == *name && family.kind == *kind;
            return if is_same { Ok(index) } else { Err(self.conflict(claim, index)) };
        }
        let names = || kind.suffixes().iter().map(|suffix| format!("{name}{suffix}"));
        if let Some(index) = names().find_map(|name| self.taken.get(&name).copied()) {
            return Err(self.conflict(claim, index));
        }
        let index = self.families.len();
        self.taken.extend(names().chain([name.clone()]).map(|name| (name, index)));
        self.families.push(claim);
        Ok(index)
    }

    fn conflict(&self, refused: Claim<'a>, holder: usize) -> Conflict<'a> {
        Conflict { refused, holder: self.families[holder].clone() }
    }

    /// The families that were taken, in the order of their indices.
    pub fn into_families(self) -> Vec<Claim<'a>> {
        self.families
    }
}
