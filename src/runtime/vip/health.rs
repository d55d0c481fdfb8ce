//! Health: does what the addresses are for still work?
//!
//! A [`Check`] asks again and again, and a [`Judge`] makes of the answers what is reported: so many good ones in a row and
//! it is well, so many bad ones and it is not. Nothing is awaited: a question that goes over the network or to a command
//! is under way until its answer or its deadline comes, and the next is asked when it is due after that. The end of a
//! watched process is told by the kernel (pidfd) at once.

use super::super::child::Child;
use super::super::netlink::Netlink;
use super::super::sys;
use super::hooks::{self, User};
use crate::base::Instant;
use crate::config::settings::Question;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

/// Least time between two searches for a process by its name: they read a file for each process there is.
const SEARCH: Duration = Duration::from_millis(100);
/// Longest head of an answer over HTTP that is read for its first line.
const HEAD: usize = 512;

/// A question, and how often it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub question: Question,
    /// Time from one to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Good answers in a row that make it well.
    pub rise: u32,
    /// Bad answers in a row that make it unwell.
    pub fall: u32,
}

/// What the answers amount to.
#[derive(Clone, Copy, Debug)]
struct Judge {
    rise: u32,
    fall: u32,
    /// Answers like the last one, in a row.
    streak: (bool, u32),
    verdict: Option<bool>,
}

impl Judge {
    const fn new(check: &Check) -> Judge {
        Judge { rise: check.rise, fall: check.fall, streak: (false, 0), verdict: None }
    }

    /// Takes an answer; answers the verdict if it is new.
    fn hear(&mut self, ok: bool) -> Option<bool> {
        let (last, count) = self.streak;
        self.streak = (ok, if last == ok { count.saturating_add(1) } else { 1 });
        let enough = self.streak.1 >= if ok { self.rise } else { self.fall };
        (enough && self.verdict != Some(ok)).then(|| {
            self.verdict = Some(ok);
            ok
        })
    }
}

/// A question under way.
#[derive(Debug)]
enum Asked {
    Connecting(TcpStream),
    Asking { stream: TcpStream, sent: usize, heard: Vec<u8> },
    Running(Command),
}

/// A command that runs.
#[derive(Debug)]
struct Command {
    child: Child,
    /// Tells its end to the poll while this is open.
    _end: OwnedFd,
}

/// A check at work.
#[derive(Debug)]
pub(super) struct Checker {
    check: Check,
    token: Token,
    judge: Judge,
    next_at: Instant,
    asked: Option<(Asked, Instant)>,
    /// The process that is watched.
    process: Option<OwnedFd>,
    searched_at: Option<Instant>,
}

/// What checks need to ask.
pub(super) struct Means<'a> {
    pub(super) registry: &'a Registry,
    pub(super) user: Option<User>,
    pub(super) netlink: &'a mut Netlink,
}

impl Checker {
    /// Asks for the first time at `now`.
    pub(super) fn new(now: Instant, check: Check, token: Token) -> Checker {
        let judge = Judge::new(&check);
        Checker { check, token, judge, next_at: now, asked: None, process: None, searched_at: None }
    }

    /// When it has something to do, if nothing happens before.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.asked.as_ref().map_or(self.next_at, |&(_, deadline)| deadline)
    }

    /// Does what is due, or what an event on its descriptor makes possible. Answers the verdict if it is new.
    pub(super) fn turn(&mut self, now: Instant, woken: bool, means: &mut Means<'_>) -> Option<bool> {
        let answer = if let Some((asked, deadline)) = self.asked.take() {
            let (asked, answer) = if woken { go_on(asked, &self.check.question) } else { (asked, None) };
            let answer = answer.or((now >= deadline).then_some(false));
            match answer {
                Some(_) => give_up(asked),
                None => self.asked = Some((asked, deadline)),
            }
            answer
        } else if woken && self.process.take().is_some() {
            // The process has ended. Another one may be there already.
            self.searched_at = None;
            Some(self.process_lives(now, means))
        } else if now >= self.next_at {
            self.next_at = now + self.check.interval;
            self.ask(now, means)
        } else {
            None
        };
        answer.and_then(|ok| self.judge.hear(ok))
    }

    /// Asks; answers what is known at once.
    fn ask(&mut self, now: Instant, means: &mut Means<'_>) -> Option<bool> {
        let asked = match &self.check.question {
            Question::Process(_) | Question::PidFile(_) => return Some(self.process_lives(now, means)),
            Question::File(path) => return Some(path.exists()),
            Question::Carrier(name) => return Some(means.netlink.is_up(name).unwrap_or(false)),
            Question::Tcp(address) | Question::Http { address, .. } => connect(*address, self.token, means.registry),
            Question::Command(command) => run(command, self.token, means),
        };
        let Ok(asked) = asked else { return Some(false) };
        self.asked = Some((asked, now + self.check.timeout));
        None
    }

    fn process_lives(&mut self, now: Instant, means: &mut Means<'_>) -> bool {
        if self.process.is_some() {
            return true;
        }
        let pid = match &self.check.question {
            Question::PidFile(path) => {
                let number = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
                number.filter(|&pid| living(pid, |_| true))
            }
            Question::Process(name) if self.searched_at.is_none_or(|at| now.since(at) >= SEARCH) => {
                self.searched_at = Some(now);
                find_process(name)
            }
            _ => None,
        };
        // If it has ended since, the descriptor tells at once.
        let watch = |pid| {
            let process = sys::pidfd_open(pid)?;
            means.registry.register(&mut SourceFd(&process.as_raw_fd()), self.token, Interest::READABLE)?;
            io::Result::Ok(process)
        };
        self.process = pid.and_then(|pid: u32| watch(pid).ok());
        self.process.is_some()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        if let Some((asked, _)) = self.asked.take() {
            give_up(asked);
        }
    }
}

/// Ends what is under way. A connection that is reset leaves no port behind to wait for its end.
fn give_up(asked: Asked) {
    match asked {
        Asked::Connecting(stream) | Asked::Asking { stream, .. } => {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        Asked::Running(mut command) => {
            if !matches!(command.child.try_wait(), Ok(Some(_))) {
                command.child.kill_group();
                let _ = command.child.wait();
            }
        }
    }
}

fn connect(address: SocketAddr, token: Token, registry: &Registry) -> io::Result<Asked> {
    let mut stream = TcpStream::connect(address)?;
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(Asked::Connecting(stream))
}

fn run(command: &[String], token: Token, means: &Means<'_>) -> io::Result<Asked> {
    let child = hooks::spawn(command, &[], means.user)?;
    let watch = |pid| {
        let end = sys::pidfd_open(pid)?;
        means.registry.register(&mut SourceFd(&end.as_raw_fd()), token, Interest::READABLE)?;
        io::Result::Ok(end)
    };
    match watch(child.id()) {
        Ok(end) => Ok(Asked::Running(Command { child, _end: end })),
        Err(error) => {
            let mut child = child;
            child.kill_group();
            child.wait().and(Err(error))
        }
    }
}

/// Goes on with what is under way, as far as it goes; answers the answer when it is there.
fn go_on(asked: Asked, question: &Question) -> (Asked, Option<bool>) {
    match (asked, question) {
        (Asked::Connecting(stream), _) => match (stream.take_error(), stream.peer_addr()) {
            (Ok(None), Ok(_)) if matches!(question, Question::Http { .. }) => {
                go_on(Asked::Asking { stream, sent: 0, heard: Vec::new() }, question)
            }
            (Ok(None), Ok(_)) => (Asked::Connecting(stream), Some(true)),
            (Ok(None), Err(error)) if error.kind() == io::ErrorKind::NotConnected => (Asked::Connecting(stream), None),
            _ => (Asked::Connecting(stream), Some(false)),
        },
        (Asked::Asking { mut stream, mut sent, mut heard }, Question::Http { host, path, .. }) => {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sinew\r\nConnection: close\r\n\r\n");
            let answer = converse(&mut stream, request.as_bytes(), &mut sent, &mut heard);
            (Asked::Asking { stream, sent, heard }, answer)
        }
        (Asked::Running(mut command), _) => {
            let answer = match command.child.try_wait() {
                Ok(None) => None,
                Ok(Some(status)) => Some(status.success()),
                Err(_) => Some(false),
            };
            (Asked::Running(command), answer)
        }
        (asked, _) => unreachable!("{asked:?} for {question:?}"),
    }
}

/// Sends what is left of the request, reads what there is of the answer.
fn converse(stream: &mut TcpStream, request: &[u8], sent: &mut usize, heard: &mut Vec<u8>) -> Option<bool> {
    while *sent < request.len() {
        match stream.write(&request[*sent..]) {
            Ok(len) => *sent += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return Some(false),
        }
    }
    let mut buffer = [0; HEAD];
    while heard.len() < HEAD {
        match stream.read(&mut buffer) {
            Ok(0) => return Some(status(heard).unwrap_or(false)),
            Ok(len) => heard.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return status(heard),
            Err(_) => return Some(false),
        }
    }
    Some(status(heard).unwrap_or(false))
}

/// Whether the first line of an answer over HTTP says that all is well, once it is there.
fn status(heard: &[u8]) -> Option<bool> {
    let line = heard.split(|&byte| byte == b'\n').next().filter(|line| line.len() < heard.len())?;
    let line = std::str::from_utf8(line).unwrap_or_default();
    let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u16>().ok());
    Some(code.is_some_and(|code| (200..400).contains(&code)))
}

/// The number of a process with this name that has not ended.
fn find_process(name: &str) -> Option<u32> {
    // The kernel keeps 15 bytes of a name.
    let name = name.get(..15).unwrap_or(name);
    let processes = std::fs::read_dir("/proc").ok()?;
    let mut numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.find(|&pid| living(pid, |found| found == name))
}

/// Whether there is such a process, and it has not ended: who has but was not waited for keeps its number.
fn living(pid: u32, is_meant: impl Fn(&str) -> bool) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    named(&stat).is_some_and(|(name, state)| !"ZX".contains(state) && is_meant(name))
}

/// The name and the state in a line of `/proc/PID/stat`: the name may have anything in it, also parentheses.
fn named(stat: &str) -> Option<(&str, char)> {
    let (head, tail) = stat.rsplit_once(')')?;
    Some((head.split_once('(')?.1, tail.trim_start().chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_as_many_answers_in_a_row_as_was_said() {
        let check = Check {
            question: Question::File("/".into()),
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            rise: 2,
            fall: 3,
        };
        let mut judge = Judge::new(&check);
        let heard: Vec<Option<bool>> =
            [true, false, true, true, true, false, false, true, false, false, false, false, true, true]
                .map(|ok| judge.hear(ok))
                .to_vec();
        let (no, yes, bad) = (None, Some(true), Some(false));
        assert_eq!(heard, [no, no, no, yes, no, no, no, no, no, no, bad, no, no, yes]);
    }

    #[test]
    fn statuses_are_read_when_their_line_is_whole() {
        assert_eq!(status(b"HTTP/1.1 200 OK"), None);
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(true));
        assert_eq!(status(b"HTTP/1.0 304\n"), Some(true));
        for bad in ["HTTP/1.1 503 Busy\r\n", "HTTP/1.1 199\n", "HTTP/2 200\n", "\n", "\u{fffd}200 200\n"] {
            assert_eq!(status(bad.as_bytes()), Some(false), "{bad:?}");
        }
    }

    #[test]
    fn names_of_processes_may_be_anything() {
        assert_eq!(named("17 (a) b) (c) S 1 17"), Some(("a) b) (c", 'S')));
        assert_eq!(named("17 a S"), None);
        let own = std::fs::read_to_string("/proc/self/stat").expect("is there");
        let name = named(&own).expect("has a name").0;
        assert!(find_process(name).is_some() && find_process("no such process").is_none());
    }
}
