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
use http::{HeaderMap, HeaderName};

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
        if let Some(client) = self.client {
            caching::append_forwarded_for(&mut forwarded, client);
        }
        self.forward_newer(&mut forwarded);
        caching::strip_conditions(&mut forwarded);
        forwarded
    }

    /// Whether the client's field of this name may have a say in the origin's answer.
    fn is_sent(&self, name: &HeaderName) -> bool {
        !self.site.upstream.is_of_buckets()
            && caching::is_forwarded(name, &self.fields)
            && !cmcd::HEADERS.contains(name)
            && !hygiene::OBEYED.contains(&name.as_str())
    }

    /// By what an answer to this request is told from other variants; none if no later request
    /// can be matched.
    pub(super) fn selecting(&self, response: &HeaderMap) -> Option<Selecting> {
        caching::selecting(response, &self.fields, |name| self.is_sent(name))
    }

    /// Whether what is stored is the variant that the request selects.
    pub(super) fn selects(&self, head: &Head) -> bool {
        let (selecting, stored) = (&head.selecting, &head.stored.fields);
        caching::selects(selecting, stored, &self.fields, |name| self.is_sent(name))
    }
}
