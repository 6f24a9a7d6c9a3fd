//! Stories of an edge that restarts, drains, or loses what is around it.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{
    CHUNK, Control, DEADLINE, Edge, Item, Misdeed, Stage, Web, get, get_over, keep_view,
    proxy_settings, settings, token, until, view,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::FillPlan;
use model::plan::PlannedTitle;
use nearcast_edge::{Limits, Patience};
use service::Shutdown;
use service::value::ByteSize;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn with_ssd(mut settings: nearcast_edge::Settings) -> nearcast_edge::Settings {
    settings.ssd = Some(ByteSize(512 << 20));
    settings
}

/// A plan that names the whole film.
fn plan(stage: &Stage, number: u64) -> FillPlan {
    let film = &stage.film;
    let bytes = film.index.bytes();
    let title = "film".parse().unwrap();
    FillPlan {
        number,
        date: "2026-11-21".into(),
        edge: "edge-a".parse().unwrap(),
        titles: vec![PlannedTitle { title, version: film.version, bytes, predicted_bytes: bytes }],
    }
}

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

fn plan_file(stage: &Stage, name: &str) -> PathBuf {
    stage.dir.path().join("plan/film").join(stage.film.version.to_string()).join(name)
}

async fn complete(control: &Control, number: u64) {
    until("a complete plan", || async {
        (control.last_beat()?.plan_complete == Some(number)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn after_a_restart_without_origin_and_control_plane_the_ssd_serves() {
    let mut stage = Stage::with(with_ssd).await;
    let before = stage.get("v1/4.m4s").await;
    assert_eq!(before.verdict(), "origin");
    stage.edge.stop().await;
    stage.origin.stop().await;
    let again = with_ssd(settings(stage.dir.path(), &stage.origin.url));
    stage.edge = Edge::start(again).await;
    stage.edge.ssd_is(1.0).await;
    let after = stage.get("v1/4.m4s").await;
    assert!(after.verdict().starts_with("hit-"), "{}", after.verdict());
    assert_eq!(after.bytes(), before.bytes());
    assert_eq!(stage.get("v1/4.m4s").await.verdict(), "hit-memory");
    assert_eq!(stage.get("v1.m3u8").await.verdict(), "hit-memory");
    let other = stage.get("v1/0.m4s").await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (502, "origin-failed"));
    stage.edge.stop().await;
}

#[tokio::test]
async fn a_damaged_ssd_is_a_miss() {
    let mut stage = Stage::with(with_ssd).await;
    let before = stage.get("v1/4.m4s").await;
    stage.edge.stop().await;
    let mut damaged = 0;
    for entry in std::fs::read_dir(stage.dir.path().join("ssd")).unwrap() {
        let path = entry.unwrap().path();
        // What a look after the disk has just written, and may remove meanwhile.
        if path.ends_with("probe") {
            continue;
        }
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        // One byte in each half MiB: every chunk is hit.
        for at in (300_000..file.metadata().unwrap().len()).step_by(512 << 10) {
            file.write_all_at(&[0x5a], at).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    stage.edge = Edge::start(with_ssd(settings(stage.dir.path(), &stage.origin.url))).await;
    stage.edge.ssd_is(1.0).await;
    let after = stage.get("v1/4.m4s").await;
    assert_eq!(after.bytes(), before.bytes());
    assert_eq!(after.verdict(), "origin");
    stage.edge.stop().await;
}

#[tokio::test]
async fn an_unusable_ssd_leaves_an_edge_that_serves() {
    let stage = Stage::with(|settings| {
        std::fs::write(settings.data_dir.as_ref().unwrap().join("ssd"), "a file").unwrap();
        with_ssd(settings)
    })
    .await;
    assert_eq!(stage.get("v1/0.m4s").await.bytes(), &stage.film.segment("v1", 0));
    stage.edge.ssd_is(0.0).await;
}

/// A disk that is dead at a restart costs its share alone, and is known to be out of use.
#[tokio::test]
async fn a_disk_that_is_dead_at_a_restart_costs_its_share_alone_and_comes_back() {
    const PAGES: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let mut web = Web::start().await;
    let url = web.url.clone();
    let disks = [dir.path().join("disk-a"), dir.path().join("disk-b")];
    let with_disks = || {
        let mut settings = proxy_settings(dir.path(), &url, &serde_json::json!({}));
        (settings.ssd, settings.ssd_dir) = (Some(ByteSize(512 << 20)), disks.to_vec());
        settings
    };
    let start = async |heads: f64| {
        let edge = Edge::start(with_disks()).await;
        edge.disk_is(&disks[0], 1.0).await;
        until("the heads", || async {
            (edge.metric("nearcast_edge_head_rows ").await == heads).then_some(())
        })
        .await;
        edge
    };
    let page = |number: usize| format!("/page-{number}");
    // One host, whatever the port: what is stored is found by it.
    let ask = async |edge: &Edge, number: usize| {
        get(&format!("{}{}", edge.http, page(number)), &[("host", "pages.example")]).await
    };
    let edge = start(0.0).await;
    edge.disk_is(&disks[1], 1.0).await;
    for number in 0..PAGES {
        web.put(&page(number), Item::of(CHUNK));
        // Its second use makes it worth a place on disk.
        for _ in 0..2 {
            assert_eq!(ask(&edge, number).await.status, 200);
        }
    }
    edge.stop().await;
    // A folder that can't be opened, as that of a dead disk.
    let (dead, away) = (&disks[1], disks[1].with_extension("away"));
    std::fs::rename(dead, &away).unwrap();
    std::fs::write(dead, "no folder").unwrap();
    let edge = start(PAGES as f64).await;
    edge.disk_is(dead, 0.0).await;
    let mut hits = 0;
    for number in 0..PAGES {
        let answer = ask(&edge, number).await;
        assert!(answer.bytes() == &web.whole(&page(number)), "{number}");
        hits += usize::from(answer.verdict().starts_with("hit-"));
    }
    assert!((1..PAGES).contains(&hits), "{hits} of {PAGES}");
    std::fs::remove_file(dead).unwrap();
    std::fs::rename(&away, dead).unwrap();
    edge.disk_is(dead, 1.0).await;
    edge.stop().await;
    // All of it is there again, on one disk or the other.
    web.stop().await;
    let edge = start(PAGES as f64).await;
    edge.disk_is(dead, 1.0).await;
    for number in 0..PAGES {
        let answer = ask(&edge, number).await;
        assert!(answer.bytes() == &web.whole(&page(number)), "{number}");
    }
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
async fn a_plan_is_fetched_served_reported_and_removed_by_the_next() {
    let (mut stage, control) = with_control().await;
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    complete(&control, 1).await;
    let beat = control.last_beat().unwrap();
    let files: Vec<&str> = beat.holdings.iter().map(|holding| holding.file.as_str()).collect();
    assert_eq!(files, ["a1.mp4", "s-en.vtt", "v1.mp4"]);
    // 40 MiB in runs of 16 MiB, and two small files.
    assert_eq!(stage.origin.media().len(), 5);
    assert_eq!(std::fs::read(plan_file(&stage, "v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
    stage.origin.stop().await;
    for number in 0..8 {
        let answer = stage.get(&format!("v1/{number}.m4s")).await;
        assert_eq!(answer.bytes(), &stage.film.segment("v1", number));
        assert_eq!(answer.verdict(), "hit-plan");
    }
    let next = FillPlan { number: 2, titles: Vec::new(), ..plan(&stage, 2) };
    control.shared.lock().unwrap().plan = Some(next);
    complete(&control, 2).await;
    assert!(control.last_beat().unwrap().holdings.is_empty());
    assert!(!plan_file(&stage, "v1.mp4").exists());
}

/// An origin that sent less of a range than it was asked for was blamed for it, and no plan filled.
#[tokio::test]
async fn a_plan_is_filled_from_an_origin_that_sends_less_at_a_time() {
    for cap in [CHUNK, CHUNK * 3 / 2, CHUNK * 2 / 3] {
        let (stage, control) = with_control().await;
        stage.origin.always(Some(Misdeed::Cap(usize::try_from(cap).unwrap())));
        control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
        complete(&control, 1).await;
        let (film, v1) = (&stage.film, &stage.film.files["v1.mp4"]);
        assert_eq!(&std::fs::read(plan_file(&stage, "v1.mp4")).unwrap(), v1, "{cap}");
        // No byte twice, and nobody blamed.
        let mut starts: Vec<String> = stage.origin.media();
        starts.iter_mut().for_each(|asked| asked.truncate(asked.rfind('-').unwrap()));
        starts.sort();
        let all = starts.len();
        starts.dedup();
        assert_eq!(starts.len(), all, "{cap}: {starts:?}");
        let bytes = stage.edge.metric("nearcast_edge_origin_bytes_total").await;
        let whole: usize = film.files.values().map(bytes::Bytes::len).sum();
        assert_eq!(bytes as usize, whole + film.encoded.len(), "{cap}");
        let retried = stage.edge.metric("nearcast_edge_fills_total{end=\"retried\"}").await;
        assert!(retried == 0.0, "{cap}: {retried}");
        stage.edge.stop().await;
    }
}

#[tokio::test]
async fn a_plan_that_was_cut_short_is_resumed_and_its_chunks_serve_meanwhile() {
    let (mut stage, control) = with_control().await;
    // The first run arrives, the second stalls: the edge is killed there.
    let first_run = 16 << 20;
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    until("the first run", || async {
        let present = stage.edge.metric("nearcast_edge_plan_present_bytes").await;
        if present < f64::from(first_run) {
            return None;
        }
        stage.origin.hold(true);
        Some(())
    })
    .await;
    let url = control.url.clone();
    let present = std::fs::metadata(plan_file(&stage, "v1.mp4")).unwrap().len();
    assert!(present >= first_run as u64);
    stage.edge.kill().await;
    let asked = stage.origin.media().len();

    // Without the control plane, and while the origin answers nobody.
    stage.edge = Edge::start(settings(stage.dir.path(), &stage.origin.url)).await;
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!(answer.verdict(), "hit-plan");
    assert_eq!(answer.bytes(), &stage.film.segment("v1", 0));
    stage.edge.kill().await;

    stage.origin.hold(false);
    let mut again = settings(stage.dir.path(), &stage.origin.url);
    again.control_plane = Some(url);
    stage.edge = Edge::start(again).await;
    complete(&control, 1).await;
    let resumed = stage.origin.media().split_off(asked);
    assert!(!resumed.iter().any(|asked| asked.starts_with("v1.mp4 bytes=0-")), "{resumed:?}");
    assert_eq!(std::fs::read(plan_file(&stage, "v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
}

/// An edge begins with the plan that it has; then the control plane tells it of that one, or of a
/// newer one with the same film.
#[tokio::test]
async fn what_is_being_fetched_for_the_plan_is_kept_when_a_plan_is_told_of() {
    for number in [1, 2] {
        let (mut stage, control) = with_control().await;
        // Its index is here.
        stage.get("hls.m3u8").await;
        stage.origin.hold(true);
        let asked = async |stage: &Stage, count: usize| {
            until("a run to be asked for", || async {
                (stage.origin.media().len() == count).then_some(())
            })
            .await;
        };
        control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
        asked(&stage, 1).await;
        stage.edge.kill().await;

        control.shared.lock().unwrap().plan = None;
        let mut again = settings(stage.dir.path(), &stage.origin.url);
        again.control_plane = Some(control.url.clone());
        stage.edge = Edge::start(again).await;
        asked(&stage, 2).await;
        let beats = {
            let mut shared = control.shared.lock().unwrap();
            shared.plan = Some(plan(&stage, number));
            shared.beats.len()
        };
        // The second of these was sent when the answer to the first had been read.
        until("heartbeats", || async {
            (control.shared.lock().unwrap().beats.len() >= beats + 2).then_some(())
        })
        .await;
        stage.origin.hold(false);
        complete(&control, number).await;
        let mut runs = stage.origin.media().split_off(1);
        runs.sort();
        let all = runs.len();
        runs.dedup();
        assert_eq!(runs.len(), all, "plan {number}: {runs:?}");
        stage.edge.stop().await;
    }
}

#[tokio::test]
async fn damaged_planned_bytes_are_refetched_and_never_served() {
    let (stage, control) = with_control().await;
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    complete(&control, 1).await;
    let file = std::fs::OpenOptions::new().write(true).open(plan_file(&stage, "v1.mp4")).unwrap();
    file.write_all_at(&[0x5a; 16], 2_000_000).unwrap();
    let answer = stage.get("v1/0.m4s").await;
    assert_eq!(answer.bytes(), &stage.film.segment("v1", 0));
    assert_eq!(stage.edge.metric("nearcast_edge_corrupt_chunks_total{source=\"plan\"}").await, 1.0);
    until("a healed file", || async {
        let healed = std::fs::read(plan_file(&stage, "v1.mp4")).unwrap();
        (healed == stage.film.files["v1.mp4"]).then_some(())
    })
    .await;
    complete(&control, 1).await;
}

#[tokio::test]
async fn corrupt_origin_bytes_never_enter_the_plan() {
    let (stage, control) = with_control().await;
    stage.origin.misbehave(&[Misdeed::Corrupt(3 << 20)]);
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    complete(&control, 1).await;
    assert_eq!(std::fs::read(plan_file(&stage, "v1.mp4")).unwrap(), stage.film.files["v1.mp4"]);
}

#[tokio::test]
async fn a_plan_over_the_budget_is_not_complete() {
    let (stage, control) = with_control().await;
    let mut large = plan(&stage, 1);
    large.titles[0].bytes = 2 << 30;
    control.shared.lock().unwrap().plan = Some(large);
    until("the plan", || async {
        (stage.edge.metric("nearcast_edge_plan_number").await == 1.0).then_some(())
    })
    .await;
    let beat = control.last_beat().unwrap();
    assert_eq!((beat.plan_complete, beat.holdings.len()), (None, 0));
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
async fn a_segment_of_the_planned_tier_is_read_once_for_many_players() {
    let (stage, control) = with_control().await;
    control.shared.lock().unwrap().plan = Some(plan(&stage, 1));
    complete(&control, 1).await;
    let stage = Arc::new(stage);
    let players = (0..50).map(|_| stage.get("v1/5.m4s"));
    let answers = futures::future::join_all(players).await;
    let expected = stage.film.segment("v1", 5);
    assert!(answers.iter().all(|answer| answer.bytes() == &expected));
    assert!(answers.iter().all(|answer| answer.verdict().starts_with("hit-")));
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
