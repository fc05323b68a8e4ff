//! JSON as it is looked at for facts: texts stay where they are in the body, and what is not asked
//! for is not kept apart. Of two fields of one name the last counts.

use std::borrow::Cow;
use std::fmt;
use std::ops::Index;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value.
#[derive(Debug)]
pub(super) enum Json<'a> {
    /// Null, or a number that no fact is.
    Other,
    Bool(bool),
    Number(u64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads one value and nothing after it.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Json::Text(text) = self { Some(text) } else { None }
    }

    pub(super) const fn as_u64(&self) -> Option<u64> {
        if let Json::Number(number) = self { Some(*number) } else { None }
    }

    /// The items of a list; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        if let Json::List(items) = self { items } else { &[] }
    }

    pub(super) const fn is_object(&self) -> bool {
        matches!(self, Json::Object(_))
    }

    pub(super) const fn is_true(&self) -> bool {
        matches!(self, Json::Bool(true))
    }
}

/// The field of an object; of anything else, and where there is none, [`Json::Other`].
impl<'a> Index<&str> for Json<'a> {
    type Output = Json<'a>;

    fn index(&self, name: &str) -> &Json<'a> {
        let Json::Object(fields) = self else { return &Json::Other };
        fields.iter().rev().find(|(field, _)| field == name).map_or(&Json::Other, |(_, value)| value)
    }
}

impl PartialEq<str> for Json<'_> {
    fn eq(&self, text: &str) -> bool {
        self.as_str() == Some(text)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<Json<'de>, Json<'de>>()? {
            let Json::Text(name) = name else { continue };
            fields.push((name, value));
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let text = r#"{"a":"x","a":"y\n","n":7,"m":-7,"f":1.5,"t":true,"l":[{"b":"z"},null],"k\u0065y":"v"}"#;
        let json = Json::read(text.as_bytes()).expect("JSON");
        assert_eq!(json["a"].as_str(), Some("y\n"), "the last one counts");
        assert_eq!((json["n"].as_u64(), json["m"].as_u64(), json["f"].as_u64()), (Some(7), None, None));
        assert!(json["t"].is_true() && !json["n"].is_true() && json.is_object());
        assert!(json["l"].items()[0]["b"] == *"z" && json["l"].items().len() == 2);
        assert_eq!(json["key"].as_str(), Some("v"), "names may have escapes");
        assert!(json["a"]["none"].as_str().is_none() && json["n"].items().is_empty());
        for broken in ["", "{", "{} x", "{\"a\":1,}", "\"\u{0}\""] {
            assert!(Json::read(broken.as_bytes()).is_none(), "{broken:?}");
        }
        assert!(Json::read(&b"[".repeat(1_000_000)).is_none(), "depth is bounded");
    }
}
