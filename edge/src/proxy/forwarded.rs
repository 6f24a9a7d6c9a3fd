//! What goes to the origin of what a client asks.
//!
//! Invariant: no field that origins obey, and neither the key nor `Vary` names, is sent on: it would
//! change an answer that others get. `X-Forwarded-For` alone is: a proxy that is trusted may stand
//! before the edge. Its last address is this node's word, and origins are told to believe no other
//! (docs/caching.md).

use super::Wanted;
use crate::hygiene;
use caching::Selecting;
use heads::Head;
use http::{HeaderMap, HeaderName, Method, header};

impl Wanted {
    /// The fields: conditions and ranges are not among them.
    pub fn forwarded(&self) -> HeaderMap {
        let (fields, version) = (&self.fields, self.fields.0.version);
        let hop = caching::Hop { version, name: self.node.id() };
        let mut forwarded = caching::forward_request(fields, &hop);
        for name in &cmcd::HEADERS {
            forwarded.remove(name);
        }
        for name in hygiene::OBEYED {
            forwarded.remove(name);
        }
        if self.is_for_any_page() {
            forwarded.remove(header::ORIGIN);
        }
        if let Some(client) = self.client {
            caching::append_forwarded_for(&mut forwarded, client);
        }
        self.forward_newer(&mut forwarded);
        caching::strip_conditions(&mut forwarded);
        forwarded
    }

    /// Whether the client says what it has, and wants nothing to fail that an answer to that would hide
    /// (RFC 9110 section 13.2.2).
    pub(super) fn names_what_it_has(&self) -> bool {
        let names = |name| self.fields.contains_key(name);
        (names(header::IF_NONE_MATCH) || names(header::IF_MODIFIED_SINCE))
            && !names(header::IF_MATCH)
            && !names(header::IF_UNMODIFIED_SINCE)
    }

    /// Whether the client's field of this name may have a say in the origin's answer.
    fn is_sent(&self, name: &HeaderName) -> bool {
        !self.site.upstream.is_of_buckets()
            && caching::is_forwarded(name, &self.fields)
            && !cmcd::HEADERS.contains(name)
            && !hygiene::OBEYED.contains(&name.as_str())
            && (name != header::ORIGIN || !self.is_for_any_page())
    }

    /// Whether the origin's answer is given to whatever page asks: the edge says which may read it,
    /// and the origin is not told. Of what else a page may do the origin decides.
    fn is_for_any_page(&self) -> bool {
        self.site.cors.is_said_here() && matches!(self.method, Method::GET | Method::HEAD)
    }

    /// By what an answer to this request is told from other variants; none if no later request
    /// can be matched.
    pub(super) fn selecting(&self, response: &HeaderMap) -> Option<Selecting> {
        caching::selecting(response, &self.fields, |name| self.is_sent(name))
    }

    /// Whether what is stored is the variant that the request selects.
    pub(super) fn selects(&self, head: &Head) -> bool {
        let is_for_any_page = self.is_for_any_page();
        // What is stored from before that was said may be one page's.
        let selecting = head.selecting.iter();
        let selecting = selecting.filter(|(name, _)| !(is_for_any_page && name == header::ORIGIN));
        caching::selects(selecting, &head.stored.fields, &self.fields, |name| self.is_sent(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::film_of;
    use crate::settings::SiteSettings;

    /// Whosever page it was stored for, before the operator said who may read.
    #[tokio::test]
    async fn what_is_stored_is_good_for_every_page_once_the_edge_says_who_may_read() {
        for (cors, is_for_all) in [(vec![], false), (vec!["*".to_owned()], true)] {
            let origins = upstream::Settings::one("http://127.0.0.1:1").origins;
            let settings = SiteSettings { origins, cors: Some(cors), ..SiteSettings::default() };
            let (wanted, head) = film_of(10, &settings);
            let of_page = Some("https://player.example".to_owned());
            let head = Head { selecting: vec![(header::ORIGIN, of_page)], ..head };
            assert_eq!(wanted.selects(&head), is_for_all);
            let none = Head { selecting: vec![(header::ORIGIN, None)], ..head };
            assert!(wanted.selects(&none));
        }
    }
}
