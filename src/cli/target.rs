//! How routers and sessions are named on the command line.

use crate::base::Port;
use std::str::FromStr;

/// A router: its name or its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node(pub(super) String);

/// A session: `ROUTER:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// The router.
    pub(super) node: Node,
    /// The port.
    pub(super) port: Port,
}

/// A router, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MaybeSession {
    /// The router.
    pub(super) node: Node,
    /// The port, if one is given.
    pub(super) port: Option<Port>,
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Node, String> {
        if text.contains(':') {
            return Err("a router has no port here: give its name or its id".to_owned());
        }
        if text.is_empty() {
            return Err("give a router's name or id; `sinew show nodes` lists them".to_owned());
        }
        Ok(Node(text.to_owned()))
    }
}

impl FromStr for MaybeSession {
    type Err = String;

    fn from_str(text: &str) -> Result<MaybeSession, String> {
        let Some((node, port)) = text.rsplit_once(':') else {
            return Ok(MaybeSession { node: text.parse()?, port: None });
        };
        let number = port.parse().ok().filter(|&port: &Port| port > 0);
        let port = number.ok_or_else(|| format!("`{port}` is not a port: a number from 1 to 65535 is expected"))?;
        Ok(MaybeSession { node: node.parse()?, port: Some(port) })
    }
}

impl FromStr for Session {
    type Err = String;

    fn from_str(text: &str) -> Result<Session, String> {
        let MaybeSession { node, port } = text.parse()?;
        let port = port.ok_or_else(|| format!("give the port too, as in `{text}:7000`"))?;
        Ok(Session { node, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_and_ports_are_told_apart() {
        assert_eq!("b".parse(), Ok(Node("b".to_owned())));
        assert_eq!("b:7".parse(), Ok(Session { node: Node("b".to_owned()), port: 7 }));
        assert_eq!("b".parse(), Ok(MaybeSession { node: Node("b".to_owned()), port: None }));
        for wrong in ["b", "b:", "b:0", "b:70000", ":7", "b:7:7"] {
            assert!(wrong.parse::<Session>().is_err(), "{wrong}");
        }
        assert!("b:7".parse::<Node>().is_err());
    }
}
