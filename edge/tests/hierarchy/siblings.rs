//! Siblings that own runs: each byte is fetched once by the owner of its run, and whoever has it,
//! or is there, stands in for an owner that is busy or down.

use crate::common::nodes::{fetch, node, nodes, region, verdict};
use crate::common::{Edge, Hold, Item, Validator, Web, get, until};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use tempfile::TempDir;
use upstream::hierarchy::Peer;

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
