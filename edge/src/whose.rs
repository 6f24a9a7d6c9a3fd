//! Whose a request is: a proxy site's, the title site's, or nobody's; and whether it came by a
//! connection, and with a host, by which that can be told.

use crate::hygiene;
use crate::peer;
use crate::proxy::Site;
use crate::refused::Refused;
use crate::serve::{Asked, Edge};
use crate::title_site;
use http::{HeaderMap, Method, Uri, header};
use std::sync::Arc;
use wire::Via;

/// Whose a request is.
pub enum Whose<'a> {
    /// The title site's.
    Titles,
    /// A proxy site's.
    Proxy(&'a Arc<Site>),
    /// No site's: its host is not known.
    Nobodys,
}

/// The host that a request names, perhaps with a port.
fn host<'a>(uri: &'a Uri, fields: &'a HeaderMap) -> Option<&'a str> {
    let field = || fields.get(header::HOST).and_then(|host| host.to_str().ok());
    uri.authority().map(http::uri::Authority::as_str).or_else(field)
}

/// Whether a request came by a connection that was opened for another host, and can't be good
/// for this one, too. Another node (RFC 8586) opens one to this node by its own name, whatever
/// it asks for, be it by a listener for clients, the only ones that speak TLS. A client that calls
/// itself a node gains nothing that it could not have by a connection of its own.
pub fn is_misdirected(asked: &Asked<'_>) -> bool {
    if asked.via.is_for_any() {
        return false;
    }
    let fields = &asked.head.headers;
    let is_unlike = host(&asked.head.uri, fields).is_some_and(|named| {
        let port = named.rfind(':').filter(|at| !named[*at..].contains(']'));
        let name = &named[..port.unwrap_or(named.len())];
        !asked.via.is_for(name.strip_suffix('.').unwrap_or(name))
    });
    is_unlike && !fields.contains_key("cdn-loop")
}

/// Whether another node asks whether this one is there (RFC 9110 section 7.6.2).
pub fn asks_the_node(asked: &Asked<'_>) -> bool {
    asked.via.peer
        && asked.head.method == Method::OPTIONS
        && matches!(caching::forwards(&asked.head.headers), caching::Forwards::Here)
}

/// Why a request is sent away: its host, if there is something wrong with that, before anything
/// that depends on it (RFC 9112 section 3.2).
pub fn unhosted(asked: &Asked<'_>, else_for: Refused) -> Refused {
    hygiene::host(asked.head).err().map_or(else_for, Refused::Request)
}

/// Whose a request is, by its host and path.
pub fn whose<'a>(edge: &'a Edge, via: &Via, uri: &Uri, fields: &HeaderMap) -> Whose<'a> {
    let is_titles = if via.peer { peer::is_titles } else { title_site::is_titles };
    let host = host(uri, fields);
    match (edge.sites.of(host), &edge.titles) {
        (Some(site), None) => Whose::Proxy(site),
        (Some(site), Some(_)) => {
            // A site for any host leaves the title site its paths.
            if &*site.name == crate::settings::ANY_HOST && is_titles(uri.path()) {
                Whose::Titles
            } else {
                Whose::Proxy(site)
            }
        }
        (None, Some(_)) => Whose::Titles,
        (None, None) => Whose::Nobodys,
    }
}
