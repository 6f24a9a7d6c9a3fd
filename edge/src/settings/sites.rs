//! A proxy site's settings: `[edge.sites."video.example.com"]`, checked once.

use super::values::count;
use crate::engine::UNVALIDATED_BYTES_MAX;
use crate::hygiene::{Host, KeyRules, Query};
use serde::Deserialize;
use service::config::ConfigError;
use service::value::{ByteSize, Span};
use std::collections::BTreeMap;
use std::time::Duration;
use upstream::SiteKind;

/// Ranges in one request; more are refused. A player asks for one, a PDF reader for a handful.
const RANGES_MAX: usize = 16;
/// What an operator may allow: each range is a seek, and parts of their own cost heads.
const RANGES_ALLOWED_MAX: usize = 64;
/// How long a stale answer that may be used is held back for a slow origin: far above what one
/// takes that is well, and no longer than a viewer is patient.
const STALE_AFTER: Duration = Duration::from_secs(2);
/// The host of a site that answers for every host.
pub const ANY_HOST: &str = "*";

/// A site as given: `[edge.sites."video.example.com"]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SiteSettings {
    // The upstream's part stands here once more, not as a flattened struct: serde reads such a
    // table as a whole before it looks at its keys, and a typo has no line by then.
    /// Where to fetch.
    pub origins: Vec<upstream::Origin>,
    /// As [`upstream::Settings::health_check`].
    pub health_check: Option<upstream::HealthCheck>,
    /// As [`upstream::Settings::connect_timeout`].
    pub connect_timeout: Option<Span>,
    /// As [`upstream::Settings::first_byte_timeout`].
    pub first_byte_timeout: Option<Span>,
    /// As [`upstream::Settings::stall_timeout`].
    pub stall_timeout: Option<Span>,
    /// As [`upstream::Settings::retries`].
    pub retries: Option<u32>,
    /// As [`upstream::Settings::retry_budget_percent`].
    pub retry_budget_percent: Option<u32>,
    /// As [`upstream::Settings::hedge`].
    pub hedge: Option<bool>,
    /// As [`upstream::Settings::in_flight_max`].
    pub in_flight_max: Option<u32>,
    /// As [`upstream::Settings::queue_max`].
    pub queue_max: Option<u32>,
    /// As [`upstream::Settings::pass_host`].
    pub pass_host: Option<bool>,
    /// For `s3://` origins.
    pub s3: upstream::s3::Settings,
    /// Which query parameters belong to the key, and reach the origin: all, none, keep or drop.
    pub query: Query,
    /// Sort them by name.
    pub sort: bool,
    /// Rules for how long answers are good, the first that matches the path.
    pub ttl: Vec<TtlSettings>,
    /// Whether the client's `Cache-Control` and `Pragma` are heeded [default: true].
    pub heed_client: Option<bool>,
    /// Freshness by the age of `Last-Modified` where the origin says nothing [default: true].
    pub heuristic: Option<bool>,
    /// How long stale answers may be used when the origin fails and says nothing [default: 1h].
    pub stale_if_error: Option<Span>,
    /// How long a slow origin is waited for where a stale answer may stand in [default: 2s].
    pub stale_after: Option<Span>,
    /// Fields like `CDN-Cache-Control` that go before `Cache-Control`, first one first.
    pub targeted: Option<Vec<String>>,
    /// Ranges in one request at most [default: 16].
    pub ranges_max: Option<usize>,
    /// Answers without a strong validator are kept up to this size [default: 64MiB].
    pub unvalidated_max: Option<ByteSize>,
    /// Compress texts [default: true].
    pub compress: Option<bool>,
    /// Fetch what players announce (CMCD `nor`) before they ask for it [default: true].
    pub prefetch: Option<bool>,
}

/// How long answers are good whose path matches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TtlSettings {
    /// A path with `*` for anything, as `/live/*` or `*.m3u8`.
    pub path: String,
    /// Whatever the origin says.
    pub fixed: Option<Span>,
    /// At least.
    pub min: Option<Span>,
    /// At most.
    pub max: Option<Span>,
    /// For errors (404, 405, 410, 414, 5xx) that say nothing.
    pub negative: Option<Span>,
    /// How long an answer may be used while it is revalidated, where the origin says nothing.
    pub stale_while_revalidate: Option<Span>,
}

/// A site, checked.
#[derive(Debug, Clone)]
pub struct SiteConfig {
    /// Its host name, or `*` for any.
    pub host: String,
    pub(crate) upstream: upstream::Config,
    pub(crate) keys: KeyRules,
    pub(crate) caching: caching::Settings,
    /// By path, the first that matches.
    pub(crate) rules: Vec<(String, caching::Settings)>,
    pub(crate) stale_after: Duration,
    pub(crate) ranges_max: usize,
    pub(crate) unvalidated_bytes_max: u64,
    pub(crate) compress: bool,
    pub(crate) prefetch: bool,
}

impl SiteConfig {
    /// Checks a site's settings.
    ///
    /// # Errors
    /// Names the key below `edge.sites."HOST"` and what is expected there.
    pub fn check(host: &str, settings: &SiteSettings) -> Result<Self, ConfigError> {
        let key = format!("edge.sites.\"{host}\"");
        check_host(host)?;
        let caching = caching_settings(&key, settings)?;
        let rule = |(place, rule): (usize, &TtlSettings)| {
            rule.check(&format!("{key}.ttl[{place}]"))?;
            Ok((rule.path.clone(), ruled(&caching, rule)))
        };
        let unvalidated = settings.unvalidated_max.unwrap_or(ByteSize(UNVALIDATED_BYTES_MAX));
        if unvalidated.0 > UNVALIDATED_BYTES_MAX {
            let expected = format!("at most {}", ByteSize(UNVALIDATED_BYTES_MAX));
            let key = format!("{key}.unvalidated-max");
            return Err(ConfigError::value(&key, unvalidated, expected));
        }
        Ok(Self {
            host: host.to_owned(),
            upstream: upstream::Config::check(&key, host, SiteKind::Proxy, &settings.upstream())?,
            keys: KeyRules { query: settings.query.clone(), sort: settings.sort },
            rules: settings.ttl.iter().enumerate().map(rule).collect::<Result<_, _>>()?,
            caching,
            stale_after: settings.stale_after.map_or(STALE_AFTER, |after| after.0),
            ranges_max: count(
                &format!("{key}.ranges-max"),
                settings.ranges_max,
                RANGES_MAX,
                RANGES_ALLOWED_MAX,
            )?,
            unvalidated_bytes_max: unvalidated.0,
            compress: settings.compress.unwrap_or(true),
            prefetch: settings.prefetch.unwrap_or(true),
        })
    }

    /// What an operator should know before the first request.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.upstream.notes()
    }
}

impl TtlSettings {
    /// A rule that matches some path and changes something.
    fn check(&self, key: &str) -> Result<(), ConfigError> {
        let path = format!("{key}.path");
        let expected = "a path with * for anything, as /live/* or *.m3u8";
        if self.path.is_empty() {
            return Err(ConfigError::missing(&path, expected));
        }
        if !self.path.starts_with(['/', '*']) {
            return Err(ConfigError::value(&path, &self.path, expected));
        }
        match (self.fixed, self.min, self.max) {
            (Some(fixed), Some(_), _) | (Some(fixed), _, Some(_)) => {
                let expected = "either fixed, or min and max";
                Err(ConfigError::value(&format!("{key}.fixed"), fixed, expected))
            }
            (_, Some(min), Some(max)) if min > max => {
                let expected = format!("at most max, {max}");
                Err(ConfigError::value(&format!("{key}.min"), min, expected))
            }
            (None, None, None)
                if self.negative.is_none() && self.stale_while_revalidate.is_none() =>
            {
                let expected = "fixed, min, max, negative or stale-while-revalidate";
                Err(ConfigError::missing(key, expected))
            }
            _ => Ok(()),
        }
    }
}

impl SiteSettings {
    fn upstream(&self) -> upstream::Settings {
        upstream::Settings {
            origins: self.origins.clone(),
            health_check: self.health_check.clone(),
            connect_timeout: self.connect_timeout,
            first_byte_timeout: self.first_byte_timeout,
            stall_timeout: self.stall_timeout,
            retries: self.retries,
            retry_budget_percent: self.retry_budget_percent,
            hedge: self.hedge,
            in_flight_max: self.in_flight_max,
            queue_max: self.queue_max,
            pass_host: self.pass_host,
            s3: self.s3.clone(),
        }
    }
}

/// A host as requests are looked up by it: one that they can't name so would never answer.
fn check_host(host: &str) -> Result<(), ConfigError> {
    if host == ANY_HOST {
        return Ok(());
    }
    let refused = |expected: &str| Err(ConfigError::value("edge.sites", host, expected));
    let Ok(Host { name, port }) = Host::parse(host) else {
        return refused(
            "a host name, or an IP address (IPv6 in brackets), with its port unless that is 80 \
             or 443, or *",
        );
    };
    let written = match port {
        // Whoever asks for these, asks without a port.
        None | Some(80 | 443) => name,
        Some(port) => format!("{name}:{port}"),
    };
    if written == host {
        return Ok(());
    }
    refused(&format!("{written:?}: lower case, no last dot, no port where it is 80 or 443"))
}

fn millis(span: Span) -> i64 {
    i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX)
}

fn caching_settings(key: &str, settings: &SiteSettings) -> Result<caching::Settings, ConfigError> {
    let mut caching = caching::Settings::default();
    if settings.heuristic == Some(false) {
        caching.heuristic = None;
    }
    if let Some(heed) = settings.heed_client {
        caching.request_directives = heed;
    }
    if let Some(stale) = settings.stale_if_error {
        caching.if_error_ms = millis(stale);
    }
    if let Some(targeted) = &settings.targeted {
        let name = |name: &String| {
            let key = format!("{key}.targeted");
            name.parse().map_err(|_| ConfigError::value(&key, name, "names of header fields"))
        };
        caching.targeted = targeted.iter().map(name).collect::<Result<_, _>>()?;
    }
    Ok(caching)
}

fn ruled(caching: &caching::Settings, rule: &TtlSettings) -> caching::Settings {
    let mut caching = caching.clone();
    caching.ttl = caching::Ttl {
        fixed_ms: rule.fixed.map(millis),
        min_ms: rule.min.map(millis),
        max_ms: rule.max.map(millis),
    };
    caching.negative_ms = rule.negative.map(millis).or(caching.negative_ms);
    if let Some(stale) = rule.stale_while_revalidate {
        caching.while_revalidate_ms = millis(stale);
    }
    caching
}

/// The sites' settings by host, with `--origin` as the site for any host.
///
/// # Errors
/// Those of [`SiteConfig::check`].
pub fn check_sites(
    sites: &BTreeMap<String, SiteSettings>,
    any: Option<SiteSettings>,
) -> Result<Vec<SiteConfig>, ConfigError> {
    if any.is_some() && sites.contains_key(ANY_HOST) {
        let expected = "either edge.origin or the table edge.sites.\"*\", which is the same site";
        return Err(ConfigError::value("edge.sites", ANY_HOST, expected));
    }
    let named = sites.iter().map(|(host, settings)| SiteConfig::check(host, settings));
    let any = any.iter().map(|settings| SiteConfig::check(ANY_HOST, settings));
    named.chain(any).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_of_a_site_are_named() {
        let error = |table: &str| {
            let origin = "[[origins]]\nurl = \"http://127.0.0.1:1\"\n";
            let text = format!("{table}\n{origin}");
            let settings = service::config::parse(std::path::Path::new("nearcast.toml"), &text)?;
            SiteConfig::check("a.example", &settings).map(|_| ())
        };
        let errors = [
            "ranges-max = 0",
            "ranges-max = 65",
            "unvalidated-max = \"65MiB\"",
            "ttl = [{ fixed = \"1s\" }]",
            "ttl = [{ path = \"x*\", fixed = \"1s\" }]",
            "ttl = [{ path = \"*\", fixed = \"1s\", max = \"2s\" }]",
            "ttl = [{ path = \"*\", fixed = \"1s\" }, { path = \"/\", min = \"90s\", max = \"1m\" }]",
            "ttl = [{ path = \"*\" }]",
            "connect-timeout = \"0s\"",
            "s3 = { region = \"eu-north-1\" }",
        ];
        let errors = errors.map(|table| error(table).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"));
        assert!(
            error("ttl = [{ path = \"*\", min = \"1s\", max = \"2s\", negative = \"1s\" }]")
                .is_ok()
        );
    }

    #[test]
    fn a_host_is_written_as_requests_are_looked_up() {
        let checked = |host: &str| {
            let settings = SiteSettings {
                origins: upstream::Settings::one("http://127.0.0.1:1").origins,
                ..SiteSettings::default()
            };
            SiteConfig::check(host, &settings).map(|_| ()).map_err(|error| error.to_string())
        };
        for host in [ANY_HOST, "a.example", "a_b.example", "a.example:8080", "[::1]", "[::1]:81"] {
            assert_eq!(checked(host), Ok(()));
        }
        let refused = [
            "a.example:80",
            "a.example:443",
            "a.example.",
            "A.example",
            "a.example:",
            "a.example:080",
            "[0:0:0:0:0:0:0:1]",
            "::1",
            "a.example:99999",
            "http://a.example",
            "*.a.example",
            "..:::[[-",
            "",
        ];
        insta::assert_snapshot!(refused.map(|host| checked(host).unwrap_err()).join("\n"));
    }
}
