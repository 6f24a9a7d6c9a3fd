//! `POST /v1/events`: what players saw, on disk before it is acknowledged.

use super::input::Body;
use super::{App, Fault};
use crate::events::{self, BATCH_EVENTS_MAX, PLAY_EVENTS_MAX, Play, Stored};
use axum::extract::State;
use axum::http::StatusCode;
use model::api::EventBatch;

pub(super) async fn store(
    State(app): State<App>,
    Body(batch): Body<EventBatch>,
) -> Result<StatusCode, Fault> {
    let stored = counted(&app, batch).await;
    match &stored {
        Ok(new) => app.metrics.events_stored.inc_by(*new as u64),
        Err(fault) => app.metrics.events_refused.with_label_values(&[fault.code()]).inc(),
    }
    stored.map(|_| StatusCode::NO_CONTENT)
}

async fn counted(app: &App, batch: EventBatch) -> Result<usize, Fault> {
    if batch.events.len() > BATCH_EVENTS_MAX {
        return Err(Fault::bad(format!(
            "events: {} of them: expected at most {BATCH_EVENTS_MAX}",
            batch.events.len()
        )));
    }
    let now_ms = app.clock.now_ms();
    let claims = app.verifier.verify_play(&batch.token, now_ms / 1000)?;
    let title = claims.title().ok_or(token::Refusal::WrongPath)?;
    if batch.events.is_empty() {
        return Ok(0);
    }
    // Bytes of a title that is gone are no demand.
    let bytes_max = app.snapshot()?.titles.get(&title).map_or(0, |title| title.bytes_max);
    let watched_ms_max = events::watched_ms_max(claims.not_before, now_ms);
    let play = Play { id: claims.play, title, watched_ms_max, bytes_max };
    match events::store(&app.db, play, batch.events, now_ms).await? {
        Stored::New(new) => Ok(new),
        Stored::TooMany => Err(Fault::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-events",
            format!("events: expected at most {PLAY_EVENTS_MAX} a play"),
        )),
    }
}
