//! What render threads do: whole answers, from the status line to the last chunk.
//!
//! A page that fits into one piece has a `Content-Length`; a longer one is chunked, each piece
//! being sent when it is full (`stream.rs` has the back-pressure). An answer that is given up is
//! broken off: in HTTP/1.1 the missing last chunk tells the reader.

use std::io::Write;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use agent_wire::Format;
use agent_wire::Limits;
use flate2::write::GzEncoder;
use flate2::Compression;

use super::body::Charge;
use super::gateway::PutError;
use super::gateway_path::{samples_at_most, GroupKey};
use super::pool::{Busy, Pool, Pressure};
use super::respond::{http_date_now, Answer, Extent, Terms, JSON, LAST_CHUNK, TEXT};
use super::routes::LABELS;
use super::stream::{channel, Sink, Stream, CHUNK_BYTES};
use super::{page, status as status_json, Shared};
use crate::counts::{Count, Stats};
use crate::scrape::{self, Candidate, Skipped, Source};

/// Room for the size line of a chunk: eight hex digits, CR, LF.
const SIZE_LINE_BYTES: usize = 10;

/// Where a job writes its answer.
pub struct Reply<'p> {
    sink: Sink,
    terms: Terms,
    pressure: &'p Pressure,
    stats: &'p Stats,
    /// Position in [`LABELS`].
    route: usize,
}

/// Starts `work` on a render thread; the stream is its answer.
pub fn submit(
    pool: &Pool,
    shared: &Arc<Shared>,
    route: usize,
    terms: Terms,
    work: impl FnOnce(&Shared, Reply<'_>) + Send + 'static,
) -> Result<Stream, Busy> {
    let (sink, stream) = channel().map_err(|_| Busy)?;
    let shared = shared.clone();
    pool.submit(Box::new(move |pressure| {
        let stats = &*shared.stats;
        work(&shared, Reply { sink, terms, pressure, stats, route });
    }))?;
    Ok(stream)
}

impl Reply<'_> {
    fn send(&self, bytes: Vec<u8>) -> bool {
        self.sink.send(bytes, &|| self.pressure.patience()).is_ok()
    }

    fn count(&self, status: u16) {
        let labels = format!("code=\"{status}\",route=\"{}\"", LABELS[self.route]);
        self.stats.add(Count::Requests, &labels, 1);
    }

    /// A whole answer of one piece.
    fn answer(self, answer: Answer<'_>, body: &[u8]) {
        self.count(answer.status);
        let mut bytes = Vec::with_capacity(body.len() + 512);
        answer.write(&mut bytes, &http_date_now(), self.terms, body);
        if self.send(bytes) {
            self.sink.end(!self.terms.keep_alive);
        }
    }
}

/// A body of unknown length on its way out.
struct Pages<'p> {
    reply: Reply<'p>,
    answer: Answer<'static>,
    gzip: Option<GzEncoder<Vec<u8>>>,
    /// Encoded bytes behind room for a size line.
    piece: Vec<u8>,
    head_sent: bool,
}

impl<'p> Pages<'p> {
    fn new(reply: Reply<'p>, answer: Answer<'static>, gzip: bool) -> Pages<'p> {
        let gzip = gzip.then(|| GzEncoder::new(Vec::new(), Compression::new(1)));
        Pages { reply, answer, gzip, piece: vec![0; SIZE_LINE_BYTES], head_sent: false }
    }

    /// Takes all of `plain`; says whether the reader is still there.
    fn push(&mut self, plain: &mut Vec<u8>) -> bool {
        self.encode(plain);
        self.piece.len() < CHUNK_BYTES || self.send_piece()
    }

    fn encode(&mut self, plain: &mut Vec<u8>) {
        match &mut self.gzip {
            None => self.piece.extend_from_slice(plain),
            Some(gzip) => {
                // Into memory: this cannot fail.
                let _ = gzip.write_all(plain);
                self.piece.append(gzip.get_mut());
            }
        }
        plain.clear();
    }

    fn send_piece(&mut self) -> bool {
        if !self.head_sent {
            self.head_sent = true;
            let mut head = Vec::with_capacity(512);
            self.answer.head(&mut head, &http_date_now(), self.reply.terms, Extent::Open);
            if !self.reply.send(head) {
                return false;
            }
        }
        let length = self.piece.len() - SIZE_LINE_BYTES;
        if length == 0 {
            return true;
        }
        let fresh = Vec::with_capacity(CHUNK_BYTES + (CHUNK_BYTES >> 3));
        let mut piece = std::mem::replace(&mut self.piece, fresh);
        self.piece.resize(SIZE_LINE_BYTES, 0);
        if self.reply.terms.http11 {
            piece[..SIZE_LINE_BYTES].copy_from_slice(format!("{length:08x}\r\n").as_bytes());
            piece.extend_from_slice(b"\r\n");
        } else {
            piece.drain(..SIZE_LINE_BYTES);
        }
        self.reply.send(piece)
    }

    /// Sends what is left and ends the answer; says whether all of it was handed over.
    fn finish(mut self, mut plain: Vec<u8>) -> bool {
        self.encode(&mut plain);
        if let Some(gzip) = self.gzip.take() {
            self.piece.append(&mut gzip.finish().unwrap_or_default());
        }
        if !self.head_sent {
            let body = &self.piece[SIZE_LINE_BYTES..];
            let mut bytes = Vec::with_capacity(body.len() + 512);
            self.answer.write(&mut bytes, &http_date_now(), self.reply.terms, body);
            let sent = self.reply.send(bytes);
            if sent {
                self.reply.sink.end(!self.reply.terms.keep_alive);
            }
            return sent;
        }
        if !self.send_piece() {
            return false;
        }
        let Terms { http11, keep_alive, .. } = self.reply.terms;
        if http11 && !self.reply.send(LAST_CHUNK.to_vec()) {
            return false;
        }
        self.reply.sink.end(!keep_alive || !http11);
        true
    }
}

/// `GET /metrics`.
pub fn scrape(shared: &Shared, reply: Reply<'_>, format: Format, gzip: bool) {
    let began = Instant::now();
    reply.count(200);
    const PLAIN: &[(&str, &str)] = &[("Vary", "Accept, Accept-Encoding")];
    const GZIP: &[(&str, &str)] =
        &[("Vary", "Accept, Accept-Encoding"), ("Content-Encoding", "gzip")];
    let answer = Answer {
        status: 200,
        content_type: format.content_type(),
        extra: if gzip { GZIP } else { PLAIN },
    };
    if reply.terms.head_only {
        let mut head = Vec::new();
        answer.head(&mut head, &http_date_now(), reply.terms, Extent::Open);
        if reply.send(head) {
            let Terms { http11, keep_alive, .. } = reply.terms;
            reply.sink.end(!keep_alive || !http11);
        }
        return;
    }
    let apps = {
        let mut apps = shared.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.refresh(&shared.stats)
    };
    let (groups, _) = shared.gateway.groups();
    let mut sources = vec![Source::own(&shared.segment)];
    sources.extend(apps.iter().map(Source::of));
    let mut pages = Pages::new(reply, answer, gzip);
    let mut plain = Vec::with_capacity(scrape::PIECE_BYTES + (scrape::PIECE_BYTES >> 3));
    let mut there = true;
    let left_out = scrape::render_pieces(&sources, &groups, format, &mut plain, &mut |plain| {
        there = pages.push(plain);
        there
    });
    // Before the last byte: who has read the page finds it counted.
    for (source, skipped) in sources.iter().zip(&left_out.sources) {
        count_skipped(&shared.stats, source.app, skipped);
    }
    count_skipped(&shared.stats, None, &left_out.pushed);
    if !there || !pages.finish(plain) {
        shared.stats.add(Count::ScrapesBroken, "", 1);
    }
    shared.stats.observe_scrape(began.elapsed().as_secs_f64());
}

/// By app: there are at most [`crate::apps::APPS_MAX`] at one time.
fn count_skipped(stats: &Stats, app: Option<&str>, skipped: &Skipped) {
    let mut of = String::new();
    if let Some(app) = app {
        of.push_str("app=\"");
        agent_metric::name::escape_label_value(app.as_bytes(), &mut of);
        of.push('"');
    }
    stats.add(Count::InfiniteSums, &of, skipped.infinite_sums);
    for (reason, count) in skipped.by_reason().into_iter().filter(|(_, count)| *count > 0) {
        let comma = if of.is_empty() { "" } else { "," };
        stats.add(Count::FamiliesSkipped, &format!("{of}{comma}reason=\"{reason}\""), count);
    }
}

/// `GET /v1/status`.
pub fn status(shared: &Shared, reply: Reply<'_>) {
    let body = status_json::render(shared);
    reply.answer(Answer { status: 200, content_type: JSON, extra: page::FRESH }, &body);
}

/// A push to a group.
pub struct Put {
    pub key: GroupKey,
    pub replace: bool,
    pub body: Vec<u8>,
    /// Holds the memory of the body until it is stored.
    pub _charge: Charge,
}

/// PUT and POST of a group.
pub fn put(shared: &Shared, reply: Reply<'_>, put: Put, limits: &Limits) {
    let apps = {
        let mut apps = shared.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.refresh(&shared.stats)
    };
    let mut sources = Candidate::all_of_segment(&Source::own(&shared.segment));
    for app in &apps {
        sources.extend(Candidate::all_of_segment(&Source::of(app)));
    }
    let result = shared.gateway.put(&put.key, put.replace, &put.body, limits, sources);
    let samples = samples_at_most(&put.body);
    drop(put);
    let rejected = result.as_ref().err().map(PutError::reason);
    shared.stats.settle_gateway(shared.worker, samples, rejected);
    match result {
        Ok(()) => reply.answer(Answer::new(200, TEXT), b""),
        Err(error) => refuse_put(shared, reply, error),
    }
}

fn refuse_put(shared: &Shared, reply: Reply<'_>, error: PutError) {
    let reason = error.reason();
    let (status, text) = match error {
        PutError::Bad { text, .. } => (400, text),
        PutError::Full => (507, "there is no room for more groups".to_owned()),
        PutError::Locked => (503, "another push takes too long".to_owned()),
        PutError::Folder(error) => (500, format!("groups cannot be kept: {error}")),
    };
    shared.stats.add_reason(Count::GatewayRefused, reason);
    let retry: &[(&str, &str)] = if status == 503 { &[("Retry-After", "1")] } else { &[] };
    let body = super::respond::refusal_body(false, reason, &text);
    reply.answer(Answer { status, content_type: TEXT, extra: retry }, &body);
}

/// DELETE of a group.
pub fn delete(shared: &Shared, reply: Reply<'_>, key: &GroupKey) {
    match shared.gateway.delete(key) {
        Ok(()) => reply.answer(Answer::new(202, TEXT), b""),
        Err(error) => refuse_put(shared, reply, error),
    }
}
