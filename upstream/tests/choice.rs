//! Several origins: which is asked, when another one is, and what that may cost.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::*;
use futures::future::join_all;
use http::Method;
use nearcast_upstream::{Ask, BreakerState, ErrorType, Fault, SiteKind, Urgency};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Two origins, the first one preferred.
fn pair(first: &str, second: &str, more: &str) -> Site {
    let text = format!(
        "origins = [{first:?}, {{ url = {second:?}, priority = 1 }}]\n\
         {more}"
    );
    site(SiteKind::Proxy, &text)
}

#[tokio::test]
async fn an_object_stays_with_its_origin_and_each_gets_some() {
    let (a, b) = (Origin::saying("a").await, Origin::saying("b").await);
    let text = format!("origins = [{:?}, {{ url = {:?}, weight = 3 }}]", a.url(), b.url());
    let site = site(SiteKind::Proxy, &text);
    let mut first = Vec::new();
    for object in 0..100 {
        let answer = site.upstream.send(ask_for("/a", object)).await.unwrap();
        first.push(answer.hop.clone());
    }
    assert!(a.count() > 0 && b.count() > 0, "{} {}", a.count(), b.count());
    for (object, hop) in first.iter().enumerate() {
        let answer = site.upstream.send(ask_for("/b", object as u64)).await.unwrap();
        assert_eq!(answer.hop, *hop);
    }
}

#[tokio::test]
async fn the_next_origin_answers_when_the_first_does_not() {
    let one = "first-byte-timeout = \"1s\"";
    for (bad, more) in
        [(vec![Step::Close], ""), (vec![Step::Hang], one), (status(500), ""), (status(503), "")]
    {
        let first = Origin::new(move |_, _| bad.clone()).await;
        let second = Origin::saying("good").await;
        let site = pair(&first.url(), &second.url(), more);
        assert_eq!(site.get("/a").await.unwrap(), (200, "good".into()));
        assert_eq!((first.count(), second.count()), (1, 1));
    }
    let second = Origin::saying("good").await;
    let site = pair(&format!("http://{}", nobody().await), &second.url(), "retries = 0");
    assert_eq!(site.get("/a").await.unwrap(), (200, "good".into()));
}

/// A packager that ends a reload by 503 has held it for as long as a player is to wait (HLS 2nd
/// edition, section 6.2.5.2). Whatever else fails, at once or late, is asked for elsewhere.
#[tokio::test]
async fn a_reload_that_was_held_in_vain_is_not_held_again() {
    let held = Duration::from_millis(1100);
    for (path, pause, elsewhere) in [
        ("/a.m3u8?_HLS_msn=7", held, false),
        ("/a.m3u8?b&_HLS_msn=7&_HLS_part=1", held, false),
        ("/a.m3u8?_HLS_msn=7", Duration::ZERO, true),
        ("/a.m3u8?_HLS_skip=YES", held, true),
        ("/_HLS_msn=7", held, true),
    ] {
        let steps = move |_: usize, _: &Seen| {
            [vec![Step::Pause(pause)], status_with(503, "Retry-After: 1\r\n")].concat()
        };
        let (first, second) = (Origin::new(steps).await, Origin::saying("good").await);
        let site = pair(&first.url(), &second.url(), "hedge = false");
        let (status, _) = site.get(path).await.unwrap();
        assert_eq!((status, second.count() == 1), (if elsewhere { 200 } else { 503 }, elsewhere));
        assert_eq!(first.count(), 1, "{path}");
    }
}

#[tokio::test]
async fn an_origin_that_failed_lately_is_asked_last() {
    let first = Origin::new(|_, _| vec![Step::Close]).await;
    let second = Origin::saying("good").await;
    let site = pair(&first.url(), &second.url(), "");
    for _ in 0..5 {
        site.get("/a").await.unwrap();
    }
    assert_eq!((first.count(), second.count()), (3, 5));
    // Where nobody listens, once says it all.
    let gone = format!("http://{}", nobody().await);
    let site = pair(&gone, &second.url(), "");
    for _ in 0..5 {
        site.get("/a").await.unwrap();
    }
    assert_eq!(site.metric("requests_total", &[("hop", &gone)]), 1.0);
}

#[tokio::test]
async fn what_one_origin_never_answers_keeps_nothing_else_from_it() {
    let steps = |_: usize, seen: &Seen| match seen.line.contains("/bad") {
        true => vec![Step::Close],
        false => ok("first"),
    };
    let (first, second) = (Origin::new(steps).await, Origin::saying("second").await);
    let site = pair(&first.url(), &second.url(), "");
    for _ in 0..20 {
        assert_eq!(site.get("/bad").await.unwrap().1, "second");
        assert_eq!(site.get("/a").await.unwrap().1, "first");
        assert_eq!(site.get("/b").await.unwrap().1, "first");
    }
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn an_origin_that_says_it_can_not_is_asked_last() {
    let first = Origin::new(|_, _| status(503)).await;
    let second = Origin::saying("good").await;
    let site = pair(&first.url(), &second.url(), "");
    for _ in 0..10 {
        assert_eq!(site.get("/a").await.unwrap(), (200, "good".into()));
    }
    assert_eq!((first.count(), second.count()), (3, 10));
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn when_all_fail_the_answer_is_given_rather_than_a_fault() {
    let first = Origin::new(|_, _| status(503)).await;
    let second = Origin::new(|_, _| vec![Step::Close]).await;
    let site = pair(&first.url(), &second.url(), "");
    assert_eq!(site.get("/a").await.unwrap().0, 503);
    assert!(second.count() >= 1);
}

#[tokio::test]
async fn what_is_not_there_is_an_answer() {
    let first = Origin::new(|_, _| status(404)).await;
    let second = Origin::saying("good").await;
    let site = pair(&first.url(), &second.url(), "");
    for _ in 0..20 {
        assert_eq!(site.get("/a").await.unwrap().0, 404);
    }
    assert_eq!(second.count(), 0);
}

#[tokio::test]
async fn what_the_caller_avoids_or_blames_is_asked_last() {
    let (first, second) = (Origin::saying("a").await, Origin::saying("b").await);
    let site = pair(&first.url(), &second.url(), "");
    let hop = site.upstream.send(ask("/a")).await.unwrap().hop;
    let avoiding = Ask { avoid: Some(hop.clone()), ..ask("/a") };
    assert_ne!(site.upstream.send(avoiding).await.unwrap().hop, hop);
    site.upstream.blame(&hop, "its bytes were wrong");
    assert_eq!(site.upstream.send(ask("/a")).await.unwrap().hop, hop);
    (0..2).for_each(|_| site.upstream.blame(&hop, "its bytes were wrong"));
    assert_ne!(site.upstream.send(ask("/a")).await.unwrap().hop, hop);
    assert_eq!(site.metric("requests_total", &[("outcome", "wrong")]), 3.0);
}

#[tokio::test]
async fn only_what_may_be_sent_twice_is_sent_twice() {
    let answers = |n: usize| if n == 0 { vec![Step::Close] } else { ok("good") };
    for (method, more, expected) in [
        (Method::GET, "", 2),
        (Method::HEAD, "", 2),
        (Method::DELETE, "", 2),
        (Method::POST, "", 1),
        (Method::PATCH, "", 1),
        (Method::GET, "retries = 0", 1),
        (Method::GET, "retry-budget-percent = 0", 1),
    ] {
        let origin = Origin::new(move |n, _| answers(n)).await;
        let site = site(SiteKind::Proxy, &format!("origins = [{:?}]\n{more}", origin.url()));
        let sent = site.upstream.send(Ask { method: method.clone(), ..ask("/a") }).await;
        assert_eq!(origin.count(), expected, "{method} {more}");
        assert_eq!(sent.is_ok(), expected == 2, "{method} {more}");
    }
}

/// Found by an audit: of two origins the first said 503, and for seconds so did the site, since the
/// budget was spent.
#[tokio::test]
async fn an_origin_that_is_well_stands_in_for_another_for_as_long_as_that_takes() {
    let always = |_: usize| true;
    let sometimes = |n: usize| n.is_multiple_of(3);
    for (code, fails) in [(500, &always as &(dyn Fn(usize) -> bool + Sync)), (503, &sometimes)] {
        let failing: Vec<bool> = (0..400).map(fails).collect();
        let first =
            Origin::new(move |n, _| if failing[n] { status(code) } else { ok("good") }).await;
        let second = Origin::saying("good").await;
        let site = pair(&first.url(), &second.url(), "hedge = false");
        for n in 0..400 {
            assert_eq!(site.get(&format!("/{n}")).await.unwrap(), (200, "good".into()), "{n}");
        }
        // More than the budget has.
        assert!(second.count() >= 130, "{}", second.count());
        assert_eq!(site.metric("retry_budget_exhausted_total", &[]), 0.0);
    }
    // One that has said nothing yet may hang: the budget decides how many wait for that.
    let first = Origin::new(|_, _| status(500)).await;
    let second = Origin::new(|_, _| vec![Step::Hang]).await;
    let more = "hedge = false\nretry-budget-percent = 1\nfirst-byte-timeout = \"2s\"";
    let (site, began) = (pair(&first.url(), &second.url(), more), Instant::now());
    let asks = (0..200).map(|n| site.upstream.send(ask(if n % 2 == 0 { "/a" } else { "/b" })));
    for got in join_all(asks).await {
        assert_eq!(got.unwrap().head.status, 500);
    }
    // A burst of 20, a hundredth of 200, and one for each second.
    let most = 20 + 2 + 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((20..=most).contains(&second.count()), "{} of {most}", second.count());
    // Who wants no further tries gets none.
    for more in ["retries = 0", "retry-budget-percent = 0"] {
        let (first, second) = (Origin::new(|_, _| status(500)).await, Origin::saying("good").await);
        let site = pair(&first.url(), &second.url(), more);
        assert_eq!(site.get("/a").await.unwrap().0, 500, "{more}");
        assert_eq!(second.count(), 0, "{more}");
    }
}

#[tokio::test]
async fn further_tries_stay_within_the_budget() {
    let first = Origin::new(|_, _| status(500)).await;
    let second = Origin::new(|_, _| status(500)).await;
    // A hedge would ask the budget, too.
    let site = pair(&first.url(), &second.url(), "hedge = false");
    let began = Instant::now();
    for _ in 0..200 {
        site.get("/a").await.unwrap();
    }
    assert_eq!(first.count(), 200);
    // One while it had not failed yet, a burst of 20, a fifth of 200, and one for each second.
    let most = 1 + 20 + 40 + 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((58..=most).contains(&second.count()), "{} of {most}", second.count());
    let exhausted = site.metric("retry_budget_exhausted_total", &[]);
    assert!((exhausted - (200 - second.count()) as f64).abs() < 0.5, "{exhausted}");
}

#[tokio::test]
async fn an_origin_that_is_gone_is_left_alone_and_comes_back() {
    let well = Arc::new(AtomicBool::new(false));
    let now = well.clone();
    let steps = move |_: usize, _: &Seen| {
        if now.load(SeqCst) { ok("good") } else { vec![Step::Close] }
    };
    let origin = Origin::new(steps).await;
    let site = site(SiteKind::Proxy, &format!("origins = [{:?}]\nretries = 0", origin.url()));
    let (mut asks, mut pace) = (0, tokio::time::interval(Duration::from_millis(100)));
    while site.upstream.status()[0].breaker == BreakerState::Closed {
        pace.tick().await;
        site.get(&format!("/{asks}")).await.unwrap_err();
        asks += 1;
        assert!(asks < 100, "it is asked for ever");
    }
    assert!(asks >= 20, "{asks}");
    assert_eq!(site.metric("breaker_state", &[]), 2.0);
    let fault = site.get("/a").await.unwrap_err();
    assert_eq!(fault.error_type(), ErrorType::DestinationUnavailable, "{fault}");
    assert_eq!((fault.status().as_u16(), origin.count()), (503, asks));
    well.store(true, SeqCst);
    let deadline = Instant::now() + Duration::from_secs(30);
    while site.get("/a").await.is_err() {
        assert!(Instant::now() < deadline, "it never came back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(site.upstream.status()[0].breaker, BreakerState::Closed);
    assert_eq!(origin.count(), asks + 1, "the trial was one request");
}

/// No limit that a slow answer could reach.
fn without_timeout(first: &str, second: Option<&str>, more: &str) -> Site {
    let second = second.map(|url| format!(", {{ url = {url:?}, priority = 1 }}"));
    let origins = format!("origins = [{first:?}{}]", second.unwrap_or_default());
    site(SiteKind::Proxy, &format!("{origins}\nfirst-byte-timeout = \"60s\"\n{more}"))
}

async fn warm(site: &Site) {
    for _ in 0..60 {
        site.get("/quick").await.unwrap();
    }
}

fn silent_where_slow(seen: &Seen) -> Vec<Step> {
    if seen.line.contains("/slow") { vec![Step::Hang] } else { ok("first") }
}

#[tokio::test]
async fn a_get_that_takes_long_is_sent_to_another_origin_as_well() {
    let first = Origin::new(|_, seen| silent_where_slow(seen)).await;
    let second = Origin::saying("second").await;
    let site = without_timeout(&first.url(), Some(&second.url()), "");
    warm(&site).await;
    assert_eq!(site.get("/slow").await.unwrap(), (200, "second".into()));
    assert!(site.metric("hedges_total", &[("outcome", "won")]) >= 1.0);
    until("the loser is dropped", || site.metric("in_flight_requests", &[]) == 0.0).await;
    assert!(site.metric("requests_total", &[("outcome", "abandoned")]) >= 1.0);
}

#[tokio::test]
async fn only_where_that_is_set_the_same_origin_is_asked_twice() {
    let slow = Arc::new(AtomicUsize::new(0));
    let seen_slow = slow.clone();
    let steps = move |_: usize, seen: &Seen| {
        let first = seen.line.contains("/slow") && seen_slow.fetch_add(1, SeqCst) == 0;
        if first { vec![Step::Hang] } else { ok("good") }
    };
    let origin = Origin::new(steps).await;
    let site = without_timeout(&origin.url(), None, "hedge = true");
    warm(&site).await;
    assert_eq!(site.get("/slow").await.unwrap(), (200, "good".into()));
    assert_eq!(slow.load(SeqCst), 2);
}

#[tokio::test]
async fn what_is_not_hedged() {
    // Nowhere to go, not wanted, or not a GET: the one request is waited for.
    for (more, method, two) in [
        ("", Method::GET, false),
        ("hedge = false", Method::GET, true),
        ("", Method::HEAD, true),
        ("retry-budget-percent = 0", Method::GET, true),
    ] {
        let (go, slow) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, came) = (go.clone(), slow.clone());
        let steps = move |_: usize, seen: &Seen| {
            if !seen.line.contains("/slow") {
                return ok("first");
            }
            came.notify_one();
            vec![Step::Until(wait.clone()), send("HTTP/1.1 204 X\r\n\r\n")]
        };
        let (first, second) = (Origin::new(steps).await, Origin::saying("second").await);
        let second_url = second.url();
        let site = without_timeout(&first.url(), two.then_some(&second_url), more);
        warm(&site).await;
        let upstream = site.upstream.clone();
        let asked = Ask { method: method.clone(), ..ask("/slow") };
        let task = tokio::spawn(async move { upstream.send(asked).await });
        slow.notified().await;
        // Many times the 99th percentile: a hedge would have gone out.
        tokio::time::sleep(Duration::from_millis(300)).await;
        go.notify_one();
        assert_eq!(task.await.unwrap().unwrap().head.status, 204, "{more} {method}");
        assert_eq!(second.count(), 0, "{more} {method}");
        assert_eq!(first.count(), 61, "{more} {method}");
    }
}

#[tokio::test]
async fn a_site_whose_origins_are_all_open_says_so() {
    let gone = format!("http://{}", nobody().await);
    let site = site(SiteKind::Proxy, &format!("origins = [{gone:?}]\nretries = 0"));
    for _ in 0..20 {
        assert_eq!(site.get("/a").await.unwrap_err().error_type(), ErrorType::ConnectionRefused);
    }
    let fault = site.get("/a").await.unwrap_err();
    assert!(matches!(fault, Fault::Unavailable { .. }) && fault.status() == 503, "{fault}");
}

#[tokio::test]
async fn who_waits_for_the_origin_is_let_in_by_urgency() {
    let go = Arc::new(Notify::new());
    let held = go.clone();
    let origin = Origin::new(move |_, _| {
        let mut steps = vec![Step::Until(held.clone())];
        steps.extend(ok("x"));
        steps
    })
    .await;
    let text = format!("origins = [{:?}]\nin-flight-max = 1\nqueue-max = 3", origin.url());
    let site = Arc::new(site(SiteKind::Proxy, &text));
    let send = |path: &'static str, urgency: Urgency| {
        let site = site.clone();
        tokio::spawn(async move {
            let answer = site.upstream.send(Ask { urgency, ..ask(path) }).await?;
            whole(answer).await
        })
    };
    let queued = |count: f64| {
        let site = site.clone();
        move || site.metric("queued_requests", &[]) == count
    };
    let first = send("/first", Urgency::default());
    until("the first is there", || origin.count() == 1).await;
    let ahead = Urgency::of(7);
    let mut waiting = Vec::new();
    for (path, urgency) in [("/ahead", ahead.clone()), ("/late", Urgency::of(6))] {
        waiting.push(send(path, urgency));
        until("it waits", queued(waiting.len() as f64)).await;
    }
    let last = send("/last", Urgency::of(7));
    until("three wait", queued(3.0)).await;
    // The queue is full: the last of the least urgent makes room.
    waiting.push(send("/urgent", Urgency::of(0)));
    assert!(matches!(last.await.unwrap(), Err(Fault::Busy { .. })));
    until("three wait again", queued(3.0)).await;
    // What was fetched ahead is wanted by now.
    ahead.raise(0);
    for count in 2..=4 {
        go.notify_one();
        until("the next one", || origin.count() == count).await;
    }
    go.notify_one();
    assert!(first.await.unwrap().is_ok());
    for one in waiting {
        assert!(one.await.unwrap().is_ok());
    }
    let order: Vec<String> = origin.seen().into_iter().map(|seen| seen.line).collect();
    let paths = ["/first", "/ahead", "/urgent", "/late"];
    assert_eq!(order, paths.map(|path| format!("GET {path} HTTP/1.1")));
}
