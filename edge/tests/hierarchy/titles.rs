//! Titles, by a parent and to one: the contract between nodes is the origin's.

use crate::common::nodes::{below, nodes};
use crate::common::{
    Answer, Edge, Misdeed, Origin, ask, film, get, keep_view, settings, token, view,
};
use http::Method;
use nearcast_edge::Settings;
use tempfile::TempDir;
use upstream::hierarchy::{self, Peer};

/// A film, its origin, and what every edge of its fleet knows.
struct Cinema {
    film: crate::common::Film,
    origin: Origin,
    signer: token::Signer,
}

impl Cinema {
    async fn new() -> Self {
        let film = film();
        let origin = Origin::start(&film).await;
        Self { film, origin, signer: token::Signer::generate().unwrap() }
    }

    async fn start(&self, dir: &TempDir, node: &Peer, hierarchy: hierarchy::Settings) -> Edge {
        self.start_at(dir, node, vec![self.origin.url.clone()], hierarchy).await
    }

    async fn start_at(
        &self,
        dir: &TempDir,
        node: &Peer,
        origin: Vec<String>,
        hierarchy: hierarchy::Settings,
    ) -> Edge {
        keep_view(dir.path(), &view(&self.signer));
        Edge::start(Settings {
            id: Some(node.id.clone()),
            peer_listen: vec![node.url.clone()],
            hierarchy: hierarchy::Settings { connect_timeout: "10s".parse().ok(), ..hierarchy },
            origin,
            ..settings(dir.path(), "")
        })
        .await
    }

    async fn play(&self, edge: &Edge, resource: &str) -> Answer {
        let (token, version) = (token(&self.signer, "film"), &self.film.version);
        get(&format!("{}/~{token}/t/film/{version}/{resource}", edge.http), &[]).await
    }
}

#[tokio::test]
async fn a_title_comes_through_a_parent_and_one_that_corrupts_is_passed_by() {
    let cinema = Cinema::new().await;
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [child, parent, other] = nodes(["edge-a", "region-1", "edge-b"]);
    let above = cinema.start(&dirs[0], &parent, hierarchy::Settings::default()).await;
    let edge = cinema.start(&dirs[1], &child, below(&[parent])).await;
    let answer = cinema.play(&edge, "v1/2.m4s").await;
    assert_eq!(answer.bytes(), &cinema.film.segment("v1", 2));
    assert_eq!(answer.verdict(), "parent");
    assert_eq!((cinema.origin.media().len(), cinema.origin.indexes()), (1, 1));
    assert_eq!(above.metric("nearcast_edge_peer_bytes_total").await, 0.0);
    assert_eq!(edge.metric("nearcast_edge_origin_bytes_total").await, 0.0);
    assert_eq!(cinema.play(&edge, "v1/2.m4s").await.verdict(), "hit-memory");

    let liar = Origin::start(&cinema.film).await;
    liar.always(Some(Misdeed::Corrupt(7)));
    let liars = below(&[Peer { id: "region-9".into(), url: liar.url.clone() }]);
    let edge = cinema.start(&dirs[2], &other, liars).await;
    let answer = cinema.play(&edge, "v1/3.m4s").await;
    assert_eq!(answer.bytes(), &cinema.film.segment("v1", 3));
    assert_eq!((liar.media().len(), cinema.origin.media().len()), (1, 2));
}

/// Its own tries are behind what it cut.
#[tokio::test]
async fn what_a_parent_cuts_of_an_index_the_origin_is_asked_for_once() {
    let cinema = Cinema::new().await;
    let dir = tempfile::tempdir().unwrap();
    let [child] = nodes(["edge-a"]);
    let parent = Origin::start(&cinema.film).await;
    for broken in [&parent, &cinema.origin] {
        broken.always_at_indexes(Some(Misdeed::Cut(100)));
    }
    let parents = below(&[Peer { id: "region-1".into(), url: parent.url.clone() }]);
    let edge = cinema.start(&dir, &child, parents).await;
    assert_eq!(cinema.play(&edge, "hls.m3u8").await.code(), "origin-failed");
    assert_eq!((parent.indexes(), cinema.origin.indexes()), (1, 1));
    cinema.origin.always_at_indexes(None);
    assert_eq!(cinema.play(&edge, "hls.m3u8").await.status, 200);
    assert_eq!((parent.indexes(), cinema.origin.indexes()), (2, 2));
}

/// Origins that hang are waited for one after the other: for two that takes longer than the node below
/// waits.
#[tokio::test]
async fn what_is_missing_of_a_title_is_asked_of_each_origin_that_hangs_once() {
    let cinema = Cinema::new().await;
    let other = Origin::start(&cinema.film).await;
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, parent] = nodes(["edge-a", "region-1"]);
    let origins = || vec![cinema.origin.url.clone(), other.url.clone()];
    let _above =
        cinema.start_at(&dirs[0], &parent, origins(), hierarchy::Settings::default()).await;
    let edge = cinema.start_at(&dirs[1], &child, origins(), below(&[parent])).await;
    assert_eq!(cinema.play(&edge, "v1/0.m4s").await.status, 200);
    assert_eq!((cinema.origin.media().len(), other.media().len()), (1, 0));
    [&cinema.origin, &other].into_iter().for_each(|origin| origin.hold(true));
    let answer = cinema.play(&edge, "v1/7.m4s").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (504, "origin-slow"));
    assert_eq!((cinema.origin.media().len(), other.media().len()), (2, 1));
}

#[tokio::test]
async fn titles_that_go_in_a_circle_are_refused_at_the_second_sight() {
    let cinema = Cinema::new().await;
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [a, b] = nodes(["edge-a", "edge-b"]);
    let alone = hierarchy::Settings::default;
    let over_a = cinema.start_at(&dirs[0], &a, vec![b.url.clone()], alone()).await;
    let _over_b = cinema.start_at(&dirs[1], &b, vec![a.url.clone()], alone()).await;
    assert_eq!(cinema.play(&over_a, "hls.m3u8").await.status, 502);
    let path = format!("{}/titles/film/{}/index", a.url, cinema.film.version);
    let answer = get(&path, &[("cdn-loop", "edge-a, edge-b")]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (508, "loop"));
    assert!(answer.header("proxy-status").contains("error=proxy_loop_detected"));
}

#[tokio::test]
async fn nodes_are_given_titles_by_the_origins_contract_and_players_are_not() {
    let cinema = Cinema::new().await;
    let dir = tempfile::tempdir().unwrap();
    let [own] = nodes(["edge-a"]);
    let edge = cinema.start(&dir, &own, hierarchy::Settings::default()).await;
    assert_eq!(edge.peer, own.url);
    let version = &cinema.film.version;
    let base = format!("{}/titles/film/{version}", edge.peer);
    let index = get(&format!("{base}/index"), &[]).await;
    assert_eq!(index.bytes(), &cinema.film.encoded);
    let (url, file) = (format!("{base}/v1.mp4"), &cinema.film.files["v1.mp4"]);
    let part = get(&url, &[("range", "bytes=1048570-1048589")]).await;
    assert_eq!((part.status.as_u16(), part.bytes()), (206, &file.slice(1_048_570..1_048_590)));
    assert_eq!(part.header("content-range"), format!("bytes 1048570-1048589/{}", file.len()));
    let etag = part.header("etag").to_owned();
    assert_eq!(etag, format!("\"{version}-v1.mp4\""));
    assert!(get(&url, &[]).await.bytes() == file);
    for (method, field, status) in [
        (Method::HEAD, ("accept", "*/*"), 200),
        (Method::POST, ("accept", "*/*"), 405),
        (Method::GET, ("if-none-match", etag.as_str()), 304),
        (Method::GET, ("if-match", "\"other\""), 412),
        (Method::GET, ("range", "bytes=99999999999-"), 416),
    ] {
        assert_eq!(ask(method, &url, &[field]).await.status, status, "{field:?}");
    }
    // What parts are verified by is passed on, a piece at a time.
    let (url, tree) = (format!("{base}/v1.tree"), &cinema.film.files["v1.tree"]);
    let part = get(&url, &[("range", "bytes=512-1023")]).await;
    assert_eq!((part.status.as_u16(), part.bytes()), (206, &tree.slice(512..1024)));
    assert_eq!(part.header("content-range"), format!("bytes 512-1023/{}", tree.len()));
    assert_eq!(get(&url, &[]).await.status, 404);
    assert_eq!(get(&format!("{base}/a1.tree"), &[("range", "bytes=0-9")]).await.status, 404);
    let play = format!("~{}/t/film/{version}/hls.m3u8", token(&cinema.signer, "film"));
    for (url, status) in [
        (format!("{base}/v9.mp4"), 404),
        (format!("{base}/v1.vtt"), 404),
        (format!("{}/titles/none/{version}/index", edge.peer), 404),
        (format!("{}/{play}", edge.peer), 400),
        (format!("{}/titles/film/{version}/index", edge.http), 400),
        (format!("{}/{play}", edge.http), 200),
    ] {
        assert_eq!(get(&url, &[]).await.status, status, "{url}");
    }
}
