//! Canonical label text: `a="x",b="y"`, without braces.
//!
//! One label set has one text, so the text is the key of a series: names are sanitised and sorted
//! by byte, of duplicate names the last one wins, values are escaped (`\\`, `\"`, `\n`) and invalid
//! UTF-8 becomes U+FFFD. An empty value means that the label is absent, as in Prometheus. A tag
//! without `:` gets the value `true`; empty tags and tags without a name are skipped; a `#` before a
//! tag is no part of it (a client in PHP writes one before each).
//!
//! Names that mean something else to a scraper are moved out of the way: `le`, `quantile` and
//! `agent_overflow` become `exported_le`, ...; a name that begins with `__` (reserved, `__name__`
//! among them) becomes `exported___name__`.
//!
//! Nothing is allocated but the growth of `out`; at most [`LABELS_CAP`] pairs are sorted in a fixed
//! array.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::limits::LABELS_CAP;
use crate::{name, Limits, Reject};

/// Label sets up to this size are sorted in a small array, which is cheaper to prepare.
const SMALL: usize = 8;

const EXPORTED: &str = "exported_";

#[derive(Clone, Copy)]
struct Pair<'a> {
    name: &'a [u8],
    value: &'a [u8],
    /// Position in the input; the last of equal names wins.
    order: u16,
    /// The name needs no sanitising and no `exported_`.
    clean: bool,
}

const NO_PAIR: Pair<'static> = Pair { name: b"", value: b"", order: 0, clean: true };

impl<'a> Pair<'a> {
    fn new(name: &'a [u8], value: &'a [u8], limits: &Limits) -> Result<Pair<'a>, Reject> {
        if name.len() > limits.label_name_bytes_max {
            return Err(Reject::LabelNameTooLong);
        }
        if value.len() > limits.label_value_bytes_max {
            return Err(Reject::LabelValueTooLong);
        }
        let clean = !is_reserved(name) && agent_metric::name::is_label_clean(name);
        Ok(Pair { name, value, order: 0, clean })
    }

    fn prefix(&self) -> &'static str {
        if !self.clean && is_reserved(self.name) {
            EXPORTED
        } else {
            ""
        }
    }

    fn final_name(&self) -> impl Iterator<Item = u8> + 'a {
        self.prefix().bytes().chain(name::label_bytes(self.name))
    }

    fn cmp_name(&self, other: &Pair<'_>) -> Ordering {
        if self.clean && other.clean {
            self.name.cmp(other.name)
        } else {
            self.final_name().cmp(other.final_name())
        }
    }
}

/// Whether a label of this name would change what a scraper understands.
pub fn is_reserved(raw: &[u8]) -> bool {
    match raw {
        b"le" | b"quantile" | b"agent_overflow" => true,
        // `--x` sanitises to `__x`, so look at what the bytes become.
        [first, second, ..] => {
            let plain = |byte: &u8| *byte != b'_' && byte.is_ascii_alphanumeric();
            !plain(first) && !plain(second) && name::label_bytes(raw).take(2).eq(*b"__")
        }
        _ => false,
    }
}

/// Writes the label text of DogStatsD tags (`k:v,k2:v2,bare`) to `out`, which is cleared first.
pub fn from_statsd_tags(tags: &[u8], limits: &Limits, out: &mut String) -> Result<(), Reject> {
    from_statsd::<&str, &str>(b"", tags, &[], limits, out)
}

/// The label text of a StatsD sample: of `key=value` tags in its name (see [`crate::name_tags`]), overruled by its
/// DogStatsD tags, overruled by `pairs`, such as those of a mapping.
pub fn from_statsd<N: AsRef<str>, V: AsRef<str>>(
    name_tags: &[u8],
    tags: &[u8],
    pairs: &[(N, V)],
    limits: &Limits,
    out: &mut String,
) -> Result<(), Reject> {
    out.clear();
    if name_tags.is_empty() && tags.is_empty() && pairs.is_empty() {
        return Ok(());
    }
    let commas = |text| memchr::memchr_iter(b',', text).count() + 1;
    let most = commas(name_tags) + commas(tags) + pairs.len();
    let named = pairs.iter().map(|(n, v)| (n.as_ref().as_bytes(), v.as_ref().as_bytes()));
    let in_name = crate::name_tags::pairs(name_tags);
    collect(in_name.chain(split_tags(tags)).chain(named), most, limits, out)
}

/// Writes the label text of pairs to `out`, which is cleared first.
pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
    pairs: &[(N, V)],
    limits: &Limits,
    out: &mut String,
) -> Result<(), Reject> {
    out.clear();
    let named = pairs.iter().map(|(n, v)| (n.as_ref().as_bytes(), v.as_ref().as_bytes()));
    collect(named, pairs.len(), limits, out)
}

/// The pairs of DogStatsD tags; empty tags and empty names are left out.
pub fn split_tags(tags: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    tags.split(|&byte| byte == b',').filter_map(|tag| {
        let tag = tag.strip_prefix(b"#").unwrap_or(tag);
        match memchr::memchr(b':', tag) {
            Some(at) => Some((&tag[..at], &tag[at + 1..])),
            None => Some((tag, &b"true"[..])),
        }
        .filter(|(name, _)| !name.is_empty())
    })
}

fn collect<'a>(
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    most: usize,
    limits: &Limits,
    out: &mut String,
) -> Result<(), Reject> {
    if most <= SMALL {
        fill(pairs, &mut [NO_PAIR; SMALL], limits, out)
    } else {
        fill(pairs, &mut [NO_PAIR; LABELS_CAP], limits, out)
    }
}

fn fill<'a>(
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    room: &mut [Pair<'a>],
    limits: &Limits,
    out: &mut String,
) -> Result<(), Reject> {
    let mut used = 0;
    for (name, value) in pairs {
        if used >= limits.labels_allowed() || used >= room.len() {
            return Err(Reject::LabelsTooMany);
        }
        room[used] = Pair { order: used as u16, ..Pair::new(name, value, limits)? };
        used += 1;
    }
    let pairs = &mut room[..used];
    if !pairs.is_sorted_by(|a, b| a.cmp_name(b) == Ordering::Less) {
        pairs.sort_unstable_by(|a, b| a.cmp_name(b).then(a.order.cmp(&b.order)));
    }
    for (at, pair) in pairs.iter().enumerate() {
        let overruled =
            pairs.get(at + 1).is_some_and(|next| pair.cmp_name(next) == Ordering::Equal);
        if overruled || pair.value.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(pair.prefix());
        name::sanitize_label(pair.name, out);
        out.push_str("=\"");
        agent_metric::name::escape_label_value(pair.value, out);
        out.push('"');
    }
    Ok(())
}

/// Reads label text back: pairs of name and unescaped value. Stops at the first thing that is not
/// of the canonical form.
pub fn parse(text: &str) -> Pairs<'_> {
    Pairs { rest: text }
}

/// Iterator of [`parse`].
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, after) = self.rest.split_once("=\"")?;
        let bytes = after.as_bytes();
        let mut at = 0;
        let mut escaped = false;
        loop {
            at += memchr::memchr2(b'"', b'\\', &bytes[at..])?;
            if bytes[at] == b'"' {
                break;
            }
            escaped = true;
            at = (at + 2).min(bytes.len());
        }
        let value = &after[..at];
        self.rest = after[at + 1..].strip_prefix(',').unwrap_or("");
        Some((name, if escaped { Cow::Owned(unescape(value)) } else { Cow::Borrowed(value) }))
    }
}

/// Gives the label `name` of canonical text another name, `exported_` before it as often as it takes to be free; the text
/// stays canonical.
pub fn move_away(name: &str, text: &mut String) {
    let has = |text: &str, wanted: &str| parse(text).any(|(name, _)| name == wanted);
    if !text.contains(name) || !has(text, name) {
        return;
    }
    let mut moved = format!("exported_{name}");
    while has(text, &moved) {
        moved.insert_str(0, "exported_");
    }
    let mut pairs: Vec<(&str, Cow<'_, str>)> = parse(text).collect();
    pairs.iter_mut().filter(|(known, _)| *known == name).for_each(|pair| pair.0 = &moved);
    pairs.sort_unstable();
    let mut out = String::with_capacity(text.len() + moved.len());
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        out.extend([name, "=\""]);
        agent_metric::name::escape_label_value(value.as_bytes(), &mut out);
        out.push('"');
    }
    *text = out;
}

/// Undoes the escapes `\\`, `\"` and `\n`; any other backslash stays.
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') => out.push('"'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn tags(raw: &[u8]) -> String {
        let mut out = String::from("old");
        from_statsd_tags(raw, &Limits::default(), &mut out).expect("within the limits");
        out
    }

    #[test]
    fn tags_become_sorted_escaped_labels_and_the_last_duplicate_wins() {
        assert_eq!(tags(b""), "");
        assert_eq!(tags(b"b:2,a:1"), "a=\"1\",b=\"2\"");
        assert_eq!(tags(b"a:1,a:2"), "a=\"2\"");
        assert_eq!(tags(b"a.b:1,a_b:2,a-b:3"), "a_b=\"3\"");
        assert_eq!(tags(b"canary,,:x,,k:"), "canary=\"true\"");
        assert_eq!(tags(b"a:1,#b:2,#"), "a=\"1\",b=\"2\"");
        assert_eq!(tags(b"url:http://x:80/"), "url=\"http://x:80/\"");
        assert_eq!(tags(b"q:say \"hi\"\\"), "q=\"say \\\"hi\\\"\\\\\"");
        assert_eq!(tags(b"bad:\xff"), "bad=\"\u{fffd}\"");
        assert_eq!(tags(b"a:1,a:"), "");
    }

    #[test]
    fn a_name_that_is_taken_is_moved_until_it_is_free() {
        let moved = |text: &str| {
            let mut text = text.to_owned();
            move_away("app", &mut text);
            text
        };
        assert_eq!(moved("a=\"app=\""), "a=\"app=\"");
        assert_eq!(moved("app=\"a\\\"b\",b=\"1\""), "b=\"1\",exported_app=\"a\\\"b\"");
        let twice = "exported_app=\"2\",exported_exported_app=\"1\"";
        assert_eq!(moved("app=\"1\",exported_app=\"2\""), twice);
    }

    #[test]
    fn reserved_names_are_moved_out_of_the_way() {
        assert_eq!(
            tags(b"le:1,quantile:2,__name__:x,--y:z,agent_overflow:true"),
            "exported___name__=\"x\",exported___y=\"z\",exported_agent_overflow=\"true\",\
             exported_le=\"1\",exported_quantile=\"2\""
        );
        assert_eq!(tags(b"_x:1,l.e:2"), "_x=\"1\",l_e=\"2\"");
    }

    #[test]
    fn pairs_of_a_mapping_win_over_tags() {
        let mut out = String::new();
        let pairs = [("env", "prod"), ("app", "shop")];
        from_statsd(b"zone=b,rack=7", b"env:dev,zone:a", &pairs, &Limits::default(), &mut out)
            .expect("within the limits");
        assert_eq!(out, "app=\"shop\",env=\"prod\",rack=\"7\",zone=\"a\"");
    }

    #[test]
    fn each_limit_has_its_reason() {
        let limits = Limits {
            labels_max: 2,
            label_name_bytes_max: 3,
            label_value_bytes_max: 4,
            ..Limits::default()
        };
        let refuse = |raw: &[u8]| from_statsd_tags(raw, &limits, &mut String::new());
        assert_eq!(refuse(b"a:1,b:2,,"), Ok(()));
        assert_eq!(refuse(b"a:1,b:2,c:3"), Err(Reject::LabelsTooMany));
        assert_eq!(refuse(b"abcd:1"), Err(Reject::LabelNameTooLong));
        assert_eq!(refuse(b"a:12345"), Err(Reject::LabelValueTooLong));
        let wide = Limits { labels_max: 1000, ..Limits::default() };
        let many: Vec<u8> = (0..65).flat_map(|n| format!("k{n}:v,").into_bytes()).collect();
        assert_eq!(from_statsd_tags(&many, &wide, &mut String::new()), Err(Reject::LabelsTooMany));
    }

    #[test]
    fn broken_label_text_ends_the_iteration() {
        for text in ["", "a", "a=", "a=\"", "a=\"x", "a=\"x\\", "a=\"x\\\""] {
            assert_eq!(parse(text).count(), 0, "{text}");
        }
        assert_eq!(parse("a=\"1\",b").count(), 1);
    }

    proptest! {
        #[test]
        fn pairs_survive_writing_and_reading(
            pairs in proptest::collection::vec(
                ("[a-k][a-z_0-9]{0,3}", "\\PC{0,6}|[\\\\\"\n]{1,4}"),
                0..20,
            ),
        ) {
            let mut text = String::new();
            from_pairs(&pairs, &Limits::default(), &mut text).expect("within the limits");
            let model: BTreeMap<String, String> = pairs.into_iter().collect();
            let model: Vec<_> = model.into_iter().filter(|(_, v)| !v.is_empty()).collect();
            let read: Vec<_> =
                parse(&text).map(|(n, v)| (n.to_owned(), v.into_owned())).collect();
            prop_assert_eq!(read, model);
        }

        #[test]
        fn any_bytes_give_canonical_text_or_a_reason(
            raw in proptest::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut text = String::new();
            if from_statsd_tags(&raw, &Limits::default(), &mut text).is_ok() {
                let names: Vec<_> = parse(&text).map(|(n, _)| n.to_owned()).collect();
                prop_assert!(names.is_sorted_by(|a, b| a < b), "{}", text);
                prop_assert!(!text.contains('\n'));
                let again: Vec<_> = parse(&text).collect();
                let mut second = String::new();
                from_pairs(&again, &Limits::default(), &mut second).expect("fewer than before");
                prop_assert_eq!(second, text);
            }
        }
    }
}
