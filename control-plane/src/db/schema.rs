//! The schema, as the steps that lead to it. A released step is never changed: a change is a
//! new step. `user_version` counts the steps that a database has taken.

use rusqlite::{Connection, TransactionBehavior};

const STEPS: [&str; 2] = [
    // 1: accounts and profiles; windows of titles; plays, their events, daily demand; plans.
    // Times are milliseconds since 1970 UTC; days are UTC, `2026-11-21`.
    "CREATE TABLE accounts (
        id TEXT PRIMARY KEY NOT NULL,
        active INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE profiles (
        id TEXT PRIMARY KEY NOT NULL,
        account TEXT NOT NULL REFERENCES accounts (id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE windows (
        title TEXT NOT NULL,
        country TEXT NOT NULL,
        from_ms INTEGER,
        until_ms INTEGER
    ) STRICT;
    CREATE INDEX windows_title ON windows (title);
    CREATE TABLE plays (
        id BLOB PRIMARY KEY NOT NULL,
        title TEXT NOT NULL,
        day TEXT NOT NULL,
        started INTEGER NOT NULL,
        events INTEGER NOT NULL,
        watched_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        play BLOB NOT NULL REFERENCES plays (id),
        seq INTEGER NOT NULL,
        kind TEXT NOT NULL,
        received_ms INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        position_ms INTEGER NOT NULL,
        watched_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        waited_ms INTEGER,
        edge TEXT,
        PRIMARY KEY (play, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE demand (
        day TEXT NOT NULL,
        title TEXT NOT NULL,
        plays INTEGER NOT NULL,
        watched_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (day, title)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE plan_runs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        date TEXT NOT NULL,
        published_at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE plans (
        run INTEGER NOT NULL REFERENCES plan_runs (number),
        edge TEXT NOT NULL,
        plan TEXT NOT NULL,
        PRIMARY KEY (run, edge)
    ) STRICT, WITHOUT ROWID;",
    // 2: what has had its time is found without reading everything.
    "CREATE INDEX plays_day ON plays (day);
    CREATE INDEX plans_edge ON plans (edge, run);",
];

/// Takes the steps that are missing, all or none.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(text)?;
    let taken: i64 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(text)?;
    let known = STEPS.len();
    let taken = usize::try_from(taken).ok().filter(|taken| *taken <= known).ok_or_else(|| {
        format!("the database has schema {taken}, this release knows those up to {known}")
    })?;
    for step in &STEPS[taken..] {
        transaction.execute_batch(step).map_err(text)?;
    }
    let version = i64::try_from(known).unwrap_or(i64::MAX);
    transaction.pragma_update(None, "user_version", version).map_err(text)?;
    transaction.commit().map_err(text)
}
