//! Cutting bytes into lines, apart from what the lines mean.
//!
//! A line ends in LF or CR LF; empty lines are passed over. A datagram is complete, so its last
//! line needs no line end. On a stream the rest after the last line end waits for more bytes, and
//! when the stream closes is for the caller to judge: after a reset its number may be cut short.
//!
//! A line over the limit is reported once and then skipped up to its line end without keeping any
//! of it. The state of a stream is 8 bytes; every byte is searched for a line end once, however
//! small the pieces it arrives in.

/// The lines of a datagram, without line ends, without empty lines.
pub fn lines(datagram: &[u8]) -> Lines<'_> {
    Lines { rest: datagram }
}

/// Iterator of [`lines`].
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (line, rest) = match memchr::memchr(b'\n', self.rest) {
                Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            let line = without_cr(line);
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }
}

#[inline]
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What the front of a stream buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A line; take `consumed` bytes off the buffer.
    Line { line: &'a [u8], consumed: usize },
    /// A line over the limit begins or stands here: count it once, take `consumed` bytes off.
    TooLong { consumed: usize },
    /// Empty lines, or more of a line that was reported as too long.
    Skipped { consumed: usize },
    /// No line end yet: keep the buffer as it is and call again with more bytes behind it.
    Partial,
}

/// The line splitter of one stream, in four bytes: there may be a million of them.
///
/// Bytes at the front of the buffer that are known to hold no line end; or [`SKIPPING`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Framer(u32);

/// Inside a line that was reported as too long.
const SKIPPING: u32 = u32::MAX;

impl Framer {
    /// Looks at the front of `buffer`: the bytes not consumed so far and those that came since.
    /// A buffer that never exceeds `line_bytes_max` + 2 bytes is enough.
    #[inline]
    pub fn next<'a>(&mut self, buffer: &'a [u8], line_bytes_max: usize) -> Frame<'a> {
        let skips = self.is_skipping();
        let scanned = if skips { 0 } else { self.0 as usize };
        let from = scanned.min(buffer.len());
        let Some(end) = memchr::memchr(b'\n', &buffer[from..]).map(|at| from + at) else {
            return self.without_end(buffer, line_bytes_max);
        };
        self.0 = 0;
        let consumed = end + 1;
        if skips {
            return Frame::Skipped { consumed };
        }
        let line = without_cr(&buffer[..end]);
        if line.is_empty() {
            Frame::Skipped { consumed }
        } else if line.len() > line_bytes_max {
            Frame::TooLong { consumed }
        } else {
            Frame::Line { line, consumed }
        }
    }

    fn without_end<'a>(&mut self, buffer: &'a [u8], line_bytes_max: usize) -> Frame<'a> {
        let consumed = buffer.len();
        if self.is_skipping() {
            return if consumed == 0 { Frame::Partial } else { Frame::Skipped { consumed } };
        }
        // One more byte may be the CR of the line end.
        if without_cr(buffer).len() > line_bytes_max || consumed >= SKIPPING as usize {
            self.0 = SKIPPING;
            return Frame::TooLong { consumed };
        }
        self.0 = consumed as u32;
        Frame::Partial
    }

    /// A splitter that stands where another one, asked with [`Framer::is_skipping`], stood.
    pub fn resumed(skipping: bool) -> Framer {
        Framer(if skipping { SKIPPING } else { 0 })
    }

    /// Inside a line that was reported as too long.
    pub fn is_skipping(&self) -> bool {
        self.0 == SKIPPING
    }

    /// Whether the stream, closed now with `rest` unconsumed, ends in half a line that nobody has
    /// counted yet.
    pub fn is_incomplete(&self, rest: &[u8]) -> bool {
        !self.is_skipping() && !without_cr(rest).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `input` in pieces and gives the lines, how many were too long, and the end state.
    fn run(input: &[u8], pieces: &[usize], line_bytes_max: usize) -> (Vec<Vec<u8>>, usize, bool) {
        let mut framer = Framer::default();
        let (mut lines, mut too_long, mut buffer) = (Vec::new(), 0, Vec::new());
        let mut rest = input;
        let mut sizes = pieces.iter().copied().cycle();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
            buffer.extend_from_slice(&rest[..size]);
            rest = &rest[size..];
            loop {
                let consumed = match framer.next(&buffer, line_bytes_max) {
                    Frame::Line { line, consumed } => {
                        lines.push(line.to_vec());
                        consumed
                    }
                    Frame::TooLong { consumed } => {
                        too_long += 1;
                        consumed
                    }
                    Frame::Skipped { consumed } => consumed,
                    Frame::Partial => break,
                };
                buffer.drain(..consumed);
            }
            assert!(buffer.len() <= line_bytes_max + 1, "memory is bounded");
        }
        (lines, too_long, framer.is_incomplete(&buffer))
    }

    #[test]
    fn a_datagram_needs_no_last_line_end() {
        let found: Vec<_> = lines(b"a:1|c\r\n\n\r\nb:2|c\nc:3|c").collect();
        assert_eq!(found, [b"a:1|c", b"b:2|c", b"c:3|c"]);
        assert_eq!(lines(b"").count() + lines(b"\n\n").count(), 0);
    }

    #[test]
    fn a_long_line_is_counted_once_and_the_next_line_is_good() {
        let mut input = vec![b'x'; 100_000];
        input.extend_from_slice(b"\ngood\n");
        let expected = (vec![b"good".to_vec()], 1, false);
        assert_eq!(run(&input, &[1000], 64), expected);
        assert_eq!(run(&input, &[200_000], 64), expected);
    }

    #[test]
    fn half_a_line_at_the_end_is_noticed() {
        assert!(run(b"a:1|c\nb:12", &[3], 64).2);
        assert!(!run(b"a:1|c\n", &[3], 64).2);
        assert!(!run(&[b'x'; 100], &[3], 64).2, "already counted as too long");
    }

    #[test]
    fn the_limit_is_exact_with_both_line_ends() {
        assert_eq!(run(b"1234\n1234\r\n12345\n", &[1], 4), (vec![b"1234".to_vec(); 2], 1, false));
    }

    proptest! {
        #[test]
        fn pieces_never_change_the_lines(
            input in "[ab\r\n]{0,60}",
            pieces in proptest::collection::vec(1usize..9, 1..8),
            limit in 1usize..12,
        ) {
            let whole = run(input.as_bytes(), &[usize::MAX], limit);
            prop_assert_eq!(&run(input.as_bytes(), &pieces, limit), &whole);
            // Against the datagram splitter: the same lines, but for the incomplete one.
            let all: Vec<_> = lines(input.as_bytes()).map(<[u8]>::to_vec).collect();
            let fit = all.iter().filter(|line| line.len() <= limit).count();
            let cut = usize::from(whole.2);
            prop_assert!(whole.0.len() == fit || whole.0.len() + cut == fit);
            prop_assert_eq!(whole.0.len() + whole.1 + cut, all.len());
        }
    }
}
