//! Breakers: what opens one, what ends a trial, and what is told of them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::*;
use futures::future::join_all;
use nearcast_upstream::{
    BreakerState, Config, ErrorType, HopKind, Node, SiteKind, Upstream, hierarchy,
};
use prometheus::Registry;
use service::value::Span;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;

/// Failures of as many paths that open a breaker, of a hop that does not answer.
const FAILURES: usize = 20;
/// More than open it in a row.
const FAILURES_MORE: usize = 120;
/// From one request of many in a row to the next.
const APART: Duration = Duration::from_millis(20);

/// Opens the breaker of a site whose origin fails what is below `/bad`: how many requests that took.
async fn open(site: &Site) -> usize {
    let mut pace = tokio::time::interval(APART);
    for number in 0..1000 {
        pace.tick().await;
        site.get(&format!("/bad/{number}")).await.unwrap_err();
        if state(site) == BreakerState::Open {
            return number + 1;
        }
    }
    panic!("it stays closed");
}

fn state(site: &Site) -> BreakerState {
    let hops = site.upstream.status();
    hops.into_iter().find(|hop| hop.kind == HopKind::Origin).unwrap().breaker
}

/// An origin whose process for it crashes, and one that hangs there; in other words each time, too.
#[tokio::test]
async fn what_an_origin_always_fails_takes_nothing_else_from_it() {
    let steps = |_: usize, seen: &Seen| match seen.line.split([' ', '?']).nth(1) {
        Some("/crashes") => vec![Step::Close],
        Some("/hangs") => vec![Step::Hang],
        _ => ok("good"),
    };
    let origin = Origin::new(steps).await;
    let text = format!("origins = [{:?}]\nretries = 0\nfirst-byte-timeout = \"5s\"", origin.url());
    let site = site(SiteKind::Proxy, &text);
    for failures in [FAILURES, FAILURES, FAILURES_MORE] {
        for number in 0..failures {
            site.get(&format!("/crashes?{number}")).await.unwrap_err();
        }
        assert_eq!(site.get("/good").await.unwrap(), (200, "good".into()));
    }
    let hang = (0..FAILURES_MORE).map(|_| site.upstream.send(ask("/hangs")));
    for outcome in join_all(hang).await {
        outcome.unwrap_err();
    }
    assert_eq!(site.get("/good").await.unwrap(), (200, "good".into()));
    assert_eq!(state(&site), BreakerState::Closed);
}

/// A route of which all fails, and an origin that is well otherwise, if not quick.
#[tokio::test]
async fn a_route_that_fails_takes_nothing_else_from_its_origin() {
    const ROUTE: usize = 40;
    let steps = |_: usize, seen: &Seen| match seen.line.contains(" /bad/") {
        true => vec![Step::Close],
        false => [vec![Step::Pause(Duration::from_millis(100))], ok("good")].concat(),
    };
    let origin = Origin::new(steps).await;
    let site = site(SiteKind::Proxy, &format!("origins = [{:?}]\nretries = 0", origin.url()));
    let bad = |round: usize| {
        let site = &site;
        join_all((0..ROUTE).map(move |n| async move {
            site.get(&format!("/bad/{round}/{n}")).await.unwrap_err();
        }))
    };
    let good = |round: usize| {
        let site = &site;
        join_all((0..3).map(move |n| async move {
            let got = site.get(&format!("/good/{round}/{n}")).await;
            assert_eq!(got.unwrap(), (200, "good".into()), "round {round}");
        }))
    };
    // For longer than it takes to open it.
    for round in 0..40 {
        futures::future::join(bad(round), good(round)).await;
    }
    assert_eq!(state(&site), BreakerState::Closed);
    // Once nothing is answered any more, it opens.
    open(&site).await;
}

/// Where nothing but what it fails is asked of an origin, its health check says that it is well.
#[tokio::test]
async fn an_origin_that_a_good_health_check_vouches_for_is_not_left_alone() {
    let steps = |_: usize, seen: &Seen| match seen.line.contains(" /health ") {
        true => ok("well"),
        false => vec![Step::Close],
    };
    let origin = Origin::new(steps).await;
    let text = format!("origins = [{:?}]\nretries = 0", origin.url());
    let check = "health-check = { path = \"/health\", interval = \"100ms\" }";
    let (alone, vouched) =
        (site(SiteKind::Proxy, &text), site(SiteKind::Proxy, &format!("{text}\n{check}")));
    until("it is checked", || origin.count() > 0).await;
    for number in 0.. {
        for site in [&alone, &vouched] {
            site.get(&format!("/bad/{number}")).await.unwrap_err();
        }
        if state(&alone) == BreakerState::Open {
            break;
        }
        tokio::time::sleep(APART).await;
    }
    assert_eq!(state(&vouched), BreakerState::Closed);
}

#[tokio::test]
async fn only_the_trial_ends_a_trial() {
    let (good, bad, trial) = <(Arc<Notify>, Arc<Notify>, Arc<Notify>)>::default();
    let (to_good, to_bad, to_trial) = (good.clone(), bad.clone(), trial.clone());
    let steps = move |_: usize, seen: &Seen| match seen.line.split(' ').nth(1) {
        Some("/late-good") => [vec![Step::Until(to_good.clone())], ok("late")].concat(),
        Some("/late-bad") => vec![Step::Until(to_bad.clone()), Step::Close],
        Some("/late-gone") => vec![Step::Hang],
        Some("/trial") => [vec![Step::Until(to_trial.clone())], ok("trial")].concat(),
        _ => vec![Step::Close],
    };
    let origin = Origin::new(steps).await;
    let site =
        Arc::new(site(SiteKind::Proxy, &format!("origins = [{:?}]\nretries = 0", origin.url())));
    let get = |path: &'static str| {
        let site = site.clone();
        tokio::spawn(async move { site.get(path).await })
    };
    let [late_good, late_bad, late_gone] = ["/late-good", "/late-bad", "/late-gone"].map(get);
    until("they are under way", || origin.count() == 3).await;
    let failures = open(&site).await;
    until("a trial may go", || state(&site) == BreakerState::HalfOpen).await;
    let on_trial = get("/trial");
    until("it is under way", || origin.count() == 3 + failures + 1).await;

    good.notify_one();
    assert_eq!(late_good.await.unwrap().unwrap(), (200, "late".into()));
    assert_eq!(site.get("/bad").await.unwrap_err().error_type(), ErrorType::DestinationUnavailable);
    bad.notify_one();
    late_bad.await.unwrap().unwrap_err();
    assert_eq!(state(&site), BreakerState::HalfOpen);
    late_gone.abort();
    until("it is given up", || site.metric("in_flight_requests", &[]) == 1.0).await;
    assert_eq!(site.get("/bad").await.unwrap_err().error_type(), ErrorType::DestinationUnavailable);

    trial.notify_one();
    assert_eq!(on_trial.await.unwrap().unwrap(), (200, "trial".into()));
    assert_eq!(state(&site), BreakerState::Closed);
}

/// A film takes long, and all others would wait for it.
#[tokio::test]
async fn an_origin_that_answers_is_open_to_all_before_the_answer_is_whole() {
    let (well, go) = <(Arc<AtomicBool>, Arc<Notify>)>::default();
    let (is_well, rest) = (well.clone(), go.clone());
    let steps = move |_: usize, seen: &Seen| match is_well.load(SeqCst) {
        false => vec![Step::Close],
        true if seen.line.contains("/film") => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
            vec![send(head), Step::Until(rest.clone()), send("rest")]
        }
        true => ok("good"),
    };
    let origin = Origin::new(steps).await;
    let site = site(SiteKind::Proxy, &format!("origins = [{:?}]\nretries = 0", origin.url()));
    open(&site).await;
    well.store(true, SeqCst);
    until("a trial may go", || state(&site) == BreakerState::HalfOpen).await;
    let film = site.upstream.send(ask("/film")).await.unwrap();
    assert_eq!(state(&site), BreakerState::Closed);
    assert_eq!(site.get("/a").await.unwrap(), (200, "good".into()));
    go.notify_one();
    assert_eq!(whole(film).await.unwrap(), (200, "halfrest".into()));
}

#[tokio::test]
async fn what_is_told_of_a_breaker_changes_with_the_time() {
    let origin = Origin::new(|_, _| vec![Step::Close]).await;
    let site = site(SiteKind::Proxy, &format!("origins = [{:?}]\nretries = 0", origin.url()));
    assert_eq!(site.metric("breaker_state", &[]), 0.0);
    open(&site).await;
    assert_eq!(site.metric("breaker_state", &[]), 2.0);
    until("a trial may go", || state(&site) == BreakerState::HalfOpen).await;
    assert_eq!(site.metric("breaker_state", &[]), 1.0);
}

/// Found by a review: clients, and nodes below, were told of the circle.
#[tokio::test]
async fn a_node_that_would_ask_this_one_hides_no_origin_that_is_left_alone() {
    let circle = "Proxy-Status: region-1; error=proxy_loop_detected\r\n";
    let parent = Origin::new(move |_, _| status_with(508, circle)).await;
    let origin = Origin::new(|_, _| vec![Step::Close]).await;
    let parents = vec![hierarchy::Peer { id: "region-1".into(), url: parent.url() }];
    let peers = hierarchy::Settings { parents, ..Default::default() };
    let config = hierarchy::Config::check("edge.hierarchy", "edge-1", &peers).unwrap();
    let text = format!("origins = [{:?}]\nretries = 0", origin.url());
    let site = site_of(config, SiteKind::Proxy, &text);
    open(&site).await;
    let fault = site.upstream.send(ask("/a")).await.unwrap_err();
    assert_eq!(fault.error_type(), ErrorType::DestinationUnavailable, "{fault}");
}

/// It is one node with one breaker, whichever sites ask it.
#[tokio::test]
async fn what_one_site_finds_out_of_a_node_is_told_of_all() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let node =
        Origin::new(move |_, _| if is_well.load(SeqCst) { ok("p") } else { vec![Step::Hang] });
    let (parent, origin) = (node.await, Origin::saying("o").await);
    let parents = vec![hierarchy::Peer { id: "region-1".into(), url: parent.url() }];
    let connect_timeout = Some(Span(Duration::from_secs(1)));
    let peers = hierarchy::Settings { parents, connect_timeout, ..Default::default() };
    let config = hierarchy::Config::check("edge.hierarchy", "edge-1", &peers).unwrap();
    let registry = Registry::new();
    let node = Node::new(config, None, u64::MAX, &registry).unwrap();
    let site = |name: &str| {
        let settings = settings(&format!("origins = [{:?}]\nretries = 0", origin.url()));
        let config = Config::check("edge.sites.test", name, SiteKind::Proxy, &settings).unwrap();
        Site { upstream: Upstream::new(config, &node).unwrap(), registry: registry.clone() }
    };
    let (one, two) = (site("one.example"), site("two.example"));
    let told = |state: f64| {
        let of = |name| one.metric("breaker_state", &[("site", name), ("hop", "region-1")]);
        (of("one.example"), of("two.example")) == (state, state)
    };
    assert!(told(0.0));
    assert_eq!(one.get("/a").await.unwrap(), (200, "o".into()));
    assert_eq!(two.metric("node_up", &[]), 0.0);
    assert!(told(2.0));
    well.store(true, SeqCst);
    until("it is known to be back", || two.metric("node_up", &[]) == 1.0).await;
    assert!(told(0.0));
}
