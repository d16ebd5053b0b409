//! Problems while their file is still being read: byte offsets instead of lines.

use super::Severity;
use core::ops::Range;

/// A problem while its file is still being read: byte offsets instead of lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct Finding {
    pub(super) severity: Severity,
    pub(super) span: Range<usize>,
    pub(super) object: Option<String>,
    pub(super) message: String,
    pub(super) expected: Option<String>,
    pub(super) suggestion: Option<String>,
    pub(super) related: Option<(Range<usize>, String)>,
}

impl Finding {
    /// Something that makes the file unusable.
    pub(in crate::config) fn error(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span,
            object: None,
            message: message.into(),
            expected: None,
            suggestion: None,
            related: None,
        }
    }

    /// Something that works but is unlikely to be meant.
    pub(in crate::config) fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// Names the object; an empty name is none.
    pub(in crate::config) fn of(mut self, object: &str) -> Self {
        self.object = Some(object.to_owned()).filter(|name| !name.is_empty());
        self
    }

    /// Says what would be right.
    pub(in crate::config) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Says what to write instead.
    pub(in crate::config) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Offers the candidate that is nearest to what was written, if any is near.
    pub(in crate::config) fn did_you_mean<'a>(
        self,
        written: &str,
        candidates: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        match nearest(written, candidates) {
            Some(near) => self.suggest(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// Points to a second place.
    pub(in crate::config) fn related(mut self, span: Range<usize>, what: impl Into<String>) -> Self {
        self.related = Some((span, what.into()));
        self
    }

    /// Whether the file is refused because of it.
    pub(in crate::config) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The candidate that looks most like `written`, if one looks alike at all.
pub(in crate::config) fn nearest<'a>(
    written: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |s: &str| s.to_lowercase().replace(['_', ' '], "-");
    let written = plain(written);
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&written, &plain(candidate)), candidate))
        .filter(|(likeness, _)| *likeness >= 0.55)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_word_is_offered_only_when_near() {
        assert_eq!(nearest("source_ip", ["none", "source-ip"]), Some("source-ip"));
        assert_eq!(nearest("TPC", ["tcp", "udp"]), Some("tcp"));
        assert_eq!(nearest("round-robin", ["none", "source-ip"]), None);
    }
}
