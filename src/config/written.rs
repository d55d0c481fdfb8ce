//! The file as written: tables that hand out their keys one by one, and report the ones that nobody asked for.
//!
//! Read from TOML's own tree of spanned values instead of by serde's derive, which stops at the first mistake.

use super::errors::Finding;
use super::suggest::closest;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Every key, by where it belongs.
pub(super) const KEYS: [(&str, &[&str]); 13] = [
    ("the beginning of the file, above the first [table]", &["name", "key", "listen", "control_socket"]),
    ("[workers]", &["count", "cores", "io", "offload", "idle", "realtime", "pool", "socket_buffer"]),
    ("[memory]", &["lock"]),
    ("[routing]", &["metric"]),
    (
        "[telemetry]",
        &[
            "socket_wait",
            "interval_log",
            "interval",
            "interval_log_size",
            "histograms",
            "prometheus",
            "prometheus_exposure",
        ],
    ),
    ("[clients]", &["shared_memory"]),
    ("a [[member]]", &["name", "public"]),
    ("a [[link]]", &["peer", "remote", "path", "preshared_key", "hello", "dead", "congestion", "queue_delay", "queue"]),
    ("a [[link.path]]", &["remote", "local", "cost"]),
    ("[groups]", &["members"]),
    ("[vip]", &["profile", "members", "weight", "maturity", "lease", "linger", "balance", "moves", "hook", "user"]),
    ("a [[vip.set]]", &["name", "addresses", "interface", "coverage", "prefer", "router", "conntrack"]),
    (
        "a [[vip.check]]",
        &[
            "name", "process", "pid_file", "tcp", "http", "host", "command", "file", "carrier", "interval", "timeout",
            "rise", "fall", "sets",
        ],
    ),
];
/// What messages about syntax begin with.
const NOT_TOML: &str = "not TOML: ";

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// Everything found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    /// Some of the text is no TOML: what is missing may be in there.
    torn: bool,
}

impl Report {
    /// Something is wrong at `span`.
    pub(super) fn add(&mut self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let help = Some(help.into()).filter(|help| !help.is_empty());
        // Where the text is torn, what its meaning lacks says more than what its syntax lacks.
        self.findings.retain(|earlier| !(earlier.span.start == span.start && earlier.message.starts_with(NOT_TOML)));
        self.findings.push(Finding { span: span.clone(), message: message.into(), help });
    }

    /// What was found.
    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Reads the text's tables; what is no TOML is reported, the rest is still there.
    pub(super) fn document<'t>(&mut self, text: &'t str) -> Spanned<DeTable<'t>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            self.torn = true;
            self.add(&span, format!("{NOT_TOML}{}", error.message().replace('\n', ", ")), "");
        }
        document
    }
}

/// One table of the file.
pub(super) struct Section<'a, 't> {
    /// What messages call it.
    pub(super) name: &'static str,
    /// Where it begins.
    pub(super) span: Range<usize>,
    table: Option<&'a DeTable<'t>>,
    asked: Vec<&'static str>,
}

impl<'a, 't> Section<'a, 't> {
    /// The whole file.
    pub(super) fn root(document: &'a Spanned<DeTable<'t>>) -> Section<'a, 't> {
        Section { name: "the file", span: 0..0, table: Some(document.get_ref()), asked: Vec::new() }
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.table?.get(key)
    }

    /// The span of `key`, or of the section if it is not written.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        let found = self.table.and_then(|table| table.get_key_value(key));
        found.map_or(self.span.clone(), |(key, _)| key.span())
    }

    /// A string.
    pub(super) fn text(&mut self, key: &'static str, report: &mut Report) -> Option<At<String>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At { value: text.to_string(), span: value.span() }),
            other => {
                report.add(&value.span(), format!("`{key}` is {}, not text", kind(other)), "put it between quotes");
                None
            }
        }
    }

    /// A string that has a meaning of its own.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        report: &mut Report,
        parse: impl FnOnce(&str) -> Result<T, (String, String)>,
    ) -> Option<At<T>> {
        let text = self.text(key, report)?;
        match parse(&text.value) {
            Ok(value) => Some(At { value, span: text.span }),
            Err((message, help)) => {
                report.add(&text.span, message, help);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], report: &mut Report) -> Option<T> {
        let found = self.parsed(key, report, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                let help = match closest(text, words.iter().map(|(word, _)| *word)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("use one of {}", names.join(", ")),
                };
                (format!("`{text}` is not a value of `{key}`"), help)
            })
        });
        found.map(|found| found.value)
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        report: &mut Report,
    ) -> Option<At<u64>> {
        let value = self.get(key)?;
        let number = whole(value.get_ref()).filter(|number| range.contains(number));
        if number.is_none() {
            let help = format!("give a whole number from {} to {}", range.start(), range.end());
            let message = match value.get_ref() {
                DeValue::Integer(number) => format!("`{key}` cannot be {number}"),
                other => format!("`{key}` is {}, not a whole number", kind(other)),
            };
            report.add(&value.span(), message, help);
        }
        number.map(|number| At { value: number, span: value.span() })
    }

    /// A word, in whose place something else may stand: `None` within the answer says that the word stands there.
    pub(super) fn word_or<T>(
        &mut self,
        key: &'static str,
        word: &str,
        other: impl FnOnce(&DeValue<'_>) -> Option<T>,
        help: &str,
        report: &mut Report,
    ) -> Option<At<Option<T>>> {
        let value = self.get(key)?;
        let read = match value.get_ref() {
            DeValue::String(text) if text == word => Some(None),
            value => other(value).map(Some),
        };
        if read.is_none() {
            let what = match value.get_ref() {
                DeValue::String(text) => format!("`{key}` is \"{text}\""),
                DeValue::Integer(number) => format!("`{key}` is {number}"),
                other => format!("`{key}` is {}", kind(other)),
            };
            report.add(&value.span(), what, help);
        }
        read.map(|read| At { value: read, span: value.span() })
    }

    /// A list of strings.
    pub(super) fn texts(&mut self, key: &'static str, report: &mut Report) -> Option<At<Vec<At<String>>>> {
        let value = self.get(key)?;
        let help = "write a list of texts, as in `[\"a\", \"b\"]`";
        let Some(list) = value.get_ref().as_array() else {
            report.add(&value.span(), format!("`{key}` is {}, not a list", kind(value.get_ref())), help);
            return None;
        };
        let mut texts = Vec::new();
        for item in list.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push(At { value: text.to_string(), span: item.span() }),
                other => report.add(&item.span(), format!("an element of `{key}` is {}, not text", kind(other)), help),
            }
        }
        Some(At { value: texts, span: value.span() })
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, report: &mut Report) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            let message = format!("`{key}` is {}, not true or false", kind(value.get_ref()));
            report.add(&value.span(), message, "write `true` or `false`, without quotes");
        }
        flag
    }

    /// Whether a key is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether there is such a table at all.
    pub(super) const fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// A table written as `[key]`. Without one, an empty section.
    pub(super) fn section(&mut self, key: &'static str, report: &mut Report) -> Section<'a, 't> {
        let span = self.key_span(key);
        let value = self.get(key);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            report.add(&span, format!("`{key}` is {}, not a table", kind(value.get_ref())), format!("write `[{key}]`"));
        }
        Section { name: key, span, table, asked: Vec::new() }
    }

    /// Tables written as `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str, report: &mut Report) -> Vec<Section<'a, 't>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            let message = format!("`{key}` is {}, not a list of tables", kind(value.get_ref()));
            report.add(&self.key_span(key), message, format!("write `[[{}]]`, with two brackets", title(key)));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in list.iter() {
            match item.get_ref().as_table() {
                Some(table) => {
                    sections.push(Section { name: key, span: item.span(), table: Some(table), asked: Vec::new() })
                }
                None => report.add(&item.span(), format!("an element of `{key}` is not a table"), ""),
            }
        }
        sections
    }

    /// Reports that `key` is not there.
    pub(super) fn missing(&self, key: &str, help: &str, report: &mut Report) {
        if !self.has(key) && !report.torn {
            report.add(&self.span, format!("{} has no `{key}`", self.called()), help);
        }
    }

    /// Reports that none of `keys` is there.
    pub(super) fn missing_all(&self, keys: &[&str], help: &str, report: &mut Report) {
        if !keys.iter().any(|key| self.has(key)) && !report.torn {
            report.add(&self.span, format!("{} has none of {}", self.called(), list(keys)), help);
        }
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self, report: &mut Report) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let elsewhere = KEYS.iter().find(|(_, keys)| keys.contains(&name));
            let help = match (closest(name, self.asked.iter().copied()), elsewhere) {
                (_, Some((place, _))) => format!("it belongs to {place}: move it there"),
                (Some(near), None) => format!("did you mean `{near}`?"),
                (None, None) => format!("{} knows {}", self.called(), list(&self.asked)),
            };
            report.add(&key.span(), format!("unknown key `{name}`"), help);
        }
    }

    fn called(&self) -> String {
        match self.name {
            "the file" => self.name.to_owned(),
            name @ ("member" | "link" | "path" | "set" | "check") => format!("this [[{}]]", title(name)),
            name => format!("[{name}]"),
        }
    }
}

/// What stands between the brackets of a table's head.
fn title(key: &str) -> &str {
    match key {
        "path" => "link.path",
        "set" => "vip.set",
        "check" => "vip.check",
        key => key,
    }
}

/// A list of whole numbers.
pub(super) fn numbers(value: &DeValue<'_>) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(|item| whole(item.get_ref())).collect()
}

/// A whole number.
pub(super) fn whole(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
