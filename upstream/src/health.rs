//! Active health checks: asks each origin of a site at times whether it is well. A good one is a
//! trial that went well, too, should its breaker be open.
//!
//! Invariant: each origin is asked by a task of its own, so that one which hangs holds up what is
//! learned of no other.

use crate::ask::Ask;
use crate::circle::AtNodes;
use crate::hop::Way;
use crate::sending::Sending;
use http::HeaderMap;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Checks in a row that change what is believed.
const IN_ROW: u32 = 2;
/// The longest wait for an answer to a check, where the next one is not due before.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What the health check of a hop says; well without one.
pub(crate) struct Health {
    told: watch::Sender<bool>,
    /// The last check was good.
    vouches: AtomicBool,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { told: watch::Sender::new(true), vouches: AtomicBool::new(false) }
    }

    pub(crate) fn is_well(&self) -> bool {
        *self.told.borrow()
    }

    /// Whether there is a check, and the last one was good: where the hop fails, that is about what
    /// it was asked for.
    pub(crate) fn vouches(&self) -> bool {
        self.vouches.load(Relaxed)
    }

    fn tell(&self, well: bool) {
        self.told.send_replace(well);
    }

    /// What comes of it from now on.
    pub(crate) fn told(&self) -> watch::Receiver<bool> {
        self.told.subscribe()
    }
}

/// Waits until something else is told of one of them.
pub(crate) async fn changes(told: Vec<watch::Receiver<bool>>) {
    let change = |mut told: watch::Receiver<bool>| Box::pin(async move { told.changed().await });
    let mut changes: Vec<_> = told.into_iter().map(change).collect();
    poll_fn(|cx| {
        let is_one = changes.iter_mut().any(|change| change.as_mut().poll(cx).is_ready());
        if is_one { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// How an origin is asked whether it is well.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) pass_host: bool,
    /// From one to the next, at most.
    pub(crate) interval: Duration,
}

/// Checks an origin, for ever.
pub(crate) async fn watch(way: Arc<Way>, check: Check) {
    let mut against = 0;
    loop {
        let began = Instant::now();
        // A task: what panics there is a bad answer.
        let asked = AbortOnDropHandle::new(tokio::spawn(ask(way.clone(), check.clone())));
        let checked = asked.await.unwrap_or_else(|error| Err(error.to_string()));
        let (well, health) = (checked.is_ok(), &way.hop.health);
        health.vouches.store(well, Relaxed);
        let is_back = well && way.close();
        against = if well == health.is_well() { 0 } else { against + 1 };
        if against == IN_ROW {
            against = 0;
            way.meter.healthy.set(i64::from(well));
            health.tell(well);
            let why = checked.err();
            let (site, hop) = (&way.meter.site, &way.hop.id);
            tracing::warn!(site, %hop, well, why, "health check");
        } else if is_back {
            // Who waits elsewhere may come.
            health.tell(health.is_well());
        }
        // Between half and the whole: edges that started together don't check together.
        let pause = check.interval.mul_f64(rand::random_range(0.5..1.0));
        tokio::time::sleep_until(began + pause).await;
    }
}

/// # Errors
/// What is wrong.
async fn ask(way: Arc<Way>, check: Check) -> Result<(), String> {
    let limit = ANSWER_MAX.min(check.interval);
    let ask = Ask::get(check.host, check.path, [0; 16]);
    let mut sending = Sending::new(ask, HeaderMap::new(), AtNodes::default());
    sending.pass_host = check.pass_host;
    let asked = async {
        let (request, _) = sending.request(&way.hop).await.map_err(|fault| fault.to_string())?;
        let response = way.hop.pool.request(request).await;
        match response.map_err(|unanswered| unanswered.to_string())?.status() {
            status if status.as_u16() < 400 => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    };
    let timed_out = |_| Err(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, asked).await.unwrap_or_else(timed_out)
}
