//! Where an origin is: its URL, checked.

use service::config::ConfigError;
use std::fmt;
use url::Url;

/// Where an origin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Http {
        /// `http` or `https`.
        scheme: &'static str,
        /// Host, and port where it is not the scheme's own.
        authority: String,
        /// Empty, or starting and not ending with a slash.
        prefix: String,
    },
    S3 {
        bucket: String,
        /// Empty, or not starting and ending with a slash.
        prefix: String,
    },
}

/// Checks the URL of an origin that stands at `key`.
///
/// # Errors
/// [`ConfigError::Value`] says what is allowed.
pub fn check_url(key: &str, url: &str) -> Result<(), ConfigError> {
    place(key, url).map(|_| ())
}

pub(crate) fn place(key: &str, text: &str) -> Result<Place, ConfigError> {
    if let Some(rest) = text.strip_prefix("s3://") {
        return bucket(rest)
            .ok_or_else(|| ConfigError::value(key, text, "s3://bucket or s3://bucket/prefix"));
    }
    let expected = "http://host[:port][/path], https://host[:port][/path] or s3://bucket[/prefix]";
    http_place(text).ok_or_else(|| {
        let (shown, is_more) = without_secrets(text);
        let more = if is_more { ", without user, password, query and fragment" } else { "" };
        ConfigError::value(key, shown, format!("{expected}{more}"))
    })
}

/// A URL as it may be told: what stands before an `@`, or after a `?` or `#`, may be a password or a
/// signature. Whether there is any of these.
fn without_secrets(text: &str) -> (String, bool) {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            (format!("{scheme}://"), rest)
        }
        _ => (String::new(), text),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    let (rest, mark) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], format!("{}***", &rest[at..=at])),
        None => (rest, String::new()),
    };
    (format!("{scheme}{user}{rest}{mark}"), !(user.is_empty() && mark.is_empty()))
}

fn http_place(text: &str) -> Option<Place> {
    let url = Url::parse(text).ok()?;
    let scheme = match url.scheme() {
        "http" => "http",
        "https" => "https",
        _ => return None,
    };
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain {
        return None;
    }
    let host = url.host_str()?;
    let authority = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
    let prefix = url.path().trim_end_matches('/').to_owned();
    authority.parse::<http::uri::Authority>().ok()?;
    Some(Place::Http { scheme, authority, prefix })
}

fn bucket(rest: &str) -> Option<Place> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    if bucket.is_empty() || bucket.len() > 63 || !bucket.bytes().all(allowed) {
        return None;
    }
    let prefix = prefix.trim_matches('/');
    let whole = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.bytes().any(|b| b.is_ascii_control())
    };
    if prefix.is_empty() {
        return Some(Place::S3 { bucket: bucket.to_owned(), prefix: String::new() });
    }
    let good = prefix.split('/').all(whole);
    good.then(|| Place::S3 { bucket: bucket.to_owned(), prefix: format!("{prefix}/") })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { scheme, authority, prefix } => {
                write!(f, "{scheme}://{authority}{prefix}")
            }
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => {
                write!(f, "s3://{bucket}/{}", prefix.trim_end_matches('/'))
            }
        }
    }
}
