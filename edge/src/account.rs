//! What becomes of one request: counted while it is answered, logged when it has ended.

use crate::ahead::Announced;
use crate::metrics::Metrics;
use crate::places::Place;
use crate::prefetch::{Awaited, Prefetch};
use crate::tally::Tally;
use crate::verdict::Verdict;
use http::header::{HOST, HeaderName, RANGE, USER_AGENT};
use http::uri::Authority;
use smallvec::SmallVec;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use tracing::Level;
use tracing::field::{DisplayValue, display};

/// A long response is counted whenever this much more was handed over, and at its end.
const FLUSH_BYTES: u64 = 4 << 20;
/// What the log's filter turns these lines on by, apart from all else that the edge tells.
const ACCESS: &str = "access";

/// A request's account; it is settled when dropped, which is when the body ended or was left.
pub struct Account {
    metrics: Metrics,
    prefetch: Prefetch,
    head: Arc<http::request::Parts>,
    protocol: &'static str,
    tally: Arc<Tally>,
    /// What the player told of itself, compact.
    cmcd: String,
    started: Instant,
    verdict: Verdict,
    status: u16,
    expected: Option<u64>,
    /// Bytes handed over, by source, and how many of them are counted.
    sources: SmallVec<[(Verdict, u64, u64); 2]>,
    unflushed: u64,
    sent: u64,
    cut: Option<String>,
    /// What was fetched ahead of it.
    awaited: Option<Awaited>,
    /// What it has announced is fetched after it.
    ahead: Option<Announced>,
    /// Held while media is sent.
    place: Option<Place>,
    /// Who asked, as far as its connection tells.
    client: Option<IpAddr>,
}

impl Account {
    /// Opens the account of a request that starts now. Boxed: it goes with the answer through
    /// many hands.
    pub fn open(
        (metrics, prefetch): (Metrics, Prefetch),
        head: Arc<http::request::Parts>,
        (protocol, client): (&'static str, Option<IpAddr>),
        tally: Arc<Tally>,
        cmcd: String,
    ) -> Box<Self> {
        Box::new(Self {
            metrics,
            prefetch,
            head,
            protocol,
            tally,
            cmcd,
            started: Instant::now(),
            verdict: Verdict::Failed,
            status: 0,
            expected: None,
            sources: SmallVec::new(),
            unflushed: 0,
            sent: 0,
            cut: None,
            awaited: None,
            ahead: None,
            place: None,
            client,
        })
    }

    /// There is room for the answer; the place is given back at the end.
    pub fn place(&mut self, place: Option<Place>) {
        self.place = place;
    }

    /// It asks for what was fetched ahead, if that is so.
    pub fn awaits(&mut self, awaited: Option<Awaited>) {
        self.awaited = awaited.or(self.awaited);
    }

    /// Once it is answered, this follows.
    pub fn goes_before(&mut self, ahead: Option<Announced>) {
        self.ahead = ahead;
    }

    /// Tells what of that it was given. What had to be fetched anew is none of it.
    fn tell_of_awaited(&self) {
        let Some(awaited) = self.awaited else { return };
        let is_stored = self.verdict.is_hit() || self.verdict == Verdict::Filling;
        if !is_stored && !matches!(self.verdict, Verdict::Revalidated | Verdict::Stale) {
            return;
        }
        let sum = |is: fn(Verdict) -> bool| {
            self.sources.iter().filter(|(of, ..)| is(*of)).map(|(_, bytes, _)| bytes).sum()
        };
        let (stored, joined) = (sum(Verdict::is_hit), sum(|of| of == Verdict::Filling));
        self.prefetch.used(awaited, stored, joined);
    }

    /// The head of the answer is ready; its body has so many bytes, if that is known.
    pub fn answered(&mut self, verdict: Verdict, status: u16, bytes: Option<u64>) {
        (self.verdict, self.status, self.expected) = (verdict, status, bytes);
        self.ahead.take().into_iter().for_each(Announced::follow);
        self.metrics.answered();
        self.tally.answered(&self.metrics, verdict, self.protocol, status);
        self.metrics.first_byte(verdict, self.started.elapsed());
    }

    /// The answer's verdict.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Bytes were handed to the connection.
    pub fn sent(&mut self, source: Verdict, bytes: u64) {
        self.sent += bytes;
        match self.sources.iter_mut().find(|(known, ..)| *known == source) {
            Some((_, sum, _)) => *sum += bytes,
            None => self.sources.push((source, bytes, 0)),
        }
        self.unflushed += bytes;
        if self.unflushed >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Counts what was handed over since the last time.
    fn flush(&mut self) {
        for (source, sum, counted) in &mut self.sources {
            let bytes = *sum - *counted;
            self.metrics.sent(*source, bytes);
            self.tally.sent(&self.metrics, *source, self.protocol, bytes);
            *counted = *sum;
        }
        self.prefetch.demanded(Instant::now, std::mem::take(&mut self.unflushed));
    }

    /// The body has ended as it should.
    pub fn done(&mut self) {
        self.expected = Some(self.sent);
    }

    /// The body was cut: the bytes could not be had, or the client did not take them.
    pub fn cut(&mut self, fault: &impl fmt::Display) {
        self.metrics.bodies_cut.inc();
        self.cut = Some(fault.to_string());
    }
}

/// Bytes by source, as a log line has them; nothing is written where there is no log line.
struct Sources<'a>(&'a [(Verdict, u64, u64)]);

impl fmt::Display for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (source, bytes, _)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}={bytes}", source.name())?;
        }
        Ok(())
    }
}

/// Whether the log may hold what is about a person, or may be a secret: at its finest level alone.
fn tells_all() -> bool {
    tracing::enabled!(target: ACCESS, Level::TRACE)
}

/// The path without its token: no log line may hold that.
fn below_token(path: &str) -> &str {
    match path.strip_prefix("/~") {
        None => path,
        Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
    }
}

impl Account {
    fn field(&self, name: HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The host that was asked for.
    fn host(&self) -> Option<&str> {
        let named = self.head.uri.authority().map(Authority::as_str).or_else(|| self.field(HOST));
        // What a user would be named by is nobody's business (RFC 9110 section 4.2.4).
        named.map(|host| host.rsplit_once('@').map_or(host, |(_, host)| host))
    }

    /// Who asked.
    fn client(&self) -> Option<DisplayValue<IpAddr>> {
        self.client.filter(|_| tells_all()).map(display)
    }

    /// What a query holds is not known here: it may be a key.
    fn query(&self) -> Option<&str> {
        self.head.uri.query().filter(|_| tells_all())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.flush();
        self.tell_of_awaited();
        drop(self.place.take());
        let (method, path) = (&self.head.method, below_token(self.head.uri.path()));
        let (protocol, status, verdict) = (self.protocol, self.status, self.verdict.name());
        // Asked for by a log line alone.
        let micros = || u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bytes = self.sent;
        // Nobody knows it of a body of unknown length that was cut.
        let expected = self.expected.or_else(|| self.cut.is_none().then_some(bytes));
        let sources = Sources(&self.sources);
        let (site, cmcd) = (self.tally.site(), &self.cmcd);
        match &self.cut {
            Some(fault) => tracing::warn!(
                target: ACCESS,
                %method, site, path, protocol, status, verdict, bytes, expected, %sources, cmcd,
                micros = micros(),
                host = self.host(), query = self.query(), range = self.field(RANGE),
                user_agent = self.field(USER_AGENT), client = self.client(),
                %fault, "cut"
            ),
            None => tracing::debug!(
                target: ACCESS,
                %method, site, path, protocol, status, verdict, bytes, expected, %sources, cmcd,
                micros = micros(),
                host = self.host(), query = self.query(), range = self.field(RANGE),
                user_agent = self.field(USER_AGENT), client = self.client(),
                "request"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logged_path_holds_no_token() {
        assert_eq!(below_token("/~secret/t/film/v/x"), "/t/film/v/x");
        assert_eq!(below_token("/~secret"), "");
        assert_eq!(below_token("/t/film"), "/t/film");
    }
}
