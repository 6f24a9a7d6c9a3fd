//! A head as a row holds it: versioned, with a checksum over all of it and its key.
//!
//! Any other bytes are no head: what a damaged disk returns is a miss, never a wrong answer.

use crate::head::{Head, KeyId, Read, Seen, compacted};
use crate::wire::{Reader, Writer};
use caching::Stored;
use http::{HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// A larger head stays in memory only.
pub(crate) const ROW_BYTES_MAX: usize = 256 << 10;

/// Of this layout, and of fields of which no renewal has made a weak date strong (in those of version
/// 1 it may have); rows of another version are misses.
const VERSION: u8 = 3;
/// The same, without the time of the bytes.
const UNTIMED: u8 = 2;
const SUM_BYTES: usize = 8;

/// `head` as bytes; `None` when there are more than [`ROW_BYTES_MAX`].
pub(crate) fn encode(key: &KeyId, head: &Head) -> Option<Vec<u8>> {
    let mut row = Writer::default();
    row.u8(VERSION);
    row.0.extend(key.0);
    row.0.extend(head.body);
    row.u64(head.bytes);
    row.u64(head.epoch);
    row.i64(head.stored.requested_ms);
    row.i64(head.stored.received_ms);
    row.u16(head.stored.status.as_u16());
    row.bytes(head.site.as_bytes());
    row.bytes(head.url.as_bytes());
    row.count(head.selecting.len());
    for (name, value) in &head.selecting {
        row.bytes(name.as_str().as_bytes());
        row.maybe(value.as_deref().map(str::as_bytes));
    }
    row.count(head.stored.fields.len());
    for (name, value) in &head.stored.fields {
        row.bytes(name.as_str().as_bytes());
        row.bytes(value.as_bytes());
    }
    row.count(head.tags.len());
    head.tags.iter().for_each(|tag| row.bytes(tag.as_bytes()));
    row.i64(head.fetched_ms);
    let sum = xxh3_64(&row.0);
    row.u64(sum);
    (row.0.len() <= ROW_BYTES_MAX).then_some(row.0)
}

/// The head of `key` in `row`; `None` when the row is damaged, of another version, or of
/// another key.
pub(crate) fn decode(key: &KeyId, row: &[u8]) -> Option<Head> {
    let (content, sum) = row.split_at_checked(row.len().checked_sub(SUM_BYTES)?)?;
    if xxh3_64(content).to_le_bytes() != sum {
        return None;
    }
    let mut row = Reader(content);
    let version = row.u8()?;
    if !matches!(version, VERSION | UNTIMED) || row.array()? != key.0 {
        return None;
    }
    let (body, bytes, epoch) = (row.array()?, row.u64()?, row.u64()?);
    let (requested_ms, received_ms) = (row.i64()?, row.i64()?);
    let status = StatusCode::from_u16(row.u16()?).ok()?;
    let (site, url) = (Arc::from(row.text()?), Arc::from(row.text()?));
    let selecting = list(&mut row, |row| {
        let name = HeaderName::from_bytes(row.bytes()?).ok()?;
        Some((name, row.maybe_text()?.map(str::to_owned)))
    })?;
    let fields = list(&mut row, |row| {
        let name = HeaderName::from_bytes(row.bytes()?).ok()?;
        Some((name, HeaderValue::from_bytes(row.bytes()?).ok()?))
    })?;
    let fields = compacted(&fields.into_iter().collect());
    let tags = list(&mut row, |row| row.text().map(Box::from))?;
    let fetched_ms = if version == UNTIMED { i64::MIN } else { row.i64()? };
    let asked_ms = caching::asked_ms(&fields, requested_ms);
    let stored = Stored { status, fields, requested_ms, received_ms };
    row.0.is_empty().then_some(Head {
        site,
        url,
        selecting,
        stored,
        body,
        bytes,
        tags,
        epoch,
        asked_ms,
        fetched_ms,
        seen: Seen::default(),
        read: Read::default(),
    })
}

/// A count, and so many items. An item takes at least a byte: no count reserves more than that.
fn list<T>(
    row: &mut Reader<'_>,
    mut item: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::try_from(row.u32()?).ok().filter(|count| *count <= row.0.len())?;
    (0..count).map(|_| item(row)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use http::HeaderMap;
    use proptest::prelude::*;

    /// A head of `url` on `site`, with a body named by `body`.
    pub(crate) fn head(site: &str, url: &str, body: u8) -> Head {
        let mut fields = HeaderMap::new();
        fields.append("etag", HeaderValue::from_static("\"one\""));
        fields.append("cache-control", HeaderValue::from_static("max-age=60"));
        fields.append("cache-control", HeaderValue::from_static("public"));
        Head {
            site: site.into(),
            url: url.into(),
            selecting: Vec::new(),
            stored: Stored {
                status: StatusCode::OK,
                fields,
                requested_ms: 1_795_000_000_000,
                received_ms: 1_795_000_000_040,
            },
            body: [body; 16],
            bytes: 5 << 20,
            tags: vec!["film".into(), "season-1".into()],
            epoch: 7,
            asked_ms: 1_795_000_000_000,
            fetched_ms: 1_794_000_000_000,
            seen: Seen::default(),
            read: Read::default(),
        }
    }

    /// `head`, selected by `Accept-Encoding: value`.
    pub(crate) fn selected(mut head: Head, value: &str) -> Head {
        head.selecting = vec![(http::header::ACCEPT_ENCODING, Some(value.to_owned()))];
        head
    }

    #[test]
    fn a_row_gives_back_what_was_put_in() {
        let mut head = selected(head("films", "films.test/a?b=ü", 3), "gzip");
        head.selecting.push((http::header::ACCEPT_LANGUAGE, None));
        let odd = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        head.stored.fields.append("x-latin", odd);
        let key = KeyId::of(&head.site, &head.url);
        let back = decode(&key, &encode(&key, &head).unwrap()).unwrap();
        assert_eq!(back.stored.fields, head.stored.fields);
        assert_eq!(back.selecting, head.selecting);
        assert_eq!(format!("{back:?}"), format!("{head:?}"));
    }

    #[test]
    fn a_row_of_before_bytes_had_a_time_is_taken() {
        let (head, key) = (head("films", "films.test/a", 3), KeyId([1; 16]));
        let mut row = encode(&key, &head).unwrap();
        row.truncate(row.len() - 2 * SUM_BYTES);
        row[0] = UNTIMED;
        row.extend(xxh3_64(&row).to_le_bytes());
        let back = decode(&key, &row).unwrap();
        assert_eq!((back.fetched_ms, back.tags), (i64::MIN, head.tags));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let (head, key) = (head("films", "films.test/a", 3), KeyId([1; 16]));
        let row = encode(&key, &head).unwrap();
        for bit in 0..row.len() * 8 {
            let mut row = row.clone();
            row[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key, &row).is_none(), "bit {bit}");
        }
        assert!((0..row.len()).all(|end| decode(&key, &row[..end]).is_none()));
        assert!(decode(&KeyId([2; 16]), &row).is_none(), "another key's row was taken");
    }

    #[test]
    fn a_head_of_too_many_bytes_is_no_row() {
        let mut head = head("films", "films.test/a", 3);
        head.tags.push("x".repeat(ROW_BYTES_MAX).into());
        assert!(encode(&KeyId([1; 16]), &head).is_none());
    }

    proptest! {
        /// Even with a sum that is right.
        #[test]
        fn any_bytes_are_read_without_a_panic(mut row in proptest::collection::vec(any::<u8>(), 0..200)) {
            row.splice(..0, [[VERSION; 1].as_slice(), &[1; 16]].concat());
            row.extend(xxh3_64(&row).to_le_bytes());
            let _ = decode(&KeyId([1; 16]), &row);
        }
    }
}
