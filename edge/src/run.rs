//! The edge put together: its parts in the order in which they start, and how they end.

mod listeners;

use crate::Error;
use crate::encoded::Encoded;
use crate::engine::{self, Engine, Outdated};
use crate::metrics::Metrics;
use crate::naming;
use crate::origin::Origin;
use crate::places::Places;
use crate::planned::{self, Planned, Puller, Room};
use crate::prefetch::Prefetch;
use crate::proxy::{Fetches, Lives, Sites};
use crate::serve::{Edge, TitleSite};
use crate::settings::{Certificate, Config, Limits, TitlesConfig};
use crate::title::{Shelf, Titles};
use crate::tls::Identity;
use crate::view::{Reporter, Views};
use chunks::{Chunks, Disk, KeptFree, Sizes};
use heads::{DiskShare, Heads, PurgeLog};
use listeners::{Bound, Listeners, bind, own_urls, reachable};
use model::EdgeId;
use model::fleet::Heartbeat;
use serde::Serialize;
use service::admin::{Admin, Ready};
use service::{Shutdown, client};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::Shards;

/// How long requests under way may take to end, once shutdown is requested.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long the SSD tier may take to write what waits.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// A control plane's answer takes at most this; it is asked every second.
const CONTROL_MAX: Duration = Duration::from_secs(2);
/// Of the files that may be open, those that clients' connections leave to origins, other nodes,
/// disks, listeners and the admin port.
const OTHER_FILES: u64 = 2048;

type Shared = wire::Shared<Edge>;

/// What `--announce` writes.
#[derive(Debug, Serialize)]
struct Announced {
    admin: String,
    urls: Vec<String>,
    /// Where other nodes reach it.
    peer_urls: Vec<String>,
}

/// What an edge is made of, but its listeners.
struct Parts {
    id: EdgeId,
    edge: Arc<Edge>,
    planned: Arc<Planned>,
    title_site: Option<TitleParts>,
    ready: Ready,
}

/// What it has with a title site.
struct TitleParts {
    origin: Origin,
    control: client::Client,
    control_url: String,
}

/// Runs an edge until `shutdown`: binds, announces, serves, drains.
///
/// # Errors
/// [`Error`] when it can't start.
pub async fn run(mut config: Config, shutdown: Shutdown) -> Result<(), Error> {
    config.limits.connections = connections(config.limits.connections);
    let data = &config.data_dir;
    std::fs::create_dir_all(data).map_err(|error| Error::file(data, error))?;
    let registry = prometheus::Registry::new();
    service::log::count_lost(&registry, "nearcast_edge_log_lines_lost_total")?;
    let metrics = Metrics::new(&registry)?;

    config.own_notes().iter().for_each(|note| tracing::warn!("{note}"));
    // Ports first: a second edge on this machine is told so before it touches anything.
    let admin = Admin::bind(config.admin).await?;
    let own = config.listen.iter().map(|listen| bind(listen, false, config.shards));
    let peers = config.peers.listen.iter().map(|listen| bind(listen, true, config.shards));
    let bound = own.chain(peers).collect::<Result<Vec<_>, _>>()?;
    let _alone = service::lock(data, "edge.data-dir")?;
    let identity = identity(&config, &bound, &metrics.wire.tls)?;
    let parts = Parts::open(&config, metrics, &registry)?;

    let (shards, threads) = Shards::start(config.shards, &parts.edge.metrics.wire)?;
    let shared = Shared {
        service: Arc::clone(&parts.edge),
        shards,
        work: Handle::current(),
        places: Arc::new(Semaphore::new(config.limits.connections)),
        tasks: TaskTracker::new(),
        patience: config.limits.patience,
        arena: Some(parts.edge.engine.chunks.arena().clone()),
        levers: config.levers,
        drain: CancellationToken::new(),
        metrics: parts.edge.metrics.wire.clone(),
    };
    let (urls, peer_urls) = (urls(&config, &bound), own_urls(&bound, true));
    let admin_url = format!("http://{}", admin.local_addr());
    let listeners = Listeners::start(bound, identity.as_ref(), &shared)?;
    let nudge = Arc::new(Notify::new());
    let mut background = parts.background(&config, &urls, &shared, &nudge);
    if let Some(identity) = identity {
        background.spawn(identity.watch());
    }
    // Ends with the process: the drain can be watched to its end.
    background.spawn(admin.serve(
        registry,
        parts.ready.clone(),
        crate::admin::router(Arc::clone(&parts.edge)),
        Shutdown::new(),
    ));

    let announced =
        Announced { admin: admin_url.clone(), urls: urls.clone(), peer_urls: peer_urls.clone() };
    service::announce(config.announce.as_deref(), &announced)?;
    let pages = parts.edge.engine.chunks.arena().pages();
    tracing::info!(id = %parts.id, ?urls, ?peer_urls, admin = admin_url, ?pages, "edge serves");
    shutdown.requested().await;

    // The fleet is told first, then no new requests, then the end of the old ones.
    tracing::info!(connections = shared.tasks.len(), "edge drains");
    parts.ready.set(false);
    shared.drain.cancel();
    nudge.notify_one();
    listeners.drain(&shared).await;
    // It waits for the threads.
    let _ = tokio::task::spawn_blocking(move || drop(threads)).await;
    let engine = &parts.edge.engine;
    tokio::join!(engine.chunks.close(CLOSE_MAX), engine.heads.close(CLOSE_MAX));
    background.shutdown().await;
    tracing::info!("edge ended");
    Ok(())
}

impl Parts {
    fn open(
        config: &Config,
        metrics: Metrics,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        let data = &config.data_dir;
        let ca = read_ca(config.ca.as_deref())?;
        let id = naming::name(config.id.as_ref(), data)?;
        let around = config.peers.around(&id).map_err(upstream::Error::from)?;
        let node = upstream::Node::new(around, ca.as_deref(), config.memory_bytes, registry)?;
        let (plan_dir, bytes) = (data.join("plan"), config.planned_bytes);
        let planned = Planned::new(plan_dir, bytes, chunks::READ_MAX, metrics.clone());
        let planned = Arc::new(planned);
        planned.start();
        let titles = config.titles.as_ref().map(|titles| titles.open(&node)).transpose()?;
        let changed = || Outdated::open(data, metrics.changes_unwritten.clone());
        let outdated = node.has_others().then(changed).transpose()?;
        let purges = PurgeLog::open(&data.join("purges.log"), registry)?;
        let engine = Arc::new(Engine::new(
            Chunks::open(&sizes(config), registry)?,
            Arc::clone(&planned),
            titles.clone(),
            Heads::open(&heads_path(config), head_limits(config), registry)?,
            (purges.clone(), outdated),
            metrics.clone(),
            config.memory_bytes,
        ));
        engine::register(&engine, registry)?;
        let ready = Ready::new();
        ready.set(true);
        let (mut title_site, mut parts) = (None, None);
        if let (Some(titles), Some(upstream)) = (&config.titles, titles) {
            let origin = Origin::new(upstream, metrics.clone());
            let shelf_dir = data.join("index");
            let shelf = Shelf::open(shelf_dir.clone(), Arc::clone(&planned))
                .map_err(|error| Error::file(shelf_dir, error))?;
            let views = Arc::new(Views::open(data.join("view.json")));
            ready.set(views.known().is_some());
            let titles_known = Arc::new(Titles::new(origin.clone(), shelf));
            title_site = Some(TitleSite { titles: titles_known, views });
            let secret = config.join_secret.as_ref().map(|secret| secret.reveal().to_owned());
            let control = client::Client::new(CONTROL_MAX, secret, ca.as_deref())?;
            parts = Some(TitleParts { origin, control, control_url: titles.control_plane.clone() });
        }
        let edge = Arc::new(Edge {
            id: id.clone(),
            engine,
            titles: title_site,
            sites: Sites::open(config.sites.clone(), &node)?,
            node,
            fetches: Fetches::default(),
            lives: Lives::default(),
            purges,
            places: Places::new(config.limits.responses, metrics.responses.clone()),
            metrics,
            encoded: Encoded::new(registry)?,
            prefetch: Prefetch::new(config.prefetch, registry)?,
            names: crate::tally::Names::default(),
        });
        Ok(Self { id, edge, planned, title_site: parts, ready })
    }

    /// Starts what talks to the control plane.
    fn background(
        &self,
        config: &Config,
        urls: &[String],
        shared: &Shared,
        nudge: &Arc<Notify>,
    ) -> JoinSet<()> {
        let mut background = JoinSet::new();
        background.spawn(planned::run(Arc::clone(&self.planned)));
        let (Some(parts), Some(site)) = (&self.title_site, &self.edge.titles) else {
            return background;
        };
        let (plan, newest_plan) = watch::channel(None);
        let puller = Puller {
            planned: Arc::clone(&self.planned),
            titles: Arc::clone(&site.titles),
            engine: Arc::clone(&self.edge.engine),
            origin: parts.origin.clone(),
            control: parts.control.clone(),
            control_url: parts.control_url.clone(),
            room: Room { heads: disk_share(config), chunks: self.edge.engine.chunks.clone() },
            id: self.id.clone(),
        };
        let reporter = Reporter {
            id: self.id.clone(),
            control: parts.control.clone(),
            control_url: parts.control_url.clone(),
            views: Arc::clone(&site.views),
            plan,
            ready: self.ready.clone(),
        };
        let beat = heartbeats(urls, shared, &self.planned, config.limits);
        background.spawn(puller.follow(newest_plan));
        background.spawn(reporter.run(beat, Arc::clone(nudge), self.edge.metrics.clone()));
        background
    }
}

impl TitlesConfig {
    fn open(&self, node: &upstream::Node) -> Result<upstream::Upstream, upstream::Error> {
        upstream::Upstream::new(self.upstream.clone(), node)
    }
}

/// What heads may take.
fn head_limits(config: &Config) -> heads::Limits {
    heads::Limits { disk_bytes: config.heads_bytes, ..heads::Limits::default() }
}

fn heads_path(config: &Config) -> PathBuf {
    config.data_dir.join("heads.db")
}

/// What other files leave to heads and purges.
fn disk_share(config: &Config) -> DiskShare {
    DiskShare::new(&heads_path(config), config.heads_bytes)
}

/// What chunks may take, and where.
fn sizes(config: &Config) -> Sizes {
    let data_dir = config.data_dir.clone();
    let dirs = match &config.ssd_dirs[..] {
        [] => vec![data_dir.join("ssd")],
        dirs => dirs.to_vec(),
    };
    let bytes = config.ssd_bytes / dirs.len() as u64;
    let direct = config.ssd_direct;
    let disk = |dir| Disk { dir, bytes, direct };
    let disks = dirs.into_iter().filter(|_| bytes > 0).map(disk).collect();
    let share = disk_share(config);
    let kept_free = KeptFree::new(move |dir, room| share.on_disk_of(dir, room));
    let (memory_bytes, read_max) = (config.memory_bytes, chunks::READ_MAX);
    Sizes { memory_bytes, disks, data_dir, read_max, kept_free }
}

fn read_ca(path: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    path.map(|path| std::fs::read(path).map_err(|error| Error::file(path, error))).transpose()
}

/// The certificate, if any listener needs one.
fn identity(
    config: &Config,
    bound: &[Bound],
    metrics: &wire::tls::Metrics,
) -> Result<Option<Identity>, Error> {
    if !bound.iter().any(|bound| bound.listen.tls) {
        return Ok(None);
    }
    let hosts = config.public_urls.iter().filter_map(|url| host(url));
    let addrs = bound.iter().map(|bound| reachable(bound.listen.addr.ip()).to_string());
    let mut names: Vec<String> = hosts.chain(addrs).chain(["localhost".to_owned()]).collect();
    names.sort();
    names.dedup();
    let (dir, secret) = (config.data_dir.join("tls"), config.ticket_secret.as_deref());
    Identity::load(&config.certificate, secret, (&dir, &names), metrics.clone()).map(Some)
}

fn host(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    Some(url.host_str()?.trim_matches(['[', ']']).to_owned())
}

/// Where players reach this edge, best first. A browser refuses a generated certificate, so
/// then plain HTTP goes first.
fn urls(config: &Config, bound: &[Bound]) -> Vec<String> {
    if !config.public_urls.is_empty() {
        return config.public_urls.clone();
    }
    let tls_first = matches!(config.certificate, Certificate::Own { .. });
    let mut urls = own_urls(bound, false);
    urls.sort_by_key(|url| url.starts_with("https:") != tls_first);
    urls
}

/// What each heartbeat says.
fn heartbeats(
    urls: &[String],
    shared: &Shared,
    planned: &Arc<Planned>,
    limits: Limits,
) -> impl Fn() -> Heartbeat + Send + 'static {
    let (urls, shared, planned) = (urls.to_vec(), shared.clone(), Arc::clone(planned));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let boot = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    let share = |free: &Semaphore, max: usize| {
        (max.saturating_sub(free.available_permits())) as f64 / max as f64
    };
    move || Heartbeat {
        urls: urls.clone(),
        boot,
        serving: !shared.drain.is_cancelled(),
        load: share(&shared.places, limits.connections).max(shared.service.places.load()),
        counters: shared.service.metrics.counters(),
        planned_bytes_max: planned.bytes_max(),
        plan_complete: planned.complete(),
        holdings: planned.holdings(),
    }
}

/// How many connections there may be: those of the settings, or fewer where so many files can't
/// be open. Else clients that do nothing would take what a request needs to reach its origin.
fn connections(wanted: usize) -> usize {
    let Some(files) = service::files::raise() else { return wanted };
    let most = usize::try_from(files - OTHER_FILES.min(files / 2)).unwrap_or(usize::MAX);
    if most < wanted {
        tracing::warn!(
            files,
            connections = most,
            "edge.connections-max = {wanted} is more than the limit of open files leaves: raise \
             that (`LimitNOFILE=` of systemd, `ulimit -Hn`)"
        );
    }
    wanted.min(most)
}
