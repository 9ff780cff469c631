//! Answers: those written at once into `out`, and those handed to a render thread.

use super::conn::Flow;
use super::gateway_path::GroupKey;
use super::head::Head;
use super::jobs::{self, Put, Reply};
use super::respond::{refusal_body, Answer, Terms, Why, JSON, TEXT};
use super::routes::{Route, NO_ROUTE};
use super::{health, page, HttpService, Shared};
use crate::counts::Count;

impl HttpService {
    /// Requests without a body.
    pub(super) fn answer(
        &mut self,
        head: &Head<'_>,
        route: Route<'_>,
        terms: Terms,
        out: &mut Vec<u8>,
        now_ms: u64,
    ) -> Flow {
        let verbose = head.query.split('&').any(|part| part == "verbose" || part == "verbose=1");
        let (status, body) = match route {
            Route::Livez => health::answer(&self.health.live(), verbose),
            Route::Readyz => health::answer(&self.health.ready(), verbose),
            Route::Metrics => return self.start_scrape(head, terms, out, now_ms),
            Route::Status => return self.start_status(terms, out, now_ms),
            Route::Schema => {
                let schema = self.settings.schema_json.clone();
                let answer = Answer::new(200, JSON);
                return self.send(out, now_ms, route, terms, answer, schema.as_bytes());
            }
            _ => {
                let (content_type, body) = page::asset(route);
                let answer = Answer { status: 200, content_type, extra: page::SECURITY_HEADERS };
                return self.send(out, now_ms, route, terms, answer, body.as_bytes());
            }
        };
        let extra: &[(&str, &str)] = match status {
            503 => &[("Retry-After", "1"), ("Cache-Control", "no-store")],
            _ => &[("Cache-Control", "no-store")],
        };
        let answer = Answer { status, content_type: TEXT, extra };
        self.send(out, now_ms, route, terms, answer, body.as_bytes())
    }

    /// The ordinary liveness probe: one copy.
    pub(super) fn answer_probe(&mut self, out: &mut Vec<u8>, now_ms: u64) -> Flow {
        let date = self.date.at(now_ms);
        if self.alive.0 != date {
            self.alive.0 = date.to_owned();
            self.alive.1.clear();
            let extra = &[("Cache-Control", "no-store")];
            let answer = Answer { status: 200, content_type: TEXT, extra };
            answer.write(&mut self.alive.1, date, Terms::PLAIN, b"ok\n");
        }
        out.extend_from_slice(&self.alive.1);
        self.count(Route::Livez.index(), 200);
        Flow::Next
    }

    /// Writes a refusal and counts it by its reason.
    pub(super) fn refuse(
        &mut self,
        out: &mut Vec<u8>,
        now_ms: u64,
        route: Option<Route<'_>>,
        terms: Terms,
        why: Why<'_>,
        extra: &[(&str, &str)],
    ) -> Flow {
        let Why(status, reason, text) = why;
        let json = route.is_some_and(Route::is_json);
        let body = refusal_body(json, reason, text);
        let answer = Answer { status, content_type: if json { JSON } else { TEXT }, extra };
        answer.write(out, self.date.at(now_ms), terms, &body);
        self.shared.stats.add_reason(Count::Refused, reason);
        self.count(route.map_or(NO_ROUTE, Route::index), status);
        after(terms)
    }

    pub(super) fn send(
        &mut self,
        out: &mut Vec<u8>,
        now_ms: u64,
        route: Route<'_>,
        terms: Terms,
        answer: Answer<'_>,
        body: &[u8],
    ) -> Flow {
        answer.write(out, self.date.at(now_ms), terms, body);
        self.count(route.index(), answer.status);
        after(terms)
    }

    /// Hands the request to a render thread, which writes the whole answer.
    fn start(
        &mut self,
        route: Route<'_>,
        terms: Terms,
        out: &mut Vec<u8>,
        now_ms: u64,
        work: impl FnOnce(&Shared, Reply<'_>) + Send + 'static,
    ) -> Flow {
        match jobs::submit(&self.pool, &self.shared, route.index(), terms, work) {
            Ok(stream) => Flow::Stream(stream),
            Err(_) => {
                let text = "too many answers are being made; try again";
                let why = Why(503, "answers_waiting", text);
                self.refuse(out, now_ms, Some(route), terms, why, &[("Retry-After", "1")])
            }
        }
    }

    fn start_scrape(
        &mut self,
        head: &Head<'_>,
        terms: Terms,
        out: &mut Vec<u8>,
        now_ms: u64,
    ) -> Flow {
        let format = agent_wire::negotiate::format(head.accept.unwrap_or(b""));
        let gzip = head.accept_encoding.is_some_and(agent_wire::negotiate::accepts_gzip);
        self.start(Route::Metrics, terms, out, now_ms, move |shared, reply| {
            jobs::scrape(shared, reply, format, gzip);
        })
    }

    fn start_status(&mut self, terms: Terms, out: &mut Vec<u8>, now_ms: u64) -> Flow {
        self.start(Route::Status, terms, out, now_ms, jobs::status)
    }

    pub(super) fn start_put(
        &mut self,
        put: Put,
        terms: Terms,
        out: &mut Vec<u8>,
        now_ms: u64,
    ) -> Flow {
        let wire = self.settings.wire.clone();
        self.start(Route::Gateway(""), terms, out, now_ms, move |shared, reply| {
            jobs::put(shared, reply, put, &wire);
        })
    }

    pub(super) fn start_delete(
        &mut self,
        key: GroupKey,
        terms: Terms,
        out: &mut Vec<u8>,
        now_ms: u64,
    ) -> Flow {
        self.start(Route::Gateway(""), terms, out, now_ms, move |shared, reply| {
            jobs::delete(shared, reply, &key);
        })
    }
}

fn after(terms: Terms) -> Flow {
    if terms.keep_alive {
        Flow::Next
    } else {
        Flow::Close
    }
}
