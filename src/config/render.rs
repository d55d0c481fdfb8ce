//! A configuration back to text, for what writes configurations: the lab, and tools that set up many routers.

use super::settings::{
    Config, Congestion, Cores, Coverage, Exposure, Idle, Io, Link, Metric, Offload, Profile, Question, SocketWait,
    Telemetry, Vip, VipCheck,
};
use super::units::{show_duration, show_rate};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// The text that [`parse`](super::parse) reads as `config`, as long as the file stands in any directory and the paths
/// are absolute, or stands in the working directory. Rates finer than 1 kbit/s do not exist.
pub fn to_toml(config: &Config) -> String {
    let mut text = String::new();
    let put = |text: &mut String, key: &str, value: &str| {
        writeln!(text, "{key} = {value}").expect("writing to a string does not fail");
    };
    put(&mut text, "name", &quoted(&config.name));
    put(&mut text, "key", &quoted_path(&config.key_file));
    put(&mut text, "listen", &quoted(&config.listen.to_string()));
    put(&mut text, "control_socket", &quoted_path(&config.control_socket));
    text.push_str("\n[workers]\n");
    put(&mut text, "count", &config.workers.count.to_string());
    put(&mut text, "cores", &cores_value(&config.workers.cores));
    put(&mut text, "io", &quoted(io_word(config.workers.io)));
    put(&mut text, "offload", &quoted(offload_word(config.workers.offload)));
    put(&mut text, "idle", &quoted(idle_word(config.workers.idle)));
    put(&mut text, "realtime", &realtime_value(config.workers.realtime));
    put(&mut text, "pool", &config.workers.pool.to_string());
    put(&mut text, "socket_buffer", &config.workers.socket_buffer.to_string());
    text.push_str("\n[memory]\n");
    put(&mut text, "lock", &quoted(if config.lock_memory { "on" } else { "off" }));
    text.push_str("\n[routing]\n");
    put(&mut text, "metric", &quoted(metric_word(config.routing.metric)));
    text.push_str("\n[telemetry]\n");
    for (key, value) in telemetry_entries(&config.telemetry) {
        put(&mut text, key, &value);
    }
    text.push_str("\n[clients]\n");
    put(&mut text, "shared_memory", &config.clients.shared_memory.to_string());
    for member in &config.members {
        text.push_str("\n[[member]]\n");
        put(&mut text, "name", &quoted(&member.name));
        put(&mut text, "public", &quoted(&member.public));
    }
    for link in &config.links {
        text.push_str("\n[[link]]\n");
        for (key, value) in link_entries(link) {
            put(&mut text, key, &value);
        }
        for path in link.paths.iter().filter(|_| remote(link).is_none()) {
            text.push_str("\n[[link.path]]\n");
            put(&mut text, "remote", &quoted(&path.remote.to_string()));
            if let Some(local) = path.local {
                put(&mut text, "local", &quoted(&local.to_string()));
            }
            put(&mut text, "cost", &quoted(&show_duration(path.cost)));
        }
    }
    if let Some(groups) = &config.groups {
        text.push_str("\n[groups]\n");
        put(&mut text, "members", &list(&groups.members));
    }
    if let Some(vip) = &config.vip {
        put_vip(&mut text, vip);
    }
    text
}

fn put_vip(text: &mut String, vip: &Vip) {
    let put = |text: &mut String, key: &str, value: String| {
        writeln!(text, "{key} = {value}").expect("writing to a string does not fail");
    };
    text.push_str("\n[vip]\n");
    put(text, "profile", quoted(profile_word(vip.profile)));
    put(text, "members", list(&vip.members));
    put(text, "weight", vip.weight.to_string());
    put(text, "maturity", quoted(&show_duration(vip.maturity)));
    put(text, "lease", quoted(&show_duration(vip.lease)));
    put(text, "linger", quoted(&show_duration(vip.linger)));
    put(text, "balance", quoted(&vip.balance.map_or("off".to_owned(), show_duration)));
    put(text, "moves", vip.moves.to_string());
    vip.hook.iter().for_each(|hook| put(text, "hook", list(hook)));
    vip.user.iter().for_each(|user| put(text, "user", quoted(user)));
    for set in &vip.sets {
        text.push_str("\n[[vip.set]]\n");
        put(text, "name", quoted(&set.name));
        let addresses: Vec<String> = set.addresses.iter().map(|it| format!("{}@{}", it.ip, it.interface)).collect();
        put(text, "addresses", list(&addresses));
        put(text, "coverage", quoted(coverage_word(set.coverage)));
        put(text, "prefer", list(&set.prefer));
        put(text, "router", set.router.to_string());
        put(text, "conntrack", set.conntrack.to_string());
    }
    for check in &vip.checks {
        text.push_str("\n[[vip.check]]\n");
        check_entries(check).into_iter().for_each(|(key, value)| put(text, key, value));
    }
}

fn check_entries(check: &VipCheck) -> Vec<(&'static str, String)> {
    let mut entries = vec![("name", quoted(&check.name))];
    entries.extend(match &check.question {
        Question::Process(name) => vec![("process", quoted(name))],
        Question::PidFile(path) => vec![("pid_file", quoted_path(path))],
        Question::Tcp(address) => vec![("tcp", quoted(&address.to_string()))],
        Question::Http { address, host, path } => {
            vec![("http", quoted(&format!("http://{address}{path}"))), ("host", quoted(host))]
        }
        Question::Command(command) => vec![("command", list(command))],
        Question::File(path) => vec![("file", quoted_path(path))],
        Question::Carrier(name) => vec![("carrier", quoted(name))],
    });
    entries.push(("interval", quoted(&show_duration(check.interval))));
    entries.push(("timeout", quoted(&show_duration(check.timeout))));
    entries.push(("rise", check.rise.to_string()));
    entries.push(("fall", check.fall.to_string()));
    if !check.sets.is_empty() {
        entries.push(("sets", list(&check.sets)));
    }
    entries
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

const fn profile_word(profile: Profile) -> &'static str {
    match profile {
        Profile::Safe => "safe",
        Profile::Fast => "fast",
        Profile::Wan => "wan",
    }
}

const fn coverage_word(coverage: Coverage) -> &'static str {
    match coverage {
        Coverage::Component => "component",
        Coverage::Majority => "majority",
    }
}

/// The address of a link that has one path without more to say.
fn remote(link: &Link) -> Option<SocketAddr> {
    match link.paths[..] {
        [path] if path.is_plain() => Some(path.remote),
        _ => None,
    }
}

fn link_entries(link: &Link) -> Vec<(&'static str, String)> {
    let mut entries = vec![("peer", quoted(&link.peer))];
    entries.extend(remote(link).map(|remote| ("remote", quoted(&remote.to_string()))));
    entries.extend(link.preshared_key.map(|key| ("preshared_key", quoted(&STANDARD.encode(key)))));
    entries.push(("hello", quoted(&show_duration(link.hello))));
    entries.push(("dead", quoted(&show_duration(link.dead))));
    let congestion = match link.congestion {
        Congestion::Cubic => "cubic".to_owned(),
        Congestion::FixedKbps(kbps) => show_rate(kbps.saturating_mul(1000)),
    };
    entries.push(("congestion", quoted(&congestion)));
    entries.push(("queue_delay", quoted(&show_duration(link.queue_delay))));
    entries.push(("queue", link.queue.to_string()));
    entries
}

fn telemetry_entries(telemetry: &Telemetry) -> Vec<(&'static str, String)> {
    let socket_wait = match telemetry.socket_wait {
        SocketWait::Auto => "auto",
        SocketWait::On => "on",
        SocketWait::Off => "off",
    };
    let exposure = match telemetry.prometheus_exposure {
        Exposure::Loopback => "loopback",
        Exposure::Network => "network",
    };
    let mut entries = vec![
        ("socket_wait", quoted(socket_wait)),
        ("interval", quoted(&show_duration(telemetry.interval))),
        ("interval_log_size", telemetry.interval_log_size.to_string()),
        ("histograms", quoted_path(&telemetry.histograms)),
        ("prometheus_exposure", quoted(exposure)),
    ];
    entries.extend(telemetry.interval_log.as_ref().map(|path| ("interval_log", quoted_path(path))));
    entries.extend(telemetry.prometheus.map(|at| ("prometheus", quoted(&at.to_string()))));
    entries
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// The value of `cores` in a configuration.
pub fn cores_value(cores: &Cores) -> String {
    match cores {
        Cores::Auto => quoted("auto"),
        Cores::List(list) => format!("{list:?}"),
    }
}

/// The value of `realtime` in a configuration.
pub fn realtime_value(realtime: Option<u8>) -> String {
    realtime.map_or_else(|| quoted("off"), |priority| priority.to_string())
}

/// The word for `io` in a configuration.
pub(super) const fn io_word(io: Io) -> &'static str {
    match io {
        Io::Auto => "auto",
        Io::Uring => "uring",
        Io::Mmsg => "mmsg",
    }
}

/// The word for `offload` in a configuration.
pub(super) const fn offload_word(offload: Offload) -> &'static str {
    match offload {
        Offload::Auto => "auto",
        Offload::On => "on",
        Offload::Off => "off",
    }
}

/// The word for `idle` in a configuration.
pub const fn idle_word(idle: Idle) -> &'static str {
    match idle {
        Idle::Spin => "spin",
        Idle::Adaptive => "adaptive",
        Idle::Wait => "wait",
    }
}

/// The word for `metric` in a configuration.
pub(super) const fn metric_word(metric: Metric) -> &'static str {
    match metric {
        Metric::Hops => "hops",
        Metric::Latency => "latency",
        Metric::Loss => "loss",
        Metric::Expected => "expected",
    }
}
