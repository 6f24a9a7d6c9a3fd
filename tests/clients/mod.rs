//! Clients of an edge as a process: one for each protocol that it speaks.

use loadtest::{Client, Fetched, Protocol};
use nearcast::cluster::Process;
use std::path::Path;
use std::time::{Duration, Instant};

/// Nothing takes this long.
pub const WAIT: Duration = Duration::from_secs(60);

/// A client that speaks one protocol with one edge.
pub struct Speaker {
    pub by: Protocol,
    /// The URL of the listener that it goes to.
    pub base: String,
    client: Client,
}

impl Speaker {
    /// All bytes of a path.
    pub async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Fetched {
        let answer = self.client.get(&format!("{}{path}", self.base), fields).await;
        answer.unwrap_or_else(|error| panic!("{} {path}: {error}", self.by))
    }
}

/// One for each protocol. The edge has a listener for `http` and one for `https`, whose generated
/// certificate is below `data`.
pub fn speakers(edge: &Process, data: &Path) -> Vec<Speaker> {
    let ca = vec![std::fs::read(data.join("tls/cert.pem")).unwrap()];
    let speaker = |by: Protocol| {
        let scheme = format!("{}://", by.scheme());
        let base = edge.announced.urls.iter().find(|url| url.starts_with(&scheme));
        let client = Client::new(by, &ca, WAIT).unwrap();
        Speaker { by, base: base.unwrap().clone(), client }
    };
    Protocol::ALL.into_iter().map(speaker).collect()
}

/// What the edge counts, once nothing is on its way into the cache.
pub async fn metrics_at_rest(edge: &Process) -> String {
    let client = Client::new(Protocol::H1, &[], WAIT).unwrap();
    let (url, started) = (format!("{}/metrics", edge.announced.admin), Instant::now());
    loop {
        let answer = client.get(&url, &[]).await.unwrap();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        if text.lines().any(|line| line == "nearcast_edge_filling_chunks 0") {
            return text;
        }
        assert!(started.elapsed() < WAIT, "{text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
