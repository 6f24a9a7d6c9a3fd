//! What lets pages on other hosts play from here (Fetch standard, section 3.3): on the title site all
//! of them, since the token in the path is the permission and no cookie or header of the page's is
//! needed; on a proxy site those that the operator names.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// Fields that a page may read. By `Age` hls.js tells how late a live playlist is, and by CMSD
/// (CTA-5006) players learn what servers know.
const EXPOSED: &str = "Age, Alt-Svc, Cache-Status, CMSD-Dynamic, CMSD-Static, Content-Encoding, \
     Content-Length, Content-Range, Date, ETag, Retry-After";
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// For how many seconds a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
/// What an origin may say of who may read its answer.
const SAID: [HeaderName; 7] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    TIMING_ALLOW_ORIGIN,
];

/// Which pages on other hosts may read what a proxy site answers to GET and HEAD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cors {
    /// Those that its origin says.
    #[default]
    Unsaid,
    /// All of them.
    All,
    /// Those of these origins, as browsers name them.
    Of(Vec<HeaderValue>),
}

impl Cors {
    /// Whether it is said here, whatever the origin says: then that is not told who asks.
    pub fn is_said_here(&self) -> bool {
        *self != Self::Unsaid
    }

    /// Whether the answer depends on the page's origin.
    pub fn is_by_origin(&self) -> bool {
        matches!(self, Self::Of(_))
    }

    /// Puts on the answer to a GET or HEAD what lets the page that asks read it.
    pub fn put_on(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        if !self.is_said_here() {
            return;
        }
        for name in SAID {
            answer.remove(name);
        }
        if self.is_by_origin() {
            vary_by_origin(answer);
        }
        if let Some(origin) = self.allowed(request) {
            allow(answer, origin);
        }
    }

    /// The fields of the answer to a preflight of a GET or HEAD; none where it is the origin's to
    /// answer.
    pub fn preflight(&self, request: &HeaderMap) -> Option<HeaderMap> {
        let method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let is_read = method == Method::GET.as_str() || method == Method::HEAD.as_str();
        if !self.is_said_here() || !is_read || !request.contains_key(header::ORIGIN) {
            return None;
        }
        let mut answer = HeaderMap::new();
        answer.insert(header::ALLOW, METHODS);
        if self.is_by_origin() {
            vary_by_origin(&mut answer);
        }
        if let Some(origin) = self.allowed(request) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            if let Some(names) = names(request) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
            }
        }
        Some(answer)
    }

    /// What the page that asks is told of who may read: nothing, if that is others.
    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        match self {
            Self::Unsaid => None,
            Self::All => Some(ANY),
            Self::Of(origins) => {
                let asks = request.get(header::ORIGIN)?;
                origins.iter().find(|origin| *origin == asks).cloned()
            }
        }
    }
}

/// Other caches keep an answer apart for each page's origin, also one to a request without: it is no
/// good to a page.
fn vary_by_origin(answer: &mut HeaderMap) {
    let is_named = answer.get_all(header::VARY).iter().any(|line| {
        let mut names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    });
    if !is_named {
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// The fields that a page asks whether it may send.
fn names(request: &HeaderMap) -> Option<HeaderValue> {
    let lines = request.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let names: Vec<_> = names.map(|name| name.as_str().to_owned()).collect();
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
}

fn allow(answer: &mut HeaderMap, origin: HeaderValue) {
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    answer.insert(TIMING_ALLOW_ORIGIN, origin.clone());
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
}

/// Adds the fields that every answer of the title site carries.
pub fn expose(headers: &mut HeaderMap) {
    allow(headers, ANY);
}

/// Adds the fields of the answer to a preflight of the title site.
pub fn preflight(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ALLOW, METHODS);
    // Range with forms that need a preflight, and CMCD (CTA-5004) as fields.
    let fields =
        "Range, If-Range, If-None-Match, CMCD-Request, CMCD-Object, CMCD-Status, CMCD-Session";
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(fields));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page counts a body's bytes against its length, which is of the encoded form.
    #[test]
    fn a_page_can_tell_an_encoded_body_from_one_that_was_cut() {
        let mut headers = HeaderMap::new();
        expose(&mut headers);
        let exposed = headers[header::ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        for name in ["Content-Length", "Content-Encoding"] {
            assert!(exposed.split(", ").any(|one| one == name), "{name}");
        }
    }

    #[test]
    fn vary_names_the_origin_once() {
        for (given, expected) in [
            (&[][..], &["Origin"][..]),
            (&["Accept-Encoding"], &["Accept-Encoding", "Origin"]),
            (&["Accept", "Accept-Language, origin"], &["Accept", "Accept-Language, origin"]),
            (&["*"], &["*"]),
            (&["X-Origin"], &["X-Origin", "Origin"]),
        ] {
            let lines = given.iter().map(|line| (header::VARY, HeaderValue::from_static(line)));
            let mut headers = HeaderMap::new();
            lines.for_each(|(name, line)| _ = headers.append(name, line));
            vary_by_origin(&mut headers);
            assert_eq!(headers.get_all(header::VARY).iter().collect::<Vec<_>>(), expected);
        }
    }
}
