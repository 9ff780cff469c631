//! Why an input was refused. One variant per reason; [`Reject::as_str`] is the value of the label
//! `reason` in the ledger, so the words are part of the public interface.
//!
//! What happens to bad input, decided once for all codecs:
//!
//! | input | result |
//! |---|---|
//! | empty line, line of only `\r` | skipped by framing, not counted as received |
//! | line longer than `line_bytes_max` | skipped to the next line end, once `line_too_long` |
//! | half a line, then the connection breaks | `line_incomplete` (its number may be cut short) |
//! | no `:`, or `\|` before it; nothing between `:` and `\|` | `value_missing` |
//! | `:` first | `name_empty`; a control byte in a name (binary noise, newline): `name_malformed` |
//! | quote, blank, non-ASCII or invalid UTF-8 in a name | kept, becomes `_` (see [`crate::name`]) |
//! | invalid UTF-8 in a label value | kept, the bad bytes become U+FFFD |
//! | no `\|` after the value | `type_missing`; other than c, C, m, g, ms, h, d, s: `type_unknown` |
//! | `abc`, `1_0`, `0x10`, `1.2.3`, blanks around a number | `value_malformed` |
//! | `nan`, `inf`, `infinity` in any case, signed or not | `value_not_finite` for every type |
//! | `1e400` (finite text beyond f64) | `value_out_of_range` |
//! | counter increment (after its rate) of 2^63 or more | `value_out_of_range`: no cell holds it |
//! | blanks, tabs, NUL bytes at the end of a line; an empty packed value; a bad date of an event | passed over |
//! | gauge, histogram up to 1.797e308 | accepted |
//! | `1e-400` | accepted as 0 |
//! | negative counter or timer | `value_negative`; negative gauge shift, histogram: accepted |
//! | rate 0 | `rate_zero`; a rate below `rate_min` (1e-6), such as 1e-9: `rate_too_small` |
//! | rate above 1, negative or NaN, or not a number | `rate_above_one`, `rate_malformed` |
//! | rate on a gauge or a set | checked, then ignored, as StatsD does |
//! | unknown `\|x` field, unknown cardinality | skipped; empty tags are skipped |
//! | duplicate tag, after sanitising | the last one wins |
//! | `\|T` that is not whole positive seconds | `timestamp_malformed` |

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)+) => {
        /// One reason for one refusal. `self as usize` is an index into [`Reject::ALL`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reject { $($(#[$doc])* $variant,)+ }

        impl Reject {
            /// Every reason, in the order of its index: for tables of counters.
            pub const ALL: &'static [Reject] = &[$(Reject::$variant,)+];

            /// The reason in snake_case, stable across versions.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reject::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    /// A line without a byte was handed to the parser.
    LineEmpty => "line_empty",
    /// The line is longer than `line_bytes_max`.
    LineTooLong => "line_too_long",
    /// The stream ended in the middle of a line.
    LineIncomplete => "line_incomplete",
    /// There is no name, or nothing is left of it after sanitising.
    NameEmpty => "name_empty",
    /// The name is longer than `name_bytes_max`.
    NameTooLong => "name_too_long",
    /// The name holds a control byte, or is not of the type it must have.
    NameMalformed => "name_malformed",
    /// No type was given.
    TypeMissing => "type_missing",
    /// The type is none of those we know.
    TypeUnknown => "type_unknown",
    /// No value was given.
    ValueMissing => "value_missing",
    /// The value is not a number, or not of the type it must have.
    ValueMalformed => "value_malformed",
    /// The value is NaN or infinite.
    ValueNotFinite => "value_not_finite",
    /// The value does not fit: beyond f64, or a counter would reach 2^63, or a sum could become infinite.
    ValueOutOfRange => "value_out_of_range",
    /// A counter or timer value is below zero.
    ValueNegative => "value_negative",
    /// A member of a set is longer than `set_value_bytes_max`.
    ValueTooLong => "value_too_long",
    /// More than `values_max` values in one sample.
    ValuesTooMany => "values_too_many",
    /// The sample rate is not a number, negative or NaN.
    RateMalformed => "rate_malformed",
    /// The sample rate is 0.
    RateZero => "rate_zero",
    /// The sample rate is below `rate_min`.
    RateTooSmall => "rate_too_small",
    /// The sample rate is above 1.
    RateAboveOne => "rate_above_one",
    /// The time stamp is not a whole number of seconds above 0.
    TimestampMalformed => "timestamp_malformed",
    /// A time stamp where none is allowed (Pushgateway bodies).
    TimestampRefused => "timestamp_refused",
    /// More than `labels_max` labels.
    LabelsTooMany => "labels_too_many",
    /// Labels are not of the form they must have.
    LabelsMalformed => "labels_malformed",
    /// A label name is longer than `label_name_bytes_max`.
    LabelNameTooLong => "label_name_too_long",
    /// A label value is longer than `label_value_bytes_max`.
    LabelValueTooLong => "label_value_too_long",
    /// An event line is not of the form `_e{n,m}:title|text...`.
    EventMalformed => "event_malformed",
    /// A service check line is not of the form `_sc|name|status...`.
    CheckMalformed => "check_malformed",
    /// An event or service check is longer than `event_bytes_max`.
    EventTooLong => "event_too_long",
    /// The token of `_ack|TOKEN` is empty, longer than 64 bytes or not printable ASCII.
    AckMalformed => "ack_malformed",
    /// The unit is unknown, or does not fit the type.
    UnitUnknown => "unit_unknown",
    /// The help text is not a string.
    HelpMalformed => "help_malformed",
    /// The sample has a key we do not know.
    FieldUnknown => "field_unknown",
    /// The sample has a key twice, or both `value` and `values`.
    FieldRepeated => "field_repeated",
    /// The sample is not a JSON object, or not JSON at all.
    JsonMalformed => "json_malformed",
    /// The JSON is nested deeper than `json_depth_max`.
    JsonTooDeep => "json_too_deep",
    /// The body has more than `body_samples_max` samples.
    SamplesTooMany => "samples_too_many",
    /// A line of Prometheus text breaks the grammar, or its families contradict each other.
    TextMalformed => "text_malformed",
    /// A mapping rule says `drop`.
    MappingDrop => "mapping_drop",
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Reject {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_at_its_own_index_and_its_word_is_unique_snake_case() {
        for (index, reason) in Reject::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let word = reason.as_str();
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{word}");
            let same = Reject::ALL.iter().filter(|other| other.as_str() == word).count();
            assert_eq!(same, 1, "{word}");
        }
    }
}
