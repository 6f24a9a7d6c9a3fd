//! Text compressed at the edge: negotiated per request, done once per stored body.
//!
//! Invariant: an encoded body is made of one whole identity body and named after it
//! ([`body_id`]); its validator is weak, so that no range of it is ever joined to another
//! node's bytes, which may differ.

mod compressor;

pub use compressor::Compressor;

use http::{HeaderMap, HeaderValue, StatusCode, header};

/// Below this a packet is saved at best.
pub const BODY_BYTES_MIN: u64 = 1 << 10;
/// Above this a body costs a core for a second: it is served as it is.
pub const BODY_BYTES_MAX: u64 = 8 << 20;
/// Members read of one `Accept-Encoding`; browsers send four.
const MEMBERS_MAX: usize = 32;

/// A content coding (RFC 9110 section 8.4.1), best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Encoding {
    /// All, in the order in which they are preferred.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its name in fields and metrics.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// Whether a stored response may be sent compressed: a whole 200 of a text-like type, of a
/// sensible size, not encoded by its origin, and not marked `no-transform` (RFC 9111 section
/// 5.2.2.6). All its answers then carry [`vary`], also the plain ones.
#[must_use]
pub fn is_compressible(status: StatusCode, fields: &HeaderMap, bytes: u64) -> bool {
    let is_plain = || {
        !fields.contains_key(header::CONTENT_ENCODING)
            && !fields.contains_key(header::CONTENT_RANGE)
    };
    // What says no most often goes first: each hit asks.
    status == StatusCode::OK
        && (BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&bytes)
        && fields.get(header::CONTENT_TYPE).is_some_and(is_text)
        && is_plain()
        && !members(fields, header::CACHE_CONTROL)
            .any(|one| one.eq_ignore_ascii_case("no-transform"))
}

fn is_text(content_type: &HeaderValue) -> bool {
    let content_type = content_type.as_bytes();
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    let essence = content_type[..end].trim_ascii();
    let is = |known: &&str| essence.eq_ignore_ascii_case(known.as_bytes());
    let part = |part: Option<&[u8]>, known: &str| {
        part.is_some_and(|part| part.eq_ignore_ascii_case(known.as_bytes()))
    };
    let starts = |known: &str| part(essence.get(..known.len()), known);
    let ends = |known: &str| {
        part(essence.len().checked_sub(known.len()).and_then(|at| essence.get(at..)), known)
    };
    // Events are sent as they come.
    (starts("text/") && !is(&"text/event-stream"))
        || ends("+json")
        || ends("+xml")
        || TEXTS.iter().any(is)
}

/// Types that are text beside `text/*`, `*+json` and `*+xml`.
const TEXTS: [&str; 9] = [
    "application/json",
    "application/xml",
    "application/javascript",
    "application/ecmascript",
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "audio/mpegurl",
    "audio/x-mpegurl",
    "application/xml-dtd",
];

fn members(fields: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = fields.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The coding that a client likes best of those there are (RFC 9110 section 12.5.3); none for
/// the body as it is. A range is always one of the body as it is.
#[must_use]
pub fn choose(request: &HeaderMap) -> Option<Encoding> {
    if request.contains_key(header::RANGE) { None } else { liked(request) }
}

/// The coding that the body would be sent in to who sends these fields, had it not asked for a
/// range.
#[must_use]
pub fn liked(request: &HeaderMap) -> Option<Encoding> {
    let mut weights: [Option<u16>; Encoding::ALL.len()] = Default::default();
    let (mut identity, mut others) = (None, None);
    for member in members(request, header::ACCEPT_ENCODING).take(MEMBERS_MAX) {
        let mut parts = member.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.next().map_or(Some(1000), weight);
        let slot = match coding.as_str() {
            "br" => &mut weights[0],
            "zstd" => &mut weights[1],
            "gzip" | "x-gzip" => &mut weights[2],
            "identity" => &mut identity,
            "*" => &mut others,
            _ => continue,
        };
        // What can't be read is not asked for.
        *slot = Some(weight.unwrap_or(0));
    }
    let weigh =
        |(encoding, weight): (Encoding, Option<u16>)| (weight.or(others).unwrap_or(0), encoding);
    let weighed = Encoding::ALL.into_iter().zip(weights).map(weigh);
    // Of equal ones the first: `max_by_key` would take the last.
    let (weight, best) = weighed.rev().max_by_key(|(weight, _)| *weight)?;
    (weight > 0 && weight >= identity.unwrap_or(0)).then_some(best)
}

/// `q=0.5` in thousandths (RFC 9110 section 12.4.2).
fn weight(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('=')?.trim_start();
    let (units, fraction) = value.split_once('.').unwrap_or((value, ""));
    let fits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = format!("{fraction:0<3}").parse::<u16>().ok().filter(|_| fits)?;
    match units {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Names the encoded form of a body, in the same space of names.
#[must_use]
pub fn body_id(body: &[u8; 16], encoding: Encoding) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"nearcast encoded body").update(body).update(encoding.token().as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    id
}

/// Says that the answer depends on `Accept-Encoding`.
pub fn vary(fields: &mut HeaderMap) {
    let said = |one: &str| one == "*" || one.eq_ignore_ascii_case("accept-encoding");
    if !members(fields, header::VARY).any(said) {
        fields.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Makes an answer's fields those of the encoded form of `bytes` bytes. Its validator is the
/// identity's, but weak: `If-None-Match` compares weakly and finds it under either name, while
/// `If-Range` never matches (RFC 9110 sections 8.8.3.3, 13.1.2 and 13.1.5).
pub fn encoded(fields: &mut HeaderMap, encoding: Encoding, bytes: u64) {
    fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.token()));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    // Of the identity's bytes.
    remove_content_digests(fields);
    fields.remove("repr-digest");
    fields.remove("digest");
    fields.remove(header::ACCEPT_RANGES);
    weaken(fields);
    vary(fields);
}

/// Removes what is said of the bytes of one message (RFC 9530 section 2, RFC 1864), and not of the
/// representation: other parts of that have other digests.
pub fn remove_content_digests(fields: &mut HeaderMap) {
    fields.remove("content-digest");
    fields.remove("content-md5");
}

/// Makes the validator the encoded form's, as its 304 says it, too (RFC 9111 section 4.3.4).
pub fn weaken(fields: &mut HeaderMap) {
    if let Some(etag) = fields.get(header::ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")) {
        let weak = [b"W/", etag.as_bytes()].concat();
        match HeaderValue::from_bytes(&weak) {
            Ok(weak) => fields.insert(header::ETAG, weak),
            Err(_) => fields.remove(header::ETAG),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use proptest::prelude::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_best_coding_that_is_accepted() {
        use Encoding::{Brotli, Gzip, Zstd};
        let cases = [
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip, deflate, zstd", Some(Zstd)),
            ("GZIP", Some(Gzip)),
            ("x-gzip;q=0.1", Some(Gzip)),
            ("br;q=0.5, gzip;q=0.8", Some(Gzip)),
            ("br;q=0, *", Some(Zstd)),
            ("*;q=0.5", Some(Brotli)),
            ("*;q=0", None),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=0.5, identity;q=0.5", Some(Gzip)),
            ("identity;q=0", None),
            ("deflate", None),
            ("gzip;q=0.000", None),
            ("gzip;q=2", None),
            ("gzip;q=1.001", None),
            ("gzip;q=0.1234", None),
            ("gzip;level=9", None),
            ("", None),
        ];
        for (accepted, expected) in cases {
            assert_eq!(choose(&fields(&[("accept-encoding", accepted)])), expected, "{accepted}");
        }
        assert_eq!(choose(&HeaderMap::new()), None);
        assert_eq!(choose(&fields(&[("accept-encoding", "br"), ("range", "bytes=0-")])), None);
        assert_eq!(
            choose(&fields(&[("accept-encoding", "gzip"), ("accept-encoding", "br")])),
            Some(Brotli)
        );
    }

    #[test]
    fn what_may_be_compressed() {
        let of = |content_type: &str, more: &[(&'static str, &str)], bytes| {
            let all = [&[("content-type", content_type)], more].concat();
            is_compressible(StatusCode::OK, &fields(&all), bytes)
        };
        for text in [
            "application/vnd.apple.mpegurl",
            "application/dash+xml",
            "text/vtt; charset=utf-8",
            "image/svg+xml",
            "Application/JSON",
            "application/ld+json",
        ] {
            assert!(of(text, &[], 5000), "{text}");
        }
        for other in ["video/mp4", "image/png", "application/octet-stream", "text/event-stream", ""]
        {
            assert!(!of(other, &[], 5000), "{other}");
        }
        let sizes = [(1023, false), (1024, true), (8 << 20, true), ((8 << 20) + 1, false)];
        for (bytes, expected) in sizes {
            assert_eq!(of("text/css", &[], bytes), expected, "{bytes}");
        }
        assert!(!of("text/css", &[("cache-control", "max-age=5, No-Transform")], 5000));
        assert!(!of("text/css", &[("content-encoding", "gzip")], 5000));
        assert!(!of("text/css", &[("content-range", "bytes 0-1/2")], 5000));
        assert!(!is_compressible(
            StatusCode::NOT_FOUND,
            &fields(&[("content-type", "text/html")]),
            5000
        ));
    }

    #[test]
    fn the_encoded_forms_fields() {
        let mut answer = fields(&[
            ("etag", "\"a\""),
            ("content-length", "9"),
            ("accept-ranges", "bytes"),
            ("repr-digest", "sha-256=:x:"),
            ("vary", "Origin"),
        ]);
        encoded(&mut answer, Encoding::Brotli, 7);
        vary(&mut answer);
        let expected = fields(&[
            ("etag", "W/\"a\""),
            ("content-length", "7"),
            ("content-encoding", "br"),
            ("vary", "Origin"),
            ("vary", "Accept-Encoding"),
        ]);
        assert_eq!(answer, expected);
        let mut any = fields(&[("vary", "*"), ("etag", "W/\"a\"")]);
        encoded(&mut any, Encoding::Gzip, 7);
        assert_eq!(
            (&any["vary"], &any["etag"]),
            (&HeaderValue::from_static("*"), &HeaderValue::from_static("W/\"a\""))
        );
    }

    #[test]
    fn each_form_has_a_name_of_its_own() {
        let ids: std::collections::BTreeSet<_> =
            Encoding::ALL.into_iter().map(|encoding| body_id(&[1; 16], encoding)).collect();
        assert_eq!(ids.len(), 3);
        assert!(!ids.contains(&[1; 16]) && !ids.contains(&body_id(&[2; 16], Encoding::Gzip)));
    }

    proptest! {
        #[test]
        fn any_accept_encoding_is_read(text in "[ -~]{0,80}") {
            let _ = choose(&fields(&[("accept-encoding", &text)]));
        }
    }
}
