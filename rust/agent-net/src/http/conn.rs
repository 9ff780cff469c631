//! One connection: from bytes to requests, from requests to answers.
//!
//! An answer that is decided before the body was read closes the connection, unless the body is at
//! most [`SKIPPED_BYTES_MAX`] of known length: that is skipped. Requests in one read are answered
//! in order until `out` holds [`OUT_BYTES_MAX`].

use super::body::{BodyError, Charge, Framer};
use super::decode::{Coding, Decoder};
use super::gateway_path::{samples_at_most, GroupKey};
use super::head::{Framing, Head, HeadError, HeadScan, Method, Scanned};
use super::jobs::Put;
use super::push::{self, Form, Outcome, Push, INLINE_BYTES_MAX};
use super::respond::{Answer, Terms, Why, JSON};
use super::routes::Route;
use super::stream::Stream;
use super::{HttpService, Ingest, Next, Peer};
use crate::counts::Count;

/// A body that nobody wants is read and forgotten up to this length.
pub const SKIPPED_BYTES_MAX: u64 = 64 << 10;
/// Pipelined requests wait when this much waits to be written.
pub const OUT_BYTES_MAX: usize = 64 << 10;

/// A liveness probe is remembered up to this length.
const PROBE_BYTES_MAX: usize = 512;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A request in progress.
pub struct HttpState {
    phase: Phase,
    deadline_ms: u64,
}

enum Phase {
    /// The head is not complete.
    Head { bytes: Vec<u8>, scan: HeadScan },
    /// The body is on its way.
    Body(Box<Upload>),
    /// The answer was given, the body is skipped.
    Skip(Framer),
}

struct Upload {
    task: Task,
    terms: Terms,
    framer: Framer,
    decoder: Decoder,
    charge: Charge,
    began_ms: u64,
    received: u64,
}

/// What a body is for.
enum Task {
    Push(Form),
    Group(GroupKey, bool),
}

impl Task {
    fn route(&self) -> Route<'static> {
        match self {
            Task::Push(_) => Route::Push,
            Task::Group(..) => Route::Gateway(""),
        }
    }
}

/// Where a connection stands after one step.
pub(super) enum Flow {
    /// The next request begins.
    Next,
    Wait(Box<HttpState>),
    Close,
    Stream(Stream),
    Apply(Box<Push>),
}

/// What one step has at hand.
struct Turn<'t, I> {
    peer: &'t Peer,
    out: &'t mut Vec<u8>,
    cx: &'t mut I,
    now_ms: u64,
}

impl HttpService {
    /// When the request in progress is too late; an idle connection has no deadline here.
    pub fn deadline_ms(state: &Option<Box<HttpState>>) -> Option<u64> {
        state.as_ref().map(|state| state.deadline_ms)
    }

    /// Whether the head of a request began this long ago and has not come to its end.
    pub fn is_slow_head(&self, state: &Option<Box<HttpState>>, now_ms: u64, most_ms: u64) -> bool {
        state.as_ref().is_some_and(|state| {
            matches!(state.phase, Phase::Head { .. })
                && state.deadline_ms + most_ms <= now_ms + self.settings.head_timeout_ms
        })
    }

    /// The deadline has passed: answers 408 and ends the request.
    pub fn on_deadline(&mut self, state: &mut Option<Box<HttpState>>, out: &mut Vec<u8>) -> Next {
        let (route, why) = match state.take().map(|state| state.phase) {
            Some(Phase::Head { bytes, .. }) if !bytes.iter().all(u8::is_ascii_whitespace) => {
                (None, Why(408, "slow_head", "the request head comes too slowly"))
            }
            Some(Phase::Body(upload)) => (Some(upload.task.route()), Why::from(BodyError::TooSlow)),
            _ => return Next::WriteThenClose,
        };
        self.refuse(out, 0, route, Terms::CLOSE, why, &[]);
        Next::WriteThenClose
    }

    /// Takes the bytes that arrived; see the module's head for what the answer means.
    pub fn on_bytes<I: Ingest>(
        &mut self,
        state: &mut Option<Box<HttpState>>,
        input: &[u8],
        peer: &Peer,
        out: &mut Vec<u8>,
        cx: &mut I,
        now_ms: u64,
    ) -> (usize, Next) {
        let mut turn = Turn { peer, out, cx, now_ms };
        let mut used = 0;
        while used < input.len() {
            if turn.out.len() > OUT_BYTES_MAX {
                return (used, Next::Write);
            }
            let (taken, flow) = match state.take() {
                None => self.begin(&input[used..], &mut turn),
                Some(state) => self.resume(state, &input[used..], &mut turn),
            };
            used += taken;
            match flow {
                Flow::Next => {}
                Flow::Wait(waiting) => *state = Some(waiting),
                Flow::Close => return (input.len(), Next::WriteThenClose),
                Flow::Stream(stream) => return (used, Next::Stream(stream)),
                Flow::Apply(push) => return (used, Next::Apply(push)),
            }
        }
        (used, if turn.out.is_empty() { Next::Read } else { Next::Write })
    }

    fn begin<I: Ingest>(&mut self, input: &[u8], turn: &mut Turn<'_, I>) -> (usize, Flow) {
        if !self.probe.is_empty() && input.starts_with(&self.probe) {
            return (self.probe.len(), self.answer_probe(turn.out, turn.now_ms));
        }
        let mut scan = HeadScan::new(self.settings.head_bytes_max);
        match scan.scan(input) {
            Ok(Scanned::Complete { start, end }) => {
                let (more, flow) = self.request(&input[start..end], &input[end..], turn);
                (end + more, flow)
            }
            Ok(Scanned::More) => {
                let phase = Phase::Head { bytes: input.to_vec(), scan };
                let deadline_ms = turn.now_ms + self.settings.head_timeout_ms;
                (input.len(), Flow::Wait(Box::new(HttpState { phase, deadline_ms })))
            }
            Err(error) => (0, self.refuse_head(error, turn)),
        }
    }

    fn resume<I: Ingest>(
        &mut self,
        mut state: Box<HttpState>,
        input: &[u8],
        turn: &mut Turn<'_, I>,
    ) -> (usize, Flow) {
        match &mut state.phase {
            Phase::Head { bytes, scan } => {
                let held = bytes.len();
                // One byte over the limit is enough to see that the limit is passed.
                let take = input.len().min(self.settings.head_bytes_max + 1 - held);
                bytes.extend_from_slice(&input[..take]);
                match scan.scan(bytes) {
                    Ok(Scanned::Complete { start, end }) => {
                        let rest = &input[end - held..];
                        let (more, flow) = self.request(&bytes[start..end], rest, turn);
                        (end - held + more, flow)
                    }
                    Ok(Scanned::More) => (take, Flow::Wait(state)),
                    Err(error) => (0, self.refuse_head(error, turn)),
                }
            }
            Phase::Skip(framer) => match framer.step(input) {
                Ok(step) if framer.is_done() => (step.consumed, Flow::Next),
                Ok(step) => (step.consumed, Flow::Wait(state)),
                Err(_) => (0, Flow::Close),
            },
            Phase::Body(upload) => match upload.take(input) {
                Ok(taken) if upload.framer.is_done() => {
                    let Phase::Body(upload) = state.phase else { return (taken, Flow::Close) };
                    (taken, self.finish_upload(*upload, turn))
                }
                Ok(taken) => {
                    let limits = &self.settings.body;
                    state.deadline_ms = limits.deadline_ms(upload.began_ms, upload.received);
                    (taken, Flow::Wait(state))
                }
                Err(error) => (0, self.refuse_body(error, &upload.task, turn)),
            },
        }
    }

    /// Answers a request whose head is complete; `rest` are the bytes behind it.
    fn request<I: Ingest>(
        &mut self,
        bytes: &[u8],
        rest: &[u8],
        turn: &mut Turn<'_, I>,
    ) -> (usize, Flow) {
        let head = match Head::parse(bytes) {
            Ok(head) => head,
            Err(error) => return (0, self.refuse_head(error, turn)),
        };
        let route = Route::of(head.path);
        let skipped = match head.framing {
            Framing::Empty => true,
            Framing::Length(bytes) => {
                bytes <= SKIPPED_BYTES_MAX
                    && !head.expect_continue
                    && !route.is_streamed(head.method)
            }
            Framing::Chunked => false,
        };
        let terms = Terms {
            http11: head.http11,
            keep_alive: head.keep_alive && !self.health.is_draining(),
            head_only: head.method == Method::Head,
        };
        // The terms of an answer that is given before the body was read.
        let early = Terms { keep_alive: terms.keep_alive && skipped, ..terms };
        let flow = if route == Route::Unknown {
            let why = Why(404, "not_found", "there is nothing at this path");
            self.refuse(turn.out, turn.now_ms, Some(route), early, why, &[])
        } else if !route.allows(head.method) {
            let allow = [("Allow", route.allow())];
            let why = Why(405, "method_not_allowed", "this path does not take this method");
            self.refuse(turn.out, turn.now_ms, Some(route), early, why, &allow)
        } else if let Route::Push | Route::Gateway(_) = route {
            match self.upload(&head, route, terms, early, rest, turn) {
                Ok(done) => return done,
                Err(flow) => flow,
            }
        } else if route == Route::Livez && early == Terms::PLAIN && head.query.is_empty() {
            if head.framing == Framing::Empty && bytes.len() <= PROBE_BYTES_MAX {
                self.probe.clear();
                self.probe.extend_from_slice(bytes);
            }
            self.answer_probe(turn.out, turn.now_ms)
        } else {
            self.answer(&head, route, early, turn.out, turn.now_ms)
        };
        (0, skip(flow, head.framing, turn.now_ms, &self.settings.body))
    }

    /// Requests with a body. `Err` is an answer that was given without reading it.
    fn upload<I: Ingest>(
        &mut self,
        head: &Head<'_>,
        route: Route<'_>,
        terms: Terms,
        early: Terms,
        rest: &[u8],
        turn: &mut Turn<'_, I>,
    ) -> Result<(usize, Flow), Flow> {
        let now_ms = turn.now_ms;
        if let Err(shed) = turn.cx.admit_request(turn.peer, now_ms) {
            let after = shed.retry_after_s.max(1).to_string();
            let extra = [("Retry-After", after.as_str())];
            let why = Why(503, shed.reason.as_str(), "over a limit; try again later");
            return Err(self.refuse(turn.out, now_ms, Some(route), early, why, &extra));
        }
        let task = match self.task(head, route) {
            Ok(Ok(task)) => task,
            Ok(Err(key)) => return Err(self.start_delete(key, early, turn.out, now_ms)),
            Err(why) => return Err(self.refuse(turn.out, now_ms, Some(route), early, why, &[])),
        };
        let upload = match self.receive(head, task, terms, now_ms) {
            Ok(upload) => upload,
            Err(error) => {
                let known = [("Accept-Encoding", "gzip, deflate, zstd")];
                let unknown = error == BodyError::UnknownCoding;
                let extra: &[(&str, &str)] = if unknown { &known } else { &[] };
                return Err(self.refuse(turn.out, now_ms, Some(route), early, error.into(), extra));
            }
        };
        if head.expect_continue && head.framing != Framing::Empty {
            turn.out.extend_from_slice(CONTINUE);
        }
        // The common case: a small plain body that came with its head.
        if let (Framing::Length(bytes), Task::Push(form), true) =
            (head.framing, &upload.task, head.content_encoding.is_none())
        {
            let small = usize::try_from(bytes).ok().filter(|bytes| *bytes <= INLINE_BYTES_MAX);
            let whole = small.and_then(|bytes| rest.get(..bytes));
            if let Some(body) = whole {
                let form = *form;
                return Ok((body.len(), self.push(body, form, terms, turn)));
            }
        }
        if upload.framer.is_done() {
            return Ok((0, self.finish_upload(upload, turn)));
        }
        let deadline_ms = self.settings.body.deadline_ms(now_ms, 0);
        let phase = Phase::Body(Box::new(upload));
        Ok((0, Flow::Wait(Box::new(HttpState { phase, deadline_ms }))))
    }

    /// What the body is for, or the group that is to be deleted.
    fn task(
        &self,
        head: &Head<'_>,
        route: Route<'_>,
    ) -> Result<Result<Task, GroupKey>, Why<'static>> {
        let Route::Gateway(group) = route else {
            let text = "the body must be application/json or application/x-ndjson";
            let form = Form::from_header(head.content_type);
            return form.map(|form| Ok(Task::Push(form))).ok_or(Why(415, "content_type", text));
        };
        let key = GroupKey::from_path(group, &self.settings.wire).map_err(|text| {
            self.shared.stats.add_reason(Count::GatewayRefused, "bad_group");
            Why(400, "bad_group", text)
        })?;
        if head.method == Method::Delete {
            return Ok(Err(key));
        }
        if !push::is_prometheus_text(head.content_type) {
            return Err(Why(415, "content_type", "the body must be Prometheus text 0.0.4"));
        }
        Ok(Ok(Task::Group(key, head.method == Method::Put)))
    }

    /// Gets ready for a body.
    fn receive(
        &self,
        head: &Head<'_>,
        task: Task,
        terms: Terms,
        now_ms: u64,
    ) -> Result<Upload, BodyError> {
        let coding = Coding::from_header(head.content_encoding)?;
        let sent_bytes_max = coding.sent_bytes_max(&self.settings.body) as u64;
        if matches!(head.framing, Framing::Length(bytes) if bytes > sent_bytes_max) {
            return Err(BodyError::TooLarge);
        }
        Ok(Upload {
            task,
            terms,
            framer: Framer::new(head.framing),
            decoder: Decoder::new(coding, &self.settings.body)?,
            charge: self.budget.charge(),
            began_ms: now_ms,
            received: 0,
        })
    }

    fn finish_upload<I: Ingest>(&mut self, upload: Upload, turn: &mut Turn<'_, I>) -> Flow {
        let body = match upload.decoder.finish() {
            Ok(body) => body,
            Err(error) => return self.refuse_body(error, &upload.task, turn),
        };
        match upload.task {
            Task::Push(form) => {
                let Upload { charge, terms, .. } = upload;
                let wire = &self.settings.wire;
                Flow::Apply(Box::new(Push::new(body, form, wire, charge, terms)))
            }
            Task::Group(key, replace) => {
                let samples = samples_at_most(&body);
                turn.cx.charge(turn.peer, samples, turn.now_ms);
                let put = Put { key, replace, body, _charge: upload.charge };
                self.start_put(put, upload.terms, turn.out, turn.now_ms)
            }
        }
    }

    fn push<I: Ingest>(
        &mut self,
        body: &[u8],
        form: Form,
        terms: Terms,
        turn: &mut Turn<'_, I>,
    ) -> Flow {
        let outcome = push::apply(body, form, &self.settings.wire, turn.cx);
        turn.cx.charge(turn.peer, outcome.samples, turn.now_ms);
        self.answer_push(outcome, terms, turn.out, turn.now_ms)
    }

    fn answer_push(
        &mut self,
        outcome: Outcome,
        terms: Terms,
        out: &mut Vec<u8>,
        now_ms: u64,
    ) -> Flow {
        let retry: &[(&str, &str)] =
            if outcome.status == 503 { &[("Retry-After", "1")] } else { &[] };
        let answer = Answer { status: outcome.status, content_type: JSON, extra: retry };
        self.send(out, now_ms, Route::Push, terms, answer, &outcome.json)
    }

    /// Applies the next slice of a push. Gives it back when there is more; else the answer is in `out`.
    pub fn apply_more<I: Ingest>(
        &mut self,
        mut push: Box<Push>,
        peer: &Peer,
        out: &mut Vec<u8>,
        cx: &mut I,
        now_ms: u64,
    ) -> Next {
        let (values, is_done) = push.go_on(cx);
        cx.charge(peer, values, now_ms);
        if !is_done {
            return Next::Apply(push);
        }
        let terms = push.terms;
        let outcome = push.finish(cx);
        cx.charge(peer, outcome.refused, now_ms);
        match self.answer_push(outcome, terms, out, now_ms) {
            Flow::Close => Next::WriteThenClose,
            _ => Next::Write,
        }
    }

    fn refuse_head<I: Ingest>(&mut self, error: HeadError, turn: &mut Turn<'_, I>) -> Flow {
        self.refuse(turn.out, turn.now_ms, None, Terms::CLOSE, error.into(), &[])
    }

    fn refuse_body<I: Ingest>(
        &mut self,
        error: BodyError,
        task: &Task,
        turn: &mut Turn<'_, I>,
    ) -> Flow {
        let retry: &[(&str, &str)] =
            if error.status() == 503 { &[("Retry-After", "1")] } else { &[] };
        let route = Some(task.route());
        self.refuse(turn.out, turn.now_ms, route, Terms::CLOSE, error.into(), retry)
    }
}

impl Upload {
    /// Takes what belongs to the body.
    fn take(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        let mut used = 0;
        while used < input.len() && !self.framer.is_done() {
            let step = self.framer.step(&input[used..])?;
            let data = &input[used..][step.data];
            self.decoder.feed(data)?;
            // A chunk that cannot fit is refused when it is announced: its sender may wait.
            if self.framer.announced() > self.decoder.room() as u64 {
                return Err(BodyError::TooLarge);
            }
            self.charge.raise_to(self.decoder.held_bytes())?;
            used += step.consumed;
        }
        self.received += used as u64;
        Ok(used)
    }
}

/// Lets the connection go on behind a body that nobody wants.
fn skip(flow: Flow, framing: Framing, now_ms: u64, limits: &super::body::BodyLimits) -> Flow {
    match (flow, framing) {
        (Flow::Next, Framing::Length(_)) => {
            let phase = Phase::Skip(Framer::new(framing));
            let deadline_ms = limits.deadline_ms(now_ms, 0);
            Flow::Wait(Box::new(HttpState { phase, deadline_ms }))
        }
        (flow, _) => flow,
    }
}
