//! `GET /v1/steering/~TOKEN/t/{title}/{version}/steering.json`: where to load from now.

use super::{App, Fault, input};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use manifests::steering::{Steer, render};
use model::{EdgeId, rank, route};

/// Players ask again after this many seconds.
const TTL_S: u32 = 30;

pub(super) async fn manifest(State(app): State<App>, uri: Uri) -> Result<Response, Fault> {
    let path = uri.path().strip_prefix("/v1/steering").unwrap_or_default();
    let asked = route::parse(path).map_err(|error| Fault::bad(error.to_string()))?;
    if asked.resource != route::Resource::Steering {
        let message = "expected .../steering.json";
        return Err(Fault::new(StatusCode::NOT_FOUND, "no-such-path", message));
    }
    let now_ms = app.clock.now_ms();
    app.verifier.verify(asked.token, asked.path, Method::GET.as_str(), now_ms / 1000)?;
    let base = input::query(uri.query(), "base")
        .ok_or_else(|| Fault::bad("base: expected the id of the edge whose manifest was loaded"))?;
    let base: EdgeId = input::id(&base)?;
    let scheme = input::query(uri.query(), "scheme").unwrap_or_else(|| "http".to_owned());
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(Fault::bad("scheme: expected http or https"));
    }
    let snapshot = app.snapshot()?;
    let record = snapshot.titles.get(&asked.title).map(|title| &title.record);
    let (edges, holders) = app.fleet.holders(record, now_ms);
    let ranked = rank::rank(&edges, &holders, &asked.title);
    let reload_uri = format!("{}{}?base={base}&scheme={scheme}", app.public_url, uri.path());
    let steer = Steer {
        base: &base,
        scheme: &scheme,
        ranked: &ranked,
        reload_uri: &reload_uri,
        ttl_s: TTL_S,
    };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, render(&steer)).into_response())
}
