//! The origin server: titles from the store, for edges.
//!
//! Stateless but for facts that never change (what is published, sizes), so many can run on
//! one store. Its URLs are the store's keys.

mod answer;
mod catalog;
mod metrics;
mod settings;

pub use settings::{Config, Settings};

use crate::Error;
use answer::Origin;
use axum::Router;
use axum::routing::get;
use catalog::Catalog;
use metrics::Metrics;
use serde_json::json;
use service::admin::{Admin, Ready};
use service::connections::{self, Limits};
use service::{Shutdown, listen};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::sync::Semaphore;

/// Requests under way; more are answered 503.
const REQUESTS_MAX: usize = 1024;
/// The store is asked this often whether it answers: what `/readyz` says.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// No title has this name: a title's record is one folder deeper.
const PROBE_KEY: &str = "published/none";
/// Edges keep few connections, and drop a request that does not move long before this.
const LIMITS: Limits = Limits {
    connections_max: 4096,
    silence_max: Duration::from_secs(60),
    stall_max: Duration::from_secs(30),
    drain_max: Duration::from_secs(10),
};

/// Serves until shutdown is requested, then drains.
///
/// # Errors
/// [`Error`] when it can't start.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    service::files::raise();
    let store = Store::open(&config.store)?;
    let listener = listen::bind(config.listen, "origin listen")?;
    let addr = listener
        .local_addr()
        .map_err(|error| listen::failed(config.listen, "origin listen", error))?;
    let admin = Admin::bind(config.admin).await?;
    let (registry, ready) = (prometheus::Registry::new(), Ready::new());
    let origin = Arc::new(Origin {
        catalog: Catalog::new(store.clone()),
        store,
        metrics: Metrics::new(&registry),
        places: Arc::new(Semaphore::new(REQUESTS_MAX)),
    });
    let admin_url = format!("http://{}", admin.local_addr());
    // The admin port answers until the last request has; then it is cut, whoever holds it.
    let admin = admin.serve(registry, ready.clone(), Router::new(), Shutdown::new());
    let admin = tokio::spawn(admin);
    let probe = tokio::spawn(probe(Arc::clone(&origin), ready.clone(), shutdown.clone()));
    let router = Router::new()
        .route("/titles/{title}/{version}/{file}", get(answer::answer))
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .with_state(origin);
    let url = format!("http://{addr}");
    service::announce(config.announce.as_deref(), &json!({ "admin": admin_url, "urls": [&url] }))?;
    tracing::info!(url, admin = admin_url, store = config.store, "origin is listening");
    connections::serve(listener, router, LIMITS, shutdown).await;
    probe.await?;
    admin.abort();
    Ok(())
}

/// Asks the store for an object that is not there, and says by `ready` whether it answers.
async fn probe(origin: Arc<Origin>, ready: Ready, shutdown: Shutdown) {
    loop {
        let head = tokio::select! {
            head = origin.store.head(PROBE_KEY) => head,
            () = shutdown.requested() => break,
        };
        let answers = match head {
            Ok(_) | Err(store::Error::NotFound { .. }) => true,
            Err(error) => {
                if ready.is_set() {
                    tracing::error!(%error, "the store can't be used");
                }
                false
            }
        };
        ready.set(answers && !shutdown.is_requested());
        tokio::select! {
            () = tokio::time::sleep(PROBE_EVERY) => {}
            () = shutdown.requested() => break,
        }
    }
    ready.set(false);
}
