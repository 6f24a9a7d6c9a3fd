//! Accounts, their profiles, and the windows in which a title may play.

use crate::Error;
use crate::country::Country;
use crate::db::{Db, signed, unsigned};
use model::TitleId;
use rusqlite::{Connection, OptionalExtension};
use std::collections::HashMap;
use std::time::Duration;

/// How long a decision waits for the account.
const ACCOUNT_READ_MAX: Duration = Duration::from_millis(500);
/// Profiles that the console offers.
const PROFILES_SHOWN_MAX: i64 = 100;

/// What a decision needs to know of the account behind a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: String,
    /// Whether it may play at all.
    pub active: bool,
}

/// When and where a title may play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The country; none: every one.
    pub country: Option<Country>,
    /// From this time on, milliseconds since 1970 UTC; none: always was.
    pub from_ms: Option<u64>,
    /// Until before this time; none: for ever.
    pub until_ms: Option<u64>,
}

/// The account of a profile, by one point read with a deadline.
pub(crate) async fn of_profile(db: &Db, profile: String) -> Result<Option<Account>, Error> {
    let read = db.read(move |connection| {
        let mut query = connection.prepare_cached(
            "SELECT accounts.id, active FROM profiles
             JOIN accounts ON accounts.id = profiles.account WHERE profiles.id = ?1",
        )?;
        let account = query
            .query_row([profile], |row| Ok(Account { id: row.get(0)?, active: row.get(1)? }))
            .optional()?;
        Ok(account)
    });
    tokio::time::timeout(ACCOUNT_READ_MAX, read)
        .await
        .map_err(|_| Error::TimedOut(ACCOUNT_READ_MAX))?
}

pub(crate) async fn put_account(db: &Db, id: String, active: bool) -> Result<(), Error> {
    db.write(move |connection| {
        connection.execute(
            "INSERT INTO accounts (id, active) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET active = excluded.active",
            (id, active),
        )?;
        Ok(())
    })
    .await
}

/// False if there is no such account.
pub(crate) async fn put_profile(db: &Db, id: String, account: String) -> Result<bool, Error> {
    db.write(move |connection| {
        let mut known = connection.prepare_cached("SELECT 1 FROM accounts WHERE id = ?1")?;
        if !known.exists([&account])? {
            return Ok(false);
        }
        connection.execute(
            "INSERT INTO profiles (id, account) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET account = excluded.account",
            (id, account),
        )?;
        Ok(true)
    })
    .await
}

pub(crate) fn profiles(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut query = connection.prepare_cached("SELECT id FROM profiles ORDER BY id LIMIT ?1")?;
    let ids = query.query_map([PROFILES_SHOWN_MAX], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Replaces a title's windows. It need not be in the catalog yet.
pub(crate) async fn put_windows(
    db: &Db,
    title: TitleId,
    windows: Vec<Window>,
) -> Result<(), Error> {
    db.write(move |connection| {
        connection.execute("DELETE FROM windows WHERE title = ?1", [title.as_str()])?;
        for window in windows {
            let country = window.country.map_or("*".to_owned(), |country| country.to_string());
            connection.execute(
                "INSERT INTO windows (title, country, from_ms, until_ms) VALUES (?1, ?2, ?3, ?4)",
                (title.as_str(), country, window.from_ms.map(signed), window.until_ms.map(signed)),
            )?;
        }
        Ok(())
    })
    .await
}

/// Every title's windows.
pub(crate) async fn windows(db: &Db) -> Result<HashMap<TitleId, Vec<Window>>, Error> {
    db.read(|connection| {
        let mut query =
            connection.prepare_cached("SELECT title, country, from_ms, until_ms FROM windows")?;
        let mut rows = query.query([])?;
        let mut all: HashMap<TitleId, Vec<Window>> = HashMap::new();
        while let Some(row) = rows.next()? {
            let (title, country) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
            // Checked when written: what does not parse is a damaged row, and must not open
            // a title to all.
            let title = title.parse().map_err(|_| damaged(0))?;
            let country = match country.as_str() {
                "*" => None,
                code => Some(code.parse().map_err(|_| damaged(1))?),
            };
            let (from_ms, until_ms) =
                (row.get::<_, Option<i64>>(2)?, row.get::<_, Option<i64>>(3)?);
            all.entry(title).or_default().push(Window {
                country,
                from_ms: from_ms.map(unsigned),
                until_ms: until_ms.map(unsigned),
            });
        }
        Ok(all)
    })
    .await
}

fn damaged(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "windows".to_owned(), rusqlite::types::Type::Text)
}
