//! The request body: framing, limits, and the deadline of a slow sender.
//!
//! ```text
//! bytes of the connection -> Framer (Content-Length or chunked) -> Decoder (decode.rs) -> Vec
//! ```
//!
//! Chunked is read strictly: hex digits, CRLF, no bare LF, sixteen digits at most, extensions and
//! trailers skipped within [`CHUNK_EXTRAS_BYTES_MAX`] for the whole body. Nothing is ever reserved
//! from a length that came over the wire. A body must arrive at `bytes_per_s_min` after
//! [`BODY_GRACE_MS`], and within [`BODY_TIME_MAX_MS`] in all.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use super::head::Framing;

/// Bytes of chunk extensions and trailers of one body.
pub const CHUNK_EXTRAS_BYTES_MAX: usize = 4096;
/// Decompressed bytes up to which the growth is not looked at.
pub const RATIO_FREE_BYTES: usize = 1 << 20;
/// Head start of a slow sender.
pub const BODY_GRACE_MS: u64 = 5_000;
/// Longest time for a whole body.
pub const BODY_TIME_MAX_MS: u64 = 120_000;

/// What a body may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes of a compressed body as sent.
    pub coded_bytes_max: usize,
    /// Bytes after decompression, or as sent when the body is not compressed.
    pub plain_bytes_max: usize,
    /// Times a body may grow in decompression, once it is over [`RATIO_FREE_BYTES`].
    pub ratio_max: usize,
    /// Slowest sender; 0 = any.
    pub bytes_per_s_min: u64,
}

impl Default for BodyLimits {
    fn default() -> BodyLimits {
        BodyLimits {
            coded_bytes_max: 4 << 20,
            plain_bytes_max: 16 << 20,
            ratio_max: 100,
            bytes_per_s_min: 1024,
        }
    }
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge,
    Bomb,
    BadChunk,
    ChunkExtras,
    BadCoding,
    UnknownCoding,
    BytesAfterEnd,
    Truncated,
    NoMemory,
    TooSlow,
}

impl BodyError {
    pub fn status(self) -> u16 {
        match self {
            BodyError::TooLarge | BodyError::Bomb => 413,
            BodyError::UnknownCoding => 415,
            BodyError::NoMemory => 503,
            BodyError::TooSlow => 408,
            _ => 400,
        }
    }

    /// The reason as a label value.
    pub fn as_str(self) -> &'static str {
        match self {
            BodyError::TooLarge => "body_too_large",
            BodyError::Bomb => "decompression_bomb",
            BodyError::BadChunk => "bad_chunk",
            BodyError::ChunkExtras => "chunk_extras_too_large",
            BodyError::BadCoding => "bad_compression",
            BodyError::UnknownCoding => "unknown_content_encoding",
            BodyError::BytesAfterEnd => "bytes_after_compressed_body",
            BodyError::Truncated => "truncated_compressed_body",
            BodyError::NoMemory => "body_memory",
            BodyError::TooSlow => "slow_body",
        }
    }

    /// One sentence for the person at the other end.
    pub fn text(self) -> &'static str {
        match self {
            BodyError::TooLarge => "the body is over the limit of bytes; send it in parts",
            BodyError::Bomb => "the body grows too much in decompression",
            BodyError::BadChunk => "the chunked framing of the body is broken",
            BodyError::ChunkExtras => "chunk extensions and trailers are over 4096 bytes",
            BodyError::BadCoding => "the body is not valid in its Content-Encoding",
            BodyError::UnknownCoding => {
                "Content-Encoding not known; one of gzip, deflate, zstd, identity, one layer"
            }
            BodyError::BytesAfterEnd => {
                "bytes follow the end of the compressed body, or more than 1024 members of gzip"
            }
            BodyError::Truncated => "the compressed body ends in the middle",
            BodyError::NoMemory => "too many bodies are being received; try again",
            BodyError::TooSlow => "the body comes too slowly",
        }
    }
}

impl BodyLimits {
    /// When the sender of a body that began at `began_ms` and brought `received` bytes is too slow.
    pub fn deadline_ms(&self, began_ms: u64, received: u64) -> u64 {
        let earned = received.saturating_mul(1000).checked_div(self.bytes_per_s_min);
        let allowed = BODY_GRACE_MS.saturating_add(earned.unwrap_or(BODY_TIME_MAX_MS));
        began_ms + allowed.min(BODY_TIME_MAX_MS)
    }
}

/// Memory all bodies of one worker may hold at once.
#[derive(Clone, Debug)]
pub struct Budget {
    spent: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        Budget { spent: Arc::new(AtomicUsize::new(0)), bytes_max }
    }

    pub fn spent(&self) -> usize {
        self.spent.load(Ordering::Relaxed)
    }

    pub fn charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

/// What one body holds of the budget; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Charge {
    /// Raises the charge to `bytes`, or says that the budget does not allow it.
    pub fn raise_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|&more| more > 0) else {
            return Ok(());
        };
        let before = self.budget.spent.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.budget.bytes_max {
            self.budget.spent.fetch_sub(more, Ordering::Relaxed);
            return Err(BodyError::NoMemory);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.spent.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In the size line; `digits` were read.
    Size {
        value: u64,
        digits: u8,
    },
    /// In the extension of a size line.
    Extension {
        value: u64,
    },
    /// The CR of a size line was read.
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// In the trailer section; `empty` while nothing of the line was read.
    Trailer {
        empty: bool,
    },
    TrailerLf {
        empty: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Length { left: u64 },
    Chunked(Chunk),
    Done,
}

/// Takes body bytes out of the stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framer {
    kind: Kind,
    extras: usize,
}

/// What [`Framer::step`] took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// The part of the input that is body data; may be empty.
    pub data: Range<usize>,
}

impl Framer {
    pub fn new(framing: Framing) -> Framer {
        let kind = match framing {
            Framing::Empty | Framing::Length(0) => Kind::Done,
            Framing::Length(left) => Kind::Length { left },
            Framing::Chunked => Kind::Chunked(Chunk::Size { value: 0, digits: 0 }),
        };
        Framer { kind, extras: 0 }
    }

    /// Whether the body is complete; what follows is the next request.
    pub fn is_done(&self) -> bool {
        self.kind == Kind::Done
    }

    /// Bytes of data that must come before the body can end.
    pub fn announced(&self) -> u64 {
        match self.kind {
            Kind::Length { left } | Kind::Chunked(Chunk::Data { left }) => left,
            _ => 0,
        }
    }

    /// Takes the next run of body data, or as much framing as there is. Call until the input is
    /// used up or the body is done.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        match self.kind {
            Kind::Done => Ok(Step { consumed: 0, data: 0..0 }),
            Kind::Length { left } => {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - take as u64;
                self.kind = if left == 0 { Kind::Done } else { Kind::Length { left } };
                Ok(Step { consumed: take, data: 0..take })
            }
            Kind::Chunked(_) => self.step_chunked(input),
        }
    }

    fn step_chunked(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        while let (Kind::Chunked(chunk), true) = (self.kind, at < input.len()) {
            if let Chunk::Data { left } = chunk {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                let left = left - take as u64;
                self.kind =
                    Kind::Chunked(if left == 0 { Chunk::DataCr } else { Chunk::Data { left } });
                return Ok(Step { consumed: at + take, data: at..at + take });
            }
            self.kind = self.step_byte(chunk, input[at])?;
            at += 1;
        }
        Ok(Step { consumed: at, data: at..at })
    }

    fn step_byte(&mut self, chunk: Chunk, byte: u8) -> Result<Kind, BodyError> {
        let next = match (chunk, byte) {
            (Chunk::Size { digits: 1.., value }, b'\r') => Chunk::SizeLf { value },
            (Chunk::Size { digits: 1.., value }, b';') => Chunk::Extension { value },
            (Chunk::Size { value, digits }, _) => match (byte as char).to_digit(16) {
                Some(digit) if digits < 16 => {
                    Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
                }
                _ => return Err(BodyError::BadChunk),
            },
            (Chunk::Extension { value }, b'\r') => Chunk::SizeLf { value },
            (Chunk::Extension { value }, _) => {
                self.count_extra(byte)?;
                Chunk::Extension { value }
            }
            (Chunk::SizeLf { value: 0 }, b'\n') => Chunk::Trailer { empty: true },
            (Chunk::SizeLf { value }, b'\n') => Chunk::Data { left: value },
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => Chunk::Size { value: 0, digits: 0 },
            (Chunk::Trailer { empty }, b'\r') => Chunk::TrailerLf { empty },
            (Chunk::Trailer { empty: true }, b' ' | b'\t') => return Err(BodyError::BadChunk),
            (Chunk::Trailer { .. }, _) => {
                self.count_extra(byte)?;
                Chunk::Trailer { empty: false }
            }
            (Chunk::TrailerLf { empty: true }, b'\n') => return Ok(Kind::Done),
            (Chunk::TrailerLf { empty: false }, b'\n') => Chunk::Trailer { empty: true },
            _ => return Err(BodyError::BadChunk),
        };
        Ok(Kind::Chunked(next))
    }

    fn count_extra(&mut self, byte: u8) -> Result<(), BodyError> {
        if byte < b' ' && byte != b'\t' {
            return Err(BodyError::BadChunk);
        }
        self.extras += 1;
        if self.extras > CHUNK_EXTRAS_BYTES_MAX {
            return Err(BodyError::ChunkExtras);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "body_test.rs"]
mod tests;
