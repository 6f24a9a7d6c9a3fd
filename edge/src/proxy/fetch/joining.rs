//! Who waits for whom: requests that the same exchange answers share one.
//!
//! Invariant: requests that a response's `Vary` tells apart never wait for one another once that is
//! known, whether or not the response is stored. Before the first answer to a URL, or of blocking
//! reloads to any of their playlist, all wait for that one.

use super::super::now_ms;
use super::outcome::{Outcome, Own};
use super::under_way::Flight;
use super::{Fetch, Wanted};
use crate::error::Fault;
use crate::flights::{Ticket, Wait};
use crate::serve::Edge;
use caching::Selecting;
use heads::Head;
use http::Method;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What is stored, if it may answer before an origin that takes long, as the operator says (see
/// [`caching::stale_when_slow`]).
struct StandIn {
    edge: Arc<Edge>,
    wanted: Arc<Wanted>,
    head: Option<Arc<Head>>,
}

impl StandIn {
    /// What a flight comes to, or the stand-in for it where it may still answer by then.
    async fn or(self, wait: Wait<Outcome>) -> Result<Outcome, Arc<Head>> {
        let mut landed =
            pin!(async { wait.landed().await.unwrap_or(Outcome::Failed(Fault::Lost)) });
        if let Some((head, patience)) = self.head.zip(self.wanted.site.patience()) {
            if let Ok(outcome) = tokio::time::timeout(patience, &mut landed).await {
                return Ok(outcome);
            }
            if may_go_before(&self.edge, &self.wanted, &head) {
                return Err(head);
            }
        }
        Ok(landed.await)
    }
}

/// Whether what is stored is all here and may answer before the origin does.
fn may_go_before(edge: &Edge, wanted: &Arc<Wanted>, head: &Arc<Head>) -> bool {
    edge.purges.verdict(head) != heads::Verdict::Hard
        && wanted.may_go_before(head, edge.purges.stale_since(head))
        && super::super::stored::is_here(edge, wanted, head)
}

impl Fetch {
    /// What it may be joined by.
    fn flight(&self) -> Flight {
        let is_head = self.wanted.method == Method::HEAD;
        Flight {
            key: self.wanted.key,
            variant: self.variant(),
            run: if is_head { 0 } else { self.run_asked() },
            is_head,
            is_hurried: self.is_hurried(),
        }
    }

    /// Whether another node waits for it, and for less than a try may take.
    fn is_hurried(&self) -> bool {
        let is_too_soon = |by| !self.wanted.site.upstream.has_time(by);
        !self.is_in_background && self.wanted.answer_by.is_some_and(is_too_soon)
    }

    /// Tells its variant from others: that of what is stored, or of what the request says in the
    /// fields by which the newest answer was chosen. 0 as long as none are known.
    fn variant(&self) -> u64 {
        let named =
            |selecting: &Selecting| xxhash_rust::xxh3::xxh3_64(format!("{selecting:?}").as_bytes());
        match &self.stale {
            Some((head, _)) => named(&head.selecting),
            None => {
                let said = match self.newest() {
                    Some(newest) => self.wanted.selecting(&newest.stored.fields),
                    None => self.edge.fetches.varied(&self.wanted),
                };
                said.filter(|said| !said.is_empty()).as_ref().map_or(0, named)
            }
        }
    }

    /// The newest that is known of the URL, arriving or stored, purged or not.
    fn newest(&self) -> Option<Arc<Head>> {
        let key = &self.wanted.key;
        let arriving = self.edge.lives.heads(key).pop();
        arriving.or_else(|| self.edge.engine.heads.in_memory(key)?.first().cloned())
    }

    /// Joins who asks already; who is the first gets the ticket, too. What a GET is told will do
    /// for a HEAD.
    pub(super) fn board(&self) -> (Wait<Outcome>, Option<Ticket<Flight, Outcome>>) {
        let (flights, flight) = (&self.edge.fetches.flights, self.flight());
        let of_get = Flight { is_head: false, ..flight };
        let behind_get = flight.is_head.then(|| flights.joined(&of_get, &self.urgency)).flatten();
        match behind_get {
            Some(wait) => (wait, None),
            None => flights.join(flight, &self.urgency),
        }
    }

    /// Asks, or waits for whoever asks already. Whether it only waited comes last.
    pub async fn join(self) -> (Outcome, Option<Own>, bool) {
        let fetches = &self.edge.fetches;
        let is_of_one = self.wanted.is_of_one() || self.is_exact || self.is_on_own;
        if is_of_one || fetches.is_unshared(&self.wanted.key) {
            let (outcome, alone) = self.exchange().await;
            return (outcome, alone, false);
        }
        let (wait, ticket) = self.board();
        let stand_in = self.stand_in();
        let Some(ticket) = ticket else {
            let outcome = stand_in.or(wait).await.unwrap_or_else(|head| Outcome::Stale(head, None));
            // The one who asked may want nothing stale.
            let outcome = match outcome {
                Outcome::Failed(fault) if !fault.starts_over() => self.failed(fault),
                outcome => outcome,
            };
            return (outcome, None, true);
        };
        // A fetch may have landed between the look and the join: all start over.
        if self.has_come() {
            ticket.land(Outcome::Failed(Fault::Changed));
            return (Outcome::Failed(Fault::Changed), None, false);
        }
        let (sender, receiver) = oneshot::channel();
        let metrics = self.edge.metrics.clone();
        tokio::spawn(metrics.guarded(self.lead(ticket, Some(sender))));
        match stand_in.or(wait).await {
            Ok(outcome) => (outcome, receiver.await.ok().flatten(), false),
            // It goes on in the background.
            Err(head) => (Outcome::Stale(head, None), None, false),
        }
    }

    fn stand_in(&self) -> StandIn {
        let stale = self.stale.as_ref().map(|(head, _)| head);
        StandIn {
            edge: Arc::clone(&self.edge),
            wanted: Arc::clone(&self.wanted),
            head: stale.filter(|head| may_go_before(&self.edge, &self.wanted, head)).cloned(),
        }
    }

    /// Whether the request would now be answered without the origin.
    pub(super) fn has_come(&self) -> bool {
        let (edge, wanted) = (&self.edge, &self.wanted);
        if edge.lives.find(wanted, &edge.purges).is_some() {
            return true;
        }
        let Some(variants) = edge.engine.heads.in_memory(&wanted.key) else { return false };
        super::super::selected(edge, wanted, &variants).is_ok_and(|found| {
            let reuse = wanted.reuse(&found.head, now_ms(), found.soft_purged_ms);
            matches!(reuse, caching::Reuse::Fresh)
        })
    }
}
