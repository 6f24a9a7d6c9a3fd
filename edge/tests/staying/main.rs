//! Stories of an edge that joins its control plane, restarts, drains, or loses what is around it.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

#[path = "../common/mod.rs"]
mod common;
mod limits;
mod planned;
mod ssd;

use common::{Control, Edge, Stage, get, get_over, settings, token, until, view};
use tokio::net::TcpStream;

/// A stage whose edge has a control plane.
async fn with_control() -> (Stage, Control) {
    let signer = token::Signer::generate().unwrap();
    let control = Control::start(view(&signer)).await;
    let url = control.url.clone();
    let mut stage = Stage::with(move |mut settings| {
        std::fs::remove_file(settings.data_dir.as_ref().unwrap().join("view.json")).unwrap();
        settings.control_plane = Some(url);
        settings.join_secret = Some("joiner".parse().unwrap());
        settings
    })
    .await;
    stage.token = token(&signer, "film");
    stage.signer = signer;
    until("a view", || async {
        (stage.edge.metric("nearcast_edge_heartbeats_total{end=\"answered\"}").await > 0.0)
            .then_some(())
    })
    .await;
    (stage, control)
}

#[tokio::test]
async fn an_edge_joins_is_told_and_reports_what_it_served() {
    let (stage, control) = with_control().await;
    assert_eq!(control.shared.lock().unwrap().bearers[0], "Bearer joiner");
    let bytes = stage.get("v1/0.m4s").await.bytes().len() as u64;
    stage.get("v1/0.m4s").await;
    let beat = until("both in a heartbeat", || async {
        control.last_beat().filter(|beat| beat.counters.bytes == 2 * bytes)
    })
    .await;
    assert_eq!(beat.counters.hit_bytes, bytes);
    assert!(beat.counters.requests >= 2);
    assert!(beat.counters.origin_bytes >= bytes);
    assert_eq!(beat.urls, [stage.edge.http.clone(), stage.edge.https.clone()]);
    assert!(beat.serving);
    let ready = get(&format!("{}/readyz", stage.edge.admin), &[]).await;
    assert_eq!(ready.status, 200);

    // New keys: the old token is worth nothing.
    let signer = token::Signer::generate().unwrap();
    control.shared.lock().unwrap().view = model::fleet::EdgeView { version: 4, ..view(&signer) };
    until("the new view", || async { (stage.get("hls.m3u8").await.status == 401).then_some(()) })
        .await;
    let path = stage.dir.path().join("view.json");
    let kept =
        async || std::fs::read_to_string(&path).ok().filter(|kept| kept.contains("\"version\": 4"));
    until("it is kept", kept).await;
}

#[tokio::test]
async fn a_bad_view_is_refused_whole() {
    let (stage, control) = with_control().await;
    let mut bad = view(&stage.signer);
    bad.version = 9;
    bad.keys[0].point = "04".into();
    let beats = control.shared.lock().unwrap().beats.len();
    control.shared.lock().unwrap().view = bad;
    until("two heartbeats", || async {
        (control.shared.lock().unwrap().beats.len() > beats + 2).then_some(())
    })
    .await;
    assert_eq!(stage.get("hls.m3u8").await.status, 200);
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_says_so() {
    let (stage, control) = with_control().await;
    stage.get("hls.m3u8").await;
    stage.origin.hold(true);
    let url = stage.url("v1/6.m4s");
    let player = tokio::spawn(async move { get(&url, &[]).await });
    until("the request", || async { (stage.origin.media().len() == 1).then_some(()) }).await;
    stage.edge.shutdown.trigger();
    until("the farewell", || async { (!control.last_beat()?.serving).then_some(()) }).await;
    // By the second one the first was answered: that answer must not make it ready again.
    until("one more", || async { (control.farewells() > 1).then_some(()) }).await;
    assert_eq!(get(&format!("{}/readyz", stage.edge.admin), &[]).await.status, 503);
    stage.origin.hold(false);
    let answer = player.await.unwrap();
    assert_eq!(answer.bytes(), &stage.film.segment("v1", 6));
    let addr = stage.edge.http.trim_start_matches("http://").to_owned();
    stage.edge.stop().await;
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_drain_lets_http2_and_3_finish_a_whole_file() {
    for protocol in ["h2", "h3"] {
        let stage = Stage::new().await;
        stage.get("hls.m3u8").await;
        stage.origin.hold(true);
        let url = stage.url_at(&stage.edge.https, "v1.mp4");
        let certificate = stage.edge.dir.join("tls/cert.pem");
        let player = tokio::spawn(async move { get_over(protocol, &url, &certificate).await });
        until("the request", || async { (stage.origin.media().len() == 1).then_some(()) }).await;
        stage.edge.shutdown.trigger();
        stage.origin.hold(false);
        let answer = player.await.unwrap();
        assert_eq!(answer.bytes(), &stage.film.files["v1.mp4"], "{protocol}");
        stage.edge.stop().await;
    }
}

#[tokio::test]
async fn without_any_view_requests_are_told_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(settings(dir.path(), "http://127.0.0.1:9")).await;
    let answer = get(&format!("{}/~abc/t/film/{}/hls.m3u8", edge.http, "00".repeat(16)), &[]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "no-view"));
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(get(&format!("{}/readyz", edge.admin), &[]).await.status, 503);
}
