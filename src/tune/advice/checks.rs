//! The checks, one function each.

use super::{Check, State, View, usable_cores};
use crate::config::settings::{Idle, Io};
use crate::runtime::machine::{CpuSet, placement, scheduling};
use crate::tune::facts::SleepState;
use crate::tune::interfaces::{Interface, Queue};

/// Clocks that are read without a system call.
const FAST_CLOCKS: [&str; 5] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "xen"];
/// A look at the clock that takes longer than this, ns, is a system call.
const SLOW_CLOCK_NS: f64 = 150.0;
/// Sleep states that take longer than this to leave, µs, show in latency.
const DEEP_US: u64 = 50;
/// What a datagram of 1,200 bytes takes of a receive buffer, bytes (measured: 208 KiB hold 92).
const BUFFERED: u64 = 2_315;
/// Steal from here on is worth a word, percent.
const STEAL: f64 = 1.0;

pub(super) fn all(view: &View<'_>) -> Vec<Check> {
    let mut checks = vec![
        configuration(view),
        interrupts(view),
        steering(view),
        socket_buffers(view),
        locked_memory(view),
        real_time(view),
        frequency(view),
        sleep_states(view),
        clock(view),
        quota(view),
        isolation(view),
        io(view),
        trains(view),
        steal(view),
    ];
    checks.extend(timers(view));
    checks.extend(wake_up(view));
    checks.extend(view.facts.unseen.iter().map(|what| Check::new("unseen", State::Unseen, what)));
    checks
}

impl Check {
    fn new(name: &'static str, state: State, found: impl Into<String>) -> Check {
        let (cost, advice, commands) = (String::new(), String::new(), Vec::new());
        Check { name, state, found: found.into(), cost, advice, commands }
    }

    fn cost(mut self, cost: impl Into<String>) -> Check {
        self.cost = cost.into();
        self
    }

    fn advice(mut self, advice: impl Into<String>, commands: impl IntoIterator<Item = String>) -> Check {
        self.advice = advice.into();
        self.commands = commands.into_iter().collect();
        self
    }
}

fn configuration(view: &View<'_>) -> Check {
    let workers = &view.wanted.workers;
    let whose = if view.wanted.configured { "the configuration" } else { "the default configuration" };
    let throttle = view.facts.realtime_throttle;
    let considered = view.placement.as_ref().map(|placed| {
        let idle = view.recommended.idle;
        placement::consider(&view.facts.topology, placed, idle, workers.realtime, throttle)
    });
    let problems = match considered {
        Some(Err(refused)) => vec![refused.to_string()],
        Some(Ok(warnings)) => warnings,
        None => Vec::new(),
    };
    if !view.recommended.differs && problems.is_empty() {
        return Check::new("configuration", State::Good, format!("{whose} suits this machine"));
    }
    let changed =
        view.recommended.reasons.iter().map(|reason| format!("{} is {}: {}", reason.key, reason.now, reason.why));
    let all: Vec<String> = changed.chain(problems).collect();
    let advice =
        if view.recommended.differs { "use the configuration at the end" } else { "change what is named here" };
    Check::new("configuration", State::Advice, format!("another one than {whose} suits this machine"))
        .cost(all.join("; "))
        .advice(advice, [])
}

/// The workers' processors and everybody else's, if there are any of both.
fn apart<'a>(view: &'a View<'_>) -> Option<(CpuSet, &'a CpuSet)> {
    let placement = view.placement.as_ref()?;
    let cores = placement.cores();
    (!cores.is_empty() && !placement.rest.is_empty()).then_some((cores, &placement.rest))
}

fn interrupts(view: &View<'_>) -> Check {
    let all = || {
        view.facts.interfaces.iter().flat_map(|interface| interface.interrupts.iter().map(move |it| (interface, it)))
    };
    let Some((cores, rest)) = apart(view) else {
        return Check::new("interrupts", State::Note, "workers have no cores of their own to keep interrupts from");
    };
    let there: Vec<_> = all().filter(|(_, interrupt)| !interrupt.cpus.common(&cores).is_empty()).collect();
    if there.is_empty() {
        let found =
            if all().next().is_none() { "none were seen" } else { "those of the interfaces in use arrive elsewhere" };
        return Check::new("interrupts", if all().next().is_none() { State::Note } else { State::Good }, found);
    }
    let named: Vec<String> =
        there.iter().map(|(interface, it)| format!("{} {} ({})", interface.name, it.name, it.number)).collect();
    let mut commands: Vec<String> =
        there.iter().map(|(_, it)| format!("echo {rest} > /proc/irq/{}/smp_affinity_list", it.number)).collect();
    if view.facts.irqbalance {
        let ban = format!("echo IRQBALANCE_BANNED_CPULIST={cores} >> /etc/default/irqbalance");
        commands.splice(0..0, [ban, "systemctl restart irqbalance".to_owned()]);
    }
    Check::new("interrupts", State::Advice, format!("{} arrive where workers run (cores {cores})", named.join(", ")))
        .cost("the kernel's half of every datagram runs there, before the worker does")
        .advice("send them to the other cores (at every start; a driver may refuse)", commands)
}

fn steering(view: &View<'_>) -> Check {
    let queues =
        view.facts.interfaces.iter().flat_map(|interface| interface.queues.iter().map(move |it| (interface, it)));
    let Some((cores, rest)) = apart(view) else {
        return Check::new("steering", State::Note, "workers have no cores of their own to keep received packets from");
    };
    let there: Vec<_> = queues.filter(|(_, queue)| !queue.steered_to.common(&cores).is_empty()).collect();
    if there.is_empty() {
        return Check::new("steering", State::Good, "no queue steers packets (RPS) to the workers' cores");
    }
    let command = |(interface, queue): &(&Interface, &Queue)| {
        let left = queue.steered_to.without(&cores);
        let mask = if left.is_empty() { rest.to_mask() } else { left.to_mask() };
        format!("echo {mask} > /sys/class/net/{}/queues/{}/rps_cpus", interface.name, queue.name)
    };
    let names: Vec<String> =
        there.iter().map(|(interface, queue)| format!("{} {}", interface.name, queue.name)).collect();
    Check::new(
        "steering",
        State::Advice,
        format!("{} steer packets (RPS) to where workers run (cores {cores})", names.join(", ")),
    )
    .cost("the kernel's half of every datagram runs there, before the worker does")
    .advice("steer them to the other cores", there.iter().map(command))
}

fn socket_buffers(view: &View<'_>) -> Check {
    let wanted = view.wanted.workers.socket_buffer as u64;
    let (Some(receive), Some(send)) = (view.facts.receive_buffer_max, view.facts.send_buffer_max) else {
        return Check::new("socket-buffers", State::Unseen, "net.core.rmem_max and wmem_max cannot be read here");
    };
    let found = format!("at most {receive} bytes to receive, {send} to send; {wanted} are wanted (socket_buffer)");
    let least = receive.min(send);
    if least >= wanted {
        return Check::new("socket-buffers", State::Good, found);
    }
    // The kernel doubles what is asked for, for its own use.
    let fits = 2 * receive.min(wanted) / BUFFERED;
    let each = view.measured.and_then(|measured| measured.datagrams.iter().map(|cost| cost.ns).reduce(f64::min));
    let time = each.map_or_else(String::new, |ns| format!(": a pause of {:.1} ms fills it", fits as f64 * ns / 1e6));
    let commands = [
        format!("sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}"),
        format!("printf 'net.core.rmem_max={wanted}\\nnet.core.wmem_max={wanted}\\n' > /etc/sysctl.d/90-sinew.conf"),
    ];
    let state = if view.facts.net_admin { State::Option } else { State::Advice };
    let who = if view.facts.net_admin { "; this user may exceed that, the user of a service may not" } else { "" };
    Check::new("socket-buffers", state, found + who)
        .cost(format!("a receive buffer holds about {fits} datagrams of 1200 bytes{time}, and the next is lost"))
        .advice("raise the limits", commands)
}

fn locked_memory(view: &View<'_>) -> Check {
    let limit = view.facts.lock_limit;
    let shown = limit.map_or_else(|| "without limit".to_owned(), |limit| format!("up to {} KiB", limit / 1024));
    let found = format!("memory may be locked {shown}; there is {} swap", if view.facts.swap { "some" } else { "no" });
    // A router that may lifts the limit itself.
    if !view.recommended.lock_memory || limit.is_none() || view.facts.lifts_limits {
        return Check::new("locked-memory", State::Good, found);
    }
    Check::new("locked-memory", State::Advice, found)
        .cost("memory.lock = \"on\" has no effect under a limit, and what was swapped out is milliseconds away")
        .advice(
            "lift the limit: LimitMEMLOCK=infinity in the systemd unit (configs/systemd/sinew.service has it); in a shell",
            ["ulimit -l unlimited".to_owned()],
        )
}

fn real_time(view: &View<'_>) -> Check {
    let priority = view.wanted.workers.realtime;
    match (priority, &view.facts.realtime_refused) {
        (None, None) => Check::new("real-time", State::Good, "not wanted; this user may (realtime = 10)"),
        (None, Some(_)) => Check::new("real-time", State::Good, "not wanted; this user may not"),
        (Some(priority), None) if priority < scheduling::KERNEL_PRIORITY => {
            Check::new("real-time", State::Good, format!("priority {priority} is granted"))
        }
        (Some(priority), None) => Check::new("real-time", State::Advice, format!("priority {priority} is granted"))
            .cost("the kernel's own threads, those of interrupts too, have 50: packets wait for a worker that waits for them")
            .advice("use a priority below 50; 10 is plenty", []),
        (Some(priority), Some(refused)) => {
            Check::new("real-time", State::Advice, format!("priority {priority} is refused"))
                .cost("workers run as all others do, and wait for them")
                .advice(refused.clone(), [])
        }
    }
}

fn frequency(view: &View<'_>) -> Check {
    let slow: std::collections::BTreeSet<&str> =
        view.facts.governors.values().map(String::as_str).filter(|name| *name != "performance").collect();
    if view.facts.governors.is_empty() {
        let whose = if view.facts.hypervisor { "the hypervisor" } else { "the firmware" };
        return Check::new("frequency", State::Note, format!("{whose} decides how fast processors run"));
    }
    if slow.is_empty() {
        return Check::new("frequency", State::Good, "processors stay at full speed (governor performance)");
    }
    let names: Vec<&str> = slow.into_iter().collect();
    Check::new("frequency", State::Advice, format!("processors slow down when idle (governor {})", names.join(", ")))
        .cost("after a pause the first packets are handled at the lower speed")
        .advice(
            "keep them at full speed (until the next start)",
            ["echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor".to_owned()],
        )
}

fn sleep_states(view: &View<'_>) -> Check {
    let deepest = view.facts.sleep_states.iter().max_by_key(|state| state.exit_us);
    let Some(SleepState { name, exit_us: latency }) = deepest else {
        return Check::new("sleep-states", State::Note, "the kernel has no choice of sleep states here");
    };
    let found = format!("the deepest is {name}, left in {latency} µs");
    if *latency <= DEEP_US {
        return Check::new("sleep-states", State::Good, found);
    }
    let spins = view.recommended.idle == Idle::Spin;
    Check::new("sleep-states", if spins { State::Good } else { State::Advice }, found)
        .cost(format!("a worker that waits may wake {latency} µs late; one that spins lets its core never sleep"))
        .advice("forbid the deep ones (until the next start; more heat)", [format!("cpupower idle-set -D {DEEP_US}")])
}

fn clock(view: &View<'_>) -> Check {
    let (name, looked) = (&view.facts.clock, view.measured.map(|measured| measured.clock_ns));
    if name.is_empty() {
        return Check::new("clock", State::Unseen, "which clock the kernel has is not shown here");
    }
    let cost =
        looked.map_or_else(String::new, |ns| format!("a look costs {ns:.0} ns, and each turn of a worker has several"));
    let slow = looked.map_or(!FAST_CLOCKS.contains(&name.as_str()), |ns| ns > SLOW_CLOCK_NS);
    let check = |state| Check::new("clock", state, format!("the kernel's clock is {name}")).cost(cost);
    if !slow {
        return check(State::Good);
    }
    match view.facts.clocks.iter().find(|other| FAST_CLOCKS.contains(&other.as_str()) && *other != name) {
        Some(better) => check(State::Advice).advice(
            "use one that is read without a system call",
            [format!("echo {better} > /sys/devices/system/clocksource/clocksource0/current_clocksource")],
        ),
        None => check(State::Note).advice("the kernel has found no better one: see `dmesg | grep -i clocksource`", []),
    }
}

fn quota(view: &View<'_>) -> Check {
    let Some(quota) = view.facts.topology.quota else {
        return Check::new("quota", State::Good, "no cgroup limits the time on processors");
    };
    let found = format!("its cgroup may use {quota:.2} processors' worth of time");
    if quota >= view.wanted.workers.count as f64 + 1.0 {
        return Check::new("quota", State::Good, found);
    }
    Check::new("quota", State::Advice, found)
        .cost("when it is spent the kernel stops the router until the next period, up to 100 ms: links look dead")
        .advice("grant a processor for each worker and one more: CPUQuota= of its unit, --cpus of its container", [])
}

fn isolation(view: &View<'_>) -> Check {
    let noise = view.measured.map_or_else(String::new, |measured| {
        let noise = &measured.noise;
        format!(
            "others took {:.2} % of the time from a busy thread, at most {:.0} µs at once",
            noise.taken_percent, noise.longest_pause_us
        )
    });
    let placed: CpuSet = view.placement.as_ref().map(|placement| placement.cores()).unwrap_or_default();
    if placed.is_empty() || usable_cores(view.facts) < view.wanted.workers.count + 2 {
        return Check::new("isolation", State::Note, "too few cores to give any to the workers alone").cost(noise);
    }
    if placed.iter().all(|id| view.facts.topology.cpu(id).is_some_and(|cpu| cpu.isolated)) {
        return Check::new("isolation", State::Good, format!("the workers' cores {placed} are isolated")).cost(noise);
    }
    Check::new("isolation", State::Option, format!("the scheduler may put others on the workers' cores {placed}"))
        .cost(noise)
        .advice(
            "for the shortest tail: on the kernel's command line, and then idle = \"spin\" with cores = \"auto\"",
            [format!("isolcpus=managed_irq,domain,{placed} nohz_full={placed} rcu_nocbs={placed}")],
        )
}

fn io(view: &View<'_>) -> Check {
    let least = |io: &str| {
        let costs = view.measured?.datagrams.iter().filter(|cost| cost.io == io && cost.batch > 1 && !cost.trains);
        costs.map(|cost| cost.ns).reduce(f64::min)
    };
    let cost = match (least("mmsg"), least("uring")) {
        (Some(mmsg), Some(uring)) => {
            format!("a datagram costs {uring:.0} ns with it, {mmsg:.0} with recvmmsg and sendmmsg")
        }
        (Some(mmsg), None) => format!("a datagram costs {mmsg:.0} ns with recvmmsg and sendmmsg"),
        _ => String::new(),
    };
    let facts = view.facts;
    match (&facts.uring, &facts.uring_refused) {
        (Some(ring), _) => Check::new("io", State::Good, format!("io_uring works ({ring})")).cost(cost),
        (None, why) => {
            let why = why.as_deref().unwrap_or("it was not tried");
            let state = if view.wanted.workers.io == Io::Uring { State::Advice } else { State::Option };
            let check = Check::new("io", state, format!("no io_uring: {why}")).cost(cost);
            let lost = "little is lost without, the router then uses recvmmsg and sendmmsg";
            if why.contains("forbidden") {
                let allow = "sysctl -w kernel.io_uring_disabled=0".to_owned();
                return check.advice(format!("allow it here and in the container's seccomp profile; {lost}"), [allow]);
            }
            check.advice(format!("use Linux 6.0 or later, with loopback up (it is tried there); {lost}"), [])
        }
    }
}

fn trains(view: &View<'_>) -> Check {
    let least = |trains: bool| {
        let costs = view.measured?.datagrams.iter().filter(|cost| cost.batch > 1 && cost.trains == trains);
        costs.map(|cost| cost.ns).reduce(f64::min)
    };
    let cost = match (least(false), least(true)) {
        (Some(single), Some(coupled)) => {
            format!(
                "a datagram costs {single:.0} ns by itself and {coupled:.0} in a train of 64: {:.1} times less",
                single / coupled
            )
        }
        _ => String::new(),
    };
    let reason = &view.facts.trains_reason;
    if view.facts.trains {
        return Check::new("trains", State::Good, "datagrams pass the kernel in trains (UDP_SEGMENT, UDP_GRO)")
            .cost(cost);
    }
    let damaged = reason.contains("damages");
    let check = Check::new("trains", if damaged { State::Advice } else { State::Note }, format!("no trains: {reason}"));
    if damaged { check.advice("use a kernel of another version: 7.1.5 and later have it mended", []) } else { check }
}

fn steal(view: &View<'_>) -> Check {
    let (since, now) = (view.facts.steal_percent, view.measured.map(|measured| measured.noise.steal_percent));
    if !view.facts.hypervisor && since < 0.01 {
        return Check::new("steal", State::Good, "no hypervisor takes time");
    }
    let during = now.map_or_else(String::new, |now| format!(", {now:.1} % while this was measured"));
    let found = format!("the hypervisor gave {since:.1} % of the time to others since the start{during}");
    if since.max(now.unwrap_or(0.0)) < STEAL {
        return Check::new("steal", State::Good, found);
    }
    Check::new("steal", State::Note, found)
        .cost("meanwhile no packet moves, and nothing in this machine can help it")
        .advice("ask for dedicated processors", [])
}

fn timers(view: &View<'_>) -> Option<Check> {
    let noise = &view.measured?.noise;
    let found = format!(
        "a sleep of 1 ms takes {:.0} µs more (p99 {:.0}, at most {:.0})",
        noise.timer_p50_us, noise.timer_p99_us, noise.timer_max_us
    );
    Some(Check::new("timers", State::Note, found).cost("pacing, retransmissions and hellos are late by as much"))
}

fn wake_up(view: &View<'_>) -> Option<Check> {
    let wake = view.measured?.wake?;
    let found = format!("a thread that sleeps runs {:.1} µs after it was woken (p99 {:.1})", wake.p50_us, wake.p99_us);
    let cost =
        format!("a worker that waits pays that for the first packet, and who wakes it {:.1} µs", wake.ring_p50_us);
    Some(Check::new("wake-up", State::Note, found).cost(cost))
}
