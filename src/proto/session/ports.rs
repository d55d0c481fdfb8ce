//! Which session holds which port.

use crate::base::{Port, Rng};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Ports given to those who do not ask for one (the dynamic ports of RFC 6335 section 6).
pub(super) const EPHEMERAL: RangeInclusive<Port> = 49152..=65535;

/// Ports and the sessions (by index) that hold them.
#[derive(Debug, Default)]
pub(super) struct Ports {
    holders: BTreeMap<Port, u32>,
}

impl Ports {
    pub(super) fn holder(&self, port: Port) -> Option<u32> {
        self.holders.get(&port).copied()
    }

    /// Gives `wanted` to the session, or a free ephemeral port that suits if `wanted` is 0; none if it is taken or all
    /// are.
    pub(super) fn bind(
        &mut self,
        wanted: Port,
        suits: impl Fn(Port) -> bool,
        session: u32,
        rng: &mut Rng,
    ) -> Option<Port> {
        let port = if wanted == 0 { self.free_ephemeral(suits, rng)? } else { wanted };
        if self.holders.contains_key(&port) {
            return None;
        }
        self.holders.insert(port, session);
        Some(port)
    }

    pub(super) fn release(&mut self, port: Port) {
        self.holders.remove(&port);
    }

    /// The first free port that suits, from a random one on, so that a port is not soon used again for another
    /// conversation.
    fn free_ephemeral(&self, suits: impl Fn(Port) -> bool, rng: &mut Rng) -> Option<Port> {
        let (first, last) = (*EPHEMERAL.start(), *EPHEMERAL.end());
        let count = u32::from(last - first) + 1;
        let start = rng.below(u64::from(count)) as u32;
        let mut ports = (0..count).map(|step| first + ((start + step) % count) as u16);
        ports.find(|&port| suits(port) && !self.holders.contains_key(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_held_once_and_run_out() {
        let (mut ports, mut rng) = (Ports::default(), Rng::from_u64(1));
        assert_eq!(ports.bind(80, |_| true, 1, &mut rng), Some(80));
        assert_eq!(ports.bind(80, |_| true, 2, &mut rng), None);
        ports.release(80);
        assert_eq!(ports.bind(80, |_| true, 2, &mut rng), Some(80));
        let even = EPHEMERAL.filter(|port| port % 2 == 0).count();
        assert!((0..even).all(|_| ports.bind(0, |port| port % 2 == 0, 3, &mut rng).is_some_and(|port| port % 2 == 0)));
        assert_eq!(ports.bind(0, |port| port % 2 == 0, 3, &mut rng), None);
        let count = EPHEMERAL.count() - even;
        assert!((0..count).all(|_| ports.bind(0, |_| true, 3, &mut rng).is_some_and(|port| EPHEMERAL.contains(&port))));
        assert_eq!(ports.bind(0, |_| true, 3, &mut rng), None);
        assert_eq!(ports.holder(EPHEMERAL.last().expect("not empty")), Some(3));
    }
}
