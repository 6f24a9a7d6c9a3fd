//! The upstream of one site: its parts, put together once.

use crate::Error;
use crate::ask::{Answer, Ask, HopId, HopKind};
use crate::breaker;
use crate::budget::Budget;
use crate::connect::Connector;
use crate::fault::Fault;
use crate::health;
use crate::hop::{Hop, HopStatus, Limits, Target, Way};
use crate::node::{self, Node};
use crate::pool::Pool;
use crate::pulse;
use crate::s3::{self, Bucket, Credentials};
use crate::send;
use crate::settings::{Base, Config, Place};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use xxhash_rust::xxh3::xxh3_64;

/// Of the answers, those by which [`Upstream::head_within`] goes.
const HEAD_SHARE: f64 = 0.99;

/// Where one site's requests go. Cheap to clone; its health checks end with its last clone.
#[derive(Clone)]
pub struct Upstream(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) node: Node,
    pub(crate) siblings: Vec<Arc<Way>>,
    pub(crate) parents: Vec<Arc<Way>>,
    pub(crate) shields: Vec<Arc<Way>>,
    pub(crate) origins: Vec<Origin>,
    pub(crate) budget: Mutex<Budget>,
    /// Ends with this.
    _health: JoinSet<()>,
}

/// An origin, and its place among the others.
pub(crate) struct Origin {
    pub(crate) way: Arc<Way>,
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    /// Hash of its URL.
    pub(crate) id: u64,
}

impl Upstream {
    /// The upstream of a site. Within a Tokio runtime if it has a health check or a bucket,
    /// whose credentials are asked for now: that there are none is in the log before the first
    /// request is.
    ///
    /// # Errors
    /// [`Error::Config`] for an S3 endpoint that is none.
    pub fn new(config: Config, node: &Node) -> Result<Self, Error> {
        let site = config.site.clone();
        let way = |hop: &Arc<Hop>| {
            let meter = node.0.metrics.meter(&site, hop.id.as_str());
            let way = Arc::new(Way::new(hop.clone(), meter));
            node.0.metrics.breakers.tell_of(&way);
            way
        };
        let ways = |hops: &[Arc<Hop>]| hops.iter().map(way).collect::<Vec<_>>();
        let origins = build_origins(&config, node)?;
        let origins = origins.into_iter().zip(&config.origins).map(|(hop, base)| Origin {
            id: xxh3_64(hop.id.as_str().as_bytes()),
            way: way(&Arc::new(hop)),
            weight: base.weight,
            priority: base.priority,
        });
        let origins: Vec<Origin> = origins.collect();
        node.0.metrics.site(&site);
        let inner = Arc::new(Inner {
            siblings: ways(&node.0.siblings),
            parents: ways(&node.0.parents),
            shields: ways(&node.0.shields),
            _health: checks(&config, &origins),
            origins,
            budget: Mutex::new(Budget::new(config.budget_percent, Instant::now())),
            node: node.clone(),
            config,
        });
        Ok(Self(inner))
    }

    /// One exchange, up to the head of the answer: chooses the hop, tries again and elsewhere
    /// where that is safe, hedges. Any status is an answer; when all hops fail by status, the
    /// last one's answer is given. Dropping the future gives the exchange up.
    ///
    /// # Errors
    /// A [`Fault`] when there is no answer to give.
    pub async fn send(&self, ask: Ask) -> Result<Answer, Fault> {
        // A task: handshakes and signatures are no work for the thread of who asks.
        let site = Arc::clone(&self.0);
        let sending = tokio::spawn(async move { send::send(&site, ask).await });
        match AbortOnDropHandle::new(sending).await {
            Ok(outcome) => outcome,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Fault::Aborted { why: "the node ends".into() }),
            },
        }
    }

    /// What this hop gave was wrong (corrupt bytes, another range, another length): that
    /// counts as a failure of it. Pass the hop as [`Ask::avoid`] in the next try.
    pub fn blame(&self, hop: &HopId, why: &str) {
        if let Some(way) = self.0.ways().find(|way| way.hop.id == *hop) {
            way.blame(why);
        }
    }

    /// Whether another node is there, of which a body broke off: it is asked. Then it is not the
    /// node that failed, but what is behind it.
    pub async fn is_there(&self, hop: &HopId) -> bool {
        match self.0.ways().find(|way| way.hop.id == *hop) {
            Some(way) => pulse::is_there(&way.hop).await,
            None => true,
        }
    }

    /// Whether what the body of an origin's answer did not bring may be asked for again, for the
    /// `nth` time in a row: within `retries`, and if the budget pays, which it does here. Then ask
    /// with [`Ask::is_repeat`], and [`Ask::retried`] of no less than that.
    #[must_use]
    pub fn pays_repeat(&self, nth: u32) -> bool {
        nth <= self.0.config.retries && self.0.pay()
    }

    /// The URLs of its HTTP origins, without a slash at their end.
    pub fn origins(&self) -> impl Iterator<Item = &str> {
        let http = |origin: &&Origin| matches!(origin.way.hop.place, Target::Http { .. });
        self.0.origins.iter().filter(http).map(|origin| origin.way.hop.id.as_str())
    }

    /// Hops that could be asked for one object: one of each kind of peer, and all origins.
    #[must_use]
    pub fn hops(&self) -> usize {
        let peers = [&self.0.siblings, &self.0.parents, &self.0.shields];
        peers.iter().filter(|peers| !peers.is_empty()).count() + self.0.origins.len()
    }

    /// Whether an origin is a bucket: then only GET and HEAD, and no query.
    #[must_use]
    pub fn is_s3(&self) -> bool {
        self.0.origins.iter().any(|origin| matches!(origin.way.hop.place, Target::S3(_)))
    }

    /// Whether all origins are buckets: then no field of a client's has a say in what is answered.
    #[must_use]
    pub fn is_of_buckets(&self) -> bool {
        let is_bucket = |origin: &Origin| matches!(origin.way.hop.place, Target::S3(_));
        self.0.origins.iter().all(is_bucket)
    }

    /// Whether an origin is told the host that a client named.
    #[must_use]
    pub fn passes_host(&self) -> bool {
        self.0.config.pass_host && !self.is_of_buckets()
    }

    /// For a site with a bucket the one spelling of a path, without its query, or `None` when
    /// no object can have that name; for others the path as it is.
    #[must_use]
    pub fn canonical_path<'p>(&self, path: &'p str) -> Option<Cow<'p, str>> {
        if self.is_s3() { s3::canonical(path).map(Cow::Owned) } else { Some(path.into()) }
    }

    /// Within how long 99 of 100 answers began, of the slowest hop; none while too few are known.
    #[must_use]
    pub fn head_within(&self) -> Option<Duration> {
        self.0.ways().filter_map(|way| way.hop.quantile(HEAD_SHARE)).max()
    }

    /// Whether there is time until then for what a try may take.
    #[must_use]
    pub fn has_time(&self, until: Instant) -> bool {
        until >= Instant::now() + self.0.config.times.first_byte
    }

    /// What is known of each hop.
    #[must_use]
    pub fn status(&self) -> Vec<HopStatus> {
        self.0.ways().map(|way| way.hop.status()).collect()
    }
}

impl Inner {
    /// Whether the budget has a further try; takes it.
    pub(crate) fn pay(&self) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let paid = budget.take(Instant::now());
        if !paid {
            self.node.0.metrics.exhausted(&self.config.site);
        }
        paid
    }

    pub(crate) fn ways(&self) -> impl Iterator<Item = &Arc<Way>> {
        let peers = self.siblings.iter().chain(&self.parents).chain(&self.shields);
        peers.chain(self.origins.iter().map(|origin| &origin.way))
    }
}

/// The tasks that check on the origins.
fn checks(config: &Config, origins: &[Origin]) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let Some((path, interval)) = &config.health_check else { return tasks };
    for Origin { way, .. } in origins {
        let check = health::Check {
            host: config.host().to_owned(),
            path: path.clone(),
            pass_host: config.pass_host,
            interval: *interval,
        };
        tasks.spawn(health::watch(way.clone(), check));
    }
    tasks
}

fn build_origins(config: &Config, node: &Node) -> Result<Vec<Hop>, Error> {
    let credentials = config.keys.clone().map(|source| {
        let (metrics, site) = (node.0.metrics.clone(), config.site.clone());
        metrics.refreshes(&site);
        Arc::new(Credentials::new(source, move |good| metrics.refreshed(&site, good)))
    });
    config.notes().iter().for_each(|note| tracing::warn!("{note}"));
    if let Some(credentials) = credentials.clone().filter(|credentials| !credentials.are_fixed()) {
        // Its failure is logged there, and told to whoever asks next.
        tokio::spawn(async move { credentials.get().await.is_ok() });
    }
    let limits = Limits {
        in_flight_max: config.in_flight_max,
        queue_max: config.queue_max,
        breaker: breaker::ORIGIN,
    };
    let build = |base: &Base| {
        let (target, uri) = match &base.place {
            place @ Place::Http { .. } => node::http_target(place),
            Place::S3 { bucket, prefix } => {
                let name = (bucket.as_str(), prefix.as_str());
                let bucket =
                    Bucket::new(&config.key, name, &config.s3, credentials.clone(), &s3::env)?;
                let uri = node::connection_uri(bucket.scheme, &bucket.authority);
                (Target::S3(bucket), uri)
            }
        };
        let id = HopId(base.place.to_string().into());
        if matches!(target, Target::S3(_)) {
            node.0.metrics.bucket(&config.site, id.as_str());
        }
        let anew = node.0.metrics.anew(id.as_str());
        let Node(inner) = node;
        let (limit, h2_stream_bytes) = (config.times.connect, inner.h2_stream_bytes);
        let pool = Pool::new(Connector::new(&inner.tls, uri, limit, h2_stream_bytes), anew);
        Ok(Hop::new((id, HopKind::Origin), target, pool, None, limits))
    };
    config.origins.iter().map(build).collect()
}
