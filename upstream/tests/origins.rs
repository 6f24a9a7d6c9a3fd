//! One origin, and what it does wrong: each ends in a named fault, and no body ends cleanly
//! that is not whole.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bytes::Bytes;
use common::*;
use futures::stream::{self, StreamExt};
use http::Method;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use nearcast_upstream::{Ask, ErrorType, Fault, HopKind, RequestBody, SiteKind};
use std::time::Duration;

/// A site with one origin and one try.
fn patient(url: &str) -> Site {
    site(SiteKind::Proxy, &format!("origins = [{url:?}]\nretries = 0\n"))
}

/// The same, with limits that a test need not wait long for.
fn quick(url: &str) -> Site {
    let text = format!(
        "origins = [{url:?}]\nfirst-byte-timeout = \"300ms\"\nstall-timeout = \"200ms\"\nretries = 0\n"
    );
    site(SiteKind::Proxy, &text)
}

async fn fault_of(steps: Vec<Step>) -> Fault {
    let waits = steps.iter().any(|step| matches!(step, Step::Hang | Step::Drip(_)));
    let origin = Origin::new(move |_, _| steps.clone()).await;
    let site = if waits { quick(&origin.url()) } else { patient(&origin.url()) };
    let fault = site.get("/a").await.unwrap_err();
    assert_eq!(site.metric("requests_total", &[("outcome", fault.name())]), 1.0, "{fault}");
    assert_eq!(site.metric("in_flight_requests", &[]), 0.0);
    fault
}

fn body(text: &str) -> RequestBody {
    let full = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    full.map_err(|never| match never {}).boxed_unsync()
}

#[tokio::test]
async fn a_request_is_made_anew_and_its_answer_given() {
    let origin = Origin::saying("hello").await;
    let site = site(SiteKind::Proxy, &format!("origins = [\"{}/base/\"]", origin.url()));
    let mut ask = ask("/a/b?c=d");
    for (name, value) in [
        ("accept", "text/html"),
        ("range", "bytes=0-"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("host", "evil.example"),
        ("content-length", "77"),
        ("transfer-encoding", "chunked"),
        ("cdn-loop", "other"),
    ] {
        ask.fields.append(name, value.parse().unwrap());
    }
    let answer = site.upstream.send(ask).await.unwrap();
    assert_eq!((answer.kind, answer.hop.as_str()), (HopKind::Origin, site_name(&origin).as_str()));
    assert_eq!((answer.body.length(), answer.body.is_delimited()), (Some(5), true));
    assert_eq!(whole(answer).await.unwrap(), (200, "hello".into()));
    let seen = &origin.seen()[0];
    assert_eq!(seen.line, "GET /base/a/b?c=d HTTP/1.1");
    let mut fields: Vec<&str> = seen.head.lines().collect();
    fields.sort_unstable();
    let host = format!("host: {}", origin.addr);
    let expected = [
        "accept: text/html",
        "cdn-loop: edge-1;entry=1",
        "cdn-loop: other",
        host.as_str(),
        "range: bytes=0-",
    ];
    assert_eq!(fields, expected);
    assert_eq!(site.metric("bytes_total", &[]), 5.0);
    assert_eq!(site.metric("requests_total", &[("outcome", "2xx")]), 1.0);
}

fn site_name(origin: &Origin) -> String {
    format!("{}/base", origin.url())
}

#[tokio::test]
async fn the_clients_host_is_passed_on_where_that_is_set() {
    let origin = Origin::saying("").await;
    let text = format!("origins = [{:?}]\npass-host = true", origin.url());
    site(SiteKind::Proxy, &text).get("/").await.unwrap();
    assert_eq!(origin.seen()[0].field("host"), Some("films.example"));
}

/// Clients choose the hosts: they are not to choose how many connections there are.
#[tokio::test]
async fn all_hosts_share_the_connections_of_an_origin() {
    let origin = Origin::saying("").await;
    let text = format!("origins = [{:?}]\npass-host = true", origin.url());
    let site = site(SiteKind::Proxy, &text);
    for n in 0..100 {
        let ask = Ask { host: format!("{n}.example:8080"), ..ask("/") };
        whole(site.upstream.send(ask).await.unwrap()).await.unwrap();
    }
    let seen = origin.seen();
    assert_eq!(seen.iter().map(|seen| seen.connection).max(), Some(0));
    let hosts = seen.iter().map(|seen| seen.field("host").unwrap().to_owned());
    assert!(hosts.eq((0..100).map(|n| format!("{n}.example:8080"))));
}

#[tokio::test]
async fn statuses_are_answers() {
    for code in [204, 301, 304, 404, 416, 500, 503] {
        let origin = Origin::new(move |_, _| status_with(code, "Location: /b\r\n")).await;
        let site = patient(&origin.url());
        let mut ask = ask("/a");
        ask.fields.insert("if-none-match", "\"e\"".parse().unwrap());
        let answer = site.upstream.send(ask).await.unwrap();
        assert_eq!(whole(answer).await.unwrap(), (code, Bytes::new()));
        assert_eq!(origin.count(), 1, "{code} was asked for again");
    }
}

#[tokio::test]
async fn a_title_site_follows_no_redirect() {
    let origin = Origin::new(|_, _| status_with(302, "Location: http://10.0.0.1/\r\n")).await;
    let site = site(SiteKind::Title, &format!("origins = [{:?}]", origin.url()));
    let fault = site.get("/a").await.unwrap_err();
    assert!(matches!(fault, Fault::Redirected { .. }), "{fault}");
    assert!(fault.to_string().contains("302 Found to \"http://10.0.0.1/\""), "{fault}");
}

#[tokio::test]
async fn nobody_listens() {
    let site = patient(&format!("http://{}", nobody().await));
    let fault = site.get("/a").await.unwrap_err();
    assert_eq!(fault.error_type(), ErrorType::ConnectionRefused, "{fault}");
    assert_eq!(fault.status(), 502);
}

#[tokio::test]
async fn no_answer_in_time() {
    let fault = fault_of(vec![Step::Hang]).await;
    assert_eq!(fault.error_type(), ErrorType::HttpResponseTimeout, "{fault}");
    assert_eq!(fault.status(), 504);
    // Interim answers are no answer.
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let fault = fault_of(vec![send(interim), send(interim), Step::Hang]).await;
    assert_eq!(fault.error_type(), ErrorType::HttpResponseTimeout, "{fault}");
}

#[tokio::test]
async fn garbage_in_place_of_a_head() {
    for bad in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\u{1}\u{2}\u{3}\u{4}\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let fault = fault_of(vec![send(bad), Step::Close]).await;
        assert_eq!(fault.error_type(), ErrorType::HttpProtocolError, "{bad:?}: {fault}");
    }
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for() {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let fault = fault_of(vec![send(upgrade), Step::Close]).await;
    assert!(matches!(fault, Fault::Unavailable { .. }), "{fault}");
}

#[tokio::test]
async fn a_head_that_is_too_large() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(128 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(300));
    let open = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(256 << 10));
    for steps in [vec![send(long)], vec![send(many)], vec![send(open), Step::Close]] {
        let fault = fault_of(steps).await;
        let error = fault.error_type();
        assert_eq!(error, ErrorType::HttpResponseHeaderSectionSize, "{fault}");
    }
}

#[tokio::test]
async fn the_connection_ends_before_the_head() {
    for steps in [vec![Step::Close], vec![Step::Reset], vec![send("HTTP/1.1 20"), Step::Close]] {
        let fault = fault_of(steps).await;
        assert_eq!(fault.error_type(), ErrorType::ConnectionTerminated, "{fault}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_whole_ends_in_an_error() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for (steps, error) in [
        (vec![send(head), Step::Close], ErrorType::HttpResponseIncomplete),
        (vec![send(chunked), Step::Close], ErrorType::HttpResponseIncomplete),
        (
            vec![send(chunked), send("zz\r\nmore\r\n"), Step::Close],
            ErrorType::HttpResponseTransferCoding,
        ),
        (
            vec![send(chunked), send("fffffffffffffffff\r\nmore\r\n"), Step::Close],
            ErrorType::HttpResponseTransferCoding,
        ),
        (vec![send(head), Step::Hang], ErrorType::ConnectionReadTimeout),
        (vec![send(head), Step::Drip(Duration::from_millis(50))], ErrorType::ConnectionReadTimeout),
        (
            vec![send("HTTP/1.1 200 OK\r\n\r\nhello"), Step::Drip(Duration::from_millis(50))],
            ErrorType::ConnectionReadTimeout,
        ),
    ] {
        let fault = fault_of(steps).await;
        assert!(matches!(fault, Fault::Cut { .. }), "{fault}");
        assert_eq!(fault.error_type(), error, "{fault}");
    }
}

#[tokio::test]
async fn a_reset_in_mid_body_ends_in_an_error() {
    // The client has the first bytes before the reset comes.
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello";
    let origin =
        Origin::new(move |_, _| vec![send(head), Step::Until(wait.clone()), Step::Reset]).await;
    let site = patient(&origin.url());
    let mut answer = site.upstream.send(ask("/a")).await.unwrap();
    assert_eq!(answer.body.next().await.unwrap().unwrap(), "hello");
    go.notify_one();
    let fault = answer.body.next().await.unwrap().unwrap_err();
    assert!(matches!(fault, Fault::Cut { .. }), "{fault}");
    assert!(answer.body.next().await.is_none());
    assert_eq!(site.metric("requests_total", &[("outcome", "cut")]), 1.0);
}

#[tokio::test]
async fn a_body_that_the_caller_gives_up_is_nobodys_failure() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello";
    let origin = Origin::new(move |_, _| vec![send(head), Step::Hang]).await;
    let site = patient(&origin.url());
    let mut answer = site.upstream.send(ask("/a")).await.unwrap();
    assert_eq!(answer.body.next().await.unwrap().unwrap(), "hello");
    drop(answer);
    assert_eq!(site.metric("requests_total", &[("outcome", "2xx")]), 1.0);
    assert_eq!(site.metric("in_flight_requests", &[]), 0.0);
}

#[tokio::test]
async fn a_body_without_framing_is_told_from_a_framed_one() {
    let origin = Origin::new(|_, _| vec![send("HTTP/1.1 200 OK\r\n\r\nhello"), Step::Close]).await;
    let answer = patient(&origin.url()).upstream.send(ask("/a")).await.unwrap();
    assert!(!answer.body.is_delimited());
    assert_eq!(whole(answer).await.unwrap(), (200, "hello".into()));
}

#[tokio::test]
async fn more_bytes_than_announced_reach_nobody() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let origin =
        Origin::new(move |n, _| if n == 0 { vec![send(smuggled)] } else { ok("right") }).await;
    let site = patient(&origin.url());
    assert_eq!(site.get("/a").await.unwrap(), (200, "hello".into()));
    for _ in 0..10 {
        match site.get("/b").await {
            Ok(answer) => assert_eq!(answer, (200, "right".into())),
            Err(fault) => assert!(matches!(fault, Fault::Unavailable { .. }), "{fault}"),
        }
    }
}

#[tokio::test]
async fn a_slow_reader_is_not_held_against_the_origin() {
    let big = "x".repeat(1 << 20);
    let origin = Origin::saying(&big).await;
    let text = format!("origins = [{:?}]\nstall-timeout = \"500ms\"", origin.url());
    let site = site(SiteKind::Proxy, &text);
    let mut answer = site.upstream.send(ask("/a")).await.unwrap();
    let mut bytes = answer.body.next().await.unwrap().unwrap().len();
    // Longer than both limits on the origin.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    while let Some(piece) = answer.body.next().await {
        bytes += piece.unwrap().len();
    }
    assert_eq!(bytes, big.len());
}

#[tokio::test]
async fn events_may_be_few() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let origin = Origin::new(move |_, _| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
        vec![send(head), Step::Until(wait.clone()), send("data: 2\n\n"), Step::Close]
    });
    let origin = origin.await;
    let text = format!("origins = [{:?}]\nstall-timeout = \"100ms\"", origin.url());
    let site = site(SiteKind::Proxy, &text);
    let answer = site.upstream.send(ask("/a")).await.unwrap();
    let read = tokio::spawn(whole(answer));
    tokio::time::sleep(Duration::from_millis(400)).await;
    go.notify_one();
    assert_eq!(read.await.unwrap().unwrap().1, "data: 1\n\ndata: 2\n\n");
}

#[tokio::test]
async fn a_body_goes_up_once_and_whole() {
    let origin = Origin::new(|_, seen| match seen.body.as_slice() {
        b"hello" => status(201),
        _ => vec![Step::Close],
    });
    let origin = origin.await;
    let site = site(SiteKind::Proxy, &format!("origins = [{:?}]", origin.url()));
    let post = |text| Ask { method: Method::POST, body: Some(body(text)), ..ask("/form") };
    assert_eq!(whole(site.upstream.send(post("hello")).await.unwrap()).await.unwrap().0, 201);
    assert_eq!(origin.seen()[0].field("content-length"), Some("5"));
    site.upstream.send(post("other")).await.unwrap_err();
    assert_eq!(origin.count(), 2, "a POST was sent twice");
}

#[tokio::test]
async fn a_client_that_goes_away_or_stalls_is_not_the_origins_failure() {
    let half = || Ok(Frame::data(Bytes::from_static(b"half")));
    let fails = StreamBody::new(stream::iter([half(), Err("the client went away".into())]));
    let stalls = StreamBody::new(stream::iter([half()]).chain(stream::pending()));
    for (body, status) in [(fails.boxed_unsync(), 400), (stalls.boxed_unsync(), 408)] {
        let origin = Origin::new(|_, _| vec![Step::Hang]).await;
        let site = quick(&origin.url());
        let ask = Ask { method: Method::POST, body: Some(body), ..ask("/form") };
        let fault = site.upstream.send(ask).await.unwrap_err();
        assert_eq!(fault.status(), status, "{fault}");
        assert_eq!(site.metric("requests_total", &[("outcome", "abandoned")]), 1.0);
    }
}

#[tokio::test]
async fn a_client_that_drips_its_body_does_not_keep_its_place_at_the_origin() {
    let origin = Origin::new(|_, _| vec![Step::Hang]).await;
    let site = quick(&origin.url());
    let drips = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
    });
    let body = StreamBody::new(drips).boxed_unsync();
    let ask = Ask { method: Method::POST, body: Some(body), ..ask("/form") };
    let fault = site.upstream.send(ask).await.unwrap_err();
    assert!(matches!(fault, Fault::Slow { .. }), "{fault}");
    assert!(fault.to_string().contains("too slowly"), "{fault}");
    assert_eq!(site.upstream.status()[0].in_flight, 0);
}

#[tokio::test]
async fn requests_that_can_not_be_sent_are_refused() {
    let origin = Origin::saying("").await;
    let site = patient(&origin.url());
    for ask in [
        ask("no-slash"),
        ask("/a b"),
        ask("/a\r\nX: 1"),
        Ask { method: Method::CONNECT, ..ask("/") },
        Ask { host: "a b".into(), ..ask("/") },
        Ask { host: "user@host".into(), ..ask("/") },
    ] {
        let fault = site.upstream.send(ask).await.unwrap_err();
        assert!(matches!(fault, Fault::Refused { .. }), "{fault}");
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_loop_is_refused() {
    let origin = Origin::saying("").await;
    let site = patient(&origin.url());
    let mut looped = ask("/a");
    looped.fields.append("cdn-loop", "edge-1, other".parse().unwrap());
    let fault = site.upstream.send(looped).await.unwrap_err();
    assert_eq!(
        (fault.status().as_u16(), fault.error_type().as_str()),
        (508, "proxy_loop_detected")
    );
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn requests_over_the_limits_are_refused_and_counted() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let origin = Origin::new(move |_, _| {
        let mut steps = vec![Step::Until(wait.clone())];
        steps.extend(ok("late"));
        steps
    });
    let origin = origin.await;
    let text = format!("origins = [{:?}]\nin-flight-max = 2\nqueue-max = 3", origin.url());
    let site = std::sync::Arc::new(site(SiteKind::Proxy, &text));
    let spawn = |site: std::sync::Arc<Site>| tokio::spawn(async move { site.get("/a").await });
    let tasks: Vec<_> = (0..5).map(|_| spawn(site.clone())).collect();
    until("two are under way, three wait", || {
        origin.count() == 2 && site.metric("queued_requests", &[]) == 3.0
    })
    .await;
    let fault = site.get("/a").await.unwrap_err();
    assert!(matches!(fault, Fault::Busy { .. }), "{fault}");
    assert_eq!(fault.status(), 503);
    assert_eq!(origin.count(), 2);
    for task in tasks {
        go.notify_one();
        task.await.unwrap().unwrap();
    }
    assert_eq!(site.metric("queued_requests", &[]), 0.0);
    assert_eq!(site.metric("in_flight_requests", &[]), 0.0);
}
