//! The attendant at work: real sockets, files and processes, on this very machine.

use super::attendant::Attendant;
use super::hooks::Job;
use super::*;
use crate::runtime::ring::{Receiver, Sender};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

const PATIENCE: Duration = Duration::from_secs(20);

struct Care {
    verdicts: Receiver<Verdict>,
    /// Those that were not asked for yet.
    heard: Vec<Verdict>,
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    bell: Arc<Doorbell>,
    thread: Option<JoinHandle<()>>,
}

impl Care {
    fn of(questions: &[Question], hook: Option<Hook>) -> Care {
        let check = |question: &Question| Check {
            question: question.clone(),
            interval: Duration::from_millis(2),
            timeout: Duration::from_millis(200),
            rise: 1,
            fall: 1,
        };
        let bell = Arc::new(Doorbell::new().expect("a doorbell"));
        let (jobs, work) = ring(SLOTS, Arc::clone(&bell));
        let (judging, verdicts) = ring(SLOTS, Arc::new(Doorbell::new().expect("a doorbell")));
        let shared = Arc::new(Shared::default());
        let parts = (questions.iter().map(check).collect(), hook, None);
        let attendant = Attendant::new(Clock::start(), parts, Arc::clone(&bell), (work, judging), Arc::clone(&shared));
        let attendant = attendant.expect("needs no privilege");
        let thread = Some(std::thread::spawn(move || attendant.run()));
        Care { verdicts, heard: Vec::new(), jobs, shared, bell, thread }
    }

    /// The next verdict about this check.
    fn verdict(&mut self, check: usize) -> bool {
        let begin = std::time::Instant::now();
        loop {
            self.heard.extend(std::iter::from_fn(|| self.verdicts.pop()));
            if let Some(place) = self.heard.iter().position(|verdict| verdict.check == check) {
                return self.heard.remove(place).ok;
            }
            assert!(begin.elapsed() < PATIENCE, "no verdict about check {check}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Care {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.bell.ring_always();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the attendant panicked");
    }
}

#[test]
fn who_accepts_connections_is_well_until_it_accepts_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("has one");
    let mut care = Care::of(&[Question::Tcp(address)], None);
    assert!(care.verdict(0));
    drop(listener);
    assert!(!care.verdict(0));
    let _back = TcpListener::bind(address).expect("nothing of it was left");
    assert!(care.verdict(0));
}

/// Answers every request with the status that is wanted at the time; zero: not at all.
fn serve(status: &Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, status) = (listener.local_addr().expect("has one"), Arc::clone(status));
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 512];
            let len = stream.read(&mut request).unwrap_or(0);
            assert!(len == 0 || request.starts_with(b"GET /health HTTP/1.1\r\nHost: vip.example\r\n"));
            match status.load(Ordering::Relaxed) {
                0 => held.push(stream),
                code => drop(write!(stream, "HTTP/1.1 {code} As wanted\r\n\r\n")),
            }
        }
    });
    address
}

#[test]
fn an_answer_over_http_counts_by_its_status_and_none_is_a_bad_one() {
    let status = Arc::new(AtomicU64::new(204));
    let address = serve(&status);
    let question = Question::Http { address, host: "vip.example".into(), path: "/health".into() };
    let mut care = Care::of(&[question], None);
    assert!(care.verdict(0));
    for (code, ok) in [(503, false), (301, true), (0, false), (200, true)] {
        status.store(code, Ordering::Relaxed);
        assert_eq!(care.verdict(0), ok, "{code}");
    }
}

#[test]
fn a_command_that_hangs_is_a_bad_answer_and_holds_nobody_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("here");
    let command = |line: &str| Question::Command(line.split(' ').map(str::to_owned).collect());
    let questions =
        [command("sleep 1000"), command("false"), command("true"), command("/no/such"), Question::File(file.clone())];
    let mut care = Care::of(&questions, None);
    // The hanging one has a timeout of 200 ms; meanwhile the file comes and goes.
    assert!(!care.verdict(4));
    let changes = (0..5).map(|_| {
        let begin = std::time::Instant::now();
        std::fs::write(&file, "").expect("is written");
        assert!(care.verdict(4));
        std::fs::remove_file(&file).expect("is removed");
        assert!(!care.verdict(4));
        begin.elapsed()
    });
    let quickest = changes.min().expect("there were some");
    assert!(quickest < Duration::from_millis(200), "a command that hangs has held others up: {quickest:?}");
    assert_eq!([0, 1, 2, 3].map(|check| care.verdict(check)), [false, false, true, false]);
}

#[test]
fn the_end_of_a_process_is_known_at_once_and_a_new_one_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let (program, number) = (dir.path().join("sinew-watched"), dir.path().join("pid"));
    std::fs::copy("/bin/sleep", &program).expect("is copied");
    let mut child = Command::new(&program).arg("1000").spawn().expect("runs");
    std::fs::write(&number, format!("{}\n", child.id())).expect("is written");
    let questions =
        [Question::Process("sinew-watched".into()), Question::PidFile(number), Question::Carrier("no-such-if".into())];
    for check in [0, 1] {
        let mut care = Care::of(&questions, None);
        assert!(care.verdict(check));
        child.kill().expect("is killed");
        assert!(!care.verdict(check));
        child.wait().expect("has ended");
        child = Command::new(&program).arg("1000").spawn().expect("runs");
        std::fs::write(dir.path().join("pid"), format!("{}", child.id())).expect("is written");
        assert!(care.verdict(check));
    }
    assert!(!Care::of(&questions, None).verdict(2));
    child.kill().and_then(|()| child.wait()).expect("is killed");
}

#[test]
fn hooks_run_beside_checks_and_their_failures_are_counted() {
    let hook = Hook { command: vec!["false".into()], patience: Duration::from_secs(10) };
    let mut care = Care::of(&[], Some(hook));
    let job = Job { event: Event::Lost, set: 0, name: "web".into(), addresses: String::new() };
    care.jobs.push(job).expect("there is room");
    let begin = std::time::Instant::now();
    while care.shared.hooks_failed.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < PATIENCE, "no hook has failed");
        std::thread::sleep(Duration::from_millis(1));
    }
}
