//! One process to a data folder: two would write each other's state to pieces.

use crate::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// Locks `dir` for as long as the file that is returned is open: the kernel lets go of it when
/// the process ends, however it ends. `key` names the setting in errors: `edge.data-dir`.
///
/// # Errors
/// [`Error::Locked`] while another process holds it, [`Error::File`].
pub fn lock(dir: &Path, key: &str) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| Error::file(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::Locked { key: key.to_owned(), dir: dir.to_owned() })
        }
        Err(TryLockError::Error(error)) => Err(Error::file(path, error)),
    }
}
