//! When a connection opens, and when its messages are due. Pure: time is an argument.
//!
//! Both schedules are open: the instants are fixed by the plan, whatever the target does.
//!
//! [`Openings`]: the n-th connection opens at `start + n / rate`.
//!
//! [`Rounds`]: every connection has a message each `interval`, at a phase of its own. The interval is
//! cut into as many slots as there are connections; connection number `p(r)` owns slot `r`, and its
//! phase is a fixed random place within it. Slots come one after another, so the next message due is
//! the next slot: a cursor that goes round, instead of a timer for each connection. `p` is a fixed
//! stride through the connections, so that neighbours in time are not neighbours in memory.

/// Nanoseconds of a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A well mixed number out of a number (splitmix64).
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// When connections open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Openings {
    pub start_ns: u64,
    /// Connections a second; 0 is all at once.
    pub rate: f64,
}

impl Openings {
    pub fn intended_ns(&self, n: u32) -> u64 {
        if self.rate <= 0.0 {
            return self.start_ns;
        }
        self.start_ns + (f64::from(n) * SECOND_NS as f64 / self.rate) as u64
    }
}

/// One message that the schedule wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub index: u32,
    pub intended_ns: u64,
}

/// When messages are due: an endless, ordered sequence.
#[derive(Debug, Clone)]
pub struct Rounds {
    start_ns: u64,
    interval_ns: u64,
    connections: u32,
    stride: u32,
    seed: u64,
    /// The next slot.
    rank: u32,
    index: u32,
    round: u64,
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

impl Rounds {
    /// `connections` is not 0.
    pub fn new(start_ns: u64, interval_ns: u64, connections: u32, seed: u64) -> Rounds {
        // About the golden section of the whole: steps far apart that visit everything once.
        let mut stride = (f64::from(connections) * 0.618) as u32 | 1;
        while gcd(stride, connections) != 1 {
            stride += 2;
        }
        let stride = stride % connections.max(1);
        Rounds { start_ns, interval_ns, connections, stride, seed, rank: 0, index: 0, round: 0 }
    }

    /// When the next message is due.
    pub fn next_ns(&self) -> u64 {
        let jitter = mix(self.seed ^ u64::from(self.rank)) >> 32;
        let place = (u128::from(self.rank) << 32) | u128::from(jitter);
        let phase = place * u128::from(self.interval_ns) / (u128::from(self.connections) << 32);
        self.start_ns + self.round * self.interval_ns + phase as u64
    }

    /// The next message, if it is due at `now_ns`.
    pub fn take(&mut self, now_ns: u64) -> Option<Due> {
        let intended_ns = self.next_ns();
        if intended_ns > now_ns {
            return None;
        }
        let index = self.index;
        self.rank += 1;
        self.index =
            ((u64::from(index) + u64::from(self.stride)) % u64::from(self.connections)) as u32;
        if self.rank == self.connections {
            (self.rank, self.index, self.round) = (0, 0, self.round + 1);
        }
        Some(Due { index, intended_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn openings_keep_to_the_rate() {
        let openings = Openings { start_ns: 1000, rate: 40_000.0 };
        assert_eq!(openings.intended_ns(0), 1000);
        assert_eq!(openings.intended_ns(40_000), 1000 + SECOND_NS);
        let at_once = Openings { start_ns: 5, rate: 0.0 };
        assert_eq!(at_once.intended_ns(u32::MAX), 5);
    }

    #[test]
    fn a_single_connection_has_its_message_each_interval() {
        let mut rounds = Rounds::new(0, 1000, 1, 3);
        let first = rounds.take(u64::MAX).unwrap();
        let second = rounds.take(u64::MAX).unwrap();
        assert_eq!((first.index, second.index), (0, 0));
        assert_eq!(second.intended_ns - first.intended_ns, 1000);
    }

    proptest! {
        #[test]
        fn each_connection_has_one_message_per_round_at_a_constant_interval(
            connections in 1u32..3000, interval in 1u64..100_000_000_000, seed: u64, start in 0u64..1 << 60,
        ) {
            let mut rounds = Rounds::new(start, interval, connections, seed);
            let mut first = vec![None; connections as usize];
            let mut last = 0;
            for _ in 0..connections {
                let due = rounds.take(u64::MAX).unwrap();
                prop_assert!(due.intended_ns >= last, "in order of time");
                prop_assert!((start..start + interval).contains(&due.intended_ns));
                last = due.intended_ns;
                prop_assert_eq!(first[due.index as usize].replace(due.intended_ns), None);
            }
            for _ in 0..connections {
                let due = rounds.take(u64::MAX).unwrap();
                prop_assert_eq!(first[due.index as usize], Some(due.intended_ns - interval));
            }
        }

        #[test]
        fn nothing_is_due_before_its_time(connections in 1u32..100, seed: u64) {
            let mut rounds = Rounds::new(0, SECOND_NS, connections, seed);
            let next = rounds.next_ns();
            if next > 0 {
                prop_assert_eq!(rounds.take(next - 1), None);
            }
            prop_assert_eq!(rounds.take(next).map(|due| due.intended_ns), Some(next));
        }
    }
}
