//! One thread a core for connections, each with a Tokio runtime of its own, so that a
//! connection stays where its memory is and no other one's work moves under it.
//!
//! Invariant: a shard only moves bytes of connections. What may block or last (fetches, disks,
//! compression, databases) is spawned on the runtime that serves no connections; nothing here
//! waits for anything but a socket or a timer.

use crate::{Error, Metrics};
use futures::FutureExt;
use prometheus::{IntCounter, IntGauge};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// More shards than any machine has cores.
pub const SHARDS_MAX: usize = 1024;
/// How long the threads may take to end; one that hangs then ends with the process.
const END_MAX: Duration = Duration::from_secs(1);

thread_local! {
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is a shard's: only connections may be served here.
#[must_use]
pub fn is_shard() -> bool {
    IS_SHARD.get()
}

/// All shards. Cheap to clone; they end with their [`Threads`].
#[derive(Clone)]
pub struct Shards(Arc<Inner>);

struct Inner {
    all: Vec<Arc<Shard>>,
    turn: AtomicUsize,
}

/// One of the threads that serve connections, `shard-0` and on.
///
/// What serves a connection, or an endpoint of many, is spawned here and makes its sockets and
/// timers here: `shard.spawn(async move { ... })`. A socket that was made elsewhere is handed
/// over as one of `std` and registered anew within that task.
pub struct Shard {
    number: usize,
    handle: Handle,
    open: AtomicUsize,
    gauge: IntGauge,
    panics: IntCounter,
}

/// A connection's seat on a shard: counted until it is dropped.
pub struct Seat(Arc<Shard>);

/// The shards' threads, which end when this is dropped, whatever runs on them.
pub struct Threads {
    stop: CancellationToken,
    ended: mpsc::Receiver<()>,
    count: usize,
}

impl Shards {
    /// Starts this many threads, at most [`SHARDS_MAX`].
    ///
    /// # Errors
    /// [`Error::Shard`] when the system refuses a thread or a reactor.
    pub fn start(count: NonZeroUsize, metrics: &Metrics) -> Result<(Self, Threads), Error> {
        let count = count.get().min(SHARDS_MAX);
        let (end, ended) = mpsc::channel();
        // Made at once: what has started ends if a later one can't start.
        let threads = Threads { stop: CancellationToken::new(), ended, count };
        let start = |number: usize| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (stop, end) = (threads.stop.clone(), end.clone());
            std::thread::Builder::new()
                .name(format!("shard-{number}"))
                .spawn(move || run(runtime, &stop, &end))?;
            let gauge = metrics.shard_open.with_label_values(&[&number.to_string()]);
            let panics = metrics.panics.clone();
            Ok(Arc::new(Shard { number, handle, open: AtomicUsize::new(0), gauge, panics }))
        };
        let all = (0..count).map(start).collect::<Result<_, _>>().map_err(Error::Shard)?;
        Ok((Self(Arc::new(Inner { all, turn: AtomicUsize::new(0) })), threads))
    }

    /// All of them, by number.
    #[must_use]
    pub fn all(&self) -> &[Arc<Shard>] {
        &self.0.all
    }

    /// A seat on the shard with the fewest open connections; equals take turns.
    #[must_use]
    pub fn seat(&self) -> Seat {
        let all = &self.0.all;
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed) % all.len();
        let (before, after) = all.split_at(turn);
        let least = after.iter().chain(before).min_by_key(|shard| shard.open());
        least.unwrap_or(&all[turn]).seat()
    }
}

fn run(runtime: Runtime, stop: &CancellationToken, end: &mpsc::Sender<()>) {
    IS_SHARD.set(true);
    runtime.block_on(stop.cancelled());
    drop(runtime);
    // Nobody waits any more if `Threads` is gone.
    let _ = end.send(());
}

impl Shard {
    /// Its place among the others, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Connections that have a seat here.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A seat here, whatever the others have.
    #[must_use]
    pub fn seat(self: &Arc<Self>) -> Seat {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        Seat(Arc::clone(self))
    }

    /// Its runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a task here. If it panics, that is counted, and nothing else ends.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.handle.spawn(guarded(task, self.panics.clone()))
    }
}

impl Seat {
    /// The shard.
    #[must_use]
    pub fn shard(&self) -> &Arc<Shard> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}

/// A task whose panic is counted.
pub(crate) async fn guarded<F: Future>(task: F, panics: IntCounter) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        panics.inc();
        tracing::error!("a connection's task panicked");
    }
}

/// Runs what hyper spawns for a connection's streams where the connection runs, and counts
/// panics.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    pub(crate) panics: IntCounter,
    /// Begins a task at once, in the connection's turn: most end there, and need none of their
    /// own. What they write must wait for the turn's end, or it would leave bit by bit.
    pub(crate) at_once: bool,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let mut task = Box::pin(guarded(task, self.panics.clone()));
        // Who is not done is polled again by its own task: that is who must be woken.
        let mut nobody = Context::from_waker(Waker::noop());
        if !self.at_once || task.as_mut().poll(&mut nobody).is_pending() {
            tokio::spawn(task);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
        let by = Instant::now() + END_MAX;
        for _ in 0..self.count {
            if self.ended.recv_timeout(by.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(count: usize) -> (Shards, Threads, Metrics) {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let (shards, threads) = Shards::start(NonZeroUsize::new(count).unwrap(), &metrics).unwrap();
        (shards, threads, metrics)
    }

    #[test]
    fn the_least_loaded_is_taken_and_equals_take_turns() {
        let (shards, _threads, metrics) = start(3);
        let mut seats: Vec<_> = (0..6).map(|_| shards.seat()).collect();
        assert!(shards.all().iter().all(|shard| shard.open() == 2));
        let freed = seats.swap_remove(4).shard().number();
        assert_eq!(shards.seat().shard().number(), freed);
        let on_freed = metrics.shard_open.with_label_values(&[&freed.to_string()]);
        assert_eq!(on_freed.get(), 1);
    }

    #[tokio::test]
    async fn tasks_run_on_named_threads_and_a_panic_ends_nothing_else() {
        let (shards, threads, metrics) = start(2);
        let named = |shard: &Arc<Shard>| {
            let (told, name) = tokio::sync::oneshot::channel();
            shard.spawn(async move {
                let name = std::thread::current().name().map(str::to_owned);
                told.send((name, is_shard())).unwrap();
            });
            name
        };
        shards.all()[1].spawn(async { panic!("for the test") }).await.unwrap();
        assert_eq!(metrics.panics.get(), 1);
        let name = named(&shards.all()[1]).await.unwrap();
        assert_eq!(name, (Some("shard-1".to_owned()), true));
        assert!(!is_shard());
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        shards.all()[0].spawn(async move {
            let _holds = holds;
            std::future::pending::<()>().await;
        });
        tokio::task::spawn_blocking(move || drop(threads)).await.unwrap();
        assert_eq!(Arc::strong_count(&held), 1, "what ran there is gone");
    }
}
