//! Members of a group on a small network: the real binary on every host of a [`Lan`], each linked to each, and a service
//! on every host that answers at the group's addresses.
//!
//! ```text
//!   [sinew run: a] [b] [c] …   eth0, linked to each other over the bridge, which the addresses are on too
//!   [server]                   if there is a second network: eth1, which links have a path over too
//!   [client]                   asks for them, and is told by the answer which host it came from
//! ```

use super::lan::{Echo, Lan};
use sinew::base::Identity;
use sinew::client::Overlay;
use sinew::client::admin::{Request, Response, VipEntry, VipMemberEntry};
use sinew::lab::netns::{Netns, enter};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long members may take to agree on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A group to be.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) members: usize,
    /// Each set's addresses, all on `eth0`. Sets are called `s0`, `s1` and so on.
    pub(crate) sets: Vec<Vec<IpAddr>>,
    /// Between hellos, until a link is dead, and of a lease; none: as the profile has them.
    pub(crate) times: Option<[Duration; 3]>,
    pub(crate) profile: &'static str,
    /// Hosts have witnesses.
    pub(crate) witnessed: bool,
    /// Members are linked over a second network as well, where the addresses are not.
    pub(crate) second: bool,
}

impl Group {
    /// With these times between hellos, until a link is dead, and of a lease, in milliseconds.
    pub(crate) fn new(members: usize, sets: Vec<Vec<IpAddr>>, times: [u64; 3]) -> Group {
        let times = Some(times.map(Duration::from_millis));
        Group { members, sets, times, profile: "safe", witnessed: false, second: false }
    }
}

/// What a member says of the group.
pub(crate) struct Status {
    /// Those in its view.
    pub(crate) view: Vec<String>,
    pub(crate) gathering: bool,
    pub(crate) members: Vec<VipMemberEntry>,
    pub(crate) sets: Vec<VipEntry>,
}

impl Status {
    /// The number of a set's owner, if that answers for it and nobody hands it over any more.
    pub(crate) fn owner(&self, set: usize) -> Option<usize> {
        let set = &self.sets[set];
        let owner = set.owner.as_ref().filter(|_| set.acquired && set.from.is_none())?;
        Some(number(owner))
    }
}

/// The members, on their network.
pub(crate) struct Members {
    pub(crate) lan: Lan,
    pub(crate) group: Group,
    files: TempDir,
    children: Vec<Option<Child>>,
    _second: Option<Netns>,
    _echoes: Vec<Echo>,
}

impl Members {
    /// Makes the network, the services and the members' files; nobody runs.
    pub(crate) fn new(group: Group) -> Members {
        let lan = if group.witnessed { Lan::with_witnesses(group.members) } else { Lan::new(group.members) };
        let files = tempfile::tempdir().expect("a directory");
        // Where there are many addresses, a service on each would be more threads than the machine can run.
        let served: Vec<IpAddr> = match group.sets.concat() {
            few if few.len() <= 4 => few,
            _ => vec!["0.0.0.0".parse().expect("an address")],
        };
        let everywhere = (0..group.members).flat_map(|host| served.iter().map(move |&address| (host, address)));
        let echoes = everywhere.map(|(host, address)| lan.echo(host, address)).collect();
        let children = (0..group.members).map(|_| None).collect();
        let second = group.second.then(|| lan.behind());
        let members = Members { lan, group, files, children, _second: second, _echoes: echoes };
        (0..members.group.members).for_each(|member| members.write_files(member));
        members
    }

    /// The same, all running, agreed, every set covered.
    pub(crate) fn started(group: Group) -> Members {
        let mut members = Members::new(group);
        (0..members.group.members).for_each(|member| members.start(member));
        members.settled();
        members
    }

    fn write_files(&self, member: usize) {
        let secret = identity(member).to_secret_text();
        let key = self.file(member, "key");
        std::fs::write(&key, format!("{}\n", secret.as_str())).expect("is written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key, private).expect("is ours");
        std::fs::write(self.config(member), self.configuration(member)).expect("is written");
    }

    fn configuration(&self, member: usize) -> String {
        let Group { members, ref sets, times, profile, second, .. } = self.group;
        let name = name(member);
        let lease = times.map_or_else(String::new, |[.., lease]| format!("lease = \"{}ms\"\n", lease.as_millis()));
        let hellos = times.map_or_else(String::new, |[hello, dead, _]| {
            format!("hello = \"{}ms\"\ndead = \"{}ms\"\n", hello.as_millis(), dead.as_millis())
        });
        let listen = if second { Ipv4Addr::UNSPECIFIED.into() } else { host(member) };
        let mut text = format!(
            "name = \"{name}\"\nkey = \"{name}.key\"\nlisten = \"{listen}:5300\"\ncontrol_socket = \"{name}.sock\"\n\
             [vip]\nprofile = \"{profile}\"\nmaturity = \"1s\"\n{lease}balance = \"off\"\n"
        );
        // Writing to a String cannot fail.
        for (set, addresses) in sets.iter().enumerate() {
            let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
            let addresses = addresses.join(", ");
            let _ = write!(text, "[[vip.set]]\nname = \"s{set}\"\ninterface = \"eth0\"\naddresses = [{addresses}]\n");
        }
        for other in 0..members {
            let public = identity(other).public();
            let _ = write!(text, "[[member]]\nname = \"{}\"\npublic = \"{public}\"\n", self::name(other));
        }
        for other in (0..members).filter(|&other| other != member) {
            let (peer, at) = (self::name(other), host(other));
            let _ = match second {
                false => write!(text, "[[link]]\npeer = \"{peer}\"\nremote = \"{at}:5300\"\n{hellos}"),
                true => write!(text, "[[link]]\npeer = \"{peer}\"\n{hellos}"),
            };
            let networks = [host(member), host_behind(member)].into_iter().zip([at, host_behind(other)]);
            for (local, remote) in networks.filter(|_| second) {
                let _ = write!(text, "[[link.path]]\nlocal = \"{local}\"\nremote = \"{remote}:5300\"\n");
            }
        }
        text
    }

    /// A member's configuration. May be rewritten before it starts.
    pub(crate) fn config(&self, member: usize) -> PathBuf {
        self.file(member, "toml")
    }

    /// What a member wrote so far.
    pub(crate) fn log(&self, member: usize) -> String {
        std::fs::read_to_string(self.file(member, "log")).unwrap_or_default()
    }

    fn file(&self, member: usize, extension: &str) -> PathBuf {
        self.files.path().join(format!("{}.{extension}", name(member)))
    }

    /// Starts a member that does not run.
    pub(crate) fn start(&mut self, member: usize) {
        let namespace = self.lan.places[member].namespace.as_fd().try_clone_to_owned().expect("a descriptor");
        let log = File::options().create(true).append(true).open(self.file(member, "log")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
        command.arg("run").arg("-c").arg(self.config(member)).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        // SAFETY: between fork and exec only system calls; nothing allocates or locks.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // As a service manager starts it.
                libc::setsid();
                enter(namespace.as_fd())
            });
        }
        let before = self.children[member].replace(command.spawn().expect("it starts"));
        assert!(before.is_none(), "{} runs already", name(member));
    }

    /// Sends a running member a signal; nobody is waited for.
    pub(crate) fn signal(&self, member: usize, signal: i32) {
        let child = self.children[member].as_ref().expect("runs");
        // SAFETY: plain system call; the child was not waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    /// Waits for a member's end; answers how it came.
    pub(crate) fn ended(&mut self, member: usize) -> ExitStatus {
        self.children[member].take().expect("runs").wait().expect("is our child")
    }

    /// Those that run, as far as it was asked of them.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.children.len()).filter(|&member| self.children[member].is_some()).collect()
    }

    /// A `sinew` command that asks a member.
    pub(crate) fn command(&self, member: usize, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
        command.args(line.split_whitespace()).arg("-s").arg(self.file(member, "sock"));
        command
    }

    /// A connection to a member.
    pub(crate) fn overlay(&self, member: usize) -> io::Result<Overlay> {
        Overlay::connect(self.file(member, "sock"))
    }

    /// What a member says of the group.
    pub(crate) fn status(&self, member: usize) -> io::Result<Status> {
        status(&self.overlay(member)?)
    }

    /// Waits until the members that run are together and say the same of every set, which one of them answers for.
    pub(crate) fn settled(&self) -> Vec<usize> {
        self.settled_among(&self.running())
    }

    /// As [`Members::settled`], of these members, with nobody else.
    pub(crate) fn settled_among(&self, members: &[usize]) -> Vec<usize> {
        self.eventually("the members agree on an owner of every set", || {
            let mut agreed: Option<Vec<usize>> = None;
            for &member in members {
                let status = self.status(member).ok()?;
                if status.gathering || status.view.len() != members.len() {
                    return None;
                }
                let owners: Vec<usize> = (0..status.sets.len()).map(|set| status.owner(set)).collect::<Option<_>>()?;
                if agreed.as_ref().is_some_and(|agreed| *agreed != owners) {
                    return None;
                }
                agreed = Some(owners);
            }
            agreed
        })
    }

    /// Looks again and again until there is something. What the members said is shown if there is not.
    pub(crate) fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if begin.elapsed() > PATIENCE {
                let logs =
                    self.running().into_iter().map(|member| format!("-- {}\n{}", name(member), self.log(member)));
                panic!("not within {PATIENCE:?}: {what}\n{}", logs.collect::<String>());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the member at the other end of this connection says of the group.
pub(crate) fn status(overlay: &Overlay) -> io::Result<Status> {
    match overlay.request(&Request::Vips)? {
        Response::Vips { view, members, sets, .. } => {
            Ok(Status { view: view.members, gathering: view.gathering, members, sets })
        }
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// The name of a member: a, b, c and so on.
pub(crate) fn name(member: usize) -> String {
    char::from(b'a' + member as u8).to_string()
}

fn number(name: &str) -> usize {
    usize::from(name.as_bytes()[0] - b'a')
}

fn identity(member: usize) -> Identity {
    Identity::from_seed([member as u8 + 1; 32])
}

/// On the second network.
fn host_behind(member: usize) -> IpAddr {
    [10, 67, 0, 10 + member as u8].into()
}

fn host(member: usize) -> IpAddr {
    super::lan::own_addresses(member)[0]
}
