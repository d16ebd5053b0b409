//! What is wrong with a value, before its place is known.

use crate::config::problem::nearest;
use core::fmt;
use serde::de::{self, Expected, Unexpected};

/// A problem on its way to the value that it belongs to.
#[derive(Debug)]
pub(in crate::config) enum Fault {
    /// It has been reported.
    Reported,
    /// It has no place yet.
    Open {
        /// What was found.
        message: String,
        /// What should have been there.
        expected: Option<String>,
        /// What was probably meant.
        suggestion: Option<String>,
    },
}

impl Fault {
    pub(super) fn open(message: String, expected: Option<String>) -> Self {
        Self::Open { message, expected, suggestion: None }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported => f.write_str("reported"),
            Self::Open { message, .. } => f.write_str(message),
        }
    }
}

impl core::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::open(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::open(describe(found), Some(expectation(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::Open {
            message: describe(Unexpected::Str(variant)),
            expected: Some(one_of(expected)),
            suggestion: nearest(variant, expected.iter().copied())
                .map(|near| format!("did you mean {near:?}?")),
        }
    }
}

/// The words that a key takes.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [only] => format!("{only:?}"),
        words => {
            format!("one of {}", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", "))
        }
    }
}

/// What should have been there, in TOML's words.
fn expectation(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "a sequence" => "an array".to_owned(),
        text => text.to_owned(),
    }
}

/// What was found, in TOML's words.
fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => format!("cannot be {text:?}"),
        Unexpected::Signed(number) => format!("cannot be {number}"),
        Unexpected::Unsigned(number) => format!("cannot be {number}"),
        Unexpected::Bool(value) => format!("cannot be `{value}`"),
        Unexpected::Float(number) => format!("cannot be the fraction {number:?}"),
        Unexpected::Map => "cannot be a table".to_owned(),
        Unexpected::Seq => "cannot be an array".to_owned(),
        other => format!("cannot be {other}"),
    }
}
