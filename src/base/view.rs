//! Views: who agreed to be together.

use super::NodeId;

/// Names a view. Views a router installs have ascending ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ViewId {
    /// Ascends.
    pub number: u64,
    /// Tells views of one number apart: of members, incarnations and attempts.
    pub digest: u64,
}

/// Who agreed to be together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// Its name.
    pub id: ViewId,
    /// Ascending.
    pub members: Vec<NodeId>,
}
