//! Virtual addresses on interfaces.
//!
//! Each is added as a host's (/32, /128) without a route for its prefix, so that taking it off takes nothing else along;
//! without duplicate address detection, which would keep an IPv6 address quiet for a second or two; deprecated if IPv6, so
//! that the host does not begin conversations of its own in its name; and tagged (`IFA_PROTO`, Linux 5.18) as ours, so that
//! what an earlier life has left is found. Kernels that keep no tag are helped by the form: a stray has no prefix route.

use super::super::netlink::{Message, Netlink, attribute, family, octets};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose addresses these are: any number that no other program uses (18 is keepalived's).
const TAG: u8 = 83;
const NO_DETECTION: u32 = 0x02;
const NO_PREFIX_ROUTE: u32 = 0x200;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) index: u32,
    pub(super) address: IpAddr,
}

/// An address as the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) placed: Placed,
    prefix: u8,
    flags: u32,
    tag: Option<u8>,
}

/// The door to the kernel's addresses.
#[derive(Debug)]
pub(super) struct Addresses(Netlink);

impl Addresses {
    /// In the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Addresses> {
        Netlink::open().map(Addresses)
    }

    /// Adds all of them or none.
    pub(super) fn add_all(&mut self, placed: &[Placed]) -> io::Result<()> {
        for (done, &one) in placed.iter().enumerate() {
            if let Err(error) = self.add(one) {
                // What cannot be undone either is found at the next start.
                let _ = self.remove_all(&placed[..done]);
                return Err(io::Error::new(error.kind(), format!("{}: {error}", one.address)));
            }
        }
        Ok(())
    }

    /// Whether the kernel takes in what comes for all of them. It finishes IPv6 addresses behind our back, in a thread of
    /// its own: some 100 µs after it has said that they are there, and much later where that thread waits for a processor.
    /// Whoever is told of them before that is not heard.
    pub(super) fn are_settled(&mut self, placed: &[Placed]) -> bool {
        placed.iter().filter(|one| one.address.is_ipv6()).all(|&one| self.is_local(one).unwrap_or(true))
    }

    /// Whether the kernel would keep what comes for this address.
    fn is_local(&mut self, placed: Placed) -> io::Result<bool> {
        const RTA_DST: u16 = 1;
        // `struct rtmsg`: family and length of the destination; its type is the eighth byte.
        let mut fixed = [0; 12];
        (fixed[0], fixed[1]) = (family(placed.address), full(placed.address));
        let mut message = Message::new(libc::RTM_GETROUTE, 0, &fixed);
        message.attribute(RTA_DST, &octets(placed.address));
        Ok(self.0.ask(&message)?.get(7) == Some(&libc::RTN_LOCAL))
    }

    /// Takes all of them off that are there. Tries every one; the error is the first.
    pub(super) fn remove_all(&mut self, placed: &[Placed]) -> io::Result<()> {
        let mut result = Ok(());
        for &one in placed {
            match self.0.request(&deletion(one, full(one.address))) {
                Err(error) if is_gone(&error) => {}
                done => result = result.and(done),
            }
        }
        result
    }

    /// Whether it is there.
    pub(super) fn has(&mut self, placed: Placed) -> io::Result<bool> {
        Ok(self.all()?.iter().any(|entry| entry.placed == placed))
    }

    /// Removes what an earlier life has left; answers what that was.
    pub(super) fn sweep(&mut self, virtual_addresses: &[IpAddr]) -> io::Result<Vec<IpAddr>> {
        let mut removed = Vec::new();
        for entry in self.all()?.into_iter().filter(|entry| entry.is_stray(virtual_addresses)) {
            match self.0.request(&deletion(entry.placed, entry.prefix)) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => removed.push(entry.placed.address),
            }
        }
        Ok(removed)
    }

    fn add(&mut self, placed: Placed) -> io::Result<()> {
        match self.0.request(&addition(placed)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = self.all()?.into_iter().find(|entry| entry.placed == placed);
                if there.is_some_and(|entry| entry.tag == Some(TAG)) {
                    return Ok(());
                }
                Err(io::Error::new(error.kind(), "the interface has it already, and not from us: take it off there"))
            }
            result => result,
        }
    }

    fn all(&mut self) -> io::Result<Vec<Entry>> {
        let entries = self.0.dump(libc::RTM_GETADDR, &[0; 8])?;
        Ok(entries.iter().filter_map(|(_, body)| Entry::read(body)).collect())
    }
}

impl Entry {
    /// From the body of `RTM_NEWADDR` or `RTM_DELADDR`.
    pub(super) fn read(body: &[u8]) -> Option<Entry> {
        let (&[family, prefix, flags, _, a, b, c, d], attributes) = body.split_first_chunk::<8>()?;
        let value = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
        let address = match libc::c_int::from(family) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
            libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
            _ => return None,
        };
        let wide = attribute(attributes, IFA_FLAGS).and_then(|value| value.first_chunk().copied());
        let flags = wide.map_or(u32::from(flags), u32::from_ne_bytes);
        let tag = attribute(attributes, IFA_PROTO).and_then(|value| value.first().copied());
        Some(Entry { placed: Placed { index: u32::from_ne_bytes([a, b, c, d]), address }, prefix, flags, tag })
    }

    fn is_stray(&self, virtual_addresses: &[IpAddr]) -> bool {
        let Placed { address, .. } = self.placed;
        let of_our_form = self.prefix == full(address) && self.flags & NO_PREFIX_ROUTE != 0;
        // A tag of another program's says that it is not ours.
        let untagged = self.tag.is_none() && of_our_form && virtual_addresses.contains(&address);
        self.tag == Some(TAG) || untagged
    }
}

/// Removed already, or its interface is.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::NotFound)
        || error.raw_os_error() == Some(libc::ENODEV)
}

/// The length of a whole address.
const fn full(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// `struct ifaddrmsg` and the address.
fn about(kind: u16, flags: i32, placed: Placed, prefix: u8) -> Message {
    let mut fixed = [family(placed.address), prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&placed.index.to_ne_bytes());
    let mut message = Message::new(kind, flags, &fixed);
    let octets = octets(placed.address);
    message.attribute(IFA_LOCAL, &octets).attribute(IFA_ADDRESS, &octets);
    message
}

fn addition(placed: Placed) -> Message {
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = about(libc::RTM_NEWADDR, create, placed, full(placed.address));
    message.attribute(IFA_FLAGS, &(NO_DETECTION | NO_PREFIX_ROUTE).to_ne_bytes());
    message.attribute(IFA_PROTO, &[TAG]);
    if placed.address.is_ipv6() {
        // `struct ifa_cacheinfo`: preferred for no time, valid for ever; the rest is the kernel's.
        let lives = [0u32, u32::MAX, 0, 0].map(u32::to_ne_bytes);
        message.attribute(IFA_CACHEINFO, lives.as_flattened());
    }
    message
}

fn deletion(placed: Placed, prefix: u8) -> Message {
    about(libc::RTM_DELADDR, 0, placed, prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, prefix: u8, flags: u32, tag: Option<u8>) -> Entry {
        Entry { placed: Placed { index: 3, address: address.parse().expect("an address") }, prefix, flags, tag }
    }

    #[test]
    fn what_is_added_reads_as_it_was_meant() {
        for text in ["192.0.2.7", "2001:db8::7"] {
            let placed = Placed { index: 3, address: text.parse().expect("an address") };
            let bytes = addition(placed).encode(1);
            let read = Entry::read(&bytes[16..]).expect("is read");
            let prefix = if placed.address.is_ipv4() { 32 } else { 128 };
            assert_eq!(read, entry(text, prefix, NO_DETECTION | NO_PREFIX_ROUTE, Some(TAG)));
            for len in 0..bytes.len() - 16 {
                let _ = Entry::read(&bytes[16..16 + len]);
            }
        }
    }

    #[test]
    fn strays_are_what_is_tagged_or_has_our_form_and_is_ours() {
        let ours = ["192.0.2.7".parse().expect("an address"), "2001:db8::7".parse().expect("an address")];
        assert!(entry("192.0.2.9", 24, 0, Some(TAG)).is_stray(&ours), "tagged, of a configuration that was");
        assert!(entry("192.0.2.7", 32, NO_PREFIX_ROUTE, None).is_stray(&ours), "an old kernel keeps no tag");
        assert!(entry("2001:db8::7", 128, NO_PREFIX_ROUTE | 0x80, None).is_stray(&ours));
        assert!(!entry("192.0.2.7", 32, 0, None).is_stray(&ours), "an operator's");
        assert!(!entry("192.0.2.7", 24, NO_PREFIX_ROUTE, None).is_stray(&ours), "a host's own");
        assert!(!entry("192.0.2.7", 32, NO_PREFIX_ROUTE, Some(18)).is_stray(&ours), "another program's");
        assert!(!entry("192.0.2.8", 32, NO_PREFIX_ROUTE, None).is_stray(&ours), "not a virtual address");
    }
}
