//! Values of configuration keys and flags: sizes in bytes and lengths of time.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `1048576`, `512KiB`, `64MiB`, `10GiB`, `2TiB`, or decimal `10GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A length of time: `250ms`, `30s`, `5m`, `6h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A value that is a text in a file, or also a plain integer.
trait Given: FromStr<Err = String> {
    /// For who gave something else.
    const EXPECTED: &str;

    fn of_integer(integer: u64) -> Option<Self>;
}

impl Given for ByteSize {
    const EXPECTED: &str = "a size, as \"64MiB\" or 67108864";

    fn of_integer(integer: u64) -> Option<Self> {
        Some(Self(integer))
    }
}

impl Given for Span {
    const EXPECTED: &str = "a length of time with its unit, as \"5s\"";

    fn of_integer(_: u64) -> Option<Self> {
        None
    }
}

struct Reader<T>(PhantomData<T>);

impl<T: Given> Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<T, E> {
        let refused = || E::invalid_type(Unexpected::Unsigned(integer), &self);
        T::of_integer(integer).ok_or_else(refused)
    }

    // As TOML has all of them.
    fn visit_i64<E: Error>(self, integer: i64) -> Result<T, E> {
        match u64::try_from(integer) {
            Ok(integer) => self.visit_u64(integer),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(integer), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader(PhantomData))
    }
}

const SIZES: [(&str, u64); 13] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    // As in other servers' settings.
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
];

const SPANS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `text` as a number times one of `units`. Checked in order: a longer unit stands before
/// one that it ends with.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*factor)
    })
}

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.parse().ok();
        plain.or_else(|| scaled(text, &SIZES)).map(Self).ok_or_else(|| {
            format!("{text:?} is not a size: expected bytes or a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB")
        })
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, &SPANS).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(|| {
            format!("{text:?} is not a length of time: expected a number with ms, s, m, h or d")
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        match SIZES[..4].iter().rev().find(fits) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let fits = |(_, factor): &&(&str, u64)| {
            ms >= u128::from(*factor) && ms.is_multiple_of(u128::from(*factor))
        };
        match SPANS.iter().rev().find(fits) {
            Some((unit, factor)) => write!(f, "{}{unit}", ms / u128::from(*factor)),
            None => write!(f, "{ms}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_is_told_with_an_example() {
        fn error<T: serde::de::DeserializeOwned + fmt::Debug>(value: &str) -> String {
            let error = toml::from_str::<std::collections::BTreeMap<String, T>>(value);
            error.unwrap_err().message().to_owned()
        }
        let (size, span) = (ByteSize::EXPECTED, Span::EXPECTED);
        for (told, expected) in [
            (error::<Span>("a = 5"), format!("invalid type: integer `5`, expected {span}")),
            (error::<Span>("a = -5"), format!("invalid value: integer `-5`, expected {span}")),
            (error::<Span>("a = true"), format!("invalid type: boolean `true`, expected {span}")),
            (error::<Span>("a = {}"), format!("invalid type: map, expected {span}")),
            (error::<ByteSize>("a = -1"), format!("invalid value: integer `-1`, expected {size}")),
            (error::<ByteSize>("a = 1.5"), {
                format!("invalid type: floating point `1.5`, expected {size}")
            }),
            (error::<ByteSize>("a = []"), format!("invalid type: sequence, expected {size}")),
        ] {
            assert_eq!(told, expected);
        }
        let sizes: std::collections::BTreeMap<String, ByteSize> =
            toml::from_str("a = 7\nb = \"7\"").unwrap();
        assert_eq!((sizes["a"], sizes["b"]), (ByteSize(7), ByteSize(7)));
    }

    #[test]
    fn sizes_and_spans() {
        assert_eq!("512MiB".parse(), Ok(ByteSize(512 << 20)));
        assert_eq!("10GB".parse(), Ok(ByteSize(10_000_000_000)));
        assert_eq!("77".parse(), Ok(ByteSize(77)));
        assert_eq!("512M".parse(), Ok(ByteSize(512 << 20)));
        assert_eq!("6h".parse(), Ok(Span(Duration::from_secs(21_600))));
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        for bad in ["", "x", "-1", "1.5GiB", "18446744073709551615TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad:?} was taken");
        }
        for bad in ["", "6", "h", "6 weeks"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?} was taken");
        }
        assert_eq!(ByteSize(512 << 20).to_string().parse(), Ok(ByteSize(512 << 20)));
        assert_eq!(ByteSize(1500).to_string(), "1500B");
        for text in ["0ms", "1500ms", "90s", "2m", "25h", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }
}
