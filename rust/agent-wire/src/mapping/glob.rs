//! All globs in one tree: a node for each part between dots, a `*` part beside the plain ones.
//!
//! A name is walked down both ways at each level, plain part and star, and the lowest rule wins.
//! Each node knows the lowest rule below it, so a branch that cannot win is not entered. A glob has
//! at most [`PARTS_MAX`] parts, a name may be longer and then matches none.

use std::collections::HashMap;
use std::ops::Range;

use crate::Kind;

pub(super) const PARTS_MAX: usize = 32;

#[derive(Debug)]
struct Node {
    plain: HashMap<Box<[u8]>, usize>,
    star: Option<usize>,
    /// Rules that end here with the kind they are for, ascending.
    rules: Vec<(usize, Option<Kind>)>,
    /// The lowest rule at or below this node.
    lowest: usize,
}

impl Node {
    fn new(lowest: usize) -> Node {
        Node { plain: HashMap::new(), star: None, rules: Vec::new(), lowest }
    }
}

#[derive(Debug, Default)]
pub(super) struct GlobTree {
    /// The root is the first, once there is a glob.
    nodes: Vec<Node>,
}

/// The rule that matched and where its stars stand in the name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Captures {
    pub rule: usize,
    stars: [(u32, u32); PARTS_MAX],
    used: usize,
}

impl Captures {
    pub fn star(&self, index: usize) -> Option<Range<usize>> {
        let (from, to) = *self.stars[..self.used].get(index)?;
        Some(from as usize..to as usize)
    }
}

/// The state of one walk down the tree.
struct Walk<'n> {
    name: &'n [u8],
    kind: Kind,
    stars: [(u32, u32); PARTS_MAX],
    best: Option<Captures>,
}

impl GlobTree {
    /// Adds a glob; gives the number of its stars.
    pub fn insert(&mut self, rule: usize, glob: &str, only: Option<Kind>) -> Result<usize, String> {
        let parts: Vec<&str> = glob.split('.').collect();
        if parts.len() > PARTS_MAX {
            return Err(format!("a glob has at most {PARTS_MAX} parts"));
        }
        if parts.iter().any(|part| part.is_empty()) {
            return Err("a part of the glob between dots is empty".to_owned());
        }
        if let Some(part) = parts.iter().find(|part| part.contains('*') && **part != "*") {
            return Err(format!("in {part:?}, * is only a part of a name; use match_type regex"));
        }
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(rule));
        }
        let mut at = 0;
        for part in &parts {
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            at = if *part == "*" {
                *node.star.get_or_insert(next)
            } else {
                *node.plain.entry(part.as_bytes().into()).or_insert(next)
            };
            if at == next {
                self.nodes.push(Node::new(rule));
            }
        }
        self.nodes[at].rules.push((rule, only));
        Ok(parts.iter().filter(|part| **part == "*").count())
    }

    /// The first rule whose glob is the name.
    pub fn find(&self, name: &[u8], kind: Kind) -> Option<Captures> {
        if self.nodes.is_empty() || u32::try_from(name.len()).is_err() {
            return None;
        }
        let mut walk = Walk { name, kind, stars: [(0, 0); PARTS_MAX], best: None };
        self.descend(0, 0, 0, &mut walk);
        walk.best
    }

    /// `from` is where the next part of the name begins; behind the end when there is none. The
    /// depth of the recursion is that of the tree, at most [`PARTS_MAX`].
    fn descend(&self, node: usize, from: usize, used: usize, walk: &mut Walk<'_>) {
        let node = &self.nodes[node];
        let best = walk.best.as_ref().map_or(usize::MAX, |best| best.rule);
        if node.lowest >= best {
            return;
        }
        let Some(rest) = walk.name.get(from..) else {
            let kind = walk.kind;
            let fits = |(_, only): &&(usize, Option<Kind>)| only.is_none_or(|only| only == kind);
            match node.rules.iter().find(fits) {
                Some(&(rule, _)) if rule < best => {
                    walk.best = Some(Captures { rule, stars: walk.stars, used });
                }
                _ => {}
            }
            return;
        };
        let part = &rest[..memchr::memchr(b'.', rest).unwrap_or(rest.len())];
        if part.is_empty() {
            return;
        }
        let next = from + part.len() + 1;
        if let Some(&plain) = node.plain.get(part) {
            self.descend(plain, next, used, walk);
        }
        if let (Some(star), Some(slot)) = (node.star, walk.stars.get_mut(used)) {
            *slot = (from as u32, (from + part.len()) as u32);
            self.descend(star, next, used + 1, walk);
        }
    }
}
