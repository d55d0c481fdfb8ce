//! No router is busier than its work explains.
//!
//! A timer that does not move on, or two routers that answer each other for ever, would stop a simulation and burn a
//! core in production. So every router's events (datagrams, timers, wakes) are counted in each second of virtual time,
//! and [`MOST`] of them are a storm.

use crate::base::Instant;

/// Events of one router in one second: some fifty times the busiest second seen in a campaign (about 4,000 events), so
/// that bulk flows of experiments do not come near it either.
pub(super) const MOST: u32 = 200_000;

/// Counts events.
#[derive(Debug)]
pub(super) struct Storm {
    second: u64,
    events: Vec<u32>,
    /// Most events that a router had in a second.
    peak: u32,
}

impl Storm {
    pub(super) fn new(routers: usize) -> Storm {
        Storm { second: 0, events: vec![0; routers], peak: 0 }
    }

    /// A router has an event; says if that makes a storm, once.
    pub(super) fn count(&mut self, now: Instant, router: usize) -> Option<String> {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.events.fill(0);
        }
        let events = &mut self.events[router];
        *events += 1;
        self.peak = self.peak.max(*events);
        (*events == MOST).then(|| format!("{now}: storm: r{router} had {MOST} events within a second"))
    }

    /// Whether there was a storm.
    pub(super) const fn rages(&self) -> bool {
        self.peak >= MOST
    }

    /// Most events that a router had in a second.
    pub(super) const fn peak(&self) -> u32 {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_does_not_move_on_is_a_storm_and_much_work_over_time_is_none() {
        let mut storm = Storm::new(2);
        for event in 0..10 * u64::from(MOST) {
            let now = Instant::from_nanos(event * 1_000_000_000 / u64::from(MOST / 2));
            assert_eq!(storm.count(now, 0), None);
        }
        assert!(!storm.rages());
        let told: Vec<String> = (0..2 * MOST).filter_map(|_| storm.count(Instant::from_millis(60_000), 1)).collect();
        assert!(storm.rages() && told.len() == 1 && told[0].contains("storm: r1"), "{told:?}");
    }
}
