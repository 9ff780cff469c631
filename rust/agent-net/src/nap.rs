//! How long to let datagrams gather before they are read.
//!
//! A wake-up costs as much as ten datagrams. Where single datagrams come faster than one can wake up
//! for each, it pays to sleep a moment and take them by the dozen. The nap doubles while a read finds
//! few, and halves when it finds many, so it settles where a read finds between [`FEW`] and [`MANY`].
//!
//! Limits: never longer than [`NAP_US_MAX`], never longer than it takes a million datagrams a second
//! to fill a quarter of the receive buffer, and none at all when anything but datagrams happens: an
//! answer to a connection is not held up while there are connections at work.

/// The longest nap.
pub const NAP_US_MAX: u32 = 1_000;
/// Datagrams of one wake-up below which napping is worth while.
pub const FEW: u64 = 16;
/// Datagrams of one wake-up above which the nap was too long.
pub const MANY: u64 = 48;

const NAP_US_MIN: u32 = 50;
/// What the kernel books for a small datagram.
const DATAGRAM_BYTES: u32 = 768;

#[derive(Debug, Clone, Copy)]
pub struct Nap {
    us: u32,
    us_max: u32,
}

impl Nap {
    /// For sockets of which the smallest receive buffer is this large.
    pub fn new(receive_buffer_bytes: u32) -> Nap {
        Nap { us: 0, us_max: (receive_buffer_bytes / 4 / DATAGRAM_BYTES).min(NAP_US_MAX) }
    }

    /// Microseconds to sleep after a wake-up with so many datagrams and so many other events.
    pub fn after(&mut self, datagrams: u64, others: usize) -> u32 {
        if others > 0 || datagrams == 0 || self.us_max < NAP_US_MIN {
            self.us = 0;
        } else if datagrams < FEW {
            self.us = (self.us * 2).clamp(NAP_US_MIN, self.us_max);
        } else if datagrams > MANY {
            self.us /= 2;
        }
        self.us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs wake-ups at a rate; gives how many there were in a second and the most datagrams of one.
    fn second_at(rate: u64, nap: &mut Nap) -> (u64, u64) {
        let (mut now_us, mut taken, mut wakeups, mut most) = (0u64, 0, 0, 0);
        while now_us < 1_000_000 {
            let there = now_us * rate / 1_000_000 - taken;
            // Nothing there: the kernel wakes us with the next one.
            let found = there.max(1);
            taken += found;
            wakeups += 1;
            most = most.max(found);
            now_us = now_us.max(taken * 1_000_000 / rate) + 10 + u64::from(nap.after(found, 0));
        }
        (wakeups, most)
    }

    #[test]
    fn a_steady_stream_is_taken_by_the_dozen() {
        let (wakeups, most) = second_at(100_000, &mut Nap::new(16 << 20));
        assert!(wakeups < 100_000 / 12, "{wakeups} wake-ups");
        assert!(most <= 2 * MANY, "{most} at once");
    }

    #[test]
    fn a_small_buffer_is_never_filled_by_a_nap() {
        let mut nap = Nap::new(212_992);
        let (_, most) = second_at(1_000_000, &mut nap);
        assert!(most * u64::from(DATAGRAM_BYTES) < 212_992, "{most} at once");
        assert_eq!(Nap::new(20_000).after(1, 0), 0, "a tiny buffer allows none");
    }

    #[test]
    fn anything_else_ends_the_nap() {
        let mut nap = Nap::new(16 << 20);
        for _ in 0..10 {
            nap.after(1, 0);
        }
        assert_eq!(nap.after(1, 0), NAP_US_MAX);
        assert_eq!(nap.after(1, 1), 0);
        assert_eq!(nap.after(0, 0), 0);
    }
}
