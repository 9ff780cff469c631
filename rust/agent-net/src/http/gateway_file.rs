//! The file of one group: five lines of header, then Prometheus text with complete labels.
//!
//! ```text
//! agent-gateway 1
//! key instance="b",job="a"
//! created_unix_ms 1700000000000
//! pushed_s 1700000000.123
//! failed_s 0
//! # FIRST x 1700000000000
//! # TYPE x counter
//! x{instance="b",job="a"} 3
//! ```
//!
//! A file of another version is not read and not touched. The name is a hash of the key, so nothing
//! that came over the wire is ever part of a path; the key in the file tells two groups apart.

use std::collections::HashMap;
use std::hash::Hasher;

use agent_metric::{FamilyHead, FamilyKind, FamilyVisitor, Piece};
use agent_wire::exposition::Encoder;
use agent_wire::prometheus_text;
use agent_wire::Format;
use agent_wire::{number, Limits};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::gateway_created;
use super::gateway_group::{label_text, Family, Group, Pushed};
use super::gateway_path::GroupKey;

pub const SUFFIX: &str = ".group";
const FIRST_LINE: &str = "agent-gateway 1";
/// A comment to whoever does not know it: since when the group has a family.
const FIRST: &str = "# FIRST ";

/// The name of a group's file.
pub fn name_of(key: &GroupKey) -> String {
    let mut hasher = SipHasher13::new_with_keys(0x6167_656e, 0x7467_726f_7570);
    hasher.write(key.text().as_bytes());
    format!("{:032x}{SUFFIX}", hasher.finish128().as_u128())
}

/// The text of a group, without the families called `left_out`.
pub fn encode(group: &Group, left_out: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let header = format!(
        "{FIRST_LINE}\nkey {}\ncreated_unix_ms {}\npushed_s {}\nfailed_s {}\n",
        group.key.text(),
        group.created_unix_ms,
        group.pushed_s,
        group.failed_s
    );
    out.extend_from_slice(header.as_bytes());
    for family in &group.families {
        if left_out.contains(&family.name.as_str()) {
            continue;
        }
        out.extend_from_slice(
            format!("{FIRST}{} {}\n", family.name, family.first_unix_ms).as_bytes(),
        );
        encode_family(family, &mut out);
        if let Some(times) = gateway_created::unfold(family) {
            encode_family(&times, &mut out);
        }
    }
    out
}

fn encode_family(family: &Family, out: &mut Vec<u8>) {
    let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
    if !help.is_empty() {
        out.extend_from_slice(format!("# HELP {} {help}\n", family.name).as_bytes());
    }
    let word = type_word(family.kind);
    out.extend_from_slice(format!("# TYPE {} {word}\n", family.name).as_bytes());
    // As "unknown", so that the name stays as it was pushed.
    let kind = match family.kind {
        FamilyKind::Histogram | FamilyKind::Summary => family.kind,
        _ => FamilyKind::Unknown,
    };
    let mut encoder = Encoder::new(Format::Text004);
    let head = FamilyHead { name: &family.name, help: "", unit: "", kind, is_native: false };
    encoder.family(&head, Piece::All, &mut Vec::new());
    family.series.iter().for_each(|series| encoder.sample(&series.sample(kind), out));
}

fn type_word(kind: FamilyKind) -> &'static str {
    match kind {
        FamilyKind::Counter | FamilyKind::BareCounter => "counter",
        FamilyKind::Gauge => "gauge",
        FamilyKind::Histogram => "histogram",
        FamilyKind::Summary => "summary",
        FamilyKind::Unknown => "untyped",
    }
}

/// Reads [`encode`]'s text back.
pub fn decode(text: &[u8]) -> Result<Group, &'static str> {
    let mut rest = text;
    if next_line(&mut rest)? != FIRST_LINE {
        return Err("not a group of this version");
    }
    let mut field = |name: &str| {
        next_line(&mut rest)?.strip_prefix(name).ok_or("the header of the group is broken")
    };
    let key = GroupKey::from_text(field("key ")?);
    let broken = "a number in the header of the group is broken";
    let seconds = |text: &str| number::parse_f64(text.as_bytes()).map_err(|_| broken);
    let created = field("created_unix_ms ")?;
    let created_unix_ms = number::parse_u64(created.as_bytes()).ok_or(broken)?;
    let pushed_s = seconds(field("pushed_s ")?)?;
    let failed_s = seconds(field("failed_s ")?)?;
    if !key.has("job") {
        return Err("the group has no job");
    }
    // The limits were applied when it was pushed; those in force now may be others.
    let limits = Limits {
        name_bytes_max: 1 << 20,
        labels_max: agent_wire::limits::LABELS_CAP,
        label_name_bytes_max: 1 << 20,
        label_value_bytes_max: 1 << 20,
        body_samples_max: 10_000_000,
        help_bytes_max: 1 << 20,
        line_bytes_max: 16 << 20,
        ..Limits::default()
    };
    let parsed = prometheus_text::parse(rest, &limits).map_err(|_| "the text is broken")?;
    let first = first_times(rest);
    let families = parsed.into_iter().map(|family| Family {
        first_unix_ms: first.get(family.name.as_ref()).copied().unwrap_or(created_unix_ms),
        name: family.name.into_owned(),
        help: family.help,
        kind: family.kind,
        series: family
            .series
            .into_iter()
            .map(|series| Pushed {
                has_plain_bounds: series.has_plain_bounds,
                ..Pushed::new(label_text(&series.labels, &key), series.value)
            })
            .collect(),
    });
    let families = gateway_created::fold(families.collect());
    Ok(Group { key, created_unix_ms, families, pushed_s, failed_s })
}

fn first_times(text: &[u8]) -> HashMap<&str, u64> {
    let lines =
        text.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(FIRST.as_bytes()));
    lines
        .filter_map(|line| {
            let (name, time) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            Some((name, number::parse_u64(time.as_bytes())?))
        })
        .collect()
}

fn next_line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, &'static str> {
    const SHORT: &str = "the header of the group is cut short";
    let end = memchr::memchr(b'\n', rest).ok_or(SHORT)?;
    let line = std::str::from_utf8(&rest[..end]).map_err(|_| SHORT)?;
    *rest = &rest[end + 1..];
    Ok(line)
}
