//! Applications: they ask for sessions, take their turns, and leave.

use super::agenda::Event;
use super::{Flow, Side, World};
use crate::base::SessionId;
use crate::control::ClientId;
use crate::proto::session::Readiness;
use crate::wire::admin::Request;
use std::time::Duration;

/// How often who wants to begin looks whether a router that is being stopped is back.
const STOPPING: Duration = Duration::from_millis(200);

impl World {
    /// Adds an application; its receiving side opens at once, its sending side half a second before it starts.
    pub fn add_flow(&mut self, flow: Flow) {
        let (index, start) = (self.flows.len(), flow.spec().opens());
        self.flows.push(flow);
        self.open(index, Side::Sink);
        self.agenda.add(start.max(self.now), Event::Turn { flow: index });
    }

    pub(super) fn open(&mut self, flow: usize, side: Side) {
        let router = self.flows[flow].spec().router(side);
        let request = self.flows[flow].open(self.now, side);
        self.request(router, Flow::client(flow, side), request);
    }

    fn request(&mut self, router: usize, client: ClientId, request: Request) {
        let slot = &mut self.routers[router];
        slot.prepare_rare(self.rare);
        if let Some(running) = &mut slot.router {
            running.request(slot.clock.local(self.now), client, request);
            self.settle(router);
        }
    }

    /// Lets an application send what is due. While its router stands still it waits too.
    pub(super) fn turn(&mut self, index: usize) {
        let (now, router) = (self.now, self.flows[index].spec().router(Side::Source));
        let slot = &mut self.routers[router];
        if now < slot.busy_until {
            let at = slot.busy_until;
            return self.agenda.add(at, Event::Turn { flow: index });
        }
        // Nobody begins anything with a router that is being stopped.
        let ends = [router, self.flows[index].spec().router(Side::Sink)];
        if !self.flows[index].is_void() && ends.iter().any(|&end| self.routers[end].is_stopping) {
            return self.agenda.add(now + STOPPING, Event::Turn { flow: index });
        }
        let slot = &mut self.routers[router];
        slot.prepare_rare(self.rare);
        let (local, mut record) = (slot.clock.local(now), std::mem::take(&mut self.scratch));
        while let Some(session) = self.flows[index].next_record(now, &mut record) {
            let Some(running) = &mut slot.router else { break };
            let readiness = running.handle_record(local, session, &record);
            if let Some(attached) = slot.sessions.get_mut(&session).filter(|_| readiness != Readiness::Gone) {
                attached.written += 1;
            }
            self.flows[index].sent(now, readiness);
            if readiness != Readiness::Ready {
                break;
            }
        }
        self.scratch = record;
        let source = self.flows[index].leave();
        self.hang_up(router, source);
        if self.flows[index].wants_open(now) && self.is_running(router) {
            self.open(index, Side::Source);
        }
        if let Some(at) = self.flows[index].next_turn(now) {
            self.agenda.add(at, Event::Turn { flow: index });
        }
    }

    /// An application at `router` closes its session, if it has one; then the router goes on.
    pub(super) fn hang_up(&mut self, router: usize, session: Option<SessionId>) {
        let slot = &mut self.routers[router];
        if let (Some(session), Some(running)) = (session, &mut slot.router) {
            slot.sessions.remove(&session);
            running.handle_hangup(slot.clock.local(self.now), session);
        }
        self.settle(router);
    }
}
