//! Framing at every split, the budget, and the deadline.

use super::*;

/// Body data, and how many bytes of the input belonged to the body.
fn read_cut(
    framing: Framing,
    input: &[u8],
    cut: usize,
) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut framer = Framer::new(framing);
    let mut data = Vec::new();
    let mut used = 0;
    for end in [cut, input.len()] {
        while used < end && !framer.is_done() {
            let step = framer.step(&input[used..end])?;
            data.extend_from_slice(&input[used..end][step.data]);
            used += step.consumed;
        }
    }
    Ok((data, used, framer.is_done()))
}

fn read(framing: Framing, input: &[u8]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let whole = read_cut(framing, input, input.len());
    for cut in 0..input.len() {
        assert_eq!(read_cut(framing, input, cut), whole, "cut at {cut}");
    }
    whole
}

#[test]
fn a_length_takes_exactly_its_bytes() {
    assert_eq!(read(Framing::Length(3), b"abcGET"), Ok((b"abc".to_vec(), 3, true)));
    assert_eq!(read(Framing::Length(9), b"abc"), Ok((b"abc".to_vec(), 3, false)));
    assert_eq!(read(Framing::Empty, b"GET"), Ok((vec![], 0, true)));
}

#[test]
fn chunks_are_joined_and_the_next_request_is_left() {
    let input = b"3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET";
    let used = input.len() - 3;
    assert_eq!(read(Framing::Chunked, input), Ok((b"abc0123456789".to_vec(), used, true)));
}

#[test]
fn a_broken_chunk_is_refused() {
    let cases: &[&[u8]] = &[
        b"\r\nabc",
        b"g\r\n",
        b" 3\r\nabc\r\n",
        b"3\nabc\n",
        b"3 \r\nabc\r\n",
        b"-1\r\n",
        b"0x3\r\nabc",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\rabc",
        b"11111111111111111\r\n",
        b"1;a\nb\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\n\n",
    ];
    for case in cases {
        assert_eq!(read(Framing::Chunked, case), Err(BodyError::BadChunk), "{case:?}");
    }
}

#[test]
fn chunk_extras_are_bounded_over_the_whole_body() {
    let one = format!("1;{}\r\nx\r\n", "a".repeat(1000));
    let body = one.repeat(5) + "0\r\n\r\n";
    assert_eq!(read_cut(Framing::Chunked, body.as_bytes(), 11), Err(BodyError::ChunkExtras));
}

#[test]
fn a_huge_chunk_reserves_nothing_and_waits() {
    let (data, _, done) = read(Framing::Chunked, b"ffffffffffffffff\r\nabc").expect("framing");
    assert_eq!((data.as_slice(), done), (&b"abc"[..], false));
}

#[test]
fn the_budget_is_shared_and_given_back() {
    let budget = Budget::new(100);
    let mut one = budget.charge();
    let mut two = budget.charge();
    assert_eq!(one.raise_to(60), Ok(()));
    assert_eq!(two.raise_to(60), Err(BodyError::NoMemory));
    assert_eq!(two.raise_to(40), Ok(()));
    assert_eq!(one.raise_to(10), Ok(()), "a charge never falls");
    assert_eq!(budget.spent(), 100);
    drop(one);
    assert_eq!(budget.spent(), 40);
    assert_eq!(two.raise_to(100), Ok(()));
}

#[test]
fn the_deadline_moves_with_the_bytes_up_to_the_total() {
    let limits = BodyLimits::default();
    assert_eq!(limits.deadline_ms(1000, 0), 6_000);
    assert_eq!(limits.deadline_ms(1000, 1024), 7_000);
    assert_eq!(limits.deadline_ms(1000, u64::MAX), 121_000);
    let any_rate = BodyLimits { bytes_per_s_min: 0, ..limits };
    assert_eq!(any_rate.deadline_ms(1000, 0), 121_000);
}
