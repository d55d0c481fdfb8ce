//! Random faults under checked traffic, as `sinew lab --chaos` makes them. Each run draws new ones and says its seed.

use crate::support::{Machine, SINEW, io_test, say};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn faults_break_no_promise_over_uring() {
    io_test("chaos::faults_break_no_promise_over_uring", "uring", Machine::Alone, chaos);
}

#[test]
fn faults_break_no_promise_over_mmsg() {
    io_test("chaos::faults_break_no_promise_over_mmsg", "mmsg", Machine::Alone, chaos);
}

fn chaos(io: &str) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u32;
    let out = tempfile::tempdir().expect("a directory");
    let seed_text = seed.to_string();
    let arguments = ["lab", "--chaos", "--seconds", "15", "--json", "--io", io, "--seed", &seed_text, "--out"];
    let output = Command::new(SINEW).args(arguments).arg(out.path()).stdin(Stdio::null()).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("sinew {arguments:?}: {error}: {said}");
    });
    let journal = std::fs::read_to_string(out.path().join("chaos.log")).expect("a journal");
    assert!(output.status.success(), "seed {seed}: {:#}\n{journal}\n{said}", findings["violations"]);
    let faults: u64 = findings["faults"].as_object().expect("a table").values().filter_map(|n| n.as_u64()).sum();
    let traffic = |name: &str| findings["traffic"][name].as_u64().expect("a number");
    say(&format!("chaos (io {io}, seed {seed}): {faults} faults, {} stream bytes", traffic("stream_bytes")));
    let clocks = "restart with other clocks";
    match findings["not_possible"][clocks].as_str() {
        Some(why) => say(&format!("NOT RUN: {clocks}: {why}")),
        None => {
            assert!(findings["faults"][clocks].as_u64() > Some(0), "seed {seed}: {:#}", findings["faults"]);
            assert!(journal.contains("s, boottime "), "the new process has them:\n{journal}");
        }
    }
    assert!(faults > 0 && traffic("streams_whole") > 0 && traffic("datagrams_received") > 500, "{findings:#}");
}
