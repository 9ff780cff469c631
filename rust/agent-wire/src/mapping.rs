//! Rules that rename, label, retype or drop StatsD names, in the manner of statsd_exporter.
//!
//! ```text
//! {"match": "shop.*.orders.*", "name": "shop_orders", "labels": {"country": "$1", "kind": "$2"}}
//! {"match": "^debug\\.", "match_type": "regex", "action": "drop"}
//! {"match": "api.*.time", "match_metric_type": "timer", "name": "api_$1", "type": "distribution"}
//! ```
//!
//! The first rule that matches wins, in the order of the list, globs and regular expressions alike.
//! In a glob, `*` stands for exactly one non-empty part between dots, and nothing else is special.
//! A regular expression searches: anchor it with `^` and `$`. `$1` or `${1}` is what the first `*`
//! or group caught, `${word}` a named group, `$$` a dollar. `type` changes the kind of the sample
//! (`timer` <-> `histogram` and so on; nothing becomes a set, no set becomes anything else). The
//! name goes through [`crate::name::family`] afterwards, as any other name. `buckets` or `native` say what a
//! timer, histogram or distribution becomes; the first rule that makes a metric decides for all.
//!
//! Globs are compiled to one tree of name parts, so many rules cost about as much as few. Regular
//! expressions are tried one by one, and only those before the glob that matched.
//!
//! Limits: 10,000 rules, 32 parts a glob, 1 MiB a compiled expression, 512 bytes and 16 references
//! a template.
//!
//! Not promised: `**`, part-wise globs such as `a*.b` (use a regular expression), statsd_exporter's
//! "most specific first", per-rule time to live.

mod glob;
mod template;

use std::collections::BTreeMap;

use agent_metric::{bounds, OwnedShape};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::Kind;
use glob::{Captures, GlobTree};
use template::Template;

const RULES_MAX: usize = 10_000;
const REGEX_BYTES_MAX: usize = 1 << 20;

/// One rule, as it stands in the config.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingRule {
    /// A glob or a regular expression over the name as it was sent.
    #[serde(rename = "match")]
    pub pattern: String,
    #[serde(default)]
    pub match_type: MatchType,
    /// Only samples of this kind.
    #[serde(default)]
    pub match_metric_type: Option<Kind>,
    /// The new name, with captures. Needed unless the action is drop.
    #[serde(default)]
    pub name: Option<String>,
    /// Labels to add, with captures; they win over tags.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub action: Action,
    /// The kind the sample is taken for.
    #[serde(default, rename = "type")]
    pub kind: Option<Kind>,
    #[serde(default)]
    pub help: Option<String>,
    /// Bounds of the histogram that a timer, histogram or distribution becomes; empty: those of all.
    #[serde(default)]
    pub buckets: Vec<f64>,
    /// It becomes a native histogram.
    #[serde(default)]
    pub native: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchType {
    #[default]
    Glob,
    Regex,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    Map,
    Drop,
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingError {
    /// Position of the rule, from 0.
    pub rule: usize,
    pub detail: String,
}

impl std::fmt::Display for MappingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mapping rule {}: {}", self.rule, self.detail)
    }
}

impl std::error::Error for MappingError {}

/// What the rules say about a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Mapped<'m> {
    /// No rule matches.
    Unmatched,
    /// Rule `rule` drops it.
    Drop {
        rule: usize,
    },
    Renamed(Renamed<'m>),
}

/// The result of a rule with action map.
#[derive(Debug, Clone, PartialEq)]
pub struct Renamed<'m> {
    pub rule: usize,
    /// Not sanitised yet.
    pub name: String,
    /// For [`crate::labels::from_statsd`].
    pub labels: Vec<(&'m str, String)>,
    pub kind: Kind,
    /// Empty when the rule has none.
    pub help: &'m str,
    /// What observed values become, when the rule says it.
    pub observed: Option<&'m OwnedShape>,
}

/// Compiled rules.
#[derive(Debug, Default)]
pub struct Mapper {
    rules: Vec<Rule>,
    globs: GlobTree,
    /// (position of the rule, expression), ascending.
    regexes: Vec<(usize, Regex)>,
}

#[derive(Debug)]
struct Rule {
    only: Option<Kind>,
    /// Nothing: drop.
    name: Option<Template>,
    labels: Vec<(String, Template)>,
    kind: Option<Kind>,
    help: String,
    observed: Option<OwnedShape>,
}

impl Mapper {
    /// Compiles the rules, or says which one is wrong and why.
    pub fn compile(rules: &[MappingRule]) -> Result<Mapper, MappingError> {
        let (mapper, errors) = Mapper::compile_all(rules);
        errors.into_iter().next().map_or(Ok(mapper), Err)
    }

    /// Everything that is wrong with the rules.
    pub fn errors(rules: &[MappingRule]) -> Vec<MappingError> {
        Mapper::compile_all(rules).1
    }

    fn compile_all(rules: &[MappingRule]) -> (Mapper, Vec<MappingError>) {
        let (mut mapper, mut errors) = (Mapper::default(), Vec::new());
        if rules.len() > RULES_MAX {
            let detail = format!("there are more than {RULES_MAX} rules");
            errors.push(MappingError { rule: RULES_MAX, detail });
            return (mapper, errors);
        }
        for (index, rule) in rules.iter().enumerate() {
            let mut wrong = |detail| errors.push(MappingError { rule: index, detail });
            let groups = mapper.find(index, rule).map_err(&mut wrong).ok();
            mapper.add(rule, groups.as_ref(), &mut wrong);
        }
        (mapper, errors)
    }

    /// Takes over what the rule matches; gives the groups that its texts may refer to.
    fn find(&mut self, index: usize, rule: &MappingRule) -> Result<template::Groups, String> {
        match rule.match_type {
            MatchType::Glob => {
                let stars = self.globs.insert(index, &rule.pattern, rule.match_metric_type)?;
                Ok(template::Groups { count: stars, names: Vec::new() })
            }
            MatchType::Regex => {
                let regex = RegexBuilder::new(&rule.pattern)
                    .size_limit(REGEX_BYTES_MAX)
                    .build()
                    .map_err(|error| format!("`match` is no usable expression: {error}"))?;
                let names = regex.capture_names().map(|n| n.map(str::to_owned)).collect();
                let groups = template::Groups { count: regex.captures_len() - 1, names };
                self.regexes.push((index, regex));
                Ok(groups)
            }
        }
    }

    /// Takes over what the rule does. Without groups its texts cannot be judged.
    fn add(
        &mut self,
        rule: &MappingRule,
        groups: Option<&template::Groups>,
        wrong: &mut impl FnMut(String),
    ) {
        let template = |text: &str, wrong: &mut dyn FnMut(String)| {
            let compiled = Template::compile(text, groups?);
            compiled.map_err(wrong).ok()
        };
        let name = match (rule.action, rule.name.as_deref()) {
            (Action::Drop, _) => None,
            (Action::Map, None | Some("")) => {
                wrong("`name` is missing".to_owned());
                None
            }
            (Action::Map, Some(name)) => template(name, wrong),
        };
        let mut labels = Vec::with_capacity(rule.labels.len());
        for (label, value) in &rule.labels {
            if label.is_empty() {
                wrong("a label name is empty".to_owned());
            }
            let value = template(value, &mut |detail| wrong(format!("label {label:?}: {detail}")));
            labels.extend(value.map(|value| (label.clone(), value)));
        }
        if let (Some(from), Some(to)) = (rule.match_metric_type, rule.kind) {
            if !may_become(from, to) {
                wrong(format!("a {} cannot become a {}", from.as_str(), to.as_str()));
            }
        }
        let observed = match (rule.buckets.is_empty(), rule.native) {
            (true, false) => None,
            (true, true) => Some(OwnedShape::Exponential { schema: bounds::NATIVE_SCHEMA }),
            (false, true) => {
                wrong("`buckets` and `native` exclude each other".to_owned());
                None
            }
            (false, false) => bounds::check(rule.buckets.clone())
                .map_err(|why| wrong(format!("`buckets` cannot be used: {why}")))
                .ok()
                .map(OwnedShape::Explicit),
        };
        self.rules.push(Rule {
            observed,
            only: rule.match_metric_type,
            name,
            labels,
            kind: rule.kind,
            help: rule.help.clone().unwrap_or_default(),
        });
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Applies the first rule that matches the name as it was sent.
    pub fn apply(&self, raw_name: &[u8], kind: Kind) -> Mapped<'_> {
        let by_glob = self.globs.find(raw_name, kind);
        let before = by_glob.as_ref().map_or(usize::MAX, |found| found.rule);
        for (index, regex) in self.regexes.iter().take_while(|(index, _)| *index < before) {
            if self.rules[*index].only.is_some_and(|only| only != kind) {
                continue;
            }
            if let Some(groups) = regex.captures(raw_name) {
                let group = |n: usize| groups.get(n).map_or(&b""[..], |found| found.as_bytes());
                return self.result(*index, kind, group);
            }
        }
        match by_glob {
            Some(found) => self.result(found.rule, kind, |n| found.group(raw_name, n)),
            None => Mapped::Unmatched,
        }
    }

    fn result<'n>(
        &self,
        index: usize,
        kind: Kind,
        group: impl Fn(usize) -> &'n [u8],
    ) -> Mapped<'_> {
        let rule = &self.rules[index];
        let Some(name) = &rule.name else {
            return Mapped::Drop { rule: index };
        };
        let labels = rule.labels.iter();
        Mapped::Renamed(Renamed {
            rule: index,
            name: name.fill(&group),
            labels: labels.map(|(label, value)| (label.as_str(), value.fill(&group))).collect(),
            kind: rule.kind.filter(|to| may_become(kind, *to)).unwrap_or(kind),
            help: &rule.help,
            observed: rule.observed.as_ref(),
        })
    }
}

/// Members of sets are texts and all else is numbers.
fn may_become(from: Kind, to: Kind) -> bool {
    (from == Kind::Set) == (to == Kind::Set)
}

impl Captures {
    /// What star `n` (from 1) caught; 0 is the whole name.
    fn group<'n>(&self, name: &'n [u8], n: usize) -> &'n [u8] {
        match n.checked_sub(1) {
            None => name,
            Some(star) => self.star(star).and_then(|range| name.get(range)).unwrap_or(b""),
        }
    }
}
