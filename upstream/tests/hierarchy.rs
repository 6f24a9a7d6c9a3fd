//! Siblings, regional edges, a shield: who is asked, and what happens when one is down.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::*;
use futures::future::join_all;
use nearcast_upstream::{Ask, BreakerState, ErrorType, Fault, HopKind, SiteKind, hierarchy};
use service::value::Span;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

fn peers(named: &[(&str, &str)]) -> Vec<hierarchy::Peer> {
    let peer =
        |(id, url): &(&str, &str)| hierarchy::Peer { id: (*id).to_owned(), url: (*url).to_owned() };
    named.iter().map(peer).collect()
}

/// `edge-1` with siblings, parents and shields.
fn edge(levels: [&[(&str, &str)]; 3], origin: &str, more: &str) -> Site {
    // No test waits for it, however busy the machine is.
    edge_that_waits(levels, origin, more, Some(Span(Duration::from_secs(10))))
}

fn edge_that_waits(
    levels: [&[(&str, &str)]; 3],
    origin: &str,
    more: &str,
    connect_timeout: Option<Span>,
) -> Site {
    let [siblings, parents, shields] = levels.map(peers);
    let settings = hierarchy::Settings { siblings, parents, shields, connect_timeout };
    let config = hierarchy::Config::check("edge.hierarchy", "edge-1", &settings).unwrap();
    site_of(config, SiteKind::Proxy, &format!("origins = [{origin:?}]\n{more}"))
}

fn from(node: &str, path: &str) -> Ask {
    let mut ask = Ask { by_peer: true, ..ask(path) };
    ask.fields.append("cdn-loop", node.parse().unwrap());
    ask
}

/// Who answers for each of some objects.
async fn owners(site: &Site, objects: u64) -> HashMap<u64, (HopKind, String)> {
    let mut owners = HashMap::new();
    for object in 0..objects {
        let answer = site.upstream.send(ask_for("/a", object)).await.unwrap();
        owners.insert(object, (answer.kind, answer.hop.to_string()));
    }
    owners
}

#[tokio::test]
async fn each_object_has_its_owner_among_the_siblings() {
    let (two, three, origin) =
        (Origin::saying("2").await, Origin::saying("3").await, Origin::saying("o").await);
    let (two_url, three_url) = (two.url(), three.url());
    // The list may hold this node, too.
    let siblings = [("edge-2", two_url.as_str()), ("edge-1", "http://x"), ("edge-3", &three_url)];
    let site = edge([&siblings, &[], &[]], &origin.url(), "");
    let first = owners(&site, 60).await;
    for count in [two.count(), three.count(), origin.count()] {
        assert!((8..40).contains(&count), "{first:?}");
    }
    assert_eq!(owners(&site, 60).await, first);
    let seen = &two.seen()[0];
    assert_eq!(seen.field("host"), Some("films.example"));
    assert_eq!(seen.field("cdn-loop"), Some("edge-1"));
    assert_eq!(origin.seen()[0].field("host"), Some(origin.addr.to_string().as_str()));
}

#[tokio::test]
async fn runs_of_one_object_have_different_owners() {
    let (two, origin) = (Origin::saying("2").await, Origin::saying("o").await);
    let site = edge([&[("edge-2", &two.url())], &[], &[]], &origin.url(), "");
    for run in 0..40 {
        site.upstream.send(Ask { run, ..ask("/film.mp4") }).await.unwrap();
    }
    assert!(two.count() > 5 && origin.count() > 5, "{} {}", two.count(), origin.count());
}

#[tokio::test]
async fn a_request_from_a_sibling_or_a_child_is_not_sent_back() {
    let (two, three, parent, origin) = (
        Origin::saying("2").await,
        Origin::saying("3").await,
        Origin::saying("p").await,
        Origin::saying("o").await,
    );
    let siblings = [("edge-2", two.url()), ("edge-3", three.url())];
    let siblings = siblings.each_ref().map(|(id, url)| (*id, url.as_str()));
    let site = edge([&siblings, &[("region-1", &parent.url())], &[]], &origin.url(), "");
    for object in 0..20 {
        let ask = Ask { key: ask_for("", object).key, ..from("edge-3, edge-2", "/a") };
        assert_eq!(site.upstream.send(ask).await.unwrap().hop.as_str(), "region-1");
        let ask = Ask { key: ask_for("", object).key, ..from("edge-2, region-1", "/a") };
        assert_eq!(site.upstream.send(ask).await.unwrap().kind, HopKind::Origin);
    }
    assert_eq!((two.count(), three.count()), (0, 0));
    let fault = site.upstream.send(from("edge-1, edge-3", "/a")).await.unwrap_err();
    assert!(matches!(fault, Fault::Loop { .. }), "{fault}");
}

#[tokio::test]
async fn a_sibling_that_is_down_is_skipped_within_one_request() {
    let gone = format!("http://{}", nobody().await);
    let (two, origin) = (Origin::saying("2").await, Origin::saying("o").await);
    let siblings = [("edge-2", two.url()), ("edge-9", gone)];
    let siblings = siblings.each_ref().map(|(id, url)| (*id, url.as_str()));
    // Skipping what is down is no retry.
    let site = edge([&siblings, &[], &[]], &origin.url(), "retries = 0");
    let first = owners(&site, 40).await;
    assert!(first.values().all(|(_, hop)| hop != "edge-9"));
    // Remembered: within the pause nobody is sent there again.
    let status = site.upstream.status();
    let gone = status.iter().find(|hop| hop.hop.as_str() == "edge-9").unwrap();
    assert_ne!(gone.breaker, BreakerState::Closed);
    let tried = site.metric("requests_total", &[("hop", "edge-9")]);
    assert!((1.0..5.0).contains(&tried), "{tried}");
    // What it owned goes to the others, by the same hash: still one owner for each.
    assert!(two.count() > 5 && origin.count() > 5);
}

#[tokio::test]
async fn the_way_up_is_parent_shield_origin() {
    let (parent, shield, origin) =
        (Origin::saying("p").await, Origin::saying("s").await, Origin::saying("o").await);
    let gone = format!("http://{}", nobody().await);
    let well = [("region-1", parent.url())];
    let down = [("region-9", gone.clone())];
    let shields = [("shield-1", shield.url())];
    let no_shield = [("shield-9", gone)];
    for (parents, shields, expected) in [
        (&well, &shields, "region-1"),
        (&down, &shields, "shield-1"),
        (&down, &no_shield, origin.url().as_str()),
    ] {
        let parents = parents.each_ref().map(|(id, url)| (*id, url.as_str()));
        let shields = shields.each_ref().map(|(id, url)| (*id, url.as_str()));
        let site = edge([&[], &parents, &shields], &origin.url(), "retries = 0");
        let answer = site.upstream.send(ask("/a")).await.unwrap();
        assert_eq!(answer.hop.as_str(), expected);
        assert_eq!(answer.kind == HopKind::Parent, expected.ends_with("-1"));
    }
}

/// A node that waited with others, of whom the first came long before, says so. An origin says nothing
/// of the kind.
#[tokio::test]
async fn a_reload_that_a_node_says_was_held_in_vain_was_held() {
    let says =
        || Origin::new(|_, _| status_with(503, "Nearcast-Held-In-Vain: 1\r\nRetry-After: 1\r\n"));
    let (parent, origin) = (says().await, says().await);
    let named = [("region-1", parent.url())];
    let parents = named.each_ref().map(|(id, url)| (*id, url.as_str()));
    for (parents, is_held) in [(&parents[..], true), (&[], false)] {
        for (path, is_reload) in [("/a.m3u8?_HLS_msn=7", true), ("/a.m3u8", false)] {
            let site = edge([&[], parents, &[]], &origin.url(), "retries = 0");
            let answer = site.upstream.send(ask(path)).await.unwrap();
            assert_eq!(answer.head.status, 503);
            assert_eq!(answer.was_held_in_vain, is_held && is_reload, "{parents:?} {path}");
            assert!(!answer.head.headers.contains_key("nearcast-held-in-vain"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_regional_edge_is_the_same_for_all_edges() {
    let (one, two) = (Origin::saying("1").await, Origin::saying("2").await);
    let parents = [("region-1", one.url()), ("region-2", two.url())];
    let parents = parents.each_ref().map(|(id, url)| (*id, url.as_str()));
    let of = |id: &str| {
        let settings = hierarchy::Settings { parents: peers(&parents), ..Default::default() };
        let config = hierarchy::Config::check("edge.hierarchy", id, &settings).unwrap();
        site_of(config, SiteKind::Proxy, "origins = [\"http://127.0.0.1:1\"]")
    };
    assert_eq!(owners(&of("edge-1"), 40).await, owners(&of("edge-2"), 40).await);
    assert!(one.count() > 10 && two.count() > 10);
}

/// By what a parent says: the status that comes of it, and how often the origin is asked, by the
/// node that a client asked and by one that another node asked. With three tries to spend.
#[tokio::test]
async fn what_a_peer_says_of_itself_is_gone_around_and_what_it_says_of_its_origin_is_not() {
    for (status, what, [first, between]) in [
        (503, "region-1; error=proxy_internal_response", [(200, 1), (200, 1)]),
        (508, "region-1; error=proxy_loop_detected", [(200, 1), (200, 1)]),
        (421, "region-1", [(200, 1), (200, 1)]),
        (503, "region-1; error=connection_limit_reached", [(503, 0), (503, 0)]),
        (503, "region-1; error=destination_unavailable", [(503, 0), (503, 0)]),
        (502, "region-1; error=connection_terminated", [(200, 1), (502, 0)]),
        (504, "region-1; error=connection_timeout", [(200, 1), (504, 0)]),
        (504, "region-1; error=http_response_timeout", [(504, 0), (504, 0)]),
        // An answer of its origin, or of a node before that.
        (503, "region-1", [(503, 0), (503, 0)]),
        (503, "cdn; error=proxy_internal_response", [(503, 0), (503, 0)]),
    ] {
        for (by_peer, expected) in [(false, first), (true, between)] {
            let origin = Origin::saying("o").await;
            let said = format!("Proxy-Status: {what}\r\n");
            let parent = Origin::new(move |_, _| status_with(status, &said)).await;
            let site = edge([&[], &[("region-1", &parent.url())], &[]], &origin.url(), "");
            let ask = if by_peer { from("edge-7", "/a") } else { ask("/a") };
            let status = match site.upstream.send(ask).await {
                Ok(answer) => answer.head.status,
                Err(fault) => fault.status(),
            };
            assert_eq!((status.as_u16(), origin.count()), expected, "{what}, {by_peer}");
        }
    }
}

/// Found by a review: viewers were told of the circle, whatever became of the origin.
#[tokio::test]
async fn a_node_that_would_ask_this_one_says_nothing_of_the_origin() {
    for (status, more) in [(508, ""), (508, "retries = 0"), (502, "retries = 0")] {
        let origin = Origin::new(|_, _| vec![Step::Reset]).await;
        let circle = "Proxy-Status: region-1; error=proxy_loop_detected\r\n";
        let parent = Origin::new(move |_, _| status_with(status, circle)).await;
        let site = edge([&[], &[("region-1", &parent.url())], &[]], &origin.url(), more);
        let fault = site.upstream.send(ask("/a")).await.unwrap_err();
        assert_eq!((fault.status().as_u16(), parent.count()), (502, 1), "{fault}");
        assert_ne!(fault.error_type(), ErrorType::ProxyLoopDetected, "{fault}");
        assert!(origin.count() > 0);
    }
}

/// A parent whose origin failed costs ours a try that the budget pays, and no other.
#[tokio::test]
async fn an_origin_that_failed_above_is_asked_once_more_where_that_is_paid_for() {
    for (more, asked) in [("retries = 5", 1), ("retries = 0", 0), ("retry-budget-percent = 0", 0)] {
        let origin = Origin::new(|_, _| vec![Step::Reset]).await;
        let failed = "Proxy-Status: region-1; error=connection_terminated\r\n";
        let parent = Origin::new(move |_, _| status_with(502, failed)).await;
        let site = edge([&[], &[("region-1", &parent.url())], &[]], &origin.url(), more);
        let fault = site.upstream.send(ask("/a")).await.unwrap_err();
        assert_eq!((fault.status().as_u16(), origin.count()), (502, asked), "{more}");
        assert_eq!(parent.count(), 1);
    }
}

#[tokio::test]
async fn a_peer_that_hangs_or_cuts_costs_its_timeout_and_no_more() {
    for bad in [vec![Step::Hang], vec![Step::Reset], vec![send("nonsense\r\n\r\n")]] {
        let origin = Origin::saying("o").await;
        let peer = Origin::new(move |_, _| bad.clone()).await;
        let more = "retries = 0\nfirst-byte-timeout = \"2s\"";
        let site = edge([&[], &[("region-1", &peer.url())], &[]], &origin.url(), more);
        let ask = Ask { fields: [answer_within("1")].into_iter().collect(), ..ask("/a") };
        let got = whole(site.upstream.send(ask).await.unwrap()).await;
        assert_eq!(got.unwrap(), (200, "o".into()));
        // Three quarters of twice the timeout, whatever a client says; an origin is told nothing.
        let told: u64 = peer.seen()[0].field("nearcast-answer-within").unwrap().parse().unwrap();
        assert!((1..=3000).contains(&told), "{told}");
        assert_eq!(origin.seen()[0].field("nearcast-answer-within"), None);
    }
}

fn answer_within(ms: &'static str) -> (http::HeaderName, http::HeaderValue) {
    (http::HeaderName::from_static("nearcast-answer-within"), http::HeaderValue::from_static(ms))
}

/// An address that takes no connection and refuses none, like a machine that is off.
async fn black_hole() -> (String, Vec<tokio::task::JoinHandle<()>>, tokio::net::TcpListener) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    let listener = socket.listen(1).unwrap();
    // Nobody accepts: the queue is full soon.
    let fill = || {
        tokio::spawn(async move {
            let stream = tokio::net::TcpStream::connect(addr).await;
            std::future::pending::<()>().await;
            drop(stream);
        })
    };
    let held: Vec<_> = (0..8).map(|_| fill()).collect();
    let probe = || tokio::net::TcpStream::connect(addr);
    while tokio::time::timeout(Duration::from_millis(200), probe()).await.is_ok() {}
    (format!("http://{addr}"), held, listener)
}

#[tokio::test]
async fn a_peer_that_is_off_is_skipped_and_remembered() {
    let (url, _held, _listener) = black_hole().await;
    let origin = Origin::saying("o").await;
    let levels: [&[(&str, &str)]; 3] = [&[], &[("region-1", &url)], &[]];
    let site = edge_that_waits(levels, &origin.url(), "retries = 0", None);
    for _ in 0..5 {
        assert_eq!(site.get("/a").await.unwrap(), (200, "o".into()));
    }
    let tried = site.metric("requests_total", &[("outcome", "timed-out")]);
    assert!((1.0..3.0).contains(&tried), "{tried}");
}

/// A node that takes connections and requests and says nothing, until it is told to go on.
async fn mute(said: &'static str) -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let steps = move |_: usize, seen: &Seen| match is_well.load(Relaxed) {
        false => vec![Step::Hang],
        true if seen.line.starts_with("OPTIONS") => status(200),
        true => ok(said),
    };
    (Origin::new(steps).await, well)
}

/// Requests of clients that came to an origin, without what nodes ask each other.
fn asked(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.line.starts_with("GET")).count()
}

fn second() -> Option<Span> {
    Some(Span(Duration::from_secs(1)))
}

#[tokio::test]
async fn whoever_waits_for_a_node_that_hangs_goes_on_elsewhere_until_it_answers_again() {
    const ASKS: usize = 20;
    for level in 0..3 {
        let (hung, well) = mute("h").await;
        let origin = Origin::saying("o").await;
        let (url, mut levels) = (hung.url(), [&[][..]; 3]);
        let nodes = [("node-9", url.as_str())];
        levels[level] = &nodes;
        let site = edge_that_waits(levels, &origin.url(), "retries = 0", second());
        // Of siblings, this node owns some itself.
        let keys = |first| (first..first + ASKS as u64).map(|key| ask_for("/a", key));
        let answers = join_all(keys(0).map(|ask| site.upstream.send(ask))).await;
        for answer in answers {
            assert_eq!(whole(answer.unwrap()).await.unwrap(), (200, "o".into()));
        }
        let waited = asked(&hung);
        assert!(waited > 0 && site.metric("requests_total", &[("outcome", "timed-out")]) == 0.0);
        let silent = site.metric("requests_total", &[("outcome", "silent"), ("hop", "node-9")]);
        assert_eq!((silent, site.metric("node_up", &[])), (waited as f64, 0.0));
        assert_eq!(site.upstream.status()[0].breaker, BreakerState::Open);

        // Nobody is sent there.
        for answer in join_all(keys(100).map(|ask| site.upstream.send(ask))).await {
            assert_eq!(answer.unwrap().kind, HopKind::Origin);
        }
        assert_eq!(asked(&hung), waited);

        well.store(true, Relaxed);
        until("it is known to be back", || site.metric("node_up", &[]) == 1.0).await;
        let answers = join_all(keys(0).map(|ask| site.upstream.send(ask))).await;
        assert!(answers.iter().any(|answer| answer.as_ref().unwrap().hop.as_str() == "node-9"));
    }
}

#[tokio::test]
async fn the_owner_that_hangs_has_a_stand_in_of_its_kind() {
    let ((hung, _well), two) = (mute("1").await, Origin::saying("2").await);
    let (shield, origin) = (Origin::saying("s").await, Origin::saying("o").await);
    let parents = [("region-1", hung.url()), ("region-2", two.url())];
    let parents = parents.each_ref().map(|(id, url)| (*id, url.as_str()));
    let levels: [&[(&str, &str)]; 3] = [&[], &parents, &[("shield-1", &shield.url())]];
    let site = edge_that_waits(levels, &origin.url(), "retries = 0", second());
    let answers = join_all((0..40).map(|key| site.upstream.send(ask_for("/a", key)))).await;
    for answer in answers {
        assert_eq!(answer.unwrap().hop.as_str(), "region-2");
    }
    assert!(asked(&hung) > 0);
}

#[tokio::test]
async fn a_node_whose_origin_takes_long_is_waited_for() {
    let go = Arc::new(Notify::new());
    let held = go.clone();
    let steps = move |_: usize, seen: &Seen| match seen.line.starts_with("OPTIONS") {
        true => status(200),
        false => [vec![Step::Until(held.clone())], ok("p")].concat(),
    };
    let (parent, origin) = (Origin::new(steps).await, Origin::saying("o").await);
    let levels: [&[(&str, &str)]; 3] = [&[], &[("region-1", &parent.url())], &[]];
    let limit = Some(Span(Duration::from_secs(3)));
    let site = Arc::new(edge_that_waits(levels, &origin.url(), "retries = 0", limit));
    let asking = site.clone();
    let asking = tokio::spawn(async move { asking.get("/a").await });
    let answered = [("outcome", "answered")];
    until("it says that it is there", || site.metric("probes_total", &answered) > 0.0).await;
    go.notify_one();
    assert_eq!(asking.await.unwrap().unwrap(), (200, "p".into()));
    let probe = parent.seen().into_iter().find(|seen| seen.line == "OPTIONS / HTTP/1.1").unwrap();
    assert_eq!(probe.field("max-forwards"), Some("0"));
    assert_eq!((origin.count(), site.metric("node_up", &[])), (0, 1.0));
    // Once nothing is asked of it, nothing is.
    assert_eq!(asked(&parent), 1);
}

#[tokio::test]
async fn a_node_that_hangs_in_mid_body_is_left_if_the_rest_is_elsewhere() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
    let steps = move |_: usize, seen: &Seen| match seen.line.starts_with("OPTIONS") {
        true => vec![Step::Hang],
        false => vec![send(head), Step::Hang],
    };
    let (parent, origin) = (Origin::new(steps).await, Origin::saying("o").await);
    let levels: [&[(&str, &str)]; 3] = [&[], &[("region-1", &parent.url())], &[]];
    let site = edge_that_waits(levels, &origin.url(), "stall-timeout = \"10m\"", second());
    let mut body = site.upstream.send(ask("/a")).await.unwrap().body;
    body.leave_if_silent();
    assert_eq!(body.next().await.unwrap().unwrap(), "half");
    let fault = body.next().await.unwrap().unwrap_err();
    assert!(matches!(fault, Fault::Cut { .. }), "{fault}");
    assert!(body.next().await.is_none());
    assert_eq!(site.metric("requests_total", &[("outcome", "silent")]), 1.0);
    assert_eq!(site.get("/a").await.unwrap(), (200, "o".into()));
}

#[tokio::test]
async fn a_node_that_has_gone_is_not_there_whatever_it_sent_is_read_meanwhile() {
    let steps = |_: usize, _: &Seen| {
        vec![send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"), Step::Hang]
    };
    let (parent, origin) = (Origin::new(steps).await, Origin::saying("o").await);
    let addr = parent.addr;
    let levels: [&[(&str, &str)]; 3] = [&[], &[("region-1", &parent.url())], &[]];
    let site = edge(levels, &origin.url(), "");
    let answer = site.upstream.send(ask("/a")).await.unwrap();
    let (hop, mut body) = (answer.hop, answer.body);
    drop(parent);
    until("nobody listens", || std::net::TcpStream::connect(addr).is_err()).await;
    let mut is_there = pin!(site.upstream.is_there(&hop));
    assert!(futures::poll!(&mut is_there).is_pending(), "it is asked");
    assert_eq!(body.next().await.unwrap().unwrap(), "half");
    assert!(!is_there.await);
}

#[tokio::test]
async fn a_peer_that_takes_long_is_gone_around_by_a_hedge() {
    let slow = |_: usize, seen: &Seen| {
        if seen.line.contains("/slow") { vec![Step::Hang] } else { ok("p") }
    };
    let (peer, origin) = (Origin::new(slow).await, Origin::saying("o").await);
    let site = edge([&[], &[("region-1", &peer.url())], &[]], &origin.url(), "");
    for _ in 0..60 {
        site.get("/a").await.unwrap();
    }
    assert_eq!(site.get("/slow").await.unwrap(), (200, "o".into()));
    assert!(site.metric("hedges_total", &[("outcome", "won")]) >= 1.0);
}

#[tokio::test]
async fn what_a_loaded_owner_has_spills_to_its_siblings_and_not_to_the_origin() {
    const ASKS: usize = 60;
    let go = Arc::new(Notify::new());
    let held = |name: &'static str| {
        let wait = go.clone();
        Origin::new(move |_, seen| match seen.line.contains("/hot") {
            true => [vec![Step::Until(wait.clone())], ok(name)].concat(),
            false => ok(name),
        })
    };
    let (two, three, origin) = (held("2").await, held("3").await, held("o").await);
    let siblings = [("edge-2", two.url()), ("edge-3", three.url())];
    let siblings = siblings.each_ref().map(|(id, url)| (*id, url.as_str()));
    let site = Arc::new(edge([&siblings, &[], &[]], &origin.url(), "hedge = false"));
    let all = owners(&site, 4 * ASKS as u64).await;
    let owned = all.into_iter().filter(|(_, (_, hop))| hop == "edge-2").map(|(key, _)| key);
    let counts = || [two.count(), three.count(), origin.count()];
    let before = counts();
    let send = |key| {
        let site = site.clone();
        tokio::spawn(async move { site.upstream.send(ask_for("/hot", key)).await })
    };
    let tasks: Vec<_> = owned.take(ASKS).map(send).collect();
    assert_eq!(tasks.len(), ASKS);
    let more = || [0, 1, 2].map(|place| counts()[place] - before[place]);
    until("all are under way", || more().iter().sum::<usize>() == ASKS).await;
    // The owner has what this node would stand in for, and 16 at least.
    let more = more();
    assert!(more[0] >= 16 && more[1] > 0 && more[2] == 0, "{more:?}");
    for task in tasks {
        while !task.is_finished() {
            go.notify_waiters();
            tokio::task::yield_now().await;
        }
        task.await.unwrap().unwrap();
    }
}

/// Who stands in for the owner asks it, however loaded it is; who is asked by a stand-in goes up.
#[tokio::test]
async fn who_stands_in_for_the_owner_asks_the_owner() {
    let (two, three, origin) =
        (Origin::saying("2").await, Origin::saying("3").await, Origin::saying("o").await);
    let siblings = [("edge-2", two.url()), ("edge-3", three.url())];
    let siblings = siblings.each_ref().map(|(id, url)| (*id, url.as_str()));
    let site = edge([&siblings, &[], &[]], &origin.url(), "");
    let all = owners(&site, 60).await;
    for (key, (_, owner)) in all {
        let ask = |passed| Ask { key: ask_for("", key).key, ..from(passed, "/a") };
        // An owner asks no sibling.
        for asker in ["edge-2", "edge-3"].into_iter().filter(|asker| *asker != owner) {
            let answer = site.upstream.send(ask(asker)).await.unwrap();
            assert_eq!(answer.hop.to_string(), owner, "object {key}, asked for by {asker}");
        }
        let answer = site.upstream.send(ask("edge-2, edge-3")).await.unwrap();
        assert_eq!(answer.kind, HopKind::Origin, "object {key}");
    }
}
