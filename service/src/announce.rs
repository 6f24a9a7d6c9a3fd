//! Says where a server listens once it does: for scripts that let it take free ports.

use crate::Error;
use serde::Serialize;
use std::path::Path;

/// Writes `value` as JSON to `path`, whole or not at all; does nothing without a path.
///
/// # Errors
/// [`Error::File`] when the file can't be written.
pub fn announce(path: Option<&Path>, value: &impl Serialize) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_vec(value)
        .map_err(|error| Error::file(path, std::io::Error::other(error)))?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, text).map_err(|error| Error::file(&partial, error))?;
    std::fs::rename(&partial, path).map_err(|error| Error::file(path, error))
}
