//! keepalived, as Debian has it, with all its defaults but the time between adverts.

use super::case::Case;
use super::group::{ADDRESS, Group, HOSTS};
use super::lan::{Echo, Lan};
use sinew::lab::netns::enter;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// What it says it is, if it is there.
pub(super) fn version() -> Option<String> {
    let output = Command::new("keepalived").arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    said.lines().find(|line| line.contains("Keepalived")).map(str::to_owned)
}

/// What a group is called that sends an advert every so many seconds.
pub(super) fn name(advert: &str) -> String {
    format!("keepalived {advert} s")
}

/// Such a group.
pub(super) struct Keepalived {
    name: String,
    advert: Duration,
    lan: Lan,
    files: TempDir,
    children: Vec<Option<Child>>,
    _echoes: Vec<Echo>,
}

impl Keepalived {
    /// A group that sends an advert every so many seconds.
    pub(super) fn new(advert: &str) -> io::Result<Keepalived> {
        let lan = Lan::with_witnesses(HOSTS);
        let files = tempfile::tempdir()?;
        for host in 0..HOSTS {
            let text = format!(
                "global_defs {{\n router_id r{host}\n vrrp_version 3\n}}\nvrrp_instance v {{\n state BACKUP\n \
                 interface eth0\n virtual_router_id 51\n priority {}\n advert_int {advert}\n \
                 virtual_ipaddress {{\n {ADDRESS}/32\n }}\n}}\n",
                100 - host
            );
            fs::write(files.path().join(format!("{host}.conf")), text)?;
        }
        let echoes = (0..HOSTS).map(|host| lan.echo(host, ADDRESS)).collect();
        let children = (0..HOSTS).map(|_| None).collect();
        let seconds = advert.parse().map_err(|_| io::Error::other("a number of seconds"))?;
        let advert_time = Duration::from_secs_f64(seconds);
        let mut group = Keepalived { name: name(advert), advert: advert_time, lan, files, children, _echoes: echoes };
        for host in 0..HOSTS {
            group.start(host)?;
        }
        Ok(group)
    }

    fn start(&mut self, host: usize) -> io::Result<()> {
        let namespace = self.lan.places[host].namespace.as_fd().try_clone_to_owned()?;
        let file = |extension: &str| self.files.path().join(format!("{host}.{extension}"));
        let log = File::options().create(true).append(true).open(file("log"))?;
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console"]).arg("--use-file").arg(file("conf"));
        command.arg("--pid").arg(file("pid")).arg("--vrrp_pid").arg(file("vrrp.pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: between fork and exec only system calls; nothing allocates or locks.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                enter(namespace.as_fd())
            });
        }
        self.children[host] = Some(command.spawn()?);
        Ok(())
    }

    /// Sends its processes a signal: the one we started, and, where they would outlive it, those that one started.
    fn signal(&self, host: usize, signal: i32) {
        let Some(child) = &self.children[host] else { return };
        let parent = child.id();
        let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let theirs = listed.split_whitespace().filter_map(|id| id.parse().ok()).filter(|_| signal != libc::SIGTERM);
        for id in std::iter::once(parent as i32).chain(theirs) {
            // SAFETY: plain system call; the parent was not waited for, and its children were read a moment ago.
            unsafe { libc::kill(id, signal) };
        }
    }

    fn ended(&mut self, host: usize) -> io::Result<()> {
        self.children[host].take().map_or(Ok(()), |mut child| child.wait().map(drop))
    }
}

impl Group for Keepalived {
    fn name(&self) -> &str {
        &self.name
    }

    fn lan(&self) -> &Lan {
        &self.lan
    }

    fn plays(&self, case: Case) -> bool {
        !matches!(case, Case::Move | Case::Drain)
    }

    fn patience(&self) -> Duration {
        // Three adverts and the skew, twice; a hole after a merge begins within one.
        self.advert * 4 + Duration::from_millis(500)
    }

    fn strike(&mut self, case: Case, owner: usize) -> io::Result<()> {
        match case {
            Case::Kill => self.signal(owner, libc::SIGKILL),
            Case::Freeze => self.signal(owner, libc::SIGSTOP),
            Case::Term => self.signal(owner, libc::SIGTERM),
            Case::Cut | Case::Carrier | Case::Move | Case::Drain | Case::Merge => {}
        }
        Ok(())
    }

    fn mend(&mut self, case: Case, owner: usize) -> io::Result<()> {
        if case == Case::Freeze {
            self.signal(owner, libc::SIGCONT);
            return Ok(());
        }
        self.ended(owner)?;
        // Nobody else would take off what a killed one left. After SIGTERM there is nothing.
        let _ = self.lan.in_host(owner, |netlink, index| netlink.delete_address(index, ADDRESS, 32));
        self.start(owner)
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        (0..HOSTS).for_each(|host| self.signal(host, libc::SIGKILL));
        for child in self.children.iter_mut().flatten() {
            let _ = child.wait();
        }
    }
}
