//! The router on this machine, as commands see it.

use super::failure::Failure;
use super::target::Node;
use crate::base::NodeId;
use crate::client::Overlay;
use crate::wire::admin::{Request, Response};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Where a router's control socket is if nobody says.
const DEFAULT_SOCKET: &str = "/run/sinew/control.sock";

/// A connection to the router.
pub(super) struct Router {
    /// The client library's connection.
    pub(super) overlay: Overlay,
    names: BTreeMap<NodeId, String>,
}

impl Router {
    /// Connects to the router at `socket`, else the one `SINEW_SOCKET` names, else the usual one.
    pub(super) fn connect(socket: Option<PathBuf>) -> Result<Router, Failure> {
        let from_environment = || std::env::var_os("SINEW_SOCKET").map(PathBuf::from);
        let path = socket.or_else(from_environment).unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        match Overlay::connect(&path) {
            Ok(overlay) => Ok(Router { overlay, names: BTreeMap::new() }),
            Err(error) => Err(Failure::Unreachable(unreachable(&path, &error))),
        }
    }

    /// Asks the router.
    pub(super) fn request(&self, request: &Request) -> Result<Response, Failure> {
        match self.overlay.request(request) {
            Ok(Response::Error { message }) => Err(Failure::Failed(message)),
            Ok(response) => Ok(response),
            Err(error) => Err(Failure::Unreachable(format!("the router stopped answering: {error}; see its log"))),
        }
    }

    /// The router that `node` names.
    pub(super) fn resolve(&self, node: &Node) -> Result<NodeId, Failure> {
        if let Ok(id) = node.0.parse() {
            return Ok(id);
        }
        self.overlay.resolve(&node.0).map_err(|error| {
            let names = self.member_names();
            match crate::config::closest(&node.0, names.iter().map(String::as_str)) {
                Some(near) => Failure::Failed(format!("{error}; did you mean `{near}`?")),
                None => Failure::Failed(format!("{error}; `sinew show nodes` says who is reachable")),
            }
        })
    }

    fn member_names(&self) -> Vec<String> {
        match self.overlay.request(&Request::Nodes) {
            Ok(Response::Nodes { nodes }) => nodes.into_iter().map(|node| node.name).collect(),
            _ => Vec::new(),
        }
    }

    /// What people call `node`: its name, else its id.
    pub(super) fn name(&mut self, node: NodeId) -> String {
        let overlay = &self.overlay;
        let name = self.names.entry(node);
        name.or_insert_with(|| overlay.name_of(node).unwrap_or_else(|_| node.to_string())).clone()
    }
}

fn unreachable(path: &Path, error: &io::Error) -> String {
    let next = match error.kind() {
        io::ErrorKind::NotFound => {
            "start one with `sinew run -c FILE`, or name its socket with -s PATH or SINEW_SOCKET"
        }
        io::ErrorKind::ConnectionRefused => "the router there has ended: start it again with `sinew run -c FILE`",
        io::ErrorKind::PermissionDenied => "ask as the router's user or as a member of its group",
        _ => "see the router's log",
    };
    let (path, mut said) = (path.display().to_string(), error.to_string());
    if !said.contains(&path) {
        said = format!("{path}: {said}");
    }
    format!("no router answers: {said}\n  help: {next}")
}
