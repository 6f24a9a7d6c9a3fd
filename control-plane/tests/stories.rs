//! Stories over the real server: each says what a caller does and what it sees.

#![allow(clippy::unwrap_used, reason = "a story that panics has failed")]

mod world;

use http::{Method, Request};
use http_body_util::Full;
use model::fleet::EdgeView;
use serde_json::{Value, json};
use token::Verifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use world::{Answer, MIDNIGHT_MS, World, event};

const NOW_S: u64 = MIDNIGHT_MS / 1000;

async fn verifier(world: &World) -> Verifier {
    let view: EdgeView =
        serde_json::from_value(world.get("/v1/edge-view", "edge").await.body).unwrap();
    Verifier::new(&view.keys).unwrap()
}

fn token(answer: &Answer) -> String {
    answer.body["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_play_is_granted() {
    let world = World::open(None).await;
    let answer = world.playback("film", "anna").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    let (token, version) = (token(&answer), answer.body["version"].as_str().unwrap().to_owned());
    let path = format!("/t/film/{version}/v1/0.m4s");
    let claims = verifier(&world).await.verify(&token, &path, "GET", NOW_S).unwrap();
    assert_eq!(hex::encode(claims.play), answer.body["play"].as_str().unwrap());
    assert_eq!((claims.not_before, claims.expires), (NOW_S, NOW_S + 6 * 3600));
    assert_eq!(answer.body["expires"], NOW_S + 6 * 3600);
    let first = answer.body["edges"][0]["id"].as_str().unwrap();
    assert_eq!(
        answer.body["hls"][0],
        format!("http://{first}.test:8080/~{token}/t/film/{version}/hls.m3u8")
    );
    assert_eq!(answer.body["dash"].as_array().unwrap().len(), 2);
    let steering = format!(
        "{}/v1/steering/~{token}/t/film/{version}/steering.json?base={first}&scheme=http",
        world.url
    );
    assert_eq!(answer.body["steering"], steering);
}

#[tokio::test]
async fn a_long_title_gets_a_long_token() {
    let mut world = World::open(None).await;
    world.publish("epic", 1, 4 * 3_600_000, &[("v1.mp4", 1)]).await;
    world.shows("epic").await;
    let answer = world.playback("epic", "anna").await;
    assert_eq!(answer.body["expires"], NOW_S + 12 * 3600);
}

#[tokio::test]
async fn each_refusal_has_its_reasons() {
    let world = World::open(Some("network,country\n127.0.0.0/8,DE\n")).await;
    assert_eq!(world.playback("film", "anna").await.status, 200);
    let unknown = world.playback("nothing", "anna").await;
    assert_eq!((unknown.status, unknown.code()), (404, "unknown-title"));
    let answer = world.playback("film", "nobody").await;
    assert_eq!((answer.status, answer.reasons()), (403, vec!["unknown-profile"]));
    assert_eq!(world.playback("film", "otto").await.reasons(), ["account-inactive"]);
    for (windows, wanted) in [
        (json!([{"country": "DE", "from": null, "until": null}]), None),
        (json!([{"country": "FR"}]), Some("not-in-country")),
        (json!([{"country": "*", "from": "2026-11-21T00:00:01Z"}]), Some("not-yet-available")),
        (json!([{"country": "DE", "until": "2026-11-21T00:00:00Z"}]), Some("no-longer-available")),
        (
            json!([{"country": "DE", "from": "2026-11-21T00:00:00Z", "until": "2026-11-21T00:00:01Z"}]),
            None,
        ),
        (json!([]), None),
    ] {
        assert_eq!(world.put("/v1/titles/film/windows", windows.clone()).await.status, 204);
        let answer = world.playback("film", "anna").await;
        match wanted {
            None => assert_eq!(answer.status, 200, "{windows}"),
            Some(code) => assert_eq!(answer.reasons(), [code], "{windows}"),
        }
    }
    world.put("/v1/titles/film/windows", json!([{"country": "FR"}])).await;
    world.turn(60_000);
    let all = world.playback("film", "otto").await;
    assert_eq!(all.reasons(), ["account-inactive", "not-in-country", "no-edge"]);
    assert_eq!(all.headers["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn the_country_comes_from_the_address_alone() {
    let world = World::open(None).await;
    world.put("/v1/titles/film/windows", json!([{"country": "DE"}])).await;
    let body = json!({"title": "film", "profile": "anna", "device": "tv"}).to_string();
    let request = Request::post(format!("{}/v1/playback", world.url))
        .header("authorization", format!("Bearer {}", world.credential("app")))
        .header("x-forwarded-for", "198.51.100.1")
        .header("x-country", "DE")
        .header("cf-ipcountry", "DE")
        .body(Full::new(body.into()))
        .unwrap();
    assert_eq!(world.send(request).await.reasons(), ["country-unknown"]);
    world.put("/v1/titles/film/windows", json!([{"country": "DE"}, {"country": "*"}])).await;
    assert_eq!(world.playback("film", "anna").await.status, 200);
}

#[tokio::test]
async fn an_edge_that_holds_the_title_comes_first() {
    let mut world = World::open(None).await;
    let version = world.publish("film", 2, 60_000, &[("v1.mp4", 500), ("a1.mp4", 100)]).await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while world.playback("film", "anna").await.body["version"] != json!(version) {
        assert!(std::time::Instant::now() < deadline, "the new cut never played");
    }
    world.shows("film").await;
    for holder in ["a", "b"] {
        let other = if holder == "a" { "b" } else { "a" };
        world.beat(other, &[("film", version, "v1.mp4")]).await;
        world.beat(holder, &[("film", version, "v1.mp4"), ("film", version, "a1.mp4")]).await;
        let edges = world.playback("film", "anna").await.body["edges"].clone();
        assert_eq!((&edges[0]["id"], &edges[0]["holds"]), (&json!(holder), &json!(true)));
        assert_eq!((&edges[1]["id"], &edges[1]["holds"]), (&json!(other), &json!(false)));
    }
    let overview = world.get("/v1/overview", "operator").await.body;
    assert_eq!(overview["titles"][0]["held_by"], json!(["b"]));
    assert_eq!(overview["edges"][1]["planned_bytes"], 600);
    assert_eq!(overview["edges"][1]["planned_files"], 2);
    assert_eq!(overview["edges"][1]["hit_ratio"], 0.4);
}

#[tokio::test]
async fn an_edge_that_falls_silent_or_drains_is_left_out() {
    let world = World::open(None).await;
    let view = world.get("/v1/edge-view", "edge").await.body["version"].as_u64().unwrap();
    world.turn(3000);
    assert_eq!(world.playback("film", "anna").await.body["edges"].as_array().unwrap().len(), 2);
    assert_eq!(world.beat("b", &[]).await.body["view"], view);
    world.turn(1);
    let edges = world.playback("film", "anna").await.body["edges"].clone();
    assert_eq!((edges[0]["id"].as_str(), edges.as_array().unwrap().len()), (Some("b"), 1));
    assert_eq!(world.beat("b", &[]).await.body["view"], view + 1);
    world.beat_of("b", json!({"serving": false}), &[]).await;
    no_edge_yet(&world.playback("film", "anna").await);
    assert_eq!(world.beat("a", &[]).await.body["view"], view + 3);
    assert_eq!(world.playback("film", "anna").await.body["edges"][0]["id"], "a");
}

#[tokio::test]
async fn events_become_demand_once() {
    let world = World::open(None).await;
    let token = token(&world.playback("film", "anna").await);
    world.turn(20_000);
    let first = json!([event(0, "start", 0, 100), event(1, "progress", 10_000, 400)]);
    assert_eq!(world.events(&token, first.clone()).await.status, 204);
    assert_eq!(world.demand("2026-11-22").await, [("film".into(), 1, 10_000, 400)]);
    // The answer was lost: the player says it again, with one more. Out of order does no harm.
    assert_eq!(world.events(&token, first).await.status, 204);
    let late = json!([
        event(3, "stop", 19_000, 900),
        event(1, "progress", 9, 9),
        event(2, "progress", 15_000, 600)
    ]);
    assert_eq!(world.events(&token, late).await.status, 204);
    assert_eq!(world.demand("2026-11-22").await, [("film".into(), 1, 19_000, 900)]);
    assert_eq!(world.demand("2026-11-21").await, []);
    let overview = world.get("/v1/overview", "operator").await.body;
    assert_eq!(overview["titles"][0]["plays_today"], 1);
    assert_eq!(overview["profiles"], json!(["anna", "otto"]));
}

#[tokio::test]
async fn a_play_counts_for_the_day_it_began() {
    let world = World::open(None).await;
    world.turn(86_400_000 - 10_000);
    let token = token(&{
        world.beat("a", &[]).await;
        world.playback("film", "anna").await
    });
    world.events(&token, json!([event(0, "start", 0, 0)])).await;
    world.turn(60_000);
    world.events(&token, json!([event(1, "progress", 60_000, 700)])).await;
    assert_eq!(world.demand("2026-11-22").await, [("film".into(), 1, 60_000, 700)]);
    assert_eq!(world.demand("2026-11-23").await, []);
}

#[tokio::test]
async fn absurd_totals_are_cut_to_what_can_be() {
    let world = World::open(None).await;
    let token = token(&world.playback("film", "anna").await);
    world.turn(10_000);
    let absurd = json!([event(0, "start", u64::MAX, u64::MAX), event(u32::MAX, "stop", 5, 5)]);
    assert_eq!(world.events(&token, absurd).await.status, 204);
    // 10 s at twice the speed and a minute for clocks; the bytes of all its files.
    assert_eq!(world.demand("2026-11-22").await, [("film".into(), 1, 80_000, 1200)]);
}

#[tokio::test]
async fn events_without_a_valid_token_do_not_count() {
    let world = World::open(None).await;
    let good = token(&world.playback("film", "anna").await);
    let stranger = token::Signer::generate().unwrap().mint(&token::Grant {
        play: [1; 16],
        title: "film".parse().unwrap(),
        not_before: NOW_S,
        expires: NOW_S + 100,
    });
    let events = json!([event(0, "start", 1, 1)]);
    let flipped = format!("{}{}", &good[..good.len() - 5], "AAAAA");
    for (bad, code) in [
        (&stranger, "token-unknown-key"),
        (&flipped, "token-bad-signature"),
        (&good[..40].to_owned(), "token-malformed"),
        (&String::new(), "token-malformed"),
    ] {
        let answer = world.events(bad, events.clone()).await;
        assert_eq!((answer.status, answer.code()), (401, code));
    }
    world.turn(6 * 3_600_000);
    let expired = world.events(&good, events).await;
    assert_eq!((expired.status, expired.code()), (403, "token-expired"));
    assert_eq!(world.demand("2026-11-22").await, []);
    let many: Vec<Value> = (0..101).map(|seq| event(seq, "progress", 0, 0)).collect();
    let answer = world.events(&good, json!(many)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().starts_with("events: 101"), "{}", answer.message());
}

#[tokio::test]
async fn an_acknowledged_event_survives_a_crash() {
    let world = World::open(None).await;
    let token = token(&world.playback("film", "anna").await);
    world.events(&token, json!([event(0, "start", 0, 300)])).await;
    // The disk as a crash leaves it: nothing was closed.
    let crashed = world.folder.join("crashed");
    std::fs::create_dir_all(crashed.join("data/credentials")).unwrap();
    for folder in ["data", "data/credentials"] {
        for file in std::fs::read_dir(world.folder.join(folder)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file()
                && !file.file_name().to_string_lossy().ends_with("-shm")
            {
                std::fs::copy(file.path(), crashed.join(folder).join(file.file_name())).unwrap();
            }
        }
    }
    let second = world.start_in(&crashed).await;
    let mut after = world;
    after.url = second.url.clone();
    after.shows("film").await;
    assert_eq!(after.demand("2026-11-22").await, [("film".into(), 1, 0, 300)]);
    assert_eq!(after.events(&token, json!([event(0, "start", 0, 300)])).await.status, 204);
    assert_eq!(after.demand("2026-11-22").await, [("film".into(), 1, 0, 300)]);
}

/// An app must not take "no edge was heard of yet" for "this viewer may not".
fn no_edge_yet(answer: &Answer) {
    assert_eq!((answer.status, answer.code()), (503, "no-edge"), "{answer:?}");
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn a_restart_keeps_what_it_was_told() {
    let mut world = World::open(None).await;
    world
        .put("/v1/titles/film/windows", json!([{"country": "*", "until": "2026-11-22T00:00:00Z"}]))
        .await;
    let before = world.playback("film", "anna").await;
    let plans = json!({"date": "2026-11-21", "plans": [{"number": 0, "date": "", "edge": "a", "titles": []}]});
    assert_eq!(world.post("/v1/plans", "operator", plans).await.body["number"], 1);
    let view = world.get("/v1/edge-view", "edge").await.body["version"].as_u64().unwrap();
    world.turn(1000);
    world.restart().await;
    world.shows("film").await;
    no_edge_yet(&world.playback("film", "anna").await);
    assert_eq!(world.playback("film", "otto").await.status, 403);
    let beat = world.beat("a", &[]).await.body;
    assert_eq!(beat["plan"], 1);
    assert!(beat["view"].as_u64().unwrap() > view);
    assert_eq!(world.playback("film", "anna").await.status, 200);
    assert_eq!(world.playback("film", "otto").await.reasons(), ["account-inactive"]);
    let verifier = verifier(&world).await;
    assert!(verifier.verify_play(&token(&before), NOW_S).is_ok(), "the key has changed");
    world.turn(86_400_000);
    world.beat("a", &[]).await;
    assert_eq!(world.playback("film", "anna").await.reasons(), ["no-longer-available"]);
}

#[tokio::test]
async fn events_are_kept_for_their_time_and_demand_for_longer() {
    let mut world = World::open(None).await;
    let token = token(&world.playback("film", "anna").await);
    world.events(&token, json!([event(0, "start", 0, 300)])).await;
    let database = world.folder.join("data/control-plane.sqlite");
    let stored = || {
        let database = rusqlite::Connection::open(&database).unwrap();
        let count = "SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM plays)";
        database.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(stored(), 2);
    world.turn(37 * 86_400_000);
    world.restart().await;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while stored() > 0 {
        assert!(std::time::Instant::now() < until, "they are never deleted");
        tokio::task::yield_now().await;
    }
    world.shows("film").await;
    assert_eq!(world.demand("2026-11-22").await, [("film".into(), 1, 0, 300)]);
}

#[tokio::test]
async fn a_plan_reaches_its_edge() {
    let world = World::open(None).await;
    let none = world.get("/v1/edges/a/plan", "edge").await;
    assert_eq!((none.status, none.code()), (404, "no-plan"));
    assert_eq!(world.beat("a", &[]).await.body.get("plan"), None);
    let version = world.playback("film", "anna").await.body["version"].clone();
    let title = json!({"title": "film", "version": version, "bytes": 1200, "predicted_bytes": 9});
    let plan = |edge: &str| json!({"number": 77, "date": "x", "edge": edge, "titles": [title]});
    let run = |edges: &[&str]| {
        let plans: Vec<Value> = edges.iter().map(|edge| plan(edge)).collect();
        json!({"date": "2026-11-22", "plans": plans})
    };
    assert_eq!(world.post("/v1/plans", "operator", run(&["a", "b"])).await.body["number"], 1);
    assert_eq!(world.post("/v1/plans", "operator", run(&["b"])).await.body["number"], 2);
    assert_eq!(world.beat("a", &[]).await.body["plan"], 1);
    assert_eq!(world.beat("b", &[]).await.body["plan"], 2);
    let mine = world.get("/v1/edges/a/plan", "edge").await.body;
    assert_eq!((&mine["number"], &mine["date"]), (&json!(1), &json!("2026-11-22")));
    assert_eq!(mine["titles"][0], title);
    let overview = world.get("/v1/overview", "operator").await.body;
    assert_eq!(overview["plan"]["number"], 2);
    assert_eq!(overview["plan"]["plans"].as_array().unwrap().len(), 1);
    let twice = world.post("/v1/plans", "operator", run(&["a", "a"])).await;
    assert_eq!((twice.status, twice.message()), (400, "plans[1].edge: a second plan for a"));
}

#[tokio::test]
async fn steering_names_edges_best_first() {
    let world = World::open(None).await;
    let answer = world.playback("film", "anna").await;
    let best = answer.body["edges"][0]["id"].as_str().unwrap().to_owned();
    let other = if best == "a" { "b" } else { "a" };
    let steering = answer.body["steering"].as_str().unwrap();
    let path = steering.strip_prefix(&world.url).unwrap();
    let world = &world;
    let ask = |path: String| async move { world.call(Method::GET, &path, None, vec![]).await };
    let manifest = ask(format!("{path}&_HLS_pathway=.&_HLS_throughput=1")).await;
    assert_eq!(manifest.status, 200, "{manifest:?}");
    assert_eq!(manifest.headers["access-control-allow-origin"], "*");
    assert_eq!(manifest.body["PATHWAY-PRIORITY"], json!([".", other]));
    assert_eq!(manifest.body["RELOAD-URI"], steering);
    assert_eq!(manifest.body["TTL"], 30);
    // The best edge dies: the other one, whose manifest was not loaded, is next.
    world.turn(3001);
    world.beat(other, &[]).await;
    let manifest = ask(path.to_owned()).await;
    assert_eq!(manifest.body["PATHWAY-PRIORITY"][0], other);
    let (head, _) = path.split_once('?').unwrap();
    assert_eq!(ask(head.to_owned()).await.status, 400);
    assert_eq!(ask(format!("{head}?base=a&scheme=ftp")).await.status, 400);
    assert_eq!(
        ask(head.replace("/t/film/", "/t/filn/") + "?base=a").await.code(),
        "token-wrong-path"
    );
    assert_eq!(ask(head.replace("steering.json", "hls.m3u8") + "?base=a").await.status, 404);
    assert_eq!(ask("/v1/steering/~x/t/film".into()).await.status, 400);
}

#[tokio::test]
async fn a_bad_body_is_told_which_field() {
    let world = World::open(None).await;
    let mut told = Vec::new();
    let long = "x".repeat(129);
    for (path, body) in [
        ("/v1/playback", "{".to_owned()),
        ("/v1/playback", r#"{"title":"film","profile":"anna"}"#.into()),
        ("/v1/playback", r#"{"title":"film","profile":7,"device":"tv"}"#.into()),
        ("/v1/playback", r#"{"title":"../x","profile":"anna","device":"tv"}"#.into()),
        ("/v1/playback", r#"{"title":"film","profile":"anna","device":"tv","country":"DE"}"#.into()),
        ("/v1/playback", format!(r#"{{"title":"film","profile":"anna","device":"{long}"}}"#)),
        ("/v1/playback", r#"{"title":"film","profile":"","device":"tv"}"#.into()),
        ("/v1/playback", r#"{"title":"film","profile":"anna","device":"tv"} {}"#.into()),
        ("/v1/plans", r#"{"date":"today","plans":[]}"#.into()),
        ("/v1/plans", r#"{"date":"2026-11-21","plans":[{"number":0,"date":"","edge":"A","titles":[]}]}"#.into()),
        ("/v1/edges/a/heartbeat", r#"{"urls":["http://a/"],"boot":1,"serving":true,"load":0,"counters":{"requests":0,"bytes":0,"hit_bytes":0,"origin_bytes":0,"connections":0},"planned_bytes_max":0,"holdings":[]}"#.into()),
        ("/v1/edges/A/heartbeat", r#"{"urls":["http://a"],"boot":1,"serving":true,"load":0,"counters":{"requests":0,"bytes":0,"hit_bytes":0,"origin_bytes":0,"connections":0},"planned_bytes_max":0,"holdings":[]}"#.into()),
        ("/v1/events", r#"{"token":"x","events":[{"seq":-1}]}"#.into()),
    ] {
        let answer = world.call(Method::POST, path, Some("operator"), body.into_bytes()).await;
        assert_eq!((answer.status, answer.code()), (400, "bad-request"), "{answer:?}");
        told.push(format!("POST {path}: {}", answer.message()));
    }
    for (path, body) in [
        ("/v1/accounts/x", json!({"active": "yes"})),
        ("/v1/profiles/x", json!({"account": "nobody"})),
        ("/v1/titles/film/windows", json!([{"country": "de"}])),
        ("/v1/titles/film/windows", json!([{"country": "DE", "from": "soon"}])),
        (
            "/v1/titles/film/windows",
            json!([{"country": "DE", "from": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]),
        ),
        ("/v1/titles/Film/windows", json!([])),
    ] {
        let answer = world.put(path, body).await;
        assert_eq!((answer.status, answer.code()), (400, "bad-request"), "{answer:?}");
        told.push(format!("PUT {path}: {}", answer.message()));
    }
    for path in ["/v1/planner/input", "/v1/planner/input?date=2026-02-30"] {
        let answer = world.get(path, "operator").await;
        assert_eq!(answer.status, 400);
        told.push(format!("GET {path}: {}", answer.message()));
    }
    insta::assert_snapshot!(told.join("\n"));
    let large = world.call(Method::POST, "/v1/playback", Some("app"), vec![b' '; 70_000]).await;
    assert_eq!((large.status, large.code()), (413, "too-large"));
}

#[tokio::test]
async fn each_call_wants_its_credential() {
    let world = World::open(None).await;
    for (method, path, role) in [
        (Method::POST, "/v1/playback", "app"),
        (Method::POST, "/v1/edges/a/heartbeat", "edge"),
        (Method::GET, "/v1/edges/a/plan", "edge"),
        (Method::GET, "/v1/edge-view", "edge"),
        (Method::GET, "/v1/planner/input?date=2026-11-21", "operator"),
        (Method::POST, "/v1/plans", "operator"),
        (Method::GET, "/v1/overview", "operator"),
        (Method::PUT, "/v1/accounts/x", "operator"),
        (Method::PUT, "/v1/profiles/x", "operator"),
        (Method::PUT, "/v1/titles/film/windows", "operator"),
    ] {
        let none = world.call(method.clone(), path, None, vec![]).await;
        assert_eq!((none.status, none.code()), (401, "unauthorized"), "{method} {path}");
        assert_eq!(none.headers["www-authenticate"], "Bearer");
        let wrong = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", world.url))
            .header("authorization", format!("Bearer {}", "0".repeat(64)))
            .body(Full::default())
            .unwrap();
        assert_eq!(world.send(wrong).await.status, 401, "{method} {path}");
        for other in ["app", "edge", "operator"] {
            let answer = world.call(method.clone(), path, Some(other), vec![]).await;
            let allowed = other == role || other == "operator";
            assert_eq!(answer.status == 403, !allowed, "{method} {path} as {other}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn pages_from_anywhere_may_play() {
    let world = World::open(None).await;
    for path in ["/v1/playback", "/v1/events", "/v1/steering/~x/t/f/v/steering.json"] {
        let answer = world.call(Method::OPTIONS, path, None, vec![]).await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert_eq!(answer.headers["access-control-allow-headers"], "Authorization, Content-Type");
    }
    let own = world.get("/v1/overview", "operator").await;
    assert_eq!(own.headers.get("access-control-allow-origin"), None);
}

#[tokio::test]
async fn the_console_is_served() {
    let world = World::empty(None).await;
    let page = world.call(Method::GET, "/", None, vec![]).await;
    assert_eq!(
        (page.status, &page.headers["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("connect-src 'self' blob: data: http: https:"));
    let again = Request::get(format!("{}/index.html", world.url))
        .header("if-none-match", page.headers["etag"].clone())
        .body(Full::default())
        .unwrap();
    assert_eq!(world.send(again).await.status, 304);
    for missing in ["/nothing.js", "/../Cargo.toml", "/%2e%2e/package.json"] {
        assert_eq!(world.call(Method::GET, missing, None, vec![]).await.status, 404, "{missing}");
    }
    let wrong = world.call(Method::DELETE, "/v1/overview", Some("operator"), vec![]).await;
    assert_eq!((wrong.status, wrong.code()), (405, "method-not-allowed"));
    assert_eq!(world.get("/v1/nothing", "operator").await.code(), "no-such-path");
}

#[tokio::test]
async fn it_is_ready_once_the_catalog_is_read_and_counts_what_it_does() {
    let world = World::open(None).await;
    world.playback("film", "anna").await;
    world.playback("film", "otto").await;
    let admin = world.running.as_ref().unwrap().admin_url.clone();
    let get = |path: &str| Request::get(format!("{admin}{path}")).body(Full::default()).unwrap();
    assert_eq!(world.send(get("/readyz")).await.status, 200);
    let metrics = world.send(get("/metrics")).await.text;
    for line in [
        "nearcast_control_plane_decisions_total{outcome=\"granted\"} 1",
        "nearcast_control_plane_decisions_total{outcome=\"account-inactive\"} 1",
        "nearcast_control_plane_decision_seconds_count 2",
        "nearcast_control_plane_heartbeats_total 2",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn a_bad_publish_record_hides_no_other_title() {
    let mut world = World::open(None).await;
    let key = "published/other/00112233445566778899aabbccddeeff";
    world.store.put_if_absent(key, "{\"title\":".into()).await.unwrap();
    let film = world.store.list("published/").await.unwrap()[0].key.clone();
    let record = world.store.get(&film, 1 << 20).await.unwrap();
    world
        .store
        .put_if_absent("published/moved/00112233445566778899aabbccddeeff", record)
        .await
        .unwrap();
    world.publish("next", 1, 1000, &[("v1.mp4", 1)]).await;
    world.shows("next").await;
    assert_eq!(world.playback("film", "anna").await.status, 200);
    assert_eq!(world.playback("moved", "anna").await.status, 404);
}

#[tokio::test]
async fn many_players_report_at_once() {
    let world = World::open(None).await;
    let mut tokens = Vec::new();
    for _ in 0..40 {
        tokens.push(token(&world.playback("film", "anna").await));
    }
    world.turn(10_000);
    let reports = tokens.iter().map(|token| world.events(token, json!([event(0, "start", 10, 7)])));
    for answer in futures::future::join_all(reports).await {
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    assert_eq!(world.demand("2026-11-22").await, [("film".into(), 40, 400, 280)]);
}

#[tokio::test]
async fn a_drain_can_be_watched_until_the_last_request_is_answered() {
    let mut world = World::open(None).await;
    let admin = world.running.as_ref().unwrap().admin_url.clone();
    let mut slow = TcpStream::connect(world.url.strip_prefix("http://").unwrap()).await.unwrap();
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\
                content-type: application/json\r\nexpect: 100-continue\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    // From here on the request is under way.
    let mut begun = [0; 12];
    slow.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 100");
    world.drain();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let ready = Request::get(format!("{admin}/readyz")).body(Full::default()).unwrap();
        if world.send(ready).await.status == 503 {
            break;
        }
        assert!(std::time::Instant::now() < until, "it still says that it is ready");
    }
    slow.write_all(b"{}").await.unwrap();
    let mut rest = String::new();
    slow.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("HTTP/1.1 400"), "{rest}");
    world.stop().await;
    assert!(TcpStream::connect(admin.strip_prefix("http://").unwrap()).await.is_err());
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let mut world = World::open(None).await;
    let address = world.url.strip_prefix("http://").unwrap().to_owned();
    let silent = TcpStream::connect(&address).await.unwrap();
    let begun = std::time::Instant::now();
    world.stop().await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(&address).await.is_err(), "it still listens");
    drop(silent);
}
