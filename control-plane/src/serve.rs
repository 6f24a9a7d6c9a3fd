//! The control plane's parts, wired in order; started, drained, ended.

use crate::catalog::Catalog;
use crate::country::Networks;
use crate::db::Db;
use crate::fleet::Fleet;
use crate::http::{self, App, Parts};
use crate::metrics::Metrics;
use crate::plans::Plans;
use crate::retention::{self, Retention};
use crate::secrets::{self, Credentials};
use crate::{Clock, Config, Error};
use service::Shutdown;
use service::admin::{Admin, Ready};
use service::connections::{self, Limits};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Apps, edges and browsers: some thousand connections, none silent for long.
const LIMITS: Limits = Limits {
    connections_max: 8192,
    silence_max: Duration::from_secs(60),
    stall_max: Duration::from_secs(30),
    drain_max: Duration::from_secs(10),
};

/// How often gauges are brought up to date.
const GAUGES_EVERY: Duration = Duration::from_secs(1);
/// How often what has had its time is deleted, and at start.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// A control plane that serves.
pub struct Running {
    /// Where the API listens.
    pub url: String,
    /// Where metrics and health listen.
    pub admin_url: String,
    server: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    /// Ends last: the drain can be watched to its end.
    admin: JoinHandle<()>,
}

#[derive(serde::Serialize)]
struct Announcement<'a> {
    admin: &'a str,
    urls: [&'a str; 1],
}

/// Serves until shutdown is requested, then drains.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    service::files::raise();
    let announce = config.announce.clone();
    let running = start(config, Clock::system(), shutdown).await?;
    let announcement = Announcement { admin: &running.admin_url, urls: [&running.url] };
    service::announce(announce.as_deref(), &announcement)?;
    tracing::info!(url = running.url, admin = running.admin_url, "the control plane serves");
    running.finished().await;
    tracing::info!("the control plane has ended");
    Ok(())
}

/// Starts a control plane that reads this clock.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn start(config: Config, clock: Clock, shutdown: Shutdown) -> Result<Running, Error> {
    let listener = service::listen::bind(config.listen, "control-plane listen")?;
    let admin = Admin::bind(config.admin).await?;
    let app = open(&config, clock, local_addr(&listener, config.listen)?).await?;
    let ready = Ready::new();
    let nothing_more = axum::Router::new();
    let registry = app.metrics.registry.clone();
    let running = Running {
        url: format!("http://{}", local_addr(&listener, config.listen)?),
        admin_url: format!("http://{}", admin.local_addr()),
        server: tokio::spawn(connections::serve(
            listener,
            http::router(app.clone()),
            LIMITS,
            shutdown.clone(),
        )),
        helpers: vec![
            tokio::spawn(refresh(
                app.clone(),
                config.catalog_refresh,
                ready.clone(),
                shutdown.clone(),
            )),
            tokio::spawn(prune(app.clone(), config.keep, shutdown.clone())),
            tokio::spawn(gauges(app, shutdown)),
        ],
        admin: tokio::spawn(admin.serve(registry, ready, nothing_more, Shutdown::new())),
    };
    Ok(running)
}

impl Running {
    /// Waits for the end: requests have been answered, the database is closed.
    pub async fn finished(self) {
        for task in std::iter::once(self.server).chain(self.helpers) {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the control plane has failed");
            }
        }
        self.admin.abort();
        // Cancelled is how it ends; its port is free from here on.
        let _ = self.admin.await;
    }
}

fn local_addr(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, Error> {
    let failed = |error| service::listen::failed(asked, "control-plane listen", error);
    Ok(listener.local_addr().map_err(failed)?)
}

async fn open(config: &Config, clock: Clock, addr: SocketAddr) -> Result<App, Error> {
    secrets::make_folder(&config.data_dir)?;
    let alone = service::lock(&config.data_dir, "control-plane.data-dir")?;
    let credentials = Credentials::open(&config.data_dir, &config.credentials)?;
    let signer = secrets::signing_key(&config.data_dir)?;
    let networks = config.networks.as_deref().map(Networks::load).transpose()?.unwrap_or_default();
    let db = Db::open(&config.data_dir.join("control-plane.sqlite"))?;
    let store = store::Store::open(&config.store)?;
    let keys = vec![signer.public()];
    let verifier = token::Verifier::new(&keys)
        .map_err(|source| Error::Key { path: config.data_dir.clone(), source })?;
    let metrics = Metrics::new().expect("each metric has a name of its own");
    Ok(App::new(Parts {
        plans: Plans::open(db.clone()).await?,
        catalog: Catalog::new(store, db.clone(), clock.clone()),
        fleet: Fleet::new(clock.now_ms()),
        public_url: config.public_url.clone().unwrap_or_else(|| format!("http://{addr}")),
        keys,
        db,
        networks,
        signer,
        verifier,
        credentials,
        metrics,
        clock,
        _alone: alone,
    }))
}

/// Keeps the catalog fresh; ready once it was read.
async fn refresh(app: App, every: Duration, ready: Ready, shutdown: Shutdown) {
    let mut failing = false;
    loop {
        let outcome = tokio::select! {
            outcome = app.catalog.refresh() => outcome,
            () = shutdown.requested() => break,
        };
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("the catalog can be read again");
                }
                ready.set(true);
            }
            Err(error) => {
                app.metrics.refresh_failures.inc();
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "serving by the last catalog");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.requested() => break,
        }
    }
    ready.set(false);
}

/// Deletes what has had its time.
async fn prune(app: App, keep: Retention, shutdown: Shutdown) {
    loop {
        let outcome = tokio::select! {
            outcome = retention::prune(&app.db, keep, app.clock.now_ms()) => outcome,
            () = shutdown.requested() => break,
        };
        match outcome {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "deleted what has had its time"),
            Err(error) => tracing::warn!(%error, "what has had its time is deleted later"),
        }
        tokio::select! {
            () = tokio::time::sleep(PRUNE_EVERY) => {}
            () = shutdown.requested() => break,
        }
    }
}

async fn gauges(app: App, shutdown: Shutdown) {
    loop {
        let now_ms = app.clock.now_ms();
        let edges = app.fleet.healthy(now_ms);
        app.metrics.edges_healthy.set(i64::try_from(edges).unwrap_or(i64::MAX));
        if let Some(snapshot) = app.catalog.snapshot() {
            let age = Duration::from_millis(now_ms.saturating_sub(snapshot.read_at_ms));
            app.metrics.snapshot_age_seconds.set(age.as_secs_f64());
            app.metrics.titles.set(i64::try_from(snapshot.titles.len()).unwrap_or(i64::MAX));
        }
        tokio::select! {
            () = tokio::time::sleep(GAUGES_EVERY) => {}
            () = shutdown.requested() => break,
        }
    }
}
