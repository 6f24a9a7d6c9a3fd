//! Stories of purges on a running edge before a web origin: what was purged never comes back,
//! whatever was cached of it, fetched at that moment, or restarted since.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod arriving;
mod calls;
#[path = "../common/mod.rs"]
mod common;
mod named;
mod origin;
mod stage;

use common::{DEADLINE, Edge, until};
use http::StatusCode;
use model::admin::{Explanation, PurgeList};
use nearcast_edge::Settings;
use origin::Web;
use serde_json::json;
use service::client::Client;
use stage::{Connection, Stage, before, verdict};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn what_is_softly_purged_is_revalidated_and_what_is_hardly_purged_is_gone() {
    let stage = Stage::new().await;
    stage.web.has("/film.mp4", 1, 2 * MIB, "film");
    assert_eq!(stage.get("/film.mp4").await.status, StatusCode::OK);
    assert_eq!(verdict(&stage.get("/film.mp4").await), "hit-memory");
    assert_eq!(stage.web.asked(), ["/film.mp4 200"]);

    stage.purge(json!({ "url": "http://films.test/film.mp4", "soft": true })).await.unwrap();
    assert_eq!(stage.explain("/film.mp4").await.variants[0].purge, "soft");
    assert_eq!(verdict(&stage.get("/film.mp4").await), "revalidated");
    assert_eq!(verdict(&stage.get("/film.mp4").await), "hit-memory");
    assert_eq!(stage.web.asked(), ["/film.mp4 304"], "a soft purge is one question");

    stage.purge(json!({ "all": true })).await.unwrap();
    assert_eq!(verdict(&stage.get("/film.mp4").await), "origin");
    assert_eq!(stage.web.asked(), ["/film.mp4 200"]);
}

#[tokio::test]
async fn a_restart_after_a_purge_undoes_nothing() {
    let stage = Stage::new().await;
    for path in ["/purged", "/kept", "/soft"] {
        stage.web.has(path, 1, 1000, "");
        stage.get(path).await;
    }
    // On disk, all three: the first ones before the purge.
    until("rows", || async {
        (stage.edge.metric("nearcast_edge_head_rows").await == 3.0).then_some(())
    })
    .await;
    let first = stage.purge(json!({ "url": "http://films.test/purged" })).await.unwrap();
    let soft = json!({ "url": "http://films.test/soft", "soft": true, "by": "ada" });
    let number = stage.purge(soft).await.unwrap();
    let stage = stage.restarted().await;
    stage.web.asked();

    let url = format!("{}/v1/purges?last=1", stage.edge.admin);
    let list: PurgeList = stage.admin.get_json(&url).await.unwrap();
    assert_eq!(
        (list.number, list.purges[0].number, &*list.purges[0].note),
        (number, number, "ada")
    );
    assert!(number > first);
    let purge = |explanation: Explanation| explanation.variants[0].purge.clone();
    assert_eq!(purge(stage.explain("/purged").await), "hard");
    assert_eq!(purge(stage.explain("/soft").await), "soft");
    assert_eq!(purge(stage.explain("/kept").await), "valid");
    stage.web.has("/purged", 2, 1000, "");
    assert_eq!(stage.get("/purged").await.header("etag"), "\"v2\"");
}

/// A purge comes to one node after another: what the next node has kept from before it must not
/// be taken for new.
#[tokio::test]
async fn what_a_parent_has_kept_since_before_the_purge_is_not_taken() {
    let web = Web::start().await;
    let (dir, above) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let parent = Settings { id: Some("parent".into()), ..before(above.path(), &web) };
    let parent = Edge::start(parent).await;
    let mut below = before(dir.path(), &web);
    below.hierarchy.parents =
        vec![upstream::hierarchy::Peer { id: "parent".into(), url: parent.http.clone() }];
    let edge = Edge::start(below).await;
    let admin = Client::new(DEADLINE, None, None).unwrap();
    let stage = Stage { dir, web, edge, admin };
    for (path, tag, soft) in [("/a", "hard", false), ("/b", "soft", true)] {
        stage.web.has(path, 1, 1000, tag);
        Connection::open(&parent).await.get(path, None).await;
        assert_eq!(stage.get(path).await.header("x-version"), "1");
        assert_eq!(stage.web.asked(), [format!("{path} 200")], "the parent was not asked");
        stage.web.has(path, 2, 1000, tag);
        stage.purge(json!({ "tag": tag, "soft": soft })).await.unwrap();
        for _ in 0..2 {
            assert_eq!(stage.get(path).await.header("x-version"), "2", "{tag}");
        }
        assert_eq!(stage.web.asked(), [format!("{path} 200")]);
    }
}
