//! Whether a bucket takes the keys that it is asked with. A change is told once, however many
//! requests it is met by.
//!
//! A bucket also says 403 of one object, or of one that is not there: with keys that it has taken
//! that says nothing of them.

use super::credentials::Keys;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why a request was refused, as far as it is about who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// `InvalidAccessKeyId`: the server knows no such key.
    Unknown,
    /// `SignatureDoesNotMatch`: the secret is another one.
    Secret,
    /// `ExpiredToken`, `TokenRefreshRequired`.
    Expired,
    /// `InvalidToken`.
    Token,
    /// `RequestTimeTooSkewed`: this machine's clock, or the server's.
    Clock,
    /// `AccessDenied`: the keys are good for something else, or for other objects.
    Denied,
    /// Any other, or an answer without a code, as to HEAD.
    Other,
}

impl Reason {
    pub(crate) const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Secret,
        Self::Expired,
        Self::Token,
        Self::Clock,
        Self::Denied,
        Self::Other,
    ];

    /// By the error's code.
    pub(crate) fn of(code: &str) -> Self {
        match code {
            "InvalidAccessKeyId" => Self::Unknown,
            "SignatureDoesNotMatch" => Self::Secret,
            "ExpiredToken" | "TokenRefreshRequired" => Self::Expired,
            "InvalidToken" => Self::Token,
            "RequestTimeTooSkewed" => Self::Clock,
            "AccessDenied" => Self::Denied,
            _ => Self::Other,
        }
    }

    /// As a label of metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown-key",
            Self::Secret => "wrong-secret",
            Self::Expired => "expired",
            Self::Token => "wrong-token",
            Self::Clock => "clock",
            Self::Denied => "denied",
            Self::Other => "other",
        }
    }

    /// Whether it says that the keys are no good, and not what for.
    fn is_certain(self) -> bool {
        !matches!(self, Self::Denied | Self::Other)
    }

    /// What is wrong, and what to look at.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Unknown => {
                "the server knows no such key: it was deleted or disabled, or is of another server \
                 or account"
            }
            Self::Secret => "the secret is not that of the key",
            Self::Expired => "the session has expired: whoever renews the keys has not",
            Self::Token => "the session token is not that of the key",
            Self::Clock => "the clocks of this machine and of the server differ",
            Self::Denied | Self::Other => {
                "the keys may not read it: look at their policy and at the bucket's (s3:GetObject; \
                 without s3:ListBucket also for what is not there)"
            }
        }
    }
}

/// Servers that heed a change of keys one after another take and refuse them in turns: the same
/// refusal is told again after this time, at the earliest.
const AGAIN: Duration = Duration::from_secs(60);

/// What the bucket last said of keys.
#[derive(Default)]
pub(super) struct Standing(Mutex<Said>);

#[derive(Default)]
struct Said {
    /// They were good for something.
    is_taken: bool,
    /// The last refusal, and whose keys it was about.
    refusal: Option<(Reason, Option<Arc<Keys>>)>,
    /// When that was told.
    told: Option<Instant>,
    /// What was told last was that.
    is_told: bool,
}

impl Standing {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that only who may ask has. Whether that is news: a refusal was told before.
    pub(super) fn taken(&self) -> bool {
        let mut said = self.lock();
        said.is_taken = true;
        std::mem::take(&mut said.is_told)
    }

    /// Whether a refusal is one of these keys, rather than of what was asked for.
    pub(super) fn is_of_keys(&self, reason: Reason) -> bool {
        reason.is_certain() || !self.lock().is_taken
    }

    /// They are refused for good. Whether that is news.
    pub(super) fn refused(&self, reason: Reason, keys: Option<&Arc<Keys>>, now: Instant) -> bool {
        let mut said = self.lock();
        said.is_taken = false;
        let is_same = said
            .refusal
            .as_ref()
            .is_some_and(|(known, of)| *known == reason && of.as_ref() == keys);
        let is_late = || said.told.is_none_or(|told| now.duration_since(told) >= AGAIN);
        let is_news = !is_same || (!said.is_told && is_late());
        if is_news {
            let refusal = Some((reason, keys.cloned()));
            *said = Said { is_taken: false, refusal, told: Some(now), is_told: true };
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: &str) -> Arc<Keys> {
        Arc::new(Keys { id: id.to_owned(), secret: "s".to_owned(), token: None })
    }

    #[test]
    fn each_change_is_news_once() {
        let (standing, now) = (Standing::default(), Instant::now());
        let refused = |reason, id| standing.refused(reason, Some(&keys(id)), now);
        assert!(!standing.taken());
        assert!(refused(Reason::Expired, "old") && !refused(Reason::Expired, "old"));
        assert!(refused(Reason::Unknown, "old") && refused(Reason::Unknown, "new"));
        assert!(!refused(Reason::Unknown, "new"));
        assert!(standing.taken() && !standing.taken());
    }

    #[test]
    fn what_comes_in_turns_is_news_at_times() {
        let (standing, now) = (Standing::default(), Instant::now());
        let refused = |after| standing.refused(Reason::Unknown, None, now + after);
        assert!(refused(Duration::ZERO) && standing.taken());
        for _ in 0..9 {
            assert!(!refused(AGAIN / 2) && !standing.taken());
        }
        assert!(refused(AGAIN) && !refused(AGAIN * 9) && standing.taken());
    }

    #[test]
    fn what_is_said_of_an_object_is_not_said_of_keys_that_were_taken() {
        let standing = Standing::default();
        assert!(standing.is_of_keys(Reason::Denied) && standing.is_of_keys(Reason::Other));
        standing.taken();
        assert!(!standing.is_of_keys(Reason::Denied) && !standing.is_of_keys(Reason::Other));
        assert!(standing.is_of_keys(Reason::Unknown));
    }
}
