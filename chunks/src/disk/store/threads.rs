//! The threads of a store: where it reads and writes, and how they end.

use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that read and write at a time. More reads wait, and are bypassed when that takes
/// too long.
const IO_THREADS_MAX: usize = 16;
/// A store that is given up while it is opened has so long to read the blocks to their end that it is
/// at: far longer than a disk takes that answers.
const REST_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Reads and writes block: each disk has threads of its own, so that one that hangs stops no
/// other. Dropped, they end by themselves.
pub(super) struct Threads {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Threads {
    pub(super) fn new() -> Result<Self, String> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(IO_THREADS_MAX)
            .thread_name("edge-ssd")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// For who ends them by hand.
    pub(super) fn take(&mut self) -> Option<Runtime> {
        self.runtime.take()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Those of a store that is being opened. Given up, they end when foyer has read the blocks to their
/// end that it is at: of each that is cut short it would warn as of one that can't be read.
pub(super) struct Opening(Option<Threads>);

impl Opening {
    pub(super) fn new(threads: Threads) -> Self {
        Self(Some(threads))
    }

    pub(super) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("taken at its end alone").handle()
    }

    /// It is open.
    pub(super) fn take(mut self) -> Threads {
        self.0.take().expect("taken here alone")
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let Some(threads) = self.0.take() else { return };
        let ending = std::thread::Builder::new().name("edge-ssd-end".into()).spawn(move || {
            let (began, tasks) = (Instant::now(), threads.handle().metrics());
            while tasks.num_alive_tasks() > 0 && began.elapsed() < REST_MAX {
                std::thread::sleep(LOOK_EVERY);
            }
        });
        if let Err(error) = ending {
            tracing::error!(%error, "a disk's threads can't be waited for");
        }
    }
}
