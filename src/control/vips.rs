//! Views and service addresses, to be shown and ordered about: names for ids, sentences for entries.

use super::Control;
use super::cluster::Event;
use crate::base::{Instant, NodeId};
use crate::proto::membership::{self, Cause, Suspicion};
use crate::proto::vip::{self, Command};
use crate::wire::admin::{JournalEntry, Response, ViewEntry, VipEntry, VipMemberEntry, VipOrder};
use serde_json::{Value, json};

/// What is answered where there are none.
pub(super) const NO_CLUSTER: &str =
    "this router shares no service addresses: describe them in its configuration, in [vip] and [[vip.set]]";

impl Control {
    pub(super) fn vips(&self, now: Instant) -> Response {
        let Some(cluster) = &self.cluster else { return Response::Error { message: NO_CLUSTER.to_owned() } };
        let view = cluster.membership().view();
        let view = Box::new(ViewEntry {
            id: view.map_or_else(String::new, |view| view.id.to_string()),
            members: view.into_iter().flat_map(|view| &view.members).map(|&node| self.name_of(node)).collect(),
            gathering: cluster.membership().is_gathering(),
            since_s: now.since(cluster.since()).as_secs_f64(),
        });
        let mut members: Vec<VipMemberEntry> = cluster.vip().members().map(|member| self.member(member)).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let written = &self.config.vip.as_ref().map_or(&[][..], |vip| &vip.sets);
        let sets = cluster.vip().sets().zip(written.iter()).map(|(set, written)| VipEntry {
            set: set.name,
            addresses: written
                .addresses
                .iter()
                .map(|address| format!("{}@{}", address.ip, address.interface))
                .collect(),
            owner: set.owner.map(|node| self.name_of(node)),
            acquired: set.acquired,
            from: set.from.map(|node| self.name_of(node)),
            here: stage(set.here).to_owned(),
            pin: set.pin.map(|node| self.name_of(node)),
            paused: set.paused,
            unable: set.unable,
        });
        Response::Vips { view, members, sets: sets.collect(), degraded: Vec::new() }
    }

    /// What is counted of the group that shares service addresses, and each set as it is now; nothing if there is none.
    pub(super) fn cluster_figures(&self) -> Vec<(String, Value)> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let (membership, vip) = (cluster.membership(), cluster.vip());
        let with = |stats: serde_json::Result<Value>, gauges: Value| {
            let mut figures = stats.expect("a struct of numbers");
            if let (Value::Object(figures), Value::Object(gauges)) = (&mut figures, gauges) {
                figures.extend(gauges);
            }
            figures
        };
        let view_members = membership.view().map_or(0, |view| view.members.len());
        let gauges = json!({ "view_members": view_members, "gathering": membership.is_gathering() });
        let membership = with(serde_json::to_value(membership.stats()), gauges);
        let sets: Vec<vip::SetView> = vip.sets().collect();
        let count = |is: fn(&vip::SetView) -> bool| sets.iter().filter(|set| is(set)).count();
        let gauges = json!({
            "sets_configured": sets.len(),
            "sets_owned": count(is_owned),
            "sets_covered": count(is_covered),
            "overruled": vip.is_overruled(),
        });
        let vip = with(serde_json::to_value(vip.stats()), gauges);
        let figures = |set: &vip::SetView| {
            json!({
                "set": set.name,
                "state": stage(set.here),
                "owned": is_owned(set),
                "covered": is_covered(set),
                "able": set.unable.is_none(),
            })
        };
        let sets: Vec<Value> = sets.iter().map(figures).collect();
        let named = [("membership", membership), ("vip", vip), ("vip_sets", Value::Array(sets))];
        named.map(|(name, figures)| (name.to_owned(), figures)).into()
    }

    fn member(&self, member: vip::MemberView) -> VipMemberEntry {
        let excluded = if !member.here {
            Some("away: no link leads to it, or its router does not run")
        } else if !member.equal {
            Some("another configuration: make [vip] the same on all members, and restart it")
        } else if member.leaving {
            Some("leaving")
        } else if member.drained {
            Some("drained: `sinew vip undrain` lets it have sets again")
        } else if !member.mature {
            Some("waiting for the others: it started a moment ago")
        } else {
            None
        };
        VipMemberEntry {
            name: self.name_of(member.node),
            node: member.node,
            here: member.here,
            this: member.node == self.node,
            excluded: excluded.map(str::to_owned),
            able: member.able,
            owns: member.owns,
            weight: member.weight,
        }
    }

    pub(super) fn journal(&self, now: Instant) -> Response {
        let Some(cluster) = &self.cluster else { return Response::Error { message: NO_CLUSTER.to_owned() } };
        let entries = cluster.journal().map(|(at, event)| {
            let value = match event {
                Event::Membership(entry) => serde_json::to_value(entry),
                Event::Vip(entry) => serde_json::to_value(entry),
            };
            let event_value = value.unwrap_or_else(|error| serde_json::Value::String(error.to_string()));
            JournalEntry { ago_s: now.since(*at).as_secs_f64(), text: self.sentence(event), event: event_value }
        });
        Response::Journal { entries: entries.collect() }
    }

    /// Into the log, by weight.
    pub(super) fn say(&self, event: &Event) {
        use vip::Entry;
        let text = self.sentence(event);
        match event {
            Event::Vip(Entry::Host { .. } | Entry::Rival { .. } | Entry::Lapsed | Entry::Unequal { .. }) => {
                tracing::warn!("{text}");
            }
            Event::Membership(membership::Entry::Reached(_) | membership::Entry::Gathering { .. }) => {
                tracing::debug!("{text}");
            }
            _ => tracing::info!("{text}"),
        }
    }

    /// An order in the terms of the protocol.
    pub(super) fn command_of(&self, order: &VipOrder) -> Result<Command, String> {
        let member = |name: &String| self.node_named(name).ok_or_else(|| format!("no member is called `{name}`"));
        let set = Clone::clone;
        Ok(match order {
            VipOrder::Move { set: name, to } => {
                Command::Move { set: set(name), to: to.as_ref().map(member).transpose()? }
            }
            VipOrder::Drain { member: name } => Command::Drain(member(name)?),
            VipOrder::Undrain { member: name } => Command::Undrain(member(name)?),
            VipOrder::Pin { set: name, to } => Command::Pin { set: set(name), to: member(to)? },
            VipOrder::Unpin { set: name } => Command::Unpin(set(name)),
            VipOrder::Pause { set: name } => Command::Pause(set(name)),
            VipOrder::Resume { set: name } => Command::Resume(set(name)),
            VipOrder::Balance => Command::Balance,
        })
    }

    fn node_named(&self, name: &str) -> Option<NodeId> {
        self.names.iter().find(|known| known.1 == name).map(|known| *known.0)
    }

    fn sentence(&self, event: &Event) -> String {
        match event {
            Event::Membership(entry) => self.of_membership(entry),
            Event::Vip(entry) => self.of_vip(entry),
        }
    }

    pub(super) fn of_membership(&self, entry: &membership::Entry) -> String {
        use membership::Entry;
        let name = |node: &NodeId| self.name_of(*node);
        match entry {
            Entry::Reached(node) => format!("{} can be reached", name(node)),
            Entry::Lost(node, why) => format!("{} cannot be reached: {}", name(node), suspicion(*why)),
            Entry::Leaving(node) => format!("{} leaves", name(node)),
            Entry::Mute(node, after) => format!("{} did not answer for {after:.1?}, and is left out", name(node)),
            Entry::Speaks(node) => format!("{} answers again", name(node)),
            Entry::Gathering { from, cause } => format!("view {from} ends: {}", self.cause(*cause)),
            Entry::Abandoned { view, after } => format!("view {view} will not be: somebody moved on after {after:.1?}"),
            Entry::Installed { view, members, took, agreeing, recovering } => format!(
                "view {view} of {members} begins, {took:.1?} after the last one ended ({agreeing:.1?} to agree, \
                 {recovering:.1?} to recover)"
            ),
            Entry::Outbid(life) => format!("somebody answers to this router's name; it begins a new life, {life}"),
            Entry::StateTooLong(bytes) => format!("a state of {bytes} bytes is too long for a view"),
        }
    }

    fn cause(&self, cause: Cause) -> String {
        match cause {
            Cause::Start => "this router starts".to_owned(),
            Cause::Lost(node) => format!("{} is lost", self.name_of(node)),
            Cause::Restarted(node) => format!("{} has restarted", self.name_of(node)),
            Cause::Moved(node) => format!("{} looks for another", self.name_of(node)),
            Cause::Others => "others can be joined, or must be parted from".to_owned(),
        }
    }

    fn of_vip(&self, entry: &vip::Entry) -> String {
        use vip::Entry;
        let name = |node: &Option<NodeId>| node.map_or_else(|| "nobody".to_owned(), |node| self.name_of(node));
        match entry {
            Entry::View { id, members, together } => {
                format!("sets are shared among {members} in view {id}, {together} of whom were together before")
            }
            Entry::Assigned { set, owner, from, cause } => {
                let why = match cause {
                    vip::Cause::View => "a view began",
                    vip::Cause::Facts => "what a member can has changed",
                    vip::Cause::Order => "ordered",
                };
                match from {
                    Some(_) => format!("{set} goes from {} to {}: {why}", name(from), name(owner)),
                    None => format!("{set} is given to {}: {why}", name(owner)),
                }
            }
            Entry::Acquired { set, after, waited } if waited.is_zero() => {
                format!("this router answers for {set}, {after:.1?} after it was given to it")
            }
            Entry::Acquired { set, after, waited } => format!(
                "this router answers for {set}, {after:.1?} after it was given to it, {waited:.1?} of which a lease ran on"
            ),
            Entry::Released { set } => format!("this router does not answer for {set} any more"),
            Entry::Host { set, why } => format!("{set}: {why}"),
            Entry::Rival { set, address, who } => format!("{who} answers for {address} of {set}, too"),
            Entry::Lapsed => "this router did not run for longer than its lease: it holds nothing now".to_owned(),
            Entry::Unequal { others, this, .. } => {
                let others: Vec<String> = others.iter().map(|&node| self.name_of(node)).collect();
                let whose = if *this { "this router is one of them" } else { "this router is not one of them" };
                format!(
                    "another [vip] configuration rules out {} ({whose}): make it the same on all",
                    others.join(", ")
                )
            }
            Entry::Mature => "this router has waited for the others for long enough".to_owned(),
        }
    }
}

/// Whether this router answers for it.
fn is_owned(set: &vip::SetView) -> bool {
    set.here == vip::Stage::Owning
}

/// Whether its owner says that it answers for it.
fn is_covered(set: &vip::SetView) -> bool {
    set.owner.is_some() && set.acquired
}

const fn stage(stage: vip::Stage) -> &'static str {
    match stage {
        vip::Stage::Idle => "idle",
        vip::Stage::Waiting { .. } => "waiting",
        vip::Stage::Acquiring { .. } => "acquiring",
        vip::Stage::Owning => "owning",
        vip::Stage::Muted { .. } => "muted",
        vip::Stage::Releasing => "releasing",
        vip::Stage::Lapsed => "lapsed",
    }
}

fn suspicion(why: Suspicion) -> String {
    match why {
        Suspicion::Link(reason) => super::links::describe(reason).to_owned(),
        Suspicion::NoRoute => "no route leads there".to_owned(),
    }
}
