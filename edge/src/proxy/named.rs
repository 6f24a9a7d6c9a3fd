//! A URL as an operator writes it, and what is stored under it.

use super::{Site, Sites, in_url};
use crate::hygiene::{self, Host, KeyRules};
use std::borrow::Cow;
use std::sync::Arc;

/// What a URL, or the beginning of some, names.
pub struct Named {
    /// The site that answers it.
    pub site: Arc<Site>,
    /// `host/path?query` by the site's key rules.
    pub url: String,
    /// The canonical path: what the site's rules are looked up by,
    pub path: String,
    /// and what of the query belongs to the key.
    pub query: Option<String>,
}

/// A URL in its parts.
struct Parts<'a> {
    site: &'a Arc<Site>,
    host: String,
    path: String,
    query: Option<&'a str>,
}

/// The object that `url` names, found just as a request for it would find it.
///
/// # Errors
/// Says what is wrong, and what is expected.
pub fn url(sites: &Sites, url: &str) -> Result<Named, String> {
    let Parts { site, host, path, query } = parts(sites, url)?;
    let query = site.keys.query(query).map(Cow::into_owned);
    let key = site.upstream.canonical_path(&path);
    let key = key.ok_or_else(|| format!("{url:?}: the site's bucket can't have such a key"))?;
    let url = format!("{host}{}", super::with_query(&key, query.as_deref()));
    Ok(Named { url, site: Arc::clone(site), path, query })
}

/// What a path and query of this host are stored under; none if no request for them passes.
pub fn of_host(site: &Site, host: &str, path_and_query: &str) -> Option<String> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let path = site.path(hygiene::path(path).ok()?).ok()?;
    let key = site.upstream.canonical_path(&path)?;
    let query = site.keys.query(query).map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{host}{key}{query}"))
}

/// What all URLs that begin with `prefix` are stored under. A query in it is the beginning of one
/// that is stored, so the site must store queries as they come.
///
/// # Errors
/// Says what is wrong, and what is expected.
pub fn prefix(sites: &Sites, prefix: &str) -> Result<Named, String> {
    let Parts { site, host, path, query } = parts(sites, prefix)?;
    let query = query.map(|query| hygiene::escaped(query.into()));
    // All queries begin as an empty one does.
    let is_kept =
        |query: &str| query.is_empty() || site.keys.query(Some(query)) == Some(query.into());
    if query.as_deref().is_some_and(|query| site.keys != KeyRules::default() || !is_kept(query)) {
        return Err(format!(
            "{prefix:?}: has a query, and the site's rules change queries before they are stored: \
             expected one that ends before the ?"
        ));
    }
    // The beginning of a bucket's keys need not be one.
    let key = site.upstream.canonical_path(&path).unwrap_or((&*path).into());
    let query = query.map(Cow::into_owned);
    let url = format!("{host}{}", super::with_query(&key, query.as_deref()));
    Ok(Named { url, site: Arc::clone(site), path, query })
}

fn parts<'a>(sites: &'a Sites, url: &'a str) -> Result<Parts<'a>, String> {
    let expected = "expected http:// or https://, a host, and a path";
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url:?}: {expected}"))?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(format!("{url:?}: {expected}"));
    }
    // A fragment is never sent.
    let rest = rest.split('#').next().unwrap_or(rest);
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let bad = |error: hygiene::Refusal| format!("{url:?}: {error}");
    let ascii = hygiene::in_ascii(authority);
    let host = Host::parse(ascii.as_deref().unwrap_or(authority)).map_err(bad)?;
    let path = hygiene::path(if path.is_empty() { "/" } else { path }).map_err(bad)?;
    let host = in_url(host, &scheme);
    let site = sites.of(Some(&host)).ok_or_else(|| {
        format!(
            "{url:?}: no site here answers {host}: expected one of {}",
            sites.names().join(", ")
        )
    })?;
    let path = site.path(path).map_err(bad)?.into_owned();
    Ok(Parts { site, host: site.known_as(host), path, query })
}
