//! What a router does to the world outside it.

use super::agenda::{Arrival, Datagram, Event};
use super::group::OPERATORS;
use super::note;
use super::slot::{Attached, Handled};
use super::wires::Wires;
use super::{Flow, Side, World};
use crate::base::{Instant, NodeId, Rng, SessionId};
use crate::control::ClientId;
use crate::sim::capture::Capture;
use crate::sim::host::Host;
use crate::sim::ledger::{Ledger, Struck};
use crate::sim::observe::Watch;
use crate::sim::router::{Effect, FULL};
use crate::sim::topology::{address, router_at};
use crate::wire::admin::Response;
use std::collections::BTreeMap;
use std::net::SocketAddr;

impl World {
    /// Lets a router finish what an input started and carries out its effects.
    pub(super) fn settle(&mut self, router: usize) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let World {
            routers, wires, flows, rng, violations, now, ledger, capture, log, watch, numbers, rare, desk, ..
        } = self;
        let slot = &mut routers[router];
        slot.prepare_rare(*rare);
        let (calm, newer, local) = (slot.is_calm(), slot.newer, slot.clock.local(*now));
        let Some(running) = &mut slot.router else { return };
        let mut outside = Outside {
            now: *now,
            router,
            calm,
            flows,
            sessions: &mut slot.sessions,
            watch,
            numbers,
            violations,
            handled: &mut slot.handled,
            host: &mut slot.host,
            sending: Sending { wires, rng, ledger, capture, log, arrivals: &mut arrivals, newer },
            turns: Vec::new(),
            leaves: Vec::new(),
            relinked: false,
            exits: false,
        };
        running.settle(local, desk, |effect| outside.take(effect));
        let Outside { turns, leaves, relinked, exits, .. } = outside;
        if relinked {
            self.disturb_group(false);
        }
        for (at, router, datagram) in arrivals.drain(..) {
            self.agenda.add(at, Event::Arrive { router, datagram });
        }
        self.arrivals = arrivals;
        turns.into_iter().for_each(|flow| self.agenda.add(self.now, Event::Turn { flow }));
        leaves.into_iter().for_each(|flow| self.agenda.add(self.now, Event::Leave { flow }));
        if exits {
            return self.exit(router);
        }
        self.set_timer(router);
        self.attend_member(router);
    }
}

/// All that one router's effects reach.
struct Outside<'a> {
    now: Instant,
    router: usize,
    /// The router is held to bounds of time.
    calm: bool,
    flows: &'a mut Vec<Flow>,
    sessions: &'a mut BTreeMap<SessionId, Attached>,
    watch: &'a mut Watch,
    numbers: &'a BTreeMap<NodeId, usize>,
    violations: &'a mut Vec<String>,
    handled: &'a mut Handled,
    host: &'a mut Option<Host>,
    sending: Sending<'a>,
    /// Flows whose senders can go on, and whose receivers leave.
    turns: Vec<usize>,
    leaves: Vec<usize>,
    /// A link of a router with service addresses came up or went down.
    relinked: bool,
    /// The router ends.
    exits: bool,
}

impl Outside<'_> {
    fn take(&mut self, effect: Effect<'_>) -> Result<(), i32> {
        match effect {
            Effect::Transmit(worker, to, bytes) => return self.transmit(worker, to, bytes),
            Effect::Record(session, record) => return self.record(session, record),
            Effect::Readable(session) => {
                if let Some(&Attached { flow, side: Side::Source, .. }) = self.sessions.get(&session) {
                    self.flows[flow].resume();
                    self.turns.push(flow);
                }
            }
            Effect::Response(client, response, session) => self.respond(client, &response, session),
            Effect::Detached(session) => {
                if let Some(attached) = self.sessions.remove(&session) {
                    self.flows[attached.flow].detached(attached.side);
                }
            }
            Effect::Host(command) => {
                if let Some(log) = self.sending.log {
                    note(log, self.now, format_args!("r{} tells its host {command:?}", self.router));
                }
                if let Some(host) = self.host {
                    host.command(self.now, &command);
                }
            }
            Effect::Exit => self.exits = true,
            Effect::Link(peer, up) => {
                self.relinked |= self.host.is_some();
                if let Some(&peer) = self.numbers.get(&peer) {
                    self.watch.heard(self.now, self.router, peer, up, self.calm, self.violations);
                }
            }
        }
        Ok(())
    }

    fn transmit(&mut self, worker: usize, to: SocketAddr, bytes: &[u8]) -> Result<(), i32> {
        self.handled.taken += 1;
        let sent = self.sending.send(self.now, (self.router, worker), to, bytes);
        self.handled.refused += u64::from(sent.is_err());
        sent
    }

    fn record(&mut self, session: SessionId, record: &[u8]) -> Result<(), i32> {
        // Its descriptor is still on its way: the record waits, as in the worker.
        let Some(attached) = self.sessions.get_mut(&session) else { return FULL };
        let (flow, side) = (attached.flow, attached.side);
        let taken = self.flows[flow].handle_record(self.now, (side, session), record, self.violations);
        if let Some(log) = self.sending.log {
            note(log, self.now, format_args!("r{} hands {} to flow {flow}", self.router, record.len()));
        }
        if taken.wants_turn {
            self.turns.push(flow);
        }
        if taken.leaves {
            self.leaves.push(flow);
        }
        attached.read += u64::from(taken.message);
        Ok(())
    }

    fn respond(&mut self, client: ClientId, response: &Response, session: Option<SessionId>) {
        if client.0 >= OPERATORS {
            return; // What came of an order is seen in what routers do.
        }
        let (flow, side) = Flow::of_client(client);
        if let Some(session) = session {
            self.sessions.insert(session, Attached { flow, side, written: 0, read: 0 });
        }
        if self.flows[flow].handle_response(self.now, side, response, session) {
            self.turns.push(flow);
        }
    }
}

/// What a datagram that leaves a router meets.
struct Sending<'a> {
    wires: &'a mut Wires,
    rng: &'a mut Rng,
    ledger: &'a mut Ledger,
    capture: &'a mut Option<Capture>,
    log: &'a mut Option<String>,
    arrivals: &'a mut Vec<Arrival>,
    /// The router speaks a protocol that nobody else knows.
    newer: bool,
}

impl Sending<'_> {
    /// Puts a datagram on its wire; what arrives is added to the arrivals. An error is the kernel's.
    fn send(&mut self, now: Instant, from: (usize, usize), to: SocketAddr, bytes: &[u8]) -> Result<(), i32> {
        let ((from, worker), Some((number, theirs))) = (from, router_at(to)) else { return Ok(()) };
        assert_eq!(worker, theirs, "a lane joins workers of one number");
        let both = self.wires.get(&(number, from)).is_some_and(|back| back.conditions.cut);
        let Some(wire) = self.wires.get_mut(&(from, number)) else { return Ok(()) };
        wire.refuses(bytes.len(), self.rng, self.ledger)?;
        if let Some(capture) = self.capture {
            capture.datagram(now, address(from, worker), to, bytes);
        }
        let fate = wire.send(now, bytes.len(), both, self.rng, self.ledger);
        if let Some(log) = self.log {
            note(log, now, format_args!("r{from} sends {} to r{number}: {fate}", bytes.len()));
        }
        for at in [fate.first, fate.second].into_iter().flatten() {
            let mut datagram: Box<[u8]> = bytes[..fate.keep.unwrap_or(bytes.len())].into();
            if self.newer
                && let Some(kind) = datagram.first_mut()
            {
                self.ledger.count(Struck::NewerDatagram);
                *kind |= 0x20;
            }
            if let Some(bit) = fate.flip.filter(|bit| bit / 8 < datagram.len()) {
                datagram[bit / 8] ^= 1 << (bit % 8);
            }
            self.arrivals.push((at, number, Datagram { from, worker, bytes: datagram }));
        }
        Ok(())
    }
}
