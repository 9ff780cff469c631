//! Metrics out: protobuf, `io.prometheus.client.MetricFamily`, each message behind its length.
//!
//! The third form of a page, the only one that has native histograms. Written by hand: few fields, no dependency.
//!
//! ```text
//! page          { varint length, MetricFamily }
//! MetricFamily  1 name, 2 help, 3 type, 4 metric*, 5 unit
//! Metric        1 label* {1 name, 2 value}, 2 gauge, 3 counter, 4 summary, 5 untyped {1 value}, 7 histogram
//! Counter       1 value, 3 created
//! Summary       1 count, 2 sum, 3 quantile* {1 quantile, 2 value}, 4 created
//! Histogram     1 count, 2 sum, 3 bucket* {1 cumulative count, 2 upper bound}, 15 created
//!   native      5 schema, 6 zero threshold, 7 zero count, 9 and 12 spans, 10 and 13 deltas (negative, positive)
//! created       1 seconds, 2 nanoseconds
//! ```
//!
//! A counter is called `x_total`, as in text. A native histogram has the buckets of its cells, whole, and the ladder of
//! the text formats as classic buckets beside them, for a reader that knows no native ones. Its zero bucket is what is not
//! above 2^-64 in magnitude; values above 2^64 are in the one bucket above that.
//!
//! Limits: a family is one message, whose length stands in front of it, so one family is held in memory. Families
//! without a series are not written. Not promised: exemplars, time stamps, gauge histograms; names and label text are not
//! checked again.

use agent_metric::bounds;
use agent_metric::name::suffix;
use agent_metric::octave::{self, Place};
use agent_metric::{FamilyHead, FamilyKind, FamilyVisitor, Piece, Sample, SampleValue};

use crate::labels;

const VARINT: u8 = 0;
const DOUBLE: u8 = 1;
const BYTES: u8 = 2;

/// Two spans with at most so many empty buckets between them cost more than one with zeros in it.
const GAP_MAX: i32 = 2;

/// Writes one page.
#[derive(Debug, Clone)]
pub struct Encoder {
    kind: FamilyKind,
    is_native: bool,
    /// Name, help, type and unit of the family that is open.
    head: Vec<u8>,
    /// Its metrics.
    body: Vec<u8>,
    labels: Vec<u8>,
    value: Vec<u8>,
    coarse: Vec<(f64, u64)>,
}

impl Default for Encoder {
    fn default() -> Encoder {
        let empty = Vec::new;
        let (head, body, labels, value, coarse) = (empty(), empty(), empty(), empty(), Vec::new());
        let (kind, is_native) = (FamilyKind::Unknown, false);
        Encoder { kind, is_native, head, body, labels, value, coarse }
    }
}

impl FamilyVisitor for Encoder {
    /// Writes the family before.
    fn family(&mut self, family: &FamilyHead<'_>, _piece: Piece, out: &mut Vec<u8>) {
        let FamilyHead { name, help, unit, kind, is_native } = *family;
        self.is_native = is_native;
        self.close(out);
        self.kind = kind;
        let suffix = if kind == FamilyKind::Counter { suffix::TOTAL } else { "" };
        tag(1, BYTES, &mut self.head);
        varint((name.len() + suffix.len()) as u64, &mut self.head);
        self.head.extend_from_slice(name.as_bytes());
        self.head.extend_from_slice(suffix.as_bytes());
        if !help.is_empty() {
            bytes(2, help.as_bytes(), &mut self.head);
        }
        let code = match kind {
            FamilyKind::Counter | FamilyKind::BareCounter => 0,
            FamilyKind::Gauge => 1,
            FamilyKind::Summary => 2,
            FamilyKind::Unknown => 3,
            FamilyKind::Histogram => 4,
        };
        whole(3, code, &mut self.head);
        if name.strip_suffix(unit).is_some_and(|head| !unit.is_empty() && head.ends_with('_')) {
            bytes(5, unit.as_bytes(), &mut self.head);
        }
    }

    fn sample(&mut self, sample: &Sample<'_>, _out: &mut Vec<u8>) {
        let Sample { labels, created_unix_ms: created, .. } = *sample;
        match sample.value {
            SampleValue::Counter { whole, fraction } => {
                self.counter(labels, whole, fraction, created);
            }
            SampleValue::Number(value) => self.number(labels, None, value),
            SampleValue::OfProcess { pid, twin, value } => {
                self.number(labels, Some((pid, twin)), value);
            }
            SampleValue::Histogram { buckets, sum } => {
                self.histogram(labels, buckets, sum, created);
            }
            SampleValue::Native { schema, buckets, sum } if self.is_native => {
                self.native(labels, schema, buckets, sum, created);
            }
            SampleValue::Native { buckets, sum, .. } => {
                let mut coarse = std::mem::take(&mut self.coarse);
                bounds::onto_ladder(buckets, &mut coarse);
                self.histogram(labels, &coarse, sum, created);
                self.coarse = coarse;
            }
            SampleValue::Summary { quantiles, sum, count } => {
                self.summary(labels, quantiles, sum, count, created);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
    }
}

impl Encoder {
    fn close(&mut self, out: &mut Vec<u8>) {
        if !self.body.is_empty() {
            varint((self.head.len() + self.body.len()) as u64, out);
            out.extend_from_slice(&self.head);
            out.append(&mut self.body);
        }
        self.head.clear();
    }

    fn counter(&mut self, text: &[u8], total: u64, fraction: f64, created: Option<u64>) {
        self.value.clear();
        double(1, total as f64 + fraction, &mut self.value);
        if self.kind == FamilyKind::Counter {
            write_created(3, created, &mut self.value);
        }
        self.metric(text, None, 3);
    }

    fn number(&mut self, text: &[u8], process: Option<(u32, Option<u16>)>, value: f64) {
        self.value.clear();
        double(1, value, &mut self.value);
        let field = match self.kind {
            FamilyKind::Gauge => 2,
            FamilyKind::BareCounter => 3,
            _ => 5,
        };
        self.metric(text, process, field);
    }

    fn histogram(&mut self, text: &[u8], buckets: &[(f64, u64)], sum: f64, created: Option<u64>) {
        self.value.clear();
        classic(buckets, sum, &mut self.value);
        write_created(15, created, &mut self.value);
        self.metric(text, None, 7);
    }

    fn native(
        &mut self,
        text: &[u8],
        schema: u8,
        fine: &[(f64, u64)],
        sum: f64,
        created: Option<u64>,
    ) {
        let value = &mut self.value;
        value.clear();
        bounds::onto_ladder(fine, &mut self.coarse);
        classic(&self.coarse, sum, value);
        let indexed = indexed(schema, fine);
        tag(5, VARINT, value);
        varint(zigzag(i64::from(schema)), value);
        double(6, octave::SMALLEST, value);
        whole(7, indexed.zero, value);
        sparse(9, 10, &indexed.negative, value);
        sparse(12, 13, &indexed.positive, value);
        write_created(15, created, value);
        self.metric(text, None, 7);
    }

    fn summary(
        &mut self,
        text: &[u8],
        quantiles: &[(f64, f64)],
        sum: f64,
        count: u64,
        created: Option<u64>,
    ) {
        let out = &mut self.value;
        out.clear();
        whole(1, count, out);
        double(2, sum, out);
        for &(quantile, value) in quantiles {
            tag(3, BYTES, out);
            varint(18, out);
            double(1, quantile, out);
            double(2, value, out);
        }
        write_created(4, created, out);
        self.metric(text, None, 4);
    }

    /// The metric whose value stands in `self.value`.
    fn metric(&mut self, text: &[u8], process: Option<(u32, Option<u16>)>, field: u32) {
        self.labels.clear();
        for (name, value) in labels::parse(std::str::from_utf8(text).unwrap_or_default()) {
            label(name, value.as_bytes(), &mut self.labels);
        }
        if let Some((pid, twin)) = process {
            let pid = match twin {
                Some(slot) => format!("{pid}@{slot}"),
                None => pid.to_string(),
            };
            label("pid", pid.as_bytes(), &mut self.labels);
        }
        let value = 1 + varint_bytes(self.value.len() as u64) + self.value.len();
        tag(4, BYTES, &mut self.body);
        varint((self.labels.len() + value) as u64, &mut self.body);
        self.body.extend_from_slice(&self.labels);
        bytes(field, &self.value, &mut self.body);
    }
}

/// The fields of a histogram that every reader knows.
fn classic(buckets: &[(f64, u64)], sum: f64, out: &mut Vec<u8>) {
    let total = buckets.iter().fold(0u64, |total, (_, inside)| total.saturating_add(*inside));
    whole(1, total, out);
    double(2, sum, out);
    let mut below = 0u64;
    for &(upper, inside) in buckets {
        below = below.saturating_add(inside);
        tag(3, BYTES, out);
        varint((10 + varint_bytes(below)) as u64, out);
        whole(1, below, out);
        double(2, upper, out);
    }
}

/// Buckets by the index of the native model: bucket `i` is up to `2^(i / 2^schema)`.
struct Indexed {
    zero: u64,
    /// Ascending, none empty.
    positive: Vec<(i32, u64)>,
    negative: Vec<(i32, u64)>,
}

fn indexed(schema: u8, fine: &[(f64, u64)]) -> Indexed {
    let mut found = Indexed { zero: 0, positive: Vec::new(), negative: Vec::new() };
    for &(upper, count) in fine.iter().filter(|(_, count)| *count > 0) {
        if upper < 0.0 {
            // The bound that is given is the one nearer to zero; the index is that of the other.
            found.negative.push((index_of(-upper, schema) + 1, count));
        } else if upper <= octave::SMALLEST {
            found.zero = found.zero.saturating_add(count);
        } else {
            found.positive.push((index_of(upper, schema), count));
        }
    }
    found.negative.reverse();
    found
}

/// The index of the bucket whose upper bound this magnitude is.
fn index_of(bound: f64, schema: u8) -> i32 {
    match octave::place(bound, schema) {
        Place::Zero => octave::OCTAVE_MIN << schema,
        Place::Bucket { octave, index, .. } => {
            ((octave as i32 + octave::OCTAVE_MIN) << schema) + index as i32 + 1
        }
        Place::Over { .. } => ((octave::OCTAVE_MAX + 1) << schema) + 1,
    }
}

/// Spans of neighbouring buckets, and their counts as differences.
fn sparse(spans_field: u32, deltas_field: u32, buckets: &[(i32, u64)], out: &mut Vec<u8>) {
    let mut deltas = Vec::new();
    let mut spans: Vec<(i32, u32)> = Vec::new();
    let (mut next, mut before) = (0, 0i64);
    for &(index, count) in buckets {
        let gap = index - next;
        match spans.last_mut() {
            Some(span) if gap <= GAP_MAX => {
                for _ in 0..gap {
                    varint(zigzag(-before), &mut deltas);
                    before = 0;
                }
                span.1 += gap as u32 + 1;
            }
            _ => spans.push((gap, 1)),
        }
        varint(zigzag((count as i64).wrapping_sub(before)), &mut deltas);
        (before, next) = (count as i64, index + 1);
    }
    for (offset, length) in spans {
        let (offset, length) = (zigzag(i64::from(offset)), u64::from(length));
        tag(spans_field, BYTES, out);
        varint((2 + varint_bytes(offset) + varint_bytes(length)) as u64, out);
        whole(1, offset, out);
        whole(2, length, out);
    }
    if !deltas.is_empty() {
        bytes(deltas_field, &deltas, out);
    }
}

fn label(name: &str, value: &[u8], out: &mut Vec<u8>) {
    let sizes = [name.len(), value.len()].map(|len| 1 + varint_bytes(len as u64) + len);
    tag(1, BYTES, out);
    varint((sizes[0] + sizes[1]) as u64, out);
    bytes(1, name.as_bytes(), out);
    bytes(2, value, out);
}

fn write_created(field: u32, created_unix_ms: Option<u64>, out: &mut Vec<u8>) {
    let Some(ms) = created_unix_ms else { return };
    let (seconds, nanos) = (ms / 1000, ms % 1000 * 1_000_000);
    tag(field, BYTES, out);
    varint((2 + varint_bytes(seconds) + varint_bytes(nanos)) as u64, out);
    whole(1, seconds, out);
    whole(2, nanos, out);
}

fn tag(field: u32, wire: u8, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | u32::from(wire)), out);
}

fn whole(field: u32, value: u64, out: &mut Vec<u8>) {
    tag(field, VARINT, out);
    varint(value, out);
}

fn double(field: u32, value: f64, out: &mut Vec<u8>) {
    tag(field, DOUBLE, out);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    tag(field, BYTES, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Signed numbers so that small ones are short.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Counts by index, back from spans and deltas.
    fn back(out: &[u8]) -> Vec<(i32, u64)> {
        fn read(out: &mut &[u8]) -> u64 {
            let end = out.iter().position(|byte| *byte < 0x80).expect("a last byte") + 1;
            let (head, rest) = out.split_at(end);
            *out = rest;
            head.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
        }
        let signed = |value: u64| (value >> 1) as i64 ^ -((value & 1) as i64);
        let (mut rest, mut spans, mut deltas) = (out, Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (field, length) = (read(&mut rest) >> 3, read(&mut rest) as usize);
            let (mut inner, behind) = rest.split_at(length);
            rest = behind;
            if field == 12 {
                assert_eq!(read(&mut inner), 8);
                let offset = signed(read(&mut inner));
                assert_eq!(read(&mut inner), 16);
                spans.push((offset as i32, read(&mut inner)));
            }
            while field == 13 && !inner.is_empty() {
                deltas.push(signed(read(&mut inner)));
            }
        }
        let (mut at, mut count, mut deltas) = (0, 0i64, deltas.into_iter());
        let mut found = Vec::new();
        for (offset, length) in spans {
            at += offset;
            for _ in 0..length {
                count += deltas.next().expect("a delta");
                found.push((at, count as u64));
                at += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        found.retain(|(_, count)| *count > 0);
        found
    }

    proptest! {
        #[test]
        fn spans_and_deltas_give_the_buckets_back(
            counts in proptest::collection::btree_map(-600i32..600, 1u64..1 << 40, 0..40),
        ) {
            let buckets: Vec<(i32, u64)> = counts.into_iter().collect();
            let mut out = Vec::new();
            sparse(12, 13, &buckets, &mut out);
            prop_assert_eq!(back(&out), buckets);
        }

        /// Every value lies in the bucket of its index, of both signs.
        #[test]
        fn the_index_is_that_of_the_native_model(
            value in prop_oneof![1e-6..1e9f64, Just(1.0), Just(2.0), Just(0.5)],
            negative: bool,
            schema in 0..=octave::SCHEMA_MAX,
        ) {
            let signed = if negative { -value } else { value };
            let Place::Bucket { negative, octave, index } = octave::place(signed, schema) else {
                return Err(TestCaseError::fail("a bucket"));
            };
            let upper = octave::bounds(negative, octave, index, schema).1;
            let found = indexed(schema, &[(upper, 7)]);
            let side = if negative { found.negative } else { found.positive };
            let (index, count) = side[0];
            let bound = |index: i32| f64::exp2(f64::from(index) / f64::from(1 << schema));
            prop_assert_eq!((side.len(), count), (1, 7));
            let tolerance = 1.0 + 1e-12;
            prop_assert!(bound(index - 1) < value * tolerance && value <= bound(index) * tolerance);
        }

        #[test]
        fn the_length_of_a_varint_is_known(value: u64, shift in 0u32..64) {
            let mut out = Vec::new();
            varint(value >> shift, &mut out);
            prop_assert_eq!(out.len(), varint_bytes(value >> shift));
        }
    }

    #[test]
    fn zero_and_the_ends_have_their_buckets() {
        let fine = [(-octave::SMALLEST, 1), (octave::SMALLEST, 2), (1.0, 3), (f64::INFINITY, 4)];
        let found = indexed(3, &fine);
        assert_eq!(found.zero, 2);
        assert_eq!(found.negative, [(-511, 1)]);
        assert_eq!(found.positive, [(0, 3), (513, 4)]);
    }
}
