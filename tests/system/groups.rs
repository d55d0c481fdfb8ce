//! Process groups over routers that are not all neighbours: who is in, what is said, cut, merged, killed.

use crate::support::{
    Machine, PATIENCE, eventually, file, json, parsed, rewrite, run, sinew, stats, system_test, wait_answering, world,
};
use sinew::client::{Group, GroupEvent};
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{Router, Topology, World};
use std::fs::File;
use std::io::{self, Write as _};
use std::process::Stdio;
use std::time::Instant;

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
            (text.lines().count() == 2).then_some(text)
        });
        let lines: Vec<_> = lines.lines().map(|line| parsed(line, line.as_bytes())).collect();
        assert_eq!((&lines[0]["event"], &lines[1]["text"]), (&"view".into(), &"from c".into()));
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
fn one_that_does_not_read_is_let_go_and_one_without_groups_says_so() {
    system_test("groups::one_that_does_not_read_is_let_go", Machine::Shared, || {
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
        while sleeper.recv().is_ok() {}
        assert_eq!(sleeper.send(b"late").map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionAborted));
    });
}
