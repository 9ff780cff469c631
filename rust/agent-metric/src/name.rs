//! Names: which bytes they hold, what samples add to the name of their family, how values of labels are written.
//!
//! A metric name is `[a-zA-Z_:][a-zA-Z0-9_:]*`, a label name `[a-zA-Z_][a-zA-Z0-9_]*`.

/// What samples add to the name of their family. [`crate::FamilyKind::suffixes`] says which families have which.
pub mod suffix {
    pub const TOTAL: &str = "_total";
    pub const BUCKET: &str = "_bucket";
    pub const SUM: &str = "_sum";
    pub const COUNT: &str = "_count";
    pub const CREATED: &str = "_created";
    /// All of them.
    pub const ALL: [&str; 5] = [TOTAL, BUCKET, SUM, COUNT, CREATED];
}

/// The class of bytes of a metric name.
pub const METRIC: u8 = 1;
/// The class of bytes of a label name.
pub const LABEL: u8 = 2;

/// Which names may hold a byte. Digits are in both; a leading one is handled apart.
static CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'_' {
            table[byte] = METRIC | LABEL;
        } else if b == b':' {
            table[byte] = METRIC;
        }
        byte += 1;
    }
    table
};

/// Whether names of this class may hold the byte, not counting that a digit may not be the first.
#[inline]
pub fn may_hold(class: u8, byte: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

fn is_clean(raw: &[u8], class: u8) -> bool {
    !raw.first().is_some_and(u8::is_ascii_digit) && raw.iter().all(|&byte| may_hold(class, byte))
}

/// Whether it can be a metric name as it is, if it is not empty.
pub fn is_metric_clean(raw: &[u8]) -> bool {
    is_clean(raw, METRIC)
}

/// Whether it can be a label name as it is, if it is not empty.
pub fn is_label_clean(raw: &[u8]) -> bool {
    is_clean(raw, LABEL)
}

/// The longest beginning of a text that has at most so many bytes, in whole characters.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Appends a label value: invalid UTF-8 as U+FFFD, and backslash, quote and line feed escaped.
pub fn escape_label_value(raw: &[u8], out: &mut String) {
    // Most values: ASCII with nothing to escape.
    let odd = |byte: u8| !byte.is_ascii() | (byte == b'\\') | (byte == b'"') | (byte == b'\n');
    if !raw.iter().fold(false, |found, &byte| found | odd(byte)) {
        out.push_str(std::str::from_utf8(raw).unwrap_or_default());
        return;
    }
    for chunk in raw.utf8_chunks() {
        escape_text(chunk.valid(), true, out);
        if !chunk.invalid().is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Appends text with backslash and line feed escaped, and quotes too when asked.
pub fn escape_text(text: &str, quotes: bool, out: &mut String) {
    let mut rest = text;
    while let Some(at) = memchr::memchr3(b'\\', b'\n', b'"', rest.as_bytes()) {
        let (plain, from) = rest.split_at(at);
        out.push_str(plain);
        match from.as_bytes()[0] {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            _ if quotes => out.push_str("\\\""),
            _ => out.push('"'),
        }
        rest = &from[1..];
    }
    out.push_str(rest);
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped_and_made_utf8() {
        let mut out = String::new();
        escape_label_value(b"a\\b\"c\nd\xffe", &mut out);
        assert_eq!(out, "a\\\\b\\\"c\\nd\u{fffd}e");
    }

    #[test]
    fn a_text_is_cut_at_a_character() {
        assert_eq!((cut("ab", 2), cut("a\u{e9}b", 2), cut("\u{e9}", 1)), ("ab", "a", ""));
    }

    #[test]
    fn a_name_begins_with_no_digit_and_only_metrics_have_colons() {
        assert!(is_metric_clean(b"a:b_9") && is_metric_clean(b":") && is_label_clean(b"_a9"));
        for bad in ["9a", "a-b", "a b", "\u{e9}"] {
            assert!(!is_metric_clean(bad.as_bytes()) && !is_label_clean(bad.as_bytes()), "{bad}");
        }
        assert!(!is_label_clean(b"a:b"));
    }
}
