//! Credentials for S3: where they come from, when they are asked for again, by one task at a
//! time whatever the number of requests that wait for them.

use super::Settings;
use crate::fault::{ErrorType, Fault};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use serde::Deserialize;
use service::config::ConfigError;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex as AsyncMutex;

/// The longest wait for whoever gives credentials.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// An answer, or a file, with credentials is no longer than this.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// New ones are asked for this long before the old expire, or for the last quarter of their
/// life where that is shorter.
const AHEAD: Duration = Duration::from_secs(300);
/// A file without an expiry is looked at again after this time.
const FILE_LOOK: Duration = Duration::from_secs(60);
/// After a failure nobody asks again for this long.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// The server's refusal makes us ask ahead of time at most this often.
const REFUSED_EVERY: Duration = Duration::from_secs(30);

/// An identity. No log shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// The credentials of a site.
pub(crate) struct Credentials {
    source: Source,
    known: Mutex<Known>,
    asking: AsyncMutex<()>,
    refreshed: Box<dyn Fn(bool) + Send + Sync>,
}

#[derive(Default)]
struct Known {
    held: Option<Held>,
    failed: Option<(Instant, Fault)>,
    refused: Option<Instant>,
}

enum Source {
    /// They never change.
    Fixed(Arc<Keys>),
    File {
        path: PathBuf,
        profile: String,
    },
    Server {
        url: String,
        token: Option<Token>,
    },
}

enum Token {
    Given(String),
    File(PathBuf),
}

/// Credentials, and until when by both clocks: the wall clock may stand still, or jump.
#[derive(Clone)]
struct Held {
    keys: Arc<Keys>,
    /// From then on new ones are wanted.
    renew: Option<(SystemTime, Instant)>,
    /// From then on they are refused.
    expire: Option<(SystemTime, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Good,
    Renew,
    Expired,
}

impl Held {
    fn new(keys: Keys, expires: Option<SystemTime>, wall: SystemTime, now: Instant) -> Self {
        let keys = Arc::new(keys);
        let Some(expires) = expires else {
            let look = (wall + FILE_LOOK, now + FILE_LOOK);
            return Self { keys, renew: Some(look), expire: None };
        };
        let life = expires.duration_since(wall).unwrap_or_default();
        let ahead = AHEAD.min(life / 4);
        let renew = (expires - ahead, now + (life - ahead));
        Self { keys, renew: Some(renew), expire: Some((expires, now + life)) }
    }

    fn age(&self, wall: SystemTime, now: Instant) -> Age {
        let reached = |at: Option<(SystemTime, Instant)>| {
            at.is_some_and(|(by_wall, by_clock)| wall >= by_wall || now >= by_clock)
        };
        if reached(self.expire) {
            Age::Expired
        } else if reached(self.renew) {
            Age::Renew
        } else {
            Age::Good
        }
    }
}

impl Credentials {
    /// From what the settings and the environment name; `None` if requests go unsigned.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] when there is nothing.
    pub(crate) fn find(
        key: &str,
        settings: &Settings,
        env: &dyn Fn(&str) -> Option<String>,
        refreshed: impl Fn(bool) + Send + Sync + 'static,
    ) -> Result<Option<Arc<Self>>, ConfigError> {
        if settings.anonymous {
            return Ok(None);
        }
        let source = source(key, settings, env)?;
        let known = Mutex::new(Known::default());
        let refreshed = Box::new(refreshed);
        Ok(Some(Arc::new(Self { source, known, asking: AsyncMutex::new(()), refreshed })))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Credentials that are good now.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when there are none to be had.
    pub(crate) async fn get(&self) -> Result<Arc<Keys>, Fault> {
        if let Source::Fixed(keys) = &self.source {
            return Ok(keys.clone());
        }
        let held = self.known().held.clone();
        let age = held.as_ref().map(|held| held.age(SystemTime::now(), Instant::now()));
        let asking = match (held, age) {
            (Some(held), Some(Age::Good)) => return Ok(held.keys),
            // One asks for new ones, the others go on with what there is.
            (Some(held), Some(Age::Renew)) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(held.keys),
            },
            _ => self.asking.lock().await,
        };
        let answer = self.renew().await;
        drop(asking);
        answer
    }

    /// Asks for new ones, unless somebody just did. The caller holds `asking`.
    async fn renew(&self) -> Result<Arc<Keys>, Fault> {
        let (wall, now) = (SystemTime::now(), Instant::now());
        let usable = |held: Option<&Held>, worst| {
            let held = held.filter(|held| held.age(wall, now) as u8 <= worst as u8);
            held.map(|held| held.keys.clone())
        };
        {
            let known = self.known();
            if let Some(keys) = usable(known.held.as_ref(), Age::Good) {
                return Ok(keys);
            }
            if let Some((at, fault)) = &known.failed
                && now.duration_since(*at) < FAILED_FOR
            {
                return usable(known.held.as_ref(), Age::Renew).ok_or_else(|| fault.clone());
            }
        }
        let asked = self.ask().await;
        (self.refreshed)(asked.is_ok());
        let mut known = self.known();
        match asked {
            Ok((keys, expires)) => {
                let held = Held::new(keys, expires, SystemTime::now(), Instant::now());
                if held.age(SystemTime::now(), Instant::now()) == Age::Expired {
                    let fault = unavailable("the credentials for S3 have expired already");
                    known.failed = Some((Instant::now(), fault.clone()));
                    return Err(fault);
                }
                let keys = held.keys.clone();
                (known.held, known.failed) = (Some(held), None);
                Ok(keys)
            }
            Err(fault) => {
                tracing::warn!(%fault, "no new credentials for S3");
                known.failed = Some((Instant::now(), fault.clone()));
                usable(known.held.as_ref(), Age::Renew).ok_or(fault)
            }
        }
    }

    /// The server refused these keys: whether it is worth asking with others.
    pub(crate) fn refused(&self, keys: &Arc<Keys>) -> bool {
        if matches!(self.source, Source::Fixed(_)) {
            return false;
        }
        let now = Instant::now();
        let mut known = self.known();
        let others = known.held.as_ref().is_none_or(|held| held.keys != *keys);
        if others {
            return true;
        }
        if known.refused.is_some_and(|at| now.duration_since(at) < REFUSED_EVERY) {
            return false;
        }
        known.refused = Some(now);
        known.held = None;
        true
    }

    async fn ask(&self) -> Result<(Keys, Option<SystemTime>), Fault> {
        match &self.source {
            Source::Fixed(keys) => Ok(((**keys).clone(), None)),
            Source::File { path, profile } => {
                let text = read(path.clone()).await?;
                from_file(&text, profile).ok_or_else(|| {
                    let path = path.display();
                    unavailable(format!("{path}: no keys for profile {profile:?}"))
                })
            }
            Source::Server { url, token } => {
                let token = match token {
                    None => None,
                    Some(Token::Given(token)) => Some(token.clone()),
                    Some(Token::File(path)) => Some(read(path.clone()).await?.trim().to_owned()),
                };
                tokio::time::timeout(ANSWER_MAX, from_server(url, token))
                    .await
                    .unwrap_or_else(|_| Err(unavailable(format!("{url}: no answer in time"))))
            }
        }
    }
}

fn unavailable(why: impl fmt::Display) -> Fault {
    Fault::unavailable(ErrorType::ProxyConfigurationError, why)
}

fn source(
    key: &str,
    settings: &Settings,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Source, ConfigError> {
    let profile = env("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    if let Some(path) = settings.credentials_file.clone() {
        return Ok(Source::File { path, profile });
    }
    if let Some((id, secret)) = env("AWS_ACCESS_KEY_ID").zip(env("AWS_SECRET_ACCESS_KEY")) {
        let token = env("AWS_SESSION_TOKEN");
        return Ok(Source::Fixed(Arc::new(Keys { id, secret, token })));
    }
    let full = env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let relative = env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let relative = relative.map(|path| format!("http://169.254.170.2{path}"));
    if let Some(url) = full.or(relative) {
        if !is_near(&url) {
            let expected = "https://, or http:// of this machine or its credentials server";
            let key = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
            return Err(ConfigError::value(key, url, expected));
        }
        let file = env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let file = file.map(|path| Token::File(path.into()));
        let token = file.or_else(|| env("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Token::Given));
        return Ok(Source::Server { url, token });
    }
    let shared = env("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let home = env("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
    match shared.or_else(|| home.filter(|path| path.is_file())) {
        Some(path) => Ok(Source::File { path, profile }),
        None => Err(ConfigError::missing(
            &format!("{key}.s3.credentials-file"),
            "a file, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or \
             anonymous = true for a public bucket",
        )),
    }
}

/// A credentials server that may be asked without TLS: AWS' own rule.
fn is_near(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let near = |host: url::Host<&str>| match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(ip) => {
            ip.is_loopback() || [[169, 254, 170, 2], [169, 254, 170, 23]].contains(&ip.octets())
        }
        url::Host::Ipv6(ip) => {
            ip.is_loopback() || ip.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]
        }
    };
    url.scheme() == "https" || (url.scheme() == "http" && url.host().is_some_and(near))
}

async fn read(path: PathBuf) -> Result<String, Fault> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || {
        if std::fs::metadata(&path)?.len() > ANSWER_BYTES_MAX as u64 {
            return Err(std::io::Error::other("too large for credentials"));
        }
        std::fs::read_to_string(path)
    });
    let read = read.await.map_err(|error| unavailable(format!("{shown}: {error}")))?;
    read.map_err(|error| unavailable(format!("{shown}: {error}")))
}

/// A profile of a credentials file in AWS' format.
fn from_file(text: &str, profile: &str) -> Option<(Keys, Option<SystemTime>)> {
    let mut here = false;
    let mut keys = Keys { id: String::new(), secret: String::new(), token: None };
    let mut expires = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            here = name.trim() == profile;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| here) else { continue };
        let value = value.trim().to_owned();
        match name.trim() {
            "aws_access_key_id" => keys.id = value,
            "aws_secret_access_key" => keys.secret = value,
            "aws_session_token" => keys.token = Some(value),
            "expiration" | "aws_expiration" | "x_security_token_expires" => {
                expires = Some(SystemTime::from(value.parse::<Timestamp>().ok()?));
            }
            _ => {}
        }
    }
    (!keys.id.is_empty() && !keys.secret.is_empty()).then_some((keys, expires))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<Timestamp>,
}

async fn from_server(
    url: &str,
    token: Option<String>,
) -> Result<(Keys, Option<SystemTime>), Fault> {
    let bad = |error: &dyn fmt::Display| unavailable(format!("{url}: {error}"));
    let client = service::client::Client::new(ANSWER_MAX, None, None).map_err(|e| bad(&e))?;
    let mut request = http::Request::get(url);
    if let Some(token) = token {
        request = request.header(http::header::AUTHORIZATION, token);
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|e| bad(&e))?;
    let response = client.send(request).await.map_err(|e| bad(&e))?;
    if !response.status().is_success() {
        return Err(bad(&response.status()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|e| bad(&e))?.to_bytes();
    let given: Given = serde_json::from_slice(&body)
        // What serde shows of the text may be a secret.
        .map_err(|e| bad(&format!("not credentials, at {}:{}", e.line(), e.column())))?;
    let keys =
        Keys { id: given.access_key_id, secret: given.secret_access_key, token: given.token };
    Ok((keys, given.expiration.map(SystemTime::from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn keys(id: &str) -> Keys {
        Keys { id: id.to_owned(), secret: "s".to_owned(), token: None }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn either_clock_ends_them() {
        let (wall, now) = (SystemTime::now(), Instant::now());
        let held = Held::new(keys("a"), Some(wall + secs(3600)), wall, now);
        assert_eq!(held.age(wall, now), Age::Good);
        assert_eq!(held.age(wall + secs(3301), now), Age::Renew);
        // A wall clock that stands still, and one that jumps.
        assert_eq!(held.age(wall, now + secs(3301)), Age::Renew);
        assert_eq!(held.age(wall, now + secs(3600)), Age::Expired);
        assert_eq!(held.age(wall + secs(3600), now), Age::Expired);
        let short = Held::new(keys("a"), Some(wall + secs(40)), wall, now);
        assert_eq!(short.age(wall + secs(29), now + secs(29)), Age::Good);
        assert_eq!(short.age(wall + secs(30), now + secs(30)), Age::Renew);
        let late = Held::new(keys("a"), Some(wall - secs(1)), wall, now);
        assert_eq!(late.age(wall, now), Age::Expired);
    }

    #[test]
    fn files_have_profiles_and_an_expiry() {
        let text = "[default]\naws_access_key_id = A\naws_secret_access_key=B\n\n[other]\n\
                    aws_access_key_id=C\naws_secret_access_key=D=\naws_session_token = E\n\
                    expiration = 2026-01-02T03:04:05Z\n";
        let (first, never) = from_file(text, "default").unwrap();
        assert_eq!((first.id.as_str(), first.secret.as_str(), never), ("A", "B", None));
        let (other, expires) = from_file(text, "other").unwrap();
        assert_eq!((other.secret.as_str(), other.token.as_deref()), ("D=", Some("E")));
        assert!(expires.is_some());
        assert!(from_file(text, "third").is_none());
    }

    #[test]
    fn a_plain_credentials_server_is_near() {
        for good in [
            "http://127.0.0.1:9/x",
            "http://[::1]/",
            "http://169.254.170.23/v1",
            "https://a.example/",
        ] {
            assert!(is_near(good), "{good}");
        }
        for bad in ["http://a.example/", "http://10.0.0.1/", "ftp://127.0.0.1/", "x"] {
            assert!(!is_near(bad), "{bad}");
        }
    }

    /// A credentials server that gives keys for `lives`, and counts.
    async fn server(lives: Duration) -> (String, Arc<AtomicUsize>) {
        let listener = service::listen::bind("127.0.0.1:0".parse().unwrap(), "test").unwrap();
        let url = format!("http://{}/role", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let answer = async move |fields: http::HeaderMap| {
            let number = count.fetch_add(1, SeqCst) + 1;
            if fields.get("authorization").is_none_or(|token| token != "the-token") {
                return Err(http::StatusCode::UNAUTHORIZED);
            }
            let expires = Timestamp::try_from(SystemTime::now() + lives).unwrap();
            Ok(format!(
                "{{\"AccessKeyId\":\"key-{number}\",\"SecretAccessKey\":\"s\",\
                 \"Token\":\"t\",\"Expiration\":\"{expires}\"}}"
            ))
        };
        let router = axum::Router::new().route("/role", axum::routing::get(answer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, asked)
    }

    fn from_env(of: impl Fn(&str) -> Option<String>) -> Result<Arc<Credentials>, ConfigError> {
        let found = Credentials::find("edge.sites.a", &Settings::default(), &of, |_| {});
        found.map(|found| found.expect("not anonymous"))
    }

    #[tokio::test]
    async fn a_hundred_requests_ask_a_credentials_server_once() {
        let (url, asked) = server(secs(3600)).await;
        let credentials = from_env(|name| match name {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI" => Some(url.clone()),
            "AWS_CONTAINER_AUTHORIZATION_TOKEN" => Some("the-token".to_owned()),
            _ => None,
        })
        .unwrap();
        let get = || {
            let credentials = credentials.clone();
            tokio::spawn(async move { credentials.get().await })
        };
        let tasks: Vec<_> = (0..100).map(|_| get()).collect();
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().id, "key-1");
        }
        assert_eq!(asked.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_all_who_wait_for_it() {
        let (url, asked) = server(secs(3600)).await;
        let full = |name: &str| (name == "AWS_CONTAINER_CREDENTIALS_FULL_URI").then(|| url.clone());
        let credentials = from_env(full).unwrap();
        let gets = (0..50).map(|_| credentials.get());
        for got in futures::future::join_all(gets).await {
            let fault = got.unwrap_err();
            assert!(fault.to_string().contains("401"), "{fault}");
        }
        assert_eq!(asked.load(SeqCst), 1);
    }

    #[test]
    fn where_keys_are_looked_for() {
        let error = from_env(|_| None).err().unwrap().to_string();
        assert!(error.starts_with("edge.sites.a.s3.credentials-file is missing"), "{error}");
        let far = |name: &str| name.ends_with("FULL_URI").then(|| "http://10.0.0.1/".to_owned());
        let error = from_env(far).err().unwrap().to_string();
        assert!(error.starts_with("AWS_CONTAINER_CREDENTIALS_FULL_URI"), "{error}");
        let fixed = |name: &str| Some(format!("value of {name}"));
        let source = from_env(fixed).unwrap();
        assert!(matches!(&source.source, Source::Fixed(keys) if keys.token.is_some()));
    }
}
