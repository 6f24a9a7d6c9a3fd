//! Structured fields (RFC 9651) in and out: whole fields only; one that does not parse is none.

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{
    BareItem, Dictionary, FieldType, Item, KeyRef, List, Parser, RefBareItem, StringRef, TokenRef,
};
use std::borrow::Cow;

/// The dictionary of all lines of a field; None if absent, empty or malformed.
pub fn dictionary(fields: &HeaderMap, name: &HeaderName) -> Option<Dictionary> {
    parse::<Dictionary>(fields, name).filter(|members| !members.is_empty())
}

/// The list of all lines of a field; None if absent, empty or malformed.
pub fn list(fields: &HeaderMap, name: &HeaderName) -> Option<List> {
    parse::<List>(fields, name).filter(|members| !members.is_empty())
}

fn parse<T: FieldType>(fields: &HeaderMap, name: &HeaderName) -> Option<T> {
    let mut lines = fields.get_all(name).iter();
    let first = lines.next()?;
    let mut joined = first.as_bytes().to_vec();
    for line in lines {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.as_bytes());
    }
    Parser::new(&joined).parse::<T>().ok()
}

/// A key known to be well-formed.
pub fn key(name: &'static str) -> &'static KeyRef {
    KeyRef::from_str(name).expect("a constant key is lower-case")
}

/// `name` as a token if it is one, else as a string: the ways RFC 9211 and 9209 name a node.
pub fn name_item(name: &str) -> (Option<&TokenRef>, Cow<'_, str>) {
    (TokenRef::from_str(name).ok(), printable(name, NAME_BYTES_MAX))
}

/// How a member names a node, in one of these ways.
pub fn named(member: &Item) -> Option<&str> {
    match &member.bare_item {
        BareItem::Token(token) => Some(token.as_str()),
        BareItem::String(text) => Some(text.as_str()),
        _ => None,
    }
}

/// Whether `name` is a token as it stands.
pub fn is_token(name: &str) -> bool {
    TokenRef::from_str(name).is_ok()
}

/// Longest name of a node in a field, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// `text` with whatever a structured string cannot hold replaced by `?`, cut at `bytes_max`.
pub fn printable(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let fits = |byte: u8| (b' '..=b'~').contains(&byte);
    if text.len() <= bytes_max && text.bytes().all(fits) {
        return Cow::Borrowed(text);
    }
    let keep = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.chars().take(bytes_max).map(keep).collect()
}

/// A string item of text that [`printable`] made.
pub fn string(text: &str) -> RefBareItem<'_> {
    StringRef::from_str(text).expect("printable text is a structured string").into()
}

/// The value of a field whose text a serializer made.
pub fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("a serialized structured field is printable ASCII")
}
