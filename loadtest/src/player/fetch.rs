//! The edges of a play. A path is asked for at the current edge; if that fails, at the next,
//! which then is the current one; if all fail, in the order that steering gives.

use super::{Format, PlayOptions, SegmentReport};
use crate::error::shown;
use crate::{Client, Error, Fetched, Protocol};
use bytes::Bytes;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Errors kept for the report.
const ERRORS_MAX: usize = 20;

pub(super) struct Fleet {
    client: Client,
    steering_client: Client,
    /// `http://127.0.0.2:8080` of each edge, best first.
    origins: Vec<Url>,
    current: usize,
    /// Path of the manifest, with the token.
    manifest: String,
    steering: Url,
    /// Id and origin of every edge of the playback answer: what `base` in `steering` names.
    named: Vec<(String, Url)>,
    errors: Vec<Error>,
    manifest_failovers: Vec<Duration>,
}

/// A body, and how long it took after its first byte.
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) rest: Duration,
}

/// A manifest and where it came from.
#[derive(Clone)]
pub(super) struct Loaded {
    url: Url,
    pub(super) body: Bytes,
}

impl Fleet {
    pub(super) fn new(options: &PlayOptions) -> Result<Self, Error> {
        let playback = &options.playback;
        let scheme = options.protocol.scheme();
        let mut named = Vec::new();
        for edge in &playback.edges {
            let url = edge
                .urls
                .iter()
                .find_map(|url| Url::parse(url).ok().filter(|url| url.scheme() == scheme));
            named.extend(url.map(|url| (edge.id.to_string(), url)));
        }
        if named.is_empty() {
            return Err(Error::NoEdge { scheme });
        }
        let manifests = match options.format {
            Format::Hls => &playback.hls,
            Format::Dash => &playback.dash,
        };
        let manifest = manifests.first().map_or("", String::as_str);
        let manifest = parse(manifest)?.path().to_owned();
        let steering = parse(&playback.steering)?;
        let steering_protocol =
            if steering.scheme() == "http" { Protocol::H1 } else { Protocol::H1Tls };
        Ok(Self {
            client: Client::new(options.protocol, &options.ca_pem, options.first_byte_max)?,
            steering_client: Client::new(
                steering_protocol,
                &options.ca_pem,
                options.first_byte_max,
            )?,
            origins: named.iter().map(|(_, url)| url.clone()).collect(),
            current: 0,
            manifest,
            steering,
            named,
            errors: Vec::new(),
            manifest_failovers: Vec::new(),
        })
    }

    /// The top manifest.
    pub(super) async fn manifest(&mut self) -> Result<Loaded, Error> {
        self.follow(&self.manifest.clone()).await
    }

    /// A manifest at this path.
    pub(super) async fn follow(&mut self, path: &str) -> Result<Loaded, Error> {
        let (segment, body) = self.fetch(path).await?;
        self.manifest_failovers.extend(segment.failover);
        let url = at(&self.origins[self.current], path);
        Ok(Loaded { url, body: body.bytes })
    }

    /// What is at this path, from whichever edge serves it.
    pub(super) async fn fetch(&mut self, path: &str) -> Result<(SegmentReport, Received), Error> {
        let started = Instant::now();
        let failed = match self.round(path, started, false).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match self.steer().await {
            Ok(()) => self.round(path, started, true).await,
            Err(error) => {
                self.note(error);
                Err(failed)
            }
        }
    }

    /// One try at each edge, from the current one on.
    async fn round(
        &mut self,
        path: &str,
        started: Instant,
        mut failed_over: bool,
    ) -> Result<(SegmentReport, Received), Error> {
        let mut last = None;
        for turn in 0..self.origins.len() {
            let at_edge = (self.current + turn) % self.origins.len();
            let origin = self.origins[at_edge].clone();
            let before = started.elapsed();
            match self.ask(&at(&origin, path)).await {
                Ok(fetched) => {
                    self.current = at_edge;
                    let failover = failed_over.then(|| before + fetched.first_byte);
                    return Ok(received(path, &origin, fetched, failover));
                }
                Err(error) => {
                    self.note(error.clone());
                    last = Some(error);
                    failed_over = true;
                }
            }
        }
        Err(last.unwrap_or(Error::NoEdge { scheme: "http" }))
    }

    async fn ask(&self, url: &Url) -> Result<Fetched, Error> {
        let fetched = self.client.get(url.as_str(), &[]).await?;
        if (200..300).contains(&fetched.status) {
            return Ok(fetched);
        }
        Err(refused(url, &fetched))
    }

    /// Takes the edges from the steering manifest, in its order.
    async fn steer(&mut self) -> Result<(), Error> {
        let fetched = self.steering_client.get(self.steering.as_str(), &[]).await?;
        if fetched.status != 200 {
            return Err(refused(&self.steering, &fetched));
        }
        let bad =
            |reason: String| Error::BadManifest { what: shown(self.steering.as_str()), reason };
        let manifest: Steering =
            serde_json::from_slice(&fetched.body).map_err(|error| bad(error.to_string()))?;
        let base = self.base();
        let origins: Vec<Url> = manifest
            .priority
            .iter()
            .filter_map(|pathway| manifest.origin(pathway, &base))
            .collect();
        if origins.is_empty() {
            return Err(bad("it names no pathway that it describes".to_owned()));
        }
        if let Some(reload) = &manifest.reload {
            self.steering = self.steering.join(reload).map_err(|error| bad(error.to_string()))?;
        }
        self.origins = origins;
        self.current = 0;
        Ok(())
    }

    /// The edge that pathway `.` stands for: what the steering URL says, or the current one.
    fn base(&self) -> Url {
        let id = self.steering.query_pairs().find(|(name, _)| name == "base");
        let named = id.and_then(|(_, id)| self.named.iter().find(|(edge, _)| *edge == id));
        named.map_or_else(|| self.origins[self.current].clone(), |(_, url)| url.clone())
    }

    fn note(&mut self, error: Error) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    pub(super) fn take_errors(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.errors)
    }

    pub(super) fn take_manifest_failovers(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.manifest_failovers)
    }
}

#[derive(Deserialize)]
struct Steering {
    #[serde(rename = "RELOAD-URI")]
    reload: Option<String>,
    #[serde(rename = "PATHWAY-PRIORITY")]
    priority: Vec<String>,
    #[serde(rename = "PATHWAY-CLONES", default)]
    clones: Vec<PathwayClone>,
}

#[derive(Deserialize)]
struct PathwayClone {
    #[serde(rename = "BASE-ID")]
    base: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "URI-REPLACEMENT")]
    replacement: Replacement,
}

#[derive(Deserialize)]
struct Replacement {
    #[serde(rename = "HOST")]
    host: String,
}

impl Steering {
    fn origin(&self, pathway: &str, base: &Url) -> Option<Url> {
        if pathway == "." {
            return Some(base.clone());
        }
        let clone = self.clones.iter().find(|clone| clone.id == pathway && clone.base == ".")?;
        let mut origin = base.clone();
        origin.set_host(Some(&clone.replacement.host)).ok()?;
        Some(origin)
    }
}

impl Loaded {
    /// The path that a URI of this manifest means. Manifests name their own host alone.
    pub(super) fn resolve(&self, uri: &str) -> Result<String, Error> {
        let url = self.url.join(uri).map_err(|error| self.bad(&error.to_string()))?;
        if url.origin() != self.url.origin() {
            return Err(self.bad("it names another host"));
        }
        Ok(url[url::Position::BeforePath..url::Position::AfterQuery].to_owned())
    }

    /// The same manifest, seen from a URI within it.
    pub(super) fn at(&self, uri: &str) -> Result<Self, Error> {
        let url = self.url.join(uri).map_err(|error| self.bad(&error.to_string()))?;
        Ok(Self { url, body: self.body.clone() })
    }

    pub(super) fn bad(&self, reason: &str) -> Error {
        Error::BadManifest { what: shown(self.url.as_str()), reason: reason.to_owned() }
    }
}

fn parse(url: &str) -> Result<Url, Error> {
    Url::parse(url).map_err(|error| Error::BadUrl { url: shown(url), reason: error.to_string() })
}

/// This path at an origin; `path` may have a query.
fn at(origin: &Url, path: &str) -> Url {
    origin.join(path).unwrap_or_else(|_| origin.clone())
}

fn refused(url: &Url, fetched: &Fetched) -> Error {
    let body = String::from_utf8_lossy(&fetched.body).chars().take(200).collect();
    Error::Status { url: shown(url.as_str()), status: fetched.status, body }
}

fn received(
    path: &str,
    origin: &Url,
    fetched: Fetched,
    failover: Option<Duration>,
) -> (SegmentReport, Received) {
    let below = path.find("/t/").map_or(path, |start| &path[start..]);
    let segment = SegmentReport {
        path: below.to_owned(),
        edge: origin[url::Position::BeforeHost..url::Position::AfterPort].to_owned(),
        verdict: fetched.verdict().map(str::to_owned),
        protocol: fetched.protocol.clone(),
        bytes: fetched.body.len() as u64,
        first_byte: fetched.first_byte,
        failed_over: failover.is_some(),
        failover,
    };
    (segment, Received { rest: fetched.total - fetched.first_byte, bytes: fetched.body })
}
