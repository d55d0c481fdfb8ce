//! Members that share virtual addresses, as operators run them, and a client that asks a thousand times a second: how
//! long nobody answers when something happens to the one that does, and whether ever a second one answers.
//!
//! Leases and the patience of links are ten times what a quiet network allows, and bounds generous: on a machine that stops
//! a process for a moment no owner is to lapse that was not struck. What was measured is printed; `perf/failover` measures
//! how quick it can be.

use crate::lan::{Traffic, Trail};
use crate::members::{Group, Members, name, status};
use crate::support::{Machine, eventually, parsed, say, system_test};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Between hellos, until a link is dead, and of a lease, in milliseconds.
const STEADY: [u64; 3] = [50, 600, LEASE.as_millis() as u64];
const LEASE: Duration = Duration::from_millis(500);
/// The same where nobody is to be suspected, whatever the machine does.
const CALM: [u64; 3] = [50, 3000, 3000];
/// How long nobody may answer after a fault that must be noticed first.
const NOTICED: Duration = Duration::from_secs(3);
/// The same for what members tell each other, or the kernel tells them.
const TOLD: Duration = Duration::from_secs(2);
/// What a loaded machine may add to a lease: an answer that was sent is read that much later.
const LATE: Duration = Duration::from_millis(300);
/// Long enough for what is still to come.
const WHILE: Duration = Duration::from_millis(300);
const SET: usize = 0;

/// A set of one address of each family.
fn both() -> Vec<IpAddr> {
    ["10.66.0.100", "fd66::100"].map(|text| text.parse().expect("an address")).into()
}

fn three() -> Members {
    Members::started(Group::new(3, vec![both()], STEADY))
}

fn probes(members: &Members) -> Vec<Traffic> {
    both().into_iter().map(|address| members.lan.probes(address)).collect()
}

fn finish(traffic: Vec<Traffic>) -> Vec<Trail> {
    traffic.into_iter().map(Traffic::finish).collect()
}

/// Lets something happen to the members while both addresses are asked for. Answers when it did, and what the client saw.
fn probed<T>(members: &mut Members, happens: impl FnOnce(&mut Members) -> T) -> (Instant, Vec<Trail>, T) {
    let traffic = probes(members);
    std::thread::sleep(WHILE);
    let struck = Instant::now();
    let told = happens(members);
    assert!(traffic[0].answers_within(TOLD / 4), "nobody answers any more");
    (struck, finish(traffic), told)
}

/// Says for how long nobody answered, which must be less than `bound`.
fn outage(what: &str, struck: Instant, trails: &[Trail], bound: Duration) {
    for (address, trail) in both().iter().zip(trails) {
        let gap = trail.longest_gap(struck);
        say(&format!("{what}: {address}: no answer for {gap:.1?}, {} of {} lost", lost(trail), trail.sent));
        assert!(gap < bound, "{what}: {address}: {gap:?}");
    }
}

fn lost(trail: &Trail) -> u64 {
    trail.lost().iter().map(|range| range.end() + 1 - range.start()).sum()
}

/// The client knows where both addresses are, and nobody answers, however it is asked, but the one that all agree on; soon,
/// since who handed them over accepts for a while what is still on its way.
fn only_one_answers(members: &Members) {
    let answered = |address: IpAddr, owner: usize| {
        let known = members.lan.probe(address, TOLD) == Some(owner as u8)
            && members.lan.believed(address) == Some(members.lan.places[owner].mac);
        known && members.lan.answerers(address) == [owner]
    };
    members.eventually("one member answers, and the client knows which", || {
        let owner = members.settled()[SET];
        both().into_iter().all(|address| answered(address, owner)).then_some(())
    });
}

/// Nothing of this member was heard from one lease after `struck` on.
fn silent_after_a_lease(member: usize, struck: Instant, trails: &[Trail]) {
    let late = struck + LEASE + LATE;
    trails.iter().for_each(|trail| assert!(!trail.who(late).contains(&(member as u8)), "{} answers", name(member)));
}

fn others(members: &Members, member: usize) -> Vec<usize> {
    (0..members.group.members).filter(|&other| other != member).collect()
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn of_whom_the_owner_is_killed_take_over_and_it_comes_back_with_nothing() {
    let name = "cluster::of_whom_the_owner_is_killed_take_over_and_it_comes_back_with_nothing";
    system_test(name, Machine::Alone, || {
        let mut members = three();
        let owner = members.settled()[SET];
        let (struck, trails, next) = probed(&mut members, |members| {
            members.signal(owner, libc::SIGKILL);
            members.ended(owner);
            members.settled()[SET]
        });
        outage("kill -9", struck, &trails, TOLD);
        silent_after_a_lease(owner, struck, &trails);
        only_one_answers(&members);
        both().iter().for_each(|&address| assert!(members.lan.has(owner, address), "the kernel alone silences it"));

        let (struck, trails, owners) = probed(&mut members, |members| {
            members.start(owner);
            members.settled()
        });
        outage("its return", struck, &trails, TOLD);
        assert_eq!(owners, [next], "nothing moves without need");
        both().iter().for_each(|&address| assert!(!members.lan.has(owner, address), "{address} was left"));
        only_one_answers(&members);
    });
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn of_whom_the_owner_freezes_take_over_and_it_never_answers_when_it_goes_on() {
    let name = "cluster::of_whom_the_owner_freezes_take_over_and_it_never_answers_when_it_goes_on";
    system_test(name, Machine::Alone, || {
        let mut members = three();
        let owner = members.settled()[SET];
        let rest = others(&members, owner);
        let (struck, trails, next) = probed(&mut members, |members| {
            members.signal(owner, libc::SIGSTOP);
            members.settled_among(&rest)[SET]
        });
        outage("SIGSTOP", struck, &trails, NOTICED);
        silent_after_a_lease(owner, struck, &trails);

        // One address is asked for where the client has it from, the other of the frozen owner itself.
        let [_, asked_of_it] = both()[..] else { unreachable!("one of each family") };
        members.lan.pin(asked_of_it, owner);
        let (resumed, trails, owners) = probed(&mut members, |members| {
            members.signal(owner, libc::SIGCONT);
            members.settled()
        });
        // It is silent until all have given it the set again, if they do.
        let given = owners == [owner];
        let since = answers_since(&members, owner);
        let early = trails[1].answers.iter().filter(|answer| !given || answer.at < since).count();
        assert_eq!(early, 0, "an owner that was resumed has answered: {}", members.log(owner));
        say(&format!("resumed: it is {}given the set again", if given { "" } else { "not " }));
        outage("resumed", resumed, &trails[..1], TOLD);
        assert!(given || owners == [next], "neither of the two that had it has it: {owners:?}");
        members.lan.forget(asked_of_it);
        only_one_answers(&members);
    });
}

/// When a member began to answer for the set for the last time, or a little before.
fn answers_since(members: &Members, member: usize) -> Instant {
    let before = Instant::now();
    let views = asked(members, member, "show views --json");
    let mut entries = views["entries"].as_array().expect("a list").iter().rev();
    let answers = |entry: &&Value| entry["text"].as_str().is_some_and(|text| text.contains("answers for s0"));
    let ago = entries.find(answers).expect("it had the set")["ago_s"].as_f64().expect("a number");
    before - Duration::from_secs_f64(ago)
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn of_whom_the_owner_is_cut_off_take_over_and_agree_when_it_is_back() {
    let name = "cluster::of_whom_the_owner_is_cut_off_take_over_and_agree_when_it_is_back";
    system_test(name, Machine::Alone, || {
        let mut members = three();
        let owner = members.settled()[SET];
        let rest = others(&members, owner);
        let (struck, trails, next) = probed(&mut members, |members| {
            members.lan.cut(owner, true);
            members.settled_among(&rest)[SET]
        });
        outage("silent cut", struck, &trails, NOTICED);
        assert_eq!(members.settled_among(&[owner]), [owner], "it covers its own part");
        merged(&mut members, next, &[owner]);
    });
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn that_were_cut_off_agree_with_the_owner_and_the_client_that_were_not() {
    let name = "cluster::that_were_cut_off_agree_with_the_owner_and_the_client_that_were_not";
    system_test(name, Machine::Alone, || {
        let mut members = three();
        let owner = members.settled()[SET];
        let rest = others(&members, owner);
        let (struck, trails, ()) = probed(&mut members, |members| {
            rest.iter().for_each(|&other| members.lan.cut(other, true));
            rest.iter().for_each(|&other| assert_eq!(members.settled_among(&[other]), [other]));
            members.settled_among(&[owner]);
        });
        outage("others cut off", struck, &trails, TOLD);
        merged(&mut members, owner, &rest);
    });
}

/// Heals the cuts of some members, of whom each thinks that it is the owner, as `before` does, to whom the client is used.
fn merged(members: &mut Members, before: usize, cut: &[usize]) {
    let (healed, trails, owner) = probed(members, |members| {
        cut.iter().for_each(|&member| members.lan.cut(member, false));
        members.settled()[SET]
    });
    say(&format!("merge: {} of {} had it, {} keeps it", 1 + cut.len(), members.group.members, name(owner)));
    outage("merge", healed, &trails, TOLD);
    let last = |trail: &Trail| trail.answers.last().map(|answer| usize::from(answer.who));
    trails.iter().for_each(|trail| assert_eq!(last(trail), Some(owner), "the client was with {}", name(before)));
    only_one_answers(members);
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn of_whom_the_owner_loses_its_carrier_take_over() {
    system_test("cluster::of_whom_the_owner_loses_its_carrier_take_over", Machine::Alone, || {
        let mut members = three();
        let owner = members.settled()[SET];
        let rest = others(&members, owner);
        let (struck, trails, next) = probed(&mut members, |members| {
            members.lan.plug(owner, false);
            members.settled_among(&rest)[SET]
        });
        outage("carrier loss", struck, &trails, NOTICED);
        assert_ne!(next, owner);
        members.lan.plug(owner, true);
        only_one_answers(&members);
    });
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn that_end_in_order_or_are_told_to_hand_over_lose_nothing() {
    let name = "cluster::that_end_in_order_or_are_told_to_hand_over_lose_nothing";
    system_test(name, Machine::Alone, || {
        let mut members = Members::started(Group::new(3, vec![both()], CALM));
        // The client looks for where they are; of what it sends meanwhile it may keep less than all.
        let known = |address| members.lan.probe(address, TOLD).is_some();
        assert!(both().into_iter().all(known), "nobody answers");
        let traffic: Vec<Traffic> = both().into_iter().map(|address| members.lan.traffic(address, 1000)).collect();
        let mut owners = vec![members.settled()[SET]];
        for turn in 0..4 {
            let to = (owners[0] + 1 + turn) % members.group.members;
            ordered(&members, turn % 3, &format!("vip move s0 {} --json", self::name(to)));
            owners.extend(members.settled());
            assert_eq!(owners.last(), Some(&to));
            std::thread::sleep(WHILE);
        }
        let drained = owners[4];
        ordered(&members, 0, &format!("vip drain {} --json", self::name(drained)));
        let asked = members.settled()[SET];
        assert_ne!(asked, drained);
        std::thread::sleep(WHILE);
        ordered(&members, 0, &format!("vip undrain {} --json", self::name(drained)));
        std::thread::sleep(WHILE);
        members.signal(asked, libc::SIGTERM);
        let end = members.ended(asked);
        members.settled();
        std::thread::sleep(WHILE);
        for (address, trail) in both().iter().zip(finish(traffic)) {
            let gap = trail.longest_gap(trail.answers[0].at);
            let heard = trail.who(trail.answers[0].at);
            say(&format!("moves, drain, SIGTERM: {address}: {} of {} lost, {gap:.1?}", lost(&trail), trail.sent));
            assert_eq!(trail.lost(), [], "of {}", trail.sent);
            assert_eq!(heard, BTreeSet::from([0, 1, 2]), "everybody had it");
        }
        assert!(end.success(), "{end}: {}", members.log(asked));
        both().iter().for_each(|&address| assert!(!members.lan.has(asked, address), "{address} was left"));
        only_one_answers(&members);
    });
}

/// Gives an order at a member, which must succeed.
fn ordered(members: &Members, member: usize, line: &str) {
    assert_eq!(asked(members, member, line), serde_json::json!({ "done": true }), "{line}");
}

/// What a command that asks a member prints as JSON.
fn asked(members: &Members, member: usize, line: &str) -> Value {
    let output = members.command(member, line).output().expect("the binary runs");
    assert!(output.status.success(), "sinew {line}: {}", String::from_utf8_lossy(&output.stderr));
    parsed(line, &output.stdout)
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn with_another_configuration_are_refused_aloud_and_the_others_go_on() {
    let name = "cluster::with_another_configuration_are_refused_aloud_and_the_others_go_on";
    system_test(name, Machine::Alone, || {
        let mut members = Members::new(Group::new(3, vec![both()], STEADY));
        let text = std::fs::read_to_string(members.config(2)).expect("has a configuration");
        let other = text.replace("10.66.0.100", "10.66.0.150");
        std::fs::write(members.config(2), other).expect("is written");
        (0..3).for_each(|member| members.start(member));
        let owner_of = |members: &Members, member| {
            let status = members.status(member).ok()?;
            let unequal = &status.members[2].excluded;
            let refused = unequal.as_ref().is_some_and(|why| why.contains("another configuration"));
            status.owner(SET).filter(|_| refused)
        };
        let owner = members.eventually("a and b share, and say that c may not", || {
            owner_of(&members, 0).filter(|&owner| owner_of(&members, 1) == Some(owner))
        });
        assert_ne!(owner, 2);
        for member in 0..3 {
            let said = members.log(member).lines().any(|line| line.contains("WARN") && line.contains("another [vip]"));
            assert!(said, "{}", members.log(member));
        }
        members.signal(owner, libc::SIGKILL);
        members.ended(owner);
        let last = 1 - owner;
        members.eventually("the other equal one takes over", || (owner_of(&members, last) == Some(last)).then_some(()));
        // The killed one's lease may not be over.
        members.eventually("only it answers", || (members.lan.answerers(both()[0]) == [last]).then_some(()));
        let its_own: IpAddr = "10.66.0.150".parse().expect("an address");
        assert!(!members.lan.has(2, its_own) && !members.lan.has(2, both()[0]), "c holds something");
        assert!(members.running().contains(&2) && members.status(2).is_ok(), "c runs on");
    });
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn say_as_json_what_is_and_what_was() {
    system_test("cluster::say_as_json_what_is_and_what_was", Machine::Shared, || {
        let mut members = three();
        let owner = members.settled()[SET];
        let rest = others(&members, owner);
        let shown = asked(&members, owner, "vip status --json --check");
        let set = &shown["sets"][SET];
        assert_eq!((&set["set"], &set["owner"], &set["acquired"]), (&"s0".into(), &name(owner).into(), &true.into()));
        assert_eq!((&set["here"], &set["from"]), (&"owning".into(), &Value::Null), "{set}");
        assert_eq!(set["addresses"], serde_json::json!(["10.66.0.100@eth0", "fd66::100@eth0"]));
        assert_eq!(shown["view"]["members"].as_array().map(Vec::len), Some(3), "{shown}");
        assert_eq!(shown["degraded"], serde_json::json!([]));

        members.signal(owner, libc::SIGKILL);
        members.ended(owner);
        let next = members.settled()[SET];
        let shown = asked(&members, rest[0], "vip status --json --check");
        assert_eq!(shown["sets"][SET]["owner"], name(next));
        assert_eq!(shown["members"][owner]["here"], false, "{shown}");
        let because = shown["members"][owner]["excluded"].as_str().expect("is said");
        assert!(because.starts_with("away"), "{because}");
        let views = asked(&members, next, "show views --json");
        let entries = views["entries"].as_array().expect("a list");
        let lost = format!("{} cannot be reached", name(owner));
        let texts = || entries.iter().map(|entry| entry["text"].as_str().expect("is text"));
        // Another member may notice it first, and say so.
        assert!(texts().any(|text| text.contains(&lost)), "{views:#}");
        let mut rest = texts();
        for step in ["ends: ", "view ", "s0 is given to", "this router answers for s0"] {
            assert!(rest.any(|text| text.contains(step)), "no {step:?}, in this order, in {views:#}");
        }
        let ago: Vec<f64> = entries.iter().map(|entry| entry["ago_s"].as_f64().expect("a number")).collect();
        assert!(ago.is_sorted_by(|before, after| before >= after), "{ago:?}");
        assert!(entries.iter().all(|entry| !entry["event"].is_null()), "{views:#}");
    });
}

/// Sets of one address each, of the hosts' own network.
fn many(sets: u8) -> Vec<Vec<IpAddr>> {
    (0..sets).map(|set| vec![IpAddr::from([10, 66, 0, 50 + set])]).collect()
}

#[test]
#[ignore = "its times want a machine that does nothing else: cargo test --release --test system cluster:: -- --ignored"]
fn with_two_hundred_sets_share_them_and_those_of_one_that_dies() {
    let name = "cluster::with_two_hundred_sets_share_them_and_those_of_one_that_dies";
    system_test(name, Machine::Alone, || {
        let mut members = Members::started(Group::new(5, many(200), CALM));
        let owners = members.settled();
        assert_spread(&owners, 5);
        assert_eq!(roll(&members), answered_by(&owners));
        let dying = owners[SET];
        let watched = if dying == 0 { 1 } else { 0 };
        let overlay = members.overlay(watched).expect("runs");
        let struck = Instant::now();
        members.signal(dying, libc::SIGKILL);
        members.ended(dying);
        let covered = eventually("all sets are covered again", || {
            let status = status(&overlay).expect("answers");
            let by = |set: usize| status.owner(set).is_some_and(|owner| owner != dying);
            (0..200).all(by).then(|| struck.elapsed())
        });
        say(&format!("200 sets, one of five killed: all covered after {covered:.1?}, as another says"));
        assert!(covered < NOTICED, "{covered:?}");
        let after = members.settled();
        assert_spread(&after, 4);
        let moved = owners.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert_eq!(moved, owners.iter().filter(|&&owner| owner == dying).count(), "others' sets were moved");
        assert_eq!(roll(&members), answered_by(&after));
    });
}

/// Every member that has sets has as many as each other one, or one more.
fn assert_spread(owners: &[usize], members: usize) {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    owners.iter().for_each(|&owner| *counts.entry(owner).or_default() += 1);
    let (least, most) = (counts.values().min(), counts.values().max());
    let even = counts.len() == members && most.zip(least).is_some_and(|(most, least)| most - least <= 1);
    assert!(even, "{counts:?}");
}

fn answered_by(owners: &[usize]) -> BTreeMap<u64, u8> {
    owners.iter().enumerate().map(|(set, &owner)| (set as u64, owner as u8)).collect()
}

/// Who answers for each set, asked by the client until each has been answered for.
fn roll(members: &Members) -> BTreeMap<u64, u8> {
    let open = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(socket)
    };
    let client = &members.lan.places[members.lan.client()].namespace;
    let socket = client.run(open).expect("a socket");
    let sets = &members.group.sets;
    let mut answers = BTreeMap::new();
    eventually("every set is answered for", || {
        for (set, addresses) in sets.iter().enumerate().filter(|(set, _)| !answers.contains_key(&(*set as u64))) {
            // An error is the kernel's word about one before.
            let _ = socket.send_to(&(set as u64).to_be_bytes(), SocketAddr::new(addresses[0], crate::lan::PORT));
        }
        let mut packet = [0; 16];
        while let Ok((9, _)) = socket.recv_from(&mut packet) {
            answers.insert(u64::from_be_bytes(*packet.first_chunk().expect("sixteen bytes")), packet[8]);
        }
        (answers.len() == sets.len()).then_some(())
    });
    answers
}
