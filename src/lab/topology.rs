//! What to build: routers, the links between them with their conditions, and the flows to measure.

use super::conditions::Conditions;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// Routers a lab may have: more than a machine that runs it could drive.
pub const MAX_ROUTERS: usize = 64;

/// A network to build.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Names of the routers.
    pub routers: Vec<String>,
    /// The links between them.
    pub links: Vec<LinkSpec>,
    /// What to run as a router: called as `PROGRAM run -c FILE`.
    pub program: PathBuf,
    /// Everything random follows from it: identities, losses, jitter.
    pub seed: u64,
    /// System calls of the routers' workers: `auto`, `uring` or `mmsg`.
    pub io: String,
    /// Workers of the routers, in their order; those that are not named have one. More than one need namespaces, since a
    /// relay stands for one port.
    pub workers: Vec<usize>,
    /// The routing metric; `None` leaves it to the router's default.
    pub metric: Option<String>,
    /// Lines added to every router's configuration, before its members.
    pub extra: String,
    /// TCP congestion controls that links tell apart; others cannot be used.
    pub tcp: Vec<String>,
}

/// A link to build.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSpec {
    /// The routers at its ends.
    pub between: (String, String),
    /// From the first to the second.
    pub forward: Conditions,
    /// From the second to the first.
    pub back: Conditions,
    /// Lines added to both ends' `[[link]]`.
    pub extra: String,
}

impl LinkSpec {
    /// A link with the same conditions each way.
    pub fn new(a: &str, b: &str, conditions: Conditions) -> LinkSpec {
        LinkSpec { between: (a.into(), b.into()), forward: conditions, back: conditions, extra: String::new() }
    }
}

impl Topology {
    /// These routers and links, run by this very program.
    pub fn new(routers: &[&str], links: Vec<LinkSpec>) -> Topology {
        Topology {
            routers: routers.iter().map(|&name| name.to_owned()).collect(),
            links,
            program: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
            seed: 1,
            io: "auto".into(),
            workers: Vec::new(),
            metric: None,
            extra: String::new(),
            tcp: super::world::tcp_algorithms(),
        }
    }

    /// A chain a–b–c–… of this many links, all alike.
    pub fn chain(hops: usize, conditions: Conditions) -> Topology {
        let names: Vec<String> = (0..=hops).map(chain_name).collect();
        let links = names.windows(2).map(|pair| LinkSpec::new(&pair[0], &pair[1], conditions)).collect();
        Topology::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), links)
    }

    /// A ring of this many routers, all links alike.
    pub fn ring(routers: usize, conditions: Conditions) -> Topology {
        let mut topology = Topology::chain(routers - 1, conditions);
        topology.links.push(LinkSpec::new(&chain_name(routers - 1), &chain_name(0), conditions));
        topology
    }

    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MAX_ROUTERS).contains(&self.routers.len()) {
            return Err(format!("{} routers: 1 to {MAX_ROUTERS} can be built", self.routers.len()));
        }
        for (place, name) in self.routers.iter().enumerate() {
            let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || name.len() > 32 || !name.chars().all(fine) {
                return Err(format!("router `{name}`: a name of 1 to 32 letters, digits, `-` or `_` is expected"));
            }
            if self.routers[..place].contains(name) {
                return Err(format!("router `{name}` is named twice"));
            }
        }
        for link in &self.links {
            let (a, b) = &link.between;
            for end in [a, b] {
                if !self.routers.contains(end) {
                    return Err(format!("the link between `{a}` and `{b}`: there is no router `{end}`"));
                }
            }
            if a == b {
                return Err(format!("router `{a}` has a link to itself"));
            }
            let in_link = |error| format!("the link between `{a}` and `{b}`: {error}");
            link.forward.check().map_err(in_link)?;
            link.back.check().map_err(in_link)?;
        }
        Ok(())
    }

    /// The place of a router.
    pub(crate) fn place(&self, name: &str) -> Option<usize> {
        self.routers.iter().position(|router| router == name)
    }

    /// Fewest-links routes from one router: for each destination, the link and the neighbour that lead there.
    pub(crate) fn next_hops(&self, from: usize) -> Vec<Option<(usize, usize)>> {
        let mut next = vec![None; self.routers.len()];
        let mut queue = std::collections::VecDeque::from([from]);
        let mut seen = vec![false; self.routers.len()];
        seen[from] = true;
        while let Some(here) = queue.pop_front() {
            for (link, there) in self.links_of(here) {
                if !seen[there] {
                    seen[there] = true;
                    next[there] = if here == from { Some((link, there)) } else { next[here] };
                    queue.push_back(there);
                }
            }
        }
        next
    }

    /// The links of a router and where they lead.
    pub(crate) fn links_of(&self, router: usize) -> Vec<(usize, usize)> {
        let mut links = Vec::new();
        for (place, link) in self.links.iter().enumerate() {
            let ends = (self.place(&link.between.0), self.place(&link.between.1));
            if let (Some(a), Some(b)) = ends {
                if a == router {
                    links.push((place, b));
                } else if b == router {
                    links.push((place, a));
                }
            }
        }
        links
    }
}

/// The name of the n-th router of a chain: a to z, then a1, b1, ...
fn chain_name(place: usize) -> String {
    let letter = char::from(b'a' + (place % 26) as u8);
    if place < 26 { letter.to_string() } else { format!("{letter}{}", place / 26) }
}

/// A topology file, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopologyFile {
    /// Names of the routers.
    pub nodes: Vec<String>,
    /// The links.
    #[serde(default, rename = "link")]
    pub links: Vec<LinkEntry>,
    /// What to measure.
    #[serde(default, rename = "flow")]
    pub flows: Vec<FlowEntry>,
    /// Seed; the option `--seed` has the last word.
    pub seed: Option<u64>,
}

/// A link, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkEntry {
    /// Its two ends.
    pub between: (String, String),
    /// From the first to the second; also back, unless that is given.
    #[serde(default)]
    pub conditions: Conditions,
    /// From the second to the first.
    pub back: Option<Conditions>,
}

/// A flow, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowEntry {
    /// The sender's router.
    pub from: String,
    /// The receiver's router.
    pub to: String,
    /// Rate of the messages' own bytes, kbit/s.
    #[serde(default = "default_rate")]
    pub rate_kbps: u64,
    /// Length of a message, bytes.
    #[serde(default = "default_size")]
    pub message_bytes: usize,
}

const fn default_rate() -> u64 {
    500
}

const fn default_size() -> usize {
    1000
}

/// What a topology file looks like, for who has none.
const EXAMPLE: &str = "\
  help: a topology file is TOML, such as
    nodes = [\"a\", \"b\"]
    [[link]]
    between = [\"a\", \"b\"]
    conditions = { delay_ms = 10, rate_kbps = 10000, loss_percent = 1 }
    [[flow]]
    from = \"a\"
    to = \"b\"
    rate_kbps = 500";

/// Reads the topology file at `path`; the error says what to do about it.
pub fn load(path: &Path) -> io::Result<(Topology, Vec<FlowEntry>)> {
    let wrong = |error: String| {
        let text = format!("the topology {}: {}\n{EXAMPLE}", path.display(), error.trim_end());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot read it: {error}")))?;
    read(&text).map_err(wrong)
}

/// Reads a topology file: a network and the flows to measure in it.
pub fn read(text: &str) -> Result<(Topology, Vec<FlowEntry>), String> {
    let file: TopologyFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let link = |entry: &LinkEntry| LinkSpec {
        between: entry.between.clone(),
        forward: entry.conditions,
        back: entry.back.unwrap_or(entry.conditions),
        extra: String::new(),
    };
    let names: Vec<&str> = file.nodes.iter().map(String::as_str).collect();
    let mut topology = Topology::new(&names, file.links.iter().map(link).collect());
    topology.seed = file.seed.unwrap_or(topology.seed);
    topology.check()?;
    for flow in &file.flows {
        for end in [&flow.from, &flow.to] {
            if topology.place(end).is_none() {
                return Err(format!("the flow from `{}` to `{}`: there is no router `{end}`", flow.from, flow.to));
            }
        }
        if !(32..=60_000).contains(&flow.message_bytes) || flow.rate_kbps == 0 {
            return Err(format!(
                "the flow from `{}` to `{}`: messages of 32 to 60000 bytes at a rate above 0 are \
                                expected",
                flow.from, flow.to
            ));
        }
    }
    Ok((topology, file.flows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_routes_along_itself() {
        let chain = Topology::chain(5, Conditions::default());
        assert_eq!(chain.routers, ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(chain.check(), Ok(()));
        assert_eq!(chain.next_hops(0)[5], Some((0, 1)));
        assert_eq!(chain.next_hops(3)[0], Some((2, 2)));
        assert_eq!(chain.next_hops(3)[3], None);
    }

    #[test]
    fn a_ring_routes_the_short_way() {
        let ring = Topology::ring(6, Conditions::default());
        assert_eq!(ring.next_hops(0)[5], Some((5, 5)));
        assert_eq!(ring.next_hops(0)[2], Some((0, 1)));
    }

    #[test]
    fn a_file_is_read_and_its_mistakes_are_named() {
        let text = r#"
            nodes = ["left", "right"]
            [[link]]
            between = ["left", "right"]
            conditions = { delay_ms = 10, loss_percent = 1 }
            back = { delay_ms = 30 }
            [[flow]]
            from = "left"
            to = "right"
        "#;
        let (topology, flows) = read(text).expect("a good file");
        assert_eq!((topology.links[0].forward.loss_percent, topology.links[0].back.delay_ms), (1.0, 30.0));
        assert_eq!((flows[0].rate_kbps, flows[0].message_bytes), (500, 1000));
        let unknown = read(&text.replace("delay_ms = 30", "dely_ms = 30")).expect_err("an unknown key");
        assert!(unknown.contains("dely_ms") && unknown.contains("delay_ms"), "{unknown}");
        assert!(read(&text.replace("from = \"left\"", "from = \"x\"")).expect_err("no such router").contains("`x`"));
        assert!(read(&text.replace("loss_percent = 1", "loss_percent = 101")).expect_err("too much").contains("101"));
    }
}
