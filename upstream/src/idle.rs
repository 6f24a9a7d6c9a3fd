//! Connections of one hop that no request is under way over, whichever hosts they were opened for.
//!
//! Invariant: beyond a number of them, who has been idle for longest is closed. Clients choose which
//! hosts are asked for; they do not choose how many connections that leaves behind.

use crate::connect::IDLE_CONNECTIONS_MAX;
use crate::link::Link;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Idle {
    /// The one that has been for longest first; some are used again, or gone.
    links: Mutex<VecDeque<Arc<Link>>>,
    /// What opened a connection has sent a request over it by then, if it is to.
    opening_max: Duration,
}

impl Idle {
    pub(crate) fn new(opening_max: Duration) -> Self {
        Self { links: Mutex::default(), opening_max }
    }

    /// It is from now on.
    pub(crate) fn add(&self, link: &Arc<Link>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|known| known.is_idle() && !Arc::ptr_eq(known, link));
        links.push_back(link.clone());
        let mut over = links.len().saturating_sub(IDLE_CONNECTIONS_MAX);
        links.retain(|known| {
            let is_closed = over > 0 && known.give_up(self.opening_max);
            over -= usize::from(is_closed);
            !is_closed
        });
    }
}
