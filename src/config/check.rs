//! From the file as written to the configuration as meant.

use super::errors::{Errors, without_secrets};
use super::settings::{
    Clients, Config, Congestion, Cores, Exposure, Groups, Idle, Io, Link, LinkPath, Member, Metric, Offload, Profile,
    Routing, SocketWait, Telemetry, Workers,
};
use super::suggest::closest;
use super::units;
use super::vip::{Around, Group, read_group, read_members, read_vip};
use super::written::{self, At, Report, Section};
use crate::base::identity::BadIdentity;
use crate::base::limits::MAX_WORKERS;
use crate::base::limits::{MAX_LINKS, MAX_NODES, MAX_PATHS};
use crate::base::{NodeId, PublicIdentity};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

/// Where a router listens if its file does not say.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 5300);
/// Where commands find a router if its file does not say.
pub(super) const DEFAULT_CONTROL_SOCKET: &str = "/run/sinew/control.sock";
/// Longest path of a Unix socket, bytes (unix(7): 108 with the final zero).
const MAX_SOCKET_PATH: usize = 107;

/// As [`parse`](super::parse), for a machine with this many cores (the default of `workers.idle` depends on it).
pub fn parse_for(path: &Path, text: &str, cores: usize) -> Result<Config, Errors> {
    parse_with_key(path, text, cores, &|_| None)
}

/// What a configuration says of its router's key.
#[derive(Clone, Copy, Debug)]
pub struct KeyClaim<'a> {
    /// The key file.
    pub file: &'a Path,
    /// The router's name; none if the file has none.
    pub name: Option<&'a str>,
    /// All members that are listed; those whose identity is a mistake have an empty one.
    pub members: &'a [Member],
}

/// Looks at a key file: what is wrong with it, and what to do about it. Reading files is others' business.
pub type LookAtKey<'a> = &'a dyn Fn(KeyClaim<'_>) -> Option<(String, String)>;

/// As [`parse_for`], and what `look` finds wrong with the key file is a mistake like the others.
pub(super) fn parse_with_key(path: &Path, text: &str, cores: usize, look: LookAtKey<'_>) -> Result<Config, Errors> {
    let mut report = Report::default();
    let document = report.document(text);
    let config = read_file(Section::root(&document), path, cores, look, &mut report);
    let findings = report.into_findings();
    match config {
        Some(config) if findings.is_empty() => Ok(config),
        _ => Err(Errors::new(path, text, findings)),
    }
}

/// Reads the whole file. `None` only if something was reported.
fn read_file(
    mut file: Section<'_, '_>,
    path: &Path,
    cores: usize,
    look: LookAtKey<'_>,
    report: &mut Report,
) -> Option<Config> {
    let directory = path.parent().unwrap_or(Path::new(""));
    let name = file.text("name", report);
    file.missing("name", "say which of the members this router is, as in `name = \"a\"`", report);
    let key = file.text("key", report);
    file.missing("key", "name the key file, as in `key = \"a.key\"`; `sinew key generate a.key` makes one", report);
    let written_listen = file.parsed("listen", report, address);
    let listen_span = written_listen.as_ref().map_or(0..0, |listen| listen.span.clone());
    let listen = written_listen.map_or(DEFAULT_LISTEN, |listen| listen.value);
    let control_socket = control_socket(&mut file, directory, report);
    let (mut workers, realtime) = inside(&mut file, "workers", report, |section, report| {
        (read_workers(section, cores, report), read_realtime(section, report))
    });
    check_ports(listen, &listen_span, workers.count, report);
    let lock = inside(&mut file, "memory", report, |section, report| {
        section.word("lock", &[("on", true), ("off", false)], report)
    });
    let routing = inside(&mut file, "routing", report, read_routing);
    let telemetry = inside(&mut file, "telemetry", report, |section, report| {
        read_telemetry(section, directory, Telemetry::new(&control_socket), report)
    });
    let clients = inside(&mut file, "clients", report, read_clients);
    let members: Vec<(Member, Range<usize>)> =
        file.sections("member", report).into_iter().filter_map(|section| read_member(section, report)).collect();
    file.missing("member", "list every router of the network, this one too, each as a [[member]]", report);
    check_members(&members, name.as_ref(), report);
    let own = name.as_ref().map(|name| name.value.as_str());
    let mut vip = file.section("vip", report);
    let group = read_group(&mut vip, own, &members, report);
    let profile = group.as_ref().map(|group| group.profile);
    // Who never sleeps takes all of a core: at that priority only if it is written.
    let preset = profile.and_then(Profile::realtime).filter(|_| workers.idle != Idle::Spin);
    workers.realtime = realtime.unwrap_or(preset.map(|[.., workers]| workers));
    let surroundings = Surroundings { name: own, listen, members: &members, group: group.as_ref() };
    let links: Vec<(Link, Range<usize>)> =
        file.sections("link", report).into_iter().filter_map(|link| read_link(link, &surroundings, report)).collect();
    check_links(&links, report);
    let fixed = fixed_addresses(listen, &links);
    let around = Around { fixed: &fixed, directory };
    let vip = group.map(|group| read_vip(vip, group, &around, report));
    let groups = inside(&mut file, "groups", report, |section, report| {
        section.is_written().then(|| Groups { members: read_members(section, own, &members, report) })
    });
    file.finish(report);
    let members: Vec<Member> = members.into_iter().map(|(member, _)| member).collect();
    let links = links.into_iter().map(|(link, _)| link).collect();
    let (name, key) = (name.map(|name| name.value), key?);
    let key_file = directory.join(&key.value);
    let claim = KeyClaim { file: &key_file, name: name.as_deref(), members: &members };
    if let Some((message, help)) = wrong_key(&key.value, claim, look) {
        report.add(&key.span, message, help);
    }
    let name = name?;
    let lock_memory = lock.unwrap_or(profile.is_some_and(Profile::locks_memory));
    Some(Config {
        name,
        key_file,
        listen,
        control_socket,
        workers,
        lock_memory,
        members,
        links,
        routing,
        telemetry,
        clients,
        vip,
        groups,
    })
}

/// Reads a section to its end.
fn inside<T>(
    file: &mut Section<'_, '_>,
    name: &'static str,
    report: &mut Report,
    read: impl FnOnce(&mut Section<'_, '_>, &mut Report) -> T,
) -> T {
    let mut section = file.section(name, report);
    let read = read(&mut section, report);
    section.finish(report);
    read
}

/// Addresses by which this router and its neighbours find each other.
fn fixed_addresses(listen: SocketAddr, links: &[(Link, Range<usize>)]) -> Vec<IpAddr> {
    let paths = links.iter().flat_map(|(link, _)| &link.paths);
    let ends = paths.flat_map(|path| [Some(path.remote.ip()), path.local]).flatten();
    ends.chain([listen.ip()]).collect()
}

/// What is wrong with the key file that is `written`, and what to do about it.
fn wrong_key(written: &str, claim: KeyClaim<'_>, look: LookAtKey<'_>) -> Option<(String, String)> {
    if without_secrets(written) == written {
        return look(claim);
    }
    let help = "write the secret to a file of its own; `sinew key generate a.key` makes a new one, and this one has been \
                where others may read it";
    Some(("`key` is a secret instead of the file that holds it".to_owned(), help.to_owned()))
}

fn control_socket(file: &mut Section<'_, '_>, directory: &Path, report: &mut Report) -> PathBuf {
    let Some(written) = file.text("control_socket", report) else { return PathBuf::from(DEFAULT_CONTROL_SOCKET) };
    let socket = directory.join(&written.value);
    let length = socket.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let message = format!("the path of the control socket has {length} bytes");
        report.add(&written.span, message, format!("the kernel takes at most {MAX_SOCKET_PATH}: choose a shorter one"));
    }
    socket
}

fn read_workers(section: &mut Section<'_, '_>, cores: usize, report: &mut Report) -> Workers {
    let default = Workers::default();
    let count = section.number("count", 1..=MAX_WORKERS as u64, report);
    let count = count.map_or(default.count, |count| count.value as usize);
    let placed = read_cores(section, count, report).unwrap_or(default.cores);
    let io = section.word("io", &[("auto", Io::Auto), ("uring", Io::Uring), ("mmsg", Io::Mmsg)], report);
    let offloads = [("auto", Offload::Auto), ("on", Offload::On), ("off", Offload::Off)];
    let idles = [("spin", Idle::Spin), ("adaptive", Idle::Adaptive), ("wait", Idle::Wait)];
    Workers {
        count,
        cores: placed,
        io: io.unwrap_or(default.io),
        offload: section.word("offload", &offloads, report).unwrap_or(default.offload),
        idle: section.word("idle", &idles, report).unwrap_or(default_idle(cores)),
        realtime: default.realtime,
        pool: section.number("pool", 256..=1 << 20, report).map_or(default.pool, |pool| pool.value as usize),
        socket_buffer: section
            .number("socket_buffer", 64 << 10..=1 << 30, report)
            .map_or(default.socket_buffer, |size| size.value as usize),
    }
}

/// With one or two cores a spinning worker takes the core that the application or the control thread needs.
pub const fn default_idle(cores: usize) -> Idle {
    if cores <= 2 { Idle::Wait } else { Idle::Adaptive }
}

/// Whether the cores exist is known where the router runs, and not here.
fn read_cores(section: &mut Section<'_, '_>, workers: usize, report: &mut Report) -> Option<Cores> {
    let help = "write `cores = \"auto\"`, or a list with a core for each worker, as in `cores = [1, 2]`";
    let written = section.word_or("cores", "auto", written::numbers, help, report)?;
    let Some(list) = written.value else { return Some(Cores::Auto) };
    let mut sorted = list.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != list.len() {
        report.add(
            &written.span,
            "two workers are pinned to one core",
            "give each worker its own core, or use `\"auto\"`",
        );
    } else if !list.is_empty() && list.len() != workers {
        let message = format!("{} cores are named for {workers} workers", list.len());
        report.add(&written.span, message, "name as many cores as there are workers (`count`), or none, or `\"auto\"`");
    }
    Some(Cores::List(list.into_iter().map(|core| core as usize).collect()))
}

/// None if it is not written, as the default depends on `[vip]`.
fn read_realtime(section: &mut Section<'_, '_>, report: &mut Report) -> Option<Option<u8>> {
    let help = "write `\"off\"`, or a priority from 1 to 99, as in `realtime = 10`; below 50 is below the kernel's own threads";
    let priority = |value: &DeValue<'_>| written::whole(value).filter(|priority| (1..=99).contains(priority));
    section
        .word_or("realtime", "off", priority, help, report)
        .map(|written| written.value.map(|priority| priority as u8))
}

fn check_ports(listen: SocketAddr, span: &Range<usize>, workers: usize, report: &mut Report) {
    let last = u64::from(listen.port()) + workers as u64 - 1;
    if listen.port() == 0 {
        report.add(span, "the router needs a port of its own", "give one, as in `listen = \"0.0.0.0:5300\"`");
    } else if last > u64::from(u16::MAX) {
        let message = format!("{workers} workers need the ports {} to {last}", listen.port());
        report.add(span, message, "choose a lower port: worker k takes the port plus k, and 65535 is the highest");
    }
}

fn read_routing(section: &mut Section<'_, '_>, report: &mut Report) -> Routing {
    let words =
        [("hops", Metric::Hops), ("latency", Metric::Latency), ("loss", Metric::Loss), ("expected", Metric::Expected)];
    Routing { metric: section.word("metric", &words, report).unwrap_or(Metric::Expected) }
}

fn read_telemetry(
    section: &mut Section<'_, '_>,
    directory: &Path,
    default: Telemetry,
    report: &mut Report,
) -> Telemetry {
    let path = |section: &mut Section<'_, '_>, key, report: &mut Report| {
        section.text(key, report).map(|written| directory.join(written.value))
    };
    let waits = [("auto", SocketWait::Auto), ("on", SocketWait::On), ("off", SocketWait::Off)];
    let exposures = [("loopback", Exposure::Loopback), ("network", Exposure::Network)];
    let socket_wait = section.word("socket_wait", &waits, report).unwrap_or(default.socket_wait);
    let interval_log = path(section, "interval_log", report);
    let interval = section
        .parsed("interval", report, |text| duration(text, Duration::from_millis(100), Duration::from_secs(3_600)))
        .map_or(default.interval, |interval| interval.value);
    let interval_log_size = section
        .number("interval_log_size", 64 << 10..=1 << 40, report)
        .map_or(default.interval_log_size, |size| size.value);
    let histograms = path(section, "histograms", report).unwrap_or(default.histograms);
    let prometheus = section.parsed("prometheus", report, address);
    let exposure = section.word("prometheus_exposure", &exposures, report).unwrap_or(default.prometheus_exposure);
    if let Some(at) = prometheus.as_ref().filter(|at| exposure == Exposure::Loopback && !at.value.ip().is_loopback()) {
        let help = "use a loopback address, as in `127.0.0.1:9464`; who means it writes `prometheus_exposure = \"network\"`: \
                    metrics are told to whoever asks, without encryption";
        report.add(&at.span, format!("others than this machine could ask at {}", at.value), help);
    }
    Telemetry {
        socket_wait,
        interval_log,
        interval,
        interval_log_size,
        histograms,
        prometheus: prometheus.map(|at| at.value),
        prometheus_exposure: exposure,
    }
}

fn read_clients(section: &mut Section<'_, '_>, report: &mut Report) -> Clients {
    let bytes = section.number("shared_memory", 0..=1 << 40, report);
    bytes.map_or(Clients::default(), |bytes| Clients { shared_memory: bytes.value as usize })
}

fn read_member(mut section: Section<'_, '_>, report: &mut Report) -> Option<(Member, Range<usize>)> {
    let name = section.parsed("name", report, member_name);
    section.missing("name", "give it a name, as in `name = \"b\"`", report);
    let public = section.parsed("public", report, |text| match text.parse::<PublicIdentity>() {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(BadIdentity::SecretNotPublic) => Err((
            "this is a router's secret".to_owned(),
            "members are listed by their public identity (`sinew key show FILE` prints it); this file has been readable \
             with the secret in it, so make that router a new key"
                .to_owned(),
        )),
        Err(error @ BadIdentity::Form(..)) => Err((error.to_string(), String::new())),
    });
    section.missing("public", "give its public identity: `sinew key show FILE` on that router prints it", report);
    section.finish(report);
    // A member whose identity is wrong still has a name, so that links to it are not reported too.
    let name = name?;
    Some((Member { name: name.value, public: public.map_or(String::new(), |public| public.value) }, name.span))
}

/// Names stand beside ports, ids and paths on command lines, so they cannot look like any of these.
pub(super) fn member_name(text: &str) -> Result<String, (String, String)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 63 || !text.chars().all(plain) || text.starts_with(['-', '.']) {
        let help = "use up to 63 letters, digits, `-`, `_` and `.`, beginning with a letter or digit";
        return Err((format!("`{text}` cannot be a name"), help.to_owned()));
    }
    if text.parse::<NodeId>().is_ok() {
        return Err((
            format!("`{text}` looks like a node id"),
            "choose a name that is not 16 hexadecimal digits".into(),
        ));
    }
    Ok(text.to_owned())
}

fn check_members(members: &[(Member, Range<usize>)], name: Option<&At<String>>, report: &mut Report) {
    for (index, (member, span)) in members.iter().enumerate() {
        let earlier = &members[..index];
        if earlier.iter().any(|(other, _)| other.name == member.name) {
            report.add(span, format!("two members are called `{}`", member.name), "give each its own name");
        }
        if let Some((other, _)) =
            earlier.iter().find(|(other, _)| !other.public.is_empty() && other.public == member.public)
        {
            let message = format!("`{}` has the public identity of `{}`", member.name, other.name);
            report.add(span, message, "each router has its own key: `sinew key generate FILE`");
        }
    }
    if members.len() > MAX_NODES {
        let (_, span) = &members[MAX_NODES];
        report.add(span, format!("{} members are listed", members.len()), format!("a network has at most {MAX_NODES}"));
    }
    let Some(name) = name else { return };
    if !members.is_empty() && !members.iter().any(|(member, _)| member.name == name.value) {
        let help = match closest(&name.value, members.iter().map(|(member, _)| member.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "list this router among the members too".to_owned(),
        };
        report.add(&name.span, format!("no [[member]] is called `{}`", name.value), help);
    }
}

/// What a link is checked against.
struct Surroundings<'a> {
    name: Option<&'a str>,
    listen: SocketAddr,
    members: &'a [(Member, Range<usize>)],
    /// Those with whom this router holds service addresses.
    group: Option<&'a Group>,
}

fn read_link(
    mut section: Section<'_, '_>,
    around: &Surroundings<'_>,
    report: &mut Report,
) -> Option<(Link, Range<usize>)> {
    let peer = section.text("peer", report);
    section.missing("peer", "say which member is at the other end, as in `peer = \"b\"`", report);
    if let Some(peer) = &peer {
        check_peer(peer, around, report);
    }
    let paths = read_paths(&mut section, around.listen, report);
    let preshared_key = section.parsed("preshared_key", report, preshared_key).map(|key| key.value);
    let hello =
        section.parsed("hello", report, |text| duration(text, Duration::from_millis(1), Duration::from_secs(10)));
    let dead =
        section.parsed("dead", report, |text| duration(text, Duration::from_millis(3), Duration::from_secs(300)));
    let span = dead.as_ref().or(hello.as_ref()).map_or(section.span.clone(), |written| written.span.clone());
    let congestion = section.parsed("congestion", report, congestion);
    let queue_delay =
        section.parsed("queue_delay", report, |text| duration(text, Duration::from_millis(1), Duration::from_secs(10)));
    let queue = section.number("queue", 16..=65_536, report);
    section.finish(report);
    let peer = peer?;
    let mut link = Link { paths, ..Link::new(peer.value, None) };
    link.preshared_key = preshared_key;
    if let Some(group) = around.group.filter(|group| group.members.contains(&link.peer)) {
        (link.hello, link.dead) = group.profile.liveness();
    }
    // Who writes only `hello` keeps the ratio of the defaults.
    let ratio = link.dead.as_millis() / link.hello.as_millis();
    if let Some(hello) = hello {
        link.hello = hello.value;
        link.dead = hello.value * u32::try_from(ratio).expect("the default is a few hellos");
    }
    link.dead = dead.map_or(link.dead, |dead| dead.value);
    link.congestion = congestion.map_or(link.congestion, |written| written.value);
    link.queue_delay = queue_delay.map_or(link.queue_delay, |delay| delay.value);
    link.queue = queue.map_or(link.queue, |queue| queue.value as usize);
    check_liveness(&link, &span, report);
    Some((link, peer.span))
}

/// A link's one `remote`, or its `[[link.path]]`s.
fn read_paths(section: &mut Section<'_, '_>, listen: SocketAddr, report: &mut Report) -> Vec<LinkPath> {
    let remote = section.parsed("remote", report, address);
    if let Some(remote) = &remote {
        check_remote(remote, listen, report);
    }
    let written = section.sections("path", report);
    if let (Some(remote), false) = (&remote, written.is_empty()) {
        let help = "write this address as a [[link.path]] of its own, or leave it out";
        report.add(&remote.span, "a link has either `remote` or [[link.path]]s", help);
    }
    let mut paths: Vec<LinkPath> = remote.map(|remote| LinkPath::to(remote.value)).into_iter().collect();
    for mut section in written {
        let span = section.span.clone();
        let Some(path) = read_path(&mut section, listen, report) else { continue };
        section.finish(report);
        if paths.iter().any(|other| {
            other.remote == path.remote && (other.local == path.local || other.local.is_none() || path.local.is_none())
        }) {
            let help = "paths to one address are told apart by this router's: give each a `local` of its own";
            report.add(&span, format!("a second path to {}", path.remote), help);
        }
        if paths.len() == MAX_PATHS {
            report.add(&span, "too many paths", format!("a link has at most {MAX_PATHS}"));
        }
        paths.push(path);
    }
    paths
}

fn read_path(section: &mut Section<'_, '_>, listen: SocketAddr, report: &mut Report) -> Option<LinkPath> {
    let remote = section.parsed("remote", report, address);
    section.missing("remote", "give the other end's address and port, as in `remote = \"192.0.2.2:5300\"`", report);
    let local = section.parsed("local", report, own_address);
    let cost = section.parsed("cost", report, |text| duration(text, Duration::ZERO, Duration::from_secs(3600)));
    if let Some(remote) = &remote {
        check_remote(remote, listen, report);
    }
    if let (Some(remote), Some(local)) = (&remote, &local)
        && remote.value.is_ipv4() != local.value.is_ipv4()
    {
        let help = "give addresses of one family: IPv4 as in 198.51.100.1, or IPv6 as in 2001:db8::1";
        report.add(&local.span, "`local` and `remote` are of different families", help);
    }
    Some(LinkPath {
        remote: remote?.value,
        local: local.map(|local| local.value),
        cost: cost.map_or(Duration::ZERO, |cost| cost.value),
    })
}

fn check_liveness(link: &Link, span: &Range<usize>, report: &mut Report) {
    if link.dead < link.hello * 3 {
        let (dead, least) = (units::show_duration(link.dead), units::show_duration(link.hello * 3));
        let message = format!("`dead` is {dead}, less than three hellos");
        report.add(span, message, format!("one lost hello must not cut a link: make it at least {least}"));
    }
}

fn check_peer(peer: &At<String>, around: &Surroundings<'_>, report: &mut Report) {
    if around.name == Some(peer.value.as_str()) {
        report.add(&peer.span, "a link leads from this router to itself", "name the router at the other end");
    } else if !around.members.iter().any(|(member, _)| member.name == peer.value) {
        let names = around.members.iter().map(|(member, _)| member.name.as_str());
        let help = match closest(&peer.value, names.filter(|name| Some(*name) != around.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it as a [[member]], with its public identity".to_owned(),
        };
        report.add(&peer.span, format!("no [[member]] is called `{}`", peer.value), help);
    }
}

fn check_remote(remote: &At<SocketAddr>, listen: SocketAddr, report: &mut Report) {
    if remote.value.port() == 0 || remote.value.ip().is_unspecified() {
        let help = "give the address and port the other router listens on, or leave `remote` out to wait for its call";
        report.add(&remote.span, format!("nothing can be sent to {}", remote.value), help);
    } else if remote.value == listen
        || listen.ip().is_unspecified()
            && remote.value.is_ipv4() == listen.is_ipv4()
            && remote.value.ip().is_loopback()
            && remote.value.port() == listen.port()
    {
        let help = "give the address and port of the other router; `listen` is where this one is";
        report.add(&remote.span, format!("`remote` is this router's own address {listen}"), help);
    } else if remote.value.is_ipv4() != listen.is_ipv4() {
        let family = |address: SocketAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let message = format!("`remote` is an {} address, `listen` an {} one", family(remote.value), family(listen));
        report.add(&remote.span, message, "a router sends from the address it listens on: use one family for both");
    }
}

fn check_links(links: &[(Link, Range<usize>)], report: &mut Report) {
    for (index, (link, span)) in links.iter().enumerate() {
        if links[..index].iter().any(|(other, _)| other.peer == link.peer) {
            report.add(span, format!("a second link to `{}`", link.peer), "one link joins two routers: remove one");
        }
    }
    if let Some((_, span)) = links.get(MAX_LINKS) {
        report.add(span, format!("{} links are listed", links.len()), format!("a router has at most {MAX_LINKS}"));
    }
}

fn address(text: &str) -> Result<SocketAddr, (String, String)> {
    text.parse().map_err(|_| {
        let message = format!("`{text}` is not an address and port");
        (message, "write it as in `192.0.2.2:5300` or `[2001:db8::2]:5300`; names are not looked up".to_owned())
    })
}

fn own_address(text: &str) -> Result<IpAddr, (String, String)> {
    let help =
        "write one of this machine's addresses, without a port, as in `198.51.100.1`; the port is that of `listen`";
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => {
            Err((format!("nothing can be sent from {ip}"), help.into()))
        }
        Ok(ip) => Ok(ip),
        Err(_) => Err((format!("`{text}` is not an address"), help.into())),
    }
}

pub(super) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, (String, String)> {
    let help = || {
        // The commonest mistake is a number without its unit.
        let number = text.trim().parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0);
        let (least, most) = (units::show_duration(least), units::show_duration(most));
        if number {
            let text = text.trim();
            format!("give it a unit, such as `{text}ms` or `{text}s`")
        } else {
            format!("give a duration from {least} to {most}")
        }
    };
    let duration = units::duration(text).map_err(|message| (message, help()))?;
    if duration < least || duration > most {
        let (least, most) = (units::show_duration(least), units::show_duration(most));
        return Err((format!("`{text}` is out of range"), format!("give a duration from {least} to {most}")));
    }
    Ok(duration)
}

fn congestion(text: &str) -> Result<Congestion, (String, String)> {
    let help = "use `cubic` for a fair share, or a rate such as `10mbit` for a path that is yours alone".to_owned();
    if text == "cubic" {
        return Ok(Congestion::Cubic);
    }
    match units::rate(text) {
        Ok(rate) if rate >= 8_000 => Ok(Congestion::FixedKbps(rate / 1000)),
        Ok(_) => {
            Err((format!("`{text}` is too slow for the router's own messages"), "give at least `8kbit`".to_owned()))
        }
        Err(_) => Err((format!("`{text}` is neither `cubic` nor a rate"), help)),
    }
}

fn preshared_key(text: &str) -> Result<[u8; 32], (String, String)> {
    let bytes = STANDARD.decode(text.trim()).map(zeroize::Zeroizing::new).ok();
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    let zero = key == Some([0; 32]);
    key.filter(|_| !zero).ok_or_else(|| {
        let help = "`head -c 32 /dev/urandom | base64` makes one; both ends of the link need the same";
        let wrong = if zero { "a key of zeros is no secret" } else { "a pre-shared key has 32 bytes in base64" };
        (wrong.to_owned(), help.to_owned())
    })
}
