//! The difference between two configurations: what a reload changes, and what it cannot.
//!
//! Members, links and the metric are changed live. Whatever was bound, read or started once (name, key file, addresses,
//! workers, clients, memory, service addresses, process groups) needs a restart, and says so. A link is the same link if it leads to the same public identity;
//! of several to one router the first of the old file is the first of the new one.

use super::settings::{Config, Link, Metric};

/// What a reload does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Places in the new configuration, each with what to do about the link there.
    pub links: Vec<LinkStep>,
    /// Places in the old configuration of links that are gone.
    pub removed: Vec<usize>,
    /// The members differ.
    pub members: bool,
    /// The metric differs.
    pub metric: bool,
    /// What takes effect, for people.
    pub applied: Vec<String>,
    /// What needs a restart, for people.
    pub not_applied: Vec<String>,
}

/// What becomes of a link of the new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkStep {
    /// It stays as it is; its place in the old configuration.
    Keep(usize),
    /// It stays up, and uses other paths; its place in the old configuration.
    Repath(usize),
    /// It is taken down and put up with other settings; its place in the old configuration.
    Replace(usize),
    /// It is new.
    Add,
}

/// What must be done to come from `old` to `new`, both valid.
pub fn plan(old: &Config, new: &Config) -> Plan {
    let mut plan = Plan::default();
    links(old, new, &mut plan);
    members(old, new, &mut plan);
    if old.routing.metric != new.routing.metric {
        plan.metric = true;
        plan.applied.push(format!("routing metric is now `{}`", metric_name(new.routing.metric)));
    }
    let fixed = [
        ("name", old.name != new.name),
        ("key_file", old.key_file != new.key_file),
        ("listen", old.listen != new.listen),
        ("control_socket", old.control_socket != new.control_socket),
        ("workers", old.workers != new.workers),
        ("telemetry", old.telemetry != new.telemetry),
        ("clients", old.clients != new.clients),
        ("memory", old.lock_memory != new.lock_memory),
        ("vip", old.vip != new.vip),
        ("groups", old.groups != new.groups),
    ];
    let changed = fixed.into_iter().filter(|(_, differs)| *differs);
    plan.not_applied.extend(changed.map(|(key, _)| format!("`{key}` takes effect at the next start")));
    plan
}

/// The configuration that is in force after a reload: `new`, but for what only a restart changes.
pub fn in_force(old: &Config, new: Config) -> Config {
    Config {
        name: old.name.clone(),
        key_file: old.key_file.clone(),
        listen: old.listen,
        control_socket: old.control_socket.clone(),
        workers: old.workers.clone(),
        telemetry: old.telemetry.clone(),
        clients: old.clients,
        lock_memory: old.lock_memory,
        vip: old.vip.clone(),
        groups: old.groups.clone(),
        ..new
    }
}

fn links(old: &Config, new: &Config, plan: &mut Plan) {
    let mut left: Vec<Option<&Link>> = old.links.iter().map(Some).collect();
    for link in &new.links {
        let key = public_of(new, &link.peer);
        let same = |candidate: &Option<&Link>| candidate.is_some_and(|old_link| public_of(old, &old_link.peer) == key);
        let found = left.iter().position(same);
        let before = found.and_then(|place| left[place].take().map(|link| (place, link)));
        plan.links.push(match before {
            Some((place, before)) if same_settings(before, link) => LinkStep::Keep(place),
            Some((place, before)) if same_settings(&Link { paths: link.paths.clone(), ..before.clone() }, link) => {
                plan.applied.push(format!("link to `{}` goes on with its new paths", link.peer));
                LinkStep::Repath(place)
            }
            Some((place, _)) => {
                plan.applied.push(format!("link to `{}` restarts with its new settings", link.peer));
                LinkStep::Replace(place)
            }
            None => {
                plan.applied.push(format!("link to `{}` added", link.peer));
                LinkStep::Add
            }
        });
    }
    for (place, link) in left.into_iter().enumerate().filter_map(|(place, link)| Some((place, link?))) {
        plan.removed.push(place);
        plan.applied.push(format!("link to `{}` removed", link.peer));
    }
}

fn members(old: &Config, new: &Config, plan: &mut Plan) {
    let before = plan.applied.len();
    for member in &new.members {
        match old.members.iter().find(|before| before.public == member.public) {
            None => plan.applied.push(format!("member `{}` added", member.name)),
            Some(before) if before.name != member.name => {
                plan.applied.push(format!("member `{}` is now called `{}`", before.name, member.name));
            }
            Some(_) => {}
        }
    }
    for member in &old.members {
        if !new.members.iter().any(|after| after.public == member.public) {
            plan.applied.push(format!("member `{}` removed", member.name));
        }
    }
    plan.members = plan.applied.len() > before;
}

fn public_of<'a>(config: &'a Config, name: &str) -> Option<&'a str> {
    config.members.iter().find(|member| member.name == name).map(|member| member.public.as_str())
}

/// Equal but for the peer's name, which may have changed while its key did not.
fn same_settings(one: &Link, other: &Link) -> bool {
    Link { peer: other.peer.clone(), ..one.clone() } == *other
}

const fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Hops => "hops",
        Metric::Latency => "latency",
        Metric::Loss => "loss",
        Metric::Expected => "expected",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Clients, Congestion, LinkPath, Member, Routing, Telemetry, Workers};
    use std::path::Path;
    use std::time::Duration;

    fn link(peer: &str) -> Link {
        Link {
            peer: peer.into(),
            paths: Vec::new(),
            preshared_key: None,
            hello: Duration::from_millis(50),
            dead: Duration::from_millis(250),
            congestion: Congestion::Cubic,
            queue_delay: Duration::from_millis(50),
            queue: 100,
        }
    }

    fn config(members: &[(&str, &str)], links: &[Link]) -> Config {
        let member = |&(name, public): &(&str, &str)| Member { name: name.into(), public: public.into() };
        Config {
            name: "a".into(),
            key_file: "a.key".into(),
            listen: "127.0.0.1:7000".parse().expect("an address"),
            control_socket: "a.sock".into(),
            workers: Workers::default(),
            lock_memory: false,
            members: members.iter().map(member).collect(),
            links: links.to_vec(),
            routing: Routing { metric: Metric::Hops },
            telemetry: Telemetry::new(Path::new("a.sock")),
            clients: Clients::default(),
            vip: None,
            groups: None,
        }
    }

    const MEMBERS: &[(&str, &str)] = &[("a", "A"), ("b", "B"), ("c", "C")];

    #[test]
    fn the_same_configuration_changes_nothing() {
        let config = config(MEMBERS, &[link("b"), link("c")]);
        let nothing = Plan { links: vec![LinkStep::Keep(0), LinkStep::Keep(1)], ..Plan::default() };
        assert_eq!(plan(&config, &config), nothing);
        assert_eq!(in_force(&config, config.clone()), config);
    }

    #[test]
    fn links_are_kept_replaced_added_and_removed() {
        let old = config(MEMBERS, &[link("b"), link("b"), link("c")]);
        let slow = Link { queue: 7, ..link("b") };
        let new = config(
            &[("a", "A"), ("bee", "B"), ("d", "D")],
            &[link("d"), link("bee"), Link { peer: "bee".into(), ..slow }],
        );
        let plan = plan(&old, &new);
        assert_eq!(plan.links, [LinkStep::Add, LinkStep::Keep(0), LinkStep::Replace(1)]);
        assert_eq!(plan.removed, [2]);
        assert!(plan.members && !plan.metric);
        for line in [
            "link to `d` added",
            "link to `bee` restarts with its new settings",
            "link to `c` removed",
            "member `b` is now called `bee`",
            "member `d` added",
            "member `c` removed",
        ] {
            assert!(plan.applied.iter().any(|applied| applied == line), "{line}: {:?}", plan.applied);
        }
        assert_eq!(plan.applied.len(), 6);
    }

    #[test]
    fn a_link_whose_paths_alone_change_stays_up() {
        let to = |port| LinkPath::to(([192, 0, 2, 2], port).into());
        let old = config(MEMBERS, &[Link { paths: vec![to(1)], ..link("b") }]);
        let new = config(MEMBERS, &[Link { paths: vec![to(1), to(2)], ..link("b") }]);
        let changed = plan(&old, &new);
        assert_eq!((changed.links, changed.removed.len()), (vec![LinkStep::Repath(0)], 0));
        assert_eq!(changed.applied, ["link to `b` goes on with its new paths"]);
        let slower = config(MEMBERS, &[Link { paths: vec![to(2)], queue: 7, ..link("b") }]);
        assert_eq!(plan(&old, &slower).links, [LinkStep::Replace(0)]);
    }

    #[test]
    fn a_new_key_under_an_old_name_is_another_router() {
        let old = config(MEMBERS, &[link("b")]);
        let new = config(&[("a", "A"), ("b", "Z"), ("c", "C")], &[link("b")]);
        let plan = plan(&old, &new);
        assert_eq!((plan.links, plan.removed), (vec![LinkStep::Add], vec![0]));
    }

    #[test]
    fn what_needs_a_restart_says_so_and_stays() {
        let old = config(MEMBERS, &[]);
        let mut new = old.clone();
        new.name = "x".into();
        new.workers.count = 2;
        new.lock_memory = true;
        new.listen = "127.0.0.1:7001".parse().expect("an address");
        new.routing.metric = Metric::Expected;
        let plan = plan(&old, &new);
        assert_eq!(plan.applied, ["routing metric is now `expected`"]);
        assert_eq!(plan.not_applied.len(), 4);
        let after = in_force(&old, new);
        assert_eq!((after.name.as_str(), after.workers.count, after.routing.metric), ("a", 1, Metric::Expected));
    }
}
