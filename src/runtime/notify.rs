//! Tells a service manager how far we are: the sd_notify(3) protocol, one datagram to the socket named by `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, io};

/// Sends `state`, such as `READY=1`, if a service manager listens. Failure is logged, never fatal.
pub fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(name.as_bytes(), state) {
        tracing::warn!(%error, state, "the service manager could not be notified");
    }
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_named_and_abstract_sockets() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("notify");
        let named = UnixDatagram::bind(&path).expect("binds");
        send(path.as_os_str().as_bytes(), "READY=1").expect("sends");
        let mut buffer = [0; 32];
        let len = named.recv(&mut buffer).expect("receives");
        assert_eq!(&buffer[..len], b"READY=1");

        let name = format!("sinew-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("a name");
        let hidden = UnixDatagram::bind_addr(&address).expect("binds");
        send(format!("@{name}").as_bytes(), "STOPPING=1").expect("sends");
        let len = hidden.recv(&mut buffer).expect("receives");
        assert_eq!(&buffer[..len], b"STOPPING=1");
        assert!(send(b"/nonexistent/notify", "READY=1").is_err());
    }
}
