//! Every recommendation, from machines that were made up.

use super::*;
use crate::config::settings::{Io, Workers};
use crate::runtime::machine::Topology;
use crate::runtime::machine::topology::Cpu;
use crate::tune::facts::SleepState;
use crate::tune::idle::{Comparison, IdleCost};
use crate::tune::interfaces::{Interface, Interrupt, Queue};
use crate::tune::measure::{DatagramCost, Noise, Wake};
use crate::tune::{Report, Wanted};
use std::collections::BTreeMap;
use std::path::Path;

/// A machine on which nothing is to be done, with the configuration that suits it.
fn good(cores: usize) -> (Facts, Wanted) {
    let cpu = |id| Cpu { id, core: id, node: 0, isolated: false, tickless: false, efficient: false };
    let topology =
        Topology { cpus: (0..cores).map(cpu).collect(), allowed: (0..cores).collect(), ..Topology::default() };
    let facts = Facts {
        kernel: "6.18.1".into(),
        topology,
        governors: BTreeMap::from([(0, "performance".to_owned())]),
        sleep_states: vec![sleep_state("C1", 2)],
        clock: "tsc".into(),
        clocks: vec!["tsc".into(), "hpet".into()],
        receive_buffer_max: Some(4 << 20),
        send_buffer_max: Some(4 << 20),
        uring: Some("deferred task work".into()),
        trains: true,
        ..Facts::default()
    };
    let idle = if cores < 3 { Idle::Wait } else { Idle::Adaptive };
    let cores = if cores < 2 { Cores::List(Vec::new()) } else { Cores::Auto };
    (facts, Wanted { workers: Workers { cores, idle, ..Workers::default() }, ..Wanted::default() })
}

fn sleep_state(name: &str, exit_us: u64) -> SleepState {
    SleepState { name: name.to_owned(), exit_us }
}

fn report(facts: &Facts, wanted: &Wanted) -> Report {
    Report::of(facts.clone(), None, wanted)
}

fn check(facts: &Facts, wanted: &Wanted, name: &str) -> Check {
    let found = report(facts, wanted).checks.into_iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check is called {name}"))
}

/// What a change of a good machine makes of a check: its state, and everything it says.
fn changed(name: &str, change: impl FnOnce(&mut Facts, &mut Wanted)) -> (State, String) {
    let (mut facts, mut wanted) = good(8);
    change(&mut facts, &mut wanted);
    let check = check(&facts, &wanted, name);
    (check.state, [&[check.found, check.cost, check.advice][..], &check.commands].concat().join("\n"))
}

fn measured() -> Measured {
    let cost = |io, batch, trains, ns| DatagramCost { io, batch, trains, bytes: 1200, ns };
    let idle = |idle, added_us, cpu_percent| IdleCost {
        idle,
        per_second: 1_000,
        p50_us: 7.0 + added_us,
        p99_us: 40.0,
        added_us,
        cpu_percent,
        samples: 300,
        lost: 0,
    };
    let costs = vec![idle(Idle::Spin, 5.0, 100.0), idle(Idle::Adaptive, 31.0, 4.0), idle(Idle::Wait, 30.0, 3.0)];
    Measured {
        noise: Noise { timer_p50_us: 55.0, taken_percent: 0.5, steal_percent: 0.1, ..Noise::default() },
        clock_ns: 23.0,
        call_ns: 120.0,
        wake: Some(Wake { p50_us: 11.0, p99_us: 30.0, ring_p50_us: 4.0 }),
        datagrams: vec![
            cost("mmsg", 1, false, 3600.0),
            cost("mmsg", 64, false, 3000.0),
            cost("uring", 64, false, 3100.0),
            cost("mmsg", 64, true, 500.0),
        ],
        idle: Some(Comparison { direct_p50_us: 7.0, direct_p99_us: 12.0, costs }),
        worker_core: Some(1),
        other_core: Some(0),
    }
}

#[test]
fn on_a_good_machine_nothing_is_to_be_done() {
    for cores in [1, 2, 3, 8] {
        let (facts, wanted) = good(cores);
        let report = report(&facts, &wanted);
        let advised: Vec<&Check> = report.checks.iter().filter(|check| check.state == State::Advice).collect();
        assert!(report.to_do == 0 && advised.is_empty(), "{cores} cores: {advised:#?}");
        assert!(!report.configuration.differs, "{:?}", report.configuration);
    }
}

#[test]
fn the_configuration_follows_the_machine() {
    let recommended = |facts: &Facts, wanted: &Wanted| recommend(facts, None, wanted);
    let plain = Wanted::default();
    let has = |facts: &Facts, wanted: &Wanted, lines: [&str; 2]| {
        let found = recommended(facts, wanted);
        for line in lines {
            assert!(found.text.lines().any(|have| have == line), "{line} is not in {found:?}");
        }
    };
    has(&good(1).0, &plain, ["cores = []", "idle = \"wait\""]);
    has(&good(2).0, &plain, ["cores = \"auto\"", "idle = \"wait\""]);
    has(&good(4).0, &plain, ["cores = \"auto\"", "idle = \"adaptive\""]);
    let (mut isolated, _) = good(8);
    isolated.topology.cpus[5].isolated = true;
    has(&isolated, &plain, ["cores = \"auto\"", "idle = \"spin\""]);
    let (mut limited, _) = good(8);
    limited.topology.quota = Some(1.0);
    has(&limited, &plain, ["cores = \"auto\"", "idle = \"wait\""]);
    let (mut swapping, _) = good(8);
    swapping.swap = true;
    has(&swapping, &plain, ["[memory]", "lock = \"on\""]);
    let own = Wanted { workers: Workers { cores: Cores::List(vec![3]), ..Workers::default() }, ..Wanted::default() };
    has(&good(8).0, &own, ["cores = [3]", "idle = \"adaptive\""]);
    let gone = Wanted { workers: Workers { cores: Cores::List(vec![99]), ..Workers::default() }, ..Wanted::default() };
    has(&good(8).0, &gone, ["cores = \"auto\"", "count = 1"]);
    let reasons = recommended(&good(8).0, &gone).reasons;
    assert!(reasons.iter().any(|reason| reason.key == "cores" && reason.why.contains("no core 99")), "{reasons:?}");
}

/// What is printed is a configuration.
#[test]
fn the_recommended_text_is_read_back() {
    let (facts, wanted) = good(8);
    let text =
        recommend(&facts, None, &Wanted { workers: Workers { realtime: Some(10), ..wanted.workers }, ..wanted }).text;
    let whole = |text: &str| {
        let identity = crate::base::Identity::from_seed([1; 32]).public();
        format!("name = \"a\"\nkey = \"a.key\"\n{text}\n[[member]]\nname = \"a\"\npublic = \"{identity}\"\n")
    };
    let read = crate::config::parse(Path::new("a.toml"), &whole(&text)).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((read.workers.cores, read.workers.idle, read.workers.realtime), (Cores::Auto, Idle::Adaptive, Some(10)));
}

#[test]
fn a_configuration_that_would_be_refused_or_starve_others_is_said() {
    let (state, said) = changed("configuration", |_, wanted| wanted.workers.idle = Idle::Wait);
    assert!(state == State::Advice && said.contains("idle is \"wait\": as fast as spinning"), "{said}");
    let (mut facts, mut wanted) = good(8);
    facts.topology.cpus[5].isolated = true;
    facts.realtime_throttle = Some(950_000);
    (wanted.workers.idle, wanted.workers.realtime) = (Idle::Spin, Some(10));
    let check = check(&facts, &wanted, "configuration");
    assert!(check.state == State::Advice && check.cost.contains("sched_rt_runtime_us=-1"), "{check:?}");
}

#[test]
fn interrupts_are_sent_away_from_the_workers() {
    let card = |list: &str| Interface {
        name: "eth0".into(),
        interrupts: vec![Interrupt { number: 41, name: "eth0-rx".into(), cpus: CpuSet::from_list(list) }],
        queues: Vec::new(),
    };
    let (state, said) = changed("interrupts", |facts, _| facts.interfaces = vec![card("1")]);
    assert!(state == State::Advice && said.contains("eth0 eth0-rx (41) arrive where workers run (cores 1)"), "{said}");
    assert!(said.ends_with("echo 0,2-7 > /proc/irq/41/smp_affinity_list") && !said.contains("irqbalance"), "{said}");
    let (_, said) = changed("interrupts", |facts, _| (facts.interfaces, facts.irqbalance) = (vec![card("0-7")], true));
    assert!(said.contains("IRQBALANCE_BANNED_CPULIST=1 ") && said.contains("restart irqbalance"), "{said}");
    assert_eq!(changed("interrupts", |facts, _| facts.interfaces = vec![card("0,3")]).0, State::Good);
    assert_eq!(changed("interrupts", |_, _| {}).0, State::Note, "none were seen");
    let (mut facts, wanted) = good(1);
    facts.interfaces = vec![card("0")];
    assert_eq!(check(&facts, &wanted, "interrupts").state, State::Note, "there is nowhere else to send them");
}

#[test]
fn packets_are_steered_away_from_the_workers() {
    let card = |list: &str| Interface {
        name: "eth0".into(),
        interrupts: Vec::new(),
        queues: vec![Queue { name: "rx-0".into(), steered_to: CpuSet::from_list(list) }],
    };
    let (state, said) = changed("steering", |facts, _| facts.interfaces = vec![card("0-3")]);
    assert!(state == State::Advice && said.ends_with("echo d > /sys/class/net/eth0/queues/rx-0/rps_cpus"), "{said}");
    let (_, said) = changed("steering", |facts, _| facts.interfaces = vec![card("1")]);
    assert!(said.ends_with("echo fd > /sys/class/net/eth0/queues/rx-0/rps_cpus"), "never to nowhere: {said}");
    assert_eq!(changed("steering", |facts, _| facts.interfaces = vec![card("")]).0, State::Good, "it is off");
}

#[test]
fn small_socket_buffers_are_raised() {
    let small = |facts: &mut Facts| (facts.receive_buffer_max, facts.send_buffer_max) = (Some(212_992), Some(212_992));
    let (state, said) = changed("socket-buffers", |facts, _| small(facts));
    assert!(state == State::Advice && said.contains("about 184 datagrams"), "{said}");
    assert!(said.contains("sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304"), "{said}");
    assert!(said.contains("/etc/sysctl.d/90-sinew.conf"), "{said}");
    let privileged = |facts: &mut Facts, _: &mut Wanted| {
        small(facts);
        facts.net_admin = true;
    };
    assert_eq!(changed("socket-buffers", privileged).0, State::Option, "the user of a service may not");
    assert_eq!(changed("socket-buffers", |facts, _| facts.receive_buffer_max = None).0, State::Unseen);
    let wants_less = |facts: &mut Facts, wanted: &mut Wanted| {
        small(facts);
        wanted.workers.socket_buffer = 65_536;
    };
    assert_eq!(changed("socket-buffers", wants_less).0, State::Good);
}

#[test]
fn limits_that_stand_in_the_way_are_lifted() {
    let limited = |facts: &mut Facts, wanted: &mut Wanted| {
        (facts.lock_limit, wanted.lock_memory) = (Some(8 << 20), true);
    };
    let (state, said) = changed("locked-memory", limited);
    assert!(
        state == State::Advice && said.contains("up to 8192 KiB") && said.contains("LimitMEMLOCK=infinity"),
        "{said}"
    );
    let privileged = |facts: &mut Facts, wanted: &mut Wanted| {
        limited(facts, wanted);
        facts.lifts_limits = true;
    };
    assert_eq!(changed("locked-memory", privileged).0, State::Good);
    assert_eq!(changed("locked-memory", |facts, _| facts.lock_limit = Some(1)).0, State::Good, "nobody wants it");

    let (state, said) = changed("real-time", |facts, wanted| {
        (facts.realtime_refused, wanted.workers.realtime) = (Some("use LimitRTPRIO=10".into()), Some(10));
    });
    assert!(state == State::Advice && said.contains("use LimitRTPRIO=10"), "{said}");
    assert_eq!(changed("real-time", |_, wanted| wanted.workers.realtime = Some(10)).0, State::Good);
    let (state, said) = changed("real-time", |_, wanted| wanted.workers.realtime = Some(50));
    assert!(state == State::Advice && said.contains("below 50"), "{said}");
    assert_eq!(changed("real-time", |facts, _| facts.realtime_refused = Some("no".into())).0, State::Good);

    let (state, said) = changed("quota", |facts, _| facts.topology.quota = Some(1.5));
    assert!(state == State::Advice && said.contains("CPUQuota="), "{said}");
    assert_eq!(changed("quota", |facts, _| facts.topology.quota = Some(2.0)).0, State::Good);
}

#[test]
fn processors_are_kept_awake_and_quick() {
    let governed = |name: &str| BTreeMap::from([(0, name.to_owned()), (1, "performance".to_owned())]);
    let (state, said) = changed("frequency", |facts, _| facts.governors = governed("powersave"));
    assert!(
        state == State::Advice && said.contains("governor powersave") && said.contains("echo performance"),
        "{said}"
    );
    let (state, said) = changed("frequency", |facts, _| (facts.governors, facts.hypervisor) = (BTreeMap::new(), true));
    assert!(state == State::Note && said.contains("the hypervisor decides"), "{said}");

    let deep = |facts: &mut Facts| facts.sleep_states = vec![sleep_state("C1", 2), sleep_state("C6", 133)];
    let (state, said) = changed("sleep-states", |facts, _| deep(facts));
    assert!(state == State::Advice && said.contains("133 µs") && said.contains("cpupower idle-set -D 50"), "{said}");
    let isolated = |facts: &mut Facts, _: &mut Wanted| {
        deep(facts);
        facts.topology.cpus[5].isolated = true;
    };
    assert_eq!(changed("sleep-states", isolated).0, State::Good, "a core that spins never sleeps");
    assert_eq!(changed("sleep-states", |facts, _| facts.sleep_states.clear()).0, State::Note);
}

#[test]
fn a_clock_that_takes_a_system_call_is_replaced_if_there_is_a_better_one() {
    let (state, said) = changed("clock", |facts, _| facts.clock = "hpet".into());
    assert!(state == State::Advice && said.contains("echo tsc > "), "{said}");
    let alone = |facts: &mut Facts, _: &mut Wanted| (facts.clock, facts.clocks) = ("hpet".into(), vec!["hpet".into()]);
    assert_eq!(changed("clock", alone).0, State::Note);
    assert_eq!(changed("clock", |facts, _| facts.clock.clear()).0, State::Unseen);
    // What was measured says more than a name.
    let (facts, wanted) = good(8);
    let slow = Measured { clock_ns: 800.0, ..measured() };
    let found = Report::of(facts, Some(slow), &wanted).checks.into_iter().find(|check| check.name == "clock");
    let found = found.expect("is checked");
    assert!(found.state == State::Note && found.cost.contains("800 ns"), "{found:?}");
}

#[test]
fn isolation_is_offered_where_cores_can_be_spared() {
    let (state, said) = changed("isolation", |_, _| {});
    assert!(state == State::Option && said.contains("isolcpus=managed_irq,domain,1 nohz_full=1 rcu_nocbs=1"), "{said}");
    assert_eq!(changed("isolation", |facts, _| facts.topology.cpus[5].isolated = true).0, State::Good);
    let (facts, wanted) = good(2);
    assert_eq!(check(&facts, &wanted, "isolation").state, State::Note);
}

#[test]
fn what_the_kernel_lacks_is_said() {
    let without = |facts: &mut Facts| (facts.uring, facts.uring_refused) = (None, Some("forbidden".into()));
    let (state, said) = changed("io", |facts, _| without(facts));
    assert!(state == State::Option && said.contains("forbidden") && said.contains("io_uring_disabled=0"), "{said}");
    let asked = |facts: &mut Facts, wanted: &mut Wanted| {
        without(facts);
        wanted.workers.io = Io::Uring;
    };
    assert_eq!(changed("io", asked).0, State::Advice, "this router would not start");
    let old = |facts: &mut Facts, _: &mut Wanted| (facts.uring, facts.uring_refused) = (None, Some("too old".into()));
    let (_, said) = changed("io", old);
    assert!(said.contains("Linux 6.0") && !said.contains("sysctl"), "{said}");
    let no_trains = |why: &str| {
        let why = why.to_owned();
        move |facts: &mut Facts, _: &mut Wanted| (facts.trains, facts.trains_reason) = (false, why)
    };
    assert_eq!(changed("trains", no_trains("off (Linux 7.0.1 damages trains)")).0, State::Advice);
    assert_eq!(changed("trains", no_trains("off (the kernel cannot)")).0, State::Note);
    let (state, said) = changed("steal", |facts, _| (facts.hypervisor, facts.steal_percent) = (true, 4.0));
    assert!(state == State::Note && said.contains("4.0 %") && said.contains("dedicated"), "{said}");
    let (mut facts, wanted) = good(8);
    facts.unseen = vec!["interrupts".into()];
    assert_eq!(check(&facts, &wanted, "unseen").found, "interrupts");
}

#[test]
fn what_was_measured_is_said_with_its_figure() {
    let (facts, wanted) = good(8);
    let mut elsewhere = wanted.clone();
    elsewhere.workers.idle = Idle::Wait;
    let report = Report::of(facts, Some(measured()), &elsewhere);
    let text = report.to_string();
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "a datagram costs 3000 ns by itself and 500 in a train of 64: 6.0 times less",
        "a datagram costs 3100 ns with it, 3000 with recvmmsg",
        "a thread that sleeps runs 11.0 µs after it was woken (p99 30.0)",
        "a look costs 23 ns",
        "measured here: a hop that waits adds 30 µs, one that spins 5 µs",
        "noise floor: timers p50 55 µs",
        "1 thing is to be done. Nothing was changed.",
        "cores = \"auto\"",
    ] {
        assert!(folded.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 98), "{text}");
    let todo = text.lines().position(|line| line.starts_with("TO DO")).expect("is there");
    assert!(text.lines().take(todo).all(|line| !line.starts_with("good")), "what is to be done comes first: {text}");
    let json = serde_json::to_value(&report).expect("serialises");
    assert_eq!((&json["quick"], &json["to_do"]), (&false.into(), &1.into()));
    let cost = serde_json::json!({
        "idle": "adaptive", "per_second": 1000, "p50_us": 38.0, "p99_us": 40.0, "added_us": 31.0, "cpu_percent": 4.0,
        "samples": 300, "lost": 0,
    });
    assert_eq!(json["measured"]["idle"]["costs"][1], cost, "a row of the table, by these names");
    assert_eq!(json["measured"]["noise"]["timer_p50_us"], 55.0, "its noise floor");
}
