//! A VICI message: an ordered tree of keys and values, lists and sections, and its encoding.
//!
//! Parsing takes any bytes without a panic, and without recursion deeper than [`MAX_DEPTH`].

use std::fmt;

use bytes::{Buf, BufMut, BytesMut};

use crate::Error;

/// Sections inside sections. charon's own messages go four deep.
const MAX_DEPTH: usize = 32;

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// The value of a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, or raw bytes (a key's `data`).
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
    Section(Message),
}

/// A message, or a section in one. Keys keep their order; of a repeated key, the first is returned.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<(String, Value)>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `key = value`.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.0.push((key.into(), Value::Text(value.into())));
        self
    }

    /// Adds `key = [values]`.
    #[must_use]
    pub fn list<V: Into<Vec<u8>>>(
        mut self,
        key: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.0.push((key.into(), Value::List(values.into_iter().map(Into::into).collect())));
        self
    }

    /// Adds `key { section }`.
    #[must_use]
    pub fn section(mut self, key: impl Into<String>, section: Self) -> Self {
        self.0.push((key.into(), Value::Section(section)));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The sections, in order: `list-sas` and others use names as keys.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.iter().filter_map(|(key, value)| match value {
            Value::Section(section) => Some((key, section)),
            _ => None,
        })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// The text under `key`; `None` if there is none, or it is not UTF-8.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The decimal number under `key`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// The texts of the list under `key`; empty if there is none. Items that are not UTF-8 are left out.
    pub fn texts(&self, key: &str) -> Vec<&str> {
        match self.get(key) {
            Some(Value::List(items)) => items.iter().filter_map(|i| std::str::from_utf8(i).ok()).collect(),
            _ => Vec::new(),
        }
    }

    /// The section under `key`.
    pub fn sub(&self, key: &str) -> Option<&Self> {
        match self.get(key)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        for (key, value) in &self.0 {
            match value {
                Value::Text(bytes) => {
                    put_name(KEY_VALUE, key, out)?;
                    put_value(bytes, out)?;
                }
                Value::List(items) => {
                    put_name(LIST_START, key, out)?;
                    for item in items {
                        out.put_u8(LIST_ITEM);
                        put_value(item, out)?;
                    }
                    out.put_u8(LIST_END);
                }
                Value::Section(section) => {
                    put_name(SECTION_START, key, out)?;
                    section.encode(out)?;
                    out.put_u8(SECTION_END);
                }
            }
        }
        Ok(())
    }

    /// Reads all of `bytes`.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, Error> {
        // The open sections: each with its name and the section around it.
        let mut open: Vec<(String, Self)> = Vec::new();
        let mut current = Self::new();
        while bytes.has_remaining() {
            match bytes.get_u8() {
                KEY_VALUE => {
                    let key = take_name(&mut bytes)?;
                    let value = take_value(&mut bytes)?;
                    current.0.push((key, Value::Text(value)));
                }
                LIST_START => {
                    let key = take_name(&mut bytes)?;
                    let items = take_list(&mut bytes)?;
                    current.0.push((key, Value::List(items)));
                }
                SECTION_START if open.len() < MAX_DEPTH => {
                    let key = take_name(&mut bytes)?;
                    open.push((key, std::mem::take(&mut current)));
                }
                SECTION_START => return Err(Error::Malformed("sections are nested too deep")),
                SECTION_END => {
                    let (key, around) =
                        open.pop().ok_or(Error::Malformed("a section ends that was not begun"))?;
                    let section = std::mem::replace(&mut current, around);
                    current.0.push((key, Value::Section(section)));
                }
                _ => return Err(Error::Malformed("an element is of no known type")),
            }
        }
        if open.is_empty() { Ok(current) } else { Err(Error::Malformed("a section does not end")) }
    }
}

pub(crate) fn put_name(element: u8, name: &str, out: &mut BytesMut) -> Result<(), Error> {
    out.put_u8(element);
    out.put_u8(u8::try_from(name.len()).map_err(|_| Error::TooLarge)?);
    out.put_slice(name.as_bytes());
    Ok(())
}

fn put_value(value: &[u8], out: &mut BytesMut) -> Result<(), Error> {
    out.put_u16(u16::try_from(value.len()).map_err(|_| Error::TooLarge)?);
    out.put_slice(value);
    Ok(())
}

pub(crate) fn take_name(bytes: &mut &[u8]) -> Result<String, Error> {
    let length = bytes.try_get_u8().map_err(|_| CUT_SHORT)?;
    let name = take(bytes, length.into())?;
    String::from_utf8(name).map_err(|_| Error::Malformed("a name is no text"))
}

fn take_value(bytes: &mut &[u8]) -> Result<Vec<u8>, Error> {
    let length = bytes.try_get_u16().map_err(|_| CUT_SHORT)?;
    take(bytes, length.into())
}

fn take_list(bytes: &mut &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut items = Vec::new();
    loop {
        match bytes.try_get_u8().map_err(|_| CUT_SHORT)? {
            LIST_ITEM => items.push(take_value(bytes)?),
            LIST_END => return Ok(items),
            _ => return Err(Error::Malformed("a list holds something else than items")),
        }
    }
}

fn take(bytes: &mut &[u8], length: usize) -> Result<Vec<u8>, Error> {
    let (head, rest) = bytes.split_at_checked(length).ok_or(CUT_SHORT)?;
    *bytes = rest;
    Ok(head.to_vec())
}

const CUT_SHORT: Error = Error::Malformed("it is cut short");

/// Hides the value of `data`: it is key material in every VICI message that has it.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (key, value) in self.iter() {
            if key == "data" {
                map.entry(&key, &format_args!("…"));
            } else {
                map.entry(&key, value);
            }
        }
        map.finish()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).fmt(f),
            Self::List(items) => {
                f.debug_list().entries(items.iter().map(|i| String::from_utf8_lossy(i))).finish()
            }
            Self::Section(section) => section.fmt(f),
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    use super::*;

    /// An accepted message is encoded to the same bytes.
    pub fn vici_message(bytes: &[u8]) {
        let Ok(message) = Message::decode(bytes) else { return };
        let mut again = BytesMut::new();
        assert!(message.encode(&mut again).is_ok() && again == bytes, "{message:?} is {again:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn message() -> impl Strategy<Value = Message> {
        let bytes = || vec(any::<u8>(), 0..20);
        let leaf = prop_oneof![
            bytes().prop_map(Value::Text),
            vec(bytes(), 0..4).prop_map(Value::List),
            Just(Value::Section(Message::new())),
        ];
        let value = leaf.prop_recursive(4, 24, 4, |inner| {
            vec(("[a-z0-9-]{0,8}", inner), 0..4).prop_map(|keys| Value::Section(Message(keys)))
        });
        vec(("[a-z0-9-]{0,8}", value), 0..5).prop_map(Message)
    }

    fn encoded(message: &Message) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(&mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn an_encoded_message_decodes_to_itself(message in message()) {
            prop_assert_eq!(Message::decode(&encoded(&message)).unwrap(), message);
        }

        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn no_damaged_message_panics(message in message(), at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
            let mut bytes = encoded(&message).to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = to;
                let _ = Message::decode(&bytes);
                bytes.truncate(cut.index(bytes.len()));
                let _ = Message::decode(&bytes);
            }
        }
    }

    #[test]
    fn the_encoding_is_as_documented() {
        // The example of strongSwan's protocol description, shortened.
        let message = Message::new()
            .set("key1", "value1")
            .section("section1", Message::new().list("list1", ["item1", "item2"]));
        let expected = b"\x03\x04key1\x00\x06value1\x01\x08section1\x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06\x02";
        assert_eq!(&encoded(&message)[..], expected);
        assert_eq!(message.text("key1"), Some("value1"));
        assert_eq!(message.sub("section1").map(|s| s.texts("list1")), Some(vec!["item1", "item2"]));
    }

    #[test]
    fn limits_are_enforced() {
        let deep = [&[SECTION_START, 0].repeat(40)[..], &[SECTION_END].repeat(40)].concat();
        assert!(matches!(Message::decode(&deep), Err(Error::Malformed(_))));
        let long = Message::new().set("k", vec![0; 70_000]);
        assert!(matches!(long.encode(&mut BytesMut::new()), Err(Error::TooLarge)));
        assert!(matches!(
            Message::new().set("k".repeat(256), "").encode(&mut BytesMut::new()),
            Err(Error::TooLarge)
        ));
    }

    #[test]
    fn debug_does_not_show_keys() {
        let shown = format!("{:?}", Message::new().set("type", "IKE").set("data", "do not tell"));
        assert!(shown.contains("IKE") && !shown.contains("do not tell"), "{shown}");
    }
}
