//! Signals as readable descriptors.

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::{pipe, unregister};
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;

/// SIGTERM and SIGINT on one descriptor, SIGHUP on another, SIGUSR1 on a third.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) stop: mio::net::UnixStream,
    pub(super) reload: mio::net::UnixStream,
    pub(super) dump: mio::net::UnixStream,
    registered: Vec<SigId>,
}

impl Signals {
    /// Takes the signals over from their default, which is to end the process.
    pub(super) fn take_over() -> io::Result<Signals> {
        let (stop, stop_end) = UnixStream::pair()?;
        let (reload, reload_end) = UnixStream::pair()?;
        let (dump, dump_end) = UnixStream::pair()?;
        [&stop, &reload, &dump].into_iter().try_for_each(|stream| stream.set_nonblocking(true))?;
        let registered = vec![
            pipe::register(SIGTERM, stop_end.try_clone()?)?,
            pipe::register(SIGINT, stop_end)?,
            pipe::register(SIGHUP, reload_end)?,
            pipe::register(SIGUSR1, dump_end)?,
        ];
        let [stop, reload, dump] = [stop, reload, dump].map(mio::net::UnixStream::from_std);
        Ok(Signals { stop, reload, dump, registered })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            unregister(id);
        }
    }
}

/// How many signals arrived since asked last.
pub(super) fn taken(stream: &mut mio::net::UnixStream) -> usize {
    let mut bytes = [0; 64];
    let mut count = 0;
    while let Ok(len @ 1..) = stream.read(&mut bytes) {
        count += len;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;

    #[test]
    fn each_signal_is_counted_where_it_belongs() {
        let mut signals = Signals::take_over().expect("takes over");
        let Signals { stop, reload, dump, .. } = &mut signals;
        assert_eq!((taken(stop), taken(reload), taken(dump)), (0, 0, 0));
        for signal in [SIGHUP, SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGHUP] {
            raise(signal).expect("raises");
        }
        assert_eq!((taken(stop), taken(reload), taken(dump)), (2, 3, 1));
    }
}
