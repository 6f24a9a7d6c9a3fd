//! Follows the control plane's plan: accepts it, fetches what it names, run by run, and notes
//! what is complete. A kill at any time costs at most one run.

use super::{Accepted, Planned};
use crate::engine::RUN_BYTES_MAX;
use crate::error::Fault;
use crate::object::Passed;
use crate::origin::{Origin, Run};
use crate::title::{Name, Title, Titles};
use bytes::Bytes;
use model::chunk::CHUNK_BYTES;
use model::{EdgeId, FillPlan};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// After a failure, wait at first this long, doubling up to the second.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The background task of the planned tier.
pub struct Puller {
    /// The tier.
    pub planned: Arc<Planned>,
    /// Where indexes come from.
    pub titles: Arc<Titles>,
    /// Where bytes come from.
    pub origin: Origin,
    /// The control plane.
    pub control: service::client::Client,
    /// Its base URL, without a trailing slash.
    pub control_url: String,
    /// This edge.
    pub id: EdgeId,
}

/// Why filling stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("a newer plan is there")]
    NewerPlan,
    #[error("{0} titles could not be fetched whole")]
    Incomplete(usize),
    #[error(transparent)]
    Control(#[from] service::client::Error),
    #[error("the plan is for {0}")]
    WrongEdge(EdgeId),
    #[error(transparent)]
    Disk(#[from] std::io::Error),
    #[error(transparent)]
    Fetch(#[from] Fault),
}

impl Puller {
    /// Follows the newest plan number until the sender is gone or the task is dropped.
    pub async fn follow(self, mut newest: watch::Receiver<Option<u64>>) {
        let mut wait = RETRY_AFTER;
        loop {
            let ended = self.step(&mut newest).await;
            let retry = match &ended {
                Ok(()) => Duration::MAX,
                Err(Stopped::NewerPlan) => continue,
                Err(stopped) => {
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
                () = self.planned.damaged.notified() => {}
                () = pause => {}
            }
        }
    }

    /// Brings the tier to the newest plan.
    async fn step(&self, newest: &mut watch::Receiver<Option<u64>>) -> Result<(), Stopped> {
        let number = *newest.borrow_and_update();
        if number.is_some() && number != self.planned.number() {
            self.accept().await?;
        }
        let Some(accepted) = self.planned.lock_plan().clone() else { return Ok(()) };
        if accepted.complete {
            return Ok(());
        }
        let mut incomplete = 0;
        for (name, bytes) in &accepted.wanted {
            match self.fill_title(name, *bytes, newest).await {
                Ok(()) => {}
                Err(Stopped::NewerPlan) => return Err(Stopped::NewerPlan),
                Err(stopped) => {
                    tracing::warn!(title = %name.0, version = %name.1, %stopped, "planned title");
                    incomplete += 1;
                }
            }
        }
        if incomplete > 0 {
            return Err(Stopped::Incomplete(incomplete));
        }
        if accepted.wanted.len() == accepted.plan.titles.len() {
            self.mark_complete(accepted.plan.number);
        }
        Ok(())
    }

    fn mark_complete(&self, number: u64) {
        if let Some(plan) = self.planned.lock_plan().as_mut().filter(|p| p.plan.number == number) {
            plan.complete = true;
            tracing::info!(number, "the plan is complete");
        }
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
        let planned = Arc::clone(&self.planned);
        let work = move || {
            let text = serde_json::to_vec(&plan).map_err(std::io::Error::other)?;
            crate::disk::replace(&planned.dir.join("plan.json"), &text)?;
            planned.enforce(Accepted::new(plan, planned.bytes_max));
            Ok(())
        };
        Ok(blocking(work).await?)
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
        let (planned, opened) = (Arc::clone(&self.planned), Arc::clone(title));
        let file = blocking(move || {
            let open = planned.open_title(&opened)?;
            let (Some(file), Some(facts)) = (open.files.get(track), opened.index.tracks.get(track))
            else {
                return Err(std::io::Error::other("the index has no such track"));
            };
            if !file.is_complete() {
                file.adopt(facts)?;
            }
            Ok(Arc::clone(file))
        });
        let file = file.await?;
        while let Some(missing) = file.missing(0, RUN_BYTES_MAX / CHUNK_BYTES) {
            if newest.has_changed().unwrap_or(true) {
                return Err(Stopped::NewerPlan);
            }
            let run = Run { title: Arc::clone(title), track, chunks: missing };
            let mut chunks: Vec<(u64, Bytes)> = Vec::new();
            let keep = |number, bytes| chunks.push((number, bytes));
            let fetched = self.origin.chunks(&run, keep).await;
            // What arrived before a failure is kept.
            let stored = Arc::clone(&file);
            blocking(move || stored.store(&chunks)).await?;
            self.planned.count_present();
            fetched?;
        }
        tracing::debug!(title = %title.title, file = file.name(), "planned file complete");
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}
