//! An edge before an origin whose answers a function makes, and which is asked what it was asked.

use super::{Answer, Edge, get, settings};
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use nearcast_edge::Settings;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// The origin and the edge, with one site for any host.
pub struct Scripted {
    pub edge: Edge,
    asked: Arc<Mutex<Vec<String>>>,
    _dir: TempDir,
}

impl Scripted {
    pub async fn new(answer: fn(&Request) -> Response) -> Self {
        Self::with(answer, |settings| settings).await
    }

    /// With other settings of the edge.
    pub async fn with(
        answer: fn(&Request) -> Response,
        change: impl FnOnce(Settings) -> Settings,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&asked);
        let router = Router::new().fallback(move |request: Request| {
            noted.lock().unwrap().push(request.uri().to_string());
            let answer = answer(&request);
            async move { answer }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { control_plane: None, ..settings(dir.path(), &url) };
        Self { edge: Edge::start(change(settings)).await, asked, _dir: dir }
    }

    /// What the origin was asked for: path and query.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How often it was asked for this.
    pub fn times(&self, target: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == target).count()
    }

    pub async fn get(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        get(&format!("{}{path}", self.edge.http), fields).await
    }
}
