//! The instance metadata service of EC2, version 2: a session token by PUT, then the role's name,
//! then its credentials. Version 1, which needs no token, is never asked: what could send a plain
//! GET for us (an open proxy, a redirect) must not get at the keys.

use super::source::{ANSWER_MAX, Given, Source, answer, parse, unavailable};
use crate::fault::Fault;
use bytes::Bytes;
use http::request::Builder;
use http::{Request, StatusCode};
use http_body_util::Full;
use service::client::Client;
use service::config::ConfigError;

const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
/// The same on every instance.
const IPV4: &str = "http://169.254.169.254";
const IPV6: &str = "http://[fd00:ec2::254]";
/// Each refresh takes a session of its own, and ends within [`ANSWER_MAX`].
const SESSION_SECONDS: &str = "60";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// The longest name of a role.
const ROLE_BYTES_MAX: usize = 64;

/// The service that the environment names, or the one that every instance has; `None` if
/// `AWS_EC2_METADATA_DISABLED` is `true`.
///
/// # Errors
/// [`ConfigError::Value`] for an endpoint or a mode that is none.
pub(super) fn find(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Source>, ConfigError> {
    if env("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    if let Some(given) = env(ENDPOINT) {
        let is_base = |url: &url::Url| {
            let bare = url.username().is_empty() && url.password().is_none();
            let plain = url.query().is_none() && url.fragment().is_none();
            matches!(url.scheme(), "http" | "https") && url.has_host() && bare && plain
        };
        if !url::Url::parse(&given).is_ok_and(|url| is_base(&url)) {
            // What stands before an @ may be a password.
            let shown = given.rsplit_once('@').map_or(&*given, |(_, host)| host);
            return Err(ConfigError::value(ENDPOINT, shown, "an http:// or https:// URL"));
        }
        let endpoint = given.trim_end_matches('/').to_owned();
        return Ok(Some(Source::Instance { endpoint }));
    }
    let endpoint = match env(MODE) {
        None => IPV4,
        Some(mode) if mode.eq_ignore_ascii_case("ipv4") => IPV4,
        Some(mode) if mode.eq_ignore_ascii_case("ipv6") => IPV6,
        Some(mode) => return Err(ConfigError::value(MODE, mode, "IPv4 or IPv6")),
    };
    Ok(Some(Source::Instance { endpoint: endpoint.to_owned() }))
}

/// Asks the service.
pub(super) async fn ask(endpoint: &str) -> Result<Given, Fault> {
    let client = Client::new(ANSWER_MAX, None, None).map_err(unavailable)?;
    let url = format!("{endpoint}/latest/api/token");
    let request =
        Request::put(&url).header("x-aws-ec2-metadata-token-ttl-seconds", SESSION_SECONDS);
    let session = text(&url, asked(&client, &url, request).await?)?;
    let get = |url: &str| Request::get(url).header("x-aws-ec2-metadata-token", &session);

    let url = format!("{endpoint}{ROLES}");
    let roles = text(&url, asked(&client, &url, get(&url)).await?)?;
    let role = roles.lines().next().map(str::trim).filter(|role| is_role(role));
    let role = role.ok_or_else(|| unavailable(format!("{url}: the instance has no role")))?;

    let url = format!("{url}{role}");
    parse(&url, &asked(&client, &url, get(&url)).await?)
}

/// A role's name stands in a path: nothing else than what names may have.
fn is_role(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@-_".contains(&byte);
    (1..=ROLE_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn text(url: &str, body: Bytes) -> Result<String, Fault> {
    let text = String::from_utf8(body.into());
    text.map_err(|_| unavailable(format!("{url}: its answer is no text")))
}

async fn asked(client: &Client, url: &str, request: Builder) -> Result<Bytes, Fault> {
    let bad = |why: String| unavailable(format!("{url}: {why}"));
    let request = request.body(Full::<Bytes>::default()).map_err(|e| bad(e.to_string()))?;
    match answer(client, request).await? {
        (StatusCode::OK, body) => Ok(body),
        (StatusCode::NOT_FOUND, _) if url.ends_with(ROLES) => {
            Err(bad("the instance has no role".to_owned()))
        }
        (status, _) => Err(bad(format!("it answered {status}"))),
    }
}
