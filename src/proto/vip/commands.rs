//! Operators' commands: said to the view as orders, and answered when they came to something.

use super::agreed::Applied;
use super::door::Command;
use super::{MAX_COMMANDS, Vip};
use crate::base::{Instant, NodeId};
use crate::proto::vip::Action;
use crate::wire::vip::{Message, Order, Seat, Slot};
use std::time::Duration;

/// How long a command may take to be delivered to the view and to be followed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Commands that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Commands {
    waiting: Vec<Waiting>,
    /// The number of the last order of this router. Balance has none.
    last: u64,
}

#[derive(Clone, Debug)]
struct Waiting {
    /// The caller's number.
    id: u64,
    /// This router's.
    number: u64,
    order: Order,
    until: Instant,
    /// What came of it when it was delivered.
    applied: Option<Result<(), String>>,
}

impl Commands {
    /// The order with this number was delivered. A move without a target has one from now on.
    pub(super) fn applied(&mut self, number: u64, applied: Applied, slots: &[Slot]) {
        let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.number == number) else { return };
        if let Order::Move { set, to: to @ None } = &mut waiting.order {
            *to = slots.get(usize::from(*set)).and_then(|slot| slot.owner);
        }
        waiting.applied = Some(match applied {
            Applied::Refused(why) => Err(why),
            Applied::Misplaced => {
                Err("this router's configuration differs from the others': it holds nothing".to_owned())
            }
            Applied::Done | Applied::Stale => Ok(()),
        });
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }
}

impl Waiting {
    /// What came of it; none if that is still open.
    fn result(&self, vip: &Vip) -> Option<Result<(), String>> {
        match (self.applied.as_ref()?, self.order) {
            (Err(why), _) => Some(Err(why.clone())),
            (Ok(()), Order::Move { set, to }) => {
                let slot = &vip.agreed.slots[usize::from(set)];
                match slot.owner == to {
                    true => slot.acquired.then_some(Ok(())),
                    false => Some(Err(format!("meanwhile it was given to {}", vip.who(slot.owner)))),
                }
            }
            (Ok(()), Order::Drain(seat)) => {
                let held = vip.agreed.slots.iter().any(|slot| slot.owner == Some(seat) || slot.from == Some(seat));
                (!held).then_some(Ok(()))
            }
            (Ok(()), _) => Some(Ok(())),
        }
    }

    /// What is said when it took too long.
    fn given_up(&self, vip: &Vip) -> String {
        if self.applied.is_none() {
            return "the view did not agree on it in time: try again".to_owned();
        }
        let stays = |seat: Seat| {
            let held = vip
                .agreed
                .slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| slot.owner == Some(seat) || slot.from == Some(seat));
            held.map(|(set, _)| vip.name(set)).take(5).collect::<Vec<_>>().join(", ")
        };
        match self.order {
            Order::Drain(seat) => format!("ordered, but it still holds {} (paused sets stay)", stays(seat)),
            _ => "ordered, but not done yet".to_owned(),
        }
    }
}

impl Vip {
    /// An operator's command: said to the view, or refused at once.
    pub(super) fn command(&mut self, now: Instant, id: u64, command: &Command) {
        let order = self.order(command).and_then(|order| match () {
            () if self.view.is_none() => Err("this router is in no view yet".to_owned()),
            () if self.commands.waiting.len() == MAX_COMMANDS => Err("too many commands wait: try again".to_owned()),
            () => Ok(order),
        });
        match order {
            Ok(order) => {
                self.commands.last += 1;
                let number = self.commands.last;
                self.commands.waiting.push(Waiting { id, number, order, until: now + PATIENCE, applied: None });
                self.say(&Message::Order { id: number, order });
            }
            Err(why) => self.done(id, Err(why)),
        }
    }

    /// Answers commands that came to something, or took too long.
    pub(super) fn finish_commands(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.commands.waiting);
        for command in waiting {
            match command.result(self) {
                Some(result) => self.done(command.id, result),
                None if command.until <= now => self.done(command.id, Err(command.given_up(self))),
                None => self.commands.waiting.push(command),
            }
        }
    }

    fn done(&mut self, id: u64, result: Result<(), String>) {
        self.stats.refused += u64::from(result.is_err());
        self.actions.push_back(Action::Done { id, result });
    }

    fn order(&self, command: &Command) -> Result<Order, String> {
        let set = |name: &str| {
            let found = self.rules.sets.iter().position(|set| set.name == name);
            found.map(|place| place as u16).ok_or_else(|| {
                let names: Vec<&str> = self.rules.sets.iter().map(|set| set.name.as_str()).take(10).collect();
                format!("there is no set `{name}`; there are {}", names.join(", "))
            })
        };
        let seat = |node: NodeId| self.rules.seat(node).ok_or_else(|| format!("{node} is no member"));
        Ok(match command {
            Command::Move { set: name, to } => Order::Move { set: set(name)?, to: to.map(seat).transpose()? },
            Command::Drain(node) => Order::Drain(seat(*node)?),
            Command::Undrain(node) => Order::Undrain(seat(*node)?),
            Command::Pin { set: name, to } => Order::Pin { set: set(name)?, to: seat(*to)? },
            Command::Unpin(name) => Order::Unpin(set(name)?),
            Command::Pause(name) => Order::Pause(set(name)?),
            Command::Resume(name) => Order::Resume(set(name)?),
            Command::Balance => Order::Balance(u16::MAX),
        })
    }

    /// What people call the member.
    fn who(&self, seat: Option<Seat>) -> &str {
        seat.and_then(|seat| self.rules.names.get(seat.index())).map_or("nobody", String::as_str)
    }
}
