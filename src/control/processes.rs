//! Control's part in process groups: messages and routes in, requests and answers, names for ids, sentences for refusals.

use super::clients::Pending;
use super::groups::{Done, Wanted};
use super::{Action, ClientId, Control};
use crate::base::limits::{MAX_GROUP_MESSAGE, MAX_PROCESSES};
use crate::base::{Instant, NodeId};
use crate::dataplane::messages::Command;
use crate::proto::groups::{Event, Process, Refusal};
use crate::proto::membership::Entry;
use crate::wire;
use crate::wire::admin::{GroupEntry, GroupEvent, Response, ViewEntry};
use serde_json::{Value, json};

/// What is answered where there are none.
pub(super) const NO_GROUPS: &str = "this router has no process groups: write [groups] in its configuration, and in that of the others, and \
     restart them";

impl Control {
    /// Does what process groups want, and what is due there.
    pub(super) fn advance_groups(&mut self, now: Instant) {
        let Some(groups) = &mut self.groups else { return };
        if std::mem::take(&mut self.rerouted) {
            groups.routes(now, |node| self.table.next_hop(node).is_some());
        }
        if groups.poll_timeout().is_some_and(|at| at <= now) {
            groups.handle_timeout(now);
        }
        while let Some(wanted) = self.groups.as_mut().and_then(|groups| groups.poll()) {
            match wanted {
                Wanted::Send(to, bytes) => self.command(0, Command::SendFar(to, bytes.into_boxed_slice())),
                Wanted::Answer(client, answer) => self.answer_process(now, client, answer),
                Wanted::Tell(clients, event) => {
                    let response = Response::Group { event: self.event_of(event) };
                    self.actions.push_back(Action::Tell { clients, response });
                }
                Wanted::Say(entry) => self.say_of_groups(&entry),
            }
        }
    }

    /// A message from any router, by whichever way it came.
    pub(super) fn far_message(&mut self, now: Instant, from: NodeId, bytes: Box<[u8]>) {
        if let (Some(&wire::membership::PROTOCOL), Some(groups)) = (bytes.first(), &mut self.groups) {
            if groups.message(now, from, bytes.into_vec()) {
                return;
            }
            if groups.is_new_stranger(from) {
                let name = self.name_of(from);
                tracing::warn!(
                    "`{name}` has process groups with this router, but is not among the `members` of [groups] here: give \
                     all routers that have them the same list"
                );
            }
        }
        self.refused_messages += 1;
    }

    /// Begins to let a client into a group; true if it is refused.
    pub(super) fn join_group(&mut self, now: Instant, client: ClientId, name: &str) -> bool {
        let refusal = match (name.parse(), &mut self.groups) {
            (_, None) => NO_GROUPS.to_owned(),
            (Err(why), _) => why,
            (_, Some(groups)) if groups.is_process(client) => {
                "this connection is in a group already: join another one by a connection of its own".to_owned()
            }
            (Ok(group), Some(groups)) => {
                self.clients.set_pending(client, Pending::Group);
                groups.join(now, client, group);
                return false;
            }
        };
        self.reply_error(client, refusal);
        true
    }

    /// Begins to send what a client says to its group; true if it is refused.
    pub(super) fn send_group(&mut self, now: Instant, client: ClientId, bytes: Vec<u8>) -> bool {
        match &mut self.groups {
            Some(groups) => {
                self.clients.set_pending(client, Pending::Group);
                groups.send(now, client, bytes);
                false
            }
            None => {
                self.reply_error(client, NO_GROUPS);
                true
            }
        }
    }

    /// A process as people know it: `ROUTER.NUMBER`.
    pub(super) fn process_name(&self, process: Process) -> String {
        format!("{}.{}", self.name_of(process.node), process.number)
    }

    fn process_names<'a>(&self, processes: impl IntoIterator<Item = &'a Process>) -> Vec<String> {
        processes.into_iter().map(|&process| self.process_name(process)).collect()
    }

    /// What a process sees, with names.
    pub(super) fn event_of(&self, event: Event) -> GroupEvent {
        match event {
            Event::View { id, members, together } => GroupEvent::View {
                id: id.to_string(),
                members: self.process_names(&members),
                together: self.process_names(&together),
            },
            Event::Transitional => GroupEvent::Transitional,
            Event::Message { from, bytes } => GroupEvent::Message { from: self.process_name(from), bytes },
        }
    }

    /// Answers what a client asked for, and takes what it asks next.
    pub(super) fn answer_process(&mut self, now: Instant, client: ClientId, answer: Result<Done, Refusal>) {
        let response = match answer {
            Ok(Done::Joined(process)) => Response::Joined { member: self.process_name(process) },
            Ok(Done::Sent) => Response::Sent,
            Err(why) => Response::Error { message: explain(why) },
        };
        self.reply(client, response);
        self.finish(now, client);
    }

    pub(super) fn show_groups(&self, now: Instant) -> Response {
        let Some(both) = &self.groups else { return Response::Error { message: NO_GROUPS.to_owned() } };
        let view = both.membership().view();
        let routers = Box::new(ViewEntry {
            id: view.map_or_else(String::new, |view| view.id.to_string()),
            members: view.into_iter().flat_map(|view| &view.members).map(|&node| self.name_of(node)).collect(),
            gathering: both.membership().is_gathering(),
            since_s: now.since(both.since()).as_secs_f64(),
        });
        let groups = both.groups().groups().map(|group| GroupEntry {
            group: group.name.to_string(),
            view: group.id.to_string(),
            members: self.process_names(group.members),
        });
        Response::Groups { routers, groups: groups.collect() }
    }

    /// What is counted of process groups; nothing if there are none.
    pub(super) fn group_figures(&self) -> Option<Value> {
        let both = self.groups.as_ref()?;
        let (membership, groups) = (both.membership(), both.groups());
        let mut figures = serde_json::to_value(groups.stats()).expect("a struct of numbers");
        let (processes, local) = groups.processes();
        let gauges = json!({
            "slow": both.slow(),
            "known": groups.groups().count(),
            "processes": processes,
            "local_processes": local,
            "view_members": membership.view().map_or(0, |view| view.members.len()),
            "gathering": membership.is_gathering(),
            "router_views": membership.stats().views,
        });
        if let (Value::Object(figures), Value::Object(gauges)) = (&mut figures, gauges) {
            figures.extend(gauges);
        }
        Some(figures)
    }

    /// Into the log, by weight.
    pub(super) fn say_of_groups(&self, entry: &Entry) {
        let text = self.of_membership(entry);
        match entry {
            Entry::Reached(_) | Entry::Gathering { .. } => tracing::debug!("process groups: {text}"),
            _ => tracing::info!("process groups: {text}"),
        }
    }
}

/// Why a client was refused something, and what to do.
fn explain(why: Refusal) -> String {
    match why {
        Refusal::Crowded => format!(
            "{MAX_PROCESSES} processes of this router are in groups, and no more may be: let some leave, or join at another \
             router"
        ),
        Refusal::NotJoined => "this connection is in no group: join one first".to_owned(),
        Refusal::Busy => "the last message is not taken yet: wait for the answer".to_owned(),
        Refusal::TooLong => format!("a message has at most {MAX_GROUP_MESSAGE} bytes: send it in parts"),
    }
}
