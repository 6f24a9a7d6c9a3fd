//! Fetches what will be asked for next, within the budget that [`Prefetch`] keeps: in the
//! background, less urgent than anything a client waits for.

use crate::body::{Content, Sending};
use crate::engine::{Engine, Left, wait_until};
use crate::object::Object;
use crate::prefetch::{Awaited, Hint, Permit, Prefetch, Refusal, key};
use crate::proxy::{Site, Wanted, is_stored};
use crate::refused::Refused;
use crate::serve::{Answer, Asked, Edge, proxied};
use crate::title::Title;
use crate::verdict::Verdict;
use bytes::Bytes;
use heads::KeyId;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use model::{ByteRange, chunk};
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// The least urgent (RFC 9218).
const URGENCY: u8 = 7;
/// A share of responses beyond which nothing is fetched ahead.
const LOAD_MAX: f64 = 0.8;
/// What an announced object is taken for, in bytes, until it is here: a segment.
const ANNOUNCED_BYTES: u64 = 2 << 20;
/// What is known to be longer is not fetched ahead, nor more of anything else.
const ANNOUNCED_BYTES_MAX: u64 = 16 << 20;
/// What an answer that is given up may have brought that nobody took: as far as it may be ahead
/// of its reader, and the chunk that it has begun.
const UNTAKEN_BYTES: u64 = 5 * chunk::CHUNK_BYTES;

/// What of an answer that nobody reads may have come, in the buffers on the way.
const UNREAD_BYTES: u64 = 1 << 20;

fn is_pressed(edge: &Edge) -> bool {
    edge.engine.chunks.under_pressure() || edge.places.load() > LOAD_MAX
}

/// Segment `number` of a track is asked for: whether it was fetched ahead.
#[must_use]
pub fn segment(edge: &Edge, object: &Object, number: u32) -> Option<Awaited> {
    edge.prefetch.awaited(segment_key(object, number))
}

/// Segment `number` of a track is being answered: fetches the ones that follow.
pub fn follow(edge: &Arc<Edge>, object: &Object, title: &Title, track: usize, number: u32) {
    let prefetch: &Prefetch = &edge.prefetch;
    let Some(track) = title.index.tracks.get(track) else { return };
    let count = u32::try_from(track.segments.len()).unwrap_or(u32::MAX);
    for number in prefetch.following(object.body, number, count) {
        let Some(segment) = track.segments.get(number as usize) else { return };
        let range = segment.range;
        if !range.fits(object.bytes) || edge.engine.foresee(object, chunk::covering(range)).is_hit()
        {
            continue;
        }
        let name = segment_key(object, number);
        if let Some(permit) = prefetch.permit(Instant::now(), name, range.bytes, is_pressed(edge)) {
            let (edge, object) = (Arc::clone(edge), object.clone());
            let metrics = edge.metrics.clone();
            let bringing = async move { bring(&edge, object, range, permit).await };
            tokio::spawn(metrics.guarded(bringing));
        }
    }
}

fn segment_key(object: &Object, number: u32) -> u64 {
    key(&[&object.body[..], &number.to_le_bytes()].concat())
}

async fn bring(edge: &Arc<Edge>, object: Object, range: ByteRange, permit: Permit) {
    let sending = Sending::part(&edge.engine, object, range, URGENCY);
    take(&edge.engine, Content::Object(Box::new(sending)), permit).await;
}

/// Takes a body to its end, if there is leave for so much; what of it came from elsewhere has
/// been prefetched.
async fn take(engine: &Engine, mut content: Content, mut permit: Permit) {
    let (mut taken, mut fetched) = (0, 0);
    let length = content.bytes();
    let mut may_go_on = length.is_none_or(|length| raise(&mut permit, length));
    let (mut left, mut is_late) = (Left::default(), false);
    loop {
        let until = left.until(true, taken, engine.kept_each());
        let next = tokio::select! {
            next = poll_fn(|cx| content.poll(cx)) => next,
            () = wait_until(until) => {
                (may_go_on, is_late) = (false, true);
                Some(Ok((Bytes::new(), Verdict::Origin)))
            }
        };
        let Some(next) = next else { break };
        let Ok((bytes, source)) = next else { return permit.in_vain(fetched) };
        taken += bytes.len() as u64;
        fetched += if source.is_hit() { 0 } else { bytes.len() as u64 };
        may_go_on = may_go_on && (length.is_some() || raise(&mut permit, taken));
        if !may_go_on {
            let most = length.unwrap_or(u64::MAX);
            // What is late may have come in part.
            let asked = fetched > 0 || is_late;
            let came = if asked { fetched.saturating_add(UNTAKEN_BYTES).min(most) } else { 0 };
            return permit.gave_up(came);
        }
    }
    permit.fetched(fetched);
}

fn raise(permit: &mut Permit, bytes: u64) -> bool {
    bytes <= ANNOUNCED_BYTES_MAX && permit.raise(Instant::now(), bytes)
}

/// What a request has announced. It waits until [`Announced::follow`]: the request goes first. If that
/// is given up before, as by a player that thinks better of it, so is this.
pub struct Announced(watch::Sender<()>);

impl Announced {
    /// The request is answered.
    pub fn follow(self) {
        self.0.send_replace(());
    }
}

/// A player has announced what it will ask for (CMCD `nor`): fetches that, once it is followed. Nothing
/// is fetched on behalf of a request that says who asks: by a cookie only where it counts.
pub fn announced(
    edge: &Arc<Edge>,
    site: &Arc<Site>,
    asked: &Asked<'_>,
    cmcd: &cmcd::Cmcd,
) -> Option<Announced> {
    let head = asked.head;
    let fields = &head.headers;
    if fields.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let has_cookie = fields.contains_key(header::COOKIE);
    let target = head.uri.path_and_query()?;
    let mut announced = None;
    let host = head.uri.authority().map(|authority| authority.as_str().to_owned());
    let host = host.or_else(|| Some(fields.get(header::HOST)?.to_str().ok()?.to_owned()));
    for next in cmcd.next(target.as_str()) {
        let Some(request) = request(fields, host.as_deref(), &next) else { continue };
        let head = Arc::new(request.into_parts().0);
        let asked = Asked { head: &head, protocol: "prefetch", via: asked.via };
        let Ok(wanted) = Wanted::of(edge, site, &asked) else { continue };
        if has_cookie && !wanted.caching.cookies.are_dropped() {
            continue;
        }
        if edge.fetches.keeps_no_part_of(&wanted) {
            edge.prefetch.left(Refusal::InVain);
            continue;
        }
        let hint = hint(&wanted.url(), asked.via.client, cmcd.sid.as_deref());
        let (edge, via) = (Arc::clone(edge), Arc::clone(asked.via));
        let Announced(turn) = announced.get_or_insert_with(|| Announced(watch::Sender::new(())));
        let (metrics, mut turn) = (edge.metrics.clone(), turn.subscribe());
        tokio::spawn(metrics.guarded(async move {
            let Ok(()) = turn.changed().await else { return };
            let Some(permit) = permit(&edge, &wanted, hint) else { return };
            let asked = Asked { head: &head, protocol: "prefetch", via: &via };
            let answered = proxied(&edge, &asked, Arc::new(wanted)).await;
            keep(&edge.engine, answered, permit).await;
        }));
    }
    announced
}

/// Leave to fetch what is announced.
fn permit(edge: &Edge, wanted: &Wanted, hint: Hint) -> Option<Permit> {
    let name = object_key(&wanted.key);
    if !is_stored(edge, wanted) {
        edge.prefetch.forget(name);
    }
    let (now, pressed) = (Instant::now(), is_pressed(edge));
    edge.prefetch.permit_hinted(now, (name, hint), ANNOUNCED_BYTES, pressed)
}

/// Takes an answer to the end, if it is one that is kept: what is not would be fetched for nobody.
async fn keep(engine: &Engine, answered: Result<Answer, Refused>, permit: Permit) {
    match answered {
        // Nobody was asked.
        Err(refused) if refused.parts().0 == Verdict::Busy => {}
        Err(_) => permit.in_vain(0),
        Ok(answer)
            if answer.status.is_success() && !matches!(answer.content, Content::Passing(_)) =>
        {
            let _place = answer.place;
            take(engine, answer.content, permit).await;
        }
        Ok(answer) => {
            let bytes = answer.content.bytes().unwrap_or(UNREAD_BYTES);
            drop(answer);
            permit.in_vain(bytes.min(UNREAD_BYTES));
        }
    }
}

/// What the player would ask, as far as that selects a representation.
fn request(fields: &HeaderMap, host: Option<&str>, next: &cmcd::Next) -> Option<Request<()>> {
    let mut request = Request::builder().method(Method::GET).uri(&next.target);
    for name in [header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::ORIGIN] {
        if let Some(value) = fields.get(&name) {
            request = request.header(name, value);
        }
    }
    if let Some(range) = next.range {
        request = request.header(header::RANGE, format!("bytes={range}"));
    }
    let urgency = HeaderValue::try_from(format!("u={URGENCY}")).ok()?;
    // A live segment that is not there yet is not to be missing for who asks in time.
    request = request.header(caching::SEC_PURPOSE, "prefetch");
    request.header(header::HOST, host?).header("priority", urgency).body(()).ok()
}

/// A request of a client's for something that may have been announced, by whatever name of the site
/// and in whatever spelling.
#[must_use]
pub fn asked_for(edge: &Edge, wanted: &KeyId) -> Option<Awaited> {
    let prefetch = Some(&edge.prefetch).filter(|prefetch| prefetch.has_unused())?;
    prefetch.awaited(object_key(wanted))
}

fn object_key(of: &KeyId) -> u64 {
    key(&of.0)
}

/// The folder that a URL (`host/path?query`) is in, and the player that announces it: its address, and
/// the session of those who share one.
fn hint(url: &str, client: Option<IpAddr>, session: Option<&str>) -> Hint {
    let path = url.split('?').next().unwrap_or(url);
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let folder = key(folder.as_bytes());
    let player = key(format!("{folder} {client:?} {session:?}").as_bytes());
    Hint { folder, player }
}
