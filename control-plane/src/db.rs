//! SQLite behind two threads: one writes, one reads, neither is a connection's.
//!
//! Invariant: when a write returns `Ok`, it is on disk (WAL, `synchronous=FULL`). Writes that
//! wait together are committed together, each behind a savepoint of its own, so that one which
//! fails takes no other with it.

mod schema;

use crate::Error;
use rusqlite::{Connection, OpenFlags, Savepoint, TransactionBehavior};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Writes, and likewise reads, that wait; one more is refused as busy.
const QUEUE_MAX: usize = 1024;
/// Writes committed together.
const GROUP_MAX: usize = 128;
/// How long a statement waits for another process that holds the database.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Runs within a savepoint; says whether to keep it, and whom to tell after the commit.
type Write = Box<dyn FnOnce(&Connection) -> (bool, Box<dyn FnOnce() + Send>) + Send>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The database. Cheap to clone; the last clone ends its threads.
#[derive(Clone)]
pub struct Db(Arc<Threads>);

struct Threads {
    write: Option<mpsc::Sender<Write>>,
    read: Option<mpsc::Sender<Read>>,
    handles: Vec<JoinHandle<()>>,
}

impl Db {
    /// Opens the database at `path`, or makes it, and brings its schema up to date.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open = |reason: String| Error::Open { path: path.to_owned(), reason };
        let mut writer = Connection::open(path).map_err(|error| open(error.to_string()))?;
        writer.busy_timeout(BUSY_MAX)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.pragma_update(None, "foreign_keys", true)?;
        schema::migrate(&mut writer).map_err(open)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(path, flags)?;
        reader.busy_timeout(BUSY_MAX)?;
        let (write, writes) = mpsc::channel(QUEUE_MAX);
        let (read, reads) = mpsc::channel(QUEUE_MAX);
        let handles = vec![
            spawn("db-write", move || write_all(writer, writes))
                .map_err(|e| open(e.to_string()))?,
            spawn("db-read", move || read_all(&reader, reads)).map_err(|e| open(e.to_string()))?,
        ];
        Ok(Self(Arc::new(Threads { write: Some(write), read: Some(read), handles })))
    }

    /// Runs `change` in a transaction; what it returns is on disk. An error undoes it.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::NotCommitted`], or that of `change`.
    pub async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = oneshot::channel();
        let job: Write = Box::new(move |connection| {
            let result = change(connection);
            // Whoever asked may have gone: the write counts all the same.
            (result.is_ok(), Box::new(move || drop(tell.send(result))))
        });
        let queue = self.0.write.as_ref().ok_or(Error::NotCommitted)?;
        queue.try_send(job).map_err(|_| Error::Busy)?;
        told.await.map_err(|_| Error::NotCommitted)?
    }

    /// Runs `query` on what is committed.
    ///
    /// # Errors
    /// [`Error::Busy`], or that of `query`.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (tell, told) = oneshot::channel();
        let job: Read = Box::new(move |connection| {
            // One who gave up waiting costs no query.
            if !tell.is_closed() {
                drop(tell.send(query(connection)));
            }
        });
        let queue = self.0.read.as_ref().ok_or(Error::Busy)?;
        queue.try_send(job).map_err(|_| Error::Busy)?;
        told.await.map_err(|_| Error::Busy)?
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        (self.write, self.read) = (None, None);
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a thread of the database has panicked");
            }
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

fn read_all(connection: &Connection, mut queue: mpsc::Receiver<Read>) {
    while let Some(job) = queue.blocking_recv() {
        job(connection);
    }
}

fn write_all(mut connection: Connection, mut queue: mpsc::Receiver<Write>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(job) = queue.try_recv()
        {
            group.push(job);
        }
        if let Err(error) = commit(&mut connection, group) {
            tracing::error!(%error, "writes were not committed");
        }
    }
}

/// Nobody is told of success before the commit; on an error nobody is told, and each caller
/// sees [`Error::NotCommitted`].
fn commit(connection: &mut Connection, group: Vec<Write>) -> Result<(), rusqlite::Error> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut told = Vec::with_capacity(group.len());
    for job in group {
        let savepoint: Savepoint<'_> = transaction.savepoint()?;
        let (keep, tell) = job(&savepoint);
        if keep {
            savepoint.commit()?;
        } else {
            savepoint.finish()?;
        }
        told.push(tell);
    }
    transaction.commit()?;
    told.into_iter().for_each(|tell| tell());
    Ok(())
}

/// SQLite's integers are signed: more than it holds is its largest.
#[must_use]
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Back from SQLite.
#[must_use]
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_that_fails_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("db")).unwrap();
        let put = |id: &'static str, fail: bool| {
            db.write(move |connection| {
                connection.execute("INSERT INTO accounts VALUES (?1, 1)", [id])?;
                if fail { Err(Error::Busy) } else { Ok(()) }
            })
        };
        let (a, b, c) = tokio::join!(put("a", false), put("b", true), put("c", false));
        assert!(a.is_ok() && b.is_err() && c.is_ok());
        let ids = db
            .read(|connection| {
                let mut query = connection.prepare("SELECT id FROM accounts ORDER BY id")?;
                let ids = query.query_map([], |row| row.get::<_, String>(0))?;
                Ok(ids.collect::<Result<Vec<_>, _>>()?)
            })
            .await;
        assert_eq!(ids.unwrap(), ["a", "c"]);
    }

    #[tokio::test]
    async fn it_is_durable_as_configured() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("db")).unwrap();
        let read = |name: &'static str| {
            db.write(move |connection| {
                Ok(connection.pragma_query_value(None, name, |row| {
                    row.get::<_, rusqlite::types::Value>(0)
                })?)
            })
        };
        assert_eq!(read("synchronous").await.unwrap(), rusqlite::types::Value::Integer(2));
        assert_eq!(read("journal_mode").await.unwrap(), rusqlite::types::Value::Text("wal".into()));
    }

    #[test]
    fn a_database_of_a_newer_release_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Db::open(&path).err().unwrap().to_string();
        assert!(error.contains("schema 99") && error.contains("up to"), "{error}");
        std::fs::write(&path, "not a database, but long enough to look at").unwrap();
        assert!(Db::open(&path).is_err());
    }
}
