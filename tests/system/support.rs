//! Worlds, commands, patience, and the count of what was not run.

use serde_json::Value;
use sinew::client::admin::{LinkEntry, NodeEntry, Request, Response, RouteEntry};
use sinew::lab::ladder;
use sinew::lab::world::{Router, Topology, World, run_test};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long anything may take on a loaded machine before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The binary under test.
pub(crate) const SINEW: &str = env!("CARGO_BIN_EXE_sinew");

static RUN: AtomicU32 = AtomicU32::new(0);
static NOT_RUN: AtomicU32 = AtomicU32::new(0);
static MACHINE: RwLock<()> = RwLock::new(());

/// The back-end that all routers are to use, from `SINEW_TEST_IO`; `auto` if it is not set.
pub(crate) fn chosen_io() -> String {
    let chosen = std::env::var("SINEW_TEST_IO").unwrap_or_else(|_| "auto".to_owned());
    assert!(["auto", "uring", "mmsg"].contains(&chosen.as_str()), "SINEW_TEST_IO={chosen}: auto, uring or mmsg");
    chosen
}

/// Whether all routers are to do without trains, from `SINEW_TEST_OFFLOAD`: `off`; `auto` if it is not set.
pub(crate) fn without_offload() -> bool {
    let chosen = std::env::var("SINEW_TEST_OFFLOAD").unwrap_or_else(|_| "auto".to_owned());
    assert!(["auto", "off"].contains(&chosen.as_str()), "SINEW_TEST_OFFLOAD={chosen}: auto or off");
    chosen == "off"
}

/// Whether a test measures time and wants the machine for itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    Shared,
    Alone,
}

/// Says something that is seen also if the test passes.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "system: {text}");
}

extern "C" fn summary() {
    say(&format!("{} run, {} not run", RUN.load(Ordering::Relaxed), NOT_RUN.load(Ordering::Relaxed)));
}

fn count(counter: &AtomicU32) {
    static AT_EXIT: Once = Once::new();
    counter.fetch_add(1, Ordering::Relaxed);
    // A test that runs in namespaces of its own is counted by the program that sent it there.
    if ladder::current().is_none() {
        AT_EXIT.call_once(|| {
            // SAFETY: the function lives as long as the program and does not unwind.
            let registered = unsafe { libc::atexit(summary) };
            assert_eq!(registered, 0, "there is room for one more function to run at exit");
        });
    }
}

/// Runs the body of the test `name` where worlds can be built.
pub(crate) fn system_test(name: &str, machine: Machine, body: impl FnOnce()) {
    // It is by its name that a test is found again where it needs namespaces of its own.
    if let Some(thread) = std::thread::current().name().filter(|&thread| thread != "main") {
        assert_eq!(name, thread, "what the test calls itself");
    }
    let shared = (machine == Machine::Shared).then(|| MACHINE.read().unwrap_or_else(PoisonError::into_inner));
    let alone = (machine == Machine::Alone).then(|| MACHINE.write().unwrap_or_else(PoisonError::into_inner));
    match run_test(name, body) {
        true => count(&RUN),
        // It has said why.
        false => {
            say(&format!("NOT RUN: {name}"));
            count(&NOT_RUN);
        }
    }
    drop((shared, alone));
}

/// As [`system_test`], for the io back-end `io`, if this machine has it, and `SINEW_TEST_IO` did not ask for the other.
pub(crate) fn io_test(name: &str, io: &str, machine: Machine, body: impl FnOnce(&str)) {
    if !["auto", io].contains(&chosen_io().as_str()) {
        say(&format!("left out: {name}: SINEW_TEST_IO={}", chosen_io()));
        return;
    }
    // In namespaces of its own, whose loopback interface is down, the test was sent there because the ring works.
    if io == "uring"
        && ladder::current().is_none()
        && let Err(why) = sinew::runtime::io::uring::self_test()
    {
        say(&format!("NOT RUN: {name}: io_uring does not work here: {why}"));
        count(&NOT_RUN);
        return;
    }
    system_test(name, machine, || body(io));
}

/// A world of the real binary, with nobody started.
pub(crate) fn world(mut topology: Topology) -> World {
    topology.program = SINEW.into();
    if topology.io == "auto" {
        topology.io = chosen_io();
    }
    let world = World::new(&topology).expect("a world can be built here");
    if without_offload() {
        let off = |text: String| text.replacen("[workers]\n", "[workers]\noffload = \"off\"\n", 1);
        world.routers().iter().for_each(|router| rewrite(router, off));
    }
    world
}

/// A world in which every router reaches every other.
pub(crate) fn started(topology: Topology) -> World {
    let world = world(topology);
    world.start(PATIENCE).expect("all routers start and find each other");
    world
}

/// Looks again and again until there is something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A `sinew` command that asks this router, not started.
pub(crate) fn sinew(router: &Router, line: &str) -> Command {
    let mut command = router.command(SINEW);
    command.arg("-s").arg(router.socket()).args(line.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command, which must end with this exit code.
pub(crate) fn run(router: &Router, line: &str, code: i32) -> Output {
    let output = sinew(router, line).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "sinew {line}: {said}");
    output
}

/// Runs a command, which must succeed, and reads the one JSON document it prints.
pub(crate) fn json(router: &Router, line: &str) -> Value {
    parsed(line, &run(router, line, 0).stdout)
}

/// The one JSON document in `bytes`.
pub(crate) fn parsed(what: &str, bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{what}: {error}: {}", String::from_utf8_lossy(bytes)))
}

fn ask(router: &Router, request: &Request) -> Response {
    router.overlay().and_then(|overlay| overlay.request(request)).expect("the router answers")
}

/// A router's links.
pub(crate) fn links(router: &Router) -> Vec<LinkEntry> {
    match ask(router, &Request::Links) {
        Response::Links { links } => links,
        other => panic!("{other:?}"),
    }
}

/// The network as a router sees it.
pub(crate) fn nodes(router: &Router) -> Vec<NodeEntry> {
    match ask(router, &Request::Nodes) {
        Response::Nodes { nodes } => nodes,
        other => panic!("{other:?}"),
    }
}

/// How `to` is reached from `router`: the names of the routers on the way, `to` last.
pub(crate) fn path(router: &Router, to: &str) -> Option<Vec<String>> {
    match ask(router, &Request::Routes) {
        Response::Routes { routes, .. } => {
            routes.into_iter().find(|route: &RouteEntry| route.name == to).map(|route| route.path)
        }
        other => panic!("{other:?}"),
    }
}

/// Waits until a router that was just started answers.
pub(crate) fn wait_answering(router: &Router) {
    eventually(&format!("{} answers", router.name()), || router.overlay().ok());
}

/// What a router's workers count.
pub(crate) fn stats(router: &Router) -> Vec<Value> {
    match ask(router, &Request::Stats) {
        Response::Stats { workers } => workers,
        other => panic!("{other:?}"),
    }
}

/// A router's sessions.
pub(crate) fn sessions(router: &Router) -> Vec<Value> {
    stats(router).iter().flat_map(|worker| worker["sessions"].as_array().cloned().unwrap_or_default()).collect()
}

/// Packets in use in a router's pools.
pub(crate) fn pool(router: &Router) -> u64 {
    stats(router).iter().map(|worker| worker["pool"][0].as_u64().expect("a number")).sum()
}

/// What a router dropped for this reason.
pub(crate) fn dropped(router: &Router, reason: &str) -> u64 {
    stats(router).iter().map(|worker| worker["drops"][reason].as_u64().unwrap_or(0)).sum()
}

/// Waits until every link of every running router is up.
pub(crate) fn wait_links(world: &World) {
    for router in world.routers().iter().filter(|router| router.pid().is_some()) {
        eventually(&format!("all links of {} are up", router.name()), || {
            links(router).iter().all(|link| link.up).then_some(())
        });
    }
}

/// Memory of a router that is in use, KiB.
pub(crate) fn resident(router: &Router) -> u64 {
    let pid = router.pid().expect("runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Rewrites a router's configuration.
pub(crate) fn rewrite(router: &Router, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(router.config()).expect("has a configuration");
    std::fs::write(router.config(), change(text)).expect("is written");
}

/// `text` without its `[[table]]` that has this line.
pub(crate) fn without_table(text: &str, table: &str, line: &str) -> String {
    let header = format!("[[{table}]]");
    let mut kept = String::new();
    for block in text.split_inclusive("\n\n") {
        let named = block.trim_start().starts_with(&header) && block.lines().any(|found| found == line);
        kept += if named { "" } else { block };
    }
    assert!(kept.len() < text.len(), "no [[{table}]] with {line} in\n{text}");
    kept
}

/// A file of a world's own.
pub(crate) fn file(world: &World, name: &str) -> PathBuf {
    world.dir().join(name)
}
