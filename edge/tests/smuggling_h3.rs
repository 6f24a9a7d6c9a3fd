//! HTTP/3 requests whose bodies are not as long as they say (RFC 9114 section 4.1.2): refused, told
//! to nobody as a whole request, and never the origin's fault.

#![allow(clippy::unwrap_used, reason = "a story that meets an error has failed")]

mod common;

use common::{DEADLINE, Edge, H3, Item, Web, proxy_settings};
use http::{Method, Request, StatusCode};

/// More than open the breaker of an origin that fails them all.
const TRIES: usize = 40;

struct Story {
    _dir: tempfile::TempDir,
    web: Web,
    edge: Edge,
    h3: H3,
}

impl Story {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let web = Web::start().await;
        let settings = proxy_settings(dir.path(), &web.url, &serde_json::json!({}));
        let edge = Edge::start(settings).await;
        let h3 = H3::to(&edge.https, &edge.dir, quinn::TransportConfig::default()).await;
        Self { _dir: dir, web, edge, h3 }
    }

    /// What comes of a body in these frames; none: the stream was reset.
    async fn post(&self, path: &str, said: usize, frames: &[usize]) -> Option<StatusCode> {
        self.ask(Method::POST, path, said, frames).await
    }

    /// The same of any method.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        said: usize,
        frames: &[usize],
    ) -> Option<StatusCode> {
        let request = Request::builder().method(method);
        let request = request.uri(format!("{}{path}", self.edge.https));
        let request = request.header("content-length", said).body(()).unwrap();
        let exchange = async {
            let mut stream = self.h3.sender.clone().send_request(request).await.ok()?;
            for bytes in frames {
                // Who answers before the end may stop what is left of it.
                let _ = stream.send_data(vec![b'a'; *bytes].into()).await;
            }
            let _ = stream.finish().await;
            Some(stream.recv_response().await.ok()?.status())
        };
        tokio::time::timeout(DEADLINE, exchange).await.expect("an end")
    }
}

#[tokio::test]
async fn a_body_as_long_as_it_says_arrives_whole() {
    let story = Story::new().await;
    story.web.put("/a", Item::of(10));
    let cases: [(usize, &[usize]); 5] =
        [(0, &[]), (3, &[3]), (3, &[1, 2]), (3, &[0, 2, 0, 1, 0]), (70_000, &[40_000, 30_000])];
    for (said, frames) in cases {
        let status = story.post("/a", said, frames).await;
        assert_eq!(status, Some(StatusCode::NO_CONTENT), "{said} {frames:?}");
    }
    assert_eq!(story.web.count("/a"), cases.len());
    story.edge.stop().await;
}

#[tokio::test]
async fn a_body_of_another_length_is_refused_and_no_fault_of_the_origin() {
    let story = Story::new().await;
    story.web.put("/a", Item::of(10));
    story.web.put("/b", Item::of(10));
    let cases: [(usize, &[usize]); 6] =
        [(10, &[3]), (10, &[]), (3, &[40]), (3, &[3, 1]), (3, &[1, 1, 0, 2]), (1, &[1, 30_000])];
    for (said, frames) in cases {
        let status = story.post("/a", said, frames).await;
        let is_refused = status.is_none_or(|status| status == StatusCode::BAD_REQUEST);
        assert!(is_refused, "{said} {frames:?}: {status:?}");
    }
    for number in 0..TRIES {
        let _ = story.post(&format!("/a/{number}"), 10, &[3]).await;
    }
    assert!(story.web.asked().is_empty());
    let answer = common::get(&format!("{}/b", story.edge.http), &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.verdict());
    story.edge.stop().await;
}

/// What a GET brings is of no use to anybody, but one that is not as it says is no request.
#[tokio::test]
async fn a_get_without_the_body_that_it_promises_is_no_request() {
    let story = Story::new().await;
    story.web.put("/a", Item::of(10));
    for method in [Method::GET, Method::HEAD] {
        let good: [(usize, &[usize]); 4] = [(0, &[]), (5, &[5]), (5, &[2, 3]), (5, &[0, 5, 0])];
        for (said, frames) in good {
            let status = story.ask(method.clone(), "/a", said, frames).await;
            assert_eq!(status, Some(StatusCode::OK), "{method} {said} {frames:?}");
        }
        let bad: [(usize, &[usize]); 3] = [(5, &[]), (5, &[0]), (5, &[6])];
        for (said, frames) in bad {
            let status = story.ask(method.clone(), "/a", said, frames).await;
            assert_eq!(status, None, "{method} {said} {frames:?}");
        }
    }
    let line = "nearcast_edge_requests_unread_total{protocol=\"h3\",reason=\"malformed\"}";
    assert_eq!(story.edge.metric(line).await, 6.0);
    story.edge.stop().await;
}
