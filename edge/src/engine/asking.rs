//! What the engine asks upstreams, and what it makes of their answers: which bytes they are, and
//! whether they are of the version that is wanted.

use super::extent::Extent;
use super::{Arriving, Engine, OWNED_RUN_BYTES, TITLES_HOST, UNVALIDATED_BYTES_MAX};
use crate::apart::{Apart, Given};
use crate::error::Fault;
use crate::object::{Kind, Object, Web};
use crate::verdict::Verdict;
use caching::{Exchange, Fills};
use heads::{Head, KeyId};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::ByteRange;
use std::time::Instant;
use upstream::{Ask, HopId, HopKind, Place, Purges, Upstream, Urgency};

const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// How bytes are asked for.
pub(super) struct Asking<'a> {
    /// Not this hop, if there is another.
    pub(super) avoid: Option<HopId>,
    /// The place at a hop that there is already.
    pub(super) place: Option<Place>,
    /// They were asked for before, and the answer broke off.
    pub(super) is_repeat: bool,
    /// No other node is asked.
    pub(super) at_the_origin: bool,
    /// What an answer brings beyond what is asked for is taken up to this byte.
    pub(super) reach: u64,
    /// How many of the site's `retries` have gone into them; what an answer took is added.
    pub(super) retried: &'a mut u32,
    /// Its turn.
    pub(super) urgency: &'a Urgency,
}

impl Engine {
    /// An object's bytes could not be had as its head promises: the head goes. Who gave that may have
    /// it still, and give it again, where the next part is of another node: it is told from now on.
    pub(super) fn failed(&self, object: &Object, fault: &Fault) {
        let is_over = match fault {
            Fault::Changed | Fault::Gone | Fault::NotFound | Fault::Short => true,
            Fault::Apart(apart) => apart.ends,
            _ => false,
        };
        if let Kind::Web(web) = &object.kind
            && is_over
        {
            if matches!(fault, Fault::Changed) {
                let noted = self.others_are_outdated(&[web.wanted.key], &web.wanted.site.name);
                self.work.spawn(async {
                    if let Err(error) = noted.await {
                        tracing::warn!(%error, "a restart may forget that nodes have an old version");
                    }
                });
            }
            self.remove_head(web.wanted.key, &web.head);
        }
    }

    /// Asks for the bytes `missing` of an object, under its validator.
    pub(super) async fn ask(
        &self,
        object: &Object,
        missing: ByteRange,
        asking: Asking<'_>,
    ) -> Result<Arriving, Fault> {
        let Asking { avoid, place, is_repeat, at_the_origin, reach, retried, urgency } = asking;
        let upstream = self.upstream_of(object).ok_or(Fault::NotFound)?;
        let answer_by = answer_by(object, upstream);
        // A sibling may wait for this node to bring what follows.
        let known = self.extents.of(&object.body);
        let ask = |extent: Extent, place: Option<Place>| -> Result<Ask, Fault> {
            let mut ask = request(object, missing, extent, urgency)?;
            (ask.avoid, ask.place, ask.reach) = (avoid.clone(), place, Some(reach));
            (ask.is_repeat, ask.retried, ask.answer_by) = (is_repeat, *retried, answer_by);
            ask.at_the_origin = at_the_origin || extent != Extent::Missing;
            Ok(ask)
        };
        // Of the same version another node may have the bytes from before a hard purge.
        let purges = match &object.kind {
            Kind::Track { .. } => Purges::default(),
            Kind::Web(web) => Purges { last_ms: None, ..web.wanted.purges(self, &web.head.tags) },
        };
        let requested_ms = crate::proxy::now_ms();
        let first = Ask { purges, ..ask(known, place)? };
        let mut answered = upstream.send(first).await;
        if let Ok(answer) = &answered
            && answer.kind != HopKind::Origin
            && answer.head.status.is_success()
            && let Kind::Web(web) = &object.kind
            && (Some(answer.fetched_ms) <= purges.any_hard_ms()
                || self.joins(&web.wanted.key, &web.head, answer.fetched_ms).is_none())
        {
            drop(answered);
            self.metrics.nodes_passed_by.inc();
            let again = Ask { at_the_origin: true, ..ask(known, None)? };
            answered = upstream.send(again).await;
        }
        let (mut extent, mut narrow) = (known, None);
        while let Some((wider, hop)) = extent.wider(object, answered.as_ref()) {
            // The place that it was answered in: whoever waits for one may wait for this run.
            let place = answered.as_mut().ok().and_then(|answer| answer.place.take());
            drop(answered);
            answered = upstream.send(ask(wider, place)?).await;
            (extent, narrow) = (wider, Some(hop));
        }
        let mut answer = answered?;
        if let Kind::Web(web) = &object.kind {
            web.wanted.caching.cookies.leave_out_of_answer(&mut answer.head.headers);
        }
        *retried = answer.retried;
        let is_measured = answer.body.length().is_some() || !answer.body.is_delimited();
        let given = bytes_of(object, &answer.head, (missing, reach), is_measured);
        let is_part = answer.head.status == StatusCode::PARTIAL_CONTENT;
        let is_so = given.is_ok() && is_part != (extent == Extent::Whole);
        if is_so && narrow.is_some_and(|hop| hop == answer.hop) {
            self.extents.set(object.body, extent);
        } else if known != Extent::Missing && !is_so {
            self.extents.unset(&object.body);
        }
        if let Kind::Web(web) = &object.kind
            && let Some(ends) = is_apart(web, &answer.head, given.is_ok(), requested_ms)
        {
            let given = Given { answer, web: web.clone(), missing, requested_ms };
            return Err(Fault::Apart(Apart::new(given, ends, &self.work)));
        }
        if answer.head.status.is_server_error() {
            return Err(Fault::Answered(answer.head.status));
        }
        let (hop, source) = (answer.hop, source(answer.kind));
        match given {
            Ok(range) => {
                if let (Kind::Web(web), HopKind::Origin) = (&object.kind, answer.kind) {
                    // Earlier than what is known by a clock that was set back.
                    self.joins(&web.wanted.key, &web.head, answer.fetched_ms);
                }
                let is_whole = answer.head.status == StatusCode::OK;
                let is_other = range.start < missing.start || range.end() > missing.end();
                let (is_unranged, is_measured) = (is_whole && is_other, is_measured || !is_whole);
                let (body, wanted, retried) = (answer.body, missing.start..reach, *retried);
                Ok(Arriving {
                    body,
                    range,
                    wanted,
                    is_unranged,
                    may_be_unranged: false,
                    is_measured,
                    hop,
                    source,
                    retried,
                })
            }
            Err(fault) => {
                match (&fault, &object.kind) {
                    (Fault::Changed, Kind::Web(web)) => {
                        web.wanted.site.has_changed(crate::proxy::now_ms());
                    }
                    _ => upstream.blame(&hop, &fault.to_string()),
                }
                Err(fault)
            }
        }
    }

    /// Bytes for which the origin was asked at this moment are to be a part of what is stored, of which
    /// other nodes may have had them for longer than what its head came with: gives since when any of
    /// it is known. None where another node has told of a hard purge since them: it may be reading
    /// what is stored by now, which was newer when it asked.
    pub fn joins(&self, key: &KeyId, head: &Head, fetched_ms: i64) -> Option<i64> {
        let variants = self.heads.in_memory(key).unwrap_or_default();
        let known = variants.iter().find(|known| known.body == head.body);
        let known = known.map_or(head, |known| known);
        if fetched_ms >= known.fetched_ms {
            return Some(known.fetched_ms);
        }
        // Known before the look at what was told: a node that tells of a purge later finds it so.
        self.heads.update(*key, &Head { fetched_ms, ..known.clone() });
        (Some(fetched_ms) > self.told_of(key).any_hard_ms()).then_some(fetched_ms)
    }

    /// The upstream of an object was wrong.
    pub(super) fn blame(&self, object: &Object, hop: &HopId, fault: &Fault) {
        if let Some(upstream) = self.upstream_of(object) {
            upstream.blame(hop, &fault.to_string());
        }
    }

    /// Whether the object's upstream is asked again, for the `nth` time in a row, for what an answer
    /// of its origin did not bring.
    pub(super) fn pays_repeat(&self, object: &Object, nth: u32) -> bool {
        self.upstream_of(object).is_some_and(|upstream| upstream.pays_repeat(nth))
    }

    /// Whether another node, which broke off a body of the object, is there.
    pub(super) async fn is_there(&self, object: &Object, hop: &HopId) -> bool {
        match self.upstream_of(object) {
            Some(upstream) => upstream.is_there(hop).await,
            None => false,
        }
    }

    pub(super) fn upstream_of<'a>(&'a self, object: &'a Object) -> Option<&'a Upstream> {
        match &object.kind {
            Kind::Track { .. } => self.titles.as_ref(),
            Kind::Web(web) => Some(&web.wanted.site.upstream),
        }
    }
}

/// Until when another node waits for an answer with what is missing of an object. All who want that
/// share one request for it: so it is not ended sooner than a try may take, nor for who has begun to
/// read long ago.
pub(super) fn answer_by(object: &Object, upstream: &Upstream) -> Option<Instant> {
    object.answer_by().filter(|by| upstream.has_time(*by))
}

/// A request for these bytes of an object, under its validator, and as many more as `extent` says.
fn request(
    object: &Object,
    missing: ByteRange,
    extent: Extent,
    urgency: &Urgency,
) -> Result<Ask, Fault> {
    let mut ask = match &object.kind {
        Kind::Track { title, track, passed } => {
            let track = title.index.tracks.get(*track).ok_or(Fault::NotFound)?;
            let path = format!("/{}", title.file_path(track));
            let mut ask = Ask::get(TITLES_HOST, path, object.body);
            passed.tell(&mut ask);
            // Another node gives it the same turn.
            let priority = caching::Priority { urgency: urgency.get(), incremental: false };
            if priority != caching::Priority::default() {
                ask.fields.insert(PRIORITY, priority.value());
            }
            ask
        }
        Kind::Web(web) => web.wanted.site.ask_again(web),
    };
    let (first, last) = (missing.start, missing.end().saturating_sub(1));
    let range = match extent {
        Extent::Missing => Some(format!("bytes={first}-{last}")),
        Extent::ToTheEnd => Some(format!("bytes={first}-")),
        Extent::Whole => None,
    };
    if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
        ask.fields.insert(header::RANGE, range);
    } else {
        ask.fields.remove(header::IF_RANGE);
    }
    (ask.run, ask.urgency) = (missing.start / OWNED_RUN_BYTES, urgency.clone());
    Ok(ask)
}

/// How bytes from there are named.
pub fn source(kind: HopKind) -> Verdict {
    match kind {
        HopKind::Sibling => Verdict::Sibling,
        HopKind::Parent => Verdict::Parent,
        HopKind::Origin => Verdict::Origin,
    }
}

/// Whether an answer is for the one who asked alone, and then whether what is stored ends with it:
/// one with the bytes is judged as a 304 is, and an error has none. What is there in another
/// version is none of these.
fn is_apart(
    web: &Web,
    head: &http::response::Parts,
    has_bytes: bool,
    requested_ms: i64,
) -> Option<bool> {
    if has_bytes {
        let (request, settings) = (&web.wanted.fields, &web.wanted.caching);
        let received_ms = crate::proxy::now_ms();
        let exchange = Exchange { request, settings, requested_ms, received_ms };
        return match caching::fills(exchange, &web.head.stored, &head.headers) {
            Fills::Kept => None,
            Fills::Apart { ends } => Some(ends),
        };
    }
    match head.status {
        StatusCode::NOT_MODIFIED
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::RANGE_NOT_SATISFIABLE => None,
        StatusCode::NOT_FOUND | StatusCode::GONE => Some(!caching::is_of_one(&web.wanted.fields)),
        status => (!status.is_success()).then_some(false),
    }
}

/// Which of the object's bytes an answer to a range request holds, of those up to `reach`. All of it
/// may come without a length, but for its validator: that it is as long is seen at its end.
fn bytes_of(
    object: &Object,
    head: &http::response::Parts,
    (missing, reach): (ByteRange, u64),
    is_measured: bool,
) -> Result<ByteRange, Fault> {
    let said = || {
        let range = head.headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let range = range.unwrap_or("no Content-Range");
        format!("{} and {range} to bytes {}-{}", head.status, missing.start, missing.end() - 1)
    };
    let same = |fields: &HeaderMap| match &object.kind {
        Kind::Track { .. } => true,
        Kind::Web(web) => same_version(web, fields),
    };
    match head.status {
        StatusCode::PARTIAL_CONTENT => {
            let given = caching::content_range(&head.headers)
                .ok_or_else(|| Fault::unavailable(format!("answered {}", said())))?;
            if !same(&head.headers) || given.total.is_some_and(|total| total != object.bytes) {
                return Err(changed(object, said));
            }
            let fits = given.range.start == missing.start && given.range.end() <= reach;
            if fits {
                Ok(given.range)
            } else {
                Err(Fault::unavailable(format!("answered {}", said())))
            }
        }
        StatusCode::OK => {
            let length = head.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
            // What is kept came with a length, or was no longer than this.
            let may_be = !is_measured && object.bytes <= UNVALIDATED_BYTES_MAX;
            let whole = length.map_or(may_be, |length| length == object.bytes.to_string());
            if whole && same(&head.headers) {
                return Ok(ByteRange::new(0, object.bytes));
            }
            Err(changed(object, said))
        }
        StatusCode::PRECONDITION_FAILED
        | StatusCode::RANGE_NOT_SATISFIABLE
        | StatusCode::NOT_FOUND
        | StatusCode::GONE => Err(changed(object, said)),
        _ => Err(Fault::unavailable(format!("answered {}", said()))),
    }
}

/// A title's bytes never change: an origin that says so is broken.
fn changed(object: &Object, said: impl Fn() -> String) -> Fault {
    match object.kind {
        Kind::Track { .. } => Fault::unavailable(format!("answered {}", said())),
        Kind::Web(_) => Fault::Changed,
    }
}

fn same_version(web: &Web, fields: &HeaderMap) -> bool {
    // As a stored head's: an answer without a date is of when it came, and only beside a date
    // is `Last-Modified` a strong validator.
    let fields = caching::received_fields(fields, crate::proxy::now_ms());
    let stored = &web.head.stored;
    // Some servers compress what they send, and name it by the ETag of what they did not.
    let coding = header::CONTENT_ENCODING;
    fields.get(&coding) == stored.fields.get(&coding) && caching::same_validator(stored, &fields)
}
