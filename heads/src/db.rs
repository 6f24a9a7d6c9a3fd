//! The database of heads: SQLite in WAL mode, one row a variant.
//!
//! `synchronous=NORMAL`: the end of the process loses nothing that was committed; a power cut
//! may lose the last batches, never the order of them, and none before the last [`sync`].

use crate::head::{KeyId, Variants};
use crate::key_rows::{self, Changed};
use crate::metrics::Metrics;
use crate::pending::Pending;
use crate::room::Size;
use crate::row;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Of this schema; a database of another is begun anew.
const SCHEMA: i64 = 2;
/// How long a statement waits for a checkpoint of the other connections.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// Keys in one transaction.
const TRANSACTION_KEYS_MAX: usize = 1_000;
/// The journal is cut to that, once it is taken over into the database.
const JOURNAL_BYTES: i64 = 16 << 20;
/// Page cache of a connection, in KiB.
const CACHE_KIB: i64 = 8_192;

const TABLES: &str = "
    CREATE TABLE heads (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL,
        variant INTEGER NOT NULL,
        body BLOB NOT NULL,
        used INTEGER NOT NULL,
        row BLOB NOT NULL
    );
    CREATE UNIQUE INDEX heads_key ON heads (key, variant);
    CREATE INDEX heads_used ON heads (used, id);
    CREATE TABLE counted (id INTEGER PRIMARY KEY CHECK (id = 1), heads INTEGER NOT NULL);
    INSERT INTO counted VALUES (1, 0);
    PRAGMA user_version = 2;";

/// Whether the file is no (longer a) database of ours, rather than the disk in trouble.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(error, rusqlite::Error::InvalidColumnType(..))
}

/// Opens the database for writing, or makes it.
pub(crate) fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "journal_size_limit", JOURNAL_BYTES)?;
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match schema {
        SCHEMA => {}
        0 => connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?,
        _ => {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
            let reason = format!("schema {schema}, expected {SCHEMA}");
            return Err(rusqlite::Error::SqliteFailure(code, Some(reason)));
        }
    }
    Ok(connection)
}

/// Opens the database that is there, for reading.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    // Not the read-only flag: such a connection can't bring a WAL's index back.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

/// Puts a damaged database where an engineer can look at it; the one before goes.
pub(crate) fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let aside = path.with_extension("damaged");
    std::fs::rename(path, &aside)?;
    remove_journals(path)?;
    Ok(aside)
}

/// Removes the database.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path)?;
    remove_journals(path)?;
    // It goes since it says too much: it must not be back after a power cut.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes what was committed outlive a power cut. What the journal no longer has was synced when
/// it was taken over into the database.
pub(crate) fn sync(path: &Path) -> std::io::Result<()> {
    match File::open(journal(path, "-wal")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(journal) => journal.sync_data(),
    }
}

fn journal(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A journal left behind would be taken for the next database's.
fn remove_journals(path: &Path) -> std::io::Result<()> {
    for suffix in ["-wal", "-shm"] {
        match std::fs::remove_file(journal(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The heads of `key`, newest first, and the latest hour that their rows say they were used in: 0
/// where there are too many of them, so that they are touched.
pub(crate) fn read(
    connection: &Connection,
    key: &KeyId,
    metrics: &Metrics,
) -> Result<(Variants, u32), rusqlite::Error> {
    let mut query = connection.prepare_cached(key_rows::READ)?;
    let mut rows = query.query(params![&key.0[..], key_rows::LOOKED_AT_MAX, key_rows::MAX + 1])?;
    let (mut heads, mut used, mut count) = (Vec::new(), 0, 0);
    while let Some(row) = rows.next()? {
        used = used.max(row.get(0)?);
        count += 1;
        match row::decode(key, row.get_ref(1)?.as_blob()?) {
            Some(head) => heads.push(Arc::new(head)),
            None => metrics.damaged.with_label_values(&["row"]).inc(),
        }
    }
    Ok((Variants::new(heads), if count > key_rows::MAX { 0 } else { used }))
}

/// How many rows there are. It is kept beside them: to count millions on a cold disk takes seconds,
/// which the first to wait for a write would wait for, too.
pub(crate) fn count(connection: &Connection) -> Result<u64, rusqlite::Error> {
    connection.query_row("SELECT heads FROM counted", [], |row| row.get::<_, i64>(0)).map(unsigned)
}

/// What the database takes.
pub(crate) fn size(connection: &Connection) -> Result<Size, rusqlite::Error> {
    let value = |name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(unsigned)
    };
    let page = value("page_size")?;
    Ok(Size { file: value("page_count")? * page, spare: value("freelist_count")? * page })
}

/// Writes how many there are by now, in the transaction that made it so.
fn count_is(transaction: &Transaction<'_>, rows: u64) -> Result<(), rusqlite::Error> {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    transaction.prepare_cached("UPDATE counted SET heads = ?1")?.execute([rows]).map(drop)
}

/// Writes changes, some keys a transaction, and adds rows, or makes them longer, if it may; `rows`
/// follows the number of rows. Returns the keys that still have too many, and are to be touched once
/// more.
pub(crate) fn write(
    connection: &mut Connection,
    pending: &Pending,
    hour: u32,
    may_add: bool,
    rows: &mut u64,
    metrics: &Metrics,
) -> Result<Vec<KeyId>, rusqlite::Error> {
    let mut crowded = Vec::new();
    let keys: Vec<_> = pending.keys.iter().collect();
    for keys in keys.chunks(TRANSACTION_KEYS_MAX) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut change = Changed { may_add, ..Changed::default() };
        for (key, changes) in keys {
            key_rows::write(&transaction, key, changes, hour, &mut change, metrics)?;
        }
        let rows_now = rows.saturating_add(change.added).saturating_sub(change.removed);
        if rows_now != *rows {
            count_is(&transaction, rows_now)?;
        }
        transaction.commit()?;
        *rows = rows_now;
        metrics.rows_written.inc_by(change.added + change.removed + change.replaced);
        crowded.append(&mut change.crowded);
    }
    Ok(crowded)
}

/// Takes out so many of the `rows`, those longest unused. Returns how many.
pub(crate) fn trim(
    connection: &mut Connection,
    rows: u64,
    excess: u64,
) -> Result<u64, rusqlite::Error> {
    if excess == 0 {
        return Ok(0);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let trimmed = transaction
        .prepare_cached(
            "DELETE FROM heads WHERE id IN (SELECT id FROM heads ORDER BY used, id LIMIT ?1)",
        )?
        .execute([i64::try_from(excess).unwrap_or(i64::MAX)])? as u64;
    count_is(&transaction, rows.saturating_sub(trimmed))?;
    transaction.commit()?;
    Ok(trimmed)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
