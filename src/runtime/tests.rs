//! Whole routers, alone in their network, with real sockets and threads.

use super::start::lone_config;
use super::*;
use crate::base::Class;
use crate::client::{Event, Overlay};
use crate::config::settings::{Config, Cores, Idle, Io};
use crate::wire::admin::{Request, Response};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

fn config(directory: &Path) -> Config {
    lone_config(directory).expect("a configuration")
}

fn start(config: Config) -> Background {
    Background::start(config, Path::new("/nonexistent/sinew.toml")).expect("starts")
}

/// Runs a test on a router of each io backend that is possible here, each way to idle, and each way of records.
fn with_each(test: impl Fn(&Path)) {
    if let Err(why) = io::uring::self_test() {
        // What is chosen below is the other backend again.
        not_run::count(&format!("a test of a whole router with io_uring: {why}"));
    }
    let socket = [(Io::Mmsg, Idle::Wait, 0), (Io::Auto, Idle::Adaptive, 0)];
    let memory =
        [(Io::Mmsg, Idle::Wait, 1 << 24), (Io::Auto, Idle::Adaptive, 1 << 24), (Io::Auto, Idle::Spin, 1 << 24)];
    for (io, idle, shared_memory) in socket.into_iter().chain(memory) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut config = config(directory.path());
        (config.workers.io, config.workers.idle) = (io, idle);
        config.clients.shared_memory = shared_memory;
        let router = start(config);
        test(&directory.path().join("control"));
        router.stop().expect("stops");
        assert!(!directory.path().join("control").exists());
    }
}

#[test]
fn datagrams_of_every_size_cross_a_router() {
    with_each(|path| {
        let overlay = Overlay::connect(path).expect("connects");
        let (a, b) = (overlay.datagrams(0).expect("opens"), overlay.datagrams(700).expect("opens"));
        let mut buffer = vec![0; 1 << 16];
        for len in [0, 1, 1000, 10_000, 1 << 16] {
            let bytes = vec![7; len];
            a.send(b.local(), Class::Reliable, true, &bytes).expect("sends");
            match b.recv(&mut buffer).expect("an event") {
                Event::Datagram { from, bytes: got, .. } => assert!(from == a.local() && got == bytes, "{len} bytes"),
                other => panic!("{other:?}"),
            }
        }
        assert!(overlay.datagrams(700).expect_err("taken").to_string().contains("port"));
    });
}

#[test]
fn sessions_share_memory_as_long_as_there_is_some() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut config = config(directory.path());
    config.clients.shared_memory = 2 * crate::shm::memory::SIZE;
    let router = start(config);
    let overlay = Overlay::connect(directory.path().join("control")).expect("connects");
    let open = || overlay.datagrams(0).expect("opens");
    let (one, two, three) = (open(), open(), open());
    assert_eq!([&one, &two, &three].map(|session| session.shares_memory()), [true, true, false]);
    let shown = || match overlay.request(&Request::Sessions).expect("answers") {
        Response::Stats { workers } => workers[0]["sessions"].as_array().expect("a list").clone(),
        other => panic!("{other:?}"),
    };
    let carriers: Vec<String> = shown().iter().map(|session| session["carrier"].to_string()).collect();
    assert_eq!(carriers, ["\"memory\"", "\"memory\"", "\"socket\""]);
    drop(one);
    while shown().len() > 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The worker gives the memory back with the session.
    assert!((0..1000).any(|_| open().shares_memory()));
    overlay.share_memory(false).expect("asks");
    assert!(!open().shares_memory());
    drop((two, three));
    router.stop().expect("stops");
}

/// Best effort is repeated by nobody, whose timers would hide that a worker waits with something to deliver.
#[test]
fn what_one_session_sends_another_is_there_at_once() {
    with_each(|path| {
        let session = Overlay::connect(path).and_then(|overlay| overlay.datagrams(0)).expect("opens");
        session.set_read_timeout(Some(Duration::from_secs(2))).expect("takes a timeout");
        for round in 0..200u8 {
            session.send(session.local(), Class::BestEffort, false, &[round]).expect("sends");
            match session.recv(&mut [0; 8]).expect("within two seconds") {
                Event::Datagram { bytes, .. } => assert_eq!(bytes, [round]),
                other => panic!("{other:?}"),
            }
        }
    });
}

/// Whoever polls, and takes one thing each time, misses nothing and is not asked to look in vain for ever.
#[test]
fn descriptors_are_readable_and_writable_as_their_records_are() {
    with_each(|path| {
        let overlay = Overlay::connect(path).expect("connects");
        let (source, sink) = (overlay.datagrams(0).expect("opens"), overlay.datagrams(0).expect("opens"));
        source.set_nonblocking(true).expect("can be");
        sink.set_nonblocking(true).expect("can be");
        let mut buffer = vec![0; 10_000];
        assert!(!ready(&sink, libc::POLLIN, 20) && ready(&source, libc::POLLOUT, 20));
        let (mut sent, mut taken, mut vain, mut full) = (0u32, 0, 0, 0);
        while taken < 3000 {
            while sent < 3000 && sent < taken + 200 {
                match source.send(sink.local(), Class::Reliable, true, &[sent as u8; 9000]) {
                    Ok(()) => sent += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                        full += 1;
                        break;
                    }
                }
            }
            assert!(ready(&sink, libc::POLLIN, 10_000), "{taken} of {sent} were read");
            match sink.recv(&mut buffer) {
                Ok(Event::Datagram { bytes, .. }) => {
                    assert_eq!((bytes.len(), bytes[0]), (9000, taken as u8));
                    taken += 1;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => vain += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(full > 0, "it was never full");
        assert!(vain <= 3000, "told in vain {vain} times");
        assert!(ready(&source, libc::POLLOUT, 10_000), "there is room again");
        let _ = sink.recv(&mut buffer).expect_err("nothing is left");
        assert!(!ready(&sink, libc::POLLIN, 20));
    });
}

fn ready(of: &impl std::os::fd::AsFd, events: libc::c_short, millis: libc::c_int) -> bool {
    let fd = std::os::fd::AsRawFd::as_raw_fd(&of.as_fd());
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut poll, 1, millis) > 0 }
}

/// Far more bytes than descriptors, rings and pools hold: every way of pushing back is used, and nothing is lost.
#[test]
fn a_stream_is_pushed_back_by_a_slow_reader_and_loses_nothing() {
    const LEN: usize = 8 << 20;
    with_each(|path| {
        let overlay = Overlay::connect(path).expect("connects");
        let listener = overlay.listen(800).expect("listens");
        let mut client = overlay.stream(listener.local()).expect("connects");
        let mut server = listener.accept().expect("accepts");
        let writer = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
            client.write_all(&bytes).expect("writes");
            client.finish().expect("finishes");
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("reads");
            answer
        });
        std::thread::sleep(Duration::from_millis(50));
        let mut bytes = Vec::with_capacity(LEN);
        server.read_to_end(&mut bytes).expect("reads");
        assert!(bytes.len() == LEN && bytes.iter().enumerate().all(|(n, &byte)| byte == (n % 251) as u8));
        server.write_all(b"thanks").expect("writes");
        server.finish().expect("finishes");
        assert_eq!(writer.join().expect("the writer does not panic"), "thanks");
    });
}

fn count_sessions(overlay: &Overlay) -> usize {
    let Ok(Response::Stats { workers }) = overlay.request(&Request::Sessions) else { panic!("no answer") };
    workers.iter().map(|worker| worker["sessions"].as_array().map_or(0, Vec::len)).sum()
}

/// Its records are not taken, so nobody finds its end by reading.
#[test]
fn a_writer_that_dies_while_it_is_pushed_back_leaves_no_session() {
    with_each(|path| {
        let overlay = Overlay::connect(path).expect("connects");
        let listener = overlay.listen(801).expect("listens");
        let writer = overlay.stream(listener.local()).expect("connects");
        let silent = listener.accept().expect("accepts");
        writer.set_nonblocking(true).expect("can be");
        let (block, mut full, mut written) = (vec![7; 8000], 0, 0);
        // Full for so long that the router has long stopped to read.
        while full < 50 {
            match (&writer).write(&block) {
                Ok(len) => (full, written) = (0, written + len),
                Err(_) => {
                    full += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        assert!(written > 0, "the stream takes bytes before it is full");
        assert_eq!(count_sessions(&overlay), 3);
        drop(writer);
        let begin = std::time::Instant::now();
        while count_sessions(&overlay) != 2 {
            assert!(begin.elapsed() < Duration::from_secs(10), "the dead writer's session stays");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(silent);
    });
}

#[test]
fn nobody_listening_is_a_refusal() {
    with_each(|path| {
        let overlay = Overlay::connect(path).expect("connects");
        let to = crate::client::Endpoint { node: overlay.node(), port: 999 };
        let refused = overlay.stream(to).expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn clients_that_misbehave_or_die_disturb_nobody() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let router = start(config(directory.path()));
    let path = directory.path().join("control");
    let overlay = Overlay::connect(&path).expect("connects");
    let session = overlay.datagrams(0).expect("opens");

    let mut garbage = UnixStream::connect(&path).expect("connects");
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n{\"request\":\"who").expect("writes");
    garbage.write_all(b"ami\"}\n").expect("writes");
    let lines: Vec<String> = BufReader::new(&garbage).lines().take(2).map(|line| line.expect("a line")).collect();
    assert!(matches!(serde_json::from_str(&lines[0]), Ok(Response::Error { .. })), "{lines:?}");
    assert!(matches!(
        serde_json::from_str::<Response>(&lines[1]),
        Ok(Response::Error { .. } | Response::Whoami { .. })
    ));

    let mut endless = UnixStream::connect(&path).expect("connects");
    // It is cut off in the middle; whether the last bytes are taken does not matter.
    let _ = endless.write_all(&vec![b'x'; 1 << 20]);
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"{\"response\":\"error\""));

    for _ in 0..20 {
        let dying = Overlay::connect(&path).expect("connects");
        let sessions: Vec<_> = (0..5).map(|_| dying.datagrams(0).expect("opens")).collect();
        sessions[0].send(sessions[1].local(), Class::BestEffort, false, b"unread").expect("sends");
        let mut half = UnixStream::connect(&path).expect("connects");
        half.write_all(b"{\"request\":\"open-datagram\",\"port\":0}\n").expect("writes");
    }
    session.send(session.local(), Class::Reliable, false, b"still here").expect("sends");
    let mut buffer = [0; 64];
    assert!(matches!(session.recv(&mut buffer), Ok(Event::Datagram { bytes: b"still here", .. })));
    router.stop().expect("stops");
    assert!(matches!(session.recv(&mut buffer), Ok(Event::Closed)), "the router's end closes with it");
}

#[test]
fn a_half_closed_client_still_gets_its_answers_in_order() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let router = start(config(directory.path()));
    let mut client = UnixStream::connect(directory.path().join("control")).expect("connects");
    let requests = [Request::Stats, Request::Whoami, Request::Stats, Request::Nodes];
    let lines: String = requests.iter().map(Request::to_line).collect();
    client.write_all(lines.as_bytes()).expect("writes");
    client.shutdown(std::net::Shutdown::Write).expect("half closes");
    let answers = BufReader::new(client).lines().map(|line| serde_json::from_str(&line.expect("a line")));
    let answers: Vec<Response> = answers.collect::<Result<_, _>>().expect("answers");
    assert!(
        matches!(
            answers[..],
            [Response::Stats { .. }, Response::Whoami { .. }, Response::Stats { .. }, Response::Nodes { .. }]
        ),
        "{answers:?}"
    );
    router.stop().expect("stops");
}

#[test]
fn a_configuration_that_cannot_be_read_changes_nothing() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let router = start(config(directory.path()));
    let overlay = Overlay::connect(directory.path().join("control")).expect("connects");
    match overlay.request(&Request::Reload).expect("an answer") {
        Response::Error { message } => assert!(message.contains("/nonexistent/sinew.toml"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(overlay.request(&Request::Whoami), Ok(Response::Whoami { .. })));
    router.stop().expect("stops");
}

#[test]
fn what_cannot_start_says_what_to_do() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let good = config(directory.path());
    let error = |change: &dyn Fn(&mut Config)| {
        let mut config = good.clone();
        change(&mut config);
        Background::start(config, Path::new("/nonexistent")).expect_err("cannot start").to_string()
    };
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("bound");
    let said = error(&|config| config.listen = address);
    assert!(said.contains("ss -ulpn"), "{said}");
    let said = error(&|config| config.listen = "192.0.2.1:4000".parse().expect("an address"));
    assert!(said.contains("no such address"), "{said}");
    let said = error(&|config| (config.listen, config.workers.count) = ("127.0.0.1:65535".parse().expect("one"), 2));
    assert!(said.contains("65536"), "{said}");
    let said = error(&|config| config.workers.cores = Cores::List(vec![4095]));
    assert!(said.contains("no core 4095"), "{said}");
    let said = error(&|config| (config.workers.count, config.workers.cores) = (9000, Cores::Auto));
    assert!(said.contains("9000 workers need as many cores"), "{said}");
    let said = error(&|config| config.key_file = "/nonexistent/key".into());
    assert!(said.contains("/nonexistent/key"), "{said}");
    let said = error(&|config| config.control_socket = "/nonexistent/control".into());
    assert!(said.contains("directory"), "{said}");
    let first = start(good.clone());
    let said = error(&|_| {});
    assert!(said.contains("another router answers"), "{said}");
    first.stop().expect("stops");
    start(good).stop().expect("starts again in the same place");
}

#[test]
fn workers_are_pinned_and_named_and_use_a_port_each() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut config = config(directory.path());
    let cores = machine::CpuSet::of_this_thread().expect("has some");
    if cores.len() < 2 {
        return not_run::count("two workers on a core each: there is one core");
    }
    (config.workers.count, config.workers.cores) = (2, Cores::Auto);
    // A free pair of ports, found by trying.
    let router = (0..50).find_map(|_| {
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        config.listen = probe.local_addr().expect("bound");
        drop(probe);
        Background::start(config.clone(), Path::new("/nonexistent")).ok()
    });
    let router = router.expect("a free pair of ports");
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("sinew-worker-1")).collect();
    names.dedup();
    assert_eq!(names, ["sinew-worker-1\n"]);
    let overlay = Overlay::connect(directory.path().join("control")).expect("connects");
    let Ok(Response::Stats { workers }) = overlay.request(&Request::Stats) else { panic!("no figures") };
    let mut pinned: Vec<u64> = workers.iter().filter_map(|worker| worker["driver"]["core"].as_u64()).collect();
    pinned.dedup();
    assert!(pinned.len() == 2 && pinned.iter().all(|&core| cores.contains(core as usize)), "{pinned:?}");
    assert!(
        workers.iter().all(|worker| worker["driver"]["core_reason"].as_str().is_some_and(|why| why.contains("auto")))
    );
    let next = std::net::SocketAddr::new(config.listen.ip(), config.listen.port() + 1);
    assert!(std::net::UdpSocket::bind(next).is_err(), "worker 1 holds the next port");
    router.stop().expect("stops");
}

/// Set in the process of its own in which the limit of open files is lowered.
const ALONE: &str = "SINEW_TEST_ALONE";

/// The limit is the whole process's, so the test runs in one of its own.
#[test]
fn who_connects_while_descriptors_are_short_is_served_once_there_are_some() {
    if std::env::var_os(ALONE).is_none() {
        let this = "runtime::tests::who_connects_while_descriptors_are_short_is_served_once_there_are_some";
        let mut child = std::process::Command::new(std::env::current_exe().expect("this test"));
        let output = child.args(["--exact", this, "--nocapture"]).env(ALONE, "1").output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let router = start(config(directory.path()));
    let path = directory.path().join("control");
    let waiting = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    // Only the three standard ones may be open under this limit, and they are: every further one is refused.
    let usual = limit_open_files(3);
    waiting.connect(&socket2::SockAddr::unix(&path).expect("a path")).expect("the backlog has room");
    let mut waiting = UnixStream::from(std::os::fd::OwnedFd::from(waiting));
    waiting.write_all(Request::Whoami.to_line().as_bytes()).expect("writes");
    waiting.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut line = [0; 4096];
    assert_eq!(waiting.read(&mut line).expect_err("not accepted").kind(), std::io::ErrorKind::WouldBlock);
    limit_open_files(usual);
    // Nobody else connects, so nothing but the router's own patience brings it back.
    waiting.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let len = waiting.read(&mut line).expect("an answer");
    assert!(matches!(serde_json::from_slice(&line[..len]), Ok(Response::Whoami { .. })));
    router.stop().expect("stops");
}

/// Sets the limit; answers with the one before.
fn limit_open_files(soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is room for one limit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let before = std::mem::replace(&mut limit.rlim_cur, soft);
    // SAFETY: `limit` is a limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    before
}

/// A router whose metrics are at the address.
fn start_with_metrics(directory: &Path) -> (Background, std::net::SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = free.local_addr().expect("bound");
    drop(free);
    let mut config = config(directory);
    config.telemetry.prometheus = Some(address);
    (start(config), address)
}

/// Everything a server says to this, to the end of the connection.
fn answer(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(request).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer
}

/// The metrics in an answer.
fn series(answer: &str) -> std::collections::BTreeMap<String, f64> {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    crate::telemetry::prometheus::strict::read(body).unwrap_or_else(|error| panic!("{error}\n{body}"))
}

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";

#[test]
fn metrics_are_counted_after_they_are_asked_for_and_every_series_is_there_once() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (router, address) = start_with_metrics(directory.path());
    let overlay = Overlay::connect(directory.path().join("control")).expect("connects");
    let (a, b) = (overlay.datagrams(0).expect("opens"), overlay.datagrams(700).expect("opens"));
    let mut buffer = [0; 64];
    for sent in 1..4 {
        a.send(b.local(), Class::BestEffort, false, b"x").expect("sends");
        b.recv(&mut buffer).expect("an event");
        let series = series(&answer(address, SCRAPE));
        assert_eq!(series["sinew_originated_total{worker=\"0\"}"], f64::from(sent));
    }
    // Several on one connection, the first alone until it is answered, the last two at once.
    let mut stream = std::net::TcpStream::connect(address).expect("connects");
    let keeping = b"GET /metrics?a=b HTTP/1.1\r\nHost: here\r\n\r\n";
    stream.write_all(keeping).expect("writes");
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("reads");
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    stream
        .write_all(&[&keeping[..], b"HEAD / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"].concat())
        .expect("writes");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("reads");
    assert_eq!(rest.matches("sinew_build_info{").count(), 2);
    assert!(rest.contains("text/plain; version=0.0.4; charset=utf-8\r\n"), "{rest}");
    assert!(rest.ends_with("Content-Length: 35\r\nConnection: close\r\n\r\n"), "the head of the last\n{rest}");
    assert!(answer(address, b"GET /nothing HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "));
    router.stop().expect("stops");
}

#[test]
fn who_holds_the_metrics_port_up_holds_nobody_else_up() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (router, address) = start_with_metrics(directory.path());
    let open = || std::net::TcpStream::connect(address).expect("connects");
    // Silent ones give way to whoever comes; one that is in the middle of a request keeps its place.
    let mut slow = open();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n").expect("writes");
    // As long as something of it was read.
    std::thread::sleep(Duration::from_millis(200));
    let silent: Vec<_> = (0..2 * metrics::MOST).map(|_| open()).collect();
    series(&answer(address, SCRAPE));
    // Garbage, and more than a request may have.
    assert!(answer(address, b"\0\0\0\0\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let long = [&b"GET /metrics HTTP/1.1\r\nHost: "[..], &[b'a'; 9_000]].concat();
    assert!(answer(address, &long).starts_with("HTTP/1.1 431 "));
    // Those who ask and do not listen.
    let deaf: Vec<_> = (0..metrics::MOST / 2).map(|_| open()).collect();
    deaf.iter().for_each(|mut stream| stream.write_all(SCRAPE).expect("writes"));
    let overlay = Overlay::connect(directory.path().join("control")).expect("connects");
    assert_eq!(count_sessions(&overlay), 0, "control goes on");
    series(&answer(address, SCRAPE));
    slow.write_all(b"\r\n").expect("writes");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("reads");
    series(&answer);
    drop((silent, deaf));
    router.stop().expect("stops");
}

#[test]
fn an_interval_log_is_written_while_the_router_runs() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut config = config(directory.path());
    let path = directory.path().join("latency.hlog");
    config.telemetry.interval_log = Some(path.clone());
    config.telemetry.interval = Duration::from_millis(100);
    let router = start(config);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let intervals = loop {
        let text = std::fs::read(&path).unwrap_or_default();
        match crate::telemetry::hlog::read(&text) {
            Ok(intervals) if intervals.len() > 2 => break intervals,
            other => assert!(std::time::Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(intervals.iter().all(|interval| interval.tag.as_deref() == Some("worker0-turn")), "{intervals:?}");
    assert!(
        intervals.windows(2).all(|pair| pair[0].start + pair[0].length <= pair[1].start + Duration::from_millis(1))
    );
    router.stop().expect("stops");
}
