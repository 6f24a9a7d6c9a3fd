//! A request as it is made for any hop: its URL, its fields and whose host is shown.

use crate::anew::Anew;
use crate::ask::{Ask, HopKind, UNNAMED_HOST};
use crate::circle::{AtNode, AtNodes};
use crate::fault::Fault;
use crate::hop::{Hop, Target};
use crate::newer::{self, Purges, Told};
use crate::place::Place;
use crate::s3::Keys;
use crate::turns::Urgency;
use crate::upload::{SendBody, Upload};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

/// A request, ready to be made for any hop.
pub(crate) struct Sending {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) fields: HeaderMap,
    pub(crate) purges: Purges,
    /// See [`Ask::reach`].
    pub(crate) reach: Option<u64>,
    pub(crate) upload: Option<Arc<Upload>>,
    pub(crate) pass_host: bool,
    pub(crate) urgency: Urgency,
    /// What is left over all hops.
    pub(crate) anew: Anew,
    /// Which run of the object.
    pub(crate) run: u64,
    /// Where it is noted which node is asked.
    pub(crate) at_nodes: AtNodes,
    /// For the first hop that is asked.
    pub(crate) place: Mutex<Option<Place>>,
}

impl Sending {
    /// `fields` are those to send, cleaned.
    pub(crate) fn new(ask: Ask, fields: HeaderMap, at_nodes: AtNodes) -> Self {
        Self {
            method: ask.method,
            path: ask.path,
            host: ask.host,
            fields,
            purges: ask.purges,
            reach: ask.reach,
            upload: ask.body.map(Upload::new),
            pass_host: false,
            urgency: ask.urgency,
            anew: Anew::telling(ask.unsure),
            run: ask.run,
            at_nodes,
            place: Mutex::new(ask.place),
        }
    }

    /// Notes that a node is asked, until what is given is dropped. What others could not join is none
    /// of it.
    pub(crate) fn note_at(&self, hop: &Hop) -> Option<AtNode> {
        let is_joined = self.method.is_safe() && self.upload.is_none();
        let is_noted = is_joined && hop.kind != HopKind::Origin;
        is_noted.then(|| self.at_nodes.enter(&hop.id, (&self.host, &self.path), self.run))
    }

    /// The request for a hop, made anew, and the keys that it is signed with.
    pub(crate) async fn request(
        &self,
        hop: &Hop,
    ) -> Result<(Request<SendBody>, Option<Arc<Keys>>), Fault> {
        let (uri, fields, keys) = match &hop.place {
            Target::Http { scheme, authority, prefix } => {
                let is_passed = self.pass_host && self.host != UNNAMED_HOST;
                let shown = is_passed || hop.kind != HopKind::Origin;
                let host = if shown { &self.host } else { authority };
                // Connections are kept for each authority of a URL. Those of HTTP/1.1 serve any
                // host, and clients choose what they ask for: one authority, and `Host` apart.
                let mut fields = self.fields.clone();
                let name = if *scheme == "http" && shown {
                    let named = host.parse::<Authority>().ok();
                    let named = named.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
                    let named = named.ok_or_else(|| Fault::refused(format!("host {host:?}")))?;
                    fields.insert(header::HOST, named);
                    authority
                } else {
                    host
                };
                let uri = format!("{scheme}://{name}{prefix}{}", self.path);
                let uri =
                    uri.parse().map_err(|error| Fault::refused(format!("{uri:?}: {error}")))?;
                (uri, fields, None)
            }
            Target::S3(bucket) => {
                let signed = bucket.request(&self.method, &self.path, &self.fields).await?;
                (signed.uri, signed.fields, signed.keys)
            }
        };
        let mut request = Request::new(SendBody::new(self.upload.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = fields;
        Ok((request, keys))
    }

    /// Tells another node of the purges; gives when, of which, and what was said.
    pub(crate) fn tell_purges(&self, hop: &Hop, fields: &mut HeaderMap) -> (i64, (Purges, Told)) {
        let (now_ms, purges) = (now_ms(), self.purges.for_hop(hop.kind));
        (now_ms, (purges, newer::tell(fields, purges, now_ms)))
    }
}

/// Milliseconds since 1970 UTC.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
