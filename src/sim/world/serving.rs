//! Routers at work: what arrives, what is due, and what waits while they are busy or stand still.

use super::World;
use super::agenda::{Datagram, Event};
use crate::base::Instant;
use crate::sim::ledger::Struck;
use crate::sim::router::{Router, cost};
use crate::sim::topology::address;
use std::time::Duration;

/// Most datagrams that a router takes in one turn, as a worker does.
const BATCH: u32 = 64;
/// Socket buffer of a router, bytes: what comes while it stands still waits here.
const SOCKET_BUFFER: usize = 32 << 10;

impl World {
    /// A datagram reaches a router: it waits in the socket's buffer for the end of this instant, or longer, or is gone.
    pub(super) fn arrive(&mut self, router: usize, datagram: Datagram) {
        let Datagram { from, worker, .. } = datagram;
        if let Some(wire) = self.wires.get_mut(&(from, router)) {
            wire.counts.arrived += 1;
        }
        let slot = &mut self.routers[router];
        if slot.router.as_ref().is_none_or(|running| worker >= running.shards.len()) {
            // The kernel answers for the dead, by the way the datagram came.
            let back = self.wires.get(&(router, from)).map(|wire| wire.conditions);
            if let Some(back) = back.filter(|back| !back.cut && !self.rng.chance(back.loss)) {
                self.ledger.count(Struck::Refused);
                self.agenda.add(self.now + back.delay, Event::Refused { router: from, worker, by: router });
            }
        } else if self.now < slot.busy_until && slot.inbox_bytes + datagram.bytes.len() > SOCKET_BUFFER {
            self.ledger.count(Struck::SocketFull);
        } else {
            slot.inbox_bytes += datagram.bytes.len();
            slot.inbox.push_back(datagram);
            if self.now < slot.busy_until {
                self.wake(router);
            } else if !std::mem::replace(&mut slot.ready, true) {
                self.ready.push(router);
            }
        }
    }

    /// Routers take what arrived in the instant that ends, each all of it in one turn. False if nothing had arrived.
    pub(super) fn serve_ready(&mut self) -> bool {
        let mut ready = std::mem::take(&mut self.ready);
        let any = !ready.is_empty();
        for router in ready.drain(..) {
            self.routers[router].ready = false;
            self.serve(router);
        }
        self.ready = ready;
        any
    }

    fn hand(&mut self, router: usize, mut datagram: Datagram) {
        let slot = &mut self.routers[router];
        slot.prepare_rare(self.rare);
        let Some(running) = &mut slot.router else { return };
        slot.handled.handed += 1;
        let Datagram { from, worker, .. } = datagram;
        running.handle_datagram(slot.clock.local(self.now), worker, address(from, worker), &mut datagram.bytes);
        slot.busy_until = slot.busy_until.max(self.now) + cost(slot.times);
    }

    /// The kernel tells a router that nothing listens where it sent to.
    pub(super) fn refuse(&mut self, router: usize, worker: usize, by: usize) {
        let (at, by, slot) = (address(by, worker), self.nodes[by], &mut self.routers[router]);
        if let Some(running) = slot.router.as_mut().filter(|running| worker < running.shards.len()) {
            running.handle_refused(slot.clock.local(self.now), worker, by, at);
            self.settle(router);
        }
    }

    pub(super) fn fire(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        if self.now < slot.busy_until {
            return self.wake(router);
        }
        slot.prepare_rare(self.rare);
        let Some(running) = &mut slot.router else { return };
        let local = slot.clock.local(self.now);
        if running.poll_timeout().is_none_or(|at| at > local) {
            // What it was set for was done otherwise.
            return self.set_timer(router);
        }
        if slot.coalesce > Duration::ZERO && running.poll_timeout().is_some_and(|at| at < local) {
            self.ledger.count(Struck::CoalescedTimer);
        }
        running.handle_timeout(local);
        slot.busy_until = slot.busy_until.max(self.now + cost(slot.times));
        self.settle(router);
    }

    /// Makes sure that a busy router goes on when it can.
    pub(super) fn wake(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        if !std::mem::replace(&mut slot.wakes, true) {
            let at = slot.busy_until.max(self.now);
            self.agenda.add(at, Event::Wake { router });
        }
    }

    /// Lets a router go on with what waited while it was busy: datagrams first, as in the worker's loop.
    pub(super) fn serve(&mut self, router: usize) {
        if self.routers[router].router.is_none() {
            return;
        }
        if self.now < self.routers[router].busy_until {
            return self.wake(router);
        }
        for _ in 0..BATCH {
            let slot = &mut self.routers[router];
            let Some(datagram) = slot.inbox.pop_front() else { break };
            slot.inbox_bytes -= datagram.bytes.len();
            self.hand(router, datagram);
        }
        self.settle(router);
        let slot = &self.routers[router];
        let due = slot.router.as_ref().and_then(Router::poll_timeout);
        if !slot.inbox.is_empty() {
            self.wake(router);
        } else if due.is_some_and(|at| at <= slot.clock.local(self.now)) {
            self.fire(router);
        }
    }

    pub(super) fn set_timer(&mut self, router: usize) {
        let slot = &mut self.routers[router];
        let Some(at) = slot.router.as_ref().and_then(Router::poll_timeout) else { return };
        let mut at = if at == Instant::MAX { return } else { slot.clock.world(at).max(self.now).max(slot.busy_until) };
        if !slot.coalesce.is_zero() {
            let grain = slot.coalesce.as_nanos() as u64;
            at = Instant::from_nanos(at.as_nanos().div_ceil(grain) * grain);
        }
        if slot.timer_at.is_some_and(|set| set <= at) {
            return; // It will fire, find nothing due perhaps, and be set again.
        }
        slot.timer_at = Some(at);
        slot.generation += 1;
        let generation = slot.generation;
        self.agenda.add(at, Event::Timer { router, generation });
    }
}
