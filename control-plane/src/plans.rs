//! Fill plans: every published run is kept on disk, the newest one for each edge in memory,
//! where heartbeats look.

use crate::Error;
use crate::db::{Db, signed, unsigned};
use arc_swap::ArcSwap;
use model::api::{PlanOverview, PlanRun};
use model::{EdgeId, FillPlan};
use rusqlite::{Connection, OptionalExtension};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Default)]
struct Newest {
    by_edge: HashMap<EdgeId, FillPlan>,
    run: Option<PlanOverview>,
}

/// Published plans.
pub(crate) struct Plans {
    db: Db,
    newest: ArcSwap<Newest>,
    /// Runs are published one after another, so that memory shows the newest.
    publishing: tokio::sync::Mutex<()>,
}

impl Plans {
    /// Reads the newest plans from the database.
    pub(crate) async fn open(db: Db) -> Result<Self, Error> {
        let newest = db.read(read_newest).await?;
        Ok(Self {
            db,
            newest: ArcSwap::from_pointee(newest),
            publishing: tokio::sync::Mutex::default(),
        })
    }

    /// The newest plan of an edge.
    pub(crate) fn of(&self, edge: &EdgeId) -> Option<FillPlan> {
        self.newest.load().by_edge.get(edge).cloned()
    }

    /// Its number.
    pub(crate) fn number_of(&self, edge: &EdgeId) -> Option<u64> {
        self.newest.load().by_edge.get(edge).map(|plan| plan.number)
    }

    /// The newest run.
    pub(crate) fn run(&self) -> Option<PlanOverview> {
        self.newest.load().run.clone()
    }

    /// Stores a run, numbers it, and shows it to its edges.
    pub(crate) async fn publish(&self, run: PlanRun, now_ms: u64) -> Result<u64, Error> {
        let _one_at_a_time = self.publishing.lock().await;
        let number = self.db.write(move |connection| insert(connection, run, now_ms)).await?;
        self.newest.store(Arc::new(self.db.read(read_newest).await?));
        Ok(number)
    }
}

fn insert(connection: &Connection, run: PlanRun, now_ms: u64) -> Result<u64, Error> {
    connection.execute(
        "INSERT INTO plan_runs (date, published_at_ms) VALUES (?1, ?2)",
        (&run.date, signed(now_ms)),
    )?;
    let number = connection.last_insert_rowid();
    for plan in run.plans {
        let plan = FillPlan { number: unsigned(number), date: run.date.clone(), ..plan };
        let text = serde_json::to_string(&plan)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let values = (number, plan.edge.as_str(), text);
        connection.execute("INSERT INTO plans (run, edge, plan) VALUES (?1, ?2, ?3)", values)?;
    }
    Ok(unsigned(number))
}

fn read_newest(connection: &Connection) -> Result<Newest, Error> {
    let mut query = connection.prepare_cached(
        "SELECT plan FROM plans JOIN (SELECT max(run) AS run, edge FROM plans GROUP BY edge)
         USING (run, edge)",
    )?;
    let by_edge = plans(query.query([])?)?;
    let by_edge = by_edge.into_iter().map(|plan| (plan.edge.clone(), plan)).collect();
    let mut query = connection.prepare_cached(
        "SELECT number, date, published_at_ms FROM plan_runs ORDER BY number DESC LIMIT 1",
    )?;
    let run = query.query_row([], |row| {
        let (number, date, at) = (row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, i64>(2)?);
        Ok((number, date, unsigned(at)))
    });
    let Some((number, date, published_at_ms)) = run.optional()? else {
        return Ok(Newest { by_edge, run: None });
    };
    let mut query =
        connection.prepare_cached("SELECT plan FROM plans WHERE run = ?1 ORDER BY edge")?;
    let plans = plans(query.query([number])?)?;
    let run = PlanOverview { number: unsigned(number), date, published_at_ms, plans };
    Ok(Newest { by_edge, run: Some(run) })
}

fn plans(mut rows: rusqlite::Rows<'_>) -> Result<Vec<FillPlan>, Error> {
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let plan = serde_json::from_str(&row.get::<_, String>(0)?);
        all.push(plan.map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
        })?);
    }
    Ok(all)
}
