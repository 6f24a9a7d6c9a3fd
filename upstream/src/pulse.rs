//! Whether a node gives signs of life, which tells one that hangs from one behind which an origin
//! takes long.
//!
//! While requests to a node are under way, it is watched. One of which nothing at all came for
//! its limit is asked whether it is there. If that too stays without an answer for the limit, the
//! node is silent: whoever waits for it goes on elsewhere, and nobody is sent there until it
//! answers. Nothing here knows what is asked of a node.

use crate::hop::{Hop, Target};
use crate::upload::SendBody;
use http::{HeaderValue, Method, Request, Uri, header};
use prometheus::{IntCounter, IntGauge};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often a silent node is asked whether it is back, at most.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of a node's life.
pub(crate) struct Pulse {
    /// Nothing may come for this long, and an answer to a probe takes at most as long.
    limit: Duration,
    began: Instant,
    /// When something came, in microseconds since it began.
    heard: AtomicU64,
    /// Whether there is a task that watches.
    watched: AtomicBool,
    meter: Meter,
}

/// What is counted of a node's life.
pub(crate) struct Meter {
    pub(crate) up: IntGauge,
    pub(crate) answered: IntCounter,
    pub(crate) unanswered: IntCounter,
}

impl Pulse {
    pub(crate) fn new(limit: Duration, meter: Meter) -> Self {
        meter.up.set(1);
        let (heard, watched) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { limit, began: Instant::now(), heard, watched, meter }
    }

    /// Something came.
    pub(crate) fn heard(&self) {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.heard.fetch_max(now, Relaxed);
    }

    pub(crate) fn up(&self, is_up: bool) {
        self.meter.up.set(i64::from(is_up));
    }

    /// Whether nothing came for as long as may be.
    pub(crate) fn is_quiet(&self) -> bool {
        self.heard_at().elapsed() >= self.limit
    }

    fn heard_at(&self) -> Instant {
        self.began + Duration::from_micros(self.heard.load(Relaxed))
    }
}

/// Watches a node while it is asked for something, and until it is back if it is silent.
pub(crate) fn watch(hop: &Arc<Hop>) {
    let Some(pulse) = &hop.pulse else { return };
    if !pulse.watched.swap(true, SeqCst) {
        pulse.heard();
        tokio::spawn(watching(Arc::downgrade(hop)));
    }
}

/// Whether a node is there, which is asked now; an origin is. One that is not is silent from now on,
/// and watched.
pub(crate) async fn is_there(hop: &Arc<Hop>) -> bool {
    let Some(pulse) = &hop.pulse else { return true };
    if hop.is_silent() {
        return false;
    }
    let heard = pulse.heard_at();
    match probe(hop, pulse).await {
        Err(unseen) if pulse.heard_at() == heard => {
            hop.lost(&unseen.why);
            watch(hop);
            false
        }
        // What came meanwhile may have been sent before it went.
        Err(unseen) => !unseen.is_refused,
        Ok(()) => true,
    }
}

async fn watching(node: Weak<Hop>) {
    loop {
        let pause = {
            // A node that nobody has any more is not watched.
            let Some(hop) = node.upgrade() else { return };
            let Some(pulse) = &hop.pulse else { return };
            match look(&hop, pulse).await {
                Some(pause) => pause,
                None => return,
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Looks after a node, and says after which time to look again; none once nothing is asked of it.
async fn look(hop: &Hop, pulse: &Pulse) -> Option<Duration> {
    if hop.is_silent() {
        if probe(hop, pulse).await.is_ok() {
            hop.back();
        }
        // Edges that lost it together don't ask together.
        return Some(AGAIN.mul_f64(rand::random_range(0.5..1.0)));
    }
    if !hop.is_asked() {
        pulse.watched.store(false, SeqCst);
        // Who came in between found it watched.
        let is_left = !hop.is_asked() && !hop.is_silent();
        if is_left || pulse.watched.swap(true, SeqCst) {
            return None;
        }
    }
    let heard = pulse.heard_at();
    let quiet = heard.elapsed();
    if quiet < pulse.limit {
        return Some((pulse.limit - quiet).min(AGAIN));
    }
    match probe(hop, pulse).await {
        Err(unseen) if pulse.heard_at() == heard => hop.lost(&unseen.why),
        _ => {}
    }
    Some(pulse.limit.min(AGAIN))
}

/// A node that gave no sign of life when it was asked for one.
struct Unseen {
    why: String,
    /// It takes no connections, or ended the one over which it was asked. Else it may be busy.
    is_refused: bool,
}

/// Asks a node for what it answers itself, whatever is behind it.
///
/// # Errors
/// Why there is no answer.
async fn probe(hop: &Hop, pulse: &Pulse) -> Result<(), Unseen> {
    let asked = tokio::time::timeout(pulse.limit, hop.pool.request(request(hop))).await;
    let answered = match asked {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(unanswered)) => {
            let why = unanswered.to_string();
            Err(Unseen { why, is_refused: unanswered.is_refused() })
        }
        Err(_) => {
            let why = format!("no sign of life within {:?}", pulse.limit);
            Err(Unseen { why, is_refused: false })
        }
    };
    match &answered {
        Ok(()) => {
            pulse.heard();
            pulse.meter.answered.inc();
        }
        Err(_) => pulse.meter.unanswered.inc(),
    }
    answered
}

/// `OPTIONS` that may not be forwarded (RFC 9110 section 7.6.2): the node itself answers it, and
/// any answer will do.
fn request(hop: &Hop) -> Request<SendBody> {
    let mut request = Request::new(SendBody::new(None));
    *request.method_mut() = Method::OPTIONS;
    request.headers_mut().insert(header::MAX_FORWARDS, HeaderValue::from_static("0"));
    if let Target::Http { scheme, authority, .. } = &hop.place {
        let uri = Uri::builder().scheme(*scheme).authority(authority.as_str()).path_and_query("/");
        *request.uri_mut() = uri.build().expect("scheme and authority were checked");
    }
    request
}
