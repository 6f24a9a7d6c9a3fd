//! Exchanges under way, and what is remembered of earlier ones: what can't be shared, what comes
//! in parts, and which URLs an unsafe method has changed.

use super::Wanted;
use super::outcome::Outcome;
use super::unstored::Unstored;
use crate::engine::GrowingReader;
use crate::flights::Flights;
use crate::serve::Edge;
use caching::Selecting;
use heads::{Head, KeyId};
use http::{HeaderMap, HeaderValue, header};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For this long after an answer that can't be shared, requests for its URL wait for nobody.
const UNSHARED_FOR: Duration = Duration::from_secs(10);
/// URLs of which that is remembered.
const UNSHARED_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// URLs, with who asks, of whose last answer no part could be kept. Each answer tells anew.
const UNKEPT_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// URLs of which it is remembered why the last answer was not stored.
const WHYS_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// URLs of which it is remembered that a part was asked for that could not be fetched alone.
const IN_PARTS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// URLs of which it is remembered what `Vary` their last answer had, though it is not stored.
const VARIED_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// The longest `Vary` of these, in bytes.
const VARY_BYTES_MAX: usize = 512;
/// Bodies that are gone and come again as a whole: as many as answers are taken at a time.
const LOST_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// URLs of which the last invalidation is remembered, for answers that were under way.
const INVALIDATED_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Revalidations in the background at a time; more are left to the next request.
const BACKGROUND_MAX: usize = 256;

/// What an exchange is joined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) key: KeyId,
    /// Among the URL's variants.
    pub(super) variant: u64,
    /// The run that is asked for, since each run may have another owner: two nodes that ask each
    /// other for different runs must not wait for each other.
    pub(super) run: u64,
    /// Its answer has no body: it is for other HEADs.
    pub(super) is_head: bool,
    /// It is asked for by a node that waits for less than a try may take: others are not to share its
    /// end.
    pub(super) is_hurried: bool,
}

/// Exchanges under way, and what is remembered of earlier ones.
pub struct Fetches {
    pub(super) flights: Flights<Flight, Outcome>,
    unshared: Mutex<LruCache<KeyId, Instant>>,
    unkept: Mutex<LruCache<(KeyId, Asker), Unkept>>,
    whys: Mutex<LruCache<KeyId, Unstored>>,
    invalidated: Mutex<Invalidated>,
    in_parts: Mutex<LruCache<KeyId, ()>>,
    varied: Mutex<LruCache<KeyId, HeaderMap>>,
    lost: Mutex<LruCache<(KeyId, Selecting), Body>>,
    /// Counts exchanges and invalidations in the order in which they begin.
    clock: AtomicU64,
    background: AtomicUsize,
}

/// When an exchange began, or a URL was invalidated, among all of these: no two are at a time, as
/// they may be by a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Began(u64);

struct Invalidated {
    last: LruCache<KeyId, Began>,
    /// The last one that is not remembered: what began before may be outdated.
    forgotten: Option<Began>,
}

impl Default for Invalidated {
    fn default() -> Self {
        Self { last: LruCache::new(INVALIDATED_MAX), forgotten: None }
    }
}

/// Who asks, as far as it counts for what may be kept: with `Authorization`, with a cookie.
pub type Asker = (bool, bool);

/// How much of an answer can't be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unkept {
    /// No part that is asked for: all of it at once could be, perhaps.
    Parts,
    /// All of it: it is not for others.
    All,
}

/// Names the bytes of a stored representation.
type Body = [u8; 16];

/// One of the revalidations, or answers taken to their end, in the background.
pub(super) struct Background(Arc<Edge>);

impl Background {
    pub(super) fn begin(edge: &Arc<Edge>) -> Option<Self> {
        let background = Self(Arc::clone(edge));
        let before = edge.fetches.background.fetch_add(1, Ordering::Relaxed);
        (before < BACKGROUND_MAX).then_some(background)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.fetches.background.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Fetches {
    fn default() -> Self {
        Self {
            flights: Flights::new(),
            unshared: Mutex::new(LruCache::new(UNSHARED_MAX)),
            unkept: Mutex::new(LruCache::new(UNKEPT_MAX)),
            whys: Mutex::new(LruCache::new(WHYS_MAX)),
            invalidated: Mutex::new(Invalidated::default()),
            in_parts: Mutex::new(LruCache::new(IN_PARTS_MAX)),
            varied: Mutex::new(LruCache::new(VARIED_MAX)),
            lost: Mutex::new(LruCache::new(LOST_MAX)),
            clock: AtomicU64::new(0),
            background: AtomicUsize::new(0),
        }
    }
}

impl Fetches {
    pub(super) fn is_unshared(&self, key: &KeyId) -> bool {
        let mut unshared = self.unshared.lock().unwrap_or_else(PoisonError::into_inner);
        unshared.get(key).is_some_and(|since| since.elapsed() < UNSHARED_FOR)
    }

    pub(super) fn remember(&self, key: KeyId, shared: bool) {
        let mut unshared = self.unshared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared {
            unshared.pop(&key);
        } else {
            unshared.put(key, Instant::now());
        }
    }

    /// What of the last answer to such a request could not be kept.
    pub(super) fn unkept(&self, wanted: &Wanted) -> Option<Unkept> {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        unkept.get(&(wanted.key, wanted.asker())).copied()
    }

    /// Whether no part of what was last answered to such a request could be kept.
    pub fn keeps_no_part_of(&self, wanted: &Wanted) -> bool {
        self.unkept(wanted).is_some()
    }

    /// What of an answer to it can't be kept.
    pub(super) fn learn_unkept(&self, wanted: &Wanted, what: Option<Unkept>) {
        let mut unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = (wanted.key, wanted.asker());
        match what {
            Some(what) => drop(unkept.put(asked, what)),
            None => drop(unkept.pop(&asked)),
        }
    }

    /// An answer was not stored.
    pub(super) fn unstored(&self, key: KeyId, why: Unstored) {
        self.whys.lock().unwrap_or_else(PoisonError::into_inner).put(key, why);
    }

    /// Why an answer to such a request was not stored when that last happened.
    pub fn why_not_stored(&self, key: &KeyId) -> Option<Unstored> {
        self.whys.lock().unwrap_or_else(PoisonError::into_inner).peek(key).copied()
    }

    /// An unsafe method has changed what is there (RFC 9111 section 4.4): an answer that was
    /// asked for before is not stored.
    pub fn invalidate(&self, key: KeyId) {
        let mut invalidated = self.invalidated.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        if let Some((other, at)) = invalidated.last.push(key, now)
            && other != key
        {
            invalidated.forgotten = invalidated.forgotten.max(Some(at));
        }
    }

    /// A part is wanted of an answer that is only kept whole: whether that was so before.
    pub fn is_again_in_parts(&self, key: &KeyId) -> bool {
        let mut in_parts = self.in_parts.lock().unwrap_or_else(PoisonError::into_inner);
        in_parts.put(*key, ()).is_some()
    }

    /// By what the answer to such a request was chosen.
    pub(super) fn learn_varied(&self, wanted: &Wanted, selecting: &Selecting) {
        let names = selecting.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",");
        let vary = HeaderValue::try_from(&names).ok();
        let vary = vary.filter(|_| !names.is_empty() && names.len() <= VARY_BYTES_MAX);
        let vary = vary.map(|vary| HeaderMap::from_iter([(header::VARY, vary)]));
        let key = wanted.varies_as();
        let mut varied = self.varied.lock().unwrap_or_else(PoisonError::into_inner);
        match vary {
            Some(vary) => varied.put(key, vary),
            None => varied.pop(&key),
        };
    }

    /// What a request says in the fields by which the last answer to such a one was chosen.
    pub(super) fn varied(&self, wanted: &Wanted) -> Option<Selecting> {
        let key = wanted.varies_as();
        let mut varied = self.varied.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.selecting(varied.get(&key)?)
    }

    /// The bytes of what is stored are gone, and come as a whole or not at all.
    pub fn is_lost(&self, key: KeyId, head: &Head) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.put((key, head.selecting.clone()), head.body);
    }

    /// A variant has come as a whole: the body that it had before, if that was lost.
    pub fn take_lost(&self, key: KeyId, selecting: &Selecting) -> Option<Body> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.pop(&(key, selecting.clone()))
    }

    /// The next exchange begins.
    pub fn now(&self) -> Began {
        Began(self.clock.fetch_add(1, Ordering::SeqCst))
    }

    /// Whether what came of an exchange may no longer be what is there.
    pub fn is_outdated(&self, key: &KeyId, began: Began) -> bool {
        let mut invalidated = self.invalidated.lock().unwrap_or_else(PoisonError::into_inner);
        let at = invalidated.last.get(key).copied().max(invalidated.forgotten);
        at.is_some_and(|at| at > began)
    }
}

/// Keeps a head of an exchange, unless an invalidation comes between: that may have found nothing
/// to remove yet.
pub fn put(edge: &Edge, key: KeyId, head: &Arc<Head>, began: Began) {
    edge.engine.put_head(key, head);
    if edge.fetches.is_outdated(&key, began) {
        edge.engine.remove_head(key, head);
    }
}

/// Takes a growing answer to its end, so that it is kept though who asked wants only a part;
/// not while too much goes on in the background.
pub fn keep(edge: &Arc<Edge>, reader: GrowingReader) {
    let Some(background) = Background::begin(edge) else {
        return edge.metrics.revalidations_left.inc();
    };
    tokio::spawn(edge.metrics.guarded(async move {
        let _background = background;
        reader.drain().await;
    }));
}
