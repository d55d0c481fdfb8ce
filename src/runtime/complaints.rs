//! What the log says of what the kernel refuses, datagrams to send and sockets to connect: one line for each link and
//! reason when it begins, with what to do about it, and no other until it has ceased for [`CEASED`]. Everything is counted
//! elsewhere.

use crate::base::limits::MAX_LINKS;
use crate::base::{AddressPair, Instant, LinkId};
use std::time::Duration;

/// A reason that did not happen for so long has ceased.
const CEASED: Duration = Duration::from_secs(60);

/// Reasons for which the kernel refuses to send, each with its name in counters and what to do about it; what has nothing
/// to do is normal (a path MTU is found by datagrams that are too long; a neighbour that is gone has its link's line).
/// All others are taken together.
pub(super) const REASONS: [(i32, &str, Option<&str>); 10] = [
    (libc::EAGAIN, "socket-buffer-full", Some("raise `socket_buffer` if this lasts (and net.core.wmem_max)")),
    (libc::ENOBUFS, "no-buffers", Some("the interface's queue is full: see `ip -s link`, or send less")),
    (libc::EMSGSIZE, "too-long", None),
    (libc::EPERM, "not-permitted", Some("a firewall on this machine forbids it: look at its rules for output (UDP)")),
    (libc::EACCES, "access-denied", Some("a route or a security policy forbids it: see `ip route get ADDRESS`")),
    (libc::ENETUNREACH, "network-unreachable", Some("no route leads there: see `ip route get ADDRESS`")),
    (
        libc::EHOSTUNREACH,
        "host-unreachable",
        Some("the next hop does not answer: see `ip route get ADDRESS`, `ip neigh`"),
    ),
    (libc::ENETDOWN, "network-down", Some("the interface is down: see `ip link`")),
    (libc::ECONNREFUSED, "refused", None),
    (libc::EINVAL, "invalid", Some("the address to send from is gone, or cannot reach it: see `ip address`, `listen`")),
];

/// What to do about every other reason.
const OTHERWISE: Option<&str> = Some("see `ip route get ADDRESS` and the kernel's log");

/// The place of a reason among [`REASONS`], and behind them that of all others.
pub(super) fn place(errno: i32) -> usize {
    REASONS.iter().position(|&(known, ..)| known == errno).unwrap_or(REASONS.len())
}

/// When each reason last happened on each link, and in the last place to what belongs to no link. About 10 KiB.
#[derive(Debug)]
pub(super) struct Complaints {
    last: Box<[[Option<Instant>; REASONS.len() + 1]]>,
}

impl Complaints {
    /// Nothing happened yet.
    pub(super) fn new() -> Complaints {
        Complaints { last: vec![[None; REASONS.len() + 1]; MAX_LINKS + 1].into_boxed_slice() }
    }

    /// What to do about it, if it is to be said: it begins.
    pub(super) fn begins(&mut self, now: Instant, link: Option<LinkId>, errno: i32) -> Option<&'static str> {
        let place = place(errno);
        let row = link.map_or(MAX_LINKS, |link| link.index().min(MAX_LINKS));
        let before = self.last[row][place].replace(now);
        let begins = before.is_none_or(|before| now.since(before) >= CEASED);
        REASONS.get(place).map_or(OTHERWISE, |&(_, _, help)| help).filter(|_| begins)
    }

    /// Nothing is wrong with the link; whether something was.
    pub(super) fn mended(&mut self, link: LinkId) -> bool {
        let wrong = self.last.get(link.index()).is_some_and(|row| row.iter().any(Option::is_some));
        self.forget(link);
        wrong
    }

    /// The kernel refused to send a datagram to `to`.
    pub(super) fn take(&mut self, now: Instant, link: Option<LinkId>, to: AddressPair, errno: i32) {
        let Some(help) = self.begins(now, link, errno) else { return };
        let error = std::io::Error::from_raw_os_error(errno);
        match link {
            Some(link) => tracing::warn!(%link, %to, %error, help, "the kernel refuses to send to a neighbour"),
            None => tracing::warn!(%to, %error, help, "the kernel refuses to send an answer"),
        }
    }

    /// The link is gone: another may take its place.
    pub(super) fn forget(&mut self, link: LinkId) {
        if let Some(row) = self.last.get_mut(link.index()) {
            *row = [None; REASONS.len() + 1];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_when_it_begins_and_again_once_it_had_ceased() {
        let mut complaints = Complaints::new();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let (one, two) = (Some(LinkId(1)), Some(LinkId(2)));
        let firewall = complaints.begins(at(0), one, libc::EPERM);
        assert!(firewall.is_some_and(|help| help.contains("firewall")), "{firewall:?}");
        for second in 1..200 {
            assert_eq!(complaints.begins(at(second), one, libc::EPERM), None, "it goes on");
        }
        assert!(complaints.begins(at(199), two, libc::EPERM).is_some(), "another link");
        assert!(complaints.begins(at(199), None, libc::EPERM).is_some(), "no link");
        assert!(complaints.begins(at(199), one, libc::ENETDOWN).is_some(), "another reason");
        assert_eq!(complaints.begins(at(258), one, libc::EPERM), None, "a second too early");
        assert!(complaints.begins(at(318), one, libc::EPERM).is_some(), "it had ceased for a minute");
        assert!(complaints.begins(at(318), one, libc::EIO).is_some());
        assert_eq!(complaints.begins(at(319), one, libc::EBADF), None, "others are one");
    }

    #[test]
    fn what_is_normal_is_not_said_and_a_link_that_is_gone_is_forgotten() {
        let mut complaints = Complaints::new();
        for errno in [libc::EMSGSIZE, libc::ECONNREFUSED] {
            assert_eq!(complaints.begins(Instant::ZERO, Some(LinkId(1)), errno), None);
        }
        assert!(complaints.begins(Instant::ZERO, Some(LinkId(1)), libc::EPERM).is_some());
        complaints.forget(LinkId(1));
        assert!(complaints.begins(Instant::ZERO, Some(LinkId(1)), libc::EPERM).is_some());
    }
}
