//! What this thread answered lately, for whoever asks next: the names that a target and its host
//! lead to, and the head of the answer, which stays the same for a part of a second.
//!
//! Invariant: an answer from here is the one that the long way gives at the same time. What is
//! stored, whether it is fresh and not purged, and where its bytes are, is asked for each request
//! anew; a request that says anything on what it wants goes the long way.

mod recent;

use super::{Site, Wanted, now_ms, stored};
use crate::body::Held;
use crate::hygiene;
use crate::places::Place;
use crate::serve::{Asked, Edge, share};
use caching::{Priority, Settings};
use heads::{Head, KeyId, Verdict};
use http::{HeaderMap, HeaderValue, Method, Version, header};
use model::chunk::CHUNK_BYTES;
use recent::Recent;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Weak};
use wire::{Known, Via};

/// Targets that a thread remembers. Each takes about 2 KiB, most of that the answer's head, and
/// never more than a few times [`HEAD_BYTES_MAX`].
const TARGETS_MAX: usize = 1024;
/// A longer target or host is not remembered.
const TARGET_BYTES_MAX: usize = 512;
/// Names and values of a stored head; what has a longer one is not remembered. Origins may send 16
/// times as much.
const HEAD_BYTES_MAX: usize = 4 << 10;

thread_local! {
    static LATELY: RefCell<Recent<Box<Entry>>> = RefCell::new(Recent::new(TARGETS_MAX));
}

/// A hit in memory, whole.
pub struct Hit {
    /// What it is stored under.
    pub key: KeyId,
    /// Its head.
    pub known: Arc<Known>,
    /// Its body.
    pub held: Held,
    /// Its place among the responses under way.
    pub place: Place,
}

/// What a request names, as it was written.
struct Target<'a> {
    scheme: &'static str,
    host: &'a [u8],
    path: &'a str,
}

/// What a target leads to.
struct Entry {
    site: Arc<Site>,
    scheme: &'static str,
    host: Box<[u8]>,
    path: Box<str>,
    key: KeyId,
    settings: Arc<Settings>,
    ready: Option<Ready>,
}

/// An answer's head.
struct Ready {
    /// What it is of. Its memory is not used anew while this is here.
    head: Weak<Head>,
    alt_svc: Option<HeaderValue>,
    /// When it is right, in milliseconds since 1970.
    times_ms: Range<i64>,
    known: Arc<Known>,
}

/// Answers a request at once, if what it names was asked for on this thread lately, and it is a
/// whole hit in memory. None says nothing of why not.
pub fn answer(edge: &Edge, site: &Arc<Site>, asked: &Asked<'_>) -> Option<Hit> {
    let target = Target::of(asked)?;
    // Its head is the same whoever asks.
    if site.cors.is_by_origin() && asked.head.headers.contains_key(header::ORIGIN) {
        return None;
    }
    LATELY.with_borrow_mut(|lately| {
        let entry = lately.get_mut(lately.hash(target.texts()))?;
        if entry.is_of(site, &target) { entry.answer(edge, asked.via) } else { None }
    })
}

/// Remembers what a request led to, unless no answer from here can come of what is stored.
pub fn learn(asked: &Asked<'_>, wanted: &Wanted, variants: &[Arc<Head>]) {
    let [head] = variants else { return };
    if !is_plain(head) || !fits(&head.stored.fields) || stored::compresses(&wanted.site, head) {
        return;
    }
    let Some(target) = Target::of(asked) else { return };
    LATELY.with_borrow_mut(|lately| {
        let hash = lately.hash(target.texts());
        if lately.get_mut(hash).is_none_or(|entry| !entry.is_of(&wanted.site, &target)) {
            lately.put(hash, Box::new(Entry::of(wanted, &target)));
        }
    });
}

/// Whether a head is of no variant, with a body that can be in memory in one piece.
fn is_plain(head: &Head) -> bool {
    head.selecting.is_empty() && (1..=CHUNK_BYTES).contains(&head.bytes)
}

/// Whether a stored head is short enough to be made ready.
fn fits(fields: &HeaderMap) -> bool {
    let bytes = fields.iter().map(|(name, value)| name.as_str().len() + value.len());
    bytes.sum::<usize>() <= HEAD_BYTES_MAX
}

impl<'a> Target<'a> {
    /// Of a GET that says nothing on what it wants beside.
    fn of(asked: &'a Asked<'_>) -> Option<Self> {
        let head = asked.head;
        if head.method != Method::GET {
            return None;
        }
        hygiene::scheme(&head.uri).ok()?;
        let is_multiplexed = !matches!(head.version, Version::HTTP_10 | Version::HTTP_11);
        let field = hygiene::plain_host(&head.headers, is_multiplexed)?;
        let host = match (head.uri.authority(), field) {
            (Some(authority), None) => authority.as_str().as_bytes(),
            (None, Some(field)) => field.as_bytes(),
            _ => return None,
        };
        let path = head.uri.path_and_query()?.as_str();
        let fits = path.len() + host.len() <= TARGET_BYTES_MAX;
        fits.then_some(Self { scheme: asked.via.scheme, host, path })
    }

    fn texts(&self) -> [&[u8]; 3] {
        [self.scheme.as_bytes(), self.host, self.path.as_bytes()]
    }
}

impl Entry {
    fn of(wanted: &Wanted, target: &Target<'_>) -> Self {
        Self {
            site: Arc::clone(&wanted.site),
            scheme: target.scheme,
            host: target.host.into(),
            path: target.path.into(),
            key: wanted.key,
            settings: Arc::clone(&wanted.caching),
            ready: None,
        }
    }

    fn is_of(&self, site: &Arc<Site>, target: &Target<'_>) -> bool {
        *self.path == *target.path
            && *self.host == *target.host
            && self.scheme == target.scheme
            && Arc::ptr_eq(&self.site, site)
    }

    fn answer(&mut self, edge: &Edge, via: &Via) -> Option<Hit> {
        let now_ms = now_ms();
        let variants = edge.engine.heads.in_memory_at(&self.key, now_ms)?;
        let [head] = &*variants else { return None };
        let is_good = is_plain(head)
            && edge.purges.verdict(head) == Verdict::Valid
            && head.facts(&self.settings).is_fresh(now_ms);
        if !is_good || edge.engine.under_pressure() {
            return None;
        }
        let known = self.known(edge, via, head, now_ms)?;
        let place = edge.places.take(Priority::default().urgency).ok()?;
        let (bytes, pin) = edge.engine.whole_in_memory(head.body, head.bytes)?;
        Some(Hit { key: self.key, known, held: Held { bytes, _pin: pin }, place })
    }

    fn known(
        &mut self,
        edge: &Edge,
        via: &Via,
        head: &Arc<Head>,
        now_ms: i64,
    ) -> Option<Arc<Known>> {
        if let Some(ready) = self.ready.as_ref().filter(|ready| ready.is_for(head, via, now_ms)) {
            return Some(Arc::clone(&ready.known));
        }
        // It may be another one than was learnt of.
        if !fits(&head.stored.fields) {
            return None;
        }
        let rules = (&*self.site, &self.settings);
        let mut fields: HeaderMap = stored::plain_fields(edge, rules, head, now_ms)?;
        self.site.cors.put_on(&HeaderMap::new(), &mut fields);
        share(&mut fields, via, Some(head.bytes));
        let known = Arc::new(Known::new(head.stored.status, fields, head.bytes));
        let until_ms = now_ms + head.facts(&self.settings).stays_ms(now_ms);
        self.ready = Some(Ready {
            head: Arc::downgrade(head),
            alt_svc: via.alt_svc.clone(),
            times_ms: now_ms..until_ms,
            known: Arc::clone(&known),
        });
        Some(known)
    }
}

impl Ready {
    fn is_for(&self, head: &Arc<Head>, via: &Via, now_ms: i64) -> bool {
        self.times_ms.contains(&now_ms)
            && std::ptr::eq(self.head.as_ptr(), Arc::as_ptr(head))
            && self.alt_svc == via.alt_svc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_heads_are_not_made_ready() {
        let name = http::HeaderName::from_static("x-a");
        let of = |bytes: usize| {
            let value = HeaderValue::from_bytes(&vec![b'b'; bytes - name.as_str().len()]);
            HeaderMap::from_iter([(name.clone(), value.unwrap())])
        };
        assert!(fits(&HeaderMap::new()) && fits(&of(HEAD_BYTES_MAX)));
        assert!(!fits(&of(HEAD_BYTES_MAX + 1)) && !fits(&of(60 << 10)));
    }
}
