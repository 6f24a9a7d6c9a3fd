//! Answers to a request for more of what is stored that may not be kept with it.

use super::Fetch;
use super::outcome::{Own, Unshared};
use super::span::{Part, Span};
use crate::apart::{Apart, Given};
use crate::error::Fault;
use crate::proxy::{Wanted, now_ms, pass, stored};
use crate::refused::Refused;
use crate::serve::{Answer, Edge};
use caching::{CacheStatus, Forwarded};
use http::StatusCode;
use std::sync::Arc;

/// Nothing of a response has gone out when the origin gives such an answer. Who asked is given that,
/// or what is wanted of it; who only waited asks alone, unless the origin has failed.
///
/// # Errors
/// [`Refused`].
pub async fn apart(
    edge: &Arc<Edge>,
    wanted: &Arc<Wanted>,
    apart: &Apart,
) -> Result<Answer, Refused> {
    let own = apart.take(wanted);
    let is_others = own.is_none();
    if let Some(unshared) = own.and_then(|given| unshared(edge, wanted, *given)) {
        let told = CacheStatus { forwarded: Some(Forwarded::Partial), ..CacheStatus::default() };
        return Own::Unshared(Box::new(unshared)).answer(edge, wanted, told).await;
    }
    if is_others && apart.is_failure() {
        return Err(Refused::Fault(Fault::Answered(apart.status)).forwarded(Forwarded::Partial));
    }
    Box::pin(Fetch::new(edge, wanted, None).alone(Forwarded::Partial)).await
}

/// What is wanted of it; none if that can't be cut out.
fn unshared(edge: &Edge, wanted: &Wanted, given: Given) -> Option<Unshared> {
    let Given { answer, web, missing, requested_ms } = given;
    let cut = match answer.head.status {
        StatusCode::PARTIAL_CONTENT => {
            // It may go on beyond what was missing, to where its reader wants it to.
            let given = caching::content_range(&answer.head.headers)?.range;
            let asked = Span { start: missing.start, end: Some(missing.end().max(given.end())) };
            let wants_part = stored::wants_parts(wanted, &web.head);
            let part = Part::of(&answer, Some(asked)).filter(|_| wants_part)?;
            Some(part.cut(&wanted.fields)?)
        }
        _ => None,
    };
    let fields = pass::received(edge, &answer.head, now_ms());
    let (unkept, is_of_request) = (None, false);
    Some(Unshared { answer, fields, requested_ms, cut, unkept, is_of_request })
}
