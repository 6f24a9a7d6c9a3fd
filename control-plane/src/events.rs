//! Playback events: bounded, stored, and folded into the daily demand in one transaction.
//!
//! An event carries totals of its play, so a lost or repeated one does no harm: a play's demand
//! is the largest total that was heard. A play belongs to the UTC day of its first event, by
//! this machine's clock.

use crate::Error;
use crate::clock;
use crate::db::{Db, signed, unsigned};
use model::TitleId;
use model::api::{DailyDemand, Event, EventKind};
use rusqlite::{Connection, OptionalExtension};

/// Events in one batch.
pub(crate) const BATCH_EVENTS_MAX: usize = 100;
/// Events of one play; at one every 10 s, more than two days.
pub(crate) const PLAY_EVENTS_MAX: u64 = 20_000;
/// Nobody watches faster than this many times the clock ...
const PLAYBACK_RATE_MAX: u64 = 2;
/// ... give or take this much, in milliseconds: clocks differ.
const CLOCK_SLACK_MS: u64 = 60_000;

/// A play, as its token proves it, and what it can have taken at most.
#[derive(Debug, Clone)]
pub(crate) struct Play {
    pub(crate) id: [u8; 16],
    pub(crate) title: TitleId,
    pub(crate) watched_ms_max: u64,
    pub(crate) bytes_max: u64,
}

/// How long a play that began at `not_before` (seconds) can have been watched.
pub(crate) fn watched_ms_max(not_before: u64, now_ms: u64) -> u64 {
    let wall = now_ms.saturating_sub(not_before.saturating_mul(1000));
    wall.saturating_mul(PLAYBACK_RATE_MAX).saturating_add(CLOCK_SLACK_MS)
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// This many were new.
    New(usize),
    /// The play has had its [`PLAY_EVENTS_MAX`].
    TooMany,
}

/// Stores a batch. When this returns, it is on disk and in the demand.
pub(crate) async fn store(
    db: &Db,
    play: Play,
    events: Vec<Event>,
    now_ms: u64,
) -> Result<Stored, Error> {
    db.write(move |connection| fold(connection, &play, &events, now_ms)).await
}

/// A play so far.
struct Totals {
    day: String,
    started: bool,
    events: u64,
    watched_ms: u64,
    bytes: u64,
}

fn fold(
    connection: &Connection,
    play: &Play,
    events: &[Event],
    now_ms: u64,
) -> Result<Stored, Error> {
    let before = totals(connection, play)?;
    let is_new = before.is_none();
    let before = before.unwrap_or_else(|| Totals {
        day: clock::day(now_ms),
        started: false,
        events: 0,
        watched_ms: 0,
        bytes: 0,
    });
    if before.events + events.len() as u64 > PLAY_EVENTS_MAX {
        return Ok(Stored::TooMany);
    }
    if is_new {
        connection
            .prepare_cached("INSERT INTO plays VALUES (?1, ?2, ?3, 0, 0, 0, 0)")?
            .execute((&play.id, play.title.as_str(), &before.day))?;
    }
    let mut after = Totals { day: before.day.clone(), ..before };
    let (mut new, was) = (0, (after.started, after.watched_ms, after.bytes));
    for event in events {
        let watched_ms = event.watched_ms.min(play.watched_ms_max);
        let bytes = event.bytes.min(play.bytes_max);
        if !insert(connection, play, event, (watched_ms, bytes), now_ms)? {
            continue;
        }
        new += 1;
        after.started |= event.kind == EventKind::Start;
        after.watched_ms = after.watched_ms.max(watched_ms);
        after.bytes = after.bytes.max(bytes);
    }
    after.events += new as u64;
    save(connection, play, &after)?;
    let plays = u64::from(after.started && !was.0);
    add_demand(connection, play, &after, (plays, after.watched_ms - was.1, after.bytes - was.2))?;
    Ok(Stored::New(new))
}

fn totals(connection: &Connection, play: &Play) -> Result<Option<Totals>, Error> {
    let mut query = connection.prepare_cached(
        "SELECT day, started, events, watched_ms, bytes FROM plays WHERE id = ?1",
    )?;
    let totals = query.query_row([&play.id], |row| {
        Ok(Totals {
            day: row.get(0)?,
            started: row.get(1)?,
            events: unsigned(row.get(2)?),
            watched_ms: unsigned(row.get(3)?),
            bytes: unsigned(row.get(4)?),
        })
    });
    Ok(totals.optional()?)
}

/// False if this number of the play is stored already.
fn insert(
    connection: &Connection,
    play: &Play,
    event: &Event,
    (watched_ms, bytes): (u64, u64),
    now_ms: u64,
) -> Result<bool, Error> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (play, seq) DO NOTHING",
    )?;
    let inserted = insert.execute((
        &play.id,
        event.seq,
        kind(event.kind),
        signed(now_ms),
        signed(event.at_ms),
        signed(event.position_ms),
        signed(watched_ms),
        signed(bytes),
        event.waited_ms.map(signed),
        event.edge.as_ref().map(model::EdgeId::as_str),
    ))?;
    Ok(inserted == 1)
}

fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Start => "start",
        EventKind::Progress => "progress",
        EventKind::Rebuffer => "rebuffer",
        EventKind::Stop => "stop",
    }
}

fn save(connection: &Connection, play: &Play, totals: &Totals) -> Result<(), Error> {
    let mut update = connection.prepare_cached(
        "UPDATE plays SET started = ?2, events = ?3, watched_ms = ?4, bytes = ?5 WHERE id = ?1",
    )?;
    update.execute((
        &play.id,
        totals.started,
        signed(totals.events),
        signed(totals.watched_ms),
        signed(totals.bytes),
    ))?;
    Ok(())
}

fn add_demand(
    connection: &Connection,
    play: &Play,
    totals: &Totals,
    (plays, watched_ms, bytes): (u64, u64, u64),
) -> Result<(), Error> {
    if (plays, watched_ms, bytes) == (0, 0, 0) {
        return Ok(());
    }
    let mut upsert = connection.prepare_cached(
        "INSERT INTO demand VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (day, title) DO UPDATE SET plays = plays + excluded.plays,
         watched_ms = watched_ms + excluded.watched_ms, bytes = bytes + excluded.bytes",
    )?;
    let day = &totals.day;
    upsert.execute((day, play.title.as_str(), signed(plays), signed(watched_ms), signed(bytes)))?;
    Ok(())
}

/// The demand of a day, by title.
pub(crate) fn demand(connection: &Connection, day: &str) -> Result<Vec<DailyDemand>, Error> {
    let mut query = connection.prepare_cached(
        "SELECT title, plays, watched_ms, bytes FROM demand WHERE day = ?1 ORDER BY title",
    )?;
    let mut rows = query.query([day])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok(title) = row.get::<_, String>(0)?.parse() else { continue };
        all.push(DailyDemand {
            date: day.to_owned(),
            title,
            plays: unsigned(row.get(1)?),
            watched_ms: unsigned(row.get(2)?),
            bytes: unsigned(row.get(3)?),
        });
    }
    Ok(all)
}
