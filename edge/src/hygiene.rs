//! The head of a request to a proxy site, checked before anything else looks at it.
//!
//! Invariant: what passes means one thing to every server that may read it. Only what is
//! ambiguous or hostile is refused, each with a name; nothing ambiguous is repaired. The
//! request to the origin is built anew from the [`Target`], never from the head itself.
//!
//! What HTTP/1.1 framing hides from a head is hyper's: it refuses folded lines and odd chunks.
//! `tests/smuggling.rs` holds it to that. Of both lengths at once it takes the chunks, drops the
//! other and closes the connection after its answer (RFC 9112 section 6.3): [`TwoLengths`] tells
//! of it. Plain GETs may be read beside hyper (`wire/src/direct.rs`), and beside h3
//! (`wire/src/quic/plain.rs`): such as have no framing but the end of their head. And what
//! [`plain_host`] finds nothing in may be answered without [`check`], if its target and host
//! passed before, byte for byte.

mod host;
mod key;
mod names;
mod path;

pub use host::{Host, in_ascii};
pub use key::{KeyRules, Query};
pub(crate) use key::{expected_of, has, is_named};
pub use names::OBEYED;
pub use path::{SLASH, canonical as path, canonical_pattern as pattern, escaped};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use names::SAID;
use std::borrow::Cow;
use wire::TwoLengths;

/// Path and query as sent. Browsers and S3 clients stay below 8 KiB.
pub const TARGET_BYTES_MAX: usize = 8 << 10;
/// All fields' names and values, as HTTP/2 and 3 are also limited; above a browser's cookies.
pub const FIELDS_BYTES_MAX: usize = 16 << 10;
/// Fields of one request.
pub const FIELDS_MAX: usize = 100;
/// The longest registered method has 17 letters.
const METHOD_BYTES_MAX: usize = 32;
/// What a request is for, in the one spelling that is looked up and forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// The host; none in HTTP/1.0 without `Host`.
    pub host: Option<Host>,
    /// The path, canonical (see [`path()`]).
    pub path: Cow<'a, str>,
    /// The query as sent; [`KeyRules::query`] makes it canonical.
    pub query: Option<&'a str>,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// CONNECT and TRACE are for proxies that a client has chosen.
    #[error("this method is not passed on: CONNECT and TRACE are for forward proxies")]
    Method,
    /// No method is that long.
    #[error("the method is longer than {METHOD_BYTES_MAX} bytes")]
    MethodTooLong,
    /// `*`, an authority, or no path at all.
    #[error("the target must be a path, or a URL with a path")]
    TargetForm,
    /// Another one than `http` and `https`.
    #[error("the target's scheme is neither http nor https")]
    Scheme,
    /// Too long a target.
    #[error("the target is longer than {TARGET_BYTES_MAX} bytes")]
    TargetTooLong,
    /// A `%` without two digits.
    #[error("the path has a % without two hexadecimal digits")]
    BrokenEscape,
    /// A control byte, as it is or escaped.
    #[error("the path has a control byte")]
    ControlByte,
    /// A backslash, escaped or as it is; or an escaped slash, where it means two things to the
    /// origins of one site.
    #[error(
        "the path has a backslash, or an escaped slash where buckets are among other origins: \
         servers differ on what that is"
    )]
    HiddenSeparator,
    /// A dot segment with an escaped dot, or with an escaped slash at its side.
    #[error("the path has a dot segment written with escapes")]
    HiddenDots,
    /// `..` leads above the root.
    #[error("the path leads above its root")]
    AboveRoot,
    /// HTTP/1.1 wants a host.
    #[error("there is no host")]
    HostMissing,
    /// More than one.
    #[error("there is more than one Host field")]
    HostTwice,
    /// Not `name`, `address` or `[address]`, perhaps with a port.
    #[error("the host is no host name or address")]
    HostBad,
    /// The target names another host than the field.
    #[error("the target and the Host field name different hosts")]
    HostUnlike,
    /// Not a plain decimal number.
    #[error("Content-Length is no decimal number")]
    LengthBad,
    /// Several that differ.
    #[error("there are Content-Length fields that differ")]
    LengthsUnlike,
    /// Both of the two ways to tell a body's length.
    #[error("there is Content-Length beside Transfer-Encoding: servers differ on which counts")]
    LengthsTwoWays,
    /// Another coding than `chunked`, once.
    #[error("Transfer-Encoding is not exactly: chunked")]
    Coding,
    /// A field of HTTP/1.1 connections in HTTP/2 or 3.
    #[error("HTTP/2 and 3 have no fields of a connection")]
    ConnectionField,
    /// `Content_Length` and the like.
    #[error("a field's name is a misspelling that some servers take for another field")]
    LookAlike,
    /// Too many bytes of fields.
    #[error("the fields are longer than {FIELDS_BYTES_MAX} bytes")]
    FieldsTooLong,
    /// Too many fields.
    #[error("there are more than {FIELDS_MAX} fields")]
    FieldsTooMany,
    /// Another expectation than `100-continue`.
    #[error("the only expectation that can be met is: 100-continue")]
    Expectation,
}

impl Refusal {
    /// Its status and stable code.
    #[must_use]
    pub fn parts(self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::Method => (S::METHOD_NOT_ALLOWED, "method-not-passed-on"),
            Self::MethodTooLong => (S::NOT_IMPLEMENTED, "method-too-long"),
            Self::TargetForm => (S::BAD_REQUEST, "target-form"),
            Self::Scheme => (S::MISDIRECTED_REQUEST, "target-scheme"),
            Self::TargetTooLong => (S::URI_TOO_LONG, "target-too-long"),
            Self::BrokenEscape => (S::BAD_REQUEST, "path-broken-escape"),
            Self::ControlByte => (S::BAD_REQUEST, "path-control-byte"),
            Self::HiddenSeparator => (S::BAD_REQUEST, "path-hidden-separator"),
            Self::HiddenDots => (S::BAD_REQUEST, "path-hidden-dots"),
            Self::AboveRoot => (S::BAD_REQUEST, "path-above-root"),
            Self::HostMissing => (S::BAD_REQUEST, "host-missing"),
            Self::HostTwice => (S::BAD_REQUEST, "host-twice"),
            Self::HostBad => (S::BAD_REQUEST, "host-bad"),
            Self::HostUnlike => (S::BAD_REQUEST, "host-unlike-target"),
            Self::LengthBad => (S::BAD_REQUEST, "length-bad"),
            Self::LengthsUnlike => (S::BAD_REQUEST, "lengths-unlike"),
            Self::LengthsTwoWays => (S::BAD_REQUEST, "lengths-two-ways"),
            Self::Coding => (S::NOT_IMPLEMENTED, "transfer-coding-unknown"),
            Self::ConnectionField => (S::BAD_REQUEST, "connection-field"),
            Self::LookAlike => (S::BAD_REQUEST, "field-look-alike"),
            Self::FieldsTooLong => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "fields-too-long"),
            Self::FieldsTooMany => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "fields-too-many"),
            Self::Expectation => (S::EXPECTATION_FAILED, "expectation-unknown"),
        }
    }
}

/// Checks a request's head. A refused HTTP/1.x request's connection is to be closed: where the
/// next request begins may be in doubt.
///
/// # Errors
/// [`Refusal`] names what is wrong.
pub fn check(head: &Parts) -> Result<Target<'_>, Refusal> {
    let host = all_but_path(head)?;
    let uri = &head.uri;
    // `Uri` shows an empty path as `/`, and `*` as itself.
    let origin_form = uri.path().starts_with('/') && uri.path_and_query().is_some();
    if !origin_form {
        return Err(Refusal::TargetForm);
    }
    Ok(Target { host, path: path(uri.path())?, query: uri.query() })
}

/// Whether a target that names a scheme names one that is served (RFC 9110 section 7.4): by which
/// of the two it came tells its connection.
///
/// # Errors
/// [`Refusal::Scheme`].
pub fn scheme(uri: &Uri) -> Result<(), Refusal> {
    let is_served =
        |scheme: &str| ["https", "http"].iter().any(|served| scheme.eq_ignore_ascii_case(served));
    if uri.scheme_str().is_none_or(is_served) { Ok(()) } else { Err(Refusal::Scheme) }
}

/// Whether a request names one host, and a good one, as each must whoever answers it (RFC 9112
/// section 3.2), no scheme that nobody here answers, and no two ways to read its length.
///
/// # Errors
/// [`Refusal::LengthsTwoWays`], [`Refusal::Scheme`], [`Refusal::HostMissing`],
/// [`Refusal::HostTwice`] or [`Refusal::HostBad`].
pub fn host(head: &Parts) -> Result<(), Refusal> {
    length_way(head)?;
    scheme(&head.uri)?;
    match host::of(head) {
        // What the target says counts for who serves no sites by host.
        Ok(_) | Err(Refusal::HostUnlike) => Ok(()),
        Err(refusal) => Err(refusal),
    }
}

/// Whether a request asks what the server can do, not what a resource can: `OPTIONS *` (RFC 9110
/// section 9.3.7).
pub fn is_of_the_server(head: &Parts) -> bool {
    head.method == Method::OPTIONS && head.uri.path() == "*"
}

/// As [`check`], for what has no path.
///
/// # Errors
/// [`Refusal`] names what is wrong.
pub fn check_of_the_server(head: &Parts) -> Result<(), Refusal> {
    all_but_path(head).map(drop)
}

fn all_but_path(head: &Parts) -> Result<Option<Host>, Refusal> {
    method(&head.method)?;
    length_way(head)?;
    scheme(&head.uri)?;
    sizes(head)?;
    fields(&head.headers, head.version)?;
    host::of(head)
}

fn method(method: &Method) -> Result<(), Refusal> {
    match method {
        method if method.as_str().len() > METHOD_BYTES_MAX => Err(Refusal::MethodTooLong),
        &Method::CONNECT | &Method::TRACE => Err(Refusal::Method),
        _ => Ok(()),
    }
}

/// A request with both lengths may be refused (RFC 9112 section 6.1), and ought to be taken for an
/// attempt to smuggle another (section 6.3, item 3).
fn length_way(head: &Parts) -> Result<(), Refusal> {
    match head.extensions.get::<TwoLengths>() {
        Some(TwoLengths) => Err(Refusal::LengthsTwoWays),
        None => Ok(()),
    }
}

fn sizes(head: &Parts) -> Result<(), Refusal> {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = head.uri.authority().map_or(0, |authority| authority.as_str().len());
    if target + authority > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    if head.headers.len() > FIELDS_MAX {
        return Err(Refusal::FieldsTooMany);
    }
    Ok(())
}

/// All fields in one pass: each request pays for it.
fn fields(fields: &HeaderMap, version: Version) -> Result<(), Refusal> {
    let is_multiplexed = matches!(version, Version::HTTP_2 | Version::HTTP_3);
    let mut bytes = 0;
    let mut found = Ok(());
    let mut has_length = false;
    for (name, value) in fields {
        bytes += name.as_str().len() + value.len();
        has_length |= name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING;
        found = found.and_then(|()| field(name.as_str(), value.as_bytes(), is_multiplexed));
    }
    if bytes > FIELDS_BYTES_MAX {
        return Err(Refusal::FieldsTooLong);
    }
    found?;
    if has_length { lengths(fields) } else { Ok(()) }
}

/// The `Host` field, if there is one, of a request whose other fields say nothing that [`check`]
/// refuses or a hit depends on. None for any other request: it goes the long way. All fields in
/// one pass.
pub fn plain_host(fields: &HeaderMap, is_multiplexed: bool) -> Option<Option<&HeaderValue>> {
    let (mut bytes, mut host) = (0, None);
    for (name, value) in fields {
        bytes += name.as_str().len() + value.len();
        match *name {
            header::HOST if host.replace(value).is_some() => return None,
            header::HOST
            | header::USER_AGENT
            | header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::COOKIE
            | header::ORIGIN
            | header::REFERER => {}
            header::CONNECTION if !is_multiplexed => {}
            _ if SAID.contains(&name.as_str()) => return None,
            _ => {}
        }
    }
    (bytes <= FIELDS_BYTES_MAX && fields.len() <= FIELDS_MAX).then_some(host)
}

fn field(name: &str, value: &[u8], is_multiplexed: bool) -> Result<(), Refusal> {
    match name {
        // Names that some servers read as the field behind them: CGI turns `-` into `_`.
        "content_length" | "transfer_encoding" | "x_forwarded_host" => Err(Refusal::LookAlike),
        // Fields of one connection (RFC 9113 section 8.2.2), which no HTTP/2 or 3 message has.
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
            if is_multiplexed =>
        {
            Err(Refusal::ConnectionField)
        }
        "te" if is_multiplexed && value != b"trailers" => Err(Refusal::ConnectionField),
        "expect" if !value.eq_ignore_ascii_case(b"100-continue") => Err(Refusal::Expectation),
        _ => Ok(()),
    }
}

/// RFC 9112 section 6.1 and 6.3: one way to tell where the body ends, and a plain one.
fn lengths(fields: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next();
    let is_chunked = coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !is_chunked || codings.next().is_some() {
        return Err(Refusal::Coding);
    }
    let mut known = None;
    for length in fields.get_all(header::CONTENT_LENGTH) {
        let digits = length.as_bytes();
        let is_plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let bytes = length.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        let bytes = bytes.filter(|_| is_plain).ok_or(Refusal::LengthBad)?;
        if *known.get_or_insert(bytes) != bytes {
            return Err(Refusal::LengthsUnlike);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
