//! Whether there is a way between the ends of flows.

use super::World;
use crate::sim::workload::Way;

impl World {
    /// Tells every flow what way there is between its ends.
    pub(in crate::sim) fn look_for_ways(&mut self) {
        for index in 0..self.flows.len() {
            if !self.flows[index].is_void() {
                let (from, to) = (self.flows[index].spec().from, self.flows[index].spec().to);
                let way = self.leads(from, to).min(self.leads(to, from));
                self.flows[index].note_way(self.now, way);
            }
        }
    }

    /// Where tables in force lead from one router to another, over routers that do not stand still. A link is as narrow
    /// as the narrower of its directions: what does not come back, an acknowledgement in company of data, is missing too.
    fn leads(&self, from: usize, to: usize) -> Way {
        let awake = |router: usize| self.is_running(router) && self.routers[router].busy_until <= self.now;
        let (mut at, mut way) = (from, Way::Whole);
        for _ in 0..self.routers.len() {
            if !awake(at) || at == to {
                break;
            }
            let Some(next) = self.next_hop(at, to) else { return Way::None };
            if self.wire(at, next).is_narrow() || self.wire(next, at).is_narrow() {
                way = Way::Narrow;
            }
            at = next;
        }
        if at == to && awake(to) { way } else { Way::None }
    }
}
