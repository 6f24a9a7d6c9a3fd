//! The life of an ask: from what the caller wants to an answer or a fault.

use crate::ask::{Answer, Ask, clean, is_reload, origin_form};
use crate::exchange::{Failure, Terms, exchange};
use crate::fault::{ErrorType, Fault};
use crate::health::changes;
use crate::hop::Way;
use crate::order::Standing;
use crate::rendezvous::Run;
use crate::sending::Sending;
use crate::settings::Hedge;
use crate::tries::{Choice, Tries, Wish};
use crate::upload::Upload;
use crate::upstream::Inner;
use http::Method;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// An answer is waited for this many times the first-byte timeout, over all tries; no longer than who
/// asks waits for it.
const DEADLINE_TIMEOUTS: u32 = 2;
/// A hedge waits for the 99th percentile of the hop's times, but at least this long.
const HEDGE_SHARE: f64 = 0.99;
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(10);
/// The pause before a hop is asked again: a random time up to this.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Sends an ask to where it belongs.
pub(crate) async fn send(site: &Inner, ask: Ask) -> Result<Answer, Fault> {
    let started = Instant::now();
    let times = site.config.times;
    let deadline = started + times.first_byte * DEADLINE_TIMEOUTS;
    let deadline = ask.answer_by.map_or(deadline, |answer_by| answer_by.min(deadline));
    let terms = Terms { kind: site.config.kind, times, deadline, by_peer: ask.by_peer };
    let (sending, wish) = prepare(site, ask)?;
    if !wish.is_repeat {
        site.budget.lock().unwrap_or_else(PoisonError::into_inner).request();
    }
    let mut tries = Tries::new(site, wish);
    while let Some(choice) = tries.next() {
        if choice.again {
            tokio::time::sleep(PAUSE_MAX.mul_f64(rand::random())).await;
        }
        let answer = Box::pin(ask_hop(site, &choice, &mut tries, &sending, &terms)).await;
        if let Some(answer) = answer {
            return Ok(Answer { head_after: started.elapsed(), ..tries.give(answer) });
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    tries.end().map(|answer| Answer { head_after: started.elapsed(), ..answer })
}

/// Builds the request anew from what the caller chose.
fn prepare(site: &Inner, mut ask: Ask) -> Result<(Sending, Wish), Fault> {
    if origin_form(&ask.path).is_none() {
        return Err(Fault::refused(format!("the path {:?}", shown(&ask.path))));
    }
    if ask.method == Method::CONNECT {
        return Err(Fault::refused("CONNECT"));
    }
    if ask.host.is_empty() {
        ask.host = site.config.host().to_owned();
    }
    if ask.host.parse::<http::uri::Authority>().is_err() || ask.host.contains('@') {
        return Err(Fault::refused(format!("the host {:?}", shown(&ask.host))));
    }
    let node = &site.node.0;
    let passed = passed(&ask, &node.id)?;
    let mut fields = std::mem::take(&mut ask.fields);
    clean(&mut fields);
    caching::add_to_loop(&mut fields, &node.id, ask.by_peer);
    let wish = Wish {
        run: Run { key: ask.key, number: ask.run },
        passed,
        avoid: ask.avoid.take(),
        is_repeat: ask.is_repeat,
        retried: ask.retried,
        at_the_origin: ask.at_the_origin,
        by_peer: ask.by_peer,
        method: ask.method.clone(),
        has_body: ask.body.is_some(),
        is_reload: is_reload(&ask.path),
        unsure: ask.unsure.clone(),
    };
    let mut sending = Sending::new(ask, fields, node.at_nodes.clone());
    sending.pass_host = site.config.pass_host;
    Ok((sending, wish))
}

/// The nodes that are not to be asked, as they have been. What a client says of nodes tells whether
/// it goes in a circle, and no more: it could make an origin send what another node has.
fn passed(ask: &Ask, own: &str) -> Result<Vec<String>, Fault> {
    let ids = caching::passed(&ask.fields, ask.by_peer).into_iter();
    let ids: Vec<String> = ids.map(|id| String::from_utf8_lossy(id).into_owned()).collect();
    if caching::loops(&ask.fields, own, ask.by_peer).refuse() {
        let why = format!("CDN-Loop: {}", shown(&ids.join(", ")));
        return Err(Fault::Loop { why: why.into() });
    }
    Ok(if ask.by_peer { ids } else { Vec::new() })
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Asks a hop, and another one beside it if that takes long. `None`: nothing final came; what
/// came is noted.
async fn ask_hop(
    site: &Inner,
    choice: &Choice,
    tries: &mut Tries<'_>,
    sending: &Sending,
    terms: &Terms,
) -> Option<Answer> {
    let mut first = pin!(while_well(&choice.way, tries.elsewhere(), sending, terms));
    if let Some(after) = hedge_after(site, tries, &choice.way) {
        tokio::select! {
            biased;
            outcome = &mut first => return settle(tries, sending, outcome),
            () = tokio::time::sleep(after) => {}
        }
        if let Some(second) = tries.hedge(&choice.way) {
            return race(site, first, &second, tries, sending, terms).await;
        }
    }
    let outcome = first.await;
    settle(tries, sending, outcome)
}

/// Asks a hop, until its health check has come to call it ill, or one of the others well, and now
/// says both: who waits for the head, or for a turn, goes on there.
async fn while_well(
    way: &Arc<Way>,
    others: Vec<Arc<Way>>,
    sending: &Sending,
    terms: &Terms,
) -> Result<Answer, Failure> {
    let noted = sending.note_at(&way.hop);
    let asked = async {
        let mut answer = exchange(way, sending, terms).await?;
        noted.into_iter().for_each(|noted| answer.body.note(noted));
        Ok(answer)
    };
    if others.is_empty() {
        return asked.await;
    }
    tokio::select! {
        biased;
        outcome = asked => outcome,
        () = is_left(way, &others) => {
            let why = format!("{}: its health check calls it ill", way.hop.id);
            let fault = Fault::unavailable(ErrorType::DestinationUnavailable, why);
            way.tell(&fault);
            Err(Failure::down(fault))
        }
    }
}

async fn is_left(way: &Arc<Way>, others: &[Arc<Way>]) {
    let told = || others.iter().chain([way]).map(|way| way.hop.health.told()).collect();
    let mut before: Vec<_> = told();
    loop {
        changes(before).await;
        // Asked for before the look, so that no change is missed.
        before = told();
        let is_better = |other: &Arc<Way>| other.hop.standing() < Standing::Down;
        if !way.hop.health.is_well() && others.iter().any(is_better) {
            return;
        }
    }
}

fn settle(
    tries: &mut Tries<'_>,
    sending: &Sending,
    outcome: Result<Answer, Failure>,
) -> Option<Answer> {
    tries.settle(outcome, sending.upload.as_deref().is_none_or(Upload::is_here))
}

/// The first final answer of two; the other exchange is given up.
async fn race(
    site: &Inner,
    mut first: Pin<&mut impl Future<Output = Result<Answer, Failure>>>,
    second: &Choice,
    tries: &mut Tries<'_>,
    sending: &Sending,
    terms: &Terms,
) -> Option<Answer> {
    let hedged = |outcome| site.node.0.metrics.hedge(&site.config.site, outcome);
    let mut hedge = pin!(while_well(&second.way, tries.elsewhere(), sending, terms));
    let (mut first_runs, mut hedge_runs) = (true, true);
    while first_runs || hedge_runs {
        let (outcome, won) = tokio::select! {
            outcome = &mut first, if first_runs => {
                first_runs = false;
                (outcome, "lost")
            }
            outcome = &mut hedge, if hedge_runs => {
                hedge_runs = false;
                (outcome, "won")
            }
        };
        if let Some(answer) = settle(tries, sending, outcome) {
            hedged(won);
            return Some(answer);
        }
    }
    hedged("failed");
    None
}

/// How long to wait for a hop before another is asked as well.
fn hedge_after(site: &Inner, tries: &Tries<'_>, way: &Way) -> Option<Duration> {
    let others = site.origins.len() > 1 || way.hop.kind != crate::ask::HopKind::Origin;
    if !tries.is_hedgeable() || !(others || site.config.hedge == Hedge::Always) {
        return None;
    }
    way.hop.quantile(HEDGE_SHARE).map(|after| after.max(HEDGE_AFTER_MIN))
}

#[cfg(test)]
mod tests;
