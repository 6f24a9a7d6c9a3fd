//! What edges call: heartbeat, view, plan.

use super::input::{self, Body};
use super::{App, Fault};
use crate::fleet::{self, EDGES_MAX};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use model::fleet::{EdgeView, Heartbeat, HeartbeatReply};
use model::{EdgeId, FillPlan};

pub(super) async fn heartbeat(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(beat): Body<Heartbeat>,
) -> Result<Json<HeartbeatReply>, Fault> {
    let id: EdgeId = input::id(&id)?;
    if let Some(message) = fleet::fault(&beat) {
        return Err(Fault::bad(message));
    }
    let plan = app.plans.number_of(&id);
    let view = app.fleet.heard(id, beat, app.clock.now_ms()).ok_or_else(|| {
        Fault::unavailable("fleet-full", format!("there are {EDGES_MAX} other edges"))
    })?;
    app.metrics.heartbeats.inc();
    Ok(Json(HeartbeatReply { view, plan }))
}

pub(super) async fn view(State(app): State<App>) -> Json<EdgeView> {
    let (version, edges) = app.fleet.view(app.clock.now_ms());
    let (keys, control_plane_url) = (app.keys.clone(), app.public_url.clone());
    Json(EdgeView { version, keys, control_plane_url, edges })
}

pub(super) async fn plan(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<FillPlan>, Fault> {
    let id: EdgeId = input::id(&id)?;
    let none =
        || Fault::new(StatusCode::NOT_FOUND, "no-plan", format!("no plan names edge {id} yet"));
    app.plans.of(&id).map(Json).ok_or_else(none)
}
