//! Those who do not belong: wrong keys, floods of garbage.

use crate::support::{
    Machine, dropped, eventually, links, path, resident, rewrite, say, started, stats, system_test, wait_answering,
    wait_links, world,
};
use crate::traffic::{carry, noise};
use sinew::base::{Identity, Instant as Moment, LinkId, Obstacle, Rng, WallTime};
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{LISTEN_PORT, LinkSpec, Router, Topology};
use sinew::proto::security::{Security, Settings};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_wrong_key_is_no_link() {
    system_test("strangers::a_wrong_key_is_no_link", Machine::Shared, || {
        let wire = Conditions::wire(1.0, 0);
        let links_of = [("a", "b"), ("b", "impostor"), ("a", "psk")];
        let specs = links_of.map(|(one, other)| LinkSpec::new(one, other, wire)).to_vec();
        let world = world(Topology::new(&["a", "b", "impostor", "psk"], specs));
        let impostor = world.router("impostor");
        // It has another key than the others expect of it; the last has another secret than its neighbour.
        let other = Identity::from_seed([9; 32]);
        let key = format!("{}\n", other.to_secret_text().as_str());
        std::fs::write(world.dir().join("impostor.key"), key).expect("is written");
        let (wanted, has) = (impostor.public().to_string(), other.public().to_string());
        rewrite(impostor, |text| text.replace(&wanted, &has));
        let secret = "[[link]]\npreshared_key = \"BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"";
        rewrite(world.router("psk"), |text| text.replace("[[link]]", secret));
        world.routers().iter().for_each(|router| router.start().expect("starts"));
        world.routers().iter().for_each(wait_answering);
        let (a, b) = (world.router("a"), world.router("b"));
        eventually("a reaches b", || path(a, "b"));
        carry(a, b, 8000, &noise(3, 100_000));
        // Whichever end answers last finds out; the other hears nothing.
        for pair in [[a, world.router("psk")], [b, impostor]] {
            eventually("refused handshakes are counted", || {
                let counted = pair.map(|router| dropped(router, "handshake-refused"));
                (counted.iter().sum::<u64>() > 0).then_some(())
            });
        }
        // Each end says what it can know of why.
        let obstacle = |router: &Router, peer: &str| {
            links(router).into_iter().find(|link| link.peer == peer).and_then(|link| link.obstacle)
        };
        for (router, peer, what) in [(b, "impostor", Obstacle::HasOtherKey), (impostor, "b", Obstacle::WantsOtherKey)] {
            let found = || obstacle(router, peer).filter(|&found| found == what);
            eventually(&format!("{}'s link to {peer}: {what:?}", router.name()), found);
        }
        assert!(b.log().contains("a router asks for a link whose key is no [[member]]'s"), "{}", b.log());
        eventually("one end notices that the secrets differ", || {
            let ends = [obstacle(a, "psk"), obstacle(world.router("psk"), "a")];
            ends.contains(&Some(Obstacle::PresharedKey)).then_some(())
        });
        for router in world.routers() {
            for link in links(router) {
                let good = matches!((router.name(), link.peer.as_str()), ("a", "b") | ("b", "a"));
                assert_eq!(link.up, good, "{}: {link:?}", router.name());
                assert!(!good || link.down_reason.is_none(), "the good link never went down: {link:?}");
            }
        }
        carry(b, a, 8001, &noise(4, 100_000));
    });
}

#[test]
fn garbage_at_every_port() {
    system_test("strangers::garbage_at_every_port", Machine::Alone, || {
        let world = started(Topology::chain(2, Conditions::wire(1.0, 0)));
        wait_links(&world);
        let (a, b, c) = (world.router("a"), world.router("b"), world.router("c"));
        carry(a, c, 7999, &noise(5, 400_000));
        // Figures first: control's copies of them are more than a flood may cost.
        let handled = stats(b)[0]["datagrams_in"].as_u64();
        let memory = resident(b);
        let ports = udp_ports(b);
        assert!(ports.contains(&LISTEN_PORT), "{ports:?}");
        let knocks = handshakes(b, 300);
        let over = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let near = scope.spawn(|| b.inside(|| flood_inside(&ports, &knocks, &over)).expect("floods"));
            let spoofed = scope.spawn(|| a.inside(|| flood_spoofed(&ports, &knocks, &over)).expect("floods"));
            for round in 0..6 {
                carry(a, c, 8000 + round, &noise(6, 150_000));
                std::thread::sleep(Duration::from_millis(200));
            }
            over.store(true, Ordering::Relaxed);
            near.join().expect("no panic") + spoofed.join().expect("no panic")
        });
        let grown = resident(b).saturating_sub(memory);
        assert!(sent > 5_000, "{sent} datagrams are no flood");
        for router in [a, b, c] {
            for link in links(router) {
                assert!(link.up && link.down_reason.is_none(), "{}: {link:?}", router.name());
            }
        }
        let drops = &stats(b)[0]["drops"];
        for reason in ["stranger", "malformed", "no-keys", "unauthentic", "handshake-refused"] {
            say(&format!("flood: {reason} {}", drops[reason].as_u64().unwrap_or(0)));
        }
        let counted: u64 = ["stranger", "malformed", "no-keys", "unauthentic", "handshake-refused"]
            .iter()
            .map(|&reason| drops[reason].as_u64().unwrap_or(0))
            .sum();
        assert!(counted > sent / 20, "{counted} of {sent} counted: {drops}");
        say(&format!(
            "flood: {sent} datagrams at {} ports, {counted} dropped, memory grew by {grown} KiB",
            ports.len()
        ));
        assert!(grown < 6 * 1024, "memory grew by {grown} KiB");
        assert!(stats(b)[0]["datagrams_in"].as_u64() > handled);
        carry(c, a, 8100, &noise(7, 100_000));
    });
}

/// The UDP ports that a router's process has open.
fn udp_ports(router: &Router) -> BTreeSet<u16> {
    let text = std::fs::read_to_string(format!("/proc/{}/net/udp", router.pid().expect("runs"))).expect("is there");
    let local = |line: &str| line.split_whitespace().nth(1)?.rsplit_once(':').map(|(_, port)| port.to_owned());
    text.lines().skip(1).filter_map(local).filter_map(|port| u16::from_str_radix(&port, 16).ok()).collect()
}

/// Handshakes that a stranger who knows the router's public key would send: worth public-key work.
fn handshakes(router: &Router, count: u64) -> Vec<Vec<u8>> {
    let to = SocketAddr::from(([127, 0, 0, 1], LISTEN_PORT));
    let mut made = Vec::new();
    for seed in 0..count {
        let identity = Identity::from_seed([seed as u8; 32]);
        let epoch = WallTime::from_nanos(1_800_000_000_000_000_000 + seed);
        let mut security = Security::new(identity, Settings::default(), epoch, Rng::from_u64(seed));
        security.add_peer(Moment::ZERO, LinkId(0), router.public(), None, &[to.into()]);
        let now = Moment::from_millis(100);
        security.handle_timeout(now);
        let mut datagram = [0; 2048];
        let (_, _, len) = security.poll_transmit(now, &mut datagram).expect("it asks for keys");
        made.push(datagram[..len].to_vec());
    }
    made
}

/// The n-th piece of garbage: noise of all sizes, kinds that look real, true handshakes cut short or changed.
fn garbage(n: usize, rng: &mut Rng, knocks: &[Vec<u8>]) -> Vec<u8> {
    let knock = &knocks[n / 8 % knocks.len()];
    let mut bytes = vec![0; rng.below(1472) as usize];
    rng.fill(&mut bytes);
    match n % 8 {
        0 => bytes,
        1 => knock.clone(),
        2 => knock[..rng.below(knock.len() as u64) as usize].to_vec(),
        3 => {
            let mut changed = knock.clone();
            changed[rng.below(knock.len() as u64) as usize] ^= 1 << rng.below(8);
            changed
        }
        // A kind of the wire, the rest noise; of its true length where it has one.
        kind => {
            bytes.resize([153, 88, 60, 40 + bytes.len()][kind - 4], 0xa5);
            bytes[0] = kind as u8 - 3;
            bytes
        }
    }
}

/// From the router's own namespace, as fast as the machine takes it in bursts.
fn flood_inside(ports: &BTreeSet<u16>, knocks: &[Vec<u8>], over: &AtomicBool) -> io::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let (mut rng, mut sent) = (Rng::from_u64(1), 0);
    while !over.load(Ordering::Relaxed) {
        for &port in ports {
            for n in 0..16 {
                let bytes = garbage(sent as usize + n, &mut rng, knocks);
                // A full socket is no reason to stop.
                let _ = socket.send_to(&bytes, (Ipv4Addr::LOCALHOST, port));
            }
        }
        sent += 16 * ports.len() as u64;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

/// From the neighbour's namespace with the neighbour's own address and port, so that it reaches the link's own socket.
fn flood_spoofed(ports: &BTreeSet<u16>, knocks: &[Vec<u8>], over: &AtomicBool) -> io::Result<u64> {
    // SAFETY: plain system call; the descriptor it returns is owned by nobody else.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_UDP) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just returned by socket(2).
    let raw = unsafe { OwnedFd::from_raw_fd(raw) };
    let (mut rng, mut sent) = (Rng::from_u64(2), 0);
    while !over.load(Ordering::Relaxed) {
        for &port in ports {
            let payload = garbage(sent as usize, &mut rng, knocks);
            send_raw(&raw, Ipv4Addr::new(10, 64, 0, 2), port, &payload);
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(sent)
}

fn send_raw(raw: &OwnedFd, to: Ipv4Addr, port: u16, payload: &[u8]) {
    let mut packet = Vec::new();
    // A UDP header (RFC 768) without checksum.
    for word in [LISTEN_PORT, port, 8 + payload.len() as u16, 0] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.extend_from_slice(payload);
    // SAFETY: an all-zero sockaddr_in is valid; the fields that matter are set below.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_addr.s_addr = u32::from_ne_bytes(to.octets());
    let length = size_of::<libc::sockaddr_in>() as u32;
    let (from, address) = (packet.as_ptr().cast(), std::ptr::from_ref(&address).cast());
    // SAFETY: the pointers and lengths describe `packet` and `address`. A full queue is no reason to stop.
    unsafe { libc::sendto(raw.as_raw_fd(), from, packet.len(), libc::MSG_DONTWAIT, address, length) };
}
