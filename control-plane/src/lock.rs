//! One control plane to a data folder: two would each hold half of the fleet, and number plans
//! twice.

use crate::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// Locks `dir` for as long as the file that is returned is open: the kernel lets go of it when
/// the process ends, however it ends.
///
/// # Errors
/// [`Error::Locked`] while another process holds it.
pub(crate) fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let failed = |source| Error::Write { path: path.clone(), source };
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
