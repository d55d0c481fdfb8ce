//! Applications that leave, and whether there is a way between those that stay.

use super::World;
use crate::base::SessionId;

impl World {
    /// An application at `router` closes its session, if it has one; then the router goes on.
    pub(super) fn hang_up(&mut self, router: usize, session: Option<SessionId>) {
        let slot = &mut self.routers[router];
        if let (Some(session), Some(running)) = (session, &mut slot.router) {
            slot.sessions.remove(&session);
            running.shard.handle_hangup(slot.clock.local(self.now), session);
        }
        self.settle(router);
    }

    /// Tells every flow whether there is a way between its ends.
    pub(in crate::sim) fn look_for_ways(&mut self) {
        for index in 0..self.flows.len() {
            if !self.flows[index].is_void() {
                let (from, to) = (self.flows[index].spec().from, self.flows[index].spec().to);
                let there_is = self.leads(from, to) && self.leads(to, from);
                self.flows[index].note_way(self.now, there_is);
            }
        }
    }

    /// Whether tables in force lead from one router to another, over routers that do not stand still.
    fn leads(&self, from: usize, to: usize) -> bool {
        let awake = |router: usize| self.is_running(router) && self.routers[router].busy_until <= self.now;
        let mut at = from;
        for _ in 0..self.routers.len() {
            if !awake(at) || at == to {
                break;
            }
            let Some(next) = self.next_hop(at, to) else { return false };
            at = next;
        }
        at == to && awake(to)
    }
}
