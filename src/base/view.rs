//! Views: who agreed to be together, and what the groups that agree are called.

use super::NodeId;
use super::hash::hash64;
use super::limits::MAX_MEMBERS;
use std::fmt;
use std::str::FromStr;

/// Names a view. Views that a router installs in one life have ascending ids, and two views with one id are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ViewId {
    /// Greater than that of every view its members come from. Zero names no view.
    pub number: u64,
    /// A hash of its members, of their incarnations, and of the attempts in which they agreed.
    pub digest: u64,
}

impl ViewId {
    /// No view: that of a router that has installed none.
    pub const NONE: ViewId = ViewId { number: 0, digest: 0 };
}

impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.number, self.digest >> 32)
    }
}

/// Who agreed to be together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// Its name.
    pub id: ViewId,
    /// Ascending, at least one and at most [`MAX_MEMBERS`].
    pub members: Vec<NodeId>,
}

impl View {
    /// A view of these members, which ascend.
    pub fn new(id: ViewId, members: Vec<NodeId>) -> View {
        assert!((1..=MAX_MEMBERS).contains(&members.len()), "a view has members, and a bound");
        assert!(members.is_sorted_by(|a, b| a < b), "members ascend");
        View { id, members }
    }

    /// The place of `node` among the members.
    pub fn rank(&self, node: NodeId) -> Option<usize> {
        self.members.binary_search(&node).ok()
    }

    /// Whether `node` is a member.
    pub fn contains(&self, node: NodeId) -> bool {
        self.rank(node).is_some()
    }
}

/// What a group of routers is called: 1 to 32 lower-case letters, digits, hyphens, dots and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupName(String);

impl GroupName {
    /// Longest name, bytes.
    pub const MAX_LEN: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands for it on the wire.
    pub const fn wire_id(&self) -> u64 {
        hash64(self.0.as_bytes())
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GroupName {
    type Err = String;

    fn from_str(text: &str) -> Result<GroupName, String> {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
        if !(1..=GroupName::MAX_LEN).contains(&text.len()) || !text.bytes().all(good) {
            let most = GroupName::MAX_LEN;
            return Err(format!("`{text}` is no group name: 1 to {most} of `a-z`, `0-9`, `-`, `.` and `_`"));
        }
        Ok(GroupName(text.to_owned()))
    }
}

impl TryFrom<String> for GroupName {
    type Error = String;

    fn try_from(text: String) -> Result<GroupName, String> {
        text.parse()
    }
}

impl From<GroupName> for String {
    fn from(name: GroupName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_rank() {
        let view = View::new(ViewId { number: 3, digest: 0xabcd_0123_0000_0000 }, vec![NodeId(2), NodeId(5)]);
        assert_eq!((view.rank(NodeId(5)), view.contains(NodeId(3))), (Some(1), false));
        assert_eq!(view.id.to_string(), "3.abcd0123");
        assert!(view.id > ViewId { number: 2, digest: u64::MAX }, "the number comes first");
    }

    #[test]
    fn group_names_print_as_they_parse() {
        let name: GroupName = "edge-1.vips".parse().expect("a good name");
        assert_eq!(name.to_string().parse(), Ok(name));
        for bad in ["", "Edge", "a b", &"a".repeat(33)] {
            assert!(bad.parse::<GroupName>().is_err(), "{bad}");
        }
    }
}
