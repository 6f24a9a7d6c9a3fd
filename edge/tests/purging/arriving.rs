//! What is here in part, or on its way.

use crate::MIB;
use crate::common::until;
use crate::origin::Thing;
use crate::stage::{Connection, Stage};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use model::admin::ChunkPlace;
use serde_json::json;

/// apache/trafficserver#4790: a purge that reached the blocks before the first gap alone.
#[tokio::test]
async fn a_purge_of_an_object_with_gaps_ends_all_of_it() {
    let stage = Stage::new().await;
    let old = stage.web.has("/film.mp4", 1, 8 * MIB, "film").body();
    for chunk in [0, 5] {
        let answer = stage.part("/film.mp4", chunk * MIB + 7, 100).await;
        assert_eq!(answer.bytes()[..], old[chunk * MIB + 7..][..100]);
    }
    let (memory, absent) = (ChunkPlace::Memory, ChunkPlace::Absent);
    let wanted = [(0, 0, memory), (1, 4, absent), (5, 5, memory), (6, 7, absent)];
    until("both chunks", || async { (stage.chunks("/film.mp4").await == wanted).then_some(()) })
        .await;
    let new = stage.web.has("/film.mp4", 2, 8 * MIB, "film").body();
    let answer = stage.part("/film.mp4", 5 * MIB, 100).await;
    assert_eq!(answer.bytes()[..], old[5 * MIB..][..100], "it was not cached at all");

    stage.purge(json!({ "url": "http://films.test/film.mp4" })).await.unwrap();
    for chunk in [5, 0, 1] {
        let answer = stage.part("/film.mp4", chunk * MIB + 7, 100).await;
        assert_eq!(answer.bytes()[..], new[chunk * MIB + 7..][..100], "chunk {chunk}");
    }
}

#[tokio::test]
async fn a_purge_reaches_what_is_being_fetched() {
    let stage = Stage::new().await;
    let old = stage.web.has("/film.mp4", 1, 3 * MIB, "film").body();
    stage.web.open.send_replace(false);
    let mut first = Connection::open(&stage.edge).await;
    let begun = first.send("/film.mp4", None).await;
    assert_eq!(begun.status(), StatusCode::OK);

    let new = stage.web.has("/film.mp4", 2, 3 * MIB, "film").body();
    stage.purge(json!({ "tag": "film" })).await.unwrap();
    // Who asks after the purge is not answered from the fetch before it.
    let mut second = Connection::open(&stage.edge).await;
    let after = second.send("/film.mp4", None).await;
    assert_eq!(after.headers()[header::ETAG], "\"v2\"");
    stage.web.open.send_replace(true);
    assert_eq!(begun.into_body().collect().await.unwrap().to_bytes()[..], old[..]);
    assert_eq!(after.into_body().collect().await.unwrap().to_bytes()[..], new[..]);
    // The older fetch ended later, and is not what is stored.
    assert_eq!(stage.web.asked(), ["/film.mp4 200", "/film.mp4 200"]);
    for _ in 0..2 {
        assert_eq!(stage.get("/film.mp4").await.bytes()[..], new[..]);
    }
    assert_eq!(stage.web.asked(), [""; 0], "the new version was not stored");
}

/// Both of what is stored in chunks, and of what is kept once it is whole.
#[tokio::test]
async fn a_purge_reaches_waiters_of_a_head_that_has_not_come_yet() {
    for etag in [true, false] {
        let stage = Stage::new().await;
        let has = |version| {
            let thing = Thing { version, bytes: 100, tags: "film", etag };
            stage.web.has_thing("/a", thing)
        };
        has(1);
        stage.web.heads.send_replace(false);
        let mut first = Connection::open(&stage.edge).await;
        let first = tokio::spawn(async move { first.get("/a", None).await });
        until("the origin's request", || async { stage.web.asking("/a").then_some(()) }).await;
        stage.purge(json!({ "prefix": "http://films.test/" })).await.unwrap();
        // The origin has decided on its answer to the first before the purge.
        has(2);
        let mut after = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let mut connection = Connection::open(&stage.edge).await;
            after.spawn(async move { connection.get("/a", None).await });
        }
        stage.web.heads.send_replace(true);
        assert_eq!(first.await.unwrap().header("x-version"), "1");
        for after in after.join_all().await {
            assert_eq!(after.header("x-version"), "2");
        }
        assert_eq!(stage.get("/a").await.header("x-version"), "2");
        assert_eq!(stage.web.asked(), ["/a 200", "/a 200"], "the others did not wait together");
    }
}
