//! A hop does its own work: what it confirms did arrive, and what it hands up came once.
//!
//! End-to-end recovery makes good what a hop spoils, so that deliveries alone do not show it. The simulator sees both
//! ends of every link, over all their lives: a neighbour confirms no more messages than it handed up, and hands up no
//! more than were sent to it for the first time.

use crate::dataplane::messages::LinkReport;
use crate::sim::world::World;
use std::collections::BTreeMap;

/// What one end counts of the messages over its link, over all the link's lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sim) struct Carried {
    /// Reliable messages sent for the first time.
    sent: u64,
    /// Of these, confirmed by the other end.
    confirmed: u64,
    /// Reliable messages handed up.
    received: u64,
    /// Control messages sent for the first time.
    control_sent: u64,
    /// Control messages handed up.
    control_received: u64,
}

impl Carried {
    /// Adds what a link carried.
    pub(in crate::sim) fn add(&mut self, report: &LinkReport) {
        let stats = &report.stats;
        self.sent += stats.reliable.sent;
        self.confirmed += stats.acknowledged;
        self.received += stats.reliable.received;
        self.control_sent += stats.control.sent;
        self.control_received += stats.control.received;
    }

    /// Adds what the link carried in another life.
    pub(in crate::sim) const fn merge(&mut self, other: &Carried) {
        self.sent += other.sent;
        self.confirmed += other.confirmed;
        self.received += other.received;
        self.control_sent += other.control_sent;
        self.control_received += other.control_received;
    }
}

/// Compares the two ends of every link.
pub fn kept(world: &World) -> Result<(), String> {
    let carried: Vec<BTreeMap<usize, Carried>> =
        (0..world.topology().routers).map(|router| world.carried(router)).collect();
    let end = |router: usize, peer: usize| carried[router].get(&peer).copied().unwrap_or_default();
    for &(a, b) in &world.topology().links {
        for (from, to) in [(a, b), (b, a)] {
            compare(end(from, to), end(to, from)).map_err(|why| format!("the link from r{from} to r{to} {why}"))?;
        }
    }
    Ok(())
}

fn compare(sender: Carried, receiver: Carried) -> Result<(), String> {
    let (sent, received) = (sender.sent, receiver.received);
    if sender.confirmed > received {
        return Err(format!("confirmed {} messages, of which {received} arrived", sender.confirmed));
    }
    if received > sent {
        return Err(format!("handed up {received} messages, of which {sent} were sent"));
    }
    if receiver.control_received > sender.control_sent {
        let (sent, received) = (sender.control_sent, receiver.control_received);
        return Err(format!("handed up {received} control messages, of which {sent} were sent"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_come_is_not_confirmed_and_what_came_once_is_not_handed_up_twice() {
        let sender = Carried { sent: 10, confirmed: 8, control_sent: 3, ..Carried::default() };
        let receiver = Carried { received: 9, control_received: 3, ..Carried::default() };
        assert_eq!(compare(sender, receiver), Ok(()));
        for (wrong, word) in [
            (Carried { received: 7, ..receiver }, "confirmed 8"),
            (Carried { received: 11, ..receiver }, "handed up 11 messages"),
            (Carried { control_received: 4, ..receiver }, "handed up 4 control"),
        ] {
            let why = compare(sender, wrong).expect_err("the counts cannot be");
            assert!(why.contains(word), "{why}");
        }
    }
}
