//! What is kept for how long. What has had its time is deleted in small transactions, between
//! those of requests.
//!
//! Invariant: a play outlives its token, so that no report is counted twice; the newest plan of
//! each edge stays, however old.

use crate::Error;
use crate::clock;
use crate::db::{Db, signed};
use rusqlite::Connection;
use std::time::Duration;

/// Rows deleted in one transaction: some milliseconds, in which requests wait.
const BATCH_ROWS_MAX: usize = 2000;
/// Plays looked at in one transaction.
const BATCH_PLAYS_MAX: usize = 500;

/// How long things are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Plays and their events, after the UTC day on which the play began.
    pub(crate) events: Duration,
    /// Daily demand after its day, and runs of the planner.
    pub(crate) demand: Duration,
}

/// Deletes what has had its time; says how many rows went.
pub(crate) async fn prune(db: &Db, keep: Retention, now_ms: u64) -> Result<usize, Error> {
    let before =
        |kept: Duration| now_ms.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX));
    let (events, demand) = (before(keep.events), before(keep.demand));
    let mut gone = 0;
    loop {
        let batch = db.write(move |connection| {
            let plays = prune_plays(connection, &clock::day(events))?;
            let left = BATCH_ROWS_MAX.saturating_sub(plays);
            Ok(plays + prune_demand(connection, demand, left)?)
        });
        match batch.await? {
            0 => return Ok(gone),
            rows => gone += rows,
        }
    }
}

/// Plays that began before `day`, each after its events.
fn prune_plays(connection: &Connection, day: &str) -> Result<usize, Error> {
    let mut query = connection.prepare_cached("SELECT id FROM plays WHERE day < ?1 LIMIT ?2")?;
    let old = query.query_map((day, count(BATCH_PLAYS_MAX)), |row| row.get::<_, [u8; 16]>(0))?;
    let old = old.collect::<Result<Vec<_>, _>>()?;
    let mut events = connection.prepare_cached(
        "DELETE FROM events WHERE play = ?1 AND seq IN
         (SELECT seq FROM events WHERE play = ?1 LIMIT ?2)",
    )?;
    let mut play = connection.prepare_cached("DELETE FROM plays WHERE id = ?1")?;
    let mut rows = 0;
    for id in old {
        rows += events.execute((&id, count(BATCH_ROWS_MAX - rows)))?;
        // The last events of this play may be left for the next batch.
        if rows >= BATCH_ROWS_MAX {
            break;
        }
        rows += play.execute([&id])?;
    }
    Ok(rows)
}

/// At most about `rows_max` rows of daily demand and of plans.
fn prune_demand(connection: &Connection, before_ms: u64, rows_max: usize) -> Result<usize, Error> {
    let mut demand = connection.prepare_cached(
        "DELETE FROM demand WHERE (day, title) IN
         (SELECT day, title FROM demand WHERE day < ?1 LIMIT ?2)",
    )?;
    let mut plans = connection.prepare_cached(
        "DELETE FROM plans WHERE (run, edge) IN
         (SELECT old.run, old.edge FROM plans old JOIN plan_runs ON number = old.run
          WHERE published_at_ms < ?1 AND EXISTS
          (SELECT 1 FROM plans newer WHERE newer.edge = old.edge AND newer.run > old.run)
          LIMIT ?2)",
    )?;
    let mut runs = connection.prepare_cached(
        "DELETE FROM plan_runs WHERE number IN
         (SELECT number FROM plan_runs WHERE published_at_ms < ?1
          AND number < (SELECT max(number) FROM plan_runs)
          AND NOT EXISTS (SELECT 1 FROM plans WHERE run = number) LIMIT ?2)",
    )?;
    let mut rows = demand.execute((clock::day(before_ms), count(rows_max)))?;
    rows += plans.execute((signed(before_ms), count(rows_max.saturating_sub(rows))))?;
    rows += runs.execute((signed(before_ms), count(rows_max.saturating_sub(rows))))?;
    Ok(rows)
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{self, Play};
    use crate::plans::Plans;
    use model::api::{Event, EventKind, PlanRun};

    const DAY_MS: u64 = 86_400_000;
    /// 2026-11-21, 00:00:00 UTC.
    const NOW_MS: u64 = 1_795_219_200_000;
    const KEEP: Retention = Retention {
        events: Duration::from_millis(35 * DAY_MS),
        demand: Duration::from_millis(400 * DAY_MS),
    };

    async fn rows(db: &Db, table: &'static str) -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        db.read(move |connection| Ok(connection.query_row(&query, [], |row| row.get(0))?))
            .await
            .unwrap()
    }

    async fn play(db: &Db, id: u8, events: u32, now_ms: u64) {
        let play = Play {
            id: [id; 16],
            title: "film".parse().unwrap(),
            watched_ms_max: u64::MAX,
            bytes_max: u64::MAX,
        };
        let event = |seq| Event {
            seq,
            kind: EventKind::Start,
            at_ms: 0,
            position_ms: 0,
            watched_ms: 1,
            bytes: 1,
            waited_ms: None,
            edge: None,
        };
        let events = (0..events).map(event).collect();
        events::store(db, play, events, now_ms).await.unwrap();
    }

    fn run(edges: &[&str]) -> PlanRun {
        let plan = |edge: &&str| model::FillPlan {
            number: 0,
            date: String::new(),
            edge: edge.parse().unwrap(),
            titles: Vec::new(),
        };
        PlanRun { date: "2026-11-21".into(), plans: edges.iter().map(plan).collect() }
    }

    #[tokio::test]
    async fn plays_and_events_go_after_their_time_and_demand_stays() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("db")).unwrap();
        // More than one batch's events, and more than one batch's plays' worth of rows.
        play(&db, 1, 5000, NOW_MS).await;
        play(&db, 2, 1, NOW_MS).await;
        play(&db, 3, 2, NOW_MS + DAY_MS).await;
        // The day is kept whole: until 35 days after its last moment.
        let last = NOW_MS + 36 * DAY_MS - 1;
        assert_eq!(prune(&db, KEEP, last).await.unwrap(), 0);
        assert_eq!(prune(&db, KEEP, last + 1).await.unwrap(), 5003);
        assert_eq!((rows(&db, "plays").await, rows(&db, "events").await), (1, 2));
        assert_eq!(rows(&db, "demand").await, 2);
        assert_eq!(prune(&db, KEEP, NOW_MS + 401 * DAY_MS).await.unwrap(), 4);
        assert_eq!(rows(&db, "demand").await, 1);
    }

    #[tokio::test]
    async fn the_newest_plan_of_each_edge_stays() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("db")).unwrap();
        let plans = Plans::open(db.clone()).await.unwrap();
        for edges in [&["a", "b"][..], &["a", "b"], &["a"]] {
            plans.publish(run(edges), NOW_MS).await.unwrap();
        }
        let late = NOW_MS + 400 * DAY_MS;
        assert_eq!(prune(&db, KEEP, late).await.unwrap(), 0);
        // Of run 1 everything goes, of run 2 the plan for a.
        assert_eq!(prune(&db, KEEP, late + 1).await.unwrap(), 4);
        let again = Plans::open(db.clone()).await.unwrap();
        let number = |edge: &str| again.number_of(&edge.parse().unwrap());
        assert_eq!((number("a"), number("b")), (Some(3), Some(2)));
        assert_eq!(again.publish(run(&["b"]), late).await.unwrap(), 4);
    }
}
