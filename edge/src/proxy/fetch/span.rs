//! Which bytes to ask for, of an object that is not known yet or is to be had anew: whole chunks
//! around what the client wants, and where runs have owners, of one run at a time.

use super::Fetch;
use crate::engine::{OWNED_RUN_BYTES, owned_run_end};
use http::{Method, StatusCode, header};
use model::ByteRange;
use model::chunk::CHUNK_BYTES;
use upstream::{Answer, Ask};

/// Whole chunks to ask for: from a byte on, up to another or the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first byte, of a chunk.
    pub start: u64,
    /// After the last one; none: up to the object's end.
    pub end: Option<u64>,
}

impl Span {
    /// What of it lies in its first run (see [`owned_run_end`]).
    fn of_one_run(self) -> Self {
        let run_end = owned_run_end(self.start);
        Self { end: Some(self.end.map_or(run_end, |end| end.min(run_end))), ..self }
    }
}

impl Fetch {
    /// Where runs have owners, a run is asked for at a time, and no whole object.
    pub(super) fn span_to_ask(&self, range: Option<Span>) -> Option<Span> {
        let whole = Span { start: 0, end: None };
        let is_get = self.wanted.method == Method::GET;
        if is_get && self.edge.node.splits_runs() {
            return Some(range.unwrap_or(whole).of_one_run());
        }
        range
    }

    /// An answer that was asked for as a part, and is all there is, is a whole one for a client
    /// that wants the whole.
    pub(super) fn made_whole(&self, mut answer: Answer, asked: Option<Span>) -> Answer {
        let is_all = part(&answer, asked).is_some_and(|(given, total)| given.bytes == total);
        let wants_whole = !self.wanted.fields.contains_key(header::RANGE);
        if wants_whole && is_all && answer.head.status == StatusCode::PARTIAL_CONTENT {
            answer.head.status = StatusCode::OK;
            answer.head.headers.remove(header::CONTENT_RANGE);
        }
        answer
    }

    /// Of an object that is not known yet, a client may want a part: whole chunks around it are
    /// asked for. Where it wants the end, a HEAD tells where that is.
    pub(super) async fn range_to_ask(&self) -> Option<Span> {
        let field = self.wanted.fields.get(header::RANGE)?.to_str().ok()?;
        if self.wanted.method == Method::HEAD {
            return None;
        }
        let first = field.strip_prefix("bytes=")?.split(',').next()?.trim();
        let (start, last) = first.split_once('-')?;
        if start.is_empty() {
            let total = self.length().await?;
            let back: u64 = last.parse().ok()?;
            let start = total.saturating_sub(back) / CHUNK_BYTES * CHUNK_BYTES;
            return (start < total).then_some(Span { start, end: Some(total) });
        }
        let start = start.parse::<u64>().ok()? / CHUNK_BYTES * CHUNK_BYTES;
        if last.is_empty() {
            return Some(Span { start, end: None });
        }
        let end =
            last.parse::<u64>().ok()?.checked_add(1)?.checked_next_multiple_of(CHUNK_BYTES)?;
        (end > start).then_some(Span { start, end: Some(end) })
    }

    /// The run that will be asked for first; all the same where runs have no owners. An end
    /// whose place is not known yet is none of these.
    pub(super) fn run_asked(&self) -> u64 {
        if !self.edge.node.splits_runs() {
            return 0;
        }
        let field = self.wanted.fields.get(header::RANGE).and_then(|field| field.to_str().ok());
        let first = field.and_then(|field| field.strip_prefix("bytes="));
        match first.and_then(|first| first.trim().split_once('-')) {
            None => 0,
            Some((start, _)) => {
                start.trim().parse().map_or(u64::MAX, |at: u64| at / OWNED_RUN_BYTES)
            }
        }
    }

    /// The length of what is wanted, by a HEAD.
    async fn length(&self) -> Option<u64> {
        let ask = Ask { method: Method::HEAD, ..self.wanted.site.ask(&self.wanted) };
        let answer = self.wanted.site.upstream.send(ask).await.ok()?;
        let length =
            answer.head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        (answer.head.status == StatusCode::OK).then_some(length)
    }
}

/// What a partial answer holds, if it is what was asked for: whole chunks, or up to the end.
pub fn part(answer: &Answer, asked: Option<Span>) -> Option<(ByteRange, u64)> {
    let given = caching::content_range(&answer.head.headers)?;
    let (asked, total) = (asked?, given.total?);
    let range = given.range;
    let fits = range.start == asked.start
        && range.end() <= total
        && (range.end() == total || Some(range.end()) == asked.end);
    // The framing, if it names a length, must agree with what the field says.
    let framed = answer.body.length().is_none_or(|length| length == range.bytes);
    (fits && framed).then_some((range, total))
}

/// Whether a partial answer holds what was asked for or the beginning of it: an origin may send
/// less, but nothing else.
pub fn is_of(answer: &Answer, asked: Option<Span>) -> bool {
    let (Some(asked), Some(given)) = (asked, caching::content_range(&answer.head.headers)) else {
        return false;
    };
    let fits = asked.end.is_none_or(|end| given.range.end() <= end);
    given.range.start == asked.start && fits
}
