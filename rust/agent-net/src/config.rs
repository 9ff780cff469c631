//! The settings of one worker and of the aggregator, as JSON from the supervisor.
//!
//! Purpose: one struct per process. The supervisor has checked everything that a user can get wrong
//! and says it in the user's words; a message from here means that the two sides disagree.
//!
//! A limit of 0 is off where the field says so. Defaults are those of the settings file, so that a
//! test may leave out what it does not care about. Unknown keys are refused.
//!
//! Rates of all sources are divided here by `workers`; connections are counted over all workers.

use std::fmt;

use agent_metric::{bounds, OwnedShape};
use agent_wire::mapping::MappingRule;
use agent_wire::name_tags::Dialects;
use serde::Deserialize;

use crate::place::Place;

/// What a listener's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerSource {
    Http,
    StatsdUdp,
    StatsdTcp,
    StatsdUnixgram,
    StatsdUnix,
}

/// One socket that the supervisor bound; the worker reads or accepts from it and never closes it. -1
/// where the desk accepts: connections of this source come from there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub fd: i32,
    pub source: ListenerSource,
    /// For people: what the status page and the logs call it.
    #[serde(default)]
    pub address: String,
}

/// Everything a worker needs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The place of this process; the label `worker`.
    pub worker: Place,
    /// Number of workers, the divisor of totals.
    #[serde(default = "one")]
    pub workers: u32,
    /// Path of the collector's segment.
    pub segment: String,
    /// Folder of the segments of apps.
    #[serde(default)]
    pub apps_dir: String,
    /// Folders of other users, whose apps are shown too; the last part may have `*`.
    #[serde(default)]
    pub apps_shared_dirs: Vec<String>,
    /// How long an app is shown without a living writer; 0 = for ever.
    #[serde(default = "apps_idle_s")]
    pub apps_idle_s: u32,
    /// The worker's end of the supervisor's socket pair.
    pub control_fd: i32,
    /// Where its connections go when it retires, and where those of its predecessor come from; see
    /// [`crate::handover`].
    #[serde(default = "no_fd")]
    pub handover_out_fd: i32,
    #[serde(default = "no_fd")]
    pub handover_in_fd: i32,
    /// Of the desk: to each worker, for connections that push; see [`crate::desk`].
    #[serde(default)]
    pub desk_out_fds: Vec<i32>,
    /// Of a worker: where those come from.
    #[serde(default = "no_fd")]
    pub desk_in_fd: i32,
    /// Empty in a `reload`: listeners stay as they are.
    #[serde(default)]
    pub listeners: Vec<Listener>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub series: Series,
    #[serde(default)]
    pub histograms: Histograms,
    /// Which dialects of tags inside of names are read.
    #[serde(default)]
    pub name_tags: Dialects,
    #[serde(default)]
    pub mapping: Vec<MappingRule>,
    /// Whether raw samples go through the rings to the aggregator.
    #[serde(default = "yes")]
    pub windows: bool,
    /// Time to finish after `drain`; then connections are cut.
    #[serde(default = "drain_timeout_s")]
    pub drain_timeout_s: f64,
    /// The document of `/v1/schema`, served as it is.
    #[serde(default)]
    pub schema_json: String,
    #[serde(default)]
    pub version: String,
}

/// Everything the aggregator needs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregatorConfig {
    pub segment: String,
    #[serde(default)]
    pub apps_dir: String,
    /// As in [`WorkerConfig`], and the next.
    #[serde(default)]
    pub apps_shared_dirs: Vec<String>,
    #[serde(default = "apps_idle_s")]
    pub apps_idle_s: u32,
    pub control_fd: i32,
    #[serde(default)]
    pub series: Series,
    /// Whether windows are computed. Sets are estimated in any case.
    #[serde(default = "yes")]
    pub windows: bool,
    /// Most series that have windows; the rest is counted.
    #[serde(default = "windows_series_max")]
    pub windows_series_max: u32,
}

/// What a sender may ask for. Everything above is refused and counted by its reason.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Token bucket of one source address; 0 = off.
    pub source_samples_per_s_max: u64,
    /// 0 = one second of the rate.
    pub source_samples_burst_max: u64,
    /// Sliding window of one source address; 0 = off.
    pub source_window_samples_max: u64,
    /// Token bucket over all sources and workers; 0 = off.
    pub total_samples_per_s_max: u64,
    /// 0 = one second of the rate.
    pub total_samples_burst_max: u64,
    /// Sliding window over all sources and workers; 0 = off.
    pub total_window_samples_max: u64,
    /// Length of the sliding windows.
    pub rate_window_s: u32,
    /// Source addresses with limits of their own; the rest shares one.
    pub sources_max: u32,
    /// Open connections of all workers together; 0 = what their file limits allow.
    pub connections_max: u32,
    /// Open connections of one source address; 0 = off.
    pub source_connections_max: u32,
    pub line_bytes_max: usize,
    pub name_bytes_max: usize,
    pub labels_max: usize,
    pub label_name_bytes_max: usize,
    pub label_value_bytes_max: usize,
    pub values_max: usize,
    pub set_value_bytes_max: usize,
    pub rate_min: f64,
    pub event_bytes_max: usize,
    pub help_bytes_max: usize,
    pub header_bytes_max: usize,
    pub body_bytes_max: usize,
    pub body_decompressed_bytes_max: usize,
    pub body_samples_max: usize,
    pub refusals_listed_max: usize,
    pub body_ratio_max: usize,
    /// Bytes of HTTP bodies held at one time.
    pub bodies_bytes_max: usize,
    pub header_timeout_s: f64,
    /// Slowest rate of a body; 0 = any.
    pub body_bytes_per_s_min: u64,
    pub http_idle_timeout_s: f64,
    pub stream_idle_timeout_s: f64,
    /// Share of the memory limit above which samples are shed; 1 = never.
    /// Above this share of the memory limit samples are refused.
    pub memory_used_ratio_max: f64,
    /// Above this one new connections are.
    pub memory_connections_ratio_max: f64,
    /// 0 = the cgroup's limit, or the machine's memory.
    pub memory_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            source_samples_per_s_max: 5_000_000,
            source_samples_burst_max: 0,
            source_window_samples_max: 40_000_000,
            total_samples_per_s_max: 20_000_000,
            total_samples_burst_max: 0,
            total_window_samples_max: 160_000_000,
            rate_window_s: 10,
            sources_max: 65_536,
            connections_max: 0,
            source_connections_max: 65_536,
            line_bytes_max: 64 << 10,
            name_bytes_max: 256,
            labels_max: 40,
            label_name_bytes_max: 128,
            label_value_bytes_max: 1 << 10,
            values_max: 1000,
            set_value_bytes_max: 1 << 10,
            rate_min: 1e-6,
            event_bytes_max: 8 << 10,
            help_bytes_max: 1 << 10,
            header_bytes_max: 16 << 10,
            body_bytes_max: 4 << 20,
            body_decompressed_bytes_max: 16 << 20,
            body_samples_max: 100_000,
            refusals_listed_max: 100,
            body_ratio_max: 100,
            bodies_bytes_max: 64 << 20,
            header_timeout_s: 5.0,
            body_bytes_per_s_min: 1 << 10,
            http_idle_timeout_s: 300.0,
            stream_idle_timeout_s: 3600.0,
            memory_used_ratio_max: 0.9,
            memory_connections_ratio_max: 0.85,
            memory_bytes_max: 0,
        }
    }
}

impl Limits {
    /// The part that the codecs look at.
    pub fn wire(&self) -> agent_wire::Limits {
        agent_wire::Limits {
            line_bytes_max: self.line_bytes_max,
            name_bytes_max: self.name_bytes_max,
            labels_max: self.labels_max,
            label_name_bytes_max: self.label_name_bytes_max,
            label_value_bytes_max: self.label_value_bytes_max,
            values_max: self.values_max,
            set_value_bytes_max: self.set_value_bytes_max,
            rate_min: self.rate_min,
            event_bytes_max: self.event_bytes_max,
            body_samples_max: self.body_samples_max,
            help_bytes_max: self.help_bytes_max,
            refusals_listed_max: self.refusals_listed_max,
            ..agent_wire::Limits::default()
        }
    }
}

/// Size of the collector's segment and age of its series.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Series {
    pub series_max: u32,
    pub metric_series_max: u32,
    pub metrics_max: u32,
    pub segment_bytes_max: u64,
    /// A series without a write for this time is removed; 0 = never.
    pub idle_expiry_s: u32,
}

impl Default for Series {
    fn default() -> Self {
        Series {
            series_max: 1_000_000,
            metric_series_max: 10_000,
            metrics_max: 20_000,
            segment_bytes_max: 4 << 30,
            idle_expiry_s: 86_400,
        }
    }
}

/// What timers, histograms and distributions become where no mapping rule says it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Histograms {
    /// Finite upper bounds, ascending; the supervisor has checked them.
    pub buckets: Vec<f64>,
    /// Native histograms instead.
    pub native: bool,
}

impl Default for Histograms {
    fn default() -> Self {
        Histograms { buckets: bounds::STATSD.to_vec(), native: false }
    }
}

impl Histograms {
    pub fn shape(&self) -> OwnedShape {
        match self.native {
            true => OwnedShape::Exponential { schema: bounds::NATIVE_SCHEMA },
            false => OwnedShape::Explicit(self.buckets.clone()),
        }
    }
}

fn one() -> u32 {
    1
}

fn no_fd() -> i32 {
    -1
}

fn yes() -> bool {
    true
}

fn apps_idle_s() -> u32 {
    crate::apps::IDLE_S
}

fn drain_timeout_s() -> f64 {
    25.0
}

fn windows_series_max() -> u32 {
    10_000
}

/// Why a config was refused.
#[derive(Debug)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl From<serde_json::Error> for ConfigError {
    fn from(error: serde_json::Error) -> Self {
        ConfigError(format!("config from the supervisor: {error}"))
    }
}

impl WorkerConfig {
    pub fn from_json(json: &[u8]) -> Result<WorkerConfig, ConfigError> {
        Ok(serde_json::from_slice(json)?)
    }
}

impl AggregatorConfig {
    pub fn from_json(json: &[u8]) -> Result<AggregatorConfig, ConfigError> {
        Ok(serde_json::from_slice(json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_config_gets_the_defaults_of_the_settings_file() {
        let json = br#"{"worker": 1, "segment": "/s", "control_fd": 7,
            "listeners": [{"fd": 5, "source": "statsd_udp", "address": "127.0.0.1:8125"}],
            "limits": {"line_bytes_max": 128}}"#;
        let config = WorkerConfig::from_json(json).expect("valid");
        assert_eq!(config.listeners[0].source, ListenerSource::StatsdUdp);
        assert_eq!(config.limits.wire().line_bytes_max, 128);
        assert_eq!(config.limits.wire().labels_max, agent_wire::Limits::default().labels_max);
        assert!(config.windows);
    }

    #[test]
    fn an_unknown_limit_is_refused_by_its_name() {
        let json = br#"{"worker": 1, "segment": "/s", "control_fd": 7, "limits": {"line_max": 1}}"#;
        let error = WorkerConfig::from_json(json).expect_err("unknown key").to_string();
        assert!(error.contains("line_max"), "{error}");
    }
}
