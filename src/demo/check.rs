//! The check: every title by HLS and DASH over HTTP/1.1, 2 and 3, every byte compared with
//! the store's; a plan, and planned bytes served; an edge killed and an edge frozen in the
//! middle of a play.

use super::report::{Outcome, ms};
use anyhow::{Context, Result};
use loadtest::{Format, PlayOptions, PlayReport, Protocol, SegmentReport};
use model::api::{Event, EventBatch, EventKind, Playback};
use model::route;
use nearcast::cluster::{Cluster, Signal, StoredTitle, Verdict};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const FORMATS: [Format; 2] = [Format::Hls, Format::Dash];
const PROTOCOLS: [Protocol; 3] = [Protocol::H1, Protocol::H2, Protocol::H3];
/// A play that stood longer than this has stalled: a player's buffer is hardly longer.
const FAILOVER_MAX: Duration = Duration::from_secs(10);
/// A play has received this many segments when its edge is taken away.
const SEGMENTS_BEFORE_FAULT: u64 = 6;
const DAY_MS: u64 = 86_400_000;

/// How an edge goes away in the middle of a play.
#[derive(Clone, Copy)]
enum Fault {
    Killed,
    Frozen,
}

/// Runs every check against `cluster`, which was started at `started`, and stops it.
pub async fn run(mut cluster: Cluster, titles: &[String], started: Instant) -> Result<Outcome> {
    let mut outcome = Outcome { titles: titles.len() as u64, ..Outcome::default() };
    let certificates = cluster.certificates()?;
    let mut today = None;
    for title in titles {
        for format in FORMATS {
            for protocol in PROTOCOLS {
                let play = Play::new(&cluster, title, format, protocol, &certificates).await?;
                eprintln!("Playing {title} by {format:?} over {protocol:?}");
                let report = play.run(&mut outcome, |_, _| {}, started).await?;
                watched(&cluster, &play, &report).await?;
                // The day that has plays, should midnight (UTC) pass meanwhile.
                today.get_or_insert_with(now_ms);
            }
        }
    }
    planned(&mut cluster, titles, today.unwrap_or_else(now_ms), &certificates, &mut outcome)
        .await?;
    let title = titles.first().context("there is no title")?;
    for fault in [Fault::Killed, Fault::Frozen] {
        failover(&mut cluster, title, fault, &certificates, &mut outcome).await?;
    }
    eprintln!("Stopping");
    if let Err(error) = cluster.stop().await {
        outcome.fault(format!("a part did not end in order: {error:#}"));
    }
    outcome.expect(outcome.wrong_bytes == 0, || "bytes differ from the store's".to_owned());
    outcome.expect(outcome.failed_segments == 0, || "segments have failed".to_owned());
    outcome.ok = outcome.faults.is_empty();
    Ok(outcome)
}

/// A play that is about to start.
struct Play {
    options: PlayOptions,
    truth: StoredTitle,
}

impl Play {
    async fn new(
        cluster: &Cluster,
        title: &str,
        format: Format,
        protocol: Protocol,
        certificates: &[Vec<u8>],
    ) -> Result<Self> {
        let playback = cluster.operator.playback(title).await?;
        let store = cluster.dir().join("store");
        let truth = StoredTitle::read(&store, &playback.title, &playback.version)?;
        let options = PlayOptions::new(playback, format, protocol, certificates.to_vec());
        Ok(Self { options, truth })
    }

    /// Plays to the end and adds what came to the outcome. `also` sees each segment and how
    /// many came before it.
    async fn run(
        &self,
        outcome: &mut Outcome,
        mut also: impl FnMut(&SegmentReport, u64) + Send,
        started: Instant,
    ) -> Result<PlayReport> {
        let mut seen = 0;
        let mut rendered_only = true;
        let mut on_segment = |segment: &SegmentReport, body: &bytes::Bytes| {
            match self.compare(&segment.path, body) {
                Verdict::Rendered => return,
                Verdict::Right => {}
                Verdict::Wrong(bytes) => {
                    outcome.wrong_bytes += bytes;
                    outcome.fault(format!("{}: {bytes} wrong bytes", segment.path));
                }
            }
            if rendered_only && outcome.start_to_first_segment_ms == 0 {
                outcome.start_to_first_segment_ms = ms(started.elapsed());
            }
            rendered_only = false;
            outcome.segments += 1;
            outcome.bytes += body.len() as u64;
            let verdict = segment.verdict.clone().unwrap_or_else(|| "none".to_owned());
            *outcome.verdicts.entry(verdict).or_default() += 1;
            *outcome.protocols.entry(segment.protocol.clone()).or_default() += 1;
            outcome.expect(segment.protocol == self.options.protocol.alpn(), || {
                format!("{} came over {}", segment.path, segment.protocol)
            });
            also(segment, seen);
            seen += 1;
        };
        let report = loadtest::play(self.options.clone(), &mut on_segment).await?;
        outcome.plays += 1;
        outcome.failed_segments += report.failed_segments;
        outcome.expect(report.ended && seen >= self.files(), || {
            format!("a play of {} ended after {seen} segments", self.options.playback.title)
        });
        Ok(report)
    }

    fn compare(&self, path: &str, body: &[u8]) -> Verdict {
        let full = format!("/~{path}");
        match route::parse(&full) {
            Ok(route) => self.truth.compare(&route.resource, body),
            Err(_) => Verdict::Wrong(body.len() as u64),
        }
    }

    /// Init segments, segments and text files that a play of all tracks fetches.
    fn files(&self) -> u64 {
        let of = |track: &model::Track| track.segments.len() as u64 + 1;
        self.truth.index.tracks.iter().map(of).sum()
    }
}

/// Tells the control plane what was played, as a player does.
async fn watched(cluster: &Cluster, play: &Play, report: &PlayReport) -> Result<()> {
    let Playback { token, duration_ms, .. } = play.options.playback.clone();
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
        event(1, EventKind::Stop, duration_ms, report.bytes),
    ];
    cluster.operator.post("/v1/events", &EventBatch { token, events }).await
}

/// Runs the planner for tomorrow, waits for the edges to fill, and plays planned bytes.
async fn planned(
    cluster: &mut Cluster,
    titles: &[String],
    today_ms: u64,
    certificates: &[Vec<u8>],
    outcome: &mut Outcome,
) -> Result<()> {
    eprintln!("Planning");
    let (url, credential) = (cluster.operator.url().to_owned(), cluster.operator_file());
    let (credential, date) = (credential.display().to_string(), date(today_ms + DAY_MS));
    let words = ["plan", "run", "--date", &date, "--control-plane", &url, "--credential-file"];
    cluster.command(&[&words[..], &[&credential, "--json"]].concat()).await?;
    let filled = |overview: &model::api::Overview| {
        let number = overview.plan.as_ref().map(|plan| plan.number);
        number.is_some() && overview.edges.iter().all(|edge| edge.plan_complete == number)
    };
    let overview = cluster.wait("the edges to fill", async |overview| filled(overview)).await?;
    outcome.planned_files = overview.edges.iter().map(|edge| edge.planned_files).sum();
    outcome.expect(outcome.planned_files > 0, || "the plan holds no file".to_owned());
    // A kill leaves nothing in memory and no list to warm it by: what is planned comes from the
    // plan's files.
    let fleet = cluster.edges.len();
    for edge in &mut cluster.edges {
        edge.kill().await?;
        edge.restart().await?;
    }
    let healthy = |overview: &model::api::Overview| {
        let of = |edge: &&model::api::EdgeOverview| edge.state.healthy && edge.planned_files > 0;
        overview.edges.iter().filter(of).count() == fleet
    };
    cluster.wait("the edges to come back", async |overview| healthy(overview)).await?;
    let before = outcome.verdicts.get("hit-plan").copied().unwrap_or(0);
    for title in titles {
        let play = Play::new(cluster, title, Format::Hls, Protocol::H2, certificates).await?;
        play.run(outcome, |_, _| {}, Instant::now()).await?;
    }
    let after = outcome.verdicts.get("hit-plan").copied().unwrap_or(0);
    outcome.expect(after > before, || "no planned byte was served as hit-plan".to_owned());
    Ok(())
}

/// Takes the edge away that serves a play, in the middle of it, and brings it back.
async fn failover(
    cluster: &mut Cluster,
    title: &str,
    fault: Fault,
    certificates: &[Vec<u8>],
    outcome: &mut Outcome,
) -> Result<()> {
    let play = Play::new(cluster, title, Format::Hls, Protocol::H1, certificates).await?;
    let (name, signal) = match fault {
        Fault::Killed => ("killed", Signal::KILL),
        Fault::Frozen => ("frozen", Signal::STOP),
    };
    eprintln!("Playing {title} while its edge is {name}");
    let mut hit = None;
    let take_away = |segment: &SegmentReport, seen: u64| {
        if seen == SEGMENTS_BEFORE_FAULT {
            let edge = cluster.edge_at(&segment.edge);
            hit = edge.filter(|edge| edge.signal(signal)).map(|edge| edge.name.clone());
        }
    };
    let report = play.run(outcome, take_away, Instant::now()).await?;
    let slot = match fault {
        Fault::Killed => &mut outcome.failover_ms.killed,
        Fault::Frozen => &mut outcome.failover_ms.frozen,
    };
    *slot = report.failovers.first().copied().map(ms);
    let moved = report.failovers.first().is_some_and(|stood| *stood < FAILOVER_MAX);
    outcome.expect(hit.is_some() && moved, || {
        format!("no failover within {FAILOVER_MAX:?} was seen with an edge {name}")
    });
    let fleet = cluster.edges.len();
    for edge in &mut cluster.edges {
        if Some(&edge.name) == hit.as_ref() {
            match fault {
                Fault::Killed => {
                    edge.kill().await?;
                    edge.restart().await?;
                }
                Fault::Frozen => {
                    let _ = edge.signal(Signal::CONT);
                }
            }
        }
    }
    let back = |overview: &model::api::Overview| {
        overview.edges.iter().filter(|edge| edge.state.healthy).count() == fleet
    };
    cluster.wait("the edge to come back", async |overview| back(overview)).await.map(|_| ())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The UTC day of a time, `2026-11-21`.
fn date(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_default().strftime("%Y-%m-%d").to_string()
}
