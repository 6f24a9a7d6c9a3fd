//! What tests of other modules need of a proxy site.

use super::wanted::Fields;
use super::*;
use crate::object::Object;
use crate::settings::{ANY_HOST, SiteConfig, SiteSettings};
use caching::Stored;
use heads::KeyId;
use http::{HeaderMap, HeaderValue, Request, header};
use std::sync::OnceLock;

/// A stored representation of so many bytes with a strong validator, and the request for it. Its
/// origin is asked for one thing at a time.
pub(crate) fn film(bytes: u64, origin: &str) -> Object {
    let origins = upstream::Settings::one(origin).origins;
    let settings = SiteSettings { origins, in_flight_max: Some(1), ..SiteSettings::default() };
    let (wanted, head) = film_of(bytes, &settings);
    Object::web(&Arc::new(wanted), &Arc::new(head))
}

/// The same of a site with these settings, in its parts.
pub(crate) fn film_of(bytes: u64, settings: &SiteSettings) -> (Wanted, Head) {
    let config = SiteConfig::check(ANY_HOST, settings).unwrap();
    let node = upstream::Node::alone("edge", None, &prometheus::Registry::new()).unwrap();
    let site = Arc::clone(Sites::open(vec![config], &node).unwrap().of(None).unwrap());
    let (parts, ()) = Request::get("http://films.example/film").body(()).unwrap().into_parts();
    let key = KeyId::of(&site.name, "films.example/film");
    let fields = HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("\"1\""))]);
    let (requested_ms, received_ms) = (now_ms(), now_ms());
    let head = Head {
        site: Arc::clone(&site.name),
        url: "films.example/film".into(),
        selecting: Vec::new(),
        stored: Stored { status: StatusCode::OK, fields, requested_ms, received_ms },
        body: key.0,
        bytes,
        tags: Vec::new(),
        epoch: 1,
        asked_ms: requested_ms,
        fetched_ms: requested_ms,
        seen: heads::Seen::default(),
        read: heads::Read::default(),
    };
    let wanted = Wanted {
        key,
        by_peer: false,
        answer_by: None,
        newer_than: None,
        wishes: OnceLock::new(),
        caching: site.caching_of("/film", None),
        respelled: None,
        query: None,
        site,
        method: Method::GET,
        host: "films.example".into(),
        scheme: "http",
        priority: caching::Priority::default(),
        fields: Fields(Arc::new(parts)),
        client: None,
        node,
    };
    (wanted, head)
}
