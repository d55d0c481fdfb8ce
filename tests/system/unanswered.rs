//! Commands to whom nobody answers: what they say, how they end, and how soon.

use crate::support::{Machine, PATIENCE, eventually, links, path, run, sessions, sinew, started, system_test, world};
use sinew::base::Obstacle;
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{Router, Topology};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a loaded machine, and far from every time after which something is given up.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Everything that sends something to `target`.
fn senders(target: &str) -> [String; 5] {
    [
        format!("ping {target} -c 1"),
        format!("send {target}:7 /dev/null"),
        format!("send {target}:7 --stream /dev/null"),
        format!("perf client --to {target}"),
        format!("perf client --to {target}:7 --stream"),
    ]
}

/// Runs a command that must fail at once and say all of this.
fn refused(router: &Router, line: &str, parts: &[&str]) {
    let begin = Instant::now();
    let output = run(router, line, 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(begin.elapsed() < AT_ONCE, "{line}: only after {:?}", begin.elapsed());
    assert!(parts.iter().all(|part| said.contains(part)) && output.stdout.is_empty(), "{line}: {said}");
}

#[test]
fn without_a_way_nothing_is_begun() {
    system_test("unanswered::without_a_way_nothing_is_begun", Machine::Shared, || {
        let world = world(Topology::chain(2, Conditions::wire(1.0, 0)));
        // c is a member that never was there.
        let (a, b) = (world.router("a"), world.router("b"));
        a.start().and_then(|()| b.start()).expect("start");
        eventually("a route to b", || a.overlay().ok().and_then(|_| path(a, "b")));
        for line in senders("nobody") {
            refused(a, &line, &["no router is called `nobody`", "sinew show nodes"]);
        }
        for line in senders("c") {
            refused(a, &line, &["no route to c", "sinew show links"]);
        }
        // Its machine says so, and b is its neighbour.
        eventually("b knows why", || {
            links(b).iter().any(|link| link.obstacle == Some(Obstacle::Refused)).then_some(())
        });
        refused(b, "ping c -c 1", &["no route to c", "nothing listens", "start its router"]);
        refused(b, "trace c", &["no route to c", "nothing listens"]);
    });
}

#[test]
fn cut_off_without_a_word() {
    system_test("unanswered::cut_off_without_a_word", Machine::Shared, || {
        let mut topology = Topology::chain(1, Conditions::wire(1.0, 0));
        // The link stays in the map while nothing crosses it.
        topology.links[0].extra = "hello = \"100ms\"\ndead = \"120s\"\n".into();
        let world = started(topology);
        let (a, link) = (world.router("a"), world.link("a", "b"));
        run(a, "ping b -c 1", 0);
        link.cut();
        let output = run(a, "ping b -c 3 -i 50ms -w 300ms", 1);
        let (said, noted) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        for line in ["seq=0 no answer", "seq=1 no answer", "seq=2 no answer", "3 sent, 0 answered, 100"] {
            assert!(said.contains(line), "{line} is not in\n{said}");
        }
        assert!(noted.contains("nothing came back") && noted.contains("sinew trace b"), "{noted}");
        interrupted(a, "send b:7 --stream /dev/null");
        interrupted(a, "perf client --to b:7");
    });
}

#[test]
fn a_receiver_that_leaves_ends_what_is_sent_to_it() {
    system_test("unanswered::a_receiver_that_leaves_ends_what_is_sent_to_it", Machine::Shared, || {
        let world = started(Topology::chain(1, Conditions::wire(1.0, 0)));
        let (a, b) = (world.router("a"), world.router("b"));
        let mut receiver = sinew(b, "recv 7500").spawn().expect("the binary runs");
        eventually("it listens", || (!sessions(b).is_empty()).then_some(()));
        // For minutes, if nobody stops it.
        let mut sender = sinew(a, "send b:7500 /dev/zero --rate 100kbit").spawn().expect("the binary runs");
        eventually("something arrives", || {
            sessions(b).iter().any(|session| session["delivered"].as_u64() > Some(5)).then_some(())
        });
        receiver.kill().and_then(|()| receiver.wait()).expect("is killed");
        let begin = Instant::now();
        let status = eventually("the sender ends", || sender.try_wait().expect("is a child"));
        assert!(begin.elapsed() < AT_ONCE, "only after {:?}", begin.elapsed());
        let said = std::io::read_to_string(sender.stderr.take().expect("is piped")).expect("is text");
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("not all that was sent to b:7500 arrived"), "{said}");
        // Of best effort nobody can say what arrived; that is said.
        std::fs::write(world.dir().join("line"), "one\n").expect("is written");
        let line = format!("send b:7501 --class best-effort --lines {}", world.dir().join("line").display());
        let said = run(a, &line, 0).stderr;
        assert!(String::from_utf8_lossy(&said).contains("best effort has no receipt"), "{said:?}");
    });
}

#[test]
fn a_route_that_is_lost_is_said_and_waited_for() {
    system_test("unanswered::a_route_that_is_lost_is_said_and_waited_for", Machine::Shared, || {
        let world = started(Topology::chain(2, Conditions::wire(1.0, 0)));
        let (a, b, c) = (world.router("a"), world.router("b"), world.router("c"));
        let mut receiver = sinew(c, "recv 7600 --count 100").stdout(Stdio::null()).spawn().expect("the binary runs");
        eventually("it listens", || (!sessions(c).is_empty()).then_some(()));
        let (input, told) = (world.dir().join("zeros"), world.dir().join("told"));
        std::fs::write(&input, vec![0; 100_000]).expect("is written");
        let line = format!("send c:7600 --rate 200kbit {}", input.display());
        let heard = std::fs::File::create(&told).expect("a file");
        let mut sender = sinew(a, &line).stderr(heard).spawn().expect("the binary runs");
        eventually("something arrives", || {
            sessions(c).iter().any(|session| session["delivered"].as_u64() > Some(5)).then_some(())
        });
        let said = || std::fs::read_to_string(&told).expect("is there");
        assert_eq!(said(), "", "nothing is wrong yet");
        assert!(b.terminate(PATIENCE).is_some_and(|status| status.success()), "{}", b.log());
        let begin = Instant::now();
        eventually("it says so", || said().contains("no route to c: ").then_some(()));
        assert!(begin.elapsed() < AT_ONCE, "only after {:?}", begin.elapsed());
        assert!(said().contains("`sinew show links`") && said().contains("waiting for a route"), "{}", said());
        b.start().expect("starts again");
        eventually("it says so", || said().contains("c is reached again").then_some(()));
        let status = eventually("the sender ends", || sender.try_wait().expect("is a child"));
        assert_eq!(status.code(), Some(0), "{}", said());
        assert_eq!(said().matches("no route to c").count(), 1, "{}", said());
        assert!(receiver.wait().expect("is a child").success(), "everything arrived");
    });
}

/// Starts a command that waits to be connected, asks it to stop, and sees it end at once with 130.
fn interrupted(router: &Router, line: &str) {
    let none = || sessions(router).is_empty().then_some(());
    eventually("former sessions are gone", none);
    let mut child = sinew(router, line).spawn().expect("the binary runs");
    eventually("it connects", || none().is_none().then_some(()));
    assert!(child.try_wait().expect("is a child").is_none(), "{line} waits");
    let begin = Instant::now();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill(1) runs").success());
    let status = eventually("it ends", || child.try_wait().expect("is a child"));
    assert_eq!(status.code(), Some(130), "{line}");
    assert!(begin.elapsed() < AT_ONCE.min(PATIENCE), "{line}: only after {:?}", begin.elapsed());
}
