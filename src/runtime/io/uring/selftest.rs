//! Whether io_uring really moves datagrams here.

use super::Uring;
use crate::base::Instant;
use crate::containers::Batch;
use crate::containers::batch::Transmit;
use crate::runtime::doorbell::Doorbell;
use crate::runtime::io::{Backend as _, Event, Parts};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Datagrams of the test.
const DATAGRAMS: usize = 8;
/// What a loopback datagram may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes a ring as a worker does and sends datagrams through it over loopback: ring, buffer ring, multishot recvmsg, sends
/// and waiting with a deadline. Answers what kind of ring it is, or why there is none.
pub fn self_test() -> Result<String, String> {
    run().map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => {
            format!("{error}: forbidden by kernel.io_uring_disabled or by a container's seccomp profile")
        }
        Some(libc::ENOSYS) => format!("{error}: this kernel has no io_uring"),
        Some(libc::EINVAL) => format!("{error}: this kernel's io_uring is too old, 6.0 is needed"),
        _ => error.to_string(),
    })
}

fn run() -> io::Result<String> {
    let listen = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    listen.set_nonblocking(true)?;
    let own = listen.local_addr()?;
    let bell = Arc::new(Doorbell::new()?);
    let mut backend =
        Uring::new(Parts { listen, buffer: 1 << 16, stock: 0, trains: false, stamps: false, bell: Arc::clone(&bell) })?;
    let mut batch = Batch::new(DATAGRAMS);
    for number in 0..DATAGRAMS {
        batch.push_with(|slot| {
            slot[..100].fill(number as u8);
            Some(Transmit { link: None, to: own.into(), up: false, len: 100 })
        });
    }
    let mut refusal = None;
    backend.send(Instant::ZERO, &batch, &mut |event| {
        if let Event::SendFailed { errno, .. } = event {
            refusal = Some(errno);
        }
    });
    if let Some(errno) = refusal {
        return Err(io::Error::from_raw_os_error(errno));
    }
    expect_datagrams(&mut backend, own)?;
    bell.ring_always();
    backend.wait(Some(PATIENCE));
    Ok(backend.setup().to_owned())
}

fn expect_datagrams(backend: &mut Uring, own: SocketAddr) -> io::Result<()> {
    let mut next = 0;
    let deadline = std::time::Instant::now() + PATIENCE;
    while next < DATAGRAMS {
        if std::time::Instant::now() > deadline {
            return Err(io::Error::other(format!("{next} of {DATAGRAMS} datagrams arrived")));
        }
        backend.wait(Some(Duration::from_millis(100)));
        let mut wrong = false;
        backend.poll(&mut |event| {
            if let Event::Datagram { from, bytes } = event {
                wrong |= from.remote != own || bytes != [next as u8; 100];
                next += 1;
            }
        });
        if wrong {
            return Err(io::Error::other("a datagram arrived changed"));
        }
    }
    Ok(())
}
