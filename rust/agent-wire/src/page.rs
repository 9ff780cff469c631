//! A page of any form: what the text encoder and the protobuf encoder have in common.
//!
//! The caller writes as to one of them and need not know which; only pieces (see [`crate::exposition`]) are asked for by the
//! form. Nothing is promised beyond what the encoders promise.

use agent_metric::bounds;

use crate::exposition::{Encoder, FamilyKind, Piece};
use crate::format::Format;
use crate::protobuf;

/// Writes one page.
#[derive(Debug, Clone)]
pub enum PageEncoder {
    Text { encoder: Encoder, coarse: Vec<(f64, u64)> },
    Protobuf(Box<protobuf::Encoder>),
}

impl PageEncoder {
    pub fn new(format: Format) -> PageEncoder {
        match format {
            Format::Protobuf => PageEncoder::Protobuf(Box::default()),
            format => PageEncoder::Text { encoder: Encoder::new(format), coarse: Vec::new() },
        }
    }

    /// Whether families that are below zero have to be written in pieces.
    pub fn wants_pieces(&self) -> bool {
        matches!(self, PageEncoder::Text { encoder, .. } if encoder.format() == Format::OpenMetrics100)
    }

    /// See [`Encoder::set_plain_bounds`].
    pub fn set_plain_bounds(&mut self, plain: bool) {
        if let PageEncoder::Text { encoder, .. } = self {
            encoder.set_plain_bounds(plain);
        }
    }

    /// Begins a family, or a piece of it where that is asked for.
    pub fn family(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        help: &str,
        unit: &str,
        kind: FamilyKind,
        piece: Piece,
    ) {
        match self {
            PageEncoder::Text { encoder, .. } if piece == Piece::All => {
                encoder.family(out, name, help, unit, kind);
            }
            PageEncoder::Text { encoder, .. } => encoder.piece(out, name, help, kind, piece),
            PageEncoder::Protobuf(encoder) => encoder.family(out, name, help, unit, kind),
        }
    }

    #[inline]
    pub fn counter(
        &mut self,
        out: &mut Vec<u8>,
        labels: &[u8],
        whole: u64,
        fraction: f64,
        created_unix_ms: Option<u64>,
    ) {
        match self {
            PageEncoder::Text { encoder, .. } => {
                encoder.counter(out, labels, whole, fraction, created_unix_ms);
            }
            PageEncoder::Protobuf(encoder) => {
                encoder.counter(labels, whole, fraction, created_unix_ms);
            }
        }
    }

    #[inline]
    pub fn gauge(&mut self, out: &mut Vec<u8>, labels: &[u8], value: f64) {
        match self {
            PageEncoder::Text { encoder, .. } => encoder.gauge(out, labels, value),
            PageEncoder::Protobuf(encoder) => encoder.gauge(labels, None, value),
        }
    }

    pub fn gauge_of_process(
        &mut self,
        out: &mut Vec<u8>,
        labels: &[u8],
        pid: u32,
        twin: Option<u16>,
        value: f64,
    ) {
        match self {
            PageEncoder::Text { encoder, .. } => {
                encoder.gauge_of_process(out, labels, pid, twin, value);
            }
            PageEncoder::Protobuf(encoder) => encoder.gauge(labels, Some((pid, twin)), value),
        }
    }

    pub fn histogram(
        &mut self,
        out: &mut Vec<u8>,
        labels: &[u8],
        buckets: &[(f64, u64)],
        sum: f64,
        created_unix_ms: Option<u64>,
    ) {
        match self {
            PageEncoder::Text { encoder, .. } => {
                encoder.histogram(out, labels, buckets, sum, created_unix_ms);
            }
            PageEncoder::Protobuf(encoder) => {
                encoder.histogram(labels, buckets, sum, created_unix_ms);
            }
        }
    }

    /// A native histogram. `as_native` is false where another series of the family is a classic one: a reader judges
    /// a family by its first series.
    #[allow(clippy::too_many_arguments)]
    pub fn native(
        &mut self,
        out: &mut Vec<u8>,
        labels: &[u8],
        schema: u8,
        fine: &[(f64, u64)],
        sum: f64,
        created_unix_ms: Option<u64>,
        as_native: bool,
    ) {
        match self {
            PageEncoder::Text { encoder, coarse } => {
                bounds::onto_ladder(fine, coarse);
                encoder.histogram(out, labels, coarse, sum, created_unix_ms);
            }
            PageEncoder::Protobuf(encoder) if as_native => {
                encoder.native(labels, schema, fine, sum, created_unix_ms);
            }
            PageEncoder::Protobuf(encoder) => {
                let mut coarse = Vec::new();
                bounds::onto_ladder(fine, &mut coarse);
                encoder.histogram(labels, &coarse, sum, created_unix_ms);
            }
        }
    }

    pub fn summary(
        &mut self,
        out: &mut Vec<u8>,
        labels: &[u8],
        quantiles: &[(f64, f64)],
        sum: f64,
        count: u64,
        created_unix_ms: Option<u64>,
    ) {
        match self {
            PageEncoder::Text { encoder, .. } => {
                encoder.summary(out, labels, quantiles, sum, count, created_unix_ms);
            }
            PageEncoder::Protobuf(encoder) => {
                encoder.summary(labels, quantiles, sum, count, created_unix_ms);
            }
        }
    }

    /// Ends the page.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            PageEncoder::Text { encoder, .. } => encoder.finish(out),
            PageEncoder::Protobuf(encoder) => encoder.finish(out),
        }
    }
}
