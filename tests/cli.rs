//! The real binary's command line: exit codes, what goes where, and what is said. No router is needed.

// Tests of real processes wait for real time.
#![allow(clippy::disallowed_methods)]

use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::Permissions;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn sinew(directory: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    command.current_dir(directory).env_remove("SINEW_SOCKET").stdin(Stdio::null());
    command.args(line.split_whitespace()).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_teaches_and_succeeds() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for line in ["--help", "run --help", "perf client --help", "config example --help", "show --help", "tune --help"] {
        let output = sinew(directory.path(), line);
        let said = text(&output.stdout);
        assert!(output.status.code() == Some(0) && output.stderr.is_empty(), "{line}: {said}");
        for part in ["Usage: sinew", "\n  sinew ", "Exit codes: 0"] {
            assert!(said.contains(part), "{line} lacks {part:?}: {said}");
        }
        assert_eq!(
            said.contains("--socket"),
            !["run", "config", "tune"].iter().any(|own| line.starts_with(own)),
            "{line}"
        );
    }
    let version = sinew(directory.path(), "--version");
    assert_eq!(text(&version.stdout), concat!("sinew ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn what_cannot_be_meant_is_2() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (line, what) in [
        ("sim --scenario nofile.toml", "nofile.toml"),
        ("show links --hgrm out", "sinew show stats"),
        ("lab --sim --experiment fairness", "leave out --sim"),
        ("lab --sim --keep", "leave out --keep"),
        ("lab --experiment dsn03 --hops 3", "leave it out"),
        ("-s a.sock sim --seed 1", "leave out -s"),
        ("key show a.key -s a.sock", "unexpected argument"),
    ] {
        let output = sinew(directory.path(), line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(said.contains(what) && output.stdout.is_empty(), "{line}: {said}");
    }
}

#[test]
fn a_scenario_is_not_overwritten_by_accident() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("x.toml");
    let output = sinew(directory.path(), "sim --seed 1 --save x.toml");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "written to x.toml\n".into()));
    let first = std::fs::read_to_string(&file).expect("was written");
    let output = sinew(directory.path(), "sim --seed 2 --save x.toml");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("x.toml is there already"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&file).expect("is still there"), first);
    assert!(sinew(directory.path(), "sim --seed 2 --save x.toml --force").status.success());
    assert_ne!(std::fs::read_to_string(&file).expect("was written"), first);
}

#[test]
fn a_wrong_command_line_is_2_and_names_the_right_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = sinew(directory.path(), "show lniks");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("links") && output.stdout.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn a_lab_that_cannot_write_its_results_measures_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("taken"), "").expect("is written");
    for line in ["lab --out taken/out", "lab --sim --out taken"] {
        let output = sinew(directory.path(), line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        let said = text(&output.stderr);
        assert!(said.contains("taken") && said.contains("--out DIR") && !said.contains("measuring"), "{line}: {said}");
    }
}

#[test]
fn no_router_is_3_and_says_how_to_start_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for line in ["show links", "ping b", "trace b", "send b:7", "recv 7", "perf server", "perf client --to b"] {
        let output = sinew(directory.path(), &format!("-s none.sock {line}"));
        assert_eq!(output.status.code(), Some(3), "{line}: {}", text(&output.stderr));
        let said = text(&output.stderr);
        assert!(said.contains("none.sock") && said.contains("sinew run -c FILE"), "{line}: {said}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn keys_and_configurations_from_nothing_to_right() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = sinew(directory.path(), "key generate a.key");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let public = text(&output.stdout).trim().to_owned();
    assert!(public.starts_with("sinew-public-"), "only the public identity goes to standard output: {public}");
    assert_eq!(text(&sinew(directory.path(), "key show a.key").stdout).trim(), public);
    let json = sinew(directory.path(), "key show --json a.key").stdout;
    let shown: serde_json::Value = serde_json::from_slice(&json).expect("is JSON");
    assert_eq!(shown["public"], public.as_str());
    assert_eq!(sinew(directory.path(), "key generate a.key").status.code(), Some(1), "a key is never overwritten");

    let file = directory.path().join("a.toml");
    let config = |key: &str, public: &str| {
        format!(
            "name = \"a\"\nkey = \"{key}\"\ncontrol_socket = \"a.sock\"\n[[member]]\nname = \"a\"\npublic = \"{public}\"\n"
        )
    };
    std::fs::write(&file, config("a.key", &public)).expect("is written");
    let output = sinew(directory.path(), "config check a.toml");
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "a.toml: ok: router `a`, 1 member, 0 links\n".into())
    );

    std::fs::write(&file, config("a.key", &public).replace("a.sock", "no/a.sock")).expect("is written");
    let output = sinew(directory.path(), "config check a.toml");
    assert_eq!(output.status.code(), Some(0), "the directory may be made later");
    assert!(text(&output.stdout).contains("note: the directory of `control_socket`, no, is not there"));

    sinew(directory.path(), "key generate other.key");
    let other = text(&sinew(directory.path(), "key show other.key").stdout).trim().to_owned();
    let beside = format!("[[member]]\nname = \"b\"\npublic = \"{other}\"\n[[link]]\npeer = \"b\"\n");
    let beside = |port: u16| format!("{beside}remote = \"192.0.2.2:{port}\"\n[workers]\ncount = 4\nidle = \"wait\"\n");
    for (port, noted) in [(65_532, false), (65_533, true)] {
        std::fs::write(&file, config("a.key", &public) + &beside(port)).expect("is written");
        let output = sinew(directory.path(), "config check a.toml");
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "only b can tell how many lanes there are: {said}");
        let note = "note: the link to `b`: lane k leads to port 65533 plus k, and 65535 is the highest; that is enough if \
                    `b` has at most 3 workers (this router has 4)";
        assert_eq!(said.contains(note), noted, "{said}");
    }

    std::fs::write(&file, config("b.key", &public)).expect("is written");
    for line in ["config check a.toml", "run -c a.toml"] {
        assert_eq!(sinew(directory.path(), line).status.code(), Some(2), "{line}: without a key nothing starts");
    }

    sinew(directory.path(), "key generate b.key");
    std::fs::write(&file, config("b.key", &public)).expect("is written");
    let output = sinew(directory.path(), "config check a.toml");
    assert_eq!(output.status.code(), Some(2), "another router's key");
    let said = text(&output.stdout);
    let first = said.lines().next().unwrap_or_default();
    let what = "a.toml:2:7: the key b.key is not the key of the member `a`";
    assert!(first.starts_with(what), "the first line says where and what: {said}");
    // A public identity may well have an "ok" in it.
    assert!(said.contains("help: ") && !said.contains(": ok"), "{said}");

    let wrong = config("c.key", &public).replace("[[member]]", "lisen = 1\n[routing]\nmetric = \"foo\"\n[[member]]");
    std::fs::write(&file, wrong).expect("is written");
    for line in ["config check a.toml", "run -c a.toml"] {
        let output = sinew(directory.path(), line);
        let said = text(&output.stdout) + &text(&output.stderr);
        let places: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("a.toml:")).collect();
        assert_eq!((output.status.code(), places.len()), (Some(2), 3), "all mistakes at once: {said}");
        let in_order = ["2:7: c.key is not there", "4:1: unknown key `lisen`", "6:10: `foo` is not"];
        assert!(places.iter().zip(in_order).all(|(place, start)| place.starts_with(start)), "{line}: {said}");
        assert!(said.contains("  2 | key = \"c.key\"\n    |       ^^^^^^^"), "{said}");
    }
}

#[test]
fn a_secret_is_never_shown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert!(sinew(directory.path(), "key generate a.key").status.success());
    let secret = std::fs::read_to_string(directory.path().join("a.key")).expect("our own file");
    let (secret, file) = (secret.trim(), directory.path().join("a.toml"));
    let hidden = |line: &str| {
        let output = sinew(directory.path(), line);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(!said.contains(&secret[13..23]), "{line}: {said}");
        said
    };
    for line in ["config check a.key", "config check --json a.key", "run -c a.key"] {
        let said = hidden(line);
        assert!(said.contains("this is a key file, not a configuration") && said.contains("`key = ...`"), "{said}");
    }
    for place in [
        format!("key = \"{secret}\""),
        format!("key {secret}"),
        format!("\"{secret}\" = 1"),
        format!("name = \"{secret}\""),
        format!("x = 1 # {secret}"),
        format!("x = [\n\"{secret}\"\n]"),
        format!("[[member]]\nname = \"{secret}\"\npublic = \"{secret}\""),
    ] {
        std::fs::write(&file, place + "\n").expect("is written");
        hidden("config check a.toml");
        hidden("config check --json a.toml");
    }
}

#[test]
fn what_is_wrong_with_a_key_is_said_with_the_next_step() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    assert!(sinew(directory.path(), "key generate a.key").status.success());
    assert!(sinew(directory.path(), "key generate open.key").status.success());
    std::fs::set_permissions(path("open.key"), Permissions::from_mode(0o644)).expect("our own file");
    std::fs::write(path("text"), "hello").expect("is written");
    std::fs::set_permissions(path("text"), Permissions::from_mode(0o600)).expect("our own file");
    for (line, what, next) in [
        ("key generate a.key", "a.key is there already", "sinew key show a.key"),
        ("key generate no/where.key", "no/where.key: cannot create it", "mkdir -p no"),
        ("key generate a.key/b.key", "cannot create it", "a.key is a file"),
        ("key show b.key", "b.key is not there", "sinew key generate b.key"),
        ("key show open.key", "(mode 0644)", "chmod 600 open.key"),
        ("key show .", "not a key file", "name the file"),
        ("key show text", "holds no secret identity", "name the file"),
    ] {
        let output = sinew(directory.path(), line);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        let mut lines = said.lines();
        assert!(lines.next().is_some_and(|first| first.contains(what)), "{line}: {said}");
        assert!(lines.next().is_some_and(|help| help.contains("help: ") && help.contains(next)), "{line}: {said}");
    }
}

#[test]
fn what_is_no_router_s_socket_is_said_to_be_none() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("file"), "").expect("is written");
    let _datagrams = std::os::unix::net::UnixDatagram::bind(directory.path().join("other")).expect("a socket");
    for (path, what) in
        [("file", "not a router's socket but a file"), (".", "but a directory"), ("other", "but one of another kind")]
    {
        let output = sinew(directory.path(), &format!("show links -s {path}"));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{path}: {said}");
        assert!(said.contains(what) && said.contains("control_socket"), "{path}: {said}");
    }
}

/// A command's end, which must come within this time.
fn ended_within(patience: Duration, mut child: Child) -> Output {
    let begin = Instant::now();
    while child.try_wait().expect("is a child").is_none() {
        if begin.elapsed() > patience {
            child.kill().expect("runs");
            panic!("not within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("has ended")
}

fn start(directory: &Path, line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    command.current_dir(directory).env_remove("SINEW_SOCKET").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).args(line.split_whitespace());
    command.spawn().expect("the binary runs")
}

#[test]
fn a_router_that_never_answers_is_3_after_a_while() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // One takes connections and says nothing; the other, as a stopped process, takes none, and its backlog is full.
    let silent = UnixListener::bind(directory.path().join("silent.sock")).expect("a socket");
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for connection in silent.incoming() {
            held.push(connection);
        }
    });
    let stopped = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let path = directory.path().join("stopped.sock");
    stopped.bind(&SockAddr::unix(&path).expect("a short path")).and_then(|()| stopped.listen(0)).expect("listens");
    let _waiting = UnixStream::connect(&path).expect("the backlog has room for one");
    let begin = Instant::now();
    let asked =
        ["show links", "show stats", "ping b", "trace b", "send b:7", "recv 7", "perf server", "perf client --to b"];
    let lines: Vec<String> = (asked.iter().map(|line| format!("{line} -s silent.sock")))
        .chain(["show links -s stopped.sock".to_owned()])
        .collect();
    let children: Vec<Child> = lines.iter().map(|line| start(directory.path(), line)).collect();
    for (line, child) in lines.iter().zip(children) {
        let output = ended_within(Duration::from_secs(30), child);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{line}: {said}");
        let socket = line.rsplit(' ').next().expect("names a socket");
        for part in [socket, "within 10 s", "help: ", "-s PATH"] {
            assert!(said.contains(part) && output.stdout.is_empty(), "{line}: {part} is not in {said}");
        }
    }
    assert!(begin.elapsed() > Duration::from_secs(9), "a busy router has time: {:?}", begin.elapsed());
}

#[test]
fn asked_to_stop_while_it_waits_for_the_router_a_command_ends_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let listener = UnixListener::bind(directory.path().join("silent.sock")).expect("a socket");
    let child = start(directory.path(), "send b:7 -s silent.sock");
    // It has asked, so it waits.
    let (mut connection, _) = listener.accept().expect("it connects");
    assert!(connection.read(&mut [0; 100]).expect("it asks") > 0);
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.expect("kill(1) runs").success());
    let output = ended_within(Duration::from_secs(5), child);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(130), String::new()));
}

#[test]
fn a_topology_that_cannot_be_used_is_2_before_anything_is_built() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("bad.toml"), "nodes = [\"a\"]\nnods = 1\n").expect("is written");
    for (file, what) in [("missing.toml", "missing.toml"), ("bad.toml", "nods")] {
        let output = sinew(directory.path(), &format!("lab --topology {file}"));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{file}: {said}");
        assert!(said.contains(what) && said.contains("help: ") && said.contains("[[link]]"), "{file}: {said}");
    }
}

#[test]
fn a_topology_that_cannot_be_simulated_is_2_and_one_that_can_is_measured() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let text = "nodes = [\"left\", \"right\"]\n[[link]]\nbetween = [\"right\", \"left\"]\n\
                conditions = { delay_ms = 7 }\n[[flow]]\nfrom = \"left\"\nto = \"right\"\n";
    std::fs::write(directory.path().join("own.toml"), text).expect("is written");
    let held = text.replace("delay_ms = 7", "reorder_percent = 1");
    std::fs::write(directory.path().join("held.toml"), held).expect("is written");
    let output = sinew(directory.path(), "lab --sim --topology held.toml");
    let said = text_of_both(&output);
    assert!(output.status.code() == Some(2) && said.contains("held.toml") && said.contains("leave out"), "{said}");
    let output = sinew(directory.path(), "lab --sim --topology own.toml --messages 20 --transports reliable --json");
    let said = text_of_both(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    let run = &found["runs"][0];
    assert_eq!((&run["from"], &run["to"], &run["lost"]), (&"left".into(), &"right".into(), &0.into()), "{run}");
    assert_eq!((found["runs"].as_array().map(Vec::len), run["p50_ms"].as_f64().map(f64::round)), (Some(1), Some(7.0)));
}

/// Everything a command said.
fn text_of_both(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn mistakes_are_2_before_anything_starts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("a.toml"), "nmae = \"a\"\nkey = \"a.key\"\nlisten = \"x\"\n")
        .expect("is written");
    let output = sinew(directory.path(), "run -c a.toml");
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for part in ["a.toml:1:1: unknown key `nmae`", "did you mean `name`?", "a.toml:3:10:", "5 mistakes"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let output = sinew(directory.path(), "config check --json a.toml none.toml");
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(report["files"][0]["mistakes"].as_array().map(Vec::len), Some(5));
    assert_eq!(report["files"][0]["mistakes"][0]["column"], 1);
    assert_eq!(report["files"][1]["ok"], false);
}

#[test]
fn tune_looks_says_what_to_do_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = sinew(directory.path(), "tune --quick --json");
    let said = text_of_both(&output);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("is JSON: {said}"));
    let checks = report["checks"].as_array().expect("has checks");
    let to_do = checks.iter().filter(|check| check["state"] == "advice").count();
    assert_eq!((&report["quick"], &report["measured"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!((report["to_do"].as_u64(), output.status.code()), (Some(to_do as u64), Some(i32::from(to_do > 0))));
    for name in ["configuration", "interrupts", "socket-buffers", "real-time", "clock", "io", "trains", "steal"] {
        let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name}: {said}"));
        let states = ["good", "advice", "option", "note", "unseen"];
        assert!(states.iter().any(|state| check["state"] == *state), "{check}");
        assert!(
            check["found"].as_str().is_some_and(|found| !found.is_empty()) && check["commands"].is_array(),
            "{check}"
        );
    }
    assert!(report["machine"]["topology"]["online"].as_u64().is_some_and(|online| online > 0), "{said}");
    // What it recommends is a configuration, with which the machine is content in that respect.
    assert!(sinew(directory.path(), "config example chain net --routers 2").status.success());
    let file = directory.path().join("net/a.toml");
    let example = std::fs::read_to_string(&file).expect("was made");
    let (head, rest) = example.split_once("[workers]").expect("has workers");
    let tail = &rest[rest.find("[routing]").expect("has routing")..];
    let recommended = report["configuration"]["text"].as_str().expect("is text");
    std::fs::write(&file, format!("{head}{recommended}\n{tail}")).expect("is written");
    let output = sinew(directory.path(), "tune --quick --json -c net/a.toml");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(report["configuration"]["differs"], false, "{}", text_of_both(&output));
    let output = sinew(directory.path(), "tune --quick -c none.toml");
    assert_eq!(output.status.code(), Some(2), "{}", text_of_both(&output));
}

#[test]
fn cores_that_cannot_be_had_are_2_and_say_which_can() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert!(sinew(directory.path(), "config example chain net --routers 2").status.success());
    let file = directory.path().join("net/a.toml");
    let example = std::fs::read_to_string(&file).expect("was made");
    std::fs::write(&file, example.replace("cores = []", "cores = [8000]")).expect("is written");
    let output = sinew(&directory.path().join("net"), "run -c a.toml");
    let said = text_of_both(&output);
    assert!(output.status.code() == Some(2) && said.contains("no core 8000. It has 0"), "{said}");
    let output = sinew(&directory.path().join("net"), "config check a.toml");
    let said = text_of_both(&output);
    assert!(output.status.code() == Some(0) && said.contains("`sinew run` would refuse it"), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert!(sinew(directory.path(), "config example ring net --routers 26").status.success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    command.current_dir(directory.path()).args(["config", "check"]);
    let files = std::fs::read_dir(directory.path().join("net")).expect("was made");
    for file in files.map(|file| file.expect("has entries").path()) {
        if file.extension().is_some_and(|extension| extension == "toml") {
            command.arg(file);
        }
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}
