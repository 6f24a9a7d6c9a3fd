//! The log's file, in the hands of one thread: what is asked for together is written and synced
//! together, and the file is rewritten when more than half of it says nothing any more.

use super::{Asked, InForce, Words, remember};
use crate::error::Error;
use crate::metrics::PurgeMetrics;
use crate::purge::file::{self, Header, State};
use crate::purge::rules::Rules;
use crate::purge::{Purge, Purged, What};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Of the purges that wait, so many are written together.
const GROUP_MAX: usize = 256;
/// A file is not rewritten below this.
pub(super) const COMPACT_BYTES_MIN: u64 = 256 << 10;

/// The file, in its thread's hands.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    /// `None`: what is on disk is not known (a write failed, or none was read). It is written
    /// anew before anything is appended.
    pub(super) file: Option<File>,
    pub(super) bytes: u64,
    /// The highest number given, acknowledged or not.
    pub(super) number: u64,
    /// Size from which the file is rewritten.
    compact_at: u64,
}

impl Writer {
    /// Reads the log, or begins one.
    pub(super) fn open(
        path: &Path,
        max: usize,
        metrics: &PurgeMetrics,
        Words { log, lost, refused, .. }: Words,
    ) -> (Self, Rules, VecDeque<Arc<Purged>>) {
        let mut rules = Rules::new(0, max);
        let mut recent = VecDeque::new();
        let mut writer =
            Self { path: path.to_owned(), file: None, bytes: 0, number: 0, compact_at: 0 };
        let shown = path.display();
        match writer.read(&mut rules, &mut recent) {
            Ok(State::Whole) => {}
            Ok(State::Torn(bytes)) => {
                tracing::warn!(path = %shown, bytes, "{log} ends in what was never acknowledged: cut off");
                metrics.damaged.with_label_values(&["torn"]).inc();
            }
            Ok(State::Damaged(reason)) => {
                tracing::error!(path = %shown, reason, "{log} is damaged: {lost}");
                metrics.damaged.with_label_values(&["damaged"]).inc();
                if let Err(error) = std::fs::rename(path, path.with_extension("damaged")) {
                    tracing::warn!(path = %shown, %error, "{log} is damaged, and not kept to be looked at");
                }
                writer.begin_lost(&mut rules, max);
            }
            Err(error) => {
                tracing::error!(path = %shown, %error, "{log} can't be read: {lost}");
                metrics.damaged.with_label_values(&["unreadable"]).inc();
                writer.begin_lost(&mut rules, max);
            }
        }
        if writer.file.is_none()
            && let Err(error) = writer.rewrite(&rules)
        {
            tracing::error!(path = %shown, %error, "{log} can't be written: {refused}");
        }
        writer.compact_at = writer.compact_at.max(compact_at(&rules));
        (writer, rules, recent)
    }

    fn read(
        &mut self,
        rules: &mut Rules,
        recent: &mut VecDeque<Arc<Purged>>,
    ) -> std::io::Result<State> {
        let max = rules.max();
        let Some(mut file) = file::open(&self.path)? else {
            self.begin_anew(rules, max);
            return Ok(State::Whole);
        };
        let rules = std::cell::RefCell::new(rules);
        let found = file::read(
            &file,
            |header| **rules.borrow_mut() = Rules::new(header.floor, max),
            |purged| {
                let purged = Arc::new(purged);
                remember(recent, &purged);
                drop(rules.borrow_mut().apply(purged));
                rules.borrow_mut().fold();
            },
        )?;
        // Above what the lost records can have had: each took bytes.
        let lost = file.metadata()?.len() - found.bytes;
        self.number = match found.state {
            State::Damaged(_) => found.number + lost,
            _ => found.number,
        };
        self.bytes = found.bytes;
        if let State::Torn(_) = found.state {
            file.set_len(found.bytes)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(found.bytes))?;
        self.file = Some(file);
        Ok(found.state)
    }

    /// Purges everything, and takes numbers up above all that may have been given.
    fn begin_anew(&mut self, rules: &mut Rules, max: usize) {
        self.number = (self.number + 1).max(u64::try_from(unix_ms()).unwrap_or(1));
        *rules = Rules::new(self.number, max);
        self.file = None;
    }

    /// The same where purges may have been lost: those were taken before now, so what another node
    /// has kept until now is not to be had again, either. A log that was never there has lost none.
    fn begin_lost(&mut self, rules: &mut Rules, max: usize) {
        self.begin_anew(rules, max);
        let note = "the purge log was lost".to_owned();
        let purge = Purge { what: What::All, site: None, soft: false, note };
        self.number_them(vec![purge]).into_iter().for_each(|purged| drop(rules.apply(purged)));
    }

    pub(super) fn run(mut self, state: &InForce, mut asked: mpsc::Receiver<Asked>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while asked.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let (purges, callers): (Vec<_>, Vec<_>) = group.drain(..).unzip();
            let purges = self.number_them(purges);
            let outcome = self.append(&purges, state).map_err(|error| {
                let Words { log, refused, .. } = state.words;
                tracing::error!(path = %self.path.display(), %error, "{log} can't be written: {refused}");
                let count = callers.len() as u64;
                state.metrics.failures.with_label_values(&["disk"]).inc_by(count);
                Error::NotDurable { path: self.path.clone(), reason: error.to_string() }
            });
            if outcome.is_ok() {
                state.apply(purges.clone());
            }
            // Who is answered finds it counted.
            state.measure(&self);
            for (purged, caller) in purges.iter().zip(callers) {
                // In force, whether or not its caller has waited for it.
                let _ = caller.send(outcome.clone().map(|()| purged.number));
            }
            state.fold();
            self.compact(state);
            state.measure(&self);
        }
    }

    pub(super) fn number_them(&mut self, purges: Vec<Purge>) -> Vec<Arc<Purged>> {
        let unix_ms = unix_ms();
        let numbered = purges.into_iter().map(|purge| {
            self.number += 1;
            Arc::new(Purged { number: self.number, unix_ms, purge })
        });
        numbered.collect()
    }

    /// On disk when it returns.
    pub(super) fn append(
        &mut self,
        purges: &[Arc<Purged>],
        state: &InForce,
    ) -> std::io::Result<()> {
        if self.file.is_none() {
            self.rewrite(&state.rules.read().unwrap_or_else(PoisonError::into_inner))?;
        }
        let Some(file) = &mut self.file else { return Err(std::io::ErrorKind::NotFound.into()) };
        let records: Vec<u8> = purges.iter().flat_map(|purged| file::encode(purged)).collect();
        let written = file.write_all(&records).and_then(|()| file.sync_data());
        match written {
            Ok(()) => self.bytes += records.len() as u64,
            // After a failed sync nobody knows what the disk has: no more on top of it.
            Err(_) => self.file = None,
        }
        written
    }

    /// Rewrites a file that has grown to twice what still counts.
    fn compact(&mut self, state: &InForce) {
        if self.file.is_none() || self.bytes < self.compact_at {
            return;
        }
        // This thread alone changes the rules: verdicts go on while it reads them.
        let covered = state.rules.read().unwrap_or_else(PoisonError::into_inner).covered();
        state.drop_in_steps(&covered);
        let rules = state.rules.read().unwrap_or_else(PoisonError::into_inner);
        match self.rewrite(&rules) {
            Ok(()) => state.metrics.compactions.inc(),
            Err(error) => {
                let log = state.words.log;
                tracing::error!(path = %self.path.display(), %error, "{log} can't be rewritten");
                self.compact_at = self.bytes.saturating_mul(2);
            }
        }
    }

    /// Replaces the file by one of what still counts.
    pub(super) fn rewrite(&mut self, rules: &Rules) -> std::io::Result<()> {
        let header = Header { number: self.number, floor: rules.floor() };
        let (file, bytes) = file::replace(&self.path, header, rules.kept().map(|kept| &**kept))?;
        (self.file, self.bytes) = (Some(file), bytes);
        self.compact_at = compact_at(rules);
        Ok(())
    }
}

fn compact_at(rules: &Rules) -> u64 {
    (2 * (file::HEADER_BYTES + rules.bytes())).max(COMPACT_BYTES_MIN)
}

pub(super) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
