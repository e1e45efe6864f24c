//! Where strangers come from, so that many from one place do not keep out who comes from another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use libp2p::Multiaddr;

use super::names::ip_of;
use super::roster::Rate;

/// How much those of one place may show at the door in a second, and at once: a quarter of what all may.
const RATE: f64 = 5.0;
const BURST: f64 = 25.0;
/// The most places that are remembered. All are forgotten then, since whoever has so many addresses is held by what all
/// together may.
const MOST: usize = 1024;

/// A network of the usual size of a site: IPv4 /24, IPv6 /48 (RFC 6177), or whatever has no address, as what a relay
/// brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place([u8; 6]);

impl Place {
    pub(super) fn of(address: &Multiaddr) -> Self {
        match ip_of(address).map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => {
                let [a, b, c, _] = ip.octets();
                Self([0, 0, 4, a, b, c])
            }
            Some(IpAddr::V6(ip)) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Self([a, b, c, d, e, f])
            }
            None => Self([0; 6]),
        }
    }
}

/// What each place has shown of late.
#[derive(Default)]
pub(super) struct Shown {
    places: BTreeMap<Place, Rate>,
}

impl Shown {
    /// Whether somebody from there may show something now.
    pub(super) fn take(&mut self, place: Place, now: Instant) -> bool {
        if self.places.len() >= MOST && !self.places.contains_key(&place) {
            self.places.clear();
        }
        self.places.entry(place).or_insert_with(|| Rate::new(RATE, BURST, now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(address: &str) -> Place {
        Place::of(&address.parse().expect("an address"))
    }

    #[test]
    fn one_place_does_not_use_up_what_others_may() {
        let (mut shown, now) = (Shown::default(), Instant::now());
        let (many, few) = (place("/ip4/192.0.2.7/tcp/1"), place("/ip4/198.51.100.7/tcp/1"));
        assert_eq!((0..1000).filter(|_| shown.take(many, now)).count(), BURST as usize);
        assert!(shown.take(few, now));
        assert!(!shown.take(place("/ip4/192.0.2.200/tcp/9"), now), "a neighbour is of the same place");
        assert!(shown.take(many, now + Duration::from_secs(1)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut shown, now) = (Shown::default(), Instant::now());
        for n in 0..=u16::MAX {
            let [a, b] = n.to_be_bytes();
            assert!(shown.take(place(&format!("/ip4/10.{a}.{b}.1/tcp/1")), now));
            assert!(shown.places.len() <= MOST);
        }
    }

    #[test]
    fn ipv4_is_the_same_however_it_is_written() {
        assert_eq!(place("/ip6/::ffff:192.0.2.7/tcp/1"), place("/ip4/192.0.2.9/tcp/1"));
        assert_ne!(place("/ip6/2001:db8:1::1/tcp/1"), place("/ip6/2001:db8:2::1/tcp/1"));
        assert_eq!(place("/ip6/2001:db8:1::1/tcp/1"), place("/ip6/2001:db8:1:7::1/tcp/1"));
    }
}
