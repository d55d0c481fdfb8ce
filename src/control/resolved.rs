//! The configuration in the terms of the protocols: names become ids, texts become keys.

use crate::base::limits::{MAX_LINKS, MAX_NODES};
use crate::base::{AddressPair, Identity, NodeId, PublicIdentity};
use crate::config::settings::{
    Config, Congestion, Coverage, Groups, Link, LinkPath, Metric, Profile, Vip, VipCheck, VipSet,
};
use crate::dataplane::messages::{LinkSpec, PathSpec};
use crate::proto::{link, membership, routing, vip};
use std::collections::{BTreeMap, BTreeSet};

/// What the group is called that shares service addresses.
const GROUP: &str = "vip";
/// And the one that process groups stand on.
const PROCESSES: &str = "processes";

/// A configuration that was checked against itself and against this router's key.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Members by name.
    pub(super) members: BTreeMap<String, PublicIdentity>,
    /// Names by id.
    pub(super) names: BTreeMap<NodeId, String>,
    /// What workers need to know of each link, in the order of the configuration.
    pub(super) links: Vec<LinkSpec>,
    /// The group that this router shares service addresses with, and how.
    pub(super) cluster: Option<(membership::Settings, vip::Settings)>,
    /// The membership that process groups stand on, and who may be in it.
    pub(super) groups: Option<(membership::Settings, BTreeSet<NodeId>)>,
}

impl Resolved {
    /// Checks everything; all mistakes at once, one a line.
    pub(super) fn new(config: &Config, identity: &Identity) -> Result<Resolved, String> {
        let mut mistakes = Vec::new();
        let mut resolved = Resolved {
            members: BTreeMap::new(),
            names: BTreeMap::new(),
            links: Vec::new(),
            cluster: None,
            groups: None,
        };
        resolved.add_members(config, &mut mistakes);
        let own = identity.public();
        match resolved.members.get(&config.name) {
            None => mistakes.push(format!("this router, `{}`, is not among the members", config.name)),
            Some(listed) if *listed != own => mistakes.push(format!(
                "member `{}` is listed with the key of {}, but this router's key is that of {}: `sinew key show` prints what belongs there",
                config.name,
                listed.node_id(),
                own.node_id()
            )),
            Some(_) => {}
        }
        if config.links.len() > MAX_LINKS {
            mistakes.push(format!("{} links are configured, but a router has at most {MAX_LINKS}", config.links.len()));
        }
        for link in &config.links {
            match resolved.members.get(&link.peer) {
                None => mistakes.push(format!("link to `{}`: no member has this name", link.peer)),
                Some(peer) if *peer == own => mistakes.push(format!("link to `{}`: that is this router", link.peer)),
                Some(peer) => resolved.links.push(spec(link, *peer)),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes.join("\n"));
        }
        let cluster = config.vip.as_ref().map(|vip| resolved.cluster(vip, own.node_id()));
        resolved.cluster = cluster.transpose()?;
        let groups = config.groups.as_ref().map(|groups| resolved.groups(groups, own.node_id()));
        resolved.groups = groups.transpose()?;
        Ok(resolved)
    }

    fn cluster(&self, written: &Vip, node: NodeId) -> Result<(membership::Settings, vip::Settings), String> {
        let id = |name: &String| {
            let public = self.members.get(name).ok_or_else(|| format!("vip: no member is called `{name}`"))?;
            Ok(public.node_id())
        };
        let member = |name: &String| Ok((id(name)?, name.clone()));
        let mut members = written.members.iter().map(member).collect::<Result<Vec<_>, String>>()?;
        members.sort_unstable();
        if !members.iter().any(|member| member.0 == node) {
            return Err("vip: this router is not among the members of its group".to_owned());
        }
        let set = |set: &VipSet| {
            let mut interfaces: Vec<String> = set.addresses.iter().map(|address| address.interface.clone()).collect();
            interfaces.sort_unstable();
            interfaces.dedup();
            Ok(vip::SetSpec {
                name: set.name.clone(),
                addresses: set.addresses.iter().map(|address| address.ip).collect(),
                interfaces,
                coverage: match set.coverage {
                    Coverage::Component => vip::Coverage::Component,
                    Coverage::Majority => vip::Coverage::Majority,
                },
                preferences: set.prefer.iter().map(id).collect::<Result<_, String>>()?,
            })
        };
        let check = |check: &VipCheck| {
            let place = |name: &String| {
                let found = written.sets.iter().position(|set| set.name == *name);
                found.ok_or_else(|| format!("vip: check `{}`: no set is called `{name}`", check.name))
            };
            let sets = check.sets.iter().map(place).collect::<Result<_, String>>()?;
            Ok(vip::CheckSpec { name: check.name.clone(), sets })
        };
        let settings = vip::Settings {
            node,
            members,
            sets: written.sets.iter().map(set).collect::<Result<_, String>>()?,
            weight: written.weight,
            checks: written.checks.iter().map(check).collect::<Result<_, String>>()?,
            maturity: written.maturity,
            lease: written.lease,
            linger: written.linger,
            balance: written.balance,
            moves: written.moves,
        };
        let group = membership::Settings {
            group: GROUP.parse().expect("a good name"),
            node,
            // Control has the clock that it is taken from.
            incarnation: 0,
            timing: match written.profile {
                Profile::Safe => membership::Timing::SAFE,
                Profile::Fast => membership::Timing::FAST,
                Profile::Wan => membership::Timing::WAN,
            },
        };
        Ok((group, settings))
    }

    fn groups(&self, written: &Groups, node: NodeId) -> Result<(membership::Settings, BTreeSet<NodeId>), String> {
        let id = |name: &String| {
            let public = self.members.get(name).ok_or_else(|| format!("groups: no member is called `{name}`"))?;
            Ok(public.node_id())
        };
        let members = written.members.iter().map(id).collect::<Result<BTreeSet<NodeId>, String>>()?;
        if !members.contains(&node) {
            return Err("groups: this router is not among the members".to_owned());
        }
        let settings = membership::Settings {
            group: PROCESSES.parse().expect("a good name"),
            node,
            // Control has the clock that it is taken from.
            incarnation: 0,
            timing: membership::Timing::WAN,
        };
        Ok((settings, members))
    }

    fn add_members(&mut self, config: &Config, mistakes: &mut Vec<String>) {
        if config.members.len() > MAX_NODES {
            mistakes
                .push(format!("{} members are listed, but a network has at most {MAX_NODES}", config.members.len()));
            return;
        }
        for member in &config.members {
            let public: PublicIdentity = match member.public.parse() {
                Ok(public) => public,
                Err(error) => {
                    mistakes.push(format!("member `{}`: {error}", member.name));
                    continue;
                }
            };
            if let Some(other) = self.names.insert(public.node_id(), member.name.clone()) {
                mistakes.push(format!("members `{other}` and `{}` have the same key", member.name));
            }
            if self.members.insert(member.name.clone(), public).is_some() {
                mistakes.push(format!("two members are called `{}`", member.name));
            }
        }
    }
}

fn spec(link: &Link, peer: PublicIdentity) -> LinkSpec {
    let settings = link::Settings {
        hello: link.hello,
        dead: link.dead,
        congestion: match link.congestion {
            Congestion::Cubic => link::Congestion::Cubic,
            Congestion::FixedKbps(kbps) => link::Congestion::FixedKbps(kbps),
        },
        queue_delay: link.queue_delay,
        queue: link.queue,
        ..link::Settings::default()
    };
    let paths = link.paths.iter().map(path).collect();
    LinkSpec { peer, preshared_key: link.preshared_key, paths, asks: true, settings }
}

fn path(path: &LinkPath) -> PathSpec {
    PathSpec { pair: AddressPair { local: path.local, remote: path.remote }, cost: path.cost }
}

/// The configured metric as routing calls it.
pub(super) const fn metric(metric: Metric) -> routing::Metric {
    match metric {
        Metric::Hops => routing::Metric::Hops,
        Metric::Latency => routing::Metric::Latency,
        Metric::Loss => routing::Metric::Loss,
        Metric::Expected => routing::Metric::Expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_for;
    use std::path::Path;

    /// The configuration of router a, of three, with this in it.
    fn resolved(more: &str) -> Resolved {
        let identities = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]));
        let mut text = "name = \"a\"\nkey = \"a.key\"\n".to_owned();
        for (name, identity) in ["a", "b", "c"].iter().zip(&identities) {
            text += &format!("[[member]]\nname = \"{name}\"\npublic = \"{}\"\n", identity.public());
        }
        let config = parse_for(Path::new("a.toml"), &(text + more), 4).unwrap_or_else(|errors| panic!("{errors}"));
        Resolved::new(&config, &identities[0]).expect("is right")
    }

    #[test]
    fn checks_withdraw_the_sets_that_they_name() {
        let set =
            |name: &str, last: u8| format!("[[vip.set]]\nname = \"{name}\"\naddresses = [\"192.0.2.{last}@eth0\"]\n");
        let check = |name: &str, sets: &str| format!("[[vip.check]]\nname = \"{name}\"\nfile = \"/up\"\n{sets}\n");
        let text = set("web", 10) + &set("mail", 11) + &check("one", "sets = [\"mail\"]") + &check("every", "");
        let (_, settings) = resolved(&text).cluster.expect("is there");
        let spec = |name: &str, sets: &[usize]| vip::CheckSpec { name: name.to_owned(), sets: sets.to_vec() };
        assert_eq!(settings.checks, [spec("one", &[1]), spec("every", &[])]);
    }

    #[test]
    fn a_profile_sets_the_pace_of_links_and_of_agreement() {
        let link = |peer: &str| format!("[[link]]\npeer = \"{peer}\"\nremote = \"192.0.2.2:5300\"\n");
        let set = "[[vip.set]]\nname = \"web\"\naddresses = [\"192.0.2.10@eth0\"]\n";
        for (profile, timing, hello) in [
            ("safe", membership::Timing::SAFE, 10),
            ("fast", membership::Timing::FAST, 1),
            ("wan", membership::Timing::WAN, 40),
        ] {
            let group = format!("[vip]\nprofile = \"{profile}\"\nmembers = [\"a\", \"b\"]\n");
            let resolved = resolved(&(group + set + &link("b") + &link("c")));
            assert_eq!(resolved.cluster.expect("is there").0.timing, timing);
            let hellos = resolved.links.iter().map(|link| link.settings.hello.as_millis());
            assert_eq!(hellos.collect::<Vec<_>>(), [hello, 40], "b is a member, c is none");
        }
    }
}
