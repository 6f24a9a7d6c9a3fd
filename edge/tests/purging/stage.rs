//! An edge before that origin, and calls to its admin port.

use crate::common::{Answer, DEADLINE, Edge, settings};
use crate::origin::Web;
use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::admin::{ChunkPlace, Explanation, PurgeDone};
use nearcast_edge::Settings;
use serde_json::Value;
use service::client::{Client, Error};
use std::path::Path;

/// One connection to an edge, for requests to `films.test`.
pub struct Connection(hyper::client::conn::http1::SendRequest<Empty<Bytes>>);

impl Connection {
    pub async fn open(edge: &Edge) -> Self {
        let addr = edge.http.strip_prefix("http://").unwrap();
        let io = TokioIo::new(tokio::net::TcpStream::connect(addr).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn send(&mut self, path: &str, range: Option<&str>) -> http::Response<Incoming> {
        let mut request = http::Request::get(path).header(header::HOST, "films.test");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        self.0.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
    }

    pub async fn get(&mut self, path: &str, range: Option<&str>) -> Answer {
        let (head, body) = self.send(path, range).await.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).map_err(|e| e.to_string());
        Answer { status: head.status, headers: head.headers, body }
    }
}

/// An edge before a web origin, and its admin port.
pub struct Stage {
    pub dir: tempfile::TempDir,
    pub web: Web,
    pub edge: Edge,
    pub admin: Client,
}

pub fn before(dir: &Path, web: &Web) -> Settings {
    Settings { control_plane: None, ..settings(dir, &web.url) }
}

impl Stage {
    pub async fn new() -> Self {
        let (dir, web) = (tempfile::tempdir().unwrap(), Web::start().await);
        let edge = Edge::start(before(dir.path(), &web)).await;
        let admin = Client::new(DEADLINE, None, None).unwrap();
        Self { dir, web, edge, admin }
    }

    /// The same edge, killed and started again.
    pub async fn restarted(self) -> Self {
        let Self { dir, web, edge, admin } = self;
        edge.kill().await;
        let edge = Edge::start(before(dir.path(), &web)).await;
        Self { dir, web, edge, admin }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Connection::open(&self.edge).await.get(path, None).await
    }

    pub async fn part(&self, path: &str, start: usize, bytes: usize) -> Answer {
        let range = format!("bytes={start}-{}", start + bytes - 1);
        Connection::open(&self.edge).await.get(path, Some(&range)).await
    }

    pub async fn purge(&self, request: Value) -> Result<u64, Error> {
        let url = format!("{}/v1/purge", self.edge.admin);
        self.admin.post_json::<_, PurgeDone>(&url, &request).await.map(|done| done.number)
    }

    pub async fn explain(&self, path: &str) -> Explanation {
        let url = format!("{}/v1/explain?url=http://films.test{path}", self.edge.admin);
        self.admin.get_json(&url).await.unwrap()
    }

    /// Where the chunks of the one variant of `path` are.
    pub async fn chunks(&self, path: &str) -> Vec<(u32, u32, ChunkPlace)> {
        let explanation = self.explain(path).await;
        let [variant] = &explanation.variants[..] else { panic!("{explanation:?}") };
        variant.chunks.iter().map(|run| (run.first, run.last, run.place)).collect()
    }
}

pub fn verdict(answer: &Answer) -> &str {
    answer.verdict().trim_matches('"')
}
