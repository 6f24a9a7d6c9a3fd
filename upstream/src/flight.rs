//! One request under way at a hop, and what its end says of the hop.
//!
//! Invariant: each has one end, told once, and its hop's counts are right whatever drops it.

use crate::ask::HopKind;
use crate::breaker::Pass;
use crate::circle::AtNode;
use crate::failing::Asked;
use crate::fault::Fault;
use crate::habits::Patience;
use crate::hop::{Held, Hop, Known, Way};
use crate::link::Stream;
use crate::place::Place;
use crate::pulse::{self, Pulse};
use http::StatusCode;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// A request under way: whoever drops it has told how it ended, or it is taken as given up.
pub(crate) struct Flight {
    way: Arc<Way>,
    place: Place,
    /// Until its place is given back.
    way_for: Option<Held>,
    pass: Pass,
    asked: Asked,
    patience: Patience,
    started: Instant,
    alive: CancellationToken,
    head: Option<StatusCode>,
    /// What it counts as at its connection, where others share that.
    stream: Option<Arc<Stream>>,
    /// That it asks another node.
    noted: Option<AtNode>,
    ended: bool,
}

/// Whether something came that is no good answer.
fn is_broken_answer(fault: &Fault) -> bool {
    use crate::ErrorType as E;
    matches!(
        fault.error_type(),
        E::HttpProtocolError
            | E::HttpResponseHeaderSectionSize
            | E::HttpResponseTransferCoding
            | E::HttpResponseIncomplete
            | E::HttpResponseBodySize
    )
}

impl Flight {
    /// It is noted which node it asks, until it ends.
    pub(crate) fn note(&mut self, noted: AtNode) {
        self.noted = Some(noted);
    }

    /// A request that begins now; `alive` is cancelled when its hop is found silent.
    pub(crate) fn begin(
        way: Arc<Way>,
        place: Place,
        (asked, pass, patience): (Asked, Pass, Patience),
        alive: CancellationToken,
    ) -> Self {
        way.hop.under_way.fetch_add(1, SeqCst);
        pulse::watch(&way.hop);
        way.meter.in_flight.inc();
        Self {
            way,
            place,
            way_for: None,
            pass,
            asked,
            patience,
            started: Instant::now(),
            alive,
            head: None,
            stream: None,
            noted: None,
            ended: false,
        }
    }

    /// It is under way as this until it ends.
    pub(crate) fn over(&mut self, stream: Option<Arc<Stream>>) {
        self.stream = stream;
    }

    /// How long its head may be waited for before that is long.
    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    fn heard(&self) {
        self.way.hop.pulse.iter().for_each(Pulse::heard);
    }

    /// Cancelled when the hop is found silent.
    pub(crate) fn alive(&self) -> &CancellationToken {
        &self.alive
    }

    /// The hop gives no sign of life. Its breaker is for hops that answer, badly.
    pub(crate) fn silent(&mut self, fault: &Fault) {
        self.way.tell(fault);
        self.end(Some(fault), |known, pass, _| known.breaker.abandoned(pass));
        self.way.meter.ended("silent");
    }

    pub(crate) fn hop(&self) -> &Arc<Hop> {
        &self.way.hop
    }

    /// The head is here.
    pub(crate) fn head(&mut self, status: StatusCode) {
        self.head = Some(status);
        self.heard();
        let took = self.started.elapsed();
        self.way.meter.head.observe(took.as_secs_f64());
        let is_origin = self.way.hop.kind == HopKind::Origin;
        self.way.note(None, |known, now| {
            known.head_after(took);
            known.answered(status, now);
            known.habits.answered(self.asked, took, self.patience);
            if is_origin {
                known.breaker.answered(self.pass, now);
            }
        });
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.heard();
        self.way.meter.bytes.inc_by(bytes as u64);
    }

    /// The answer is whole.
    pub(crate) fn whole(&mut self) {
        let status = self.head;
        self.end(None, |known, pass, now| known.good(pass, status, now));
        self.way.meter.ended(class(self.head));
    }

    /// There is no whole answer. A peer without a connection, and of which nothing else comes
    /// either, is left alone until it gives a sign of life. An origin's breaker counts what says
    /// something of the origin as a whole: no connection, no answer. A broken answer may be about
    /// what was asked for, and whoever asks for that again and again must not close the origin to
    /// all others; so may no answer over a connection, which counts once for a path, and not at all
    /// where the hop has just said that it is well.
    pub(crate) fn failed(&mut self, fault: &Fault, connected: bool) {
        let peer = self.way.hop.kind != HopKind::Origin;
        let silent = self.head.is_none() && !is_broken_answer(fault);
        self.way.tell(fault);
        let lost = peer && !connected && self.way.hop.pulse.as_ref().is_some_and(Pulse::is_quiet);
        if lost {
            self.way.hop.lost(fault);
        }
        let what = self.asked;
        let asked = (!peer && connected).then_some(what);
        let is_well = connected && self.way.hop.health.vouches();
        self.end(Some(fault), |known, pass, now| {
            if connected {
                known.bad(now)
            } else {
                known.failed = Some(now)
            }
            if connected && silent {
                known.habits.unanswered(what);
            }
            if !lost && !is_well && (peer || !connected || silent) {
                known.breaker.failed(pass, asked, now);
            } else {
                known.breaker.abandoned(pass);
            }
        });
        self.way.meter.ended(fault.name());
        tracing::debug!(hop = %self.way.hop.id, %fault, "exchange failed");
    }

    /// It has waited long, and gives its place to who waits for one: that says nothing of the hop.
    pub(crate) fn gave_way(&mut self, way: Held, fault: &Fault) {
        self.way.tell(fault);
        self.way_for = Some(way);
        let asked = self.asked;
        self.end(Some(fault), |known, pass, _| {
            known.habits.gave_way(asked);
            known.breaker.abandoned(pass);
        });
        self.way.meter.ended("made-way");
    }

    /// There is no answer, for a reason that says nothing of the hop.
    pub(crate) fn unjudged(&mut self, fault: &Fault) {
        self.way.tell(fault);
        self.end(Some(fault), |known, pass, _| known.breaker.abandoned(pass));
        self.way.meter.ended(fault.name());
    }

    fn end(&mut self, why: Option<&dyn Display>, change: impl FnOnce(&mut Known, Pass, Instant)) {
        if !self.ended {
            self.ended = true;
            self.way.note(why, |known, now| change(known, self.pass, now));
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.ended {
            // Whoever gives up a body has seen a good head; without a head nothing is known.
            if self.head.is_some() {
                self.way.note(None, |known, now| known.good(self.pass, self.head, now));
                self.way.meter.ended(class(self.head));
            } else {
                self.way.note(None, |known, _| known.breaker.abandoned(self.pass));
                self.way.meter.ended("abandoned");
            }
        }
        self.way.hop.under_way.fetch_sub(1, SeqCst);
        self.way.meter.in_flight.dec();
    }
}

fn class(status: Option<StatusCode>) -> &'static str {
    match status.map_or(0, |status| status.as_u16() / 100) {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}
