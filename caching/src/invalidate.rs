//! What an unsafe request's answer makes invalid (RFC 9111 section 4.4, RFC 9875 section 2.2).

use crate::date;
use crate::tags::{TAG_BYTES_MAX, TAGS_MAX, groups};
use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode, Uri};

/// Something stored that is not to be used again without asking the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All variants of a URL of the same origin, as path and query.
    Url(String),
    /// All responses of a cache group.
    Group(Box<str>),
}

/// A method that asks for nothing to change (RFC 9110 section 9.2.1, RFC 8144, RFC 3253, RFC
/// 5323). Unknown methods are unsafe.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    const SAFE: [&str; 8] =
        ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"];
    SAFE.contains(&method.as_str())
}

/// Whether who answers is a gateway that does not know what became of a request (RFC 9110 sections
/// 15.6.3 and 15.6.5): of one to change something it may have been carried out.
#[must_use]
pub fn is_of_gateway(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
}

/// What the origin's answer to a request invalidates, the request's own URL first. Nothing for a
/// safe method and for an error (1xx, 4xx, 5xx). `Location` and `Content-Location` count where
/// they name the same scheme and authority as the request, or are below one of the URLs of
/// `origins`: an origin that is not told the client's authority names itself.
#[must_use]
pub fn invalidated(
    method: &Method,
    scheme: &str,
    authority: &str,
    path_and_query: &str,
    origins: &[&str],
    status: StatusCode,
    response: &HeaderMap,
) -> Vec<Target> {
    if is_safe(method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let mut targets = vec![Target::Url(path_and_query.to_owned())];
    for name in [LOCATION, CONTENT_LOCATION] {
        let reference = date::single(response, &name).and_then(|value| value.to_str().ok());
        let own = (scheme, authority, origins);
        let url = reference.and_then(|text| resolve(text.trim(), own, path_and_query));
        let target = url.map(Target::Url).filter(|target| !targets.contains(target));
        targets.extend(target);
    }
    let groups = groups(response, "cache-group-invalidation").into_iter();
    // One longer than any tag that is kept still ends what has tags that are not; that it is
    // longer is all that counts.
    let cut = |group: String| group.chars().take(TAG_BYTES_MAX + 1).collect::<String>();
    let groups = groups.filter(|group| !group.is_empty()).take(TAGS_MAX).map(cut);
    targets.extend(groups.map(|group| Target::Group(group.into())));
    targets
}

/// The scheme and authority of a request, and the URLs of the site's origins.
type Own<'a> = (&'a str, &'a str, &'a [&'a str]);

/// A reference as path and query (RFC 3986 section 5.2); None if it leads to another origin or
/// cannot be read.
fn resolve(reference: &str, own: Own<'_>, base: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (base_path, base_query) = split_query(base);
    let (path, query) = if has_scheme(reference) {
        return of_same_origin(reference, own);
    } else if reference.starts_with("//") {
        return of_same_origin(&format!("{}:{reference}", own.0), own);
    } else if reference.is_empty() {
        (base_path.to_owned(), base_query)
    } else if reference.starts_with('?') {
        (base_path.to_owned(), split_query(reference).1)
    } else {
        let (path, query) = split_query(reference);
        let folder = base_path.rfind('/').map_or("/", |at| &base_path[..=at]);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{folder}{path}") };
        (path, query)
    };
    Some(without_dots(&path) + &query.map(|query| format!("?{query}")).unwrap_or_default())
}

fn split_query(reference: &str) -> (&str, Option<&str>) {
    reference.split_once('?').map_or((reference, None), |(path, query)| (path, Some(query)))
}

fn has_scheme(reference: &str) -> bool {
    let before = reference.split(['/', '?']).next().unwrap_or_default();
    before.contains(':')
}

fn of_same_origin(absolute: &str, (scheme, authority, origins): Own<'_>) -> Option<String> {
    let uri: Uri = absolute.parse().ok()?;
    let path = without_dots(uri.path());
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if is_at(&uri, scheme, authority) {
        return Some(path + &query);
    }
    let path = origins.iter().find_map(|origin| below(&uri, &path, origin))?;
    Some(path.to_owned() + &query)
}

fn is_at(uri: &Uri, scheme: &str, authority: &str) -> bool {
    let (Some(other_scheme), Some(other)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    let other = without_default_port(other.as_str(), scheme);
    other_scheme.eq_ignore_ascii_case(scheme)
        && other.eq_ignore_ascii_case(without_default_port(authority, scheme))
}

/// What of the path of a URL comes after that of an origin's.
fn below<'a>(uri: &Uri, path: &'a str, origin: &str) -> Option<&'a str> {
    let base: Uri = origin.parse().ok()?;
    let is_there = is_at(uri, base.scheme_str()?, base.authority()?.as_str());
    let below = path.strip_prefix(base.path().trim_end_matches('/')).filter(|_| is_there)?;
    below.starts_with('/').then_some(below)
}

fn without_default_port<'a>(authority: &'a str, scheme: &str) -> &'a str {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(authority)
}

/// RFC 3986 section 5.2.4, for a path that begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let last = path.rsplit('/').next().unwrap_or_default();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    if matches!(last, "." | "..") {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_fields::fields;

    fn urls(method: &str, status: u16, lines: &str) -> Vec<String> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        let origins = ["http://10.0.0.1:8080", "https://o.example/films"];
        let fields = fields(lines);
        let found =
            invalidated(&method, "http", "a.example:80", "/x/y?z", &origins, status, &fields);
        let name = |target| match target {
            Target::Url(url) => url,
            Target::Group(group) => format!("group {group}"),
        };
        found.into_iter().map(name).collect()
    }

    /// RFC 9111 section 4.4, and the suite's invalidation tests.
    #[test]
    fn by_method_and_status() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "FOO"] {
            assert_eq!(urls(method, 204, ""), ["/x/y?z"], "{method}");
            assert_eq!(urls(method, 302, ""), ["/x/y?z"], "{method}");
            assert_eq!(urls(method, 500, "Location: /a"), [""; 0], "{method}");
            assert_eq!(urls(method, 404, ""), [""; 0], "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "PROPFIND"] {
            assert_eq!(urls(method, 200, "Cache-Group-Invalidation: \"g\""), [""; 0], "{method}");
        }
    }

    #[test]
    fn locations_of_the_same_origin() {
        let table = [
            ("/a/b?c#d", Some("/a/b?c")),
            ("w", Some("/x/w")),
            ("../w/./v/..", Some("/w/")),
            ("../../../w", Some("/w")),
            ("?q", Some("/x/y?q")),
            ("http://a.example/w", Some("/w")),
            ("HTTP://A.example:80", Some("/")),
            ("//a.example/w?v", Some("/w?v")),
            ("https://a.example/w", None),
            ("http://a.example:81/w", None),
            ("http://b.example/w", None),
            ("http://a.example@b.example/w", None),
            ("mailto:a@b", None),
            ("http://[::1/w", None),
            ("http://10.0.0.1:8080/w?v", Some("/w?v")),
            ("http://10.0.0.1:8080", Some("/")),
            ("//10.0.0.1:8080/w", Some("/w")),
            ("https://10.0.0.1:8080/w", None),
            ("http://10.0.0.1/w", None),
            ("https://O.example:443/films/w", Some("/w")),
            ("https://o.example/films/../w", None),
            ("https://o.example/filmsw", None),
            ("", None),
            ("/x/y?z", None),
        ];
        for (location, wanted) in table {
            let found = urls("POST", 201, &format!("Location: {location}"));
            assert_eq!(found.get(1).map(String::as_str), wanted, "{location}");
        }
        let both = "Location: /a\nContent-Location: /b";
        assert_eq!(urls("POST", 201, both), ["/x/y?z", "/a", "/b"]);
        assert_eq!(urls("POST", 201, "Location: /a\nLocation: /b"), ["/x/y?z"]);
    }

    /// RFC 9875 section 2.2.
    #[test]
    fn groups_are_named_by_the_answer() {
        let lines = "Cache-Group-Invalidation: \"g h\", \"i\"";
        assert_eq!(urls("POST", 200, lines), ["/x/y?z", "group g h", "group i"]);
        assert_eq!(urls("POST", 200, "Cache-Group-Invalidation: g"), ["/x/y?z"]);
    }
}
