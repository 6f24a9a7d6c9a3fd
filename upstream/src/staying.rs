//! Where an origin that is told its own host names itself: on the site, that is a path. What it says
//! of another origin stays as it is: a redirect from one to the other would lead to itself. Pure.
//!
//! Invariant: what is made of a URL leads nowhere but to the site that it is answered by.

use crate::hop::Target;
use http::{HeaderMap, HeaderValue, header};

/// The URL of an origin.
#[derive(Clone, Copy)]
pub(crate) struct Base<'a> {
    scheme: &'a str,
    authority: &'a str,
    /// Empty, or starting and not ending with a slash.
    prefix: &'a str,
}

impl<'a> Base<'a> {
    pub(crate) fn of(target: &'a Target) -> Self {
        match target {
            Target::Http { scheme, authority, prefix } => Self { scheme, authority, prefix },
            Target::S3(bucket) => {
                let (scheme, authority) = (bucket.scheme, &*bucket.authority);
                Self { scheme, authority, prefix: bucket.before().trim_end_matches('/') }
            }
        }
    }

    fn is_at(self, scheme: &str, authority: &str) -> bool {
        let port = if self.scheme == "https" { ":443" } else { ":80" };
        let bare = |authority: &'a str| authority.strip_suffix(port).unwrap_or(authority);
        let other = authority.strip_suffix(port).unwrap_or(authority);
        self.scheme.eq_ignore_ascii_case(scheme) && bare(self.authority).eq_ignore_ascii_case(other)
    }

    /// What of a path, with its query and fragment, comes after this one's.
    fn below(self, path: &str) -> Option<String> {
        // A dot segment may lead out of it.
        if !self.prefix.is_empty() && has_dots(path) {
            return None;
        }
        let below = path.strip_prefix(self.prefix)?;
        let mut bytes = below.bytes();
        match (bytes.next(), bytes.next()) {
            (None | Some(b'?' | b'#'), _) => Some(format!("/{below}")),
            // By itself it would name a host (RFC 3986 section 4.2; browsers take `\` for `/`).
            (Some(b'/'), Some(b'/' | b'\\')) => Some(format!("/.{below}")),
            (Some(b'/'), _) => Some(below.to_owned()),
            _ => None,
        }
    }
}

/// Makes paths of what `Location` and `Content-Location` name below the URL of the origin `from`, in
/// an answer of that one.
pub(crate) fn on_site(fields: &mut HeaderMap, from: Base<'_>) {
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let mut values = fields.get_all(&name).iter();
        let (Some(value), None) = (values.next(), values.next()) else { continue };
        let path = value.to_str().ok().and_then(|url| path(url.trim(), from));
        if let Some(path) = path.and_then(|path| HeaderValue::try_from(path).ok()) {
            fields.insert(name, path);
        }
    }
}

/// The path on the site, of a reference that an origin gives; none where that stays as it is.
fn path(url: &str, from: Base<'_>) -> Option<String> {
    // Browsers leave tabs out, and so take for a host what follows one.
    if url.bytes().any(|byte| byte.is_ascii_control()) {
        return None;
    }
    let (scheme, rest) = match url.strip_prefix("//") {
        Some(rest) => (from.scheme, rest),
        None if url.starts_with('/') => {
            return if from.prefix.is_empty() { None } else { from.below(url) };
        }
        None => url.split_once("://")?,
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    from.below(path).filter(|_| from.is_at(scheme, authority))
}

fn has_dots(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let plain = path.to_ascii_lowercase().replace("%2e", ".");
    plain.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Base<'_> = Base { scheme: "http", authority: "10.0.0.1:8000", prefix: "" };
    const TWO: Base<'_> = Base { scheme: "https", authority: "o.example", prefix: "/base" };

    #[test]
    fn what_is_below_an_origin_is_a_path_on_the_site() {
        for (from, url, expected) in [
            (ONE, "http://10.0.0.1:8000/dir/?a=b#c", "/dir/?a=b#c"),
            (ONE, "HTTP://10.0.0.1:8000/dir/", "/dir/"),
            (ONE, "http://10.0.0.1:8000", "/"),
            (ONE, "http://10.0.0.1:8000?a", "/?a"),
            (ONE, "//10.0.0.1:8000/dir/", "/dir/"),
            (ONE, "http://10.0.0.1:8000/a/../b", "/a/../b"),
            (TWO, "https://O.example:443/base/dir/", "/dir/"),
            (TWO, "https://o.example/base", "/"),
            (TWO, "/base/dir/", "/dir/"),
            // Nothing that a client would take for another host.
            (ONE, "http://10.0.0.1:8000//evil.example/", "/.//evil.example/"),
            (ONE, "http://10.0.0.1:8000/\\evil.example/", "/./\\evil.example/"),
            (TWO, "https://o.example/base//evil.example", "/.//evil.example"),
            (TWO, "/base//evil.example/", "/.//evil.example/"),
        ] {
            assert_eq!(path(url, from).as_deref(), Some(expected), "{url}");
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for url in [
            "",
            "dir/",
            "/dir/",
            "?a",
            "http:/dir/",
            "https://10.0.0.1:8000/dir/",
            "http://10.0.0.1/dir/",
            "http://10.0.0.1:80001/dir/",
            "http://user@10.0.0.1:8000/dir/",
            "http://10.0.0.1:8000@evil.example/",
            "http://10.0.0.1:8000.evil.example/",
            "http://10.0.0.1:8000/\t/evil.example/",
            "http://10.0.0.1:8000\t//evil.example/",
            // Of another origin of the site.
            "https://o.example/base/dir/",
        ] {
            assert_eq!(path(url, ONE), None, "{url}");
        }
        for url in [
            "https://o.example/dir/",
            "https://o.example/basement",
            "https://o.example/base/../dir/",
            "https://o.example/base/%2E%2e/dir/",
            "/dir/",
            "/basement",
            "/base/\t/evil.example/",
        ] {
            assert_eq!(path(url, TWO), None, "{url}");
        }
    }
}
