use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An argument, a path or an environment entry: any bytes but NUL. In JSON a string where it is UTF-8,
/// otherwise an array of byte values, so that nothing is changed on the way.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// For a person to read: what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// As the system's own kind of string.
    pub fn os(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Bytes {
        Bytes(text.into())
    }
}

impl From<OsString> for Bytes {
    fn from(text: OsString) -> Bytes {
        Bytes(text.into_vec())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.os().fmt(f)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string or an array of bytes, without NUL")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                self.visit_byte_buf(text.into())
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Bytes, E> {
                self.visit_byte_buf(text.into_bytes())
            }
            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                if bytes.contains(&0) {
                    return Err(E::custom("a NUL byte cannot be part of an argument"));
                }
                Ok(Bytes(bytes))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                self.visit_byte_buf(bytes)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_but_nul_survive_json(bytes in proptest::collection::vec(1u8.., 0..64)) {
            let bytes = Bytes(bytes);
            let json = serde_json::to_string(&bytes).unwrap();
            prop_assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), bytes);
        }
    }

    #[test]
    fn nul_is_refused_in_both_forms() {
        assert!(serde_json::from_str::<Bytes>(r#""a\u0000b""#).is_err());
        assert!(serde_json::from_str::<Bytes>("[97,0]").is_err());
        assert!(serde_json::from_str::<Bytes>("[256]").is_err());
    }
}
