//! How long what comes for nobody may take.

use model::chunk::CHUNK_BYTES;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Each MiB that is taken though everybody has left has this long to come (52 kB/s): what has come
/// of a chunk, or of what is kept whole alone, would have to come again. So an origin that drips holds
/// no place for nobody.
pub const LEFT_MAX: Duration = Duration::from_secs(20);

/// The same of what is taken only to be kept: anew in the background, or whole since its parts were
/// asked for (3.5 kB/s). Given up, it would be begun anew by the next request.
pub const KEPT_MAX: Duration = Duration::from_secs(300);

/// Since when everybody has left, or another MiB has come, and how far the answer was then.
#[derive(Default)]
pub struct Left(Option<(Instant, u64)>);

impl Left {
    /// Until when the answer, which is at byte `at`, is taken, if `each` MiB has so long.
    pub fn until(&mut self, is_left: bool, at: u64, each: Duration) -> Option<Instant> {
        let has_come = |since: u64| at.saturating_sub(since) >= CHUNK_BYTES;
        let goes_on = self.0.filter(|(_, since)| !has_come(*since));
        self.0 = is_left.then(|| goes_on.unwrap_or_else(|| (Instant::now(), at)));
        self.0.map(|(since, _)| since + each)
    }
}

/// Waits until then; where there is no such time, for ever.
pub async fn wait_until(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_mib_that_comes_for_nobody_has_so_long() {
        let mut left = Left::default();
        assert_eq!(left.until(false, 0, LEFT_MAX), None);
        let began = Instant::now();
        assert_eq!(left.until(true, 100, LEFT_MAX), Some(began + LEFT_MAX));
        tokio::time::advance(LEFT_MAX / 2).await;
        let drips = 100 + CHUNK_BYTES - 1;
        assert_eq!(left.until(true, drips, LEFT_MAX), Some(began + LEFT_MAX));
        assert_eq!(left.until(true, drips, Duration::ZERO), Some(began));
        assert_eq!(left.until(true, drips + 1, LEFT_MAX), Some(began + LEFT_MAX / 2 + LEFT_MAX));
        assert_eq!(left.until(false, drips + 1, LEFT_MAX), None);
    }
}
