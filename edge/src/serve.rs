//! The life of a request, top to bottom, the same for HTTP/1.1, 2 and 3: room -> site ->
//! answer by a named verdict -> what all answers share.

use crate::account::Account;
use crate::body::{Body, Content};
use crate::cors;
use crate::encoded::Encoded;
use crate::engine::Engine;
use crate::hygiene;
use crate::metrics::Metrics;
use crate::peer;
use crate::places::{Place, Places};
use crate::prefetch::{Awaited, Prefetch};
use crate::proxy::{self, Fetches, Lives, Site, Sites, lately};
use crate::refused::Refused;
use crate::tally::Names;
use crate::title::Titles;
use crate::title_site;
use crate::verdict::Verdict;
use crate::view::Views;
use crate::whose::{Whose, asks_the_node, is_misdirected, unhosted, whose};
use bytes::Bytes;
use heads::{KeyId, PurgeLog};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use model::EdgeId;
use std::sync::Arc;
use std::time::Instant;
use upstream::RequestBody;
use wire::{Reply, Via};

/// Responses with a body under way: each holds the chunk that is being sent and the next, or,
/// when memory is short, copies of a few KiB. More are refused as busy.
pub const RESPONSES_MAX: usize = 16_384;
/// When a busy edge may be asked again, in seconds.
const RETRY_AFTER_S: &str = "2";

/// The edge, as requests see it.
pub struct Edge {
    /// Its name.
    pub id: EdgeId,
    /// Where chunks come from.
    pub engine: Arc<Engine>,
    /// This node among others.
    pub node: upstream::Node,
    /// The title site, where there is one.
    pub titles: Option<TitleSite>,
    /// The proxy sites.
    pub sites: Sites,
    /// Exchanges with their origins.
    pub fetches: Fetches,
    /// Answers that are arriving.
    pub lives: Lives,
    /// What was purged.
    pub purges: PurgeLog,
    /// Counters.
    pub metrics: Metrics,
    /// Room for responses.
    pub places: Places,
    /// Texts in other encodings.
    pub encoded: Encoded,
    /// What is fetched ahead.
    pub prefetch: Prefetch,
    /// For metrics and logs.
    pub names: Names,
}

/// What only a title site needs.
pub struct TitleSite {
    /// Titles.
    pub titles: Arc<Titles>,
    /// The fleet and the keys.
    pub views: Arc<Views>,
}

/// A request without its body.
pub struct Asked<'a> {
    /// Its head.
    pub head: &'a Arc<http::request::Parts>,
    /// `http/1.1`, `h2` or `h3`.
    pub protocol: &'static str,
    /// What its connection tells.
    pub via: &'a Arc<Via>,
}

impl Asked<'_> {
    /// Until when another node waits for the answer: a client has no say in that.
    pub fn answer_by(&self) -> Option<Instant> {
        let fields = self.via.peer.then_some(&self.head.headers)?;
        upstream::answer_by(fields, Instant::now())
    }
}

/// An answer before the fields that all answers share.
pub struct Answer {
    /// How it came about.
    pub verdict: Verdict,
    /// Its status.
    pub status: StatusCode,
    /// Its fields, but its length.
    pub headers: HeaderMap,
    /// Its body.
    pub content: Content,
    /// For HEAD: how long the body would be.
    pub promised: Option<u64>,
    /// Its place among the responses under way, where it takes one.
    pub place: Option<Place>,
    /// What was fetched ahead of it.
    pub awaited: Option<Awaited>,
}

impl Answer {
    /// An answer with this body.
    pub fn new(verdict: Verdict, status: StatusCode, headers: HeaderMap, content: Content) -> Self {
        Self { verdict, status, headers, content, promised: None, place: None, awaited: None }
    }
}

impl wire::Service for Edge {
    type Body = Body;

    fn whole(body: &mut Body) -> Option<Bytes> {
        body.whole()
    }

    fn of_unread(&self) -> HeaderMap {
        let told = Verdict::Refused.cache_status(&self.id);
        let unkept = HeaderValue::from_static("no-store");
        HeaderMap::from_iter([(CACHE_STATUS, told), (header::CACHE_CONTROL, unkept)])
    }

    fn untaken(&self, body: &mut Body) {
        body.untaken();
    }

    fn answer(self: &Arc<Self>, request: wire::Request) -> Reply<Body> {
        let wire::Request { head, body, protocol, via } = request;
        let head = Arc::new(head);
        serve(self, &Asked { head: &head, protocol, via: &via }, body)
    }
}

/// Answers a request: at once, if it is a hit in memory or refused.
fn serve(edge: &Arc<Edge>, asked: &Asked<'_>, body: RequestBody) -> Reply<Body> {
    let head = asked.head;
    let whose = whose(edge, asked.via, &head.uri, &head.headers);
    let tally = match whose {
        Whose::Titles => &edge.names.titles,
        Whose::Proxy(site) => &site.tally,
        Whose::Nobodys => &edge.names.none,
    };
    let cmcd = cmcd::read(&head.headers, head.uri.query());
    edge.metrics.cmcd(&cmcd);
    let has_told = cmcd.verdict != cmcd::Verdict::Absent;
    let mut account = Account::open(
        (edge.metrics.clone(), edge.prefetch.clone()),
        Arc::clone(head),
        (asked.protocol, asked.via.client),
        Arc::clone(tally),
        if has_told { cmcd.cmcd.to_string() } else { String::new() },
    );
    let site = match whose {
        Whose::Proxy(site) => Some(&**site),
        Whose::Titles | Whose::Nobodys => None,
    };
    let at_once = |answer: Result<Answer, Refused>, account| {
        let answer = answer.unwrap_or_else(|refused| refusal(edge, asked, &refused));
        Reply::Now(respond(edge, asked, answer, account, site))
    };
    match whose {
        _ if asks_the_node(asked) => at_once(Ok(here()), account),
        _ if hygiene::is_of_the_server(head) => at_once(options(edge, asked), account),
        _ if is_misdirected(asked) => at_once(Err(unhosted(asked, Refused::Misdirected)), account),
        Whose::Nobodys => at_once(Err(unhosted(asked, Refused::NoSite)), account),
        Whose::Titles => match hygiene::host(head) {
            Ok(()) => later(edge, asked, account, (Waits::Titles, body)),
            Err(refusal) => at_once(Err(refusal.into()), account),
        },
        Whose::Proxy(site) => {
            let look_ahead = |account: &mut Account, key: &KeyId| {
                // Another node looks ahead itself.
                if site.prefetch && !asked.via.peer {
                    account.awaits(crate::ahead::asked_for(edge, key));
                    if has_told {
                        account.goes_before(crate::ahead::announced(edge, site, asked, &cmcd.cmcd));
                    }
                }
            };
            if let Some(hit) = lately::answer(edge, site, asked) {
                look_ahead(&mut account, &hit.key);
                return known(hit, account);
            }
            let wanted = proxy::Wanted::of(edge, site, asked).map(Arc::new);
            wanted.iter().for_each(|wanted| look_ahead(&mut account, &wanted.key));
            match wanted.and_then(|wanted| begin(edge, asked, wanted)) {
                Ok(Begun::Done(answer)) => at_once(Ok(answer), account),
                Ok(Begun::Waits(wanted, place)) => {
                    later(edge, asked, account, (Waits::Proxy(wanted, place), body))
                }
                Err(refused) => at_once(Err(refused), account),
            }
        }
    }
}

/// A hit whose head is ready.
fn known(hit: lately::Hit, mut account: Box<Account>) -> Reply<Body> {
    let lately::Hit { known, held, place, .. } = hit;
    let content = Content::Held(held);
    account.place(Some(place));
    account.answered(Verdict::HitMemory, known.status().as_u16(), content.bytes());
    Reply::Known(known, Body::new(content, account))
}

/// What a request waits for.
enum Waits {
    Titles,
    Proxy(Arc<proxy::Wanted>, Place),
}

/// Answers a request that may have to wait. Its body is let go of after that: hyper closes the
/// connection over one that nobody reads.
fn later(
    edge: &Arc<Edge>,
    asked: &Asked<'_>,
    account: Box<Account>,
    (waits, body): (Waits, RequestBody),
) -> Reply<Body> {
    let (edge, head, protocol) = (Arc::clone(edge), Arc::clone(asked.head), asked.protocol);
    let via = Arc::clone(asked.via);
    Reply::later(async move {
        let asked = Asked { head: &head, protocol, via: &via };
        let site = match &waits {
            Waits::Proxy(wanted, _) => Some(Arc::clone(&wanted.site)),
            Waits::Titles => None,
        };
        let answer = match (waits, &edge.titles) {
            (Waits::Proxy(wanted, place), _) => waited(&edge, &wanted, place, body).await,
            (Waits::Titles, Some(titles)) if via.peer => peer::answer(&edge, titles, &asked).await,
            (Waits::Titles, Some(titles)) => title_site::answer(&edge, titles, &asked).await,
            (Waits::Titles, None) => Err(Refused::NoSite),
        };
        let answer = answer.unwrap_or_else(|refused| refusal(&edge, &asked, &refused));
        respond(&edge, &asked, answer, account, site.as_deref())
    })
}

/// What becomes of a request to a proxy site without waiting.
enum Begun {
    Done(Answer),
    Waits(Arc<proxy::Wanted>, Place),
}

fn begin(
    edge: &Arc<Edge>,
    asked: &Asked<'_>,
    wanted: Arc<proxy::Wanted>,
) -> Result<Begun, Refused> {
    let place = edge.places.take(wanted.priority.urgency)?;
    Ok(match proxy::at_hand(edge, asked, &wanted) {
        Some(answer) => Begun::Done(Answer { place: Some(place), ..answer }),
        None => Begun::Waits(wanted, place),
    })
}

async fn waited(
    edge: &Arc<Edge>,
    wanted: &Arc<proxy::Wanted>,
    place: Place,
    body: RequestBody,
) -> Result<Answer, Refused> {
    let answer = proxy::answer(edge, wanted, body).await?;
    Ok(Answer { place: Some(place), ..answer })
}

/// Answers a request to a proxy site that has no body.
///
/// # Errors
/// [`Refused`].
pub async fn proxied(
    edge: &Arc<Edge>,
    asked: &Asked<'_>,
    wanted: Arc<proxy::Wanted>,
) -> Result<Answer, Refused> {
    match begin(edge, asked, wanted)? {
        Begun::Done(answer) => Ok(answer),
        // A large future, which hits do without.
        Begun::Waits(wanted, place) => Box::pin(waited(edge, &wanted, place, no_body())).await,
    }
}

/// The answer to a node that asks whether this one is there.
fn here() -> Answer {
    Answer::new(Verdict::Preflight, StatusCode::NO_CONTENT, HeaderMap::new(), Content::empty())
}

/// What every site takes: whose a request is may not be known.
const ALLOWED: &str = "GET, HEAD, OPTIONS";

/// To `OPTIONS *`, which is for no site.
fn options(edge: &Edge, asked: &Asked<'_>) -> Result<Answer, Refused> {
    hygiene::check_of_the_server(asked.head)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    headers.insert("cache-status", Verdict::Preflight.cache_status(&edge.id));
    Ok(Answer::new(Verdict::Preflight, StatusCode::NO_CONTENT, headers, Content::empty()))
}

fn refusal(edge: &Edge, asked: &Asked<'_>, refused: &Refused) -> Answer {
    let (verdict, status, _) = refused.parts();
    let told = refused.cache_status(&edge.id);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    }
    match refused {
        Refused::Range { bytes } => {
            set(&mut headers, header::CONTENT_RANGE, format!("bytes */{bytes}"));
        }
        Refused::Request(_) if asked.head.version < http::Version::HTTP_2 => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        _ if status == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        _ => {}
    }
    if let Some(error) = refused.proxy_error() {
        let told =
            caching::ProxyStatus { error, details: None, next_hop: None, received_status: None };
        told.append(edge.node.id(), &mut headers);
    }
    headers.insert(CACHE_STATUS, told);
    let body = serde_json::to_vec(&refused.body()).unwrap_or_default();
    let content = Content::Whole(body.into());
    let mut answer = Answer::new(verdict, status, headers, content);
    if asked.head.method == Method::HEAD {
        answer.promised = answer.content.bytes();
        answer.content = Content::empty();
    }
    answer
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Adds what all answers share, and those of its proxy site, if it is one's, and hands the body over.
fn respond(
    edge: &Edge,
    asked: &Asked<'_>,
    answer: Answer,
    mut account: Box<Account>,
    site: Option<&Site>,
) -> Response<Body> {
    let Answer { verdict, status, mut headers, content, promised, place, awaited } = answer;
    match site {
        // To a preflight it is said in the answer itself.
        Some(site) if matches!(asked.head.method, Method::GET | Method::HEAD) => {
            site.cors.put_on(&asked.head.headers, &mut headers);
        }
        Some(_) => {}
        None => {
            headers.insert(CACHE_STATUS, verdict.cache_status(&edge.id));
            cors::expose(&mut headers);
        }
    }
    let has_body = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    // To a HEAD, no length is right where that of the GET is not known.
    let length = match asked.head.method {
        Method::HEAD => promised,
        _ => content.bytes(),
    };
    share(&mut headers, asked.via, length.filter(|_| has_body));
    account.place(place);
    account.awaits(awaited);
    account.answered(verdict, status.as_u16(), content.bytes());
    let mut response = Response::new(Body::new(content, account));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Adds the fields that all answers share: the length, where that is told, and where HTTP/3 is.
pub fn share(headers: &mut HeaderMap, via: &Via, length: Option<u64>) {
    if let Some(alt_svc) = &via.alt_svc {
        headers.insert(header::ALT_SVC, alt_svc.clone());
    }
    let Some(length) = length else { return };
    let mut text = itoa::Buffer::new();
    let text = text.format(length);
    // What is stored nearly always says the same, once.
    let mut known = headers.get_all(header::CONTENT_LENGTH).iter();
    if known.next().is_none_or(|known| known != text) || known.next().is_some() {
        set(headers, header::CONTENT_LENGTH, text.to_owned());
    }
}

/// Sets a field. Only checked names and numbers come here: no value can be refused.
pub fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// The body of a request that has none.
pub fn no_body() -> RequestBody {
    Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
}
