//! Answers to questions: read-only views for people and tools.

use super::Control;
use crate::base::{Instant, NodeId};
use crate::wire::admin::{NodeEntry, Response, RouteEntry};

impl Control {
    pub(super) fn whoami(&self) -> Response {
        Response::Whoami {
            name: self.config.name.clone(),
            node: self.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            io: self.io.clone(),
        }
    }

    pub(super) fn nodes(&self) -> Response {
        let mut nodes: Vec<NodeEntry> = self
            .names
            .iter()
            .map(|(&node, name)| NodeEntry {
                name: name.clone(),
                node,
                reachable: node == self.node,
                links: 0,
                this: node == self.node,
            })
            .collect();
        for view in self.routing.nodes() {
            // Both lists are by id.
            if let Ok(place) = nodes.binary_search_by_key(&view.node, |entry| entry.node) {
                nodes[place].reachable |= view.reachable;
                nodes[place].links = view.links;
            }
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Response::Nodes { nodes }
    }

    pub(super) fn links(&self, now: Instant) -> Response {
        let links = self.links.iter().map(|link| link.entry(now, self.name_of(link.peer)));
        Response::Links { links: links.collect() }
    }

    pub(super) fn routes(&self) -> Response {
        let metric = self.routing.metric();
        let routes = self.routing.routes().map(|route| {
            let path: Vec<String> = route.path.iter().map(|&node| self.name_of(node)).collect();
            RouteEntry {
                name: self.name_of(route.destination),
                node: route.destination,
                via: path.first().cloned().unwrap_or_default(),
                hops: path.len(),
                path,
                cost: metric.readable(route.cost),
            }
        });
        let mut routes: Vec<RouteEntry> = routes.collect();
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        Response::Routes { generation: self.table.generation(), routes }
    }

    /// A member's name, or its id if the configuration has no name for it.
    pub fn name_of(&self, node: NodeId) -> String {
        self.names.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }
}
