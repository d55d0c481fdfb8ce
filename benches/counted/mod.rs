//! Instructions instead of time: a benchmark runs itself again under valgrind, which counts what happens inside
//! [`counted_work`] and nothing else.

use std::process::Command;

/// The function that valgrind counts in.
const COUNTED: &str = "*counted_work*";

/// What valgrind counts.
#[inline(never)]
pub(crate) fn counted_work<R>(work: impl FnOnce() -> R) -> R {
    std::hint::black_box(work())
}

/// Instructions of this program, run with these arguments. Ends the program, saying why, if they cannot be counted.
pub(crate) fn instructions(arguments: &[String]) -> u64 {
    count(arguments).unwrap_or_else(|why| {
        eprintln!("{why}\nvalgrind is needed for --instructions, and must be able to run this program");
        std::process::exit(1);
    })
}

fn count(arguments: &[String]) -> Result<u64, String> {
    let refused = |error: std::io::Error| error.to_string();
    // The profile itself is of no use, and goes with its file.
    let profile = tempfile::NamedTempFile::new().map_err(refused)?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}")]);
    command.arg(format!("--callgrind-out-file={}", profile.path().display()));
    command.arg(std::env::current_exe().map_err(refused)?).args(arguments);
    let output = command.output().map_err(refused)?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok());
    collected.ok_or_else(|| said.into_owned())
}
