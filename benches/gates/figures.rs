//! The committed figures, and the comparison.

use super::callgrind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

/// Where they are kept.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gates/figures.json");
/// By how much a figure may grow.
const TOLERANCE: f64 = 0.03;
/// The same if another compiler made it.
const TOLERANCE_ACROSS: f64 = 0.09;

/// Figures and what they depend on.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Figures {
    /// `rustc --version`.
    compiler: String,
    /// What the counted program saw of its processor.
    processor: String,
    /// Instructions per message, turn or call.
    instructions: BTreeMap<String, f64>,
}

impl Figures {
    /// Counts.
    pub(crate) fn count() -> Result<Figures, String> {
        let output = Command::new("rustc").arg("--version").output().map_err(|error| format!("rustc: {error}"))?;
        let compiler = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let (instructions, processor) = callgrind::count()?;
        Ok(Figures { compiler, processor, instructions })
    }

    /// As JSON.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and numbers")
    }

    /// Writes them where they are kept; a word to the user.
    pub(crate) fn commit(&self) -> Result<(String, bool), String> {
        fs::write(FILE, self.text() + "\n").map_err(|error| format!("{FILE}: {error}"))?;
        Ok((format!("{} figures written to {FILE}", self.instructions.len()), true))
    }

    /// Sets them beside the committed ones: a table, and whether nothing grew.
    pub(crate) fn compare(&self) -> Result<(String, bool), String> {
        let committed = fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
        let committed: Figures = serde_json::from_str(&committed).map_err(|error| format!("{FILE}: {error}"))?;
        Ok(self.beside(&committed))
    }

    fn beside(&self, committed: &Figures) -> (String, bool) {
        let mut out = String::new();
        // Writing to a String cannot fail.
        if self.processor != committed.processor {
            let (here, there) = (&self.processor, &committed.processor);
            return (format!("not compared: this machine shows {here}, the figures are of {there}"), true);
        }
        let same = self.compiler == committed.compiler;
        let tolerance = if same { TOLERANCE } else { TOLERANCE_ACROSS };
        let _ = writeln!(out, "{:<46} {:>10} {:>10} {:>8}", "instructions", "committed", "now", "");
        let (mut grown, mut shrunk) = (Vec::new(), 0);
        for (name, &now) in &self.instructions {
            let Some(&before) = committed.instructions.get(name) else {
                let _ = writeln!(out, "{name:<46} {:>10} {now:>10.1}      new", "-");
                grown.push(format!("{name}: has no committed figure"));
                continue;
            };
            let change = now / before - 1.0;
            let _ = writeln!(out, "{name:<46} {before:>10.1} {now:>10.1} {:>+7.1}%", change * 100.0);
            if change > tolerance {
                grown.push(format!("{name}: from {before:.1} to {now:.1}, {:+.1} %", change * 100.0));
            }
            shrunk += u32::from(change < -tolerance);
        }
        let gone = committed.instructions.keys().filter(|name| !self.instructions.contains_key(*name));
        grown.extend(gone.map(|name| format!("{name}: is not counted any more")));
        if !same {
            let _ = writeln!(out, "committed with {}, this is {}", committed.compiler, self.compiler);
        }
        if shrunk > 0 {
            let _ = writeln!(out, "{shrunk} shrank: renew the figures, so that they cannot grow back unseen");
        }
        if grown.is_empty() {
            let _ = write!(out, "nothing grew by more than {:.0} %", tolerance * 100.0);
        } else {
            let _ = write!(out, "\ngrew by more than {:.0} %:\n  {}\n", tolerance * 100.0, grown.join("\n  "));
            let _ = write!(out, "if it is worth it: perf/gates --renew, and commit the figures with the reason");
        }
        (out, grown.is_empty())
    }
}
