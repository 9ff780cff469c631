//! Numbers as text, both ways.
//!
//! Reading: decimal floats with an optional sign and exponent; up to 15 digits without an exponent
//! never reach the general parser. Writing: the shortest text that reads back to the same value.
//! `le` and `quantile` values are written as Go and OpenMetrics do (`0.5`, `1.0`, `1e+06`), so that
//! a bucket has one name in every format.
//!
//! Not promised: no hexadecimal, no digit separators, no blanks, no locale.

use crate::Reject;

/// Powers of ten that are exact in an f64.
const POWERS: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Digits whose value is always below 2^53, so that integer and power are exact and one division
/// rounds correctly.
const FAST_DIGITS: usize = 15;

/// Reads a finite float that fills the whole text.
///
/// `value_missing` when empty, `value_not_finite` for the words nan and inf, `value_out_of_range`
/// beyond f64, `value_malformed` for the rest.
#[inline]
pub fn parse_f64(text: &[u8]) -> Result<f64, Reject> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
        None => return Err(Reject::ValueMissing),
    };
    let mut mantissa = 0u64;
    let mut seen = 0usize;
    let mut fraction = 0usize;
    let mut dot = false;
    if digits.len() > FAST_DIGITS + 1 {
        return parse_slow(text);
    }
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            mantissa = mantissa * 10 + u64::from(digit);
            seen += 1;
            fraction += usize::from(dot);
        } else if byte == b'.' && !dot {
            dot = true;
        } else {
            return parse_slow(text);
        }
    }
    if seen == 0 || seen > FAST_DIGITS {
        return parse_slow(text);
    }
    let value = mantissa as f64;
    let value = if fraction == 0 { value } else { value / POWERS[fraction] };
    Ok(if negative { -value } else { value })
}

/// The general case, and the reason when it is no number.
#[cold]
#[inline(never)]
fn parse_slow(text: &[u8]) -> Result<f64, Reject> {
    let unsigned = match text.first() {
        Some(b'-' | b'+') => &text[1..],
        _ => text,
    };
    if [&b"nan"[..], b"inf", b"infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return Err(Reject::ValueNotFinite);
    }
    let value: f64 = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Reject::ValueMalformed)?;
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Reject::ValueOutOfRange)
    }
}

/// Reads a float that may be infinite or NaN, as Prometheus text allows.
pub fn parse_f64_any(text: &[u8]) -> Result<f64, Reject> {
    match parse_f64(text) {
        Err(Reject::ValueNotFinite) => std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or(Reject::ValueMalformed),
        other => other,
    }
}

/// Reads an unsigned whole number that fills the whole text; nothing when it does not fit.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Appends a whole number.
#[inline]
pub fn write_u64(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a sample value: whole numbers below 2^53 without a point, the rest in shortest form.
#[inline]
pub fn write_f64(value: f64, out: &mut Vec<u8>) {
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    if value.abs() < WHOLE && value.trunc() == value && !(value == 0.0 && value.is_sign_negative())
    {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
}

/// Appends the value of an `le` or `quantile` label in canonical form.
pub fn write_bound(value: f64, out: &mut Vec<u8>) {
    if !value.is_finite() || value == 0.0 {
        let text: &[u8] = match value {
            v if v.is_nan() => b"NaN",
            0.0 => b"0.0",
            v if v > 0.0 => b"+Inf",
            _ => b"-Inf",
        };
        out.extend_from_slice(text);
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    if let Some((mantissa, exponent)) = text.split_once('e') {
        let exponent: i32 = exponent.parse().unwrap_or(0);
        out.extend_from_slice(mantissa.as_bytes());
        write_exponent(exponent, out);
    } else if (1e-4..1e6).contains(&value.abs()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        write_scientific(text, out);
    }
}

/// As Go's Prometheus libraries write it in text: `1`, not `1.0`.
pub fn write_plain_bound(value: f64, out: &mut Vec<u8>) {
    write_bound(value, out);
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

/// `1234567.0` -> `1.234567e+06`, `0.000012` -> `1.2e-05`.
fn write_scientific(text: &str, out: &mut Vec<u8>) {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if unsigned.len() < text.len() {
        out.push(b'-');
    }
    let digits = || whole.bytes().chain(fraction.bytes());
    let zeros = digits().take_while(|&digit| digit == b'0').count();
    let behind = digits().rev().take_while(|&digit| digit == b'0').count();
    let end = (whole.len() + fraction.len()).saturating_sub(behind);
    for (at, digit) in digits().enumerate().take(end).skip(zeros) {
        if at == zeros + 1 {
            out.push(b'.');
        }
        out.push(digit);
    }
    write_exponent(whole.len() as i32 - 1 - zeros as i32, out);
}

/// A sign and at least two digits, as Go writes exponents.
fn write_exponent(exponent: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    if exponent.unsigned_abs() < 10 {
        out.push(b'0');
    }
    write_u64(u64::from(exponent.unsigned_abs()), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: f64, write: fn(f64, &mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(value, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn sample_values_have_one_shortest_text() {
        let golden = [
            (0.0, "0"),
            (-0.0, "-0.0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (1e-7, "1e-7"),
            (123_456_789.0, "123456789"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992.0"),
            (1e300, "1e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ];
        for (value, text) in golden {
            assert_eq!(written(value, write_f64), text);
        }
    }

    #[test]
    fn bounds_are_written_as_openmetrics_lists_them() {
        let golden = [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (10.0, "10.0"),
            (2.5, "2.5"),
            (0.005, "0.005"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000012, "1.2e-05"),
            (-0.00005, "-5e-05"),
            (999_999.5, "999999.5"),
            (-10_000_000.5, "-1.00000005e+07"),
            (1e-10, "1e-10"),
            (1.25e-7, "1.25e-07"),
            (100_000.0, "100000.0"),
            (123_456.5, "123456.5"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1e22, "1e+22"),
            (-1.0, "-1.0"),
            (f64::INFINITY, "+Inf"),
        ];
        for (value, text) in golden {
            assert_eq!(written(value, write_bound), text);
        }
    }

    #[test]
    fn what_is_no_finite_number_is_refused_with_its_reason() {
        let cases: [(&str, Reject); 22] = [
            ("", Reject::ValueMissing),
            ("-", Reject::ValueMalformed),
            ("+", Reject::ValueMalformed),
            (".", Reject::ValueMalformed),
            ("+-1", Reject::ValueMalformed),
            ("--1", Reject::ValueMalformed),
            ("abc", Reject::ValueMalformed),
            ("1_0", Reject::ValueMalformed),
            ("0x10", Reject::ValueMalformed),
            ("1.2.3", Reject::ValueMalformed),
            (" 1", Reject::ValueMalformed),
            ("1 ", Reject::ValueMalformed),
            ("1e", Reject::ValueMalformed),
            ("1e5e5", Reject::ValueMalformed),
            ("nan", Reject::ValueNotFinite),
            ("NaN", Reject::ValueNotFinite),
            ("-nan", Reject::ValueNotFinite),
            ("inf", Reject::ValueNotFinite),
            ("-Infinity", Reject::ValueNotFinite),
            ("+INF", Reject::ValueNotFinite),
            ("1e400", Reject::ValueOutOfRange),
            ("-1e999", Reject::ValueOutOfRange),
        ];
        for (text, reason) in cases {
            assert_eq!(parse_f64(text.as_bytes()), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn infinities_and_nan_are_read_where_they_are_allowed() {
        assert_eq!(parse_f64_any(b"+Inf"), Ok(f64::INFINITY));
        assert_eq!(parse_f64_any(b"-inf"), Ok(f64::NEG_INFINITY));
        assert!(parse_f64_any(b"NaN").is_ok_and(f64::is_nan));
        assert_eq!(parse_f64_any(b"x"), Err(Reject::ValueMalformed));
    }

    #[test]
    fn whole_numbers_stop_at_64_bits() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b""), None);
        assert_eq!(parse_u64(b"-1"), None);
        assert_eq!(parse_u64(b"000000000000000000001"), None);
    }

    proptest! {
        #[test]
        fn any_finite_value_survives_writing_and_reading(value in proptest::num::f64::NORMAL
            | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO) {
            for write in [write_f64, write_bound] {
                let text = written(value, write);
                prop_assert_eq!(parse_f64(text.as_bytes()), Ok(value), "{}", text);
            }
        }

        #[test]
        fn decimal_text_reads_as_the_standard_library_reads_it(
            text in "[+-]?[0-9]{0,17}(\\.[0-9]{0,17})?(e[+-]?[0-9]{1,3})?",
        ) {
            let theirs: Option<f64> = text.parse().ok().filter(|v: &f64| v.is_finite());
            prop_assert_eq!(parse_f64(text.as_bytes()).ok(), theirs, "{}", text);
        }

        #[test]
        fn any_bytes_read_as_the_standard_library_reads_them(
            bytes in proptest::collection::vec(any::<u8>(), 0..24),
        ) {
            let theirs = std::str::from_utf8(&bytes).ok().and_then(|t| t.parse::<f64>().ok());
            prop_assert_eq!(parse_f64(&bytes).ok(), theirs.filter(|v| v.is_finite()));
        }
    }
}
