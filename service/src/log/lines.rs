//! Lines on their way to standard error. A thread of its own writes them, so that who logs neither
//! waits for whoever reads the log (a pipe that nobody empties, a disk that hangs) nor fails with
//! it (a full disk, a reader that left): a server serves on without a log.
//!
//! Invariant: at most [`QUEUED_BYTES_MAX`] wait; every line that is not written is counted.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, Registry};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that may wait to be written; further lines are lost.
const QUEUED_BYTES_MAX: usize = 4 << 20;
/// How long the end of a process waits for them.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Lines that were not written, of this process.
static LOST: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// Answered once all that was said before is written.
    Flush(mpsc::SyncSender<()>),
}

/// Takes lines, and waits for nothing.
#[derive(Clone)]
pub(super) struct Lines {
    sender: Sender<Message>,
    queued: Arc<AtomicUsize>,
}

impl Lines {
    /// Lines that a thread writes to `out`.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&queued);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(out, &receiver, &written))?;
        Ok(Self { sender, queued })
    }
}

fn write_all(mut out: impl Write, messages: &Receiver<Message>, queued: &AtomicUsize) {
    for message in messages {
        match message {
            Message::Line(line) => {
                if out.write_all(&line).is_err() {
                    LOST.fetch_add(1, Ordering::Relaxed);
                }
                queued.fetch_sub(line.len(), Ordering::AcqRel);
            }
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}

impl Write for Lines {
    /// One line, whole: that is how `tracing_subscriber` writes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.queued.fetch_add(line.len(), Ordering::AcqRel);
        let has_room = before + line.len() <= QUEUED_BYTES_MAX;
        if !has_room || self.sender.send(Message::Line(line.to_vec())).is_err() {
            self.queued.fetch_sub(line.len(), Ordering::AcqRel);
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// To be held for as long as there may be lines. Its end waits until they are written, a second at
/// most.
#[must_use]
pub struct Log(pub(super) Lines);

impl Drop for Log {
    fn drop(&mut self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.0.sender.send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_MAX);
        }
    }
}

/// Counts lines that were not written as `name` among a server's metrics.
///
/// # Errors
/// The name is taken, or is none.
pub fn count_lost(registry: &Registry, name: &str) -> Result<(), prometheus::Error> {
    let lost = IntCounter::new(name, "Lines of the log that were not written")?;
    registry.register(Box::new(Lost { lost, collecting: Mutex::new(()) }))
}

struct Lost {
    lost: IntCounter,
    collecting: Mutex<()>,
}

impl Collector for Lost {
    fn desc(&self) -> Vec<&Desc> {
        self.lost.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _one = self.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        self.lost.inc_by(LOST.load(Ordering::Relaxed).saturating_sub(self.lost.get()));
        self.lost.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written once it is told to.
    struct Held(Receiver<()>, Sender<usize>);

    impl Write for Held {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(line.len());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_lost_is_counted() {
        let ((go, held), (told, written)) = (mpsc::channel(), mpsc::channel());
        let mut lines = Lines::start(Held(held, told)).unwrap();
        let before = LOST.load(Ordering::Relaxed);
        let line = vec![b'x'; QUEUED_BYTES_MAX / 4];
        for _ in 0..6 {
            lines.write_all(&line).unwrap();
        }
        assert_eq!(LOST.load(Ordering::Relaxed) - before, 2);
        drop(go);
        drop(Log(lines));
        assert_eq!(written.iter().take(4).sum::<usize>(), QUEUED_BYTES_MAX);
    }
}
