//! What the parser accepts, and what it says of what it does not.

use super::*;
use crate::base::Identity;
use crate::config::settings::{Coverage, LinkPath, Profile, Question, Vip, VipAddress, VipCheck, VipSet};
use proptest::prelude::*;
use std::time::Duration;

fn public(seed: u8) -> String {
    Identity::from_seed([seed; 32]).public().to_string()
}

fn pair(rest: &str) -> String {
    let (a, b) = (public(1), public(2));
    format!(
        "name = \"a\"\nkey = \"a.key\"\n{rest}\n[[member]]\nname = \"a\"\npublic = \"{a}\"\n[[member]]\nname = \"b\"\npublic = \"{b}\"\n"
    )
}

fn read(text: &str) -> Result<Config, Errors> {
    parse_for(Path::new("etc/a.toml"), text, 8)
}

/// The only mistake of `text`, as shown.
fn only_mistake(text: &str) -> String {
    let errors = read(text).expect_err("has a mistake");
    assert_eq!(errors.mistakes().len(), 1, "{errors}");
    errors.mistakes()[0].to_string()
}

#[test]
fn defaults_are_filled_in() {
    let config = read(&(pair("") + "[[link]]\npeer = \"b\"\nremote = \"192.0.2.2:5300\"\n")).expect("is right");
    assert_eq!(config.key_file, Path::new("etc/a.key"), "relative paths start at the file's directory");
    assert_eq!(config.control_socket, Path::new("/run/sinew/control.sock"));
    assert_eq!(config.listen.to_string(), "0.0.0.0:5300");
    assert_eq!((config.workers.count, config.workers.io, config.workers.idle), (1, Io::Auto, Idle::Adaptive));
    assert_eq!(config.routing.metric, Metric::Expected);
    let link = &config.links[0];
    assert_eq!((link.hello, link.dead), (Duration::from_millis(40), Duration::from_millis(280)));
    assert_eq!(link.congestion, Congestion::Cubic);
    let small = parse_for(Path::new("a.toml"), &pair(""), 2).expect("is right");
    assert_eq!(small.workers.idle, Idle::Wait, "two cores are too few to spin");
}

#[test]
fn everything_can_be_said() {
    let text = pair(
        "listen = \"[::]:7000\"\ncontrol_socket = \"/tmp/s\"\n[workers]\ncount = 1\ncores = [3]\nio = \"mmsg\"\n\
         idle = \"spin\"\npool = 512\nsocket_buffer = 65536\nrealtime = 10\n\
         [memory]\nlock = \"on\"\n[routing]\nmetric = \"hops\"\n",
    ) + "[[link]]\npeer = \"b\"\nremote = \"[2001:db8::2]:5300\"\nhello = \"5ms\"\ncongestion = \"10mbit\"\nqueue = 100\n\
         queue_delay = \"20ms\"\npreshared_key = \"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"\n";
    let config = read(&text).expect("is right");
    assert_eq!(
        (config.workers.cores, config.workers.realtime, config.lock_memory),
        (Cores::List(vec![3]), Some(10), true)
    );
    let link = &config.links[0];
    assert_eq!(link.dead, Duration::from_millis(35), "`dead` follows `hello` where it is not said");
    assert_eq!(link.congestion, Congestion::FixedKbps(10_000));
    assert_eq!(link.preshared_key, Some([1; 32]));
    assert_eq!((link.queue, link.queue_delay), (100, Duration::from_millis(20)));
}

#[test]
fn all_mistakes_are_shown_at_once() {
    let text = "\
name = \"a\"
key = 7
listen = \"localhost\"
contol_socket = \"a.sock\"

[workers]
count = 65
io = \"urng\"

[[member]]
name = \"a\"

[[link]]
peer = \"a\"
dead = \"100ms\"
remote = \"0.0.0.0:0\"
";
    let shown = read(text).expect_err("has mistakes").to_string();
    assert_eq!(
        shown,
        "\
etc/a.toml:2:7: `key` is a whole number, not text
  2 | key = 7
    |       ^
  help: put it between quotes

etc/a.toml:3:10: `localhost` is not an address and port
  3 | listen = \"localhost\"
    |          ^^^^^^^^^^^
  help: write it as in `192.0.2.2:5300` or `[2001:db8::2]:5300`; names are not looked up

etc/a.toml:4:1: unknown key `contol_socket`
  4 | contol_socket = \"a.sock\"
    | ^^^^^^^^^^^^^
  help: did you mean `control_socket`?

etc/a.toml:7:9: `count` cannot be 65
  7 | count = 65
    |         ^^
  help: give a whole number from 1 to 8

etc/a.toml:8:6: `urng` is not a value of `io`
  8 | io = \"urng\"
    |      ^^^^^^
  help: did you mean `uring`?

etc/a.toml:10:1: this [[member]] has no `public`
  10 | [[member]]
     | ^^^^^^^^^^
  help: give its public identity: `sinew key show FILE` on that router prints it

etc/a.toml:14:8: a link leads from this router to itself
  14 | peer = \"a\"
     |        ^^^
  help: name the router at the other end

etc/a.toml:15:8: `dead` is 100ms, less than three hellos
  15 | dead = \"100ms\"
     |        ^^^^^^^
  help: one lost hello must not cut a link: make it at least 120ms

etc/a.toml:16:10: nothing can be sent to 0.0.0.0:0
  16 | remote = \"0.0.0.0:0\"
     |          ^^^^^^^^^^^
  help: give the address and port the other router listens on, or leave `remote` out to wait for its call

9 mistakes"
    );
}

#[test]
fn syntax_errors_have_a_place_too() {
    let errors = read("name = \"a\nkey = \"a.key\"\nname = \"b\"\n").expect_err("is no TOML");
    let first = &errors.mistakes()[0];
    assert_eq!(first.line, 1, "{errors}");
    assert!(first.message.starts_with("not TOML"), "{errors}");
    let empty = read("").expect_err("says nothing");
    assert_eq!(empty.mistakes().len(), 3, "{empty}");
}

#[test]
fn unknown_keys_far_from_any_known_one_get_the_list() {
    let shown = only_mistake(&(pair("") + "[[link]]\npeer = \"b\"\nbandwidth = 3\n"));
    assert!(shown.contains("unknown key `bandwidth`"), "{shown}");
    assert!(shown.contains("this [[link]] knows `peer`, `remote`"), "{shown}");
}

#[test]
fn keys_in_the_wrong_table_are_told_where_they_belong() {
    let shown = only_mistake(&pair("[workers]\ncount = 1\nlisten = \"0.0.0.0:1\"\n"));
    assert!(
        shown.contains("it belongs to the beginning of the file, above the first [table]: move it there"),
        "{shown}"
    );
    let shown = only_mistake(&pair("congestion = \"cubic\""));
    assert!(shown.contains("it belongs to a [[link]]"), "{shown}");
}

/// Each key that is said to belong somewhere is known there.
#[test]
fn the_list_of_keys_is_that_of_the_reader() {
    for (place, keys) in written::KEYS {
        for key in keys {
            let section = match place.split(' ').next_back() {
                Some("[table]") => String::new(),
                Some("[[link.path]]") => "[[link]]\n[[link.path]]\n".to_owned(),
                Some(section) => section.to_owned() + "\n",
                None => unreachable!("split gives at least one part"),
            };
            let errors = read(&format!("{section}{key} = 1979-05-27\n")).expect_err("a date is no value of any key");
            assert!(!errors.to_string().contains("unknown key"), "{errors}");
            assert!(errors.to_string().contains(&format!("`{key}` is")), "{errors}");
        }
    }
}

#[test]
fn a_table_that_should_be_a_list_is_said_to_be_one() {
    let shown = read(&pair("").replace("[[member]]", "[member]")).expect_err("is wrong").to_string();
    assert!(shown.contains("write `[[member]]`, with two brackets"), "{shown}");
}

#[test]
fn links_are_checked_against_the_members() {
    let unknown = only_mistake(
        &(pair("") + "[[member]]\nname = \"carol\"\npublic = \"" + &public(3) + "\"\n[[link]]\npeer = \"caorl\"\n"),
    );
    assert!(unknown.contains("did you mean `carol`?"), "{unknown}");
    let twice = only_mistake(&(pair("") + "[[link]]\npeer = \"b\"\n[[link]]\npeer = \"b\"\n"));
    assert!(twice.contains("a second link to `b`"), "{twice}");
    let family = only_mistake(&(pair("") + "[[link]]\npeer = \"b\"\nremote = \"[::1]:5300\"\n"));
    assert!(family.contains("`remote` is an IPv6 address, `listen` an IPv4 one"), "{family}");
}

#[test]
fn every_worker_of_this_router_has_a_port_and_those_of_others_are_theirs_to_count() {
    let workers = |port| pair(&format!("listen = \"0.0.0.0:{port}\"\n[workers]\ncount = 4\n"));
    let link = "[[link]]\npeer = \"b\"\nremote = \"192.0.2.2:65535\"\n";
    assert!(read(&(workers(65_532) + link)).is_ok(), "a link has as many lanes as the end with fewer workers");
    let shown = only_mistake(&workers(65_533));
    assert!(shown.contains("4 workers need the ports 65533 to 65536"), "{shown}");
    assert!(shown.contains("choose a lower port"), "{shown}");
}

#[test]
fn members_are_checked_against_each_other() {
    let again = format!("[[member]]\nname = \"b\"\npublic = \"{}\"\n", public(3));
    assert!(only_mistake(&(pair("") + &again)).contains("two members are called `b`"));
    let same_key = format!("[[member]]\nname = \"c\"\npublic = \"{}\"\n", public(2));
    assert!(only_mistake(&(pair("") + &same_key)).contains("`c` has the public identity of `b`"));
    let odd = format!("[[member]]\nname = \"0123456789abcdef\"\npublic = \"{}\"\n", public(3));
    assert!(only_mistake(&(pair("") + &odd)).contains("looks like a node id"));
    let colon = format!("[[member]]\nname = \"c:1\"\npublic = \"{}\"\n", public(3));
    assert!(only_mistake(&(pair("") + &colon)).contains("cannot be a name"));
    let other = pair("").replacen("name = \"a\"", "name = \"c\"", 1);
    assert!(only_mistake(&other).contains("no [[member]] is called `c`"));
}

#[test]
fn secrets_are_refused_and_not_repeated() {
    let secret = Identity::from_seed([9; 32]).to_secret_text();
    let shown = only_mistake(&pair("").replace(&public(2), &secret));
    assert!(shown.contains("this is a router's secret"), "{shown}");
    assert!(!shown.contains(&secret[13..]), "{shown}");
    let shown = only_mistake(&(pair("") + "[[link]]\npeer = \"b\"\npreshared_key = \"c2VjcmV0\"\n"));
    assert!(shown.contains("32 bytes in base64") && !shown.contains("c2VjcmV0"), "{shown}");
    let zeros = format!("[[link]]\npeer = \"b\"\npreshared_key = \"{}=\"\n", "A".repeat(43));
    let shown = only_mistake(&(pair("") + &zeros));
    assert!(shown.contains("a key of zeros is no secret"), "{shown}");
}

#[test]
fn a_worker_needs_a_core_of_its_own() {
    for count in [0, 9] {
        let wrong = only_mistake(&pair(&format!("[workers]\ncount = {count}\n")));
        assert!(wrong.contains("give a whole number from 1 to 8"), "{wrong}");
    }
    let few = only_mistake(&pair("[workers]\ncount = 3\ncores = [1, 2]\n"));
    assert!(few.contains("2 cores are named for 3 workers"), "{few}");
    let cores = only_mistake(&pair("[workers]\ncores = [1, 2]\n"));
    assert!(cores.contains("2 cores are named for 1 workers"), "{cores}");
    let shared = only_mistake(&pair("[workers]\ncores = [1, 1]\n"));
    assert!(shared.contains("two workers are pinned to one core"), "{shared}");
    let auto = read(&pair("[workers]\ncores = \"auto\"\nrealtime = \"off\"\n")).expect("is right").workers;
    assert_eq!((auto.cores, auto.realtime), (Cores::Auto, None));
    let long = only_mistake(&pair(&format!("control_socket = \"/{}\"", "x".repeat(120))));
    assert!(long.contains("the kernel takes at most 107"), "{long}");
}

#[test]
fn tables_and_lists_are_told_apart() {
    assert!(only_mistake(&pair("workers = 3")).contains("write `[workers]`"));
    assert!(only_mistake(&(pair("") + "[link]\npeer = \"b\"\n")).contains("write `[[link]]`, with two brackets"));
    for (line, wrong, right) in [
        ("cores = \"1\"", "`cores` is \"1\"", "as in `cores = [1, 2]`"),
        ("cores = [\"1\"]", "`cores` is a list", "`cores = \"auto\"`"),
        ("realtime = 100", "`realtime` is 100", "a priority from 1 to 99"),
        ("realtime = \"on\"", "`realtime` is \"on\"", "`\"off\"`, or a priority"),
    ] {
        let shown = only_mistake(&pair(&format!("[workers]\n{line}")));
        assert!(shown.contains(wrong) && shown.contains(right), "{shown}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake_without_a_place() {
    let errors =
        load_with(Path::new("none.toml"), |_| Err(std::io::ErrorKind::NotFound.into())).expect_err("is not there");
    assert!(errors.to_string().starts_with("none.toml: cannot read the file"), "{errors}");
    let json = serde_json::to_value(&errors).expect("serialises");
    assert_eq!(json[0]["line"], 0);
    assert!(json[0]["help"].is_string());
}

#[test]
fn every_file_in_configs_is_right() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let (mut waiting, mut checked) = (vec![directory], 0);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).expect("configs/ can be listed") {
            let path = entry.expect("has entries").path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                load(&path).unwrap_or_else(|errors| panic!("{errors}"));
                checked += 1;
            }
        }
    }
    assert!(checked >= 15, "only {checked} examples found");
}

/// The default file explains every key: what it shows commented out is right too, and is the default.
#[test]
fn the_manual_shows_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/sinew.toml");
    let text = std::fs::read_to_string(&path).expect("the manual is there");
    let shown: String = text.lines().map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n").collect();
    assert_ne!(shown, text, "the manual shows defaults in lines that begin with `#= `");
    let (plain, spelled_out) = (parse_for(&path, &text, 4), parse_for(&path, &shown, 4));
    assert_eq!(plain.expect("is right"), spelled_out.unwrap_or_else(|errors| panic!("{errors}")));
    let mut missing = Vec::new();
    for key in written::KEYS.iter().flat_map(|(_, keys)| *keys) {
        let (shown, table) = (format!("{key} = "), format!("[[link.{key}]]"));
        let line = |line: &str| line.starts_with(&shown) || line.starts_with(&table);
        if !text.lines().any(|shown| line(shown.trim_start_matches(['#', '=', ' ']))) {
            missing.push(key);
        }
    }
    assert!(missing.is_empty(), "the manual does not show {missing:?}");
}

fn links() -> impl Strategy<Value = Link> {
    let congestion = prop_oneof![Just(Congestion::Cubic), (8u64..10_000_000).prop_map(Congestion::FixedKbps)];
    let path = (1u16.., any::<Option<[u8; 4]>>(), 0u64..3_600_000).prop_map(|(port, local, cost)| LinkPath {
        remote: ([192, 0, 2, 2], port).into(),
        local: local.map(|[.., d]| [198, 51, 100, d].into()),
        cost: Duration::from_millis(cost),
    });
    let paths = proptest::collection::btree_map(1u16.., path, 0..=4);
    let paths = paths.prop_map(|paths| {
        let distinct = paths.into_iter().map(|(port, path)| LinkPath { remote: ([192, 0, 2, 2], port).into(), ..path });
        distinct.collect::<Vec<_>>()
    });
    let plain = (1u16..).prop_map(|port| vec![LinkPath::to(([192, 0, 2, 2], port).into())]);
    let paths = prop_oneof![paths, plain];
    (any::<Option<[u8; 32]>>(), 1u64..10_000, 3u32..30, congestion, 1u64..10_000, 16usize..65_536, paths).prop_map(
        |(preshared_key, hello, ratio, congestion, delay, queue, paths)| Link {
            peer: "b".to_owned(),
            paths,
            preshared_key,
            hello: Duration::from_millis(hello),
            dead: Duration::from_millis(hello) * ratio,
            congestion,
            queue_delay: Duration::from_millis(delay),
            queue,
        },
    )
}

fn questions() -> impl Strategy<Value = Question> {
    let address = any::<bool>().prop_flat_map(|four| {
        let ip = if four { [127, 0, 0, 1].into() } else { std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]) };
        (1u16..).prop_map(move |port| std::net::SocketAddr::new(ip, port))
    });
    let http = (address.clone(), "[a-z]{1,9}(:[0-9]{1,4})?", "/[!-~]{0,30}");
    prop_oneof![
        "[ -.0-~]{1,15}".prop_map(Question::Process),
        "/[ -~]{1,30}".prop_map(|path| Question::PidFile(path.into())),
        address.prop_map(Question::Tcp),
        http.prop_map(|(address, host, path)| Question::Http { address, host, path }),
        prop::collection::vec("/\\PC{0,9}", 1..4).prop_map(Question::Command),
        "/[ -~]{1,30}".prop_map(|path| Question::File(path.into())),
        "eth[0-9]{1,3}".prop_map(Question::Carrier),
    ]
}

fn checks() -> impl Strategy<Value = Vec<VipCheck>> {
    let check = (questions(), 100u64..10_000, 1u64..60_000, 1u32..=1000, 1u32..=1000, any::<bool>());
    prop::collection::vec(check, 0..4).prop_map(|checks| {
        let check = |(place, (question, interval, timeout, rise, fall, all))| VipCheck {
            name: format!("check{place}"),
            question,
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            rise,
            fall,
            sets: if all { Vec::new() } else { vec!["set0".to_owned()] },
        };
        checks.into_iter().enumerate().map(check).collect()
    })
}

fn vips() -> impl Strategy<Value = Option<Vip>> {
    let address = (any::<bool>(), "[a-z]{1,8}[0-9]{0,3}").prop_filter("no lo", |(_, name)| name != "lo");
    let set = (prop::collection::vec(address, 1..4), any::<bool>());
    let sets = prop::collection::vec(set, 1..5).prop_map(|sets| {
        let set = |(place, (addresses, preferring)): (usize, (Vec<(bool, String)>, bool))| VipSet {
            name: format!("set{place}"),
            addresses: (addresses.into_iter().enumerate())
                .map(|(last, (four, interface))| {
                    let (place, last) = (place as u16, last as u16);
                    let four = four.then_some([10, 9, place as u8, last as u8].into());
                    VipAddress { ip: four.unwrap_or([0x2001, 0xdb8, 0, 0, 0, 0, place, last].into()), interface }
                })
                .collect(),
            coverage: Coverage::Component,
            prefer: preferring.then(|| "b".to_owned()).into_iter().collect(),
            router: preferring,
            conntrack: preferring,
        };
        sets.into_iter().enumerate().map(set).collect::<Vec<_>>()
    });
    let times = (20u64..10_000, 0u64..60_000, 0u64..600_000, prop::option::of(100u64..3_600_000));
    let commands =
        (checks(), prop::option::of(prop::collection::vec("[a-z]{1,9}", 1..4)), prop::option::of("[a-z]{1,9}"));
    let vip = (sets, times, 1u16..=1000, 1u16..=512, commands).prop_map(
        |(sets, (lease, linger, maturity, balance), weight, moves, (checks, hook, user))| {
            let time = Duration::from_millis;
            let members = vec!["a".to_owned(), "b".to_owned()];
            let balance = balance.map(time);
            let profile = [Profile::Safe, Profile::Fast, Profile::Wan][usize::from(moves % 3)];
            Vip {
                profile,
                members,
                weight,
                maturity: time(maturity),
                lease: time(lease),
                linger: time(linger),
                balance,
                moves,
                sets,
                checks,
                hook,
                user,
            }
        },
    );
    prop::option::of(vip)
}

/// The least of everything: what has no room below itself is where writing and reading first disagree.
#[test]
fn the_least_that_is_written_is_read_back() {
    let mut config = read(&pair("[workers]\ncount = 2\n")).expect("is right");
    config.links = vec![Link {
        peer: "b".to_owned(),
        paths: vec![LinkPath::to(([192, 0, 2, 2], 1).into())],
        preshared_key: None,
        hello: Duration::from_millis(1),
        dead: Duration::from_millis(3),
        congestion: Congestion::Cubic,
        queue_delay: Duration::from_millis(1),
        queue: 16,
    }];
    (config.key_file, config.routing.metric) = ("/0".into(), Metric::Hops);
    assert_eq!(read(&to_toml(&config)), Ok(config));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        link in links(),
        vip in vips(),
        metric in 0usize..4,
        path in "/[ -~]{1,40}",
        log in any::<bool>(),
        port in any::<Option<u16>>(),
    ) {
        let mut config = read(&pair("")).expect("is right");
        config.links = vec![link];
        config.routing.metric = [Metric::Hops, Metric::Latency, Metric::Loss, Metric::Expected][metric];
        config.telemetry.interval_log = log.then(|| path.clone().into());
        config.telemetry.prometheus = port.map(|port| ([0, 0, 0, 0], port).into());
        if port.is_some() {
            config.telemetry.prometheus_exposure = Exposure::Network;
        }
        config.key_file = path.into();
        config.vip = vip;
        prop_assert_eq!(read(&to_toml(&config)), Ok(config));
    }

    #[test]
    fn no_text_panics(text in "(\\PC|\n){0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_damage_panics(at in 0usize..600, with in any::<char>()) {
        let mut text: Vec<char> = pair("[workers]\ncount = 1\n").chars().collect();
        let at = at % text.len();
        text[at] = with;
        let text: String = text.into_iter().collect();
        if let Err(errors) = read(&text) {
            prop_assert!(errors.mistakes().iter().all(|mistake| mistake.line > 0 && mistake.column > 0));
        }
    }
}

#[test]
fn metrics_are_shown_to_others_only_if_that_is_said() {
    let at = |rest: &str| pair("") + "[telemetry]\nprometheus = " + rest;
    let said = only_mistake(&at("\"192.0.2.1:9464\"\n"));
    assert!(said.contains("others than this machine could ask") && said.contains("prometheus_exposure"), "{said}");
    let config = read(&at("\"192.0.2.1:9464\"\nprometheus_exposure = \"network\"\n")).expect("is right");
    assert_eq!(config.telemetry.prometheus, Some(([192, 0, 2, 1], 9464).into()));
    let config = read(&at("\"[::1]:9464\"\ninterval_log = \"a.hlog\"\n")).expect("is right");
    assert_eq!(config.telemetry.interval_log.as_deref(), Some(Path::new("etc/a.hlog")));
    assert_eq!(config.telemetry.histograms, Path::new("/run/sinew/histograms"), "beside the control socket");
}

#[test]
fn a_link_has_one_remote_or_several_paths() {
    let link = "[[link]]\npeer = \"b\"\nhello = \"20ms\"\n";
    let path = |remote: &str, more: &str| format!("[[link.path]]\nremote = \"{remote}\"\n{more}\n");
    let two = path("192.0.2.2:5300", "") + &path("198.51.100.2:5300", "local = \"203.0.113.1\"\ncost = \"80ms\"");
    let config = read(&(pair("") + link + &two)).expect("is right");
    let plain = LinkPath::to(([192, 0, 2, 2], 5300).into());
    let local = Some([203, 0, 113, 1].into());
    let dear = LinkPath { remote: ([198, 51, 100, 2], 5300).into(), local, cost: Duration::from_millis(80) };
    assert_eq!((&config.links[0].paths[..], config.links[0].hello), (&[plain, dear][..], Duration::from_millis(20)));
    let wrong = |paths: &str, more: &str| only_mistake(&(pair("") + link + more + paths));
    for (paths, more, said) in [
        (two.clone(), "remote = \"192.0.2.9:1\"\n", "either `remote` or [[link.path]]s"),
        (path("192.0.2.2:5300", "").repeat(2), "", "a second path to 192.0.2.2:5300"),
        (path("192.0.2.2:5300", "local = \"::1\""), "", "of different families"),
        (path("192.0.2.2:5300", "local = \"0.0.0.0\""), "", "nothing can be sent from 0.0.0.0"),
        (path("192.0.2.2:5300", "local = \"192.0.2.1:5300\""), "", "without a port"),
        (path("192.0.2.2:5300", "price = 3"), "", "this [[link.path]] knows `remote`, `local`, `cost`"),
        (path("192.0.2.2:5300", "queue = 99"), "", "it belongs to a [[link]]: move it there"),
        ("[[link.path]]\ncost = \"1ms\"\n".to_owned(), "", "this [[link.path]] has no `remote`"),
        (["1", "2", "3", "4", "5"].map(|port| path(&format!("192.0.2.2:{port}"), "")).concat(), "", "at most 4"),
    ] {
        let shown = wrong(&paths, more);
        assert!(shown.contains(said), "{shown}");
    }
}

#[test]
fn a_link_to_oneself_and_a_duration_without_unit_say_what_to_write() {
    for (listen, remote) in
        [("192.0.2.1:7000", "192.0.2.1:7000"), ("0.0.0.0:7000", "127.0.0.1:7000"), ("[::1]:7000", "[::1]:7000")]
    {
        let link = format!("[[link]]\npeer = \"b\"\nremote = \"{remote}\"\n");
        let said = only_mistake(&(pair(&format!("listen = \"{listen}\"")) + &link));
        assert!(said.contains("this router's own address"), "{said}");
    }
    let link = |hello: &str| pair("") + &format!("[[link]]\npeer = \"b\"\nhello = \"{hello}\"\n");
    assert!(only_mistake(&link("40")).contains("help: give it a unit, such as `40ms`"));
    assert!(only_mistake(&link("soon")).contains("help: give a duration from 1ms to 10s"));
}

#[test]
fn a_group_has_its_defaults() {
    assert_eq!(read(&pair("")).expect("is right").vip, None);
    let set =
        "[[vip.set]]\nname = \"web\"\ninterface = \"eth0\"\naddresses = [\"203.0.113.10\", \"2001:db8::10@eth1\"]\n";
    let vip = read(&(pair("") + set)).expect("is right").vip.expect("is there");
    let at =
        |ip: &str, interface: &str| VipAddress { ip: ip.parse().expect("an address"), interface: interface.to_owned() };
    let web = VipSet {
        name: "web".to_owned(),
        addresses: vec![at("203.0.113.10", "eth0"), at("2001:db8::10", "eth1")],
        coverage: Coverage::Component,
        prefer: Vec::new(),
        router: false,
        conntrack: false,
    };
    let members = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(vip, Vip { members, sets: vec![web], ..Vip::default() });
    let off = read(&(pair("") + "[vip]\nbalance = \"off\"\nlease = \"20ms\"\nlinger = \"0s\"\nweight = 7\n" + set));
    let off = off.expect("is right").vip.expect("is there");
    assert_eq!((off.balance, off.lease, off.linger, off.weight), (None, Duration::from_millis(20), Duration::ZERO, 7));
}

const SET: &str = "[[vip.set]]\nname = \"web\"\naddresses = [\"192.0.2.10@eth0\"]\n";

#[test]
fn a_check_asks_one_thing_and_has_its_defaults() {
    let around =
        pair("") + "[vip]\nhook = [\"tell\", \"-v\"]\nuser = \"nobody\"\n" + SET + "router = true\nconntrack = true\n";
    let read_check = |question: &str| {
        let text = format!("{around}[[vip.check]]\nname = \"it\"\n{question}\n");
        read(&text).expect("is right").vip.expect("is there")
    };
    let vip = read_check("process = \"nginx\"\n");
    let check = VipCheck {
        name: "it".to_owned(),
        question: Question::Process("nginx".to_owned()),
        interval: Duration::from_millis(100),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 2,
        sets: Vec::new(),
    };
    assert_eq!(vip.checks, [check]);
    assert_eq!((vip.hook, vip.user.as_deref()), (Some(vec!["tell".to_owned(), "-v".to_owned()]), Some("nobody")));
    assert!(vip.sets[0].router);
    let local = |port| ([127, 0, 0, 1], port).into();
    let http = |address, host: &str, path: &str| Question::Http { address, host: host.into(), path: path.into() };
    for (written, question) in [
        ("pid_file = \"it.pid\"", Question::PidFile("etc/it.pid".into())),
        ("file = \"/run/up\"", Question::File("/run/up".into())),
        ("carrier = \"eth1\"", Question::Carrier("eth1".into())),
        ("tcp = \"127.0.0.1:80\"", Question::Tcp(local(80))),
        ("command = [\"/bin/true\"]", Question::Command(vec!["/bin/true".into()])),
        ("http = \"http://127.0.0.1:8080/a?b=c\"", http(local(8080), "127.0.0.1:8080", "/a?b=c")),
        ("http = \"http://127.0.0.1\"\nhost = \"x.example\"", http(local(80), "x.example", "/")),
        ("http = \"http://[::1]/\"", http("[::1]:80".parse().expect("an address"), "[::1]", "/")),
    ] {
        assert_eq!(read_check(written).checks[0].question, question, "{written}");
    }
    let slow = &read_check("command = [\"true\"]\nfall = 1\nsets = [\"web\"]").checks[0];
    assert_eq!((slow.interval, slow.fall, &slow.sets[..]), (Duration::from_secs(1), 1, &["web".to_owned()][..]));
}

#[test]
fn mistakes_in_checks_and_hooks_say_what_to_write() {
    let in_group = |vip: &str, rest: &str| only_mistake(&(pair("") + "[vip]\n" + vip + "\n" + SET + rest + "\n"));
    for (vip, set, said, help) in [
        ("hook = []", "", "`hook` has no program", "`hook = [\"/usr/local/bin/tell\", \"--now\"]`"),
        ("hook = \"tell\"", "", "`hook` is text, not a list", "write a list"),
        ("hook = [\"bin/tell\"]", "", "`bin/tell` is found nowhere", "its whole path"),
        ("user = \"root:root\"", "", "`root:root` cannot be a user", "/etc/passwd"),
        ("", "router = \"on\"", "`router` is text, not true or false", "without quotes"),
    ] {
        let shown = in_group(vip, set);
        assert!(shown.contains(said) && shown.contains(help), "{said}: {shown}");
    }
    for (check, said, help) in [
        ("", "this [[vip.check]] has none of `process`", "say what is asked"),
        ("process = \"a\"\nfile = \"b\"", "one check asks for `process` and for `file`", "of each"),
        ("process = \"/usr/sbin/nginx\"", "cannot be the name of a process", "`ps -o comm`"),
        ("process = \"a-very-long-name\"", "keeps 15 letters", "write `a-very-long-nam`"),
        ("tcp = \"localhost:80\"", "`localhost:80` is not an address and port", "names are not looked up"),
        ("tcp = \"0.0.0.0:80\"", "nobody can be asked at 0.0.0.0:80", "own address"),
        ("http = \"https://192.0.2.1/\"", "does not begin with `http://`", "use a `command`"),
        ("http = \"http://web/\"", "names no address", "names are not looked up"),
        ("http = \"http://192.0.2.1/a b\"", "written with %", "http://127.0.0.1:8080/health"),
        ("tcp = \"192.0.2.1:80\"\nhost = \"web\"", "`host` is for checks over HTTP", "ask with `http`"),
        ("http = \"http://192.0.2.1/\"\nhost = \"a b\"", "`a b` cannot be a host", "www.example.org"),
        ("command = []", "`command` has no program", "as in `command ="),
        ("command = [\"true\"]\ninterval = \"50ms\"", "`50ms` is out of range", "from 100ms to 1h"),
        ("file = \"a\"\ntimeout = \"0s\"", "`0s` is out of range", "from 1ms to 1min"),
        ("file = \"a\"\nfall = 0", "`fall` cannot be 0", "from 1 to 1000"),
        ("file = \"a\"\nsets = [\"mail\"]", "no [[vip.set]] is called `mail`", "there are web"),
        ("file = \"a\"\nsets = []", "withdraws nothing", "leave `sets` out"),
        ("carrier = \"lo\"", "on `lo`", "name the interface"),
        ("file = \"a\"\n[[vip.check]]\nname = \"it\"\nfile = \"b\"", "two checks are called `it`", "of its own"),
        ("file = \"a\"\nrouter = true", "unknown key `router`", "it belongs to a [[vip.set]]"),
    ] {
        let shown = in_group("", &format!("[[vip.check]]\nname = \"it\"\n{check}"));
        assert!(shown.contains(said) && shown.contains(help), "{said}: {shown}");
    }
    let shown = in_group("", "[[vip.check]]\nname = \"it\"\nfall = 2\ntcp = \"nowhere\"");
    assert!(shown.starts_with("etc/a.toml:18:7: ") && shown.contains("^^^^^^^^^"), "{shown}");
    let many: String = (0..65).map(|it| format!("[[vip.check]]\nname = \"c{it}\"\nfile = \"a\"\n")).collect();
    assert!(in_group("", &many).contains("a router has at most 64"));
}

#[test]
fn a_profile_chooses_what_is_not_written() {
    let link = |more: &str| format!("[[link]]\npeer = \"b\"\nremote = \"192.0.2.2:5300\"\n{more}\n");
    let ms = |duration: Duration| duration.as_millis();
    let chosen = |vip: &str, more: &str| {
        let config = read(&(pair("") + &link(more) + "[vip]\n" + vip + "\n" + SET)).expect("is right");
        (ms(config.links[0].hello), ms(config.links[0].dead), ms(config.vip.expect("is there").lease))
    };
    assert_eq!(chosen("", ""), (10, 60, 50), "`safe` is the default");
    assert_eq!(chosen("profile = \"safe\"", ""), (10, 60, 50));
    assert_eq!(chosen("profile = \"fast\"", ""), (1, 10, 20));
    assert_eq!(chosen("profile = \"wan\"", ""), (40, 280, 250));
    assert_eq!(chosen("profile = \"fast\"\nlease = \"1s\"", "hello = \"5ms\"\ndead = \"15ms\""), (5, 15, 1000));
    assert_eq!(chosen("profile = \"fast\"", "dead = \"50ms\""), (1, 50, 20), "the hello is still the profile's");
    assert_eq!(chosen("profile = \"safe\"", "hello = \"5ms\""), (5, 30, 50), "and so is the ratio");
    let prompt = |profile: &str, written: &str| {
        let text = pair(written) + &link("") + "[vip]\nprofile = \"" + profile + "\"\n" + SET;
        let config = read(&text).expect("is right");
        (config.workers.realtime, config.lock_memory)
    };
    assert_eq!(prompt("safe", ""), (None, false));
    assert_eq!(prompt("fast", ""), (Some(10), true), "on time, and in memory");
    assert_eq!(prompt("fast", "[workers]\nrealtime = \"off\"\n[memory]\nlock = \"off\"\n"), (None, false));
    assert_eq!(prompt("fast", "[workers]\nidle = \"spin\"\n"), (None, true), "who never sleeps keeps nobody waiting");
    assert_eq!(prompt("safe", "[workers]\nrealtime = 7\n"), (Some(7), false));
    let apart = pair("") + &link("") + "[vip]\nprofile = \"fast\"\nmembers = [\"a\"]\n" + SET;
    let apart = read(&apart).expect("is right");
    assert_eq!((ms(apart.links[0].hello), ms(apart.links[0].dead)), (40, 280), "links to others are as ever");
    let wrong = only_mistake(&(pair("") + "[vip]\nprofile = \"quick\"\n" + SET));
    assert!(
        wrong.contains("`quick` is not a value of `profile`") && wrong.contains("`safe`, `fast`, `wan`"),
        "{wrong}"
    );
    let wrong = only_mistake(&(pair("") + &link("dead = \"20ms\"") + SET));
    assert!(wrong.contains("`dead` is 20ms, less than three hellos") && wrong.contains("at least 30ms"), "{wrong}");
}

#[test]
fn mistakes_in_a_group_say_what_to_write() {
    let wrong = |vip: &str, set: &str| {
        only_mistake(
            &(pair("listen = \"192.0.2.1:5300\"") + "[vip]\n" + vip + "\n[[vip.set]]\nname = \"web\"\n" + set + "\n"),
        )
    };
    let right = "addresses = [\"192.0.2.10@eth0\"]";
    for (vip, set, said, help) in [
        ("members = [\"a\", \"bee\"]", right, "no [[member]] is called `bee`", "there are a, b"),
        ("members = [\"a\", \"a\"]", right, "`a` is named twice", "name it once"),
        ("members = [\"b\"]", right, "this router is not among the group's members", "add `a`, or leave [vip] out"),
        ("members = \"a\"", right, "`members` is text, not a list", "write a list"),
        ("members = [\"a\", 3]", right, "an element of `members` is a whole number", "write a list"),
        ("weight = 0", right, "`weight` cannot be 0", "from 1 to 1000"),
        ("lease = \"5ms\"", right, "`5ms` is out of range", "from 20ms to 10s"),
        ("balance = \"often\"", right, "`often` is not a duration", "write \"off\", or a duration"),
        ("set_size = 3", right, "unknown key `set_size`", "[vip] knows `profile`, `members`"),
        ("", "", "this [[vip.set]] has no `addresses`", "list its addresses"),
        ("", "addresses = []", "a set of 0 addresses", "from 1 to 64"),
        ("", "addresses = [\"192.0.2.10\"]", "not said on which interface", "`interface = \"eth0\"`"),
        ("", "addresses = [\"192.0.2.10/24@eth0\"]", "has a prefix length", "leave the length away"),
        ("", "addresses = [\"web@eth0\"]", "`web@eth0` is not an address", "192.0.2.10@eth1"),
        ("", "addresses = [\"127.0.0.9@eth0\"]", "no address of a machine on a network", "neighbours can ask"),
        ("", "addresses = [\"192.0.2.10@lo\"]", "on `lo`", "name the interface"),
        ("", "addresses = [\"192.0.2.10@very-long-interface\"]", "cannot be an interface", "`ip link`"),
        ("", "addresses = [\"192.0.2.1@eth0\"]", "routers find each other by 192.0.2.1", "a service address moves"),
        ("", "addresses = [\"192.0.2.10@eth0\", \"192.0.2.10@eth1\"]", "stands twice", "name it once"),
        ("", "addresses = [\"192.0.2.10@eth0\"]\ncoverage = \"majority\"", "a majority of 2 is all", "\"component\""),
        ("", "addresses = [\"192.0.2.10@eth0\"]\nprefer = [\"c\"]", "no member of the group is called `c`", "a, b"),
        ("", "addresses = [\"192.0.2.10@eth0\"]\nadresses = 1", "unknown key `adresses`", "did you mean `addresses`?"),
        (
            "",
            "addresses = [\"192.0.2.10@eth0\"]\n[[vip.set]]\nname = \"mail\"\naddresses = [\"192.0.2.10@eth0\"]",
            "192.0.2.10 is in the set `web` already",
            "belongs to one",
        ),
        (
            "",
            "addresses = [\"192.0.2.10@eth0\"]\n[[vip.set]]\nname = \"web\"\naddresses = [\"192.0.2.11@eth0\"]",
            "two sets are called `web`",
            "a name of its own",
        ),
    ] {
        let shown = wrong(vip, set);
        assert!(shown.contains(said) && shown.contains(help), "{said}: {shown}");
    }
    let empty = only_mistake(&(pair("") + "[vip]\nweight = 1\n"));
    assert!(empty.contains("[vip] has no `set`") && empty.contains("[[vip.set]]"), "{empty}");
    let shown = wrong("", "addresses = [\"192.0.2.300@eth0\"]");
    assert!(shown.starts_with("etc/a.toml:14:14: ") && shown.contains("^^^^^^^^^^^^^^^^^^"), "{shown}");
}
