//! The child, and the profile that callgrind makes of it.

use super::counting::STEPS;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The argument that makes this program the child.
pub(crate) const CHILD: &str = "--counted";
/// What the child says beside its cells, on lines of their own.
pub(crate) const PROCESSOR: &str = "processor ";
/// Where valgrind is looked for.
const PLACES: &str = "/usr/local/bin:/usr/bin:/bin";

/// What the child says of one cell: by how much the instructions of each step are divided.
#[derive(Debug, Deserialize, serde::Serialize)]
pub(crate) struct Said {
    pub(crate) cell: String,
    pub(crate) units: BTreeMap<String, u64>,
}

/// Instructions per unit, by cell and step, and the processor that the child saw.
pub(crate) fn count() -> Result<(BTreeMap<String, f64>, String), String> {
    let directory = tempfile::tempdir().map_err(text)?;
    let said = run(directory.path())?;
    let processor = said.lines().find_map(|line| line.strip_prefix(PROCESSOR)).ok_or("the child named no processor")?;
    let cells = said.lines().filter(|line| line.starts_with('{'));
    let mut counted = BTreeMap::new();
    for (index, line) in cells.enumerate() {
        let Said { cell, units } = serde_json::from_str(line).map_err(text)?;
        // Two parts for each: what led to the cell, and the cell.
        let part = directory.path().join(format!("profile.{}", 2 * index + 2));
        let profile =
            fs::read_to_string(&part).map_err(|error| format!("callgrind wrote no {}: {error}", part.display()))?;
        let inclusive = inclusive(&profile)?;
        for (step, units) in units {
            let instructions = inclusive.get(step.as_str()).copied().unwrap_or(0);
            if units == 0 || instructions == 0 {
                return Err(format!(
                    "nothing of {cell}, {step} was counted: {units} units, {instructions} instructions"
                ));
            }
            counted.insert(format!("{cell}, {step}"), (instructions as f64 / units as f64 * 10.0).round() / 10.0);
        }
    }
    if counted.is_empty() { Err("the child counted nothing".into()) } else { Ok((counted, processor.into())) }
}

/// Runs the child; what it said.
fn run(directory: &Path) -> Result<String, String> {
    let program = std::env::current_exe().map_err(text)?;
    let (Some(folder), Some(name)) = (program.parent(), program.file_name()) else {
        return Err("this program has no name".into());
    };
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--dump-after=*counting*mark*", "--dump-line=no"]);
    command.args(["--compress-strings=no", "--compress-pos=no"]);
    command.arg(format!("--callgrind-out-file={}", directory.join("profile").display()));
    // The name that the child gets has the same length wherever this lives.
    command.arg(Path::new(".").join(name)).arg(CHILD).current_dir(folder);
    command.env_clear().env("PATH", PLACES).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("valgrind cannot be run: {error} (looked in {PLACES})"))?;
    if !output.status.success() {
        return Err(format!("valgrind, {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(text)
}

/// Instructions inside each step, those of what it calls included: a profile gives them after each call.
fn inclusive(profile: &str) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut sums = BTreeMap::new();
    let mut lines = profile.lines();
    let mut called = None;
    while let Some(line) = lines.next() {
        if let Some(function) = line.strip_prefix("cfn=") {
            called = step_of(function);
        } else if line.starts_with("calls=") {
            let cost = lines.next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            let cost = cost.ok_or("a call in callgrind's profile has no cost")?;
            if let Some(step) = called {
                *sums.entry(step).or_insert(0) += cost;
            }
        }
    }
    Ok(sums)
}

/// The step that a function is: `gates::counting::seal`, with a hash behind it where valgrind shows that.
fn step_of(function: &str) -> Option<&'static str> {
    let (_, name) = function.split_once("counting::")?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    STEPS.iter().copied().find(|step| *step == &name[..end])
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
