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

/// What the origin's answer to a request invalidates, the request's own URL first. Nothing for a
/// safe method and for an error (1xx, 4xx, 5xx). `Location` and `Content-Location` count where
/// they name the same scheme and authority as the request.
#[must_use]
pub fn invalidated(
    method: &Method,
    scheme: &str,
    authority: &str,
    path_and_query: &str,
    status: StatusCode,
    response: &HeaderMap,
) -> Vec<Target> {
    if is_safe(method) || !(status.is_success() || status.is_redirection()) {
        return Vec::new();
    }
    let mut targets = vec![Target::Url(path_and_query.to_owned())];
    for name in [LOCATION, CONTENT_LOCATION] {
        let reference = date::single(response, &name).and_then(|value| value.to_str().ok());
        let url =
            reference.and_then(|text| resolve(text.trim(), scheme, authority, path_and_query));
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

/// A reference as path and query (RFC 3986 section 5.2); None if it leads to another origin or
/// cannot be read.
fn resolve(reference: &str, scheme: &str, authority: &str, base: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (base_path, base_query) = split_query(base);
    let (path, query) = if has_scheme(reference) {
        return of_same_origin(reference, scheme, authority);
    } else if reference.starts_with("//") {
        return of_same_origin(&format!("{scheme}:{reference}"), scheme, authority);
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

fn of_same_origin(absolute: &str, scheme: &str, authority: &str) -> Option<String> {
    let uri: Uri = absolute.parse().ok()?;
    let same_scheme = uri.scheme_str()?.eq_ignore_ascii_case(scheme);
    let other = without_default_port(uri.authority()?.as_str(), scheme);
    let same = other.eq_ignore_ascii_case(without_default_port(authority, scheme));
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    (same_scheme && same).then(|| without_dots(uri.path()) + &query)
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
        let found = invalidated(&method, "http", "a.example:80", "/x/y?z", status, &fields(lines));
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
