//! What health checks learn of origins, and what becomes of those who wait for one that falls ill.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::*;
use http::Method;
use nearcast_upstream::{Ask, BreakerState, SiteKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;

const CHECK: &str = "health-check = { path = \"/health?x\", interval = \"100ms\" }";

fn is_check(seen: &Seen) -> bool {
    seen.line.contains("/health")
}

/// Requests that are no checks.
fn asked(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| !is_check(seen)).count()
}

fn site_with(origins: &[&Origin], more: &str) -> Arc<Site> {
    let origins = origins.iter().enumerate();
    let origins =
        origins.map(|(n, origin)| format!("{{ url = {:?}, priority = {n} }}", origin.url()));
    let origins = origins.collect::<Vec<_>>().join(", ");
    Arc::new(site(SiteKind::Proxy, &format!("origins = [{origins}]\n{CHECK}\n{more}")))
}

/// Nothing but a health check ends the wait, and no further try is paid for.
const PATIENT: &str =
    "first-byte-timeout = \"600s\"\nretries = 0\nretry-budget-percent = 0\nhedge = false";

/// An origin that hangs on whatever is asked once `ill`, also on its checks.
async fn hanging(ill: &Arc<AtomicBool>) -> Origin {
    let ill = ill.clone();
    Origin::new(move |_, seen| match is_check(seen) && !ill.load(SeqCst) {
        true => ok("well"),
        false => vec![Step::Hang],
    })
    .await
}

#[tokio::test]
async fn an_origin_that_says_it_is_unwell_is_asked_last_until_it_is_well() {
    let well = Arc::new(AtomicBool::new(false));
    let now = well.clone();
    let steps = move |_: usize, seen: &Seen| {
        if is_check(seen) && !now.load(SeqCst) { status(500) } else { ok("first") }
    };
    let (first, second) = (Origin::new(steps).await, Origin::saying("second").await);
    let site = site_with(&[&first, &second], "");
    until("unwell", || !site.upstream.status()[0].healthy).await;
    assert_eq!(site.metric("healthy", &[("hop", &first.url())]), 0.0);
    assert_eq!(site.get("/a").await.unwrap().1, "second");
    well.store(true, SeqCst);
    until("well", || site.upstream.status()[0].healthy).await;
    assert_eq!(site.get("/a").await.unwrap().1, "first");
    // Nobody checks for a site that is gone.
    drop(site);
    let checks = first.count();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert!(first.count() <= checks + 1);
}

/// Checks of an origin that hangs are as frequent as others, and hold up none of them.
#[tokio::test]
async fn a_check_is_over_before_the_next_one_is_due() {
    let hung = hanging(&Arc::new(AtomicBool::new(true))).await;
    let bad = Origin::new(|_, _| status(500)).await;
    let site = site_with(&[&hung, &bad], "");
    until("checks of both", || hung.count() >= 10 && bad.count() >= 10).await;
    let status = site.upstream.status();
    assert_eq!((status[0].healthy, status[1].healthy), (false, false));
}

#[tokio::test]
async fn who_waits_for_an_origin_that_falls_ill_goes_on_at_another() {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        let ill = Arc::new(AtomicBool::new(false));
        let (first, second) = (hanging(&ill).await, Origin::new(|_, _| status(200)).await);
        // The second of two requests waits for its turn at the first origin.
        let site = site_with(&[&first, &second], &format!("{PATIENT}\nin-flight-max = 1"));
        let send = |path: &'static str| {
            let (upstream, method) = (site.upstream.clone(), method.clone());
            let asking = Ask { method, ..ask(path) };
            tokio::spawn(async move { upstream.send(asking).await.map(|answer| answer.hop) })
        };
        let held = send("/held");
        until("it is asked", || asked(&first) == 1).await;
        let queued = send("/queued");
        until("one is queued", || site.metric("queued_requests", &[]) == 1.0).await;
        ill.store(true, SeqCst);
        for waits in [held, queued] {
            let hop = tokio::time::timeout(Duration::from_secs(30), waits).await;
            let hop = hop.expect("it was left with who is ill").unwrap().unwrap();
            assert_eq!(hop.as_str(), second.url(), "{method}");
        }
        assert_eq!((asked(&first), asked(&second)), (1, 2), "{method}");
        assert_eq!(site.metric("in_flight_requests", &[]), 0.0, "{method}");
    }
}

#[tokio::test]
async fn who_came_while_all_were_ill_goes_on_at_the_first_to_recover() {
    for method in [Method::GET, Method::HEAD] {
        let first = hanging(&Arc::new(AtomicBool::new(true))).await;
        let well = Arc::new(AtomicBool::new(false));
        let now = well.clone();
        let second = Origin::new(move |_, seen| match is_check(seen) && !now.load(SeqCst) {
            true => status(500),
            false => vec![send("HTTP/1.1 204 X\r\n\r\n")],
        });
        let second = second.await;
        let site = site_with(&[&first, &second], PATIENT);
        let ill = || site.upstream.status().iter().all(|hop| !hop.healthy);
        until("both are ill", ill).await;
        let (upstream, asking) =
            (site.upstream.clone(), Ask { method: method.clone(), ..ask("/a") });
        let waits = tokio::spawn(async move { upstream.send(asking).await });
        until("it is asked", || asked(&first) == 1).await;
        well.store(true, SeqCst);
        let answer = tokio::time::timeout(Duration::from_secs(30), waits).await;
        let answer = answer.expect("it was left with who is ill").unwrap().unwrap();
        assert_eq!(answer.hop.as_str(), second.url(), "{method}");
        assert_eq!((asked(&first), asked(&second)), (1, 1), "{method}");
    }
}

/// Nobody is sent there to see whether it is back: the health check does.
#[tokio::test]
async fn an_origin_that_was_left_alone_takes_over_who_waits_once_it_is_well() {
    let first = hanging(&Arc::new(AtomicBool::new(true))).await;
    let addr = nobody().await;
    let second = format!("http://{addr}");
    let origins = format!("{:?}, {{ url = {second:?}, priority = 1 }}", first.url());
    let text = format!("origins = [{origins}]\n{CHECK}\n{PATIENT}");
    let site = Arc::new(site(SiteKind::Proxy, &text));
    until("both are ill", || site.upstream.status().iter().all(|hop| !hop.healthy)).await;
    let asking = || {
        let asking = Ask { avoid: Some(site.upstream.status()[0].hop.clone()), ..ask("/a") };
        let upstream = site.upstream.clone();
        tokio::spawn(async move { upstream.send(asking).await })
    };
    let asked: Vec<_> = (0..40).map(|_| asking()).collect();
    let breaker = || site.upstream.status()[1].breaker;
    until("it is left alone", || breaker() == BreakerState::Open).await;
    asked.iter().for_each(|asking| asking.abort());
    until("all are gone", || site.metric("in_flight_requests", &[]) == 0.0).await;
    let waits = site.clone();
    let waits = tokio::spawn(async move { waits.get("/a").await });
    until("it waits", || site.metric("in_flight_requests", &[]) == 1.0).await;

    let _second = Origin::at(addr, |_, _| ok("second")).await;
    let got = tokio::time::timeout(Duration::from_secs(30), waits).await;
    let got = got.expect("it was left with who is ill").unwrap();
    assert_eq!((got.unwrap().1, breaker()), ("second".into(), BreakerState::Closed));
}

/// What may be done twice that way, or has nowhere to go, is left where it is.
#[tokio::test]
async fn who_stays_with_an_origin_that_falls_ill() {
    let also_ill = Origin::new(|_, _| status(500)).await;
    let well = Origin::saying("second").await;
    for (method, other) in [
        (Method::GET, None),
        (Method::GET, Some(&also_ill)),
        (Method::POST, Some(&well)),
        (Method::DELETE, Some(&well)),
    ] {
        let (go, ill) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (wait, now) = (go.clone(), ill.clone());
        let steps = move |_: usize, seen: &Seen| match is_check(seen) {
            true if now.load(SeqCst) => status(500),
            true => ok("well"),
            false => vec![Step::Until(wait.clone()), send("HTTP/1.1 204 X\r\n\r\n")],
        };
        let first = Origin::new(steps).await;
        let origins: Vec<&Origin> = [&first].into_iter().chain(other).collect();
        let site = site_with(&origins, PATIENT);
        let healthy = |n: usize| site.upstream.status()[n].healthy;
        if other.is_some_and(|other| other.addr == also_ill.addr) {
            until("the other is ill", || !healthy(1)).await;
        }
        let (upstream, asking) =
            (site.upstream.clone(), Ask { method: method.clone(), ..ask("/a") });
        let waits = tokio::spawn(async move { upstream.send(asking).await });
        until("it is asked", || asked(&first) == 1).await;
        ill.store(true, SeqCst);
        until("ill", || !healthy(0)).await;
        let checks = first.count();
        until("another check", || first.count() > checks).await;
        go.notify_one();
        assert_eq!(waits.await.unwrap().unwrap().head.status, 204, "{method}");
        assert_eq!(asked(&first), 1, "{method}");
        assert_eq!(other.map_or(0, asked), 0, "{method}");
    }
}
