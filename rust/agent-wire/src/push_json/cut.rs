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

/// The texts of the samples, or why there is none at this place.
pub(super) fn pieces(body: &[u8], form: Body) -> Pieces<'_> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    let form = match form {
        Body::Auto if is_json(body) => Body::Json,
        Body::Auto => Body::Ndjson,
        known => known,
    };
    let state = match (form, body.first()) {
        (Body::Ndjson, _) => State::Lines,
        (_, None) => State::Broken("the body is empty"),
        (_, Some(b'[')) => State::Array { first: true },
        (_, Some(b'{')) => State::One,
        (_, Some(_)) => State::Broken("the body is neither a JSON object nor an array"),
    };
    let rest = if matches!(state, State::Array { .. }) { &body[1..] } else { body };
    Pieces { rest, state }
}

fn is_json(body: &[u8]) -> bool {
    match body.first() {
        Some(b'{') => object_end(body) == Some(body.len()),
        _ => true,
    }
}

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

pub(super) struct Pieces<'a> {
    rest: &'a [u8],
    state: State,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<&'a [u8], Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.state {
            State::Lines => self.next_line().map(Ok),
            State::One => {
                self.state = State::Done;
                Some(Ok(self.rest))
            }
            State::Array { first } => self.next_element(first),
            State::Broken(why) => {
                self.state = State::Done;
                Some(Err(Fault::new(Reject::JsonMalformed, why)))
            }
            State::Done => None,
        }
    }
}

impl<'a> Pieces<'a> {
    fn next_line(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
            let line = self.rest[..end].trim_ascii();
            self.rest = self.rest.get(end + 1..).unwrap_or(b"");
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }

    fn next_element(&mut self, first: bool) -> Option<Result<&'a [u8], Fault>> {
        let Some(end) = element_end(self.rest) else {
            self.state = State::Done;
            let why = "the array ends in the middle of a sample";
            return Some(Err(Fault::new(Reject::JsonMalformed, why)));
        };
        let element = self.rest[..end].trim_ascii();
        let closes = self.rest[end] == b']';
        self.rest = &self.rest[end + 1..];
        self.state = match closes {
            false => State::Array { first: false },
            true if self.rest.trim_ascii().is_empty() => State::Done,
            true => State::Broken("something follows the array"),
        };
        if element.is_empty() && closes && first {
            return self.next();
        }
        Some(Ok(element))
    }
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
