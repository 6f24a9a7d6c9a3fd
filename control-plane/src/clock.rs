//! What time it is: the system's clock, or one that a test turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of the time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }))
    }

    /// A clock that stands still at what `at` holds: milliseconds since 1970 UTC.
    #[must_use]
    pub fn turned_by(at: Arc<AtomicU64>) -> Self {
        Self(Arc::new(move || at.load(Ordering::SeqCst)))
    }

    /// Milliseconds since 1970 UTC.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// The UTC day of a time: `2026-11-21`.
#[must_use]
pub(crate) fn day(at_ms: u64) -> String {
    let timestamp =
        i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let timestamp = timestamp.unwrap_or(jiff::Timestamp::MAX);
    timestamp.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

/// The day before a day, if the latter is one: `2026-11-21`, and nothing else.
#[must_use]
pub(crate) fn day_before(date: &str) -> Option<String> {
    let day: jiff::civil::Date = date.parse().ok()?;
    (day.to_string() == date).then(|| day.yesterday().ok()).flatten().map(|day| day.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_utc() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(1_795_219_199_999), "2026-11-20");
        assert_eq!(day(1_795_219_200_000), "2026-11-21");
        assert_eq!(day(u64::MAX), "9999-12-30");
    }

    #[test]
    fn the_day_before_needs_a_day() {
        assert_eq!(day_before("2026-11-21").as_deref(), Some("2026-11-20"));
        assert_eq!(day_before("2024-03-01").as_deref(), Some("2024-02-29"));
        for bad in
            ["", "yesterday", "2026-02-30", "2026-11-21T00:00:00Z", "20261121", "-9999-01-01"]
        {
            assert_eq!(day_before(bad), None, "{bad:?} was taken");
        }
    }
}
