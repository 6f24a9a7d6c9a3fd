//! `POST /v1/playback`: the life of a decision, from top to bottom.

use super::input::{self, Body};
use super::{App, Fault};
use crate::decide::{self, NO_EDGE, Question, UNKNOWN_TITLE};
use crate::{Grant, accounts};
use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::api::{ApiError, Playback, PlaybackRequest, RankedEdge, Reason, Refused};
use model::fleet::EdgeState;
use model::publish::PublishRecord;
use model::{EdgeId, rank, route};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Instant;

pub(super) async fn decide(
    State(app): State<App>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Body(request): Body<PlaybackRequest>,
) -> Response {
    let begun = Instant::now();
    let response = match answer(&app, client, &request).await {
        Ok(Ok(playback)) => {
            app.metrics.decisions.with_label_values(&["granted"]).inc();
            Json(playback).into_response()
        }
        Ok(Err(reasons)) => refused(&app, reasons),
        Err(fault) => {
            app.metrics.decisions.with_label_values(&["failed"]).inc();
            fault.into_response()
        }
    };
    app.metrics.decision_seconds.observe(begun.elapsed().as_secs_f64());
    response
}

async fn answer(
    app: &App,
    client: SocketAddr,
    request: &PlaybackRequest,
) -> Result<Result<Playback, Vec<Reason>>, Fault> {
    input::name("profile", &request.profile)?;
    input::name("device", &request.device)?;
    let snapshot = app.snapshot()?;
    let account = accounts::of_profile(&app.db, request.profile.clone()).await?;
    let now_ms = app.clock.now_ms();
    let record = snapshot.titles.get(&request.title).map(|title| &title.record);
    let (edges, holders) = app.fleet.holders(record, now_ms);
    let ranked = rank::rank(&edges, &holders, &request.title);
    let country = app.networks.country(client.ip());
    let question = Question {
        title: &request.title,
        account: account.as_ref(),
        country,
        edges: ranked.len(),
        now_ms,
    };
    let decision = decide::decide(&snapshot, question);
    let country = country.map(|country| country.to_string());
    match (decision, record) {
        (Ok(grant), Some(record)) => {
            let playback = grant_play(app, record, &grant, &ranked, &holders);
            let (title, profile) = (&request.title, &request.profile);
            tracing::info!(play = playback.play, %title, profile, country, "playback granted");
            Ok(Ok(playback))
        }
        (Ok(_), None) => Err(Fault::unavailable("no-catalog", "the title has just gone")),
        (Err(reasons), _) => {
            let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
            tracing::info!(title = %request.title, profile = request.profile, country, ?codes, "playback refused");
            Ok(Err(reasons))
        }
    }
}

fn refused(app: &App, reasons: Vec<Reason>) -> Response {
    for reason in &reasons {
        app.metrics.decisions.with_label_values(&[&reason.code]).inc();
    }
    if let [Reason { code, message }] = &reasons[..]
        && code == NO_EDGE
    {
        return Fault::unavailable(code, message).into_response();
    }
    match reasons.iter().find(|reason| reason.code == UNKNOWN_TITLE) {
        Some(Reason { code, message }) => {
            let error = ApiError { code: code.clone(), message: message.clone() };
            (StatusCode::NOT_FOUND, Json(error)).into_response()
        }
        None => (StatusCode::FORBIDDEN, Json(Refused { reasons })).into_response(),
    }
}

fn grant_play(
    app: &App,
    record: &PublishRecord,
    grant: &Grant,
    ranked: &[&EdgeState],
    holders: &HashSet<EdgeId>,
) -> Playback {
    let play: [u8; 16] = rand::random();
    let token = app.signer.mint(&token::Grant {
        play,
        title: record.title.clone(),
        not_before: grant.not_before,
        expires: grant.expires,
    });
    let path = format!("/~{token}{}", route::title_path(&record.title, &grant.version));
    let urls = |file: &str| {
        let first = ranked.iter().filter_map(|edge| edge.urls.first());
        first.map(|url| format!("{url}{path}{file}")).collect()
    };
    let edge = |edge: &&EdgeState| RankedEdge {
        id: edge.id.clone(),
        urls: edge.urls.clone(),
        holds: holders.contains(&edge.id),
    };
    let best = ranked.first();
    let base = best.map_or("", |edge| edge.id.as_str());
    let scheme =
        best.and_then(|edge| edge.urls.first()?.split_once(':')).map_or("http", |url| url.0);
    let steering = format!(
        "{}/v1/steering{path}{}?base={base}&scheme={scheme}",
        app.public_url,
        route::Resource::Steering
    );
    Playback {
        play: hex::encode(play),
        title: record.title.clone(),
        version: grant.version,
        name: record.name.clone(),
        duration_ms: record.duration_ms,
        expires: grant.expires,
        edges: ranked.iter().map(edge).collect(),
        hls: urls("hls.m3u8"),
        dash: urls("dash.mpd"),
        steering,
        token,
    }
}
