//! (room)
/// Settings of a link.
#[derive(Clone, Debug)]
pub struct Settings;
/// Counters.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct LinkStats;
