//! What is asked and what is answered.

use crate::body::UpstreamBody;
use crate::newer::Purges;
use crate::place::Place;
use crate::turns::Urgency;
use crate::within;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, header};
use http_body_util::combinators::UnsyncBoxBody;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The host by which other nodes are asked where a site is for any host, and the origin is told of
/// none: they find their own such site by it, as nobody else has that name (RFC 6761 section 6.4). An
/// origin is never told it, also not with `pass-host`.
pub const UNNAMED_HOST: &str = "any.invalid";

/// The longest path and query that is sent, in bytes.
pub const PATH_BYTES_MAX: usize = 32 << 10;

/// A request's body, streamed from the client.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// One exchange: what to ask for, and what chooses the hop.
#[derive(Debug)]
pub struct Ask {
    /// Any but CONNECT; GET or HEAD for S3.
    pub method: Method,
    /// `/path?query`, sent as it is after the path of the origin's URL.
    pub path: String,
    /// The site's host (and port): what peers see, and with `pass-host` the origin. Empty: the
    /// name that the site has in its settings, or of one for any host [`UNNAMED_HOST`].
    pub host: String,
    /// Exactly the fields to send. Fields of the connection, of the body's length, and `Host`
    /// are made anew here; this node is added to `CDN-Loop`.
    pub fields: HeaderMap,
    /// Another node asks: what its `CDN-Loop` says is so, and no node that it has passed is asked
    pub by_peer: bool,
    /// Where an answer brings more than its one range asks for, what is before this byte is of use,
    /// too; what is behind both is left out, and the exchange given up there. None: what is behind
    /// the range, if that has an end.
    pub reach: Option<u64>,
    /// With one there is one try.
    pub body: Option<RequestBody>,
    /// The object.
    pub key: [u8; 16],
    /// Which run of 64 MiB of it.
    pub run: u64,
    /// Not this hop, if there is another.
    pub avoid: Option<HopId>,
    /// It asks for what the body of an earlier answer did not bring: it counts as a further try, paid
    /// for by [`crate::Upstream::pays_repeat`] where it has to be.
    pub is_repeat: bool,
    /// How many of the site's `retries` have gone into what it asks for, itself among them.
    pub retried: u32,
    /// Other nodes are asked for nothing that is from before these.
    pub purges: Purges,
    /// No other node is asked.
    pub at_the_origin: bool,
    /// Another node waits for the answer until then (see [`crate::answer_by`]), if no sooner than
    /// this one itself.
    pub answer_by: Option<Instant>,
    /// Its rank among those that wait for the same hop.
    pub urgency: Urgency,
    /// That of an answer which it goes on from: if it is the same hop that is asked, it waits for
    /// none.
    pub place: Option<Place>,
    /// Tells what became of it, whoever asked and whatever the answer.
    pub unsure: Unsure,
}

/// Whether a hop may have carried out a request to which it gave no answer, or none of its own:
/// that of another try may be to a request that there was nothing left to do for.
#[derive(Debug, Clone, Default)]
pub struct Unsure(Arc<AtomicBool>);

impl Unsure {
    /// Whether that is so, as far as is known by now.
    #[must_use]
    pub fn is_so(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(crate) fn note(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Ask {
    /// A GET without fields, of the usual urgency.
    #[must_use]
    pub fn get(host: impl Into<String>, path: impl Into<String>, key: [u8; 16]) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            host: host.into(),
            fields: HeaderMap::new(),
            by_peer: false,
            reach: None,
            body: None,
            key,
            run: 0,
            avoid: None,
            is_repeat: false,
            retried: 0,
            purges: Purges::default(),
            at_the_origin: false,
            answer_by: None,
            urgency: Urgency::default(),
            place: None,
            unsure: Unsure::default(),
        }
    }
}

/// The head of an answer, with its body to come.
#[derive(Debug)]
pub struct Answer {
    /// Never a 1xx.
    pub head: http::response::Parts,
    /// Ends in an error unless it is whole.
    pub body: UpstreamBody,
    /// Who answered.
    pub hop: HopId,
    /// What that is.
    pub kind: HopKind,
    /// Whether it may be stored at all: S3's refusals may not, whatever the rules say.
    pub storable: bool,
    /// When the origin was asked about it at the earliest, whichever nodes are between, in
    /// milliseconds since 1970 UTC.
    pub asked_ms: i64,
    /// And for its bytes, of which some may be from before that; `i64::MIN` where a node has kept them
    /// that does not say.
    pub fetched_ms: i64,
    /// From the ask to the head.
    pub head_after: Duration,
    /// It ends a blocking playlist reload, by 503, that was held for as long as a player is to wait
    /// (HLS 2nd edition, section 6.2.5.2); or, as another node says, that one has waited for such an
    /// end.
    pub was_held_in_vain: bool,
    /// How many of the site's `retries` have gone into it: those of [`Ask::retried`], and its own.
    pub retried: u32,
    /// The place of a 416, for who asks on for another range, as [`Ask::place`]; of all else the body
    /// has it.
    pub place: Option<Place>,
}

/// Names a hop: an origin's URL or a peer's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HopId(pub(crate) Arc<str>);

impl HopId {
    /// As shown in logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a hop is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HopKind {
    /// An edge of the same site.
    Sibling,
    /// A regional edge, or a shield.
    Parent,
    /// Where the bytes come from.
    Origin,
}

impl HopKind {
    /// A short name for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sibling => "sibling",
            Self::Parent => "parent",
            Self::Origin => "origin",
        }
    }
}

/// Fields that belong to one connection or that are made anew (RFC 9110, 7.6.1).
const OWN: [HeaderName; 10] = [
    header::CONNECTION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Takes out what this hop says itself.
pub(crate) fn clean(fields: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in nominated.iter().chain(&OWN) {
        fields.remove(name);
    }
    within::forget(fields);
}

/// `path` if it is an origin-form that any server reads the same way: a slash, then visible
/// ASCII without a fragment (RFC 9112, 3.2.1).
pub(crate) fn origin_form(path: &str) -> Option<&str> {
    let visible = |b: u8| (0x21..=0x7e).contains(&b) && b != b'#';
    let good = path.starts_with('/') && path.len() <= PATH_BYTES_MAX && path.bytes().all(visible);
    good.then_some(path)
}

/// Whether a path and query are those of a blocking playlist reload: it is held until the playlist
/// has a segment (HLS 2nd edition, section 6.2.5.2).
#[must_use]
pub fn is_reload(path: &str) -> bool {
    let is_directive = |pair: &str| pair.starts_with("_HLS_msn=");
    path.split_once('?').is_some_and(|(_, query)| query.split('&').any(is_directive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_connection_and_nominated_ones_go() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("host", "a"),
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("nearcast-answer-within", "1"),
            ("accept", "*/*"),
        ] {
            fields.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        clean(&mut fields);
        assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn paths_that_servers_read_in_two_ways_are_refused() {
        assert!(origin_form("/a/%2e%2e/b?c=%20&d=[1]|").is_some());
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        for bad in ["", "a", "*", "http://a/", "/a b", "/a\r\nX: 1", "/a#b", "/\u{e4}", &long] {
            assert_eq!(origin_form(bad), None, "{bad:?} was taken");
        }
    }
}
