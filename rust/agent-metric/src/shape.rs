//! The shape of a metric: what the cells of its series mean.

/// What the processes of an app mean by one gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum GaugeMode {
    /// One number for all: `set` replaces it, `inc` and `dec` change it, whoever calls.
    #[default]
    MostRecent = 0,
    /// One number per process; those of dead processes stay until their slot has a new owner.
    All = 1,
    LiveAll = 2,
    /// The sum over all processes, the dead included.
    Sum = 3,
    LiveSum = 4,
    Min = 5,
    LiveMin = 6,
    Max = 7,
    LiveMax = 8,
    /// What the living process that set it last said.
    LiveMostRecent = 9,
}

impl GaugeMode {
    pub const ALL: [(GaugeMode, &'static str); 10] = [
        (GaugeMode::MostRecent, "mostrecent"),
        (GaugeMode::All, "all"),
        (GaugeMode::LiveAll, "liveall"),
        (GaugeMode::Sum, "sum"),
        (GaugeMode::LiveSum, "livesum"),
        (GaugeMode::Min, "min"),
        (GaugeMode::LiveMin, "livemin"),
        (GaugeMode::Max, "max"),
        (GaugeMode::LiveMax, "livemax"),
        (GaugeMode::LiveMostRecent, "livemostrecent"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub fn parse(name: &str) -> Option<GaugeMode> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(mode, _)| *mode)
    }

    pub fn is_live(self) -> bool {
        use GaugeMode::*;
        matches!(self, LiveAll | LiveSum | LiveMin | LiveMax | LiveMostRecent)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape<'a> {
    Counter,
    Gauge(GaugeMode),
    /// `2^schema` buckets an octave.
    Exponential {
        schema: u8,
    },
    /// Finite upper bounds, ascending; +Inf is implied.
    Explicit(&'a [f64]),
    /// Quantiles to be computed from the rings; the cells hold count and sum.
    Summary(&'a [f64]),
}

#[derive(Debug, Clone, PartialEq)]
pub enum OwnedShape {
    Counter,
    Gauge(GaugeMode),
    Exponential { schema: u8 },
    Explicit(Vec<f64>),
    Summary(Vec<f64>),
}

impl OwnedShape {
    pub fn borrowed(&self) -> Shape<'_> {
        match self {
            OwnedShape::Counter => Shape::Counter,
            OwnedShape::Gauge(mode) => Shape::Gauge(*mode),
            OwnedShape::Exponential { schema } => Shape::Exponential { schema: *schema },
            OwnedShape::Explicit(bounds) => Shape::Explicit(bounds),
            OwnedShape::Summary(quantiles) => Shape::Summary(quantiles),
        }
    }
}

impl Shape<'_> {
    /// Bounds or quantiles; none for other shapes.
    pub fn numbers(&self) -> &[f64] {
        match self {
            Shape::Explicit(numbers) | Shape::Summary(numbers) => numbers,
            _ => &[],
        }
    }

    /// Whether pages have one word for both: of histograms, all are alike.
    pub fn is_of_type(&self, other: &Shape<'_>) -> bool {
        use Shape::{Counter, Explicit, Exponential, Gauge, Summary};
        matches!(
            (self, other),
            (Counter, Counter)
                | (Gauge(_), Gauge(_))
                | (Explicit(_) | Exponential { .. }, Explicit(_) | Exponential { .. })
                | (Summary(_), Summary(_))
        )
    }

    /// For messages: `histogram with 14 buckets`.
    pub fn told(&self) -> String {
        match self {
            Shape::Counter => "counter".into(),
            Shape::Gauge(mode) => format!("gauge ({})", mode.name()),
            Shape::Exponential { schema } => format!("exponential histogram (schema {schema})"),
            Shape::Explicit(bounds) => format!("histogram with bounds {bounds:?}"),
            Shape::Summary(quantiles) => format!("summary with quantiles {quantiles:?}"),
        }
    }
}
