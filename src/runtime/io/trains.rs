//! Trains: datagrams of one way and one length that pass the kernel as one (UDP_SEGMENT and UDP_GRO, udp(7)).
//!
//! A datagram costs about 2.3 µs of kernel whatever system call carries it, and one more of a train a sixth of that or
//! less (measured), so what a batch holds for one neighbour leaves coupled where it can:
//!
//! ```text
//!  batch    a₇₀₀ b₉₀ a₇₀₀ a₇₀₀ a₃₀₀ a₇₀₀      letters are links, numbers are lengths
//!  leaves   [a₇₀₀ a₇₀₀ a₇₀₀ a₃₀₀] [a₇₀₀] [b₉₀]
//! ```
//!
//! Nothing waits to become part of a train. The kernel cuts a train by length alone, so all its datagrams are equally long
//! but the last, which may be shorter. A pair must be equal: a probe of the path's MTU, longer than anything that is known
//! to fit, must never take others with it. Only connected sockets send trains; a link on whose way the kernel refuses one
//! (no checksum offload, an old driver, an MTU that shrank) sends single datagrams for a while.

use super::{BATCH, Counters, Event, Sink};
use crate::base::limits::DATAGRAM_SLOT;
use crate::base::{AddressPair, LinkId};
use crate::containers::Batch;
use crate::runtime::sys::{self, Name, SegmentSize};
use std::ops::Range;
use std::os::fd::RawFd;

/// Most datagrams of a train: what every kernel since 4.18 takes.
pub(super) const MOST: usize = 64;
/// Most bytes of a train: what a UDP datagram over IPv4 can hold.
const MOST_BYTES: usize = 65_507;
/// Room for a train that arrives.
pub(super) const TRAIN_SLOT: usize = 65_536;

const _: () = assert!(BATCH <= MOST, "no batch holds more than a train may");

/// How many of datagrams with these lengths leave as one train, counted from the front.
fn coupled(mut lens: impl Iterator<Item = usize>) -> usize {
    let Some(segment) = lens.next() else { return 0 };
    let (mut count, mut bytes) = (1, segment);
    for len in lens {
        bytes += len;
        if len > segment || bytes > MOST_BYTES || segment == 0 || len == 0 {
            break;
        }
        if len < segment {
            return if count > 1 { count + 1 } else { count };
        }
        count += 1;
    }
    count
}

/// Whether the kernel's answer may be about the train and not about its datagrams.
pub(super) const fn refused_by(errno: i32) -> bool {
    matches!(errno, libc::EIO | libc::EINVAL | libc::EMSGSIZE)
}

/// Hands on the datagrams of what arrived: one, or those of a train that is to be cut every `cut` bytes. Answers how many.
pub(super) fn uncouple(
    bytes: &mut [u8],
    cut: Option<usize>,
    counters: &mut Counters,
    mut each: impl FnMut(&mut [u8]),
) -> usize {
    let Some(cut) = cut.filter(|&cut| cut < bytes.len()) else {
        let len = bytes.len().min(DATAGRAM_SLOT);
        each(&mut bytes[..len]);
        return 1;
    };
    let mut count = 0;
    for datagram in bytes.chunks_mut(cut) {
        let len = datagram.len().min(DATAGRAM_SLOT);
        each(&mut datagram[..len]);
        count += 1;
    }
    counters.trains_in += 1;
    counters.coupled_in += count as u64;
    count
}

/// A datagram and its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// None: the listening socket.
    socket: Option<RawFd>,
    /// In the batch.
    index: usize,
    couples: bool,
}

/// One or more datagrams that leave as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Train {
    /// Through which connected socket; none: the listening one.
    pub(super) socket: Option<RawFd>,
    /// Its first place in the order.
    start: usize,
    /// How many datagrams.
    pub(super) count: usize,
}

impl Train {
    /// Its places in the order.
    fn places(self) -> Range<usize> {
        self.start..self.start + self.count
    }
}

/// A batch arranged by sockets and coupled to trains, as message headers. What is of one socket keeps its order.
pub struct Arrangement {
    order: Vec<Place>,
    trains: Vec<Train>,
    names: Box<[Name]>,
    vectors: Box<[libc::iovec]>,
    controls: Box<[SegmentSize]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Arrangement {
    pub(super) fn new() -> Arrangement {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let header = libc::mmsghdr { msg_hdr: sys::empty_header(), msg_len: 0 };
        Arrangement {
            order: Vec::with_capacity(BATCH),
            trains: Vec::with_capacity(BATCH),
            names: vec![Name::EMPTY; BATCH].into_boxed_slice(),
            vectors: vec![nothing; BATCH].into_boxed_slice(),
            controls: vec![SegmentSize::EMPTY; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
        }
    }

    /// Notes the way of a datagram of the batch, and whether it may be part of a train.
    pub(super) fn place(&mut self, index: usize, socket: Option<RawFd>, couples: bool) {
        self.order.push(Place { socket, index, couples: couples && socket.is_some() });
    }

    /// Forgets everything placed.
    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.trains.clear();
    }

    /// Couples what was placed, and points the headers at it. They are good while neither the batch nor this changes.
    pub(super) fn arrange(&mut self, batch: &Batch, ipv6: bool) {
        self.order.sort_unstable();
        self.trains.clear();
        self.couple(batch, ipv6, 0);
    }

    /// A train was refused: its datagrams, and those behind it of the same socket, leave one by one.
    pub(super) fn uncouple(&mut self, batch: &Batch, ipv6: bool, number: usize) {
        let Train { socket, start, .. } = self.trains[number];
        let run = self.order[start..].iter_mut().take_while(|place| place.socket == socket);
        run.for_each(|place| place.couples = false);
        self.trains.truncate(number);
        self.couple(batch, ipv6, start);
    }

    /// Keeps nothing but the datagrams of these trains, one by one.
    pub(super) fn keep(&mut self, batch: &Batch, ipv6: bool, numbers: &[usize]) {
        let kept = |place: usize| numbers.iter().any(|&number| self.trains[number].places().contains(&place));
        let mut place = 0;
        self.order.retain_mut(|entry| {
            entry.couples = false;
            place += 1;
            kept(place - 1)
        });
        self.trains.clear();
        self.couple(batch, ipv6, 0);
    }

    /// Makes trains of the places from `start` on.
    fn couple(&mut self, batch: &Batch, ipv6: bool, mut start: usize) {
        let (first, len) =
            (self.trains.len(), |place: &Place| batch.get(place.index).map_or(0, |(_, bytes)| bytes.len()));
        while let Some(&Place { socket, couples, .. }) = self.order.get(start) {
            let rest = self.order[start..].iter().take_while(|place| place.socket == socket && place.couples);
            let count = if couples { coupled(rest.map(len)) } else { 1 };
            self.trains.push(Train { socket, start, count });
            start += count;
        }
        for number in first..self.trains.len() {
            self.describe(batch, ipv6, number);
        }
    }

    fn describe(&mut self, batch: &Batch, ipv6: bool, number: usize) {
        let Train { socket, start, count } = self.trains[number];
        for (vector, place) in self.vectors[start..].iter_mut().zip(&self.order[start..start + count]) {
            let (_, bytes) = batch.get(place.index).expect("places are indices of this batch");
            *vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        }
        let header = &mut self.headers[number].msg_hdr;
        header.msg_iov = &raw mut self.vectors[start];
        header.msg_iovlen = count;
        (header.msg_name, header.msg_namelen) = match socket {
            Some(_) => (std::ptr::null_mut(), 0),
            None => {
                let to = batch.get(self.order[start].index).expect("places are indices of this batch").0.to.remote;
                let len = self.names[number].set(to, ipv6);
                ((&raw mut self.names[number]).cast(), len as libc::socklen_t)
            }
        };
        (header.msg_control, header.msg_controllen) = if count > 1 {
            self.controls[number] = SegmentSize::to_send(self.vectors[start].iov_len as u16);
            ((&raw mut self.controls[number]).cast(), SegmentSize::LEN)
        } else {
            (std::ptr::null_mut(), 0)
        };
    }

    /// The trains, those of one socket together and in order.
    pub(super) fn trains(&self) -> &[Train] {
        &self.trains
    }

    /// How many trains from this one on leave through the same socket.
    pub(super) fn run(&self, number: usize) -> usize {
        let socket = self.trains[number].socket;
        self.trains[number..].iter().take_while(|train| train.socket == socket).count()
    }

    /// Tells of every datagram of these trains that it was not sent.
    pub(super) fn tell_failed(&self, batch: &Batch, trains: Range<usize>, errno: i32, sink: &mut Sink<'_>) {
        for index in self.trains[trains].iter().flat_map(|&train| self.datagrams(train)) {
            let datagram = batch.get(index).expect("places are indices of this batch").0;
            sink(Event::SendFailed { link: datagram.link, to: datagram.to, errno });
        }
    }

    /// The headers, one a train.
    pub(super) fn headers(&mut self) -> &mut [libc::mmsghdr] {
        &mut self.headers[..self.trains.len()]
    }

    /// Indices in the batch of a train's datagrams.
    fn datagrams(&self, train: Train) -> impl Iterator<Item = usize> + '_ {
        self.order[train.places()].iter().map(|place| place.index)
    }

    /// The link of a train, and its path.
    pub(super) fn link(&self, batch: &Batch, train: Train) -> Option<(LinkId, AddressPair)> {
        let first = batch.get(self.order[train.start].index)?.0;
        Some((first.link?, first.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::batch::Transmit;
    use proptest::prelude::*;

    #[test]
    fn equal_lengths_couple_and_one_shorter_ends_the_train() {
        let coupled = |lens: &[usize]| coupled(lens.iter().copied());
        assert_eq!(coupled(&[700, 700, 700, 300, 700]), 4);
        assert_eq!(coupled(&[700, 701]), 1);
        assert_eq!(coupled(&[700, 700, 701]), 2);
        assert_eq!(coupled(&[1452, 800]), 1, "a probe takes nobody with it");
        assert_eq!(coupled(&[1400; 64]), 46, "as many as one datagram's bytes");
        assert_eq!(coupled(&[100; 64]), 64);
        assert_eq!(coupled(&[0, 0]), 1, "nothing cannot be cut");
        assert_eq!(coupled(&[5, 5, 0]), 2, "an empty datagram is none of a train");
        assert_eq!(coupled(&[]), 0);
    }

    proptest! {
        /// Whatever is placed where: every datagram leaves once, those of a socket in order, through its own socket, cut
        /// where it was joined.
        #[test]
        fn every_datagram_leaves_once_and_in_the_order_of_its_socket(
            ways in proptest::collection::vec((0..4i32, 1..4usize, any::<bool>()), 0..=BATCH)
        ) {
            let mut batch = Batch::new(BATCH);
            let to = "127.0.0.1:1".parse::<std::net::SocketAddr>().expect("an address").into();
            let mut arrangement = Arrangement::new();
            for (index, &(socket, len, couples)) in ways.iter().enumerate() {
                batch.push_with(|_| Some(Transmit { link: Some(LinkId(socket as u16)), to, up: true, len }));
                arrangement.place(index, (socket > 0).then_some(socket), couples);
            }
            arrangement.arrange(&batch, false);
            let mut left: Vec<Vec<usize>> = vec![Vec::new(); 4];
            for &train in arrangement.trains() {
                let lens: Vec<usize> = arrangement.datagrams(train).map(|index| ways[index].1).collect();
                let (last, equal) = lens.split_last().expect("no train is empty");
                prop_assert!(equal.iter().all(|len| *len == lens[0]) && *last <= lens[0]);
                prop_assert!(train.count == 1 || (train.socket.is_some() && arrangement.datagrams(train).all(|index| ways[index].2)));
                left[train.socket.unwrap_or(0) as usize].extend(arrangement.datagrams(train));
            }
            for (socket, left) in left.iter().enumerate() {
                let placed: Vec<usize> = (0..ways.len()).filter(|&index| ways[index].0 as usize == socket).collect();
                prop_assert_eq!(left, &placed);
            }
        }
    }
}
