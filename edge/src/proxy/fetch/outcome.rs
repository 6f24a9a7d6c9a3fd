//! What comes of asking the origin: for all who wait, and for the one who asked.

use super::super::live::Live;
use super::super::stored::{self, How};
use super::super::{Wanted, pass};
use super::told::Told;
use super::under_way::Unkept;
use crate::engine::{GrowingReader, Reading};
use crate::error::Fault;
use crate::refused::Refused;
use crate::serve::{Answer as Answered, Edge};
use crate::verdict::Verdict;
use caching::{CacheStatus, Precondition, Selecting, Stored};
use heads::Head;
use http::{HeaderMap, StatusCode};
use model::ByteRange;
use std::sync::Arc;
use upstream::Answer;

/// What came of asking.
#[derive(Clone)]
pub enum Outcome {
    /// A stored representation: new, or found to be good still.
    Stored {
        /// It.
        head: Arc<Head>,
        /// Revalidated, or where its bytes come from.
        verdict: Verdict,
        /// The origin's status.
        status: StatusCode,
        /// The fetch of its bytes, where the one who asked has left: all who waited are to find it.
        hold: Option<Arc<Reading>>,
    },
    /// An answer that is kept once it is whole.
    Growing(Arc<Live>, Hold),
    /// The origin failed like this, or is too slow for who asked: what is stored may still be used,
    /// by who wants no more of it than is here. Who asked gets the answer by which it failed
    /// instead, if there is one for that one alone.
    Stale(Arc<Head>, Option<Fault>),
    /// What a HEAD was told that asked of nothing stored, or a reload that was held in vain: others that
    /// wait are told so, too.
    Told(Arc<Told>),
    /// The answer is for the one who asked.
    Alone,
    /// Nothing to answer from.
    Failed(Fault),
}

impl Outcome {
    /// By what those are chosen whom it answers, as far as nothing stored will tell: of a reload nothing
    /// does, since what comes next has another key.
    pub(super) fn selecting(&self, is_reload: bool) -> Option<&Selecting> {
        match self {
            Self::Told(told) => Some(&told.head.selecting),
            Self::Stored { head, .. } if is_reload => Some(&head.selecting),
            Self::Growing(live, _) if is_reload => Some(live.selecting()),
            _ => None,
        }
    }
}

/// Keeps a growing answer from being given up until all who waited for it read it themselves,
/// though the one who asked has left.
pub type Hold = Option<Arc<GrowingReader>>;

/// An answer that is not shared.
pub struct Unshared {
    /// It.
    pub answer: Answer,
    /// Its fields, as they are passed on.
    pub fields: HeaderMap,
    /// When it was asked for, in milliseconds since 1970 UTC.
    pub requested_ms: i64,
    /// Of the answer's bytes, those that were wanted: it was asked for whole chunks.
    pub cut: Option<Cut>,
    /// What of it could not be kept, for no reason of this one request.
    pub unkept: Option<Unkept>,
    /// It is not shared for a reason of this one request, or of the moment.
    pub is_of_request: bool,
}

impl Unshared {
    /// Whether the client's `If-Match`, or `If-Unmodified-Since`, does not hold of it: it was asked for
    /// without them.
    fn fails(&self, wanted: &Wanted) -> bool {
        if !caching::is_conditional(&wanted.fields) {
            return false;
        }
        let (status, requested_ms) = (self.answer.head.status, self.requested_ms);
        let fields = self.fields.clone();
        let stored = Stored { status, fields, requested_ms, received_ms: requested_ms };
        let precondition = caching::precondition(&wanted.method, &wanted.fields, &stored);
        matches!(precondition, Precondition::Failed)
    }

    /// Whether it is a part that is not what was wanted, and of which that can't be cut out.
    pub(super) fn is_a_wrong_part(&self) -> bool {
        self.is_a_part() && self.cut.is_none()
    }

    pub(super) fn is_a_part(&self) -> bool {
        self.answer.head.status == StatusCode::PARTIAL_CONTENT
    }

    /// Whether it says that there is no such part.
    pub(super) fn is_no_part(&self) -> bool {
        self.answer.head.status == StatusCode::RANGE_NOT_SATISFIABLE
    }
}

/// The fetch that the one who asked follows.
pub fn reading(own: Option<Own>) -> Option<Reading> {
    match own {
        Some(Own::Reading(reading)) => Some(reading),
        _ => None,
    }
}

/// The reader of the one who asked.
pub fn reader(own: Option<Own>) -> Option<GrowingReader> {
    match own {
        Some(Own::Reader(reader)) => Some(reader),
        _ => None,
    }
}

/// A part of a partial answer.
pub struct Cut {
    /// What the answer holds.
    pub given: ByteRange,
    /// The whole representation's length, if it is known.
    pub total: Option<u64>,
    /// What was wanted of it.
    pub wanted: ByteRange,
}

/// What is for the one who asked only. Dropped when that one has left, so that nothing is
/// fetched on its behalf any more.
pub enum Own {
    /// An answer that is not shared.
    Unshared(Box<Unshared>),
    /// What is stored, good still, with fields that are not shared, and the origin's status.
    Renewed(Arc<Head>, StatusCode),
    /// The fetch of the bytes that the answer begins with.
    Reading(Reading),
    /// The first reader of a growing answer.
    Reader(GrowingReader),
}

impl Own {
    /// Answers that one from what nobody else gets.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn answer(
        self,
        edge: &Arc<Edge>,
        wanted: &Arc<Wanted>,
        told: CacheStatus<'static>,
    ) -> Result<Answered, Refused> {
        match self {
            Self::Unshared(mut unshared) => {
                if unshared.fails(wanted) {
                    drop(unshared);
                    return Box::pin(pass::on(edge, wanted, &[], crate::serve::no_body())).await;
                }
                let Answer { asked_ms, fetched_ms, .. } = unshared.answer;
                wanted.tell_times(&mut unshared.fields, asked_ms, fetched_ms);
                Ok(pass::answer(edge, wanted, *unshared, told))
            }
            Self::Renewed(head, status) => {
                let told = CacheStatus { forwarded_status: Some(status), ..told };
                let how = How::Fetched { verdict: Verdict::Revalidated, told, reading: None };
                stored::answer(edge, wanted, head, how).await
            }
            // These come with what is shared.
            Self::Reading(_) | Self::Reader(_) => Err(Refused::Fault(Fault::Lost)),
        }
    }
}
