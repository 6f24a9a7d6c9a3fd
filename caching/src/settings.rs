//! What an operator may set per site. The defaults are the RFCs: nothing invented.

use crate::cookies::Cookies;
use crate::surrogate::SURROGATE_CONTROL;
use http::HeaderName;

/// Caching rules of one site.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Targeted cache-control fields, the most specific first (RFC 9213 section 2.2): the first
    /// that is valid replaces `Cache-Control` and `Expires`. By default `CDN-Cache-Control`, then
    /// `Surrogate-Control`, which is read by its own rules (W3C Edge Architecture).
    pub targeted: Vec<HeaderName>,
    /// Freshness of responses that name none but have a `Last-Modified` (RFC 9111 section
    /// 4.2.2). None: such responses are revalidated on each use.
    pub heuristic: Option<Heuristic>,
    /// The operator's own lifetimes.
    pub ttl: Ttl,
    /// Lifetime, in milliseconds, of 404, 410, 414 and 500 to 504, whatever the origin says. None
    /// by default: such an error is not stored unless it names one, or a heuristic applies.
    pub negative_ms: Option<i64>,
    /// Whether the client's `Cache-Control` and `Pragma` count (RFC 9111 sections 5.2.1, 5.4).
    /// True by default, as the RFC says; false keeps clients from sending load to the origin.
    pub request_directives: bool,
    /// How long, in milliseconds, a stale response that names no `stale-while-revalidate` may be
    /// used while it is revalidated (RFC 5861 section 3). 0 by default.
    pub while_revalidate_ms: i64,
    /// How long, in milliseconds, a response that was fresh for a while, by whatever it was, and
    /// names no `stale-if-error`, may be used stale when the origin cannot be reached or answers
    /// 5xx (RFC 9111 sections 4.2.4 and 4.3.3); not if it is a 5xx itself. One hour by default:
    /// long enough for a restart of the origin.
    pub if_error_ms: i64,
    /// Cookies of requests and answers. They are kept by default.
    pub cookies: Cookies,
}

/// Freshness guessed from how long a response had not changed (RFC 9111 section 4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heuristic {
    /// Share of `Date - Last-Modified`, in percent.
    pub percent: u32,
    /// The longest guess, in milliseconds.
    pub max_ms: i64,
}

/// The operator's lifetimes for successful responses and redirects, all in milliseconds from when
/// the answer came, less the `Age` with which it did (the time that the origin took does not
/// count). They
/// change how long a response is fresh, never whether others may have it: what forbids storing
/// does so under any of them, a cookie included ([`crate::Reason::Cookie`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ttl {
    /// Replaces whatever the origin says, `no-cache` included.
    pub fixed_ms: Option<i64>,
    /// Raises a shorter lifetime to this; `no-cache` is one of 0.
    pub min_ms: Option<i64>,
    /// Cuts a longer lifetime down to this.
    pub max_ms: Option<i64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            targeted: vec![HeaderName::from_static("cdn-cache-control"), SURROGATE_CONTROL],
            // 10 % is the RFC's own example; a day bounds what an old file's date can do.
            heuristic: Some(Heuristic { percent: 10, max_ms: 24 * 3600 * 1000 }),
            ttl: Ttl::default(),
            negative_ms: None,
            request_directives: true,
            while_revalidate_ms: 0,
            if_error_ms: 3600 * 1000,
            cookies: Cookies::Keep,
        }
    }
}
