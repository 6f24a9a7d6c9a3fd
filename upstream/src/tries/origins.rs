//! Which origin next: in what order, what of it is free, and what the retry budget pays.

use super::{Choice, Tries};
use crate::ask::Answer;
use crate::exchange::Failure;
use crate::fault::{ErrorType, Fault};
use crate::hop::{Target, Way};
use crate::order::{Known, Standing, order};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// An origin is slow that takes this many times as long as the quickest of its priority, and
/// this much longer.
const SLOW_TIMES: u32 = 4;
const SLOW_MORE: Duration = Duration::from_millis(100);

impl Tries<'_> {
    /// The first origin is free, as is another when nothing was sent, or when the one that was
    /// asked fell ill meanwhile: no origin is sent more than it would be had that been known. Nor is
    /// another one that is sound: that is one of `retries`, and the budget, which is for those that fail,
    /// need not pay it. The budget pays the rest.
    pub(super) fn next_origin(&mut self) -> Option<Choice> {
        let asked = self.site.origins.iter().any(|origin| !self.is_untried(&origin.way.hop))
            || self.is_failed_above;
        let is_free = |failure: &Failure| failure.unsent || failure.down;
        let is_free = matches!(&self.last, Some(Err(failure)) if is_free(failure));
        if matches!(&self.last, Some(Err(failure)) if failure.down) {
            // What the order was made by has changed.
            self.origins = None;
        }
        let (way, again) = match self.untried() {
            Some(way) => (way, false),
            None if self.same_may_do() => (self.same()?, true),
            None => return None,
        };
        if asked && (again || !is_free) {
            if self.paid_left == 0 || !((!again && self.is_sound(&way)) || self.site.pay()) {
                return None;
            }
            self.paid_left -= 1;
        }
        if asked {
            way.meter.retries.inc();
        }
        self.tried.push(way.hop.id.clone());
        Some(Choice { way, again })
    }

    /// Whether an origin answers well, and has places to spare: its own share goes first. What failed
    /// above was asked for by other nodes, too: all of them would find it sound. And no budget is no
    /// further try.
    fn is_sound(&self, way: &Way) -> bool {
        !self.is_failed_above
            && self.site.config.budget_percent > 0
            && way.hop.standing() == Standing::Good
            && way.hop.is_at_ease()
            && way.hop.known().is_sound(Instant::now())
    }

    /// S3 wants requests that it was too busy for, or failed at, to be sent again.
    pub(super) fn says_to_ask_again(&self, answer: &Answer) -> bool {
        let from = self.site.origins.iter().find(|origin| origin.way.hop.id == answer.hop);
        let bucket = from.is_some_and(|from| matches!(from.way.hop.place, Target::S3(_)));
        bucket && matches!(answer.head.status.as_u16(), 500 | 503)
    }

    /// The connection broke: another one may do.
    fn same_may_do(&self) -> bool {
        match &self.last {
            Some(Ok(answer)) => self.says_to_ask_again(answer),
            Some(Err(Failure { fault: Fault::Unavailable { error, .. }, .. })) => {
                *error != ErrorType::DestinationUnavailable
                    && *error != ErrorType::ProxyConfigurationError
            }
            _ => false,
        }
    }

    fn same(&mut self) -> Option<Arc<Way>> {
        let places = self.ordered();
        let ways = places.into_iter().map(|place| &self.site.origins[place].way);
        ways.filter(|way| way.hop.would_admit()).map(Arc::clone).next()
    }

    pub(super) fn untried(&mut self) -> Option<Arc<Way>> {
        let places = self.ordered();
        let mut ways = places.into_iter().map(|place| &self.site.origins[place].way);
        ways.find(|way| self.is_untried(&way.hop) && way.hop.would_admit()).cloned()
    }

    fn ordered(&mut self) -> Vec<usize> {
        if let Some(places) = &self.origins {
            return places.clone();
        }
        let origins = &self.site.origins;
        let halves: Vec<Option<Duration>> = match origins.len() {
            1 => vec![None],
            _ => origins.iter().map(|origin| origin.way.hop.quantile(0.5)).collect(),
        };
        let slow = |n: usize| {
            let same = |m: &usize| origins[*m].priority == origins[n].priority;
            let quickest = (0..origins.len()).filter(same).filter_map(|m| halves[m]).min();
            let pair = halves[n].zip(quickest);
            pair.is_some_and(|(half, best)| half > best * SLOW_TIMES && half > best + SLOW_MORE)
        };
        let known = origins.iter().enumerate().map(|(n, origin)| Known {
            priority: origin.priority,
            weight: origin.weight,
            id: origin.id,
            standing: origin.way.hop.standing(),
            slow: slow(n),
            avoid: self.avoid.as_ref() == Some(&origin.way.hop.id),
        });
        let (known, object) = (known.collect::<Vec<_>>(), xxh3_64(&self.run.key));
        let mut places = order(&known, object);
        let quick: Vec<_> = known.iter().map(|known| Known { slow: false, ..*known }).collect();
        let regardless = order(&quick, object);
        // Nothing else would show that one is quick again.
        if regardless.first().is_some_and(|n| known[*n].slow && origins[*n].way.hop.look_again()) {
            places = regardless;
        }
        self.origins.insert(places).clone()
    }
}
