//! Stories of what an edge fetches before it is asked for: the next segments of a track that is
//! watched, and what a player announces by CMCD. Never much, and never for what nobody watches.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use common::{Edge, Hold, Item, Proxy, Scripted, Stage, until};
use http::StatusCode;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nearcast_edge::Settings;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::net::TcpStream;

const PREFETCHED: &str = "nearcast_edge_prefetch_bytes_total{fate=\"fetched\"}";
const USEFUL: &str = "nearcast_edge_prefetch_bytes_total{fate=\"useful\"}";

fn outcome(of: &str) -> String {
    format!("nearcast_edge_prefetches_total{{outcome=\"{of}\"}}")
}

async fn reaches(edge: &Edge, line: &str, least: f64) {
    let reached = || async { (edge.metric(line).await >= least).then_some(()) };
    until(line, reached).await;
}

/// Titles, with as many segments ahead as by default: other stories have none.
async fn stage() -> Stage {
    Stage::with(|settings| Settings { prefetch_segments: None, ..settings }).await
}

/// The ranges of a file that the origin was asked for: none of its bytes twice.
fn assert_each_byte_once(asked: &[String]) {
    let range = |asked: &String| {
        let (start, last) = asked.split_once("bytes=").unwrap().1.split_once('-').unwrap();
        (start.parse::<u64>().unwrap(), last.parse::<u64>().unwrap())
    };
    let mut ranges: Vec<_> = asked.iter().map(range).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|two| two[0].1 < two[1].0), "{ranges:?}");
}

#[tokio::test]
async fn the_next_segment_is_there_before_it_is_asked_for() {
    let stage = stage().await;
    let first = stage.get("v1/0.m4s").await;
    assert_eq!(first.bytes(), &stage.film.segment("v1", 0));
    reaches(&stage.edge, &outcome("done"), 1.0).await;
    let next = stage.get("v1/1.m4s").await;
    assert_eq!(next.verdict(), "hit-memory");
    assert_eq!(next.bytes(), &stage.film.segment("v1", 1));
    reaches(&stage.edge, USEFUL, 1.0).await;
    assert_each_byte_once(&stage.origin.media());
    stage.edge.stop().await;
}

#[tokio::test]
async fn who_jumps_about_has_nothing_fetched_ahead() {
    let stage = stage().await;
    for number in [5, 2, 7] {
        assert_eq!(stage.get(&format!("v1/{number}.m4s")).await.status, 200);
    }
    for none in [PREFETCHED, &outcome("done"), "nearcast_edge_prefetch_in_flight_bytes"] {
        assert_eq!(stage.edge.metric(none).await, 0.0, "{none}");
    }
    stage.edge.stop().await;
}

const SEGMENT_BYTES: usize = 300_000;
const FILM_BYTES: usize = 64 << 20;

fn answer(request: &Request) -> Response {
    let bytes = match request.uri().path() {
        "/film.mp4" => FILM_BYTES,
        path if path.ends_with(".m4s") => SEGMENT_BYTES,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let fields =
        [("cache-control", "max-age=600"), ("etag", "\"1\""), ("content-type", "video/mp4")];
    (fields, vec![7; bytes]).into_response()
}

/// Asks as a player that announces `nor`.
async fn announce(proxy: &Scripted, path: &str, nor: &str, more: &[(&str, &str)]) {
    let cmcd = format!("nor=\"{nor}\"");
    let answer = proxy.get(path, &[&[("cmcd-request", &*cmcd)], more].concat()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_ok());
}

#[tokio::test]
async fn what_a_player_announces_is_fetched_once() {
    let proxy = Scripted::new(answer).await;
    announce(&proxy, "/v1/1.m4s", "..%2Fv2%2F2.m4s%3Fa%3D1", &[]).await;
    reaches(&proxy.edge, &outcome("done"), 1.0).await;
    assert_eq!(proxy.times("/v2/2.m4s?a=1"), 1);
    let next = proxy.get("/v2/2.m4s?a=1&CMCD=bs", &[]).await;
    assert_eq!(next.verdict(), "hit-memory");
    assert_eq!(next.bytes().len(), SEGMENT_BYTES);
    assert_eq!(proxy.times("/v2/2.m4s?a=1"), 1);
    reaches(&proxy.edge, USEFUL, SEGMENT_BYTES as f64).await;
    proxy.edge.stop().await;
}

/// Found by an audit: where an origin is asked one thing at a time, the viewer waited for what comes next.
#[tokio::test]
async fn what_is_announced_is_asked_for_after_what_announces_it() {
    let proxy = Scripted::with(answer, |mut settings| {
        let site = serde_json::json!({ "in-flight-max": 1, "origins": settings.origin });
        settings.sites = [("*".to_owned(), serde_json::from_value(site).unwrap())].into();
        Settings { origin: Vec::new(), ..settings }
    })
    .await;
    let mut in_turn = Vec::new();
    for number in 1..4 {
        let [path, next] = [1, 2].map(|segment| format!("/v{number}/{segment}.m4s"));
        announce(&proxy, &path, "2.m4s", &[]).await;
        reaches(&proxy.edge, &outcome("done"), f64::from(number)).await;
        in_turn.extend([path, next]);
    }
    assert_eq!(proxy.asked(), in_turn);
    proxy.edge.stop().await;
}

/// Found by an audit: what was announced was asked for at once then.
#[tokio::test]
async fn what_a_client_announced_that_left_before_its_answer_is_not_fetched() {
    let proxy = Proxy::new().await;
    let paths = [1, 2, 3].map(|segment| format!("/v1/{segment}.m4s"));
    paths.iter().for_each(|path| proxy.web.put(path, Item::of(SEGMENT_BYTES as u64)));
    proxy.web.hold(Hold::Head);
    let address = proxy.edge.http.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(proxy.url(&paths[0])).header("cmcd-request", "nor=\"2.m4s\"");
    let asking = tokio::spawn(sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()));
    until("it waits", || async { (proxy.web.held() == 1).then_some(()) }).await;
    asking.abort();
    connection.abort();
    let connections = "nearcast_edge_connections ";
    let has_left = || async { (proxy.edge.metric(connections).await == 0.0).then_some(()) };
    until("it has left", has_left).await;
    proxy.web.release();
    // Another one's comes.
    let next = proxy.get_with(&paths[0], &[("cmcd-request", "nor=\"3.m4s\"")]).await;
    assert_eq!(next.bytes().len(), SEGMENT_BYTES);
    reaches(&proxy.edge, &outcome("done"), 1.0).await;
    assert_eq!((proxy.web.count(&paths[1]), proxy.web.count(&paths[2])), (0, 1));
    proxy.edge.stop().await;
}

/// A site for any host knows one object by all of its names, and by its rules for queries.
#[tokio::test]
async fn what_was_announced_by_one_name_is_asked_for_by_another() {
    let site = serde_json::json!({ "query": { "keep": ["a"] } });
    let with = |settings: Settings| {
        let origin = &settings.origin[0];
        let sites =
            common::proxy_settings(&settings.data_dir.clone().unwrap(), origin, &site).sites;
        Settings { origin: Vec::new(), sites, ..settings }
    };
    let proxy = Scripted::with(answer, with).await;
    announce(&proxy, "/v1/1.m4s", "2.m4s%3Fa%3D1", &[("host", "one.example")]).await;
    reaches(&proxy.edge, &outcome("done"), 1.0).await;
    let next = proxy.get("/v1/2.m4s?b=2&a=1", &[("host", "Two.example:8080")]).await;
    assert_eq!(next.verdict(), "hit-memory");
    reaches(&proxy.edge, USEFUL, SEGMENT_BYTES as f64).await;
    assert_eq!(proxy.times("/v1/2.m4s?a=1"), 1);
    proxy.edge.stop().await;
}

#[tokio::test]
async fn hints_that_lead_astray_are_not_followed() {
    let proxy = Scripted::new(answer).await;
    let astray = [
        "https%3A%2F%2Felse.example%2F2.m4s",
        "%2F%2Felse.example%2F2.m4s",
        "..%2F..%2F..%2F2.m4s",
        "%252e%252e%2F2.m4s",
        "a%5C2.m4s",
    ];
    for (number, nor) in astray.iter().enumerate() {
        announce(&proxy, &format!("/v1/{number}.m4s"), nor, &[]).await;
    }
    // Of one who says who asks, nothing is fetched on their behalf.
    announce(&proxy, "/v1/a.m4s", "b.m4s", &[("authorization", "Bearer x")]).await;
    announce(&proxy, "/v1/a.m4s", "b.m4s", &[("cookie", "user=1")]).await;
    // The last one is good: when it is here, whatever went before it would be, too.
    announce(&proxy, "/v1/c.m4s", "d.m4s", &[]).await;
    reaches(&proxy.edge, &outcome("done"), 1.0).await;
    let asked = proxy.asked();
    let own = |target: &String| target.starts_with("/v1/") && target != "/v1/b.m4s";
    assert!(asked.iter().all(own), "{asked:?}");
    assert_eq!(proxy.times("/v1/d.m4s"), 1);
    proxy.edge.stop().await;
}

/// Browsers send one of the whole domain: where the operator leaves it out, it says nothing.
#[tokio::test]
async fn a_cookie_that_does_not_count_keeps_no_hint_from_being_followed() {
    let rules = serde_json::json!({ "ttl": [{ "path": "/v1/*", "cookies": "drop" }] });
    let proxy = Scripted::with(answer, |settings| {
        let mut site = rules;
        site["origins"] = serde_json::json!(settings.origin);
        let sites = [("*".to_owned(), serde_json::from_value(site).unwrap())].into();
        Settings { origin: Vec::new(), sites, ..settings }
    })
    .await;
    let cookie = [("cookie", "_ga=1")];
    announce(&proxy, "/v1/1.m4s", "..%2Fv2%2F2.m4s", &cookie).await;
    announce(&proxy, "/v1/1.m4s", "2.m4s", &cookie).await;
    reaches(&proxy.edge, &outcome("done"), 1.0).await;
    assert_eq!((proxy.times("/v1/2.m4s"), proxy.times("/v2/2.m4s")), (1, 0));
    proxy.edge.stop().await;
}

#[tokio::test]
async fn a_whole_film_is_not_fetched_ahead() {
    let proxy = Scripted::new(answer).await;
    announce(&proxy, "/v1/1.m4s", "..%2Ffilm.mp4", &[]).await;
    reaches(&proxy.edge, &outcome("failed"), 1.0).await;
    let fetched = proxy.edge.metric("nearcast_edge_origin_bytes_total").await;
    assert!(fetched < FILM_BYTES as f64 / 2.0, "{fetched} bytes were fetched");
    proxy.edge.stop().await;
}

/// What is given up has cost what came of it: hints at films cost the origin no more than hints
/// at segments may.
#[tokio::test]
async fn hints_at_films_are_within_the_budget() {
    const HINTS: usize = 20;
    const FLOOR_BYTES: f64 = (8 << 20) as f64;
    /// What a fetch reads ahead of who gives it up.
    const UNTAKEN_BYTES: f64 = (5 << 20) as f64;
    let proxy = Scripted::new(answer).await;
    for number in 0..HINTS {
        announce(&proxy, "/v1/1.m4s", &format!("..%2Ffilm.mp4%3F{number}"), &[]).await;
        // One after the other: those at a time have a limit of their own.
        let ended = || async {
            let mut ended = 0.0;
            for of in ["failed", "over-share"] {
                ended += proxy.edge.metric(&outcome(of)).await;
            }
            (ended > number as f64).then_some(())
        };
        until("the end of a hint", ended).await;
    }
    let films = proxy.asked().iter().filter(|asked| asked.starts_with("/film.mp4")).count();
    assert!((1..=3).contains(&films), "{films} films were begun");
    assert!(proxy.edge.metric(PREFETCHED).await >= FLOOR_BYTES / 2.0);
    // The last of them may begin just below the floor, and come in part before its length is seen.
    let fetched = proxy.edge.metric("nearcast_edge_origin_bytes_total").await;
    println!("{films} films were begun, {fetched} bytes came");
    assert!(fetched <= FLOOR_BYTES + UNTAKEN_BYTES, "{fetched} bytes were fetched");
    proxy.edge.stop().await;
}

#[tokio::test]
async fn hints_beyond_the_budget_are_counted_and_left() {
    let proxy = Scripted::new(answer).await;
    for number in 0..80 {
        announce(&proxy, "/v1/1.m4s", &format!("ahead-{number}.m4s"), &[]).await;
    }
    let left = proxy.edge.metric(&outcome("over-share")).await
        + proxy.edge.metric(&outcome("in-flight")).await;
    assert!(left > 0.0, "eighty hints at once are more than the budget allows");
    proxy.edge.stop().await;
}

/// A live segment that is announced before it is there.
#[tokio::test]
async fn what_was_announced_too_early_is_not_missing_for_who_asks_in_time() {
    static IS_THERE: AtomicBool = AtomicBool::new(false);
    let live = |request: &Request| match request.uri().path() {
        "/v1/next.m4s" if !IS_THERE.load(SeqCst) => {
            (StatusCode::NOT_FOUND, [("cache-control", "max-age=600")]).into_response()
        }
        _ => answer(request),
    };
    let proxy = Scripted::new(live).await;
    announce(&proxy, "/v1/1.m4s", "next.m4s", &[]).await;
    reaches(&proxy.edge, &outcome("failed"), 1.0).await;
    assert_eq!(proxy.times("/v1/next.m4s"), 1);
    IS_THERE.store(true, SeqCst);
    let next = proxy.get("/v1/next.m4s", &[]).await;
    assert_eq!((next.status.as_u16(), next.bytes().len()), (200, SEGMENT_BYTES));
    proxy.edge.stop().await;
}

const SEGMENTS: usize = 20;

/// Segments that an origin lets nobody keep, or has not, by the folder that they are in.
fn unkept(request: &Request) -> Response {
    let segment = vec![7; SEGMENT_BYTES];
    let etag = ("etag", "\"1\"");
    match request.uri().path().split('/').nth(1) {
        Some("no-store") => ([etag, ("cache-control", "no-store")], segment).into_response(),
        Some("private") => {
            ([etag, ("cache-control", "private, max-age=60")], segment).into_response()
        }
        Some("cookie") => ([etag, ("set-cookie", "a=1")], segment).into_response(),
        // The player's own request has a token, which a relative reference lacks.
        Some("token") if request.uri().query().is_none() => StatusCode::FORBIDDEN.into_response(),
        Some("absent") if !request.uri().path().ends_with("0.m4s") => {
            StatusCode::NOT_FOUND.into_response()
        }
        _ => answer(request),
    }
}

/// So many hints have come to an end, or were left.
async fn hints_ended(edge: &Edge, count: usize) {
    let ended = || async {
        let mut ended = 0.0;
        for of in ["done", "failed", "known", "in-vain", "over-share"] {
            ended += edge.metric(&outcome(of)).await;
        }
        (ended >= count as f64).then_some(())
    };
    until("the end of the hints", ended).await;
}

/// Each of a folder's segments names the next one. Its answers are not kept: after three the rest of
/// the folder's are left.
#[tokio::test]
async fn hints_at_what_is_not_kept_are_not_followed_for_ever() {
    for folder in ["no-store", "private", "cookie", "token", "absent"] {
        let proxy = Scripted::new(unkept).await;
        for number in 0..SEGMENTS {
            let asked = if folder == "absent" { 0 } else { number };
            let path = format!("/{folder}/{asked}.m4s?token=1");
            announce(&proxy, &path, &format!("{}.m4s", number + 1), &[]).await;
            hints_ended(&proxy.edge, number + 1).await;
        }
        let hints = |asked: &&String| !asked.contains("token=1");
        let followed = proxy.asked().iter().filter(hints).count();
        assert_eq!(followed, 3, "{folder}");
        assert_eq!(proxy.edge.metric(&outcome("in-vain")).await, SEGMENTS as f64 - 3.0, "{folder}");
        let fetched = proxy.edge.metric(PREFETCHED).await;
        let has_bodies = !matches!(folder, "token" | "absent");
        assert_eq!(fetched, if has_bodies { 3.0 * SEGMENT_BYTES as f64 } else { 0.0 }, "{folder}");
        proxy.edge.stop().await;
    }
}

/// One of a folder's players, by its session.
async fn announce_as(proxy: &Scripted, session: &str, nor: &str) {
    let session = format!("sid=\"{session}\"");
    announce(proxy, "/v1/0.m4s", nor, &[("cmcd-session", &session)]).await;
}

fn nonsense(proxy: &Scripted) -> usize {
    proxy.asked().iter().filter(|asked| asked.starts_with("/v1/none-")).count()
}

/// Where most are good, and one player announces what is not there.
#[tokio::test]
async fn what_one_player_announces_in_vain_keeps_no_other_from_being_followed() {
    const ROUNDS: usize = 10;
    let proxy = Scripted::new(answer).await;
    for number in 0..ROUNDS {
        announce_as(&proxy, "bad", &format!("none-{number}")).await;
        hints_ended(&proxy.edge, 2 * number + 1).await;
        announce_as(&proxy, "good", &format!("{}.m4s", number + 1)).await;
        hints_ended(&proxy.edge, 2 * number + 2).await;
    }
    assert_eq!(nonsense(&proxy), 3);
    assert_eq!(proxy.edge.metric(&outcome("done")).await, ROUNDS as f64);
    assert_eq!(proxy.edge.metric(&outcome("in-vain")).await, ROUNDS as f64 - 3.0);
    proxy.edge.stop().await;
}

/// One that calls itself another each time has as many followed as three have; those whose hints were
/// good are followed on.
#[tokio::test]
async fn what_is_announced_in_vain_under_ever_new_names_is_given_up() {
    let proxy = Scripted::new(answer).await;
    announce_as(&proxy, "good", "1.m4s").await;
    hints_ended(&proxy.edge, 1).await;
    for number in 0..SEGMENTS {
        announce_as(&proxy, &format!("bad-{number}"), &format!("none-{number}")).await;
        hints_ended(&proxy.edge, number + 2).await;
    }
    assert_eq!(nonsense(&proxy), 9);
    announce_as(&proxy, "new", "3.m4s").await;
    announce_as(&proxy, "good", "2.m4s").await;
    reaches(&proxy.edge, &outcome("done"), 2.0).await;
    assert_eq!((proxy.times("/v1/2.m4s"), proxy.times("/v1/3.m4s")), (1, 0));
    // What is of use shows that not all is in vain.
    announce_as(&proxy, "new", "4.m4s").await;
    reaches(&proxy.edge, &outcome("done"), 3.0).await;
    proxy.edge.stop().await;
}

/// What one viewer was told shows what another one's hint would bring.
#[tokio::test]
async fn what_is_known_not_to_be_kept_is_not_fetched_ahead() {
    let proxy = Scripted::new(unkept).await;
    assert_eq!(proxy.get("/no-store/2.m4s", &[]).await.status, 200);
    announce(&proxy, "/no-store/1.m4s", "2.m4s", &[]).await;
    hints_ended(&proxy.edge, 1).await;
    assert_eq!(proxy.times("/no-store/2.m4s"), 1);
    assert_eq!(proxy.edge.metric(&outcome("in-vain")).await, 1.0);
    proxy.edge.stop().await;
}

/// The folder's other objects are kept: a hint that came to nothing is one of a kind.
#[tokio::test]
async fn a_hint_that_came_to_nothing_is_not_followed_again() {
    let proxy = Scripted::new(unkept).await;
    for number in 0..SEGMENTS {
        announce(&proxy, "/absent/0.m4s", "1.m4s", &[]).await;
        hints_ended(&proxy.edge, number + 1).await;
    }
    assert_eq!(proxy.times("/absent/1.m4s"), 1);
    assert_eq!(proxy.edge.metric(&outcome("known")).await, SEGMENTS as f64 - 1.0);
    proxy.edge.stop().await;
}

/// An origin that says nothing of how long, and sends all again to whoever asks whether it changed.
#[tokio::test]
async fn what_is_fetched_anew_makes_nothing_useful_that_was_fetched_ahead() {
    let forgetful = |_: &Request| ([("etag", "\"1\"")], vec![7; SEGMENT_BYTES]).into_response();
    let proxy = Scripted::new(forgetful).await;
    announce(&proxy, "/v1/1.m4s", "2.m4s", &[]).await;
    reaches(&proxy.edge, &outcome("done"), 1.0).await;
    assert_eq!(proxy.get("/v1/2.m4s", &[]).await.bytes().len(), SEGMENT_BYTES);
    assert_eq!(proxy.times("/v1/2.m4s"), 2);
    let ended = async || (proxy.edge.metric("nearcast_edge_responses ").await == 0.0).then_some(());
    until("the end of all responses", ended).await;
    assert_eq!(proxy.edge.metric(PREFETCHED).await, SEGMENT_BYTES as f64);
    assert_eq!(proxy.edge.metric(USEFUL).await, 0.0);
    proxy.edge.stop().await;
}

/// What a purge has ended is not here: the next hint brings it again.
#[tokio::test]
async fn a_hint_at_what_was_purged_since_is_followed_again() {
    let proxy = Scripted::new(answer).await;
    announce(&proxy, "/v1/1.m4s", "2.m4s", &[]).await;
    reaches(&proxy.edge, &outcome("done"), 1.0).await;
    let url = format!("{}/v1/2.m4s", proxy.edge.http);
    proxy.edge.purge(&serde_json::json!({ "url": url })).await;
    for count in 1..3 {
        announce(&proxy, "/v1/1.m4s", "2.m4s", &[]).await;
        reaches(&proxy.edge, &outcome("done"), 2.0).await;
        hints_ended(&proxy.edge, count + 1).await;
    }
    assert_eq!(proxy.times("/v1/2.m4s"), 2);
    assert_eq!(proxy.edge.metric(&outcome("known")).await, 1.0);
    assert_eq!(proxy.get("/v1/2.m4s", &[]).await.verdict(), "hit-memory");
    proxy.edge.stop().await;
}
