//! What an edge refuses: other processes' ports and folders, and more than its limits.

use crate::common::{DEADLINE, Edge, Stage, get, keep_view, settings, until, view};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nearcast_edge::{Limits, Patience};
use service::Shutdown;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_port_in_use_is_named() {
    let stage = Stage::new().await;
    let dir = tempfile::tempdir().unwrap();
    keep_view(dir.path(), &view(&stage.signer));
    let mut second = settings(dir.path(), &stage.origin.url);
    second.listen = vec![stage.edge.http.clone()];
    let config = nearcast_edge::Config::check(second).unwrap();
    let error = nearcast_edge::run(config, Shutdown::new()).await.unwrap_err().to_string();
    assert!(error.contains("is already in use"), "{error}");
}

#[tokio::test]
async fn a_second_edge_on_one_data_folder_does_not_start() {
    let stage = Stage::new().await;
    let second = || {
        let settings = settings(stage.dir.path(), &stage.origin.url);
        nearcast_edge::Config::check(settings).unwrap()
    };
    let error = nearcast_edge::run(second(), Shutdown::new()).await.unwrap_err().to_string();
    let dir = stage.dir.path().display();
    let expected = format!("edge.data-dir: another nearcast runs on {dir}: ");
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(stage.get("v1/0.m4s").await.status, 200);
    // A lock that is left behind by a kill holds nobody up.
    stage.edge.kill().await;
    Edge::start(settings(stage.dir.path(), &stage.origin.url)).await.stop().await;
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_and_counted() {
    let mut stage = Stage::new().await;
    stage.edge.stop().await;
    let limits = Limits { connections: 20, responses: 1, ..Limits::default() };
    stage.edge = Edge::start_with(settings(stage.dir.path(), &stage.origin.url), limits).await;
    stage.get("hls.m3u8").await;

    // One response is under way; a manifest costs no place.
    stage.origin.hold(true);
    let url = stage.url("v1/0.m4s");
    let player = tokio::spawn(async move { get(&url, &[]).await });
    until("the request", || async { (stage.origin.media().len() == 1).then_some(()) }).await;
    let busy = stage.get("v1/1.m4s").await;
    assert_eq!((busy.status.as_u16(), busy.code().as_str()), (503, "busy"));
    assert_eq!((busy.verdict(), busy.header("retry-after")), ("busy", "2"));
    assert_eq!(stage.get("hls.m3u8").await.status, 200);
    stage.origin.hold(false);
    assert_eq!(player.await.unwrap().bytes(), &stage.film.segment("v1", 0));
    until("the place", || async { (stage.get("v1/1.m4s").await.status == 200).then_some(()) })
        .await;

    // As many connections as may be are open: one more is closed unanswered.
    let open = "nearcast_edge_connections";
    let refused = "nearcast_edge_connections_refused_total{reason=\"connections-max\"}";
    until("room", || async { (stage.edge.metric(open).await == 0.0).then_some(()) }).await;
    let connect = || TcpStream::connect(stage.edge.http.trim_start_matches("http://"));
    let held = futures::future::join_all((0..limits.connections).map(|_| connect())).await;
    assert!(held.iter().all(Result::is_ok));
    until("all", || async { (stage.edge.metric(open).await == 20.0).then_some(()) }).await;
    let before = stage.edge.metric(refused).await;
    let mut more = connect().await.unwrap();
    assert_eq!(more.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(stage.edge.metric(refused).await, before + 1.0);
    drop(held);
    until("room", || async { (stage.edge.metric(open).await == 0.0).then_some(()) }).await;
    assert_eq!(stage.get("v1/0.m4s").await.status, 200);
}

#[tokio::test]
async fn who_asks_by_http_2_and_takes_nothing_is_closed() {
    let mut stage = Stage::new().await;
    stage.edge.stop().await;
    let patience = Patience { send: Duration::from_millis(300), ..Patience::default() };
    let limits = Limits { patience, ..Limits::default() };
    stage.edge = Edge::start_with(settings(stage.dir.path(), &stage.origin.url), limits).await;
    let stream = TcpStream::connect(stage.edge.http.trim_start_matches("http://")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1_000)
        .handshake::<_, http_body_util::Empty<bytes::Bytes>>(TokioIo::new(stream))
        .await
        .unwrap();
    let ended = tokio::spawn(connection);
    let uri: http::Uri = stage.url("v1.mp4").parse().unwrap();
    let request = http::Request::get(uri).body(http_body_util::Empty::new()).unwrap();
    let held = sender.send_request(request).await.unwrap();
    assert_eq!(held.status(), 200);
    // The client answers pings and opens no window: the connection goes all the same.
    tokio::time::timeout(DEADLINE, ended).await.expect("the connection ends").unwrap().ok();
    until("the place", || async {
        (stage.edge.metric("nearcast_edge_responses").await == 0.0).then_some(())
    })
    .await;
    drop(held);
}
