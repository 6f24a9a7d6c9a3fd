//! Follows the control plane's plan: accepts it, fetches what it names, run by run, and notes
//! what is complete. A kill costs at most what came while the last of it was
//! written, and in the second before.

mod writing;

use super::file::PlannedFile;
use super::room::{Room, no_room};
use super::{Accepted, Planned, write_plan};
use crate::engine::{Engine, Filled, RUN_BYTES_MAX};
use crate::error::Fault;
use crate::object::Passed;
use crate::origin::{Origin, Run};
use crate::title::{Name, Title, Titles};
use chunks::health::WRITE_MAX;
use model::chunk::CHUNK_BYTES;
use model::{EdgeId, FillPlan};
use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

/// After a failure, wait at first this long, doubling up to the second while nothing comes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// What has come waits no longer for others that are written with it.
const WRITE_AFTER: Duration = Duration::from_secs(1);
/// What is under way when there is a newer plan may still come for so long: that plan may want it.
const LAST_MAX: Duration = Duration::from_secs(1);
/// Chunks of a file that the origin has wrong, beyond which others are not tried.
const WRONG_MAX: usize = 8;
/// To find what was written and not noted, all of a file may have to be read.
const ADOPT_MAX: Duration = Duration::MAX;

/// The background task of the planned tier.
pub struct Puller {
    /// The tier.
    pub planned: Arc<Planned>,
    /// Where indexes come from.
    pub titles: Arc<Titles>,
    /// Where bytes are that are here already, and where players find those that come.
    pub engine: Arc<Engine>,
    /// Where the others come from.
    pub origin: Origin,
    /// The control plane.
    pub control: service::client::Client,
    /// Its base URL, without a trailing slash.
    pub control_url: String,
    /// What of the disk it may fill.
    pub room: Room,
    /// This edge.
    pub id: EdgeId,
}

/// Why filling stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("a newer plan is there")]
    NewerPlan,
    #[error("the disk is off")]
    Off,
    #[error("{0} titles could not be fetched whole")]
    Incomplete(usize),
    #[error(transparent)]
    Control(#[from] service::client::Error),
    #[error("the plan is for {0}")]
    WrongEdge(EdgeId),
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Fetch(#[from] Fault),
}

impl Puller {
    /// Whether another plan was told of since this one was begun. After a start, the number of the
    /// one that is being filled already is: that is no other.
    fn is_superseded(&self, newest: &watch::Receiver<Option<u64>>) -> bool {
        newest.has_changed().unwrap_or(false) && *newest.borrow() != self.planned.number()
    }

    /// Waits until it is so.
    async fn superseded(&self, mut newest: watch::Receiver<Option<u64>>) {
        while newest.changed().await.is_ok() {
            if *newest.borrow() != self.planned.number() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Fetches for this plan: not much longer than there is a newer one, nor than the disk is in use.
    async fn unless_over<T>(
        &self,
        newest: &watch::Receiver<Option<u64>>,
        fetching: impl Future<Output = T>,
    ) -> Result<T, Stopped> {
        let mut up = self.planned.up.subscribe();
        let superseded = async {
            self.superseded(newest.clone()).await;
            tokio::time::sleep(LAST_MAX).await;
        };
        tokio::select! {
            fetched = fetching => Ok(fetched),
            () = superseded => Err(Stopped::NewerPlan),
            // Its sender is here.
            _ = up.wait_for(|up| !up) => Err(Stopped::Off),
        }
    }

    /// Follows the newest plan number until the sender is gone or the task is dropped.
    pub async fn follow(self, mut newest: watch::Receiver<Option<u64>>) {
        let mut wait = RETRY_AFTER;
        loop {
            let present = || self.planned.metrics.plan_bytes_present.get();
            let had = present();
            let ended = self.step(&mut newest).await;
            if present() > had {
                wait = RETRY_AFTER;
            }
            let retry = match &ended {
                Ok(()) => Duration::MAX,
                Err(Stopped::NewerPlan) => {
                    wait = RETRY_AFTER;
                    continue;
                }
                // It tells itself when it is back.
                Err(Stopped::Off) => Duration::MAX,
                Err(stopped) => {
                    self.note(stopped);
                    tracing::warn!(%stopped, retry_s = wait.as_secs(), "the plan is not complete");
                    wait
                }
            };
            wait = if ended.is_ok() { RETRY_AFTER } else { (wait * 2).min(RETRY_AFTER_MAX) };
            let pause = async {
                match retry {
                    Duration::MAX => std::future::pending().await,
                    retry => tokio::time::sleep(retry).await,
                }
            };
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = self.planned.wanting.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Brings the tier to the newest plan.
    async fn step(&self, newest: &mut watch::Receiver<Option<u64>>) -> Result<(), Stopped> {
        let number = *newest.borrow_and_update();
        if !self.planned.is_up() {
            return Err(Stopped::Off);
        }
        if number.is_some() && number != self.planned.number() {
            self.accept().await?;
        }
        let Some(accepted) = self.planned.lock_plan().clone() else { return Ok(()) };
        if accepted.complete {
            return Ok(());
        }
        // A disk that does not take the plan now may do so at the end.
        let _ = self.store_plan().await;
        let mut incomplete = 0;
        for (name, bytes) in &accepted.wanted {
            if self.is_superseded(newest) {
                return Err(Stopped::NewerPlan);
            }
            match self.fill_title(name, *bytes, newest).await {
                Ok(()) => {}
                Err(stopped @ (Stopped::NewerPlan | Stopped::Off)) => return Err(stopped),
                Err(stopped) => {
                    self.note(&stopped);
                    tracing::warn!(title = %name.0, version = %name.1, %stopped, "planned title");
                    incomplete += 1;
                }
            }
        }
        if incomplete > 0 {
            return Err(Stopped::Incomplete(incomplete));
        }
        if let Err(error) = self.store_plan().await {
            return Err(if self.planned.is_up() { error.into() } else { Stopped::Off });
        }
        self.planned.written();
        if accepted.wanted.len() == accepted.plan.titles.len() {
            self.mark_complete(accepted.plan.number)?;
        }
        Ok(())
    }

    /// A disk that is full or read-only, found while a file was made or the plan stored.
    fn note(&self, stopped: &Stopped) {
        use io::ErrorKind::{ReadOnlyFilesystem, StorageFull};
        if let Stopped::Disk(error) = stopped
            && matches!(error.kind(), StorageFull | ReadOnlyFilesystem)
        {
            self.planned.not_written(error);
        }
    }

    async fn store_plan(&self) -> io::Result<()> {
        let planned = Arc::clone(&self.planned);
        self.in_time(WRITE_MAX, move || planned.store_plan()).await
    }

    /// Notes that all of this plan is here, if that is so: a client may have found something
    /// damaged meanwhile, or the disk may have been off.
    fn mark_complete(&self, number: u64) -> Result<(), Stopped> {
        let mut plan = self.planned.lock_plan();
        let Some(plan) = plan.as_mut().filter(|plan| plan.plan.number == number) else {
            return Err(Stopped::NewerPlan);
        };
        let lacks = |(name, _): &&(Name, u64)| {
            let title = self.planned.get(name);
            !title.is_some_and(|title| title.files.iter().all(|file| file.is_complete()))
        };
        let incomplete = plan.wanted.iter().filter(lacks).count();
        if incomplete > 0 {
            return Err(Stopped::Incomplete(incomplete));
        }
        plan.complete = true;
        tracing::info!(number, "the plan is complete");
        Ok(())
    }

    async fn accept(&self) -> Result<(), Stopped> {
        let url = format!("{}/v1/edges/{}/plan", self.control_url, self.id);
        let plan: FillPlan = self.control.get_json(&url).await?;
        if plan.edge != self.id {
            return Err(Stopped::WrongEdge(plan.edge));
        }
        tracing::info!(
            number = plan.number,
            date = plan.date,
            titles = plan.titles.len(),
            "plan accepted"
        );
        let accepted = self.enforce(plan).await;
        accepted.map_err(|error| if self.planned.is_up() { error.into() } else { Stopped::Off })
    }

    async fn enforce(&self, plan: FillPlan) -> io::Result<()> {
        let planned = Arc::clone(&self.planned);
        let storing = move || {
            let _place = planned.place.lock().unwrap_or_else(PoisonError::into_inner);
            planned.is_in_place()?;
            let stored = write_plan(&planned.dir, &plan).is_ok();
            Ok((plan, stored))
        };
        let (plan, stored) = self.in_time(WRITE_MAX, storing).await?;
        let planned = Arc::clone(&self.planned);
        // To remove much may take long by right.
        blocking(move || {
            let _place = planned.place.lock().unwrap_or_else(PoisonError::into_inner);
            // What is there must not be removed, nor filled, if it is another disk's.
            planned.is_in_place()?;
            // Where it is not stored, a full disk may have room for it now.
            planned.enforce(Accepted { stored, ..Accepted::new(plan, planned.bytes_max) });
            Ok(())
        })
        .await
    }

    async fn fill_title(
        &self,
        name: &Name,
        bytes: u64,
        newest: &watch::Receiver<Option<u64>>,
    ) -> Result<(), Stopped> {
        let passed = Passed::default();
        let (title, _) = self.unless_over(newest, self.titles.get(name, &passed)).await??;
        if title.index.bytes() > bytes {
            let text = format!("it has {} bytes, the plan says {bytes}", title.index.bytes());
            return Err(Stopped::Fetch(Fault::unavailable(text)));
        }
        let mut is_wrong = false;
        for track in 0..title.index.tracks.len() {
            match self.fill_file(&title, track, newest).await {
                Err(Stopped::Fetch(Fault::Corrupt)) => is_wrong = true,
                ended => ended?,
            }
        }
        if is_wrong { Err(Stopped::Fetch(Fault::Corrupt)) } else { Ok(()) }
    }

    async fn fill_file(
        &self,
        title: &Arc<Title>,
        track: usize,
        newest: &watch::Receiver<Option<u64>>,
    ) -> Result<(), Stopped> {
        let name = title.name();
        if self.planned.file(&name, track).is_none() {
            let (planned, room) = (Arc::clone(&self.planned), self.room.clone());
            let has_room = move || room.bytes(&planned.dir).map(|_| ());
            self.until_written(newest, WRITE_MAX, has_room).await?;
        }
        let (planned, opened) = (Arc::clone(&self.planned), Arc::clone(title));
        let open = self.in_time(WRITE_MAX, move || planned.open_title(&opened).map(|_| ()));
        if let Err(error) = open.await {
            return Err(if self.planned.is_up() { error.into() } else { Stopped::Off });
        }
        let opened = Arc::clone(title);
        let adopt = move |file: &PlannedFile| match opened.index.tracks.get(track) {
            Some(facts) if !file.is_complete() => file.adopt(facts).map(|_| ()),
            _ => Ok(()),
        };
        self.writing(newest, (&name, track), ADOPT_MAX, adopt).await?;
        let (mut from, mut wrong) = (0, 0);
        loop {
            let room = self.room.clone();
            let next = move |file: &PlannedFile| next_run(file, from, &room);
            let next = self.writing(newest, (&name, track), WRITE_MAX, next).await?;
            let Some(chunks) = next else { break };
            if self.is_superseded(newest) {
                return Err(Stopped::NewerPlan);
            }
            let run = Run { title: Arc::clone(title), track, chunks };
            match self.fill_run(&name, &run, newest).await {
                // The origin may have others.
                Err(Stopped::Fetch(Fault::Corrupt)) if wrong < WRONG_MAX => {
                    let file = self.planned.file(&name, track);
                    let missing = file.and_then(|file| file.missing(from, 1));
                    from = missing.map_or(run.chunks.end, |missing| missing.end);
                    wrong += 1;
                }
                ended => ended?,
            }
        }
        if wrong > 0 {
            return Err(Stopped::Fetch(Fault::Corrupt));
        }
        tracing::debug!(title = %title.title, track, "planned file complete");
        Ok(())
    }

    /// Fetches neighbouring chunks. What has come is written while others come, and also when these
    /// don't, or for a newer plan.
    async fn fill_run(
        &self,
        name: &Name,
        run: &Run,
        newest: &watch::Receiver<Option<u64>>,
    ) -> Result<(), Stopped> {
        let (brought, mut came) = mpsc::unbounded_channel();
        let fetching = async {
            let keep = |chunk| brought.send(chunk).is_ok() && !self.is_superseded(newest);
            let filled = self.engine.fill(&self.origin, run, keep);
            let fetched = self.unless_over(newest, filled).await;
            drop(brought);
            Ok(fetched)
        };
        let storing = async {
            while let Some(chunks) = batch(&mut came).await {
                let given: Vec<_> =
                    chunks.iter().map(|chunk| (chunk.number(), chunk.bytes.clone())).collect();
                let store = move |file: &PlannedFile| file.store(&given);
                // Kept until the disk takes it, so that nothing is fetched twice.
                self.writing(newest, (name, run.track), WRITE_MAX, store).await?;
                self.planned.written();
                self.planned.count_present();
            }
            Ok::<_, Stopped>(())
        };
        let (fetched, ()) = tokio::try_join!(fetching, storing)?;
        Ok(fetched??)
    }
}

/// The next chunks to fetch, from `from` on, as many as there is room for; `None` when all are here.
/// Blocks.
fn next_run(file: &PlannedFile, from: u64, room: &Room) -> io::Result<Option<Range<u64>>> {
    let Some(missing) = file.missing(from, RUN_BYTES_MAX / CHUNK_BYTES) else { return Ok(None) };
    let bytes = room.bytes(file.path())?;
    let fitting = file.fitting(missing, bytes);
    if fitting.is_empty() { Err(no_room(bytes)) } else { Ok(Some(fitting)) }
}

/// What has come: with what comes within [`WRITE_AFTER`] of the first. None when nothing comes any more.
async fn batch(came: &mut mpsc::UnboundedReceiver<Filled>) -> Option<Vec<Filled>> {
    let mut chunks = vec![came.recv().await?];
    let by = Instant::now() + WRITE_AFTER;
    while let Ok(Some(chunk)) = timeout_at(by, came.recv()).await {
        chunks.push(chunk);
    }
    Some(chunks)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
