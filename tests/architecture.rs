//! Keeps the house in order: no lower floor imports a higher one, no protocol imports another, and protocol rooms touch
//! neither sockets nor clocks nor threads nor randomness. Who may use whom is written down here and nowhere else; what the
//! floors are for is in the documentation of the library.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room and what it may use besides itself and `base`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("containers", &[]),
    ("wire", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    // The memory that `client` and `runtime` share.
    ("shm", &["wire", "containers"]),
    ("proto/security", &["wire", "containers", "telemetry"]),
    ("proto/link", &["wire", "containers", "telemetry"]),
    ("proto/session", &["wire", "containers", "telemetry"]),
    ("proto/routing", &["wire", "containers", "telemetry"]),
    ("proto/membership", &["wire", "containers", "telemetry"]),
    ("proto/vip", &["wire", "containers", "telemetry"]),
    ("proto/groups", &["wire", "containers", "telemetry"]),
    ("forwarding", &["wire", "telemetry"]),
    ("dataplane", &["proto/security", "proto/link", "proto/session", "forwarding", "wire", "containers", "telemetry"]),
    // Link settings pass through control on their way from the configuration to the shard.
    (
        "control",
        &[
            "proto/routing",
            "proto/link",
            "proto/membership",
            "proto/vip",
            "proto/groups",
            "forwarding",
            "dataplane",
            "config",
            "wire",
            "containers",
            "telemetry",
        ],
    ),
    (
        "runtime",
        &[
            "dataplane",
            "control",
            "config",
            "containers",
            "shm",
            "telemetry",
            "wire",
            "proto/session",
            "proto/security",
            "proto/vip",
        ],
    ),
    (
        "sim",
        &[
            "dataplane",
            "control",
            "config",
            "containers",
            "telemetry",
            "wire",
            "proto/session",
            "proto/security",
            "proto/membership",
        ],
    ),
    ("client", &["wire", "shm"]),
    ("lab", &["runtime", "client", "config", "telemetry", "wire", "sim"]),
    ("tune", &["runtime", "config", "containers", "telemetry"]),
    (
        "cli",
        &[
            "containers",
            "runtime",
            "client",
            "config",
            "telemetry",
            "wire",
            "sim",
            "lab",
            "tune",
            "control",
            "dataplane",
        ],
    ),
];

/// What rooms without system calls must not name. That each is a name that code would use, `mod sample` shows. Generators
/// of the crate `rand` that take their seed from the system are not even compiled: see `rand_has_no_seed_of_its_own`.
const BANNED: &[&str] = &[
    "std::thread",
    // Hides what it imports.
    "std::{",
    "Instant::now",
    "SystemTime::now",
    "UdpSocket",
    "TcpStream",
    "std::fs",
    "std::os",
    "libc::",
    "HashMap",
    "HashSet",
    "unsafe {",
    "SystemRandom",
    "RandomState",
];

/// The rooms of which everything that a worker does per packet is made.
const PER_PACKET: &[&str] = &["base", "containers", "wire", "telemetry", "proto", "forwarding", "dataplane", "runtime"];

/// What waits for another thread. A room that cannot name one takes no lock per packet, however it is called; what wakes a
/// worker, and what carries commands and reports, is made of atomics (`containers/sleeper.rs`, `runtime/ring.rs`).
const LOCKS: &[&str] = &["Mutex", "RwLock", "Condvar", "Barrier", "mpsc", "parking_lot"];

/// What is not a worker's: what starts the threads, and hears from each, once, that it has begun; and the thread that writes
/// histograms to files for control.
const NO_WORKERS: [&str; 2] = ["runtime/start.rs", "runtime/scribe.rs"];

/// Every banned name in code that compiles; nobody calls it.
#[allow(dead_code, clippy::disallowed_methods, clippy::disallowed_types, reason = "it shows what is banned")]
mod sample {
    use std::collections::{HashMap, HashSet};
    use std::net::{TcpStream, UdpSocket};
    use std::sync::{Barrier, Condvar, Mutex, RwLock, mpsc};
    use std::{fs, os::fd::OwnedFd};

    // parking_lot is what others would bring.
    type Locks = (Mutex<u8>, RwLock<u8>, Condvar, Barrier, mpsc::Sender<u8>);
    type Things = (HashMap<u8, TcpStream>, HashSet<u8>, UdpSocket, OwnedFd, std::os::fd::RawFd);

    fn uses() -> (std::time::Instant, std::time::SystemTime, ring::rand::SystemRandom, std::hash::RandomState) {
        std::thread::scope(|_| drop(std::fs::exists("/").or(fs::exists("."))));
        // SAFETY: it has no conditions.
        let _ = unsafe { libc::getpid() };
        let seeds = (ring::rand::SystemRandom::new(), std::hash::RandomState::new());
        (std::time::Instant::now(), std::time::SystemTime::now(), seeds.0, seeds.1)
    }
}

const SANS_IO: &[&str] =
    &["base", "containers", "wire", "telemetry", "proto", "forwarding", "dataplane", "control", "sim"];

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the source folder can be read") {
        let path = entry.expect("a folder entry can be read").path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Source files with their path below `src`, and their text without comments and tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&root, &mut files);
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file can be read");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let name = path.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/");
        (name, code.join("\n"))
    };
    let is_test = |name: &String| name.ends_with("tests.rs") || name.contains("/tests/");
    files.into_iter().map(read).filter(|(name, _)| !is_test(name)).collect()
}

fn room_of(path: &str) -> Option<&'static str> {
    MAY_USE.iter().map(|&(room, _)| room).find(|room| path.strip_prefix(room).is_some_and(|rest| rest.starts_with('/')))
}

fn ident(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// The parts of a group between its first brace and the matching one.
fn group(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 1);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            parts.push(text[start..at].trim());
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    parts
}

/// The first two names of every path that begins here, groups expanded.
fn paths(text: &str) -> Vec<Vec<&str>> {
    if text.starts_with('{') {
        return group(text).into_iter().filter(|part| !part.is_empty()).flat_map(paths).collect();
    }
    let first = ident(text);
    match text[first.len()..].strip_prefix("::") {
        Some(rest) if !rest.starts_with('*') => {
            paths(rest).into_iter().map(|rest| std::iter::once(first).chain(rest).take(2).collect()).collect()
        }
        _ => vec![vec![first]],
    }
}

fn room_named(path: &[&str]) -> String {
    match path {
        ["proto", room, ..] => format!("proto/{room}"),
        [room, ..] => (*room).to_owned(),
        [] => String::new(),
    }
}

/// The modules that lead to a file.
fn modules(file: &str) -> Vec<&str> {
    let mut modules: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if modules.last() == Some(&"mod") {
        modules.pop();
    }
    modules
}

/// Every room that `code` in `file` names, from the crate's root or upwards from where it stands.
fn rooms_named(file: &str, code: &str) -> Vec<String> {
    let stands_alone = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let absolute = code.match_indices("crate::").filter(|(at, _)| stands_alone(*at));
    let absolute = absolute.flat_map(|(at, found)| paths(&code[at + found.len()..])).map(|path| room_named(&path));
    let upwards = code.match_indices("super::").filter(|(at, _)| stands_alone(*at)).flat_map(|(at, _)| {
        let (mut rest, mut base) = (&code[at..], modules(file));
        while let Some(above) = rest.strip_prefix("super::") {
            rest = above;
            base.pop();
        }
        let whole = |path: Vec<&str>| room_named(&base.iter().copied().chain(path).collect::<Vec<_>>());
        paths(rest).into_iter().map(whole).collect::<Vec<_>>()
    });
    absolute.chain(upwards).collect()
}

#[test]
fn no_room_uses_what_it_may_not() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let Some(room) = room_of(&path) else { continue };
        let (_, allowed) = MAY_USE.iter().find(|(name, _)| *name == room).expect("the room was found by its name");
        for named in rooms_named(&path, &code) {
            if named != room && named != "base" && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{path} uses {named}"));
            }
        }
    }
    assert!(wrong.is_empty(), "floors are mixed up, or a name is no room:\n{}", wrong.join("\n"));
}

#[test]
fn protocol_rooms_touch_no_system() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        if !SANS_IO.iter().any(|room| path.starts_with(&format!("{room}/"))) {
            continue;
        }
        wrong.extend(BANNED.iter().filter(|banned| code.contains(**banned)).map(|banned| format!("{path}: {banned}")));
    }
    assert!(wrong.is_empty(), "a sans-IO room names a system facility:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_that_a_worker_runs_can_take_a_lock() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        if NO_WORKERS.contains(&path.as_str()) || !PER_PACKET.iter().any(|room| path.starts_with(&format!("{room}/"))) {
            continue;
        }
        wrong.extend(LOCKS.iter().filter(|lock| code.contains(**lock)).map(|lock| format!("{path}: {lock}")));
    }
    assert!(wrong.is_empty(), "what a worker does per packet names a lock:\n{}", wrong.join("\n"));
    for exception in NO_WORKERS {
        let code = sources().into_iter().find(|(path, _)| path == exception).expect("it is there").1;
        assert!(code.contains("mpsc"), "the exception for {exception} is needed no more");
    }
}

#[test]
fn every_ban_is_of_a_name_that_code_uses() {
    let this = include_str!("architecture.rs");
    let sample = this.split("\nmod sample {").nth(1).and_then(|rest| rest.split("\n}").next()).expect("it is here");
    for banned in BANNED.iter().chain(LOCKS) {
        assert!(sample.contains(banned), "no code that compiles names {banned}: the ban cannot fail");
    }
}

#[test]
fn rand_has_no_seed_of_its_own() {
    let manifest = include_str!("../Cargo.toml");
    let generators: Vec<&str> = manifest.lines().filter(|line| line.starts_with("rand")).collect();
    assert_eq!(generators.len(), 2, "rand and rand_chacha: {generators:?}");
    for line in generators {
        let bare = line.contains("default-features = false") && !line.contains(", features");
        assert!(bare, "with thread_rng or sys_rng every room could draw its own randomness: {line}");
    }
}

#[test]
fn every_room_of_the_library_has_its_place() {
    let rooms =
        include_str!("../src/lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for room in rooms {
        let below = format!("{room}/");
        let placed = MAY_USE.iter().any(|&(name, _)| name == room || name.starts_with(&below));
        assert!(placed, "{room} is on no floor");
    }
}

#[test]
fn the_test_sees_imports() {
    let code = "use crate::proto::link::Link; let x = crate::wire::message::HEADER_LEN;";
    assert_eq!(rooms_named("sim/world.rs", code), ["proto/link", "wire"]);
    let grouped = "use crate::{base::{Rng, Instant}, proto::{link, session::{self, Sessions}}};";
    assert_eq!(rooms_named("sim/world.rs", grouped), ["base", "base", "proto/link", "proto/session", "proto/session"]);
    let upwards = "use super::super::link::Link; use super::super::super::wire::{frame, message}; use super::map;";
    assert_eq!(rooms_named("proto/routing/own.rs", upwards), ["proto/link", "wire", "wire", "proto/routing"]);
    assert_eq!(room_of("proto/link/cubic.rs"), Some("proto/link"));
    assert!(sources().len() > 20);
}
