//! What keeps a link from coming up.

/// What keeps the two ends of a link from agreeing on keys, as far as one of them can tell. Of two, the later one says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// Handshakes are sent, and nothing comes back.
    NoAnswer,
    /// This machine's kernel does not send them.
    NotSent,
    /// A machine on the way says by ICMP that the other end cannot be reached.
    Unreachable,
    /// The other end's machine says by ICMP that nothing listens there.
    Refused,
    /// The other end asks for keys again and again, though it is answered.
    OneWay,
    /// The other end asks somebody with another public key than this router's.
    WantsOtherKey,
    /// Whoever asks from the other end's address has a public key that is not the other end's.
    HasOtherKey,
    /// The other end's answer cannot be opened, as with another preshared key.
    PresharedKey,
}

impl Obstacle {
    /// What is wrong, for people; it follows the neighbour's name.
    pub const fn what(self) -> &'static str {
        match self {
            Obstacle::NoAnswer => "handshakes are sent, and nothing comes back",
            Obstacle::NotSent => "this machine's kernel refuses to send to it",
            Obstacle::Unreachable => "a machine on the way says that it cannot be reached (ICMP)",
            Obstacle::Refused => "nothing listens at its address (ICMP port unreachable)",
            Obstacle::OneWay => "it asks again and again though it is answered",
            Obstacle::WantsOtherKey => "its configuration has another public key for this router",
            Obstacle::HasOtherKey => "whoever is at its address has another key than its [[member]] here",
            Obstacle::PresharedKey => "its answers cannot be opened: `preshared_key` differs",
        }
    }

    /// What to do about it.
    pub const fn help(self) -> &'static str {
        match self {
            Obstacle::NoAnswer => {
                "does its router run, is `remote` its address and port, does UDP pass the firewalls, and has it a [[link]] to \
                 this router and this router's `public`? Its log names whom it turns away"
            }
            Obstacle::NotSent => {
                "this router's log has the kernel's reason; see `ip route get ADDRESS`, firewall rules"
            }
            Obstacle::Unreachable => "is `remote` right, and is that machine up?",
            Obstacle::Refused => "start its router, or mend `remote` here or `listen` there",
            Obstacle::OneWay => {
                "does UDP pass the firewalls towards it, and do both ends have the same `preshared_key`?"
            }
            Obstacle::WantsOtherKey => "list there as this router's `public` what `sinew key show` prints here",
            Obstacle::HasOtherKey => {
                "list here as its `public` what `sinew key show` prints there; or is `remote` another router's?"
            }
            Obstacle::PresharedKey => "give both ends of the link the same `preshared_key`, or none",
        }
    }
}
