//! The lease: the right to speak for virtual addresses, enforced by the kernel.
//!
//! A table of nftables of our own hangs on the interfaces of the virtual addresses, on what comes in and what goes out:
//!
//! ```text
//!              ┌─ the element of `alive` is there ─▶ awake: drop address resolution (ARP, neighbour discovery)
//!   packet ────┤                                            about an address in `muted`; accept the rest
//!              └─ it has timed out ────────────────▶ drop everything to or from an address in `guarded`; accept the rest
//! ```
//!
//! One element with a timeout stands for all addresses of this host, so a renewal costs the same for one address as for a
//! thousand: one transaction, about 80 µs. When nobody renews it, because the process was killed, stopped, or starves, the
//! kernel falls silent by itself. The table outlives the process, and so does the silence; the next start makes it anew.
//!
//! A renewal is "delete the element, then add it" in one transaction. The kernel refuses to delete what has timed out, and
//! with that the whole: **a lease that ran out cannot be renewed**, however long the process slept between its look at the
//! clock and the system call. It takes a new [`Lease::grant`], and before that everything held is given up.
//!
//! On what goes out the hook sees also what packet sockets send (announcements): a process that wakes up after its lease
//! says nothing either. That hook exists since Linux 5.16; without it only what comes in is guarded, which is said.
//! Where the kernel can (6.9), the table belongs to this process, so that others who flush the rules leave it alone;
//! elsewhere a renewal notices within a fraction of the lease that the table is gone, and makes it again.
//!
//! # Other tables of the host
//! The kernel makes one change to its packet filter at a time in a network namespace, ours among them: while another program
//! loads a large table, a renewal waits. A reload of 10,000 rules has held one up for 48 ms, which is a whole lease of the
//! profile `safe`; the owner is then silent, and gives everything up, though nothing is wrong with it. `slowest_renewal_us`
//! ([`Stats`](super::Stats)) tells. Where such tables are reloaded, write `lease = "200ms"` on all members, or load only
//! what has changed.
//!
//! Other interfaces of the host are left alone. A Linux host accepts what comes to any of its addresses on any interface,
//! so who is connected to another one of a dead owner's interfaces, and asks there, is still answered.
//!
//! To see it: `nft list table netdev sinew_vip`. Numbers and layouts: `linux/netfilter/nf_tables.h`.

use super::super::clock::Clock;
use super::super::netlink::{Message, Netlink, octets};
use crate::base::Instant;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

const TABLE: &str = "sinew_vip";
/// The timed element's key; any four bytes would do.
const KEY: [u8; 4] = [0, 0, 0, 1];
/// How much the kernel's timeouts may differ from what was asked: two ticks of the slowest clock there is, 100 Hz.
const GRAIN: Duration = Duration::from_millis(20);
/// Ahead of every other filter of the interface.
const PRIORITY: i32 = -500;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_NETDEV: u8 = 5;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const TABLE_OWNER_PERSIST: u32 = 2 | 4;
const SET_TIMEOUT: u32 = 0x10;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const META_PROTOCOL: u32 = 1;
const COMPARE_EQUAL: u32 = 0;
const DROP: i32 = 0;
const ACCEPT: u32 = 1;
const GOTO: i32 = -4;
/// `NFTA_LIST_ELEM`, `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
const ELEMENT: u16 = 1;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;

const IPV4: u16 = libc::ETH_P_IP as u16;
const IPV6: u16 = libc::ETH_P_IPV6 as u16;
const ARP: u16 = libc::ETH_P_ARP as u16;
/// An IPv6 packet that asks for a neighbour, or tells of one: next header 58, then the ICMPv6 type (RFC 4861, 4.3, 4.4).
const SOLICITATION: &[(u32, u8)] = &[(6, 58), (40, 135)];
const ADVERTISEMENT: &[(u32, u8)] = &[(6, 58), (40, 136)];

/// Where in a packet, counted from its network header, an address stands that makes it one of ours.
struct Place {
    protocol: u16,
    /// Bytes that must be so.
    bytes: &'static [(u32, u8)],
    offset: u32,
    /// It is about where the address is, not traffic of it.
    resolution: bool,
}

const fn traffic(protocol: u16, offset: u32) -> Place {
    Place { protocol, bytes: &[], offset, resolution: false }
}

const fn resolution(protocol: u16, bytes: &'static [(u32, u8)], offset: u32) -> Place {
    Place { protocol, bytes, offset, resolution: true }
}

/// A hook of an interface: its name, its number, and what is one of ours there.
struct Hook {
    name: &'static str,
    awake: &'static str,
    number: u32,
    places: &'static [Place],
}

/// To an address, or in search of one.
const IN: Hook = Hook {
    name: "in",
    awake: "in_awake",
    number: 0,
    places: &[traffic(IPV4, 16), traffic(IPV6, 24), resolution(ARP, &[], 24), resolution(IPV6, SOLICITATION, 48)],
};
/// From an address, or telling where it is; a question that is asked from it tells that too.
const OUT: Hook = Hook {
    name: "out",
    awake: "out_awake",
    number: 1,
    places: &[
        traffic(IPV4, 12),
        traffic(IPV6, 8),
        resolution(ARP, &[], 14),
        resolution(IPV6, ADVERTISEMENT, 48),
        resolution(IPV6, SOLICITATION, 8),
    ],
};

/// A set of addresses: one for each family.
#[derive(Clone, Copy)]
struct Pair {
    v4: &'static str,
    v6: &'static str,
}

const GUARDED: Pair = Pair { v4: "guarded4", v6: "guarded6" };
const MUTED: Pair = Pair { v4: "muted4", v6: "muted6" };
const ALIVE: &str = "alive";

/// What the kernel lets us build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    table_flags: u32,
    hooks_out: bool,
}

/// From the best to the least; the first that the kernel takes.
const SHAPES: [Shape; 4] = [
    Shape { table_flags: TABLE_OWNER_PERSIST, hooks_out: true },
    Shape { table_flags: 0, hooks_out: true },
    Shape { table_flags: TABLE_OWNER_PERSIST, hooks_out: false },
    Shape { table_flags: 0, hooks_out: false },
];

/// How a renewal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The addresses may speak on.
    Done,
    /// It came too late: they are silent, and stay so.
    Lapsed,
}

/// The lease of this host, and what it is about.
#[derive(Debug)]
pub(super) struct Lease {
    clock: Clock,
    netlink: Netlink,
    shape: Shape,
    /// The interfaces that exist, of those that have virtual addresses.
    interfaces: Vec<String>,
    guarded: BTreeSet<IpAddr>,
    muted: BTreeSet<IpAddr>,
    /// When the element times out.
    until: Option<Instant>,
    rebuilt: u64,
}

impl Lease {
    /// Makes the table, with nothing in it, in place of what an earlier life has left.
    pub(super) fn open(clock: Clock, interfaces: Vec<String>) -> io::Result<Lease> {
        let (guarded, muted) = Default::default();
        let netlink = Netlink::open_netfilter()?;
        let mut lease = Lease { clock, netlink, shape: SHAPES[0], interfaces, guarded, muted, until: None, rebuilt: 0 };
        let mut result = Ok(());
        for shape in SHAPES {
            lease.shape = shape;
            result = lease.build();
            // Without the privilege no other shape helps.
            if result.is_ok() || denied(&result) {
                break;
            }
        }
        result.map(|()| lease)
    }

    /// What is missing for the full promise.
    pub(super) fn weakness(&self) -> Option<&'static str> {
        let why = "this kernel guards only what comes in (no netdev egress hook, Linux 5.16): an owner whose lease ran out \
                   is not answered by anybody, but may still ask for others in the address's name";
        (!self.shape.hooks_out).then_some(why)
    }

    /// How often the table was made again because somebody had removed it, or an interface came or went.
    pub(super) const fn rebuilt(&self) -> u64 {
        self.rebuilt
    }

    /// Puts addresses under the lease; before they are given to an interface.
    pub(super) fn guard(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        self.guarded.extend(addresses);
        self.change(elements(NEWSETELEM, GUARDED, addresses))
    }

    /// Takes addresses from under it; after they were taken off.
    pub(super) fn unguard(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        self.unmute(addresses)?;
        let known: Vec<IpAddr> = addresses.iter().copied().filter(|address| self.guarded.remove(address)).collect();
        self.change(elements(DELSETELEM, GUARDED, &known))
    }

    /// Lets nobody learn any more where these addresses are.
    pub(super) fn mute(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        self.muted.extend(addresses);
        self.change(elements(NEWSETELEM, MUTED, addresses))
    }

    /// Lets everybody learn it again.
    pub(super) fn unmute(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        let known: Vec<IpAddr> = addresses.iter().copied().filter(|address| self.muted.remove(address)).collect();
        self.change(elements(DELSETELEM, MUTED, &known))
    }

    /// Begins a lease.
    pub(super) fn grant(&mut self, until: Instant) -> io::Result<()> {
        self.until = Some(until);
        self.change(vec![alive(until.since(self.clock.now()))])
    }

    /// Prolongs it.
    pub(super) fn renew(&mut self, until: Instant) -> io::Result<Renewal> {
        let requests = vec![dead(), alive(until.since(self.clock.now()))];
        match self.netlink.transact(NFNL_SUBSYS_NFTABLES, requests) {
            Ok(()) => self.until = Some(until),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Either it has timed out, or somebody removed the table under it: the clock tells.
                if self.until.is_none_or(|until| self.clock.now() + GRAIN >= until) {
                    self.until = None;
                    return Ok(Renewal::Lapsed);
                }
                self.until = Some(until);
                self.rebuild()?;
            }
            Err(error) => return Err(error),
        }
        Ok(Renewal::Done)
    }

    /// Ends it.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.until = None;
        match self.netlink.transact(NFNL_SUBSYS_NFTABLES, vec![dead()]) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Hangs the table on these interfaces instead.
    pub(super) fn move_to(&mut self, interfaces: Vec<String>) -> io::Result<()> {
        self.interfaces = interfaces;
        self.rebuild()
    }

    /// Removes the table.
    pub(super) fn close(mut self) -> io::Result<()> {
        self.netlink.transact(NFNL_SUBSYS_NFTABLES, vec![table(DELTABLE, 0)])
    }

    /// Performs a change; if what it is about is gone, makes all of it again as it is meant to be.
    fn change(&mut self, requests: Vec<Message>) -> io::Result<()> {
        if requests.is_empty() {
            return Ok(());
        }
        match self.netlink.transact(NFNL_SUBSYS_NFTABLES, requests) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rebuild(),
            result => result,
        }
    }

    fn rebuild(&mut self) -> io::Result<()> {
        self.rebuilt += 1;
        self.build()
    }

    /// Replaces whatever is there by what is meant, in one transaction: no packet sees anything in between.
    fn build(&mut self) -> io::Result<()> {
        let mut requests = vec![
            // It must be there to be removed, whoever's it was.
            table(NEWTABLE, self.shape.table_flags),
            table(DELTABLE, 0),
            table(NEWTABLE, self.shape.table_flags),
            set(ALIVE, KEY.len(), 1, SET_TIMEOUT),
        ];
        for (number, pair) in [GUARDED, MUTED].into_iter().enumerate() {
            let number = 2 + 2 * number as u32;
            requests.extend([set(pair.v4, 4, number, 0), set(pair.v6, 16, number + 1, 0)]);
        }
        for hook in [IN, OUT] {
            if !self.interfaces.is_empty() && (hook.number == IN.number || self.shape.hooks_out) {
                requests.extend(chains(&hook, &self.interfaces));
            }
        }
        let all = |set: &BTreeSet<IpAddr>| set.iter().copied().collect::<Vec<_>>();
        requests.extend(elements(NEWSETELEM, GUARDED, &all(&self.guarded)));
        requests.extend(elements(NEWSETELEM, MUTED, &all(&self.muted)));
        let left = self.until.map_or(Duration::ZERO, |until| until.since(self.clock.now()));
        if !left.is_zero() {
            requests.push(alive(left));
        }
        self.netlink.transact(NFNL_SUBSYS_NFTABLES, requests)
    }
}

fn denied(result: &io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// A request of nftables about this table; `name` is the number of the attribute that names it.
fn request(kind: u16, flags: i32, name: u16) -> Message {
    let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
    let mut message = Message::new(kind, flags, &[NFPROTO_NETDEV, 0, 0, 0]);
    message.text(name, TABLE);
    message
}

fn number(message: &mut Message, kind: u16, value: u32) {
    message.attribute(kind, &value.to_be_bytes());
}

fn table(kind: u16, flags: u32) -> Message {
    let mut message = request(kind, if kind == NEWTABLE { libc::NLM_F_CREATE } else { 0 }, 1);
    if flags != 0 {
        number(&mut message, 2, flags);
    }
    message
}

fn set(name: &str, key: usize, id: u32, flags: u32) -> Message {
    let mut message = request(NEWSET, libc::NLM_F_CREATE, 1);
    message.text(2, name);
    // Flags, type of the key (for display only), its length, and a number that is unique in the transaction.
    for (kind, value) in [(3, flags), (4, 0), (5, key as u32), (10, id)] {
        number(&mut message, kind, value);
    }
    message
}

/// The chains of a hook and their rules.
fn chains(hook: &Hook, interfaces: &[String]) -> Vec<Message> {
    let mut awake = request(NEWCHAIN, libc::NLM_F_CREATE, 1);
    awake.text(3, hook.awake);
    let mut base = request(NEWCHAIN, libc::NLM_F_CREATE, 1);
    base.text(3, hook.name).nested(4, |place| {
        number(place, 1, hook.number);
        number(place, 2, PRIORITY.cast_unsigned());
        place.nested(4, |devices| {
            for name in interfaces {
                devices.text(1, name);
            }
        });
    });
    number(&mut base, 5, ACCEPT);
    base.text(7, "filter");
    let lives = rule(hook.name, |rule| {
        expression(rule, "immediate", |it| {
            number(it, 1, REGISTER);
            it.nested(2, |data| {
                data.attribute(VALUE, &KEY);
            });
        });
        is_in(rule, ALIVE);
        verdict(rule, GOTO, Some(hook.awake));
    });
    let silent = |chain: &'static str, pair: Pair| move |place: &Place| rule(chain, |rule| drops(rule, place, pair));
    let mut requests = vec![awake, base, lives];
    requests.extend(hook.places.iter().map(silent(hook.name, GUARDED)));
    requests.extend(hook.places.iter().filter(|place| place.resolution).map(silent(hook.awake, MUTED)));
    requests
}

fn rule(chain: &str, fill: impl FnOnce(&mut Message)) -> Message {
    let mut message = request(NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, 1);
    message.text(2, chain).nested(4, fill);
    message
}

fn expression(rule: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    rule.nested(ELEMENT, |expression| {
        expression.text(1, name).nested(2, fill);
    });
}

/// Drops what has one of the addresses at this place.
fn drops(rule: &mut Message, place: &Place, pair: Pair) {
    expression(rule, "meta", |it| {
        number(it, 2, META_PROTOCOL);
        number(it, 1, REGISTER);
    });
    is(rule, &place.protocol.to_be_bytes());
    for &(offset, byte) in place.bytes {
        load(rule, offset, 1);
        is(rule, &[byte]);
    }
    let (name, len) = if place.protocol == IPV6 { (pair.v6, 16) } else { (pair.v4, 4) };
    load(rule, place.offset, len);
    is_in(rule, name);
    verdict(rule, DROP, None);
}

fn load(rule: &mut Message, offset: u32, len: u32) {
    expression(rule, "payload", |it| {
        for (kind, value) in [(1, REGISTER), (2, NETWORK_HEADER), (3, offset), (4, len)] {
            number(it, kind, value);
        }
    });
}

fn is(rule: &mut Message, value: &[u8]) {
    expression(rule, "cmp", |it| {
        number(it, 1, REGISTER);
        number(it, 2, COMPARE_EQUAL);
        it.nested(3, |data| {
            data.attribute(VALUE, value);
        });
    });
}

fn is_in(rule: &mut Message, set: &str) {
    expression(rule, "lookup", |it| {
        it.text(1, set);
        number(it, 2, REGISTER);
    });
}

fn verdict(rule: &mut Message, code: i32, chain: Option<&str>) {
    expression(rule, "immediate", |it| {
        number(it, 1, VERDICT_REGISTER);
        it.nested(2, |data| {
            data.nested(VERDICT, |verdict| {
                number(verdict, 1, code.cast_unsigned());
                if let Some(chain) = chain {
                    verdict.text(2, chain);
                }
            });
        });
    });
}

/// Adds addresses to a pair of sets, or removes them.
fn elements(kind: u16, pair: Pair, addresses: &[IpAddr]) -> Vec<Message> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|address| address.is_ipv4());
    let of = |(set, addresses): (&str, Vec<IpAddr>)| {
        let keys = addresses.iter().copied().map(octets);
        (!addresses.is_empty()).then(|| change_set(kind, set, keys, None))
    };
    [(pair.v4, v4), (pair.v6, v6)].into_iter().filter_map(of).collect()
}

fn alive(left: Duration) -> Message {
    change_set(NEWSETELEM, ALIVE, [KEY.to_vec()].into_iter(), Some(left))
}

fn dead() -> Message {
    change_set(DELSETELEM, ALIVE, [KEY.to_vec()].into_iter(), None)
}

fn change_set(kind: u16, set: &str, keys: impl Iterator<Item = Vec<u8>>, timeout: Option<Duration>) -> Message {
    let mut message = request(kind, if kind == NEWSETELEM { libc::NLM_F_CREATE } else { 0 }, 1);
    message.text(2, set).nested(3, |list| {
        for key in keys {
            list.nested(ELEMENT, |element| {
                element.nested(1, |data| {
                    data.attribute(VALUE, &key);
                });
                if let Some(timeout) = timeout {
                    // Zero would mean for ever.
                    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
                    element.attribute(4, &millis.to_be_bytes());
                }
            });
        }
    });
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::ladder::run_test;
    use crate::lab::netns::Netns;
    use crate::runtime::capabilities::{self, NET_ADMIN};

    const LEASE: Duration = Duration::from_millis(100);
    const OURS: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

    fn addresses() -> Vec<IpAddr> {
        OURS.iter().map(|text| text.parse().expect("an address")).collect()
    }

    /// In a namespace of its own, where the kernel does what it is asked.
    fn with_lease(name: &str, body: impl FnOnce(&mut Lease, Clock) + Send) {
        let name = format!("runtime::vip::lease::tests::{name}");
        let inside = || {
            let namespace = Netns::new().expect("is made");
            let work = || {
                let clock = Clock::start();
                let mut lease = Lease::open(clock, vec!["lo".into()])?;
                body(&mut lease, clock);
                Ok(())
            };
            match namespace.run(work) {
                Err(error) if !capabilities::has(NET_ADMIN) => panic!("{error}"),
                Err(error) => crate::runtime::not_run::count(&format!("{name}: no nftables here: {error}")),
                Ok(()) => {}
            }
        };
        if !run_test(&name, inside) {
            crate::runtime::not_run::count(&name);
        }
    }

    #[test]
    fn a_lease_that_ran_out_cannot_be_renewed_but_begun_again() {
        with_lease("a_lease_that_ran_out_cannot_be_renewed_but_begun_again", |lease, clock| {
            lease.guard(&addresses()).expect("is guarded");
            lease.grant(clock.now() + LEASE).expect("begins");
            for _ in 0..20 {
                std::thread::sleep(LEASE / 5);
                assert_eq!(lease.renew(clock.now() + LEASE).expect("is asked"), Renewal::Done);
            }
            std::thread::sleep(LEASE + GRAIN);
            assert_eq!(lease.renew(clock.now() + LEASE).expect("is asked"), Renewal::Lapsed);
            assert_eq!(lease.renew(clock.now() + LEASE).expect("is asked"), Renewal::Lapsed, "and stays so");
            lease.grant(clock.now() + LEASE).expect("begins again");
            assert_eq!(lease.renew(clock.now() + LEASE).expect("is asked"), Renewal::Done);
            lease.end().expect("ends");
            lease.end().expect("there is nothing to end");
            assert_eq!(lease.rebuilt(), 0);
        });
    }

    #[test]
    fn a_table_that_somebody_removed_is_made_again_with_all_that_was_in_it() {
        with_lease("a_table_that_somebody_removed_is_made_again_with_all_that_was_in_it", |lease, clock| {
            lease.guard(&addresses()).expect("is guarded");
            lease.mute(&addresses()[..1]).expect("is muted");
            lease.grant(clock.now() + LEASE).expect("begins");
            // Others cannot remove it where the kernel lets us own it; we can everywhere.
            lease.netlink.transact(NFNL_SUBSYS_NFTABLES, vec![table(DELTABLE, 0)]).expect("is removed");
            assert_eq!(lease.renew(clock.now() + LEASE).expect("is asked"), Renewal::Done);
            assert_eq!(lease.rebuilt(), 1);
            // The kernel refuses to delete what is not there.
            let guarded = elements(DELSETELEM, GUARDED, &addresses());
            let there = [guarded, elements(DELSETELEM, MUTED, &addresses()[..1])].concat();
            lease.netlink.transact(NFNL_SUBSYS_NFTABLES, there).expect("everything is there again");
        });
    }

    #[test]
    fn what_was_never_there_can_be_taken_away() {
        with_lease("what_was_never_there_can_be_taken_away", |lease, clock| {
            lease.unguard(&addresses()).expect("nothing to do");
            lease.unmute(&addresses()).expect("nothing to do");
            lease.guard(&addresses()).expect("is guarded");
            lease.guard(&addresses()).expect("and again");
            lease.unguard(&addresses()).expect("is unguarded");
            lease.move_to(Vec::new()).expect("no interface is left");
            lease.move_to(vec!["lo".into()]).expect("it came back");
            assert_eq!(lease.renew(clock.now() + LEASE).expect("is asked"), Renewal::Lapsed, "none was begun");
        });
    }

    /// The one that the kernel takes first is in use everywhere else.
    #[test]
    fn every_shape_of_the_table_works() {
        with_lease("every_shape_of_the_table_works", |lease, clock| {
            assert!(lease.shape.hooks_out || lease.weakness().is_some());
            let best = lease.shape;
            let possible = |shape: &Shape| {
                (best.hooks_out || !shape.hooks_out) && (best.table_flags != 0 || shape.table_flags == 0)
            };
            for shape in SHAPES.into_iter().filter(possible) {
                // Who owns a table cannot disown it.
                lease.netlink.transact(NFNL_SUBSYS_NFTABLES, vec![table(DELTABLE, 0)]).expect("is removed");
                lease.shape = shape;
                lease.build().unwrap_or_else(|error| panic!("{shape:?}: {error}"));
                lease.guard(&addresses()).expect("is guarded");
                lease.grant(clock.now() + LEASE).expect("begins");
                assert_eq!(lease.renew(clock.now() + LEASE).expect("is asked"), Renewal::Done, "{shape:?}");
                assert_eq!(lease.weakness().is_some(), !shape.hooks_out);
                lease.end().expect("ends");
            }
        });
    }

    #[test]
    fn where_others_could_flush_it_the_table_has_an_owner() {
        with_lease("where_others_could_flush_it_the_table_has_an_owner", |lease, _| {
            let mut other = Netlink::open_netfilter().expect("opens");
            let removed = other.transact(NFNL_SUBSYS_NFTABLES, vec![table(DELTABLE, 0)]);
            assert_eq!(removed.is_err(), lease.shape.table_flags != 0, "{removed:?}");
        });
    }
}
