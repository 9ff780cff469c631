//! One streaming wrapper for every `Content-Encoding`: gzip, deflate (zlib), zstd, identity.
//!
//! All codings pass the same loop and so the same limits: bytes as sent, bytes after decompression,
//! growth (see `body.rs`). One layer only. A body may have up to [`MEMBERS_MAX`] members of gzip (RFC
//! 1952) or frames of zstd (RFC 8878), and the limits hold for all of them together; other bytes after
//! the end of the compressed stream are refused; a zstd frame may not ask for a window over 2^[`ZSTD_WINDOW_LOG_MAX`] bytes.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, InBuffer, Operation, OutBuffer};

use super::body::{BodyError, BodyLimits, RATIO_FREE_BYTES};

/// 8 MiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Members or frames of one body: each costs a new start of the decompressor, however short it is.
pub const MEMBERS_MAX: u32 = 1024;
/// How a gzip member begins.
const GZIP_FIRST_BYTE: u8 = 0x1f;
/// How a zstd frame begins, and one that is to be skipped.
const ZSTD_FIRST_BYTE: u8 = 0x28;
const ZSTD_SKIPPED_FIRST_BYTES: std::ops::RangeInclusive<u8> = 0x50..=0x5f;
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
    /// Members or frames that may still follow; 0 for codings without.
    members_left: u32,
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
        Ok(Decoder {
            limits: *limits,
            sent_bytes_max,
            engine,
            plain: Vec::new(),
            sent: 0,
            ended: false,
            members_left: match coding {
                Coding::Gzip | Coding::Zstd => MEMBERS_MAX - 1,
                Coding::Deflate | Coding::Identity => 0,
            },
        })
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
                if input.is_empty() {
                    return Ok(());
                }
                self.next_member(input[0])?;
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

    /// Bytes as sent that may still come.
    pub fn room(&self) -> usize {
        self.sent_bytes_max - self.sent
    }

    /// What ended is followed by another member or frame, or by what does not belong there.
    fn next_member(&mut self, first: u8) -> Result<(), BodyError> {
        self.members_left = self.members_left.checked_sub(1).ok_or(BodyError::BytesAfterEnd)?;
        match &mut self.engine {
            Engine::Flate(gzip) if first == GZIP_FIRST_BYTE => *gzip = Decompress::new_gzip(15),
            // After a whole frame it is ready for the next.
            Engine::Zstd(_)
                if first == ZSTD_FIRST_BYTE || ZSTD_SKIPPED_FIRST_BYTES.contains(&first) => {}
            _ => return Err(BodyError::BytesAfterEnd),
        }
        self.ended = false;
        Ok(())
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
