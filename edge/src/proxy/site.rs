//! A proxy site at work: where its content comes from, and by what rules it is kept.

use super::Wanted;
use crate::cors::Cors;
use crate::hygiene::{KeyRules, Refusal, SLASH};
use crate::object::Web;
use crate::settings::{ANY_HOST, Rule, SiteConfig};
use crate::tally::Tally;
use http::{HeaderValue, Method};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use upstream::{Ask, UNNAMED_HOST, Upstream, Urgency};

/// An origin that is always slow is waited for no longer than this, where a stale answer may do.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// For so long after an answer that was of another version than what is stored, its responses look
/// further before they begin: servers behind one address may each have `ETag`s of their own.
const CHANGED_FOR_MS: i64 = 600_000;

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
    /// of 100 answers take longer. None: until it has answered or failed (RFC 9111 section 4.2.4).
    pub stale_after: Option<Duration>,
    /// Ranges in one request at most.
    pub ranges_max: usize,
    /// Answers without a strong validator are kept up to this size.
    pub unvalidated_bytes_max: u64,
    /// Whether texts are compressed.
    pub compress: bool,
    /// Which pages on other hosts may read its answers.
    pub cors: Cors,
    /// Whether what players announce is fetched ahead.
    pub prefetch: bool,
    caching: Arc<caching::Settings>,
    rules: Vec<Rule>,
    /// When missing bytes of something stored were asked for, and there was another version, last.
    changed_ms: AtomicI64,
}

impl Site {
    fn open(config: SiteConfig, node: &upstream::Node) -> Result<Self, upstream::Error> {
        config.idle_rules().iter().for_each(|note| tracing::warn!("{note}"));
        Ok(Self {
            tally: Arc::new(Tally::new(config.host.as_str().into())),
            name: config.host.as_str().into(),
            upstream: Upstream::new(config.upstream, node)?,
            keys: config.keys,
            stale_after: config.stale_after,
            ranges_max: config.ranges_max,
            unvalidated_bytes_max: config.unvalidated_bytes_max,
            compress: config.compress,
            cors: config.cors,
            prefetch: config.prefetch,
            caching: Arc::new(config.caching),
            rules: config.rules,
            changed_ms: AtomicI64::new(i64::MIN),
        })
    }

    /// Missing bytes of something stored can't be had: there is another version.
    pub fn has_changed(&self, now_ms: i64) {
        self.changed_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether that was so lately.
    pub fn has_changed_lately(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.changed_ms.load(Ordering::Relaxed)) < CHANGED_FOR_MS
    }

    /// The host that what is asked of it is known by: its own name, by whatever host and port a
    /// client came. Only where it is for any host, and an origin is told which one, that is what the
    /// client named, in lower case and without the scheme's own port.
    pub fn known_as(&self, named: String) -> String {
        let is_told = *self.name == *ANY_HOST && self.upstream.passes_host();
        if is_told { named } else { self.name.to_string() }
    }

    /// A canonical path as this site's origins read it. A bucket's names have slashes only, however
    /// they are written: there an escaped one is a slash, to rules and purges as well. Among other
    /// origins it would be two things under one key.
    ///
    /// # Errors
    /// [`Refusal::HiddenSeparator`].
    pub fn path<'p>(&self, path: Cow<'p, str>) -> Result<Cow<'p, str>, Refusal> {
        if !self.upstream.is_s3() || !path.contains(SLASH) {
            return Ok(path);
        }
        match self.upstream.is_of_buckets() {
            true => Ok(Cow::Owned(path.replace(SLASH, "/"))),
            false => Err(Refusal::HiddenSeparator),
        }
    }

    /// As [`Ask::host`] has it.
    fn host_to_ask(&self, wanted: &Wanted) -> String {
        if *wanted.host == *self.name { String::new() } else { wanted.host.clone() }
    }

    /// The rules for a path, and what of the query belongs to the key.
    pub fn caching_of(&self, path: &str, query: Option<&str>) -> Arc<caching::Settings> {
        let rule = self.rules.iter().find(|rule| rule.is_for(path, query));
        Arc::clone(rule.map_or(&self.caching, |rule| &rule.caching))
    }

    /// How long a usable stale answer is held back for the origin's, if the operator says so: longer
    /// where most answers take longer.
    pub fn patience(&self) -> Option<Duration> {
        let stale_after = self.stale_after?;
        let usual = self.upstream.head_within().unwrap_or_default();
        Some(stale_after.max(usual.min(PATIENCE_MAX)))
    }

    /// A request to the origin on behalf of a client's, without a range.
    pub fn ask(&self, wanted: &Wanted) -> Ask {
        let mut ask = Ask::get(self.host_to_ask(wanted), wanted.path(), wanted.key.0);
        ask.method = if wanted.method == Method::HEAD { Method::HEAD } else { Method::GET };
        ask.fields = wanted.forwarded();
        (ask.by_peer, ask.answer_by) = (wanted.by_peer, wanted.answer_by);
        ask.urgency = Urgency::of(wanted.priority.urgency);
        ask
    }

    /// A request for more of what is stored, under its validator.
    pub fn ask_again(&self, web: &Web) -> Ask {
        let wanted = &web.wanted;
        let mut ask = Ask::get(self.host_to_ask(wanted), wanted.path(), wanted.key.0);
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
        // Where an origin is told the host, what another node wants for any host can't be had.
        let is_for_all = || host.is_some_and(|host| host.eq_ignore_ascii_case(UNNAMED_HOST));
        let any = || self.any.as_ref().filter(|any| !any.upstream.passes_host() || !is_for_all());
        named.or_else(any)
    }
}
