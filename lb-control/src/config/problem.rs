//! What is wrong with a configuration file, where, and what to write instead.

mod finding;

pub(super) use finding::{Finding, nearest};

use core::fmt;
use core::ops::Range;
use serde::Serialize;

/// Problems printed before the rest is only counted.
const PRINTED: usize = 50;
/// The keys whose values are never repeated.
pub(super) const SECRETS: [&str; 3] = ["session-secret", "syn-cookie-secret", "key"];

/// Everything that is wrong with one configuration file.
///
/// `Display` prints every problem like a compiler does, with the source line and a caret; `Serialize`
/// gives the same for programs.
#[derive(Debug, Serialize, thiserror::Error)]
pub struct ConfigErrors {
    /// The file as it was named.
    pub file: String,
    /// The problems, in the order of the file; never empty.
    pub problems: Vec<Problem>,
    /// Why the file could not be read at all.
    #[serde(skip)]
    #[source]
    cause: Option<std::io::Error>,
}

/// One thing that is wrong, or (as a warning) unlikely to be meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// Whether the configuration is refused because of it.
    pub severity: Severity,
    /// The file as it was named.
    pub file: String,
    /// Where it is; absent when the file could not be read.
    #[serde(flatten)]
    pub position: Option<Position>,
    /// The object it belongs to, as in "service `web`, backend `be1`".
    pub object: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// What to write instead.
    pub suggestion: Option<String>,
    /// The other place that it has to do with.
    pub related: Option<Related>,
}

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It works, but is unlikely to be meant.
    Warning,
}

/// A place in the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// Characters that are meant, within the line, at least 1.
    pub length: usize,
    /// The line's text.
    pub source_line: String,
}

/// A second place that a problem has to do with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Related {
    /// What is there.
    pub what: String,
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

/// Turns findings into problems, in the order of the file.
pub(super) fn locate(file: &str, text: &str, mut findings: Vec<Finding>) -> Vec<Problem> {
    findings.sort_by_key(|finding| (finding.span.start, finding.span.end));
    findings.dedup();
    let starts: Vec<usize> = core::iter::once(0)
        .chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1))
        .collect();
    let position = |span: &Range<usize>| position(text, &starts, span);
    findings
        .into_iter()
        .map(|finding| Problem {
            severity: finding.severity,
            file: file.to_owned(),
            position: Some(position(&finding.span)),
            object: finding.object,
            message: finding.message,
            expected: finding.expected,
            suggestion: finding.suggestion,
            related: finding.related.map(|(span, what)| {
                let Position { line, column, .. } = position(&span);
                Related { what, line, column }
            }),
        })
        .collect()
}

/// The line and column of a span; spans beyond the text or inside a character are moved into it.
fn position(text: &str, starts: &[usize], span: &Range<usize>) -> Position {
    let mut at = span.start.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let line = starts.partition_point(|start| *start <= at);
    let start = starts[line - 1];
    let rest = &text[start..];
    let source_line = rest.lines().next().unwrap_or_default();
    let end = (start + source_line.len()).min(span.end).max(at);
    let mut stop = end;
    while !text.is_char_boundary(stop) {
        stop -= 1;
    }
    Position {
        line,
        column: text[start..at].chars().count() + 1,
        length: text[at..stop.max(at)].chars().count().max(1),
        source_line: conceal(source_line),
    }
}

/// The line with stars for the value when it is a secret: problems end in logs.
fn conceal(line: &str) -> String {
    let values = SECRETS.iter().flat_map(|key| {
        line.match_indices(key).filter_map(|(at, key)| {
            // The end of another key's name is none.
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '-' | '_')) {
                return None;
            }
            let behind = &line[at + key.len()..];
            let value = behind.trim_start_matches(['"', '\'', ' ', '\t']).strip_prefix('=')?;
            Some(line.len() - value.len())
        })
    });
    match values.min() {
        Some(at) => {
            let stars = line[at..].chars().map(|c| if c.is_alphanumeric() { '*' } else { c });
            line[..at].chars().chain(stars).collect()
        }
        None => line.to_owned(),
    }
}

impl ConfigErrors {
    /// Problems of a file that was read.
    pub(super) fn new(file: &str, problems: Vec<Problem>) -> Self {
        Self { file: file.to_owned(), problems, cause: None }
    }

    /// A file that could not be read.
    pub(super) fn unreadable(file: &str, cause: std::io::Error) -> Self {
        let problem = Problem {
            severity: Severity::Error,
            file: file.to_owned(),
            position: None,
            object: None,
            message: format!("cannot read the configuration: {cause}"),
            expected: Some("a readable TOML file".to_owned()),
            suggestion: None,
            related: None,
        };
        Self { file: file.to_owned(), problems: vec![problem], cause: Some(cause) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.problems.iter().take(PRINTED) {
            writeln!(f, "{problem}")?;
        }
        let count = self.problems.iter().filter(|p| p.severity == Severity::Error).count();
        if self.problems.len() > PRINTED {
            writeln!(f, "... and {} more", self.problems.len() - PRINTED)?;
        }
        match count {
            1 => write!(f, "{}: 1 error", self.file),
            n => write!(f, "{}: {n} errors", self.file),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        let number = self.position.as_ref().map(|p| p.line.to_string()).unwrap_or_default();
        let gutter = " ".repeat(number.len());
        match &self.position {
            None => writeln!(f, " --> {}", self.file)?,
            Some(position) => {
                // Tabs stay tabs, so that the caret stands below its text whatever their width.
                let lead: String = position
                    .source_line
                    .chars()
                    .take(position.column - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                writeln!(f, "{gutter}--> {}:{}:{}", self.file, position.line, position.column)?;
                writeln!(f, "{gutter} |")?;
                writeln!(f, "{number} | {}", position.source_line)?;
                writeln!(f, "{gutter} | {lead}{}", "^".repeat(position.length))?;
            }
        }
        let mut note = |word: &str, text: &str| writeln!(f, "{gutter} = {word}: {text}");
        if let Some(object) = &self.object {
            note("in", object)?;
        }
        if let Some(expected) = &self.expected {
            note("expected", expected)?;
        }
        if let Some(Related { what, line, column }) = &self.related {
            note("see", &format!("{what} at {}:{line}:{column}", self.file))?;
        }
        if let Some(suggestion) = &self.suggestion {
            note("help", suggestion)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_stay_inside_the_text() {
        let text = "a\n\u{e4}\u{e4}b = 1\nlast";
        let starts = [0, 2, 12];
        let at = |span: Range<usize>| {
            let p = position(text, &starts, &span);
            (p.line, p.column, p.length)
        };
        assert_eq!(at(0..1), (1, 1, 1));
        assert_eq!(at(6..7), (2, 3, 1));
        assert_eq!(at(6..99), (2, 3, 5));
        assert_eq!(at(3..5), (2, 1, 1), "inside a character");
        assert_eq!(at(99..120), (3, 5, 1));
        assert_eq!(position("", &[0], &(0..0)).length, 1);
    }
}
