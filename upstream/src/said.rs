//! What the answer of another node says of whose fault it is (RFC 9209, RFC 9110 section 15.5.20).
//! Pure.
//!
//! A node that has an answer of its origin, of whatever status, passes it on. One that has none says
//! why, in the last member of `Proxy-Status`: with an error that is about its next hop, or with one
//! that is about itself.

use crate::ask::Answer;
use crate::fault::{ErrorType, Fault};
use caching::CacheStatus;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::sync::Once;

/// Beside an answer to an unsafe request: what is asked for may have been carried out, whatever the
/// status says. The node that answers has lost the answer to an earlier try, or the next one has.
const CARRIED_OUT: HeaderName = HeaderName::from_static("nearcast-carried-out");

/// Tells the node that asked that its request may have been carried out.
pub fn tell_unsure(fields: &mut HeaderMap) {
    fields.insert(CARRIED_OUT, HeaderValue::from_static("maybe"));
}

/// Whether an answer says so. Takes it out: it is for this node.
pub(crate) fn take_unsure(fields: &mut HeaderMap) -> bool {
    fields.remove(CARRIED_OUT).is_some()
}

/// Beside the 503 for a blocking playlist reload: it was held for as long as a player is to wait,
/// though perhaps not for the node that is told so, which may have come late.
const HELD_IN_VAIN: HeaderName = HeaderName::from_static("nearcast-held-in-vain");

/// Tells the node that asked that its reload was held in vain.
pub fn tell_held_in_vain(fields: &mut HeaderMap) {
    fields.insert(HELD_IN_VAIN, HeaderValue::from_static("1"));
}

/// Whether an answer says so. Takes it out: it is for this node.
pub(crate) fn take_held_in_vain(fields: &mut HeaderMap) -> bool {
    fields.remove(HELD_IN_VAIN).is_some()
}

/// What of a node's answers is told in the log, once.
pub(crate) struct Remarks {
    as_client: Once,
    name: Once,
}

impl Remarks {
    pub(crate) const fn new() -> Self {
        Self { as_client: Once::new(), name: Once::new() }
    }

    /// Looks at an answer of a node, which may be one that clients are given.
    pub(crate) fn of(&self, fields: &HeaderMap, (site, hop): (&str, &str), is_as_to_clients: bool) {
        let told = "a node of the hierarchy";
        if is_as_to_clients {
            self.as_client.call_once(|| {
                let why =
                    "it, or one behind it, answers as it does clients: expected its peer-listen";
                tracing::warn!(site, hop, why, "{told}");
            });
        }
        if !self.name.is_completed()
            && let Some(name) = CacheStatus::nearest(fields)
        {
            self.name.call_once(|| {
                if name != hop {
                    let why = "it has another id: expected the same in its edge.id and here";
                    tracing::warn!(site, hop, its_id = name, why, "{told}");
                }
            });
        }
    }
}

/// What another node says of itself or of its origin, with what that is to who asked.
pub(crate) enum Said {
    /// It can't answer, whatever its origin would say.
    Own,
    /// It is asking this node for the same, or would.
    Circle(Fault),
    /// It serves no such site, and has done nothing.
    Unknown(Fault),
    /// Its origin is left alone by it, or has as many requests as it is to have.
    Spared(Fault),
    /// It asked its origin, and that failed.
    Failed(Fault),
}

/// What an answer of another node says; none where it is to be given on.
pub(crate) fn of(answer: &Answer) -> Option<Said> {
    use ErrorType as E;
    let (status, id) = (answer.head.status, answer.hop.as_str());
    if status == StatusCode::MISDIRECTED_REQUEST {
        let why = format!("{id}: it does not know this site (421)");
        return Some(Said::Unknown(Fault::unavailable(E::DestinationNotFound, why)));
    }
    if !status.is_server_error() {
        return None;
    }
    let fields = &answer.head.headers;
    // By its own name, whatever it is called here.
    let by_own_name = || E::reported(fields, &CacheStatus::nearest(fields)?);
    let error = E::reported(fields, id).or_else(by_own_name)?;
    let why = || format!("{id}: it has no answer of its origin: {}", error.as_str());
    Some(match error {
        E::ProxyInternalResponse
        | E::ProxyInternalError
        | E::ProxyConfigurationError
        | E::DestinationNotFound => Said::Own,
        E::ProxyLoopDetected => {
            let why = format!("{id}: it is asking this node for the same, or would");
            Said::Circle(Fault::unavailable(error, why))
        }
        E::ConnectionLimitReached => Said::Spared(Fault::busy(why())),
        E::DestinationUnavailable => Said::Spared(Fault::unavailable(error, why())),
        _ if status == StatusCode::GATEWAY_TIMEOUT => Said::Failed(Fault::timed_out(error, why())),
        _ => Said::Failed(Fault::unavailable(error, why())),
    })
}
