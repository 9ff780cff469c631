//! The value of one series, as a page shows it.

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
    GaugePerProcess(&'a [ProcessValue]),
    /// Upper bound and count *in* each bucket, ascending; the last bound is +Inf. Exponential histograms give the buckets
    /// of the octaves that were ever touched.
    Histogram {
        count: u64,
        sum: f64,
        buckets: &'a [(f64, u64)],
    },
    Summary {
        count: u64,
        sum: f64,
    },
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
