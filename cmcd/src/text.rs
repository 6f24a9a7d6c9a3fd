//! Cuts CMCD into keys and values: version 2 is a structured-field dictionary (RFC 9651),
//! version 1 its ancestor. Knows no key.
//!
//! Invariant: the position only moves forward, so that the time is linear in the text; a pair
//! that can't be read costs that pair alone.

use crate::LIST_MAX;
use std::borrow::Cow;

/// A key and its value.
#[derive(Debug, PartialEq)]
pub struct Pair<'a> {
    pub key: &'a str,
    pub value: Value<'a>,
}

#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    /// A key alone stands for true.
    True,
    Item(Item<'a>),
    /// `(a b;v)`: items, each with its first parameter.
    List(Vec<(Item<'a>, Option<Parameter<'a>>)>),
}

#[derive(Debug, PartialEq)]
pub enum Item<'a> {
    /// Without quotes: a number, a token, `?1`.
    Bare(&'a str),
    /// Within quotes, unescaped.
    Text(Cow<'a, str>),
}

#[derive(Debug, PartialEq)]
pub struct Parameter<'a> {
    pub name: &'a str,
    pub value: Option<Item<'a>>,
}

/// The pairs of a text; none in place of one that can't be read.
pub fn pairs(text: &str) -> impl Iterator<Item = Option<Pair<'_>>> {
    let mut rest = Rest(text);
    std::iter::from_fn(move || {
        rest.skip(|byte| matches!(byte, b' ' | b'\t' | b','));
        if rest.0.is_empty() {
            return None;
        }
        let pair = rest.pair();
        if pair.is_none() {
            rest.skip(|byte| byte != b',');
        }
        Some(pair)
    })
}

/// What is still unread.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.as_bytes().first().copied()
    }

    /// Takes the longest prefix of such bytes. The cut is at an ASCII byte or at the end, thus
    /// between characters.
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let end = self.0.bytes().position(|byte| byte.is_ascii() && !wanted(byte));
        let (taken, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        taken
    }

    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        self.take(unwanted);
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn pair(&mut self) -> Option<Pair<'a>> {
        let key = self.name()?;
        let value = if self.eat(b'=') { self.value()? } else { Value::True };
        while self.eat(b';') {
            self.parameter()?;
        }
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
        matches!(self.peek(), None | Some(b',')).then_some(Pair { key, value })
    }

    fn name(&mut self) -> Option<&'a str> {
        let name = self
            .take(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'*'));
        (!name.is_empty() && name.is_ascii()).then_some(name)
    }

    fn value(&mut self) -> Option<Value<'a>> {
        if self.eat(b'(') { self.list() } else { self.item().map(Value::Item) }
    }

    fn item(&mut self) -> Option<Item<'a>> {
        if self.eat(b'"') {
            return self.quoted().map(Item::Text);
        }
        let bare = self.take(|byte| {
            byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'(' | b')' | b'"' | b'=')
        });
        (!bare.is_empty() && bare.is_ascii()).then_some(Item::Bare(bare))
    }

    /// After the first quote: up to the last one. `\"` and `\\` stand for their second.
    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        let plain = self.take(|byte| byte != b'"' && byte != b'\\');
        if self.eat(b'"') {
            return Some(Cow::Borrowed(plain));
        }
        let mut text = plain.to_owned();
        while self.eat(b'\\') {
            let escaped = self.peek().filter(|byte| matches!(byte, b'"' | b'\\'))?;
            self.eat(escaped);
            text.push(char::from(escaped));
            text.push_str(self.take(|byte| byte != b'"' && byte != b'\\'));
        }
        self.eat(b'"').then_some(Cow::Owned(text))
    }

    /// After the bracket.
    fn list(&mut self) -> Option<Value<'a>> {
        let mut items = Vec::new();
        loop {
            self.skip(|byte| matches!(byte, b' ' | b'\t'));
            if self.eat(b')') {
                return Some(Value::List(items));
            }
            if items.len() == LIST_MAX {
                return None;
            }
            let item = self.item()?;
            let mut first = None;
            while self.eat(b';') {
                let parameter = self.parameter()?;
                first = first.or(Some(parameter));
            }
            items.push((item, first));
        }
    }

    fn parameter(&mut self) -> Option<Parameter<'a>> {
        self.skip(|byte| byte == b' ');
        let name = self.name()?;
        let value = if self.eat(b'=') { Some(self.item()?) } else { None };
        Some(Parameter { name, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<Option<&str>> {
        pairs(text).map(|pair| pair.map(|pair| pair.key)).collect()
    }

    #[test]
    fn a_bad_pair_costs_itself_alone() {
        assert_eq!(keys("a=1,=2,b,c=\"x"), [Some("a"), None, Some("b"), None]);
        assert_eq!(
            keys("a=(1 2,b=3"),
            [Some("a"); 0].into_iter().chain([None, Some("b")]).collect::<Vec<_>>()
        );
        assert_eq!(keys(" ,, a , b"), [Some("a"), Some("b")]);
        assert_eq!(keys("a b,c"), [None, Some("c")]);
        assert_eq!(keys("ä=1,b"), [None, Some("b")]);
    }

    #[test]
    fn quotes_are_undone() {
        let text = r#"cid="a \"b\" \\ c, d",e="\x""#;
        let mut read = pairs(text);
        let value = Value::Item(Item::Text("a \"b\" \\ c, d".into()));
        assert_eq!(read.next(), Some(Some(Pair { key: "cid", value })));
        assert_eq!(read.next(), Some(None));
        assert_eq!(read.next(), None);
    }

    #[test]
    fn a_list_keeps_its_parameters() {
        let read: Vec<_> = pairs(r#"nor=("a.mp4";r="0-1" "b")"#).collect();
        let range = Parameter { name: "r", value: Some(Item::Text("0-1".into())) };
        let items = vec![(Item::Text("a.mp4".into()), Some(range)), (Item::Text("b".into()), None)];
        assert_eq!(read, [Some(Pair { key: "nor", value: Value::List(items) })]);
    }
}
