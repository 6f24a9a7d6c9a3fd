//! Stories of purges on a running edge before a web origin: what was purged never comes back,
//! whatever was cached of it, fetched at that moment, or restarted since.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use common::{Answer, DEADLINE, Edge, Item, Proxy, settings, until};
use http::{StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::admin::{ChunkPlace, Explanation, PurgeDone, PurgeList};
use model::api::ApiError;
use nearcast_edge::Settings;
use serde_json::{Value, json};
use service::client::{Client, Error};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

const MIB: usize = 1 << 20;

/// One thing that the origin has: its version makes its bytes and its ETag.
#[derive(Clone)]
struct Thing {
    version: u8,
    bytes: usize,
    tags: &'static str,
    etag: bool,
}

impl Thing {
    fn body(&self) -> Vec<u8> {
        let byte = |place: usize| (place.wrapping_mul(31) ^ (place >> 10)) as u8;
        (0..self.bytes).map(|place| byte(place) ^ self.version.wrapping_mul(97)).collect()
    }

    fn etag(&self) -> String {
        format!("\"v{}\"", self.version)
    }
}

/// A web origin that counts what it is asked, and holds bodies back when told.
#[derive(Clone)]
struct Web {
    url: String,
    things: Arc<Mutex<HashMap<String, Thing>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Requests that wait for their heads.
    asking: Arc<Mutex<Vec<String>>>,
    heads: Arc<watch::Sender<bool>>,
    open: Arc<watch::Sender<bool>>,
}

impl Web {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            things: Arc::default(),
            asked: Arc::default(),
            asking: Arc::default(),
            heads: Arc::new(watch::channel(true).0),
            open: Arc::new(watch::channel(true).0),
        };
        let router = Router::new().fallback(answer).with_state(web.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        web
    }

    fn has(&self, path: &str, version: u8, bytes: usize, tags: &'static str) -> Thing {
        self.has_thing(path, Thing { version, bytes, tags, etag: true })
    }

    fn has_thing(&self, path: &str, thing: Thing) -> Thing {
        self.things.lock().unwrap().insert(path.to_owned(), thing.clone());
        thing
    }

    fn asking(&self, path: &str) -> bool {
        self.asking.lock().unwrap().iter().any(|asking| asking == path)
    }

    /// What it was asked since the last time, as `PATH STATUS`.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn answer(State(web): State<Web>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let path = head.uri.path().to_owned();
    let field = |name: header::HeaderName| {
        head.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let thing = web.things.lock().unwrap().get(&path).cloned();
    web.asking.lock().unwrap().push(path.clone());
    web.heads.subscribe().wait_for(|open| *open).await.unwrap();
    let told = |status: u16| web.asked.lock().unwrap().push(format!("{path} {status}"));
    let response = Response::builder();
    let Some(thing) = thing else {
        told(404);
        return response.status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
    };
    let response = if thing.etag { response.header(header::ETAG, thing.etag()) } else { response };
    let response = response
        .header("x-version", u32::from(thing.version))
        .header(header::CACHE_CONTROL, "max-age=3600")
        .header("surrogate-key", thing.tags);
    if field(header::IF_NONE_MATCH).is_some_and(|etag| etag == thing.etag()) {
        told(304);
        return response.status(StatusCode::NOT_MODIFIED).body(Body::empty()).unwrap();
    }
    if field(header::IF_MATCH).is_some_and(|etag| etag != thing.etag()) {
        told(412);
        return response.status(StatusCode::PRECONDITION_FAILED).body(Body::empty()).unwrap();
    }
    let (body, total) = (thing.body(), thing.bytes);
    let range = field(header::RANGE)
        .filter(|_| field(header::IF_RANGE).is_none_or(|etag| etag == thing.etag()));
    let Some(range) = range else {
        told(200);
        let length = response.header(header::CONTENT_LENGTH, total);
        return length.body(held(&web, body)).unwrap();
    };
    let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let last = last.parse().unwrap_or(total - 1).min(total - 1);
    told(206);
    let part = body[start..=last].to_vec();
    response
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, format!("bytes {start}-{last}/{total}"))
        .header(header::CONTENT_LENGTH, part.len())
        .body(held(&web, part))
        .unwrap()
}

/// The first bytes at once, the rest once the origin is open.
fn held(web: &Web, body: Vec<u8>) -> Body {
    let is_open = web.open.subscribe();
    let (first, rest) = body.split_at(body.len().min(1000));
    let pieces = [Bytes::copy_from_slice(first), Bytes::copy_from_slice(rest)];
    Body::from_stream(futures::stream::unfold(0, move |number| {
        let (pieces, mut is_open) = (pieces.clone(), is_open.clone());
        async move {
            if number == 1 {
                is_open.wait_for(|open| *open).await.ok()?;
            }
            let piece = pieces.get(number)?.clone();
            Some((Ok::<_, std::io::Error>(piece), number + 1))
        }
    }))
}

/// One connection to an edge, for requests to `films.test`.
struct Connection(hyper::client::conn::http1::SendRequest<Empty<Bytes>>);

impl Connection {
    async fn open(edge: &Edge) -> Self {
        let addr = edge.http.strip_prefix("http://").unwrap();
        let io = TokioIo::new(tokio::net::TcpStream::connect(addr).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn send(&mut self, path: &str, range: Option<&str>) -> http::Response<Incoming> {
        let mut request = http::Request::get(path).header(header::HOST, "films.test");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        self.0.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
    }

    async fn get(&mut self, path: &str, range: Option<&str>) -> Answer {
        let (head, body) = self.send(path, range).await.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).map_err(|e| e.to_string());
        Answer { status: head.status, headers: head.headers, body }
    }
}

/// An edge before a web origin, and its admin port.
struct Stage {
    dir: tempfile::TempDir,
    web: Web,
    edge: Edge,
    admin: Client,
}

fn before(dir: &Path, web: &Web) -> Settings {
    Settings { control_plane: None, ..settings(dir, &web.url) }
}

impl Stage {
    async fn new() -> Self {
        let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
        let edge = Edge::start(before(dir.path(), &web)).await;
        let admin = Client::new(DEADLINE, None, None).unwrap();
        Self { dir, web, edge, admin }
    }

    /// The same edge, killed and started again.
    async fn restarted(self) -> Self {
        let Self { dir, web, edge, admin } = self;
        edge.kill().await;
        let edge = Edge::start(before(dir.path(), &web)).await;
        Self { dir, web, edge, admin }
    }

    async fn get(&self, path: &str) -> Answer {
        Connection::open(&self.edge).await.get(path, None).await
    }

    async fn part(&self, path: &str, start: usize, bytes: usize) -> Answer {
        let range = format!("bytes={start}-{}", start + bytes - 1);
        Connection::open(&self.edge).await.get(path, Some(&range)).await
    }

    async fn purge(&self, request: Value) -> Result<u64, Error> {
        let url = format!("{}/v1/purge", self.edge.admin);
        self.admin.post_json::<_, PurgeDone>(&url, &request).await.map(|done| done.number)
    }

    async fn explain(&self, path: &str) -> Explanation {
        let url = format!("{}/v1/explain?url=http://films.test{path}", self.edge.admin);
        self.admin.get_json(&url).await.unwrap()
    }

    /// Where the chunks of the one variant of `path` are.
    async fn chunks(&self, path: &str) -> Vec<(u32, u32, ChunkPlace)> {
        let explanation = self.explain(path).await;
        let [variant] = &explanation.variants[..] else { panic!("{explanation:?}") };
        variant.chunks.iter().map(|run| (run.first, run.last, run.place)).collect()
    }
}

fn verdict(answer: &Answer) -> &str {
    answer.verdict().trim_matches('"')
}

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

/// A title's URL is explained as well; what is on the planned tier and in memory is told apart.
#[tokio::test]
async fn a_titles_url_is_explained_without_its_token() {
    let stage = common::Stage::new().await;
    let admin = Client::new(DEADLINE, None, None).unwrap();
    let explain = async |url: String| {
        let url = format!("{}/v1/explain?url={url}", stage.edge.admin);
        admin.get_json::<Explanation>(&url).await
    };
    let track = &stage.film.index.tracks[0];
    let file = format!("{}.mp4", track.facts.id);
    let told = explain(stage.url(&file)).await.unwrap();
    assert!(!told.url.contains(&stage.token) && told.url.ends_with(&file), "{}", told.url);
    let media = told.title.unwrap().media.unwrap();
    assert!(media.chunks.iter().all(|run| run.place == ChunkPlace::Absent), "{media:?}");
    assert_eq!((media.first, media.count), (0, track.facts.file_bytes));

    stage.get(&file).await.bytes();
    let without_token = stage.url(&file).replace(&format!("~{}/", stage.token), "");
    let told = explain(without_token).await.unwrap();
    let media = told.title.unwrap().media.unwrap();
    assert!(media.chunks.iter().all(|run| run.place == ChunkPlace::Memory), "{media:?}");
    assert_eq!(told.site, "titles");
    let manifest = explain(stage.url("hls.m3u8")).await.unwrap();
    assert_eq!(manifest.title.unwrap().media, None);
    let error = explain(stage.url("none.mp4")).await.unwrap_err().to_string();
    assert!(error.contains("no such track"), "{error}");
}

#[tokio::test]
async fn a_purge_of_nothing_that_could_be_stored_is_refused_by_name() {
    let stage = Stage::new().await;
    for (request, wanted) in [
        (json!({}), "exactly one of url, prefix, tag and all"),
        (json!({ "url": "http://films.test/a", "all": true }), "exactly one"),
        (json!({ "url": "films.test/a" }), "url: \\\"films.test/a\\\": expected http://"),
        (json!({ "url": "http://films.test/%zz" }), "url: "),
        (json!({ "prefix": "ftp://films.test/" }), "prefix: "),
        (json!({ "tag": "" }), "tag: is empty"),
        (json!({ "all": true, "site": "films" }), "site: \\\"films\\\" is none of *"),
        (json!({ "tags": "season-1" }), "unknown field `tags`"),
    ] {
        let error = stage.purge(request).await.unwrap_err().to_string();
        assert!(error.contains("400 Bad Request") && error.contains(wanted), "{error}");
    }
    assert_eq!(stage.edge.metric("nearcast_edge_purges_kept").await, 0.0);
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

/// What a web page may send to any address without asking first: a form.
#[tokio::test]
async fn a_page_in_a_browser_can_purge_nothing() {
    let stage = Stage::new().await;
    let request = http::Request::post(format!("{}/v1/purge", stage.edge.admin))
        .header("content-type", "text/plain")
        .body(http_body_util::Full::new(Bytes::from_static(b"{\"all\": true}")));
    let answer = stage.admin.send(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_call_that_is_too_long_is_told_so_as_any_mistake_is() {
    let stage = Stage::new().await;
    let refused = stage.purge(json!({ "tag": "t".repeat(64 << 10) })).await;
    let Err(Error::Status { status, body, .. }) = refused else { panic!("{refused:?}") };
    let told: ApiError = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &*told.code), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
    assert!(told.message.contains("expected at most 65536 bytes"), "{}", told.message);
}
