//! Which address a connection comes from.
//!
//! A source address has some 28,000 ports towards one target, and finding a free one takes longer as
//! they fill. So connections are spread over many addresses of 127.0.0.0/8, all of which are this
//! machine's own without any set-up, at most [`PORTS_MAX`] on each. The port is left to `connect`
//! (IP_BIND_ADDRESS_NO_PORT): `bind` would take it from every target at once.
//!
//! Layout: number `n` is `127.(16 + n / 64516 mod 239).(1 + n / 254 mod 254).(1 + n mod 254)`:
//! neither the names of the machine (127.0.0.1, 127.0.1.1) nor an address that ends in 0 or 255.

use std::net::{IpAddr, Ipv4Addr};

use crate::plan::Sources;

/// Connections of one loopback source address when the controller chooses how many there are.
pub const PORTS_MAX: u32 = 10_000;

/// The loopback address of a number.
pub fn loopback(number: u32) -> Ipv4Addr {
    let (low, rest) = (number % 254, number / 254);
    let (middle, high) = (rest % 254, rest / 254 % 239);
    Ipv4Addr::new(127, 16 + high as u8, 1 + middle as u8, 1 + low as u8)
}

impl Sources {
    fn count(&self) -> u32 {
        match self {
            Sources::Any => 1,
            Sources::Loopback { count, .. } => *count,
            Sources::Listed(list) => list.len() as u32,
        }
    }

    /// The address of a connection of `connections`; neighbours share one. `None` leaves it to the
    /// kernel.
    pub fn of(&self, index: u32, connections: u32) -> Option<IpAddr> {
        let share = connections.div_ceil(self.count()).max(1);
        let number = index / share;
        match self {
            Sources::Any => None,
            Sources::Loopback { first, .. } => Some(loopback(first.wrapping_add(number)).into()),
            Sources::Listed(list) => list.get(number as usize).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn the_first_addresses_are_as_documented() {
        assert_eq!(loopback(0), Ipv4Addr::new(127, 16, 1, 1));
        assert_eq!(loopback(253), Ipv4Addr::new(127, 16, 1, 254));
        assert_eq!(loopback(254), Ipv4Addr::new(127, 16, 2, 1));
        assert_eq!(loopback(254 * 254), Ipv4Addr::new(127, 17, 1, 1));
    }

    #[test]
    fn a_target_of_another_machine_leaves_the_address_to_the_kernel() {
        assert_eq!(Sources::Any.of(5, 10), None);
    }

    proptest! {
        #[test]
        fn numbers_have_addresses_of_their_own(a in 0u32..15_000_000, b in 0u32..15_000_000) {
            prop_assert_eq!(loopback(a) == loopback(b), a == b);
            prop_assert!(loopback(a).is_loopback());
            prop_assert!((1..=254).contains(&loopback(a).octets()[3]));
        }

        #[test]
        fn connections_are_spread_evenly(connections in 1u32..20_000, count in 1u32..9) {
            let sources = Sources::Loopback { first: 100, count };
            let mut per = HashMap::new();
            for index in 0..connections {
                *per.entry(sources.of(index, connections).unwrap()).or_insert(0u32) += 1;
            }
            prop_assert!(per.len() <= count as usize);
            prop_assert!(per.values().all(|&n| n <= connections.div_ceil(count)));
        }
    }
}
