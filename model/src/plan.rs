//! The fill plan: which track files an edge shall hold.

use crate::{EdgeId, TitleId, Version};
use serde::{Deserialize, Serialize};

/// What one edge shall hold on its planned tier. It replaces the plan before it: what it does
/// not name is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillPlan {
    /// Number of the plan run that made it; grows by one a published run.
    pub number: u64,
    /// The day that it is for, `2026-11-21`.
    pub date: String,
    /// The edge.
    pub edge: EdgeId,
    /// Most valuable first: the order in which to fetch.
    pub titles: Vec<PlannedTitle>,
}

/// A title of a plan, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedTitle {
    /// The title.
    pub title: TitleId,
    /// Its version.
    pub version: Version,
    /// Bytes of its track files.
    pub bytes: u64,
    /// Bytes that its plays are predicted to take on that day, over all edges.
    pub predicted_bytes: u64,
}

impl FillPlan {
    /// Bytes of all files planned.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.titles.iter().map(|title| title.bytes).sum()
    }
}
