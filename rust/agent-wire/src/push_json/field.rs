//! Reads one sample's JSON object into reused memory; strings without escapes are borrowed.
//!
//! A wrong field ends the reading at once: its reason is kept in [`Scratch::fault`], and the error
//! given to serde is only the way out.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Fault;
use crate::{Kind, Limits, Reject};

const KEYS: &str = "name, type, value, values, labels, unit, help, rate";

/// Characters of the sender's text that are repeated in a detail.
const BRIEF_CHARS: usize = 40;

/// The front of a text from outside, for a message.
pub(super) fn brief(text: &str) -> &str {
    text.char_indices().nth(BRIEF_CHARS).map_or(text, |(at, _)| &text[..at])
}

/// What was read of one sample.
#[derive(Default)]
pub(super) struct Scratch<'a> {
    pub name: Option<Cow<'a, str>>,
    pub kind: Option<Kind>,
    pub values: Vec<Scalar<'a>>,
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub unit: Option<Cow<'a, str>>,
    pub help: Option<Cow<'a, str>>,
    pub rate: Option<f64>,
    /// The checked values, filled after reading.
    pub numbers: Vec<f64>,
    pub members: Vec<Cow<'a, str>>,
    pub fault: Option<Fault>,
    /// One bit for each key seen.
    seen: u8,
}

impl Scratch<'_> {
    pub fn clear(&mut self) {
        self.name = None;
        self.kind = None;
        self.values.clear();
        self.labels.clear();
        self.unit = None;
        self.help = None;
        self.rate = None;
        self.numbers.clear();
        self.members.clear();
        self.fault = None;
        self.seen = 0;
    }

    /// Keeps the reason and gives the error that ends the reading.
    fn refuse<E: Error>(&mut self, reason: Reject, detail: impl Into<String>) -> E {
        self.fault = Some(Fault::new(reason, detail));
        E::custom("refused")
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Field {
    Name,
    Type,
    Value,
    Values,
    Labels,
    Unit,
    Help,
    Rate,
}

impl Field {
    fn from_key(key: &str) -> Option<Field> {
        Some(match key {
            "name" => Field::Name,
            "type" => Field::Type,
            "value" => Field::Value,
            "values" => Field::Values,
            "labels" => Field::Labels,
            "unit" => Field::Unit,
            "help" => Field::Help,
            "rate" => Field::Rate,
            _ => return None,
        })
    }

    /// `value` and `values` share a bit: only one of them may be given.
    fn bit(self) -> u8 {
        match self {
            Field::Values => 1 << Field::Value as u8,
            field => 1 << field as u8,
        }
    }
}

/// Any JSON value; what is inside arrays and objects is passed over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Nested,
}

struct AnyScalar;

impl<'de> DeserializeSeed<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Scalar<'de>, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
        while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
}

/// The object itself.
pub(super) struct Sample<'s, 'a, 'l> {
    pub scratch: &'s mut Scratch<'a>,
    pub limits: &'l Limits,
}

impl<'de> DeserializeSeed<'de> for Sample<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Sample<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sample, which is a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Sample { scratch, limits } = self;
        while let Some(field) = map.next_key_seed(Key { scratch })? {
            if scratch.seen & field.bit() != 0 {
                let detail = "a key is there twice, or both `value` and `values`";
                return Err(scratch.refuse(Reject::FieldRepeated, detail));
            }
            scratch.seen |= field.bit();
            match field {
                Field::Values => map.next_value_seed(Values { scratch, limits })?,
                Field::Labels => map.next_value_seed(Labels { scratch, limits })?,
                simple => {
                    let value = map.next_value_seed(AnyScalar)?;
                    scratch.keep(simple, value)?;
                }
            }
        }
        Ok(())
    }
}

impl<'a> Scratch<'a> {
    /// Stores a field that is one value.
    fn keep<E: Error>(&mut self, field: Field, value: Scalar<'a>) -> Result<(), E> {
        match (field, value) {
            (Field::Name, Scalar::Text(text)) => self.name = Some(text),
            (Field::Name, _) => {
                return Err(self.refuse(Reject::NameMalformed, "`name` is a string"));
            }
            (Field::Type, Scalar::Text(text)) => {
                self.kind = Kind::from_name(&text);
                if self.kind.is_none() {
                    let detail = format!("`type` {:?} is unknown", brief(&text));
                    return Err(self.refuse(Reject::TypeUnknown, detail));
                }
            }
            (Field::Type, _) => {
                return Err(self.refuse(Reject::TypeUnknown, "`type` is a string"));
            }
            (Field::Unit, Scalar::Text(text)) => self.unit = Some(text),
            (Field::Help, Scalar::Text(text)) => self.help = Some(text),
            (Field::Rate, Scalar::Unsigned(number)) => self.rate = Some(number as f64),
            (Field::Rate, Scalar::Signed(number)) => self.rate = Some(number as f64),
            (Field::Rate, Scalar::Float(number)) => self.rate = Some(number),
            (Field::Unit | Field::Help | Field::Rate, Scalar::Null) => {}
            (Field::Unit, _) => {
                return Err(self.refuse(Reject::UnitUnknown, "`unit` is a string"));
            }
            (Field::Help, _) => {
                return Err(self.refuse(Reject::HelpMalformed, "`help` is a string"));
            }
            (Field::Rate, _) => {
                return Err(self.refuse(Reject::RateMalformed, "`rate` is a number"));
            }
            (Field::Value | Field::Values | Field::Labels, value) => self.values.push(value),
        }
        Ok(())
    }
}

/// A key of the object.
struct Key<'s, 'a> {
    scratch: &'s mut Scratch<'a>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Field, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Field, E> {
        Field::from_key(key).ok_or_else(|| {
            let detail = format!("{:?} is not one of {KEYS}", brief(key));
            self.scratch.refuse(Reject::FieldUnknown, detail)
        })
    }
}

/// The array behind `values`.
struct Values<'s, 'a, 'l> {
    scratch: &'s mut Scratch<'a>,
    limits: &'l Limits,
}

impl<'de> DeserializeSeed<'de> for Values<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array in `values`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(value) = items.next_element_seed(AnyScalar)? {
            if self.scratch.values.len() >= self.limits.values_max {
                let detail = format!("a sample has at most {} values", self.limits.values_max);
                return Err(self.scratch.refuse(Reject::ValuesTooMany, detail));
            }
            self.scratch.values.push(value);
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(self.scratch.refuse(Reject::ValueMalformed, "`values` is an array"))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.visit_str("")
    }
}

/// The object behind `labels`.
struct Labels<'s, 'a, 'l> {
    scratch: &'s mut Scratch<'a>,
    limits: &'l Limits,
}

impl<'de> DeserializeSeed<'de> for Labels<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Labels<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object in `labels`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Labels { scratch, limits } = self;
        while let Some(name) = map.next_key_seed(AnyScalar)? {
            let value = map.next_value_seed(AnyScalar)?;
            if scratch.labels.len() >= limits.labels_allowed() {
                let detail = format!("a sample has at most {} labels", limits.labels_allowed());
                return Err(scratch.refuse(Reject::LabelsTooMany, detail));
            }
            let Scalar::Text(name) = name else { continue };
            if name.is_empty() {
                return Err(scratch.refuse(Reject::LabelsMalformed, "a label name is empty"));
            }
            let value = match value {
                Scalar::Text(text) => text,
                Scalar::Null => continue,
                Scalar::Bool(true) => Cow::Borrowed("true"),
                Scalar::Bool(false) => Cow::Borrowed("false"),
                Scalar::Unsigned(number) => Cow::Owned(number.to_string()),
                Scalar::Signed(number) => Cow::Owned(number.to_string()),
                Scalar::Float(number) => Cow::Owned(number.to_string()),
                Scalar::Nested => {
                    let detail = format!("label {:?} is no string", brief(&name));
                    return Err(scratch.refuse(Reject::LabelsMalformed, detail));
                }
            };
            scratch.labels.push((name, value));
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(self.scratch.refuse(Reject::LabelsMalformed, "`labels` is an object"))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.visit_str("")
    }
}
