//! What writes to the planned disk: in a thread, again and again until the disk takes it.

use super::{Puller, Stopped};
use crate::planned::file::PlannedFile;
use crate::title::Name;
use chunks::health;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

impl Puller {
    /// Does what writes to a file, as [`Puller::until_written`].
    pub(super) async fn writing<T: Send + 'static>(
        &self,
        newest: &watch::Receiver<Option<u64>>,
        (name, track): (&Name, usize),
        limit: Duration,
        work: impl Fn(&PlannedFile) -> io::Result<T> + Clone + Send + 'static,
    ) -> Result<T, Stopped> {
        let (planned, name) = (Arc::clone(&self.planned), name.clone());
        // The file as it is open now: the disk may have been off meanwhile.
        let work = move || {
            let Some(file) = planned.file(&name, track) else { return Ok(None) };
            planned.reopen_if_writable(&file)?;
            work(&file).map(Some)
        };
        self.until_written(newest, limit, work).await?.ok_or(Stopped::Off)
    }

    /// Does what writes, again and again until the disk takes it, or there is a newer plan: once
    /// even then, since that plan may want what was fetched.
    pub(super) async fn until_written<T: Send + 'static>(
        &self,
        newest: &watch::Receiver<Option<u64>>,
        limit: Duration,
        work: impl Fn() -> io::Result<T> + Clone + Send + 'static,
    ) -> Result<T, Stopped> {
        let mut up = self.planned.up.subscribe();
        let mut waited = None;
        loop {
            match self.in_time(limit, work.clone()).await {
                Ok(done) => return Ok(done),
                Err(_) if !self.planned.is_up() => return Err(Stopped::Off),
                Err(error) => self.planned.not_written(&error),
            }
            let wait = health::wait(waited, Duration::ZERO);
            waited = Some(wait);
            tokio::select! {
                () = self.superseded(newest.clone()) => return Err(Stopped::NewerPlan),
                // Its sender is here.
                _ = up.wait_for(|up| !up) => return Err(Stopped::Off),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Does what writes, in a thread. A disk that has not taken it within `limit` takes no writes:
    /// nothing more is fetched for it until it has, or has been off and is in use again.
    pub(super) async fn in_time<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut up = self.planned.up.subscribe();
        let (begun, begins) = oneshot::channel();
        let mut writing = spawn_blocking(move || {
            // Who asked may have gone.
            let _ = begun.send(());
            work()
        });
        // Where no thread is free, it is not the disk that is waited for.
        let _ = begins.await;
        if let Ok(ended) = timeout(limit, &mut writing).await {
            return ended.map_err(io::Error::other)?;
        }
        self.planned.not_written(&io::Error::new(io::ErrorKind::TimedOut, "a write hangs"));
        tokio::select! {
            ended = writing => {
                let done = ended.map_err(io::Error::other)??;
                self.planned.written();
                Ok(done)
            }
            // Its sender is here.
            _ = up.wait_for(|up| !up) => Err(io::Error::other("the disk is off")),
        }
    }
}
