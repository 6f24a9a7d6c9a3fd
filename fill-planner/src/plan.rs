//! The plan itself: which titles each edge shall hold, and why not the others. Pure.
//!
//! The forecast is the simplest that works: a title takes as many bytes as the day before.
//! Placement: whole titles, most predicted bytes per byte stored first (value density), skipping
//! what does not fit any more. That is the greedy algorithm for the knapsack problem; with its
//! usual guard (the one most valuable title first, if that serves more) it serves at least half
//! of what the best choice would.

use model::api::{PlanRun, PlannerEdge, PlannerInput};
use model::plan::PlannedTitle;
use model::publish::PublishRecord;
use model::{EdgeId, FillPlan, TitleId};
use serde::Serialize;
use std::cmp::{Ordering, Reverse};
use std::collections::{HashMap, HashSet};

/// A planned run: what to publish, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// What to publish.
    pub run: PlanRun,
    /// What became of every title on every edge.
    pub edges: Vec<EdgePlan>,
}

/// A plan for one edge, explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgePlan {
    /// The edge.
    pub edge: EdgeId,
    /// Bytes that it may hold.
    pub bytes_max: u64,
    /// Bytes that are planned.
    pub bytes: u64,
    /// Of these, bytes of titles that it does not hold yet.
    pub fetch_bytes: u64,
    /// Every title of the catalog, most valuable first.
    pub titles: Vec<Row>,
}

/// A title on one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The title.
    pub title: TitleId,
    /// Bytes that its plays are predicted to take that day, over all edges.
    pub predicted_bytes: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether the edge holds it already.
    pub held: bool,
    /// What is planned.
    pub verdict: Verdict,
}

/// What is planned for a title on an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Its plays are worth the room.
    Planned,
    /// Nobody is predicted to play it, but it is there and nothing else needs the room.
    Kept,
    /// More valuable titles took the room.
    NoRoom,
    /// Nobody is predicted to play it.
    NoDemand,
}

impl Verdict {
    /// Whether the edge shall hold it.
    #[must_use]
    pub fn is_planned(self) -> bool {
        matches!(self, Self::Planned | Self::Kept)
    }
}

/// A title that may be planned.
struct Candidate<'a> {
    record: &'a PublishRecord,
    bytes: u64,
    predicted_bytes: u64,
}

/// Plans a day. The same input gives the same plan.
#[must_use]
pub fn plan(input: &PlannerInput) -> Planned {
    let mut demand: HashMap<&TitleId, u64> = HashMap::new();
    for row in &input.demand {
        let predicted = demand.entry(&row.title).or_default();
        *predicted = predicted.saturating_add(row.bytes);
    }
    let candidate = |record| Candidate {
        record,
        bytes: record.bytes(),
        predicted_bytes: demand.get(&record.title).copied().unwrap_or(0),
    };
    // A title without bytes has nothing to hold.
    let candidates = input.catalog.iter().map(candidate).filter(|candidate| candidate.bytes > 0);
    let mut candidates: Vec<Candidate<'_>> = candidates.collect();
    candidates.sort_by(Candidate::order);
    let mut edges: Vec<EdgePlan> =
        input.edges.iter().map(|edge| place(edge, &candidates)).collect();
    edges.sort_by(|a, b| a.edge.cmp(&b.edge));
    let plans = edges.iter().map(|edge| edge.fill_plan(&input.date, &candidates)).collect();
    Planned { run: PlanRun { date: input.date.clone(), plans }, edges }
}

impl Candidate<'_> {
    /// Denser first; then more predicted bytes, the newer title, the id.
    fn order(&self, other: &Self) -> Ordering {
        let cross = |a: &Self, b: &Self| u128::from(a.predicted_bytes) * u128::from(b.bytes);
        let rest = |one: &Self| (Reverse(one.predicted_bytes), Reverse(one.record.published_at_ms));
        cross(other, self)
            .cmp(&cross(self, other))
            .then_with(|| rest(self).cmp(&rest(other)))
            .then_with(|| self.record.title.cmp(&other.record.title))
    }
}

/// The titles for one edge.
fn place(edge: &PlannerEdge, candidates: &[Candidate<'_>]) -> EdgePlan {
    let held: HashSet<&TitleId> = edge.holds.iter().collect();
    let wanted = best(candidates, edge.planned_bytes_max);
    let taken = |wanted: &[bool]| -> u64 {
        let both = candidates.iter().zip(wanted);
        both.filter(|(_, wanted)| **wanted).map(|(candidate, _)| candidate.bytes).sum()
    };
    let mut room = edge.planned_bytes_max - taken(&wanted);
    let mut plan = EdgePlan {
        edge: edge.id.clone(),
        bytes_max: edge.planned_bytes_max,
        bytes: 0,
        fetch_bytes: 0,
        titles: Vec::with_capacity(candidates.len()),
    };
    for (candidate, wanted) in candidates.iter().zip(wanted) {
        let held = held.contains(&candidate.record.title);
        let idle = candidate.predicted_bytes == 0;
        let verdict = match (wanted, idle) {
            (true, _) => Verdict::Planned,
            (false, false) => Verdict::NoRoom,
            (false, true) if held && candidate.bytes <= room => {
                room -= candidate.bytes;
                Verdict::Kept
            }
            (false, true) => Verdict::NoDemand,
        };
        if verdict.is_planned() {
            plan.bytes += candidate.bytes;
            plan.fetch_bytes += if held { 0 } else { candidate.bytes };
        }
        plan.titles.push(Row {
            title: candidate.record.title.clone(),
            predicted_bytes: candidate.predicted_bytes,
            bytes: candidate.bytes,
            held,
            verdict,
        });
    }
    plan
}

/// Which candidates with demand to hold: the greedy choice, or the greedy choice after the one
/// of most predicted bytes, if that serves more.
fn best(candidates: &[Candidate<'_>], bytes_max: u64) -> Vec<bool> {
    let fits = |one: &&Candidate<'_>| one.bytes <= bytes_max;
    let dense = greedy(candidates, bytes_max, None);
    let most = candidates.iter().filter(fits).max_by_key(|one| one.predicted_bytes);
    let first = most.map(|one| &one.record.title);
    let big = greedy(candidates, bytes_max, first);
    let served = |wanted: &[bool]| -> u128 {
        let both = candidates.iter().zip(wanted).filter(|(_, wanted)| **wanted);
        both.map(|(candidate, _)| u128::from(candidate.predicted_bytes)).sum()
    };
    if served(&big) > served(&dense) { big } else { dense }
}

fn greedy(candidates: &[Candidate<'_>], bytes_max: u64, first: Option<&TitleId>) -> Vec<bool> {
    let mut room = bytes_max;
    let mut wanted = vec![false; candidates.len()];
    let is_first = |one: &Candidate<'_>| Some(&one.record.title) == first;
    let order = candidates.iter().enumerate().filter(|(_, one)| is_first(one));
    let order = order.chain(candidates.iter().enumerate().filter(|(_, one)| !is_first(one)));
    for (n, candidate) in order {
        if candidate.predicted_bytes > 0 && candidate.bytes <= room {
            room -= candidate.bytes;
            wanted[n] = true;
        }
    }
    wanted
}

impl EdgePlan {
    fn fill_plan(&self, date: &str, candidates: &[Candidate<'_>]) -> FillPlan {
        let rows = candidates.iter().zip(&self.titles).filter(|(_, row)| row.verdict.is_planned());
        let title = |(candidate, row): (&Candidate<'_>, &Row)| PlannedTitle {
            title: row.title.clone(),
            version: candidate.record.version,
            bytes: row.bytes,
            predicted_bytes: row.predicted_bytes,
        };
        FillPlan {
            number: 0,
            date: date.to_owned(),
            edge: self.edge.clone(),
            titles: rows.map(title).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
