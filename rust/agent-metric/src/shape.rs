//! The shape of a metric: what the cells of its series mean.

/// What the processes of an app mean by one gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum GaugeMode {
    /// One number for all: `set` replaces it, `inc` and `dec` change it, whoever calls.
    #[default]
    MostRecent = 0,
    /// One number per process; that of a dead one stays until its slot has had two more owners.
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

/// Where the numbers of a gauge stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Storage {
    /// One number for all, and beside it what each living process holds.
    Shared,
    /// One of each slot, into which those of its dead owners are folded.
    Fold,
    /// One of each living process.
    Own,
    /// As `Own`, and that of the owner before.
    OwnAndLast,
}

/// What the numbers of several processes are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    Min,
    Max,
    /// The one that was set last.
    Latest,
    /// Each stands for itself, with the id of its process.
    Each,
}

impl Reduction {
    /// Two numbers as one; the first where both cannot be.
    pub fn of(self, value: f64, other: f64) -> f64 {
        match self {
            Reduction::Sum => value + other,
            Reduction::Min => value.min(other),
            Reduction::Max => value.max(other),
            Reduction::Latest | Reduction::Each => value,
        }
    }
}

/// All that is different between the modes.
#[derive(Debug, Clone, Copy)]
pub struct ModeRow {
    pub mode: GaugeMode,
    pub name: &'static str,
    pub storage: Storage,
    pub reduction: Reduction,
}

const fn row(
    mode: GaugeMode,
    name: &'static str,
    storage: Storage,
    reduction: Reduction,
) -> ModeRow {
    ModeRow { mode, name, storage, reduction }
}

impl GaugeMode {
    /// By their numbers. A new mode is a row, and a word of `GaugeMode` in metrics.py.
    pub const ALL: [ModeRow; 10] = [
        row(GaugeMode::MostRecent, "mostrecent", Storage::Shared, Reduction::Latest),
        row(GaugeMode::All, "all", Storage::OwnAndLast, Reduction::Each),
        row(GaugeMode::LiveAll, "liveall", Storage::Own, Reduction::Each),
        row(GaugeMode::Sum, "sum", Storage::Fold, Reduction::Sum),
        row(GaugeMode::LiveSum, "livesum", Storage::Own, Reduction::Sum),
        row(GaugeMode::Min, "min", Storage::Fold, Reduction::Min),
        row(GaugeMode::LiveMin, "livemin", Storage::Own, Reduction::Min),
        row(GaugeMode::Max, "max", Storage::Fold, Reduction::Max),
        row(GaugeMode::LiveMax, "livemax", Storage::Own, Reduction::Max),
        row(GaugeMode::LiveMostRecent, "livemostrecent", Storage::Own, Reduction::Latest),
    ];

    const fn row(self) -> &'static ModeRow {
        &Self::ALL[self as usize]
    }

    pub const fn name(self) -> &'static str {
        self.row().name
    }

    #[inline]
    pub const fn storage(self) -> Storage {
        self.row().storage
    }

    #[inline]
    pub const fn reduction(self) -> Reduction {
        self.row().reduction
    }

    pub fn parse(name: &str) -> Option<GaugeMode> {
        Self::ALL.iter().find(|row| row.name == name).map(|row| row.mode)
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
    /// Quantiles to be computed from the newest values; the cells hold count and sum.
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

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_mode_stands_at_its_number() {
        for (number, row) in GaugeMode::ALL.iter().enumerate() {
            assert_eq!(row.mode as usize, number);
            assert_eq!(GaugeMode::parse(row.mode.name()), Some(row.mode));
            // Numbers that are folded into one must have one.
            let has_one = matches!(row.reduction, Reduction::Sum | Reduction::Min | Reduction::Max);
            assert!(has_one || row.storage != Storage::Fold, "{}", row.name);
        }
    }
}
