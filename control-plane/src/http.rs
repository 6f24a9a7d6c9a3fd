//! The API: routes, who may call them, and how errors are told.

mod admin;
mod cors;
mod edges;
mod events;
mod fault;
mod input;
mod planner;
mod playback;
mod steering;

use crate::catalog::{Catalog, Snapshot};
use crate::country::Networks;
use crate::db::Db;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::plans::Plans;
use crate::secrets::{Credentials, Role};
use crate::{Clock, console};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use fault::Fault;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// A request's body, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// A heartbeat names every file that an edge holds.
const HEARTBEAT_BYTES_MAX: usize = 1 << 20;
/// A plan run names every title for every edge.
const PLANS_BYTES_MAX: usize = 16 << 20;
/// A request takes at most this long, its body included.
const REQUEST_MAX: Duration = Duration::from_secs(15);

/// Everything that requests work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) db: Db,
    pub(crate) catalog: Catalog,
    pub(crate) fleet: Fleet,
    pub(crate) plans: Plans,
    pub(crate) networks: Networks,
    pub(crate) signer: token::Signer,
    pub(crate) verifier: token::Verifier,
    pub(crate) keys: Vec<model::fleet::PublicKey>,
    pub(crate) credentials: Credentials,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) public_url: String,
    /// The data folder's, for as long as anything works with it; last, so that all else is
    /// closed before.
    pub(crate) _alone: std::fs::File,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, Fault> {
        let none = "the catalog was not read yet";
        self.catalog.snapshot().ok_or_else(|| Fault::unavailable("no-catalog", none))
    }
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

pub(crate) fn router(app: App) -> Router {
    let by = |role: Role, method: MethodRouter<App>| {
        method.route_layer(from_fn_with_state((app.clone(), role), authorize))
    };
    let large = DefaultBodyLimit::max;
    let open = Router::new()
        .route("/v1/playback", by(Role::App, post(playback::decide)).options(cors::preflight))
        .route("/v1/events", post(events::store).options(cors::preflight))
        .route("/v1/steering/{*path}", get(steering::manifest).options(cors::preflight))
        .layer(from_fn(cors::allow_all));
    let beat = post(edges::heartbeat).layer(large(HEARTBEAT_BYTES_MAX));
    let publish = post(planner::publish).layer(large(PLANS_BYTES_MAX));
    Router::new()
        .route("/v1/edges/{id}/heartbeat", by(Role::Edge, beat))
        .route("/v1/edges/{id}/plan", by(Role::Edge, get(edges::plan)))
        .route("/v1/edge-view", by(Role::Edge, get(edges::view)))
        .route("/v1/planner/input", by(Role::Operator, get(planner::input)))
        .route("/v1/plans", by(Role::Operator, publish))
        .route("/v1/overview", by(Role::Operator, get(admin::overview)))
        .route("/v1/accounts/{id}", by(Role::Operator, put(admin::put_account)))
        .route("/v1/profiles/{id}", by(Role::Operator, put(admin::put_profile)))
        .route("/v1/titles/{id}/windows", by(Role::Operator, put(admin::put_windows)))
        .route("/v1/{*rest}", axum::routing::any(unknown))
        .route("/", get(console::index))
        .route("/{*path}", get(console::asset))
        .merge(open)
        .method_not_allowed_fallback(async || {
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "see the Allow header")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn(in_time))
        .with_state(app)
}

async fn unknown() -> Fault {
    Fault::new(StatusCode::NOT_FOUND, "no-such-path", "the API has no such path")
}

/// A client that sends or reads slowly does not hold a request for ever.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let slow = format!("the request took longer than {REQUEST_MAX:?}");
            Fault::new(StatusCode::REQUEST_TIMEOUT, "too-slow", slow).into_response()
        }
    }
}

/// Only callers of this role, and the operator.
async fn authorize(
    State((app, role)): State<(App, Role)>,
    request: Request,
    next: Next,
) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let secret = shown.and_then(|shown| {
        let (scheme, secret) = shown.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    match secret.and_then(|secret| app.credentials.role(secret)) {
        Some(given) if given == role || given == Role::Operator => next.run(request).await,
        Some(_) => {
            let other = "this credential is for other calls";
            Fault::new(StatusCode::FORBIDDEN, "wrong-credential", other).into_response()
        }
        None => {
            let expected = "Authorization: expected Bearer and a credential of this control plane";
            let fault = Fault::new(StatusCode::UNAUTHORIZED, "unauthorized", expected);
            ([(header::WWW_AUTHENTICATE, "Bearer")], fault).into_response()
        }
    }
}
