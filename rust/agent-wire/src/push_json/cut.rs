//! Cuts a body into the texts of its samples, by brackets and quotes only.
//!
//! Whether a text is JSON is decided later, for each alone. One pass, no recursion, no memory.

use super::Fault;
use crate::Reject;

/// The form of a body, from its `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `application/json`: one object or an array.
    Json,
    /// `application/x-ndjson`: one object a line.
    Ndjson,
    /// Not said: an array when it begins with `[`, one object when nothing follows its end, else
    /// NDJSON.
    Auto,
}

/// A place in a body between two samples. It holds no reference, so that it can be kept.
pub(super) struct Cut {
    at: usize,
    /// What follows is white space.
    end: usize,
    state: State,
    /// The line of the last piece of NDJSON, from 1.
    line: usize,
}

impl Cut {
    /// The beginning of a body.
    pub fn new(body: &[u8], form: Body) -> Cut {
        let mark = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let at = body.len() - body[mark..].trim_ascii_start().len();
        let end = at + body[at..].trim_ascii_end().len();
        let (lines, text) = (&body[..at], &body[at..end]);
        let form = match form {
            Body::Auto if is_json(text) => Body::Json,
            Body::Auto => Body::Ndjson,
            known => known,
        };
        let (state, at) = match (form, text.first()) {
            (Body::Ndjson, _) => (State::Lines, at),
            (_, None) => (State::Broken("the body is empty"), at),
            (_, Some(b'[')) => (State::Array { first: true }, at + 1),
            (_, Some(b'{')) => (State::One, at),
            (_, Some(_)) => (State::Broken("the body is neither a JSON object nor an array"), at),
        };
        Cut { at, end, state, line: memchr::memchr_iter(b'\n', lines).count() }
    }

    /// The line of the last piece, from 1 and with lines of only blanks; nothing when it is no NDJSON.
    pub fn line(&self) -> Option<usize> {
        matches!(self.state, State::Lines).then_some(self.line)
    }

    /// The text of the next sample of the same body, or why there is none at this place.
    pub fn next<'a>(&mut self, body: &'a [u8]) -> Option<Result<&'a [u8], Fault>> {
        let rest = &body[self.at..self.end];
        match self.state {
            State::Lines => self.next_line(rest).map(Ok),
            State::One => {
                self.state = State::Done;
                Some(Ok(rest))
            }
            State::Array { first } => self.next_element(body, first),
            State::Broken(why) => {
                self.state = State::Done;
                Some(Err(Fault::new(Reject::JsonMalformed, why)))
            }
            State::Done => None,
        }
    }

    fn next_line<'a>(&mut self, mut rest: &'a [u8]) -> Option<&'a [u8]> {
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = rest[..end].trim_ascii();
            rest = rest.get(end + 1..).unwrap_or(b"");
            self.at = self.end - rest.len();
            self.line += 1;
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }

    fn next_element<'a>(&mut self, body: &'a [u8], first: bool) -> Option<Result<&'a [u8], Fault>> {
        let rest = &body[self.at..self.end];
        let Some(end) = element_end(rest) else {
            self.state = State::Done;
            let why = "the array ends in the middle of a sample";
            return Some(Err(Fault::new(Reject::JsonMalformed, why)));
        };
        let element = rest[..end].trim_ascii();
        let closes = rest[end] == b']';
        self.at += end + 1;
        self.state = match closes {
            false => State::Array { first: false },
            true if rest[end + 1..].trim_ascii().is_empty() => State::Done,
            true => State::Broken("something follows the array"),
        };
        if element.is_empty() && closes && first {
            return self.next(body);
        }
        Some(Ok(element))
    }
}

fn is_json(body: &[u8]) -> bool {
    match body.first() {
        Some(b'{') => object_end(body) == Some(body.len()),
        _ => true,
    }
}

#[derive(Clone, Copy)]
enum State {
    Lines,
    One,
    /// Behind `[` (first) or behind a comma.
    Array {
        first: bool,
    },
    Broken(&'static str),
    Done,
}

const STRING: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;
const COMMA: u8 = 4;

static ROLE: [u8; 256] = {
    let mut table = [0u8; 256];
    table[b'"' as usize] = STRING;
    table[b'{' as usize] = OPEN;
    table[b'[' as usize] = OPEN;
    table[b'}' as usize] = CLOSE;
    table[b']' as usize] = CLOSE;
    table[b',' as usize] = COMMA;
    table
};

/// Behind the closing quote of a string whose opening quote stands at `at`.
#[inline]
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The comma or closing bracket that ends an element of an array.
fn element_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        match ROLE[*text.get(at)? as usize] {
            STRING => {
                at = string_end(text, at)?;
                continue;
            }
            OPEN => depth += 1,
            CLOSE if depth > 0 => depth -= 1,
            CLOSE if text[at] == b']' => return Some(at),
            COMMA if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

/// Behind the bracket that closes the object the text begins with.
fn object_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        match ROLE[*text.get(at)? as usize] {
            STRING => {
                at = string_end(text, at)?;
                continue;
            }
            OPEN => depth += 1,
            CLOSE if depth <= 1 => return Some(at + 1),
            CLOSE => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

/// How deep the brackets of a text are nested.
pub(super) fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut at) = (0usize, 0usize, 0usize);
    while let Some(&byte) = text.get(at) {
        match ROLE[byte as usize] {
            STRING => match string_end(text, at) {
                Some(end) => {
                    at = end;
                    continue;
                }
                None => return deepest,
            },
            OPEN => depth += 1,
            CLOSE => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        at += 1;
    }
    deepest
}
