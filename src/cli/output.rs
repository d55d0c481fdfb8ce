//! Standard output, whose reader may go away.

use super::failure::Failure;
pub(super) use crate::telemetry::friendly;
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, Write};

/// Prints `text` as it is.
pub(super) fn print(text: impl Display) -> Result<(), Failure> {
    write(|out| write!(out, "{text}"))
}

/// Prints a line.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    write(|out| writeln!(out, "{text}"))
}

/// Prints a value as one JSON document on one line.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(&value).map_err(|error| Failure::failed("cannot write JSON", error))?;
    line(text)
}

/// Bytes as text, if that is what they are.
pub(super) fn text_of(bytes: &[u8]) -> Option<&str> {
    let plain = |text: &&str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    std::str::from_utf8(bytes).ok().filter(plain)
}

/// So many of something: `1 link`, `2 links`.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Says something beside the result, on standard error, in one write: what others say there does not come between.
pub(super) fn note(text: impl Display) {
    // Where nobody reads there is nobody to tell.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Writes raw bytes.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    write(|out| out.write_all(bytes))
}

fn write(put: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    put(&mut out).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Pipe,
        _ => Failure::failed("cannot write to standard output", error),
    })
}
