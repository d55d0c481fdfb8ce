//! `[vip]` and `[[vip.set]]`: service addresses that the members of a group hold together. Its `[[vip.check]]`s are read in
//! `health`.
//!
//! What the members must have alike is checked as far as one file shows it; that they do have it alike they tell each
//! other by a digest.

use super::check::{duration, member_name};
use super::health::{program, read_checks};
use super::settings::{Coverage, Member, Profile, Vip, VipAddress, VipSet};
use super::suggest::closest;
use super::units::show_duration;
use super::written::{At, Report, Section};
use crate::base::limits::{MAX_MEMBERS, MAX_SET_ADDRESSES, MAX_SETS};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Longest name of an interface, bytes (IFNAMSIZ with the final zero).
const MAX_INTERFACE: usize = 15;
/// Shortest lease: the kernel's own clock ticks every 4 ms, and a lease is refreshed several times.
const MIN_LEASE: Duration = Duration::from_millis(20);

/// What the sets and checks are read against.
pub(super) struct Around<'a> {
    /// Addresses by which routers find each other, which must not move.
    pub(super) fixed: &'a [IpAddr],
    /// Where relative paths start.
    pub(super) directory: &'a Path,
}

/// What links must know of `[vip]`, before the rest of it can be read.
pub(super) struct Group {
    pub(super) profile: Profile,
    pub(super) members: Vec<String>,
}

/// Reads who holds addresses together, and how fast they are; none if `[vip]` is not written.
pub(super) fn read_group(
    section: &mut Section<'_, '_>,
    name: Option<&str>,
    members: &[(Member, Range<usize>)],
    report: &mut Report,
) -> Option<Group> {
    if !section.is_written() {
        return None;
    }
    let words = [("safe", Profile::Safe), ("fast", Profile::Fast), ("wan", Profile::Wan)];
    let profile = section.word("profile", &words, report).unwrap_or(Profile::Safe);
    Some(Group { profile, members: read_members(section, name, members, report) })
}

/// Reads the rest of `[vip]`.
pub(super) fn read_vip(mut section: Section<'_, '_>, group: Group, around: &Around<'_>, report: &mut Report) -> Vip {
    let Group { profile, members } = group;
    let default = Vip { lease: profile.lease(), ..Vip::default() };
    let weight = section.number("weight", 1..=1000, report).map_or(default.weight, |weight| weight.value as u16);
    let mut time = |key, least, most, default| {
        section.parsed(key, report, |text| duration(text, least, most)).map_or(default, |time| time.value)
    };
    let lease = time("lease", MIN_LEASE, Duration::from_secs(10), default.lease);
    let linger = time("linger", Duration::ZERO, Duration::from_secs(60), default.linger);
    let maturity = time("maturity", Duration::ZERO, Duration::from_secs(600), default.maturity);
    let balance = section.parsed("balance", report, interval).map_or(default.balance, |balance| balance.value);
    let moves = section.number("moves", 1..=MAX_SETS as u64, report).map_or(default.moves, |moves| moves.value as u16);
    let hook = section.texts("hook", report).and_then(|hook| program("hook", &hook, report));
    let user = section.parsed("user", report, user_name).map(|user| user.value);
    let written = section.sections("set", report);
    section.missing("set", "add the sets of addresses, each as a [[vip.set]], or leave [vip] out", report);
    let mut sets: Vec<VipSet> = Vec::new();
    for set in written {
        let span = set.span.clone();
        if sets.len() == MAX_SETS {
            report.add(
                &span,
                "too many sets",
                format!("a group has at most {MAX_SETS}; a set may have many addresses"),
            );
            break;
        }
        sets.extend(read_set(set, &members, &sets, around, report));
    }
    let checks = read_checks(section.sections("check", report), &sets, around.directory, report);
    section.finish(report);
    Vip { profile, members, weight, maturity, lease, linger, balance, moves, sets, checks, hook, user }
}

/// The group: all routers of the network, if it is not said.
pub(super) fn read_members(
    section: &mut Section<'_, '_>,
    name: Option<&str>,
    members: &[(Member, Range<usize>)],
    report: &mut Report,
) -> Vec<String> {
    let known = || members.iter().map(|(member, _)| member.name.as_str());
    let place = section.key_span("members");
    let Some(written) = section.texts("members", report) else {
        let all: Vec<String> = known().map(str::to_owned).collect();
        if all.len() > MAX_MEMBERS {
            let help = format!(
                "a group has at most {MAX_MEMBERS}: name those that are in it, as in `members = [\"a\", \"b\"]`"
            );
            report.add(&place, format!("the network has {} members", all.len()), help);
        }
        return all;
    };
    check_names(&written.value, known(), "no [[member]] is called", report);
    if let Some(name) = name.filter(|name| !written.value.iter().any(|member| member.value == *name)) {
        let help = format!("add `{name}`, or leave [{}] out of this router's file", section.name);
        report.add(&written.span, "this router is not among the group's members", help);
    }
    if written.value.len() > MAX_MEMBERS {
        report.add(
            &written.span,
            format!("{} members are named", written.value.len()),
            format!("a group has at most {MAX_MEMBERS}"),
        );
    }
    written.value.into_iter().map(|member| member.value).collect()
}

/// Names that nobody has, and names that stand twice.
pub(super) fn check_names<'a>(
    written: &[At<String>],
    known: impl Iterator<Item = &'a str> + Clone,
    wrong: &str,
    report: &mut Report,
) {
    for (place, name) in written.iter().enumerate() {
        if !known.clone().any(|member| member == name.value) {
            let help = match closest(&name.value, known.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", known.clone().take(10).collect::<Vec<_>>().join(", ")),
            };
            report.add(&name.span, format!("{wrong} `{}`", name.value), help);
        } else if written[..place].iter().any(|before| before.value == name.value) {
            report.add(&name.span, format!("`{}` is named twice", name.value), "name it once");
        }
    }
}

fn read_set(
    mut section: Section<'_, '_>,
    members: &[String],
    before: &[VipSet],
    around: &Around<'_>,
    report: &mut Report,
) -> Option<VipSet> {
    let name = section.parsed("name", report, member_name);
    section.missing("name", "give it a name, as in `name = \"web\"`", report);
    let interface = section.parsed("interface", report, interface_name);
    let addresses = section.texts("addresses", report);
    section.missing("addresses", "list its addresses, as in `addresses = [\"192.0.2.10\"]`", report);
    let words = [("component", Coverage::Component), ("majority", Coverage::Majority)];
    let coverage_span = section.key_span("coverage");
    let coverage = section.word("coverage", &words, report).unwrap_or(Coverage::Component);
    let prefer = section.texts("prefer", report).map_or(Vec::new(), |prefer| prefer.value);
    let router = section.flag("router", report).unwrap_or(false);
    let conntrack = section.flag("conntrack", report).unwrap_or(false);
    check_names(&prefer, members.iter().map(String::as_str), "no member of the group is called", report);
    section.finish(report);
    if coverage == Coverage::Majority && members.len() < 3 {
        let help =
            "with fewer than three members one that is left alone is no majority: use \"component\", or add members";
        report.add(&coverage_span, format!("a majority of {} is all of them", members.len()), help);
    }
    if let Some(name) = name.as_ref().filter(|name| before.iter().any(|set| set.name == name.value)) {
        report.add(&name.span, format!("two sets are called `{}`", name.value), "give each a name of its own");
    }
    let interface = interface.map(|interface| interface.value);
    let addresses = read_addresses(&addresses?, interface.as_deref(), before, around, report);
    let prefer = prefer.into_iter().map(|member| member.value).collect();
    Some(VipSet { name: name?.value, addresses, coverage, prefer, router, conntrack })
}

fn read_addresses(
    written: &At<Vec<At<String>>>,
    interface: Option<&str>,
    before: &[VipSet],
    around: &Around<'_>,
    report: &mut Report,
) -> Vec<VipAddress> {
    if written.value.is_empty() || written.value.len() > MAX_SET_ADDRESSES {
        let message = format!("a set of {} addresses", written.value.len());
        report.add(&written.span, message, format!("give it from 1 to {MAX_SET_ADDRESSES}"));
    }
    let mut addresses: Vec<VipAddress> = Vec::new();
    for text in &written.value {
        let address = match vip_address(&text.value, interface) {
            Ok(address) => address,
            Err((message, help)) => {
                report.add(&text.span, message, help);
                continue;
            }
        };
        let other = before.iter().find(|set| set.addresses.iter().any(|other| other.ip == address.ip));
        if around.fixed.contains(&address.ip) {
            let help = "a service address moves; give one that no router's `listen` and no link's path has";
            report.add(&text.span, format!("routers find each other by {}", address.ip), help);
        } else if let Some(other) = other {
            let help = "sets move by themselves: an address belongs to one";
            report.add(&text.span, format!("{} is in the set `{}` already", address.ip, other.name), help);
        } else if addresses.iter().any(|other| other.ip == address.ip) {
            report.add(&text.span, format!("{} stands twice", address.ip), "name it once");
        } else {
            addresses.push(address);
        }
    }
    addresses
}

/// An address, and the interface it is on: `192.0.2.10`, or `192.0.2.10@eth1`.
fn vip_address(text: &str, interface: Option<&str>) -> Result<VipAddress, (String, String)> {
    let (ip, own) = text.split_once('@').map_or((text, None), |(ip, own)| (ip, Some(own)));
    if ip.contains('/') {
        let help =
            "leave the length away: service addresses are added as single ones, so that nothing else goes with them";
        return Err((format!("`{ip}` has a prefix length"), help.to_owned()));
    }
    let ip: IpAddr = ip.parse().map_err(|_| {
        (
            format!("`{text}` is not an address"),
            "write it as in `192.0.2.10`, `2001:db8::10` or `192.0.2.10@eth1`".to_owned(),
        )
    })?;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err((
            format!("{ip} is no address of a machine on a network"),
            "give one that neighbours can ask for".to_owned(),
        ));
    }
    let Some(interface) = own.or(interface) else {
        let help =
            "write `interface = \"eth0\"` in the set, or the interface behind the address, as in `192.0.2.10@eth1`";
        return Err((format!("it is not said on which interface {ip} is"), help.to_owned()));
    };
    Ok(VipAddress { ip, interface: interface_name(interface)? })
}

pub(super) fn interface_name(text: &str) -> Result<String, (String, String)> {
    let plain = text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '@'));
    if text.is_empty() || text.len() > MAX_INTERFACE || !plain || matches!(text, "." | "..") {
        let help = format!("`ip link` lists their names; they have at most {MAX_INTERFACE} letters");
        return Err((format!("`{text}` cannot be an interface"), help));
    }
    if text == "lo" {
        let help = "name the interface on the network where the address is asked for";
        return Err(("nobody else reaches an address on `lo`".to_owned(), help.to_owned()));
    }
    Ok(text.to_owned())
}

fn user_name(text: &str) -> Result<String, (String, String)> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, ':' | '/')) {
        let help = "name a user of this machine, as in `user = \"nobody\"`: /etc/passwd lists them";
        return Err((format!("`{text}` cannot be a user"), help.to_owned()));
    }
    Ok(text.to_owned())
}

fn interval(text: &str) -> Result<Option<Duration>, (String, String)> {
    if text == "off" {
        return Ok(None);
    }
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(3600));
    let help = format!("write \"off\", or a duration from {} to {}", show_duration(least), show_duration(most));
    duration(text, least, most).map(Some).map_err(|(message, _)| (message, help))
}
