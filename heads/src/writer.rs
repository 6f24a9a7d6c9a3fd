//! The thread that writes heads: it gathers changes for a tenth of a second, or until somebody
//! waits for them, writes them, and takes out what is too much. It is also the one that opens the
//! database, and begins a new one in place of one that is damaged.
//!
//! A disk that fails never stops the node: the changes wait (bounded, see `shard`) and are tried
//! again every second.

use crate::db;
use crate::heads::{Shared, hour_now};
use crate::room::{Room, Size};
use crate::wake::Written;
use rusqlite::Connection;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long changes gather before they are written together.
const GATHER: Duration = Duration::from_millis(100);
/// Rows taken out in one step, beside two for each that it has added.
const TRIM_ROWS: u64 = 500;
/// How long a database that failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// The database in the writer's hands.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// None: not read yet.
    rows: Option<u64>,
    size: Size,
    room: Room,
    /// There are more rows than may be.
    has_excess: bool,
    /// When a database that failed may be tried again.
    retry: Option<Instant>,
    /// Batches were written that a power cut may undo.
    is_unsynced: bool,
}

impl Writer {
    /// Opens the database, so that heads can be read from the start.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let mut writer = Self {
            shared,
            connection: None,
            rows: None,
            size: Size::default(),
            room: Room::default(),
            has_excess: false,
            retry: None,
            is_unsynced: true,
        };
        writer.open();
        writer
    }

    /// Writes until the end.
    pub(crate) fn run(mut self) {
        loop {
            let shared = Arc::clone(&self.shared);
            let wake = &shared.wake;
            let busy = self.retry.is_some() || self.has_excess || self.rows.is_none();
            wake.wait_for_work(if busy { GATHER } else { Duration::from_secs(3600) });
            if wake.is_work() {
                wake.wait_for_flush(GATHER);
            }
            let ending = wake.is_ending();
            if !ending && self.retry.is_some_and(|at| Instant::now() < at) {
                // They need not wait to learn it.
                tell(wake.flushes(), false);
                wake.wait_for_end(GATHER);
                continue;
            }
            wake.taken();
            let flushes = wake.flushes();
            let written = self.step();
            let durable = written && (flushes.is_empty() || self.sync());
            tell(flushes, durable);
            if ending {
                return wake.ended();
            }
        }
    }

    /// One batch. Whether all that waited is in the database.
    fn step(&mut self) -> bool {
        self.retry = None;
        let generation = self.shared.generation.load(Ordering::Acquire);
        // A read of the database before this one says nothing about this one.
        let damaged = self.shared.damaged.swap(0, Ordering::AcqRel) == generation && generation > 0;
        let distrusted = self.shared.distrusted.load(Ordering::Acquire);
        if damaged {
            self.begin_anew("a read found it damaged", false);
        } else if distrusted {
            self.begin_anew("removals were lost while the disk failed", true);
        } else if self.connection.is_none() {
            self.open();
        }
        let outcome = self.write();
        if let Err(error) = &outcome {
            self.failed("write", error);
        }
        self.shared.measure(self.rows.map(|rows| (rows, self.size.used())));
        outcome.unwrap_or(false)
    }

    /// Makes what is in the database outlive a power cut.
    fn sync(&mut self) -> bool {
        if !self.is_unsynced {
            return true;
        }
        if let Err(error) = db::sync(&self.shared.path) {
            let path = self.shared.path.display();
            tracing::error!(%path, %error, "the heads' database can't be synced");
            self.shared.metrics.failures.with_label_values(&["sync"]).inc();
            return false;
        }
        self.is_unsynced = false;
        for shard in &self.shared.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.synced = shard.batches;
        }
        true
    }

    /// Whether there is a database to write to.
    fn write(&mut self) -> Result<bool, rusqlite::Error> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        let rows = match &mut self.rows {
            Some(rows) => rows,
            none => none.insert(db::count(connection)?),
        };
        let rows_before = *rows;
        for shard in &self.shared.shards {
            if shard.lock().unwrap_or_else(PoisonError::into_inner).waiting.is_empty() {
                continue;
            }
            let may_add = self.room.may_add(&self.shared.path, db::size(connection)?);
            let pending = {
                let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                let pending = Arc::new(std::mem::take(&mut shard.waiting));
                shard.writing = Some(Arc::clone(&pending));
                pending
            };
            let metrics = &self.shared.metrics;
            self.is_unsynced = true;
            let outcome = db::write(connection, &pending, hour_now(), may_add, rows, metrics);
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.writing = None;
            shard.batches += 1;
            match outcome {
                Ok(crowded) => {
                    for key in crowded {
                        shard.waiting.change(key, |rows| rows.touch = true);
                        self.shared.wake.work();
                    }
                }
                Err(error) => {
                    let pending = Arc::try_unwrap(pending).unwrap_or_default();
                    pending.return_to(&mut shard.waiting);
                    return Err(error);
                }
            }
        }
        let (bytes_max, size) = (self.shared.disk_bytes_max, db::size(connection)?);
        // As many as are likely to take that.
        let excess = u128::from(self.room.excess(size, bytes_max)) * u128::from(*rows);
        let excess = u64::try_from(excess.div_ceil(size.used().max(1).into())).unwrap_or(u64::MAX);
        let step = TRIM_ROWS + 2 * rows.saturating_sub(rows_before);
        let trimmed = db::trim(connection, *rows, excess.min(step))?;
        *rows = rows.saturating_sub(trimmed);
        self.size = db::size(connection)?;
        self.has_excess = trimmed > 0 && self.room.excess(self.size, bytes_max) > 0;
        self.shared.metrics.evicted.with_label_values(&["disk"]).inc_by(trimmed);
        Ok(true)
    }

    fn failed(&mut self, operation: &str, error: &rusqlite::Error) {
        let path = self.shared.path.display();
        tracing::error!(%path, operation, %error, "the heads' database fails: heads stay in memory");
        self.shared.metrics.failures.with_label_values(&[operation]).inc();
        if db::is_damage(error) {
            let generation = self.shared.generation.load(Ordering::Acquire);
            self.shared.damaged.store(generation, Ordering::Release);
        }
        // It may be the connection that is broken: the next try makes its own.
        self.connection = None;
        self.rows = None;
        self.has_excess = false;
        self.retry = Some(Instant::now() + RETRY);
        self.shared.wake.work();
    }

    /// Opens what is there; in place of what is no database, begins one.
    fn open(&mut self) {
        self.rows = None;
        match db::open(&self.shared.path) {
            Ok(connection) => self.opened(connection),
            Err(error) if db::is_damage(&error) => self.begin_anew(&error.to_string(), false),
            Err(error) => self.failed("open", &error),
        }
    }

    fn opened(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.is_unsynced = true;
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Puts the database aside and begins one; if it only says too much, it just goes.
    fn begin_anew(&mut self, reason: &str, lost_removals: bool) {
        let path = &self.shared.path;
        self.connection = None;
        let gone = match lost_removals {
            true => db::remove(path),
            false => db::set_aside(path).map(|aside| {
                let (path, aside) = (path.display(), aside.display());
                tracing::error!(%path, %aside, reason, "the heads' database is put aside");
            }),
        };
        match gone {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(path = %path.display(), %error, reason, "can't begin a new database");
                self.shared.metrics.failures.with_label_values(&["open"]).inc();
                if !lost_removals {
                    let generation = self.shared.generation.load(Ordering::Acquire);
                    self.shared.damaged.store(generation, Ordering::Release);
                }
                self.retry = Some(Instant::now() + RETRY);
                return self.shared.wake.work();
            }
            _ if lost_removals => self.shared.metrics.restarted.inc(),
            _ => self.shared.metrics.damaged.with_label_values(&["database"]).inc(),
        }
        match db::open(path) {
            Ok(connection) => {
                self.rows = Some(0);
                self.opened(connection);
                // Reads that began on the old one are made again.
                for shard in &self.shared.shards {
                    shard.lock().unwrap_or_else(PoisonError::into_inner).batches += 1;
                }
                self.shared.distrusted.store(false, Ordering::Release);
            }
            Err(error) => self.failed("open", &error),
        }
    }
}

fn tell(flushes: Vec<Written>, durable: bool) {
    for flush in flushes {
        // Whoever gave up waiting has had its answer.
        let _ = flush.send(durable);
    }
}
