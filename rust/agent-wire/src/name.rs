//! Names as Prometheus wants them, and the naming rules of the product in one pure function.
//!
//! Metric names keep `[a-zA-Z0-9_:]`, label names `[a-zA-Z0-9_]`; any other character becomes one
//! `_` (a whole UTF-8 character, or a run of stray continuation bytes), and a leading digit gets a
//! `_` before it. Nothing is dropped, so a name that had a byte never becomes empty.
//!
//! | kind | family name | unit | scale |
//! |---|---|---|---|
//! | counter | without a trailing `_total` (exposition adds it) | of its suffix | 1 |
//! | gauge, histogram, distribution | as it is | of its suffix | 1 |
//! | timer | `_ms`, `_millis`, `_milliseconds` fall away, `_seconds` is there | seconds | 0.001 |
//! | set | with `_unique` | none | 1 |
//!
//! Not promised: different raw names may meet in one family (`a.b` and `a_b`), and a gauge called
//! `x_count` is not kept apart from the `_count` of a histogram `x`.

use crate::Kind;
use agent_metric::name::{may_hold, suffix, LABEL, METRIC};

/// Units that a family name may end in; OpenMetrics says so in a `# UNIT` line.
const UNITS: [&str; 9] =
    ["seconds", "bytes", "ratio", "celsius", "meters", "volts", "amperes", "joules", "grams"];

/// Endings of a timer's name that say milliseconds, which the family no longer has.
const MILLISECOND_ENDINGS: [&str; 4] = ["_ms", "_msec", "_millis", "_milliseconds"];

/// Units a pushed sample may name: (as sent, unit of the family, factor).
const PUSHED_UNITS: [(&str, &str, f64); 17] = [
    ("seconds", "seconds", 1.0),
    ("s", "seconds", 1.0),
    ("milliseconds", "seconds", 1e-3),
    ("ms", "seconds", 1e-3),
    ("microseconds", "seconds", 1e-6),
    ("us", "seconds", 1e-6),
    ("nanoseconds", "seconds", 1e-9),
    ("ns", "seconds", 1e-9),
    ("bytes", "bytes", 1.0),
    ("ratio", "ratio", 1.0),
    ("percent", "ratio", 1e-2),
    ("celsius", "celsius", 1.0),
    ("meters", "meters", 1.0),
    ("volts", "volts", 1.0),
    ("amperes", "amperes", 1.0),
    ("joules", "joules", 1.0),
    ("grams", "grams", 1.0),
];

/// Where a sample goes: the family, its unit (empty when it has none) and the factor for values.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    pub name: String,
    pub unit: &'static str,
    pub scale: f64,
}

/// The bytes of the sanitised name, all ASCII.
fn sanitized(raw: &[u8], class: u8) -> impl Iterator<Item = u8> + '_ {
    let digit = raw.first().is_some_and(u8::is_ascii_digit).then_some(b'_');
    let mut before_is_ascii = true;
    let body = raw.iter().filter_map(move |&byte| {
        let continues = matches!(byte, 0x80..=0xbf) && !before_is_ascii;
        before_is_ascii = byte.is_ascii();
        if may_hold(class, byte) {
            Some(byte)
        } else {
            (!continues).then_some(b'_')
        }
    });
    digit.into_iter().chain(body)
}

fn push_sanitized(raw: &[u8], class: u8, out: &mut String) {
    if !raw.is_ascii() {
        out.extend(sanitized(raw, class).map(char::from));
        return;
    }
    if raw.first().is_some_and(u8::is_ascii_digit) {
        out.push('_');
    }
    for part in raw.chunks(64) {
        let mut clean = [b'_'; 64];
        for (to, &byte) in clean.iter_mut().zip(part) {
            *to = if may_hold(class, byte) { byte } else { b'_' };
        }
        out.push_str(std::str::from_utf8(&clean[..part.len()]).unwrap_or_default());
    }
}

/// Appends the metric name.
pub fn sanitize_metric(raw: &[u8], out: &mut String) {
    push_sanitized(raw, METRIC, out);
}

/// Appends the label name. Reserved names are the business of [`crate::labels`].
pub fn sanitize_label(raw: &[u8], out: &mut String) {
    push_sanitized(raw, LABEL, out);
}

/// The sanitised label name byte by byte, for comparing without building it.
pub(crate) fn label_bytes(raw: &[u8]) -> impl Iterator<Item = u8> + '_ {
    sanitized(raw, LABEL)
}

/// The family a sample belongs to. `raw` is the name as it was sent, or as a mapping made it.
pub fn family(kind: Kind, raw: &[u8]) -> Family {
    let mut name = String::with_capacity(raw.len() + 8);
    let (unit, scale) = family_into(kind, raw, &mut name);
    Family { name, unit, scale }
}

/// [`family`] into a buffer of the caller; `out` is cleared first. Gives unit and scale.
pub fn family_into(kind: Kind, raw: &[u8], out: &mut String) -> (&'static str, f64) {
    out.clear();
    sanitize_metric(raw, out);
    match kind {
        Kind::Counter => {
            cut_ending(out, suffix::TOTAL);
            (unit_of(out), 1.0)
        }
        Kind::Gauge | Kind::Histogram | Kind::Distribution => (unit_of(out), 1.0),
        Kind::Timer => {
            for ending in MILLISECOND_ENDINGS {
                if cut_ending(out, ending) {
                    break;
                }
            }
            add_ending(out, "seconds");
            ("seconds", 1e-3)
        }
        Kind::Set => {
            add_ending(out, "unique");
            ("", 1.0)
        }
    }
}

/// [`family_into`] for a sample that names its unit: the family ends in the base unit, and the
/// scale converts to it. Nothing when the unit is unknown or cannot belong to the kind.
pub fn family_with_unit(
    kind: Kind,
    raw: &[u8],
    unit: &str,
    out: &mut String,
) -> Option<(&'static str, f64)> {
    if unit.is_empty() {
        return Some(family_into(kind, raw, out));
    }
    let (base, scale) = base_unit(kind, unit)?;
    // The sender's unit decides, so a timer is not taken for milliseconds.
    family_into(if kind == Kind::Timer { Kind::Histogram } else { kind }, raw, out);
    let head = out.strip_suffix(unit).and_then(|head| head.strip_suffix('_'));
    if let Some(head) = head.filter(|head| unit != base && !head.is_empty()) {
        out.truncate(head.len());
    }
    add_ending(out, base);
    Some((base, scale))
}

/// The help of a family whose sender gave none, so that no family is without.
pub const fn default_help(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "A counter, as it was sent.",
        Kind::Gauge => "A gauge, as it was sent.",
        Kind::Timer => "Durations, sent as a timer.",
        Kind::Histogram => "Values, sent as a histogram.",
        Kind::Distribution => "Values, sent as a distribution.",
        Kind::Set => "Estimated number of different members of the set in the window.",
    }
}

/// Whether a sample of this kind may name this unit; none is always right.
pub fn unit_fits(kind: Kind, unit: &str) -> bool {
    unit.is_empty() || base_unit(kind, unit).is_some()
}

/// The base unit of the family and the factor towards it.
fn base_unit(kind: Kind, unit: &str) -> Option<(&'static str, f64)> {
    let (_, base, scale) = PUSHED_UNITS.into_iter().find(|(sent, ..)| *sent == unit)?;
    let fits = kind != Kind::Set && (kind != Kind::Timer || base == "seconds");
    fits.then_some((base, scale))
}

fn cut_ending(name: &mut String, ending: &str) -> bool {
    match name.strip_suffix(ending) {
        Some(head) if !head.is_empty() => {
            name.truncate(head.len());
            true
        }
        _ => false,
    }
}

fn add_ending(name: &mut String, word: &str) {
    if !name.strip_suffix(word).is_some_and(|head| head.len() > 1 && head.ends_with('_')) {
        name.push('_');
        name.push_str(word);
    }
}

/// The unit a name ends in, or the empty text.
fn unit_of(name: &str) -> &'static str {
    let ends = |unit: &&&str| name.strip_suffix(**unit).is_some_and(|head| head.ends_with('_'));
    UNITS.iter().find(ends).copied().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_metric::name::{is_label_clean, is_metric_clean};
    use proptest::prelude::*;

    fn metric(raw: &[u8]) -> String {
        let mut out = String::new();
        sanitize_metric(raw, &mut out);
        out
    }

    #[test]
    fn other_characters_become_one_underscore_each() {
        assert_eq!(metric(b"shop.orders-paid/eu"), "shop_orders_paid_eu");
        assert_eq!(metric(b"rule:sum"), "rule:sum");
        assert_eq!(metric(b"5xx"), "_5xx");
        assert_eq!(metric("gr\u{f6}\u{df}e".as_bytes()), "gr__e");
        assert_eq!(metric(b"a\xff\x80\x80b\"c d"), "a_b_c_d");
        assert_eq!(metric(b"\x80\x81\x82"), "_");
    }

    #[test]
    fn families_follow_the_naming_table() {
        let golden = [
            (Kind::Counter, "shop.orders", "shop_orders", "", 1.0),
            (Kind::Counter, "shop.orders_total", "shop_orders", "", 1.0),
            (Kind::Counter, "_total", "_total", "", 1.0),
            (Kind::Counter, "sent_bytes_total", "sent_bytes", "bytes", 1.0),
            (Kind::Gauge, "disk_free_bytes", "disk_free_bytes", "bytes", 1.0),
            (Kind::Gauge, "depth", "depth", "", 1.0),
            (Kind::Timer, "api.time", "api_time_seconds", "seconds", 1e-3),
            (Kind::Timer, "api.time_ms", "api_time_seconds", "seconds", 1e-3),
            (Kind::Timer, "api.time.milliseconds", "api_time_seconds", "seconds", 1e-3),
            (Kind::Timer, "api_seconds", "api_seconds", "seconds", 1e-3),
            (Kind::Timer, "_seconds", "_seconds_seconds", "seconds", 1e-3),
            (Kind::Histogram, "payload_bytes", "payload_bytes", "bytes", 1.0),
            (Kind::Distribution, "price", "price", "", 1.0),
            (Kind::Set, "users", "users_unique", "", 1.0),
            (Kind::Set, "users_unique", "users_unique", "", 1.0),
        ];
        for (kind, raw, name, unit, scale) in golden {
            let expected = Family { name: name.into(), unit, scale };
            assert_eq!(family(kind, raw.as_bytes()), expected, "{kind:?} {raw}");
        }
    }

    #[test]
    fn a_pushed_unit_ends_the_name_and_sets_the_scale() {
        let golden = [
            (Kind::Histogram, "latency", "ms", "latency_seconds", Some(("seconds", 1e-3))),
            (Kind::Histogram, "latency_ms", "ms", "latency_seconds", Some(("seconds", 1e-3))),
            (Kind::Counter, "sent_total", "bytes", "sent_bytes", Some(("bytes", 1.0))),
            (Kind::Timer, "api_us", "us", "api_seconds", Some(("seconds", 1e-6))),
            (Kind::Timer, "api", "seconds", "api_seconds", Some(("seconds", 1.0))),
            (Kind::Timer, "api", "", "api_seconds", Some(("seconds", 1e-3))),
            (Kind::Gauge, "cpu", "percent", "cpu_ratio", Some(("ratio", 1e-2))),
        ];
        for (kind, raw, unit, name, expected) in golden {
            let mut out = String::new();
            assert_eq!(family_with_unit(kind, raw.as_bytes(), unit, &mut out), expected);
            assert_eq!(out, name);
        }
        let mut out = String::new();
        assert_eq!(family_with_unit(Kind::Timer, b"x", "bytes", &mut out), None);
        assert_eq!(family_with_unit(Kind::Set, b"x", "bytes", &mut out), None);
        assert_eq!(family_with_unit(Kind::Gauge, b"x", "furlongs", &mut out), None);
    }

    proptest! {
        #[test]
        fn a_sanitised_name_is_valid_stable_and_not_empty(
            raw in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let once = metric(&raw);
            prop_assert!(!once.is_empty());
            prop_assert!(is_metric_clean(once.as_bytes()), "{}", once);
            prop_assert_eq!(metric(once.as_bytes()), once);
            let mut label = String::new();
            sanitize_label(&raw, &mut label);
            prop_assert!(is_label_clean(label.as_bytes()) && !label.is_empty());
            prop_assert!(label_bytes(&raw).eq(label.bytes()));
        }

        #[test]
        fn a_family_of_a_family_is_itself(raw in "[a-z._]{1,20}", index in 0usize..6) {
            let kind = Kind::ALL[index];
            let once = family(kind, raw.as_bytes());
            if kind != Kind::Counter {
                prop_assert_eq!(&family(kind, once.name.as_bytes()).name, &once.name);
            }
        }
    }
}
