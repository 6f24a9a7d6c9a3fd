//! The load generator against real servers: hyper and quinn, over real sockets. Every body is
//! looked at, a wrong one is found, and what breaks is counted.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "the player's tests use the rest")]
mod world;

use nearcast_loadtest::Protocol;
use nearcast_loadtest::load::{Arrivals, Cipher, Plan, Report, Target, Until, run};
use std::sync::Arc;
use std::time::Duration;
use world::edge::{Edge, Fault, title_id};
use world::title::{SEGMENTS, Title};
use xxhash_rust::xxh3::xxh3_64;

/// The segments of one rendition, with what is expected of them.
fn targets(title: &Title) -> Vec<Target> {
    let base = model::route::title_path(&title_id(), &title.version);
    let target = |number| {
        let path = format!("{base}v1/{number}.m4s");
        let body = title.body(&path).unwrap();
        let mut target = Target::new(&format!("/~secret{path}"));
        target.bytes = Some(body.len() as u64);
        target.digest = Some(xxh3_64(&body));
        target
    };
    (0..SEGMENTS).map(target).collect()
}

async fn edge(protocol: Protocol, title: &Arc<Title>) -> Edge {
    Edge::start("edge-a", "127.0.0.2", protocol, title).await
}

fn plan(edge: &Edge, title: &Title, protocol: Protocol, answers: u64) -> Plan {
    let mut plan = Plan::new(protocol, edge.url().parse().unwrap(), targets(title));
    plan.ca_pem = vec![edge.pem.clone()];
    plan.connections = 4;
    plan.streams = 3;
    plan.until = Until::Answers(answers);
    plan
}

/// On a thread of its own, as the server needs this one.
async fn load(plan: Plan) -> Report {
    tokio::task::spawn_blocking(move || run(&plan)).await.unwrap().unwrap()
}

#[tokio::test]
async fn every_body_is_checked_by_every_protocol_and_cipher() {
    let title = Arc::new(Title::new());
    for protocol in Protocol::ALL {
        let edge = edge(protocol, &title).await;
        for cipher in [Cipher::Aes128, Cipher::Aes256] {
            let mut plan = plan(&edge, &title, protocol, 60);
            plan.cipher = cipher;
            plan.server_pids = vec![std::process::id()];
            let bytes: u64 = plan.targets.iter().filter_map(|target| target.bytes).sum();
            let report = load(plan).await;
            assert!(report.is_clean(), "{report}");
            assert_eq!((report.answers, report.checked), (60, 60), "{report}");
            assert_eq!(report.body_bytes, bytes * 10, "{report}");
            assert_eq!((report.first_byte.count, report.whole.count), (60, 60));
            assert!(report.first_byte.p50_ms <= report.whole.max_ms);
            assert!(report.server.unwrap().rss_max_bytes > 1 << 20);
        }
    }
}

#[tokio::test]
async fn a_wrong_body_is_found_by_every_protocol() {
    let title = Arc::new(Title::new());
    for protocol in Protocol::ALL {
        let edge = edge(protocol, &title).await;
        let mut plan = plan(&edge, &title, protocol, 30);
        plan.targets[2].digest = Some(7);
        plan.targets[4].bytes = Some(1);
        let (second, fourth) = (plan.targets[2].path.clone(), plan.targets[4].path.clone());
        let report = load(plan).await;
        // Five times each of six.
        assert_eq!((report.answers, report.wrong, report.failures), (20, 10, 0), "{report}");
        assert!(report.texts.iter().any(|text| text.contains(&second)), "{report}");
        assert!(report.texts.iter().any(|text| text.contains(&fourth)), "{report}");
        assert!(!report.is_clean());
    }
}

/// Of six targets each is looked at every third round; what is cut is found in all.
#[tokio::test]
async fn bodies_that_nobody_looks_at_are_as_long_as_the_others() {
    let title = Arc::new(Title::new());
    for protocol in Protocol::ALL {
        let edge = edge(protocol, &title).await;
        let mut plan = plan(&edge, &title, protocol, 54);
        plan.check_every = 3;
        let bytes: u64 = plan.targets.iter().filter_map(|target| target.bytes).sum();
        let report = load(plan.clone()).await;
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.answers, report.checked), (54, 18), "{report}");
        assert_eq!(report.body_bytes, bytes * 9, "{report}");
        plan.targets[2].digest = Some(7);
        plan.targets[4].bytes = Some(1);
        let report = load(plan.clone()).await;
        assert_eq!((report.answers, report.wrong), (42, 12), "{report}");
        edge.fail(10, Fault::Cut);
        plan.targets = targets(&title);
        let report = load(plan).await;
        assert_eq!((report.answers, report.wrong + report.failures), (10, 44), "{report}");
    }
}

#[tokio::test]
async fn what_breaks_is_counted_and_the_load_goes_on() {
    let title = Arc::new(Title::new());
    for protocol in Protocol::ALL {
        for fault in [Fault::Busy, Fault::Cut] {
            let edge = edge(protocol, &title).await;
            edge.fail(10, fault);
            let mut plan = plan(&edge, &title, protocol, 24);
            (plan.connections, plan.streams) = (2, 1);
            let report = load(plan).await;
            assert_eq!(report.answers, 10, "{protocol} {fault:?}: {report}");
            assert_eq!(report.wrong + report.failures, 14, "{protocol} {fault:?}: {report}");
            assert_eq!(fault == Fault::Busy, report.texts[0].contains("status 503"), "{report}");
        }
    }
}

#[tokio::test]
async fn an_open_loop_asks_as_often_as_it_should_and_slow_readers_get_their_bytes() {
    let title = Arc::new(Title::new());
    for protocol in Protocol::ALL {
        let edge = edge(protocol, &title).await;
        for arrivals in [Arrivals::Poisson(2000.0), Arrivals::Constant(2000.0)] {
            let mut plan = plan(&edge, &title, protocol, 40);
            plan.arrivals = arrivals;
            plan.slow = 2;
            plan.slow_bytes_per_s = 100_000;
            let report = load(plan).await;
            assert!(report.is_clean(), "{report}");
            assert!(report.answers >= 40 && report.first_byte.count == 40, "{report}");
            assert!(report.seconds > 0.015, "{report}");
        }
    }
}

#[tokio::test]
async fn a_load_that_can_not_be_run_says_why() {
    let title = Arc::new(Title::new());
    let edge = edge(Protocol::H1, &title).await;
    let good = plan(&edge, &title, Protocol::H1, 1);
    let bad = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        std::thread::spawn(move || run(&plan)).join().unwrap().unwrap_err().to_string()
    };
    assert!(bad(&|plan| plan.protocol = Protocol::H2).contains("https://"));
    assert!(bad(&|plan| plan.targets.clear()).contains("path"));
    assert!(bad(&|plan| plan.arrivals = Arrivals::Constant(0.0)).contains("rate"));
    assert!(bad(&|plan| plan.core = Some(1000)).contains("core 1000"));
    assert!(bad(&|plan| plan.server_pids = vec![u32::MAX]).contains("4294967295"));
}

#[tokio::test]
async fn the_tool_prints_json_and_fails_when_a_body_is_wrong() {
    let title = Arc::new(Title::new());
    let edge = edge(Protocol::H1, &title).await;
    let target = targets(&title).swap_remove(0);
    let tool = |digest: u64| {
        let line = format!("{} {} {digest:x}", target.path, target.bytes.unwrap());
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_nearcast-load"));
        command.args(["--json", "--requests", "3", "--path", &line, "--server-pid"]);
        command.arg(std::process::id().to_string()).arg(edge.url());
        command
    };
    let good = tool(target.digest.unwrap()).output().await.unwrap();
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let report: Report = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!((report.answers, report.protocol.as_str()), (3, "h1"));
    let json: serde_json::Value = serde_json::from_slice(&good.stdout).unwrap();
    for field in ["requests_per_s", "gb_per_s", "client_busy", "client_limited"] {
        assert!(!json[field].is_null(), "{field}");
    }
    assert!(json["server"]["cpu_s_per_gb"].is_number() && json["first_byte"]["p99_ms"].is_number());
    let wrong = tool(1).output().await.unwrap();
    assert!(!wrong.status.success());
    let report: Report = serde_json::from_slice(&wrong.stdout).unwrap();
    assert_eq!((report.answers, report.wrong), (0, 3));
}

/// Handshakes of TLS and QUIC end; nothing is left to wait for.
#[tokio::test]
async fn a_server_that_is_not_there_ends_the_load() {
    let title = Arc::new(Title::new());
    let gone = edge(Protocol::H2, &title).await;
    let mut plan = plan(&gone, &title, Protocol::H2, 5);
    gone.stop().await;
    plan.until = Until::Elapsed(Duration::from_millis(50));
    plan.warm_up = Duration::ZERO;
    let report = load(plan).await;
    assert!(report.failures > 0 && report.answers == 0, "{report}");
    assert!(report.texts[0].contains("can't be reached"), "{report}");
}
