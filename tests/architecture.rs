//! Keeps the house in order: no lower floor imports a higher one, no protocol imports another, and protocol rooms touch
//! neither sockets nor clocks nor threads. The table here is the one in the documentation of the library.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room and what it may use besides itself and `base`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("containers", &[]),
    ("wire", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    ("proto/security", &["wire", "containers", "telemetry"]),
    ("proto/link", &["wire", "containers", "telemetry"]),
    ("proto/session", &["wire", "containers", "telemetry"]),
    ("proto/routing", &["wire", "containers", "telemetry"]),
    ("forwarding", &["wire", "telemetry"]),
    ("dataplane", &["proto/security", "proto/link", "proto/session", "forwarding", "wire", "containers", "telemetry"]),
    // Link settings pass through control on their way from the configuration to the shard.
    (
        "control",
        &["proto/routing", "proto/link", "forwarding", "dataplane", "config", "wire", "containers", "telemetry"],
    ),
    (
        "runtime",
        &["dataplane", "control", "config", "containers", "telemetry", "wire", "proto/session", "proto/security"],
    ),
    ("sim", &["dataplane", "control", "config", "containers", "telemetry", "wire", "proto/session", "proto/security"]),
    ("client", &["wire"]),
    ("lab", &["runtime", "client", "config", "telemetry", "wire", "sim"]),
    ("cli", &["containers", "runtime", "client", "config", "telemetry", "wire", "sim", "lab", "control", "dataplane"]),
];

/// What rooms without system calls must not name.
const BANNED: &[&str] = &[
    "std::thread",
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
    "thread_rng",
];

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
