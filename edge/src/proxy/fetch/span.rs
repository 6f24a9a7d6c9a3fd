//! Which bytes to ask for, of an object that is not known yet or is to be had anew: whole chunks
//! around what the client wants, and where runs have owners, of one run at a time.

use super::Fetch;
use super::outcome::{Cut, Unshared};
use crate::engine::{ANSWER_BYTES_MIN, OWNED_RUN_BYTES, owned_run_end};
use caching::{ContentRange, RangeSpec, Ranges};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::ByteRange;
use model::chunk::CHUNK_BYTES;
use upstream::{Answer, Ask};

/// What to ask for: from a byte on, up to another or the end. Whole chunks, unless the origin
/// sends too little for these.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
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
        let is_all =
            Part::of(&answer, asked).is_some_and(|part| part.total == Some(part.given.bytes));
        let wants_whole = !self.wanted.fields.contains_key(header::RANGE);
        if wants_whole && is_all && answer.head.status == StatusCode::PARTIAL_CONTENT {
            answer.head.status = StatusCode::OK;
            answer.head.headers.remove(header::CONTENT_RANGE);
        }
        answer
    }

    /// Of an object that is not known yet, a client may want a part: whole chunks around it are
    /// asked for, or the one part to the byte where none of it will be kept. Where it wants the
    /// end, what is stored tells where that is, or a HEAD, or a request for the first byte.
    pub(super) async fn range_to_ask(&self) -> Option<Span> {
        let mut specs = caching::range_specs(&self.wanted.fields);
        let first = specs.next()??;
        if self.wanted.method == Method::HEAD || (self.is_exact && specs.next().is_some()) {
            return None;
        }
        let unit = if self.is_exact { 1 } else { CHUNK_BYTES };
        match first {
            RangeSpec::Last { bytes } => {
                let total = match self.stored_bytes() {
                    Some(total) => total,
                    None => self.length().await?,
                };
                let start = total.saturating_sub(bytes) / unit * unit;
                (start < total).then_some(Span { start, end: Some(total) })
            }
            RangeSpec::From { first, last } => {
                // Past the last chunk that can be counted is the end.
                let after = |last: u64| last.checked_add(1)?.checked_next_multiple_of(unit);
                Some(Span { start: first / unit * unit, end: last.and_then(after) })
            }
        }
    }

    /// The run that will be asked for first; all the same where runs have no owners. An end
    /// whose place is not known yet is none of these.
    pub(super) fn run_asked(&self) -> u64 {
        if !self.edge.node.splits_runs() {
            return 0;
        }
        match self.wants_end() {
            true => u64::MAX,
            false => caching::asks_from(&self.wanted.fields) / OWNED_RUN_BYTES,
        }
    }

    /// To the byte what the client wants, of whose chunks the origin has sent too little for the
    /// cache, and nothing that is wanted, or says that they are not there, though what is wanted is.
    /// As the client asks for it: there are origins that take no range that has an end, and some
    /// that take none whose end is past theirs.
    pub(super) fn exact(&self, sent: &Unshared) -> Option<Span> {
        let fields = &sent.answer.head.headers;
        let total = match sent.is_no_part() {
            true => caching::unsatisfied_total(fields)?,
            false => caching::content_range(fields)?.total?,
        };
        let range = one_range(&self.wanted.fields, total)?;
        let end = match caching::range_specs(&self.wanted.fields).next()?? {
            RangeSpec::From { last, .. } => last.and_then(|last| last.checked_add(1)),
            RangeSpec::Last { .. } => Some(range.end()),
        };
        Some(Span { start: range.start, end })
    }

    /// Whether the client wants the end, wherever that is.
    pub(super) fn wants_end(&self) -> bool {
        let first = caching::range_specs(&self.wanted.fields).next().flatten();
        matches!(first, Some(RangeSpec::Last { .. }))
    }

    /// The length of what is stored, and most likely of its next version.
    fn stored_bytes(&self) -> Option<u64> {
        let (head, _) = self.stale.as_ref()?;
        (head.stored.status == StatusCode::OK).then_some(head.bytes)
    }

    /// The length of what is wanted: by a HEAD, or where the origin takes none or tells no length,
    /// by the first byte. None: the whole is asked for.
    async fn length(&self) -> Option<u64> {
        let purges = self.purges();
        let ask = || Ask { purges, ..self.wanted.site.ask(&self.wanted) };
        let upstream = &self.wanted.site.upstream;
        let told = upstream.send(Ask { method: Method::HEAD, ..ask() }).await.ok()?.head;
        match told.status {
            StatusCode::OK if told.headers.contains_key(header::CONTENT_LENGTH) => {
                return told.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => return None,
            _ => {}
        }
        let mut ask = ask();
        ask.fields.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
        let first = upstream.send(ask).await.ok()?.head;
        let is_part = first.status == StatusCode::PARTIAL_CONTENT;
        caching::content_range(&first.headers).filter(|_| is_part)?.total
    }
}

/// A partial answer that is what was asked for, or the beginning of it (RFC 9110 section 15.3.7).
pub struct Part {
    /// What it holds.
    pub given: ByteRange,
    /// The whole representation's length, if it is known (RFC 9110 section 14.4).
    pub total: Option<u64>,
    /// The origin sent less than it was asked for.
    is_short: bool,
    /// It is of use to the cache: all that was asked for, all that there is, or enough of it.
    pub is_enough: bool,
}

impl Part {
    /// None if it is something else, or does not say what it is.
    pub fn of(answer: &Answer, asked: Option<Span>) -> Option<Self> {
        let asked = asked.filter(|_| is_of(answer, asked))?;
        let ContentRange { range: given, total } = caching::content_range(&answer.head.headers)?;
        if total.is_some_and(|total| given.end() > total) {
            return None;
        }
        // The framing, if it names a length, must agree with what the field says.
        let framed = answer.body.length().is_none_or(|length| length == given.bytes);
        let is_all = Some(given.end()) == total || Some(given.end()) == asked.end;
        let is_enough = is_all || given.bytes >= ANSWER_BYTES_MIN;
        let is_enough = is_enough && asked.start.is_multiple_of(CHUNK_BYTES);
        let is_short = Some(given.end()) != asked.end;
        framed.then_some(Self { given, total, is_short, is_enough })
    }

    /// What of it a client wants that asks for one range: only the beginning of that, if the
    /// origin sent no more. None if more would have had to be asked for.
    pub fn cut(&self, fields: &HeaderMap) -> Option<Cut> {
        let (given, total) = (self.given, self.total);
        let range = match total {
            Some(total) => one_range(fields, total)?,
            None => self.unmeasured(fields)?,
        };
        let is_begun = (given.start..given.end()).contains(&range.start)
            && (self.is_short || range.end() <= given.end());
        let end = range.end().min(given.end());
        is_begun.then(|| Cut {
            given,
            total,
            wanted: ByteRange::new(range.start, end - range.start),
        })
    }
}

impl Part {
    /// What a client wants that asks for one range of what does not say how long it is: what has
    /// come ends where that does, or where it was said to by whoever told where the end is.
    fn unmeasured(&self, fields: &HeaderMap) -> Option<ByteRange> {
        let mut specs = caching::range_specs(fields);
        let (first, None) = (specs.next()??, specs.next()) else { return None };
        let (start, end) = match first {
            RangeSpec::From { first, last } => {
                (first, last.map_or(Some(self.given.end()), |last| last.checked_add(1))?)
            }
            RangeSpec::Last { .. } if self.is_short => return None,
            RangeSpec::Last { bytes } => (self.given.end().saturating_sub(bytes), self.given.end()),
        };
        (start < end).then(|| ByteRange::new(start, end - start))
    }
}

/// What a client wants that asks for one range of something that long.
pub fn one_range(fields: &HeaderMap, total: u64) -> Option<ByteRange> {
    match caching::ranges(fields, total, 1) {
        Ranges::Parts(parts) => parts.first().copied(),
        _ => None,
    }
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
