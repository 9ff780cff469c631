//! The value of one series, as a page shows it.

use std::borrow::Cow;

/// The value of one series, merged over all processes.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// The total is the sum of both.
    Counter {
        whole: u64,
        fraction: f64,
    },
    Gauge(f64),
    /// One for each process, by slot.
    GaugePerProcess(Cow<'a, [ProcessValue]>),
    /// Upper bound and count *in* each bucket, ascending; the last bound is +Inf. Exponential histograms give the buckets
    /// of the octaves that were ever touched.
    Histogram {
        count: u64,
        sum: f64,
        buckets: Cow<'a, [(f64, u64)]>,
    },
    Summary {
        count: u64,
        sum: f64,
    },
}

impl Value<'_> {
    /// The same, for as long as one likes.
    pub(crate) fn to_static(&self) -> Value<'static> {
        match self {
            &Value::Counter { whole, fraction } => Value::Counter { whole, fraction },
            &Value::Gauge(value) => Value::Gauge(value),
            Value::GaugePerProcess(values) => Value::GaugePerProcess(values.to_vec().into()),
            &Value::Histogram { count, sum, ref buckets } => {
                Value::Histogram { count, sum, buckets: buckets.to_vec().into() }
            }
            &Value::Summary { count, sum } => Value::Summary { count, sum },
        }
    }
}

/// What one process says of a gauge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessValue {
    pub pid: u32,
    /// Its slot, where a process before it in the list has the same id: both are the first of their containers.
    pub twin: Option<u16>,
    pub value: f64,
}

impl ProcessValue {
    /// As the label `pid` of a page has it: `4711`, or `1@17`.
    pub fn id(&self) -> String {
        match self.twin {
            Some(slot) => format!("{}@{slot}", self.pid),
            None => self.pid.to_string(),
        }
    }
}
