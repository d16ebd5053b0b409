//! Keys, and where they come from.

use super::unique::Unique;
use crate::config::SecretSource;
use crate::config::field::{Field, Owner};
use crate::config::file::Node;
use crate::config::problem::Finding;
use crate::config::secret::Secrets;
use crate::config::value::{AbsolutePath, Secret};
use std::path::PathBuf;

/// Where a key comes from.
pub(super) enum Source {
    /// There is none.
    Absent,
    /// It stands in the configuration.
    Given([u8; 16]),
    /// It stands in this file.
    File(PathBuf),
}

pub(super) use crate::config::secret::QuicKeyFile;

/// A key that stands in the configuration or in a file.
pub(super) fn one(key: &Field<Secret>, file: &Field<AbsolutePath>, name: &str, owner: &Owner<'_>) -> Source {
    match (key.located(), file.located()) {
        (Some((_, first)), Some((_, second))) => {
            owner.report(
                Finding::error(second, format!("`{name}` is given twice"))
                    .expected(format!("`{name}` or `{name}-file`, not both"))
                    .related(first, "the other is"),
            );
            Source::Absent
        }
        (Some((key, _)), None) => Source::Given(key.0),
        (None, Some((file, _))) => Source::File(file.0.clone()),
        (None, None) => Source::Absent,
    }
}

/// The secrets of [node].
pub(super) fn check(node: &Node, owner: &Owner<'_>) -> Secrets {
    Secrets {
        session: session(node, owner),
        syn_cookie: source(one(
            &node.syn_cookie_secret,
            &node.syn_cookie_secret_file,
            "syn-cookie-secret",
            owner,
        )),
        segment: segment(node, owner),
        quic: Vec::new(),
    }
}

fn source(source: Source) -> SecretSource {
    match source {
        Source::Absent => SecretSource::Generated,
        Source::Given(key) => SecretSource::Given(key),
        Source::File(path) => SecretSource::File(path),
    }
}

fn session(node: &Node, owner: &Owner<'_>) -> SecretSource {
    match (node.session_secret.located(), node.session_secret_file.located()) {
        (Some((_, first)), Some((_, second))) => {
            owner.report(
                Finding::error(second, "the session secret is given twice")
                    .expected("`session-secret` or `session-secret-file`, not both")
                    .related(first, "the other is"),
            );
            SecretSource::Generated
        }
        (Some((secret, _)), None) => SecretSource::Given(secret.0),
        (None, Some((file, _))) => SecretSource::File(file.0.clone()),
        (None, None) => SecretSource::Generated,
    }
}

/// Keys of sealed segments: the one in use first, then the one that is accepted beside it.
fn segment(node: &Node, owner: &Owner<'_>) -> Vec<(u8, SecretSource)> {
    let entries = node.segment_key.get().map(Vec::as_slice).unwrap_or_default();
    if entries.len() > 2
        && let Some(span) = node.segment_key.span()
    {
        owner.report(
            Finding::error(span, format!("there are {} segment keys", entries.len()))
                .expected("at most two: the one in use, and one that is still, or already, accepted"),
        );
    }
    let mut ids = Unique::default();
    let mut keys = Vec::new();
    for (entry, span) in entries.iter().filter_map(Field::located) {
        let owner = Owner { span: span.clone(), object: "[[node.segment-key]]", findings: owner.findings };
        let id = entry.id.required("id", "1", &owner);
        let key = one(&entry.key, &entry.key_file, "key", &owner);
        let Some((id, at)) = id else { continue };
        if let Some(first) = ids.insert(id.0, &at) {
            owner.report(
                Finding::error(at, format!("there are two segment keys with id {}", id.0))
                    .related(first, "the first is"),
            );
        }
        if matches!(key, Source::Absent) && entry.key.span().is_none() && entry.key_file.span().is_none() {
            owner.report(
                Finding::error(span, "the segment key has no key")
                    .suggest("add `key` with 32 hexadecimal digits, or `key-file`"),
            );
        }
        keys.push((id.narrow(), source(key)));
    }
    keys
}
