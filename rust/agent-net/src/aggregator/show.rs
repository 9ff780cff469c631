//! The gauges that windows are shown as.
//!
//! | metric | labels |
//! |---|---|
//! | `agent_window_quantile` | of the series, `metric`, `app`, `window`, `q` |
//! | `agent_window_samples_per_second` | of the series, `metric`, `app`, `window` |
//! | `agent_window_error_ratio` | `metric`, `app`, `window` |
//!
//! The quantile is called `q`, because only a summary may have a label `quantile`. `app` is there
//! for series of apps only. A label of a series that has one of these names, or one that is
//! reserved, is shown with `exported_` before it. A window without samples has the rate 0 and NaN
//! for the rest, as the quantiles of a summary without samples.
//!
//! Limits: no more series than the segment takes; one that it refuses is tried again after
//! [`RETRY_TURNS`] seconds. Not promised: values of different windows are not of the same instant
//! for a scrape in between.

use agent_shm::{Error, MetricId, Outcome, Series, Writer};
use agent_wire::{labels, name};

use crate::telemetry::SelfMetric;
use crate::window::{Window, WINDOWS_S};

/// Quantiles shown, with their label values.
pub const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.95, "0.95"), (0.99, "0.99")];
const WINDOW_NAMES: [&str; WINDOWS_S.len()] = ["1s", "10s", "60s"];
/// Series of the metric that has most of them for one distribution.
pub const SERIES_EACH: u32 = (QUANTILES.len() * WINDOWS_S.len()) as u32;
/// Turns of a second until a gauge that found no room tries again.
pub const RETRY_TURNS: u64 = 60;

const OURS: [&str; 4] = ["app", "metric", "q", "window"];

/// The metrics of the table, registered.
#[derive(Clone, Copy)]
pub struct Ids {
    quantile: MetricId,
    rate: MetricId,
    errors: MetricId,
}

impl Ids {
    pub fn new(writer: &Writer) -> Result<Ids, Error> {
        Ok(Ids {
            quantile: writer.metric(&SelfMetric::WindowQuantile.spec())?,
            rate: writer.metric(&SelfMetric::WindowRate.spec())?,
            errors: writer.metric(&SelfMetric::WindowErrors.spec())?,
        })
    }
}

/// The labels that all gauges of one thing share: names and escaped values.
#[derive(Debug, Default)]
pub struct Base(Vec<(String, String)>);

impl Base {
    /// `text` is the label text of the source series, which may be anything.
    pub fn new(app: Option<&str>, metric: &str, text: &str) -> Base {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (raw, value) in labels::parse(text) {
            let is_taken = OURS.contains(&raw) || labels::is_reserved(raw.as_bytes());
            let mut clean = String::from(if is_taken { "exported_" } else { "" });
            name::sanitize_label(raw.as_bytes(), &mut clean);
            if !clean.is_empty() && !pairs.iter().any(|(other, _)| *other == clean) {
                pairs.push((clean, escaped(&value)));
            }
        }
        pairs.extend(app.map(|app| ("app".to_owned(), escaped(app))));
        pairs.push(("metric".to_owned(), escaped(metric)));
        Base(pairs)
    }

    fn text(&self, more: &[(&str, &str)]) -> String {
        let ours = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut pairs: Vec<(&str, &str)> = ours.chain(more.iter().copied()).collect();
        pairs.sort_unstable();
        let mut text = String::new();
        for (name, value) in pairs {
            let comma = if text.is_empty() { "" } else { "," };
            text.extend([comma, name, "=\"", value, "\""]);
        }
        text
    }
}

fn escaped(value: &str) -> String {
    let mut out = String::new();
    agent_metric::name::escape_label_value(value.as_bytes(), &mut out);
    out
}

/// One gauge: its series is found at first use, and again when it was removed.
#[derive(Default)]
struct Gauge {
    series: Option<Series>,
    /// Turn from which on it may try for room again.
    retry_at: u64,
}

impl Gauge {
    fn set(
        &mut self,
        writer: &Writer,
        metric: MetricId,
        value: f64,
        turn: u64,
        text: impl FnOnce() -> String,
    ) {
        let known = self.series.as_ref().map(|series| writer.set(series, value));
        if known == Some(Outcome::Applied) || turn < self.retry_at {
            return;
        }
        self.series = None;
        self.retry_at = turn + RETRY_TURNS;
        if let Ok(series) = writer.series(metric, &text()) {
            // Many things in one gauge would say nothing.
            if !series.is_overflow() && writer.set(&series, value) == Outcome::Applied {
                *self = Gauge { series: Some(series), retry_at: 0 };
            }
        }
    }

    fn remove(self, writer: &Writer, metric: MetricId, text: impl FnOnce() -> String) {
        if self.series.is_some() {
            writer.remove(metric, &text());
        }
    }
}

/// The gauges of one distribution.
#[derive(Default)]
pub struct Shown {
    base: Base,
    quantiles: [[Gauge; QUANTILES.len()]; WINDOWS_S.len()],
    rates: [Gauge; WINDOWS_S.len()],
}

impl Shown {
    pub fn new(base: Base) -> Shown {
        Shown { base, ..Shown::default() }
    }

    pub fn set(&mut self, writer: &Writer, ids: &Ids, window: &Window, turn: u64) {
        let base = &self.base;
        for (at, sum) in window.sums().iter().enumerate() {
            let span = WINDOW_NAMES[at];
            for (gauge, (q, q_name)) in self.quantiles[at].iter_mut().zip(QUANTILES) {
                let value = window.quantile(at, q).unwrap_or(f64::NAN);
                let text = || base.text(&[("window", span), ("q", q_name)]);
                gauge.set(writer, ids.quantile, value, turn, text);
            }
            let rate = sum.count() as f64 / WINDOWS_S[at] as f64;
            self.rates[at].set(writer, ids.rate, rate, turn, || base.text(&[("window", span)]));
        }
    }

    pub fn remove(self, writer: &Writer, ids: &Ids) {
        let base = &self.base;
        let spans = self.quantiles.into_iter().zip(self.rates).zip(WINDOW_NAMES);
        for ((quantiles, rate), span) in spans {
            for (gauge, (_, q_name)) in quantiles.into_iter().zip(QUANTILES) {
                let text = || base.text(&[("window", span), ("q", q_name)]);
                gauge.remove(writer, ids.quantile, text);
            }
            rate.remove(writer, ids.rate, || base.text(&[("window", span)]));
        }
    }
}

/// Samples of one metric in each window, those with an error label, and the gauges of the share.
#[derive(Default)]
pub struct Share {
    all: [u64; WINDOWS_S.len()],
    errors: [u64; WINDOWS_S.len()],
    base: Base,
    gauges: [Gauge; WINDOWS_S.len()],
    /// Turn in which a series of the metric was last counted.
    turn: u64,
}

impl Share {
    pub fn new(base: Base) -> Share {
        Share { base, ..Share::default() }
    }

    /// Counts one series of the metric in.
    pub fn count(&mut self, window: &Window, is_error: bool, turn: u64) {
        if self.turn != turn {
            (self.all, self.errors, self.turn) = Default::default();
            self.turn = turn;
        }
        for (at, sum) in window.sums().iter().enumerate() {
            self.all[at] += sum.count();
            self.errors[at] += if is_error { sum.count() } else { 0 };
        }
    }

    /// Whether the metric had a series with windows in this turn.
    pub fn is_current(&self, turn: u64) -> bool {
        self.turn == turn
    }

    pub fn set(&mut self, writer: &Writer, ids: &Ids) {
        let (base, turn) = (&self.base, self.turn);
        for (at, gauge) in self.gauges.iter_mut().enumerate() {
            let share = match self.all[at] {
                0 => f64::NAN,
                all => self.errors[at] as f64 / all as f64,
            };
            let text = || base.text(&[("window", WINDOW_NAMES[at])]);
            gauge.set(writer, ids.errors, share, turn, text);
        }
    }

    pub fn remove(self, writer: &Writer, ids: &Ids) {
        for (gauge, span) in self.gauges.into_iter().zip(WINDOW_NAMES) {
            gauge.remove(writer, ids.errors, || self.base.text(&[("window", span)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_series_keep_out_of_the_way_of_ours() {
        let base =
            Base::new(Some("shop"), "latency_seconds", r#"code="200",metric="x\"y",window="w""#);
        assert_eq!(
            base.text(&[("window", "1s"), ("q", "0.5")]),
            concat!(
                r#"app="shop",code="200",exported_metric="x\"y",exported_window="w","#,
                r#"metric="latency_seconds",q="0.5",window="1s""#
            )
        );
    }

    #[test]
    fn broken_label_text_of_an_app_becomes_clean() {
        let base = Base::new(None, "a\"b", "x y=\"1\",x-y=\"2\",=\"3\",le=\"4\",half=\"");
        assert_eq!(base.text(&[]), r#"exported_le="4",metric="a\"b",x_y="1""#);
    }
}
