//! The control plane's messages: JSON over HTTP. `docs/api.md` shows them with examples.

use crate::fleet::{EdgeCounters, EdgeState};
use crate::plan::FillPlan;
use crate::publish::PublishRecord;
use crate::{EdgeId, TitleId, Version};
use serde::{Deserialize, Serialize};

/// `POST /v1/playback`: may this profile play this title, and from where?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaybackRequest {
    /// The title.
    pub title: TitleId,
    /// The viewer's profile.
    pub profile: String,
    /// The app's id for the viewer's device; up to 128 characters.
    pub device: String,
}

/// The answer when it may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Playback {
    /// This play, in events.
    pub play: String,
    /// The title.
    pub title: TitleId,
    /// The version that plays.
    pub version: Version,
    /// Name for people.
    pub name: String,
    /// Length in milliseconds.
    pub duration_ms: u64,
    /// The play token.
    pub token: String,
    /// When the token ends, seconds since 1970 UTC.
    pub expires: u64,
    /// Edges, best first.
    pub edges: Vec<RankedEdge>,
    /// HLS: one URL an edge, in the order of `edges`.
    pub hls: Vec<String>,
    /// DASH: likewise.
    pub dash: Vec<String>,
    /// Steering manifest at the control plane.
    pub steering: String,
}

/// An edge in a ranked list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankedEdge {
    /// The edge.
    pub id: EdgeId,
    /// Where players reach it, best first.
    pub urls: Vec<String>,
    /// Whether it holds the title complete on its planned tier.
    pub holds: bool,
}

/// The answer (status 403) when it may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Every reason that holds, most general first.
    pub reasons: Vec<Reason>,
}

/// A reason for a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, for programs: `not-in-country`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Any other error of the API: status 400 and up, this body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Stable, for programs: `bad-request`.
    pub code: String,
    /// For people: names the field and what was expected.
    pub message: String,
}

/// `POST /v1/events`: what a player saw. Acknowledged (204) once it is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventBatch {
    /// The play token: events count only with a valid one.
    pub token: String,
    /// At most 100.
    pub events: Vec<Event>,
}

/// One event of a play. A repeated `seq` of the same play counts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Counts up from 0 within the play.
    pub seq: u32,
    /// What happened.
    pub kind: EventKind,
    /// When, by the player's clock, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// Playback position, milliseconds.
    pub position_ms: u64,
    /// Time watched so far in this play, milliseconds.
    pub watched_ms: u64,
    /// Media bytes received so far in this play.
    pub bytes: u64,
    /// For `start`: from request to first frame; for `rebuffer`: how long it lasted. Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    /// The edge that served last, if the player knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<EdgeId>,
}

/// Kind of a playback event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// First frame shown.
    Start,
    /// Sent every 10 s while playing.
    Progress,
    /// The buffer ran dry and playback has resumed.
    Rebuffer,
    /// Ended or left.
    Stop,
}

/// `GET /v1/planner/input?date=D`: what a plan run for day D works on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannerInput {
    /// The day to plan for, `2026-11-21`.
    pub date: String,
    /// Demand of the day before.
    pub demand: Vec<DailyDemand>,
    /// What can be planned.
    pub catalog: Vec<PublishRecord>,
    /// Edges and their planned budgets.
    pub edges: Vec<PlannerEdge>,
}

/// An edge, as the planner sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannerEdge {
    /// The edge.
    pub id: EdgeId,
    /// Bytes that its planned tier may hold.
    pub planned_bytes_max: u64,
    /// Titles that it holds complete.
    pub holds: Vec<TitleId>,
}

/// Demand for a title on one day (UTC).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DailyDemand {
    /// The day, `2026-11-20`.
    pub date: String,
    /// The title.
    pub title: TitleId,
    /// Plays that started.
    pub plays: u64,
    /// Time watched, milliseconds.
    pub watched_ms: u64,
    /// Media bytes that players received.
    pub bytes: u64,
}

/// `POST /v1/plans`: publish a plan run. Answered with [`PlanPublished`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRun {
    /// The day planned for.
    pub date: String,
    /// One plan an edge; `number` is given by the control plane and ignored here.
    pub plans: Vec<FillPlan>,
}

/// The number that a published run got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPublished {
    /// Number of the run.
    pub number: u64,
}

/// `GET /v1/overview`: what the console shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The catalog: the version that plays of each title, by name.
    pub titles: Vec<TitleOverview>,
    /// The fleet, by id.
    pub edges: Vec<EdgeOverview>,
    /// The last published plan run.
    pub plan: Option<PlanOverview>,
    /// Profiles that the player page can play as.
    pub profiles: Vec<String>,
}

/// A title in the console.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TitleOverview {
    /// Its publish record.
    #[serde(flatten)]
    pub record: PublishRecord,
    /// Edges that hold it complete.
    pub held_by: Vec<EdgeId>,
    /// Plays today (UTC).
    pub plays_today: u64,
}

/// An edge in the console.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeOverview {
    /// Its state.
    #[serde(flatten)]
    pub state: EdgeState,
    /// Milliseconds since it was last heard.
    pub silent_ms: u64,
    /// False while it drains.
    pub serving: bool,
    /// Its counters.
    pub counters: EdgeCounters,
    /// Share of bytes served that were hits since it started, 0.0 to 1.0; null before the first byte.
    pub hit_ratio: Option<f64>,
    /// Bytes that its planned tier may hold.
    pub planned_bytes_max: u64,
    /// Bytes that it holds complete there.
    pub planned_bytes: u64,
    /// Track files that it holds complete.
    pub planned_files: u64,
    /// The plan that it has completed.
    pub plan_complete: Option<u64>,
}

/// The last plan run in the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOverview {
    /// Its number.
    pub number: u64,
    /// The day it is for.
    pub date: String,
    /// When it was published, milliseconds since 1970 UTC.
    pub published_at_ms: u64,
    /// The plans.
    pub plans: Vec<FillPlan>,
}
