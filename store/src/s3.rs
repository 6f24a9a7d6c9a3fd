//! A store in an S3 bucket. The one file that names `object_store`, which signs requests and
//! speaks S3's XML; connections are ours (`http_pool`).

use crate::backend::{Backend, Entry, Head, Progress, Reading};
use crate::error::{At, Error};
use crate::http_pool::{Failure, Pool, Stage, WAIT_MAX};
use crate::{LIST_ENTRIES_MAX, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as S3Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, RetryConfig,
};
use service::Shutdown;
use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A file up to this size is one request; a larger one is uploaded in parts of it. S3 takes
/// 10,000 parts: 160 GB.
const PART_BYTES: u64 = 16 << 20;
/// Parts of one file that are under way at a time; each takes `PART_BYTES` of memory.
const PARTS_AT_ONCE: usize = 4;
/// Times that a failed request is tried again.
const RETRIES_MAX: usize = 2;
/// No further try starts after this time.
const RETRY_FOR_MAX: Duration = Duration::from_secs(5);
/// Most characters of what a server said that an error repeats.
const WHY_CHARS_MAX: usize = 300;

/// How to reach S3.
#[derive(Clone, Default)]
pub struct S3Settings {
    /// Base URL of another server than AWS; buckets are then the first part of the path.
    pub endpoint: Option<String>,
    /// Region; AWS' default where none is given.
    pub region: Option<String>,
    /// Access key id, with `secret_access_key`. Without both, AWS' own ways are tried (the
    /// credentials of an instance, a task or a web identity).
    pub access_key_id: Option<String>,
    /// Its secret.
    pub secret_access_key: Option<String>,
    /// For temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl S3Settings {
    /// From `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, `AWS_REGION` or `AWS_DEFAULT_REGION`,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
    #[must_use]
    pub fn from_env() -> Self {
        let first = |names: &[&str]| {
            let values = names.iter().filter_map(|name| std::env::var(name).ok());
            values.map(|value| value.trim().to_owned()).find(|value| !value.is_empty())
        };
        Self {
            endpoint: first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
            access_key_id: first(&["AWS_ACCESS_KEY_ID"]),
            secret_access_key: first(&["AWS_SECRET_ACCESS_KEY"]),
            session_token: first(&["AWS_SESSION_TOKEN"]),
        }
    }
}

#[derive(Debug)]
pub(crate) struct S3 {
    url: Arc<str>,
    client: Arc<AmazonS3>,
    /// Comes before every key: empty, or ending in a slash.
    prefix: String,
}

impl S3 {
    pub(crate) fn open(url: Arc<str>, settings: &S3Settings) -> Result<Self> {
        let (bucket, prefix) = parse_url(&url)?;
        let client = builder(&url, &bucket, settings)?.build();
        let client = client.map_err(|error| Error::bad_url(&url, error.to_string()))?;
        Ok(Self { url, client: Arc::new(client), prefix })
    }

    fn at(&self, key: &str) -> At {
        At::new(&self.url, key)
    }

    fn path(&self, key: &str) -> Result<S3Path> {
        let path = S3Path::parse(format!("{}{key}", self.prefix));
        path.map_err(|_| Error::BadKey { at: self.at(key) })
    }

    fn failed(&self, key: &str, error: &object_store::Error) -> Error {
        classify(self.at(key), error)
    }

    /// Uploads the parts of a file; what of it reached the store is listed in order.
    async fn put_parts(
        &self,
        (key, path): (&str, &S3Path),
        id: &String,
        (file, bytes): (Arc<File>, u64),
        progress: &Progress,
        source: &(dyn Fn(io::Error) -> Error + Sync),
    ) -> Result<Vec<PartId>> {
        let parts = (0..bytes.div_ceil(PART_BYTES)).map(|number| {
            let file = file.clone();
            async move {
                let start = number * PART_BYTES;
                let part = read_part(file, start, PART_BYTES.min(bytes - start)).await;
                let part = part.map_err(source)?;
                let (index, length) = (usize::try_from(number).unwrap_or(usize::MAX), part.len());
                let stored = self.client.put_part(path, id, index, PutPayload::from(part)).await;
                let stored = stored.map_err(|error| self.failed(key, &error))?;
                progress(length as u64);
                Ok(stored)
            }
        });
        futures::stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await
    }

    async fn put_large(
        &self,
        (key, path): (&str, &S3Path),
        (file, bytes): (Arc<File>, u64),
        progress: &Progress,
        stop: &Shutdown,
        source: &(dyn Fn(io::Error) -> Error + Sync),
    ) -> Result<()> {
        let failed = |error| self.failed(key, &error);
        let id = self.client.create_multipart(path).await.map_err(failed)?;
        let whole = async {
            let parts = self.put_parts((key, path), &id, (file, bytes), progress, source).await?;
            self.client.complete_multipart(path, &id, parts).await.map_err(failed)?;
            Ok(())
        };
        let done = tokio::select! {
            done = whole => done,
            () = stop.requested() => Err(Error::Stopped { at: self.at(key) }),
        };
        if done.is_err() {
            // Parts of an unfinished upload cost money until somebody removes them.
            if let Err(error) = self.client.abort_multipart(path, &id).await {
                tracing::warn!(%error, key, "an unfinished upload is left in the store");
            }
        }
        done
    }
}

/// `s3://bucket/prefix` as bucket and prefix (empty, or ending in a slash).
fn parse_url(url: &str) -> Result<(String, String)> {
    let bad = || Error::bad_url(url, "s3://bucket or s3://bucket/prefix");
    let rest = url.strip_prefix("s3://").ok_or_else(bad)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    if bucket.is_empty() || bucket.len() > 63 || !bucket.bytes().all(allowed) {
        return Err(bad());
    }
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return Ok((bucket.to_owned(), String::new()));
    }
    if !crate::key::is_valid(prefix) {
        return Err(bad());
    }
    Ok((bucket.to_owned(), format!("{prefix}/")))
}

fn builder(url: &str, bucket: &str, settings: &S3Settings) -> Result<AmazonS3Builder> {
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_FOR_MAX,
    };
    let connector = Connector(Arc::new(
        Pool::new().map_err(|error| Error::bad_url(url, format!("TLS to work: {error}")))?,
    ));
    let explicit = settings.access_key_id.is_some() || settings.secret_access_key.is_some();
    // AWS' own ways of finding credentials are read from the environment only without keys.
    let base = if explicit { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() };
    let mut builder =
        base.with_bucket_name(bucket).with_retry(retry).with_http_connector(connector);
    if let Some(endpoint) = &settings.endpoint {
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            let expected =
                format!("AWS_ENDPOINT_URL to start with http:// or https:// (it is {endpoint:?})");
            return Err(Error::bad_url(url, expected));
        }
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(true)
            .with_virtual_hosted_style_request(false);
    }
    for (value, set) in [
        (&settings.region, AmazonS3Builder::with_region as fn(_, String) -> _),
        (&settings.access_key_id, AmazonS3Builder::with_access_key_id),
        (&settings.secret_access_key, AmazonS3Builder::with_secret_access_key),
        (&settings.session_token, AmazonS3Builder::with_token),
    ] {
        if let Some(value) = value {
            builder = set(builder, value.clone());
        }
    }
    Ok(builder)
}

/// Bytes of a file, read where that may block.
async fn read_part(file: Arc<File>, start: u64, bytes: u64) -> io::Result<Bytes> {
    let length = usize::try_from(bytes).map_err(io::Error::other)?;
    let read = move || {
        let mut part = vec![0; length];
        file.read_exact_at(&mut part, start).map(|()| Bytes::from(part))
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// Where credentials are asked for when the environment holds none.
const INSTANCE_METADATA: &str = "169.254.169.254";
/// S3 servers' codes for "no room left" (AWS has none).
const FULL: [&str; 3] = ["QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"];

/// What an error of S3 means for the caller.
fn classify(at: At, error: &object_store::Error) -> Error {
    use object_store::Error as S3Error;
    let why = explain(error);
    // A missing bucket answers 404, too: that must not look like a missing object.
    if why.contains("NoSuchBucket") {
        return Error::Unavailable { at, why: "there is no such bucket".to_owned() };
    }
    if why.contains(INSTANCE_METADATA) {
        let why = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned();
        return Error::Refused { at, why };
    }
    if let Some(failure) = find::<Failure>(error) {
        return match failure.stage {
            Stage::TimedOut => Error::TimedOut { at, after: WAIT_MAX },
            Stage::Connect | Stage::Broken => Error::Unavailable { at, why: failure.to_string() },
        };
    }
    match error {
        S3Error::NotFound { .. } => Error::NotFound { at },
        S3Error::AlreadyExists { .. } | S3Error::Precondition { .. } => Error::AlreadyExists { at },
        S3Error::PermissionDenied { .. } | S3Error::Unauthenticated { .. } => {
            Error::Refused { at, why }
        }
        // A listing's refusal has no variant of its own.
        _ if why.contains("code: 403 ") || why.contains("code: 401 ") => Error::Refused { at, why },
        _ if FULL.iter().any(|code| why.contains(code)) => Error::Full { at },
        _ => Error::Unavailable { at, why },
    }
}

/// The causes of an error, from the outside in, shortened.
fn explain(error: &object_store::Error) -> String {
    error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(WHY_CHARS_MAX)
        .collect()
}

/// The cause of type `E` behind an error.
fn find<E: StdError + 'static>(error: &object_store::Error) -> Option<&E> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[async_trait]
impl Backend for S3 {
    async fn head(&self, key: &str) -> Result<Head> {
        let path = self.path(key)?;
        let meta = match self.client.head(&path).await {
            Ok(meta) => meta,
            // An answer to HEAD has no body to tell a missing bucket, or the reason of a
            // refusal: the answer to GET has.
            Err(_) => {
                let options =
                    GetOptions { range: Some(GetRange::Bounded(0..1)), ..GetOptions::default() };
                let got = self.client.get_opts(&path, options).await;
                got.map_err(|error| self.failed(key, &error))?.meta
            }
        };
        Ok(Head { bytes: meta.size, etag: meta.e_tag.unwrap_or_default() })
    }

    async fn read(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading> {
        let out_of_range = |range| Error::OutOfRange { at: self.at(key), range };
        let options =
            GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
        let got = match self.client.get_opts(&self.path(key)?, options).await {
            Ok(got) => got,
            Err(error) => {
                // The client does not tell the status of a refusal (416): the size does.
                let past_end = async |range: &Range<u64>| {
                    self.head(key).await.is_ok_and(|head| range.end > head.bytes)
                };
                return Err(match range {
                    Some(range) if past_end(&range).await => out_of_range(range),
                    _ => self.failed(key, &error),
                });
            }
        };
        let head = Head { bytes: got.meta.size, etag: got.meta.e_tag.clone().unwrap_or_default() };
        let wanted = range.unwrap_or(0..head.bytes);
        if got.range != wanted {
            return Err(out_of_range(wanted));
        }
        let at = self.at(key);
        let pieces = got.into_stream().map_err(move |error| classify(at.clone(), &error));
        Ok(Reading { head, stream: whole(pieces.boxed(), wanted, self.at(key)).boxed() })
    }

    async fn put_file(
        &self,
        key: &str,
        file: &Path,
        progress: Progress,
        stop: &Shutdown,
    ) -> Result<()> {
        let path = self.path(key)?;
        let source = |error| Error::Source { path: file.to_owned(), source: error };
        let opened = File::open(file).map_err(source)?;
        let bytes = opened.metadata().map_err(source)?.len();
        let opened = Arc::new(opened);
        if bytes > PART_BYTES {
            return self.put_large((key, &path), (opened, bytes), &progress, stop, &source).await;
        }
        let payload = PutPayload::from(read_part(opened, 0, bytes).await.map_err(source)?);
        tokio::select! {
            done = self.client.put(&path, payload) => {
                done.map_err(|error| self.failed(key, &error))?;
            }
            () = stop.requested() => return Err(Error::Stopped { at: self.at(key) }),
        }
        progress(bytes);
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(key)?;
        let put = self.client.put_opts(&path, bytes.into(), PutMode::Create.into());
        put.await.map(|_| ()).map_err(|error| self.failed(key, &error))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let folder = format!("{}{prefix}", self.prefix);
        let folder = S3Path::parse(folder.trim_end_matches('/'));
        let folder = folder.map_err(|_| Error::BadKey { at: self.at(prefix) })?;
        let mut listing = self.client.list(Some(&folder));
        let mut entries = Vec::new();
        while let Some(meta) = listing.next().await {
            let meta = meta.map_err(|error| self.failed(prefix, &error))?;
            if entries.len() == LIST_ENTRIES_MAX {
                let at = self.at(prefix);
                return Err(Error::TooMany { at, entries_max: LIST_ENTRIES_MAX });
            }
            let key = meta.location.as_ref().strip_prefix(&self.prefix);
            if let Some(key) = key.filter(|key| crate::key::is_valid(key)) {
                entries.push(Entry { key: key.to_owned(), bytes: meta.size });
            }
        }
        Ok(entries)
    }
}

/// The same pieces, with an error at the end if they are fewer bytes than `wanted`.
fn whole(
    pieces: futures::stream::BoxStream<'static, Result<Bytes>>,
    wanted: Range<u64>,
    at: At,
) -> impl futures::Stream<Item = Result<Bytes>> {
    futures::stream::try_unfold((pieces, wanted.end - wanted.start), move |(mut pieces, left)| {
        let at = at.clone();
        async move {
            let cut = |why: &str| Error::Corrupt { at: at.clone(), why: why.to_owned() };
            match pieces.try_next().await? {
                None if left == 0 => Ok(None),
                None => Err(cut("it has fewer bytes than it said")),
                Some(piece) => match left.checked_sub(piece.len() as u64) {
                    Some(left) => Ok(Some((piece, (pieces, left)))),
                    None => Err(cut("it has more bytes than it said")),
                },
            }
        }
    })
}

/// Our pool, as `object_store` wants it.
#[derive(Debug, Clone)]
struct Connector(Arc<Pool<HttpRequestBody>>);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let body_bytes = request.body().content_length() as u64;
        let response = self.0.send(request, body_bytes).await.map_err(http_error)?;
        Ok(response.map(|body| HttpResponseBody::new(body.map_err(http_error))))
    }
}

fn http_error(failure: Failure) -> HttpError {
    let kind = match failure.stage {
        Stage::Connect => HttpErrorKind::Connect,
        Stage::Broken => HttpErrorKind::Interrupted,
        Stage::TimedOut => HttpErrorKind::Timeout,
    };
    HttpError::new(kind, failure)
}

#[cfg(test)]
mod tests {
    use super::parse_url;

    #[test]
    fn urls_of_buckets() {
        let parsed = |url| parse_url(url).map(|(bucket, prefix)| format!("{bucket} {prefix}")).ok();
        assert_eq!(parsed("s3://films").as_deref(), Some("films "));
        assert_eq!(parsed("s3://films/").as_deref(), Some("films "));
        assert_eq!(parsed("s3://films/a/b/").as_deref(), Some("films a/b/"));
        for bad in
            ["s3://", "s3:films", "s3:///a", "s3://Films", "s3://key:secret@films", "s3://a/../b"]
        {
            assert_eq!(parsed(bad), None, "{bad:?} was taken");
        }
    }
}
