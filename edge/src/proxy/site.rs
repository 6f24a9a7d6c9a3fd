//! A proxy site: a host name, where its content comes from, and by what rules it is kept.

use super::Wanted;
use crate::engine::UNVALIDATED_BYTES_MAX;
use crate::hygiene::KeyRules;
use crate::object::Web;
use http::{HeaderValue, Method};
use serde::Deserialize;
use service::config::ConfigError;
use service::value::{ByteSize, Span};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use upstream::{Ask, SiteKind, Upstream};

/// Ranges in one request; more are refused. A player asks for one, a PDF reader for a handful.
const RANGES_MAX: usize = 16;
/// The host of a site that answers for every host.
pub const ANY_HOST: &str = "*";

/// A site as given: `[edge.sites."video.example.com"]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SiteSettings {
    /// Origins, their health, retries and timeouts.
    #[serde(flatten)]
    pub upstream: upstream::Settings,
    /// Which query parameters belong to the key, and reach the origin: all, none, keep or drop.
    #[serde(flatten)]
    pub keys: KeyRules,
    /// Rules for how long answers are good, the first that matches the path.
    pub ttl: Vec<TtlSettings>,
    /// Whether the client's `Cache-Control` and `Pragma` are heeded [default: true].
    pub heed_client: Option<bool>,
    /// Freshness by the age of `Last-Modified` where the origin says nothing [default: true].
    pub heuristic: Option<bool>,
    /// How long stale answers may be used when the origin fails and says nothing [default: 1h].
    pub stale_if_error: Option<Span>,
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
    upstream: upstream::Config,
    keys: KeyRules,
    caching: caching::Settings,
    rules: Vec<(String, caching::Settings)>,
    ranges_max: usize,
    unvalidated_bytes_max: u64,
    compress: bool,
    prefetch: bool,
}

impl SiteConfig {
    /// Checks a site's settings.
    ///
    /// # Errors
    /// Names the key below `edge.sites."HOST"` and what is expected there.
    pub fn check(host: &str, settings: &SiteSettings) -> Result<Self, ConfigError> {
        let key = format!("edge.sites.\"{host}\"");
        if !is_host(host) {
            let expected =
                "a host name in lower case, with its port unless that is 80 or 443, or *";
            return Err(ConfigError::value("edge.sites", host, expected));
        }
        let caching = caching_settings(&key, settings)?;
        let rule = |rule: &TtlSettings| {
            if rule.path.is_empty() {
                let key = format!("{key}.ttl.path");
                return Err(ConfigError::missing(&key, "a path with * for anything, as *.m3u8"));
            }
            Ok((rule.path.clone(), ruled(&caching, rule)))
        };
        Ok(Self {
            host: host.to_owned(),
            upstream: upstream::Config::check(&key, host, SiteKind::Proxy, &settings.upstream)?,
            keys: settings.keys.clone(),
            rules: settings.ttl.iter().map(rule).collect::<Result<_, _>>()?,
            caching,
            ranges_max: settings.ranges_max.unwrap_or(RANGES_MAX),
            unvalidated_bytes_max: settings
                .unvalidated_max
                .map_or(UNVALIDATED_BYTES_MAX, |max| max.0.min(UNVALIDATED_BYTES_MAX)),
            compress: settings.compress.unwrap_or(true),
            prefetch: settings.prefetch.unwrap_or(true),
        })
    }
}

fn is_host(host: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte);
    host == ANY_HOST || (!host.is_empty() && host.bytes().all(allowed))
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

/// Whether a path matches a pattern in which `*` stands for anything. Linear in their product.
fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| path.strip_prefix(first)) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

/// A site at work.
pub struct Site {
    /// Its name in keys, metrics and logs: its host.
    pub name: Arc<str>,
    /// Where its content comes from.
    pub upstream: Upstream,
    /// What of the query belongs to the key.
    pub keys: KeyRules,
    /// Ranges in one request at most.
    pub ranges_max: usize,
    /// Answers without a strong validator are kept up to this size.
    pub unvalidated_bytes_max: u64,
    /// Whether texts are compressed.
    pub compress: bool,
    /// Whether what players announce is fetched ahead.
    pub prefetch: bool,
    caching: Arc<caching::Settings>,
    rules: Vec<(String, Arc<caching::Settings>)>,
}

impl Site {
    fn open(config: SiteConfig, node: &upstream::Node) -> Result<Self, upstream::Error> {
        let rules = config.rules.into_iter();
        Ok(Self {
            name: config.host.as_str().into(),
            upstream: Upstream::new(config.upstream, node)?,
            keys: config.keys,
            ranges_max: config.ranges_max,
            unvalidated_bytes_max: config.unvalidated_bytes_max,
            compress: config.compress,
            prefetch: config.prefetch,
            caching: Arc::new(config.caching),
            rules: rules.map(|(path, caching)| (path, Arc::new(caching))).collect(),
        })
    }

    /// The rules for a path.
    pub fn caching_of(&self, path: &str) -> Arc<caching::Settings> {
        let rule = self.rules.iter().find(|(pattern, _)| matches(pattern, path));
        Arc::clone(rule.map_or(&self.caching, |(_, caching)| caching))
    }

    /// A request to the origin on behalf of a client's, without a range.
    pub fn ask(&self, wanted: &Wanted) -> Ask {
        let mut ask = Ask::get(wanted.host.clone(), wanted.path.clone(), wanted.key.0);
        ask.method = if wanted.method == Method::HEAD { Method::HEAD } else { Method::GET };
        ask.fields = wanted.forwarded.clone();
        ask
    }

    /// A request for more of what is stored, under its validator.
    pub fn ask_again(&self, web: &Web) -> Ask {
        let mut ask = Ask::get(web.host.clone(), web.path.clone(), web.key.0);
        ask.fields = web.fields.clone();
        // What selected the representation selects it again, whoever asks.
        for (name, value) in &web.head.selecting {
            ask.fields.remove(name);
            if let Some(value) = value.as_ref().and_then(|value| HeaderValue::try_from(value).ok())
            {
                ask.fields.insert(name, value);
            }
        }
        if let Some(validator) = caching::strong_validator(&web.head.stored) {
            let (name, value) = validator.if_match();
            ask.fields.insert(name, value);
            ask.fields.insert(http::header::IF_RANGE, validator.if_range());
        }
        ask
    }
}

/// The sites of an edge.
#[derive(Default)]
pub struct Sites {
    by_host: HashMap<String, Arc<Site>>,
    any: Option<Arc<Site>>,
}

impl Sites {
    /// Opens them.
    ///
    /// # Errors
    /// What a site's upstream says.
    pub fn open(configs: Vec<SiteConfig>, node: &upstream::Node) -> Result<Self, upstream::Error> {
        let mut sites = Self::default();
        for config in configs {
            let host = config.host.clone();
            let site = Arc::new(Site::open(config, node)?);
            if host == ANY_HOST {
                sites.any = Some(site);
            } else {
                sites.by_host.insert(host, site);
            }
        }
        Ok(sites)
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.by_host.keys().cloned().collect();
        names.sort();
        names.extend(self.any.iter().map(|site| site.name.to_string()));
        names
    }

    /// The site that answers for a host, as the request names it.
    pub fn of(&self, host: Option<&str>) -> Option<&Arc<Site>> {
        let named = host.and_then(|host| {
            let host = host.to_ascii_lowercase();
            let bare = host.rsplit_once(':').map_or(&*host, |(name, _)| name);
            self.by_host.get(&host).or_else(|| self.by_host.get(bare))
        });
        named.or(self.any.as_ref())
    }
}

/// The sites' settings by host, with `--origin` as the site for any host.
///
/// # Errors
/// Those of [`SiteConfig::check`].
pub fn check(
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
    fn a_star_stands_for_anything() {
        for (pattern, path, expected) in [
            ("*.m3u8", "/live/a.m3u8", true),
            ("*.m3u8", "/live/a.m4s", false),
            ("/live/*", "/live/a.m4s", true),
            ("/live/*", "/vod/a.m4s", false),
            ("/a/*/b*.ts", "/a/x/y/b1.ts", true),
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("*", "/", true),
            ("/a*a", "/a", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
