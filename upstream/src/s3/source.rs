//! Where credentials for S3 come from: chosen once, from the settings and the variables that all
//! of AWS' programs heed. What can't be told before it is asked is said in a [`Source::note`].

use super::credentials::Keys;
use super::{Settings, container, instance, keyfile};
use crate::fault::{ErrorType, Fault};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use serde::Deserialize;
use service::client::Client;
use service::config::ConfigError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest wait for whoever gives credentials, all its questions together.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A file is read again this long after it was read because a bucket had refused its keys, and a
/// server is asked again. Both are near; each asking of the latter may be three requests.
const FILE_PAUSE: Duration = Duration::from_secs(1);
const SERVER_PAUSE: Duration = Duration::from_secs(5);
/// An answer, or a file, with credentials is no longer than this.
pub(super) const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Keys, and when they expire if they do.
pub(super) type Given = (Keys, Option<SystemTime>);

/// Who gives credentials.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// They never change.
    Fixed(Arc<Keys>),
    /// A file in AWS' format.
    File { path: PathBuf, profile: String },
    /// A container's credentials server.
    Container { url: String, token: Option<container::Token> },
    /// The machine's metadata service; the URL ends in no slash.
    Instance { endpoint: String },
}

impl Source {
    /// What the settings of the site at `key` and the environment name; `None` if requests go
    /// unsigned. The metadata service is the last to be thought of, as everywhere with AWS.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] when there is nothing, and the metadata service is disabled;
    /// [`ConfigError::Value`] for a variable that is not as it should be.
    pub(crate) fn find(
        key: &str,
        settings: &Settings,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ConfigError> {
        if settings.anonymous {
            return Ok(None);
        }
        let profile = env("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        if let Some(path) = settings.credentials_file.clone() {
            return Ok(Some(Self::File { path, profile }));
        }
        if let Some((id, secret)) = env("AWS_ACCESS_KEY_ID").zip(env("AWS_SECRET_ACCESS_KEY")) {
            let token = env("AWS_SESSION_TOKEN");
            return Ok(Some(Self::Fixed(Arc::new(Keys { id, secret, token }))));
        }
        if let Some(found) = container::find(env)? {
            return Ok(Some(found));
        }
        let shared = env("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let home = env("HOME").map(|home| PathBuf::from(home).join(".aws/credentials"));
        if let Some(path) = shared.or_else(|| home.filter(|path| path.is_file())) {
            return Ok(Some(Self::File { path, profile }));
        }
        if let Some(found) = instance::find(env)? {
            return Ok(Some(found));
        }
        Err(ConfigError::missing(
            &format!("{key}.s3.credentials-file"),
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, a file, or \
             anonymous = true for a public bucket (AWS_EC2_METADATA_DISABLED forbids to ask the \
             instance)",
        ))
    }

    /// What an operator should know before the first request, if anything: keys that are not
    /// there now, though they may be later. Reads the file, asks nobody.
    pub(crate) fn note(&self) -> Option<String> {
        match self {
            Self::Fixed(_) | Self::Container { .. } => None,
            Self::File { path, profile } => {
                keyfile::read_now(path, profile).err().map(|why| format!("no credentials: {why}"))
            }
            Self::Instance { endpoint } => Some(format!(
                "no credentials in the settings or the environment: they are asked of the \
                 instance metadata service at {endpoint}, which answers on EC2 only (for a \
                 public bucket set anonymous = true)"
            )),
        }
    }

    /// How often it is asked for others than a bucket refuses; not at all where there never are.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self {
            Self::Fixed(_) => None,
            Self::File { .. } => Some(FILE_PAUSE),
            Self::Container { .. } | Self::Instance { .. } => Some(SERVER_PAUSE),
        }
    }

    /// Credentials, now.
    pub(super) async fn ask(&self) -> Result<Given, Fault> {
        let asked = async {
            match self {
                Self::Fixed(keys) => Ok(((**keys).clone(), None)),
                Self::File { path, profile } => keyfile::ask(path, profile).await,
                Self::Container { url, token } => container::ask(url, token.as_ref()).await,
                Self::Instance { endpoint } => instance::ask(endpoint).await,
            }
        };
        let in_time = tokio::time::timeout(ANSWER_MAX, asked).await;
        in_time.unwrap_or_else(|_| Err(unavailable(format!("{self}: no answer in time"))))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(_) => f.write_str("the environment"),
            Self::File { path, .. } => path.display().fmt(f),
            Self::Container { url, .. } => f.write_str(url),
            Self::Instance { endpoint } => f.write_str(endpoint),
        }
    }
}

pub(super) fn unavailable(why: impl fmt::Display) -> Fault {
    Fault::unavailable(ErrorType::ProxyConfigurationError, why)
}

/// One question to a server that gives credentials: its status and its (bounded) body.
pub(super) async fn answer(
    client: &Client,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Fault> {
    let url = request.uri().to_string();
    let response = client.send(request).await.map_err(unavailable)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| unavailable(format!("{url}: {error}")))?;
    Ok((status, body.to_bytes()))
}

/// What containers' and instances' servers answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    access_key_id: String,
    #[serde(default)]
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<Timestamp>,
}

/// Reads such an answer; `url` is named in errors, the text never: it may be a secret.
pub(super) fn parse(url: &str, text: &[u8]) -> Result<Given, Fault> {
    let bad = |why: String| unavailable(format!("{url}: {why}"));
    let answer: Answer = serde_json::from_slice(text)
        .map_err(|e| bad(format!("not credentials, at {}:{}", e.line(), e.column())))?;
    if let Some(code) = answer.code.filter(|code| code != "Success") {
        let message = answer.message.unwrap_or_default();
        return Err(bad(format!("{code} {message}").trim_end().to_owned()));
    }
    if answer.access_key_id.is_empty() || answer.secret_access_key.is_empty() {
        return Err(bad("no keys in its answer".to_owned()));
    }
    let (id, secret) = (answer.access_key_id, answer.secret_access_key);
    let keys = Keys { id, secret, token: answer.token };
    Ok((keys, answer.expiration.map(SystemTime::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(of: impl Fn(&str) -> Option<String>) -> Result<Source, String> {
        let found = Source::find("edge.sites.a", &Settings::default(), &of);
        found.map(|found| found.expect("not anonymous")).map_err(|error| error.to_string())
    }

    fn only<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn where_keys_are_looked_for() {
        let fixed = found(|name| Some(format!("value of {name}"))).unwrap();
        assert!(matches!(&fixed, Source::Fixed(keys) if keys.token.is_some()));
        assert_eq!(fixed.note(), None);
        let relative = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x")];
        let relative = found(only(&relative)).unwrap();
        assert_eq!(relative.to_string(), "http://169.254.170.2/v2/credentials/x");
        let far = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/")];
        let error = found(only(&far)).unwrap_err();
        assert!(error.starts_with("AWS_CONTAINER_CREDENTIALS_FULL_URI"), "{error}");
    }

    #[test]
    fn the_instance_is_the_last_resort_and_said_to_be() {
        let instance = found(|_| None).unwrap();
        assert_eq!(instance.to_string(), "http://169.254.169.254");
        assert!(instance.note().unwrap().contains("metadata service at http://169.254.169.254"));
        let other = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9/")];
        assert_eq!(found(only(&other)).unwrap().to_string(), "http://127.0.0.1:9");
        let sixth = [("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6")];
        assert_eq!(found(only(&sixth)).unwrap().to_string(), "http://[fd00:ec2::254]");
        for bad in ["ftp://127.0.0.1", "127.0.0.1:9", "http://user:secret@127.0.0.1/"] {
            let error = found(only(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", bad)])).unwrap_err();
            assert!(error.starts_with("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for disabled in ["true", "TRUE"] {
            let error = found(only(&[("AWS_EC2_METADATA_DISABLED", disabled)])).unwrap_err();
            assert!(error.starts_with("edge.sites.a.s3.credentials-file is missing"), "{error}");
        }
        assert!(found(only(&[("AWS_EC2_METADATA_DISABLED", "false")])).is_ok());
    }

    #[test]
    fn a_file_without_keys_is_noted() {
        let file = |path: &std::path::Path| Source::File {
            path: path.to_owned(),
            profile: "default".to_owned(),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let note = file(&path).note().unwrap();
        assert!(note.contains(&path.display().to_string()) && note.contains("No such"), "{note}");
        std::fs::write(&path, "[other]\naws_access_key_id=A\naws_secret_access_key=B\n").unwrap();
        assert!(file(&path).note().unwrap().contains("no keys for profile \"default\""));
        let text = "[default]\naws_access_key_id=A\naws_secret_access_key=B\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(file(&path).note(), None);
    }

    #[test]
    fn no_log_shows_a_secret() {
        let all = [("AWS_ACCESS_KEY_ID", "sEcret"), ("AWS_SECRET_ACCESS_KEY", "sEcret")];
        let server = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "sEcret"),
        ];
        for source in [found(only(&all)).unwrap(), found(only(&server)).unwrap()] {
            assert!(!format!("{source:?} {source}").contains("sEcret"));
        }
        let fault = parse("http://x/", b"{\"AccessKeyId\": sEcret}").unwrap_err();
        assert!(!fault.to_string().contains("sEcret"), "{fault}");
    }
}
