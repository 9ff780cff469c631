//! What the data plane says about itself: sources, reasons, and the table of self-metrics.
//!
//! The ledger: per source `received = applied + rejected{reason}`, always. A sample is one value; a
//! line that cannot be read counts as one sample received and one rejected.

use agent_wire::Reject;

/// Where samples come from; the label `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SourceId {
    StatsdUdp,
    StatsdTcp,
    StatsdUnixgram,
    StatsdUnix,
    Push,
    Pushgateway,
}

impl SourceId {
    pub const ALL: [SourceId; 6] = [
        SourceId::StatsdUdp,
        SourceId::StatsdTcp,
        SourceId::StatsdUnixgram,
        SourceId::StatsdUnix,
        SourceId::Push,
        SourceId::Pushgateway,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            SourceId::StatsdUdp => "statsd_udp",
            SourceId::StatsdTcp => "statsd_tcp",
            SourceId::StatsdUnixgram => "statsd_unixgram",
            SourceId::StatsdUnix => "statsd_unix",
            SourceId::Push => "push",
            SourceId::Pushgateway => "pushgateway",
        }
    }
}

macro_rules! own_reasons {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)+) => {
        /// Why a sample was not applied; the label `reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            /// The codec refused it.
            Wire(Reject),
            $($(#[$doc])* $variant,)+
        }

        impl Reason {
            const OWN: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The reason in snake_case, stable across versions.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Reason::Wire(reject) => reject.as_str(),
                    $(Reason::$variant => $text,)+
                }
            }
        }
    };
}

own_reasons! {
    /// The metric exists with another type or other buckets.
    TypeConflict => "type_conflict",
    /// The table of metric names is full.
    MetricsFull => "metrics_full",
    /// The segment cannot take it: no memory, or damaged.
    SegmentFull => "segment_full",
    /// The source address is over its token bucket.
    SourceRate => "source_rate",
    /// The source address is over its sliding window.
    SourceWindow => "source_window",
    /// All sources together are over the token bucket.
    TotalRate => "total_rate",
    /// All sources together are over the sliding window.
    TotalWindow => "total_window",
    /// Memory is above the watermark.
    Memory => "memory",
    /// The datagram was longer than the receive buffer.
    DatagramTruncated => "datagram_truncated",
    /// A bug here: decoding or applying panicked.
    Panic => "panic",
}

impl Reason {
    /// Number of reasons: the size of a table by [`Reason::index`].
    pub const COUNT: usize = Reject::ALL.len() + Reason::OWN.len();

    /// Position among all reasons.
    pub fn index(self) -> usize {
        match self {
            Reason::Wire(reject) => reject as usize,
            own => {
                let at = Reason::OWN.iter().position(|other| *other == own);
                Reject::ALL.len() + at.unwrap_or(Reason::OWN.len() - 1)
            }
        }
    }
}

impl From<Reject> for Reason {
    fn from(reject: Reject) -> Self {
        Reason::Wire(reject)
    }
}
