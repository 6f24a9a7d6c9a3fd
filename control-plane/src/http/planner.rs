//! What the fill planner calls: its input, and the plans that it publishes.

use super::input::{self, Body};
use super::{App, Fault};
use crate::{clock, events};
use axum::Json;
use axum::extract::{RawQuery, State};
use model::api::{PlanPublished, PlanRun, PlannerEdge, PlannerInput};
use std::collections::HashSet;

const DATE_EXPECTED: &str = "date: expected a day, as 2026-11-21";

pub(super) async fn input(
    State(app): State<App>,
    RawQuery(query): RawQuery,
) -> Result<Json<PlannerInput>, Fault> {
    let date = input::query(query.as_deref(), "date").ok_or_else(|| Fault::bad(DATE_EXPECTED))?;
    let before = clock::day_before(&date).ok_or_else(|| Fault::bad(DATE_EXPECTED))?;
    let snapshot = app.snapshot()?;
    let demand = app.db.read(move |connection| events::demand(connection, &before)).await?;
    let records = snapshot.titles.values().map(|title| &title.record);
    let edge = |(id, planned_bytes_max, holds)| PlannerEdge { id, planned_bytes_max, holds };
    let edges = app.fleet.budgets(records.clone()).into_iter().map(edge).collect();
    Ok(Json(PlannerInput { date, demand, catalog: records.cloned().collect(), edges }))
}

pub(super) async fn publish(
    State(app): State<App>,
    Body(run): Body<PlanRun>,
) -> Result<Json<PlanPublished>, Fault> {
    if clock::day_before(&run.date).is_none() {
        return Err(Fault::bad(DATE_EXPECTED));
    }
    let mut edges = HashSet::new();
    for (n, plan) in run.plans.iter().enumerate() {
        if !edges.insert(&plan.edge) {
            return Err(Fault::bad(format!("plans[{n}].edge: a second plan for {}", plan.edge)));
        }
    }
    let (date, edges) = (run.date.clone(), edges.len());
    let number = app.plans.publish(run, app.clock.now_ms()).await?;
    tracing::info!(number, date, edges, "plan published");
    Ok(Json(PlanPublished { number }))
}
