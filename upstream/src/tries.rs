//! Which hop next, for one ask: sibling owner, regional owner, shield, origins in order; and what
//! the answer of each says of the next.

mod origins;

use crate::ask::{Answer, HopId, HopKind, Unsure};
use crate::body::OwnLoad;
use crate::exchange::Failure;
use crate::fault::{ErrorType, Fault};
use crate::hop::{Hop, Target, Way};
use crate::rendezvous::{Member, Run, choose};
use crate::said::{self, Said};
use crate::settings::Hedge;
use crate::staying::{self, Base};
use crate::upstream::Inner;
use http::{Method, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Peers of one level that are asked for one answer: the owner, and its stand-in.
const PEER_TRIES_MAX: u32 = 2;

/// What ends a blocking playlist reload by 503 no sooner than this has held it: for three target
/// durations, of which none is shorter than a second.
const HELD_MIN: Duration = Duration::from_secs(1);

/// Where in the hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Sibling,
    Parent,
    Shield,
    Origin,
}

/// What was tried for an ask, and what may still be.
pub(crate) struct Tries<'a> {
    site: &'a Inner,
    run: Run,
    passed: Vec<String>,
    avoid: Option<HopId>,
    /// Its first try is a further one of an earlier ask.
    is_repeat: bool,
    /// Sending it twice is the same as once (RFC 9110, 9.2.2), and its body is not gone.
    repeatable: bool,
    hedgeable: bool,
    /// Doing it twice changes nothing (RFC 9110, 9.2.1).
    movable: bool,
    level: Level,
    tries_at_level: u32,
    tried: Vec<HopId>,
    origins: Option<Vec<usize>>,
    paid_left: u32,
    /// Another node has asked its origin in vain: ours is asked once more at most, for a price.
    is_failed_above: bool,
    /// Another node has had the last word.
    is_over: bool,
    by_peer: bool,
    is_reload: bool,
    last: Option<Result<Answer, Failure>>,
    own: Option<OwnLoad>,
    unsure: Unsure,
}

/// A hop to ask.
pub(crate) struct Choice {
    pub(crate) way: Arc<Way>,
    /// It was asked before: not at once again.
    pub(crate) again: bool,
}

/// What an ask says about its tries.
pub(crate) struct Wish {
    pub(crate) run: Run,
    pub(crate) passed: Vec<String>,
    pub(crate) avoid: Option<HopId>,
    pub(crate) is_repeat: bool,
    pub(crate) retried: u32,
    pub(crate) at_the_origin: bool,
    pub(crate) by_peer: bool,
    pub(crate) method: Method,
    pub(crate) has_body: bool,
    /// A blocking playlist reload.
    pub(crate) is_reload: bool,
    pub(crate) unsure: Unsure,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(site: &'a Inner, wish: Wish) -> Self {
        Self {
            site,
            run: wish.run,
            passed: wish.passed,
            avoid: wish.avoid,
            is_repeat: wish.is_repeat,
            repeatable: wish.method.is_idempotent() && !wish.has_body,
            hedgeable: wish.method == Method::GET && !wish.has_body,
            movable: wish.method.is_safe() && !wish.has_body,
            level: if wish.at_the_origin { Level::Origin } else { Level::Sibling },
            tries_at_level: 0,
            tried: Vec::new(),
            origins: None,
            paid_left: site.config.retries.saturating_sub(wish.retried),
            is_failed_above: false,
            is_over: false,
            by_peer: wish.by_peer,
            is_reload: wish.is_reload,
            last: None,
            own: None,
            unsure: wish.unsure,
        }
    }

    /// The next hop, or `None` when [`Self::end`] is to be given.
    pub(crate) fn next(&mut self) -> Option<Choice> {
        if self.last.is_some() && !self.may_go_on() {
            return None;
        }
        let choice = match self.next_peer() {
            Some(way) => Choice { way, again: false },
            None => self.next_origin()?,
        };
        if std::mem::take(&mut self.is_repeat) {
            choice.way.meter.retries.inc();
        }
        Some(choice)
    }

    /// A second hop for an answer that takes long; the budget pays.
    pub(crate) fn hedge(&mut self, first: &Way) -> Option<Choice> {
        let from_peer = first.hop.kind != HopKind::Origin;
        if from_peer {
            self.up();
        }
        let other = if from_peer { self.next_peer() } else { None };
        let other = other.or_else(|| self.untried());
        let twice = self.site.config.hedge == Hedge::Always && !from_peer;
        let same = twice.then(|| self.site.origins.iter().map(|origin| &origin.way));
        let same = same.and_then(|mut ways| ways.find(|way| way.hop.id == first.hop.id));
        let way = other.or_else(|| same.cloned()).filter(|_| self.site.pay())?;
        self.tried.push(way.hop.id.clone());
        Some(Choice { way, again: false })
    }

    /// Where the ask may go on when the health check of the hop that is asked now calls that ill.
    pub(crate) fn elsewhere(&self) -> Vec<Arc<Way>> {
        if !self.movable || self.site.config.health_check.is_none() {
            return Vec::new();
        }
        let ways = self.site.origins.iter().map(|origin| &origin.way);
        ways.filter(|way| self.is_untried(&way.hop)).cloned().collect()
    }

    pub(crate) fn is_hedgeable(&self) -> bool {
        self.hedgeable && self.site.config.hedge != Hedge::Never
    }

    /// What came of asking a hop: an answer that is to be given, or none if another hop may know
    /// better, and what came is kept should nothing better come. `has_body`: what there is of the
    /// request's body is here.
    pub(crate) fn settle(
        &mut self,
        outcome: Result<Answer, Failure>,
        has_body: bool,
    ) -> Option<Answer> {
        match outcome {
            Ok(answer) if answer.kind == HopKind::Origin => {
                if self.is_final(&answer) {
                    return Some(answer);
                }
                self.tell(&answer, &format_args!("it answered {}", answer.head.status.as_u16()));
                self.note(Ok(answer));
            }
            Ok(answer) => return self.settle_peers(answer, has_body),
            Err(failure) => self.note(Err(failure)),
        }
        None
    }

    /// A node that can't answer is gone around, as one that is down. What it says of its origin is
    /// said of ours: that stays alone where it is left alone there, or has enough to do. Where it
    /// was asked there in vain, the node that a client asked asks once more, since it may be the way
    /// there that failed; those between don't, or each level would multiply what the origin is sent.
    /// Nor does anybody where it has the request, and does not answer.
    fn settle_peers(&mut self, answer: Answer, has_body: bool) -> Option<Answer> {
        let Some(said) = said::of(&answer) else { return Some(answer) };
        let failure = match said {
            Said::Own if self.repeatable => {
                self.note(Ok(answer));
                return None;
            }
            Said::Circle(fault) if self.repeatable => {
                self.tell(&answer, &fault);
                // What others say tells a client more than that.
                if self.last.is_none() {
                    self.last = Some(Err(Failure::undone(fault)));
                }
                return None;
            }
            Said::Own | Said::Circle(_) => return Some(answer),
            Said::Unknown(_) if !has_body => return Some(answer),
            Said::Unknown(fault) => Failure::unsent(fault),
            Said::Spared(fault) => {
                self.is_over = true;
                Failure::sent(fault)
            }
            Said::Failed(fault) => {
                self.is_over = self.by_peer || fault.is_no_answer();
                self.is_failed_above = true;
                self.paid_left = self.paid_left.min(1);
                self.level = Level::Origin;
                Failure::sent(fault)
            }
        };
        self.tell(&answer, &failure.fault);
        if !failure.undone {
            self.unsure.note();
        }
        self.last = Some(Err(failure));
        None
    }

    /// Says of who answered what that was.
    fn tell(&self, answer: &Answer, why: &impl fmt::Display) {
        if let Some(way) = self.site.ways().find(|way| way.hop.id == answer.hop) {
            way.tell(why);
        }
    }

    /// Whether an origin's answer is to be given, or another origin may know better.
    fn is_final(&self, answer: &Answer) -> bool {
        let status = answer.head.status;
        let failed = status.is_server_error()
            && status != StatusCode::NOT_IMPLEMENTED
            && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED
            && (self.site.origins.iter().any(|origin| self.is_untried(&origin.way.hop))
                || (self.paid_left > 0 && self.says_to_ask_again(answer)));
        !failed || !self.repeatable || self.was_held_in_vain(answer)
    }

    /// A reload that a packager has held for as long as the player is to wait: another packager
    /// would hold it as long again. Another node may have held it only for others.
    fn was_held_in_vain(&self, answer: &Answer) -> bool {
        self.is_reload
            && answer.head.status == StatusCode::SERVICE_UNAVAILABLE
            && (answer.was_held_in_vain || answer.head_after >= HELD_MIN)
    }

    /// Keeps what came, should nothing better come.
    fn note(&mut self, outcome: Result<Answer, Failure>) {
        if !matches!(&outcome, Err(failure) if failure.undone) {
            self.unsure.note();
        }
        // An answer, even a bad one, tells a client more than a fault.
        if !(outcome.is_err() && matches!(self.last, Some(Ok(_)))) {
            self.last = Some(outcome);
        }
    }

    /// An answer on its way out.
    pub(crate) fn give(&mut self, mut answer: Answer) -> Answer {
        let mut origins = self.site.origins.iter().map(|origin| &*origin.way.hop);
        if let Some(from) = origins.find(|hop| hop.id == answer.hop) {
            // One that is told the client's host means what it says.
            let is_told = self.site.config.pass_host && matches!(from.place, Target::Http { .. });
            if !is_told {
                staying::on_site(&mut answer.head.headers, Base::of(&from.place));
            }
        }
        answer.body.keep(self.own.take());
        answer.was_held_in_vain = self.was_held_in_vain(&answer);
        answer.retried = self.site.config.retries - self.paid_left;
        answer
    }

    /// What is given when nothing is left to try.
    pub(crate) fn end(mut self) -> Result<Answer, Fault> {
        let is_circle =
            |failure: &Failure| failure.fault.error_type() == ErrorType::ProxyLoopDetected;
        match self.last.take() {
            Some(Ok(answer)) => Ok(self.give(answer)),
            Some(Err(failure)) if !is_circle(&failure) => Err(failure.fault),
            // A node that would ask this one has said nothing of any origin.
            _ => Err(Fault::unavailable(
                ErrorType::DestinationUnavailable,
                format!("{}: every origin failed too often lately", self.site.config.site),
            )),
        }
    }

    fn may_go_on(&self) -> bool {
        match &self.last {
            _ if self.is_over => false,
            Some(Err(failure)) => {
                failure.fault.is_retryable() && (self.repeatable || failure.unsent)
            }
            _ => self.repeatable,
        }
    }

    fn is_untried(&self, hop: &Hop) -> bool {
        !self.tried.contains(&hop.id)
    }

    fn up(&mut self) {
        self.tries_at_level = 0;
        self.level = match self.level {
            Level::Sibling => Level::Parent,
            Level::Parent => Level::Shield,
            Level::Shield | Level::Origin => Level::Origin,
        };
    }

    fn next_peer(&mut self) -> Option<Arc<Way>> {
        let down = |failure: &Failure| failure.unsent || failure.down;
        let is_down = matches!(&self.last, Some(Err(failure)) if down(failure));
        if self.tries_at_level > 0 && !is_down {
            self.up();
        }
        while self.level != Level::Origin {
            if self.tries_at_level < PEER_TRIES_MAX
                && let Some(way) = self.peer()
            {
                self.tries_at_level += 1;
                self.tried.push(way.hop.id.clone());
                return Some(way);
            }
            self.up();
        }
        None
    }

    /// The owner at this level, or its stand-in, if that is another node.
    fn peer(&mut self) -> Option<Arc<Way>> {
        let site = self.site;
        let (ways, own) = match self.level {
            Level::Sibling => (&site.siblings, true),
            Level::Parent => (&site.parents, false),
            Level::Shield => (&site.shields, false),
            Level::Origin => return None,
        };
        let has_passed = |hop: &Hop| self.passed.iter().any(|id| id == hop.id.as_str());
        let came_by = ways.iter().filter(|way| own && has_passed(&way.hop));
        let is_last =
            |way: &Arc<Way>| self.passed.last().is_some_and(|id| id == way.hop.id.as_str());
        // A sibling that asks takes this node for the owner, or for its stand-in, which asks the
        // owner, whatever the load. Who is asked by a stand-in is the owner.
        let is_detour = match came_by.collect::<Vec<_>>()[..] {
            [] => false,
            [way] if is_last(way) => true,
            _ => return None,
        };
        let load = |hop: &Hop| if is_detour { 0 } else { hop.load() };
        let usable = |way: &&Arc<Way>| {
            let hop = &way.hop;
            let avoided = self.avoid.as_ref() == Some(&hop.id);
            !has_passed(hop) && !avoided && self.is_untried(hop) && hop.would_admit()
        };
        let usable: Vec<&Arc<Way>> = ways.iter().filter(usable).collect();
        let mut members: Vec<Member<'_>> = usable
            .iter()
            .map(|way| Member { id: way.hop.id.as_str(), load: load(&way.hop), own: false })
            .collect();
        if own && !members.is_empty() {
            let load = if is_detour { 0 } else { site.node.0.own_load.load(Relaxed) };
            members.push(Member { id: &site.node.0.id, load, own: true });
        }
        let place = choose(&self.run, &members)?;
        let Some(way) = usable.get(place) else {
            self.own = Some(OwnLoad::new(&site.node.0.own_load));
            return None;
        };
        Some((*way).clone())
    }
}
