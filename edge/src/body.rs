//! The one body type of all protocols: nothing, a whole text, or media that is taken chunk by
//! chunk, one chunk ahead of what is sent.
//!
//! Invariant: media that can't be had ends in an error, which every protocol turns into a cut
//! (connection closed, stream reset): never a clean end before the promised length.

use crate::account::Account;
use crate::error::Fault;
use crate::tiers::{Got, Landed, Tiers};
use crate::title::Title;
use crate::verdict::Verdict;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use model::{ByteRange, chunk};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A response's body.
pub struct Body {
    content: Content,
    account: Account,
}

enum Content {
    Whole(Bytes),
    Media(Box<Media>),
}

/// Media under way.
struct Media {
    source: Source,
    /// What is still to be sent.
    left: ByteRange,
    /// Chunks below this were missing when they were asked for, and came by this verdict: that
    /// they are in memory when their turn comes does not make them hits.
    missed: (u64, Verdict),
    state: State,
}

/// Where a media body takes its chunks.
#[derive(Clone)]
pub struct Source {
    /// The tiers.
    pub tiers: Arc<Tiers>,
    /// The title.
    pub title: Arc<Title>,
    /// The track's place in the index.
    pub track: usize,
}

enum State {
    Ready(Got),
    Asked(Pin<Box<dyn Future<Output = Landed> + Send>>),
    Ended,
}

impl Source {
    /// The chunk that holds the first byte of `range`, and the costliest source of the range:
    /// what its head shall say.
    ///
    /// # Errors
    /// As [`Tiers::chunk`].
    pub async fn first(&self, range: ByteRange) -> Result<(Got, Verdict), Fault> {
        let wanted = chunk::covering(range);
        let (tiers, title, track) = (&self.tiers, &self.title, self.track);
        let first = tiers.chunk(title, track, wanted.start, wanted.end).await?;
        let rest = tiers.foresee(title, track, wanted.start + 1..wanted.end);
        let verdict = first.verdict.max(rest);
        Ok((first, verdict))
    }
}

impl Body {
    /// A text, or nothing.
    pub fn whole(bytes: Bytes, account: Account) -> Self {
        Self { content: Content::Whole(bytes), account }
    }

    /// The bytes `range` of a track file, of which the chunk `first` is at hand.
    pub fn media(source: Source, range: ByteRange, first: Got, account: Account) -> Self {
        let missed = (0, Verdict::Origin);
        let media = Media { source, left: range, missed, state: State::Ready(first) };
        Self { content: Content::Media(Box::new(media)), account }
    }
}

impl Media {
    /// The source of the chunk to be sent now.
    fn source_of(&mut self, got: &Got) -> Verdict {
        if got.until > 0 {
            self.missed = (got.until, got.verdict);
        }
        let (until, verdict) = self.missed;
        let number = self.left.start / chunk::CHUNK_BYTES;
        if number < until && got.verdict == Verdict::HitMemory { verdict } else { got.verdict }
    }

    /// Cuts what is wanted out of a chunk, and asks for the next one at once, so that it is on
    /// its way while this one is being sent.
    fn send(&mut self, got: Got, cx: &mut Context<'_>) -> Result<Bytes, Fault> {
        let number = self.left.start / chunk::CHUNK_BYTES;
        let skipped = self.left.start % chunk::CHUNK_BYTES;
        let end = (skipped + self.left.bytes).min(got.bytes.len() as u64);
        let (from, to) = (usize::try_from(skipped), usize::try_from(end));
        let (Ok(from), Ok(to)) = (from, to) else { return Err(Fault::Lost) };
        if from >= to {
            return Err(Fault::Lost);
        }
        let part = got.bytes.slice(from..to);
        let sent = part.len() as u64;
        self.left = ByteRange::new(self.left.start + sent, self.left.bytes - sent);
        self.state = State::Ended;
        if self.left.bytes > 0 {
            let (source, until) = (self.source.clone(), chunk::covering(self.left).end);
            let mut next: Pin<Box<dyn Future<Output = Landed> + Send>> = Box::pin(async move {
                source.tiers.chunk(&source.title, source.track, number + 1, until).await
            });
            self.state = match next.as_mut().poll(cx) {
                Poll::Ready(landed) => State::Ready(landed?),
                Poll::Pending => State::Asked(next),
            };
        }
        Ok(part)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        account: &mut Account,
    ) -> Poll<Option<Result<Bytes, Fault>>> {
        let got = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Poll::Ready(None),
            State::Ready(got) => got,
            State::Asked(mut asked) => match asked.as_mut().poll(cx) {
                Poll::Pending => {
                    self.state = State::Asked(asked);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(got)) => got,
                Poll::Ready(Err(fault)) => return Poll::Ready(Some(Err(fault))),
            },
        };
        let verdict = self.source_of(&got);
        let part = self.send(got, cx);
        if let Ok(part) = &part {
            account.sent(verdict, part.len() as u64);
        }
        Poll::Ready(Some(part))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        let bytes = match &mut this.content {
            Content::Whole(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Content::Whole(bytes) => std::mem::take(bytes),
            Content::Media(media) => match ready!(media.poll(cx, &mut this.account)) {
                None => return Poll::Ready(None),
                Some(Ok(bytes)) => bytes,
                Some(Err(fault)) => {
                    this.account.cut(&fault);
                    return Poll::Ready(Some(Err(fault)));
                }
            },
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.content {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Media(media) => media.left.bytes,
        })
    }
}
