//! A proxy site at work: where its content comes from, and by what rules it is kept.

use super::Wanted;
use crate::hygiene::{self, KeyRules};
use crate::object::Web;
use crate::settings::{ANY_HOST, Rule, SiteConfig};
use crate::tally::Tally;
use http::{HeaderValue, Method};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use upstream::{Ask, Upstream, Urgency};

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

/// An origin that is always slow is waited for no longer than this, where a stale answer may do.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// A site at work.
pub struct Site {
    /// Its name in keys, metrics and logs: its host.
    pub name: Arc<str>,
    /// What its requests are counted by.
    pub tally: Arc<Tally>,
    /// Where its content comes from.
    pub upstream: Upstream,
    /// What of the query belongs to the key.
    pub keys: KeyRules,
    /// How long a slow origin is waited for where a stale answer may stand in; longer, where 99
    /// of 100 answers take longer.
    pub stale_after: Duration,
    /// Ranges in one request at most.
    pub ranges_max: usize,
    /// Answers without a strong validator are kept up to this size.
    pub unvalidated_bytes_max: u64,
    /// Whether texts are compressed.
    pub compress: bool,
    /// Whether what players announce is fetched ahead.
    pub prefetch: bool,
    caching: Arc<caching::Settings>,
    rules: Vec<Ruled>,
}

/// A rule at work.
struct Ruled {
    path: String,
    query: Option<String>,
    caching: Arc<caching::Settings>,
}

impl Ruled {
    fn of(rule: Rule) -> Self {
        Self { path: rule.path, query: rule.query, caching: Arc::new(rule.caching) }
    }

    fn is_for(&self, path: &str, query: Option<&str>) -> bool {
        matches(&self.path, path)
            && self.query.as_deref().is_none_or(|wanted| hygiene::has(query, wanted))
    }
}

impl Site {
    fn open(config: SiteConfig, node: &upstream::Node) -> Result<Self, upstream::Error> {
        config.idle_rules().for_each(|note| tracing::warn!("{note}"));
        Ok(Self {
            tally: Arc::new(Tally::new(config.host.as_str().into())),
            name: config.host.as_str().into(),
            upstream: Upstream::new(config.upstream, node)?,
            keys: config.keys,
            stale_after: config.stale_after,
            ranges_max: config.ranges_max,
            unvalidated_bytes_max: config.unvalidated_bytes_max,
            compress: config.compress,
            prefetch: config.prefetch,
            caching: Arc::new(config.caching),
            rules: config.rules.into_iter().map(Ruled::of).collect(),
        })
    }

    /// The host that what is asked of it is known by: of a site for one host its name, whatever
    /// port a client came by; of the site for any other, what the client named, which is in lower
    /// case and without the scheme's own port.
    pub fn known_as(&self, named: String) -> String {
        if *self.name == *ANY_HOST { named } else { self.name.to_string() }
    }

    /// The rules for a path, and what of the query belongs to the key.
    pub fn caching_of(&self, path: &str, query: Option<&str>) -> Arc<caching::Settings> {
        let rule = self.rules.iter().find(|rule| rule.is_for(path, query));
        Arc::clone(rule.map_or(&self.caching, |rule| &rule.caching))
    }

    /// How long a usable stale answer is held back for the origin's: longer than the operator
    /// says where most answers take longer.
    pub fn patience(&self) -> Duration {
        let usual = self.upstream.head_within().unwrap_or_default();
        self.stale_after.max(usual.min(PATIENCE_MAX))
    }

    /// A request to the origin on behalf of a client's, without a range.
    pub fn ask(&self, wanted: &Wanted) -> Ask {
        let mut ask = Ask::get(wanted.host.clone(), wanted.path(), wanted.key.0);
        ask.method = if wanted.method == Method::HEAD { Method::HEAD } else { Method::GET };
        ask.fields = wanted.forwarded();
        ask.by_peer = wanted.by_peer;
        ask.urgency = Urgency::of(wanted.priority.urgency);
        ask
    }

    /// A request for more of what is stored, under its validator.
    pub fn ask_again(&self, web: &Web) -> Ask {
        let wanted = &web.wanted;
        let mut ask = Ask::get(wanted.host.clone(), wanted.path(), wanted.key.0);
        ask.fields = wanted.forwarded();
        ask.by_peer = wanted.by_peer;
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
        let named = host.filter(|_| !self.by_host.is_empty()).and_then(|host| {
            let host = host.to_ascii_lowercase();
            let bare = host.rsplit_once(':').map_or(&*host, |(name, _)| name);
            // A name may end with the root's dot (RFC 3986 section 3.2.2).
            let site = self.by_host.get(&host).or_else(|| self.by_host.get(bare));
            site.or_else(|| self.by_host.get(bare.strip_suffix('.')?))
        });
        named.or(self.any.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_may_be_for_what_has_a_parameter() {
        let rule = |query: Option<&str>| {
            let caching = Arc::new(caching::Settings::default());
            Ruled { path: "*.m3u8".to_owned(), query: query.map(str::to_owned), caching }
        };
        for (wanted, path, query, expected) in [
            (None, "/a.m3u8", None, true),
            (None, "/a.m3u8", Some("_HLS_msn=1"), true),
            (Some("_HLS_msn"), "/a.m3u8", Some("_HLS_msn=1"), true),
            (Some("_HLS_msn"), "/a.m3u8", Some("a=1&_HLS_msn"), true),
            (Some("_HLS_msn"), "/a.m3u8", Some("a=_HLS_msn&x_HLS_msn=1&_HLS_msn2=1"), false),
            (Some("_HLS_msn"), "/a.m3u8", None, false),
            (Some("_HLS_msn"), "/a.m4s", Some("_HLS_msn=1"), false),
            (Some("_HLS_*"), "/a.m3u8", Some("_HLS_part=1"), true),
        ] {
            assert_eq!(rule(wanted).is_for(path, query), expected, "{wanted:?} {path} {query:?}");
        }
    }

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
