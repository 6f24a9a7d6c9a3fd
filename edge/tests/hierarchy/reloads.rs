//! Blocking playlist reloads that the packager of a tree of nodes ends in vain.

use crate::common::nodes::{SITE, below, node_with, nodes};
use crate::common::{Answer, Edge, get, until};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use upstream::hierarchy;

const RELOAD: &str = "/live.m3u8?_HLS_msn=7";
const PLAYERS: usize = 20;
const HELD_IN_VAIN: &str = "nearcast-held-in-vain";

/// A packager that ends each reload by 503, for the page that asks alone, when it has been let go and
/// has held it for as long as it is to.
#[derive(Clone)]
struct Packager {
    asked: Arc<AtomicUsize>,
    lets_go: watch::Sender<bool>,
}

impl Packager {
    async fn answer(State(packager): State<Self>, request: Request) -> Response {
        /// For three target durations by the standard; more than a second as any.
        const HELD: Duration = Duration::from_millis(1200);
        let mut fields = HeaderMap::new();
        let page = request.headers().get(header::ORIGIN).cloned();
        let page = page.unwrap_or(HeaderValue::from_static(""));
        packager.asked.fetch_add(1, Relaxed);
        packager.lets_go.subscribe().wait_for(|lets_go| *lets_go).await.unwrap();
        tokio::time::sleep(HELD).await;
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("4"));
        // On a line of its own, as of a server that compresses before an application.
        fields.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        fields.append(header::VARY, HeaderValue::from_static("origin"));
        fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, page);
        (StatusCode::SERVICE_UNAVAILABLE, fields).into_response()
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    async fn has_asked(&self, count: usize) {
        until("it is asked", async || (self.asked() >= count).then_some(())).await;
    }
}

/// Two edges below one, and the packager above that.
struct Tree {
    _dirs: Vec<TempDir>,
    packager: Packager,
    parent: Edge,
    edges: [Edge; 2],
}

impl Tree {
    async fn new() -> Self {
        let packager = Packager { asked: Arc::default(), lets_go: watch::Sender::new(false) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(Packager::answer).with_state(packager.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [a, b, parent] = nodes(["edge-a", "edge-b", "region-1"]);
        let up = below(std::slice::from_ref(&parent));
        let site = json!({ "hedge": false });
        let start = |dir, peer, up| Edge::start(node_with(dir, peer, &url, up, &site));
        let above = start(&dirs[2], &parent, hierarchy::Settings::default()).await;
        let edges = [start(&dirs[0], &a, up.clone()).await, start(&dirs[1], &b, up).await];
        Self { _dirs: dirs.into(), packager, parent: above, edges }
    }

    async fn stop(self) {
        let [a, b] = self.edges;
        for edge in [a, b, self.parent] {
            edge.stop().await;
        }
    }
}

async fn reload(url: &str, page: &'static str) -> Answer {
    get(&format!("{url}{RELOAD}"), &[("host", SITE), ("origin", page)]).await
}

/// Waits until so many answers are under way.
async fn answers(edge: &Edge, count: f64) {
    until("answers under way", || async {
        (edge.metric("nearcast_edge_responses").await >= count).then_some(())
    })
    .await;
}

fn is_told(answer: &Answer, page: &str) -> bool {
    let told = (answer.header("retry-after"), answer.header("access-control-allow-origin"));
    answer.status == 503 && told == ("4", page)
}

/// Nor does the edge ask the packager itself, as where its parent has failed.
#[tokio::test]
async fn a_reload_that_never_comes_is_held_once_for_all_players_below() {
    let tree = Tree::new().await;
    let [edge, _] = &tree.edges;
    let players = join_all((0..PLAYERS).map(|_| reload(&edge.http, "https://a.example")));
    let (players, ()) = tokio::join!(players, async {
        tree.packager.has_asked(1).await;
        answers(edge, PLAYERS as f64).await;
        tree.packager.lets_go.send_replace(true);
    });
    assert!(players.iter().all(|told| is_told(told, "https://a.example")), "{players:?}");
    assert_eq!(tree.packager.asked(), 1);
    tree.stop().await;
}

/// What a node tells others of which it has waited for itself is for the pages of one kind as well.
#[tokio::test]
async fn no_page_is_told_what_another_may_read_by_a_node_that_only_waited() {
    const PAGES: [&str; 2] = ["https://a.example", "https://b.example"];
    let tree = Tree::new().await;
    let [first, second] = &tree.edges;
    let let_go = async {
        tree.packager.has_asked(1).await;
        let others = async {
            let both = async {
                answers(&tree.parent, 2.0).await;
                tokio::join!(reload(&second.http, PAGES[1]), async {
                    answers(second, 2.0).await;
                    tree.packager.lets_go.send_replace(true);
                })
            };
            tokio::join!(reload(&second.http, PAGES[0]), both)
        };
        others.await
    };
    let (leads, (waits, (other, ()))) = tokio::join!(reload(&first.http, PAGES[0]), let_go);
    assert!(is_told(&leads, PAGES[0]) && is_told(&waits, PAGES[0]), "{leads:?} {waits:?}");
    assert!(is_told(&other, PAGES[1]), "{other:?}");
    tree.stop().await;
}

/// A node that came last was not held for long itself. It is told why it was answered, so that all who
/// wait there share that.
#[tokio::test]
async fn a_node_that_only_waited_for_a_reload_is_told_that_it_was_held() {
    let tree = Tree::new().await;
    let first = reload(&tree.parent.peer, "https://a.example");
    let second = async {
        tree.packager.has_asked(1).await;
        tokio::join!(reload(&tree.parent.peer, "https://a.example"), async {
            answers(&tree.parent, 2.0).await;
            tree.packager.lets_go.send_replace(true);
        })
    };
    let (first, (second, ())) = tokio::join!(first, second);
    for answer in [first, second] {
        let has_waited = answer.header("cache-status").contains("collapsed");
        assert_eq!(!answer.header(HELD_IN_VAIN).is_empty(), has_waited, "{answer:?}");
    }
    // No client is.
    let client = reload(&tree.edges[0].http, "https://a.example").await;
    assert_eq!(client.header(HELD_IN_VAIN), "", "{client:?}");
    tree.stop().await;
}
