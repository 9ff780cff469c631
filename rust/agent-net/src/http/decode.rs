//! One streaming wrapper for every `Content-Encoding`: gzip, deflate (zlib), zstd, identity.
//!
//! All codings pass the same loop and so the same limits: bytes as sent, bytes after decompression,
//! growth (see `body.rs`). One layer only; bytes after the end of the compressed stream are
//! refused; a zstd frame may not ask for a window over 2^[`ZSTD_WINDOW_LOG_MAX`] bytes.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::body::{BodyError, BodyLimits, RATIO_FREE_BYTES};

/// 8 MiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The output grows by at least this much at a time.
const GROW_BYTES_MIN: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    /// What the `Content-Encoding` header asks for.
    pub fn from_header(value: Option<&[u8]>) -> Result<Coding, BodyError> {
        let Some(value) = value else { return Ok(Coding::Identity) };
        let is = |name: &str| value.eq_ignore_ascii_case(name.as_bytes());
        if is("gzip") || is("x-gzip") {
            Ok(Coding::Gzip)
        } else if is("deflate") {
            Ok(Coding::Deflate)
        } else if is("zstd") {
            Ok(Coding::Zstd)
        } else if is("identity") || value.is_empty() {
            Ok(Coding::Identity)
        } else {
            Err(BodyError::UnknownCoding)
        }
    }

    /// The largest body as sent.
    pub fn sent_bytes_max(self, limits: &BodyLimits) -> usize {
        match self {
            Coding::Identity => limits.plain_bytes_max,
            _ => limits.coded_bytes_max,
        }
    }
}

enum Engine {
    Identity,
    Flate(Decompress),
    Zstd(ZstdDecoder<'static>),
}

/// What one turn of a decoder did.
struct Turn {
    consumed: usize,
    ended: bool,
}

/// Collects one body, decompressing on the way.
pub struct Decoder {
    limits: BodyLimits,
    sent_bytes_max: usize,
    engine: Engine,
    plain: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl Decoder {
    pub fn new(coding: Coding, limits: &BodyLimits) -> Result<Decoder, BodyError> {
        let engine = match coding {
            Coding::Identity => Engine::Identity,
            Coding::Gzip => Engine::Flate(Decompress::new_gzip(15)),
            Coding::Deflate => Engine::Flate(Decompress::new(true)),
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|_| BodyError::NoMemory)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))
                    .map_err(|_| BodyError::NoMemory)?;
                Engine::Zstd(decoder)
            }
        };
        let sent_bytes_max = coding.sent_bytes_max(limits);
        let plain = Vec::new();
        Ok(Decoder { limits: *limits, sent_bytes_max, engine, plain, sent: 0, ended: false })
    }

    /// Bytes of memory this body holds: the output, and as much again for a zstd window.
    pub fn held_bytes(&self) -> usize {
        match self.engine {
            Engine::Identity => self.plain.capacity(),
            Engine::Flate(_) => self.plain.capacity() + (48 << 10),
            Engine::Zstd(_) => 2 * self.plain.capacity() + (128 << 10),
        }
    }

    /// Takes the next bytes of the body as sent.
    pub fn feed(&mut self, mut input: &[u8]) -> Result<(), BodyError> {
        if input.len() > self.sent_bytes_max - self.sent {
            return Err(BodyError::TooLarge);
        }
        if let Engine::Identity = self.engine {
            self.sent += input.len();
            self.plain.extend_from_slice(input);
            return Ok(());
        }
        loop {
            if self.ended {
                return if input.is_empty() { Ok(()) } else { Err(BodyError::BytesAfterEnd) };
            }
            self.make_room();
            let before = self.plain.len();
            let turn = self.turn(input)?;
            self.sent += turn.consumed;
            self.ended = turn.ended;
            input = &input[turn.consumed..];
            self.check_growth()?;
            // Room left and nothing more to read: the coder has nothing in hand.
            let full = self.plain.len() == self.plain.capacity();
            if input.is_empty() && !full && !self.ended {
                return Ok(());
            }
            if turn.consumed == 0 && self.plain.len() == before && !full && !self.ended {
                return Err(BodyError::BadCoding);
            }
        }
    }

    /// The whole body.
    pub fn finish(self) -> Result<Vec<u8>, BodyError> {
        match self.engine {
            Engine::Identity => Ok(self.plain),
            _ if self.ended => Ok(self.plain),
            _ => Err(BodyError::Truncated),
        }
    }

    fn make_room(&mut self) {
        let len = self.plain.len();
        if len == self.plain.capacity() {
            // One byte over the limit is enough to see that the limit is passed.
            let grow = len.max(GROW_BYTES_MIN).min(self.limits.plain_bytes_max + 1 - len);
            self.plain.reserve_exact(grow);
        }
    }

    fn turn(&mut self, input: &[u8]) -> Result<Turn, BodyError> {
        match &mut self.engine {
            Engine::Identity => Ok(Turn { consumed: 0, ended: false }),
            Engine::Flate(flate) => {
                let before = flate.total_in();
                let status = flate
                    .decompress_vec(input, &mut self.plain, FlushDecompress::None)
                    .map_err(|_| BodyError::BadCoding)?;
                let consumed = (flate.total_in() - before) as usize;
                Ok(Turn { consumed, ended: status == Status::StreamEnd })
            }
            Engine::Zstd(zstd) => {
                let mut source = InBuffer::around(input);
                let at = self.plain.len();
                let mut target = OutBuffer::around_pos(&mut self.plain, at);
                let hint = zstd.run(&mut source, &mut target).map_err(|_| BodyError::BadCoding)?;
                Ok(Turn { consumed: source.pos(), ended: hint == 0 })
            }
        }
    }

    fn check_growth(&self) -> Result<(), BodyError> {
        let plain = self.plain.len();
        if plain > RATIO_FREE_BYTES && plain / self.limits.ratio_max.max(1) > self.sent {
            return Err(BodyError::Bomb);
        }
        if plain > self.limits.plain_bytes_max {
            return Err(BodyError::TooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "decode_test.rs"]
mod tests;
