//! Two routers: what an application and every command see.

use crate::support::{
    Machine, PATIENCE, SINEW, eventually, file, io_test, json, parsed, run, sessions, sinew, started, without_offload,
};
use crate::traffic::{carry, datagrams, exactly_once, noise};
use serde_json::Value;
use sinew::base::Class;
use sinew::client::Event;
use sinew::lab::conditions::Conditions;
use sinew::lab::world::{Topology, World};
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

#[test]
fn over_uring() {
    io_test("two_routers::over_uring", "uring", Machine::Shared, everything);
}

#[test]
fn over_mmsg() {
    io_test("two_routers::over_mmsg", "mmsg", Machine::Shared, everything);
}

fn everything(io: &str) {
    let mut topology = Topology::chain(1, Conditions::wire(2.0, 0));
    topology.io = io.into();
    let world = started(topology);
    let (a, b) = (world.router("a"), world.router("b"));
    let log = a.log();
    assert!(log.contains(io), "the back-end is said in the log:\n{log}");
    carry(a, b, 8000, &noise(1, 700_000));
    exactly_once(a, b, 500, 900, false);
    exactly_once(b, a, 500, 900, true);
    datagrams_of_all_sizes(&world);
    shown(&world);
    timed(&world);
    reached(&world);
    sent_and_received(&world);
    measured(&world);
    exit_codes(&world);
}

fn datagrams_of_all_sizes(world: &World) {
    let (source, sink) = (datagrams(world.router("a"), 0), datagrams(world.router("b"), 7001));
    let mut buffer = vec![0; 1 << 16];
    for class in Class::ALL {
        for len in [0, 1, 1100, 1200, 9000, 1 << 16] {
            let sent = noise(len as u64, len);
            source.send(sink.local(), class, false, &sent).expect("is sent");
            match sink.recv(&mut buffer).expect("arrives in time") {
                Event::Datagram { from, class: got, bytes, .. } => {
                    assert_eq!((from, got, bytes.len()), (source.local(), class, len));
                    assert!(bytes == sent, "{class} {len}");
                }
                other => panic!("{class} {len}: {other:?}"),
            }
        }
    }
}

fn shown(world: &World) {
    let (a, b) = (world.router("a"), world.router("b"));
    let _session = datagrams(a, 7100);
    let nodes = json(a, "show nodes --json --check");
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(2), "{nodes}");
    assert!(nodes["nodes"][0]["name"] == "a" && nodes["nodes"][0]["this"] == true, "{nodes}");
    let links = json(a, "show links --json --check");
    assert!(links["links"][0]["peer"] == "b" && links["links"][0]["up"] == true, "{links}");
    let rtt = links["links"][0]["metrics"]["rtt_ms"].as_f64().expect("a number");
    assert!((3.9..200.0).contains(&rtt), "{links}");
    let routes = json(b, "show routes --json");
    assert!(routes["routes"][0]["name"] == "a" && routes["routes"][0]["hops"] == 1, "{routes}");
    let shown = json(a, "show sessions --json");
    let listed = shown["sessions"].as_array().expect("a list").iter().any(|session| session["port"] == 7100);
    assert!(listed, "{shown}");
    let stats = json(a, "show stats --json");
    assert!(stats["workers"][0]["datagrams_in"].as_u64() > Some(500), "{stats}");
    for what in ["nodes", "links", "routes", "sessions", "latency", "stats"] {
        assert!(!run(a, &format!("show {what}"), 0).stdout.is_empty(), "{what}");
    }
    let metrics = String::from_utf8(run(a, "show stats --prometheus", 0).stdout).expect("text");
    for line in ["# TYPE sinew_link_up gauge", "sinew_link_up{link=\"0\",lane=\"0\",peer=\"b\"} 1"] {
        assert!(metrics.lines().any(|shown| shown == line), "{line}: {metrics}");
    }
    let mut series: Vec<&str> = metrics.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), all, "no series twice: {metrics}");
}

/// Where time went is told by every door.
fn timed(world: &World) {
    let a = world.router("a");
    let latency = json(a, "show latency --json --check --within 10s");
    let rows = latency["latency"].as_array().expect("a list");
    let stages = [
        ("socket-wait", Value::Null),
        ("residence", "best-effort".into()),
        ("residence", "reliable".into()),
        ("queue-wait", "reliable".into()),
        ("round-trip", Value::Null),
        ("one-way", Value::Null),
    ];
    // Without trains the kernel is not asked when datagrams came.
    for (stage, class) in &stages[usize::from(without_offload())..] {
        let row = rows.iter().find(|row| row["link"] == "b" && row["stage"] == *stage && row["class"] == *class);
        let row = row.unwrap_or_else(|| panic!("no {stage} {class}: {latency}"));
        assert!(row["count"].as_u64() > Some(0) && row["p99_us"].as_f64() >= row["p50_us"].as_f64(), "{row}");
        assert_eq!(row["error_us"].as_u64() > Some(0), *stage == "one-way", "{row}");
    }
    run(a, "show latency --check --within 1us", 1);
    let picture = String::from_utf8(run(a, "top --once -i 200ms", 0).stdout).expect("text");
    assert!(picture.contains("link to b ") && picture.contains("socket-wait"), "{picture}");
    let top = json(a, "top --once -i 200ms --json");
    assert!(top["links"][0]["lanes"][0]["lane"] == 0 && top["workers"][0]["turns_per_s"].as_f64() > Some(0.0), "{top}");
    assert_eq!(run(a, "top", 2).stdout, b"", "no terminal");
    a.signal(libc::SIGUSR1);
    eventually("the log says where the histograms are", || a.log().contains("histograms written").then_some(()));
    let directory = a.socket().with_file_name("histograms");
    let file = std::fs::read_to_string(directory.join("worker0-to-b-residence_reliable.hgrm")).expect("is there");
    assert!(file.contains("#[Mean") && file.lines().count() > 10, "{file}");
}

fn reached(world: &World) {
    let a = world.router("a");
    let ping = json(a, "ping b -c 5 -i 20ms --class reliable --json");
    assert_eq!((&ping["sent"], &ping["received"], &ping["duplicated"]), (&5.into(), &5.into(), &0.into()), "{ping}");
    assert!(ping["min_ms"].as_f64() > Some(3.9) && ping["replies"][4]["hops"] == 1, "{ping}");
    let trace = json(a, "trace b -c 2 -i 20ms --json");
    assert!(trace["reached"] == true && trace["hops"][0]["name"] == "b", "{trace}");
}

/// Starts `recv` at b and waits until it holds its port.
fn receiver(world: &World, port: u16, line: &str) -> Child {
    let b = world.router("b");
    let child = sinew(b, &format!("recv {port} {line}")).spawn().expect("the binary runs");
    eventually("recv listens", || sessions(b).iter().any(|session| session["port"] == port).then_some(()));
    child
}

/// The output of a command that must end well in time.
fn ended(what: &str, mut child: Child) -> Output {
    eventually(what, || child.try_wait().expect("is a child"));
    let output = child.wait_with_output().expect("has ended");
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary runs");
    child.stdin.take().expect("is piped").write_all(input).expect("is read");
    ended("a sender", child)
}

fn sent_and_received(world: &World) {
    let a = world.router("a");
    let receiving = receiver(world, 7200, "--json --count 3");
    let sent = with_input(&mut sinew(a, "send b:7200 --lines --ordered --json"), b"one\ntwo\nthree\n");
    let sent = parsed("send", &sent.stdout);
    assert_eq!((&sent["datagrams"], &sent["bytes"]), (&3.into(), &11.into()), "{sent}");
    let got = String::from_utf8(ended("recv", receiving).stdout).expect("is text");
    let texts: Vec<_> = got.lines().map(|line| parsed("recv", line.as_bytes())["text"].clone()).collect();
    assert_eq!(texts, ["one", "two", "three"]);

    let (input, output) = (file(world, "input"), file(world, "output"));
    std::fs::write(&input, noise(9, 300_000)).expect("is written");
    let receiving = receiver(world, 7201, &format!("--stream --json -o {}", output.display()));
    let sent = json(a, &format!("send b:7201 --stream --json {}", input.display()));
    assert_eq!(sent["bytes"], 300_000, "{sent}");
    let got = parsed("recv", &ended("recv", receiving).stdout);
    assert_eq!(got["bytes"], 300_000, "{got}");
    assert!(std::fs::read(output).expect("is there") == noise(9, 300_000), "the file is another");
}

fn measured(world: &World) {
    let (a, b) = (world.router("a"), world.router("b"));
    for (port, line, transport) in [(7300, "", "reliable"), (7301, "--stream", "stream")] {
        let server = sinew(b, &format!("perf server --port {port} --once --json")).spawn().expect("the binary runs");
        eventually("a server", || sessions(b).iter().any(|session| session["port"] == port).then_some(()));
        let client = json(a, &format!("perf client --to b:{port} {line} --messages 200 --rate 4mbit --json"));
        assert_eq!((&client["transport"], &client["sent"]), (&transport.into(), &200.into()), "{client}");
        assert_eq!((&client["received"], &client["lost"]), (&200.into(), &0.into()), "{client}");
        assert!(client["one_way"]["p50_ms"].as_f64() > Some(1.9), "{client}");
        let server = parsed("perf server", &ended("perf server", server).stdout);
        assert_eq!(server["received"], 200, "{server}");
    }
    // One that stays must not end its session before the client has heard its last echo.
    let mut server = sinew(b, "perf server --port 7302").spawn().expect("the binary runs");
    eventually("a server", || sessions(b).iter().any(|session| session["port"] == 7302).then_some(()));
    for _ in 0..2 {
        let client = json(a, "perf client --to b:7302 --messages 50 --rate 4mbit --json");
        assert_eq!((&client["received"], &client["lost"]), (&50.into(), &0.into()), "{client}");
    }
    server.kill().and_then(|()| server.wait()).expect("is killed");
}

fn exit_codes(world: &World) {
    let (a, b) = (world.router("a"), world.router("b"));
    run(a, "ping nobody -c 1", 1);
    run(a, "send b:1 --size 0", 2);
    let refused = run(a, "send b:4444 --stream /dev/null", 1);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nobody listens"), "{refused:?}");
    b.kill();
    eventually("b is known to be away", || {
        (sinew(a, "show nodes --check").status().ok()?.code() == Some(1)).then_some(())
    });
    run(a, "show links --check", 1);
    run(a, "ping b -c 1 -w 100ms", 1);
    run(a, "trace b -c 1 -w 100ms --max-hops 2", 1);
    for line in
        ["show nodes --json", "ping a -c 1", "trace a", "send a:7", "recv 7", "perf server", "perf client --to a"]
    {
        let output = run(b, line, 3);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{line}");
    }
    assert!(a.terminate(PATIENCE).is_some_and(|status| status.success()), "SIGTERM is a clean stop:\n{}", a.log());
    assert!(!a.socket().exists(), "a clean stop removes the socket");
}

#[test]
fn a_configuration_with_mistakes_starts_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("a.toml");
    let socket = directory.path().join("sock");
    let text = format!(
        "name = \"a\"\nkey = \"a.key\"\nlisten = \"127.0.0.1\"\ncontrol_socket = \"{}\"\n\n[workers]\ncuont = 1\n\n\
         [[member]]\nname = \"a\"\npublic = \"nonsense\"\n\n[[link]]\npeer = \"b\"\nhello = \"5\"\n",
        socket.display()
    );
    std::fs::write(&path, text).expect("is written");
    let output = Command::new(SINEW).arg("run").arg("-c").arg(&path).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let places = [":3:10: ", ":7:1: unknown key `cuont`", ":11:10: ", ":14:8: ", ":15:9: "];
    for part in places {
        assert!(said.contains(&format!("a.toml{part}")), "{part} is not in\n{said}");
    }
    let carets = said.lines().filter(|line| line.trim_start_matches([' ', '|']).starts_with('^')).count();
    assert!(carets >= places.len(), "{carets} carets in\n{said}");
    assert!(said.contains("did you mean `count`?") && said.contains("nothing was started"), "{said}");
    assert!(!socket.exists());
}
