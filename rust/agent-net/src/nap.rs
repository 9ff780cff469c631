//! How long to let the datagrams of a socket gather before they are read.
//!
//! Being woken costs as much as ten datagrams. Where they come faster than a nap is long, epoll is
//! no longer asked for the socket: the loop looks into it after every nap of its own, until a look
//! finds nearly nothing. Everything else of the loop wakes it at once, so naps hold up no
//! connection.
//!
//! ```text
//! waiting --woken twice within a nap--> napping --a look that finds fewer than FEW--> waiting
//! ```
//!
//! Limits: never longer than [`NAP_US_MAX`], and never longer than it takes a million datagrams a
//! second to fill a quarter of the receive buffer; with a buffer too small for that, none at all.
//! Not promised: a datagram is applied up to that much later than it came.

/// The longest nap.
pub const NAP_US_MAX: u64 = 2_000;
/// Datagrams of one look below which being woken is cheaper.
pub const FEW: u64 = 4;

const NAP_US_MIN: u64 = 100;
/// What the kernel books for a small datagram.
const DATAGRAM_BYTES: u64 = 768;

/// The naps of one socket. Time is an argument, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Nap {
    /// 0: never.
    length_us: u64,
    woken_us: u64,
    /// When to look; nothing while epoll waits for the socket.
    pub until_us: Option<u64>,
}

impl Nap {
    /// For a socket with so large a receive buffer.
    pub fn new(receive_buffer_bytes: u32) -> Nap {
        let length_us = (u64::from(receive_buffer_bytes) / 4 / DATAGRAM_BYTES).min(NAP_US_MAX);
        let length_us = if length_us < NAP_US_MIN { 0 } else { length_us };
        Nap { length_us, woken_us: 0, until_us: None }
    }

    /// For a socket that holds too few.
    pub fn never() -> Nap {
        Nap { length_us: 0, woken_us: 0, until_us: None }
    }

    /// The loop was woken for the socket and has emptied it. Whether a nap begins.
    pub fn woken(&mut self, now_us: u64) -> bool {
        let is_busy = now_us.saturating_sub(self.woken_us) < self.length_us;
        self.woken_us = now_us;
        self.until_us = is_busy.then_some(now_us + self.length_us);
        is_busy
    }

    /// A look found so many, and perhaps not all. Whether another nap begins.
    pub fn looked(&mut self, now_us: u64, found: u64, has_more: bool) -> bool {
        self.woken_us = now_us;
        self.until_us = match (has_more, found) {
            (true, _) => Some(now_us),
            (false, FEW..) => Some(now_us + self.length_us),
            _ => None,
        };
        self.until_us.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a steady stream of datagrams does to the loop in a second.
    struct Second {
        wakeups: u64,
        looks: u64,
        most: u64,
    }

    fn second_at(rate: u64, nap: &mut Nap) -> Second {
        let (mut now_us, mut taken) = (1_000_000, 0);
        let (end_us, mut told) = (now_us + 1_000_000, Second { wakeups: 0, looks: 0, most: 0 });
        while now_us < end_us {
            let arrived = (now_us - 1_000_000) * rate / 1_000_000;
            let found;
            if let Some(until_us) = nap.until_us {
                now_us = until_us;
                found = (now_us - 1_000_000) * rate / 1_000_000 - taken;
                nap.looked(now_us, found, false);
                told.looks += 1;
            } else {
                // Nothing there: the kernel wakes us with the next one.
                found = (arrived - taken).max(1);
                now_us = now_us.max(1_000_000 + (taken + found) * 1_000_000 / rate) + 10;
                nap.woken(now_us);
                told.wakeups += 1;
            }
            taken += found;
            told.most = told.most.max(found);
        }
        told
    }

    #[test]
    fn a_steady_stream_is_taken_by_the_hundred() {
        let told = second_at(100_000, &mut Nap::new(16 << 20));
        assert!(told.wakeups + told.looks <= 510, "{} and {}", told.wakeups, told.looks);
    }

    #[test]
    fn a_slow_stream_is_never_kept_waiting() {
        let told = second_at(400, &mut Nap::new(16 << 20));
        assert_eq!((told.looks, told.most), (0, 1));
        assert!(told.wakeups >= 399, "{}", told.wakeups);
    }

    #[test]
    fn a_stream_that_has_ended_costs_one_look() {
        let mut nap = Nap::new(16 << 20);
        second_at(100_000, &mut nap);
        assert!(!nap.looked(9_000_000, 0, false));
        assert_eq!(nap.until_us, None);
    }

    #[test]
    fn what_a_look_left_behind_is_taken_without_a_nap() {
        let mut nap = Nap::new(16 << 20);
        assert!(nap.looked(5_000_000, 128, true));
        assert_eq!(nap.until_us, Some(5_000_000));
    }

    #[test]
    fn a_small_buffer_is_never_filled_by_a_nap() {
        let told = second_at(1_000_000, &mut Nap::new(425_984));
        assert!(told.most * DATAGRAM_BYTES < 425_984 / 2, "{} at once", told.most);
        let mut nap = Nap::new(20_000);
        nap.woken(5_000_000);
        assert!(!nap.woken(5_000_001), "a tiny buffer allows none");
    }
}
