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
/// Between our hellos, until a link is dead, and of a lease, in milliseconds: as the help says.
const TIMES: [u64; 3] = [10, 60, 50];
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

/// Ours.
pub(super) struct Sinew(Members);

impl Sinew {
    pub(super) fn new() -> Sinew {
        Sinew(Members::started(members::Group::new(HOSTS, vec![vec![ADDRESS]], TIMES)))
    }
}

impl Group for Sinew {
    fn name(&self) -> &str {
        "sinew"
    }

    fn lan(&self) -> &Lan {
        &self.0.lan
    }

    fn plays(&self, _case: Case) -> bool {
        true
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn strike(&mut self, case: Case, owner: usize) -> io::Result<()> {
        match case {
            Case::Kill => self.0.signal(owner, libc::SIGKILL),
            Case::Freeze => self.0.signal(owner, libc::SIGSTOP),
            Case::Term => self.0.signal(owner, libc::SIGTERM),
            Case::Move => {
                // On a machine that has stopped for a moment somebody may be away without a reason.
                self.0.settled();
                let order = format!("vip move s0 {}", name((owner + 1) % HOSTS));
                let done = self.0.command(owner, &order).output()?;
                if !done.status.success() {
                    let why = String::from_utf8_lossy(&done.stderr).into_owned();
                    return Err(io::Error::other(format!("{order}: {why}")));
                }
            }
            Case::Cut | Case::Carrier | Case::Merge => {}
        }
        Ok(())
    }

    fn mend(&mut self, case: Case, owner: usize) -> io::Result<()> {
        if case == Case::Freeze {
            self.0.signal(owner, libc::SIGCONT);
        } else {
            self.0.ended(owner);
            self.0.start(owner);
        }
        self.0.settled();
        Ok(())
    }
}
