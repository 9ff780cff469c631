//! What one executor does, as JSON from the controller.
//!
//! The controller has checked everything that a user can get wrong and says it in the user's words;
//! an error from here means that the two sides disagree. Unknown keys are refused.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

/// Connections of one executor.
pub const CONNECTIONS_MAX: u32 = 1 << 24;
/// Bytes of the metric name and of the run's label together; a message fits into one small segment.
const TEXT_BYTES_MAX: usize = 256;

/// How messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolName {
    /// A counter line, and an `_ack` line that asks for an answer.
    Statsd,
    /// `POST /v1/push` with one sample, on a connection that is kept.
    Http,
}

/// Where connections come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sources {
    /// The kernel chooses.
    Any,
    /// `count` addresses of 127.0.0.0/8, from the one with number `first` on.
    Loopback { first: u32, count: u32 },
    /// These.
    Listed(Vec<IpAddr>),
}

/// How lost and failed connections come back.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// The first wait; it doubles with each failure, and is shortened at random by up to a half.
    pub min_s: f64,
    pub max_s: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub connections: u32,
    pub target: SocketAddr,
    pub protocol: ProtocolName,
    /// Every how many messages of a connection an answer is asked for; 1 with HTTP.
    pub ack_every: u16,
    pub sources: Sources,
    /// Connections that may be on their way to open at one time.
    pub opening_max: u32,
    pub connect_timeout_s: f64,
    pub ack_timeout_s: f64,
    /// `None`: what is lost stays lost.
    pub reconnect: Option<Backoff>,
    /// Name of the counter that messages add to, and the value of its label `run`.
    pub metric: String,
    pub run: String,
    /// Makes jitter and back-off of executors differ, and repeatable.
    pub seed: u64,
    /// Orders come here; its end ends the executor.
    pub control_fd: i32,
    /// Lines go there.
    pub report_fd: i32,
}

/// Why a plan cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError(String);

impl fmt::Display for PlanError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for PlanError {}

fn refuse<T>(why: impl Into<String>) -> Result<T, PlanError> {
    Err(PlanError(why.into()))
}

/// A name that needs no escaping in a StatsD line, in JSON or in a label.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

impl Plan {
    pub fn from_json(bytes: &[u8]) -> Result<Plan, PlanError> {
        let plan: Plan = match serde_json::from_slice(bytes) {
            Ok(plan) => plan,
            Err(error) => return refuse(format!("the plan cannot be read: {error}")),
        };
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), PlanError> {
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return refuse(format!("connections must be 1 to {CONNECTIONS_MAX}"));
        }
        if self.opening_max == 0 {
            return refuse("opening_max must be at least 1");
        }
        if self.ack_every == 0 || (self.ack_every > 1 && self.protocol == ProtocolName::Http) {
            return refuse("ack_every must be at least 1, and 1 with http");
        }
        for (name, seconds) in
            [("connect_timeout_s", self.connect_timeout_s), ("ack_timeout_s", self.ack_timeout_s)]
        {
            if !(0.001..=86_400.0).contains(&seconds) {
                return refuse(format!("{name} must be 0.001 to 86400"));
            }
        }
        if let Some(backoff) = self.reconnect {
            if !(0.001..=backoff.max_s).contains(&backoff.min_s) || backoff.max_s > 3600.0 {
                return refuse("reconnect needs 0.001 <= min_s <= max_s <= 3600");
            }
        }
        if !is_plain(&self.metric) || !is_plain(&self.run) {
            return refuse("metric and run take letters, digits, '_', '-' and '.'");
        }
        if self.metric.len() + self.run.len() > TEXT_BYTES_MAX {
            return refuse(format!("metric and run have more than {TEXT_BYTES_MAX} bytes"));
        }
        match &self.sources {
            Sources::Loopback { count: 0, .. } => refuse("sources must be at least one"),
            Sources::Listed(list) if list.is_empty() => refuse("sources must be at least one"),
            Sources::Listed(list)
                if list.iter().any(|ip| ip.is_ipv4() != self.target.is_ipv4()) =>
            {
                refuse("sources and target must be of the same family")
            }
            Sources::Loopback { .. } if !self.target.is_ipv4() => {
                refuse("addresses of 127.0.0.0/8 reach IPv4 targets only")
            }
            _ => Ok(()),
        }
    }

    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.connect_timeout_s)
    }

    pub fn ack_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.ack_timeout_s)
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
