//! The bytes of a message, and what an answer says. Pure: no sockets, no clock.
//!
//! ```text
//! statsd:  METRIC:1|c|#run:RUN LF _ack|TOKEN LF           -> _ack|TOKEN LF, or _nack|TOKEN LF
//!          either line may be left out: an answer stands for everything before it
//! http:    POST /v1/push, one sample {METRIC, 1, run=RUN}  -> 200 {"accepted":1,...}
//! ```
//!
//! A token is the number of the connection and the number of the message on it, so an answer that
//! went to the wrong connection is seen. A message of one executor differs from the next only in its
//! token: it is made in place, in one buffer for all connections.
//!
//! Limits: an HTTP answer has at most [`ANSWER_BYTES_MAX`] bytes; a longer one is no answer.

use std::collections::HashMap;

use crate::plan::{Plan, ProtocolName};

/// Bytes of an HTTP answer, head and body.
pub const ANSWER_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 32;
const TOKEN_BYTES: usize = 16;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What of a message is sent; HTTP has one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The sample, and the question whether it counts.
    Asking,
    /// The sample.
    Silent,
    /// The question, for all samples before it.
    Question,
}

/// What some bytes said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// More bytes must come.
    Partial,
    /// The message counts.
    Acked,
    /// The target did not take the message; it may be sent again.
    Nacked,
    /// No answer to this message.
    Bad,
}

/// Writes messages and reads answers; one for all connections.
#[derive(Debug)]
pub struct Protocol {
    name: ProtocolName,
    message: Vec<u8>,
    /// Where the question and its token stand in the message.
    question_at: usize,
    token_at: usize,
    /// HTTP answers of which only a part has come.
    parts: HashMap<u32, Vec<u8>>,
}

fn write_hex(mut value: u32, out: &mut [u8]) {
    for byte in out.iter_mut().rev() {
        *byte = HEX[(value & 15) as usize];
        value >>= 4;
    }
}

fn token(index: u32, sequence: u32) -> [u8; TOKEN_BYTES] {
    let mut token = [0; TOKEN_BYTES];
    let (connection, message) = token.split_at_mut(TOKEN_BYTES / 2);
    write_hex(index, connection);
    write_hex(sequence, message);
    token
}

impl Protocol {
    pub fn new(plan: &Plan) -> Protocol {
        let (metric, run) = (&plan.metric, &plan.run);
        let (text, question_at, token_at) = match plan.protocol {
            ProtocolName::Statsd => {
                let sample = format!("{metric}:1|c|#run:{run}\n");
                let question_at = sample.len();
                let text = sample + "_ack|" + &" ".repeat(TOKEN_BYTES) + "\n";
                (text, question_at, question_at + 5)
            }
            ProtocolName::Http => {
                let body = format!(
                    r#"{{"name":"{metric}","type":"counter","value":1,"labels":{{"run":"{run}"}}}}"#
                );
                let head = format!(
                    "POST /v1/push HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
                     Content-Length: {}\r\n\r\n",
                    plan.target,
                    body.len()
                );
                (head + &body, 0, 0)
            }
        };
        Protocol {
            name: plan.protocol,
            message: text.into_bytes(),
            question_at,
            token_at,
            parts: HashMap::new(),
        }
    }

    /// The bytes of a message.
    #[inline]
    pub fn message(&mut self, part: Part, index: u32, sequence: u32) -> &[u8] {
        if self.name == ProtocolName::Http {
            return &self.message;
        }
        if part == Part::Silent {
            return &self.message[..self.question_at];
        }
        let start = if part == Part::Question { self.question_at } else { 0 };
        let place = &mut self.message[self.token_at..self.token_at + TOKEN_BYTES];
        place.copy_from_slice(&token(index, sequence));
        &self.message[start..]
    }

    /// Takes bytes of the answer to a message; `done` says how many came before.
    #[inline]
    pub fn answer(&mut self, index: u32, sequence: u32, done: &mut u16, bytes: &[u8]) -> Answer {
        let answer = match self.name {
            ProtocolName::Statsd => statsd_answer(index, sequence, done, bytes),
            ProtocolName::Http => self.http_answer(index, bytes),
        };
        if answer != Answer::Partial {
            *done = 0;
        }
        answer
    }

    /// The connection is gone: so is the half answer.
    pub fn forget(&mut self, index: u32) {
        if self.name == ProtocolName::Http {
            self.parts.remove(&index);
        }
    }

    fn http_answer(&mut self, index: u32, bytes: &[u8]) -> Answer {
        let Some(mut part) = self.parts.remove(&index) else {
            let answer = http_answer(bytes);
            if answer == Answer::Partial {
                self.parts.insert(index, bytes.to_vec());
            }
            return answer;
        };
        part.extend_from_slice(bytes);
        let answer = http_answer(&part);
        if answer == Answer::Partial {
            self.parts.insert(index, part);
        }
        answer
    }
}

/// Set in `done` when the answer has turned out to be a `_nack`.
const NACK_BIT: u16 = 1 << 15;

/// Compares with the only two answers there can be; what has come before is not kept, only its length.
fn statsd_answer(index: u32, sequence: u32, done: &mut u16, bytes: &[u8]) -> Answer {
    let mut wanted = *b"_nack|................\n";
    wanted[6..6 + TOKEN_BYTES].copy_from_slice(&token(index, sequence));
    let mut is_nack = *done & NACK_BIT != 0;
    let mut at = usize::from(*done & !NACK_BIT);
    for (number, &byte) in bytes.iter().enumerate() {
        if at == 1 && byte == b'n' {
            is_nack = true;
        }
        let place = if at == 0 || is_nack { at } else { at + 1 };
        if wanted[place] != byte {
            return Answer::Bad;
        }
        at += 1;
        if place + 1 == wanted.len() {
            let is_last = number + 1 == bytes.len();
            return match (is_last, is_nack) {
                (false, _) => Answer::Bad,
                (true, false) => Answer::Acked,
                (true, true) => Answer::Nacked,
            };
        }
    }
    *done = at as u16 | if is_nack { NACK_BIT } else { 0 };
    Answer::Partial
}

fn http_answer(bytes: &[u8]) -> Answer {
    if bytes.len() > ANSWER_BYTES_MAX {
        return Answer::Bad;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(count)) => count,
        Ok(httparse::Status::Partial) => return Answer::Partial,
        Err(_) => return Answer::Bad,
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let Some(length) = length else { return Answer::Bad };
    let body = &bytes[head_bytes..];
    match body.len().cmp(&length) {
        std::cmp::Ordering::Less => Answer::Partial,
        std::cmp::Ordering::Greater => Answer::Bad,
        std::cmp::Ordering::Equal => match head.code {
            Some(200) if body.starts_with(b"{\"accepted\":1,") => Answer::Acked,
            Some(408 | 429 | 503) => Answer::Nacked,
            _ => Answer::Bad,
        },
    }
}

#[cfg(test)]
#[path = "protocol_test.rs"]
mod tests;
