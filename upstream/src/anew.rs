//! How often a request may be sent anew outside of the site's `retries` and their budget.
//!
//! Invariant: it is counted over all of an ask's tries. An origin that takes nothing would be asked
//! a multiple of them otherwise.

use crate::ask::Unsure;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Should a server refuse it: over another connection it may be taken (RFC 9113 section 8.7). What
/// is refused there, too, is a try like any other.
const REFUSED_MAX: u32 = 1;
/// Should each of its connections, which were there before it, turn out to be given up.
const GIVEN_UP_MAX: u32 = 3;
/// Should each of its connections have taken requests before it and have ended in order: 512 at
/// once, the default of `in-flight-max`, are done by then over connections that take 10 each.
const IN_ORDER_MAX: u32 = 64;

/// What is left of that to one ask.
#[derive(Debug)]
pub(crate) struct Anew {
    refused: AtomicU32,
    given_up: AtomicU32,
    in_order: AtomicU32,
    /// Told where one is sent anew that may have been carried out.
    pub(crate) unsure: Unsure,
}

impl Default for Anew {
    fn default() -> Self {
        Self {
            refused: REFUSED_MAX.into(),
            given_up: GIVEN_UP_MAX.into(),
            in_order: IN_ORDER_MAX.into(),
            unsure: Unsure::default(),
        }
    }
}

/// How a request came to no answer over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The server refused it, or the connection that was opened for it.
    Refused,
    /// Its connection was there, and was given up.
    GivenUp,
    /// Its connection, which was not opened for it, had taken requests, and ended in order.
    InOrder,
}

impl Anew {
    /// All of it, and who is told.
    pub(crate) fn telling(unsure: Unsure) -> Self {
        Self { unsure, ..Self::default() }
    }

    /// Takes one for a request with this end, if one is left.
    pub(crate) fn take(&self, end: End) -> bool {
        let left = match end {
            End::Refused => &self.refused,
            End::GivenUp => &self.given_up,
            End::InOrder => &self.in_order,
        };
        left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
