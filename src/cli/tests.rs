//! The command line as a whole.

use super::*;
use clap::CommandFactory as _;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_what_it_is_for_in_words_of_its_own() {
    let command = Cli::command();
    let abouts: Vec<String> = command.get_subcommands().filter_map(|it| Some(it.get_about()?.to_string())).collect();
    let distinct: std::collections::BTreeSet<&String> = abouts.iter().collect();
    assert!(abouts.len() == 15 && distinct.len() == 15, "{abouts:#?}");
}

#[test]
fn examples_of_every_help_text_parse() {
    let mut waiting = vec![Cli::command()];
    let mut checked = 0;
    while let Some(command) = waiting.pop() {
        let help = command.get_after_help().or(command.get_after_long_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let ours = !["sim", "help"].contains(&command.get_name());
        assert!(!ours || help.contains("sinew "), "`{}` teaches nothing", command.get_name());
        for example in help.lines().filter_map(|line| line.find("sinew ").map(|at| &line[at..])) {
            // What follows a wide gap, a pipe, a redirection or a comment is not the command's.
            let end = ["  ", "|", " 2>", ">", "#", "&&", "`"].iter().filter_map(|mark| example.find(mark)).min();
            let example = example[..end.unwrap_or(example.len())].trim();
            if let Err(error) = parse(example) {
                panic!("{example}: {error}");
            }
            checked += 1;
        }
        waiting.extend(command.get_subcommands().cloned());
    }
    assert!(checked >= 25, "only {checked} examples found");
}

#[test]
fn help_texts_fit_and_name_their_exit_codes() {
    let mut waiting = vec![Cli::command()];
    while let Some(command) = waiting.pop() {
        let after = command.get_after_help().or(command.get_after_long_help()).map(ToString::to_string);
        let (after, name) = (after.unwrap_or_default(), command.get_name());
        assert!(after.contains("Exit codes"), "`{name}` does not say what its exit codes mean");
        for line in after.lines() {
            assert!(line.chars().count() <= 98, "`{name}`: would be wrapped once more: {line}");
        }
        waiting.extend(command.get_subcommands().filter(|command| command.get_name() != "help").cloned());
    }
}

#[test]
fn durations_may_be_plain_seconds_everywhere() {
    for line in [
        "sinew ping b -i 5 -w 1.5",
        "sinew trace b -i 1 -w 2",
        "sinew perf client --to b -t 3 -i 1",
        "sinew show stats -i 1",
        "sinew recv 7 -w 3",
        "sinew send b:7 --linger 1",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn every_command_that_prints_has_json() {
    let mut waiting = vec![Cli::command()];
    while let Some(command) = waiting.pop() {
        let leaf = !command.has_subcommands() && !["run", "sim", "help"].contains(&command.get_name());
        let json = command.get_arguments().any(|argument| argument.get_long() == Some("json"));
        assert!(json || !leaf, "`{}` has no --json", command.get_name());
        waiting.extend(command.get_subcommands().cloned());
    }
}

#[test]
fn the_socket_can_be_named_anywhere() {
    let socket = |line| {
        let cli = parse(line).expect("parses");
        match cli.command {
            Command::Show(asking) => asking.socket.or(cli.socket),
            Command::Perf(asking) => asking.socket.or(cli.socket),
            _ => None,
        }
    };
    assert_eq!(socket("sinew -s /tmp/a.sock show links"), Some(PathBuf::from("/tmp/a.sock")));
    assert_eq!(socket("sinew show links --socket /tmp/a.sock"), Some(PathBuf::from("/tmp/a.sock")));
    assert_eq!(socket("sinew perf client --to b -s x"), Some(PathBuf::from("x")));
}

#[test]
fn wrong_lines_are_refused() {
    for line in [
        "sinew",
        "sinew shwo links",
        "sinew run",
        "sinew send b file",
        "sinew recv 0",
        "sinew ping b:7",
        "sinew ping b --class certain",
        "sinew perf client",
        "sinew perf client --to b --rate fast",
        "sinew perf client --to b --stream --ordered",
        "sinew config check",
        "sinew ping b -c 0",
        "sinew ping b --ttl 0",
        "sinew trace b -c 0",
        "sinew recv 7 -c 0",
        "sinew sim --seed 1 --force",
        "sinew group",
        "sinew group join Shift",
    ] {
        assert!(parse(line).is_err_and(|error| error.exit_code() == 2), "{line}");
    }
}
