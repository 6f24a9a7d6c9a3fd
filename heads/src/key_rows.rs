//! The rows of one key, and what changes do to them.
//!
//! Invariant: a key has at most as many rows as memory has variants, and the row that goes is the one
//! that goes from memory. A row's `id` says when its head was put: a head that replaces another one
//! gets the highest, one that a 304 refreshed stays where it is.

use crate::head::{Head, KeyId, VARIANTS_MAX};
use crate::metrics::Metrics;
use crate::pending::{Change, Rows};
use crate::row;
use rusqlite::{Connection, params};

/// Rows of a key.
pub(crate) const MAX: i64 = VARIANTS_MAX as i64;
/// Rows of a key that are looked at in one step, where a database from before there was a limit has
/// more.
pub(crate) const LOOKED_AT_MAX: i64 = 1_024;

/// The newest rows of a key. Which these are, the index says alone.
pub(crate) const READ: &str = "
    SELECT used, row FROM heads WHERE id IN (
        SELECT id FROM (SELECT id FROM heads WHERE key = ?1 LIMIT ?2) ORDER BY id DESC LIMIT ?3
    ) ORDER BY id DESC";
/// The row of a variant; how many rows its key has, and the newest of these.
const LOOK: &str = "
    SELECT (SELECT id FROM heads WHERE key = ?1 AND variant = ?2), count(*), max(id)
    FROM (SELECT id FROM heads WHERE key = ?1 LIMIT ?3)";
const CROWD_OUT: &str = "
    DELETE FROM heads WHERE id IN (
        SELECT id FROM (SELECT id FROM heads WHERE key = ?1 LIMIT ?2)
        ORDER BY id DESC LIMIT -1 OFFSET ?3
    )";
const DELETE_VARIANT: &str = "DELETE FROM heads WHERE key = ?1 AND variant = ?2";
const DELETE_BODY: &str = "DELETE FROM heads WHERE key = ?1 AND variant = ?2 AND body = ?3";
const REFRESH: &str = "
    UPDATE heads SET used = ?4, row = ?5 WHERE key = ?1 AND variant = ?2 AND body = ?3";
/// The same within the pages that the row has.
const REFRESH_IN_PLACE: &str = "
    UPDATE heads SET used = ?4, row = ?5 WHERE key = ?1 AND variant = ?2 AND body = ?3
        AND length(row) = length(?5)";

/// What may be done to rows, and counts of those.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub(crate) may_add: bool,
    pub(crate) added: u64,
    pub(crate) replaced: u64,
    pub(crate) removed: u64,
    /// Keys that still have too many.
    pub(crate) crowded: Vec<KeyId>,
}

/// Writes the changes of one key.
pub(crate) fn write(
    to: &Connection,
    key: &KeyId,
    rows: &Rows,
    hour: u32,
    changed: &mut Changed,
    metrics: &Metrics,
) -> Result<(), rusqlite::Error> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        to.prepare_cached(sql)?.execute(values).map(|count| count as u64)
    };
    let id = &key.0[..];
    if rows.clear {
        changed.removed += run("DELETE FROM heads WHERE key = ?1", &[&id])?;
    }
    if rows.touch {
        crowd_out(to, key, changed)?;
        // Where there are still too many, more are to go soon.
        let sql = "UPDATE heads SET used = ?2 WHERE id IN (
                       SELECT id FROM heads WHERE key = ?1 LIMIT ?3)";
        run(sql, &[&id, &hour, &MAX])?;
    }
    for (variant, change) in &rows.changes {
        match change {
            // What its row holds is older.
            Change::Put(_) if !changed.may_add => {
                metrics.unwritten.with_label_values(&["no-room"]).inc();
                changed.removed += run(DELETE_VARIANT, &[&id, variant])?;
            }
            Change::Put(head) | Change::Refresh(head) => match row::encode(key, head) {
                Some(row) if matches!(change, Change::Put(_)) => {
                    put(to, (key, *variant), head, &row, hour, changed)?;
                }
                Some(row) => {
                    let sql = if changed.may_add { REFRESH } else { REFRESH_IN_PLACE };
                    let body = &&head.body[..];
                    let replaced = run(sql, &[&id, variant, body, &hour, &row])?;
                    changed.replaced += replaced;
                    if replaced == 0 && !changed.may_add {
                        let removed = run(DELETE_BODY, &[&id, variant, body])?;
                        metrics.unwritten.with_label_values(&["no-room"]).inc_by(removed);
                        changed.removed += removed;
                    }
                }
                None => {
                    metrics.unwritten.with_label_values(&["too-large"]).inc();
                    changed.removed += run(DELETE_VARIANT, &[&id, variant])?;
                }
            },
            Change::Gone => changed.removed += run(DELETE_VARIANT, &[&id, variant])?,
            Change::GoneIf(body) => {
                changed.removed += run(DELETE_BODY, &[&id, variant, &&body[..]])?;
            }
        }
    }
    Ok(())
}

/// Writes one row as its key's newest; the oldest goes, if there are too many.
fn put(
    to: &Connection,
    (key, variant): (&KeyId, i64),
    head: &Head,
    row: &[u8],
    hour: u32,
    changed: &mut Changed,
) -> Result<(), rusqlite::Error> {
    let (id, body) = (&key.0[..], &head.body[..]);
    let (own, count, newest): (Option<i64>, i64, Option<i64>) =
        to.prepare_cached(LOOK)?.query_row(params![id, variant, LOOKED_AT_MAX], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    if own.is_some() && own == newest {
        changed.replaced += to
            .prepare_cached("UPDATE heads SET body = ?2, used = ?3, row = ?4 WHERE id = ?1")?
            .execute(params![own, body, hour, row])? as u64;
        return Ok(());
    }
    match own {
        Some(own) => {
            to.prepare_cached("DELETE FROM heads WHERE id = ?1")?.execute([own])?;
            changed.replaced += 1;
        }
        None => changed.added += 1,
    }
    to.prepare_cached(
        "INSERT INTO heads (key, variant, body, used, row) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![id, variant, body, hour, row])?;
    if count >= MAX {
        crowd_out(to, key, changed)?;
    }
    Ok(())
}

/// Takes out the oldest rows of a key that has too many, of those that one step looks at.
fn crowd_out(to: &Connection, key: &KeyId, changed: &mut Changed) -> Result<(), rusqlite::Error> {
    let gone = to.prepare_cached(CROWD_OUT)?.execute(params![&key.0[..], LOOKED_AT_MAX, MAX])?;
    changed.removed += gone as u64;
    if gone as i64 >= LOOKED_AT_MAX - MAX {
        changed.crowded.push(*key);
    }
    Ok(())
}
