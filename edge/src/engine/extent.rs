//! How far the answers go that objects' origins are asked for, where they take ranges otherwise than
//! others do. As servers do that take all digits of a `Range` for one number, some answer 416 to one
//! that has an end, and name a length that it is within; others begin at the first byte whatever is
//! asked for. Such an object is asked for from a byte on, or whole, and left where no more of it is
//! wanted.

use crate::object::Object;
use http::StatusCode;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use upstream::{Answer, HopId, HopKind, Misread};

/// Objects of which that is remembered; one that is forgotten costs a request more.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

type Body = [u8; 16];

/// How far an answer goes that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Extent {
    /// To the end of what is missing.
    #[default]
    Missing,
    /// From the first byte that is missing to the end of the object.
    ToTheEnd,
    /// All of the object.
    Whole,
}

/// Of which bodies another is known than what is missing.
pub(super) struct Extents(Mutex<LruCache<Body, Extent>>);

impl Default for Extents {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED_MAX)))
    }
}

impl Extents {
    /// How far this one is asked for.
    pub(super) fn of(&self, body: &Body) -> Extent {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(body).copied().unwrap_or_default()
    }

    /// Asked for less, the same origin has not sent it, and so far it has.
    pub(super) fn set(&self, body: Body, extent: Extent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(body, extent);
    }

    /// It was asked for so far in vain.
    pub(super) fn unset(&self, body: &Body) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop(body);
    }
}

impl Extent {
    /// How much further the object may be asked for, if an answer to this says so; and by whom.
    pub(super) fn wider(
        self,
        object: &Object,
        answered: Result<&Answer, &upstream::Fault>,
    ) -> Option<(Self, HopId)> {
        let (wider, hop) = match answered {
            Ok(answer) if answer.kind == HopKind::Origin && contradicts(object, &answer.head) => {
                (Self::ToTheEnd, &answer.hop)
            }
            Err(upstream::Fault::Wrong { misread: Some((misread, hop)), .. }) => match misread {
                Misread::Digits => (Self::ToTheEnd, hop),
                Misread::NoStart => (Self::Whole, hop),
            },
            _ => return None,
        };
        (wider > self).then(|| (wider, hop.clone()))
    }
}

/// Whether an answer says that there are no such bytes, of what is as long as it was: that may be one
/// of an origin that reads ranges in a way of its own, and not of another version.
fn contradicts(object: &Object, head: &http::response::Parts) -> bool {
    head.status == StatusCode::RANGE_NOT_SATISFIABLE
        && caching::unsatisfied_total(&head.headers) == Some(object.bytes)
}
