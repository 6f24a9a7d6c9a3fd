//! A proxy site's settings: `[edge.sites."video.example.com"]`, checked once.

mod cookies;
mod pages;
mod rules;

pub(super) use pages::check_cors;
pub(crate) use rules::Rule;
pub use rules::TtlSettings;
pub use upstream::ANY_HOST;

use super::values::count;
use crate::cors::Cors;
use crate::engine::UNVALIDATED_BYTES_MAX;
use crate::hygiene::{Host, KeyRules, Query, in_ascii};
use http::{HeaderName, header};
use pages::cors;
use rules::{check_span, millis};
use serde::Deserialize;
use service::config::{ConfigError, all, both};
use service::value::{ByteSize, Span};
use std::collections::BTreeMap;
use std::time::Duration;
use upstream::SiteKind;
use url::Url;

/// Ranges in one request; more are refused. A player asks for one, a PDF reader for a handful.
const RANGES_MAX: usize = 16;
/// What an operator may allow: each range is a seek, and parts of their own cost heads.
const RANGES_ALLOWED_MAX: usize = 64;
/// Fields that have their own place in the order, or none that a cache need ask.
const NOT_TARGETED: [HeaderName; 3] = [header::CACHE_CONTROL, header::EXPIRES, header::PRAGMA];

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
    /// Which query parameters belong to the key, and reach the origin: all, none, keep or drop
    /// [default: all; none where all origins are buckets, which look at no query].
    pub query: Option<Query>,
    /// Sort them by name.
    pub sort: bool,
    /// Rules for how long answers are good, the first that matches.
    pub ttl: Vec<TtlSettings>,
    /// Whether the client's `Cache-Control` and `Pragma` are heeded [default: true].
    pub heed_client: Option<bool>,
    /// Freshness by the age of `Last-Modified` where the origin says nothing [default: true].
    pub heuristic: Option<bool>,
    /// How long stale answers may be used when the origin fails and says nothing [default: 1h].
    pub stale_if_error: Option<Span>,
    /// How long a slow origin is waited for where a stale answer may stand in [default: until it
    /// has answered or failed].
    pub stale_after: Option<Span>,
    /// Fields like `CDN-Cache-Control` that go before `Cache-Control`, first one first.
    pub targeted: Option<Vec<String>>,
    /// Ranges in one request at most [default: 16].
    pub ranges_max: Option<usize>,
    /// Answers without a strong validator are kept up to this size [default: 64MiB].
    pub unvalidated_max: Option<ByteSize>,
    /// Whether cookies count and go on, both ways [default: keep].
    #[serde(deserialize_with = "cookies::given")]
    pub cookies: Option<caching::Cookies>,
    /// Compress texts [default: true].
    pub compress: Option<bool>,
    /// Fetch what players announce (CMCD `nor`) before they ask for it [default: true].
    pub prefetch: Option<bool>,
    /// Origins of pages that may read its answers, `*` for all; none: those that the origin says
    /// [default: none; `*` where all origins are buckets, which are not asked].
    pub cors: Option<Vec<String>>,
}

/// A site, checked.
#[derive(Debug, Clone)]
pub struct SiteConfig {
    /// Its host name, or `*` for any.
    pub host: String,
    pub(crate) upstream: upstream::Config,
    pub(crate) keys: KeyRules,
    pub(crate) caching: caching::Settings,
    /// The first that matches counts.
    pub(crate) rules: Vec<Rule>,
    pub(crate) stale_after: Option<Duration>,
    pub(crate) ranges_max: usize,
    pub(crate) unvalidated_bytes_max: u64,
    pub(crate) compress: bool,
    pub(crate) prefetch: bool,
    pub(crate) cors: Cors,
}

impl SiteConfig {
    /// Checks a site's settings.
    ///
    /// # Errors
    /// Names the key below `edge.sites."HOST"` and what is expected there.
    pub fn check(host: &str, settings: &SiteSettings) -> Result<Self, ConfigError> {
        let key = format!("edge.sites.\"{host}\"");
        let caching = caching_settings(&key, settings);
        let rule =
            |(place, rule): (usize, &TtlSettings)| rule.check(&format!("{key}.ttl[{place}]"));
        let upstream = upstream::Config::check(&key, host, SiteKind::Proxy, &settings.upstream());
        let rules = all(settings.ttl.iter().enumerate().map(rule));
        let ranges_key = format!("{key}.ranges-max");
        let ranges_max = count(&ranges_key, settings.ranges_max, RANGES_MAX, RANGES_ALLOWED_MAX);
        let unvalidated = unvalidated_bytes_max(&key, settings.unvalidated_max);
        let named = both(check_host(host), check_origins(&key, &settings.origins));
        let upstream = both(named, upstream).map(|(_, upstream)| upstream);
        let pages = cors(&format!("{key}.cors"), settings.cors.as_deref());
        let rest = both(both(both(ranges_max, unvalidated), pages), caching);
        let ((upstream, _), (((ranges_max, unvalidated_bytes_max), pages), caching)) =
            both(both(upstream, rules), rest)?;
        let rules = settings.ttl.iter();
        let rules = rules.map(|rule| rule.rule(&caching, settings.are_buckets())).collect();
        Ok(Self {
            host: host.to_owned(),
            upstream,
            keys: KeyRules { query: settings.query(), sort: settings.sort },
            rules,
            caching,
            stale_after: settings.stale_after.map(|after| after.0),
            ranges_max,
            unvalidated_bytes_max,
            compress: settings.compress.unwrap_or(true),
            prefetch: settings.prefetch.unwrap_or(true),
            cors: pages.unwrap_or_else(|| settings.usual_cors()),
        })
    }

    /// What an operator should know before the first request.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.upstream.notes().into_iter().chain(self.idle_rules()).collect()
    }

    /// Of the rules that no request can match.
    pub(crate) fn idle_rules(&self) -> Vec<String> {
        rules::idle(&format!("edge.sites.\"{}\"", self.host), &self.rules, &self.keys)
    }
}

impl SiteSettings {
    /// As given; else all that an origin may look at.
    fn query(&self) -> Query {
        let usual = if self.are_buckets() { Query::None } else { Query::All };
        self.query.clone().unwrap_or(usual)
    }

    /// A bucket can't say it: its own rules are not asked.
    fn usual_cors(&self) -> Cors {
        if self.are_buckets() { Cors::All } else { Cors::Unsaid }
    }

    fn are_buckets(&self) -> bool {
        self.origins.iter().all(upstream::Origin::is_bucket)
    }

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
    if let Some(ascii) = in_ascii(host) {
        return refused(&format!("{ascii:?}: in ASCII, as clients ask for it"));
    }
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

/// Each origin once: a second one would be tried after the first has failed, and have its share.
fn check_origins(key: &str, origins: &[upstream::Origin]) -> Result<(), ConfigError> {
    // What is no URL is named by those who read it as one.
    let place = |origin: &upstream::Origin| {
        let url = Url::parse(&origin.url).ok();
        url.map(|url| url.as_str().trim_end_matches('/').to_owned())
    };
    let mut known: Vec<(String, usize)> = Vec::new();
    for (number, origin) in origins.iter().enumerate() {
        let Some(url) = place(origin) else { continue };
        if let Some((_, first)) = known.iter().find(|(other, _)| *other == url) {
            let expected = format!("each origin once: origins[{first}] is the same");
            return Err(ConfigError::value(
                &format!("{key}.origins[{number}]"),
                &origin.url,
                expected,
            ));
        }
        known.push((url, number));
    }
    Ok(())
}

/// Fields that go before `Cache-Control`: none of those that they go before.
fn targeted(key: &str, names: &[String]) -> Result<Vec<HeaderName>, ConfigError> {
    let name = |name: &String| {
        let bad = |expected: &str| ConfigError::value(key, name, expected);
        let parsed: HeaderName = name.parse().map_err(|_| bad("names of header fields"))?;
        if NOT_TARGETED.contains(&parsed) {
            return Err(bad("fields that go before Cache-Control, as CDN-Cache-Control"));
        }
        Ok(parsed)
    };
    let names = names.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    super::values::once(key, &names, HeaderName::to_string)?;
    Ok(names)
}

fn unvalidated_bytes_max(key: &str, given: Option<ByteSize>) -> Result<u64, ConfigError> {
    let bytes = given.unwrap_or(ByteSize(UNVALIDATED_BYTES_MAX));
    if bytes.0 > UNVALIDATED_BYTES_MAX {
        let expected = format!("at most {}", ByteSize(UNVALIDATED_BYTES_MAX));
        return Err(ConfigError::value(&format!("{key}.unvalidated-max"), bytes, expected));
    }
    Ok(bytes.0)
}

fn caching_settings(key: &str, settings: &SiteSettings) -> Result<caching::Settings, ConfigError> {
    let mut caching = caching::Settings::default();
    if settings.heuristic == Some(false) {
        caching.heuristic = None;
    }
    caching.cookies = settings.cookies.unwrap_or_default();
    if let Some(heed) = settings.heed_client {
        caching.request_directives = heed;
    }
    let spans = both(
        check_span(&format!("{key}.stale-if-error"), settings.stale_if_error),
        check_span(&format!("{key}.stale-after"), settings.stale_after),
    );
    let names = settings.targeted.as_ref();
    let names = names.map(|names| targeted(&format!("{key}.targeted"), names)).transpose();
    let (_, names) = both(spans, names)?;
    if let Some(stale) = settings.stale_if_error {
        caching.if_error_ms = millis(stale);
    }
    if let Some(names) = names {
        caching.targeted = names;
    }
    Ok(caching)
}

/// The sites' settings by host, with `--origin` as the site for any host.
///
/// # Errors
/// Those of [`SiteConfig::check`].
pub fn check_sites(
    sites: &BTreeMap<String, SiteSettings>,
    any: Option<SiteSettings>,
) -> Result<Vec<SiteConfig>, ConfigError> {
    let once = match any.is_some() && sites.contains_key(ANY_HOST) {
        true => {
            let expected =
                "either edge.origin or the table edge.sites.\"*\", which is the same site";
            Err(ConfigError::value("edge.sites", ANY_HOST, expected))
        }
        false => Ok(()),
    };
    let named = sites.iter().map(|(host, settings)| SiteConfig::check(host, settings));
    let any = any.iter().map(|settings| SiteConfig::check(ANY_HOST, settings));
    both(once, all(named.chain(any))).map(|(_, sites)| sites)
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
            "ttl = [{ path = \"*\", query = \"a=b\", fixed = \"1s\" }]",
            "ttl = [{ path = \"*\", query = \"*\", fixed = \"1s\" }]",
            "ttl = [{ path = \"*\", fixed = \"99999999999h\" }]",
            "ttl = [{ path = \"*\", stale-if-error = \"3651d\" }]",
            "ttl = [{ path = \"x\", query = \"a=b\", fixed = \"3651d\", max = \"3652d\" }]",
            "stale-if-error = \"99999999999h\"",
            "stale-after = \"3651d\"",
            "targeted = [\"Cache-Control\"]",
            "targeted = [\"CDN-Cache-Control\", \"cdn-cache-control\"]",
            "targeted = [\"a b\"]",
            "[[origins]]\nurl = \"HTTP://127.0.0.1:1/\"",
            "connect-timeout = \"0s\"",
            "s3 = { region = \"eu-north-1\" }",
            "cors = [\"https://a.example\", \"*\"]",
            "cors = [\"https://Player.example:443/watch\"]",
            "cors = [\"https://*.example\"]",
            "cors = [\"player.example\"]",
            "cors = [\"null\"]",
            "cors = [\"http://a.example\", \"http://b.example\", \"http://a.example\"]",
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
            "b\u{fc}cher.example:8080",
            "",
        ];
        insta::assert_snapshot!(refused.map(|host| checked(host).unwrap_err()).join("\n"));
    }
}
