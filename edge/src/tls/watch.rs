//! Takes changed files of the certificate and the tickets' secret into use while it serves.

use super::Identity;
use crate::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::spawn_blocking;

/// How often the files are looked at. What has changed is read once it has been the same for
/// two looks: a certificate and its key are two files, and neither is written at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of some files from another; `None` for a file that is not there.
type Stamps = Vec<Option<(SystemTime, u64)>>;

/// What was seen of some files.
#[derive(Debug)]
struct Watched {
    taken: Stamps,
    last: Stamps,
}

impl Watched {
    fn new(taken: Stamps) -> Self {
        Self { last: taken.clone(), taken }
    }

    /// Whether what is there now is to be read: it is not what was read last, and it has been
    /// so since the last look.
    fn is_new(&mut self, now: Stamps) -> bool {
        let is_settled = now == self.last;
        self.last = now;
        if !is_settled || self.last == self.taken {
            return false;
        }
        self.taken = self.last.clone();
        true
    }
}

fn stamps(paths: &[&Path]) -> Stamps {
    let stamp = |path: &&Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    paths.iter().map(stamp).collect()
}

impl Identity {
    /// Looks at the files until it is dropped.
    pub async fn watch(self) {
        let own = Arc::new(self);
        // As they are now, which is as they were read: what changes in between is read again.
        let mut certificate = Watched::new(stamps(&[&own.cert, &own.key]));
        let mut secret =
            Watched::new(own.secret.as_deref().map_or_else(Vec::new, |s| stamps(&[s])));
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let looking = Arc::clone(&own);
            let looked = spawn_blocking(move || {
                looking.look(&mut certificate, &mut secret);
                (certificate, secret)
            });
            match looked.await {
                Ok(looked) => (certificate, secret) = looked,
                // It panicked, or the process ends.
                Err(_) => return,
            }
        }
    }

    fn look(&self, certificate: &mut Watched, secret: &mut Watched) {
        if certificate.is_new(stamps(&[&self.cert, &self.key])) {
            self.taken("certificate", &self.cert, self.reload_certificate());
        }
        if let Some(path) = &self.secret
            && secret.is_new(stamps(&[path]))
        {
            self.taken("ticket-secret", path, self.reload_secret(path));
        }
    }

    fn taken(&self, what: &str, path: &Path, outcome: Result<(), Error>) {
        self.metrics.reloaded(what, outcome.is_ok());
        let file = path.display();
        match outcome {
            Ok(()) => tracing::info!(what, %file, "a changed file is in use"),
            Err(error) => tracing::error!(
                what, %file, %error, "a changed file can't be used: what was in use stays so"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_read_once_and_only_when_it_has_settled() {
        let at =
            |second: u64| vec![Some((SystemTime::UNIX_EPOCH + Duration::from_secs(second), 1))];
        let mut watched = Watched::new(at(0));
        let looks =
            [(0, false), (1, false), (2, false), (2, true), (2, false), (3, false), (3, true)];
        for (place, (second, new)) in looks.into_iter().enumerate() {
            assert_eq!(watched.is_new(at(second)), new, "look {place}");
        }
        assert!(!watched.is_new(vec![None]));
        assert!(watched.is_new(vec![None]));
        assert!(!watched.is_new(at(3)));
        assert!(watched.is_new(at(3)), "it is back");
    }
}
