//! Hits from the planned tier: a title whose segments are the objects, in a store; an origin, a
//! control plane and an edge of it; a play that makes demand; `nearcast plan run`, as cron runs
//! it; and the edge's own fill. Only the edge has the servers' core.

use crate::nearcasts::{Binary, planned_edge};
use crate::objects::Objects;
use crate::servers::{Process, Running, World, free_port, spawn};
use anyhow::{Context, Result, bail};
use model::api::{Event, EventBatch, EventKind, Overview, Playback, PlaybackRequest};
use model::index::{Kind, VideoRange};
use model::publish::{PublishRecord, PublishedFile};
use model::{TitleIndex, Track, Version, chunk, store_key};
use serde_json::json;
use service::client::Client;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TITLE: &str = "bench";
const PROFILE: &str = "bench";
/// A call of the control plane.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Until the edge is heard, has filled, is heard again.
const WAIT_MAX: Duration = Duration::from_secs(60);
const POLL_PERIOD: Duration = Duration::from_millis(50);
const SEGMENT_MS: u64 = 4000;

/// The title that an edge holds, and a token to play it.
pub struct Title {
    version: Version,
    token: String,
}

impl Title {
    /// Where object `number` of this size is.
    pub fn path(&self, bytes: u64, number: usize) -> String {
        format!("/~{}/t/{TITLE}/{}/v{bytes}/{number}.m4s", self.token, self.version)
    }
}

/// Starts all of it and waits until the plan is filled.
pub fn start(world: &World, binary: &Binary<'_>, objects: &Objects) -> Result<Running> {
    let dir = world.folder(&format!("{}-titles", binary.name))?;
    let store = dir.join("store");
    let record = publish(&store, objects)?;
    let store = format!("--store=dir:{}", store.display());
    let (origin, origin_url) = part(world, binary, &dir, "origin", std::slice::from_ref(&store))?;
    let data = dir.join("data");
    let arguments = [store, format!("--data-dir={}", data.display())];
    let (control_plane, control_url) = part(world, binary, &dir, "control-plane", &arguments)?;
    let mut edge = planned_edge(
        world,
        binary,
        &[
            "--id=edge-a".to_owned(),
            format!("--origin={origin_url}"),
            format!("--control-plane={control_url}"),
            format!("--join-secret-file={}", data.join("credentials/edge").display()),
        ],
    )?;
    edge.others = vec![control_plane, origin];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let control = Control::new(control_url, &data)?;
    runtime.block_on(control.play(&record))?;
    control.plan(binary)?;
    runtime.block_on(control.filled(&record))?;
    let playback = runtime.block_on(control.playback())?;
    edge.titles = Some(Title { version: record.version, token: playback.token });
    Ok(edge)
}

/// One of the processes beside the edge, on the client's core; and its URL.
fn part(
    world: &World,
    binary: &Binary<'_>,
    dir: &Path,
    name: &str,
    arguments: &[String],
) -> Result<(Process, String)> {
    let (port, admin) = (free_port()?, free_port()?);
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let core = world.client_core.to_string();
    let mut all: Vec<String> = ["taskset", "-c", &core].map(str::to_owned).to_vec();
    all.extend([binary.path.display().to_string(), "--log-level=warn".into(), name.to_owned()]);
    all.extend([format!("--listen=127.0.0.1:{port}"), format!("--admin=127.0.0.1:{admin}")]);
    all.extend_from_slice(arguments);
    let process = spawn(name, &folder, &all, binary.envs, &[port])?;
    Ok((process, format!("http://127.0.0.1:{port}")))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Writes the title into a store's folder, as an ingest would: one track for each size.
fn publish(store: &Path, objects: &Objects) -> Result<PublishRecord> {
    let mut sizes = objects.sizes();
    sizes.sort_unstable();
    let made: Vec<(Track, Vec<u8>)> =
        sizes.into_iter().map(|bytes| track(objects, bytes)).collect();
    let index = TitleIndex {
        segment_target_ms: 4000,
        tracks: made.iter().map(|(track, _)| track.clone()).collect(),
    };
    let encoded = index.encode();
    let record = PublishRecord {
        title: TITLE.parse()?,
        version: Version::of_index(&encoded),
        name: TITLE.to_owned(),
        published_at_ms: now_ms(),
        duration_ms: index.duration_ms(),
        files: index.tracks.iter().map(published).collect(),
    };
    let write = |key: String, bytes: &[u8]| {
        let path = store.join(key);
        let dir = path.parent().unwrap_or(store);
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())
    };
    let (title, version) = (&record.title, &record.version);
    for (track, file) in &made {
        write(store_key::track(title, version, &track.facts.id, track.extension()), file)?;
    }
    write(store_key::index(title, version), &encoded)?;
    write(store_key::publish_record(title, version), &serde_json::to_vec(&record)?)?;
    Ok(record)
}

fn published(track: &Track) -> PublishedFile {
    PublishedFile {
        name: track.file_name(),
        bytes: track.facts.file_bytes,
        kind: "video".to_owned(),
        summary: track.facts.codec.clone(),
    }
}

/// The track whose segments are the objects of this size, and its file.
fn track(objects: &Objects, bytes: u64) -> (Track, Vec<u8>) {
    let kind = Kind::Video { width: 640, height: 360, frame_rate: (25, 1), range: VideoRange::Sdr };
    let bodies = objects.bodies(bytes);
    let segments = bodies.iter().map(|body| (SEGMENT_MS, body.len() as u64));
    let id = format!("v{bytes}");
    let mut track = nearcast_benches::track(&id, kind, "avc1.64001e", 1000, None, segments);
    let mut file = vec![0; usize::try_from(track.facts.media_start).unwrap_or(0)];
    bodies.iter().for_each(|body| file.extend_from_slice(body));
    let chunks = file.chunks(usize::try_from(chunk::CHUNK_BYTES).unwrap_or(usize::MAX));
    track.digests = chunks.map(|chunk| *blake3::hash(chunk).as_bytes()).collect();
    (track, file)
}

/// The control plane, as its operator calls it.
struct Control {
    url: String,
    credential: PathBuf,
    client: Client,
}

impl Control {
    fn new(url: String, data: &Path) -> Result<Self> {
        let credential = data.join("credentials/operator");
        let key = std::fs::read_to_string(&credential)
            .with_context(|| credential.display().to_string())?;
        let client = Client::new(CALL_MAX, Some(key.trim().to_owned()), None)?;
        Ok(Self { url, credential, client })
    }

    /// What a player tells that has played all of it: the demand of today.
    async fn play(&self, record: &PublishRecord) -> Result<()> {
        let account = json!({"active": true});
        let put = http::Method::PUT;
        self.client
            .send_json(put.clone(), &format!("{}/v1/accounts/bench", self.url), &account)
            .await?;
        let profile = format!("{}/v1/profiles/{PROFILE}", self.url);
        self.client.send_json(put, &profile, &json!({"account": "bench"})).await?;
        let playback = self.playback().await?;
        let event = |seq, kind, watched_ms, bytes| Event {
            seq,
            kind,
            at_ms: now_ms(),
            position_ms: watched_ms,
            watched_ms,
            bytes,
            waited_ms: None,
            edge: None,
        };
        let events = vec![
            event(0, EventKind::Start, 0, 0),
            event(1, EventKind::Stop, record.duration_ms, record.bytes()),
        ];
        let batch = EventBatch { token: playback.token, events };
        let post = http::Method::POST;
        self.client.send_json(post, &format!("{}/v1/events", self.url), &batch).await?;
        Ok(())
    }

    /// A play of the title; waits until the catalog has it and the edge was heard.
    async fn playback(&self) -> Result<Playback> {
        let request = PlaybackRequest {
            title: TITLE.parse()?,
            profile: PROFILE.to_owned(),
            device: "nearcast-bench".to_owned(),
        };
        let started = Instant::now();
        loop {
            let url = format!("{}/v1/playback", self.url);
            match self.client.post_json(&url, &request).await {
                Err(error) if started.elapsed() > WAIT_MAX => return Err(error.into()),
                Err(_) => tokio::time::sleep(POLL_PERIOD).await,
                Ok(playback) => return Ok(playback),
            }
        }
    }

    /// Plans tomorrow from the demand of today.
    fn plan(&self, binary: &Binary<'_>) -> Result<()> {
        let tomorrow = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).tomorrow()?;
        let mut command = Command::new(binary.path);
        command.args(["--log-level=warn", "plan", "run", "--control-plane", &self.url]);
        command.args(["--date", &tomorrow.date().to_string(), "--credential-file"]);
        let out = command.arg(&self.credential).output().context("nearcast plan run")?;
        if !out.status.success() {
            bail!("nearcast plan run: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(())
    }

    /// Waits until the edge holds what is planned, which is the title.
    async fn filled(&self, record: &PublishRecord) -> Result<()> {
        let started = Instant::now();
        loop {
            let url = format!("{}/v1/overview", self.url);
            let overview: Overview = self.client.get_json(&url).await?;
            let number = overview.plan.as_ref().map(|plan| plan.number);
            let is_full = |edge: &model::api::EdgeOverview| {
                number.is_some()
                    && edge.plan_complete == number
                    && edge.planned_bytes >= record.bytes()
            };
            if overview.edges.iter().any(is_full) {
                return Ok(());
            }
            if started.elapsed() > WAIT_MAX {
                bail!("the plan was not filled within {WAIT_MAX:?}: {:?}", overview.edges);
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }
}
