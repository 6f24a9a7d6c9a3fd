//! Cookies that an operator leaves out. Browsers send those of a whole domain (`_ga`) with every
//! request below it (RFC 6265 section 5.4), also for what depends on none.

use http::HeaderMap;
use http::header::{COOKIE, SET_COOKIE};

/// What becomes of cookies, as an operator says. The other functions of this crate judge by fields
/// alone: so they are given fields from which these have taken what is dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cookies {
    /// They count, and go on.
    #[default]
    Keep,
    /// Requests have none, and answers set none.
    Drop,
}

impl Cookies {
    /// Whether they are left out.
    #[must_use]
    pub fn are_dropped(self) -> bool {
        self == Self::Drop
    }

    /// Whether a request has one that is to be left out.
    #[must_use]
    pub fn are_dropped_of(self, request: &HeaderMap) -> bool {
        self.are_dropped() && request.contains_key(COOKIE)
    }

    /// Leaves them out of a request's fields.
    pub fn leave_out_of_request(self, fields: &mut HeaderMap) {
        if self.are_dropped() {
            fields.remove(COOKIE);
        }
    }

    /// Leaves them out of an answer's fields.
    pub fn leave_out_of_answer(self, fields: &mut HeaderMap) {
        if self.are_dropped() {
            fields.remove(SET_COOKIE);
        }
    }
}
