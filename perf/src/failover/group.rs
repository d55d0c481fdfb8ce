//! Three hosts that share an address.

use super::case::Case;
use super::lan::Lan;
use super::members::{self, Members, name};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Hosts of a group.
pub(super) const HOSTS: usize = 3;
/// The address.
pub(super) const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 66, 0, 100));
/// A group that has no single owner by then will have none.
const PATIENCE: Duration = Duration::from_secs(40);

/// A group.
pub(super) trait Group {
    /// What it is called in the report.
    fn name(&self) -> &str;
    /// Its network.
    fn lan(&self) -> &Lan;
    /// Whether it can be tried.
    fn plays(&self, case: Case) -> bool;
    /// Longer than it takes to begin to take over, if it does.
    fn patience(&self) -> Duration;
    /// Lets it happen to the owner.
    fn strike(&mut self, case: Case, owner: usize) -> io::Result<()>;
    /// Undoes it.
    fn mend(&mut self, case: Case, owner: usize) -> io::Result<()>;

    /// The address that it shares.
    fn address(&self) -> IpAddr {
        ADDRESS
    }

    /// Waits until one host, and always the same, answers; which. The client knows then where it is.
    fn steady(&mut self) -> io::Result<usize> {
        let begin = Instant::now();
        let mut before = None;
        while begin.elapsed() < PATIENCE {
            match self.lan().answerers(ADDRESS)[..] {
                [one] if before == Some(one) => {
                    let told = self.lan().probe(ADDRESS, Duration::from_secs(1));
                    if told == Some(one as u8) {
                        return Ok(one);
                    }
                }
                [one] => before = Some(one),
                _ => before = None,
            }
            std::thread::sleep(self.patience() / 2);
        }
        Err(io::Error::other(format!("{}: no single host answers for long", self.name())))
    }
}

/// What ours is called.
pub(super) fn name_of(profile: &str, second: bool) -> String {
    format!("sinew {profile}{}", if second { ", 2 nets" } else { "" })
}

/// Ours.
pub(super) struct Sinew {
    name: String,
    members: Members,
}

impl Sinew {
    /// A group with this profile and all that follows from it. `second`: links have a path over another network as well.
    pub(super) fn new(profile: &'static str, second: bool) -> Sinew {
        let sets = vec![vec![ADDRESS]];
        let group = members::Group { members: HOSTS, sets, times: None, profile, witnessed: true, second };
        Sinew { name: name_of(profile, second), members: Members::started(group) }
    }

    /// Gives an order, and waits until it is carried out.
    fn order(&self, member: usize, line: &str) -> io::Result<()> {
        let done = self.members.command(member, line).output()?;
        if done.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("{line}: {}", String::from_utf8_lossy(&done.stderr))))
    }
}

impl Group for Sinew {
    fn name(&self) -> &str {
        &self.name
    }

    fn lan(&self) -> &Lan {
        &self.members.lan
    }

    fn plays(&self, case: Case) -> bool {
        // In a cut that nobody is told of, members that hear each other over the second network would see nothing amiss:
        // such a group needs a check that asks over the first one.
        !self.members.group.second || case == Case::Carrier
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn strike(&mut self, case: Case, owner: usize) -> io::Result<()> {
        let members = &self.members;
        match case {
            Case::Kill => members.signal(owner, libc::SIGKILL),
            Case::Freeze => members.signal(owner, libc::SIGSTOP),
            Case::Term => members.signal(owner, libc::SIGTERM),
            // On a machine that has stopped for a moment somebody may be away without a reason.
            Case::Move => {
                members.settled();
                self.order(owner, &format!("vip move s0 {}", name((owner + 1) % HOSTS)))?;
            }
            Case::Drain => {
                members.settled();
                self.order(owner, &format!("vip drain {}", name(owner)))?;
            }
            Case::Cut | Case::Carrier | Case::Merge => {}
        }
        Ok(())
    }

    fn mend(&mut self, case: Case, owner: usize) -> io::Result<()> {
        match case {
            Case::Freeze => self.members.signal(owner, libc::SIGCONT),
            Case::Drain => self.order(owner, &format!("vip undrain {}", name(owner)))?,
            _ => {
                self.members.ended(owner);
                self.members.start(owner);
            }
        }
        self.members.settled();
        Ok(())
    }
}
