//! What only this backend can do wrong.

use super::*;
use crate::containers::batch::Transmit;
use crate::runtime::udp;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

#[test]
fn a_token_tells_its_batch_and_its_place_in_it() {
    let token = send_token(7, BATCH - 1);
    assert_eq!((token & kind::MASK, sent_index(7, token)), (kind::SEND, Some(BATCH - 1)));
    assert_eq!(sent_index(8, token), None);
    assert_eq!(sent_index(u64::MAX, send_token(u64::MAX, 3)), Some(3), "the number's upper bits do not count");
    assert_eq!(send_token(u64::MAX, 3) & kind::MASK, kind::SEND);
}

/// A backend and the address that it listens at; none, and said so, where io_uring is not possible.
fn backend() -> Option<(Uring, SocketAddr)> {
    if let Err(why) = self_test() {
        eprintln!("not tested: io_uring is not possible here: {why}");
        return None;
    }
    let listen = udp::listen((Ipv4Addr::LOCALHOST, 0).into(), 1 << 16).expect("binds");
    let address = listen.local_addr().expect("is bound");
    let bell = Arc::new(Doorbell::new().expect("eventfd"));
    let parts = Parts { listen, buffer: 1 << 16, stock: 0, trains: false, stamps: false, bell };
    Some((Uring::new(parts).expect("a ring"), address))
}

fn one_datagram(link: Option<LinkId>, to: SocketAddr) -> Batch {
    let mut batch = Batch::new(BATCH);
    batch.push_with(|slot| {
        slot[0] = 1;
        Some(Transmit { link, to: to.into(), up: true, len: 1 })
    });
    batch
}

#[test]
fn a_datagram_that_came_by_a_socket_closed_meanwhile_is_counted() {
    let Some((mut backend, address)) = backend() else { return };
    let neighbour = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let to = neighbour.local_addr().expect("is bound");
    let mut told = Vec::new();
    let batch = one_datagram(Some(LinkId(3)), to);
    backend.send(Instant::ZERO, &batch, &mut |event| told.push(format!("{event:?}")));
    // Arms the new socket.
    backend.poll(&mut |event| told.push(format!("{event:?}")));
    neighbour.send_to(b"answer", address).expect("sends");
    backend.wait(Some(Duration::from_secs(10)));
    backend.close_link(LinkId(3));
    backend.poll(&mut |event| told.push(format!("{event:?}")));
    assert_eq!(told, ["Dropped(SocketClosed)"]);
}

#[test]
fn a_failure_that_is_reported_late_is_laid_to_no_other_datagram() {
    let Some((mut backend, address)) = backend() else { return };
    let batch = one_datagram(None, address);
    let mut told = Vec::new();
    let mut send = |backend: &mut Uring| {
        backend.send(Instant::ZERO, &batch, &mut |event| told.push(format!("{event:?}")));
    };
    send(&mut backend);
    // The completions that a full queue kept of that batch, when it was larger, come up during the next.
    for index in [0, BATCH - 1] {
        let late = opcode::Nop::new().build().user_data(send_token(backend.sends, index));
        backend.push(&late);
    }
    send(&mut backend);
    assert_eq!((told, backend.counters().stale_sends), (Vec::<String>::new(), 2));
}
