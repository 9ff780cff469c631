//! Tags inside of a metric's name, as dialects of StatsD write them.
//!
//! | dialect | form |
//! |---|---|
//! | Influx (Telegraf) | `name,key=value,key=value` |
//! | Librato | `name#key=value,key=value` |
//! | SignalFx | `na[key=value,key=value]me`, the name is `name` |
//!
//! A name has tags only when each of them has a key and a `=`: `a,b` and `disk#1` are names as they were.
//! Not promised: colons in values, which end the name; escapes, of which these dialects have none.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde::Deserialize;

/// Which dialects are read; all by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dialects {
    pub influx: bool,
    pub librato: bool,
    pub signalfx: bool,
}

impl Default for Dialects {
    fn default() -> Self {
        Dialects { influx: true, librato: true, signalfx: true }
    }
}

/// A name taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// The name is `head`, then `tail`.
    pub head: &'a [u8],
    pub tail: &'a [u8],
    /// `key=value,key=value`, each with a key.
    pub tags: &'a [u8],
}

/// Takes a name apart; nothing when it has no tags.
pub fn split(name: &[u8], dialects: Dialects) -> Option<Named<'_>> {
    if dialects.signalfx {
        if let Some(open) = memchr(b'[', name) {
            if let Some(length) = memchr(b']', &name[open..]) {
                let (tags, tail) = (&name[open + 1..open + length], &name[open + length + 1..]);
                return named(&name[..open], tail, tags);
            }
        }
    }
    let at = memchr2(b',', b'#', name)?;
    let is_read = if name[at] == b',' { dialects.influx } else { dialects.librato };
    is_read.then(|| named(&name[..at], b"", &name[at + 1..])).flatten()
}

fn named<'a>(head: &'a [u8], tail: &'a [u8], tags: &'a [u8]) -> Option<Named<'a>> {
    let has_name = !head.is_empty() || !tail.is_empty();
    let has_key = |tag: &[u8]| memchr(b'=', tag).is_some_and(|at| at > 0);
    let all_have = tags.split(|&byte| byte == b',').all(has_key);
    (has_name && all_have).then_some(Named { head, tail, tags })
}

impl<'a> Named<'a> {
    /// The name without its tags.
    pub fn bare(&self) -> Cow<'a, [u8]> {
        match self.tail {
            [] => Cow::Borrowed(self.head),
            tail => Cow::Owned([self.head, tail].concat()),
        }
    }
}

/// Keys and values of `key=value,key=value`.
pub fn pairs(tags: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    tags.split(|&byte| byte == b',').filter_map(|tag| {
        let at = memchr(b'=', tag)?;
        Some((&tag[..at], &tag[at + 1..]))
    })
}

/// Bytes of the name without its tags.
#[cold]
pub fn bare_len(name: &[u8], dialects: Dialects) -> usize {
    split(name, dialects).map_or(name.len(), |named| named.head.len() + named.tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apart(name: &str) -> Option<(String, Vec<(String, String)>)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        let named = split(name.as_bytes(), Dialects::default())?;
        let pairs = pairs(named.tags).map(|(key, value)| (text(key), text(value))).collect();
        Some((text(&named.bare()), pairs))
    }

    #[test]
    fn each_dialect_gives_the_name_and_its_tags() {
        let tags = vec![("k".into(), "v".into()), ("k2".into(), "v=2".into())];
        let expected = Some(("api.time".into(), tags));
        assert_eq!(apart("api.time,k=v,k2=v=2"), expected);
        assert_eq!(apart("api.time#k=v,k2=v=2"), expected);
        assert_eq!(apart("api[k=v,k2=v=2].time"), expected);
        assert_eq!(apart("[k=v,k2=v=2]api.time"), expected);
        assert_eq!(apart("a,k="), Some(("a".into(), vec![("k".into(), String::new())])));
    }

    #[test]
    fn a_name_that_only_looks_so_is_a_name() {
        for name in
            ["a", "a,b", "disk#1", "a,=v", "a,k=v,", ",k=v", "a[0]", "a[k=v", "[k=v]", "a#k=v,x"]
        {
            assert_eq!(apart(name), None, "{name}");
        }
    }

    #[test]
    fn a_dialect_that_is_off_is_not_read() {
        let none = Dialects { influx: false, librato: false, signalfx: false };
        for name in ["a,k=v", "a#k=v", "a[k=v]"] {
            assert_eq!(split(name.as_bytes(), none), None);
            assert!(split(name.as_bytes(), Dialects::default()).is_some());
        }
    }
}
