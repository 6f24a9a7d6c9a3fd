//! Answers that are read by many while they arrive, and stored once they are whole: those
//! without a strong validator, and those that do not say how long they are.

use super::fetch::{Began, Hold, Unstored};
use super::{Wanted, by_hop, pass, stored, without_body};
use crate::body::{Content, Follow};
use crate::compress;
use crate::engine::{Growing, GrowingReader, REST_BYTES_MAX, RUN_BYTES_MAX, Taken};
use crate::error::Fault;
use crate::refused::Refused;
use crate::serve::{Answer, Edge};
use crate::verdict::Verdict;
use caching::{CacheStatus, Precondition, Ranges};
use heads::{Head, KeyId, PurgeLog};
use http::{Method, StatusCode, header};
use model::ByteRange;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use upstream::{HopId, HopKind, UpstreamBody};

/// An answer that is arriving.
pub struct Live {
    head: Arc<Head>,
    growing: Arc<Growing>,
    source: Verdict,
    /// Another node, where that answers.
    node: Option<HopId>,
    /// The origin's status.
    status: StatusCode,
    /// It will be stored if it comes whole: its end is told by more than a closed connection.
    may_be_kept: bool,
    /// When it was asked for.
    began: Began,
}

/// An answer that is being taken, and listed until it is, or the task that takes it is gone.
struct Taking {
    edge: Arc<Edge>,
    key: KeyId,
    live: Arc<Live>,
}

impl Taking {
    async fn take(&self, body: UpstreamBody) {
        let live = &self.live;
        match live.growing.grow(body, live.source).await {
            Ok(Taken::Whole(chunks)) => live.store(&self.edge, self.key, chunks),
            // That was told when it began.
            Ok(Taken::Undelimited) => {}
            Ok(Taken::TooLong) => self.is_not_stored(Unstored::TooLong),
            Ok(Taken::NoRoom) => self.is_not_stored(Unstored::NoRoom),
            Err(fault) => tracing::debug!(url = %live.head.url, %fault, "an answer was not whole"),
        }
    }
}

impl Taking {
    fn is_not_stored(&self, why: Unstored) {
        super::fetch::tell(&self.edge, self.key, &self.live.head.url, why);
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.edge.lives.end(&self.key, &self.live);
    }
}

/// Answers that others may join; more are for who asked for them, and counted. Each has a
/// response, or one of the revalidations in the background, so it is those that bound them.
const LIVES_MAX: usize = 16_384;

/// All of them: of each variant of a URL the newest.
#[derive(Default)]
pub struct Lives(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// The newest last.
    by_key: HashMap<KeyId, Vec<Arc<Live>>>,
    count: usize,
}

impl Table {
    /// Leaves out those of a key.
    fn remove(&mut self, key: &KeyId, is_it: impl Fn(&Arc<Live>) -> bool) {
        let Some(lives) = self.by_key.get_mut(key) else { return };
        let before = lives.len();
        lives.retain(|live| !is_it(live));
        self.count -= before - lives.len();
        if lives.is_empty() {
            self.by_key.remove(key);
        }
    }
}

impl Lives {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, key: &KeyId) -> Vec<Arc<Live>> {
        self.lock().by_key.get(key).cloned().unwrap_or_default()
    }

    /// One that answers the request.
    pub fn find(&self, wanted: &Wanted, purges: &PurgeLog) -> Option<Arc<Live>> {
        // One that failed, or of which the beginning has gone, is no use: who comes now asks
        // together with all others that do.
        let is_good = |live: &Arc<Live>| live.growing.is_joinable() && live.is_for(wanted, purges);
        self.of(&wanted.key).into_iter().rev().find(is_good)
    }

    /// What is there has changed: nobody joins it any more.
    pub fn forget(&self, key: &KeyId) {
        self.lock().remove(key, |_| true);
    }

    /// Whether anything of this key is arriving.
    pub fn has(&self, key: &KeyId) -> bool {
        self.lock().by_key.contains_key(key)
    }

    /// The heads of what is arriving of this key, the newest last.
    pub fn heads(&self, key: &KeyId) -> Vec<Arc<Head>> {
        self.of(key).iter().map(|live| Arc::clone(&live.head)).collect()
    }

    /// Others may join it from now on. False: there are too many.
    fn begin(&self, key: KeyId, live: &Arc<Live>) -> bool {
        let mut lives = self.lock();
        lives.remove(&key, |other| other.head.selecting == live.head.selecting);
        let has_room = lives.count < LIVES_MAX;
        if has_room {
            lives.by_key.entry(key).or_default().push(Arc::clone(live));
            lives.count += 1;
        }
        has_room
    }

    fn end(&self, key: &KeyId, live: &Arc<Live>) {
        self.lock().remove(key, |found| Arc::ptr_eq(found, live));
    }
}

impl Live {
    /// Takes an answer, in a task of its own, and keeps it if it has no more than `bytes_max`. Its first reader keeps it from being given up
    /// until the one who asked reads.
    pub fn start(
        edge: &Arc<Edge>,
        key: KeyId,
        head: Head,
        (answer, bytes_max): (upstream::Answer, u64),
        began: Began,
    ) -> (Arc<Self>, Option<GrowingReader>) {
        let length = answer.body.length().filter(|_| answer.body.is_delimited());
        let growing = Growing::new(&edge.engine, head.body, length, bytes_max);
        let first = growing.first_reader();
        let (source, status) = (by_hop(answer.kind), head.stored.status);
        let node = (answer.kind != HopKind::Origin).then_some(answer.hop);
        let head = Arc::new(head);
        let may_be_kept = answer.body.is_delimited();
        let live = Arc::new(Self { head, growing, source, node, status, may_be_kept, began });
        if !edge.lives.begin(key, &live) {
            edge.metrics.answers_unlisted.inc();
        }
        let taking = Taking { edge: Arc::clone(edge), key, live: Arc::clone(&live) };
        tokio::spawn(edge.metrics.guarded(async move { taking.take(answer.body).await }));
        (live, first)
    }

    /// Whether it broke off since another node is there no more. Of who answered nothing yet, the
    /// others are asked.
    async fn is_left(&self, wanted: &Wanted, fault: &Fault) -> bool {
        use upstream::Fault as F;
        let is_cut = matches!(fault, Fault::Upstream(F::Cut { .. } | F::TimedOut { .. }));
        match &self.node {
            Some(node) if is_cut => !wanted.site.upstream.is_there(node).await,
            _ => false,
        }
    }

    /// A reader for those who still wait for its head.
    pub fn hold(&self) -> Hold {
        self.growing.read_from(0).map(Arc::new)
    }

    /// It is whole.
    fn store(&self, edge: &Edge, key: KeyId, chunks: Vec<bytes::Bytes>) {
        let purged = edge.purges.verdict(&self.head) == heads::Verdict::Hard;
        if purged || edge.fetches.is_outdated(&key, self.began) {
            return;
        }
        if let Some(lost) = edge.fetches.take_lost(key, &self.head.selecting) {
            edge.engine.chunks.inherit(&self.head.body, &lost);
        }
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.growing.keep(chunks);
        let head = Arc::new(Head { bytes, ..(*self.head).clone() });
        super::fetch::put(edge, key, &head, self.began);
    }

    /// Who asks for parts alone would fetch the whole each time. It is kept: at once, if it is no more
    /// than one request may bring elsewhere, else the second time.
    fn keep_for_parts(&self, edge: &Arc<Edge>, wanted: &Wanted) {
        let is_small = self.growing.length.is_some_and(|bytes| bytes <= RUN_BYTES_MAX);
        if self.may_be_kept
            && (is_small || edge.fetches.is_again_in_parts(&wanted.key))
            && let Some(reader) = self.growing.read_from(0)
        {
            super::fetch::keep(edge, reader);
        }
    }

    /// Whether it is stored even if all who read it leave: what else becomes of it is not known
    /// when its head is sent on.
    fn will_be_kept(&self) -> bool {
        self.may_be_kept && self.growing.length.is_some_and(|bytes| bytes <= REST_BYTES_MAX)
    }

    /// By what of a request it was chosen.
    pub fn selecting(&self) -> &caching::Selecting {
        &self.head.selecting
    }

    /// Whether a purge has ended it.
    pub fn is_purged(&self, purges: &PurgeLog) -> bool {
        purges.verdict(&self.head) != heads::Verdict::Valid
    }

    /// Whether it answers a request that comes while it arrives.
    pub fn is_for(&self, wanted: &Wanted, purges: &PurgeLog) -> bool {
        let reuse = wanted.reuse(&self.head, super::now_ms(), None);
        self.is_selected(wanted, purges) && matches!(reuse, caching::Reuse::Fresh)
    }

    /// Whether it answers a request that has waited for its head.
    pub fn is_for_waiting(&self, wanted: &Wanted, purges: &PurgeLog) -> bool {
        self.is_selected(wanted, purges)
            && caching::joinable(&wanted.fields, &self.head.stored, &wanted.caching)
    }

    /// Whether anything says how long it is good: else it answers nobody who waits for it.
    pub fn is_sharable(&self, settings: &Arc<caching::Settings>) -> bool {
        self.head.facts(settings).source() != caching::Source::None
    }

    /// Whether it is the variant that the request selects, and not purged.
    pub fn is_selected(&self, wanted: &Wanted, purges: &PurgeLog) -> bool {
        let head = &self.head;
        wanted.selects(head)
            && !self.is_purged(purges)
            && !wanted.is_older(head)
            && !wanted.is_personal()
    }

    /// The one part that the client wants, and of how many bytes; none for the whole.
    fn part(&self, wanted: &Wanted) -> Result<Option<(ByteRange, u64)>, Refused> {
        let stored = &self.head.stored;
        let (Some(bytes), StatusCode::OK) = (self.growing.length, stored.status) else {
            return Ok(None);
        };
        if wanted.method != Method::GET || !caching::if_range(&wanted.fields, stored) {
            return Ok(None);
        }
        match caching::ranges(&wanted.fields, bytes, 1) {
            Ranges::Unsatisfiable => Err(Refused::Range { bytes }),
            Ranges::Parts(parts) => Ok(parts.first().map(|part| (*part, bytes))),
            // Several ranges of what is not here yet: the whole is as good.
            Ranges::Whole | Ranges::TooMany => Ok(None),
        }
    }

    /// Answers from it. `first` is for the one who asked; the answer was held for who waited.
    ///
    /// # Errors
    /// [`Refused`], when it fails before its first byte.
    pub async fn answer(
        self: &Arc<Self>,
        edge: &Arc<Edge>,
        wanted: &Arc<Wanted>,
        (first, hold): (Option<GrowingReader>, Hold),
        told: CacheStatus<'static>,
    ) -> Result<Answer, Refused> {
        let collapsed = told.collapsed;
        let mut headers = stored::fields(wanted, &self.head, collapsed, super::now_ms());
        // Once it is whole, who likes another encoding gets that.
        let bytes = self.growing.length.unwrap_or(compress::BODY_BYTES_MIN);
        let stored = &self.head.stored;
        let compresses = wanted.site.compress && !wanted.by_peer;
        if compresses && compress::is_compressible(stored.status, &stored.fields, bytes) {
            compress::vary(&mut headers);
        }
        let verdict = if collapsed { Verdict::Filling } else { self.source };
        let left_ms = self.head.facts(&wanted.caching).fresh_for_ms(super::now_ms());
        let will_be_kept = self.will_be_kept();
        let told = CacheStatus {
            forwarded_status: Some(self.status),
            stored: will_be_kept,
            ttl_s: will_be_kept.then(|| left_ms.div_euclid(1000)),
            detail: Some(verdict.name()),
            ..told
        };
        told.append(edge.node.id(), &mut headers);
        wanted.tell_times(&mut headers, self.head.asked_ms, self.head.fetched_ms);
        match caching::precondition(&wanted.method, &wanted.fields, stored) {
            Precondition::NotModified => return Ok(stored::unchanged(&headers, verdict)),
            Precondition::Failed => {
                // The one who asked reads no further.
                drop((first, hold));
                let (tags, body) = (&self.head.tags, crate::serve::no_body());
                return Box::pin(pass::on(edge, wanted, tags, body)).await;
            }
            Precondition::Go => {}
        }
        let mut status = stored.status;
        let mut range = ByteRange::new(0, self.growing.length.unwrap_or(u64::MAX));
        if let Some((part, bytes)) = self.part(wanted)? {
            (range, status) = (part, StatusCode::PARTIAL_CONTENT);
            self.keep_for_parts(edge, wanted);
            compress::remove_content_digests(&mut headers);
            let text = format!("bytes {}-{}/{bytes}", range.start, range.end() - 1);
            crate::serve::set(&mut headers, header::CONTENT_RANGE, text);
        }
        // The first reader goes only when the one that takes its place is there, so that the
        // answer is not given up; and at once then, since nobody moves it on.
        let reader = match first {
            Some(first) if range.start == 0 => Some(first),
            first => {
                let reader = self.growing.read_from(range.start);
                drop(first);
                reader
            }
        };
        // It would be the slowest of all.
        drop(hold);
        let reader = reader.ok_or(Refused::Fault(Fault::Gone))?;
        let left = self.growing.length.map(|_| range.bytes);
        let mut follow = Follow::new(reader, left, verdict);
        if wanted.method != Method::HEAD {
            let failed = |fault| match told.forwarded {
                Some(forwarded) => Refused::Fault(fault).answered(forwarded, told.forwarded_status),
                None => Refused::Fault(fault),
            };
            if let Err(fault) = follow.first().await {
                return Err(match self.is_left(wanted, &fault).await {
                    true => Refused::Fault(Fault::Gone),
                    false => failed(fault),
                });
            }
        }
        let content = Content::Growing(Box::new(follow));
        Ok(without_body(wanted, Answer::new(verdict, status, headers, content)))
    }
}

#[cfg(test)]
mod tests;
