//! A small network of our own: some hosts and a client on one bridge, each in a namespace of its own.
//!
//! ```text
//!   [a] eth0 ══ p0 ┐              ┌ p2 ══ eth0 [client]
//!   [b] eth0 ══ p1 ┴─── bridge ───┘              10.66.0.10 + n, fd66::10 + n
//! ```

use sinew::lab::netns::{Netns, sysctl};
use sinew::runtime::netlink::{Mac, Netlink, VethEnd};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where everybody echoes.
pub(crate) const PORT: u16 = 7700;

/// One host.
pub(crate) struct Place {
    pub(crate) namespace: Netns,
    pub(crate) mac: Mac,
}

/// The network: the hosts, the client, and the witnesses, if there are any: one for each host, who asks nobody else.
pub(crate) struct Lan {
    fabric: Netns,
    pub(crate) places: Vec<Place>,
    hosts: usize,
}

impl Lan {
    /// So many hosts, and a client.
    pub(crate) fn new(hosts: usize) -> Lan {
        Lan::build(hosts, 0).expect("a bridge and some hosts can be made here")
    }

    /// So many hosts, a client, and a witness for each host.
    pub(crate) fn with_witnesses(hosts: usize) -> Lan {
        Lan::build(hosts, hosts).expect("a bridge and some hosts can be made here")
    }

    fn build(hosts: usize, witnesses: usize) -> io::Result<Lan> {
        let fabric = Netns::new()?;
        let places = (0..=hosts + witnesses).map(|number| {
            let mac = [0x02, 0x53, 0x4e, 0x66, 0, number as u8];
            Ok(Place { namespace: Netns::new()?, mac })
        });
        let lan = Lan { fabric, places: places.collect::<io::Result<_>>()?, hosts };
        let ends = lan.places.iter().enumerate();
        let ends = ends.map(|(number, place)| (format!("p{number}"), place.mac, "eth0", &place.namespace));
        lan.bridge("br0", ends.collect())?;
        for number in 0..lan.places.len() {
            let [v4, v6] = own_addresses(number);
            lan.in_host(number, |netlink, index| {
                sysctl("ipv6/conf/eth0/accept_dad", "0")?;
                let loopback = netlink.index("lo")?;
                netlink.set_up(loopback, true)?;
                netlink.set_up(index, true)?;
                netlink.add_address(index, v4, 24)?;
                netlink.add_address(index, v6, 64)
            })?;
        }
        Ok(lan)
    }

    /// Makes a bridge, and for each of these a port of it with the other end in a namespace: port, Ethernet address,
    /// interface, namespace.
    fn bridge(&self, name: &str, ends: Vec<(String, Mac, &str, &Netns)>) -> io::Result<()> {
        self.fabric.run(|| {
            let mut netlink = Netlink::open()?;
            netlink.add_bridge(name)?;
            let bridge = netlink.index(name)?;
            netlink.set_up(bridge, true)?;
            for (port, mac, interface, namespace) in ends {
                let mut port_mac = mac;
                port_mac[3] += 1;
                let near = VethEnd { name: &port, mac: port_mac, namespace: None };
                let far = VethEnd { name: interface, mac, namespace: Some(namespace.as_fd()) };
                netlink.add_veth(near, far)?;
                let port = netlink.index(&port)?;
                netlink.set_master(port, bridge)?;
                netlink.set_up(port, true)?;
            }
            Ok(())
        })
    }

    /// A second network, behind the hosts: their `eth1`, at 10.67.0.10 + n, and a server's `eth0`, at 10.67.0.1.
    pub(crate) fn behind(&self) -> Netns {
        let build = || {
            let server = Netns::new()?;
            let hosts = &self.places[..self.hosts];
            let mac = |number: usize| [0x02, 0x53, 0x4e, 0x70, 0, number as u8];
            let ends = hosts.iter().enumerate();
            let ends = ends.map(|(number, place)| (format!("q{number}"), mac(number), "eth1", &place.namespace));
            let of_server = ("qs".to_owned(), mac(hosts.len()), "eth0", &server);
            self.bridge("br1", ends.chain([of_server]).collect())?;
            let set_up = |name: &str, last: u8| {
                let mut netlink = Netlink::open()?;
                let index = netlink.index(name)?;
                netlink.set_up(index, true)?;
                netlink.add_address(index, [10, 67, 0, last].into(), 24)
            };
            for (number, place) in hosts.iter().enumerate() {
                place.namespace.run(|| set_up("eth1", 10 + number as u8))?;
            }
            server.run(|| set_up("eth0", 1))?;
            Ok::<_, io::Error>(server)
        };
        build().expect("a second network can be made here")
    }

    /// The number of the client.
    pub(crate) const fn client(&self) -> usize {
        self.hosts
    }

    /// Asks a host's kernel for something about its `eth0`.
    pub(crate) fn in_host<T: Send>(
        &self,
        number: usize,
        work: impl FnOnce(&mut Netlink, u32) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        self.places[number].namespace.run(|| {
            let mut netlink = Netlink::open()?;
            let index = netlink.index("eth0")?;
            work(&mut netlink, index)
        })
    }

    /// Takes the bridge's end of a host's cable out, or puts it in.
    pub(crate) fn plug(&self, number: usize, plugged: bool) {
        let turn = || {
            let mut netlink = Netlink::open()?;
            let port = netlink.index(&format!("p{number}"))?;
            netlink.set_up(port, plugged)
        };
        self.fabric.run(turn).expect("a port can be turned");
    }

    /// Lets nothing more pass between a host and the bridge, or lets it pass again; the carrier stays.
    pub(crate) fn cut(&self, number: usize, cut: bool) {
        let turn = || {
            let mut netlink = Netlink::open()?;
            let (port, bridge) = (netlink.index(&format!("p{number}"))?, netlink.index("br0")?);
            netlink.set_master(port, if cut { 0 } else { bridge })
        };
        self.fabric.run(turn).expect("a port can be taken off the bridge");
    }

    /// Whether a host has this address.
    pub(crate) fn has(&self, number: usize, address: IpAddr) -> bool {
        self.places[number].namespace.run(|| UdpSocket::bind((address, 0)).map(drop)).is_ok()
    }

    /// The Ethernet address behind an address, as the client believes.
    pub(crate) fn believed(&self, address: IpAddr) -> Option<Mac> {
        self.in_host(self.client(), |netlink, index| netlink.neighbour(index, address)).expect("can be asked")
    }

    /// Lets the client forget it.
    pub(crate) fn forget(&self, address: IpAddr) {
        // It may know nothing.
        let _ = self.in_host(self.client(), |netlink, index| netlink.delete_neighbour(index, address));
    }

    /// Lets the client believe that an address is at this host, whatever it hears, until it forgets it.
    pub(crate) fn pin(&self, address: IpAddr, number: usize) {
        self.convince(self.client(), address, number);
    }

    fn convince(&self, who: usize, address: IpAddr, number: usize) {
        let mac = self.places[number].mac;
        self.in_host(who, |netlink, index| netlink.add_neighbour(index, address, mac)).expect("is written");
    }

    /// The hosts that answer to this address whoever sends it to them; the client then knows nothing of it.
    pub(crate) fn answerers(&self, address: IpAddr) -> Vec<usize> {
        let answers = |&host: &usize| {
            self.pin(address, host);
            self.probe(address, Duration::from_millis(100)).is_some()
        };
        let found = (0..self.client()).filter(answers).collect();
        self.forget(address);
        found
    }

    /// Whether the client is answered by somebody at this address within this time; by whom.
    pub(crate) fn probe(&self, address: IpAddr, patience: Duration) -> Option<u8> {
        let traffic = self.traffic(address, 200);
        let begin = Instant::now();
        while begin.elapsed() < patience && !traffic.answered.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        traffic.finish().answers.first().map(|answer| answer.who)
    }

    /// Whether the client hears what a host says in the name of this address.
    pub(crate) fn hears(&self, number: usize, address: IpAddr) -> bool {
        let [v4, v6] = own_addresses(self.client());
        let own = if address.is_ipv4() { v4 } else { v6 };
        let open = |address| {
            let socket = UdpSocket::bind((address, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        };
        let heard = self.places[self.client()].namespace.run(|| open(own)).expect("a socket");
        let said = self.places[number].namespace.run(|| open(address)).expect("the host has the address");
        let to = heard.local_addr().expect("has one");
        (0..3).any(|_| said.send_to(b"here", to).is_ok() && heard.recv_from(&mut [0; 16]).is_ok())
    }

    /// The client sends so many numbered packets a second to an address, until the end is asked for.
    pub(crate) fn traffic(&self, address: IpAddr, rate: u32) -> Traffic {
        self.send(self.client(), address, rate, UNHEARD)
    }

    /// As [`Lan::traffic`] a thousand times a second, without a pause where nobody answers: how long nobody does is asked.
    pub(crate) fn probes(&self, address: IpAddr) -> Traffic {
        self.send(self.client(), address, 1000, u32::MAX)
    }

    /// The witnesses' traffic, a thousand times a second: each asks its host alone, whoever says where the address is.
    #[allow(dead_code, reason = "perf/failover, which shares this file, asks them")]
    pub(crate) fn witnesses(&self, address: IpAddr) -> Vec<Traffic> {
        let asks = |host| {
            let witness = self.hosts + 1 + host;
            self.convince(witness, address, host);
            self.send(witness, address, 1000, u32::MAX)
        };
        (0..self.places.len() - self.hosts - 1).map(asks).collect()
    }

    fn send(&self, from: usize, address: IpAddr, rate: u32, most: u32) -> Traffic {
        let open = || {
            let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
            socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = self.places[from].namespace.run(open).expect("a socket");
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (theirs, told) = (Arc::clone(&stop), Arc::clone(&answered));
        let target = SocketAddr::new(address, PORT);
        let thread = std::thread::spawn(move || talk(&socket, target, (rate, most), &theirs, &told));
        Traffic { stop, answered, thread }
    }

    /// A host answers what comes to this address, with its number, as long as it has the address.
    pub(crate) fn echo(&self, number: usize, address: IpAddr) -> Echo {
        let open = || {
            let socket = Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::DGRAM, None)?;
            match address {
                IpAddr::V4(_) => socket.set_freebind_v4(true)?,
                IpAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
            socket.set_recv_buffer_size(4 << 20)?;
            socket.bind(&SocketAddr::new(address, PORT).into())?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(UdpSocket::from(socket))
        };
        let socket = self.places[number].namespace.run(open).expect("a socket");
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let answer = move || {
            let mut packet = [0; 16];
            while !theirs.load(Ordering::Relaxed) {
                if let Ok((8, from)) = socket.recv_from(&mut packet) {
                    packet[8] = number as u8;
                    let _ = socket.send_to(&packet[..9], from);
                }
            }
        };
        Echo { stop, thread: Some(std::thread::spawn(answer)) }
    }
}

/// The addresses of a host's own.
pub(crate) fn own_addresses(number: usize) -> [IpAddr; 2] {
    let last = 10 + number as u16;
    [Ipv4Addr::new(10, 66, 0, last as u8).into(), Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, last).into()]
}

/// A service that answers while this lives.
pub(crate) struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) at: Instant,
    pub(crate) number: u64,
    pub(crate) who: u8,
}

/// What became of the traffic.
pub(crate) struct Trail {
    pub(crate) sent: u64,
    pub(crate) answers: Vec<Answer>,
}

impl Trail {
    /// The packets that nobody answered, as ranges.
    pub(crate) fn lost(&self) -> Vec<RangeInclusive<u64>> {
        let answered: BTreeSet<u64> = self.answers.iter().map(|answer| answer.number).collect();
        let mut lost: Vec<RangeInclusive<u64>> = Vec::new();
        for number in (0..self.sent).filter(|number| !answered.contains(number)) {
            match lost.last_mut() {
                Some(range) if range.end() + 1 == number => *range = *range.start()..=number,
                _ => lost.push(number..=number),
            }
        }
        lost
    }

    /// The longest time without an answer, of those that end after this moment.
    pub(crate) fn longest_gap(&self, after: Instant) -> Duration {
        let gaps = self.answers.windows(2).filter(|pair| pair[1].at >= after).map(|pair| pair[1].at - pair[0].at);
        gaps.max().unwrap_or(Duration::MAX)
    }

    /// Who answered after this moment.
    pub(crate) fn who(&self, after: Instant) -> BTreeSet<u8> {
        self.answers.iter().filter(|answer| answer.at >= after).map(|answer| answer.who).collect()
    }
}

/// Traffic under way.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicBool>,
    thread: JoinHandle<Trail>,
}

impl Traffic {
    /// Waits for so long; whether an answer came.
    pub(crate) fn answers_within(&self, time: Duration) -> bool {
        self.answered.store(false, Ordering::Relaxed);
        std::thread::sleep(time);
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub(crate) fn finish(self) -> Trail {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client does not panic")
    }
}

/// Packets sent in a row without an answer before the client waits a little for one: on a machine that has stopped for
/// a moment, more would be lost in a socket's buffer.
const UNHEARD: u32 = 200;
/// How late a packet may be and still be sent.
const CATCH_UP: Duration = Duration::from_millis(5);

/// Sends so many packets a second, and pauses after so many in a row without an answer.
fn talk(
    socket: &UdpSocket,
    target: SocketAddr,
    (rate, most): (u32, u32),
    stop: &AtomicBool,
    answered: &AtomicBool,
) -> Trail {
    let mut trail = Trail { sent: 0, answers: Vec::new() };
    let hear = |trail: &mut Trail| {
        let (mut packet, before) = ([0; 16], trail.answers.len());
        while let Ok((9, _)) = socket.recv_from(&mut packet) {
            let number = u64::from_be_bytes(*packet.first_chunk().expect("sixteen bytes"));
            trail.answers.push(Answer { at: Instant::now(), number, who: packet[8] });
            answered.store(true, Ordering::Relaxed);
        }
        trail.answers.len() > before
    };
    let (period, mut due, mut unheard) = (Duration::from_secs(1) / rate, Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= due {
            // An error is the kernel's word about one before, such as that nobody was found.
            let _ = socket.send_to(&trail.sent.to_be_bytes(), target);
            (trail.sent, unheard) = (trail.sent + 1, unheard + 1);
            // What was not sent in time is made up for, but not in a heap.
            due = (due + period).max(now.checked_sub(CATCH_UP).unwrap_or(now));
            if unheard == most {
                (due, unheard) = (now + period * most, 0);
            }
        } else {
            std::thread::sleep((due - now).min(Duration::from_micros(200)));
        }
        if hear(&mut trail) {
            unheard = 0;
        }
    }
    let end = Instant::now();
    while end.elapsed() < Duration::from_millis(100) {
        std::thread::sleep(Duration::from_millis(1));
        hear(&mut trail);
    }
    trail
}
