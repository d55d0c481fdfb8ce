//! What threads spend their time on: the kernel, the ciphers, the rest.

use super::machine::Watched;
use std::io;
use std::process::{Child, Command, Stdio};

/// Samples a second.
const FREQUENCY: &str = "5000";
/// What the names of ring's functions have in them.
const CIPHERS: [&str; 7] = ["ring_core", "ring::aead", "aes", "gcm", "ghash", "chacha20", "poly1305"];

/// Samples of threads, taken by perf.
pub(crate) struct Sampler {
    child: Child,
    file: tempfile::NamedTempFile,
}

/// Where the samples fell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shares {
    kernel: u64,
    ciphers: u64,
    rest: u64,
}

impl Sampler {
    /// Begins to sample; none where there is no perf, or where it may not.
    pub(crate) fn start(threads: &Watched) -> Option<Sampler> {
        let file = tempfile::NamedTempFile::new().ok()?;
        let mut command = Command::new("perf");
        command.args(["record", "--quiet", "-e", "cpu-clock", "-F", FREQUENCY, "-t", &threads.ids(), "-o"]);
        command.arg(file.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Some(Sampler { child: command.spawn().ok()?, file })
    }

    /// Ends, and says where the samples fell; none if there are none, as where perf may not sample.
    pub(crate) fn finish(mut self) -> io::Result<Option<Shares>> {
        // SAFETY: a signal to our own child, which writes its file and ends.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) };
        self.child.wait()?;
        let mut command = Command::new("perf");
        command.args(["script", "-F", "ip,sym,dso", "-i"]).arg(self.file.path()).stdin(Stdio::null());
        let output = command.stderr(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut shares = Shares::default();
        for sample in text.lines().filter(|line| !line.trim().is_empty()) {
            *shares.place_of(sample) += 1;
        }
        Ok((shares.all() > 0).then_some(shares))
    }
}

impl Shares {
    const fn all(self) -> u64 {
        self.kernel + self.ciphers + self.rest
    }

    /// A sample is an address, a function and the file it is in.
    fn place_of(&mut self, sample: &str) -> &mut u64 {
        let address = sample.split_whitespace().next().unwrap_or_default();
        let sample = sample.to_lowercase();
        if sample.contains("[kernel") || (address.len() == 16 && address.starts_with("ffff")) {
            &mut self.kernel
        } else if CIPHERS.iter().any(|name| sample.contains(name)) {
            &mut self.ciphers
        } else {
            &mut self.rest
        }
    }

    /// Of so many nanoseconds those of the kernel, of the ciphers and of the rest.
    pub(crate) fn of(self, nanos: f64) -> [f64; 3] {
        let all = self.all().max(1) as f64;
        [self.kernel, self.ciphers, self.rest].map(|part| nanos * part as f64 / all)
    }
}
