//! What an operator may say of one site's origins, checked once.

mod origin;
mod place;

pub use origin::Origin;
pub use place::check_url;
pub(crate) use place::{Place, place};

use crate::ask::UNNAMED_HOST;
use crate::s3;
use serde::Deserialize;
use service::config::{ConfigError, all};
use service::value::Span;
use std::sync::Arc;
use std::time::Duration;

/// The name of a site that answers for every host.
pub const ANY_HOST: &str = "*";
/// Origins of one site.
pub const ORIGINS_MAX: usize = 32;
/// The largest weight of an origin.
const WEIGHT_MAX: u32 = 1000;
/// Tries on top of the first.
const RETRIES_MAX: u32 = 5;
/// Any of the timeouts.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Requests under way, and waiting, for one origin.
const IN_FLIGHT_LIMIT: u32 = 65_536;
/// Health checks come no closer than this.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How a site treats its origins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteKind {
    /// Any HTTP: redirects are passed on; blocking playlist reloads have time.
    Proxy,
    /// Nearcast's own origin: quick answers, no redirects.
    Title,
}

/// The upstream part of a site, as given. What is not given has a default (see [`Config`]).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Where to fetch.
    pub origins: Vec<Origin>,
    /// Asks each origin at times whether it is well.
    pub health_check: Option<HealthCheck>,
    /// The longest time to a connection, name lookup and TLS included (default: 2s).
    pub connect_timeout: Option<Span>,
    /// The longest time to an answer's head [30s; title sites 5s].
    pub first_byte_timeout: Option<Span>,
    /// The longest silence within a body [10s; title sites 5s].
    pub stall_timeout: Option<Span>,
    /// Tries on top of the first (default: 2).
    pub retries: Option<u32>,
    /// Those tries as a share of all requests (default: 20).
    pub retry_budget_percent: Option<u32>,
    /// Whether a GET without an answer after the 99th percentile of the origin's times is sent
    /// a second time: `true`; `false`: never; by default only where there is another origin.
    pub hedge: Option<bool>,
    /// Requests under way at each origin (default: 512).
    pub in_flight_max: Option<u32>,
    /// Requests that wait for one of these to end (default: 1024).
    pub queue_max: Option<u32>,
    /// Whether origins see the client's `Host` in place of their own [false].
    pub pass_host: Option<bool>,
    /// For `s3://` origins; what is missing is taken from AWS' environment variables.
    pub s3: s3::Settings,
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[serde(expecting = "{ path = \"/...\", interval = \"5s\" }")]
pub struct HealthCheck {
    /// Asked for with GET: an answer below 400 within the interval, 5 s at most, is good.
    pub path: String,
    /// How often (default: 5s).
    #[serde(default)]
    pub interval: Option<Span>,
}

impl Settings {
    /// One origin, all else by default.
    #[must_use]
    pub fn one(url: &str) -> Self {
        let origin = Origin { url: url.to_owned(), weight: 1, priority: 0 };
        Self { origins: vec![origin], ..Self::default() }
    }
}

/// [`Settings`], checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it stands in the file, for messages.
    pub(crate) key: String,
    pub(crate) site: Arc<str>,
    pub(crate) kind: SiteKind,
    pub(crate) origins: Vec<Base>,
    pub(crate) health_check: Option<(String, Duration)>,
    pub(crate) times: Times,
    pub(crate) retries: u32,
    pub(crate) budget_percent: u32,
    pub(crate) hedge: Hedge,
    pub(crate) in_flight_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) pass_host: bool,
    pub(crate) s3: s3::Settings,
    /// Who gives the credentials for `s3://` origins; none where there is none to sign for.
    pub(crate) keys: Option<s3::Source>,
}

/// An origin, checked.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) place: Place,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) connect: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) stall: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hedge {
    Never,
    ToOthers,
    Always,
}

/// A machine nearby accepts within milliseconds; a lost SYN is sent again after one second.
const CONNECT: Duration = Duration::from_secs(2);
/// A blocking playlist reload may take several target durations.
const PROXY: Times =
    Times { connect: CONNECT, first_byte: Duration::from_secs(30), stall: Duration::from_secs(10) };
/// A player gives an edge up after a few seconds: a slow origin must leave room for a second try.
const TITLE: Times =
    Times { connect: CONNECT, first_byte: Duration::from_secs(5), stall: Duration::from_secs(5) };
const RETRIES: u32 = 2;
/// Enough to ride out a bad node, too little to make an outage worse.
const BUDGET_PERCENT: u32 = 20;
/// What common servers take with their defaults.
const IN_FLIGHT: u32 = 512;
const QUEUE: u32 = 1024;
const INTERVAL: Duration = Duration::from_secs(5);

impl Config {
    /// Checks the settings of `site` (a label of metrics), which stand at `key`:
    /// `edge.sites."films.example"`.
    ///
    /// # Errors
    /// The first key whose value is not allowed, and what is; an `s3://` origin for which there
    /// can be no credentials.
    pub fn check(
        key: &str,
        site: &str,
        kind: SiteKind,
        settings: &Settings,
    ) -> Result<Self, ConfigError> {
        let expected = "http://, https:// or s3:// URLs, at most 32";
        let count = settings.origins.len();
        if count == 0 {
            return Err(ConfigError::missing(&format!("{key}.origins"), expected));
        }
        if count > ORIGINS_MAX {
            return Err(ConfigError::value(&format!("{key}.origins"), count, expected));
        }
        let origins = settings.origins.iter().enumerate();
        let origins = origins.map(|(n, origin)| base(&format!("{key}.origins[{n}]"), origin));
        let origins: Vec<Base> = all(origins)?;
        let in_bucket = origins.iter().any(|base| matches!(base.place, Place::S3 { .. }));
        let keys = in_bucket.then(|| s3::Source::find(key, &settings.s3, &s3::env)).transpose()?;
        if in_bucket {
            s3::endpoint(key, &settings.s3, &s3::env)?;
        }
        if !in_bucket && settings.s3 != s3::Settings::default() {
            let expected = "an s3:// URL among its origins, or no table s3";
            return Err(ConfigError::value(&format!("{key}.s3"), "a table", expected));
        }
        let times = match kind {
            SiteKind::Proxy => PROXY,
            SiteKind::Title => TITLE,
        };
        let time = |name, given| time(&format!("{key}.{name}"), given);
        let number = |name, given, default, least, most| {
            number(&format!("{key}.{name}"), given, default, least..=most)
        };
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let in_flight =
            number("in-flight-max", settings.in_flight_max, IN_FLIGHT, 1, IN_FLIGHT_LIMIT)?;
        Ok(Self {
            key: key.to_owned(),
            site: site.into(),
            kind,
            origins,
            health_check: check_health(key, settings.health_check.as_ref())?,
            times: Times {
                connect: time("connect-timeout", settings.connect_timeout)?
                    .unwrap_or(times.connect),
                first_byte: time("first-byte-timeout", settings.first_byte_timeout)?
                    .unwrap_or(times.first_byte),
                stall: time("stall-timeout", settings.stall_timeout)?.unwrap_or(times.stall),
            },
            retries: number("retries", settings.retries, RETRIES, 0, RETRIES_MAX)?,
            budget_percent: number(
                "retry-budget-percent",
                settings.retry_budget_percent,
                BUDGET_PERCENT,
                0,
                100,
            )?,
            hedge: match settings.hedge {
                None => Hedge::ToOthers,
                Some(true) => Hedge::Always,
                Some(false) => Hedge::Never,
            },
            in_flight_max: size(in_flight),
            queue_max: size(number("queue-max", settings.queue_max, QUEUE, 0, IN_FLIGHT_LIMIT)?),
            pass_host: settings.pass_host.unwrap_or(false),
            s3: settings.s3.clone(),
            keys: keys.flatten(),
        })
    }

    /// By which other nodes are asked for what is the site's.
    pub(crate) fn host(&self) -> &str {
        if *self.site == *ANY_HOST { UNNAMED_HOST } else { &self.site }
    }

    /// What an operator should know before the first request, each with the key that it is
    /// about: credentials that are not there yet. Looks at files, asks no server.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let note = self.keys.as_ref().and_then(s3::Source::note);
        note.map(|note| format!("{}.s3: {note}", self.key)).into_iter().collect()
    }
}

fn time(key: &str, given: Option<Span>) -> Result<Option<Duration>, ConfigError> {
    let Some(Span(time)) = given else { return Ok(None) };
    if time.is_zero() || time > TIMEOUT_MAX {
        let expected = format!("1ms to {}s", TIMEOUT_MAX.as_secs());
        return Err(ConfigError::value(key, Span(time), expected));
    }
    Ok(Some(time))
}

fn number(
    key: &str,
    given: Option<u32>,
    default: u32,
    allowed: std::ops::RangeInclusive<u32>,
) -> Result<u32, ConfigError> {
    let number = given.unwrap_or(default);
    if allowed.contains(&number) {
        return Ok(number);
    }
    let expected = format!("{} to {}", allowed.start(), allowed.end());
    Err(ConfigError::value(key, number, expected))
}

fn check_health(
    key: &str,
    given: Option<&HealthCheck>,
) -> Result<Option<(String, Duration)>, ConfigError> {
    let Some(check) = given else { return Ok(None) };
    let key = format!("{key}.health-check");
    if crate::ask::origin_form(&check.path).is_none() {
        let key = format!("{key}.path");
        return Err(ConfigError::value(&key, &check.path, "a path that starts with /"));
    }
    let key = format!("{key}.interval");
    let interval = time(&key, check.interval)?.unwrap_or(INTERVAL);
    if interval < INTERVAL_MIN {
        let expected = format!("at least {}ms", INTERVAL_MIN.as_millis());
        return Err(ConfigError::value(&key, Span(interval), expected));
    }
    Ok(Some((check.path.clone(), interval)))
}

fn base(key: &str, origin: &Origin) -> Result<Base, ConfigError> {
    let weight_key = format!("{key}.weight");
    let weight = number(&weight_key, Some(origin.weight), 1, 1..=WEIGHT_MAX)?;
    let place = place(&format!("{key}.url"), &origin.url)?;
    Ok(Base { place, weight, priority: origin.priority })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn check(text: &str) -> Result<Config, String> {
        let settings: Settings = service::config::parse(Path::new("nearcast.toml"), text)
            .map_err(|error| error.to_string())?;
        let checked =
            Config::check("edge.sites.\"a.example\"", "a.example", SiteKind::Title, &settings);
        checked.map_err(|error| error.to_string())
    }

    #[test]
    fn mistakes_are_named_with_their_key_and_what_is_allowed() {
        let errors: Vec<String> = [
            "",
            "origins = []",
            "origins = [\"10.0.0.1\"]",
            "origins = [\"ftp://a\"]",
            "origins = [\"http://user:secret@a\"]",
            "origins = [\"http://a/?b\"]",
            "origins = [\"http://a\", \"s3://Bucket\"]",
            "origins = [\"s3://bucket/../x\"]",
            "origins = [{ url = \"http://a\", weight = 0 }]",
            "origins = [{ uri = \"http://a\" }]",
            "origins = [{ url = \"http://a\", wieght = 0 }]",
            "origins = [{ url = \"http://a\", priority = -1 }]",
            "origins = [{ weight = 1 }]",
            "origins = [7]",
            "[[origins]]\nurl = \"http://a\"\n[[origins]]\nurl = \"http://b\"\nweight = \"1\"",
            "origins = [\"s3://films\"]\ns3 = { anonymous = true, endpoint = \"10.0.0.5:9000\" }",
            "origins = [\"http://a\"]\nretries = 9",
            "origins = [\"http://a\"]\nretry-budget-percent = 101",
            "origins = [\"http://a\"]\nin-flight-max = 0",
            "origins = [\"http://a\"]\nfirst-byte-timeout = \"1h\"",
            "origins = [\"http://a\"]\nhealth-check = { path = \"health\" }",
            "origins = [\"http://a\"]\nhealth-check = { path = \"/\", interval = \"1ms\" }",
            "origins = [\"http://a\"]\nhealth-check = \"/h\"",
            "origins = [\"http://a\"]\nhealth-check = {}",
            "origins = [\"http://a\"]\nhealth-check = { path = 7 }",
            "origins = [\"http://a\"]\nhealth-check = { path = \"/\", interval = 5 }",
            "origins = [\"http://a\"]\nhealth-check = { path = \"/\", every = \"5s\" }",
            "origins = [\"http://a\"]\ns3 = \"eu-central-1\"",
            "origins = [\"http://a\"]\nhedges = true",
        ]
        .into_iter()
        .map(|text| check(text).unwrap_err())
        .collect();
        insta::assert_snapshot!(errors.join("\n---\n"));
    }

    #[test]
    fn what_is_given_is_taken_and_the_rest_has_defaults() {
        let text = "origins = [\"https://a:8443/x/\", { url = \"s3://films/v1/\", weight = 3, priority = 1 }]\n\
                    stall-timeout = \"1s\"\npass-host = true\nhedge = false\n\
                    health-check = { path = \"/healthz\" }";
        let config = check(text).unwrap();
        let places: Vec<_> = config.origins.iter().map(|base| base.place.to_string()).collect();
        assert_eq!(places, ["https://a:8443/x", "s3://films/v1"]);
        assert_eq!((config.origins[1].weight, config.origins[1].priority), (3, 1));
        assert_eq!(config.times, Times { stall: Duration::from_secs(1), ..TITLE });
        assert_eq!((config.hedge, config.pass_host, config.retries), (Hedge::Never, true, 2));
        assert_eq!(config.health_check, Some(("/healthz".to_owned(), INTERVAL)));
        assert_eq!(Settings::one("http://a").origins[0].weight, 1);
    }
}
