//! An S3 bucket as an origin: GET and HEAD of objects, signed with AWS Signature Version 4.
//!
//! Nothing that a client sends is signed or passed on but the object's name, the range and
//! the preconditions: neither a query (`?acl`, `?list-type=2`) nor a body reaches S3.

mod container;
mod credentials;
mod instance;
mod keyfile;
mod path;
mod sign;
mod source;
mod standing;

pub(crate) use credentials::{Credentials, Keys};
pub(crate) use path::canonical;
pub(crate) use source::Source;
pub(crate) use standing::Reason;

use crate::fault::Fault;
use crate::settings::{Place, place};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use jiff::Timestamp;
use serde::Deserialize;
use service::config::ConfigError;
use standing::Standing;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Instant;

/// The hash of an empty body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// How much of an error's body is read, and passed on.
pub(crate) const ERROR_BYTES_MAX: usize = 16 << 10;
/// A server's clock this far from ours is not believed, in seconds: a week.
const SKEW_MAX: i64 = 7 * 86_400;
/// What may be asked of an object, beside its name.
const FIELDS: [HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

/// How to reach S3; what is missing is taken from AWS' environment variables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[serde(expecting = "{ region, endpoint, credentials-file, anonymous }")]
pub struct Settings {
    /// Another server than AWS; buckets are then the first part of the path
    /// [`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`].
    pub endpoint: Option<String>,
    /// Region [`AWS_REGION`, `AWS_DEFAULT_REGION`, else us-east-1].
    pub region: Option<String>,
    /// A credentials file in AWS' format, read again when it changes or its keys expire
    /// [`AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, `AWS_CONTAINER_CREDENTIALS_FULL_URI` or
    /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `AWS_SHARED_CREDENTIALS_FILE`,
    /// `~/.aws/credentials`, the instance metadata service].
    pub credentials_file: Option<PathBuf>,
    /// Whether requests are sent unsigned, for a public bucket.
    pub anonymous: bool,
}

/// Reads an environment variable; empty ones are as though not there.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// A bucket, ready to be asked.
pub(crate) struct Bucket {
    pub(crate) scheme: &'static str,
    pub(crate) authority: String,
    /// What comes before a key in the path, encoded: `/`, `/bucket/`, `/bucket/prefix/`.
    before: String,
    region: String,
    credentials: Option<Arc<Credentials>>,
    standing: Standing,
    /// The server's clock less ours, in seconds.
    skew: AtomicI64,
}

/// A request to sign and send.
pub(crate) struct Signed {
    pub(crate) uri: Uri,
    pub(crate) fields: HeaderMap,
    /// With which keys, to tell whose refusal it was.
    pub(crate) keys: Option<Arc<Keys>>,
}

/// What S3's refusal asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Pass it on: the object is not there.
    Absent,
    /// Pass it on: who asks may not have it.
    Final(Reason),
    /// Once more, with other credentials or another clock.
    Again(Reason),
    /// The bucket can't be asked so, whatever for: what is wrong, and what to set. That is no missing
    /// object.
    Mistaken(String),
}

/// Scheme, authority and prefix of another server than AWS, if one is named for the site at
/// `key`.
///
/// # Errors
/// [`ConfigError::Value`] for what is no HTTP URL.
pub(crate) fn endpoint(
    key: &str,
    settings: &Settings,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(&'static str, String, String)>, ConfigError> {
    let variables =
        || ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].iter().find_map(|name| env(name));
    let Some(endpoint) = settings.endpoint.clone().or_else(variables) else { return Ok(None) };
    let key = format!("{key}.s3.endpoint");
    let expected = "an http:// or https:// URL";
    match place(&key, &endpoint) {
        Ok(Place::Http { scheme, authority, prefix }) => Ok(Some((scheme, authority, prefix))),
        Ok(Place::S3 { .. }) => Err(ConfigError::value(&key, endpoint, expected)),
        Err(ConfigError::Value { key, given, .. }) => {
            Err(ConfigError::value(&key, given, expected))
        }
        Err(error) => Err(error),
    }
}

impl Bucket {
    /// What comes before a key in the path, encoded: `/`, `/bucket/`, `/bucket/prefix/`.
    pub(crate) fn before(&self) -> &str {
        &self.before
    }

    /// A bucket by its name and prefix (empty, or ending in a slash).
    pub(crate) fn new(
        key: &str,
        (bucket, prefix): (&str, &str),
        settings: &Settings,
        credentials: Option<Arc<Credentials>>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let first = |names: &[&str]| names.iter().find_map(|name| env(name));
        let region = settings.region.clone();
        let region = region.or_else(|| first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let (scheme, authority, base) = match endpoint(key, settings, env)? {
            Some((scheme, authority, prefix)) => (scheme, authority, format!("{prefix}/{bucket}/")),
            // A name with dots does not fit the certificate.
            None if bucket.contains('.') => {
                ("https", format!("s3.{region}.amazonaws.com"), format!("/{bucket}/"))
            }
            None => ("https", format!("{bucket}.s3.{region}.amazonaws.com"), "/".to_owned()),
        };
        let before = format!("{base}{}", path::encode(prefix));
        let (standing, skew) = (Standing::default(), AtomicI64::new(0));
        Ok(Self { scheme, authority, before, region, credentials, standing, skew })
    }

    /// The signed request for the object that a client's path names.
    ///
    /// # Errors
    /// [`Fault::NotFound`] if no object can have that name, [`Fault::Refused`] for another
    /// method than GET and HEAD, [`Fault::Unavailable`] without credentials.
    pub(crate) async fn request(
        &self,
        method: &Method,
        path: &str,
        fields: &HeaderMap,
    ) -> Result<Signed, Fault> {
        if method != Method::GET && method != Method::HEAD {
            return Err(Fault::refused(format!("{method} to S3: only GET and HEAD")));
        }
        let object = canonical(path).ok_or_else(|| Fault::NotFound {
            why: format!("no object is named {path:?}").into(),
        })?;
        let path = format!("{}{}", self.before, object.trim_start_matches('/'));
        let keys = match &self.credentials {
            Some(credentials) => Some(credentials.get().await?),
            None => None,
        };
        let mut sent = HeaderMap::new();
        for name in FIELDS {
            if let Some(value) = fields.get(&name) {
                sent.insert(name, value.clone());
            }
        }
        if let Some(keys) = &keys {
            self.sign(method, &path, keys, &mut sent)?;
        }
        let uri = format!("{}://{}{path}", self.scheme, self.authority);
        let uri = uri.parse().map_err(|error| Fault::refused(format!("{uri}: {error}")))?;
        Ok(Signed { uri, fields: sent, keys })
    }

    fn sign(
        &self,
        method: &Method,
        path: &str,
        keys: &Keys,
        fields: &mut HeaderMap,
    ) -> Result<(), Fault> {
        let now = Timestamp::now().as_second().saturating_add(self.skew.load(Relaxed));
        let now = Timestamp::from_second(now).unwrap_or(Timestamp::UNIX_EPOCH);
        let at = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut signed = vec![
            ("host", self.authority.as_str()),
            ("x-amz-content-sha256", EMPTY_SHA256),
            ("x-amz-date", at.as_str()),
        ];
        if let Some(token) = &keys.token {
            signed.push(("x-amz-security-token", token));
        }
        let authorization = sign::authorization(&sign::Signing {
            method: method.as_str(),
            path,
            query: "",
            headers: &signed,
            payload_sha256: EMPTY_SHA256,
            at: &at,
            region: &self.region,
            service: "s3",
            access_key_id: &keys.id,
            secret_access_key: &keys.secret,
        });
        let bad = |_| Fault::refused("the credentials for S3 hold odd characters");
        for (name, value) in &signed[1..] {
            let mut value = HeaderValue::from_str(value).map_err(bad)?;
            value.set_sensitive(*name == "x-amz-security-token");
            fields.insert(HeaderName::from_bytes(name.as_bytes()).expect("a token"), value);
        }
        let mut value = HeaderValue::from_str(&authorization).map_err(bad)?;
        value.set_sensitive(true);
        fields.insert(header::AUTHORIZATION, value);
        Ok(())
    }

    /// What a refusal (3xx, 400, 401, 403, 404) means; sees to it that the next try does better.
    pub(crate) async fn refusal(
        &self,
        head: &http::response::Parts,
        body: &Bytes,
        keys: Option<&Arc<Keys>>,
    ) -> Refusal {
        let body = String::from_utf8_lossy(body);
        let named = |begin: &str, end: &str| {
            body.split_once(begin)?.1.split_once(end).map(|(text, _)| text)
        };
        let code = named("<Code>", "</Code>").unwrap_or_default();
        let region = named("<Region>", "</Region>");
        if let Some(mistake) = self.mistake(head, code, region) {
            return Refusal::Mistaken(mistake);
        }
        if head.status == StatusCode::NOT_FOUND || head.status.is_redirection() {
            return Refusal::Absent;
        }
        let reason = Reason::of(code);
        let is_better = match (reason, &self.credentials, keys) {
            (Reason::Clock, ..) => self.adopt_clock(head),
            // The answer to HEAD has no body that tells.
            (_, Some(credentials), Some(keys))
                if code.is_empty() || self.standing.is_of_keys(reason) =>
            {
                credentials.others_than(keys).await
            }
            _ => false,
        };
        if is_better { Refusal::Again(reason) } else { Refusal::Final(reason) }
    }

    /// What is wrong with where, or how, the bucket is asked, if a refusal is about that. Only the
    /// field tells it of a HEAD.
    fn mistake(
        &self,
        head: &http::response::Parts,
        code: &str,
        region: Option<&str>,
    ) -> Option<String> {
        if code == "NoSuchBucket" {
            return Some("there is no such bucket".to_owned());
        }
        let field = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let is_elsewhere = matches!(code, "PermanentRedirect" | "TemporaryRedirect");
        let asked = &self.region;
        let may_be = head.status.is_redirection() || head.status == StatusCode::BAD_REQUEST;
        let region = region.or_else(|| field("x-amz-bucket-region"));
        match region.filter(|region| region != asked) {
            Some(region) if may_be => Some(format!(
                "the bucket is in region {region:?}, and is asked in {asked:?}: set AWS_REGION, or \
                 the site's s3.region, to {region:?}"
            )),
            _ if is_elsewhere => {
                let to = field("location").map(|to| format!(" ({to:?})")).unwrap_or_default();
                Some(format!(
                    "the bucket is elsewhere, {code}{to}: it is asked in region {asked:?} at {:?}, as \
                     AWS_REGION and the site's s3.region and s3.endpoint say",
                    self.authority
                ))
            }
            _ => None,
        }
    }

    /// A refusal is passed on: whose keys it is about and what to look at, the first time only.
    pub(crate) fn refused(&self, reason: Reason, keys: Option<&Arc<Keys>>) -> Option<String> {
        let is_new =
            self.standing.is_of_keys(reason) && self.standing.refused(reason, keys, Instant::now());
        let source = self.credentials.as_ref().map(|credentials| credentials.source().to_string());
        let source = source.unwrap_or_else(|| "none (anonymous = true)".to_owned());
        is_new.then(|| format!("keys of {source}: {}", reason.advice()))
    }

    /// It has answered who may ask. Whether that is new, after refusals.
    pub(crate) fn taken(&self) -> bool {
        self.standing.taken()
    }

    /// Signs by the server's clock from now on. Returns whether that is another one.
    fn adopt_clock(&self, head: &http::response::Parts) -> bool {
        let date = head.headers.get(header::DATE).and_then(|date| date.to_str().ok());
        let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
            return false;
        };
        let Ok(theirs) = Timestamp::try_from(theirs) else { return false };
        let skew = theirs.as_second() - Timestamp::now().as_second();
        let before = self.skew.load(Relaxed);
        if skew.abs() > SKEW_MAX || (skew - before).abs() < 60 {
            return false;
        }
        tracing::warn!(seconds = skew, server = self.authority, "its clock is not ours");
        self.skew.store(skew, Relaxed);
        true
    }
}

/// Takes out what S3 says for its own clients. What is refused must not be kept by anybody.
pub(crate) fn clean(head: &mut http::response::Parts) {
    let own: Vec<HeaderName> = head
        .headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("x-amz-") && !name.starts_with("x-amz-meta-")
        })
        .cloned()
        .collect();
    for name in own {
        head.headers.remove(name);
    }
    if is_refusal(head.status) {
        for name in ["expires", "cdn-cache-control", "surrogate-control"] {
            head.headers.remove(name);
        }
        head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Whether this may be about the bucket, or who asks, rather than about the object.
pub(crate) fn may_be_refusal(status: StatusCode) -> bool {
    let redirects = [StatusCode::MOVED_PERMANENTLY, StatusCode::TEMPORARY_REDIRECT];
    is_refusal(status) || redirects.contains(&status) || status == StatusCode::NOT_FOUND
}

/// Whether this is about who asks, not about the object.
pub(crate) fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Whether this is about an object, which only who may read it hears of.
pub(crate) fn is_of_an_object(status: StatusCode) -> bool {
    let conditions = [
        StatusCode::NOT_MODIFIED,
        StatusCode::PRECONDITION_FAILED,
        StatusCode::RANGE_NOT_SATISFIABLE,
    ];
    status.is_success() || conditions.contains(&status)
}
