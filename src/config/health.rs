//! `[[vip.check]]`: what tells whether that works which the service addresses are for.

use super::check::{duration, member_name};
use super::settings::{Question, VipCheck, VipSet};
use super::vip::{check_names, interface_name};
use super::written::{At, Report, Section};
use crate::base::limits::MAX_CHECKS;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Keys of which a check has one.
const QUESTIONS: [&str; 7] = ["process", "pid_file", "tcp", "http", "command", "file", "carrier"];
/// Longest name of a process, as the kernel keeps it (TASK_COMM_LEN with the final zero).
const MAX_PROCESS: usize = 15;
/// Shortest time between two runs of a command: starting one takes milliseconds of a core.
const MIN_COMMAND_INTERVAL: Duration = Duration::from_millis(100);
/// What is not written.
const INTERVAL: Duration = Duration::from_millis(100);
const COMMAND_INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);
const RISE: u32 = 2;
const FALL: u32 = 2;

/// Reads all checks; `sets` are those that they may withdraw.
pub(super) fn read_checks(
    written: Vec<Section<'_, '_>>,
    sets: &[VipSet],
    directory: &Path,
    report: &mut Report,
) -> Vec<VipCheck> {
    let mut checks: Vec<VipCheck> = Vec::new();
    for section in written {
        if checks.len() == MAX_CHECKS {
            report.add(&section.span, "too many checks", format!("a router has at most {MAX_CHECKS}"));
            break;
        }
        checks.extend(read_check(section, &checks, sets, directory, report));
    }
    checks
}

fn read_check(
    mut section: Section<'_, '_>,
    before: &[VipCheck],
    sets: &[VipSet],
    directory: &Path,
    report: &mut Report,
) -> Option<VipCheck> {
    let name = section.parsed("name", report, member_name);
    section.missing("name", "give it a name, as in `name = \"nginx\"`: the status calls it so", report);
    if let Some(name) = name.as_ref().filter(|name| before.iter().any(|check| check.name == name.value)) {
        report.add(&name.span, format!("two checks are called `{}`", name.value), "give each a name of its own");
    }
    let question = read_question(&mut section, directory, report);
    let is_command = section.has("command");
    let least = if is_command { MIN_COMMAND_INTERVAL } else { Duration::from_millis(1) };
    let mut time = |key, least, most, default| {
        section.parsed(key, report, |text| duration(text, least, most)).map_or(default, |time| time.value)
    };
    let default = if is_command { COMMAND_INTERVAL } else { INTERVAL };
    let interval = time("interval", least, Duration::from_secs(3600), default);
    let timeout = time("timeout", Duration::from_millis(1), Duration::from_secs(60), TIMEOUT);
    let mut count = |key, default| section.number(key, 1..=1000, report).map_or(default, |count| count.value as u32);
    let (rise, fall) = (count("rise", RISE), count("fall", FALL));
    let withdrawn = section.texts("sets", report);
    if let Some(empty) = withdrawn.as_ref().filter(|sets| sets.value.is_empty()) {
        report.add(&empty.span, "a check that withdraws nothing", "name its sets, or leave `sets` out for all of them");
    }
    let withdrawn = withdrawn.map_or(Vec::new(), |sets| sets.value);
    check_names(&withdrawn, sets.iter().map(|set| set.name.as_str()), "no [[vip.set]] is called", report);
    section.finish(report);
    let sets = withdrawn.into_iter().map(|set| set.value).collect();
    Some(VipCheck { name: name?.value, question: question?, interval, timeout, rise, fall, sets })
}

fn read_question(section: &mut Section<'_, '_>, directory: &Path, report: &mut Report) -> Option<Question> {
    let help = "say what is asked, as in `process = \"nginx\"` or `tcp = \"127.0.0.1:80\"`";
    section.missing_all(&QUESTIONS, help, report);
    let written: Vec<&str> = QUESTIONS.into_iter().filter(|key| section.has(key)).collect();
    if let [first, second, ..] = written[..] {
        let message = format!("one check asks for `{first}` and for `{second}`");
        report.add(&section.key_span(second), message, "make a [[vip.check]] of each");
    }
    let path = |written: At<String>| directory.join(written.value);
    let process = section.parsed("process", report, process_name).map(|name| Question::Process(name.value));
    let pid_file = section.text("pid_file", report).map(|file| Question::PidFile(path(file)));
    let tcp = section.parsed("tcp", report, place).map(|address| Question::Tcp(address.value));
    let http = section.parsed("http", report, url).map(|url| url.value);
    let host = section.parsed("host", report, host_name);
    if let Some(host) = host.as_ref().filter(|_| !section.has("http")) {
        report.add(&host.span, "`host` is for checks over HTTP", "leave it out, or ask with `http`");
    }
    let http =
        http.map(|(address, own, path)| Question::Http { address, host: host.map_or(own, |host| host.value), path });
    let command = section.texts("command", report);
    let command = command.and_then(|command| program("command", &command, report)).map(Question::Command);
    let file = section.text("file", report).map(|file| Question::File(path(file)));
    let carrier = section.parsed("carrier", report, interface_name).map(|name| Question::Carrier(name.value));
    [process, pid_file, tcp, http, command, file, carrier].into_iter().flatten().next()
}

/// A program and its arguments.
pub(super) fn program(key: &str, written: &At<Vec<At<String>>>, report: &mut Report) -> Option<Vec<String>> {
    let Some(program) = written.value.first() else {
        let help = format!("write the program and its arguments, as in `{key} = [\"/usr/local/bin/tell\", \"--now\"]`");
        report.add(&written.span, format!("`{key}` has no program"), help);
        return None;
    };
    let text = &program.value;
    if text.is_empty() || text.contains('/') && !text.starts_with('/') {
        let help = "write its whole path, or a name that is found in /usr/local/bin, /usr/bin, /bin and their sbin; \
                    where the router was started says nothing";
        report.add(&program.span, format!("`{text}` is found nowhere"), help);
        return None;
    }
    if let Some(torn) = written.value.iter().find(|part| part.value.contains('\0')) {
        report.add(&torn.span, "a zero byte ends an argument", "leave it out");
        return None;
    }
    Some(written.value.iter().map(|part| part.value.clone()).collect())
}

fn process_name(text: &str) -> Result<String, (String, String)> {
    if text.is_empty() || text.contains('/') {
        let help = "write the name as `ps -o comm` shows it, without a path";
        return Err((format!("`{text}` cannot be the name of a process"), help.to_owned()));
    }
    if text.len() > MAX_PROCESS {
        let cut: String =
            text.char_indices().filter(|(at, c)| at + c.len_utf8() <= MAX_PROCESS).map(|it| it.1).collect();
        let message = format!("the kernel keeps {MAX_PROCESS} letters of a process's name");
        return Err((message, format!("write `{cut}`, as `ps -o comm` shows it, or use `pid_file`")));
    }
    Ok(text.to_owned())
}

/// Where a connection can be made to.
fn place(text: &str) -> Result<SocketAddr, (String, String)> {
    let address: SocketAddr = text.parse().map_err(|_| {
        let help = "write it as in `127.0.0.1:80` or `[::1]:80`; names are not looked up";
        (format!("`{text}` is not an address and port"), help.to_owned())
    })?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err((
            format!("nobody can be asked at {address}"),
            "give the service's own address and port".to_owned(),
        ));
    }
    Ok(address)
}

/// `http://127.0.0.1:8080/health`: where to ask, as whom and for what.
fn url(text: &str) -> Result<(SocketAddr, String, String), (String, String)> {
    let wrong = |what: &str| {
        let help = "write it as in `http://127.0.0.1:8080/health`; names are not looked up, and TLS is not spoken: use a \
                    `command` for that";
        (format!("`{text}` {what}"), help.to_owned())
    };
    let rest = text.strip_prefix("http://").ok_or_else(|| wrong("does not begin with `http://`"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let bare = authority.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(authority);
    let with_port = bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 80));
    let address = with_port.or_else(|| authority.parse().ok()).ok_or_else(|| wrong("names no address"))?;
    if !path.chars().all(|c| c.is_ascii_graphic()) {
        return Err(wrong("has letters that must be written with %"));
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok((place(&address.to_string())?, authority.to_owned(), path.to_owned()))
}

/// What stands in one line of a request, without a way to begin another.
fn host_name(text: &str) -> Result<String, (String, String)> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic() && c != '/') {
        return Err((format!("`{text}` cannot be a host"), "write it as in `host = \"www.example.org\"`".to_owned()));
    }
    Ok(text.to_owned())
}
