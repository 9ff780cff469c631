//! The label text of a page's samples: checked where it is foreign, put behind `app`, and each set once.
//!
//! A label of an app that has one of the page's names (`app`, `le` of a histogram, `quantile` of a summary, `pid` of a
//! gauge of processes) is shown with `exported_` before it, as often as it takes to be free. Two label sets are the same to a
//! scraper when their pairs are, in any order and without empty values; [`LabelSets`] finds the second one where several
//! sources have a family.
//!
//! Limits: label text is read in one pass; only what clashes or is not sorted by name is taken apart. A set costs 16 bytes
//! while its family is written. Not promised: two sets whose hashes of 128 bits are the same, by chance, pass for one.

use std::collections::hash_map::RandomState;
use std::collections::HashSet;
use std::hash::BuildHasher;

use agent_metric::{OwnedShape, Reduction};
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

/// What [`inspect`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// Sorted by name, each name once, none of ours.
    Sound,
    /// To be taken apart: a name of ours, names that do not ascend, or a value that is empty.
    Odd,
    Broken,
}

/// Whether label text of a foreign segment is what it must be: `name="value"` joined by commas,
/// values with `\\`, `\"` and `\n` escaped, UTF-8. By hand and in one pass: it is done for every
/// series. `ours` is the name that samples of the family have beside `app`, or empty.
pub fn inspect(labels: &[u8], ours: &str) -> Labels {
    if !labels.is_ascii() && std::str::from_utf8(labels).is_err() {
        return Labels::Broken;
    }
    let (mut is_odd, mut before) = (false, &b""[..]);
    let mut at = 0;
    while at < labels.len() {
        let start = at;
        while matches!(labels.get(at), Some(c) if c.is_ascii_alphanumeric() || *c == b'_') {
            at += 1;
        }
        let name = &labels[start..at];
        if name.first().is_none_or(u8::is_ascii_digit) || !labels[at..].starts_with(b"=\"") {
            return Labels::Broken;
        }
        if name.starts_with(b"__") {
            return Labels::Broken;
        }
        is_odd |= name <= before || name == b"app" || name == ours.as_bytes();
        before = name;
        at += 2;
        is_odd |= labels.get(at) == Some(&b'"');
        loop {
            match labels.get(at) {
                Some(b'"') => break,
                Some(b'\\') if matches!(labels.get(at + 1), Some(b'\\' | b'"' | b'n')) => at += 2,
                None | Some(b'\n' | b'\\') => return Labels::Broken,
                Some(_) => at += 1,
            }
        }
        at += 1;
        match labels.get(at) {
            None => {}
            Some(b',') if at + 1 < labels.len() => at += 1,
            Some(_) => return Labels::Broken,
        }
    }
    if is_odd {
        Labels::Odd
    } else {
        Labels::Sound
    }
}

/// Name and raw value of each label of sound text.
fn pairs(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let equals = memchr::memchr(b'=', rest)?;
        let (name, value) = (&rest[..equals], rest.get(equals + 2..)?);
        let mut end = 0;
        while *value.get(end)? != b'"' {
            end += if value[end] == b'\\' { 2 } else { 1 };
        }
        rest = value.get(end + 2..).unwrap_or(b"");
        Some((name, &value[..end]))
    })
}

/// The text with names of ours moved out of the way, sorted by name, without empty values, which a scraper takes for none;
/// nothing when a name is there twice.
pub fn moved(labels: &[u8], ours: &[&str]) -> Option<Vec<u8>> {
    let mut all: Vec<(Vec<u8>, &[u8])> =
        pairs(labels).map(|(name, value)| (name.to_vec(), value)).collect();
    for index in 0..all.len() {
        if !ours.iter().any(|ours| ours.as_bytes() == all[index].0) {
            continue;
        }
        let mut name = std::mem::take(&mut all[index].0);
        while ours.iter().any(|ours| ours.as_bytes() == name)
            || all.iter().any(|(other, _)| *other == name)
        {
            name.splice(0..0, *b"exported_");
        }
        all[index].0 = name;
    }
    all.sort();
    if all.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return None;
    }
    let mut text = Vec::with_capacity(labels.len() + 16);
    for (name, value) in all.into_iter().filter(|(_, value)| !value.is_empty()) {
        let comma: &[u8] = if text.is_empty() { b"" } else { b"," };
        [comma, &name, b"=\"", value, b"\""].iter().for_each(|part| text.extend_from_slice(part));
    }
    Some(text)
}

/// The label text of one app: `app="shop"`, then what the series has.
pub struct AppLabels {
    text: Vec<u8>,
    prefix: usize,
    ours: &'static str,
}

impl AppLabels {
    /// For series of this shape.
    pub fn of(app: &str, shape: &OwnedShape) -> AppLabels {
        let mut text = String::from("app=\"");
        agent_metric::name::escape_label_value(app.as_bytes(), &mut text);
        text.push('"');
        let ours = match shape {
            OwnedShape::Exponential { .. } | OwnedShape::Explicit(_) => "le",
            OwnedShape::Summary(_) => "quantile",
            OwnedShape::Gauge(mode) if mode.reduction() == Reduction::Each => "pid",
            OwnedShape::Gauge(_) | OwnedShape::Counter => "",
        };
        AppLabels { prefix: text.len(), text: text.into_bytes(), ours }
    }

    /// Nothing when the series' own labels are broken.
    #[inline]
    pub fn with(&mut self, labels: &[u8]) -> Option<&[u8]> {
        self.text.truncate(self.prefix);
        if labels.is_empty() {
            return Some(&self.text);
        }
        match inspect(labels, self.ours) {
            Labels::Sound => {
                self.text.push(b',');
                self.text.extend_from_slice(labels);
            }
            Labels::Odd => {
                let text = moved(labels, &["app", self.ours])?;
                let comma: &[u8] = if text.is_empty() { b"" } else { b"," };
                self.text.extend_from_slice(comma);
                self.text.extend_from_slice(&text);
            }
            Labels::Broken => return None,
        }
        Some(&self.text)
    }
}

/// The label texts of a family of one segment that were seen. Cheaper than [`LabelSets`], and enough where all texts are
/// made alike: sorted, without empty values. Two texts of one hash, by chance, pass for one.
#[derive(Default)]
pub struct TextSet {
    seen: HashTable<u64>,
    hasher: DefaultHashBuilder,
}

impl TextSet {
    /// Empty again, with room for so many.
    pub fn begin(&mut self, count: usize) -> &mut TextSet {
        self.seen.clear();
        self.seen.reserve(count, |hash| *hash);
        self
    }

    /// Whether the text is new.
    #[inline]
    pub fn insert(&mut self, text: &[u8]) -> bool {
        let hash = self.hasher.hash_one(text);
        match self.seen.entry(hash, |known| *known == hash, |known| *known) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(hash);
                true
            }
        }
    }
}

/// The label sets of a family that were seen.
#[derive(Default)]
pub struct LabelSets {
    seen: HashSet<u128>,
    keys: [RandomState; 2],
}

impl LabelSets {
    pub fn clear(&mut self) {
        self.seen.clear();
    }

    /// Whether the set is new.
    pub fn insert(&mut self, labels: &[u8]) -> bool {
        let key = self.key(labels);
        self.seen.insert(key)
    }

    pub fn contains(&self, labels: &[u8]) -> bool {
        self.seen.contains(&self.key(labels))
    }

    /// The same for the same set.
    pub fn key(&self, labels: &[u8]) -> u128 {
        let mut sum = 0u128;
        // A sum, so that the order of the labels is all one.
        for pair in pairs(labels).filter(|(_, value)| !value.is_empty()) {
            let [high, low] = [0, 1].map(|key: usize| self.keys[key].hash_one(pair));
            sum = sum.wrapping_add(u128::from(high) << 64 | u128::from(low));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(labels: &[u8], ours: &[&str]) -> Option<String> {
        moved(labels, ours).map(|text| String::from_utf8(text).expect("UTF-8"))
    }

    #[test]
    fn names_of_the_page_are_moved_until_they_are_free() {
        let both = b"app=\"1\",exported_app=\"2\"";
        let told = text(both, &["app"]);
        assert_eq!(told.as_deref(), Some("exported_app=\"2\",exported_exported_app=\"1\""));
        let le = text(b"le=\"x,\\\"app=\",z=\"\"", &["app", "le"]);
        assert_eq!(le.as_deref(), Some("exported_le=\"x,\\\"app=\""), "an empty value is none");
        assert_eq!(text(b"a=\"1\",b=\"2\",a=\"3\"", &["app"]), None);
    }

    #[test]
    fn a_set_is_the_same_in_any_order_and_without_empty_values() {
        let mut sets = LabelSets::default();
        assert!(sets.insert(b"") && !sets.insert(b"x=\"\""));
        assert!(sets.insert(b"a=\"1\",b=\"2\""));
        assert!(!sets.insert(b"b=\"2\",a=\"1\"") && !sets.insert(b"b=\"2\",c=\"\",a=\"1\""));
        assert!(sets.insert(b"a=\"2\",b=\"1\"") && sets.insert(b"a=\"1\",b=\"2\\\"\""));
    }

    proptest! {
        /// Whatever is not refused has each name once, and none of the page's.
        #[test]
        fn any_text_is_refused_or_made_sound(text in "[ab\"\\\\=,_n1]{0,12}|(app|a|b)=\"[ab]?\"(,(app|exported_app|le|a)=\"[b,]?\"){0,3}") {
            let mut labels = AppLabels::of("shop", &OwnedShape::Explicit(Vec::new()));
            if let Some(whole) = labels.with(text.as_bytes()) {
                let names: Vec<&[u8]> = pairs(whole).map(|(name, _)| name).collect();
                let unique: HashSet<&[u8]> = names.iter().copied().collect();
                prop_assert_eq!(unique.len(), names.len());
                prop_assert!(!names[1..].contains(&&b"app"[..]) && !names.contains(&&b"le"[..]));
                prop_assert!(inspect(whole, "") != Labels::Broken);
            }
        }
    }
}
