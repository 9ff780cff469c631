//! Damaged requests: heads, chunked bodies and compressed bodies with bytes changed, cut and doubled.
//! Whatever comes gets one verdict, the same for every cut, within the limits and without a panic.
//!
//! 10,000 inputs a test in an ordinary run; `AGENT_FUZZ_CASES=10000000 cargo test --release -p
//! agent-net damage_test` looks for longer. A failure prints the smallest input that shows it.

use std::io::Write;

use proptest::prelude::*;
use proptest::sample::{select, Index};
use proptest::test_runner::TestRunner;

use super::body::{BodyError, BodyLimits, Framer};
use super::decode::{Coding, Decoder};
use super::head::{Framing, Head, HeadError, HeadScan, Scanned};

#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Remove(Index, Index),
    Double(Index, Index),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let byte = || prop_oneof![select(b"\r\n :;,=0f\t/?%\"\0\xff".to_vec()), any::<u8>()];
    let range = || (any::<Index>(), any::<Index>());
    prop_oneof![
        3 => (any::<Index>(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => range().prop_map(|(a, b)| Change::Remove(a, b)),
        1 => range().prop_map(|(a, b)| Change::Double(a, b)),
        1 => any::<Index>().prop_map(Change::Cut),
    ]
}

fn apply(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let at = |index: &Index| index.index(bytes.len() + 1);
        let range = |a: &Index, b: &Index| at(a).min(at(b))..at(a).max(at(b));
        match change {
            Change::Set(index, byte) if !bytes.is_empty() => {
                let at = index.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Set(_, byte) => bytes.push(*byte),
            Change::Remove(a, b) => drop(bytes.drain(range(a, b))),
            Change::Double(a, b) => {
                let part = bytes[range(a, b)].to_vec();
                bytes.extend(part);
            }
            Change::Cut(index) => bytes.truncate(at(index)),
        }
    }
    bytes
}

/// Runs `check` on damaged seeds, each with a place to cut it.
fn damage(seeds: Vec<Vec<u8>>, check: impl Fn(&[u8], usize)) {
    let asked = std::env::var("AGENT_FUZZ_CASES").ok().and_then(|text| text.parse().ok());
    let changes = prop::collection::vec(change(), 0..5);
    let damaged = (select(seeds), changes).prop_map(|(seed, changes)| apply(seed, &changes));
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let input = (prop_oneof![9 => damaged, 1 => noise], any::<Index>());
    let config = ProptestConfig {
        cases: asked.unwrap_or(10_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(config).run(&input, |(bytes, cut)| {
        check(&bytes, cut.index(bytes.len() + 1));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn head(bytes: &[u8], cut: usize) -> Result<Option<(Head<'_>, usize)>, HeadError> {
    let mut scan = HeadScan::new(300);
    for end in [cut, bytes.len()] {
        if let Scanned::Complete { start, end } = scan.scan(&bytes[..end])? {
            return Ok(Some((Head::parse(&bytes[start..end])?, end)));
        }
    }
    Ok(None)
}

#[test]
fn a_damaged_head_gets_one_verdict_however_it_is_cut() {
    let seeds = [
        "GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nAccept: text/plain;q=0.5\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        "POST /v1/push HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        "PUT /metrics/job@base64/YQ== HTTP/1.1\r\nHost: [::1]:9\r\nContent-Length: 12\r\n\r\n",
        "\r\nHEAD http://x/livez HTTP/1.0\nConnection: keep-alive, close\r\nContent-Encoding: gzip\r\n\r\n",
    ];
    damage(seeds.map(|seed| seed.as_bytes().to_vec()).to_vec(), |bytes, cut| {
        assert_eq!(head(bytes, cut), head(bytes, bytes.len()));
    });
}

fn chunks(bytes: &[u8], cut: usize) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let (mut framer, mut data, mut used) = (Framer::new(Framing::Chunked), Vec::new(), 0);
    for end in [cut, bytes.len()] {
        while used < end && !framer.is_done() {
            let step = framer.step(&bytes[used..end])?;
            assert!(step.consumed > 0 && step.data.end <= step.consumed);
            data.extend_from_slice(&bytes[used..end][step.data]);
            used += step.consumed;
        }
    }
    Ok((data, used, framer.is_done()))
}

#[test]
fn damaged_chunks_give_the_same_data_however_they_are_cut() {
    let seeds = [
        "3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
        "A;name=\"value\"\r\n0123456789\r\n1\r\nx\r\n0;last\r\nTrailer: t\r\nOther: u\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n",
        "0000000000000002\r\nab\r\n00\r\n\r\n",
    ];
    damage(seeds.map(|seed| seed.as_bytes().to_vec()).to_vec(), |bytes, cut| {
        assert_eq!(chunks(bytes, cut), chunks(bytes, bytes.len()));
    });
}

const LIMITS: BodyLimits =
    BodyLimits { coded_bytes_max: 2000, plain_bytes_max: 5000, ratio_max: 100, bytes_per_s_min: 0 };

/// The verdict on a whole body: how far one is read before it is refused depends on its pieces.
fn decoded(coding: Coding, bytes: &[u8], cut: usize) -> Result<Vec<u8>, BodyError> {
    let mut decoder = Decoder::new(coding, &LIMITS)?;
    for part in [&bytes[..cut], &bytes[cut..]] {
        decoder.feed(part)?;
    }
    decoder.finish()
}

#[test]
fn a_damaged_compressed_body_is_refused_or_within_its_limits() {
    let plain = b"{\"name\":\"a\",\"type\":\"counter\",\"value\":1}\n".repeat(20);
    let gzip = |plain: &[u8]| {
        let level = flate2::Compression::default();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(plain).expect("into memory");
        encoder.finish().expect("into memory")
    };
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(&plain).expect("into memory");
    let seeds = vec![
        gzip(&plain),
        [gzip(&plain), gzip(b""), gzip(b"x")].concat(),
        zlib.finish().expect("into memory"),
        zstd::bulk::compress(&plain, 3).expect("into memory"),
    ];
    damage(seeds, |bytes, cut| {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Identity] {
            let (whole, cut) = (decoded(coding, bytes, bytes.len()), decoded(coding, bytes, cut));
            assert!(whole.as_ref().map_or(0, Vec::len) <= LIMITS.plain_bytes_max);
            match (whole, cut) {
                (Ok(whole), Ok(cut)) => assert_eq!(whole, cut),
                (Err(_), Err(_)) => {}
                (whole, cut) => panic!("{coding:?}: {whole:?} at once, {cut:?} in two parts"),
            }
        }
    });
}
