//! A control plane, as far as an edge sees it.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use model::FillPlan;
use model::fleet::{EdgeView, Heartbeat, HeartbeatReply};
use std::sync::{Arc, Mutex};

/// What it says, and what it was told.
pub struct Shared {
    pub view: EdgeView,
    pub plan: Option<FillPlan>,
    pub beats: Vec<Heartbeat>,
    pub bearers: Vec<String>,
}

/// The control plane.
pub struct Control {
    pub url: String,
    pub shared: Arc<Mutex<Shared>>,
}

type At = State<Arc<Mutex<Shared>>>;

impl Control {
    pub async fn start(view: EdgeView) -> Self {
        let shared = Shared { view, plan: None, beats: Vec::new(), bearers: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let router = Router::new()
            .route("/v1/edges/{id}/heartbeat", post(heartbeat))
            .route("/v1/edge-view", get(view_of))
            .route("/v1/edges/{id}/plan", get(plan))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    pub fn last_beat(&self) -> Option<Heartbeat> {
        self.shared.lock().unwrap().beats.last().cloned()
    }

    /// How many heartbeats said that the edge drains.
    pub fn farewells(&self) -> usize {
        self.shared.lock().unwrap().beats.iter().filter(|beat| !beat.serving).count()
    }
}

async fn heartbeat(
    State(shared): At,
    Path(_): Path<String>,
    headers: HeaderMap,
    Json(beat): Json<Heartbeat>,
) -> Json<HeartbeatReply> {
    let mut shared = shared.lock().unwrap();
    shared.beats.push(beat);
    let bearer = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    shared.bearers.push(bearer.to_owned());
    let plan = shared.plan.as_ref().map(|plan| plan.number);
    Json(HeartbeatReply { view: shared.view.version, plan })
}

async fn view_of(State(shared): At) -> Json<EdgeView> {
    Json(shared.lock().unwrap().view.clone())
}

async fn plan(State(shared): At, Path(_): Path<String>) -> Result<Json<FillPlan>, StatusCode> {
    shared.lock().unwrap().plan.clone().map(Json).ok_or(StatusCode::NOT_FOUND)
}
