//! A place among the requests that a hop is asked at a time, from one ask to the next.
//!
//! Who asks on for what an answer left out may hold what those wait for who are answered in the
//! other places. Had it to wait in the row for a place, each could wait for the other.

use crate::hop::Hop;
use crate::turns::Turn;
use std::fmt;
use std::sync::Arc;

/// A place at a hop; free again once its last clone is gone.
#[derive(Clone)]
pub struct Place(Arc<Occupied>);

struct Occupied {
    hop: Arc<Hop>,
    _turn: Turn,
}

impl Place {
    pub(crate) fn new(hop: &Arc<Hop>, turn: Turn) -> Self {
        Self(Arc::new(Occupied { hop: Arc::clone(hop), _turn: turn }))
    }

    pub(crate) fn is_at(&self, hop: &Arc<Hop>) -> bool {
        Arc::ptr_eq(&self.0.hop, hop)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.0.hop.id).finish()
    }
}
