//! Liveness and readiness: two questions, each answered with its reasons.
//!
//! *Alive* means that this event loop runs; whoever can read the answer knows it. It is never "no"
//! because something else is down. *Ready* means that new work is welcome: the supervisor runs with
//! all children, this worker is not draining, memory has room for more connections, and the segment is
//! shared memory.
//!
//! The supervisor's `state` line is a JSON object. Looked at here: `ready` (boolean), or without it
//! `phase` (ready when `"running"`); `why` (string or array of strings) as the reasons of a "no";
//! and
//! `checks`, an array of `{"name": .., "ok": .., "why": ..}`. The rest is for the status page.
//! Before the first such line the worker is not ready.
//!
//! Answers: 200 `ok`, or 503 with one line for each reason; with `?verbose` one line for each
//! check,
//! `[+]` or `[-]` in front.

use serde::Deserialize;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    /// Why it says no; nothing when it says yes.
    pub why: Option<String>,
}

/// What is known to this worker.
#[derive(Debug, Default)]
pub struct Health {
    draining: bool,
    private_memory: bool,
    out_of_memory: Option<String>,
    supervisor: Option<Report>,
}

#[derive(Debug, Default, Deserialize)]
struct Report {
    ready: Option<bool>,
    phase: Option<String>,
    #[serde(default)]
    why: Why,
    #[serde(default)]
    checks: Vec<ReportedCheck>,
}

#[derive(Debug, Deserialize)]
struct ReportedCheck {
    name: String,
    ok: bool,
    #[serde(default)]
    why: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Why {
    One(String),
    Many(Vec<String>),
    #[default]
    Nothing,
}

impl Health {
    /// This worker takes no new work any more.
    pub fn set_draining(&mut self) {
        self.draining = true;
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// The segment could not be shared: what comes in here is not seen by other workers.
    pub fn set_private_memory(&mut self, private: bool) {
        self.private_memory = private;
    }

    /// Why no connections are taken, if none are.
    pub fn set_out_of_memory(&mut self, why: Option<String>) {
        self.out_of_memory = why;
    }

    /// Takes the supervisor's `state` line. One that cannot be read makes the worker not ready.
    pub fn set_state(&mut self, json: &str) {
        let unreadable = |error: serde_json::Error| Report {
            ready: Some(false),
            why: Why::One(format!("its report cannot be read: {error}")),
            ..Report::default()
        };
        self.supervisor = Some(serde_json::from_str(json).unwrap_or_else(unreadable));
    }

    /// The checks of liveness.
    pub fn live(&self) -> Vec<Check> {
        vec![Check { name: "event_loop".into(), why: None }]
    }

    /// The checks of readiness.
    pub fn ready(&self) -> Vec<Check> {
        let mut checks = self.live();
        let draining = self.draining.then(|| "this worker is draining".to_owned());
        checks.push(Check { name: "accepting".into(), why: draining });
        let private = "the segment is private memory of one worker";
        let private = self.private_memory.then(|| private.to_owned());
        checks.push(Check { name: "segment".into(), why: private });
        checks.push(Check { name: "memory".into(), why: self.out_of_memory.clone() });
        match &self.supervisor {
            None => {
                let why = Some("the supervisor has not reported yet".to_owned());
                checks.push(Check { name: "supervisor".into(), why });
            }
            Some(report) => report.checks(&mut checks),
        }
        checks
    }
}

impl Report {
    fn checks(&self, checks: &mut Vec<Check>) {
        let phase = self.phase.as_deref();
        let ready = self.ready.unwrap_or(phase == Some("running"));
        let why = (!ready).then(|| match &self.why {
            Why::One(why) if !why.is_empty() => why.clone(),
            Why::Many(why) if !why.is_empty() => why.join("; "),
            _ => format!("it is {}", phase.unwrap_or("not ready")),
        });
        checks.push(Check { name: "supervisor".into(), why });
        for check in &self.checks {
            let why = (!check.ok).then(|| check.why.clone());
            checks.push(Check { name: check.name.clone(), why });
        }
    }
}

/// Status and body for a list of checks.
pub fn answer(checks: &[Check], verbose: bool) -> (u16, String) {
    let failed = checks.iter().any(|check| check.why.is_some());
    let mut body = String::new();
    for check in checks {
        // A reason is one line, whatever the supervisor sent.
        let why = check.why.as_deref().map(|why| why.replace(['\n', '\r'], " "));
        match why {
            Some(why) if verbose => body += &format!("[-]{}: {why}\n", check.name),
            Some(why) => body += &format!("{}: {why}\n", check.name),
            None if verbose => body += &format!("[+]{} ok\n", check.name),
            None => {}
        }
    }
    if !failed {
        body += "ok\n";
    }
    (if failed { 503 } else { 200 }, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready_with(state: &str) -> (u16, String) {
        let mut health = Health::default();
        health.set_state(state);
        answer(&health.ready(), false)
    }

    #[test]
    fn readiness_waits_for_the_supervisor_and_liveness_does_not() {
        let health = Health::default();
        assert_eq!(answer(&health.live(), false), (200, "ok\n".into()));
        let (status, body) = answer(&health.ready(), false);
        assert_eq!(
            (status, body.as_str()),
            (503, "supervisor: the supervisor has not reported yet\n")
        );
    }

    #[test]
    fn the_supervisors_word_decides_and_its_reason_is_shown() {
        assert_eq!(ready_with(r#"{"phase":"running","workers":2}"#), (200, "ok\n".into()));
        assert_eq!(ready_with(r#"{"ready":true,"phase":"odd"}"#).0, 200);
        assert_eq!(
            ready_with(r#"{"phase":"draining"}"#),
            (503, "supervisor: it is draining\n".into())
        );
        let many = ready_with(r#"{"ready":false,"why":["a\nb","c"]}"#);
        assert_eq!(many, (503, "supervisor: a b; c\n".into()));
        let check = r#"{"ready":true,"checks":[{"name":"worker_1","ok":false,"why":"it died"}]}"#;
        assert_eq!(ready_with(check), (503, "worker_1: it died\n".into()));
        assert!(ready_with("{").1.contains("cannot be read"));
    }

    #[test]
    fn draining_makes_unready_and_stays_alive() {
        let mut health = Health::default();
        health.set_state(r#"{"ready":true}"#);
        health.set_draining();
        assert_eq!(answer(&health.ready(), false).0, 503);
        assert_eq!(answer(&health.live(), false).0, 200);
        let (_, verbose) = answer(&health.ready(), true);
        assert!(verbose.contains("[+]event_loop ok\n"), "{verbose}");
        assert!(verbose.contains("[-]accepting: this worker is draining\n"), "{verbose}");
    }
}
