//! A value of the file together with its place, or the knowledge that it is absent or wrong.

use super::document::Findings;
use super::problem::Finding;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer};
use std::borrow::Cow;

/// What [`Field`] calls itself when it asks the document for a value with its place.
pub(super) const TOKEN: &str = "stickleback::config::Field";

/// A value of the file.
#[derive(Clone, Debug, Default)]
pub(super) enum Field<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// The key is there with a value that cannot be used, which has been reported.
    Invalid(Range<usize>),
    /// The value and its place.
    Valid(T, Range<usize>),
}

impl<T> Field<T> {
    /// The value, if it is there and right.
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Valid(value, _) => Some(value),
            Self::Absent | Self::Invalid(_) => None,
        }
    }

    /// The value and its place, if it is there and right.
    pub(super) fn located(&self) -> Option<(&T, Range<usize>)> {
        match self {
            Self::Valid(value, span) => Some((value, span.clone())),
            Self::Absent | Self::Invalid(_) => None,
        }
    }

    /// The place, if the key is there.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        match self {
            Self::Valid(_, span) | Self::Invalid(span) => Some(span.clone()),
            Self::Absent => None,
        }
    }

    /// The value and its place; reports the key as missing when it is absent.
    pub(super) fn required(&self, key: &str, example: &str, owner: &Owner<'_>) -> Option<(&T, Range<usize>)> {
        if matches!(self, Self::Absent) {
            owner.findings.add(
                Finding::error(owner.span.clone(), format!("`{key}` is missing"))
                    .of(owner.object)
                    .suggest(format!("add `{key} = {example}`")),
            );
        }
        self.located()
    }
}

impl<T> Field<Vec<T>> {
    /// Whether the list is absent or empty.
    pub(super) fn is_vacant(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Invalid(_) => false,
            Self::Valid(list, _) => list.is_empty(),
        }
    }
}

/// The table that fields belong to, for what is told about them.
pub(super) struct Owner<'a> {
    /// Its place.
    pub(super) span: Range<usize>,
    /// Its name, as in "service `web`".
    pub(super) object: &'a str,
    /// Where problems go.
    pub(super) findings: &'a Findings,
}

impl Owner<'_> {
    /// Reports something wrong with the table or a value in it.
    pub(super) fn report(&self, finding: Finding) {
        self.findings.add(finding.of(self.object));
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(TOKEN, Parts(PhantomData))
    }
}

struct Parts<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Parts<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its place")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut parts: A) -> Result<Field<T>, A::Error> {
        let missing = || de::Error::custom("a value without its place");
        let start = parts.next_element()?.ok_or_else(missing)?;
        let end = parts.next_element()?.ok_or_else(missing)?;
        let span = start..end;
        Ok(match parts.next_element::<Attempt<T>>()?.ok_or_else(missing)? {
            Attempt(Some(value)) => Field::Valid(value, span),
            Attempt(None) => Field::Invalid(span),
        })
    }
}

/// A value, or nothing when it was wrong; the document has reported why.
struct Attempt<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Attempt<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(T::deserialize(deserializer).ok()))
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
