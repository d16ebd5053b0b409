//! Reads types out of a TOML document and keeps going when something is wrong.
//!
//! A `serde` deserializer over the parsed document that knows, for every value, its place in the file, its
//! key and the object it belongs to. Unknown keys are reported and passed over; a wrong value is reported
//! and leaves its [`Field`](super::field::Field) invalid, so one run finds every problem of the file.

mod fault;

use super::field;
use super::problem::{Finding, SECRETS};
use core::cell::RefCell;
use fault::{Fault, one_of};
use serde::de::{self, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where problems are collected.
#[derive(Default)]
pub(super) struct Findings(RefCell<Vec<Finding>>);

impl Findings {
    /// Adds one.
    pub(super) fn add(&self, finding: Finding) {
        self.0.borrow_mut().push(finding);
    }

    /// All of them.
    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.0.into_inner()
    }
}

/// Reads `T` from TOML text; what is wrong goes to `findings`.
///
/// `None` when the text is not TOML or its outermost table is unusable.
pub(super) fn read<T: de::DeserializeOwned>(text: &str, findings: &Findings) -> Option<T> {
    let (root, faults) = DeTable::parse_recoverable(text);
    if !faults.is_empty() {
        let mut told: Option<usize> = None;
        for fault in faults {
            let span = fault.span().unwrap_or(0..0);
            // What follows a mistake in its line is mostly about the same mistake.
            let between = told.and_then(|at| text.as_bytes().get(at.min(span.start)..at.max(span.start)));
            if between.is_some_and(|between| !between.contains(&b'\n')) {
                continue;
            }
            told = Some(span.start);
            findings.add(Finding::error(span, format!("not TOML: {}", fault.message())));
        }
        return None;
    }
    let span = root.span();
    let root = Spanned::new(span, DeValue::Table(root.into_inner()));
    T::deserialize(Reader { value: &root, place: Place::default(), findings }).ok()
}

/// Where a value stands.
#[derive(Clone, Default)]
struct Place {
    /// The object that a problem is told of; empty at the top.
    object: String,
    /// The key that the value belongs to.
    key: String,
}

impl Place {
    /// The value of `key` in the table that stands here.
    fn value(&self, key: &str) -> Self {
        Self { object: self.object.clone(), key: key.to_owned() }
    }

    /// The table that stands here: `[node.timeouts]`; parts of named objects go by the object's name.
    fn table(&self) -> String {
        match (self.object.strip_suffix(']'), self.key.as_str()) {
            (_, "") => self.object.clone(),
            (Some(outer), key) => format!("{outer}.{key}]"),
            (None, key) if self.object.is_empty() => format!("[{key}]"),
            (None, _) => self.object.clone(),
        }
    }

    /// The element of the array that stands here: "service `web`".
    fn element(&self, index: usize, value: &DeValue<'_>) -> Self {
        if !value.is_table() {
            return self.clone();
        }
        let name = value.as_table().and_then(|t| t.get("name")).and_then(|v| v.get_ref().as_str());
        let element = match name {
            Some(name) => format!("{} `{name}`", self.key),
            None => format!("{} number {}", self.key, index + 1),
        };
        let object = match self.object.as_str() {
            "" => element,
            outer => format!("{outer}, {element}"),
        };
        Self { object, key: String::new() }
    }
}

/// One value of the document.
struct Reader<'a, 'i> {
    value: &'a Spanned<DeValue<'i>>,
    place: Place,
    findings: &'a Findings,
}

impl Reader<'_, '_> {
    /// Gives a problem its place.
    fn report(&self, fault: Fault) -> Fault {
        if let Fault::Open { message, expected, suggestion } = fault {
            let message = match self.place.key.as_str() {
                "" => message,
                secret if SECRETS.contains(&secret) => format!("`{secret}` cannot be this"),
                key => format!("`{key}` {message}"),
            };
            let mut finding = Finding::error(self.value.span(), message).of(&self.place.object);
            if let Some(expected) = expected {
                finding = finding.expected(expected);
            }
            if let Some(suggestion) = suggestion {
                finding = finding.suggest(suggestion);
            }
            self.findings.add(finding);
        }
        Fault::Reported
    }

    /// Reports keys that the type does not have.
    fn report_unknown(&self, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let written = key.get_ref().as_ref();
            let list = known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
            let finding = Finding::error(key.span(), format!("unknown key `{written}`"))
                .of(&self.place.table())
                .expected(format!("one of {list}"))
                .did_you_mean(written, known.iter().copied());
            self.findings.add(finding);
        }
    }

    /// The value as a number, if it is one that fits 64 bits.
    fn visit_integer<'de, V: Visitor<'de>>(
        &self,
        text: &str,
        radix: u32,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let digits = text.replace('_', "");
        if let Ok(number) = u64::from_str_radix(digits.trim_start_matches('+'), radix) {
            visitor.visit_u64(number)
        } else if let Ok(number) = i64::from_str_radix(&digits, radix) {
            visitor.visit_i64(number)
        } else {
            Err(de::Error::invalid_value(Unexpected::Other(text), &visitor))
        }
    }
}

impl<'de> de::Deserializer<'de> for Reader<'_, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let outcome = match self.value.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => self.visit_integer(number.as_str(), number.radix(), visitor),
            DeValue::Float(number) => match number.as_str().replace('_', "").parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(de::Error::invalid_value(Unexpected::Other("a fraction"), &visitor)),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(time) => {
                Err(de::Error::invalid_type(Unexpected::Other(&format!("the time {time}")), &visitor))
            }
            DeValue::Array(values) => {
                let elements = values.iter().enumerate();
                visitor.visit_seq(Elements { elements, place: &self.place, findings: self.findings })
            }
            DeValue::Table(table) => {
                let place = Place { object: self.place.table(), key: String::new() };
                let entries = Entries { entries: table.iter(), value: None, place, findings: self.findings };
                visitor.visit_map(entries)
            }
        };
        outcome.map_err(|fault| self.report(fault))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let table = match self.value.get_ref() {
            DeValue::Table(table) => table,
            // Types made for tables would take an array's elements as their fields.
            DeValue::Array(_) => return Err(self.report(de::Error::invalid_type(Unexpected::Seq, &visitor))),
            _ => return self.deserialize_any(visitor),
        };
        self.report_unknown(table, fields);
        let known: Vec<_> =
            table.iter().filter(|(key, _)| fields.contains(&key.get_ref().as_ref())).collect();
        let place = Place { object: self.place.table(), key: String::new() };
        let entries = Entries { entries: known.into_iter(), value: None, place, findings: self.findings };
        visitor.visit_map(entries).map_err(|fault| self.report(fault))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == field::TOKEN {
            return visitor.visit_seq(FieldParts { part: 0, reader: Some(self) });
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let outcome = match self.value.get_ref().as_str() {
            Some(text) => visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(text)),
            None => {
                let found = self.value.get_ref().type_str();
                Err(Fault::open(format!("cannot be of type {found}"), Some(one_of(variants))))
            }
        };
        outcome.map_err(|fault| self.report(fault))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The elements of an array.
struct Elements<'a, I> {
    elements: I,
    place: &'a Place,
    findings: &'a Findings,
}

impl<'de, 'a, 'i: 'a, I> de::SeqAccess<'de> for Elements<'a, I>
where
    I: Iterator<Item = (usize, &'a Spanned<DeValue<'i>>)>,
{
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, value)) = self.elements.next() else { return Ok(None) };
        let place = self.place.element(index, value.get_ref());
        seed.deserialize(Reader { value, place, findings: self.findings }).map(Some)
    }
}

/// The entries of a table.
struct Entries<'a, 'i, I> {
    entries: I,
    value: Option<(&'a str, &'a Spanned<DeValue<'i>>)>,
    place: Place,
    findings: &'a Findings,
}

impl<'de, 'a, 'i: 'a, I> de::MapAccess<'de> for Entries<'a, 'i, I>
where
    I: Iterator<Item = (&'a Spanned<toml::de::DeString<'i>>, &'a Spanned<DeValue<'i>>)>,
{
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        let key = key.get_ref().as_ref();
        self.value = Some((key, value));
        seed.deserialize(IntoDeserializer::<Fault>::into_deserializer(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.value.take().expect("serde asks for the key first");
        seed.deserialize(Reader { value, place: self.place.value(key), findings: self.findings })
    }
}

/// What a [`field::Field`] is made of: start, end, value.
struct FieldParts<'a, 'i> {
    part: u8,
    reader: Option<Reader<'a, 'i>>,
}

impl<'de> de::SeqAccess<'de> for FieldParts<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(reader) = &self.reader else { return Ok(None) };
        let span = reader.value.span();
        self.part += 1;
        match self.part {
            1 => seed.deserialize(IntoDeserializer::<Fault>::into_deserializer(span.start)).map(Some),
            2 => seed.deserialize(IntoDeserializer::<Fault>::into_deserializer(span.end)).map(Some),
            _ => self.reader.take().map(|reader| seed.deserialize(reader)).transpose(),
        }
    }
}
