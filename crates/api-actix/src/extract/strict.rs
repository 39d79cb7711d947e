//! A deserializer that reads structs from objects only. What serde derives would take an array as well, by position, which
//! no document tells and which a client sends by mistake only.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// Wraps a deserializer, and what it hands on in turn (visitors, accesses, seeds).
pub(super) struct Strict<T>(pub(super) T);

/// Wraps the visitor of a struct.
struct Object<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(map))
    }
}

macro_rules! deserialize {
    ($($method:ident($($arg:ident: $kind:ty),*) => $wrap:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($arg: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($arg,)* $wrap(visitor))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() => Strict;
        deserialize_bool() => Strict;
        deserialize_i8() => Strict;
        deserialize_i16() => Strict;
        deserialize_i32() => Strict;
        deserialize_i64() => Strict;
        deserialize_i128() => Strict;
        deserialize_u8() => Strict;
        deserialize_u16() => Strict;
        deserialize_u32() => Strict;
        deserialize_u64() => Strict;
        deserialize_u128() => Strict;
        deserialize_f32() => Strict;
        deserialize_f64() => Strict;
        deserialize_char() => Strict;
        deserialize_str() => Strict;
        deserialize_string() => Strict;
        deserialize_bytes() => Strict;
        deserialize_byte_buf() => Strict;
        deserialize_option() => Strict;
        deserialize_unit() => Strict;
        deserialize_seq() => Strict;
        deserialize_map() => Strict;
        deserialize_identifier() => Strict;
        deserialize_ignored_any() => Strict;
        deserialize_unit_struct(name: &'static str) => Strict;
        deserialize_newtype_struct(name: &'static str) => Strict;
        deserialize_tuple(len: usize) => Strict;
        deserialize_tuple_struct(name: &'static str, len: usize) => Strict;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) => Strict;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) => Object;
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $kind:ty,)*) => {$(
        fn $method<E: Error>(self, value: $kind) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    visit! {
        visit_bool: bool,
        visit_i64: i64,
        visit_i128: i128,
        visit_u64: u64,
        visit_u128: u128,
        visit_f64: f64,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Strict(members))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, choice: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Strict(choice))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Strict(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(Strict(seed)).map(|(value, variant)| (value, Strict(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Strict(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Object(visitor))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, de::DeserializeOwned};

    use super::Strict;

    #[derive(Deserialize, Debug)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        Plain,
        Struct { _a: u8 },
        Tuple(#[expect(dead_code, reason = "only read")] u8, #[expect(dead_code, reason = "only read")] u8),
    }

    #[derive(Deserialize, Debug)]
    #[serde(transparent)]
    struct Wrapped(#[expect(dead_code, reason = "only read")] Point);

    #[derive(Deserialize, Debug)]
    struct Point {
        _x: f64,
        _more: Option<Vec<BTreeMap<String, Wrapped>>>,
        _choice: Option<Choice>,
    }

    fn check<T: DeserializeOwned>(json: &str, expected: Result<(), &str>) {
        let found = T::deserialize(Strict(&mut serde_json::Deserializer::from_str(json))).map(|_| ());
        match (found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{json}: {error}"),
            (found, _) => panic!("{json}: {found:?}"),
        }
    }

    #[test]
    fn struct_is_not_read_from_an_array() {
        let refused = Err("invalid type: sequence, expected an object");
        check::<Point>("[1.0]", refused);
        check::<Point>(r#"{"_x":1}"#, Ok(()));
        check::<Vec<Point>>(r#"[{"_x":1}]"#, Ok(()));
        check::<Vec<Point>>("[[1.0]]", refused);
        check::<Point>(r#"{"_x":1,"_more":[{"k":{"_x":2}}]}"#, Ok(()));
        check::<Point>(r#"{"_x":1,"_more":[{"k":[2]}]}"#, refused);
        check::<Point>(r#"{"_x":1,"_choice":"plain"}"#, Ok(()));
        check::<Point>(r#"{"_x":1,"_choice":{"tuple":[1,2]}}"#, Ok(()));
        check::<Point>(r#"{"_x":1,"_choice":{"struct":{"_a":1}}}"#, Ok(()));
        check::<Point>(r#"{"_x":1,"_choice":{"struct":[1]}}"#, refused);
        check::<Point>("7", Err("expected an object"));
    }
}
