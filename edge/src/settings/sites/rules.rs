//! Rules of a proxy site for how long answers are good, and whether cookies count: the first that
//! matches a request's path, and query, counts.

use crate::hygiene::{self, KeyRules, expected_of};
use serde::Deserialize;
use service::config::{ConfigError, all, both};
use service::value::Span;
use std::sync::Arc;
use std::time::Duration;

/// The longest that an answer may be good or stand in, as an operator says: more is a slip.
const TTL_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);

/// How long answers are good whose path, and query, match.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[serde(expecting = "{ path, query, fixed, min, max, ... }")]
pub struct TtlSettings {
    /// A path with `*` for anything, as `/live/*` or `*.m3u8`.
    pub path: String,
    /// Only for requests whose query has a parameter of this name that belongs to the key; `*` at
    /// its end stands for any that begin so.
    pub query: Option<String>,
    /// Whatever the origin says.
    pub fixed: Option<Span>,
    /// At least.
    pub min: Option<Span>,
    /// At most.
    pub max: Option<Span>,
    /// For errors that say nothing and are not of one request alone (404, 410, 503, ...).
    pub negative: Option<Span>,
    /// How long an answer may be used while it is revalidated, where the origin says nothing.
    pub stale_while_revalidate: Option<Span>,
    /// As [`super::SiteSettings::stale_if_error`], which it goes before.
    pub stale_if_error: Option<Span>,
    /// As [`super::SiteSettings::cookies`], which it goes before.
    #[serde(deserialize_with = "super::cookies::given")]
    pub cookies: Option<caching::Cookies>,
}

impl TtlSettings {
    fn others(&self) -> [Option<Span>; 3] {
        [self.negative, self.stale_while_revalidate, self.stale_if_error]
    }

    /// It, once it is checked, on top of the site's own settings. Of `buckets` it is for keys, whose
    /// slashes are never escaped.
    pub(super) fn rule(&self, caching: &caching::Settings, buckets: bool) -> Rule {
        let path = hygiene::pattern(&self.path).unwrap_or_default();
        let path = if buckets { path.replace(hygiene::SLASH, "/") } else { path };
        Rule { path, query: self.query.clone(), caching: Arc::new(ruled(caching, self)) }
    }

    /// A rule that matches some path and changes something.
    pub(super) fn check(&self, key: &str) -> Result<(), ConfigError> {
        let spans = all([
            ("fixed", self.fixed),
            ("min", self.min),
            ("max", self.max),
            ("negative", self.negative),
            ("stale-while-revalidate", self.stale_while_revalidate),
            ("stale-if-error", self.stale_if_error),
        ]
        .map(|(name, given)| check_span(&format!("{key}.{name}"), given)));
        let matches = both(self.check_path(key), self.check_query(key));
        both(matches, both(spans, self.check_change(key))).map(|_| ())
    }

    fn check_path(&self, key: &str) -> Result<(), ConfigError> {
        let path = format!("{key}.path");
        let expected = "a path with * for anything, as /live/* or *.m3u8";
        match &*self.path {
            "" => Err(ConfigError::missing(&path, expected)),
            given if !given.starts_with(['/', '*']) => {
                Err(ConfigError::value(&path, given, expected))
            }
            given if hygiene::pattern(given).is_none() => {
                let expected = "a path as requests may have it: no broken escapes, dot segments, \
                    backslashes or control bytes, and no query (`query` names a parameter)";
                Err(ConfigError::value(&path, given, expected))
            }
            _ => Ok(()),
        }
    }

    fn check_query(&self, key: &str) -> Result<(), ConfigError> {
        let given = self.query.as_deref();
        match given.and_then(|query| Some((query, expected_of(query)?))) {
            Some((query, expected)) => {
                Err(ConfigError::value(&format!("{key}.query"), query, expected))
            }
            None => Ok(()),
        }
    }

    /// It changes something, and not the same thing twice.
    fn check_change(&self, key: &str) -> Result<(), ConfigError> {
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
                if self.others().iter().all(Option::is_none) && self.cookies.is_none() =>
            {
                let expected =
                    "fixed, min, max, negative, stale-while-revalidate, stale-if-error or cookies";
                Err(ConfigError::missing(key, expected))
            }
            _ => Ok(()),
        }
    }
}

/// A rule, checked.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// A path with `*` for anything, in canonical form.
    path: String,
    /// The parameter that the query must have.
    query: Option<String>,
    /// What holds where it matches.
    pub caching: Arc<caching::Settings>,
}

impl Rule {
    /// Whether it is for such a request; `query` is what of it belongs to the key.
    pub fn is_for(&self, path: &str, query: Option<&str>) -> bool {
        matches(&self.path, path)
            && self.query.as_deref().is_none_or(|wanted| hygiene::has(query, wanted))
    }

    /// Whether it is for all that another one is for. What another's `*` stands for, only a `*`
    /// of this one can match.
    fn covers(&self, other: &Self) -> bool {
        let query = match (&self.query, &other.query) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => hygiene::is_named(own, other),
        };
        query && matches(&self.path, &other.path)
    }
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

/// Of the rules of the site at `key` that no request can match, since no key has their parameter,
/// or another rule goes before them.
pub(super) fn idle(key: &str, rules: &[Rule], keys: &KeyRules) -> Vec<String> {
    let idle = |(place, rule): (usize, &Rule)| {
        if let Some(query) = rule.query.as_deref().filter(|query| !keys.may_have(query)) {
            return Some(format!(
                "{key}.ttl[{place}].query: \"{query}\" belongs to no key, so the rule matches no \
                 request: expected a parameter that {key}.query keeps (where all origins are \
                 buckets, it keeps none unless it is given)"
            ));
        }
        let first = rules[..place].iter().position(|first| first.covers(rule))?;
        Some(format!(
            "{key}.ttl[{place}].path: \"{}\" is never looked at, since {key}.ttl[{first}] stands \
             before it and matches all that it would: expected narrower rules first",
            rule.path
        ))
    };
    rules.iter().enumerate().filter_map(idle).collect()
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
    if let Some(stale) = rule.stale_if_error {
        caching.if_error_ms = millis(stale);
    }
    caching.cookies = rule.cookies.unwrap_or(caching.cookies);
    caching
}

pub(super) fn check_span(key: &str, given: Option<Span>) -> Result<(), ConfigError> {
    match given.filter(|span| span.0 > TTL_MAX) {
        Some(span) => Err(ConfigError::value(key, span, format!("at most {}", Span(TTL_MAX)))),
        None => Ok(()),
    }
}

pub(super) fn millis(span: Span) -> i64 {
    i64::try_from(span.0.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str, query: Option<&str>) -> Rule {
        let caching = Arc::new(caching::Settings::default());
        Rule { path: path.to_owned(), query: query.map(str::to_owned), caching }
    }

    #[test]
    fn it_is_known_which_rules_no_request_gets_to() {
        let told = |rules: &[(&str, Option<&str>)]| {
            let rules: Vec<_> = rules.iter().map(|(path, query)| rule(path, *query)).collect();
            idle("site", &rules, &KeyRules::default()).len()
        };
        for (first, second, is_idle) in [
            (("*", None), ("/a/*", None), true),
            (("*", None), ("*", Some("q")), true),
            (("*", Some("q")), ("*", None), false),
            (("*", Some("q*")), ("/a", Some("qu")), true),
            (("*", Some("qu")), ("/a", Some("q*")), false),
            (("*.m3u8", None), ("/live/*.m3u8", None), true),
            (("/live/*", None), ("/live/*.m3u8", None), true),
            (("/live/*.m3u8", None), ("*.m3u8", None), false),
            (("/a*b", None), ("/a*c*b", None), true),
            (("/a*c*b", None), ("/a*b", None), false),
            (("/a", None), ("/a", None), true),
            (("/a", None), ("/b", None), false),
        ] {
            assert_eq!(told(&[first, second]), usize::from(is_idle), "{first:?} {second:?}");
        }
        assert_eq!(told(&[("/a", None), ("*", None), ("/a/*", None), ("/b", None)]), 2);
    }

    #[test]
    fn a_rule_may_be_for_what_has_a_parameter() {
        let rule = |query: Option<&str>| rule("*.m3u8", query);
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
