//! Process groups over routers that are not all neighbours: who is in, what is said, cut, merged, killed.

use crate::support::{
    Machine, PATIENCE, eventually, file, json, parsed, resident, rewrite, run, sinew, stats, system_test,
    wait_answering, world,
};
use serde_json::Value;
use sinew::client::admin::Request;
use sinew::client::{Group, GroupEvent};
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{Router, Topology, World};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Instant;

/// Members that do not read.
const SLEEPERS: usize = 30;

/// Four routers in a row, with process groups.
fn chain() -> World {
    let world = world(Topology::chain(3, Conditions::wire(1.0, 0)));
    world.routers().iter().for_each(|router| rewrite(router, |text| text + "\n[groups]\n"));
    world.start(PATIENCE).expect("all routers start and find each other");
    world
}

fn join(router: &Router) -> Group {
    let group = Group::join(router.socket(), "shift").expect("joins");
    group.set_read_timeout(Some(PATIENCE)).expect("can be");
    group
}

/// What a member is told up to the first view of so many: who came together to it, whether a signal was given, and what
/// was said before it.
fn until_view(group: &Group, count: usize) -> (Vec<String>, bool, Vec<Vec<u8>>) {
    let (begin, mut signal, mut said) = (Instant::now(), false, Vec::new());
    loop {
        assert!(begin.elapsed() < PATIENCE, "{}: no view of {count}", group.member());
        match group.recv().expect("is told something") {
            GroupEvent::View { members, together, .. } if members.len() == count => {
                assert!(members.iter().any(|member| member == group.member()), "{members:?}");
                return (together, signal, said);
            }
            GroupEvent::View { .. } => signal = false,
            GroupEvent::Transitional => signal = true,
            GroupEvent::Message { bytes, .. } => said.push(bytes),
        }
    }
}

/// The next so many messages.
fn hear(group: &Group, count: usize) -> Vec<(String, Vec<u8>)> {
    let message = |_| match group.recv().expect("is told something") {
        GroupEvent::Message { from, bytes } => (from, bytes),
        other => panic!("{}: {other:?}", group.member()),
    };
    (0..count).map(message).collect()
}

/// Both say something at the same time, and hear all of it in one order.
fn talk(one: &Group, other: &Group, count: usize) {
    let say = |group: &Group| {
        for number in 0..count {
            let text = format!("{} says {number}", group.member());
            // Some take several messages of the routers.
            let bytes = text.into_bytes().into_iter().cycle().take(20 + number % 7 * 1_000).collect::<Vec<_>>();
            group.send(&bytes).expect("is taken");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| say(one));
        scope.spawn(|| say(other));
        let theirs = scope.spawn(|| hear(other, 2 * count));
        let heard = hear(one, 2 * count);
        assert_eq!(heard, theirs.join().expect("hears"), "one order for both");
        for group in [one, other] {
            assert_eq!(heard.iter().filter(|said| said.0 == group.member()).count(), count, "of {}", group.member());
        }
    });
}

#[test]
fn members_far_apart_are_cut_off_and_meet_again() {
    system_test("groups::members_far_apart_are_cut_off_and_meet_again", Machine::Shared, || {
        let world = chain();
        let (a, d) = (world.router("a"), world.router("d"));
        let (one, other) = (join(a), join(d));
        until_view(&one, 2);
        until_view(&other, 2);
        talk(&one, &other, 100);
        let shown = json(world.router("b"), "show groups --json");
        assert_eq!(shown["groups"][0]["members"].as_array().map(Vec::len), Some(2), "others know it too: {shown}");
        assert_eq!(shown["routers"]["members"].as_array().map(Vec::len), Some(4), "{shown}");
        world.link("b", "c").cut();
        for group in [&one, &other] {
            let (together, signal, _) = until_view(group, 1);
            assert_eq!(
                (together, signal),
                (vec![group.member().to_owned()], true),
                "it is told that it loses somebody"
            );
            group.send(b"alone").expect("is taken");
            assert_eq!(hear(group, 1), [(group.member().to_owned(), b"alone".to_vec())]);
        }
        world.link("b", "c").restore();
        for group in [&one, &other] {
            let (together, signal, said) = until_view(group, 2);
            assert_eq!((together, said.len()), (vec![group.member().to_owned()], 0), "the other heard something else");
            assert!(!signal, "nobody is lost");
        }
        talk(&one, &other, 20);
        let figures = &stats(a)[0]["groups"];
        assert!(figures["delivered"].as_u64() >= Some(241), "{figures}");
        assert_eq!(figures["processes"].as_u64(), Some(2), "{figures}");
    });
}

#[test]
fn a_client_and_a_router_are_killed() {
    system_test("groups::a_client_and_a_router_are_killed", Machine::Shared, || {
        let world = chain();
        let (a, c, d) = (world.router("a"), world.router("c"), world.router("d"));
        let (one, other) = (join(a), join(d));
        until_view(&one, 2);
        until_view(&other, 2);
        // A third one, by the command line.
        let printed = file(&world, "printed");
        let mut command = sinew(c, "group join shift --json");
        command.stdin(Stdio::piped()).stdout(File::create(&printed).expect("a file")).stderr(Stdio::null());
        let mut third = command.spawn().expect("the binary runs");
        assert_eq!(until_view(&one, 3).0.len(), 2);
        assert_eq!(until_view(&other, 3).0.len(), 2);
        third.stdin.as_mut().expect("is a pipe").write_all(b"from c\n").expect("is read");
        for group in [&one, &other] {
            assert_eq!(hear(group, 1), [("c.1".to_owned(), b"from c".to_vec())]);
        }
        let lines = eventually("it prints what it says itself", || {
            let text = std::fs::read_to_string(&printed).ok()?;
            (text.lines().count() == 3).then_some(text)
        });
        let lines: Vec<_> = lines.lines().map(|line| parsed(line, line.as_bytes())).collect();
        assert_eq!((&lines[0]["event"], &lines[0]["member"]), (&"joined".into(), &"c.1".into()));
        assert_eq!((&lines[1]["event"], &lines[2]["text"]), (&"view".into(), &"from c".into()));
        third.kill().and_then(|()| third.wait()).expect("is killed");
        for group in [&one, &other] {
            let (together, signal, _) = until_view(group, 2);
            assert_eq!((together.len(), signal), (2, false), "who leaves is not lost");
        }
        d.kill();
        let gone = loop {
            match other.recv() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionAborted, "{gone}");
        let (together, signal, _) = until_view(&one, 1);
        assert_eq!((together.len(), signal), (1, true));
        d.start().expect("starts again");
        wait_answering(d);
        let again = join(d);
        until_view(&one, 2);
        until_view(&again, 2);
        talk(&one, &again, 20);
    });
}

#[test]
fn a_router_that_stood_still_comes_back_with_its_members() {
    system_test("groups::a_router_that_stood_still_comes_back_with_its_members", Machine::Alone, || {
        let world = chain();
        let (a, d) = (world.router("a"), world.router("d"));
        let (one, other) = (join(a), join(d));
        until_view(&one, 2);
        until_view(&other, 2);
        let signal = |signal| {
            let pid = d.pid().expect("runs") as libc::pid_t;
            // SAFETY: takes no pointers.
            assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        };
        signal(libc::SIGSTOP);
        let (together, lost, _) = until_view(&one, 1);
        assert_eq!((together, lost), (vec![one.member().to_owned()], true));
        one.send(b"without you").expect("is taken");
        assert_eq!(hear(&one, 1), [(one.member().to_owned(), b"without you".to_vec())]);
        signal(libc::SIGCONT);
        assert_eq!(until_view(&one, 2).0, [one.member()], "they parted");
        let (together, _, said) = until_view(&other, 2);
        assert_eq!(
            (together, said.len()),
            (vec![other.member().to_owned()], 0),
            "it was not told what it was not there for"
        );
        talk(&one, &other, 20);
    });
}

#[test]
fn a_router_without_groups_carries_those_of_others() {
    system_test("groups::a_router_without_groups_carries_those_of_others", Machine::Shared, || {
        let world = world(Topology::chain(3, Conditions::wire(1.0, 0)));
        let with = ["a", "b", "d"];
        with.iter().for_each(|name| rewrite(world.router(name), |text| text + "\n[groups]\n"));
        world.start(PATIENCE).expect("all routers start and find each other");
        let (one, other) = (join(world.router("a")), join(world.router("d")));
        until_view(&one, 2);
        until_view(&other, 2);
        talk(&one, &other, 20);
        eventually("the three agree, and no longer wait for the fourth", || {
            let shown = with.map(|name| json(world.router(name), "show groups --json")["routers"].clone());
            let mut members: Vec<&str> = shown[0]["members"].as_array()?.iter().filter_map(Value::as_str).collect();
            members.sort_unstable();
            let agree = |view: &Value| view["id"] == shown[0]["id"] && view["gathering"] == false;
            (members == with && shown.iter().all(agree)).then_some(())
        });
        let said = run(world.router("c"), "group join shift", 1);
        assert!(String::from_utf8_lossy(&said.stderr).contains("write [groups]"), "{said:?}");
    });
}

#[test]
fn clients_that_misbehave_disturb_nobody() {
    system_test("groups::clients_that_misbehave_disturb_nobody", Machine::Shared, || {
        let world = world(Topology::chain(1, Conditions::wire(1.0, 0)));
        world.routers().iter().for_each(|router| rewrite(router, |text| text + "\n[groups]\n"));
        world.start(PATIENCE).expect("both start");
        let (a, b) = (world.router("a"), world.router("b"));
        let bystander = join(b);
        until_view(&bystander, 1);
        // It joins, says much and nonsense between, reads no answer, and dies.
        let say = |number: u32| Request::SendGroup { bytes: number.to_string().into_bytes() }.to_line();
        let mut lines = Request::JoinGroup { group: "shift".into() }.to_line();
        lines += &(0..50).map(say).collect::<String>();
        lines += "no request\n{\"request\": \"join-group\", \"group\": \"\"}\n{\"request\": \"send-group\"}\n";
        lines += &(50..100).map(say).collect::<String>();
        let mut stream = UnixStream::connect(a.socket()).expect("connects");
        stream.write_all(lines.as_bytes()).expect("is read, or waits");
        until_view(&bystander, 2);
        let first: Vec<Vec<u8>> = hear(&bystander, 60).into_iter().map(|said| said.1).collect();
        drop(stream);
        let (_, signal, rest) = until_view(&bystander, 1);
        assert!(!signal, "who dies is not lost");
        let said: Vec<Vec<u8>> = first.into_iter().chain(rest).collect();
        let expected: Vec<Vec<u8>> = (0..said.len()).map(|number| number.to_string().into_bytes()).collect();
        assert_eq!(said, expected, "in its order, without holes");
        // A line without an end is refused, and is the end of its membership.
        let mut endless = UnixStream::connect(a.socket()).expect("connects");
        endless.write_all(Request::JoinGroup { group: "shift".into() }.to_line().as_bytes()).expect("is read");
        until_view(&bystander, 2);
        let _ = endless.write_all(&vec![b'x'; 1 << 20]);
        until_view(&bystander, 1);
        let good = join(a);
        until_view(&bystander, 2);
        until_view(&good, 2);
        talk(&bystander, &good, 20);
    });
}

#[test]
fn many_that_do_not_read_take_the_memory_of_one() {
    system_test("groups::many_that_do_not_read_take_the_memory_of_one", Machine::Shared, || {
        let world = world(Topology::chain(1, Conditions::wire(1.0, 0)));
        let a = world.router("a");
        rewrite(a, |text| text + "\n[groups]\nmembers = [\"a\"]\n");
        world.start(PATIENCE).expect("both start");
        let speaker = join(a);
        let sleepers: Vec<Group> = (0..SLEEPERS).map(|_| join(a)).collect();
        until_view(&speaker, 1 + SLEEPERS);
        let (bytes, before, mut peak) = (vec![7; 32 << 10], resident(a), 0);
        eventually("those that sleep are gone", || {
            speaker.send(&bytes).expect("is taken");
            peak = peak.max(resident(a));
            loop {
                match speaker.recv().expect("is told something") {
                    GroupEvent::View { members, .. } if members.len() == 1 => return Some(()),
                    GroupEvent::View { .. } => {}
                    GroupEvent::Message { .. } => return None,
                    GroupEvent::Transitional => panic!("no router is lost"),
                }
            }
        });
        let grown = peak.saturating_sub(before);
        assert!((4 << 10..40 << 10).contains(&grown), "{grown} KiB for {SLEEPERS} with 8 MiB unread each");
        assert_eq!(stats(a)[0]["groups"]["slow"].as_u64(), Some(SLEEPERS as u64));
        drop(sleepers);
    });
}

#[test]
fn one_that_does_not_read_is_let_go_and_one_without_groups_says_so() {
    system_test("groups::one_that_does_not_read_is_let_go_and_one_without_groups_says_so", Machine::Shared, || {
        let world = world(Topology::chain(1, Conditions::wire(1.0, 0)));
        let (a, b) = (world.router("a"), world.router("b"));
        rewrite(a, |text| text + "\n[groups]\nmembers = [\"a\"]\n");
        world.start(PATIENCE).expect("both start");
        let said = run(b, "show groups", 1);
        assert!(String::from_utf8_lossy(&said.stderr).contains("write [groups]"), "{said:?}");
        let (speaker, sleeper) = (join(a), join(a));
        until_view(&speaker, 2);
        let bytes = vec![7; 32 << 10];
        let mut sent = 0;
        // 8 MiB for it at the router, some in the kernel, in base64.
        let view = eventually("the one that sleeps is gone", || {
            speaker.send(&bytes).expect("is taken");
            sent += 1;
            match speaker.recv().expect("is told something") {
                GroupEvent::View { members, .. } => Some(members),
                GroupEvent::Message { .. } => None,
                GroupEvent::Transitional => panic!("no router is lost"),
            }
        });
        assert_eq!(view, [speaker.member()]);
        assert!((100..1_000).contains(&sent), "after {sent} messages");
        assert_eq!(stats(a)[0]["groups"]["slow"].as_u64(), Some(1));
        let over = loop {
            if let Err(over) = sleeper.recv() {
                break over;
            }
        };
        assert!(over.to_string().contains("join again"), "{over}");
        assert_eq!(sleeper.send(b"late").map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionAborted));
    });
}
