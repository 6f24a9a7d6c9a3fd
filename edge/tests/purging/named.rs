//! Purges of many, by tag and by prefix.

use crate::common::{DEADLINE, Item, Proxy, until};
use crate::stage::{Connection, Stage};
use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use service::client::Client;

#[tokio::test]
async fn a_tag_ends_all_that_carry_it_and_nothing_else() {
    let stage = Stage::new().await;
    let things = [("/1", "film season-1"), ("/2", "season-1"), ("/3", "season-10"), ("/4", "")];
    for (path, tags) in things {
        stage.web.has(path, 1, 1000, tags);
        stage.get(path).await;
    }
    stage.web.asked();
    stage.purge(json!({ "tag": "season-1" })).await.unwrap();
    for (path, _) in things {
        stage.get(path).await;
    }
    assert_eq!(stage.web.asked(), ["/1 200", "/2 200"]);
}

/// Found by an audit: a purge by the 140th tag was acknowledged, and the old bytes went on.
#[tokio::test]
async fn what_has_more_tags_than_are_kept_is_ended_by_a_purge_of_any() {
    let numbered: Vec<String> = (0..140).map(|number| format!("t{number}")).collect();
    let many: &'static str = numbered.join(" ").leak();
    let long: &'static str = format!("a {}", "x".repeat(300)).leak();
    let things = [("/many", many), ("/long", long), ("/few", "t1 t2"), ("/none", "")];
    let mut stage = Stage::new().await;
    for (path, tags) in things {
        stage.web.has(path, 1, 1000, tags);
        stage.get(path).await;
    }
    let counted = stage.edge.metric("nearcast_edge_answers_overtagged_total ").await;
    let all_rows =
        async || (stage.edge.metric("nearcast_edge_head_rows").await == 4.0).then_some(());
    until("rows", all_rows).await;
    // Also what comes back from disk, though its bytes are not there any more.
    stage = stage.restarted().await;
    let both: [(bool, &[&str]); 2] = [
        (false, &["/many 200", "/long 200", "/few 206", "/none 206"]),
        (true, &["/many 304", "/long 304"]),
    ];
    stage.web.asked();
    for (soft, asked) in both {
        stage.purge(json!({ "tag": "t139", "soft": soft })).await.unwrap();
        for (path, _) in things {
            stage.get(path).await;
        }
        assert_eq!(stage.web.asked(), asked);
    }
    let tags = stage.explain("/long").await.variants[0].tags.clone();
    assert_eq!(tags, ["(more than are kept: any tag)", "a"]);
    assert_eq!(counted, 2.0);
    // No purge is acknowledged that can end nothing.
    let refused = stage.purge(json!({ "tag": "x".repeat(300) })).await.unwrap_err().to_string();
    assert!(refused.contains("tag: has 300 bytes, expected at most 256"), "{refused}");
}

/// nginx-modules/ngx_cache_purge#32: a wildcard that walks the disk.
#[tokio::test]
async fn a_prefix_over_ten_thousand_objects_is_one_append() {
    let stage = Stage::new().await;
    stage.web.has("/else", 1, 10, "");
    stage.get("/else").await;
    for number in 0..10_000 {
        stage.web.has(&format!("/season-1/{number}"), 1, 10, "");
    }
    let mut fetches = tokio::task::JoinSet::new();
    for worker in 0..20 {
        let mut connection = Connection::open(&stage.edge).await;
        fetches.spawn(async move {
            for number in (worker..10_000).step_by(20) {
                connection.get(&format!("/season-1/{number}"), None).await;
            }
        });
    }
    fetches.join_all().await;
    assert_eq!(stage.web.asked().len(), 10_001);
    let bytes = stage.edge.metric("nearcast_edge_purge_log_bytes").await;
    let request = json!({ "prefix": "http://films.test/season-1/" });
    stage.purge(request).await.unwrap();
    let appended = stage.edge.metric("nearcast_edge_purge_log_bytes").await - bytes;
    assert!(appended > 0.0 && appended < 200.0, "{appended} bytes");
    assert_eq!(stage.edge.metric("nearcast_edge_purges_kept").await, 1.0);

    let mut connection = Connection::open(&stage.edge).await;
    for number in (0..10_000).step_by(500) {
        connection.get(&format!("/season-1/{number}"), None).await;
    }
    connection.get("/else", None).await;
    assert_eq!(stage.web.asked().len(), 20);
}

#[tokio::test]
async fn a_prefix_with_a_query_is_refused_where_queries_are_not_kept_as_they_come() {
    for (key, query, expected) in [
        (json!({}), "?v=7", StatusCode::OK),
        (json!({}), "?", StatusCode::OK),
        (json!({}), "?v=7\u{e4}", StatusCode::OK),
        (json!({}), "?CMCD=a", StatusCode::BAD_REQUEST),
        (json!({ "sort": true }), "?", StatusCode::BAD_REQUEST),
        (json!({ "query": { "keep": ["v"] } }), "?v=7", StatusCode::BAD_REQUEST),
        (json!({ "sort": true }), "?v=7", StatusCode::BAD_REQUEST),
        (json!({ "sort": true }), "", StatusCode::OK),
    ] {
        let proxy = Proxy::with(key.clone()).await;
        proxy.web.put("/film", Item::of(100));
        let film = "/film?v=7%C3%A4&w";
        proxy.get(film).await;
        let prefix = format!("{}{query}", proxy.url("/film"));
        let request = http::Request::post(format!("{}/v1/purge", proxy.edge.admin))
            .header("content-type", "application/json")
            .body(http_body_util::Full::new(Bytes::from(json!({ "prefix": prefix }).to_string())));
        let client = Client::new(DEADLINE, None, None).unwrap();
        let answer = client.send(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), expected, "{key} {prefix}");
        let left = if expected == StatusCode::OK { "origin" } else { "hit-memory" };
        assert_eq!(proxy.get(film).await.verdict(), left, "{key} {prefix}");
    }
}
