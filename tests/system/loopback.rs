//! The last rung of `sinew lab`: no namespaces, as on a machine that allows none. It runs everywhere, so this is never
//! among what could not be run.

use crate::support::{SINEW, chosen_io, parsed};
use std::process::{Command, Stdio};

#[test]
fn without_namespaces_the_overlay_is_measured_and_tcp_said_not_to_be() {
    let out = tempfile::tempdir().expect("a directory");
    let io = chosen_io();
    let arguments = ["lab", "--mode", "loopback", "--messages", "50", "--seed", "3", "--json", "--io", &io, "--out"];
    let mut command = Command::new(SINEW);
    command.args(arguments).arg(out.path()).stdin(Stdio::null());
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let result = parsed("sinew lab --mode loopback --json", &output.stdout);
    assert_eq!((result["mode"].as_str(), result["seed"].as_u64()), (Some("loopback"), Some(3)));

    // The overlay crossed the emulated links: five of 10 ms.
    let runs = result["runs"].as_array().expect("a list");
    let of =
        |name: &str| runs.iter().find(|run| run["transport"] == name).unwrap_or_else(|| panic!("{name}: {runs:?}"));
    for transport in ["best-effort", "reliable"] {
        let run = of(transport);
        assert_eq!((run["sent"].as_u64(), run["hops"].as_u64()), (Some(50), Some(5)), "{run}");
        assert!(run["p50_ms"].as_f64() >= Some(49.0) && run["received"].as_u64() >= Some(40), "{run}");
    }
    assert_eq!(of("reliable")["lost"], 0);
    assert!(result["cells"][0]["links"].as_array().is_some_and(|links| links.len() == 10), "{}", result["cells"]);

    // The kernel's TCP did not, and how to have it is one line.
    assert!(!runs.iter().any(|run| run["transport"].as_str().is_some_and(|name| name.starts_with("tcp"))), "{runs:?}");
    let missing = result["not_measured"].as_array().expect("a list");
    let tcp = missing.iter().find(|entry| entry["transport"].as_str().is_some_and(|name| name.starts_with("tcp")));
    let tcp = tcp.unwrap_or_else(|| panic!("TCP is said to be not measured: {missing:?}"));
    assert!(tcp["why"].as_str().is_some_and(|why| why.contains("network namespaces")), "{tcp}");
    assert_eq!(tcp["enable"], "leave out --mode loopback");

    // People are told the same.
    let mut command = Command::new(SINEW);
    command.args(&arguments[..7]).args(["--io", &io, "--out"]).arg(out.path()).stdin(Stdio::null());
    let output = command.output().expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("leave out --mode loopback"), "{text}");
    assert!(text.lines().any(|line| line.contains("tcp") && line.contains("not measured")), "{text}");
}
