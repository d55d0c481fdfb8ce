//! The router on this machine, as commands see it.

use super::failure::Failure;
use super::show;
use super::target::Node;
use crate::base::NodeId;
use crate::client::Overlay;
use crate::wire::admin::{Request, Response};
use crate::wire::client::Endpoint;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where a router's control socket is if nobody says.
const DEFAULT_SOCKET: &str = "/run/sinew/control.sock";

/// A connection to the router.
pub(super) struct Router {
    /// The client library's connection.
    pub(super) overlay: Overlay,
    names: Mutex<BTreeMap<NodeId, String>>,
}

impl Router {
    /// Connects to the router at `socket`, else the one `SINEW_SOCKET` names, else the usual one.
    pub(super) fn connect(socket: Option<PathBuf>) -> Result<Router, Failure> {
        let path = Router::socket_path(socket);
        match Overlay::connect(&path) {
            Ok(overlay) => Ok(Router { overlay, names: Mutex::default() }),
            Err(error) => Err(Failure::Unreachable(unreachable(&path, &error))),
        }
    }

    /// The socket of the router that is meant.
    pub(super) fn socket_path(socket: Option<PathBuf>) -> PathBuf {
        let from_environment = || std::env::var_os("SINEW_SOCKET").map(PathBuf::from);
        socket.or_else(from_environment).unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
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

    /// Refuses what cannot arrive: no route leads to `node` at this moment.
    pub(super) fn check_route(&self, node: NodeId) -> Result<(), Failure> {
        self.obstacle(node)?.map_or(Ok(()), |why| Err(Failure::Failed(why)))
    }

    /// That no route leads to `node` at this moment, and why; none if one does.
    pub(super) fn obstacle(&self, node: NodeId) -> Result<Option<String>, Failure> {
        let Response::Nodes { nodes } = self.request(&Request::Nodes)? else { return Ok(None) };
        if nodes.iter().any(|entry| entry.node == node && (entry.reachable || entry.this)) {
            return Ok(None);
        }
        let name = self.name(node);
        Ok(Some(format!("no route to {name}: {}", self.why_unreachable(node))))
    }

    /// Why no route leads to `node`, as far as this router knows.
    fn why_unreachable(&self, node: NodeId) -> String {
        let links = match self.request(&Request::Links) {
            Ok(Response::Links { links }) => links,
            _ => Vec::new(),
        };
        if let Some(why) = links.iter().filter(|link| link.node == node).find_map(show::why_down) {
            return format!("the link is down\n  {why}");
        }
        let down: Vec<&str> = links.iter().filter(|link| !link.up).map(|link| link.peer.as_str()).collect();
        match down.as_slice() {
            [] => "this router's links are all up, so look from others (`sinew show links`, `show nodes`)".to_owned(),
            down => format!("links to {} are down: `sinew show links` says why", down.join(", ")),
        }
    }

    fn member_names(&self) -> Vec<String> {
        match self.overlay.request(&Request::Nodes) {
            Ok(Response::Nodes { nodes }) => nodes.into_iter().map(|node| node.name).collect(),
            _ => Vec::new(),
        }
    }

    /// What people call `node`: its name, else its id.
    pub(super) fn name(&self, node: NodeId) -> String {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.entry(node);
        name.or_insert_with(|| self.overlay.name_of(node).unwrap_or_else(|_| node.to_string())).clone()
    }

    /// What people call the session at `end`: `ROUTER:PORT`.
    pub(super) fn session(&self, end: Endpoint) -> String {
        format!("{}:{}", self.name(end.node), end.port)
    }
}

const OTHER_SOCKET: &str = "name the socket that the router's configuration has as `control_socket`, with -s PATH or \
                            SINEW_SOCKET; `ss -xlp | grep sinew` lists those of running routers";

fn unreachable(path: &Path, error: &io::Error) -> String {
    let next = match error.kind() {
        io::ErrorKind::NotFound => {
            "start one with `sinew run -c FILE`, or name its socket with -s PATH or SINEW_SOCKET"
        }
        // Not a socket, a socket of another kind, or one whose owner answers in another language.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => OTHER_SOCKET,
        io::ErrorKind::ConnectionRefused => "the router there has ended: start it again with `sinew run -c FILE`",
        io::ErrorKind::TimedOut => {
            "let that process go on (`kill -CONT PID`) or start the router again; or -s PATH names another"
        }
        io::ErrorKind::PermissionDenied => "ask as the router's user or as a member of its group",
        _ => "see the router's log",
    };
    let (path, mut said) = (path.display().to_string(), error.to_string());
    if !said.contains(&path) {
        said = format!("{path}: {said}");
    }
    format!("no router answers: {said}\n  help: {next}")
}
