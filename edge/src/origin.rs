//! Where titles come from: whole objects of bounded size, and runs of verified chunks for the
//! fill plan. Retries, health and failover are the upstream's; its budget pays for what is asked for
//! again since a body broke, too.

use crate::engine::{ANSWER_BYTES_MIN, TITLES_HOST, source};
use crate::error::Fault;
use crate::metrics::{FillEnd, Metrics};
use crate::object::{Object, Passed};
use crate::title::Title;
use crate::verdict::Verdict;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use model::{ByteRange, Track, chunk};
use std::sync::Arc;
use upstream::{Answer, Ask, HopId, Upstream, UpstreamBody, Urgency};

/// The origins of titles.
#[derive(Clone)]
pub struct Origin {
    upstream: Upstream,
    metrics: Metrics,
}

/// Who answered, if one did.
type By = Option<(HopId, Verdict)>;

/// Further tries of one thing in a row.
#[derive(Default)]
struct Repeats {
    by_nodes: usize,
    /// Those that are of the site's `retries`.
    by_origins: u32,
    /// The last one failed here.
    avoid: Option<HopId>,
    /// Another node's origin has failed: the origin itself is asked, once, for the node that a client
    /// asked alone.
    is_last: bool,
    is_for_peer: bool,
    /// There is one more to come.
    is_due: bool,
}

impl Repeats {
    /// The next ask is it.
    fn tell(&mut self, ask: &mut Ask) {
        (ask.is_repeat, ask.avoid) = (std::mem::take(&mut self.is_due), self.avoid.take());
        ask.at_the_origin = self.is_last;
        ask.retried = if self.is_last { u32::MAX } else { self.by_origins };
    }
}

/// The body of an answer, taken in pieces of a wanted size.
struct Pieces {
    body: UpstreamBody,
    held: BytesMut,
    /// Where in the file it ends.
    end: u64,
    hop: HopId,
    source: Verdict,
}

/// A track file to fetch from.
struct File<'a> {
    path: String,
    track: &'a Track,
    owned_by: [u8; 16],
    urgency: &'a Urgency,
}

/// An object that was fetched whole.
pub struct Whole<T> {
    /// What it was read as.
    pub value: T,
    /// Its bytes.
    pub bytes: Bytes,
    /// Who sent them.
    pub source: Verdict,
}

/// Neighbouring chunks of a track.
#[derive(Clone)]
pub struct Run {
    /// Of this title.
    pub title: Arc<Title>,
    /// The track's place in the index.
    pub track: usize,
    /// Which chunks.
    pub chunks: std::ops::Range<u64>,
}

impl Origin {
    /// Titles from `upstream`.
    pub fn new(upstream: Upstream, metrics: Metrics) -> Self {
        Self { upstream, metrics }
    }

    /// Where what comes of it is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A whole object of at most `bytes_max` that is what `read` makes of it: what is cut, and bytes
    /// that it refuses, are asked for again, elsewhere if there is an elsewhere. `passed` are the nodes
    /// that ask.
    ///
    /// # Errors
    /// [`Fault::NotFound`] when the origin says so, or how it failed.
    pub async fn whole<T>(
        &self,
        path: &str,
        bytes_max: usize,
        passed: &Passed,
        read: impl Fn(&Bytes) -> Option<T>,
    ) -> Result<Whole<T>, Fault> {
        let mut repeats = Repeats { is_for_peer: passed.is_for_peer(), ..Repeats::default() };
        loop {
            let mut ask = Ask::get(TITLES_HOST, format!("/{path}"), key(path));
            passed.tell(&mut ask);
            // Others may wait for the same: it is not ended sooner than a try may take.
            ask.answer_by = passed.answer_by().filter(|by| self.upstream.has_time(*by));
            repeats.tell(&mut ask);
            let answer = self.upstream.send(ask).await?;
            repeats.by_origins = answer.retried;
            let (hop, source) = (answer.hop.clone(), source(answer.kind));
            let fault = match self.whole_once(answer, source, (path, bytes_max)).await {
                Ok(bytes) => match read(&bytes) {
                    Some(value) => return Ok(Whole { value, bytes, source }),
                    None => {
                        self.metrics.corrupt(source.name());
                        self.upstream.blame(&hop, &Fault::Corrupt.to_string());
                        Fault::Corrupt
                    }
                },
                Err(fault) => fault,
            };
            repeats.is_due =
                fault.may_pass() && self.may_repeat(&mut repeats, &fault, (hop, source)).await;
            if !repeats.is_due {
                return Err(fault);
            }
        }
    }

    /// Whether what did not come from there is asked for again. Where another node is there, and has
    /// broken it off, that one's tries are behind it, in vain.
    async fn may_repeat(
        &self,
        repeats: &mut Repeats,
        fault: &Fault,
        (hop, source): (HopId, Verdict),
    ) -> bool {
        let is_behind_it =
            source != Verdict::Origin && fault.is_cut() && self.upstream.is_there(&hop).await;
        repeats.avoid = Some(hop);
        if is_behind_it || repeats.is_last {
            let was_last = std::mem::replace(&mut repeats.is_last, true);
            return !was_last && !repeats.is_for_peer && self.upstream.pays_repeat(1);
        }
        if source == Verdict::Origin {
            repeats.by_origins += 1;
            return self.upstream.pays_repeat(repeats.by_origins);
        }
        // Others are asked: free, once for each that there is.
        repeats.by_nodes += 1;
        repeats.by_nodes < self.upstream.hops()
    }

    async fn whole_once(
        &self,
        answer: Answer,
        source: Verdict,
        (path, bytes_max): (&str, usize),
    ) -> Result<Bytes, Fault> {
        match answer.head.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Fault::NotFound),
            status => return Err(Fault::unavailable(format!("{} answered {status}", answer.hop))),
        }
        let (hop, mut body) = (answer.hop, answer.body);
        body.leave_if_silent();
        let mut whole = BytesMut::new();
        while let Some(data) = body.next().await.transpose()? {
            self.metrics.fetched(source, data.len());
            whole.extend_from_slice(&data);
            if whole.len() > bytes_max {
                return Err(Fault::unavailable(format!("{hop}: {path} is too large")));
            }
        }
        Ok(whole.freeze())
    }

    /// Fetches chunks, verifies each and hands it to `keep`, in order, with who sent it, until that wants
    /// no more. Only while `may_repeat` a try that failed is followed by another. A chunk that fails is
    /// tried again, elsewhere if there is an elsewhere.
    ///
    /// # Errors
    /// How the last try for the first missing chunk failed.
    pub async fn chunks(
        &self,
        run: &Run,
        urgency: &Urgency,
        may_repeat: impl Fn() -> bool,
        mut keep: impl FnMut(Bytes, Verdict) -> bool,
    ) -> Result<(), Fault> {
        let track = run.title.index.tracks.get(run.track).ok_or(Fault::NotFound)?;
        let path = run.title.file_path(track);
        // Planned or not, a file's runs have one owner among siblings.
        let owned_by = Object::track(&run.title, run.track).ok_or(Fault::NotFound)?.body;
        let file = File { path, track, owned_by, urgency };
        let path = &file.path;
        let (mut next, end) = (run.chunks.start, run.chunks.end);
        let mut repeats = Repeats::default();
        while next < end {
            let before = next;
            let ended = self.one_try(&file, &mut next, end, &mut repeats, &mut keep).await;
            let Err((fault, by)) = ended else { break };
            repeats.is_due = match by {
                _ if !may_repeat() => false,
                // It has been tried as often as its budget allows.
                None => false,
                // To go on behind a chunk that has come is free.
                Some((hop, _)) if next > before => {
                    repeats.avoid = Some(hop);
                    true
                }
                Some(by) => self.may_repeat(&mut repeats, &fault, by).await,
            };
            if !repeats.is_due {
                self.metrics.fill(FillEnd::Failed);
                return Err(fault);
            }
            self.metrics.fill(FillEnd::Retried);
            tracing::debug!(path, chunk = next, %fault, "fetching again");
        }
        self.metrics.fill(FillEnd::Done);
        Ok(())
    }

    async fn one_try(
        &self,
        file: &File<'_>,
        next: &mut u64,
        end: u64,
        repeats: &mut Repeats,
        keep: &mut impl FnMut(Bytes, Verdict) -> bool,
    ) -> Result<(), (Fault, By)> {
        let bytes = file.track.facts.file_bytes;
        let start = chunk::range(*next, bytes).start;
        let range = ByteRange::new(start, chunk::range(end - 1, bytes).end() - start);
        let mut pieces = self.range(file, range, repeats).await?;
        while *next < end {
            let wanted = chunk::range(*next, bytes);
            while pieces.end < wanted.end() {
                let left = pieces.rest(wanted.start).await;
                left.map_err(|fault| self.blame(&pieces, fault))?;
                let (held, from) = (std::mem::take(&mut pieces.held), pieces.end);
                // Its place at the hop is free for the next one.
                drop(pieces);
                let rest = ByteRange::new(from, range.end() - from);
                pieces = Pieces { held, ..self.range(file, rest, repeats).await? };
            }
            let taken = self.take_chunk(&mut pieces, file.track, *next).await;
            let goes_on = keep(taken.map_err(|fault| self.blame(&pieces, fault))?, pieces.source);
            *next = if goes_on { *next + 1 } else { end };
            *repeats = Repeats::default();
        }
        Ok(())
    }

    fn blame(&self, pieces: &Pieces, fault: Fault) -> (Fault, By) {
        self.upstream.blame(&pieces.hop, &fault.to_string());
        (fault, Some((pieces.hop.clone(), pieces.source)))
    }

    /// What an origin gives of a range of a file, from its beginning on: all of it, or as much as
    /// it sends at a time (RFC 9110 section 15.3.7).
    async fn range(
        &self,
        file: &File<'_>,
        range: ByteRange,
        repeats: &mut Repeats,
    ) -> Result<Pieces, (Fault, By)> {
        let path = &file.path;
        let mut ask = Ask::get(TITLES_HOST, format!("/{path}"), file.owned_by);
        let wanted = format!("bytes {}-{}", range.start, range.end().saturating_sub(1));
        if let Ok(value) = HeaderValue::try_from(wanted.replacen(' ', "=", 1)) {
            ask.fields.insert(header::RANGE, value);
        }
        repeats.tell(&mut ask);
        ask.run = range.start / crate::engine::OWNED_RUN_BYTES;
        ask.urgency = file.urgency.clone();
        let answer = self.upstream.send(ask).await.map_err(|fault| (fault.into(), None))?;
        repeats.by_origins = answer.retried;
        let (hop, source, status) = (answer.hop, source(answer.kind), answer.head.status);
        let given = caching::content_range(&answer.head.headers).map(|given| given.range);
        let given = given.filter(|given| {
            status == StatusCode::PARTIAL_CONTENT
                && range.start == given.start
                && given.end() <= range.end()
        });
        if let Some(given) = given {
            if given != range && given.bytes < ANSWER_BYTES_MIN {
                return Err((Fault::Short, Some((hop, source))));
            }
            let mut body = answer.body;
            body.leave_if_silent();
            return Ok(Pieces { body, held: BytesMut::new(), end: given.end(), hop, source });
        }
        // The index names this file: an origin without it is broken, the title is not unknown.
        let why = format!("{hop} answered {status} to {wanted} of {path}");
        self.upstream.blame(&hop, &why);
        Err((Fault::unavailable(why), Some((hop, source))))
    }

    async fn take_chunk(
        &self,
        pieces: &mut Pieces,
        track: &Track,
        number: u64,
    ) -> Result<Bytes, Fault> {
        let length = chunk::range(number, track.facts.file_bytes).bytes;
        let bytes = pieces.take(usize::try_from(length).map_err(Fault::unavailable)?).await?;
        self.metrics.fetched(pieces.source, bytes.len());
        if track.chunk_is_whole(number, &bytes) {
            return Ok(bytes);
        }
        self.metrics.corrupt("origin");
        Err(Fault::Corrupt)
    }
}

impl Pieces {
    /// The next `bytes` bytes, at once.
    async fn take(&mut self, bytes: usize) -> Result<Bytes, Fault> {
        self.hold(bytes).await?;
        if self.held.len() == bytes {
            return Ok(std::mem::take(&mut self.held).freeze());
        }
        // What is left over is small: the rest of one frame.
        let mut rest = BytesMut::with_capacity(bytes);
        rest.extend_from_slice(&self.held[bytes..]);
        self.held.truncate(bytes);
        Ok(std::mem::replace(&mut self.held, rest).freeze())
    }

    /// Holds all that is left of it, from `start` in the file on; that is less than a chunk.
    async fn rest(&mut self, start: u64) -> Result<(), Fault> {
        let left = usize::try_from(self.end - start).map_err(Fault::unavailable)?;
        self.hold(left).await?;
        self.held.truncate(left);
        Ok(())
    }

    async fn hold(&mut self, bytes: usize) -> Result<(), Fault> {
        if self.held.is_empty() {
            self.held.reserve(bytes);
        }
        while self.held.len() < bytes {
            let Some(data) = self.body.next().await.transpose()? else {
                return Err(Fault::unavailable(format!("{} cut its answer", self.hop)));
            };
            self.held.extend_from_slice(&data);
        }
        Ok(())
    }
}

/// What an object is placed by among siblings.
fn key(path: &str) -> [u8; 16] {
    xxhash_rust::xxh3::xxh3_128(path.as_bytes()).to_le_bytes()
}
