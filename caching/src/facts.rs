//! What a stored response's fields say about its reuse, read once for many requests.

use crate::age::{Age, reused};
use crate::reuse::decide;
use crate::{Freshness, Reuse, Settings, Source, Stored, control, freshness, strong_validator};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What follows from a stored response and the rules of its site alone. Each answer is that of
/// the function of the same name, if there is one, which reads the fields anew.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    freshness: Freshness,
    age: Age,
    /// What `no-cache="..."` names.
    listed: Box<[HeaderName]>,
    has_strong_validator: bool,
}

impl Facts {
    /// Reads them.
    #[must_use]
    pub fn of(stored: &Stored, settings: &Settings) -> Self {
        Self {
            freshness: freshness(stored, settings),
            age: Age::of(stored),
            listed: control::listed_fields(&stored.fields).into(),
            has_strong_validator: strong_validator(stored).is_some(),
        }
    }

    /// [`crate::reuse`].
    #[must_use]
    pub fn reuse(
        &self,
        request: &HeaderMap,
        now_ms: i64,
        settings: &Settings,
        soft_purged_ms: Option<i64>,
    ) -> Reuse {
        let purged_for_ms = soft_purged_ms.map(|at_ms| now_ms.saturating_sub(at_ms));
        decide(request, &self.freshness, self.age.ms(now_ms), settings, purged_for_ms)
    }

    /// That of [`crate::freshness`].
    #[must_use]
    pub fn source(&self) -> Source {
        self.freshness.source
    }

    /// [`crate::fresh_for_ms`].
    #[must_use]
    pub fn fresh_for_ms(&self, now_ms: i64) -> i64 {
        self.freshness.usable_ms(self.age.ms(now_ms))
    }

    /// [`Self::reuse`] is [`Reuse::Fresh`] for a request that says nothing on caches, where no
    /// purge does.
    #[must_use]
    pub fn is_fresh(&self, now_ms: i64) -> bool {
        self.fresh_for_ms(now_ms) > 0
    }

    /// How long, in milliseconds, its age and how long it is fresh stay the same in whole seconds.
    #[must_use]
    pub fn stays_ms(&self, now_ms: i64) -> i64 {
        let left_ms = self.fresh_for_ms(now_ms).rem_euclid(1000) + 1;
        self.age.stays_ms(now_ms).min(left_ms)
    }

    /// The `Age` field of a response served from the store, in whole seconds.
    #[must_use]
    pub fn age_field(&self, now_ms: i64) -> HeaderValue {
        self.age.field(now_ms)
    }

    /// The fields of a response served from the store, this one: the stored ones less those that
    /// `no-cache="..."` lists, with the current [`Self::age_field`].
    #[must_use]
    pub fn reused_fields(&self, stored: &Stored, now_ms: i64) -> HeaderMap {
        reused(&stored.fields, &self.listed, self.age_field(now_ms))
    }

    /// Whether [`crate::strong_validator`] finds one.
    #[must_use]
    pub fn has_strong_validator(&self) -> bool {
        self.has_strong_validator
    }
}
