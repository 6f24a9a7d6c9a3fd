//! How nodes tell each other of a purge that has not come to all of them. Pure.
//!
//! A request says how many milliseconds ago the last purge of what it asks for was taken
//! (`Nearcast-Newer-Than`), and the last hard one (`Nearcast-Purged`). Who answers from nothing that
//! was asked of the origin before the former, with no byte from before the latter, says so by the
//! same values; and beside whatever it gives to a node, how long ago it had the bytes of the origin
//! (`Nearcast-Fetched`). Ages, not times of day: the clocks of two nodes need not agree. All round to
//! the safe side, so what counts as newer is.

use crate::ask::HopKind;
use http::{HeaderMap, HeaderName, HeaderValue};

const NEWER_THAN: HeaderName = HeaderName::from_static("nearcast-newer-than");
const PURGED: HeaderName = HeaderName::from_static("nearcast-purged");
const FETCHED: HeaderName = HeaderName::from_static("nearcast-fetched");

/// When something was purged, in milliseconds since 1970 UTC by this node's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purges {
    /// Last, softly or hard: what the origin was asked about since will do.
    pub last_ms: Option<i64>,
    /// Last by a hard one: only bytes that it was asked for since will do.
    pub hard_ms: Option<i64>,
    /// The same, as a sibling told. Siblings are not told again: they would tell each other to and
    /// fro, of a later time by the way each time.
    pub beside_ms: Option<i64>,
}

impl Purges {
    /// The later ones of both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            last_ms: self.last_ms.max(other.last_ms),
            hard_ms: self.hard_ms.max(other.hard_ms),
            beside_ms: self.beside_ms.max(other.beside_ms),
        }
    }

    /// The last hard one, whoever told of it.
    #[must_use]
    pub fn any_hard_ms(&self) -> Option<i64> {
        self.hard_ms.max(self.beside_ms)
    }

    /// What of them such a hop is told.
    pub(crate) fn for_hop(self, hop: HopKind) -> Self {
        match hop {
            HopKind::Origin => Self::default(),
            HopKind::Sibling => Self { beside_ms: None, ..self },
            HopKind::Parent => Self { hard_ms: self.any_hard_ms(), beside_ms: None, ..self },
        }
    }
}

/// What another node asks for: nothing of the origin's from before these.
#[derive(Debug, Clone)]
pub struct NewerThan {
    /// The purges that it knows of.
    pub purges: Purges,
    said: Told,
}

impl NewerThan {
    /// What a request says. No number, or several: nothing.
    #[must_use]
    pub fn of(fields: &HeaderMap, now_ms: i64) -> Option<Self> {
        let one = |name| {
            let (said, ago_ms) = ago(fields, name)?;
            Some((said.clone(), now_ms.saturating_sub(ago_ms)))
        };
        let (newer_than, purged) = (one(&NEWER_THAN), one(&PURGED));
        if newer_than.is_none() && purged.is_none() {
            return None;
        }
        let (newer_than, last_ms) = newer_than.unzip();
        let (purged, hard_ms) = purged.unzip();
        let purges = Purges { last_ms, hard_ms, beside_ms: None };
        Some(Self { purges, said: Told { newer_than, purged } })
    }

    /// Says what of it is so of an answer that the origin was asked about at `asked_ms`, and for the
    /// bytes of which at `fetched_ms`.
    pub fn confirm(&self, fields: &mut HeaderMap, asked_ms: i64, fetched_ms: i64) {
        let Told { newer_than, purged } = &self.said;
        if let Some(said) = newer_than.as_ref().filter(|_| Some(asked_ms) > self.purges.last_ms) {
            fields.insert(NEWER_THAN, said.clone());
        }
        if let Some(said) = purged.as_ref().filter(|_| Some(fetched_ms) > self.purges.hard_ms) {
            fields.insert(PURGED, said.clone());
        }
    }
}

/// What a request told another node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    newer_than: Option<HeaderValue>,
    purged: Option<HeaderValue>,
}

/// Says in a request when what is asked for was purged.
pub(crate) fn tell(fields: &mut HeaderMap, purges: Purges, now_ms: i64) -> Told {
    let mut say = |name, unix_ms: Option<i64>| {
        // A millisecond less: of both times a part of one is cut off.
        let ago_ms = now_ms.saturating_sub(unix_ms?).saturating_sub(1).max(0);
        let said = HeaderValue::from(ago_ms);
        fields.insert(name, said.clone());
        Some(said)
    };
    Told { newer_than: say(NEWER_THAN, purges.last_ms), purged: say(PURGED, purges.hard_ms) }
}

/// Tells another node when the origin was asked for the bytes of an answer; `i64::MIN`: that nobody
/// knows.
pub fn tell_fetched(fields: &mut HeaderMap, fetched_ms: i64, now_ms: i64) {
    let ago = match fetched_ms {
        i64::MIN => HeaderValue::from_static("unknown"),
        // A millisecond more, for the same reason.
        _ => HeaderValue::from(now_ms.saturating_sub(fetched_ms).saturating_add(1).max(0)),
    };
    fields.insert(FETCHED, ago);
}

/// When the origin was asked at the earliest, in milliseconds since 1970 UTC by this node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// About the answer.
    pub(crate) asked_ms: i64,
    /// For its bytes; `i64::MIN` where another node has kept them that does not say.
    pub(crate) fetched_ms: i64,
    /// Another node has kept them, and says no more of that than it does to clients.
    pub(crate) is_as_to_clients: bool,
}

/// What an answer says of that to a request of `sent_ms`, which told of these `purges`. Takes it out:
/// it is for this node.
pub(crate) fn times(
    fields: &mut HeaderMap,
    hop: HopKind,
    (purges, told): (Purges, &Told),
    sent_ms: i64,
) -> Times {
    let fetched = ago(fields, &FETCHED).map(|(_, ago_ms)| sent_ms.saturating_sub(ago_ms));
    let mut confirms = |name: HeaderName, said: &Option<HeaderValue>| {
        let confirmed = fields.remove(name);
        confirmed.is_some() && confirmed == *said
    };
    let is_newer = confirms(NEWER_THAN, &told.newer_than);
    let is_fetched = confirms(PURGED, &told.purged);
    let is_silent = fields.remove(FETCHED).is_none();
    if hop == HopKind::Origin {
        return Times { asked_ms: sent_ms, fetched_ms: sent_ms, is_as_to_clients: false };
    }
    let after = |purged_ms: Option<i64>, is_so| purged_ms.filter(|_| is_so).map(|ms| ms + 1);
    // Without an age no node has kept it.
    let kept = fields.contains_key(http::header::AGE);
    let fetched_ms = fetched.unwrap_or(if kept { i64::MIN } else { sent_ms });
    let asked_ms = caching::asked_ms(fields, sent_ms);
    Times {
        asked_ms: after(purges.last_ms, is_newer).map_or(asked_ms, |after| asked_ms.max(after)),
        fetched_ms: after(purges.hard_ms, is_fetched)
            .map_or(fetched_ms, |after| fetched_ms.max(after)),
        is_as_to_clients: is_silent && kept,
    }
}

/// Takes what a request says of purges out of what is sent on.
pub fn forget(fields: &mut HeaderMap) {
    fields.remove(NEWER_THAN);
    fields.remove(PURGED);
}

/// The one value of a field, and how many milliseconds it says.
fn ago<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<(&'a HeaderValue, i64)> {
    let mut values = fields.get_all(name).iter();
    let said = values.next().filter(|_| values.next().is_none())?;
    let ago_ms: u64 = said.to_str().ok()?.parse().ok()?;
    Some((said, i64::try_from(ago_ms).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purges(last_ms: i64, hard_ms: Option<i64>) -> Purges {
        Purges { last_ms: Some(last_ms), hard_ms, beside_ms: None }
    }

    #[test]
    fn who_answers_by_another_clock_keeps_to_the_safe_side() {
        let mut request = HeaderMap::new();
        let known = purges(5_000, Some(4_000));
        let told = tell(&mut request, known, 5_100);
        let asked = NewerThan::of(&request, 900_000).unwrap();
        assert_eq!(asked.purges, purges(900_000 - 99, Some(900_000 - 1_099)));

        // Age 0, so asked about a second ago at most; the bytes are from two seconds before.
        let mut kept = HeaderMap::new();
        kept.insert("age", HeaderValue::from(0));
        tell_fetched(&mut kept, 900_003 - 2_000, 900_003);
        let of = |mut answer: HeaderMap, told: &Told| {
            let is_told = answer.contains_key(FETCHED) || answer.is_empty();
            let times = times(&mut answer, HopKind::Parent, (known, told), 5_100);
            assert!(answer.keys().all(|name| name == "age"), "{answer:?}");
            assert_eq!(times.is_as_to_clients, !is_told);
            (times.asked_ms, times.fetched_ms)
        };
        assert_eq!(of(kept.clone(), &told), (5_100 - 999, 5_100 - 2_001));
        let mut newer = kept.clone();
        asked.confirm(&mut newer, 900_000, 900_000 - 1_099);
        assert_eq!(of(newer.clone(), &told), (5_001, 3_099), "asked about it, with the old bytes");
        asked.confirm(&mut newer, 900_000, 900_000);
        assert_eq!(of(newer.clone(), &told), (5_001, 4_001));
        let other = tell(&mut HeaderMap::new(), purges(5_001, Some(4_001)), 5_100);
        assert_eq!(of(newer.clone(), &other), (4_101, 3_099), "of another request");
        assert_eq!(of(newer, &Told::default()), (4_101, 3_099), "nobody asked");

        tell_fetched(&mut kept, i64::MIN, 900_003);
        assert_eq!(of(kept.clone(), &told).1, i64::MIN, "whoever has kept it does not know");
        kept.remove(FETCHED);
        assert_eq!(of(kept, &told).1, i64::MIN, "whoever has kept it does not say");
        assert_eq!(of(HeaderMap::new(), &told), (5_100, 5_100), "nobody has kept it");
        // A clock that was set back since.
        tell(&mut request, known, 3_000);
        assert_eq!(NewerThan::of(&request, 900_000).unwrap().purges.last_ms, Some(900_000));
    }

    #[test]
    fn what_a_sibling_told_of_is_told_to_those_above_alone() {
        let known = Purges { beside_ms: Some(6_000), ..purges(5_000, Some(4_000)) };
        assert_eq!(known.any_hard_ms(), Some(6_000));
        assert_eq!(known.for_hop(HopKind::Sibling), purges(5_000, Some(4_000)));
        assert_eq!(known.for_hop(HopKind::Parent), purges(5_000, Some(6_000)));
        assert_eq!(known.for_hop(HopKind::Origin), Purges::default());
    }

    #[test]
    fn an_origin_has_no_say() {
        let mut answer = HeaderMap::new();
        let told = tell(&mut HeaderMap::new(), purges(5_000, None), 5_100);
        tell_fetched(&mut answer, 0, 1_000);
        answer.insert("age", HeaderValue::from(7));
        let times = times(&mut answer, HopKind::Origin, (Purges::default(), &told), 5_100);
        assert_eq!((times.asked_ms, times.fetched_ms, answer.len()), (5_100, 5_100, 1));
    }

    #[test]
    fn what_is_no_number_says_nothing() {
        for value in ["", "-1", "1.5", "a", "99999999999999999999", "1, 2"] {
            let mut fields = HeaderMap::new();
            fields.insert(NEWER_THAN, HeaderValue::from_static(value));
            fields.insert(PURGED, HeaderValue::from_static(value));
            assert!(NewerThan::of(&fields, 0).is_none(), "{value:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(NEWER_THAN, HeaderValue::from(1));
        twice.append(NEWER_THAN, HeaderValue::from(2));
        assert!(NewerThan::of(&twice, 0).is_none());
    }
}
