//! A request to a proxy site, and what it is looked up by.

use super::site::Site;
use super::{fetch, in_url, newer, with_query};
use crate::engine::OWNED_RUN_BYTES;
use crate::hygiene;
use crate::peer::goes_round;
use crate::refused::Refused;
use crate::serve::{Asked, Edge};
use caching::Wishes;
use heads::KeyId;
use http::request::Parts;
use http::{HeaderMap, Method, header};
use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The fields of a client's request.
pub struct Fields(pub(super) Arc<Parts>);

impl Fields {
    /// Without the cookies that the rules leave out: whatever looks at the request finds none. Nor
    /// does it find what a client says of who it is where no origin is told: what `buckets` answer is
    /// the same for all, and would else be kept for nobody, and asked for by each.
    fn of(head: &Arc<Parts>, settings: &caching::Settings, buckets: bool) -> Self {
        let mut head = Arc::clone(head);
        if settings.cookies.are_dropped_of(&head.headers) {
            settings.cookies.leave_out_of_request(&mut Arc::make_mut(&mut head).headers);
        }
        for name in [header::COOKIE, header::AUTHORIZATION] {
            if buckets && head.headers.contains_key(&name) {
                Arc::make_mut(&mut head).headers.remove(name);
            }
        }
        Self(head)
    }
}

impl Deref for Fields {
    type Target = HeaderMap;
    fn deref(&self) -> &HeaderMap {
        &self.0.headers
    }
}

/// A request to a proxy site, checked, with what it is looked up by. What only a fetch needs is
/// made when it is asked for: most requests fetch nothing.
pub struct Wanted {
    /// The site.
    pub site: Arc<Site>,
    /// Names `host/path?query` by the site's key rules.
    pub key: KeyId,
    /// `GET`, `HEAD` or what is passed on.
    pub method: Method,
    /// As [`Site::known_as`] has it.
    pub host: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The client's fields.
    pub fields: Fields,
    /// RFC 9218.
    pub priority: caching::Priority,
    /// The caching rules of the site for this path and query.
    pub caching: Arc<caching::Settings>,
    /// Another node asks, by a listener for nodes.
    pub by_peer: bool,
    /// Another node wants nothing from before a purge that may not have come to this one.
    pub(super) newer_than: Option<newer::Newer>,
    /// Until when another node waits for the answer.
    pub answer_by: Option<Instant>,
    /// Read when it is asked for: most requests are answered before.
    pub(super) wishes: OnceLock<Wishes>,
    /// The canonical path; none where that is the client's spelling.
    pub(super) respelled: Option<String>,
    /// What of the query counts.
    pub(super) query: Option<String>,
    /// Whom the origin is told that the request came from.
    pub(super) client: Option<IpAddr>,
    pub(super) node: upstream::Node,
}

impl Wanted {
    /// Checks a request and finds what it is looked up by.
    ///
    /// # Errors
    /// [`Refused`] names what is not good.
    pub fn of(edge: &Edge, site: &Arc<Site>, asked: &Asked<'_>) -> Result<Self, Refused> {
        let head = asked.head;
        let target = hygiene::check(head)?;
        let path = site.path(target.path)?;
        if goes_round(edge, head, asked.via.peer.then_some(OWNED_RUN_BYTES)) {
            return Err(Refused::Loop);
        }
        let host = target.host.map(|host| in_url(host, asked.via.scheme)).unwrap_or_default();
        let host = site.known_as(host);
        let canonical = site.upstream.canonical_path(&path).ok_or(Refused::NoKey)?;
        let query = site.keys.query(target.query).map(Cow::into_owned);
        let (mark, of_query) = query.as_deref().map_or(("", ""), |query| ("?", query));
        let key = KeyId::of_parts(&site.name, [&*host, &*canonical, mark, of_query]);
        let caching = site.caching_of(&path, query.as_deref());
        let newer_than = newer::than(asked, &caching);
        newer_than.iter().for_each(|newer| newer.note(edge, &key, &head.headers));
        Ok(Self {
            key,
            by_peer: asked.via.peer,
            newer_than,
            answer_by: asked.answer_by(),
            wishes: OnceLock::new(),
            fields: Fields::of(head, &caching, site.upstream.is_of_buckets()),
            caching,
            respelled: match path {
                Cow::Borrowed(_) => None,
                Cow::Owned(path) => Some(path),
            },
            query,
            site: Arc::clone(site),
            method: head.method.clone(),
            host,
            scheme: asked.via.scheme,
            priority: caching::Priority::of_request(&head.headers),
            // The first node told it already, of who asked that one.
            client: asked.via.client.filter(|_| !asked.via.peer),
            node: edge.node.clone(),
        })
    }

    pub(super) fn canonical_path(&self) -> &str {
        self.respelled.as_deref().unwrap_or_else(|| self.fields.0.uri.path())
    }

    /// `/path?query` for the origin. What is not looked up reaches it as it was asked.
    pub fn path(&self) -> String {
        let is_looked_up = self.method == Method::GET || self.method == Method::HEAD;
        let query = match is_looked_up {
            true => self.query.as_deref().map(Cow::Borrowed),
            false => self.fields.0.uri.query().map(|query| hygiene::escaped(query.into())),
        };
        with_query(self.canonical_path(), query.as_deref())
    }

    /// What its `Vary` is remembered by where nothing is stored that would tell it: its key, or where it
    /// is a blocking reload its playlist's, since each of these has a key of its own.
    pub(super) fn varies_as(&self) -> KeyId {
        match upstream::is_reload(&self.path()) {
            true => KeyId::of_parts(&self.site.name, [&*self.host, self.canonical_path()]),
            false => self.key,
        }
    }

    /// `host/path?query` by the site's key rules.
    pub fn url(&self) -> Arc<str> {
        let path = self.canonical_path();
        // It had a canonical form when it was checked.
        let canonical = self.site.upstream.canonical_path(path).unwrap_or(Cow::Borrowed(path));
        format!("{}{}", self.host, with_query(&canonical, self.query.as_deref())).into()
    }

    /// A request whose answer is nobody else's unless its fields say so: it waits for nobody.
    pub(super) fn is_personal(&self) -> bool {
        self.fields.contains_key(header::AUTHORIZATION)
    }

    /// A request whose answer nobody could wait for: it is personal, or not to be stored.
    pub(super) fn is_of_one(&self) -> bool {
        self.is_personal() || self.wishes().no_store
    }

    /// What it wants of caches.
    pub(super) fn wishes(&self) -> Wishes {
        *self.wishes.get_or_init(|| Wishes::of(&self.fields, &self.caching))
    }

    /// What of who asks may decide that the answer is not kept.
    pub(super) fn asker(&self) -> fetch::Asker {
        (self.is_personal(), self.fields.contains_key(header::COOKIE))
    }
}
