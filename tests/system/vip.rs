//! Virtual addresses on real hosts: reached, handed over, silent when their owner has no right to them any more.

use crate::holder::Holder;
use crate::lan::Lan;
use crate::support::{Machine, PATIENCE, eventually, say, system_test};
use sinew::lab::netns::sysctl;
use sinew::proto::vip::{HostCommand, HostReport};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Short where its end is what is looked at, long where it must not end on a machine that has stopped for a moment.
const LEASE: Duration = Duration::from_millis(200);
const CALM: Duration = Duration::from_secs(3);
/// Long enough for anything that is still to come.
const WHILE: Duration = Duration::from_millis(200);
/// What a loaded machine may add to what the kernel does in time: an answer that was sent is read that much later.
const LATE: Duration = Duration::from_millis(60);
const A: usize = 0;
const B: usize = 1;
const SET: usize = 0;
const BOTH: &str = "10.66.0.100@eth0 fd66::100@eth0";

fn addresses() -> [IpAddr; 2] {
    ["10.66.0.100", "fd66::100"].map(|text| text.parse().expect("an address"))
}

fn is_carrier(report: &HostReport) -> bool {
    matches!(report, HostReport::Carrier { .. })
}

#[test]
fn are_reached_when_held_and_leave_nothing_when_not() {
    system_test("vip::are_reached_when_held_and_leave_nothing_when_not", Machine::Shared, || {
        let lan = Lan::new(1);
        let _echoes = addresses().map(|address| lan.echo(A, address));
        let mut a = Holder::start(&lan, A, CALM, BOTH);
        assert_eq!(a.greeting, "ready ", "nothing is missing on this machine");
        assert_eq!(lan.probe(addresses()[0], Duration::from_millis(50)), None);
        a.acquire(SET);
        for address in addresses() {
            assert_eq!(lan.probe(address, PATIENCE), Some(A as u8), "{address}");
            assert_eq!(lan.believed(address), Some(lan.places[A].mac), "{address}");
        }
        // Long enough for several leases.
        let trail = run_traffic(&lan, addresses()[0], WHILE * 5);
        assert_eq!(trail.lost(), [], "of {}", trail.sent);
        a.tell(&HostCommand::Release { set: SET });
        a.wait("released", |report| *report == HostReport::Released { set: SET });
        for address in addresses() {
            assert!(!lan.has(A, address), "{address} is still there");
            lan.forget(address);
            assert_eq!(lan.probe(address, Duration::from_millis(50)), None);
        }
        let hooked = format!("acquired {BOTH}\nreleased {BOTH}\n");
        eventually("the hook ran twice", || (a.hooked() == hooked).then_some(()));
        a.acquire(SET);
        let said = a.end();
        assert!(said.iter().any(|line| line == "over"), "{said:?}");
        assert!(said.iter().any(|line| line.contains("lapses: 0") && line.contains("renewals_failed: 0")), "{said:?}");
        addresses().iter().for_each(|&address| assert!(!lan.has(A, address), "a clean end leaves {address}"));
    });
}

fn run_traffic(lan: &Lan, address: IpAddr, time: Duration) -> crate::lan::Trail {
    let traffic = lan.traffic(address, 1000);
    std::thread::sleep(time);
    traffic.finish()
}

#[test]
fn of_a_killed_owner_are_silent_after_one_lease_and_taken_off_at_the_next_start() {
    let name = "vip::of_a_killed_owner_are_silent_after_one_lease_and_taken_off_at_the_next_start";
    system_test(name, Machine::Alone, || {
        for address in addresses() {
            let lan = Lan::new(1);
            let _echo = lan.echo(A, address);
            let mut a = Holder::start(&lan, A, LEASE, BOTH);
            a.acquire(SET);
            falls_silent(&lan, &a, address, libc::SIGKILL);
            drop(a);
            let mut a = Holder::start(&lan, A, LEASE, BOTH);
            addresses().iter().for_each(|&address| assert!(!lan.has(A, address), "{address} was left"));
            assert_eq!(lan.probe(address, Duration::from_millis(50)), None);
            a.acquire(SET);
            assert_eq!(lan.probe(address, PATIENCE), Some(A as u8));
        }
    });
}

#[test]
fn of_a_stopped_owner_are_silent_after_one_lease_and_stay_so_when_it_goes_on() {
    let name = "vip::of_a_stopped_owner_are_silent_after_one_lease_and_stay_so_when_it_goes_on";
    system_test(name, Machine::Alone, || {
        for address in addresses() {
            let lan = Lan::new(1);
            let _echo = lan.echo(A, address);
            let mut a = Holder::start(&lan, A, LEASE, BOTH);
            a.acquire(SET);
            falls_silent(&lan, &a, address, libc::SIGSTOP);
            let traffic = lan.traffic(address, 1000);
            a.signal(libc::SIGCONT);
            let lost = a.wait("lost", |report| matches!(report, HostReport::Lapsed));
            std::thread::sleep(LEASE * 3);
            assert_eq!(traffic.finish().answers.len(), 0, "an owner that was resumed has answered: {lost:?}");
            assert_eq!(lan.believed(address), None, "or told where it is");
            assert!(!lan.has(A, address), "it has taken off what it lost");
            a.acquire(SET);
            assert_eq!(lan.probe(address, PATIENCE), Some(A as u8), "it may be given it again");
        }
    });
}

/// Sends the owner a signal under traffic: the last answer comes within one lease, and after that the client cannot even
/// learn where the address is.
fn falls_silent(lan: &Lan, owner: &Holder, address: IpAddr, signal: i32) {
    assert!(lan.hears(A, address), "an owner may speak");
    let traffic = lan.traffic(address, 1000);
    std::thread::sleep(LEASE);
    owner.signal(signal);
    let struck = Instant::now();
    std::thread::sleep(LEASE * 5);
    let trail = traffic.finish();
    let last = trail.answers.last().expect("it was reached before").at;
    let after = last.saturating_duration_since(struck);
    say(&format!("signal {signal}: {address} answered for {after:?} more, of a lease of {LEASE:?}"));
    assert!(last > struck - LEASE / 2, "it was reached until then: {:?}", struck - last);
    assert!(after < LEASE + LATE, "{after:?}");
    lan.forget(address);
    assert_eq!(lan.probe(address, LEASE * 2), None);
    assert!(lan.has(A, address), "the kernel alone has silenced it");
    assert!(!lan.hears(A, address), "it begins conversations");
    assert_eq!(lan.believed(address), None, "the client has learned it again");
}

#[test]
fn are_lost_when_control_hangs() {
    system_test("vip::are_lost_when_control_hangs", Machine::Shared, || {
        let lan = Lan::new(1);
        let _echo = lan.echo(A, addresses()[0]);
        let mut a = Holder::start(&lan, A, LEASE, BOTH);
        a.acquire(SET);
        assert_eq!(lan.probe(addresses()[0], PATIENCE), Some(A as u8));
        let begin = Instant::now();
        a.hang();
        a.wait("lost", |report| matches!(report, HostReport::Lapsed));
        assert!(begin.elapsed() < PATIENCE / 2);
        addresses().iter().for_each(|&address| assert!(!lan.has(A, address), "{address}"));
        a.tell(&HostCommand::Acquire { set: SET, wait: Duration::ZERO, from: None });
        let refused = a.wait("failed", |report| !is_carrier(report));
        assert!(matches!(&refused, HostReport::Failed { why, .. } if why.contains("control")), "{refused:?}");
    });
}

#[test]
fn are_lost_when_control_finds_that_it_stood_still_though_the_lease_runs() {
    let name = "vip::are_lost_when_control_finds_that_it_stood_still_though_the_lease_runs";
    system_test(name, Machine::Shared, || {
        let lan = Lan::new(1);
        let mut a = Holder::start(&lan, A, CALM, BOTH);
        let gone = || addresses().iter().all(|&address| !lan.has(A, address)).then_some(());
        a.acquire(SET);
        a.wake();
        a.wait("lost", |report| *report == HostReport::Lapsed);
        eventually("it is taken off", gone);
        a.acquire(SET);
        a.tell(&HostCommand::Release { set: SET });
        a.wait("released", |report| *report == HostReport::Released { set: SET });
        // What was ordered before is void, whether the keeper has begun it or not.
        a.tell(&HostCommand::Acquire { set: SET, wait: WHILE, from: None });
        a.wake();
        std::thread::sleep(WHILE * 4);
        assert!(!a.reports().contains(&HostReport::Acquired { set: SET }));
        assert!(gone().is_some());
        a.acquire(SET);
    });
}

#[test]
fn move_without_a_packet_lost() {
    system_test("vip::move_without_a_packet_lost", Machine::Alone, || {
        let lan = Lan::new(2);
        for address in addresses() {
            let _echoes = [A, B].map(|host| lan.echo(host, address));
            let mut holders = [A, B].map(|host| Holder::start(&lan, host, CALM, BOTH));
            holders[A].acquire(SET);
            assert_eq!(lan.probe(address, PATIENCE), Some(A as u8));
            let traffic = lan.traffic(address, 10_000);
            for (from, to) in [(A, B), (B, A)].into_iter().cycle().take(10) {
                std::thread::sleep(Duration::from_millis(30));
                holders[from].tell(&HostCommand::Mute { set: SET });
                holders[to].acquire(SET);
                std::thread::sleep(Duration::from_millis(50));
                holders[from].tell(&HostCommand::Release { set: SET });
                holders[from].wait("released", |report| *report == HostReport::Released { set: SET });
            }
            std::thread::sleep(Duration::from_millis(30));
            let trail = traffic.finish();
            let by = |host: usize| trail.answers.iter().filter(|answer| answer.who == host as u8).count();
            say(&format!("{address}: 10 moves under {} packets: {} by a, {} by b", trail.sent, by(A), by(B)));
            let said = holders.map(Holder::end);
            assert_eq!(trail.lost(), [], "of {}: {said:?}", trail.sent);
            assert!(by(A) > 0 && by(B) > 0, "it did not move");
            assert_eq!(lan.believed(address), Some(lan.places[A].mac));
        }
    });
}

#[test]
fn that_are_mute_accept_and_answer_but_nobody_learns_where_they_are() {
    let name = "vip::that_are_mute_accept_and_answer_but_nobody_learns_where_they_are";
    system_test(name, Machine::Shared, || {
        let lan = Lan::new(1);
        let _echoes = addresses().map(|address| lan.echo(A, address));
        let mut a = Holder::start(&lan, A, CALM, BOTH);
        a.acquire(SET);
        for address in addresses() {
            assert_eq!(lan.probe(address, PATIENCE), Some(A as u8), "{address}");
        }
        a.tell(&HostCommand::Mute { set: SET });
        std::thread::sleep(WHILE);
        for address in addresses() {
            assert_eq!(lan.probe(address, PATIENCE), Some(A as u8), "{address}: the client knew it");
            lan.forget(address);
            assert_eq!(lan.probe(address, WHILE), None, "{address}");
        }
        a.tell(&HostCommand::Announce { set: SET });
        for address in addresses() {
            assert_eq!(lan.probe(address, PATIENCE), Some(A as u8), "{address}");
        }
    });
}

#[test]
fn held_by_another_too_are_noticed_by_both() {
    system_test("vip::held_by_another_too_are_noticed_by_both", Machine::Shared, || {
        let lan = Lan::new(2);
        let mut holders = [A, B].map(|host| Holder::start(&lan, host, CALM, BOTH));
        holders[A].acquire(SET);
        holders[B].acquire(SET);
        let mac = |host: usize| lan.places[host].mac.map(|byte| format!("{byte:02x}")).join(":");
        for address in addresses() {
            let rival = |mac: String| HostReport::Rival { set: SET, address, who: mac };
            holders[A].tell(&HostCommand::Announce { set: SET });
            holders[B].tell(&HostCommand::Announce { set: SET });
            holders[A].wait("a sees b", |report| *report == rival(mac(B)));
            holders[B].wait("b sees a", |report| *report == rival(mac(A)));
        }
        // Who has handed it over expects the other.
        holders[A].tell(&HostCommand::Mute { set: SET });
        std::thread::sleep(WHILE);
        holders[A].reports();
        holders[B].tell(&HostCommand::Announce { set: SET });
        std::thread::sleep(WHILE);
        assert_eq!(holders[A].reports(), []);
    });
}

#[test]
fn of_a_set_are_there_all_or_none() {
    system_test("vip::of_a_set_are_there_all_or_none", Machine::Shared, || {
        let lan = Lan::new(1);
        let of_somebody: IpAddr = "10.66.0.101".parse().expect("an address");
        lan.in_host(A, |netlink, index| netlink.add_address(index, of_somebody, 32)).expect("is added");
        let sets = format!("{BOTH};10.66.0.102@eth0 10.66.0.103@eth9;10.66.0.104@eth0 10.66.0.101@eth0");
        let mut a = Holder::start(&lan, A, CALM, &sets);
        for (set, absent, why) in [(1, "10.66.0.102", "eth9"), (2, "10.66.0.104", "not from us")] {
            a.tell(&HostCommand::Acquire { set, wait: Duration::ZERO, from: None });
            let failed = a.wait("failed", |report| !is_carrier(report));
            assert!(
                matches!(&failed, HostReport::Failed { set: of, why: said } if *of == set && said.contains(why)),
                "{failed:?}"
            );
            assert!(!lan.has(A, absent.parse().expect("an address")), "half of set {set} is there");
        }
        assert!(lan.has(A, of_somebody), "what is another's stays");

        // Somebody takes one address off: the other goes too.
        a.acquire(SET);
        let [v4, v6] = addresses();
        lan.in_host(A, |netlink, index| netlink.delete_address(index, v6, 128)).expect("is taken off");
        let lost = a.wait("lost", |report| matches!(report, HostReport::Lost { .. }));
        assert!(matches!(&lost, HostReport::Lost { set: SET, why } if why.contains("fd66::100")), "{lost:?}");
        assert!(!lan.has(A, v4));
        a.acquire(SET);
        assert!(lan.has(A, v4) && lan.has(A, v6));
    });
}

#[test]
fn are_announced_again_when_the_carrier_is_back_and_lost_with_their_interface() {
    let name = "vip::are_announced_again_when_the_carrier_is_back_and_lost_with_their_interface";
    system_test(name, Machine::Shared, || {
        let lan = Lan::new(1);
        let address = addresses()[0];
        let _echo = lan.echo(A, address);
        let mut a = Holder::start(&lan, A, CALM, "10.66.0.100@eth0");
        // An address of the host's own comes with the loss: links may have paths from there.
        let own: IpAddr = "10.66.0.10".parse().expect("an address");
        let carrier = |report: &HostReport, wanted: bool| match report {
            HostReport::Carrier { interface, up, addresses } => {
                interface == "eth0" && *up == wanted && addresses.contains(&own) != wanted
            }
            _ => false,
        };
        a.wait("as it is", |report| carrier(report, true));
        a.acquire(SET);
        // What is announced after this is not for having been acquired, but for the carrier; until five seconds are over.
        std::thread::sleep(Duration::from_millis(1200));
        let begin = Instant::now();
        lan.plug(A, false);
        a.wait("no carrier", |report| carrier(report, false));
        say(&format!("a carrier's loss was reported after {:?}", begin.elapsed()));
        // The client believes announcements of whom it never asked for, and asks nobody.
        lan.in_host(lan.client(), |_, _| sysctl("ipv4/conf/eth0/arp_accept", "1")).expect("a knob");
        lan.forget(address);
        lan.plug(A, true);
        a.wait("a carrier", |report| carrier(report, true));
        let back = Instant::now();
        eventually("it is announced", || lan.believed(address).filter(|&mac| mac == lan.places[A].mac));
        assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
        assert_eq!(lan.probe(address, PATIENCE), Some(A as u8));
        lan.in_host(A, |netlink, index| netlink.delete(index)).expect("is removed");
        a.wait("lost", |report| matches!(report, HostReport::Lost { set: SET, .. }));
        a.tell(&HostCommand::Acquire { set: SET, wait: Duration::ZERO, from: None });
        a.wait("failed", |report| matches!(report, HostReport::Failed { set: SET, .. }));
    });
}

#[test]
fn are_acquired_only_when_the_dead_owners_lease_is_over() {
    system_test("vip::are_acquired_only_when_the_dead_owners_lease_is_over", Machine::Shared, || {
        let lan = Lan::new(1);
        let mut a = Holder::start(&lan, A, CALM, BOTH);
        let begin = Instant::now();
        a.tell(&HostCommand::Acquire { set: SET, wait: WHILE, from: None });
        a.wait("acquired", |report| *report == HostReport::Acquired { set: SET });
        assert!(begin.elapsed() >= WHILE, "{:?}", begin.elapsed());
        a.tell(&HostCommand::ReleaseAll);
        a.wait("released", |report| *report == HostReport::Released { set: SET });
        a.tell(&HostCommand::Acquire { set: SET, wait: WHILE * 3, from: None });
        a.tell(&HostCommand::Release { set: SET });
        a.wait("released", |report| *report == HostReport::Released { set: SET });
        std::thread::sleep(WHILE * 4);
        assert_eq!(a.reports(), [], "it was told not to");
    });
}

#[test]
fn are_not_acquired_by_one_who_slept_through_the_lease_while_it_waited() {
    let name = "vip::are_not_acquired_by_one_who_slept_through_the_lease_while_it_waited";
    system_test(name, Machine::Shared, || {
        let lan = Lan::new(1);
        let mut a = Holder::start(&lan, A, LEASE, BOTH);
        a.wait("as it is", is_carrier);
        a.tell(&HostCommand::Acquire { set: SET, wait: LEASE * 3, from: None });
        std::thread::sleep(LEASE);
        a.signal(libc::SIGSTOP);
        std::thread::sleep(LEASE * 4);
        a.signal(libc::SIGCONT);
        let lost = a.wait("lost", |report| !is_carrier(report));
        assert_eq!(lost, HostReport::Lapsed);
        assert!(addresses().iter().all(|&address| !lan.has(A, address)));
    });
}

#[test]
fn are_looked_after_by_one_router_of_a_host() {
    system_test("vip::are_looked_after_by_one_router_of_a_host", Machine::Shared, || {
        let lan = Lan::new(1);
        let mut first = Holder::start(&lan, A, CALM, BOTH);
        first.acquire(SET);
        let second = Holder::start(&lan, A, CALM, BOTH);
        assert!(second.greeting.starts_with("refused another router"), "{}", second.greeting);
        assert!(addresses().iter().all(|&address| lan.has(A, address)));
        drop(first);
        eventually("its place is free", || {
            let third = Holder::start(&lan, A, CALM, BOTH);
            third.greeting.starts_with("ready").then_some(())
        });
    });
}
