//! Follows the control plane's plan: accepts it, fetches what it names, run by run, and notes
//! what is complete. A kill at any time costs at most one run.

use super::file::PlannedFile;
use super::room::{Room, no_room};
use super::{Accepted, Planned, write_plan};
use crate::engine::{Engine, RUN_BYTES_MAX};
use crate::error::Fault;
use crate::object::Passed;
use crate::origin::{Origin, Run};
use crate::title::{Name, Title, Titles};
use chunks::health::{self, WRITE_MAX};
use model::chunk::CHUNK_BYTES;
use model::{EdgeId, FillPlan};
use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// After a failure, wait at first this long, doubling up to the second.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
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

    /// Follows the newest plan number until the sender is gone or the task is dropped.
    pub async fn follow(self, mut newest: watch::Receiver<Option<u64>>) {
        let mut wait = RETRY_AFTER;
        loop {
            let ended = self.step(&mut newest).await;
            let retry = match &ended {
                Ok(()) => Duration::MAX,
                Err(Stopped::NewerPlan) => continue,
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
        let (title, _) = self.titles.get(name, &Passed::default()).await?;
        if title.index.bytes() > bytes {
            let text = format!("it has {} bytes, the plan says {bytes}", title.index.bytes());
            return Err(Stopped::Fetch(Fault::unavailable(text)));
        }
        for track in 0..title.index.tracks.len() {
            self.fill_file(&title, track, newest).await?;
        }
        Ok(())
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
        let room = self.room.clone();
        let next = move |file: &PlannedFile| next_run(file, &room);
        while let Some(chunks) =
            self.writing(newest, (&name, track), WRITE_MAX, next.clone()).await?
        {
            if self.is_superseded(newest) {
                return Err(Stopped::NewerPlan);
            }
            let run = Run { title: Arc::clone(title), track, chunks };
            let (filled, fetched) = self.engine.fill(&self.origin, &run).await;
            // What arrived before a failure is kept; and all of it until the disk takes it, so
            // that nothing is fetched twice.
            let chunks = filled.chunks.clone();
            if !chunks.is_empty() {
                let store = move |file: &PlannedFile| file.store(&chunks);
                self.writing(newest, (&name, track), WRITE_MAX, store).await?;
                self.planned.written();
                self.planned.count_present();
            }
            drop(filled);
            fetched?;
        }
        tracing::debug!(title = %title.title, track, "planned file complete");
        Ok(())
    }

    /// Does what writes to a file, as [`Puller::until_written`].
    async fn writing<T: Send + 'static>(
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
    async fn until_written<T: Send + 'static>(
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
    async fn in_time<T: Send + 'static>(
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

/// The next chunks to fetch, as many as there is room for; `None` when all are here. Blocks.
fn next_run(file: &PlannedFile, room: &Room) -> io::Result<Option<Range<u64>>> {
    let Some(missing) = file.missing(0, RUN_BYTES_MAX / CHUNK_BYTES) else { return Ok(None) };
    let bytes = room.bytes(file.path())?;
    let fitting = file.fitting(missing, bytes);
    if fitting.is_empty() { Err(no_room(bytes)) } else { Ok(Some(fitting)) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
