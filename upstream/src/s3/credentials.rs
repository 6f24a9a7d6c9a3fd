//! Credentials for S3: when they are asked for again, by one task at a time whatever the number
//! of requests that wait for them. Where they come from is the [`Source`]'s affair.

use super::source::{Source, unavailable};
use crate::fault::Fault;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex as AsyncMutex;

/// New ones are asked for this long before the old expire, or for the last quarter of their
/// life where that is shorter.
const AHEAD: Duration = Duration::from_secs(300);
/// A file without an expiry is looked at again after this time.
const FILE_LOOK: Duration = Duration::from_secs(60);
/// After a failure nobody asks again for this long.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// The server's refusal makes us ask ahead of time at most this often.
const REFUSED_EVERY: Duration = Duration::from_secs(30);

/// An identity. No log shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// The credentials of a site.
pub(crate) struct Credentials {
    source: Source,
    known: Mutex<Known>,
    asking: Arc<AsyncMutex<()>>,
    refreshed: Box<dyn Fn(bool) + Send + Sync>,
}

#[derive(Default)]
struct Known {
    held: Option<Held>,
    failed: Option<(Instant, Fault)>,
    refused: Option<Instant>,
}

/// Credentials, and until when by both clocks: the wall clock may stand still, or jump.
#[derive(Clone)]
struct Held {
    keys: Arc<Keys>,
    /// From then on new ones are wanted.
    renew: Option<(SystemTime, Instant)>,
    /// From then on they are refused.
    expire: Option<(SystemTime, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Good,
    Renew,
    Expired,
}

impl Held {
    fn new(keys: Keys, expires: Option<SystemTime>, wall: SystemTime, now: Instant) -> Self {
        let keys = Arc::new(keys);
        let Some(expires) = expires else {
            let look = (wall + FILE_LOOK, now + FILE_LOOK);
            return Self { keys, renew: Some(look), expire: None };
        };
        let life = expires.duration_since(wall).unwrap_or_default();
        let ahead = AHEAD.min(life / 4);
        let renew = (expires - ahead, now + (life - ahead));
        Self { keys, renew: Some(renew), expire: Some((expires, now + life)) }
    }

    fn age(&self, wall: SystemTime, now: Instant) -> Age {
        let reached = |at: Option<(SystemTime, Instant)>| {
            at.is_some_and(|(by_wall, by_clock)| wall >= by_wall || now >= by_clock)
        };
        if reached(self.expire) {
            Age::Expired
        } else if reached(self.renew) {
            Age::Renew
        } else {
            Age::Good
        }
    }
}

impl Credentials {
    /// From `source`; `refreshed` is told how each question to it ended.
    pub(crate) fn new(source: Source, refreshed: impl Fn(bool) + Send + Sync + 'static) -> Self {
        let known = Mutex::new(Known::default());
        Self { source, known, asking: Arc::default(), refreshed: Box::new(refreshed) }
    }

    /// Whether they never change, nor have to be asked for.
    pub(crate) fn are_fixed(&self) -> bool {
        matches!(self.source, Source::Fixed(_))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Credentials that are good now. While they still are, nobody waits for newer ones. Within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// [`Fault::Unavailable`] when there are none to be had.
    pub(crate) async fn get(self: &Arc<Self>) -> Result<Arc<Keys>, Fault> {
        if let Source::Fixed(keys) = &self.source {
            return Ok(keys.clone());
        }
        let held = self.known().held.clone();
        let age = held.as_ref().map(|held| held.age(SystemTime::now(), Instant::now()));
        match (held, age) {
            (Some(held), Some(Age::Good)) => Ok(held.keys),
            (Some(held), Some(Age::Renew)) => {
                if let Ok(asking) = Arc::clone(&self.asking).try_lock_owned() {
                    let own = Arc::clone(self);
                    // In a task of its own: who asks may leave, and the next one would begin anew.
                    tokio::spawn(async move {
                        // Its failure is logged, and tried again by who comes later.
                        let _ = own.renew().await;
                        drop(asking);
                    });
                }
                Ok(held.keys)
            }
            _ => {
                let _asking = self.asking.lock().await;
                self.renew().await
            }
        }
    }

    /// Asks for new ones, unless somebody just did. The caller holds `asking`.
    async fn renew(&self) -> Result<Arc<Keys>, Fault> {
        let (wall, now) = (SystemTime::now(), Instant::now());
        let usable = |held: Option<&Held>, worst| {
            let held = held.filter(|held| held.age(wall, now) as u8 <= worst as u8);
            held.map(|held| held.keys.clone())
        };
        {
            let known = self.known();
            if let Some(keys) = usable(known.held.as_ref(), Age::Good) {
                return Ok(keys);
            }
            if let Some((at, fault)) = &known.failed
                && now.duration_since(*at) < FAILED_FOR
            {
                return usable(known.held.as_ref(), Age::Renew).ok_or_else(|| fault.clone());
            }
        }
        let asked = self.source.ask().await;
        (self.refreshed)(asked.is_ok());
        let mut known = self.known();
        match asked {
            Ok((keys, expires)) => {
                let held = Held::new(keys, expires, SystemTime::now(), Instant::now());
                if held.age(SystemTime::now(), Instant::now()) == Age::Expired {
                    let fault = unavailable("the credentials for S3 have expired already");
                    known.failed = Some((Instant::now(), fault.clone()));
                    return Err(fault);
                }
                let keys = held.keys.clone();
                (known.held, known.failed) = (Some(held), None);
                Ok(keys)
            }
            Err(fault) => {
                tracing::warn!(%fault, "no new credentials for S3");
                known.failed = Some((Instant::now(), fault.clone()));
                usable(known.held.as_ref(), Age::Renew).ok_or(fault)
            }
        }
    }

    /// The server refused these keys: whether it is worth asking with others.
    pub(crate) fn refused(&self, keys: &Arc<Keys>) -> bool {
        if self.are_fixed() {
            return false;
        }
        let now = Instant::now();
        let mut known = self.known();
        let others = known.held.as_ref().is_none_or(|held| held.keys != *keys);
        if others {
            return true;
        }
        if known.refused.is_some_and(|at| now.duration_since(at) < REFUSED_EVERY) {
            return false;
        }
        known.refused = Some(now);
        known.held = None;
        true
    }
}

#[cfg(test)]
mod tests;
