//! RFC 9218: what `Priority` of a request decides, on real connections. Who gets the last room
//! for responses, who is asked of the origin first, whose bytes leave first by HTTP/3.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;
#[path = "../../wire/tests/quic/line.rs"]
mod line;

use bytes::Buf;
use common::{
    Answer, Edge, H3, Hold, Item, Proxy, Stream, Web, get, get_over, proxy_settings, until,
};
use http::Request;
use line::Line;
use nearcast_edge::Limits;
use std::cell::Cell;
use tokio::task::JoinHandle;

/// Asks with this urgency, in the background.
fn spawn(url: &str, priority: &'static str) -> JoinHandle<Answer> {
    let url = url.to_owned();
    tokio::spawn(async move { get(&url, &[("priority", priority)]).await })
}

#[tokio::test]
async fn the_last_room_for_responses_is_for_what_is_urgent() {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start().await;
    let settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
    let limits = Limits { responses: 10, ..Limits::default() };
    let edge = Edge::start_with(settings, limits).await;
    let ask = async |priority: &str| {
        get(&format!("{}/stored", edge.http), &[("priority", priority)]).await
    };
    // What is held at the origin has its place. One of an answer that the client has may be given
    // back a moment later.
    let held_are = async |count: usize| {
        until("held", || async { (web.held() == count).then_some(()) }).await;
    };
    let is_answered = async |priority: &str| {
        until("an answer", || async { (ask(priority).await.status == 200).then_some(()) }).await;
    };
    web.put("/stored", Item::of(100));
    is_answered("u=7").await;

    web.hold(Hold::Head);
    let mut held = Vec::new();
    for number in 0..9 {
        let path = format!("/{number}");
        web.put(&path, Item::of(100));
        held.push(spawn(&format!("{}{path}", edge.http), "u=3"));
        held_are(number + 1).await;
    }
    for urgent in ["u=0", "u=1", "u=2", "u=3", "i", ""] {
        is_answered(urgent).await;
    }
    for least in ["u=7", "u=6", "u=4", "u=5, i"] {
        let busy = ask(least).await;
        assert_eq!((busy.status.as_u16(), busy.verdict()), (503, "busy"), "{least}");
        assert_eq!(busy.header("retry-after"), "2");
    }
    is_answered("u=0").await;

    web.release();
    for answer in held {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    is_answered("u=7").await;
    edge.stop().await;
}

#[tokio::test]
async fn the_origin_is_asked_for_what_is_urgent_first() {
    let proxy = Proxy::with(serde_json::json!({ "in-flight-max": 1, "queue-max": 4 })).await;
    let queued =
        format!("nearcast_edge_upstream_queued_requests{{hop={:?},site=\"*\"}}", proxy.web.url);
    let wait = async |count: f64| {
        let now = || async { proxy.edge.metric(&queued).await };
        until("the queue", || async { (now().await == count).then_some(()) }).await;
    };
    let ask = |path: &str, priority| {
        proxy.web.put(path, Item::of(100));
        spawn(&proxy.url(path), priority)
    };
    proxy.web.hold(Hold::Head);
    let first = ask("/first", "u=3");
    until("the first", || async { (proxy.web.held() == 1).then_some(()) }).await;
    let late = ask("/late", "u=7");
    wait(1.0).await;
    let later = ask("/later", "u=7");
    wait(2.0).await;
    let urgent = ask("/urgent", "u=0");
    wait(3.0).await;
    let next = ask("/next", "u=0");
    wait(4.0).await;
    // The queue is full: what is as little urgent as its last is refused, what is urgent takes
    // the place of that.
    assert_eq!(ask("/refused", "u=7").await.unwrap().status, 503);
    let last = ask("/last", "u=0");
    let gone = later.await.unwrap();
    assert_eq!((gone.status.as_u16(), gone.verdict()), (503, "busy"));
    assert_eq!(gone.header("retry-after"), "2");
    wait(4.0).await;

    proxy.web.release();
    for answer in [first, urgent, next, last, late] {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    let asked: Vec<String> = proxy.web.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(asked, ["/first", "/urgent", "/next", "/last", "/late"]);
    proxy.edge.stop().await;
}

/// Datagrams to the client until it has said something: what it has read then is near to what it
/// was sent.
const AT_ONCE: usize = 8;

/// Several times what leaves before the client acknowledges something, and little enough that two
/// are taken whole by the connection before that.
const BYTES: usize = 120 << 10;

/// Two answers wait on one connection: that of `second` began to wait later. How much of each had
/// come when the other one was whole.
async fn come_when_the_other_is_whole(first: &str, second: &str) -> [usize; 2] {
    let proxy = Proxy::new().await;
    let certificate = proxy.edge.dir.join("tls/cert.pem");
    for path in ["/first", "/second"] {
        proxy.web.put(path, Item::of(BYTES as u64));
        let url = format!("{}{path}", proxy.edge.https);
        until("a hit", || async {
            let answer = get_over("http/1.1", &url, &certificate).await;
            (answer.verdict() == "hit-memory").then_some(())
        })
        .await;
    }
    let edge = proxy.edge.https.strip_prefix("https://").unwrap().parse().unwrap();
    let line = Line::to(edge, AT_ONCE).await;
    let transport = quinn::TransportConfig::default();
    let mut h3 = H3::connect((line.addr, "127.0.0.1"), &certificate, transport).await;

    line.shut.send_replace(true);
    let sent = "nearcast_edge_body_bytes_total{protocol=\"h3\",site=\"*\",source=\"hit-memory\"}";
    let mut streams = Vec::new();
    for (path, priority) in [("/first", first), ("/second", second)] {
        let request = Request::get(format!("{}{path}", proxy.edge.https));
        let request = request.header("priority", priority).body(()).unwrap();
        let mut stream = h3.sender.send_request(request).await.unwrap();
        stream.finish().await.unwrap();
        streams.push(stream);
        let handed = (BYTES * streams.len()) as f64;
        until("the body to be handed over", || async {
            (proxy.edge.metric(sent).await >= handed).then_some(())
        })
        .await;
    }
    line.shut.send_replace(false);

    let come = [Cell::new(0), Cell::new(0)];
    let whole = async |number: usize, mut stream: Stream| {
        stream.recv_response().await.unwrap();
        while let Some(piece) = stream.recv_data().await.unwrap() {
            come[number].set(come[number].get() + piece.remaining());
        }
        assert_eq!(come[number].get(), BYTES);
        come[1 - number].get()
    };
    let [second, first] = [streams.pop().unwrap(), streams.pop().unwrap()];
    let (of_second, of_first) = tokio::join!(whole(0, first), whole(1, second));
    proxy.edge.stop().await;
    [of_first, of_second]
}

#[tokio::test]
async fn what_is_urgent_leaves_first_by_http_3() {
    let [before, _] = come_when_the_other_is_whole("u=6", "u=1").await;
    assert!(before < BYTES / 2, "{before} of {BYTES} bytes of u=6 came before the end of u=1");
    let [before, _] = come_when_the_other_is_whole("u=1", "u=6").await;
    assert!(before > BYTES / 2, "{before} of {BYTES} bytes of u=1 came before the end of u=6");
}

/// RFC 9218 section 10, of one urgency.
#[tokio::test]
async fn what_is_of_use_whole_leaves_in_order_and_what_is_in_parts_takes_turns_by_http_3() {
    for (first, second) in [("", ""), ("u=3", "i=?0"), ("u=2", "u=2")] {
        let [_, second] = come_when_the_other_is_whole(first, second).await;
        assert!(second < BYTES / 4, "{second} of {BYTES} bytes came before the end of {first}");
    }
    for (first, second) in [("i", "i"), ("i", ""), ("", "i")] {
        let [_, came] = come_when_the_other_is_whole(first, second).await;
        assert!(came > BYTES / 2, "{came} of {BYTES} bytes of {second} before the end of {first}");
    }
}
