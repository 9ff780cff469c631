//! The grouping key of the Pushgateway paths: `job/J{/LABEL/VALUE}`, with `@base64` behind a name.
//!
//! Values are percent-encoded, or URL-safe base64 (with or without padding; `=` is the empty
//! value). The job may not be empty, label names must be Prometheus names that mean nothing to a
//! scraper (`le`, `__x`), no label comes twice, and `job` comes only in front.

use agent_wire::{labels, Limits};

/// What makes a group: the labels of its path, `job` among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKey {
    /// Sorted by name.
    pub labels: Vec<(String, String)>,
}

impl GroupKey {
    /// Reads what follows `/metrics/`.
    pub fn from_path(path: &str, limits: &Limits) -> Result<GroupKey, &'static str> {
        let mut parts = path.split('/');
        let mut pairs: Vec<(String, String)> = Vec::new();
        while let Some(name) = parts.next() {
            let value = match parts.next() {
                Some(value) => value,
                None if name.is_empty() && !pairs.is_empty() => break,
                None => return Err("the path must be /metrics/job/JOB{/LABEL/VALUE}"),
            };
            let (name, value) = match name.strip_suffix("@base64") {
                Some(name) => (name, base64_text(value)?),
                None => (name, percent_text(value)?),
            };
            if pairs.is_empty() && (name != "job" || value.is_empty()) {
                return Err("the path must begin with a job that is not empty");
            }
            let sound = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
            let starts = name.bytes().next().is_some_and(|c| !c.is_ascii_digit());
            if !sound || !starts || labels::is_reserved(name.as_bytes()) {
                return Err("a label name of the path is not a label name");
            }
            if pairs.iter().any(|(known, _)| known == name) {
                return Err("a label of the path comes twice");
            }
            if name.len() > limits.label_name_bytes_max
                || value.len() > limits.label_value_bytes_max
            {
                return Err("a label of the path is too long");
            }
            pairs.push((name.to_owned(), value));
            if pairs.len() > limits.labels_allowed() {
                return Err("the path has too many labels");
            }
        }
        pairs.sort();
        Ok(GroupKey { labels: pairs })
    }

    /// The key as canonical label text.
    pub fn text(&self) -> String {
        GroupKey::text_of(&self.labels)
    }

    /// Sorted pairs as canonical label text.
    pub fn text_of<N: AsRef<str>, V: AsRef<str>>(pairs: &[(N, V)]) -> String {
        let mut text = String::new();
        for (name, value) in pairs {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(name.as_ref());
            text.push_str("=\"");
            agent_metric::name::escape_label_value(value.as_ref().as_bytes(), &mut text);
            text.push('"');
        }
        text
    }

    /// Reads [`GroupKey::text`] back.
    pub fn from_text(text: &str) -> GroupKey {
        let pairs = labels::parse(text).map(|(name, value)| (name.to_owned(), value.into_owned()));
        GroupKey { labels: pairs.collect() }
    }

    pub fn has(&self, name: &str) -> bool {
        self.labels.iter().any(|(known, _)| known == name)
    }
}

/// Lines of a body that may be samples: what it costs the peer's limits.
pub fn samples_at_most(body: &[u8]) -> u64 {
    let lines = body.split(|byte| *byte == b'\n');
    lines.filter(|line| line.first().is_some_and(|first| *first != b'#')).count() as u64
}

fn percent_text(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| (digit as char).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err("the path has a broken percent escape"),
        }
    }
    String::from_utf8(bytes).map_err(|_| "a value of the path is not UTF-8")
}

/// URL-safe base64, padding optional.
fn base64_text(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "a value of the path is not URL-safe base64";
    let text = percent_text(text)?;
    let digits = text.trim_end_matches('=');
    if digits.len() % 4 == 1 || text.len() - digits.len() > 2 {
        return Err(BAD);
    }
    let mut bytes = Vec::with_capacity(digits.len());
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return Err(BAD),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    if bits != 0 {
        return Err(BAD);
    }
    String::from_utf8(bytes).map_err(|_| "a value of the path is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Result<String, &'static str> {
        GroupKey::from_path(path, &Limits::default()).map(|key| key.text())
    }

    #[test]
    fn plain_encoded_and_base64_values_are_read() {
        assert_eq!(key("job/a").as_deref(), Ok("job=\"a\""));
        assert_eq!(key("job/a/").as_deref(), Ok("job=\"a\""));
        assert_eq!(key("job/a/instance/b%20c").as_deref(), Ok("instance=\"b c\",job=\"a\""));
        assert_eq!(key("job@base64/YS9i/x/y").as_deref(), Ok("job=\"a/b\",x=\"y\""));
        assert_eq!(
            key("job/a/path@base64/L3Zhci90bXA").as_deref(),
            Ok("job=\"a\",path=\"/var/tmp\"")
        );
        assert_eq!(
            key("job/a/path@base64/L3Zhci90bXA=").as_deref(),
            Ok("job=\"a\",path=\"/var/tmp\"")
        );
        assert_eq!(key("job/a/x@base64/=").as_deref(), Ok("job=\"a\",x=\"\""));
        assert_eq!(key("job/%22%5C%0A").as_deref(), Ok("job=\"\\\"\\\\\\n\""));
    }

    #[test]
    fn what_is_no_grouping_key_is_refused() {
        let bad = [
            "job",
            "job/",
            "job//x/y",
            "job@base64/=",
            "jobs/a",
            "job/a/x",
            "job/a/x/y/job/b",
            "job/a/x/1/x/2",
            "job/a/1x/y",
            "job/a/le/y",
            "job/a/__x/y",
            "job/a/x-y/z",
            "job/a/x/%zz",
            "job/a/x/%f",
            "job/%ff",
            "job@base64/YQ+",
            "job@base64/Y",
            "job@base64/YR",
            "job/a//b",
        ];
        for path in bad {
            assert!(key(path).is_err(), "{path}");
        }
        assert!(key(&format!("job/{}", "a".repeat(5000))).is_err());
        assert!(key(&format!("job/a{}", "/x/y".repeat(100))).is_err());
    }

    #[test]
    fn the_text_of_a_key_is_read_back() {
        let path = "job/%22%5C%0A%2C/instance/a=b";
        let key = GroupKey::from_path(path, &Limits::default()).expect("a key");
        assert_eq!(GroupKey::from_text(&key.text()), key);
    }

    #[test]
    fn comments_and_empty_lines_cost_nothing() {
        assert_eq!(samples_at_most(b"# TYPE a gauge\na 1\n\nb 2"), 2);
    }
}
