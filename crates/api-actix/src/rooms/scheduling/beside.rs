//! A member beside those of another type in one object.
//!
//! `serde(flatten)` would do it, but no longer refuse unknown members, nor tell the path of what is wrong.

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor,
    value::MapAccessDeserializer,
};
use std::{fmt, marker::PhantomData};

/// Reads an object as a `T` and, apart from it, the member `name`, which may be left out.
pub(in crate::rooms) fn read<'de, T, M, D>(deserializer: D, name: &'static str) -> Result<(T, M), D::Error>
where
    T: Deserialize<'de>,
    M: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Both { name, types: PhantomData })
}

struct Both<T, M> {
    name: &'static str,
    types: PhantomData<(T, M)>,
}

impl<'de, T: Deserialize<'de>, M: Deserialize<'de> + Default> Visitor<'de> for Both<T, M> {
    type Value = (T, M);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        let mut member = None;
        let others = Others { members, name: self.name, member: &mut member };
        let value = T::deserialize(MapAccessDeserializer::new(others))?;
        Ok((value, member.unwrap_or_default()))
    }
}

/// The members other than `name`, which is put aside when it comes.
struct Others<'a, A, M> {
    members: A,
    name: &'static str,
    member: &'a mut Option<M>,
}

impl<'de, A: MapAccess<'de>, M: Deserialize<'de>> MapAccess<'de> for Others<'_, A, M> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.members.next_key::<String>()? {
            if key != self.name {
                return seed.deserialize(key.into_deserializer()).map(Some);
            }
            if self.member.is_some() {
                return Err(A::Error::duplicate_field(self.name));
            }
            *self.member = Some(self.members.next_value()?);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.members.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::read;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        a: i64,
        b: Option<i64>,
    }

    fn check(json: &str, expected: Result<(Inner, Option<String>), &str>) {
        let found = read(&mut serde_json::Deserializer::from_str(json), "beside");
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{json}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{json}: {error}"),
            (found, _) => panic!("{json}: {found:?}"),
        }
    }

    #[test]
    fn a_member_is_read_beside_the_others() {
        let text = |text: &str| Some(text.to_owned());
        check(r#"{"a":1}"#, Ok((Inner { a: 1, b: None }, None)));
        check(r#"{"beside":"x","a":1,"b":2}"#, Ok((Inner { a: 1, b: Some(2) }, text("x"))));
        check(r#"{"a":1,"beside":"x"}"#, Ok((Inner { a: 1, b: None }, text("x"))));
        check(r#"{"a":1,"beside":null}"#, Ok((Inner { a: 1, b: None }, None)));
    }

    #[test]
    fn what_is_wrong_is_refused_as_in_a_single_object() {
        check(r#"{"beside":"x"}"#, Err("missing field `a`"));
        check(r#"{"a":1,"c":1}"#, Err("unknown field `c`"));
        check(r#"{"a":1,"a":1}"#, Err("duplicate field `a`"));
        check(r#"{"a":1,"beside":"x","beside":"x"}"#, Err("duplicate field `beside`"));
        check(r#"{"a":1,"beside":null,"beside":null}"#, Err("duplicate field `beside`"));
        check(r#"{"a":1,"beside":7}"#, Err("expected a string"));
        check(r#"{"a":"x"}"#, Err("expected i64"));
        check("[1]", Err("expected an object"));
    }
}
