//! The window through which an answer passes that is too large to be kept, and who holds it up.

use super::{Fault, Growing, Held, Kept, UNVALIDATED_BYTES_MAX};
use model::chunk::CHUNK_BYTES;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The window, once an answer has its part of the memory for such answers.
const WINDOW_BYTES_MIN: u64 = 4 << 20;
/// The window, once all answers together have all of it.
const WINDOW_BYTES_LEAST: u64 = CHUNK_BYTES;
/// A window that does not move for this long is given up.
const STUCK_MAX: Duration = Duration::from_secs(60);
/// Those who keep up wait so long for a slower reader, and for half of the time besides: who reads
/// at half their pace is waited for always.
const WAITED_MAX: Duration = Duration::from_secs(1);
/// However long nobody kept them waiting, they wait no longer than this at a time: who sends the
/// answer waits as long, and gives up in the end.
const WAITED_AT_A_TIME_MAX: Duration = Duration::from_secs(4);

/// How long those who keep up have waited for others.
#[derive(Default)]
pub(super) struct Pace {
    /// When the window began to be one.
    began: Option<Instant>,
    waited: Duration,
}

impl Pace {
    /// How much longer they wait.
    fn left(&mut self) -> Duration {
        let began = *self.began.get_or_insert_with(Instant::now);
        let allowed = WAITED_MAX + began.elapsed() / 2;
        self.waited = self.waited.max(allowed.saturating_sub(WAITED_AT_A_TIME_MAX));
        allowed.saturating_sub(self.waited)
    }
}

impl Held {
    /// This reader, if it was not left behind, reads for nobody.
    pub(super) fn keeps(&mut self, name: u64) {
        if self.readers.contains_key(&name) {
            self.keepers.insert(name);
        }
    }

    /// It is not kept: who reads only so that it is, need not.
    fn dismiss_keepers(&mut self) {
        for name in self.keepers.drain() {
            self.readers.remove(&name);
        }
    }
}

impl Growing {
    /// Waits until the slowest reader is near enough, and lets go of what all have read. Who keeps
    /// others waiting is left behind: alone it can't be given the rest, which may be of another
    /// version by now.
    pub(super) async fn slide(
        &self,
        kept: &mut Kept<'_>,
        pace: &mut Pace,
        filled: u64,
    ) -> Result<(), Fault> {
        let window = match kept.has_its_part() {
            true if kept.is_all_taken() => WINDOW_BYTES_LEAST,
            true => WINDOW_BYTES_MIN,
            false => UNVALIDATED_BYTES_MAX,
        };
        let mut left = pace.left();
        // Readers know of no more.
        let told = self.progress.borrow().filled;
        loop {
            let keeps_up = {
                let mut held = self.lock();
                held.dismiss_keepers();
                let Some(slowest) = held.readers.values().min().copied() else {
                    held.over = true;
                    return Err(Fault::Lost);
                };
                while (held.first + 1) * CHUNK_BYTES <= slowest && !held.chunks.is_empty() {
                    held.chunks.pop_front();
                    held.first += 1;
                    kept.shrank();
                }
                if filled < slowest + window {
                    return Ok(());
                }
                // Who came now would be as far behind as the slowest, without having had its time.
                held.is_full = true;
                held.readers.values().any(|at| *at >= told)
            };
            let began = Instant::now();
            let most = if keeps_up { left } else { STUCK_MAX };
            let moved = timeout(most, self.moved.notified()).await;
            if keeps_up {
                pace.waited += began.elapsed();
                left = pace.left();
            }
            match moved {
                Ok(()) => {}
                Err(_) if keeps_up => self.leave_behind(filled - window),
                // A reader that has not moved for so long will not: its connection is stuck.
                Err(_) => {
                    self.lock().over = true;
                    return Err(Fault::Lost);
                }
            }
        }
    }

    /// Goes on without those who have not got past byte `at`.
    fn leave_behind(&self, at: u64) {
        let mut held = self.lock();
        let before = held.readers.len();
        let Held { readers, keepers, .. } = &mut *held;
        readers.retain(|_, reader| *reader > at);
        keepers.retain(|name| readers.contains_key(name));
        let left = before - held.readers.len();
        drop(held);
        self.engine.metrics.left_behind.inc_by(left as u64);
    }
}
