//! Mistakes in a configuration, and how they are shown.

use serde::Serialize;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// All mistakes of one file, in the order of their places. Serialises as a list of [`Mistake`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Errors(Vec<Mistake>);

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file.
    pub file: String,
    /// Line, from 1; 0 if the mistake has no place.
    pub line: usize,
    /// Column, in characters from 1; 0 if the mistake has no place.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The source line and how many characters of it are meant.
    #[serde(skip)]
    excerpt: Option<(String, usize)>,
}

/// A mistake as the reader of a file finds it.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Errors {
    /// The file cannot be read.
    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Errors {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "name an existing file; configs/ has examples to start from",
            std::io::ErrorKind::PermissionDenied => "run as a user who may read it",
            _ => "a configuration is a TOML file in UTF-8",
        };
        let message = format!("cannot read the file: {error}");
        Errors(vec![Mistake {
            file: path.display().to_string(),
            line: 0,
            column: 0,
            message,
            help: Some(help.to_owned()),
            excerpt: None,
        }])
    }

    /// Gives findings their places in `text`.
    pub(super) fn new(path: &Path, text: &str, mut findings: Vec<Finding>) -> Errors {
        assert!(!findings.is_empty(), "errors have at least one mistake");
        if let Some(start) = key_file_at(text) {
            findings = vec![Finding {
                span: start..start,
                message: "this is a key file, not a configuration".to_owned(),
                help: Some("name it in the configuration with `key = ...`, and give the configuration here".to_owned()),
            }];
        }
        findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
        Errors(findings.into_iter().map(|finding| locate(path, text, finding)).collect())
    }

    /// The mistakes.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.0
    }
}

fn locate(path: &Path, text: &str, finding: Finding) -> Mistake {
    let start = floor_char_boundary(text, finding.span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    let source = text[line_start..line_end].trim_end_matches('\r');
    let column = text[line_start..start].chars().count();
    let end = floor_char_boundary(text, finding.span.end.clamp(start, line_end));
    let (shown, length) = excerpt(source, column, text[start..end].chars().count());
    Mistake {
        file: path.display().to_string(),
        line: text[..line_start].matches('\n').count() + 1,
        column: column + 1,
        message: without_secrets(&finding.message),
        help: finding.help.as_deref().map(without_secrets),
        excerpt: Some((shown, length)),
    }
}

/// How a router's secret begins, wherever it stands.
const SECRET: &str = "sinew-secret-";
/// What is shown in a secret's place.
const NOT_SHOWN: &str = "(not shown)";

/// Where a line of `text` is a bare secret: so begins a key file, and no configuration.
fn key_file_at(text: &str) -> Option<usize> {
    let mut start = 0;
    text.split_inclusive('\n').find_map(|line| {
        let at = start + (line.len() - line.trim_start().len());
        start += line.len();
        line.trim_start().starts_with(SECRET).then_some(at)
    })
}

/// `text` with each secret in it left out, up to the space or quote that ends it.
pub(super) fn without_secrets(text: &str) -> String {
    let mut parts = text.split(SECRET);
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'));
        shown.push_str(NOT_SHOWN);
        shown.push_str(&part[end.unwrap_or(part.len())..]);
    }
    shown
}

/// The line as it is shown. One that holds a secret is cut where its value, or the secret itself, begins: messages end up
/// in logs.
fn excerpt(line: &str, column: usize, length: usize) -> (String, usize) {
    let shown = line.replace('\t', " ");
    let secret = shown.find(SECRET);
    // Also where the key is misspelt.
    let value = ["preshared", "psk"].iter().any(|key| shown.contains(key)).then(|| shown.find('=')).flatten();
    let Some(at) = [secret, value.or(secret.and(shown.find('=')))].into_iter().flatten().min() else {
        return (shown, length);
    };
    let equals = if shown[at..].starts_with('=') { "= " } else { "" };
    let cut = format!("{}{equals}{NOT_SHOWN}", &shown[..at]);
    let length = length.min(cut.chars().count().saturating_sub(column));
    (cut, length)
}

fn floor_char_boundary(text: &str, mut index: usize) -> usize {
    index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)?;
        } else {
            write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        }
        if let Some((line, length)) = &self.excerpt {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            let carets = "^".repeat((*length).max(1));
            write!(f, "\n  {number} | {line}\n  {margin} | {}{carets}", " ".repeat(self.column - 1))?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}\n")?;
        }
        match self.0.len() {
            1 => write!(f, "1 mistake"),
            count => write!(f, "{count} mistakes"),
        }
    }
}

impl std::error::Error for Errors {}
