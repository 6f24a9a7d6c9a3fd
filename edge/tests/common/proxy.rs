//! A web origin and an edge that is a cache before it, for any host.

use super::{Answer, Edge, Hold, Opened, Web, get, open, settings, until};
use futures::future::join_all;
use nearcast_edge::{Settings, SiteSettings};
use service::value::ByteSize;
use std::ops::Range;
use tempfile::TempDir;

/// Bytes of a chunk.
pub const CHUNK: u64 = model::chunk::CHUNK_BYTES;

/// The origin and the edge.
pub struct Proxy {
    pub dir: TempDir,
    pub web: Web,
    pub edge: Edge,
}

/// Settings of an edge without titles that has one site, for any host, as the file would say:
/// `site` is the JSON of its table, less its origins.
pub fn proxy_settings(dir: &std::path::Path, origin: &str, site: &serde_json::Value) -> Settings {
    let mut site = site.clone();
    site["origins"] = serde_json::json!([origin]);
    let site: SiteSettings = serde_json::from_value(site).unwrap();
    Settings {
        origin: Vec::new(),
        control_plane: None,
        sites: [("*".to_owned(), site)].into(),
        memory: Some(ByteSize(128 << 20)),
        ..settings(dir, "")
    }
}

impl Proxy {
    pub async fn new() -> Self {
        Self::with(serde_json::json!({})).await
    }

    /// With these settings of the site.
    pub async fn with(site: serde_json::Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let web = Web::start().await;
        let edge = Edge::start(proxy_settings(dir.path(), &web.url, &site)).await;
        Self { dir, web, edge }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.edge.http)
    }

    pub async fn get(&self, path: &str) -> Answer {
        get(&self.url(path), &[]).await
    }

    pub async fn get_with(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        get(&self.url(path), fields).await
    }

    /// What so many clients are answered who all ask while the origin holds its answer back. One that
    /// comes later still finds what the others were given, if that is kept.
    pub async fn get_together(&self, path: &str, clients: usize) -> Vec<Answer> {
        self.web.hold(Hold::Head);
        let answers = join_all((0..clients).map(|_| self.get(path)));
        let (answers, ()) = tokio::join!(answers, async {
            until("all are in", || async {
                let open = self.edge.metric("nearcast_edge_connections").await;
                (open >= clients as f64 && self.web.held() > 0).then_some(())
            })
            .await;
            self.web.release();
        });
        answers
    }

    /// A range, given by first byte and end.
    pub async fn part(&self, path: &str, range: Range<u64>) -> Answer {
        let field = format!("bytes={}-{}", range.start, range.end - 1);
        self.get_with(path, &[("range", &field)]).await
    }

    /// Waits until what was begun is whole: answers of parts end before their chunks do.
    pub async fn has_filled(&self) {
        let filling = "nearcast_edge_filling_chunks ";
        let is_whole = async || (self.edge.metric(filling).await == 0.0).then_some(());
        until("the chunks are whole", is_whole).await;
    }

    /// An answer that is read piece by piece.
    pub async fn open(&self, path: &str, fields: &[(&str, &str)]) -> Opened {
        open(&self.url(path), fields).await
    }
}
