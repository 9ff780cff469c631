//! Every coding through the same limits.

use std::io::Write;

use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::Compression;

use super::*;

fn coded(coding: Coding, plain: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Identity => plain.to_vec(),
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(plain).expect("into memory");
            encoder.finish().expect("into memory")
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(plain).expect("into memory");
            encoder.finish().expect("into memory")
        }
        Coding::Zstd => zstd::bulk::compress(plain, 3).expect("into memory"),
    }
}

fn decode(coding: Coding, sent: &[u8], piece: usize) -> Result<Vec<u8>, BodyError> {
    let mut decoder = Decoder::new(coding, &BodyLimits::default()).expect("decoder");
    for part in sent.chunks(piece) {
        decoder.feed(part)?;
    }
    decoder.finish()
}

const CODINGS: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Deflate, Coding::Zstd];
const COMPRESSED: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn every_coding_gives_the_body_back_in_pieces_of_any_size() {
    for plain in [vec![], b"a:1|c\n".repeat(1000), noise(100_000)] {
        for coding in CODINGS {
            let sent = coded(coding, &plain);
            for piece in [1, 2, 7, 1000, sent.len().max(1)] {
                assert_eq!(decode(coding, &sent, piece).as_ref(), Ok(&plain), "{coding:?} {piece}");
            }
        }
    }
}

#[test]
fn members_and_frames_are_one_body_however_they_are_cut() {
    let parts: [&[u8]; 4] = [b"a:1|c\n", b"", &noise(50_000), b"b:2|c\n"];
    for coding in [Coding::Gzip, Coding::Zstd] {
        let sent: Vec<u8> = parts.iter().flat_map(|part| coded(coding, part)).collect();
        for piece in [1, 3, 1000, sent.len()] {
            let body = decode(coding, &sent, piece);
            assert_eq!(body.as_ref(), Ok(&parts.concat()), "{coding:?} in pieces of {piece}");
        }
        let cut = &sent[..sent.len() - 1];
        assert_eq!(decode(coding, cut, 1000), Err(BodyError::Truncated));
        let padded = [&sent[..], b"\0\0"].concat();
        assert_eq!(decode(coding, &padded, 1000), Err(BodyError::BytesAfterEnd));
    }
    let deflate = coded(Coding::Deflate, b"x").repeat(2);
    assert_eq!(decode(Coding::Deflate, &deflate, 1000), Err(BodyError::BytesAfterEnd));
}

/// Of a magic number of its own, a length, and bytes that mean nothing to us.
#[test]
fn a_zstd_frame_that_is_to_be_skipped_is() {
    let skipped = b"\x50\x2a\x4d\x18\x03\0\0\0xyz";
    let sent = [&coded(Coding::Zstd, b"a:1|c\n")[..], skipped].concat();
    assert_eq!(decode(Coding::Zstd, &sent, 5).as_deref(), Ok(&b"a:1|c\n"[..]));
}

#[test]
fn the_limits_hold_for_all_members_and_frames_together() {
    for coding in [Coding::Gzip, Coding::Zstd] {
        let empty = coded(coding, b"");
        let most = MEMBERS_MAX as usize;
        assert_eq!(decode(coding, &empty.repeat(most), 4096), Ok(Vec::new()), "{coding:?}");
        let more = empty.repeat(most + 1);
        assert_eq!(decode(coding, &more, 4096), Err(BodyError::BytesAfterEnd), "{coding:?}");
        // None of them is too large, or grows beyond what is always allowed.
        let bomb = coded(coding, &vec![0; RATIO_FREE_BYTES]).repeat(17);
        assert_eq!(decode(coding, &bomb, 4096), Err(BodyError::Bomb), "{coding:?}");
        let large = coded(coding, &noise(1 << 20)).repeat(4);
        assert_eq!(decode(coding, &large, 65_536), Err(BodyError::TooLarge), "{coding:?}");
    }
}

#[test]
fn a_truncated_body_is_refused_at_every_length() {
    for coding in COMPRESSED {
        let sent = coded(coding, &b"a:1|c\n".repeat(20));
        for end in 0..sent.len() {
            let got = decode(coding, &sent[..end], 5);
            assert_eq!(got, Err(BodyError::Truncated), "{coding:?} {end}");
        }
    }
}

#[test]
fn damage_and_trailing_bytes_are_refused() {
    for coding in COMPRESSED {
        let mut sent = coded(coding, &noise(1000));
        sent[0] ^= 0xff;
        assert_eq!(decode(coding, &sent, 9), Err(BodyError::BadCoding), "{coding:?}");
        let mut sent = coded(coding, b"abc");
        sent.push(b'x');
        assert_eq!(decode(coding, &sent, 1000), Err(BodyError::BytesAfterEnd), "{coding:?}");
    }
}

#[test]
fn a_bomb_is_stopped_long_before_it_is_unpacked() {
    let zeros = vec![0u8; 64 << 20];
    for coding in COMPRESSED {
        let sent = coded(coding, &zeros);
        let mut decoder = Decoder::new(coding, &BodyLimits::default()).expect("decoder");
        let stopped = sent.chunks(4096).find_map(|part| decoder.feed(part).err());
        assert_eq!(stopped, Some(BodyError::Bomb), "{coding:?}");
        assert!(decoder.held_bytes() < 5 << 20, "{coding:?} held {}", decoder.held_bytes());
    }
}

#[test]
fn plain_and_sent_sizes_are_capped() {
    let BodyLimits { plain_bytes_max, coded_bytes_max, .. } = BodyLimits::default();
    let over = noise(plain_bytes_max + 1);
    assert_eq!(decode(Coding::Identity, &over, 1 << 16), Err(BodyError::TooLarge));
    assert!(decode(Coding::Identity, &over[1..], 1 << 16).is_ok());
    let sent = coded(Coding::Zstd, &over[..coded_bytes_max + 1000]);
    assert_eq!(decode(Coding::Zstd, &sent, 1 << 16), Err(BodyError::TooLarge));
    // 64 repetitions of the same noise: under the ratio, over the plain limit.
    let many = noise(300_000).repeat(64);
    let sent = coded(Coding::Zstd, &many);
    assert_eq!(decode(Coding::Zstd, &sent, 1 << 16), Err(BodyError::TooLarge));
}

#[test]
fn a_zstd_window_over_the_limit_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("encoder");
    encoder.window_log(25).expect("window");
    encoder.write_all(&noise(1000)).expect("into memory");
    let sent = encoder.finish().expect("into memory");
    assert_eq!(decode(Coding::Zstd, &sent, 1000), Err(BodyError::BadCoding));
}

#[test]
fn the_header_names_one_known_coding() {
    let from = |text: &str| Coding::from_header(Some(text.as_bytes()));
    assert_eq!(Coding::from_header(None), Ok(Coding::Identity));
    assert_eq!(from("GZip"), Ok(Coding::Gzip));
    assert_eq!(from("deflate"), Ok(Coding::Deflate));
    assert_eq!(from("zstd"), Ok(Coding::Zstd));
    for unknown in ["br", "gzip, gzip", "snappy", "gzip;q=1"] {
        assert_eq!(from(unknown), Err(BodyError::UnknownCoding), "{unknown}");
    }
}
