//! Text compressed at the edge: negotiated per request, done once per stored body.
//!
//! Invariant: an encoded body is made of one whole identity body and named after it
//! ([`body_id`]); its validator is weak, so that no range of it is ever joined to another
//! node's bytes, which may differ.

use crate::flights::Flights;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use lru::LruCache;
use prometheus::{IntCounterVec, Registry};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Below this a packet is saved at best.
pub const BODY_BYTES_MIN: u64 = 1 << 10;
/// Above this a body costs a core for a second: it is served as it is.
pub const BODY_BYTES_MAX: u64 = 8 << 20;
/// Bodies compressed at a time: what runs beside serving must leave it most cores.
const RUNNING_MAX: usize = 2;
/// Bodies compressed or waiting for it; each holds up to [`BODY_BYTES_MAX`].
const JOBS_MAX: usize = 8;
/// Bodies remembered as not worth it.
const USELESS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Members read of one `Accept-Encoding`; browsers send four.
const MEMBERS_MAX: usize = 32;

// Levels, by a media playlist of 700 kB on one core: a body is compressed once and sent often,
// but a live playlist changes each second, so that what halves the speed must be worth it.

/// 20 MB/s; 9 saves another tenth at a seventh of the speed.
const GZIP_LEVEL: u32 = 6;
/// 21 MB/s, a quarter smaller than gzip; 7 saves another twentieth at half the speed.
const BROTLI_QUALITY: u32 = 6;
/// 4 MiB: beyond it few playlists repeat themselves, and each encoder takes that memory.
const BROTLI_WINDOW_BITS: u32 = 22;
/// 46 MB/s, a sixth smaller than gzip; 12 saves another fiftieth at half the speed.
const ZSTD_LEVEL: i32 = 9;

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
    if request.contains_key(header::RANGE) {
        return None;
    }
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

/// Compresses bodies off the connections' threads, a few at a time, each once.
pub struct Compressor {
    flights: Flights<[u8; 16], Option<Bytes>>,
    jobs: Arc<Semaphore>,
    running: Arc<Semaphore>,
    useless: Arc<Mutex<LruCache<[u8; 16], ()>>>,
    outcomes: IntCounterVec,
    bytes: IntCounterVec,
}

impl Compressor {
    /// One for an edge.
    ///
    /// # Errors
    /// A metric of that name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let outcomes = counting::counters(
            registry,
            "compressions_total",
            "Bodies compressed, by coding and outcome",
            &["encoding", "outcome"],
        )?;
        let bytes = counting::counters(
            registry,
            "compression_bytes_total",
            "Bytes compressed, before and after",
            &["encoding", "side"],
        )?;
        for encoding in Encoding::ALL {
            for outcome in ["done", "useless", "busy", "failed"] {
                outcomes.with_label_values(&[encoding.token(), outcome]);
            }
            for side in ["before", "after"] {
                bytes.with_label_values(&[encoding.token(), side]);
            }
        }
        Ok(Self {
            flights: Flights::new(),
            jobs: Arc::new(Semaphore::new(JOBS_MAX)),
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            useless: Arc::new(Mutex::new(LruCache::new(USELESS_MAX))),
            outcomes,
            bytes,
        })
    }

    /// The encoded form of a `whole` body, named `id` (see [`body_id`]); the caller keeps it.
    /// However many ask at a time, it is made once, and collected once. None if too many others
    /// are being made, or if it is no smaller: send the body as it is.
    pub async fn compressed(
        &self,
        id: [u8; 16],
        whole: impl Future<Output = Option<Vec<Bytes>>>,
        encoding: Encoding,
    ) -> Option<Bytes> {
        if self.useless.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            return None;
        }
        let (wait, ticket) = self.flights.join(id, &upstream::Urgency::default());
        let Some(ticket) = ticket else { return wait.landed().await? };
        let Ok(job) = Arc::clone(&self.jobs).try_acquire_owned() else {
            self.count(encoding, "busy");
            ticket.land(None);
            return None;
        };
        let body = whole.await?;
        let place = Arc::clone(&self.running).acquire_owned().await.ok()?;
        let useless = Arc::clone(&self.useless);
        let (outcomes, bytes) = (self.outcomes.clone(), self.bytes.clone());
        // Ends by itself: its input is bounded. Who asked may have gone; others may wait.
        tokio::task::spawn_blocking(move || {
            let _held = (job, place);
            let before: usize = body.iter().map(Bytes::len).sum();
            let made = encode(&body, encoding);
            let outcome = match &made {
                Ok(made) if made.len() < before => "done",
                Ok(_) => "useless",
                Err(_) => "failed",
            };
            outcomes.with_label_values(&[encoding.token(), outcome]).inc();
            let made = made.ok().filter(|made| made.len() < before).map(Bytes::from);
            match &made {
                Some(made) => {
                    let count = |side, length: usize| {
                        bytes.with_label_values(&[encoding.token(), side]).inc_by(length as u64);
                    };
                    count("before", before);
                    count("after", made.len());
                }
                None => {
                    useless.lock().unwrap_or_else(PoisonError::into_inner).put(id, ());
                }
            }
            ticket.land(made);
        });
        wait.landed().await?
    }

    fn count(&self, encoding: Encoding, outcome: &str) {
        self.outcomes.with_label_values(&[encoding.token(), outcome]).inc();
    }
}

fn encode(body: &[Bytes], encoding: Encoding) -> io::Result<Vec<u8>> {
    let all = |to: &mut dyn Write| body.iter().try_for_each(|piece| to.write_all(piece));
    let out = Vec::new();
    match encoding {
        Encoding::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
            all(&mut encoder)?;
            encoder.finish()
        }
        Encoding::Brotli => {
            let buffer = 4096;
            let mut encoder =
                brotli::CompressorWriter::new(out, buffer, BROTLI_QUALITY, BROTLI_WINDOW_BITS);
            all(&mut encoder)?;
            encoder.flush()?;
            Ok(encoder.into_inner())
        }
        Encoding::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
            all(&mut encoder)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use proptest::prelude::*;
    use std::io::Read;

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

    fn decoded(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
            Encoding::Brotli => {
                brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap()
            }
            Encoding::Zstd => {
                zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap()
            }
        };
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_encoded_decodes_to_the_same(pieces in prop::collection::vec("[a-c\n]{0,2000}", 0..4)) {
            let body: Vec<Bytes> = pieces.iter().map(|piece| Bytes::from(piece.clone())).collect();
            for encoding in Encoding::ALL {
                prop_assert_eq!(decoded(encoding, &encode(&body, encoding).unwrap()), pieces.concat().into_bytes());
            }
        }

        #[test]
        fn any_accept_encoding_is_read(text in "[ -~]{0,80}") {
            let _ = choose(&fields(&[("accept-encoding", &text)]));
        }
    }

    async fn whole(body: &Bytes) -> Option<Vec<Bytes>> {
        Some(vec![body.clone()])
    }

    fn outcome(compressor: &Compressor, of: &str) -> u64 {
        compressor.outcomes.with_label_values(&["gzip", of]).get()
    }

    #[tokio::test]
    async fn a_body_is_compressed_once_for_all_who_wait() {
        let compressor = Compressor::new(&Registry::new()).unwrap();
        let text = Bytes::from("#EXTINF:1,\nsegment.m4s\n".repeat(1000));
        let ask = || compressor.compressed([1; 16], whole(&text), Encoding::Gzip);
        // None is done before all have asked.
        let held = compressor.running.acquire_many(RUNNING_MAX as u32).await.unwrap();
        let all = futures::future::join_all((0..100).map(|_| ask()));
        let (all, ()) = futures::join!(all, async { drop(held) });
        let first = all[0].clone().unwrap();
        assert_eq!(decoded(Encoding::Gzip, &first), text);
        assert!(all.iter().all(|one| one.as_ref() == Some(&first)));
        assert_eq!(outcome(&compressor, "done"), 1);
    }

    #[tokio::test]
    async fn what_does_not_shrink_is_tried_once() {
        let compressor = Compressor::new(&Registry::new()).unwrap();
        let noise: Vec<u8> = (0..4096u32)
            .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec())
            .collect();
        for _ in 0..3 {
            let noise = noise.clone().into();
            let made = compressor.compressed([2; 16], whole(&noise), Encoding::Gzip);
            assert_eq!(made.await, None);
        }
        assert_eq!(outcome(&compressor, "useless"), 1);
    }

    #[tokio::test]
    async fn too_many_bodies_at_once_are_sent_as_they_are() {
        let compressor = Compressor::new(&Registry::new()).unwrap();
        let text = Bytes::from("a".repeat(100_000));
        let ask = |number: u8| compressor.compressed([number; 16], whole(&text), Encoding::Gzip);
        let all = futures::future::join_all((0..50).map(ask)).await;
        let made = all.iter().filter(|one| one.is_some()).count() as u64;
        assert!(made >= JOBS_MAX as u64);
        assert_eq!(made + outcome(&compressor, "busy"), 50);
    }

    #[tokio::test]
    async fn no_more_bodies_are_collected_than_are_being_made() {
        let compressor = Compressor::new(&Registry::new()).unwrap();
        let text = Bytes::from("a".repeat(100_000));
        let collected = std::cell::Cell::new(0);
        let ask = |number: u8| {
            let whole = async {
                collected.set(collected.get() + 1);
                whole(&text).await
            };
            compressor.compressed([number % 50; 16], whole, Encoding::Gzip)
        };
        let held = compressor.running.acquire_many(RUNNING_MAX as u32).await.unwrap();
        let all = futures::future::join_all((0..100).map(ask));
        futures::join!(all, async { drop(held) });
        assert_eq!(collected.get(), JOBS_MAX);
    }
}
