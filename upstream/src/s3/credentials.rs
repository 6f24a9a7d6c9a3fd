//! Credentials for S3: when they are asked for again, by one task at a time whatever the number
//! of requests that wait for them. Where they come from is the [`Source`]'s affair.

use super::source::{Source, unavailable};
use crate::fault::Fault;
use counting::Untold;
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
    /// When it was asked last since a bucket refused what it had given.
    refused: Option<Instant>,
    untold: Untold,
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
        self.ask()
            .await
            .or_else(|fault| usable(self.known().held.as_ref(), Age::Renew).ok_or(fault))
    }

    /// Asks for new ones. The caller holds `asking`.
    async fn ask(&self) -> Result<Arc<Keys>, Fault> {
        let asked = self.source.ask().await;
        (self.refreshed)(asked.is_ok());
        let (wall, now) = (SystemTime::now(), Instant::now());
        let given = asked.and_then(|(keys, expires)| {
            let held = Held::new(keys, expires, wall, now);
            match held.age(wall, now) {
                Age::Expired => {
                    let source = &self.source;
                    let why = format!("{source}: the credentials for S3 have expired already");
                    Err(unavailable(why))
                }
                Age::Good | Age::Renew => Ok(held),
            }
        });
        let mut known = self.known();
        match given {
            Ok(held) => {
                let keys = held.keys.clone();
                (known.held, known.failed) = (Some(held), None);
                Ok(keys)
            }
            Err(fault) => {
                if let Some(failures) = known.untold.add(1, now) {
                    tracing::warn!(%fault, failures, "no new credentials for S3");
                }
                known.failed = Some((now, fault.clone()));
                Err(fault)
            }
        }
    }

    /// The server refused these keys: whether there are others by now, which are asked for if
    /// nobody did just now. These stay in use until there are.
    pub(crate) async fn others_than(&self, refused: &Arc<Keys>) -> bool {
        let Some(pause) = self.source.pause() else { return false };
        let _asking = self.asking.lock().await;
        {
            let mut known = self.known();
            let now = Instant::now();
            if known.held.as_ref().is_none_or(|held| held.keys != *refused) {
                return true;
            }
            if known.refused.is_some_and(|at| now.duration_since(at) < pause) {
                return false;
            }
            known.refused = Some(now);
        }
        self.ask().await.is_ok_and(|keys| keys != *refused)
    }

    /// Where they are from, for operators.
    pub(crate) fn source(&self) -> &impl fmt::Display {
        &self.source
    }
}

#[cfg(test)]
mod tests;
