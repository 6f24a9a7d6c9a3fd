//! Stories of nodes that ask each other before the origin: siblings that own runs, a regional
//! edge and a shield above, circles, and titles through a parent.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::nodes::{SITE, below, fetch, node, nodes, region, verdict};
use common::{
    Answer, Edge, Hold, Item, Misdeed, Origin, Validator, Web, ask, film, get, keep_view,
    proxy_settings, settings, token, until, view,
};
use futures::future::join_all;
use http::Method;
use nearcast_edge::Settings;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use tempfile::TempDir;
use upstream::hierarchy::{self, Peer};

const RUN: u64 = 64 << 20;

/// Three siblings before an origin.
struct Region {
    web: Web,
    nodes: [Peer; 3],
    dirs: [TempDir; 3],
}

impl Region {
    async fn new() -> Self {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        Self { web: Web::start().await, nodes: nodes(["edge-a", "edge-b", "edge-c"]), dirs }
    }

    async fn start(&self, which: usize) -> Edge {
        let dir = &self.dirs[which];
        let all = region(&self.nodes);
        Edge::start(node(dir, &self.nodes[which], &self.web.url, all)).await
    }

    async fn start_all(&self) -> Vec<Edge> {
        join_all((0..3).map(|which| self.start(which))).await
    }

    /// Which nodes asked the origin for bytes of each run.
    fn owners(&self, path: &str) -> BTreeMap<u64, BTreeSet<String>> {
        let mut owners: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for asked in self.web.asked_for(path) {
            let range = asked.field("range");
            let start = range.strip_prefix("bytes=").and_then(|range| range.split('-').next());
            let start: u64 = start.unwrap_or("0").parse().unwrap();
            let passed: Vec<&str> =
                asked.fields.get_all("cdn-loop").iter().map(|v| v.to_str().unwrap()).collect();
            let last = passed.join(",").rsplit(',').next().unwrap().trim().to_owned();
            owners.entry(start / RUN).or_default().insert(last);
        }
        owners
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_fetches_each_byte_once_by_the_owner_of_its_run() {
    let region = Region::new().await;
    let bytes = RUN + (3 << 20) + 17;
    region.web.put("/film.mp4", Item::of(bytes));
    let edges = region.start_all().await;
    let whole = region.web.whole("/film.mp4");
    let mut verdicts = Vec::new();
    for (edge, node) in edges.iter().zip(&region.nodes) {
        let answer = fetch(edge, "/film.mp4", &[]).await;
        assert_eq!(answer.status, 200);
        assert!(answer.bytes() == &whole, "{}: {} bytes", node.id, answer.bytes().len());
        verdicts.push(verdict(&answer, &node.id));
    }
    // Who is not the first run's owner has its bytes from the owner.
    assert!(verdicts.iter().filter(|verdict| *verdict == "sibling").count() >= 2, "{verdicts:?}");
    let owners = region.owners("/film.mp4");
    assert!(owners.len() == 2 && owners.values().all(|nodes| nodes.len() == 1), "{owners:?}");
    let mut fetched = 0.0;
    for edge in &edges {
        assert_eq!(edge.metric("nearcast_edge_fills_total{end=\"retried\"}").await, 0.0);
        assert_eq!(edge.metric("nearcast_edge_fills_total{end=\"left\"}").await, 0.0);
        fetched += edge.metric("nearcast_edge_origin_bytes_total").await;
    }
    assert_eq!((fetched, region.web.sent("/film.mp4")), (bytes as f64, bytes));

    // What is hot is in each node's own memory.
    let asked = region.web.count("/film.mp4");
    for (edge, node) in edges.iter().zip(&region.nodes) {
        let answer = fetch(edge, "/film.mp4", &[]).await;
        assert!(answer.bytes() == &whole);
        assert_eq!(verdict(&answer, &node.id), "hit-memory");
    }
    assert_eq!(region.web.count("/film.mp4"), asked);
}

/// Small objects that the node at place 1 owns, so many; who owns what follows from names alone.
async fn owned_by_the_second(count: usize) -> Vec<String> {
    let region = Region::new().await;
    let edges = region.start_all().await;
    let mut owned = Vec::new();
    for path in (0..).map(|number| format!("/hot/{number}.m4s")) {
        region.web.put(&path, Item::of(1_000));
        fetch(&edges[0], &path, &[]).await;
        if region.owners(&path)[&0].contains(&region.nodes[1].id) {
            owned.push(path);
        }
        if owned.len() == count {
            return owned;
        }
    }
    unreachable!("numbers have no end");
}

/// The nodes that a request of the first for `path` passed, from below to the origin.
fn passed(region: &Region, path: &str) -> Vec<String> {
    let asked = region.web.asked_for(path).pop().unwrap();
    let values = asked.fields.get_all("cdn-loop").iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hot_spills_to_other_nodes_and_no_byte_is_fetched_twice() {
    /// More than the owner has room for (16 of one node at least), so many at a time.
    const BUSY: usize = 24;
    const BYTES: u64 = 1_000;
    let paths = owned_by_the_second(BUSY + 20).await;
    let (busy, hot) = paths.split_at(BUSY);
    let region = Region::new().await;
    paths.iter().for_each(|path| region.web.put(path, Item::of(BYTES)));
    let edges = region.start_all().await;
    for path in hot {
        fetch(&edges[2], path, &[]).await;
    }
    region.web.hold(Hold::Head);
    let asking = join_all(busy.iter().map(|path| fetch(&edges[0], path, &[])));
    let beside = async {
        until("all at the origin", || async { (region.web.held() == BUSY).then_some(()) }).await;
        // The owner has no room: what others have as well comes from them.
        let mut from_third = 0;
        for path in hot {
            let answer = fetch(&edges[0], path, &[]).await;
            assert!(answer.bytes() == &region.web.whole(path), "{path}: {answer:?}");
            let values = answer.headers.get_all("cache-status").iter();
            let hit =
                values.map(|value| value.to_str().unwrap()).find(|value| value.contains(";hit"));
            from_third += usize::from(hit.unwrap().contains("edge-c;hit"));
        }
        assert!(from_third > 0, "the owner alone served what is hot");
        region.web.release();
    };
    let (answers, ()) = tokio::join!(asking, beside);
    for (path, answer) in busy.iter().zip(answers) {
        assert!(answer.bytes() == &region.web.whole(path), "{path}: {answer:?}");
    }
    // Whoever stood in for the owner asked the owner.
    let stood_in =
        busy.iter().filter(|path| passed(&region, path) == ["edge-a", "edge-c", "edge-b"]);
    assert!(stood_in.count() > 0);
    for path in &paths {
        for edge in &edges {
            assert!(fetch(edge, path, &[]).await.bytes() == &region.web.whole(path), "{path}");
        }
        let cost = (region.web.count(path), region.web.sent(path));
        assert_eq!(cost, (1, BYTES), "requests and bytes of {path}");
        assert!(region.owners(path)[&0].contains("edge-b"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn siblings_that_ask_each_other_for_different_runs_do_not_wait_for_each_other() {
    let region = Region::new().await;
    let bytes = 3 * RUN;
    region.web.put("/film.mp4", Item::of(bytes));
    let edges = region.start_all().await;
    region.web.hold(Hold::Head);
    let parts = [5, RUN + 5, 2 * RUN + 5];
    let get = |edge, start| async move {
        let range = format!("bytes={start}-{}", start + 99);
        (start, fetch(edge, "/film.mp4", &[("range", &range)]).await)
    };
    let all = edges.iter().flat_map(|edge| parts.map(|start| get(edge, start)));
    let release = async {
        let held = || async { (region.web.held() == 3).then_some(()) };
        until("one request for each run", held).await;
        region.web.release();
    };
    let (answers, ()) = tokio::join!(join_all(all), release);
    for (start, answer) in answers {
        assert_eq!(answer.status, 206);
        assert_eq!(answer.bytes(), &region.web.part("/film.mp4", start..start + 100));
    }
    let owners = region.owners("/film.mp4");
    assert!(owners.len() == 3 && owners.values().all(|nodes| nodes.len() == 1), "{owners:?}");
    assert_eq!(region.web.count("/film.mp4"), 3);
}

/// A run is asked for where siblings share objects: nothing of that shows where an origin has no
/// ranges, no validator, or nothing to keep.
#[tokio::test]
async fn odd_origins_answer_through_siblings_as_they_would_alone() {
    let region = Region::new().await;
    let of = || Item::of(300_000);
    let items = [
        ("/strong", of()),
        ("/weak", of().validator(Validator::Weak)),
        ("/date", of().validator(Validator::Date)),
        ("/none", of().validator(Validator::None)),
        ("/none-large", Item::of(9 << 20).validator(Validator::None)),
        ("/chunked", of().validator(Validator::None).no_ranges().chunked()),
        ("/no-ranges", of().no_ranges()),
        ("/no-store", of().cache_control("no-store")),
        ("/private", of().cache_control("private").validator(Validator::None)),
        ("/empty", Item::of(0)),
        ("/empty-no-store", Item::of(0).cache_control("no-store")),
        ("/error", of().status(404)),
        ("/large-no-store", Item::of(RUN + 100).cache_control("no-store")),
    ];
    for (path, item) in &items {
        region.web.put(path, item.clone());
    }
    let edges = [region.start(0).await, region.start(1).await];
    for (path, item) in &items {
        let whole = region.web.whole(path);
        for edge in edges.iter().chain(&edges) {
            let answer = fetch(edge, path, &[]).await;
            assert_eq!(answer.status, item.status, "{path}");
            assert!(answer.bytes() == &whole, "{path}: {} bytes", answer.bytes().len());
            assert_eq!(answer.header("content-range"), "", "{path}");
        }
        let part = [("range", "bytes=10-19"), ("if-range", "\"v1\"")];
        for (edge, fields) in edges.iter().zip([&part[..1], &part[..]]) {
            let answer = fetch(edge, path, fields).await;
            match answer.status.as_u16() {
                206 => assert_eq!(answer.bytes(), &whole.slice(10..20), "{path}"),
                416 => assert!(path.starts_with("/empty"), "{path}"),
                status => assert!(status == item.status && answer.bytes() == &whole, "{path}"),
            }
        }
    }
}

#[tokio::test]
async fn a_sibling_that_is_down_is_passed_over_and_comes_back() {
    let region = Region::new().await;
    let edges = [region.start(0).await, region.start(1).await];
    let read = |number: usize| {
        let (region, edge) = (&region, &edges[0]);
        async move {
            let path = format!("/{number}");
            region.web.put(&path, Item::of(1000));
            let answer = fetch(edge, &path, &[]).await;
            assert_eq!(answer.bytes(), &region.web.whole(&path));
            assert_eq!(region.web.count(&path), 1, "one request to the origin, whoever is down");
            verdict(&answer, "edge-a")
        }
    };
    let mut verdicts = BTreeSet::new();
    for number in 0..40 {
        verdicts.insert(read(number).await);
    }
    assert_eq!(verdicts, ["origin", "sibling"].map(str::to_owned).into());
    let answered = "nearcast_edge_upstream_requests_total{hop=\"edge-c\",outcome=\"2xx\"";
    let from_it = || async {
        let text = get(&format!("{}/metrics", edges[0].admin), &[]).await.text();
        text.lines().any(|line| line.starts_with(answered))
    };
    assert!(!from_it().await);
    let _third = region.start(2).await;
    let number = AtomicU8::new(100);
    until("the sibling is asked again", || async {
        read(usize::from(number.fetch_add(1, Ordering::Relaxed))).await;
        from_it().await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_way_up_is_regional_edge_shield_origin() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [edge, parent, shield] = nodes(["edge-a", "region-1", "shield-1"]);
    let web = Web::start().await;
    for path in ["/a", "/b"] {
        web.put(path, Item::of(3 << 20));
    }
    let shields = hierarchy::Settings { shields: vec![shield.clone()], ..Default::default() };
    let _shield = Edge::start(node(&dirs[2], &shield, &web.url, hierarchy::Settings::default()));
    let _shield = _shield.await;
    let above = Edge::start(node(&dirs[1], &parent, &web.url, shields)).await;
    let edge = Edge::start(node(&dirs[0], &edge, &web.url, below(&[parent]))).await;

    let first = fetch(&edge, "/a", &[]).await;
    assert_eq!(first.bytes(), &web.whole("/a"));
    for (node, expected) in [("edge-a", "parent"), ("region-1", "parent"), ("shield-1", "origin")] {
        assert_eq!(verdict(&first, node), expected);
    }
    let asked = &web.asked_for("/a")[0];
    let passed: Vec<_> = asked.fields.get_all("cdn-loop").iter().collect();
    assert_eq!(passed, ["edge-a", "region-1", "shield-1"]);
    // The client, by the node that it asked; not those that asked each other.
    assert_eq!(asked.field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(verdict(&fetch(&edge, "/a", &[]).await, "edge-a"), "hit-memory");
    assert_eq!(web.sent("/a"), 3 << 20);

    // A parent that is down is passed over within the request.
    above.stop().await;
    let answer = fetch(&edge, "/b", &[]).await;
    assert_eq!(answer.bytes(), &web.whole("/b"));
    assert_eq!(verdict(&answer, "edge-a"), "origin");
}

#[tokio::test]
async fn a_circle_of_parents_ends_at_the_origin_and_a_circle_of_origins_in_508() {
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [a, b, c, d] = nodes(["edge-a", "edge-b", "edge-c", "edge-d"]);
    let web = Web::start().await;
    web.put("/a", Item::of(1000));
    let over_a = Edge::start(node(&dirs[0], &a, &web.url, below(std::slice::from_ref(&b)))).await;
    let over_b = Edge::start(node(&dirs[1], &b, &web.url, below(&[a]))).await;
    for edge in [&over_a, &over_b] {
        assert_eq!(fetch(edge, "/a", &[]).await.bytes(), &web.whole("/a"));
    }
    assert_eq!(web.count("/a"), 1);

    let before = |dir: &TempDir, node: &Peer, origin: &Peer| Settings {
        id: Some(node.id.clone()),
        peer_listen: vec![node.url.clone()],
        ..proxy_settings(dir.path(), &origin.url, &serde_json::json!({}))
    };
    let over_c = Edge::start(before(&dirs[2], &c, &d)).await;
    let over_d = Edge::start(before(&dirs[3], &d, &c)).await;
    for _ in 0..2 {
        assert_eq!(fetch(&over_c, "/a", &[]).await.status, 508);
    }
    let refused = |edge: &Edge| {
        let line = "nearcast_edge_requests_total{protocol=\"http/1.1\",site=\"*\",\
                    status=\"508\",verdict=\"refused\"}";
        let admin = edge.admin.clone();
        async move {
            let text = get(&format!("{admin}/metrics"), &[]).await.text();
            let value =
                text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
            value.unwrap_or(0.0)
        }
    };
    // Each went round once.
    assert_eq!((refused(&over_c).await, refused(&over_d).await), (2.0, 0.0));
}

#[tokio::test]
async fn edges_that_nobody_named_are_no_loop() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let web = Web::start().await;
    web.put("/a", Item::of(1000));
    let unnamed = |dir: &TempDir, origin: &str| {
        let settings = proxy_settings(dir.path(), origin, &serde_json::json!({}));
        Settings { id: None, ..settings }
    };
    let upper = Edge::start(unnamed(&dirs[0], &web.url)).await;
    let lower = Edge::start(unnamed(&dirs[1], &upper.http)).await;
    let answer = get(&format!("{}/a", lower.http), &[]).await;
    assert_eq!((answer.status.as_u16(), answer.bytes()), (200, &web.whole("/a")));
    let asked = &web.asked_for("/a")[0];
    let passed: Vec<_> = asked.fields.get_all("cdn-loop").iter().cloned().collect();
    let kept =
        dirs.each_ref().map(|dir| std::fs::read_to_string(dir.path().join("node-id")).unwrap());
    // By a listener for clients the upper one can't know who the lower one is.
    assert_eq!(passed, [kept[1].clone(), format!("{};entry=1", kept[0])]);
}

/// A film, its origin, and what every edge of its fleet knows.
struct Cinema {
    film: common::Film,
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
        self.start_at(dir, node, &self.origin.url, hierarchy).await
    }

    async fn start_at(
        &self,
        dir: &TempDir,
        node: &Peer,
        origin: &str,
        hierarchy: hierarchy::Settings,
    ) -> Edge {
        keep_view(dir.path(), &view(&self.signer));
        Edge::start(Settings {
            id: Some(node.id.clone()),
            peer_listen: vec![node.url.clone()],
            hierarchy: hierarchy::Settings { connect_timeout: "10s".parse().ok(), ..hierarchy },
            ..settings(dir.path(), origin)
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

#[tokio::test]
async fn titles_that_go_in_a_circle_are_refused_at_the_second_sight() {
    let cinema = Cinema::new().await;
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [a, b] = nodes(["edge-a", "edge-b"]);
    let alone = hierarchy::Settings::default;
    let over_a = cinema.start_at(&dirs[0], &a, &b.url, alone()).await;
    let _over_b = cinema.start_at(&dirs[1], &b, &a.url, alone()).await;
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

/// Eight clients of each node ask one time after another: every body is what the origin has.
async fn storm(web: &Web, edges: &[&Edge], path: &str) {
    let whole = web.whole(path);
    let client = |edge: &Edge| {
        let (edge, whole) = (edge.http.clone(), whole.clone());
        let url = format!("{edge}{path}");
        async move {
            for _ in 0..12 {
                let answer = get(&url, &[("host", SITE)]).await;
                assert_eq!((answer.status.as_u16(), answer.bytes() == &whole), (200, true));
            }
        }
    };
    join_all(edges.iter().flat_map(|edge| (0..8).map(|_| client(edge)))).await;
}

/// What each kind of purge comes to at the origin: objects that stay as they are, and such as have
/// changed before. `lower` get the requests; the purge is at so many of `all`, which begin with
/// them.
async fn purges_end_in_few_requests(web: &Web, all: &[&Edge], lower: usize, few: usize) {
    let mut number = 0;
    for purged in [lower, all.len()] {
        for (soft, changes) in [(true, false), (true, true), (false, false), (false, true)] {
            for by_tag in [false, true] {
                number += 1;
                let (path, tag) = (format!("/{number}.m4s"), format!("tag-{number}"));
                web.put(&path, Item::of(300_000).field("surrogate-key", &tag));
                storm(web, &all[..lower], &path).await;
                assert_eq!(web.count(&path), 1);
                if changes {
                    web.change(&path);
                }
                let url = format!("http://{SITE}{path}");
                let what = if by_tag { json!({ "tag": tag }) } else { json!({ "url": url }) };
                let mut request = what;
                request["soft"] = soft.into();
                for edge in &all[..purged] {
                    edge.purge(&request).await;
                }
                storm(web, &all[..lower], &path).await;
                let asked = web.count(&path) - 1;
                let told = format!("{request} at {purged}, changes: {changes}: {asked}");
                assert!((1..=few).contains(&asked), "{told}");
            }
        }
    }
}

/// Asks no other hop beside one that takes long: how often the origin is asked is counted.
fn counted(dir: &TempDir, peer: &Peer, origin: &str, around: hierarchy::Settings) -> Settings {
    let mut settings = node(dir, peer, origin, around);
    settings.sites.get_mut(SITE).unwrap().hedge = Some(false);
    settings
}

/// Requests of the first second after a purge went up one by one, since what had just been
/// revalidated looked older than the purge.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_below_a_shield_is_one_request_to_the_origin() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, above] = nodes(["edge-a", "shield-1"]);
    let web = Web::start().await;
    let shields = hierarchy::Settings { shields: vec![above.clone()], ..Default::default() };
    let shield = counted(&dirs[1], &above, &web.url, hierarchy::Settings::default());
    let shield = Edge::start(shield).await;
    let edge = Edge::start(counted(&dirs[0], &child, &web.url, shields)).await;
    purges_end_in_few_requests(&web, &[&edge, &shield], 1, 1).await;
}

/// Nodes are purged one after another: each purge may want its own request.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_two_siblings_a_parent_and_a_shield_is_a_request_a_node_at_most() {
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [a, b, parent, above] = nodes(["edge-a", "edge-b", "region-1", "shield-1"]);
    let web = Web::start().await;
    let shields = vec![above.clone()];
    let lower = hierarchy::Settings {
        siblings: vec![a.clone(), b.clone()],
        parents: vec![parent.clone()],
        shields: shields.clone(),
        ..Default::default()
    };
    let middle = hierarchy::Settings { shields, ..Default::default() };
    let top = hierarchy::Settings::default();
    let starts = [(&a, lower.clone()), (&b, lower), (&parent, middle), (&above, top)];
    let starts = starts.into_iter().zip(&dirs);
    let edges =
        starts.map(|((peer, around), dir)| Edge::start(counted(dir, peer, &web.url, around)));
    let edges = join_all(edges).await;
    let all: Vec<&Edge> = edges.iter().collect();
    purges_end_in_few_requests(&web, &all, 2, all.len()).await;
}

/// Clients' wishes are no load for the origin there, but a node's word of a purge counts.
#[tokio::test]
async fn a_node_that_does_not_heed_clients_heeds_a_purge_below_it() {
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [child, above, other] = nodes(["edge-a", "shield-1", "edge-b"]);
    let web = Web::start().await;
    let deaf = |dir, peer, around| {
        let mut settings = counted(dir, peer, &web.url, around);
        settings.sites.get_mut(SITE).unwrap().heed_client = Some(false);
        settings
    };
    let shield = Edge::start(deaf(&dirs[1], &above, hierarchy::Settings::default())).await;
    let edge = Edge::start(deaf(&dirs[0], &child, below(std::slice::from_ref(&above)))).await;
    // By a listener for clients, where nobody knows who asks.
    let outer = below(&[Peer { id: "shield-1".into(), url: shield.http.clone() }]);
    let outer = Edge::start(deaf(&dirs[2], &other, outer)).await;
    for (edge, path) in [(&edge, "/a"), (&outer, "/b")] {
        web.put(path, Item::of(1_000));
        fetch(edge, path, &[]).await;
        web.change(path);
        edge.purge(&json!({ "url": format!("http://{SITE}{path}") })).await;
        for _ in 0..3 {
            assert!(fetch(edge, path, &[]).await.bytes() == &web.whole(path), "{path}");
        }
        assert_eq!(web.count(path), 2, "{path}");
    }
    // It has "/b" from before, and no client gets it to ask.
    let told = [("nearcast-newer-than", "0"), ("cdn-loop", "edge-x")];
    let answer = fetch(&shield, "/b", &told).await;
    assert_eq!((answer.header("nearcast-newer-than"), web.count("/b")), ("", 2));
    assert_eq!(fetch(&shield, "/a", &told).await.header("nearcast-newer-than"), "");
    // A condition that fails is passed on, but not to who has that version from before the purge.
    assert_eq!(fetch(&shield, "/b", &[("if-match", "\"v1\"")]).await.status, 200);
    for method in [Method::GET, Method::HEAD] {
        let url = format!("{}/b", outer.http);
        let answer = ask(method, &url, &[("host", SITE), ("if-match", "\"v1\"")]).await;
        assert_eq!((answer.status.as_u16(), verdict(&answer, "edge-b").as_str()), (412, "bypass"));
    }
    assert_eq!(web.count("/b"), 4);
}

/// Once a purge has been heeded above, a condition that fails goes the way of all requests again.
#[tokio::test]
async fn a_condition_that_fails_after_a_purge_goes_by_the_nodes_above() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, above] = nodes(["edge-a", "shield-1"]);
    let web = Web::start().await;
    web.put("/a", Item::of(1_000));
    let shield = counted(&dirs[1], &above, &web.url, hierarchy::Settings::default());
    let shield = Edge::start(shield).await;
    let edge = Edge::start(counted(&dirs[0], &child, &web.url, below(&[above]))).await;
    let old = fetch(&edge, "/a", &[]).await;
    web.change("/a");
    edge.purge(&json!({ "url": format!("http://{SITE}/a") })).await;
    for method in [Method::GET, Method::HEAD] {
        let fields = [("host", SITE), ("if-match", old.header("etag"))];
        let answer = ask(method.clone(), &format!("{}/a", edge.http), &fields).await;
        assert_eq!((answer.status.as_u16(), verdict(&answer, "edge-a").as_str()), (412, "bypass"));
        let asked = web.asked_for("/a").pop().unwrap();
        let passed: Vec<_> = asked.fields.get_all("cdn-loop").iter().collect();
        assert!(passed.iter().any(|node| *node == "shield-1"), "{method}: {passed:?}");
    }
    drop(shield);
}

/// What a client says of a purge is told to the nodes above as a client's wish, not as this node's
/// word.
#[tokio::test]
async fn no_client_speaks_for_a_node() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [child, above] = nodes(["edge-a", "shield-1"]);
    let web = Web::start().await;
    web.put("/a", Item::of(1_000));
    let mut shield = counted(&dirs[1], &above, &web.url, hierarchy::Settings::default());
    shield.sites.get_mut(SITE).unwrap().heed_client = Some(false);
    let shield = Edge::start(shield).await;
    let edge = Edge::start(counted(&dirs[0], &child, &web.url, below(&[above]))).await;
    assert_eq!(verdict(&fetch(&edge, "/a", &[]).await, "shield-1"), "origin");
    let newer = ("nearcast-newer-than", "0");
    let answer = fetch(&edge, "/a", &[newer]).await;
    assert_eq!(verdict(&answer, "edge-a"), "revalidated");
    assert_eq!((answer.header("nearcast-newer-than"), web.count("/a")), ("", 1));
    // No origin is to be asked: there is nothing to answer from.
    let none = fetch(&edge, "/a", &[newer, ("cache-control", "only-if-cached")]).await;
    assert_eq!((none.status.as_u16(), web.count("/a")), (504, 1));
    // By the listener for nodes it is a node's word.
    let answer = get(&format!("{}/a", edge.peer), &[("host", SITE), newer]).await;
    assert_eq!((answer.header("nearcast-newer-than"), web.count("/a")), ("0", 2));
    drop(shield);
}
