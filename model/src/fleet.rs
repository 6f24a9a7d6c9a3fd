//! The fleet: what edges say of themselves, and what they are told.

use crate::{EdgeId, TitleId, Version};
use serde::{Deserialize, Serialize};

/// What an edge sends to the control plane every `HEARTBEAT_MS`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Where players reach it, best first: `http://127.0.0.2:8080`, without a trailing slash.
    /// A path or a query is not allowed.
    pub urls: Vec<String>,
    /// Changes with each start of the process.
    pub boot: u64,
    /// False while it drains: no new plays are sent to it.
    pub serving: bool,
    /// Share of its capacity in use, 0.0 to 1.0.
    pub load: f64,
    /// Counters since it started.
    pub counters: EdgeCounters,
    /// Bytes that its planned tier may hold.
    pub planned_bytes_max: u64,
    /// Number of the plan that it follows, once every file of it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_complete: Option<u64>,
    /// What it holds complete and verified on its planned tier.
    pub holdings: Vec<Holding>,
}

/// Served bytes and requests of an edge since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeCounters {
    /// Requests answered.
    pub requests: u64,
    /// Media bytes sent to players.
    pub bytes: u64,
    /// Of these, bytes that were here when asked for (memory, plan or SSD).
    pub hit_bytes: u64,
    /// Bytes fetched from the origin.
    pub origin_bytes: u64,
    /// Connections open now.
    pub connections: u64,
}

/// A track file that an edge holds complete.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holding {
    /// The title.
    pub title: TitleId,
    /// Its version.
    pub version: Version,
    /// File name, `v1.mp4`.
    pub file: String,
}

/// An edge sends a heartbeat this often, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1000;
/// An edge that was not heard for this long counts as dead, in milliseconds.
pub const SILENT_MS_MAX: u64 = 3 * HEARTBEAT_MS;

/// What the control plane answers to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// Version of the newest edge view.
    pub view: u64,
    /// Number of the newest plan for this edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<u64>,
}

/// What every edge knows of the whole: never anything about accounts. Edges keep the last
/// good one on disk and serve by it when the control plane is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeView {
    /// Grows with each change.
    pub version: u64,
    /// Keys that play tokens may be signed with.
    pub keys: Vec<PublicKey>,
    /// Base URL of the control plane's steering service, `http://127.0.0.1:7080`.
    pub control_plane_url: String,
    /// The fleet.
    pub edges: Vec<EdgeState>,
}

/// A public ES256 key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// Key id, as in the token's header (hexadecimal).
    pub kid: String,
    /// Uncompressed point of the P-256 key (SEC 1: 0x04, x, y), hexadecimal.
    pub point: String,
}

/// An edge as others see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeState {
    /// The edge.
    pub id: EdgeId,
    /// Where players reach it, best first.
    pub urls: Vec<String>,
    /// Heard within `SILENT_MS_MAX` and serving.
    pub healthy: bool,
    /// Share of its capacity in use, 0.0 to 1.0.
    pub load: f64,
}
